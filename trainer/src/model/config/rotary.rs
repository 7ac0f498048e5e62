//! Rotary positions: how fast each pair of a head's columns turns.
//!
//! Pair i of a head of width d turns by θ^(−2i / d) from one position to the next. Models that were
//! stretched to longer contexts after their pre-training turn slower; the two ways that LLaMA
//! checkpoints use are here, as Hugging Face's `rope_scaling` names them. `dynamic`, `yarn` and
//! `longrope`, which change with the length of the text, are not.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

/// How a model's positions were stretched.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase", try_from = "Fields")]
pub enum RopeScaling {
    /// Every pair turns slower by `factor`.
    Linear {
        /// At least 1.
        factor: f32,
    },
    /// Llama 3.1's: pairs that turn fully less than `low_freq_factor` times in the original context
    /// turn slower by `factor`, those that do so more than `high_freq_factor` times turn as
    /// before, and those between are interpolated.
    Llama3 {
        /// At least 1.
        factor: f32,
        /// Above 0.
        low_freq_factor: f32,
        /// Above `low_freq_factor`.
        high_freq_factor: f32,
        /// Tokens of the context before stretching.
        original_max_position_embeddings: u32,
    },
}

/// [`RopeScaling`] as it is read. Not its derived form: with serde_json's `arbitrary_precision`, which the node's crates
/// switch on in a build of the whole workspace, an internally tagged enum cannot read a fraction.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    rope_type: String,
    factor: f32,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<u32>,
}

impl TryFrom<Fields> for RopeScaling {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let factor = fields.factor;
        let rest = (
            fields.low_freq_factor,
            fields.high_freq_factor,
            fields.original_max_position_embeddings,
        );
        match (fields.rope_type.as_str(), rest) {
            ("linear", (None, None, None)) => Ok(Self::Linear { factor }),
            ("llama3", (Some(low), Some(high), Some(context))) => Ok(Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: context,
            }),
            (name, _) => Err(format!(
                "rope_type {name:?} is neither linear nor llama3, or has not the numbers of it"
            )),
        }
    }
}

impl RopeScaling {
    /// Whether every number is in its range.
    pub(super) fn is_valid(&self) -> bool {
        let at_least_1 = |value: f32| value.is_finite() && value >= 1.0;
        match *self {
            Self::Linear { factor } => at_least_1(factor),
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: context,
            } => at_least_1(factor) && low > 0.0 && high.is_finite() && high > low && context > 0,
        }
    }

    /// The stretched frequency of a pair that turns by `frequency` radians a position.
    pub(super) fn stretch(&self, frequency: f64) -> f64 {
        match *self {
            Self::Linear { factor } => frequency / f64::from(factor),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let (low, high) = (f64::from(low_freq_factor), f64::from(high_freq_factor));
                let turns = frequency * f64::from(original_max_position_embeddings) / TAU;
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / f64::from(factor))
            }
        }
    }
}
