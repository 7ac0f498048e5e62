//! Says at which blocks a run's phases end, one after the other: what the chain's hooks have to look at.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{window::Schedule, BlockNumber, Window};

/// What begins at a block. Those of one offset happen in this order.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Debug
)]
pub enum Boundary {
    /// A window: its seed is drawn.
    Open,
    /// The revealing of the scores of the window before.
    ScoreReveal,
    /// The settlement of the window before.
    Settle,
    /// The revealing of updates, as soon as the challenged chunks are drawn.
    Reveal,
    /// Attesting.
    Attest,
    /// Applying: the accepted set is fixed.
    Accept,
}

/// A boundary of a run, and the block at which it lies.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug
)]
pub struct Crossing {
    /// The block.
    pub block: BlockNumber,
    /// The window in which the block lies.
    pub window: Window,
    /// What begins there.
    pub boundary: Boundary,
}

impl Schedule {
    /// The boundaries of a window with their offsets, in the order in which they happen.
    fn offsets(&self) -> [(u32, Boundary); 6] {
        let mut all = [
            (0, Boundary::Open),
            (self.score_commit_end, Boundary::ScoreReveal),
            (self.score_reveal_end, Boundary::Settle),
            (self.challenge_offset(), Boundary::Reveal),
            (self.reveal_end, Boundary::Attest),
            (self.attest_end, Boundary::Accept),
        ];
        all.sort_unstable();
        all
    }

    /// Where `boundary` of `window` lies. `None` past the last block number.
    pub fn crossing(&self, window: Window, boundary: Boundary) -> Option<Crossing> {
        let (offset, _) = self.offsets().into_iter().find(|(_, found)| *found == boundary)?;
        let block = self.window_start(window)?.checked_add(offset)?;
        Some(Crossing { block, window, boundary })
    }

    /// The boundary that follows another one. `None` past the last block number.
    pub fn crossing_after(&self, window: Window, boundary: Boundary) -> Option<Crossing> {
        let mut later = self.offsets().into_iter().skip_while(|(_, found)| *found != boundary);
        match later.nth(1) {
            Some((_, next)) => self.crossing(window, next),
            None => self.crossing(window.checked_add(1)?, Boundary::Open),
        }
    }
}
