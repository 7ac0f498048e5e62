//! Defines the inputs and the outcome of a settlement.

use alloc::vec::Vec;

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use super::{Evaluation, Standing};
use crate::{fixed::Q32, rating::RatingError, Uid, ValidatorIndex};

/// A miner's fault in the window, proven by what is on chain.
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
    Debug
)]
pub enum Fault {
    /// It committed nothing.
    MissedCommit,
    /// It committed and did not reveal.
    MissedReveal,
    /// Validators with enough stake attested, and could not fetch its payload or found it invalid.
    Unavailable,
    /// Evidence on chain shows it, see [`crate::fault::ProvenFault`].
    Proven,
}

impl Fault {
    /// The fault of a miner of which the books say whether it committed and revealed, and whether its payload is proven
    /// unavailable. A payload that was not revealed cannot be unavailable.
    pub fn of(committed: bool, revealed: bool, unavailable: bool) -> Option<Fault> {
        match (revealed, committed) {
            (true, _) => unavailable.then_some(Fault::Unavailable),
            (false, true) => Some(Fault::MissedReveal),
            (false, false) => Some(Fault::MissedCommit),
        }
    }
}

/// A miner's record on the chain when a window is settled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MinerInput {
    /// The miner's slot.
    pub uid: Uid,
    /// Its standing before the window.
    pub standing: Standing,
    /// It is on probation: scored, and not paid.
    pub on_probation: bool,
    /// It revealed a valid update. Otherwise evaluations of it are ignored and it is not paid.
    pub revealed: bool,
    /// Its fault, if any. With a fault it is not paid for the window.
    pub fault: Option<Fault>,
}

/// A validator's record on the chain when a window is settled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValidatorInput {
    /// The validator's slot.
    pub index: ValidatorIndex,
    /// The stake of its permit in planck.
    pub stake: u64,
    /// It committed and revealed its scores. Otherwise its evaluations are ignored.
    pub present: bool,
    /// How far its attestation was right, from 0 (there was none, or of another state) to 1; see
    /// [`crate::accept::attestation_worth`].
    pub attested: Q32,
    /// The miners that were drawn for it, sorted by uid; see [`crate::assignment::Draw`].
    pub drawn: Vec<Uid>,
    /// Its evaluations as revealed, in any order. A uid that it names twice, that is unknown or that was not drawn for it is
    /// ignored.
    pub evaluations: Vec<Evaluation>,
    /// Its bonds by uid, without those in miners that are gone; only [`crate::settings::ConsensusKind::Yuma`] has any.
    pub bonds: Vec<(Uid, u16)>,
}

/// All that a settlement is computed from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettlementInput {
    /// The window's participants.
    pub miners: Vec<MinerInput>,
    /// The holders of the window's permits that are still there.
    pub validators: Vec<ValidatorInput>,
    /// The stake of all permits in planck, also of those whose holder has left.
    pub permitted_stake: u128,
    /// The window has a final state root.
    pub is_final: bool,
}

impl SettlementInput {
    /// Whether the window has a result: a final state, and scores of half of the permitted stake at least. Without, no
    /// measurement counts and nobody is paid: a few that remain while the others are kept away decide nothing.
    pub fn has_result(&self) -> bool {
        let revealed = self
            .validators
            .iter()
            .filter(|validator| validator.present)
            .fold(0u128, |sum, validator| sum.saturating_add(u128::from(validator.stake)));
        self.is_final && revealed > 0 && revealed.saturating_mul(2) >= self.permitted_stake
    }
}

/// A window's outcome for a miner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MinerOutcome {
    /// The miner's slot.
    pub uid: Uid,
    /// Median relative improvement on its own samples; `None` without a quorum.
    pub own: Option<Q32>,
    /// Median relative improvement on random samples; `None` without a quorum.
    pub random: Option<Q32>,
    /// Its standing after the window.
    pub standing: Standing,
    /// Its standing as one number, F.
    pub value: Q32,
    /// Its part of the miners' pot.
    pub share: Q32,
}

/// A window's outcome for a validator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValidatorOutcome {
    /// The validator's slot.
    pub index: ValidatorIndex,
    /// How far it agrees with the medians, from 0 to 1.
    pub agreement: Q32,
    /// Its part of the validators' pot.
    pub share: Q32,
    /// Its bonds after the window, by uid.
    pub bonds: Vec<(Uid, u16)>,
}

/// The settlement of a window, miners and validators in the order of the inputs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The outcome of each miner, in the order of the inputs.
    pub miners: Vec<MinerOutcome>,
    /// The outcome of each validator, in the order of the inputs.
    pub validators: Vec<ValidatorOutcome>,
}

/// Why a window could not be settled or paid: it is void.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConsensusError {
    /// Two miners with one uid.
    #[error("miner {0} is given twice")]
    DuplicateMiner(Uid),
    /// Two validators with one index.
    #[error("validator {0} is given twice")]
    DuplicateValidator(ValidatorIndex),
    /// The ratings could not be moved.
    #[error(transparent)]
    Rating(#[from] RatingError),
    /// A number left its range; the name says which.
    #[error("{0} does not fit")]
    Overflow(&'static str),
    /// Shares are negative or sum to more than one.
    #[error("shares must be from 0 to 1 and sum to at most 1")]
    Shares,
    /// The parts of the emission exceed one million.
    #[error("the parts of the emission exceed the whole")]
    EmissionParts,
}

impl MinerInput {
    /// A miner can be scored for a window in which it revealed a valid update and is guilty of no fault.
    pub(super) fn is_scorable(&self) -> bool {
        self.revealed && self.fault.is_none()
    }

    /// A miner is paid for a window in which it can be scored, once its probation is over.
    pub(super) fn is_paid(&self) -> bool {
        self.is_scorable() && !self.on_probation
    }
}
