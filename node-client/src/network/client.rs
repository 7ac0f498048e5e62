//! Hands the network to services: a handle that implements [`Network`], with a clone for each of them.

use std::{
    collections::HashMap,
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc, PoisonError,
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use libp2p::{identity::Keypair, Multiaddr, PeerId};
use protocol::Hash;
use tokio::sync::{mpsc, oneshot, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    behaviour,
    codec::{RangeRequest, RangeResponse, RANGE_LEN_MAX},
    command::Command,
    counters::{CounterCells, Counters},
    download::{self, Shared},
    event_loop::EventLoop,
    fetch::{self, FetchLimits, RangeSource},
    mirrored::Mirrored,
    pace::Pace,
    partials::Partials,
    roles::Role,
    scores::{self, Scores},
    server::Server,
    standing::Standing,
    FaultKind, FetchError, FetchRequest, Fetched, Keep, Network, NetworkConfig, NetworkError,
    PeerAddress, Pieces, PiecesFetched, PiecesRequest, StartError,
};
use crate::{
    clock::Clock,
    keys::sign_as_peer,
    mirror::{Mirror, MirrorError},
    store::{Assembled, Content, Cut, Found, Part, Slot, Store, StoreError},
};

/// Bytes of a content that is read whole before it is published again: more than a payload has, less than would keep a process
/// from beginning.
const CHECKED_BYTES_MAX: u64 = 8 << 30;

/// Threads that read and check one content of the own store at most: what a fast disk gives.
const TAKE_THREADS_MAX: usize = 8;

/// A handle to the running network. The network closes when the last one is dropped, or by [`Client::shutdown`].
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    shutdown: CancellationToken,
    local_peer: PeerId,
    key: Keypair,
    limits: FetchLimits,
    fetches: Arc<Semaphore>,
    shared: Arc<Shared>,
    partials: Arc<Partials>,
    /// Contents that are being fetched piece by piece: who wants one that is waits for it.
    arriving: Arc<std::sync::Mutex<HashMap<Hash, Arc<tokio::sync::Mutex<()>>>>>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    counters: Arc<CounterCells>,
    mirror: Option<Arc<Mirrored>>,
    /// Saves them when the last handle is dropped.
    scores: Option<Arc<Scores>>,
}

/// Starts the network as a task of the current tokio runtime, serving from `store`, and returns when it listens. What
/// is pinned in the store is published.
///
/// Cancel-safe: when dropped, nothing is left running.
///
/// # Errors
/// [`StartError`].
pub async fn start(
    config: NetworkConfig,
    key: Keypair,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
) -> Result<Client, StartError> {
    let local_peer = key.public().to_peer_id();
    let pace = Pace::new(clock.clone());
    let swarm = behaviour::swarm(&config, key.clone(), clock.clone(), pace.clone())?;
    let (sender, receiver) = mpsc::channel(config.commands_max.max(1));
    let shutdown = CancellationToken::new();
    let counters = Arc::new(CounterCells::default());
    let standing = Arc::new(Standing::new(clock.clone()));
    let scores = config.scores.clone().map(|path| Scores::open(path, standing.clone()));
    let scores = scores.map(Arc::new);
    let client = Client {
        commands: sender,
        shutdown: shutdown.clone(),
        local_peer,
        key,
        limits: FetchLimits {
            range_len: config.range_len.clamp(1, RANGE_LEN_MAX),
            peers_max: config.fetch_peers_max,
        },
        fetches: Arc::new(Semaphore::new(config.fetches_max.max(1))),
        shared: Arc::new(Shared::new(standing, config.pieces_bytes_max)),
        partials: Arc::default(),
        arriving: Arc::default(),
        store: store.clone(),
        clock: clock.clone(),
        counters: counters.clone(),
        mirror: None,
        scores: scores.clone(),
    };
    let server = Server::new(&config, store.clone(), clock.clone(), counters.clone(), pace);
    let mut event_loop = EventLoop::new(config, swarm, store, counters, server, receiver, shutdown);
    event_loop.listen().await?;
    tokio::spawn(event_loop.run());
    if let Some(scores) = scores {
        tokio::spawn(scores::save_often(Arc::downgrade(&scores), clock));
    }
    Ok(client)
}

impl Client {
    /// The same network, with a mirror that this handle and its clones ask beside the peers and copy contents to.
    pub fn with_mirror(self, mirror: Mirror) -> Self {
        let mirror = Mirrored::new(mirror, self.clock.clone());
        Self { mirror: Some(Arc::new(mirror)), ..self }
    }

    /// Who the mirror is in reports of fetches; `None` without one.
    pub fn mirror_peer(&self) -> Option<PeerId> {
        self.mirror.as_ref().map(|mirror| mirror.peer())
    }

    /// Those to ask, the mirror among them.
    fn with_the_mirror(&self, providers: Vec<PeerAddress>) -> Vec<PeerAddress> {
        match &self.mirror {
            Some(mirror) => mirror.among(providers),
            None => providers,
        }
    }

    /// Closes every connection and stops serving; returns when that is done. What is under way ends as closed. Cancel-
    /// safe: when dropped, the network closes all the same.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        self.commands.closed().await;
        if let Some(scores) = self.scores.clone() {
            // A blocking task ends without a result only when the runtime shuts down, and then nobody waits for it.
            let _ = tokio::task::spawn_blocking(move || scores.save()).await;
        }
    }

    /// Spreads the provider record of a published content again, and returns when it has been sent to the peers that
    /// should keep it, or could not be. Returns at once if `id` is not published. Cancel-safe.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    pub async fn announce(&self, id: Hash) -> Result<(), NetworkError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Announce { id, reply };
        self.commands.send(command).await.map_err(|_| NetworkError::Closed)?;
        match answer.await {
            Err(_) if self.commands.is_closed() => Err(NetworkError::Closed),
            _ => Ok(()),
        }
    }

    /// What has been sent and received so far.
    pub fn counters(&self) -> Counters {
        self.counters.read()
    }

    /// The store that is served from.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Sends a command and waits for its answer; `None` if the network is closed.
    async fn command<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Runs a blocking call of the store.
    async fn with_store<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let store = self.store.clone();
        let result = tokio::task::spawn_blocking(move || call(&store)).await;
        // A blocking task ends without a result only when the runtime shuts down.
        Ok(result.map_err(|_| NetworkError::Closed)??)
    }

    /// Serves what is in the store and pinned; what is too much is not kept for it either.
    async fn serve_pinned(&self, id: Hash) -> Result<(), NetworkError> {
        let answer = self.command(|reply| Command::Publish { id, reply });
        let served = answer.await.ok_or(NetworkError::Closed)?;
        if served.is_err() {
            self.with_store(move |store| store.unpin(&id)).await?;
        }
        served
    }

    /// What whoever fetches the pieces of a content holds meanwhile.
    fn turn(&self, id: Hash) -> Arc<tokio::sync::Mutex<()>> {
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        arriving.retain(|_, turn| Arc::strong_count(turn) > 1);
        arriving.entry(id).or_default().clone()
    }

    /// The content, if it is in the own store and the check accepts it.
    async fn fetch_own(&self, request: &FetchRequest) -> Option<Bytes> {
        let (id, len_max) = (request.id, request.len_max);
        let read = move |store: &Store| match store.len_of(&id) {
            Some(len) if len <= len_max => store.get(&id),
            _ => Ok(None),
        };
        match self.with_store(read).await {
            Ok(bytes) => fetch::verified(&request.verify, bytes?).await,
            Err(error) => {
                tracing::warn!(%error, "own copy cannot be read");
                None
            }
        }
    }
}

/// Hands over the pieces of an object, from several threads, until one is missing or wrong: then the disk has changed it, and
/// peers are asked.
fn take_own(store: &Store, id: &Hash, pieces: &dyn Pieces) -> Result<(), StoreError> {
    if store.len_of(id) != Some(pieces.byte_len()) {
        return Ok(());
    }
    for_each_piece(pieces, false, |index, place| match read_own(store, id, pieces, index, place)? {
        Found::Range(range) => Ok(pieces.accept(index, &range.bytes)),
        Found::Part(..) | Found::OtherPieces(_) | Found::Nothing => Ok(false),
    })
}

/// One piece of an object, whose place is `(offset, len)`.
fn read_own(
    store: &Store,
    id: &Hash,
    pieces: &dyn Pieces,
    index: usize,
    (offset, len): (u64, u32),
) -> Result<Found, StoreError> {
    if pieces.is_numbered() {
        let piece = u32::try_from(index).unwrap_or(u32::MAX);
        return store.find_unchecked(id, Some(piece), 0, len);
    }
    store.find_unchecked(id, None, offset, len)
}

/// Calls `take` with each piece that is not here, or with `all`, and its place, from several threads, until it says no.
fn for_each_piece(
    pieces: &dyn Pieces,
    all: bool,
    take: impl Fn(usize, (u64, u32)) -> Result<bool, StoreError> + Sync,
) -> Result<(), StoreError> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), StoreError> {
        while let Some((index, (offset, len, is_here))) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            pieces.piece(index).map(|piece| (index, piece))
        } {
            if (all || !is_here) && !take(index, (offset, len))? {
                next.store(pieces.count(), Ordering::Relaxed);
            }
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let others = threads.min(TAKE_THREADS_MAX).min(pieces.count());
        let others: Vec<_> = (1..others).map(|_| scope.spawn(work)).collect();
        let own = work();
        let mut others = others.into_iter().map(|other| other.join().unwrap_or(Ok(())));
        own.and_then(|()| others.try_for_each(|result| result))
    })
}

fn part_error(source: std::io::Error) -> StoreError {
    StoreError::Io { action: "use", path: "parts".into(), source }
}

/// Where the pieces of a content are kept while it arrives.
pub(super) fn slots(pieces: &dyn Pieces) -> Vec<Slot> {
    let piece = |index| pieces.piece(index).map(|(offset, len_max, _)| Slot { offset, len_max });
    (0..pieces.count()).map_while(piece).collect()
}

/// Makes what has arrived an object of the store, if there is room; the content, if it is wanted and can be read.
fn finish(
    store: &Store,
    id: Hash,
    pieces: &dyn Pieces,
    part: Option<Arc<Part>>,
    whole: bool,
) -> Option<Bytes> {
    let (head, cut) = pieces.cut().map_or_else(Default::default, |(head, cut)| (head, Some(cut)));
    if let Some(part) = part.filter(|part| part.is_whole()) {
        if let Err(error) = store.finish(id, &part, &head, cut.as_ref(), pieces.byte_len()) {
            tracing::warn!(%error, "what arrived is not in the store");
            let content = Assembled::new(&part, &head, cut.as_ref(), pieces.byte_len());
            return content.filter(|_| whole)?.to_bytes();
        }
    }
    store.map(&id).ok().flatten().filter(|bytes| whole && bytes.len() as u64 == pieces.byte_len())
}

#[async_trait]
impl Network for Client {
    fn local_peer(&self) -> PeerId {
        self.local_peer
    }

    fn sign(&self, message: &Hash) -> Option<[u8; 64]> {
        sign_as_peer(&self.key, message)
    }

    async fn listen_addresses(&self) -> Result<Vec<Multiaddr>, NetworkError> {
        let answer = self.command(|reply| Command::ListenAddresses { reply });
        answer.await.ok_or(NetworkError::Closed)
    }

    async fn reachable_addresses(&self) -> Result<Vec<Multiaddr>, NetworkError> {
        let answer = self.command(|reply| Command::ReachableAddresses { reply });
        answer.await.ok_or(NetworkError::Closed)
    }

    async fn add_peer(&self, peer: PeerAddress) -> Result<(), NetworkError> {
        let answer = self.command(|reply| Command::AddPeer { peer, reply });
        answer.await.ok_or(NetworkError::Closed)
    }

    async fn set_roles(&self, roles: HashMap<PeerId, Role>) -> Result<(), NetworkError> {
        let answer = self.command(|reply| Command::SetRoles { roles, reply });
        answer.await.ok_or(NetworkError::Closed)
    }

    async fn keep(&self, keep: Keep) -> Result<(), NetworkError> {
        let answer = self.command(|reply| Command::Keep { keep, reply });
        answer.await.ok_or(NetworkError::Closed)
    }

    async fn publish(&self, id: Hash, bytes: Bytes) -> Result<(), NetworkError> {
        self.with_store(move |store| {
            // Pinned first, so that no other put drops it in between.
            store.pin(&id)?;
            // As it was fetched.
            if store.map(&id)?.is_some_and(|kept| kept == bytes) && store.is_intact(&id) {
                return Ok(());
            }
            store.put(id, &bytes).inspect_err(|_| {
                if !store.contains(&id) {
                    let _ = store.unpin(&id);
                }
            })
        })
        .await?;
        self.serve_pinned(id).await
    }

    async fn publish_content(
        &self,
        id: Hash,
        content: Arc<dyn Content>,
        cut: Option<Cut>,
    ) -> Result<(), NetworkError> {
        self.with_store(move |store| {
            store.pin(&id)?;
            // One that an earlier process put may be damaged by now. A state is read when it is served.
            let len = content.byte_len();
            let is_whole = || len > CHECKED_BYTES_MAX || store.is_intact(&id);
            let is_cut = || {
                let kept = store.cut(&id).ok().flatten();
                cut.as_ref().is_none_or(|cut| kept.is_some_and(|kept| kept == cut.to_bytes()))
            };
            if store.len_of(&id) == Some(len) && is_whole() && is_cut() {
                return Ok(());
            }
            let put = match cut {
                Some(cut) => store.put_cut(id, &*content, &cut),
                None => store.put_content(id, &*content),
            };
            put.inspect_err(|_| {
                if !store.contains(&id) {
                    let _ = store.unpin(&id);
                }
            })
        })
        .await?;
        self.serve_pinned(id).await
    }

    async fn unpublish(&self, id: Hash) -> Result<(), NetworkError> {
        let answer = self.command(|reply| Command::Unpublish { id, reply });
        answer.await.ok_or(NetworkError::Closed)?;
        self.with_store(move |store| store.unpin(&id)).await
    }

    async fn copy_to_mirror(&self, id: Hash) -> Result<bool, MirrorError> {
        let mirror = self.mirror.as_ref().map(|mirror| &mirror.mirror);
        let Some(mirror) = mirror.filter(|mirror| mirror.is_copied_to()) else {
            return Ok(false);
        };
        let cut = self.with_store(move |store| store.cut(&id)).await;
        let cut = cut.map_err(|error| MirrorError::Refused(error.to_string()))?;
        let content = self.store.stored(&id);
        let content = content.ok_or_else(|| MirrorError::Refused("it is not here".to_owned()))?;
        mirror.put(&*self.clock, &id, Arc::new(content), cut).await
    }

    async fn fetch(&self, mut request: FetchRequest) -> Result<Fetched, FetchError> {
        let permit = self.fetches.acquire().await;
        let _permit = permit.map_err(|_| FetchError::Closed)?;
        if let Some(bytes) = self.fetch_own(&request).await {
            return Ok(Fetched { bytes, peers: Vec::new(), faults: Vec::new() });
        }
        request.providers = self.with_the_mirror(request.providers);
        fetch::fetch(
            self,
            &*self.clock,
            self.limits,
            &self.shared.standing,
            &self.partials,
            request,
        )
        .await
    }

    async fn fetch_pieces(&self, mut request: PiecesRequest) -> Result<PiecesFetched, FetchError> {
        request.providers = self.with_the_mirror(request.providers);
        let PiecesRequest { id, pieces, whole, .. } = request.clone();
        let turn = self.turn(id);
        let _turn = turn.lock().await;
        let taken = pieces.clone();
        let part = self.with_store(move |store| here(store, id, &*taken)).await;
        let part = match part {
            Ok(part) => part,
            Err(NetworkError::Closed) => return Err(FetchError::Closed),
            // What cannot be kept under its name is kept without one.
            Err(error) => {
                tracing::warn!(%error, "a content that arrives does not outlive this process");
                Some(Arc::new(Part::unnamed(slots(&*pieces)).map_err(FetchError::Unkept)?))
            }
        };
        let mut fetched = download::download(
            self,
            &*self.clock,
            self.limits,
            &self.shared,
            request,
            part.clone(),
        )
        .await?;
        let whole =
            self.with_store(move |store| Ok(finish(store, id, &*pieces, part, whole))).await;
        fetched.bytes = whole.map_err(|_| FetchError::Closed)?;
        Ok(fetched)
    }
}

/// Hands over what is here of a content, whole or in part. The part that what is missing goes to, if anything is.
///
/// # Errors
/// The part cannot be opened.
fn here(store: &Store, id: Hash, pieces: &dyn Pieces) -> Result<Option<Arc<Part>>, StoreError> {
    if let Err(error) = take_own(store, &id, pieces) {
        tracing::warn!(%error, "own copy cannot be read");
    }
    if (0..pieces.count()).all(|index| pieces.piece(index).is_none_or(|(_, _, is_here)| is_here)) {
        return Ok(None);
    }
    // The disk has changed the object: what is right of it is had from there, and it is made anew.
    let part = store.part(id, slots(pieces))?;
    for_each_piece(pieces, false, |index, _| {
        let read = part.read(index).or_else(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Ok(None),
            _ => Err(error),
        });
        if let Some(bytes) = read.map_err(part_error)? {
            part.confirm(index, pieces.accept(index, &bytes));
        }
        Ok(true)
    })?;
    // A content of another length is another one's, whatever is claimed of it: it stays.
    if store.len_of(&id) == Some(pieces.byte_len()) {
        for_each_piece(pieces, true, |index, place| {
            if !part.has(index) {
                if let Found::Range(range) = read_own(store, &id, pieces, index, place)? {
                    if pieces.accept(index, &range.bytes) {
                        part.write(index, &range.bytes).map_err(part_error)?;
                    }
                }
            }
            Ok(true)
        })?;
        store.remove(&id)?;
    }
    Ok(Some(part))
}

#[async_trait]
impl RangeSource for Client {
    async fn range(
        &self,
        peer: &PeerAddress,
        request: RangeRequest,
    ) -> Result<Result<RangeResponse, FaultKind>, FetchError> {
        if let Some(mirror) = self.mirror.as_ref().filter(|mirror| mirror.is(peer)) {
            let answer = mirror.range(request).await;
            if let Ok(RangeResponse::Found { bytes, .. }) = &answer {
                self.counters.add_mirrored(bytes.len());
            }
            return Ok(answer);
        }
        let peer = peer.clone();
        let given_up = CancellationToken::new();
        let _is_wanted = given_up.clone().drop_guard();
        let answer = self.command(|reply| Command::Range { peer, request, given_up, reply });
        answer.await.ok_or(FetchError::Closed)
    }

    async fn providers(&self, id: Hash) -> Result<Vec<PeerAddress>, FetchError> {
        let found = self.command(|reply| Command::Providers { id, reply });
        let found = found.await.ok_or(FetchError::Closed)?;
        // The event loop is connecting to them already.
        let peers = found.into_iter().map(|peer| PeerAddress { peer, addresses: Vec::new() });
        Ok(peers.collect())
    }

    fn local_peer(&self) -> PeerId {
        self.local_peer
    }
}
