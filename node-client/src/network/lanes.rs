//! Lets a few contents arrive at a time, each peer others, so that each is soon whole and served to others as such.
//!
//! Were all to arrive side by side, nobody would have any of them whole until the end, and each peer would have to ask
//! all others all the while which pieces of which they have. Which ones come first each peer draws for itself, or all
//! would ask the same few peers. A content is first for a while only ([`Lane::ends_at`]): who delivers slowly, or
//! nothing, does not keep others back.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libp2p::PeerId;
use protocol::Hash;
use tokio::sync::Notify;

use super::shares::as_number;

/// Contents that arrive at a time, beside those whose time is over.
const LANES: usize = 12;

/// How long a content is first, at the least and at the most, and bytes a millisecond by which it is longer for long
/// ones: 20 MB/s.
const MILLIS_MIN: u64 = 10_000;
const MILLIS_MAX: u64 = 60_000;
const BYTES_PER_MILLI: u64 = 20_000;

/// The lanes of a process.
#[derive(Default)]
pub(super) struct Lanes {
    // Held for a look or a change, never across an await.
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    taken: usize,
    /// Who waits, the first to go on first.
    waiting: BTreeSet<(u64, u64)>,
    next_ticket: u64,
}

/// The right to be among the first, until it is dropped.
pub(super) struct Lane {
    lanes: Arc<Lanes>,
    /// When it is to be given away, by the clock.
    pub(super) ends_at: u64,
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut state = self.lanes.state();
        state.taken = state.taken.saturating_sub(1);
        drop(state);
        self.lanes.freed.notify_waiters();
    }
}

/// A place among those who wait, until it is dropped.
struct Waiting<'a> {
    lanes: &'a Lanes,
    place: (u64, u64),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.lanes.state().waiting.remove(&self.place);
        self.lanes.freed.notify_waiters();
    }
}

/// Where a content is in the order of a peer: as good as drawn, and the same each time.
pub(super) fn rank(local: &PeerId, id: &Hash) -> u64 {
    as_number(blake3::Hasher::new().update(&local.to_bytes()).update(id).finalize())
}

impl Lanes {
    /// Waits until a content of this rank and length is among the first. Cancel-safe.
    pub(super) async fn enter(
        self: &Arc<Self>,
        rank: u64,
        byte_len: u64,
        now_millis: impl Fn() -> u64,
    ) -> Lane {
        let waiting = {
            let mut state = self.state();
            let place = (rank, state.next_ticket);
            state.next_ticket += 1;
            state.waiting.insert(place);
            Waiting { lanes: self, place }
        };
        loop {
            let freed = self.freed.notified();
            if self.take(waiting.place) {
                let millis = (byte_len / BYTES_PER_MILLI).clamp(MILLIS_MIN, MILLIS_MAX);
                let ends_at = now_millis().saturating_add(millis);
                return Lane { lanes: self.clone(), ends_at };
            }
            freed.await;
        }
    }

    fn take(&self, place: (u64, u64)) -> bool {
        let mut state = self.state();
        let is_next = state.taken < LANES && state.waiting.first() == Some(&place);
        state.taken += usize::from(is_next);
        is_next
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_few_go_first_and_then_the_next_in_their_order() {
        let lanes = Arc::new(Lanes::default());
        let enter = |rank| lanes.enter(rank, 0, || 5);
        let mut first = Vec::new();
        for rank in 0..LANES as u64 {
            first.push(enter(rank).now_or_never().unwrap());
        }
        assert_eq!(first[0].ends_at, 5 + MILLIS_MIN);
        let (mut last, mut next) = (Box::pin(enter(9)), Box::pin(enter(8)));
        assert!((&mut last).now_or_never().is_none() && (&mut next).now_or_never().is_none());
        first.pop();
        assert!((&mut last).now_or_never().is_none(), "the other one is before it");
        let other = (&mut next).now_or_never().unwrap();
        first.pop();
        // Who goes away does not keep anybody waiting.
        let gone = Box::pin(enter(7));
        drop(gone);
        let own = (&mut last).now_or_never().unwrap();
        drop((other, own));
        assert!(lanes.state().waiting.is_empty());
        assert_eq!(lanes.state().taken, LANES - 2);
    }

    #[test]
    fn each_peer_has_an_order_of_its_own() {
        let ids: Vec<Hash> = (0..20).map(|id| [id; 32]).collect();
        let order = |peer: PeerId| {
            let mut ids = ids.clone();
            ids.sort_by_key(|id| rank(&peer, id));
            ids
        };
        let [one, other] = [(); 2].map(|()| PeerId::random());
        assert_eq!(order(one), order(one));
        assert_ne!(order(one), order(other));
    }
}
