//! What is trained on to measure: noise, a few batches of it in turn.

use dataset::{SampleSource, Tokens};
use trainer::ModelConfig;

/// Steps before the clock starts: first touch of memory, threads.
pub(super) const WARM_UP_STEPS: usize = 2;
/// Batches that take turns.
pub(super) const BATCHES: usize = 4;

/// Tokens of a linear congruential generator.
pub(super) struct Noise {
    sample_len: usize,
    tokens: Vec<u32>,
}

impl Noise {
    /// So many samples of the model's vocabulary.
    pub(super) fn new(config: &ModelConfig, samples: usize) -> Self {
        let mut state = 1u64;
        let tokens = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % config.vocab as u64) as u32
        });
        Self {
            sample_len: config.seq_len,
            tokens: tokens.take(samples * config.seq_len + 1).collect(),
        }
    }
}

impl SampleSource for Noise {
    fn sample_len(&self) -> usize {
        self.sample_len
    }

    fn sample_count(&self) -> u64 {
        (self.tokens.len() / self.sample_len) as u64
    }

    fn sample(&self, id: u64) -> Option<Tokens<'_>> {
        let start = usize::try_from(id).ok()?.checked_mul(self.sample_len)?;
        self.tokens.get(start..start + self.sample_len + 1).map(Tokens::U32)
    }
}

/// The samples of each step.
pub(super) fn batch(size: u16, step: usize) -> Vec<u64> {
    let first = (step % BATCHES) as u64 * u64::from(size);
    (first..first + u64::from(size)).collect()
}
