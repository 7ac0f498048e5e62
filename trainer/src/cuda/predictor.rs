//! Evaluates on the ranks of a node: losses and logits, without a backward pass.

use super::batch::{in_order, MicroBatch};
use super::gpu::{GpuError, Stream};
use super::node::Node;
use super::plan::Region;
use super::rank::Rank;
use super::state::Staging;
use super::twin::widen;
use super::updates::Undo;
use crate::compute::threads::Threads;
use crate::engine::device::Predictor;
use crate::engine::weights::Weights;
use crate::engine::BatchError;
use dataset::SampleSource;

/// Evaluates one shape of models on the ranks of a node.
pub(super) struct CudaPredictor {
    node: Node,
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
        let (staging, values, logits) = (Staging::default(), Vec::new(), Vec::new());
        Self { node, threads, staging, stamp: None, changed: None, values, logits }
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
        self.node.bring(&self.threads, &mut self.staging, &mut self.values, weights)?;
        self.stamp = Some(weights.stamp());
        Ok(())
    }
}

impl Rank {
    /// The loss of a micro-batch.
    fn loss(&mut self, batch: &MicroBatch, active: usize) -> Result<f64, GpuError> {
        batch.upload(self)?;
        let sizes = self.sizes(batch.samples);
        self.forward(sizes)?;
        self.output(sizes, None, active)?;
        self.loss_sum(sizes.tokens)
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
        self.rest()?;
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
        let (config, at_once) = (&self.node.shape.config, self.node.shape.plan.work.samples);
        let batches = MicroBatch::all(config, at_once, samples, ids)?;
        Ok(in_order(self.node.all(|rank| rank.each(&batches, Rank::loss))?))
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
        self.logits.extend(first.into_iter().map(widen));
        Ok(&self.logits)
    }
}
