//! Evaluates on the ranks of a node: losses and logits, without a backward pass.

use super::batch::MicroBatch;
use super::gpu::{GpuError, Stream};
use super::node::Node;
use super::plan::Region;
use super::rank::Rank;
use super::state::Staging;
use super::updates::Undo;
use crate::compute::threads::Threads;
use crate::engine::device::Predictor;
use crate::engine::weights::Weights;
use crate::engine::BatchError;
use crate::model::config::Arena;
use dataset::SampleSource;

/// Evaluates one shape of models on the ranks of a node.
pub(super) struct CudaPredictor {
    node: Node,
    arena: Arena,
    threads: Threads,
    staging: Staging,
    /// Whose parameters were brought; what is applied to them beside is `changed`.
    stamp: Option<u64>,
    /// The stamp of the parameters that are there instead, and what puts back the others.
    changed: Option<(u64, Undo)>,
    values: Vec<f32>,
    logits: Vec<f32>,
}

impl CudaPredictor {
    pub(super) fn new(node: Node, threads: Threads) -> Self {
        let arena = node.shape.config.arena();
        let (staging, values, logits) = (Staging::default(), Vec::new(), Vec::new());
        Self { node, arena, threads, staging, stamp: None, changed: None, values, logits }
    }

    /// Sees to it that the ranks have these parameters: they may be there, may be made of those that are, or are brought.
    fn load(&mut self, weights: &mut dyn Weights) -> Result<(), BatchError> {
        let wanted = weights.stamp();
        if self.changed.as_ref().is_some_and(|(stamp, _)| *stamp == wanted) {
            return Ok(());
        }
        self.put_back()?;
        if self.stamp == Some(wanted) {
            return Ok(());
        }
        let change = weights.change().filter(|_| self.node.keeps_lower());
        if let Some(change) = change {
            if self.stamp != Some(change.base.stamp()) {
                self.bring(&mut &*change.base)?;
            }
            // Until it is known what puts them back, they are nobody's.
            let base = self.stamp.take();
            let undo = self.node.apply(&change)?;
            self.stamp = base;
            if let Some(undo) = undo {
                self.changed = Some((wanted, undo));
                return Ok(());
            }
        }
        self.bring(weights)
    }

    /// Takes back an update that is applied.
    fn put_back(&mut self) -> Result<(), BatchError> {
        if let Some((_, undo)) = self.changed.take() {
            let base = self.stamp.take();
            self.node.undo(&undo)?;
            self.stamp = base;
        }
        Ok(())
    }

    fn bring(&mut self, weights: &mut dyn Weights) -> Result<(), BatchError> {
        self.stamp = None;
        if let Some(arena) = weights.arena().filter(|arena| arena.len() != self.arena.len) {
            let (given, expected) = (arena.len(), self.arena.len);
            return Err(BatchError::Parameters { given, expected });
        }
        for (index, tensor) in self.arena.tensors.iter().enumerate() {
            let values = match weights.arena().and_then(|arena| arena.get(tensor.range.clone())) {
                Some(values) => values,
                None => {
                    self.values.resize(tensor.range.len(), 0.0);
                    weights.read(index, &mut self.values)?;
                    &self.values
                }
            };
            self.node.write_parameters(&self.threads, &mut self.staging, index, values)?;
        }
        self.stamp = Some(weights.stamp());
        Ok(())
    }

    fn batches(
        &self,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<Vec<MicroBatch>, BatchError> {
        let at_once = self.node.shape.plan.work.samples;
        if ids.is_empty() {
            return Err(BatchError::Samples { given: 0, max: at_once });
        }
        let config = &self.node.shape.config;
        ids.chunks(at_once).map(|ids| MicroBatch::read(config, at_once, samples, ids)).collect()
    }
}

impl Rank {
    /// The losses of this rank's micro-batches, with their numbers.
    fn losses(&mut self, batches: &[MicroBatch]) -> Result<Vec<(usize, f64)>, GpuError> {
        self.forget_gathered()?;
        let (world, rank) = (self.collective.world(), self.collective.rank());
        let mut losses = Vec::new();
        for (round, at_once) in batches.chunks(world).enumerate() {
            let own = at_once.get(rank);
            let Some(batch) = own.or(batches.first()) else { break };
            batch.upload(self)?;
            let sizes = self.sizes(batch.samples);
            self.forward(sizes)?;
            self.output(sizes, None, at_once.len())?;
            let loss = self.loss_sum(sizes.tokens)?;
            if own.is_some() {
                losses.push((round * world + rank, loss));
            }
        }
        for stream in Stream::ALL {
            self.gpu.synchronise(stream)?;
        }
        Ok(losses)
    }

    /// The logits of one micro-batch, which all ranks compute; bf16.
    fn all_logits(&mut self, batch: &MicroBatch) -> Result<Vec<u16>, GpuError> {
        self.forget_gathered()?;
        batch.upload(self)?;
        let sizes = self.sizes(batch.samples);
        self.forward(sizes)?;
        let head = self.parameters(self.head_unit())?;
        let mut logits = vec![0u16; (sizes.tokens * sizes.vocab) as usize];
        let rows = self.shape.plan.logit_rows;
        let part = (rows * sizes.vocab) as usize;
        for (index, logits) in (0u64..).zip(logits.chunks_mut(part.max(1))) {
            let from = index * rows;
            self.logits(head, from, rows.min(sizes.tokens - from), sizes)?;
            let at = self.region(Region::Logits);
            self.gpu.download(Stream::Compute, at, bytemuck::cast_slice_mut(logits))?;
        }
        self.used(self.head_unit())?;
        for stream in Stream::ALL {
            self.gpu.synchronise(stream)?;
        }
        Ok(logits)
    }
}

impl Predictor for CudaPredictor {
    fn applies_updates(&self) -> bool {
        self.node.keeps_lower()
    }

    fn loss(
        &mut self,
        weights: &mut dyn Weights,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<f64, BatchError> {
        self.load(weights)?;
        let batches = self.batches(samples, ids)?;
        let losses = self.node.all(|rank| rank.losses(&batches))?;
        let mut losses: Vec<(usize, f64)> = losses.into_iter().flatten().collect();
        losses.sort_by_key(|(number, _)| *number);
        Ok(losses.into_iter().map(|(_, loss)| loss).sum())
    }

    fn logits(
        &mut self,
        weights: &mut dyn Weights,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<&[f32], BatchError> {
        self.load(weights)?;
        let (config, at_once) = (&self.node.shape.config, self.node.shape.plan.work.samples);
        let batch = MicroBatch::read(config, at_once, samples, ids)?;
        let logits = self.node.all(|rank| rank.all_logits(&batch))?;
        self.logits.clear();
        let first = logits.into_iter().next().unwrap_or_default();
        self.logits.extend(first.into_iter().map(|bits| half::bf16::from_bits(bits).to_f32()));
        Ok(&self.logits)
    }
}
