//! Connects peers of one process through a shared hub, without sockets, for tests.
//!
//! The rules of a fetch are the real ones ([`super::fetch`]); only the transport is missing. There is no task, and no timer but
//! that of a question to who is mute, so a test on one thread gives the same order every time. What is published piece by piece lies in a file, as with the
//! real one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use libp2p::{identity::Keypair, multiaddr::Protocol, Multiaddr, PeerId};
use protocol::Hash;

use super::{
    client::slots,
    codec::{RangeRequest, RangeResponse, RANGE_LEN_MAX},
    download::{self, Shared},
    fetch::{self, FetchLimits, RangeSource},
    mirrored::Mirrored,
    partials::Partials,
    roles::Role,
    standing::Standing,
    FaultKind, FetchError, FetchRequest, Fetched, Keep, Network, NetworkError, PeerAddress, Pieces,
    PiecesFetched, PiecesRequest,
};
use crate::{
    clock::Clock,
    keys::sign_as_peer,
    mirror::{Mirror, MirrorError},
    store::{Assembled, Content, Cut, Part, Span, StoreError},
};

/// A range of the most bytes, 32 peers.
const LIMITS: FetchLimits = FetchLimits { range_len: RANGE_LEN_MAX, peers_max: 32 };

/// What connects the peers of one test; clones are the same hub.
#[derive(Clone, Default)]
pub struct MemoryHub {
    peers: Arc<Mutex<BTreeMap<PeerId, MemoryPeer>>>,
}

/// How a peer of a [`MemoryHub`] answers the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Serving {
    /// With what it published.
    #[default]
    Honest,
    /// It says that it has nothing.
    Nothing,
    /// With bytes of the right length, all of them wrong.
    Wrong,
    /// Not at all, so that each question is given up in the end.
    Mute,
}

/// How long a question to a mute peer is open.
const MUTE: Duration = Duration::from_secs(30);

/// Bytes of pieces on their way, as the real network's default.
const PIECES_BYTES_MAX: usize = 64 << 20;

/// A published content.
#[derive(Clone)]
enum Kept {
    Bytes(Bytes),
    /// A file that has no name, and its length.
    File(Arc<File>, u64),
}

impl Kept {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    /// At most `len` bytes from `offset` on.
    fn range(&self, offset: u64, len: u64) -> std::io::Result<Bytes> {
        let start = offset.min(self.len());
        let end = start.saturating_add(len).min(self.len());
        match self {
            Self::Bytes(bytes) => Ok(bytes.slice(start as usize..end as usize)),
            Self::File(file, _) => {
                let mut bytes = vec![0; (end - start) as usize];
                file.read_exact_at(&mut bytes, start)?;
                Ok(bytes.into())
            }
        }
    }

    /// The piece that is these bytes.
    fn piece(&self, spans: &[Span]) -> Option<Bytes> {
        let ranges = spans.iter().map(|span| self.range(span.offset, span.len.into()).ok());
        let ranges: Option<Vec<Bytes>> = ranges.collect();
        Some(ranges?.concat().into())
    }

    /// A copy of a content in a file.
    fn file(content: &dyn Content) -> std::io::Result<Self> {
        let file = tempfile::tempfile()?;
        let mut buffer = vec![0; RANGE_LEN_MAX as usize];
        let len = content.byte_len();
        let mut offset = 0;
        while offset < len {
            let count = content.read(offset, &mut buffer);
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all_at(&buffer[..count], offset)?;
            offset += count as u64;
        }
        Ok(Self::File(Arc::new(file), len))
    }
}

#[derive(Default)]
struct MemoryPeer {
    published: BTreeMap<Hash, Kept>,
    /// Where the pieces of published contents lie whose pieces are numbered.
    cuts: BTreeMap<Hash, Cut>,
    serving: Serving,
    offline: bool,
    /// Ranges it still serves before it goes offline by itself.
    ranges_left: Option<u32>,
    /// Whom it cannot reach.
    cut_off: BTreeSet<PeerId>,
    /// Contents that its store has room for.
    room: Option<usize>,
    /// Ranges that it still asks for before it reaches nobody.
    asks_left: Option<u32>,
    /// Ranges of each content that it was served.
    had: BTreeMap<Hash, u32>,
    /// What has come of contents whose fetch ended early.
    parts: BTreeMap<Hash, Arc<Part>>,
}

impl MemoryPeer {
    /// # Errors
    /// [`StoreError::Full`].
    fn publish(&mut self, id: Hash, kept: Kept) -> Result<(), NetworkError> {
        let is_new = !self.published.contains_key(&id);
        if is_new && self.room.is_some_and(|room| self.published.len() >= room) {
            let pinned = self.published.values().map(Kept::len).sum();
            return Err(StoreError::Full { needed: kept.len(), pinned, bytes_max: pinned }.into());
        }
        self.published.insert(id, kept);
        Ok(())
    }
}

impl MemoryHub {
    /// A hub without peers.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new peer whose id follows from `seed`; joining twice with one seed gives two handles to one peer.
    pub fn join(&self, seed: u64, clock: Arc<dyn Clock>) -> MemoryNetwork {
        let local_peer = peer_id(seed);
        self.peers().entry(local_peer).or_default();
        let standing = Arc::new(Standing::new(clock.clone()));
        MemoryNetwork {
            hub: self.clone(),
            local_peer,
            seed,
            clock,
            shared: Arc::new(Shared::new(standing, PIECES_BYTES_MAX)),
            partials: Arc::default(),
            mirror: None,
        }
    }

    /// Takes a peer off the network or back on; what it published stays.
    pub fn set_offline(&self, peer: PeerId, offline: bool) {
        let mut peers = self.peers();
        let peer = peers.entry(peer).or_default();
        peer.offline = offline;
        peer.ranges_left = None;
    }

    /// Lets a peer serve `ranges` more ranges and then vanish.
    pub fn vanish_after(&self, peer: PeerId, ranges: u32) {
        self.peers().entry(peer).or_default().ranges_left = Some(ranges);
    }

    /// Cuts or mends the way between two peers.
    pub fn set_cut(&self, one: PeerId, other: PeerId, cut: bool) {
        let mut peers = self.peers();
        for (from, to) in [(one, other), (other, one)] {
            let from = peers.entry(from).or_default();
            if cut {
                from.cut_off.insert(to);
            } else {
                from.cut_off.remove(&to);
            }
        }
    }

    /// Lets a peer answer the others in this way from now on.
    pub fn set_serving(&self, peer: PeerId, serving: Serving) {
        self.peers().entry(peer).or_default().serving = serving;
    }

    /// Lets a peer's store have room for so many contents from now on.
    pub fn set_room(&self, peer: PeerId, contents: usize) {
        self.peers().entry(peer).or_default().room = Some(contents);
    }

    /// Lets a peer have so many more ranges and then reach nobody, or all again.
    pub fn set_asks(&self, peer: PeerId, ranges: Option<u32>) {
        self.peers().entry(peer).or_default().asks_left = ranges;
    }

    /// How many ranges of a content a peer was served.
    pub fn had(&self, peer: PeerId, id: &Hash) -> u32 {
        let peers = self.peers();
        peers.get(&peer).and_then(|peer| peer.had.get(id)).copied().unwrap_or_default()
    }

    /// The ids of what a peer has published, in order.
    pub fn published(&self, peer: PeerId) -> Vec<Hash> {
        let peers = self.peers();
        let published = peers.get(&peer).map(|peer| &peer.published);
        published.into_iter().flatten().map(|(id, _)| *id).collect()
    }

    fn is_mute(&self, peer: &PeerId) -> bool {
        self.peers().get(peer).is_some_and(|peer| peer.serving == Serving::Mute)
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<PeerId, MemoryPeer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryPeer {
    fn answer(&mut self, request: RangeRequest) -> Result<RangeResponse, FaultKind> {
        match &mut self.ranges_left {
            Some(0) => self.offline = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.offline {
            return Err(FaultKind::Unreachable);
        }
        let published = self.published.get(&request.id);
        let Some(kept) = published.filter(|_| self.serving != Serving::Nothing) else {
            return Ok(RangeResponse::Missing);
        };
        let found = match request.piece {
            None => kept
                .range(request.offset, u64::from(request.len))
                .ok()
                .map(|range| (kept.len(), range)),
            Some(piece) => {
                let cut = self.cuts.get(&request.id);
                let spans = cut.and_then(|cut| cut.0.get(piece as usize));
                let piece = spans.and_then(|spans| kept.piece(spans));
                piece.map(|piece| {
                    let start = (request.offset as usize).min(piece.len());
                    let end = start.saturating_add(request.len as usize).min(piece.len());
                    (piece.len() as u64, piece.slice(start..end))
                })
            }
        };
        let Some((total_len, range)) = found else {
            return Ok(RangeResponse::Missing);
        };
        Ok(RangeResponse::Found {
            total_len,
            bytes: match self.serving {
                Serving::Wrong => range.iter().map(|byte| !byte).collect(),
                _ => range,
            },
        })
    }
}

/// One peer of a [`MemoryHub`]; clones are the same peer.
#[derive(Clone)]
pub struct MemoryNetwork {
    hub: MemoryHub,
    local_peer: PeerId,
    seed: u64,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    partials: Arc<Partials>,
    mirror: Option<Arc<Mirrored>>,
}

#[async_trait]
impl Network for MemoryNetwork {
    fn local_peer(&self) -> PeerId {
        self.local_peer
    }

    fn sign(&self, message: &Hash) -> Option<[u8; 64]> {
        sign_as_peer(&key(self.seed)?, message)
    }

    async fn listen_addresses(&self) -> Result<Vec<Multiaddr>, NetworkError> {
        Ok(vec![Multiaddr::empty().with(Protocol::Memory(self.seed))])
    }

    async fn reachable_addresses(&self) -> Result<Vec<Multiaddr>, NetworkError> {
        self.listen_addresses().await
    }

    async fn add_peer(&self, _: PeerAddress) -> Result<(), NetworkError> {
        Ok(())
    }

    /// No effect: there is nothing to share that anybody could want more of.
    async fn set_roles(&self, _: HashMap<PeerId, Role>) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn keep(&self, _: Keep) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn publish(&self, id: Hash, bytes: Bytes) -> Result<(), NetworkError> {
        let mut peers = self.hub.peers();
        let peer = peers.entry(self.local_peer).or_default();
        peer.publish(id, Kept::Bytes(bytes))
    }

    async fn publish_content(
        &self,
        id: Hash,
        content: Arc<dyn Content>,
        cut: Option<Cut>,
    ) -> Result<(), NetworkError> {
        let failed =
            |source| StoreError::Io { action: "write in", path: std::env::temp_dir(), source };
        let kept = Kept::file(&*content).map_err(failed)?;
        let mut peers = self.hub.peers();
        let peer = peers.entry(self.local_peer).or_default();
        peer.cuts.extend(cut.map(|cut| (id, cut)));
        peer.publish(id, kept)
    }

    async fn unpublish(&self, id: Hash) -> Result<(), NetworkError> {
        let mut peers = self.hub.peers();
        let peer = peers.entry(self.local_peer).or_default();
        peer.published.remove(&id);
        peer.cuts.remove(&id);
        Ok(())
    }

    async fn copy_to_mirror(&self, id: Hash) -> Result<bool, MirrorError> {
        let mirror = self.mirror.as_ref().map(|mirror| &mirror.mirror);
        let Some(mirror) = mirror.filter(|mirror| mirror.is_copied_to()) else {
            return Ok(false);
        };
        let missing = || MirrorError::Refused("it is not here".to_owned());
        let kept = self.own(&id).ok_or_else(missing)?;
        let content = kept.range(0, kept.len()).map_err(|_| missing())?;
        let cut =
            self.hub.peers().get(&self.local_peer).and_then(|peer| peer.cuts.get(&id).cloned());
        let cut = cut.map(|cut| cut.to_bytes().into());
        mirror.put(&*self.clock, &id, Arc::new(content), cut).await
    }

    async fn fetch(&self, mut request: FetchRequest) -> Result<Fetched, FetchError> {
        let own = self.own(&request.id).filter(|kept| kept.len() <= request.len_max);
        let own = own.and_then(|kept| kept.range(0, kept.len()).ok());
        if let Some(bytes) = own.filter(|bytes| (request.verify)(bytes)) {
            return Ok(Fetched { bytes, peers: Vec::new(), faults: Vec::new() });
        }
        request.providers = self.with_the_mirror(request.providers);
        fetch::fetch(self, &*self.clock, LIMITS, &self.shared.standing, &self.partials, request)
            .await
    }

    async fn fetch_pieces(&self, mut request: PiecesRequest) -> Result<PiecesFetched, FetchError> {
        request.providers = self.with_the_mirror(request.providers);
        let (id, pieces, whole) = (request.id, request.pieces.clone(), request.whole);
        let own = self.own(&id).filter(|kept| kept.len() == pieces.byte_len());
        let part = self.part(&id, &*pieces).map_err(FetchError::Unkept)?;
        for index in 0..pieces.count() {
            let kept = part.read(index).map_err(FetchError::Unkept)?;
            let is_here = kept.is_some_and(|bytes| pieces.accept(index, &bytes));
            part.confirm(index, is_here);
        }
        for index in 0..pieces.count() {
            if part.has(index) {
                continue;
            }
            let Some(bytes) =
                own.as_ref().and_then(|kept| self.own_piece(kept, &id, &*pieces, index))
            else {
                break;
            };
            if !pieces.accept(index, &bytes) {
                break;
            }
            part.write(index, &bytes).map_err(FetchError::Unkept)?;
        }
        let mut fetched = download::download(
            self,
            &*self.clock,
            LIMITS,
            &self.shared,
            request,
            Some(part.clone()),
        )
        .await?;
        self.hub.peers().entry(self.local_peer).or_default().parts.remove(&id);
        let (head, cut) =
            pieces.cut().map_or_else(Default::default, |(head, cut)| (head, Some(cut)));
        let assembled = || Assembled::new(&part, &head, cut.as_ref(), pieces.byte_len());
        fetched.bytes =
            if whole { assembled().and_then(|content| content.to_bytes()) } else { None };
        Ok(fetched)
    }
}

impl MemoryNetwork {
    /// The same peer, with a mirror that this handle and its clones ask beside the others and copy contents to.
    pub fn with_mirror(self, mirror: Mirror) -> Self {
        let mirror = Mirrored::new(mirror, self.clock.clone());
        Self { mirror: Some(Arc::new(mirror)), ..self }
    }

    fn with_the_mirror(&self, providers: Vec<PeerAddress>) -> Vec<PeerAddress> {
        match &self.mirror {
            Some(mirror) => mirror.among(providers),
            None => providers,
        }
    }

    fn own(&self, id: &Hash) -> Option<Kept> {
        self.hub.peers().get(&self.local_peer)?.published.get(id).cloned()
    }

    /// What has come of a content, which outlives the process that a test ends.
    fn part(&self, id: &Hash, pieces: &dyn Pieces) -> std::io::Result<Arc<Part>> {
        let slots = slots(pieces);
        let mut peers = self.hub.peers();
        let parts = &mut peers.entry(self.local_peer).or_default().parts;
        if let Some(part) = parts.get(id).filter(|part| part.slots() == slots) {
            return Ok(part.clone());
        }
        let part = Arc::new(Part::unnamed(slots)?);
        parts.insert(*id, part.clone());
        Ok(part)
    }

    /// Piece `index` of a content that is here.
    fn own_piece(
        &self,
        kept: &Kept,
        id: &Hash,
        pieces: &dyn Pieces,
        index: usize,
    ) -> Option<Bytes> {
        let (offset, len, _) = pieces.piece(index)?;
        if !pieces.is_numbered() {
            return kept.range(offset, len.into()).ok();
        }
        let spans = *self.hub.peers().get(&self.local_peer)?.cuts.get(id)?.0.get(index)?;
        kept.piece(&spans)
    }
}

#[async_trait]
impl RangeSource for MemoryNetwork {
    async fn range(
        &self,
        peer: &PeerAddress,
        request: RangeRequest,
    ) -> Result<Result<RangeResponse, FaultKind>, FetchError> {
        if let Some(mirror) = self.mirror.as_ref().filter(|mirror| mirror.is(peer)) {
            return Ok(mirror.range(request).await);
        }
        if self.hub.is_mute(&peer.peer) {
            tokio::time::sleep(MUTE).await;
            return Ok(Err(FaultKind::TimedOut));
        }
        let mut peers = self.hub.peers();
        let cut_off = peers
            .get(&self.local_peer)
            .is_none_or(|local| local.offline || local.cut_off.contains(&peer.peer));
        let asks = peers.get_mut(&self.local_peer).and_then(|local| local.asks_left.as_mut());
        let may_ask = asks.is_none_or(|left| match left.checked_sub(1) {
            Some(less) => {
                *left = less;
                true
            }
            None => false,
        });
        let id = request.id;
        let answer = match peers.get_mut(&peer.peer) {
            Some(remote) if !cut_off && may_ask => remote.answer(request),
            _ => Err(FaultKind::Unreachable),
        };
        if matches!(answer, Ok(RangeResponse::Found { .. })) {
            *peers.entry(self.local_peer).or_default().had.entry(id).or_default() += 1;
        }
        Ok(answer)
    }

    async fn providers(&self, id: Hash) -> Result<Vec<PeerAddress>, FetchError> {
        let peers = self.hub.peers();
        let providers =
            peers.iter().filter(|(_, peer)| !peer.offline && peer.published.contains_key(&id));
        let addresses =
            providers.map(|(peer, _)| PeerAddress { peer: *peer, addresses: Vec::new() });
        Ok(addresses.collect())
    }

    fn local_peer(&self) -> PeerId {
        self.local_peer
    }
}

/// The ed25519 key whose secret is the seed; any 32 bytes are one.
fn key(seed: u64) -> Option<Keypair> {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&seed.to_le_bytes());
    Keypair::ed25519_from_bytes(secret).ok()
}

fn peer_id(seed: u64) -> PeerId {
    key(seed).map_or_else(PeerId::random, |key| key.public().to_peer_id())
}
