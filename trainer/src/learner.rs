//! What training asks of a device: the gradient of a batch and a step of AdamW. The one interface of the CPU engine
//! and of a GPU's.
//!
//! The host holds a copy of the parameters, in the order of [`Arena`], which it lends to each call.
//! A learner that computes on the host's memory ([`CpuLearner`]) works on that copy. One with memory of its own
//! takes it over in [`Learner::load`], lets it grow old during steps, and brings it up to date in
//! [`Learner::store`]; in between the host neither reads nor changes it. Gradient and averages stay with the learner.

use crate::compute::Compute;
use crate::config::{Arena, ConfigError, ModelConfig};
use crate::engine::{BatchError, Engine};
use crate::optimiser::{AdamW, AdamWSettings};
use crate::plan::{Plan, Precision};
use crate::threads::Threads;
use dataset::SampleSource;

/// What a batch says about the parameters.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BatchGradient {
    /// Mean loss in nats a token.
    pub loss: f32,
    /// Norm of the mean loss's gradient.
    pub norm: f64,
}

impl BatchGradient {
    /// The factor that brings the gradient down to `longest`; 1 if it is no longer, or if `longest` is 0.
    pub fn clip_factor(&self, longest: f32) -> f32 {
        let longest = f64::from(longest);
        if longest > 0.0 && self.norm > longest {
            (longest / self.norm) as f32
        } else {
            1.0
        }
    }
}

/// Trains one model on one device. All that it will ever need is allocated when it is made.
pub trait Learner: Send {
    /// What has been allocated for loss and gradient.
    fn plan(&self) -> &Plan;

    /// Bytes of those regions, counted from themselves; equal to the plan's.
    fn allocated_bytes(&self) -> u64;

    /// The host's threads.
    fn threads(&self) -> &Threads;

    /// Takes the host's parameters over: before the first batch, and whenever the host has changed them.
    fn load(&mut self, parameters: &[f32]) -> Result<(), BatchError>;

    /// Loss and gradient of the batch `ids`; keeps the gradient.
    fn gradient(
        &mut self,
        parameters: &[f32],
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<BatchGradient, BatchError>;

    /// A step of AdamW against `scale` times the kept gradient, at the learning rate `rate`.
    fn step(&mut self, parameters: &mut [f32], rate: f32, scale: f32) -> Result<(), BatchError>;

    /// Brings the host's parameters up to date.
    fn store(&mut self, parameters: &mut [f32]) -> Result<(), BatchError>;

    /// Steps of AdamW so far.
    fn steps(&self) -> u64;

    /// AdamW's averages of gradients and of their squares, in the order of the parameters.
    fn averages(&mut self) -> Result<[&[f32]; 2], BatchError>;

    /// Replaces the averages and the number of steps, or starts afresh.
    fn set_averages(&mut self, averages: Option<([&[f32]; 2], u64)>) -> Result<(), BatchError>;
}

/// Learns on the host's processor.
pub struct CpuLearner {
    engine: Engine,
    arena: Arena,
    gradient: Vec<f32>,
    adamw: AdamW,
}

impl CpuLearner {
    /// A learner of models of this shape, `micro_batch` samples at once, with a fresh optimiser.
    pub fn new(
        config: &ModelConfig,
        micro_batch: usize,
        adamw: AdamWSettings,
        precision: Precision,
        compute: impl Into<Compute>,
    ) -> Result<Self, ConfigError> {
        let engine = Engine::with_precision(config, micro_batch, true, compute, precision)?;
        let arena = config.arena();
        Ok(Self {
            engine,
            gradient: vec![0.0; arena.len],
            adamw: AdamW::new(adamw, arena.len),
            arena,
        })
    }
}

impl Learner for CpuLearner {
    fn plan(&self) -> &Plan {
        self.engine.plan()
    }

    fn allocated_bytes(&self) -> u64 {
        self.engine.allocated_bytes()
    }

    fn threads(&self) -> &Threads {
        self.engine.threads()
    }

    fn load(&mut self, parameters: &[f32]) -> Result<(), BatchError> {
        self.engine.check(parameters)
    }

    fn gradient(
        &mut self,
        parameters: &[f32],
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<BatchGradient, BatchError> {
        let (engine, gradient) = (&mut self.engine, &mut self.gradient);
        let loss = engine.batch_gradient(parameters, gradient, samples, ids)?;
        let norm = self.adamw.gradient_norm(engine.threads(), gradient);
        Ok(BatchGradient { loss, norm })
    }

    fn step(&mut self, parameters: &mut [f32], rate: f32, scale: f32) -> Result<(), BatchError> {
        self.engine.check(parameters)?;
        let (threads, gradient) = (self.engine.threads(), &self.gradient);
        self.adamw.step(threads, &self.arena, parameters, gradient, rate, scale);
        Ok(())
    }

    fn store(&mut self, parameters: &mut [f32]) -> Result<(), BatchError> {
        self.engine.check(parameters)
    }

    fn steps(&self) -> u64 {
        self.adamw.steps()
    }

    fn averages(&mut self) -> Result<[&[f32]; 2], BatchError> {
        Ok([&self.adamw.mean, &self.adamw.square])
    }

    fn set_averages(&mut self, averages: Option<([&[f32]; 2], u64)>) -> Result<(), BatchError> {
        match averages {
            None => {
                self.adamw.mean.fill(0.0);
                self.adamw.square.fill(0.0);
                self.adamw.step = 0;
            }
            Some(([mean, square], steps)) => {
                self.engine.check(mean)?;
                self.engine.check(square)?;
                self.adamw.mean.copy_from_slice(mean);
                self.adamw.square.copy_from_slice(square);
                self.adamw.step = steps;
            }
        }
        Ok(())
    }
}
