//! Remembers from fetch to fetch which peers failed to deliver, and how long a range takes.

use std::{
    collections::HashMap,
    sync::{
        atomic::{AtomicU64, Ordering},
        Mutex, MutexGuard, PoisonError,
    },
    time::Duration,
};

use libp2p::PeerId;

use super::PeerAddress;

/// Peers remembered, more than runs have participants. When there are more, all are forgotten.
const PEERS_MAX: usize = 8_192;

/// A peer is slow when it takes this many times as long as usual, and how long that is at the least and at the most. 1 MiB in
/// two seconds is 4 Mb/s. Where all is slow it is our own line, which does not get faster by asking others beside.
const SLOW_FACTOR: u64 = 3;
const PATIENCE_MILLIS_MIN: u64 = 2_000;
const PATIENCE_MILLIS_MAX: u64 = 10_000;

/// How often each peer has failed since it last delivered; who is not here has not.
#[derive(Default)]
pub(super) struct Standing {
    /// What ranges took, the last of them counting an eighth.
    usual_millis: AtomicU64,
    // Held for a look or a change, never across an await.
    failures: Mutex<HashMap<PeerId, u32>>,
}

impl Standing {
    /// Notes that a peer lied, broke off, or took longer than another one.
    pub(super) fn failed(&self, peer: PeerId) {
        let mut failures = self.failures();
        if failures.len() >= PEERS_MAX && !failures.contains_key(&peer) {
            failures.clear();
        }
        let count = failures.entry(peer).or_default();
        *count = count.saturating_add(1);
    }

    /// Notes that a peer delivered a range, and what it took.
    pub(super) fn delivered(&self, peer: &PeerId, millis: u64) {
        self.forgive(peer);
        let usual = self.usual_millis.load(Ordering::Relaxed);
        // Two at the same time may count as one.
        let usual = usual.saturating_mul(7).saturating_add(millis) / 8;
        self.usual_millis.store(usual, Ordering::Relaxed);
    }

    /// Forgets that a peer failed.
    pub(super) fn forgive(&self, peer: &PeerId) {
        self.failures().remove(peer);
    }

    /// How long a peer has for a range before another is asked beside it.
    pub(super) fn patience(&self) -> Duration {
        let slow = self.usual_millis.load(Ordering::Relaxed).saturating_mul(SLOW_FACTOR);
        Duration::from_millis(slow.clamp(PATIENCE_MILLIS_MIN, PATIENCE_MILLIS_MAX))
    }

    /// Puts who failed behind who did not, the most often last; else the order stays.
    pub(super) fn sort(&self, peers: &mut [PeerAddress]) {
        let failures = self.failures();
        peers.sort_by_key(|peer| failures.get(&peer.peer).copied().unwrap_or_default());
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<PeerId, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
