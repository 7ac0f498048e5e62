//! Hands the network to services: a handle that implements [`Network`], with a clone for each of them.

use std::sync::{
    atomic::{AtomicUsize, Ordering},
    Arc,
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
    event_loop::EventLoop,
    fetch::{self, FetchLimits, RangeSource},
    partials::Partials,
    standing::Standing,
    FaultKind, FetchError, FetchRequest, Fetched, Network, NetworkConfig, NetworkError,
    PeerAddress, Pieces, PiecesFetched, PiecesRequest, StartError,
};
use crate::{
    clock::Clock,
    keys::sign_as_peer,
    store::{Content, Store, StoreError},
};

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
    standing: Arc<Standing>,
    partials: Arc<Partials>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    counters: Arc<CounterCells>,
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
    let swarm = behaviour::swarm(&config, key.clone())?;
    let (sender, receiver) = mpsc::channel(config.commands_max.max(1));
    let shutdown = CancellationToken::new();
    let counters = Arc::new(CounterCells::default());
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
        standing: Arc::default(),
        partials: Arc::default(),
        store: store.clone(),
        clock: clock.clone(),
        counters: counters.clone(),
    };
    let mut event_loop = EventLoop::new(config, swarm, store, clock, counters, receiver, shutdown);
    event_loop.listen().await?;
    tokio::spawn(event_loop.run());
    Ok(client)
}

impl Client {
    /// Closes every connection and stops serving; returns when that is done. What is under way ends as closed. Cancel-
    /// safe: when dropped, the network closes all the same.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        self.commands.closed().await;
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
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), StoreError> {
        while let Some((index, (offset, len, is_here))) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            pieces.piece(index).map(|piece| (index, piece))
        } {
            if is_here {
                continue;
            }
            let range = store.read_range(id, offset, len)?;
            if !range.is_some_and(|range| pieces.accept(index, &range.bytes)) {
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

    async fn add_peer(&self, peer: PeerAddress) -> Result<(), NetworkError> {
        let answer = self.command(|reply| Command::AddPeer { peer, reply });
        answer.await.ok_or(NetworkError::Closed)
    }

    async fn publish(&self, id: Hash, bytes: Bytes) -> Result<(), NetworkError> {
        self.with_store(move |store| {
            // Pinned first, so that no other put drops it in between.
            store.pin(&id)?;
            store.put(id, &bytes).inspect_err(|_| {
                if !store.contains(&id) {
                    let _ = store.unpin(&id);
                }
            })
        })
        .await?;
        let answer = self.command(|reply| Command::Publish { id, reply });
        answer.await.ok_or(NetworkError::Closed)?
    }

    async fn publish_content(
        &self,
        id: Hash,
        content: Arc<dyn Content>,
    ) -> Result<(), NetworkError> {
        self.with_store(move |store| {
            store.pin(&id)?;
            if store.len_of(&id) == Some(content.byte_len()) {
                return Ok(());
            }
            store.put_content(id, &*content).inspect_err(|_| {
                if !store.contains(&id) {
                    let _ = store.unpin(&id);
                }
            })
        })
        .await?;
        let answer = self.command(|reply| Command::Publish { id, reply });
        answer.await.ok_or(NetworkError::Closed)?
    }

    async fn unpublish(&self, id: Hash) -> Result<(), NetworkError> {
        let answer = self.command(|reply| Command::Unpublish { id, reply });
        answer.await.ok_or(NetworkError::Closed)?;
        self.with_store(move |store| store.unpin(&id)).await
    }

    async fn fetch(&self, request: FetchRequest) -> Result<Fetched, FetchError> {
        let permit = self.fetches.acquire().await;
        let _permit = permit.map_err(|_| FetchError::Closed)?;
        if let Some(bytes) = self.fetch_own(&request).await {
            return Ok(Fetched { bytes, peers: Vec::new(), faults: Vec::new() });
        }
        fetch::fetch(self, &*self.clock, self.limits, &self.standing, &self.partials, request).await
    }

    async fn fetch_pieces(&self, request: PiecesRequest) -> Result<PiecesFetched, FetchError> {
        let permit = self.fetches.acquire().await;
        let _permit = permit.map_err(|_| FetchError::Closed)?;
        let (id, pieces) = (request.id, request.pieces.clone());
        if let Err(error) = self.with_store(move |store| take_own(store, &id, &*pieces)).await {
            tracing::warn!(%error, "own copy cannot be read");
        }
        fetch::fetch_pieces(self, &*self.clock, self.limits, &self.standing, request).await
    }
}

#[async_trait]
impl RangeSource for Client {
    async fn range(
        &self,
        peer: &PeerAddress,
        request: RangeRequest,
    ) -> Result<Result<RangeResponse, FaultKind>, FetchError> {
        let peer = peer.clone();
        let answer = self.command(|reply| Command::Range { peer, request, reply });
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
