//! Lists what joining a run, keeping a slot and leaving it cost.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use super::bounds::{in_range, SettingsError, PPM};
use crate::{BlockNumber, Planck};

/// Highest price of joining: sums and products of prices stay far below 2^128.
const PRICE_MAX: Planck = 1 << 90;

/// Largest factor of the price, a thousand per cent.
const PRICE_RISE_PPM_MAX: u32 = 10 * PPM;

/// Longest time, in windows, that any of these settings can make somebody wait.
const WAIT_WINDOWS_MAX: u128 = 100_000;

/// What joining a run, keeping a slot and leaving it cost.
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
pub struct Entry {
    /// Planck that joining as a miner costs at least; burned. A newcomer on probation must not earn this before it is
    /// found out.
    pub price_min: Planck,
    /// Planck that joining costs at most.
    pub price_max: Planck,
    /// Blocks in which the price halves.
    pub price_halving_blocks: BlockNumber,
    /// Factor on the price for each miner that joins; 1260000 doubles it in three joins.
    pub price_rise_ppm: u32,
    /// Windows after its registration in which a miner makes no room for others.
    pub immunity_windows: u32,
    /// Whole windows without a commitment after which anybody may remove a miner.
    pub idle_windows: u32,
    /// Windows between the offer of a slot to another cold key and its acceptance.
    pub hand_over_windows: u32,
}

impl Entry {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        in_range("price_min", self.price_min, 1, PRICE_MAX)?;
        in_range("price_max", self.price_max, self.price_min, PRICE_MAX)?;
        in_range("price_halving_blocks", self.price_halving_blocks, 1, u128::from(u32::MAX))?;
        in_range(
            "price_rise_ppm",
            self.price_rise_ppm,
            u128::from(PPM),
            u128::from(PRICE_RISE_PPM_MAX),
        )?;
        in_range("immunity_windows", self.immunity_windows, 0, WAIT_WINDOWS_MAX)?;
        // What was committed to two windows ago is settled.
        in_range("idle_windows", self.idle_windows, 2, WAIT_WINDOWS_MAX)?;
        in_range("hand_over_windows", self.hand_over_windows, 1, WAIT_WINDOWS_MAX)
    }
}
