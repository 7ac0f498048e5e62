//! Says how long something may take that goes by its size: no fixed number of seconds fits a kilobyte and a gigabyte.

use std::time::Duration;

/// What passes before the first byte comes, whatever the size: peers are found and connected to, and others go before.
const FIRST_BYTE: Duration = Duration::from_secs(30);

/// How long `bytes` bytes may take until the last of them is there, at `rate_min` bytes a second. It is given up then; who
/// has a deadline from the schedule gives it up by that, and a peer that sends nothing is left long before.
pub fn budget(bytes: u64, rate_min: u64) -> Duration {
    FIRST_BYTE.saturating_add(Duration::from_secs(bytes / rate_min.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_grows_with_the_size_and_has_no_end_that_is_too_early_for_any() {
        let seconds = |bytes, rate| budget(bytes, rate).as_secs();
        assert_eq!([seconds(0, 64_000), seconds(64_000, 64_000)], [30, 31]);
        // A payload of 72 B parameters over a line of 1 Mb/s.
        assert!(seconds(1_370_000_000, 64_000) > 1_370 * 8);
        assert_eq!(seconds(5, 0), 35);
        assert_eq!(seconds(u64::MAX, 1), u64::MAX);
    }
}
