//! Follows a run until its last window is settled, and keeps every process up meanwhile.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{bail, Context, Result};
use futures::{Stream, StreamExt};
use node_client::chain::{BlockRef, Chain, GauntletEvent};
use protocol::{
    window::{phase_at, Schedule, ScorePhase},
    BlockNumber, Hash, Window,
};

use super::{board::Board, processes::Processes, progress::LocalnetProgress};

/// How long the participants may take for what they have to do after the last settlement.
const LAST_STATE_PATIENCE: Duration = Duration::from_secs(10);

/// How long the chain may make no block, or not tell what happened in one: longer than its restart takes on a busy
/// machine.
const STALL_PATIENCE: Duration = Duration::from_secs(120);

/// How often it is looked whether a process has ended.
const TICK: Duration = Duration::from_millis(500);

/// Windows that the chain may be late by before the command gives up.
const LATE_WINDOWS_MAX: u64 = 2;

/// A finalised block and what happened in it.
type ToldBlock = (BlockRef, Vec<GauntletEvent>);

/// A run that is watched, and what is known of it so far.
pub(super) struct Watch<'a> {
    schedule: &'a Schedule,
    board: &'a mut Board,
    progress: &'a mut LocalnetProgress,
    windows: Window,
    /// The block at which the last window must be settled.
    give_up_block: BlockNumber,
    settled_at: Option<Instant>,
    block_at: Instant,
}

impl<'a> Watch<'a> {
    /// Watches `windows` windows of a run that has this `schedule`.
    ///
    /// # Errors
    /// The chain cannot count so many.
    pub(super) fn new(
        schedule: &'a Schedule,
        windows: Window,
        board: &'a mut Board,
        progress: &'a mut LocalnetProgress,
    ) -> Result<Self> {
        let give_up_block = schedule
            .score_phase_end_block(windows + LATE_WINDOWS_MAX, ScorePhase::Settle)
            .context("so many windows are more than the chain counts")?;
        let block_at = Instant::now();
        Ok(Self { schedule, board, progress, windows, give_up_block, settled_at: None, block_at })
    }

    /// Follows the run on `chain` until its last window is settled, and keeps `processes` up meanwhile, the chain's own
    /// among them.
    ///
    /// # Errors
    /// The chain stands still, the last window is not settled in time, or a process ends again and again.
    pub(super) async fn follow(
        self,
        chain: Arc<dyn Chain>,
        processes: &mut Processes,
    ) -> Result<()> {
        let blocks = chain.subscribe_finalized().await?;
        self.follow_blocks(told(chain, blocks), processes).await
    }

    /// Follows `blocks`. To wait for one of them must not keep a process down: it may be the chain that is waited for.
    async fn follow_blocks(
        mut self,
        blocks: impl Stream<Item = ToldBlock>,
        processes: &mut Processes,
    ) -> Result<()> {
        let mut blocks = pin!(blocks);
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                told = blocks.next() => {
                    let (block, events) = told.context("the chain's stream of blocks has ended")?;
                    self.block(block, &events)?;
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

    /// Takes in a finalised block and what happened in it.
    fn block(&mut self, block: BlockRef, events: &[GauntletEvent]) -> Result<()> {
        self.block_at = Instant::now();
        for event in events {
            let settled = self.board.event(event);
            self.board.news().iter().for_each(|line| self.progress.say(line));
            let Some(window) = settled else { continue };
            self.board.read_diaries();
            self.progress.settled(window, self.board);
            if window + 1 >= self.windows {
                self.settled_at = Some(Instant::now());
            }
        }
        let moment = phase_at(self.schedule, block.number);
        self.progress.block(self.schedule, block.number, moment, self.board);
        if block.number > self.give_up_block && self.settled_at.is_none() {
            bail!("the last window is not settled at block {}", block.number);
        }
        Ok(())
    }

    /// Reads the diaries and starts again whatever has ended.
    fn keep_up(&mut self, processes: &mut Processes) -> Result<()> {
        if self.block_at.elapsed() > STALL_PATIENCE {
            bail!("the chain has told of no block for {} s", STALL_PATIENCE.as_secs());
        }
        self.board.read_diaries();
        start_again(processes, self.board, self.progress)
    }

    /// Whether the last window is settled and the participants have done what they do after it, or had the time to.
    fn is_over(&self) -> bool {
        let windows = self.windows;
        let is_complete = self.board.hold_state(windows) && self.board.has_held_out(windows);
        self.settled_at.is_some_and(|at| is_complete || at.elapsed() > LAST_STATE_PATIENCE)
    }
}

/// Waits for `work` and keeps `processes` up meanwhile: it may be one of them that it waits for. One that ends again and again is
/// left, as `work` may have no need of it.
pub(super) async fn beside<T>(
    processes: &mut Processes,
    board: &mut Board,
    progress: &LocalnetProgress,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = tick.tick() => {
                if let Err(error) = start_again(processes, board, progress) {
                    progress.say(format!("{error:#}"));
                    return work.await;
                }
            }
        }
    }
}

/// Starts again whatever has ended.
fn start_again(
    processes: &mut Processes,
    board: &mut Board,
    progress: &LocalnetProgress,
) -> Result<()> {
    for process in processes.all() {
        if let Some(status) = process.keep_up()? {
            let what = format!("{} ended ({status}) and was started again", process.name());
            progress.say(&what);
            board.restarted(what);
        }
    }
    Ok(())
}

/// `blocks` of `chain` with what happened in each.
fn told(
    chain: Arc<dyn Chain>,
    blocks: impl Stream<Item = BlockRef>,
) -> impl Stream<Item = ToldBlock> {
    blocks.then(move |block| {
        let chain = Arc::clone(&chain);
        async move { (block, events_at(chain.as_ref(), block.hash).await) }
    })
}

/// Reads the events of a block; asks again while the chain is away.
async fn events_at(chain: &dyn Chain, block: Hash) -> Vec<GauntletEvent> {
    let mut is_first = true;
    loop {
        match chain.events_at(block).await {
            Ok(events) => return events,
            // Once for each block: the first error says why.
            Err(error) if is_first => tracing::warn!(%error, "cannot read the events of a block"),
            Err(error) => tracing::debug!(%error, "cannot read the events of a block"),
        }
        is_first = false;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use futures::stream;
    use node_client::chain::fake::FakeChain;
    use protocol::settings::Settings;

    use super::*;
    use crate::{commands::localnet::report::ModelReport, supervise::Program};

    fn ends_at_once(folder: &Path) -> Processes {
        let program = Program {
            name: "node".into(),
            binary: "/bin/true".into(),
            args: Vec::new(),
            logs: folder.to_owned(),
        };
        Processes { nodes: Vec::new(), participants: vec![program.start().unwrap()] }
    }

    fn board(folder: &Path) -> Board {
        Board::new(0, [0; 32], ModelReport::default(), &[], folder).unwrap()
    }

    /// As when the chain is asked for the run's books and its node has ended.
    #[tokio::test]
    async fn what_ends_is_started_again_while_something_is_waited_for_and_takes_nothing_of_that() {
        let folder = tempfile::tempdir().unwrap();
        let mut processes = ends_at_once(folder.path());
        let (mut board, progress) = (board(folder.path()), LocalnetProgress::new(1));
        let work = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            7
        };
        assert_eq!(beside(&mut processes, &mut board, &progress, work).await, 7);
        assert!(processes.participants[0].keep_up().is_err(), "it has ended too often");
        assert!(!board.report(1, Default::default(), 0.0).restarts.is_empty());
    }

    #[tokio::test]
    async fn what_ends_is_started_again_while_the_chain_does_not_tell_what_happened_in_a_block() {
        let folder = tempfile::tempdir().unwrap();
        let mut processes = ends_at_once(folder.path());
        let mut board = board(folder.path());
        let mut progress = LocalnetProgress::new(1);
        let schedule = Settings::example().schedule;
        let watch = Watch::new(&schedule, 1, &mut board, &mut progress).unwrap();
        // The chain knows of no such block, as one that is away.
        let block = BlockRef { number: 1, hash: [7; 32] };
        let blocks = told(Arc::new(FakeChain::new(1, [])), stream::iter([block]));
        let ended = watch.follow_blocks(blocks, &mut processes);
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
        // By the process that ends each time, not by the chain.
        assert!(ended.unwrap_err().to_string().contains("node ended again"));
        assert!(!board.report(1, Default::default(), 0.0).restarts.is_empty());
    }
}
