//! A micro-batch on its way to a rank: tokens, and the order in which the embedding's gradient adds their rows.

use super::gpu::{GpuError, Stream};
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
