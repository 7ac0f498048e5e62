//! Trains on the ranks of a node.
//!
//! A batch is cut into micro-batches in order; rank r of W computes number r, r + W, … . Each one's gradient is
//! computed by itself and added in their order, so that loss, gradient and step have the same bits on any number of
//! ranks over the process's memory.

use super::batch::{in_order, MicroBatch};
use super::gpu::{GpuError, Stream};
use super::layout::{Layout, CHUNK};
use super::node::Node;
use super::optimiser::Step;
use super::plan::{Plan, Region};
use super::rank::Rank;
use super::state::Staging;
use crate::compute::threads::Threads;
use crate::engine::learner::{BatchGradient, Kept, Learner, LearnerSettings, Take, TensorToEncode};
use crate::engine::weights::Weights;
use crate::engine::BatchError;
use crate::model::config::{Arena, ModelConfig};
use crate::model::Model;
use dataset::SampleSource;
use protocol::update::{EncodedChunks, UpdateError};

impl From<GpuError> for BatchError {
    fn from(error: GpuError) -> Self {
        Self::Device(error.to_string())
    }
}

/// Trains one model on the ranks of a node.
pub struct CudaLearner {
    node: Node,
    arena: Arena,
    threads: Threads,
    settings: LearnerSettings,
    steps: u64,
    staging: Staging,
    /// What is lent to the host.
    lent: Vec<f32>,
}

impl CudaLearner {
    pub(super) fn new(node: Node, threads: Threads, settings: LearnerSettings) -> Self {
        let arena = node.shape.config.arena();
        let (staging, lent) = (Staging::default(), Vec::new());
        Self { node, arena, threads, settings, steps: 0, staging, lent }
    }

    /// What each rank has allocated.
    pub fn plan(&self) -> &Plan {
        &self.node.shape.plan
    }

    /// A tensor of the latest batch's gradient, before any scaling.
    #[doc(hidden)]
    pub fn gradient_tensor(&mut self, tensor: usize) -> Result<Vec<f32>, BatchError> {
        let mut values = vec![0.0; self.len(tensor)?];
        self.node.read_gradient(tensor, &mut values)?;
        Ok(values)
    }

    fn len(&self, tensor: usize) -> Result<usize, BatchError> {
        let count = self.arena.tensors.len();
        let place = self.arena.tensors.get(tensor).ok_or(BatchError::Tensor { tensor, count })?;
        Ok(place.range.len())
    }

    /// Values that are kept of a tensor.
    fn kept_len(&self, kept: Kept, tensor: usize) -> Result<usize, BatchError> {
        let len = self.len(tensor)?;
        let muon = self.settings.muon.is_some() && self.arena.is_layer_matrix(tensor);
        Ok(if kept == Kept::Square && muon { 0 } else { len })
    }
}

impl Rank {
    /// Computes this rank's micro-batches from a gradient of zero; the sum of the losses of each that counts, with its number.
    fn gradients(
        &mut self,
        batches: &[MicroBatch],
        scale: f32,
    ) -> Result<Vec<(usize, f64)>, GpuError> {
        let gradient = self.region(Region::Gradient);
        let bytes = self.shape.plan.region(Region::Gradient);
        self.gpu.clear(Stream::Compute, gradient, bytes)?;
        self.each(batches, |rank, batch, active| rank.micro_batch(batch, scale, active))
    }

    fn micro_batch(
        &mut self,
        batch: &MicroBatch,
        scale: f32,
        active: usize,
    ) -> Result<f64, GpuError> {
        batch.upload(self)?;
        let sizes = self.sizes(batch.samples);
        self.forward(sizes)?;
        self.output(sizes, Some(scale), active)?;
        self.backward(sizes, batch, active)?;
        self.loss_sum(sizes.tokens)
    }
}

/// The sum of the ranks' sums of squares, chunk after chunk of the model.
fn total(layout: &Layout, parts: &[Vec<f64>]) -> f64 {
    let mut total = 0.0;
    for unit in &layout.units {
        let first = (unit.owned_before / CHUNK) as usize;
        let count = (unit.len / layout.world / CHUNK) as usize;
        for parts in parts {
            total = parts.iter().skip(first).take(count).fold(total, |total, part| total + part);
        }
    }
    total
}

impl Learner for CudaLearner {
    fn allocated_bytes(&self) -> u64 {
        self.node.shape.plan.bytes() * self.node.ranks.len() as u64
    }

    fn load(&mut self, weights: &mut dyn Weights) -> Result<(), BatchError> {
        self.node.bring(&self.threads, &mut self.staging, &mut self.lent, weights)
    }

    fn gradient(
        &mut self,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<BatchGradient, BatchError> {
        let at_once = self.settings.micro_batch;
        let batches = MicroBatch::all(&self.node.shape.config, at_once, samples, ids)?;
        let tokens = (ids.len() * self.node.shape.config.seq_len) as f64;
        let scale = (1.0 / tokens) as f32;
        let loss = in_order(self.node.all(|rank| rank.gradients(&batches, scale))?);
        let parts = self.node.all(Rank::gradient_squares)?;
        let norm = total(&self.node.shape.layout, &parts).sqrt();
        Ok(BatchGradient { loss: (loss / tokens) as f32, norm })
    }

    fn step(&mut self, rate: f32, scale: f32) -> Result<(), BatchError> {
        self.steps += 1;
        let (adamw, muon, number) = (self.settings.adamw, self.settings.muon, self.steps);
        let step = Step { adamw, muon, rate, scale, number };
        self.node.all(|rank| rank.step(&step))?;
        Ok(())
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn tensor(&mut self, kept: Kept, tensor: usize) -> Result<&[f32], BatchError> {
        let len = self.kept_len(kept, tensor)?;
        self.lent.resize(len, 0.0);
        let (node, lent) = (&mut self.node, &mut self.lent);
        match kept {
            _ if len == 0 => {}
            Kept::Parameters => {
                node.read_parameters(&self.threads, &mut self.staging, tensor, lent)?;
            }
            Kept::Mean | Kept::Square => node.read_average(kept, tensor, lent)?,
        }
        Ok(&self.lent)
    }

    fn parts(&self) -> usize {
        self.node.ranks.len()
    }

    fn hand_over(&mut self, kept: Kept, tensors: usize, take: Take<'_>) -> Result<(), BatchError> {
        let len = |tensor| Ok(self.kept_len(kept, tensor)? as u64);
        let lens = (0..tensors).map(len).collect::<Result<Vec<u64>, BatchError>>()?;
        Ok(self.node.hand_over(kept, &lens, take)?)
    }

    fn encode(
        &mut self,
        part: TensorToEncode<'_>,
        into: &mut EncodedChunks,
    ) -> Result<bool, BatchError> {
        if part.feedback.len() != self.len(part.tensor)? {
            return Err(UpdateError::Tensors.into());
        }
        self.node.encode(part, into)
    }

    fn set_tensor(&mut self, kept: Kept, tensor: usize, values: &[f32]) -> Result<(), BatchError> {
        let expected = self.kept_len(kept, tensor)?;
        if values.len() != expected {
            return Err(BatchError::Parameters { given: values.len(), expected });
        }
        match kept {
            _ if expected == 0 => {}
            Kept::Parameters => {
                self.node.write_parameters(&self.threads, &mut self.staging, tensor, values)?;
            }
            Kept::Mean | Kept::Square => self.node.write_average(kept, tensor, values)?,
        }
        Ok(())
    }

    fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    fn reset(&mut self) -> Result<(), BatchError> {
        self.steps = 0;
        for tensor in 0..self.arena.tensors.len() {
            for kept in [Kept::Mean, Kept::Square] {
                let zeros = vec![0.0; self.kept_len(kept, tensor)?];
                self.set_tensor(kept, tensor, &zeros)?;
            }
        }
        Ok(())
    }

    fn into_model(mut self: Box<Self>, config: &ModelConfig) -> Result<Model, BatchError> {
        crate::engine::learner::copied_model(&mut *self, config)
    }
}
