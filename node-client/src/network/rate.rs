//! Limits how much a peer may have of something in a time.

/// A rate limit: fills at a rate, holds a burst, starts full.
#[derive(Default)]
pub(super) struct Bucket {
    /// What has been taken and not yet filled again.
    taken: u64,
    at_millis: u64,
}

impl Bucket {
    /// When something was last taken that has come back since, or 0: the higher, the more of a use there is to remember.
    pub(super) fn used_at(&self) -> u64 {
        self.at_millis
    }

    /// Takes `amount`, or nothing if that would exceed `burst`. `fill` comes back per `per_millis`.
    pub(super) fn take(
        &mut self,
        now_millis: u64,
        amount: u64,
        burst: u64,
        fill: u64,
        per_millis: u64,
    ) -> bool {
        let passed = now_millis.saturating_sub(self.at_millis);
        let filled = passed.saturating_mul(fill) / per_millis;
        // Less than one unit has come back: keep the time, or slow rates would never fill.
        if filled > 0 {
            self.taken = self.taken.saturating_sub(filled);
            self.at_millis = now_millis;
        }
        if self.taken.saturating_add(amount) > burst {
            return false;
        }
        self.taken = self.taken.saturating_add(amount);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Bucket;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::default();
        assert!(bucket.take(0, 10, 10, 2, 1_000));
        assert!(!bucket.take(499, 1, 10, 2, 1_000));
        assert!(bucket.take(500, 1, 10, 2, 1_000));
        assert!(!bucket.take(999, 1, 10, 2, 1_000));
        assert!(bucket.take(1_000, 1, 10, 2, 1_000));
        assert!(!bucket.take(1_000, 11, 10, 2, 1_000));
    }
}
