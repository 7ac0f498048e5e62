//! Limits how much may be had of something in a time, by one or by each of many.

use std::{collections::HashMap, hash::Hash};

/// Buckets remembered of one kind; when there are more, the one longest without use makes room.
const BUCKETS_MAX: usize = 8_192;

/// How much may be had at once, and how much comes back in a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// The most that may be had at once.
    pub(super) burst: u64,
    /// What comes back in `per_millis`.
    pub(super) fill: u64,
    /// Milliseconds, not 0.
    pub(super) per_millis: u64,
}

/// A rate limit: fills at a rate, holds a burst, starts full.
#[derive(Default)]
pub(super) struct Bucket {
    /// What has been taken and not yet filled again.
    taken: u64,
    at_millis: u64,
}

impl Bucket {
    /// Takes `amount`, or nothing if that would exceed the burst.
    pub(super) fn take(&mut self, now_millis: u64, amount: u64, limit: &Limit) -> bool {
        self.fill(now_millis, limit);
        if self.taken.saturating_add(amount) > limit.burst {
            return false;
        }
        self.taken = self.taken.saturating_add(amount);
        true
    }

    /// Takes `amount` though it may exceed the burst: nothing is to be had until that is filled.
    pub(super) fn owe(&mut self, now_millis: u64, amount: u64, limit: &Limit) {
        self.fill(now_millis, limit);
        self.taken = self.taken.saturating_add(amount);
    }

    fn fill(&mut self, now_millis: u64, limit: &Limit) {
        // The clock may be set back.
        self.at_millis = self.at_millis.min(now_millis);
        let filled = self.filled(now_millis, limit);
        // Less than one unit has come back: keep the time, or slow rates would never fill.
        if filled > 0 {
            self.taken = self.taken.saturating_sub(filled);
            self.at_millis = now_millis;
        }
    }

    /// Puts back what was taken and not used.
    pub(super) fn give_back(&mut self, amount: u64) {
        self.taken = self.taken.saturating_sub(amount);
    }

    /// Milliseconds until `amount` can be taken: 0 if now, `u64::MAX` if it never can.
    pub(super) fn wait_millis(&self, now_millis: u64, amount: u64, limit: &Limit) -> u64 {
        let room = limit.burst.saturating_sub(amount);
        let lacking =
            self.taken.saturating_sub(self.filled(now_millis, limit).saturating_add(room));
        if amount > limit.burst || lacking > 0 && limit.fill == 0 {
            return u64::MAX;
        }
        if lacking == 0 {
            return 0;
        }
        let until_filled = self.taken.saturating_sub(room).saturating_mul(limit.per_millis);
        let passed = now_millis.saturating_sub(self.at_millis);
        until_filled.div_ceil(limit.fill).saturating_sub(passed).max(1)
    }

    fn filled(&self, now_millis: u64, limit: &Limit) -> u64 {
        now_millis.saturating_sub(self.at_millis).saturating_mul(limit.fill) / limit.per_millis
    }
}

/// A bucket for each of those who take, which outlives what they take it over.
pub(super) struct Buckets<K> {
    limit: Limit,
    /// At most [`BUCKETS_MAX`]; who is not here has taken nothing.
    buckets: HashMap<K, Bucket>,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, buckets: HashMap::new() }
    }

    /// Takes `amount` of `who`'s, or nothing if that would exceed its burst.
    pub(super) fn take(&mut self, who: K, now_millis: u64, amount: u64) -> bool {
        if self.buckets.len() >= BUCKETS_MAX && !self.buckets.contains_key(&who) {
            let oldest = self.buckets.iter().min_by_key(|(_, bucket)| bucket.at_millis);
            oldest.map(|(who, _)| *who).and_then(|who| self.buckets.remove(&who));
        }
        self.buckets.entry(who).or_default().take(now_millis, amount, &self.limit)
    }

    /// Whether `who` could take `amount` now.
    pub(super) fn has(&self, who: &K, now_millis: u64, amount: u64) -> bool {
        let wait = |bucket: &Bucket| bucket.wait_millis(now_millis, amount, &self.limit);
        self.buckets.get(who).map_or(amount <= self.limit.burst, |bucket| wait(bucket) == 0)
    }

    /// Puts back what `who` took and did not use.
    pub(super) fn give_back(&mut self, who: &K, amount: u64) {
        if let Some(bucket) = self.buckets.get_mut(who) {
            bucket.give_back(amount);
        }
    }

    /// Lets `who` have taken nothing.
    pub(super) fn forget(&mut self, who: &K) {
        self.buckets.remove(who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { burst: 10, fill: 2, per_millis: 1_000 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::default();
        assert!(bucket.take(0, 10, &LIMIT));
        assert!(!bucket.take(499, 1, &LIMIT));
        assert!(bucket.take(500, 1, &LIMIT));
        assert!(!bucket.take(999, 1, &LIMIT));
        assert!(bucket.take(1_000, 1, &LIMIT));
        assert!(!bucket.take(1_000, 11, &LIMIT));
    }

    #[test]
    fn what_one_waits_for_is_there_then_and_not_before() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.wait_millis(0, 10, &LIMIT), 0);
        assert_eq!(bucket.wait_millis(0, 11, &LIMIT), u64::MAX);
        assert!(bucket.take(0, 10, &LIMIT));
        for (now, amount) in [(0, 1), (200, 1), (700, 3), (1_500, 10)] {
            let wait = bucket.wait_millis(now, amount, &LIMIT);
            assert_eq!(now + wait, 500 * amount);
            assert_eq!(bucket.wait_millis(now + wait, amount, &LIMIT), 0);
            assert!(bucket.wait_millis(now + wait - 1, amount, &LIMIT) > 0);
        }
        bucket.give_back(4);
        assert_eq!(bucket.wait_millis(0, 4, &LIMIT), 0);
    }

    #[test]
    fn each_has_its_own_and_the_longest_unused_makes_room() {
        let mut buckets = Buckets::new(LIMIT);
        let many = BUCKETS_MAX as u64;
        for who in 0..many {
            assert!(buckets.take(who, 1_000 + who, 10));
        }
        let now = 1_000 + many;
        assert!(!buckets.take(many - 1, now, 10));
        assert!(buckets.take(many, now, 10));
        assert_eq!(buckets.buckets.len(), BUCKETS_MAX);
        // The first was forgotten, and so it has a full bucket again.
        assert!(!buckets.buckets.contains_key(&0));
        assert!(!buckets.has(&many, now, 1));
        buckets.give_back(&many, 10);
        assert!(buckets.has(&many, now, 10) && !buckets.has(&many, now, 11));
        assert!(buckets.take(many, now, 10));
    }
}
