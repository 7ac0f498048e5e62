//! Who waits for a turn of which peer, in the order in which they came; knows no libp2p.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use libp2p::PeerId;
use tokio::sync::Notify;

/// A turn: whose, and for how many bytes.
pub(super) type Given = (PeerId, u64);

/// Those who wait, and what they were given since they looked.
#[derive(Default)]
pub(super) struct Awaited {
    next: u64,
    /// Of each peer who waits for it, and for how many bytes, the longest first; none is empty.
    lines: HashMap<PeerId, VecDeque<(u64, u64)>>,
    waiters: HashMap<u64, Waiter>,
}

#[derive(Default)]
struct Waiter {
    given: Vec<Given>,
    told: Arc<Notify>,
}

impl Awaited {
    /// One more who may wait: who it is from now on, and what it is told by when it is given something.
    pub(super) fn enter(&mut self) -> (u64, Arc<Notify>) {
        let (who, waiter) = (self.next, Waiter::default());
        self.next += 1;
        let told = waiter.told.clone();
        self.waiters.insert(who, waiter);
        (who, told)
    }

    /// Lets `who` wait for a turn of `peer` for `len` bytes, unless it does so already.
    pub(super) fn wait(&mut self, who: u64, (peer, len): Given) {
        let line = self.lines.entry(peer).or_default();
        if !line.iter().any(|(other, _)| *other == who) {
            line.push_back((who, len));
        }
    }

    /// For how many bytes the first in the line of `peer` waits.
    pub(super) fn first(&self, peer: &PeerId) -> Option<u64> {
        Some(self.lines.get(peer)?.front()?.1)
    }

    /// Gives a turn of `peer` to the first in its line, and tells it so.
    pub(super) fn give(&mut self, peer: &PeerId) {
        let Some(line) = self.lines.get_mut(peer) else {
            return;
        };
        let first = line.pop_front();
        if line.is_empty() {
            self.lines.remove(peer);
        }
        let Some((who, len)) = first else {
            return;
        };
        if let Some(waiter) = self.waiters.get_mut(&who) {
            waiter.given.push((*peer, len));
            waiter.told.notify_one();
        }
    }

    /// What `who` was given since it took it the last time.
    pub(super) fn take(&mut self, who: u64) -> Vec<Given> {
        self.waiters
            .get_mut(&who)
            .map(|waiter| std::mem::take(&mut waiter.given))
            .unwrap_or_default()
    }

    /// `who` waits no more: what it was given and has not taken.
    pub(super) fn leave(&mut self, who: u64) -> Vec<Given> {
        self.lines.retain(|_, line| {
            line.retain(|(other, _)| *other != who);
            !line.is_empty()
        });
        self.waiters.remove(&who).map(|waiter| waiter.given).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_to_those_who_wait_in_their_order_and_who_left_gets_none() {
        let mut awaited = Awaited::default();
        let [peer, other] = [(); 2].map(|()| PeerId::random());
        let [one, two, three] = [(); 3].map(|()| awaited.enter().0);
        for who in [one, two, one, three] {
            awaited.wait(who, (peer, who + 5));
        }
        awaited.wait(three, (other, 1));
        assert_eq!((awaited.first(&peer), awaited.first(&other)), (Some(5), Some(1)));
        awaited.give(&peer);
        assert_eq!(awaited.take(one), [(peer, 5)]);
        assert_eq!(awaited.take(one), []);
        assert_eq!(awaited.leave(two), []);
        awaited.give(&peer);
        assert_eq!(awaited.leave(three), [(peer, three + 5)]);
        assert!(awaited.lines.is_empty() && awaited.first(&other).is_none());
        // Nobody waits: nothing happens.
        awaited.give(&peer);
        awaited.wait(one, (peer, 3));
        awaited.give(&peer);
        assert_eq!(awaited.leave(one), [(peer, 3)]);
        assert!(awaited.waiters.is_empty());
    }
}
