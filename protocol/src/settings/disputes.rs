//! Settings of proofs of faults: what a fault costs, and what an accusation does.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use super::{bounds::in_range, SettingsError, PPM};
use crate::Planck;

/// Most parts of the jurors' pay that a run may ask for.
pub const JURORS_MAX: u8 = 15;

/// What faults and accusations cost.
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
pub struct Disputes {
    /// Part of a miner's bond that a proven fault takes.
    pub miner_slash_ppm: u32,
    /// Part of a validator's stake, its own and its nominators', that a false evaluation takes.
    pub validator_slash_ppm: u32,
    /// Positions that two chunks have in common for the later one to be a copy. A million: all of them.
    pub copy_overlap_ppm: u32,
    /// Held of who asks for a chunk; the miner has it for the answer.
    pub challenge_bond: Planck,
    /// Blocks in which a miner must answer.
    pub answer_blocks: u32,
    /// Held of who disputes an evaluation; lost if the jury confirms it.
    pub dispute_bond: Planck,
    /// Parts, at least, in which jurors are paid for a measurement that confirms an evaluation; see
    /// [`juror_fee`](crate::fault::juror_fee).
    pub jurors: u8,
    /// How far a juror's measurement may be from an evaluation that it confirms.
    pub evaluation_tolerance_ppm: u32,
}

impl Disputes {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        let ppm = u128::from(PPM);
        let bond_max = u128::from(u64::MAX);
        in_range("miner_slash_ppm", self.miner_slash_ppm, 0, ppm)?;
        in_range("validator_slash_ppm", self.validator_slash_ppm, 0, ppm)?;
        // Honest miners, who start from one state, have up to 0.72 of a trained chunk's positions in common, and more the
        // more samples a window has: docs/study/overlap.md.
        in_range("copy_overlap_ppm", self.copy_overlap_ppm, 900_000, ppm)?;
        in_range("challenge_bond", self.challenge_bond, 1, bond_max)?;
        in_range("answer_blocks", self.answer_blocks, 1, 100_000)?;
        in_range("dispute_bond", self.dispute_bond, 1, bond_max)?;
        in_range("jurors", self.jurors, 1, u128::from(JURORS_MAX))?;
        in_range("evaluation_tolerance_ppm", self.evaluation_tolerance_ppm, 0, ppm)
    }

    pub(super) fn example() -> Self {
        const UNIT: Planck = 1_000_000_000_000;
        Disputes {
            miner_slash_ppm: 500_000,
            validator_slash_ppm: 50_000,
            copy_overlap_ppm: PPM,
            challenge_bond: UNIT,
            answer_blocks: 20,
            dispute_bond: 10 * UNIT,
            jurors: 5,
            evaluation_tolerance_ppm: 10_000,
        }
    }
}
