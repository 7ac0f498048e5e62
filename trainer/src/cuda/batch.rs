//! A micro-batch on its way to a rank: tokens, and the order in which the embedding's gradient adds their rows.

use super::gpu::{GpuError, Stream};
use super::plan::Region;
use super::rank::Rank;
use crate::engine::{load_tokens, BatchError};
use crate::model::config::ModelConfig;
use dataset::SampleSource;

/// The samples that are computed at once.
#[derive(Clone, Debug, Default)]
pub(super) struct MicroBatch {
    pub(super) samples: usize,
    inputs: Vec<u32>,
    targets: Vec<u32>,
    starts: Vec<u32>,
    /// Positions of the inputs, those of the lowest token first, each token's ascending.
    order: Vec<u32>,
    /// Where in `order` each distinct token begins, and the end.
    firsts: Vec<u32>,
    /// The distinct tokens.
    ids: Vec<u32>,
}

impl MicroBatch {
    /// The micro-batches of a batch, of up to `max` samples each.
    pub(super) fn all(
        config: &ModelConfig,
        max: usize,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<Vec<Self>, BatchError> {
        if ids.is_empty() {
            return Err(BatchError::Samples { given: 0, max });
        }
        ids.chunks(max).map(|ids| Self::read(config, max, samples, ids)).collect()
    }

    /// Reads and checks the samples, at most `max`.
    pub(super) fn read(
        config: &ModelConfig,
        max: usize,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<Self, BatchError> {
        let room = ids.len().min(max) * config.seq_len;
        let [mut inputs, mut targets, mut starts] = [(); 3].map(|()| vec![0; room]);
        load_tokens(config, max, samples, ids, [&mut inputs, &mut targets, &mut starts])?;
        let mut order: Vec<u32> = (0..inputs.len() as u32).collect();
        order.sort_by_key(|position| inputs[*position as usize]);
        let mut batch =
            Self { samples: ids.len(), inputs, targets, starts, order, ..Self::default() };
        batch.find_distinct();
        Ok(batch)
    }

    fn find_distinct(&mut self) {
        for (index, position) in (0u32..).zip(&self.order) {
            let token = self.inputs[*position as usize];
            if self.ids.last() != Some(&token) {
                self.ids.push(token);
                self.firsts.push(index);
            }
        }
        self.firsts.push(self.order.len() as u32);
    }

    /// Which of the distinct tokens lie in a range of the vocabulary, as a range of their list.
    pub(super) fn distinct_in(&self, tokens: std::ops::Range<u64>) -> std::ops::Range<u64> {
        let before = |end: u64| self.ids.partition_point(|id| u64::from(*id) < end) as u64;
        before(tokens.start)..before(tokens.end)
    }

    /// Copies it to a rank.
    pub(super) fn upload(&self, rank: &Rank) -> Result<(), GpuError> {
        let lists =
            [&self.inputs, &self.targets, &self.starts, &self.order, &self.firsts, &self.ids];
        for (index, list) in (0u64..).zip(lists) {
            let to = rank.tokens(index);
            rank.gpu.upload(Stream::Compute, to, bytemuck::cast_slice(list))?;
        }
        Ok(())
    }
}

impl Rank {
    /// Calls `pass` for each of this rank's micro-batches, with how many ranks' count at that time, and gathers parameters
    /// afresh; the loss of each that counts, with its number. A rank for which none is left computes the first one again,
    /// which counts for nothing: others need its parameters.
    pub(super) fn each(
        &mut self,
        batches: &[MicroBatch],
        mut pass: impl FnMut(&mut Self, &MicroBatch, usize) -> Result<f64, GpuError>,
    ) -> Result<Vec<(usize, f64)>, GpuError> {
        self.forget_gathered()?;
        let (world, rank) = (self.collective.world(), self.collective.rank());
        let mut losses = Vec::new();
        for (round, at_once) in batches.chunks(world).enumerate() {
            let own = at_once.get(rank);
            let Some(batch) = own.or(batches.first()) else { break };
            let loss = pass(self, batch, at_once.len())?;
            if own.is_some() {
                losses.push((round * world + rank, loss));
            }
        }
        self.rest()?;
        Ok(losses)
    }

    /// The sum of the losses of the latest micro-batch, in order.
    pub(super) fn loss_sum(&self, tokens: u64) -> Result<f64, GpuError> {
        let mut losses = vec![0.0f32; tokens as usize];
        let from = self.region(Region::Losses);
        self.gpu.download(Stream::Compute, from, bytemuck::cast_slice_mut(&mut losses))?;
        Ok(losses.into_iter().map(f64::from).sum())
    }
}

/// The sum of what [`Rank::each`] says on all ranks, in the order of the micro-batches.
pub(super) fn in_order(losses: Vec<Vec<(usize, f64)>>) -> f64 {
    let mut losses: Vec<(usize, f64)> = losses.into_iter().flatten().collect();
    losses.sort_by_key(|(number, _)| *number);
    losses.into_iter().map(|(_, loss)| loss).sum()
}
