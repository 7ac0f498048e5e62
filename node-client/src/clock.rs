//! Tells the time through a trait: by the system's clock, or by one that a test moves by hand.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::sync::watch;

/// A source of time that can also be waited on.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch (or since a test's own zero). Does not go back within one process.
    fn now_millis(&self) -> u64;

    /// Waits until `duration` has passed on this clock. Cancel-safe.
    async fn sleep(&self, duration: Duration);
}

/// When this process first asked for the time, by the system's clock and by one that nobody sets.
static BEGIN: LazyLock<(u64, Instant)> = LazyLock::new(|| {
    // A clock before 1970 reads as 0.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(millis).unwrap_or(0);
    (now, Instant::now())
});

/// The system's clock as it was when the process first asked, and the time since; waits with tokio's timer. Whoever sets
/// the system's clock meanwhile makes nobody wait longer, nor shorter.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now_millis(&self) -> u64 {
        let (begin, since) = &*BEGIN;
        begin.saturating_add(millis(since.elapsed()))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock that stands still until [`ManualClock::advance`] moves it; clones share the same time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    now: Arc<watch::Sender<u64>>,
}

impl ManualClock {
    /// A clock that reads `now_millis`.
    pub fn new(now_millis: u64) -> Self {
        Self { now: Arc::new(watch::Sender::new(now_millis)) }
    }

    /// Moves the clock forward and wakes every sleeper whose time has come.
    pub fn advance(&self, duration: Duration) {
        self.now.send_modify(|now| *now = now.saturating_add(millis(duration)));
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new(0)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now_millis(&self) -> u64 {
        *self.now.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let mut now = self.now.subscribe();
        let wake_at = now.borrow().saturating_add(millis(duration));
        // The sender lives in `self`, so the wait can only end by the time having come.
        let _ = now.wait_for(|now| *now >= wake_at).await;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_only_when_its_time_has_come() {
        let clock = ManualClock::new(5);
        let mut sleep = clock.sleep(Duration::from_millis(10));
        assert!(futures::poll!(&mut sleep).is_pending());
        clock.advance(Duration::from_millis(9));
        assert!(futures::poll!(&mut sleep).is_pending());
        clock.advance(Duration::from_millis(1));
        sleep.await;
        assert_eq!(clock.now_millis(), 15);
    }
}
