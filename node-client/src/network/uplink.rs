//! Keeps what is served to all peers together under the rate that the operator gives.

use super::{
    codec::RANGE_LEN_MAX,
    rate::{Bucket, Limit},
    roles::Role,
};

/// Strangers have this part of the uplink at the most.
const STRANGERS_PART: u64 = 50;

/// The part of a second's bytes that may leave at once, where that is more than a range.
const BURST_PART: u64 = 4;

/// The bytes that may leave.
pub(super) struct Uplink {
    limit: Limit,
    strangers_limit: Limit,
    all: Bucket,
    strangers: Bucket,
}

impl Uplink {
    /// Nothing has left yet.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        let limit = |fill: u64| Limit {
            // Any range fits, or it would never leave.
            burst: (fill / BURST_PART).max(RANGE_LEN_MAX.into()),
            fill,
            per_millis: 1_000,
        };
        Self {
            limit: limit(bytes_per_second.max(1)),
            strangers_limit: limit((bytes_per_second / STRANGERS_PART).max(1)),
            all: Bucket::default(),
            strangers: Bucket::default(),
        }
    }

    /// Milliseconds until `len` bytes for a peer of this role may leave.
    pub(super) fn wait_millis(&self, now_millis: u64, role: Role, len: u32) -> u64 {
        let all = self.all.wait_millis(now_millis, len.into(), &self.limit);
        all.max(self.reserve_wait_millis(now_millis, role, len))
    }

    /// The same, as if nobody had anything but the strangers.
    pub(super) fn reserve_wait_millis(&self, now_millis: u64, role: Role, len: u32) -> u64 {
        match role {
            Role::Stranger => {
                self.strangers.wait_millis(now_millis, len.into(), &self.strangers_limit)
            }
            _ => 0,
        }
    }

    /// Notes that `len` bytes leave, which may.
    pub(super) fn take(&mut self, now_millis: u64, role: Role, len: u32) {
        self.all.take(now_millis, len.into(), &self.limit);
        if role == Role::Stranger {
            self.strangers.take(now_millis, len.into(), &self.strangers_limit);
        }
    }

    /// Notes that `len` of the bytes taken do not leave.
    pub(super) fn give_back(&mut self, role: Role, len: u64) {
        self.all.give_back(len);
        if role == Role::Stranger {
            self.strangers.give_back(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_have_a_fiftieth_and_the_others_the_rest() {
        let (rate, len) = (1_000_000, 10_000);
        let mut uplink = Uplink::new(rate);
        let mut left = [0; 2];
        for now in 0..200_000 {
            for (role, left) in [Role::Stranger, Role::Joiner].into_iter().zip(&mut left) {
                while uplink.wait_millis(now, role, len) == 0 {
                    uplink.take(now, role, len);
                    *left += u64::from(len);
                }
            }
        }
        let burst = u64::from(RANGE_LEN_MAX);
        let within = |bytes: u64, most: u64| bytes <= most && bytes + 2 * u64::from(len) >= most;
        assert!(within(left[0], burst + 200 * rate / STRANGERS_PART), "{left:?}");
        assert!(within(left[0] + left[1], burst + 200 * rate), "{left:?}");
    }

    #[test]
    fn a_range_that_was_not_there_costs_nothing() {
        let mut uplink = Uplink::new(1);
        for _ in 0..3 {
            assert_eq!(uplink.wait_millis(0, Role::Stranger, RANGE_LEN_MAX), 0);
            uplink.take(0, Role::Stranger, RANGE_LEN_MAX);
            assert!(uplink.wait_millis(0, Role::Validator, 1) > 0);
            uplink.give_back(Role::Stranger, RANGE_LEN_MAX.into());
        }
    }
}
