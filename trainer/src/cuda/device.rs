//! GPUs as a device of the trainer.

use std::sync::Arc;

use super::fit;
use super::gpu::GpuError;
use super::learner::CudaLearner;
use super::node::Node;
use super::plan::Work;
use super::predictor::CudaPredictor;
use super::seats::{Gpus, Seat};
use crate::compute::threads::Threads;
use crate::engine::device::{Device, DeviceError, Predictor};
use crate::engine::learner::{Learner, LearnerSettings};
use crate::model::config::ModelConfig;

pub use super::settings::CudaSettings;

/// What this device is called.
const NAME: &str = "cuda";

/// GPUs as a device of the trainer.
pub struct Cuda {
    gpus: Arc<dyn Gpus>,
    threads: Threads,
    /// What was chosen; `None` for what the memory of the cards suggests.
    settings: Option<CudaSettings>,
}

impl Cuda {
    /// These GPUs, on a host with these threads.
    pub fn new(gpus: Arc<dyn Gpus>, threads: Threads, settings: CudaSettings) -> Self {
        Self { gpus, threads, settings: Some(settings) }
    }

    /// These GPUs, used in the fastest way that fits what each is asked for.
    pub fn fitting(gpus: Arc<dyn Gpus>, threads: Threads) -> Self {
        Self { gpus, threads, settings: None }
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
        let muon = settings.muon.is_some();
        let node = self.node(config, settings.micro_batch, true, muon, false)?;
        Ok(CudaLearner::new(node, self.threads.clone(), *settings))
    }

    fn node(
        &self,
        config: &ModelConfig,
        samples: usize,
        training: bool,
        muon: bool,
        changes: bool,
    ) -> Result<Node, DeviceError> {
        config.validate()?;
        check(config, samples)?;
        let seats = self.gpus.open().map_err(refused)?;
        let CudaSettings { recompute, offload } = match self.settings {
            Some(settings) => settings,
            None => {
                let free = least_free(&seats).map_err(refused)?;
                fit::way_for(config, seats.len(), samples, muon, free)
            }
        };
        let offload = offload && training;
        let work = Work { samples, training, recompute, muon, offload, changes };
        Node::new(seats, config, work).map_err(refused)
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
        let node = self.node(config, samples, false, false, updates)?;
        Ok(Box::new(CudaPredictor::new(node, self.threads.clone())))
    }
}
