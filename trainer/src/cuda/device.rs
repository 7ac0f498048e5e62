//! GPUs as a device of the trainer.

use std::sync::Arc;

use super::gpu::GpuError;
use super::learner::CudaLearner;
use super::node::Node;
use super::plan::{Recompute, Work};
use super::predictor::CudaPredictor;
use super::seats::Gpus;
use crate::compute::threads::Threads;
use crate::engine::device::{Device, DeviceError, Predictor};
use crate::engine::learner::{Learner, LearnerSettings};
use crate::model::config::ModelConfig;

/// What this device is called.
const NAME: &str = "cuda";

/// How the engine uses the memory it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CudaSettings {
    /// What is computed again in the backward pass.
    pub recompute: Recompute,
    /// Whether the masters' lower halves and the averages lie in the host's memory.
    pub offload: bool,
}

impl Default for CudaSettings {
    fn default() -> Self {
        Self { recompute: Recompute::NormSwiglu, offload: false }
    }
}

/// GPUs as a device of the trainer.
pub struct Cuda {
    gpus: Arc<dyn Gpus>,
    threads: Threads,
    settings: CudaSettings,
}

impl Cuda {
    /// These GPUs, on a host with these threads.
    pub fn new(gpus: Arc<dyn Gpus>, threads: Threads, settings: CudaSettings) -> Self {
        Self { gpus, threads, settings }
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
        let CudaSettings { recompute, offload } = self.settings;
        let offload = offload && training;
        let work = Work { samples, training, recompute, muon, offload, changes };
        let seats = self.gpus.open().map_err(refused)?;
        Node::new(seats, config, work).map_err(refused)
    }
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
        scattered: bool,
    ) -> Result<Box<dyn Predictor>, DeviceError> {
        // Who has θ with an update applied nowhere else has it made here.
        let node = self.node(config, samples, false, false, scattered)?;
        Ok(Box::new(CudaPredictor::new(node, self.threads.clone())))
    }
}
