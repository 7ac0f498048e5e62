//! Says how long to wait before something is tried again: longer each time, and others another time.

use std::time::Duration;

/// The pauses between tries. Each is twice the one before, up to a bound; those of somebody else are up to twice or half as
/// long, so that who was cut off together does not come back at once and together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses of `first` at the beginning and of `max` in the end, each times a number from ½ up to 1 that `who` decides.
    pub fn new(first: Duration, max: Duration, who: &[u8]) -> Self {
        let part = 256 + u32::from(blake3::hash(who).as_bytes()[0]);
        let spread = |pause: Duration| pause.saturating_mul(part) / 512;
        let (first, max) = (spread(first), spread(max));
        Self { first, max, next: first }
    }

    /// How long to wait now, as often as it is asked.
    pub fn current(&self) -> Duration {
        self.next
    }

    /// How long to wait before the next try; the one after that waits longer.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.max);
        pause
    }

    /// Begins anew, as what was tried has succeeded.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(who: u8) -> Backoff {
        Backoff::new(Duration::from_millis(200), Duration::from_millis(1_000), &[who])
    }

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew() {
        let mut backoff = backoff(1);
        let pauses: Vec<u128> = (0..6).map(|_| backoff.pause().as_millis()).collect();
        assert!((100..200).contains(&pauses[0]), "{pauses:?}");
        assert!(pauses[1..3].iter().zip(&pauses).all(|(next, last)| next / 2 == *last));
        assert!((500..1_000).contains(&pauses[5]) && pauses[4] == pauses[5], "{pauses:?}");
        backoff.reset();
        assert_eq!(backoff.pause().as_millis(), pauses[0]);
    }

    #[test]
    fn who_was_cut_off_together_comes_back_one_after_the_other() {
        let mut firsts: Vec<Duration> = (0..70).map(|who| backoff(who).pause()).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert!(firsts.len() > 50, "{firsts:?}");
        assert!(firsts[firsts.len() - 1] - firsts[0] > Duration::from_millis(75), "{firsts:?}");
    }
}
