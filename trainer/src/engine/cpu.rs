//! Computes on the host's processor, with the hand-written [`Engine`].
//!
//! Parameters that lie on the host in one piece are read where they lie; a learner's own arena is
//! the only copy of what it trains.

use crate::compute::threads::Threads;
use crate::compute::Compute;
use crate::engine::device::{Device, DeviceError, Predictor};
use crate::engine::learner::{BatchGradient, Kept, Learner, LearnerSettings};
use crate::engine::optimiser::Optimiser;
use crate::engine::weights::{copy, Weights};
use crate::engine::{BatchError, Engine};
use crate::model::config::{Arena, ConfigError, ModelConfig};
use crate::model::Model;
use dataset::SampleSource;

/// The host's processor.
#[derive(Clone, Debug)]
pub struct Cpu(Compute);

impl Cpu {
    /// Computes on these threads, and on the machine's best matrix unit unless told otherwise.
    pub fn new(compute: impl Into<Compute>) -> Self {
        Self(compute.into())
    }
}

impl Device for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn threads(&self) -> &Threads {
        &self.0.threads
    }

    fn learner(
        &self,
        config: &ModelConfig,
        settings: &LearnerSettings,
    ) -> Result<Box<dyn Learner>, DeviceError> {
        Ok(Box::new(CpuLearner::new(config, settings, self.0.clone())?))
    }

    fn predictor(
        &self,
        config: &ModelConfig,
        samples: usize,
        _updates: bool,
    ) -> Result<Box<dyn Predictor>, DeviceError> {
        let engine = Engine::new(config, samples, false, self.0.clone())?;
        let arena = config.arena();
        // What lies in one piece is read there; θ with an update applied is made where θ lies.
        let gathered = Vec::new();
        Ok(Box::new(CpuPredictor { engine, arena, gathered, stamp: None }))
    }
}

/// Learns on the host's processor.
struct CpuLearner {
    engine: Engine,
    arena: Arena,
    parameters: Vec<f32>,
    gradient: Vec<f32>,
    optimiser: Optimiser,
}

impl CpuLearner {
    fn new(
        config: &ModelConfig,
        settings: &LearnerSettings,
        compute: Compute,
    ) -> Result<Self, ConfigError> {
        let (samples, precision) = (settings.micro_batch, settings.precision);
        let engine = Engine::with_precision(config, samples, true, compute.clone(), precision)?;
        let arena = config.arena();
        Ok(Self {
            engine,
            parameters: vec![0.0; arena.len],
            gradient: vec![0.0; arena.len],
            optimiser: Optimiser::new(settings.adamw, settings.muon, &arena, &compute),
            arena,
        })
    }

    fn place(&mut self, kept: Kept, tensor: usize) -> Result<&mut [f32], BatchError> {
        let count = self.arena.tensors.len();
        let place = self.arena.tensors.get(tensor).ok_or(BatchError::Tensor { tensor, count })?;
        Ok(match kept {
            Kept::Parameters => &mut self.parameters[place.range.clone()],
            Kept::Mean => self.optimiser.mean(tensor),
            Kept::Square => self.optimiser.square(tensor),
        })
    }
}

impl Learner for CpuLearner {
    fn allocated_bytes(&self) -> u64 {
        self.engine.allocated_bytes()
    }

    fn load(&mut self, weights: &mut dyn Weights) -> Result<(), BatchError> {
        if let Some(arena) = weights.arena() {
            return copy(arena, &mut self.parameters);
        }
        gather(&self.arena, weights, &mut self.parameters)
    }

    fn gradient(
        &mut self,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<BatchGradient, BatchError> {
        let (engine, gradient) = (&mut self.engine, &mut self.gradient);
        let loss = engine.batch_gradient(&self.parameters, gradient, samples, ids)?;
        let norm = self.optimiser.gradient_norm(gradient);
        Ok(BatchGradient { loss, norm })
    }

    fn step(&mut self, rate: f32, scale: f32) -> Result<(), BatchError> {
        self.optimiser.step(&mut self.parameters, &self.gradient, rate, scale);
        Ok(())
    }

    fn steps(&self) -> u64 {
        self.optimiser.steps()
    }

    fn tensor(&mut self, kept: Kept, tensor: usize) -> Result<&[f32], BatchError> {
        Ok(self.place(kept, tensor)?)
    }

    fn arena(&self) -> Option<&[f32]> {
        Some(&self.parameters)
    }

    fn set_tensor(&mut self, kept: Kept, tensor: usize, values: &[f32]) -> Result<(), BatchError> {
        copy(values, self.place(kept, tensor)?)
    }

    fn set_steps(&mut self, steps: u64) {
        self.optimiser.set_steps(steps);
    }

    fn reset(&mut self) -> Result<(), BatchError> {
        self.optimiser.reset();
        Ok(())
    }

    fn into_model(self: Box<Self>, config: &ModelConfig) -> Result<Model, BatchError> {
        Ok(Model::with_parameters(config, self.parameters))
    }
}

/// Predicts on the host's processor.
struct CpuPredictor {
    engine: Engine,
    arena: Arena,
    /// Parameters that lay scattered, and their stamp.
    gathered: Vec<f32>,
    stamp: Option<u64>,
}

impl CpuPredictor {
    /// Reads scattered parameters into one piece, unless that has been done.
    fn gather(&mut self, weights: &mut dyn Weights) -> Result<(), BatchError> {
        if weights.arena().is_some() || self.stamp == Some(weights.stamp()) {
            return Ok(());
        }
        self.stamp = None;
        self.gathered.resize(self.arena.len, 0.0);
        gather(&self.arena, weights, &mut self.gathered)?;
        self.stamp = Some(weights.stamp());
        Ok(())
    }
}

impl Predictor for CpuPredictor {
    fn loss(
        &mut self,
        weights: &mut dyn Weights,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<f64, BatchError> {
        self.gather(weights)?;
        self.engine.loss(weights.arena().unwrap_or(&self.gathered), samples, ids)
    }

    fn logits(
        &mut self,
        weights: &mut dyn Weights,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<&[f32], BatchError> {
        self.gather(weights)?;
        self.engine.logits(weights.arena().unwrap_or(&self.gathered), samples, ids)
    }
}

fn gather(arena: &Arena, weights: &mut dyn Weights, into: &mut [f32]) -> Result<(), BatchError> {
    for (index, tensor) in arena.tensors.iter().enumerate() {
        weights.read(index, &mut into[tensor.range.clone()])?;
    }
    Ok(())
}
