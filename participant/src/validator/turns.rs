//! Whose payload a validator fetches next, when it cannot fetch all at once.
//!
//! Who had fewer turns is before who had more, of those the one that ranks higher ([`books::FetchOrder`]). So what is accepted first is
//! fetched first, and a payload that does not come waits behind all that were not tried as often: some miners that withhold theirs
//! delay the others by one turn each.

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
    order: Vec<Uid>,
}

impl Turns {
    /// Ranks the payloads anew; those that are not known yet wait from now on, unless they are in `done`.
    pub(super) fn rank(&mut self, order: &books::FetchOrder, is_done: impl Fn(Uid) -> bool) {
        self.order = order.expected.iter().chain(&order.others).copied().collect();
        for uid in &self.order {
            if !is_done(*uid) && !self.running.contains_key(uid) {
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
        self.running.remove(&uid);
        self.waiting.remove(&uid);
    }

    /// It has not come: others first.
    pub(super) fn again(&mut self, uid: Uid) {
        if let Some(turns) = self.running.remove(&uid) {
            self.waiting.insert(uid, turns.saturating_add(1));
        }
    }

    /// Whether a payload waits that had fewer turns than `uid`, which is being fetched, will have had.
    pub(super) fn holds_up(&self, uid: Uid) -> bool {
        let own = self.running.get(&uid);
        own.is_some_and(|own| self.waiting.values().any(|turns| turns <= own))
    }

    /// Whether nothing is left to fetch.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
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
        assert!(first.iter().all(|uid| turns.holds_up(*uid)));
        for uid in first {
            turns.again(uid);
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
        assert!(again.iter().all(|uid| !turns.holds_up(*uid)));
    }
}
