//! Connects peers of one process through a shared hub, without sockets, for tests.
//!
//! The rules of a fetch are the real ones ([`super::fetch`]); only the transport is missing. There is no timer and no
//! task, so a test on one thread gives the same order every time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use libp2p::{identity::Keypair, multiaddr::Protocol, Multiaddr, PeerId};
use protocol::Hash;

use super::{
    codec::{RangeRequest, RangeResponse, RANGE_LEN_MAX},
    fetch::{self, FetchLimits, RangeSource},
    FaultKind, FetchError, FetchRequest, Fetched, Network, NetworkError, PeerAddress,
};
use crate::clock::Clock;

/// Peers asked in one fetch.
const FETCH_PEERS_MAX: usize = 32;

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
}

#[derive(Default)]
struct MemoryPeer {
    published: BTreeMap<Hash, Bytes>,
    serving: Serving,
    offline: bool,
    /// Ranges it still serves before it goes offline by itself.
    ranges_left: Option<u32>,
    /// Whom it cannot reach.
    cut_off: BTreeSet<PeerId>,
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
        MemoryNetwork { hub: self.clone(), local_peer, seed, clock }
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

    /// The ids of what a peer has published, in order.
    pub fn published(&self, peer: PeerId) -> Vec<Hash> {
        let peers = self.peers();
        let published = peers.get(&peer).map(|peer| &peer.published);
        published.into_iter().flatten().map(|(id, _)| *id).collect()
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
        let Some(bytes) = published.filter(|_| self.serving != Serving::Nothing) else {
            return Ok(RangeResponse::Missing);
        };
        let start = usize::try_from(request.offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(request.len as usize).min(bytes.len());
        let range = bytes.slice(start..end);
        Ok(RangeResponse::Found {
            total_len: bytes.len() as u64,
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
}

#[async_trait]
impl Network for MemoryNetwork {
    fn local_peer(&self) -> PeerId {
        self.local_peer
    }

    async fn listen_addresses(&self) -> Result<Vec<Multiaddr>, NetworkError> {
        Ok(vec![Multiaddr::empty().with(Protocol::Memory(self.seed))])
    }

    async fn add_peer(&self, _: PeerAddress) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn publish(&self, id: Hash, bytes: Bytes) -> Result<(), NetworkError> {
        let mut peers = self.hub.peers();
        let peer = peers.entry(self.local_peer).or_default();
        peer.published.insert(id, bytes);
        Ok(())
    }

    async fn unpublish(&self, id: Hash) -> Result<(), NetworkError> {
        let mut peers = self.hub.peers();
        let peer = peers.entry(self.local_peer).or_default();
        peer.published.remove(&id);
        Ok(())
    }

    async fn fetch(&self, request: FetchRequest) -> Result<Fetched, FetchError> {
        let own = self.hub.peers().get(&self.local_peer).and_then(|peer| {
            let bytes = peer.published.get(&request.id)?;
            (bytes.len() as u64 <= request.len_max && (request.verify)(bytes))
                .then(|| bytes.clone())
        });
        if let Some(bytes) = own {
            return Ok(Fetched { bytes, peers: Vec::new(), faults: Vec::new() });
        }
        let limits = FetchLimits { range_len: RANGE_LEN_MAX, peers_max: FETCH_PEERS_MAX };
        fetch::fetch(self, &*self.clock, limits, request).await
    }
}

#[async_trait]
impl RangeSource for MemoryNetwork {
    async fn range(
        &self,
        peer: &PeerAddress,
        request: RangeRequest,
    ) -> Result<Result<RangeResponse, FaultKind>, FetchError> {
        let mut peers = self.hub.peers();
        let cut_off = peers
            .get(&self.local_peer)
            .is_none_or(|local| local.offline || local.cut_off.contains(&peer.peer));
        Ok(match peers.get_mut(&peer.peer) {
            Some(remote) if !cut_off => remote.answer(request),
            _ => Err(FaultKind::Unreachable),
        })
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

/// The peer id of an ed25519 key whose secret is the seed.
fn peer_id(seed: u64) -> PeerId {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&seed.to_le_bytes());
    match Keypair::ed25519_from_bytes(secret) {
        Ok(key) => key.public().to_peer_id(),
        // Any 32 bytes are an ed25519 secret.
        Err(_) => PeerId::random(),
    }
}
