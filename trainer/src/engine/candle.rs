//! Computes with candle's autograd: the second implementation of the door, and the reference by
//! which anybody can check the engine. Several times slower than [`crate::engine::cpu`].
//!
//! Parameters are candle's own tensors; each crosses to the host by itself. candle takes its number
//! of threads from the environment.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::compute::threads::Threads;
use crate::engine::autograd::Autograd;
use crate::engine::device::{Device, DeviceError, Predictor};
use crate::engine::learner::{copied_model, BatchGradient, Kept, Learner, LearnerSettings};
use crate::engine::optimiser::AdamWSettings;
use crate::engine::plan::Precision;
use crate::engine::weights::Weights;
use crate::engine::BatchError;
use crate::model::config::{Arena, ConfigError, ModelConfig};
use crate::model::Model;
use dataset::SampleSource;

/// candle's processor backend.
#[derive(Clone, Debug)]
pub struct Candle(Threads);

const NAME: &str = "candle";

impl Candle {
    /// A device whose host has these threads.
    pub fn new(threads: Threads) -> Self {
        Self(threads)
    }
}

impl Device for Candle {
    fn name(&self) -> &'static str {
        NAME
    }

    fn threads(&self) -> &Threads {
        &self.0
    }

    fn learner(
        &self,
        config: &ModelConfig,
        settings: &LearnerSettings,
    ) -> Result<Box<dyn Learner>, DeviceError> {
        if settings.precision != Precision::F32 {
            return Err(refused("only f32 is supported"));
        }
        if settings.muon.is_some() {
            return Err(refused("only AdamW is supported"));
        }
        Ok(Box::new(CandleLearner {
            network: Network::new(config, settings.micro_batch)?,
            adamw: settings.adamw,
            gradient: BTreeMap::new(),
        }))
    }

    fn predictor(
        &self,
        config: &ModelConfig,
        samples: usize,
        _updates: bool,
    ) -> Result<Box<dyn Predictor>, DeviceError> {
        let network = Network::new(config, samples)?;
        Ok(Box::new(CandlePredictor { network, stamp: None, logits: Vec::new() }))
    }
}

fn refused(reason: impl ToString) -> DeviceError {
    DeviceError::Refused { device: NAME, reason: reason.to_string() }
}

fn failed(error: candle_core::Error) -> BatchError {
    BatchError::Device(error.to_string())
}

/// A model in candle and what is checked about its batches.
struct Network {
    autograd: Autograd,
    arena: Arena,
    config: ModelConfig,
    samples: usize,
    /// The tensor that is being lent to the host, or read from it.
    lent: Vec<f32>,
}

impl Network {
    fn new(config: &ModelConfig, samples: usize) -> Result<Self, DeviceError> {
        config.validate()?;
        if samples == 0 {
            return Err(ConfigError::Dimension { name: "samples at once", value: 0 }.into());
        }
        Ok(Self {
            autograd: Autograd::zeros(config).map_err(refused)?,
            arena: config.arena(),
            config: config.clone(),
            samples,
            lent: Vec::new(),
        })
    }

    fn name(&self, tensor: usize) -> Result<&str, BatchError> {
        let count = self.arena.tensors.len();
        let placed = self.arena.tensors.get(tensor);
        let placed = placed.ok_or(BatchError::Tensor { tensor, count })?;
        Ok(&placed.info.name)
    }

    fn load(&mut self, weights: &mut dyn Weights) -> Result<(), BatchError> {
        for (index, tensor) in self.arena.tensors.iter().enumerate() {
            self.lent.resize(tensor.range.len(), 0.0);
            weights.read(index, &mut self.lent)?;
            self.autograd.set(Kept::Parameters, &tensor.info.name, &self.lent).map_err(failed)?;
        }
        Ok(())
    }

    /// Refuses what the engine refuses.
    fn check(&self, samples: &dyn SampleSource, ids: &[u64]) -> Result<(), BatchError> {
        let (seq_len, vocab) = (self.config.seq_len, self.config.vocab);
        if ids.is_empty() || ids.len() > self.samples {
            return Err(BatchError::Samples { given: ids.len(), max: self.samples });
        }
        if samples.sample_len() != seq_len {
            let source_len = samples.sample_len();
            return Err(BatchError::SampleLen { source_len, model: seq_len });
        }
        for &id in ids {
            let sample = samples.sample(id).ok_or(BatchError::NoSample(id))?;
            if sample.len() != seq_len + 1 {
                return Err(BatchError::NoSample(id));
            }
            if let Some(token) = sample.iter().find(|token| *token as usize >= vocab) {
                return Err(BatchError::Token { sample: id, token, vocab });
            }
        }
        Ok(())
    }
}

struct CandleLearner {
    network: Network,
    adamw: AdamWSettings,
    gradient: BTreeMap<String, Tensor>,
}

impl CandleLearner {
    /// Adds the gradient of some samples, times `scale`; the sum of their losses.
    fn add(
        &mut self,
        samples: &dyn SampleSource,
        ids: &[u64],
        scale: f64,
    ) -> candle_core::Result<f64> {
        let loss = self.network.autograd.loss(samples, ids)?;
        let store = (&loss * scale)?.backward()?;
        for (name, part) in self.network.autograd.gradients(&store)? {
            let sum = match self.gradient.remove(&name) {
                Some(sum) => (sum + part)?,
                None => part,
            };
            self.gradient.insert(name, sum.detach());
        }
        Ok(f64::from(loss.to_scalar::<f32>()?))
    }

    fn norm(&self) -> candle_core::Result<f64> {
        let mut squares = 0.0;
        for gradient in self.gradient.values() {
            squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        Ok(squares.sqrt())
    }
}

impl Learner for CandleLearner {
    fn allocated_bytes(&self) -> u64 {
        0
    }

    fn load(&mut self, weights: &mut dyn Weights) -> Result<(), BatchError> {
        self.network.load(weights)
    }

    fn gradient(
        &mut self,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<BatchGradient, BatchError> {
        let max = self.network.samples;
        if ids.is_empty() {
            return Err(BatchError::Samples { given: 0, max });
        }
        let tokens = (ids.len() * self.network.config.seq_len) as f64;
        self.gradient.clear();
        let mut loss = 0.0;
        for ids in ids.chunks(max) {
            self.network.check(samples, ids)?;
            loss += self.add(samples, ids, 1.0 / tokens).map_err(failed)?;
        }
        Ok(BatchGradient { loss: (loss / tokens) as f32, norm: self.norm().map_err(failed)? })
    }

    fn step(&mut self, rate: f32, scale: f32) -> Result<(), BatchError> {
        let (adamw, scale) = (self.adamw, f64::from(scale));
        let step =
            self.network.autograd.step_against(&self.gradient, scale, &adamw, f64::from(rate));
        step.map_err(failed)
    }

    fn steps(&self) -> u64 {
        self.network.autograd.steps()
    }

    fn tensor(&mut self, kept: Kept, tensor: usize) -> Result<&[f32], BatchError> {
        let values = self.network.autograd.get(kept, self.network.name(tensor)?);
        self.network.lent = values.map_err(failed)?;
        Ok(&self.network.lent)
    }

    fn set_tensor(&mut self, kept: Kept, tensor: usize, values: &[f32]) -> Result<(), BatchError> {
        let name = self.network.name(tensor)?.to_owned();
        self.network.autograd.set(kept, &name, values).map_err(failed)
    }

    fn set_steps(&mut self, steps: u64) {
        self.network.autograd.set_steps(steps);
    }

    fn reset(&mut self) -> Result<(), BatchError> {
        self.network.autograd.reset().map_err(failed)
    }

    fn into_model(mut self: Box<Self>, config: &ModelConfig) -> Result<Model, BatchError> {
        copied_model(&mut *self, config)
    }
}

struct CandlePredictor {
    network: Network,
    /// The stamp of the parameters that the network has.
    stamp: Option<u64>,
    logits: Vec<f32>,
}

impl CandlePredictor {
    fn prepare(
        &mut self,
        weights: &mut dyn Weights,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<(), BatchError> {
        self.network.check(samples, ids)?;
        if self.stamp != Some(weights.stamp()) {
            self.stamp = None;
            self.network.load(weights)?;
            self.stamp = Some(weights.stamp());
        }
        Ok(())
    }
}

impl Predictor for CandlePredictor {
    fn loss(
        &mut self,
        weights: &mut dyn Weights,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<f64, BatchError> {
        self.prepare(weights, samples, ids)?;
        let loss = self.network.autograd.loss(samples, ids);
        let loss = loss.and_then(|loss| loss.to_scalar::<f32>());
        Ok(f64::from(loss.map_err(failed)?))
    }

    fn logits(
        &mut self,
        weights: &mut dyn Weights,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<&[f32], BatchError> {
        self.prepare(weights, samples, ids)?;
        let logits = self.network.autograd.logits(samples, ids);
        let logits = logits.and_then(|logits| logits.flatten_all()?.to_vec1());
        self.logits = logits.map_err(failed)?;
        Ok(&self.logits)
    }
}
