//! Says why there is no budget for a request.

use crate::model::config::ConfigError;

/// Why there is no budget for a request.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum BudgetError {
    /// The model's configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A number of the request is 0 or absurdly large.
    #[error("{name} is {value}, not 1 to {max}")]
    Range {
        /// Which.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The largest that is planned for.
        max: u64,
    },
    /// The bytes of something are more than 2^63.
    #[error("{0} would be more than 2^63 bytes")]
    TooLarge(&'static str),
    /// The micro-batch must be one of [`divisors`](super::quantity::divisors) of a device's samples of a step.
    #[error("a micro-batch of {micro} samples does not divide the {samples} samples of a device")]
    MicroBatch {
        /// Samples at once.
        micro: u64,
        /// Samples of a step on one device.
        samples: u64,
    },
    /// Text that is not a quantity or a machine.
    #[error("{text:?} is not {expected}")]
    Text {
        /// What was given.
        text: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Not even one sample at once fits in the memory.
    #[error("{needed} bytes are needed even with one sample at once, and there are {available}")]
    Memory {
        /// Bytes with a micro-batch of one sample.
        needed: u64,
        /// Bytes that may be used.
        available: u64,
    },
}
