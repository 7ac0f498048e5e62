//! Remembers whom dials did not reach, so that each is dialled once in a while, however often it is asked for.

use std::{collections::HashMap, time::Duration};

use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use super::PeerAddress;

/// Peers remembered; when there are more, those make room who may be dialled first.
const PEERS_MAX: usize = 4_096;

/// Addresses remembered of each.
const ADDRESSES_MAX: usize = 32;

/// How often the wait is doubled: from a second to sixteen. Who is back dials the validators by itself.
const DOUBLINGS_MAX: u32 = 4;

/// Whom dials did not reach.
pub(super) struct Failing {
    peers: HashMap<PeerId, Failure>,
    /// The first wait before a peer is dialled again.
    wait_min: Duration,
}

struct Failure {
    /// Dials in a row that failed.
    count: u32,
    /// When it may be dialled again.
    due: Instant,
    /// Where it was not.
    addresses: Vec<Multiaddr>,
}

impl Failing {
    pub(super) fn new(wait_min: Duration) -> Self {
        Self { peers: HashMap::new(), wait_min }
    }

    /// Whether a peer may be dialled now: where it was not yet looked for it may at once.
    pub(super) fn may_dial(&self, peer: &PeerAddress, now: Instant) -> bool {
        self.peers.get(&peer.peer).is_none_or(|failure| {
            let is_new = |address| !failure.addresses.contains(address);
            failure.due <= now || peer.addresses.iter().any(is_new)
        })
    }

    /// Notes that a dial failed.
    pub(super) fn failed(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            let first = self.peers.iter().min_by_key(|(_, failure)| failure.due);
            first.map(|(peer, _)| *peer).and_then(|first| self.peers.remove(&first));
        }
        let known = self.peers.remove(&peer);
        let count = known.as_ref().map_or(0, |failure| failure.count);
        let before = known.map_or_else(Vec::new, |failure| failure.addresses);
        let mut all = addresses;
        let others: Vec<_> = before.into_iter().filter(|one| !all.contains(one)).collect();
        all.extend(others);
        all.truncate(ADDRESSES_MAX);
        let wait = self.wait_min * 2_u32.pow(count.min(DOUBLINGS_MAX));
        let failure = Failure { count: count.saturating_add(1), due: now + wait, addresses: all };
        self.peers.insert(peer, failure);
    }

    /// Forgets that a peer was not reached: it is connected.
    pub(super) fn reached(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_reached_is_dialled_ever_more_seldom_unless_it_is_elsewhere() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let at = |port| {
            let addresses = vec![format!("/ip4/8.8.8.8/tcp/{port}").parse::<Multiaddr>().unwrap()];
            addresses
        };
        let here = PeerAddress { peer: PeerId::random(), addresses: at(1) };
        let mut failing = Failing::new(second);
        assert!(failing.may_dial(&here, now));
        for wait in [1, 2, 4, 8, 16, 16] {
            failing.failed(here.peer, at(1), now);
            assert!(!failing.may_dial(&here, now + second * wait - second / 2));
            assert!(failing.may_dial(&here, now + second * wait));
        }
        let unknown = PeerAddress { addresses: Vec::new(), ..here };
        assert!(!failing.may_dial(&unknown, now));
        assert!(failing.may_dial(&PeerAddress { addresses: at(2), ..here }, now));
        // Where it was not before stays known.
        failing.failed(here.peer, Vec::new(), now);
        assert!(!failing.may_dial(&here, now));
        failing.reached(&here.peer);
        assert!(failing.may_dial(&here, now));
    }

    #[test]
    fn not_more_than_so_many_are_remembered() {
        let now = Instant::now();
        let mut failing = Failing::new(Duration::from_secs(1));
        let first = PeerId::random();
        failing.failed(first, Vec::new(), now);
        for _ in 0..PEERS_MAX {
            failing.failed(PeerId::random(), Vec::new(), now + Duration::from_secs(1));
        }
        assert_eq!(failing.peers.len(), PEERS_MAX);
        assert!(!failing.peers.contains_key(&first));
    }
}
