//! Settles a window: validators' measurements → standings → shares → pay.
//!
//! [`settle()`] calls the stages in order (section 8 of docs/PROTOCOL.md); each is a function with
//! its formula and rounding: `measure`, `standing`, `shares`. Last, [`pay`] turns shares of a pot
//! ([`crate::emission::payable`]) into amounts.
//!
//! The two records that the chain stores or takes in a call, [`Evaluation`] and [`Standing`], are
//! here, because the path of their module is part of the chain's metadata.
//!
//! Properties:
//!
//! - The order of miners, validators and evaluations does not matter.
//! - Validators with less than half of the weight that evaluated a miner cannot move its medians
//!   outside what the others measured.
//! - Without a final root, or without scores of half of all permitted stake, a window has no result: no standing
//!   moves but by proven faults, and nobody is paid.
//! - An evaluation that is missing is not a zero: an absent validator costs no miner its standing, and a
//!   miner that no quorum evaluated keeps it and leaves its share to be carried.
//! - A gain that is not positive lowers its own miner, whatever the others did. Garbage ends with a standing of zero and
//!   is paid nothing; who did harm in most windows cannot hold what others reach by.
//! - An old update sent again gains as much on random samples as on the miner's own, so that its proof of
//!   computation comes to lie below the gate.
//! - Only a miner that revealed a valid update in the window, was scored and is not on probation is paid for the window.
//! - At least half of the evaluations, by weight, agree to two thirds with the medians, so that somebody
//!   is paid for measuring whenever miners were scored.
//! - Shares are never negative and never sum to more than one; what they leave is carried.
//!
//! Cost: O(miners · validators · log) and, for [`StandingKind::PlackettLuce`](crate::settings::StandingKind), O(miners²).

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use crate::{fixed::Q32, rating::Rating, Uid};

mod records;

mod measure;

mod standing;

mod knee;

mod agreement;

mod shares;

mod settle;

pub mod yuma;
mod yuma_shares;

pub use agreement::DEVIATION_FLOOR;
pub use measure::{lower_median, relative_improvement, weighted_median};
pub use records::{
    ConsensusError, Fault, MinerInput, MinerOutcome, Outcome, SettlementInput, ValidatorInput,
    ValidatorOutcome,
};
pub use settle::settle;
pub(crate) use shares::part_of;
pub use shares::{pay, power_shares};
pub use standing::standing_value;

/// Losses in nats as Q8.24 (value = n / 2^24), as one validator measured them before and after it
/// applied one miner's update alone.
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
pub struct Evaluation {
    /// The miner.
    pub uid: Uid,
    /// Loss on the miner's own samples before the update.
    pub own_before: u32,
    /// Loss on the miner's own samples after the update.
    pub own_after: u32,
    /// Loss on random samples before the update.
    pub random_before: u32,
    /// Loss on random samples after the update.
    pub random_after: u32,
}

/// A miner's score over time.
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
pub struct Standing {
    /// Windows that moved this standing (n of the formulas).
    pub scored_windows: u32,
    /// The proof of computation, from −1 to 1; before the first scored window without meaning.
    pub proof: Q32,
    /// The average gain relative to the windows' typical ones, from −1 to 2; begins at 0.
    pub gain: Q32,
    /// The Plackett–Luce rating.
    pub rating: Rating,
    /// Factor on the standing, from 0 to 1; 1 is no penalty.
    pub penalty: Q32,
    /// The last medians, by which a validator that repeats them is told from one that measures.
    pub medians: Medians,
}

/// Medians of a miner's improvements over the validators that evaluated it, on its own and on random samples.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug,
    Default
)]
pub struct Medians {
    /// On the miner's own samples.
    pub own: Q32,
    /// On random samples.
    pub random: Q32,
}

impl Default for Standing {
    /// A newcomer's.
    fn default() -> Self {
        Standing {
            scored_windows: 0,
            proof: Q32::ZERO,
            gain: Q32::ZERO,
            rating: Rating::default(),
            penalty: Q32::ONE,
            medians: Medians::default(),
        }
    }
}
