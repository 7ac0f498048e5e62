//! Lets a participant that is asked to end keep what it has promised first.
//!
//! A commitment that is never opened is a fault of who made it, and a miner's is lost work besides. So who is asked
//! to end makes no further promise, and opens those it has made; a miner serves its update until validators can
//! attest it no more. All of them are kept or too late when the window ends, which bounds the wait, and a juror's
//! verdict when the next one does; a chain that stands still keeps nobody.

use std::{sync::Arc, time::Duration};

use protocol::{
    window::{phase_at, Schedule},
    BlockNumber,
};
use tokio::sync::watch;

use crate::heads::Heads;

/// How long who is leaving waits for the next block.
const BLOCK_PATIENCE: Duration = Duration::from_secs(60);

/// What a participant has promised.
#[derive(Clone, Copy, Default, Debug)]
struct Promised {
    /// Promises that are not kept yet.
    open: usize,
    /// From which block on none of those that last beyond their window can be kept.
    until: BlockNumber,
    /// Whether it is asked to end.
    is_leaving: bool,
}

/// The promises of one participant, and whether it is leaving; clones see the same.
#[derive(Clone)]
pub struct Leave {
    promised: Arc<watch::Sender<Promised>>,
    heads: Heads,
    schedule: Schedule,
}

/// A promise that is not kept yet; it is when this is dropped.
pub(crate) struct Promise(Arc<watch::Sender<Promised>>);

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.send_modify(|promised| promised.open = promised.open.saturating_sub(1));
    }
}

impl Leave {
    /// Nothing is promised, and nobody leaves a run of this schedule.
    pub fn new(heads: Heads, schedule: Schedule) -> Self {
        Self { promised: Arc::default(), heads, schedule }
    }

    /// Begins a promise. Who is leaving makes none: then this waits for ever, and ends with its service. Cancel-safe.
    pub(crate) async fn promise(&self) -> Promise {
        let mut is_made = false;
        self.promised.send_modify(|promised| {
            is_made = !promised.is_leaving;
            promised.open = promised.open.saturating_add(usize::from(is_made));
        });
        if !is_made {
            std::future::pending::<()>().await;
        }
        Promise(self.promised.clone())
    }

    /// Begins a promise that can be kept before block `until`, in this window or a later one; `None` for who is leaving.
    pub(crate) fn promise_until(&self, until: BlockNumber) -> Option<Promise> {
        let mut promise = None;
        self.promised.send_modify(|promised| {
            if !promised.is_leaving {
                promised.open = promised.open.saturating_add(1);
                promised.until = promised.until.max(until);
                promise = Some(Promise(self.promised.clone()));
            }
        });
        promise
    }

    /// Whether the participant is asked to end: nothing that leads to a promise is begun.
    pub(crate) fn is_asked(&self) -> bool {
        self.promised.borrow().is_leaving
    }

    /// Asks the participant to end, and waits until every promise is kept, or the window that the best block is in is
    /// over and what lasts beyond it is too late, or no block comes for a minute. Cancel-safe: asked it stays.
    pub(crate) async fn keep_promises(&self) {
        self.promised.send_modify(|promised| promised.is_leaving = true);
        let open = self.promised.borrow().open;
        if open > 0 {
            tracing::info!(open, "ends when what it has committed to is opened");
        }
        let mut promised = self.promised.subscribe();
        tokio::select! {
            biased;
            // It never ends while this is here.
            _ = promised.wait_for(|promised| promised.open == 0) => {}
            () = self.too_late() => {}
        }
    }

    /// Waits until no promise can be kept any more, as long as blocks come.
    async fn too_late(&self) {
        let (mut heads, until) = (self.heads.clone(), self.promised.borrow().until);
        let end = self.window_end().max(until);
        while heads.best() < end {
            let next = heads.best().saturating_add(1);
            let reached = tokio::time::timeout(BLOCK_PATIENCE, heads.reach_best(next)).await;
            if !matches!(reached, Ok(Ok(()))) {
                tracing::warn!("the chain stands still: ends with promises that are not kept");
                return;
            }
        }
    }

    /// The first block after the window that the best block is in.
    fn window_end(&self) -> BlockNumber {
        let best = self.heads.best();
        let window = phase_at(&self.schedule, best).map(|moment| moment.window.saturating_add(1));
        window.and_then(|next| self.schedule.window_start(next)).unwrap_or(best)
    }
}

#[cfg(test)]
mod tests {
    use node_client::chain::fake::FakeChain;
    use protocol::settings::Settings;
    use tokio::time::{sleep, timeout, Instant};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Of a run that has begun.
    async fn leave() -> (FakeChain, Leave) {
        let (chain, schedule) = (FakeChain::new(1, []), Settings::example().schedule);
        chain.advance_to(schedule.start_block + 1);
        let (heads, follow) = Heads::follow(Arc::new(chain.clone())).await.unwrap();
        tokio::spawn(follow);
        (chain, Leave::new(heads, schedule))
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_asked_to_end_keeps_its_promises_and_makes_none() {
        let (_chain, leave) = leave().await;
        let (promise, started) = (leave.promise().await, Instant::now());
        let keeping = async {
            sleep(SECOND).await;
            assert!(leave.is_asked());
            drop(promise);
        };
        futures::join!(leave.keep_promises(), keeping);
        assert!((SECOND..2 * SECOND).contains(&started.elapsed()));
        assert!(timeout(SECOND, leave.promise()).await.is_err());
        // Nothing is promised: it ends at once.
        let started = Instant::now();
        leave.keep_promises().await;
        assert!(started.elapsed() < SECOND);
    }

    /// Lets the chain come to a block, so slowly that all see each.
    async fn reach(chain: &FakeChain, number: BlockNumber) {
        for next in 0..=number {
            chain.advance_to(next);
            sleep(SECOND / 10).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_in_the_next_window_is_waited_for_and_no_longer() {
        let (chain, leave) = leave().await;
        let until = leave.window_end() + 20;
        let promise = leave.promise_until(until).unwrap();
        {
            let mut leaving = std::pin::pin!(leave.keep_promises());
            tokio::select! {
                () = &mut leaving => panic!("it has ended before it was too late"),
                () = reach(&chain, until - 1) => {}
            }
            assert!(leave.promise_until(until).is_none());
            futures::join!(leaving, reach(&chain, until));
        }
        drop(promise);
        assert_eq!(leave.promised.borrow().open, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn neither_a_chain_that_stands_still_nor_the_next_window_is_waited_for() {
        let (chain, leave) = leave().await;
        let (_promise, started) = (leave.promise().await, Instant::now());
        leave.keep_promises().await;
        assert!((BLOCK_PATIENCE..BLOCK_PATIENCE + SECOND).contains(&started.elapsed()));

        let (end, started) = (leave.window_end(), Instant::now());
        let blocks = async {
            for number in 0..=end {
                chain.advance_to(number);
                tokio::task::yield_now().await;
            }
        };
        futures::join!(leave.keep_promises(), blocks);
        assert!(started.elapsed() < SECOND);
    }
}
