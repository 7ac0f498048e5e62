//! Keeps what has come of contents whose fetch ended early, for the next fetch of them.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use libp2p::PeerId;
use protocol::Hash;

/// Contents of which a part is kept, and the bytes of all parts together; the oldest make room.
const PARTIALS_MAX: usize = 64;
const PARTIAL_BYTES_MAX: usize = 1 << 30;

/// The memory a fetch reserves before any byte has come, whatever length a peer claims.
const RESERVE_MAX: u64 = 4 << 20;

/// What has come so far. Invariant: `bytes` are the first of `total_len` bytes, from `peers` in this order.
#[derive(Default)]
pub(super) struct Partial {
    pub(super) total_len: Option<u64>,
    pub(super) bytes: Vec<u8>,
    pub(super) peers: Vec<PeerId>,
}

impl Partial {
    /// Adds what a peer delivered of a content of `total_len` bytes. Whether it fits what came before.
    pub(super) fn add(&mut self, peer: PeerId, total_len: u64, bytes: &[u8]) -> bool {
        if self.total_len.is_some_and(|claimed| claimed != total_len) {
            return false;
        }
        if self.total_len.is_none() {
            self.total_len = Some(total_len);
            let reserve = total_len.min(RESERVE_MAX);
            self.bytes.reserve(usize::try_from(reserve).unwrap_or_default());
        }
        if self.peers.last() != Some(&peer) {
            self.peers.push(peer);
        }
        self.bytes.extend_from_slice(bytes);
        true
    }

    pub(super) fn is_whole(&self) -> bool {
        self.total_len == Some(self.bytes.len() as u64)
    }
}

/// The parts that are kept, the oldest first; one a content.
#[derive(Default)]
pub(super) struct Partials {
    // Held for a look or a change, never across an await.
    kept: Mutex<VecDeque<(Hash, Partial)>>,
}

impl Partials {
    /// What is kept of a content, or nothing. Dropping it keeps what it has then.
    pub(super) fn resume(&self, id: Hash) -> Resumed<'_> {
        let mut kept = self.kept();
        let found = kept.iter().position(|(other, _)| *other == id);
        let found = found.and_then(|index| kept.remove(index));
        let partial = found.map(|(_, partial)| partial).unwrap_or_default();
        Resumed { partials: self, id, partial }
    }

    /// Keeps a part, unless a longer one of the same content is here or it is too long.
    fn keep(&self, id: Hash, partial: Partial) {
        let mut kept = self.kept();
        if kept.iter().any(|(other, has)| *other == id && has.bytes.len() >= partial.bytes.len()) {
            return;
        }
        kept.retain(|(other, _)| *other != id);
        kept.push_back((id, partial));
        let mut total: usize = kept.iter().map(|(_, partial)| partial.bytes.len()).sum();
        while kept.len() > PARTIALS_MAX || total > PARTIAL_BYTES_MAX {
            let Some((_, oldest)) = kept.pop_front() else {
                return;
            };
            total = total.saturating_sub(oldest.bytes.len());
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(Hash, Partial)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part that one fetch goes on with.
pub(super) struct Resumed<'a> {
    partials: &'a Partials,
    id: Hash,
    pub(super) partial: Partial,
}

impl Drop for Resumed<'_> {
    fn drop(&mut self) {
        let partial = std::mem::take(&mut self.partial);
        if !partial.bytes.is_empty() {
            self.partials.keep(self.id, partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(len: usize) -> Partial {
        Partial { total_len: Some(100), bytes: vec![0; len], peers: Vec::new() }
    }

    #[test]
    fn the_longest_part_of_a_content_stays_and_the_oldest_make_room() {
        let partials = Partials::default();
        for len in [5, 7, 6] {
            partials.keep([0; 32], part(len));
        }
        assert_eq!(partials.resume([0; 32]).partial.bytes.len(), 7);
        for id in 1..=PARTIALS_MAX as u8 {
            partials.keep([id; 32], part(1));
        }
        assert!(partials.resume([0; 32]).partial.bytes.is_empty());
        assert_eq!(partials.resume([1; 32]).partial.bytes.len(), 1);
        partials.keep([200; 32], part(PARTIAL_BYTES_MAX + 1));
        assert!(partials.kept().is_empty());
    }
}
