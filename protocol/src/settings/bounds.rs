//! Says within which numbers a setting lies, and what is wrong with one that does not.

use crate::window::ScheduleError;
use crate::Window;

/// One million, the denominator of every `_ppm`.
pub const PPM: u32 = 1_000_000;

/// Settings that cannot work, with the wrong value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettingsError {
    /// The boundaries of a window are out of order.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A number is outside its range.
    #[error("{field} is {value}, must be from {min} to {max}")]
    OutOfRange {
        /// Name of the setting.
        field: &'static str,
        /// The value that was given.
        value: u128,
        /// Smallest allowed value.
        min: u128,
        /// Largest allowed value.
        max: u128,
    },
    /// The outer rate would fall before it has risen.
    #[error(
        "the outer rate decays from window {decay_start} on, but warms up until window \
         {warm_up_windows}"
    )]
    DecayInWarmUp {
        /// First window of the decay.
        decay_start: Window,
        /// Windows of the warm-up.
        warm_up_windows: u32,
    },
    /// The miners of one window need more samples than the data set has.
    #[error("a window needs {needed} samples for all miners, the data set has {sample_count}")]
    TooFewSamples {
        /// `uid_max · inner_steps · batch_size`.
        needed: u128,
        /// Samples of the data set.
        sample_count: u64,
    },
    /// The parts of the emission do not sum to one million.
    #[error("the parts of the emission sum to {sum} ppm, must be 1000000")]
    EmissionSum {
        /// Their sum in parts per million.
        sum: u64,
    },
}

/// Whether `value` of the setting `field` is from `min` to `max`.
pub(super) fn in_range<T: Into<u128>>(
    field: &'static str,
    value: T,
    min: u128,
    max: u128,
) -> Result<(), SettingsError> {
    let value = value.into();
    if value < min || value > max {
        return Err(SettingsError::OutOfRange { field, value, min, max });
    }
    Ok(())
}
