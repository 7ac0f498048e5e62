//! Lists the settings of both optimisers: the miners' inner one and the outer step of all replicas.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use super::bounds::{in_range, SettingsError, PPM};
use crate::Window;

/// The optimiser of a miner's local steps.
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
pub enum InnerOptimiser {
    /// AdamW on all parameters, at the rate [`super::Training::inner_rate_ppb`].
    AdamW,
    /// Muon on the matrices of the layers; AdamW, at its own rate, on embedding, output matrix and norms.
    Muon {
        /// Muon's learning rate.
        rate_ppb: u32,
    },
}

impl InnerOptimiser {
    /// Whether both keep the same averages, whatever their rates: a miner cannot go on with those of another kind.
    pub fn is_kind_of(&self, other: &Self) -> bool {
        core::mem::discriminant(self) == core::mem::discriminant(other)
    }

    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        match self {
            Self::AdamW => Ok(()),
            Self::Muon { rate_ppb } => {
                in_range("optimiser.rate_ppb", *rate_ppb, 1, u128::from(u32::MAX))
            }
        }
    }
}

/// How the accepted updates of a window change the parameters ([`crate::aggregate`]): the rate by
/// window, and what their sum is divided by.
///
/// ```text
/// rate_ppm           ______________________
///                   /                      \
///                  /                        \__________  final_rate_ppm
/// window          0   warm_up_windows   decay_start
/// ```
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
pub struct OuterStep {
    /// Outer rate α between warm-up and decay; at most of any window.
    pub rate_ppm: u32,
    /// Windows over which the rate grows to its full size; 0 for none.
    pub warm_up_windows: u32,
    /// First window of the decay, which still has the full rate.
    pub decay_start: Window,
    /// Windows over which the rate falls to the last one; 0 means never.
    pub decay_windows: u32,
    /// Outer rate after the decay.
    pub final_rate_ppm: u32,
    /// c of the divisor max(senders, c · accepted): 1000000 divides by the number of accepted
    /// updates, 0 by that of those that send the coordinate.
    pub senders_min_ppm: u32,
}

impl OuterStep {
    /// The same rate in all windows, and the mean over all accepted updates.
    pub const fn constant(rate_ppm: u32) -> Self {
        Self {
            rate_ppm,
            warm_up_windows: 0,
            decay_start: 0,
            decay_windows: 0,
            final_rate_ppm: rate_ppm,
            senders_min_ppm: PPM,
        }
    }

    /// The outer rate of the step that ends window `window`, with W windows of warm-up, a decay over
    /// D windows from window S on, and r and f the first and the last rate:
    ///
    /// ```text
    /// max(1, ⌊r · (window + 1) / W⌋)             window < W
    /// r                                          window < S, or D = 0
    /// r − ⌊(r − f) · (window − S) / D⌋           window − S < D
    /// f                                          after it
    /// ```
    pub fn rate_ppm_at(&self, window: Window) -> u32 {
        let (warm_up, decay) = (u64::from(self.warm_up_windows), u64::from(self.decay_windows));
        if window < warm_up {
            let passed = window.saturating_add(1);
            return part(self.rate_ppm, passed, warm_up).max(1);
        }
        match window.checked_sub(self.decay_start) {
            Some(passed) if decay > 0 => {
                let fall = self.rate_ppm.saturating_sub(self.final_rate_ppm);
                self.rate_ppm.saturating_sub(part(fall, passed.min(decay), decay))
            }
            _ => self.rate_ppm,
        }
    }

    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        in_range("outer.rate_ppm", self.rate_ppm, 1, u128::from(u32::MAX))?;
        let rate = u128::from(self.rate_ppm);
        in_range("outer.final_rate_ppm", self.final_rate_ppm, 1, rate)?;
        in_range("outer.senders_min_ppm", self.senders_min_ppm, 0, u128::from(PPM))?;
        let (decay_start, warm_up_windows) = (self.decay_start, self.warm_up_windows);
        if self.decay_windows > 0 && decay_start < u64::from(warm_up_windows) {
            return Err(SettingsError::DecayInWarmUp { decay_start, warm_up_windows });
        }
        Ok(())
    }
}

/// ⌊value · passed / of⌋ with `passed` at most `of`, which fits a `u32`: no product overflows.
fn part(value: u32, passed: u64, of: u64) -> u32 {
    let part = u64::from(value).saturating_mul(passed).checked_div(of);
    part.and_then(|part| u32::try_from(part).ok()).unwrap_or(value)
}
