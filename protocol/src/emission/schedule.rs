//! Says what the chain's schedule gives, and divides it among runs by their weights.
//!
//! The schedule gives an amount for each block. In a block each run earns `amount · weight / sum of weights`; a sum over
//! the blocks so far is kept for one unit of weight ([`Accrual::per_weight`]), so that a run's budget of any blocks is a
//! difference of two sums times its weight, and no block does work for it. A run's weight changes only between two of its
//! windows, and then the sum of weights changes in the same block: in every block the runs' parts are at most the whole,
//! aligned or not.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{BlockNumber, Planck};

/// Fractional bits of [`Accrual::per_weight`].
const FRACTION_BITS: u32 = 32;

/// The most that a schedule gives in all, so that [`Accrual::per_weight`] fits into 128 bits: 2^96 − 1 planck.
const GIVEN_MAX: Planck = (1 << 96) - 1;

/// A mint that gives `per_block`, halved every `halving_blocks`, until `cap` is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Halving {
    /// The first block that gives something.
    pub start_block: BlockNumber,
    /// Planck a block before the first halving.
    pub per_block: Planck,
    /// Blocks between two halvings; 0 means never.
    pub halving_blocks: BlockNumber,
    /// Planck in all blocks together, at most.
    pub cap: Planck,
}

impl Halving {
    /// Planck that the blocks before `block` give together: per_block · halving_blocks · (1 + 1/2 + 1/4 …), each halving
    /// rounded down, and never more than the cap.
    pub fn through(&self, block: BlockNumber) -> Planck {
        let elapsed = block.saturating_sub(self.start_block);
        // Without halvings all blocks are of one period, which is not over.
        let periods = elapsed.checked_div(self.halving_blocks).unwrap_or(0);
        let rest = elapsed.checked_rem(self.halving_blocks).unwrap_or(elapsed);
        // What does not fit is more than the cap.
        let whole = (0..periods)
            .map(|period| self.in_block(period).saturating_mul(self.halving_blocks.into()))
            .take_while(|amount| *amount > 0)
            .fold(0, Planck::saturating_add);
        let begun = self.in_block(periods).saturating_mul(rest.into());
        whole.saturating_add(begun).min(self.cap)
    }

    /// What a block gives after so many halvings.
    fn in_block(&self, halvings: u32) -> Planck {
        self.per_block.checked_shr(halvings).unwrap_or(0)
    }
}

/// What the schedule gave one unit of weight so far; one a chain.
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
    Debug,
    Default
)]
pub struct Accrual {
    /// The blocks before this one are counted.
    pub block: BlockNumber,
    /// Sum of the weights in force.
    pub total_weight: u32,
    /// Planck for a unit of weight, with 32 fractional bits, rounded down.
    pub per_weight: u128,
}

impl Accrual {
    /// Counts the blocks before `block`. `through` says what the schedule gives in the blocks before one.
    ///
    /// While no run has a weight the blocks give nothing to anybody.
    pub fn advance(&mut self, block: BlockNumber, through: impl Fn(BlockNumber) -> Planck) {
        if block <= self.block {
            return;
        }
        let since = through(block).saturating_sub(through(self.block)).min(GIVEN_MAX);
        self.block = block;
        let per_weight = (since << FRACTION_BITS).checked_div(self.total_weight.into());
        // A sum that does not fit, which only an absurd schedule reaches, stops giving.
        if let Some(sum) = per_weight.and_then(|amount| self.per_weight.checked_add(amount)) {
            self.per_weight = sum;
        }
    }

    /// Planck that a run has earned since [`RunWeight::mark`], rounded down.
    fn earned(&self, run: &RunWeight) -> Planck {
        let per_weight = self.per_weight.saturating_sub(run.mark);
        // At most 2^96 · 2^32, as the weight is a part of the sum that was divided by.
        let earned = per_weight.checked_mul(run.current.into()).map_or(0, |wide| wide >> 32);
        earned.saturating_add(run.earned)
    }

    /// Ends a run's window: its weight becomes `weight`, from now on. Returns the window's budget in planck. To be called
    /// with all blocks before the current one counted.
    fn turn(&mut self, run: &mut RunWeight, weight: u16) -> Planck {
        let budget = self.earned(run);
        let others = self.total_weight.saturating_sub(run.current.into());
        self.total_weight = others.saturating_add(weight.into());
        run.current = weight;
        run.mark = self.per_weight;
        run.earned = 0;
        budget
    }
}

/// A run's part of the schedule: its weight among the runs'.
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
    Debug,
    Default
)]
pub struct RunWeight {
    /// In force in the window that is open; a part of [`Accrual::total_weight`].
    pub current: u16,
    /// In force from the next window on.
    pub next: u16,
    /// [`Accrual::per_weight`] when `current` came into force.
    pub mark: u128,
    /// Planck earned in the open window before `mark`.
    pub earned: Planck,
}

impl RunWeight {
    /// Opens a window, in which the weight that waited is in force. Returns the budget of the window that ends, in
    /// planck.
    pub fn open_window(&mut self, accrual: &mut Accrual) -> Planck {
        accrual.turn(self, self.next)
    }

    /// Ends what the run earns until its next window opens; what it has earned in this one stays.
    pub fn suspend(&mut self, accrual: &mut Accrual) {
        self.earned = accrual.turn(self, 0);
    }
}
