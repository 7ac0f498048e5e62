//! The one door to whatever computes: a device makes learners, which train, and predictors, which
//! evaluate.
//!
//! Trainers, evaluators and the harness know these traits only. Another device is a type that
//! implements them and a line in [`crate::engine::devices`]. Parameters and averages cross the door one tensor at a
//! time, so that neither side needs the other's whole model.

use crate::compute::threads::Threads;
use crate::engine::learner::{Learner, LearnerSettings};
use crate::engine::weights::Weights;
use crate::engine::BatchError;
use crate::model::config::{ConfigError, ModelConfig};
use crate::model::Model;
use dataset::SampleSource;
use protocol::aggregate::OuterRule;
use protocol::update::UpdateError;
use protocol::Uid;

/// Why a device cannot make what it is asked for.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum DeviceError {
    /// The model's configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device cannot do it, or has no room.
    #[error("{device}: {reason}")]
    Refused {
        /// The device's name.
        device: &'static str,
        /// Why.
        reason: String,
    },
}

/// What a piece of work takes of a device that has memory of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnMemory {
    /// Samples at once, on each card of the device.
    pub samples: usize,
    /// Bytes of each card.
    pub card: u64,
    /// Bytes of the host that the device pins, for all cards; none but in training.
    pub pinned: u64,
}

/// Something that computes losses and gradients.
pub trait Device: Send + Sync {
    /// A name for people, in lower case.
    fn name(&self) -> &'static str;

    /// The host's threads, for what is done beside it: updates, state roots, tokens.
    fn threads(&self) -> &Threads;

    /// The most samples at once, of those that divide a batch of `batch`, with which a learner fits the device's own
    /// memory. `None` for a device that computes in its host's, where [`CpuCosts`](crate::budget::CpuCosts) counts.
    ///
    /// # Errors
    /// Not even one sample fits, or the device cannot do it; the text says what one takes.
    fn training_fit(
        &self,
        _config: &ModelConfig,
        _batch: usize,
        _muon: bool,
    ) -> Result<Option<OwnMemory>, DeviceError> {
        Ok(None)
    }

    /// What a [`Device::predictor`] takes of the device's own memory; `None` as for [`Device::training_fit`].
    ///
    /// # Errors
    /// It does not fit, or the device cannot do it.
    fn prediction_fit(
        &self,
        _config: &ModelConfig,
        _samples: usize,
        _updates: bool,
    ) -> Result<Option<OwnMemory>, DeviceError> {
        Ok(None)
    }

    /// The outer step of θ that lies on the host, with the bits of [`Model::apply_outer`] wherever it is taken. What
    /// fails on the device is done on the host.
    ///
    /// # Errors
    /// As there; θ is as before.
    fn apply_outer(
        &self,
        model: &mut Model,
        accepted: &[(Uid, &[u8])],
        keep: u16,
        rule: OuterRule,
    ) -> Result<(), UpdateError> {
        model.apply_outer(self.threads(), accepted, keep, rule)
    }

    /// Makes a learner of models of this shape, with a fresh optimiser and parameters of zero.
    fn learner(
        &self,
        config: &ModelConfig,
        settings: &LearnerSettings,
    ) -> Result<Box<dyn Learner>, DeviceError>;

    /// Makes a predictor for up to `samples` samples at once, without a backward pass. With `updates`,
    /// a device with memory of its own makes room there for what it needs to apply updates to the parameters that it has.
    fn predictor(
        &self,
        config: &ModelConfig,
        samples: usize,
        updates: bool,
    ) -> Result<Box<dyn Predictor>, DeviceError>;
}

/// Computes what a model predicts.
pub trait Predictor: Send {
    /// Whether it makes parameters with an update applied of those that it has ([`Weights::change`]): then the host need
    /// neither make them nor send them.
    fn applies_updates(&self) -> bool {
        false
    }

    /// The sum of the losses, in nats, of all tokens of the samples `ids`.
    fn loss(
        &mut self,
        weights: &mut dyn Weights,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<f64, BatchError>;

    /// The logits (tokens, vocab) of the samples `ids`.
    fn logits(
        &mut self,
        weights: &mut dyn Weights,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<&[f32], BatchError>;
}
