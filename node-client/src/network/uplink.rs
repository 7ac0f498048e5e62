//! Keeps what is served to all peers together under the rate that the operator gives.

use super::{
    codec::RANGE_LEN_MAX,
    rate::{Bucket, Limit},
    roles::Role,
};

/// Strangers have this part of the uplink at the most.
const STRANGERS_PART: u64 = 50;

/// The part of a second's bytes that may leave at once. What is more waits in the line's own queue, where nobody comes
/// first: a range that is longer leaves by itself, and the next when it is made up for.
const BURST_PART: u64 = 8;

/// Of content that comes, what goes back: one acknowledgement of 66 bytes for two segments of 1,448; and what the
/// question for it took.
const ACKNOWLEDGED_PART: u64 = 40;
const ASKED_BYTES: u64 = 256;

/// The part of the uplink that this takes at the most, so that who fetches from a quick line serves, too.
const ACKNOWLEDGEMENTS_PART: u64 = 2;

/// The bytes that may leave.
pub(super) struct Uplink {
    limit: Limit,
    strangers_limit: Limit,
    acknowledgements_limit: Limit,
    all: Bucket,
    strangers: Bucket,
    acknowledgements: Bucket,
}

impl Uplink {
    /// Nothing has left yet.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        let limit = |burst: u64, fill: u64| Limit {
            burst: burst.max(1),
            fill: fill.max(1),
            per_millis: 1_000,
        };
        let acknowledgements = bytes_per_second / ACKNOWLEDGEMENTS_PART;
        Self {
            limit: limit(bytes_per_second / BURST_PART, bytes_per_second),
            acknowledgements_limit: limit(acknowledgements, acknowledgements),
            // Any range fits, or it would never leave.
            strangers_limit: limit(RANGE_LEN_MAX.into(), bytes_per_second / STRANGERS_PART),
            all: Bucket::default(),
            strangers: Bucket::default(),
            acknowledgements: Bucket::default(),
        }
    }

    /// Milliseconds until `len` bytes for a peer of this role may leave.
    pub(super) fn wait_millis(&self, now_millis: u64, role: Role, len: u32) -> u64 {
        let at_once = self.limit.burst.min(len.into());
        let all = self.all.wait_millis(now_millis, at_once, &self.limit);
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
        self.all.owe(now_millis, len.into(), &self.limit);
        if role == Role::Stranger {
            self.strangers.take(now_millis, len.into(), &self.strangers_limit);
        }
    }

    /// Notes that `len` bytes of content came, which takes of the uplink, too.
    pub(super) fn received(&mut self, now_millis: u64, len: usize) {
        let took = len as u64 / ACKNOWLEDGED_PART + ASKED_BYTES;
        let took = took.min(self.acknowledgements_limit.burst);
        if self.acknowledgements.take(now_millis, took, &self.acknowledgements_limit) {
            self.all.owe(now_millis, took, &self.limit);
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
        let within = |bytes: u64, most: u64| bytes <= most && bytes + 2 * u64::from(len) >= most;
        let burst = u64::from(RANGE_LEN_MAX);
        assert!(within(left[0], burst + 200 * rate / STRANGERS_PART), "{left:?}");
        assert!(within(left[0] + left[1], rate / BURST_PART + 200 * rate), "{left:?}");
    }

    #[test]
    fn what_leaves_at_once_is_an_eighth_of_a_second_or_one_range() {
        let mut uplink = Uplink::new(800_000);
        let mut leave = |now, len| {
            let wait = uplink.wait_millis(now, Role::Replica, len);
            if wait == 0 {
                uplink.take(now, Role::Replica, len);
            }
            wait
        };
        assert_eq!([leave(0, 60_000), leave(0, 40_000), leave(0, 40_000)], [0, 0, 50]);
        // A longer one needs all that may leave at once, and the next waits for the rest of it.
        assert_eq!([leave(0, 500_000), leave(125, 500_000), leave(125, 1_000)], [125, 0, 502]);
    }

    #[test]
    fn what_comes_takes_its_acknowledgements() {
        let mut uplink = Uplink::new(800_000);
        for _ in 0..100 {
            uplink.received(0, 40_000);
        }
        // 1,000 bytes and 256 each time, of which 100,000 may leave at once.
        assert_eq!(uplink.wait_millis(0, Role::Validator, 800), 33);
        // However much comes, half of the uplink is left.
        let mut left = 0;
        for now in 0..100_000 {
            uplink.received(now, 100_000);
            while uplink.wait_millis(now, Role::Replica, 10_000) == 0 {
                uplink.take(now, Role::Replica, 10_000);
                left += 10_000;
            }
        }
        assert!((39_000_000..=41_000_000).contains(&left), "{left}");
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
