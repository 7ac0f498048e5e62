//! Who waits for a turn of which peer; knows no libp2p.
//!
//! Who needs what nobody else is known to have goes before others, a few times in a row: what others have may come of
//! them meanwhile, and what has come once others may have of us. Else they go in the order in which they came.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use libp2p::PeerId;
use tokio::sync::Notify;

/// How often in a row those go first who need what nobody else is known to have, while others wait.
const RARE_MAX: u32 = 4;

/// A turn: whose, and for how many bytes.
pub(super) type Given = (PeerId, u64);

/// Those who wait for the turns of one peer, and for how many bytes, the longest first.
#[derive(Default)]
struct Line {
    /// Who needs what nobody else is known to have.
    rare: VecDeque<(u64, u64)>,
    others: VecDeque<(u64, u64)>,
    /// How often in a row one of `rare` went while others waited.
    passed: u32,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.rare.is_empty() && self.others.is_empty()
    }

    /// Whether the next is one of `rare`.
    fn rare_goes_next(&self) -> bool {
        !self.rare.is_empty() && (self.others.is_empty() || self.passed < RARE_MAX)
    }

    fn first(&self) -> Option<&(u64, u64)> {
        if self.rare_goes_next() { &self.rare } else { &self.others }.front()
    }

    fn pop(&mut self) -> Option<(u64, u64)> {
        let is_rare = self.rare_goes_next();
        self.passed = if is_rare && !self.others.is_empty() { self.passed + 1 } else { 0 };
        if is_rare { &mut self.rare } else { &mut self.others }.pop_front()
    }
}

/// Those who wait, and what they were given since they looked.
#[derive(Default)]
pub(super) struct Awaited {
    next: u64,
    /// Who waits for each peer; none is empty.
    lines: HashMap<PeerId, Line>,
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

    /// Lets `who` wait for a turn of `peer` for `len` bytes, unless it does so already; `is_rare` says that nobody else
    /// is known to have what it is for.
    pub(super) fn wait(&mut self, who: u64, (peer, len): Given, is_rare: bool) {
        let line = self.lines.entry(peer).or_default();
        if line.rare.iter().chain(&line.others).all(|(other, _)| *other != who) {
            if is_rare { &mut line.rare } else { &mut line.others }.push_back((who, len));
        }
    }

    /// For how many bytes the first in the line of `peer` waits.
    pub(super) fn first(&self, peer: &PeerId) -> Option<u64> {
        Some(self.lines.get(peer)?.first()?.1)
    }

    /// Gives a turn of `peer` to the first in its line, and tells it so.
    pub(super) fn give(&mut self, peer: &PeerId) {
        let Some(line) = self.lines.get_mut(peer) else {
            return;
        };
        let first = line.pop();
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
            for waiting in [&mut line.rare, &mut line.others] {
                waiting.retain(|(other, _)| *other != who);
            }
            if line.others.is_empty() {
                line.passed = 0;
            }
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
            awaited.wait(who, (peer, who + 5), false);
        }
        awaited.wait(three, (other, 1), false);
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
        awaited.wait(one, (peer, 3), false);
        awaited.give(&peer);
        assert_eq!(awaited.leave(one), [(peer, 3)]);
        assert!(awaited.waiters.is_empty());
    }

    #[test]
    fn who_needs_what_nobody_else_has_goes_first_a_few_times_in_a_row() {
        let (mut awaited, peer) = (Awaited::default(), PeerId::random());
        let [one, two, rare] = [(); 3].map(|()| awaited.enter().0);
        for (who, is_rare) in [(one, false), (two, false), (rare, true)] {
            awaited.wait(who, (peer, 1), is_rare);
        }
        let mut order = Vec::new();
        while awaited.first(&peer).is_some() {
            awaited.give(&peer);
            for who in [one, two, rare] {
                order.extend(awaited.take(who).iter().map(|_| who));
            }
            if order.len() < 9 {
                awaited.wait(rare, (peer, 1), true);
            }
        }
        let expected = [rare, rare, rare, rare, one, rare, rare, rare, rare, two];
        assert_eq!(order, expected);
        assert!(awaited.lines.is_empty());
    }
}
