//! Finds the window and the phase of a block; no other place knows where one ends.
//!
//! ```text
//! |<------------------------- window w ------------------------->|<---------- window w+1 ----------
//! | train, commit_update      | reveal_update | attest  | apply  |  commit_scores | reveal_scores | settle w
//! 0                     commit_end       reveal_end  attest_end  window_blocks
//!                                                                0      score_commit_end   score_reveal_end
//! ```
//!
//! The block at `commit_end` belongs to the reveal phase and nobody can reveal in it: the chunks that a reveal must show
//! are drawn one block later, from what that block decides, so that whoever writes it cannot commit any more.
//!
//! An extrinsic included in block `n` is judged by `phase_at(schedule, n)`. A boundary belongs to
//! what follows it: the block at offset `commit_end` is the first one of the reveal phase.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use crate::Window;

/// When the windows of a run and their phases begin and end, in blocks.
///
/// Valid (see [`Schedule::validate`]) if 0 < `commit_end` < `commit_end` + 1 < `reveal_end` < `attest_end` <
/// `window_blocks` and 0 < `score_commit_end` < `score_reveal_end` < `window_blocks`.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Serialize,
    Deserialize,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct Schedule {
    /// First block of window 0.
    pub start_block: u32,
    /// Blocks of a window.
    pub window_blocks: u32,
    /// Offset of the first block in which an update can no longer be committed.
    pub commit_end: u32,
    /// Offset of the first block in which an update can no longer be revealed.
    pub reveal_end: u32,
    /// Offset of the first block in which nobody can attest; the accepted set is computed there.
    pub attest_end: u32,
    /// Offset, in the next window, of the first block in which scores can no longer be committed.
    pub score_commit_end: u32,
    /// Offset, in the next window, at which scores can no longer be revealed and settlement begins.
    pub score_reveal_end: u32,
}

/// A [`Schedule`] that cannot work, with the wrong numbers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScheduleError {
    /// A boundary does not lie after the one before it.
    #[error("{later_name} ({later}) must be after {earlier_name} ({earlier})")]
    Order {
        /// Name of the earlier boundary.
        earlier_name: &'static str,
        /// Its offset in blocks.
        earlier: u32,
        /// Name of the boundary that must be after it.
        later_name: &'static str,
        /// Its offset in blocks.
        later: u32,
    },
}

/// The phase of a block's window: the work that is allowed on the window's updates.
#[derive(Encode, Decode, TypeInfo, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// Miners train and commit.
    Commit,
    /// Miners reveal and serve.
    Reveal,
    /// Validators fetch and attest.
    Attest,
    /// The accepted set is on chain; everybody applies it.
    Apply,
}

/// The phase of scoring: the work that is allowed on the scores of the window **before** the block's window.
#[derive(Encode, Decode, TypeInfo, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ScorePhase {
    /// Validators measure and commit.
    Commit,
    /// Validators reveal.
    Reveal,
    /// The window before is settled.
    Settle,
}

/// The place of a block in a run.
#[derive(Encode, Decode, TypeInfo, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Moment {
    /// The window the block belongs to.
    pub window: Window,
    /// Blocks since the first block of the window.
    pub offset: u32,
    /// Phase of `window`.
    pub phase: Phase,
    /// Phase of the scores of `window - 1`; without meaning in window 0.
    pub score_phase: ScorePhase,
}

/// The blocks at which the work on a window changes: each is the first one of what follows.
#[derive(Encode, Decode, TypeInfo, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Boundaries {
    /// The window's first block: updates can be committed.
    pub start: u32,
    /// Updates can be revealed, and no longer be committed.
    pub commit_end: u32,
    /// Validators can attest.
    pub reveal_end: u32,
    /// The accepted set is computed.
    pub attest_end: u32,
    /// The next window begins: scores can be committed.
    pub end: u32,
    /// Scores can be revealed.
    pub score_commit_end: u32,
    /// The window is settled.
    pub score_reveal_end: u32,
}

impl Schedule {
    /// Checks the order of the boundaries.
    pub fn validate(&self) -> Result<(), ScheduleError> {
        let boundaries = [
            (("window start", 0), ("commit_end", self.commit_end)),
            (("commit_end", self.commit_end), ("reveal_end", self.reveal_end)),
            (("the challenge", self.challenge_offset()), ("reveal_end", self.reveal_end)),
            (("reveal_end", self.reveal_end), ("attest_end", self.attest_end)),
            (("attest_end", self.attest_end), ("window_blocks", self.window_blocks)),
            (("window start", 0), ("score_commit_end", self.score_commit_end)),
            (
                ("score_commit_end", self.score_commit_end),
                ("score_reveal_end", self.score_reveal_end),
            ),
            (("score_reveal_end", self.score_reveal_end), ("window_blocks", self.window_blocks)),
        ];
        for ((earlier_name, earlier), (later_name, later)) in boundaries {
            if later <= earlier {
                return Err(ScheduleError::Order { earlier_name, earlier, later_name, later });
            }
        }
        Ok(())
    }

    /// The offset of the block in which the challenged chunks of a window are drawn, the one behind `commit_end`:
    /// [`crate::seed::challenge_seed`].
    pub fn challenge_offset(&self) -> u32 {
        self.commit_end.saturating_add(1)
    }

    /// The block in which the challenged chunks of `window` are drawn. `None` past the last block number.
    pub fn challenge_block(&self, window: Window) -> Option<u32> {
        self.window_start(window)?.checked_add(self.challenge_offset())
    }

    /// First block of window `window`. `None` past the last block number.
    pub fn window_start(&self, window: Window) -> Option<u32> {
        let blocks = window.checked_mul(u64::from(self.window_blocks))?;
        u32::try_from(u64::from(self.start_block).checked_add(blocks)?).ok()
    }

    /// The first block of `window` in which `phase` is over. `None` past the last block number.
    pub fn phase_end_block(&self, window: Window, phase: Phase) -> Option<u32> {
        let offset = match phase {
            Phase::Commit => self.commit_end,
            Phase::Reveal => self.reveal_end,
            Phase::Attest => self.attest_end,
            Phase::Apply => self.window_blocks,
        };
        self.window_start(window)?.checked_add(offset)
    }

    /// The first block in which `phase` of the scores **of** `window` is over; it lies in
    /// `window + 1`. `None` past the last block number.
    pub fn score_phase_end_block(&self, window: Window, phase: ScorePhase) -> Option<u32> {
        let offset = match phase {
            ScorePhase::Commit => self.score_commit_end,
            ScorePhase::Reveal => self.score_reveal_end,
            ScorePhase::Settle => self.window_blocks,
        };
        self.window_start(window.checked_add(1)?)?.checked_add(offset)
    }
}

impl Schedule {
    /// All boundaries of `window`. `None` past the last block number.
    pub fn boundaries(&self, window: Window) -> Option<Boundaries> {
        Some(Boundaries {
            start: self.window_start(window)?,
            commit_end: self.phase_end_block(window, Phase::Commit)?,
            reveal_end: self.phase_end_block(window, Phase::Reveal)?,
            attest_end: self.phase_end_block(window, Phase::Attest)?,
            end: self.phase_end_block(window, Phase::Apply)?,
            score_commit_end: self.score_phase_end_block(window, ScorePhase::Commit)?,
            score_reveal_end: self.score_phase_end_block(window, ScorePhase::Reveal)?,
        })
    }

    /// The first block after `block` in which a phase begins: the run's first block before it starts. `None` past the
    /// last block number.
    pub fn next_boundary(&self, block: u32) -> Option<u32> {
        let Some(moment) = phase_at(self, block) else {
            return Some(self.start_block).filter(|start| *start > block);
        };
        let offsets = [
            self.commit_end,
            self.reveal_end,
            self.attest_end,
            self.score_commit_end,
            self.score_reveal_end,
            self.window_blocks,
        ];
        let next = offsets.into_iter().filter(|offset| *offset > moment.offset).min()?;
        self.window_start(moment.window)?.checked_add(next)
    }
}

/// Where `block` lies. `None` before the run starts and for a schedule without blocks.
pub fn phase_at(schedule: &Schedule, block: u32) -> Option<Moment> {
    let elapsed = block.checked_sub(schedule.start_block)?;
    let window = u64::from(elapsed.checked_div(schedule.window_blocks)?);
    let offset = elapsed.checked_rem(schedule.window_blocks)?;
    let phase = if offset < schedule.commit_end {
        Phase::Commit
    } else if offset < schedule.reveal_end {
        Phase::Reveal
    } else if offset < schedule.attest_end {
        Phase::Attest
    } else {
        Phase::Apply
    };
    let score_phase = if offset < schedule.score_commit_end {
        ScorePhase::Commit
    } else if offset < schedule.score_reveal_end {
        ScorePhase::Reveal
    } else {
        ScorePhase::Settle
    };
    Some(Moment { window, offset, phase, score_phase })
}
