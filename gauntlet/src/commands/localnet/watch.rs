//! Follows a run until its last window is settled, and keeps every process up meanwhile.

use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use futures::StreamExt;
use node_client::chain::{BlockRef, Chain, GauntletEvent};
use protocol::{
    window::{phase_at, ScorePhase},
    BlockNumber, Hash, Window,
};

use super::{board::Board, on_chain::Run, processes::Processes, progress::LocalnetProgress};

/// How long the participants may take for what they have to do after the last settlement.
const LAST_STATE_PATIENCE: Duration = Duration::from_secs(10);

/// How long the chain may make no block, or not tell what happened in one: longer than its restart takes on a busy
/// machine.
const STALL_PATIENCE: Duration = Duration::from_secs(120);

/// Windows that the chain may be late by before the command gives up.
const LATE_WINDOWS_MAX: u64 = 2;

/// A run that is watched, and what is known of it so far.
pub(super) struct Watch<'a> {
    run: &'a Run,
    board: &'a mut Board,
    progress: &'a mut LocalnetProgress,
    windows: Window,
    /// The block at which the last window must be settled.
    give_up_block: BlockNumber,
    settled_at: Option<Instant>,
    block_at: Instant,
}

impl<'a> Watch<'a> {
    /// Watches `windows` windows of a run.
    ///
    /// # Errors
    /// The chain cannot count so many.
    pub(super) fn new(
        run: &'a Run,
        windows: Window,
        board: &'a mut Board,
        progress: &'a mut LocalnetProgress,
    ) -> Result<Self> {
        let schedule = &run.settings.schedule;
        let give_up_block = schedule
            .score_phase_end_block(windows + LATE_WINDOWS_MAX, ScorePhase::Settle)
            .context("so many windows are more than the chain counts")?;
        let block_at = Instant::now();
        Ok(Self { run, board, progress, windows, give_up_block, settled_at: None, block_at })
    }

    /// Follows the run until its last window is settled, and keeps `processes` up meanwhile.
    ///
    /// # Errors
    /// The chain stands still, the last window is not settled in time, or a process ends again and again.
    pub(super) async fn follow(mut self, processes: &mut Processes) -> Result<()> {
        let mut blocks = self.run.chain.subscribe_finalized().await?;
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                block = blocks.next() => {
                    self.block(block.context("the chain's stream of blocks has ended")?).await?;
                }
                _ = tick.tick() => {
                    self.keep_up(processes)?;
                    if self.is_over() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Takes in a finalised block.
    async fn block(&mut self, block: BlockRef) -> Result<()> {
        self.block_at = Instant::now();
        for event in events_at(self.run.chain.as_ref(), block.hash).await? {
            let settled = self.board.event(&event);
            self.board.news().iter().for_each(|line| self.progress.say(line));
            let Some(window) = settled else { continue };
            self.board.read_diaries();
            self.progress.settled(window, self.board);
            if window + 1 >= self.windows {
                self.settled_at = Some(Instant::now());
            }
        }
        let schedule = &self.run.settings.schedule;
        let moment = phase_at(schedule, block.number);
        self.progress.block(schedule, block.number, moment, self.board);
        if block.number > self.give_up_block && self.settled_at.is_none() {
            bail!("the last window is not settled at block {}", block.number);
        }
        Ok(())
    }

    /// Reads the diaries and starts again whatever has ended.
    fn keep_up(&mut self, processes: &mut Processes) -> Result<()> {
        if self.block_at.elapsed() > STALL_PATIENCE {
            bail!("the chain has made no block for {} s", STALL_PATIENCE.as_secs());
        }
        self.board.read_diaries();
        for process in processes.all() {
            if let Some(status) = process.keep_up()? {
                let what = format!("{} ended ({status}) and was started again", process.name());
                self.progress.say(&what);
                self.board.restarted(what);
            }
        }
        Ok(())
    }

    /// Whether the last window is settled and the participants have done what they do after it, or had the time to.
    fn is_over(&self) -> bool {
        let windows = self.windows;
        let is_complete = self.board.hold_state(windows) && self.board.has_held_out(windows);
        self.settled_at.is_some_and(|at| is_complete || at.elapsed() > LAST_STATE_PATIENCE)
    }
}

/// Reads the events of a block; asks again while the chain is away.
async fn events_at(chain: &dyn Chain, block: Hash) -> Result<Vec<GauntletEvent>> {
    let started = Instant::now();
    loop {
        match chain.events_at(block).await {
            Ok(events) => return Ok(events),
            Err(error) if started.elapsed() > STALL_PATIENCE => return Err(error.into()),
            Err(error) => tracing::debug!(%error, "cannot read the events of a block"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
