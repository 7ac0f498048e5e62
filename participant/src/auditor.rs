//! Recomputes a run from what is on chain and from the payloads, with the functions of `protocol` alone, and says where
//! chain and replay part.
//!
//! It recomputes, window by window:
//!
//! - **seeds**: from block hashes and the validators' revealed salts, in the order of the chain;
//! - **commitments**: every opening and every score reveal hashes to what had been committed to;
//! - **accepted set** and final state root: from the attestations and the standings that this audit itself computed;
//! - **payloads**: each one that was kept has the root that was revealed; each accepted one is there;
//! - **state roots**: θ from the model's seed on, by the outer steps;
//! - **ratings, shares and pay**: from the revealed evaluations, against the chain's events;
//! - **ledger**: minted + funded = paid + claimable + carried + unspent + slashed + burned, and each window's part of it.
//!   What a window was given is bounded by the budget that the chain fixed for it.
//!
//! What is not: the evaluations themselves, which are measurements. That half of the stake measured alike is what the
//! rules rely on.

mod replay;
mod settle;
mod window;

use std::sync::Arc;

use node_client::chain::Chain;
use protocol::{BlockNumber, Window};

use self::replay::Replay;
use crate::error::{unfit, Attempt as _, Result};

pub use self::{
    replay::{AuditSettings, Difference},
    window::WindowFinding,
};

/// Replays one run. Settlements are audited first, then windows in order: [`Audit::settlements`], [`Audit::next_window`],
/// [`Audit::ledger`].
pub struct Audit {
    replay: Replay,
    window_count: Window,
    next_window: Window,
}

impl Audit {
    /// Reads the chain up to its finalised head.
    ///
    /// # Errors
    /// The chain does not answer, is another one or has no such run; the model is not the run's or does not fit the memory.
    pub async fn open(chain: Arc<dyn Chain>, settings: AuditSettings) -> Result<Self> {
        Ok(Self { replay: Replay::open(chain, settings).await?, window_count: 0, next_window: 0 })
    }

    /// Audits the settlements of the first `windows` windows, or of all that are settled. Returns how many those are.
    ///
    /// # Errors
    /// No window is settled yet, or the chain does not answer.
    pub async fn settlements(&mut self, windows: Option<Window>) -> Result<Window> {
        let settled = self.settled_windows();
        self.window_count = windows.map_or(settled, |windows| windows.min(settled));
        if self.window_count == 0 {
            unfit!("no window of run {} is settled yet", self.replay.run);
        }
        for window in 0..self.window_count {
            self.replay
                .settlement(window)
                .await
                .with_context(|| format!("settlement of window {window}"))?;
        }
        Ok(self.window_count)
    }

    /// Audits the next window and takes its outer step; `None` after the last one.
    ///
    /// # Errors
    /// The chain does not answer or lacks what a chain keeps. A difference is no error: see [`Audit::differences`].
    pub async fn next_window(&mut self) -> Result<Option<WindowFinding>> {
        let window = self.next_window;
        if window >= self.window_count {
            return Ok(None);
        }
        self.next_window = window + 1;
        let (before, had_state) = (self.replay.differences.len(), self.replay.state.is_some());
        let mut finding =
            self.replay.window(window).await.with_context(|| format!("window {window}"))?;
        finding.ends_replay = had_state && self.replay.state.is_none();
        finding.agrees = self.replay.differences.len() == before;
        Ok(Some(finding))
    }

    /// Where chain and replay part, as far as was audited.
    pub fn differences(&self) -> &[Difference] {
        &self.replay.differences
    }

    /// Number of the last block that is audited.
    pub fn head(&self) -> usize {
        self.replay.blocks.len().saturating_sub(1)
    }

    /// Counts the windows that are settled, or void, from 0 on.
    pub fn settled_windows(&self) -> Window {
        self.replay.settled_windows()
    }

    /// Audits the ledger: it is conserved, and minted what the windows did.
    ///
    /// # Errors
    /// The chain does not answer.
    pub async fn ledger(&mut self) -> Result<()> {
        let head = self.head() as BlockNumber;
        let replay = &mut self.replay;
        let head = replay.hash(head)?;
        let ledger = replay.chain.ledger(replay.run, Some(head)).await?;
        let last = self.window_count.saturating_sub(1);
        if !ledger.is_conserved() {
            replay.differ(last, None, format!("ledger: its parts are not the whole: {ledger:?}"));
        }
        if self.window_count == replay.settled_windows() {
            replay.compare((last, None), "ledger: minted", ledger.minted, replay.minted);
            let released = ledger.funded.saturating_sub(ledger.unspent);
            replay.compare((last, None), "ledger: of sponsors", released, replay.released);
            replay.compare((last, None), "ledger: carried", ledger.carried(), replay.carried);
        }
        Ok(())
    }
}
