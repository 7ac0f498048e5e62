//! Whose payload a validator fetches next, when it cannot fetch all at once.
//!
//! Who had fewer turns is before who had more, of those the one that ranks higher ([`books::FetchOrder`]). So what is accepted first is
//! fetched first, and a payload that does not come waits behind all that were not tried as often: some miners that withhold theirs
//! delay the others by one turn each. Who takes longer than a turn while nobody waits has had as many as it took.

use std::collections::BTreeMap;

use protocol::{books, Uid};

/// Payloads that are fetched at once: enough to fill a line from peers that are slow each, few enough that the first ones come first.
const AT_ONCE: usize = 16;

/// The payloads of a window that are not fetched yet.
#[derive(Default)]
pub(super) struct Turns {
    /// How often each was given up, and where it stands now.
    waiting: BTreeMap<Uid, u32>,
    /// What is fetched, with the number of turns before this one.
    running: BTreeMap<Uid, u32>,
    /// What nobody delivered and is not tried again for a moment, with the number of its turns.
    resting: BTreeMap<Uid, u32>,
    order: Vec<Uid>,
}

impl Turns {
    /// Ranks the payloads anew; those that are not known yet wait from now on, unless they are in `done`.
    pub(super) fn rank(&mut self, order: &books::FetchOrder, is_done: impl Fn(Uid) -> bool) {
        self.order = order.expected.iter().chain(&order.others).copied().collect();
        for uid in &self.order {
            let is_busy = self.running.contains_key(uid) || self.resting.contains_key(uid);
            if !is_done(*uid) && !is_busy {
                self.waiting.entry(*uid).or_insert(0);
            }
        }
    }

    /// The payload to fetch now, if there is room beside those that are being fetched.
    pub(super) fn next(&mut self) -> Option<Uid> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let place = |uid: &Uid| self.order.iter().position(|other| other == uid);
        let first = self.waiting.iter().min_by_key(|(uid, turns)| (**turns, place(uid)));
        let uid = *first?.0;
        let turns = self.waiting.remove(&uid)?;
        self.running.insert(uid, turns);
        Some(uid)
    }

    /// It has been fetched, or is not there any more.
    pub(super) fn done(&mut self, uid: Uid) {
        for part in [&mut self.running, &mut self.waiting, &mut self.resting] {
            part.remove(&uid);
        }
    }

    /// Nobody has it at the moment: it waits again when it has [`Turns::rested`]. It has had a turn if another one waits for as many,
    /// which is before it then; where that delays nobody it costs nothing, however often it is.
    pub(super) fn rest(&mut self, uid: Uid) {
        if let Some(turns) = self.running.remove(&uid) {
            let delays = self.waiting.values().any(|other| *other == turns);
            self.resting.insert(uid, turns.saturating_add(u32::from(delays)));
        }
    }

    /// It waits for its next turn.
    pub(super) fn rested(&mut self, uid: Uid) {
        if let Some(turns) = self.resting.remove(&uid) {
            self.waiting.insert(uid, turns);
        }
    }

    /// It has not come in the time of `taken` turns: others first.
    pub(super) fn again(&mut self, uid: Uid, taken: u32) {
        if let Some(turns) = self.running.remove(&uid) {
            self.waiting.insert(uid, turns.saturating_add(taken));
        }
    }

    /// Whether a payload waits that had fewer turns than `uid`, which is being fetched and has `taken` as many now, will have had.
    pub(super) fn holds_up(&self, uid: Uid, taken: u32) -> bool {
        let own = self.running.get(&uid).map(|turns| turns.saturating_add(taken));
        own.is_some_and(|own| self.waiting.values().any(|turns| *turns < own))
    }

    /// Whether nothing is left to fetch.
    pub(super) fn is_empty(&self) -> bool {
        [&self.waiting, &self.running, &self.resting].iter().all(|part| part.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(expected: &[Uid], others: &[Uid]) -> books::FetchOrder {
        books::FetchOrder { expected: expected.to_vec(), others: others.to_vec() }
    }

    fn take(turns: &mut Turns) -> Vec<Uid> {
        std::iter::from_fn(|| turns.next()).collect()
    }

    #[test]
    fn who_would_be_accepted_comes_first_and_in_the_order_of_rank() {
        let mut turns = Turns::default();
        turns.rank(&ranked(&[7, 3, 9], &[0, 1]), |uid| uid == 3);
        assert_eq!(take(&mut turns), [7, 9, 0, 1]);
        assert!(!turns.is_empty());
        for uid in [7, 9, 0, 1] {
            turns.done(uid);
        }
        assert!(turns.is_empty());
    }

    /// H9: sixteen payloads that nobody delivers, of the miners that rank first, among seventy.
    #[test]
    fn payloads_that_do_not_come_are_behind_all_others_after_one_turn() {
        let order = ranked(&(0..20).collect::<Vec<_>>(), &(20..70).collect::<Vec<_>>());
        let mut turns = Turns::default();
        turns.rank(&order, |_| false);
        let first = take(&mut turns);
        assert_eq!(first, (0..16).collect::<Vec<_>>());
        assert!(first.iter().all(|uid| turns.holds_up(*uid, 1)));
        for uid in first {
            turns.again(uid, 1);
        }
        // Ranked anew as more is revealed: nobody has a turn back for it.
        turns.rank(&order, |_| false);
        let mut fetched = Vec::new();
        while fetched.len() < 54 {
            let uid = turns.next().unwrap();
            turns.done(uid);
            fetched.push(uid);
        }
        assert_eq!(fetched, (16..70).collect::<Vec<_>>());
        // Nobody is left to be held up.
        let again = take(&mut turns);
        assert_eq!(again, (0..16).collect::<Vec<_>>());
        assert!(again.iter().all(|uid| !turns.holds_up(*uid, 1)));
    }

    #[test]
    fn who_rests_has_no_place_among_those_that_are_fetched_and_is_not_forgotten() {
        let order = ranked(&(0..20).collect::<Vec<_>>(), &[]);
        let mut turns = Turns::default();
        turns.rank(&order, |_| false);
        take(&mut turns);
        for uid in 0..4 {
            turns.rest(uid);
        }
        turns.rank(&order, |_| false);
        assert_eq!(take(&mut turns), [16, 17, 18, 19]);
        (4..20).for_each(|uid| turns.done(uid));
        assert!(!turns.is_empty());
        assert_eq!(turns.next(), None);
        turns.rested(2);
        assert_eq!(turns.next(), Some(2));
        (0..4).for_each(|uid| turns.done(uid));
        assert!(turns.is_empty());
    }

    /// A miner is not there for a moment in which it is asked many times; then others are fetched that take long.
    #[test]
    fn who_was_not_there_for_a_moment_waits_for_no_more_than_two_turns_of_others() {
        let mut turns = Turns::default();
        turns.rank(&ranked(&[], &[40, 41]), |_| false);
        assert_eq!(take(&mut turns), [40, 41]);
        for _ in 0..20 {
            for uid in [40, 41] {
                turns.rest(uid);
                turns.rested(uid);
                assert_eq!(turns.next(), Some(uid));
            }
        }
        turns.rest(40);
        // Nobody was delayed by that, so that a turn of the others is all that it waits for.
        let slow: Vec<Uid> = (0..15).collect();
        turns.rank(&ranked(&slow, &[40, 41]), |_| false);
        assert_eq!(take(&mut turns), slow);
        turns.rested(40);
        assert!(turns.holds_up(3, 1));
        turns.again(3, 1);
        assert_eq!(turns.next(), Some(40));
        // Here one waits that was not tried yet.
        turns.rank(&ranked(&(0..16).collect::<Vec<_>>(), &[40, 41]), |_| false);
        turns.rest(40);
        assert_eq!(turns.next(), Some(15));
        turns.rested(40);
        assert!(!turns.holds_up(4, 1) && turns.holds_up(4, 2));
        turns.again(4, 2);
        turns.done(3);
        assert_eq!(turns.next(), Some(40));
    }
}
