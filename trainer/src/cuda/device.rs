//! GPUs as a device of the trainer.

use std::sync::{Arc, Mutex, PoisonError};

use protocol::aggregate::OuterRule;
use protocol::update::UpdateError;
use protocol::Uid;

use super::fit::{self, Fit};
use super::gpu::GpuError;
use super::learner::CudaLearner;
use super::node::Node;
use super::outer::OuterCards;
use super::plan::Work;
use super::predictor::CudaPredictor;
use super::seats::{Gpus, Seat};
use super::suggestion::{self, Room};
use crate::budget::quantity::format_bytes;
use crate::compute::threads::Threads;
use crate::engine::device::{Device, DeviceError, OwnMemory, Predictor};
use crate::engine::learner::{Learner, LearnerSettings};
use crate::model::config::ModelConfig;
use crate::model::outer_step::TensorStep;
use crate::model::Model;

pub use super::settings::CudaSettings;

/// What this device is called.
const NAME: &str = "cuda";

/// GPUs as a device of the trainer.
pub struct Cuda {
    gpus: Arc<dyn Gpus>,
    threads: Threads,
    /// What was chosen; `None` for what the memory of the cards suggests.
    settings: Option<CudaSettings>,
    outer: Mutex<Outer>,
}

/// Where outer steps are taken.
enum Outer {
    /// That has not been looked at.
    Unknown,
    /// On the cards.
    Cards(OuterCards),
    /// On the host: the cards have no room, or one failed.
    Host,
}

impl Cuda {
    /// These GPUs, on a host with these threads.
    pub fn new(gpus: Arc<dyn Gpus>, threads: Threads, settings: CudaSettings) -> Self {
        Self { gpus, threads, settings: Some(settings), outer: Mutex::new(Outer::Unknown) }
    }

    /// These GPUs, used in the fastest way that fits what each is asked for.
    pub fn fitting(gpus: Arc<dyn Gpus>, threads: Threads) -> Self {
        Self { gpus, threads, settings: None, outer: Mutex::new(Outer::Unknown) }
    }

    /// Makes a learner.
    ///
    /// # Errors
    /// The model does not fit the kernels or the memory, or a GPU fails.
    pub fn cuda_learner(
        &self,
        config: &ModelConfig,
        settings: &LearnerSettings,
    ) -> Result<CudaLearner, DeviceError> {
        let samples = settings.micro_batch;
        let seats = self.seats(config, samples)?;
        let work = self.training(&seats, config, samples, settings.muon.is_some())?;
        let node = Node::new(seats, config, work).map_err(|error| match error {
            GpuError::OutOfMemory { free, .. } => {
                let room = Room { world: self.gpus.memory().0, free };
                let instead = suggestion::training(config, samples, work.muon, self.settings, room);
                DeviceError::Refused { device: NAME, reason: format!("{error}; {instead}") }
            }
            error => refused(error),
        })?;
        Ok(CudaLearner::new(node, self.threads.clone(), *settings))
    }

    /// What says that `work` takes `needed` bytes of a card, which are too many, and what would do `instead`.
    fn too_large(&self, work: &str, needed: u64, instead: &str) -> DeviceError {
        let (world, free) = self.gpus.memory();
        let reason = format!(
            "{work} takes {} of each card, and {} has {}; {instead}",
            format_bytes(needed + fit::beside(world)),
            self.gpus.name(),
            format_bytes(free)
        );
        DeviceError::Refused { device: NAME, reason }
    }

    /// Opens the GPUs for `samples` samples at once of a model.
    fn seats(&self, config: &ModelConfig, samples: usize) -> Result<Vec<Seat>, DeviceError> {
        config.validate()?;
        check(config, samples)?;
        self.gpus.open().map_err(refused)
    }

    /// How a model is trained on these GPUs.
    fn training(
        &self,
        seats: &[Seat],
        config: &ModelConfig,
        samples: usize,
        muon: bool,
    ) -> Result<Work, DeviceError> {
        let CudaSettings { recompute, offload } = match self.settings {
            Some(settings) => settings,
            None => {
                let free = least_free(seats).map_err(refused)?;
                fit::way_for(config, seats.len(), samples, muon, free)
            }
        };
        Ok(Work { samples, training: true, recompute, muon, offload, changes: false })
    }
}

impl Outer {
    /// Opens the cards, if that has not been tried.
    fn open(&mut self, gpus: &dyn Gpus) {
        if matches!(self, Self::Unknown) {
            *self = match OuterCards::open(gpus) {
                Ok(Some(cards)) => Self::Cards(cards),
                Ok(None) => {
                    tracing::info!("the cards have no room for outer steps: the host takes them");
                    Self::Host
                }
                Err(error) => Self::failed(&error),
            };
        }
    }

    fn failed(error: &GpuError) -> Self {
        tracing::warn!(%error, "a card does not take outer steps: the host takes them");
        Self::Host
    }

    fn step(&mut self, tensor: TensorStep<'_>) -> Result<(), UpdateError> {
        let Self::Cards(cards) = self else { return tensor.on_the_host() };
        if let Some(error) = cards.step(tensor)? {
            *self = Self::failed(&error);
        }
        Ok(())
    }
}

/// Bytes that are free on the fullest GPU.
fn least_free(seats: &[Seat]) -> Result<u64, GpuError> {
    let mut least = u64::MAX;
    for seat in seats {
        least = least.min(seat.gpu.memory()?.0);
    }
    Ok(least)
}

fn refused(error: GpuError) -> DeviceError {
    DeviceError::Refused { device: NAME, reason: error.to_string() }
}

/// What the kernels can do.
fn check(config: &ModelConfig, samples: usize) -> Result<(), DeviceError> {
    let refuse = |reason: String| Err(DeviceError::Refused { device: NAME, reason });
    let width = config.head_dim() as u32;
    if !super::kernels::attention::HEAD_WIDTHS.contains(&width) {
        return refuse(format!("heads are {width} wide, not 32, 64 or 128"));
    }
    for (name, value) in [("hidden", config.hidden), ("ffn", config.ffn), ("vocab", config.vocab)] {
        if !value.is_multiple_of(8) {
            return refuse(format!("{name} is {value}, not a multiple of 8"));
        }
    }
    let tokens = samples as u64 * config.seq_len as u64;
    let widest = config.vocab.max(2 * config.ffn).max(config.qkv_dim()) as u64;
    if samples == 0 || tokens.saturating_mul(widest) > u64::from(u32::MAX) * 16 {
        return refuse(format!("{samples} samples of {} tokens at once", config.seq_len));
    }
    Ok(())
}

impl Device for Cuda {
    fn name(&self) -> &'static str {
        NAME
    }

    fn threads(&self) -> &Threads {
        &self.threads
    }

    fn training_fit(
        &self,
        config: &ModelConfig,
        batch: usize,
        muon: bool,
    ) -> Result<Option<OwnMemory>, DeviceError> {
        check(config, 1)?;
        let (world, free) = self.gpus.memory();
        let a_card = batch.div_ceil(world.max(1)).max(1);
        let found = match self.settings {
            Some(settings) => fit::samples_that_fit(config, world, a_card, settings, muon, free),
            None => fit::first_way(config, world, a_card, muon, free),
        };
        let Some(Fit { samples, bytes, pinned, .. }) = found else {
            let least = self.settings.unwrap_or(fit::LEAST);
            let needed = fit::plan(config, world, 1, least, muon).bytes();
            let room = Room { world, free };
            let instead = suggestion::training(config, 1, muon, self.settings, room);
            return Err(self.too_large("one sample of a training", needed, &instead));
        };
        Ok(Some(OwnMemory { samples, card: bytes, pinned: pinned * world as u64 }))
    }

    fn prediction_fit(
        &self,
        config: &ModelConfig,
        samples: usize,
        updates: bool,
    ) -> Result<Option<OwnMemory>, DeviceError> {
        check(config, samples)?;
        let (world, free) = self.gpus.memory();
        let plan = fit::prediction_plan(config, world, samples, updates);
        if plan.bytes() + fit::beside(world) > free {
            let instead = suggestion::prediction(config, samples, updates, Room { world, free });
            let work = format!("an evaluation of {samples} samples");
            return Err(self.too_large(&work, plan.bytes(), &instead));
        }
        let pinned = plan.pinned * world as u64;
        Ok(Some(OwnMemory { samples, card: plan.bytes(), pinned }))
    }

    fn apply_outer(
        &self,
        model: &mut Model,
        accepted: &[(Uid, &[u8])],
        keep: u16,
        rule: OuterRule,
    ) -> Result<(), UpdateError> {
        let mut outer = self.outer.lock().unwrap_or_else(PoisonError::into_inner);
        outer.open(&*self.gpus);
        model.apply_outer_by(&self.threads, accepted, keep, rule, &mut |step| outer.step(step))
    }

    fn learner(
        &self,
        config: &ModelConfig,
        settings: &LearnerSettings,
    ) -> Result<Box<dyn Learner>, DeviceError> {
        Ok(Box::new(self.cuda_learner(config, settings)?))
    }

    fn predictor(
        &self,
        config: &ModelConfig,
        samples: usize,
        updates: bool,
    ) -> Result<Box<dyn Predictor>, DeviceError> {
        let seats = self.seats(config, samples)?;
        let work = Work::prediction(samples, updates);
        let node = Node::new(seats, config, work).map_err(refused)?;
        Ok(Box::new(CudaPredictor::new(node, self.threads.clone())))
    }
}
