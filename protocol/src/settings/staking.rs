//! Settings of the money behind validators: what unbonds how slowly, and what a validator takes of its nominators' pay.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use super::{bounds::in_range, SettingsError, PPM};
use crate::Planck;

/// Longest time that money unbonds, in windows: nobody's money is locked for ever.
pub const UNBONDING_WINDOWS_MAX: u32 = 4_096;

/// What validators and their nominators have at stake.
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
pub struct Staking {
    /// Windows that stake goes on being slashable after it was taken out, and a miner's bond after the miner left, whose keys
    /// cannot join again before that; the chain sets a least one.
    pub unbonding_windows: u32,
    /// Least amount of one delegation.
    pub delegation_min: Planck,
    /// The take of a new validator and the largest there may be: part of the nominators' pay.
    pub take_max_ppm: u32,
    /// A take rises by so much at most.
    pub take_step_ppm: u32,
    /// Windows between the announcement of a rise and its first window.
    pub take_delay_windows: u32,
}

impl Staking {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        let ppm = u128::from(PPM);
        let windows_max = u128::from(UNBONDING_WINDOWS_MAX);
        in_range("unbonding_windows", self.unbonding_windows, 1, windows_max)?;
        in_range("delegation_min", self.delegation_min, 1, u128::from(u64::MAX))?;
        in_range("take_max_ppm", self.take_max_ppm, 0, ppm)?;
        in_range("take_step_ppm", self.take_step_ppm, 1, ppm)?;
        in_range("take_delay_windows", self.take_delay_windows, 1, windows_max)
    }

    pub(super) fn example() -> Self {
        Staking {
            unbonding_windows: 16,
            delegation_min: 1_000_000_000_000,
            take_max_ppm: 180_000,
            take_step_ppm: 10_000,
            take_delay_windows: 16,
        }
    }
}
