//! Sample sources that the tests train on.

use dataset::{SampleSource, Tokens};

/// Samples in memory.
pub(crate) struct MemorySamples {
    sample_len: usize,
    tokens: Vec<u8>,
}

impl MemorySamples {
    /// Text that can be learned: words of a small vocabulary in an order drawn from `seed`.
    pub(crate) fn words(sample_len: usize, sample_count: usize, seed: u64) -> Self {
        let words = ["the ", "miner ", "trains ", "a ", "model ", "and ", "validators ", "score "];
        let mut state = seed;
        let mut tokens = Vec::new();
        while tokens.len() <= sample_len * sample_count {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            tokens.extend_from_slice(words[(state >> 61) as usize].as_bytes());
        }
        tokens.truncate(sample_len * sample_count + 1);
        Self { sample_len, tokens }
    }
}

impl SampleSource for MemorySamples {
    fn sample_len(&self) -> usize {
        self.sample_len
    }

    fn sample_count(&self) -> u64 {
        ((self.tokens.len() - 1) / self.sample_len) as u64
    }

    fn sample(&self, id: u64) -> Option<Tokens<'_>> {
        let start = id as usize * self.sample_len;
        self.tokens.get(start..start + self.sample_len + 1).map(Tokens::U8)
    }
}
