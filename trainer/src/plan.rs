//! What the CPU engine allocates, known before anything is: the bytes of every region for a model
//! and a micro-batch.
//!
//! [`crate::engine::Engine`] takes its buffers from this plan and nothing else, so that
//! what is printed is what is used. A CUDA engine gets a plan of its own with the same regions.

use crate::config::ModelConfig;

/// Rows of a block of attention: a block sees the keys up to its own last row, so that about half
/// of the products behind the causal mask are never made.
pub const ATTENTION_ROWS: usize = 64;

/// Rows that share one partial sum of a norm's gradient.
pub const NORM_ROWS: usize = 64;

/// One region of memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Region {
    /// What it holds.
    pub name: &'static str,
    /// Values of four bytes.
    pub values: usize,
}

/// The regions of an engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Samples at once.
    pub samples: usize,
    /// Tokens at once: samples · seq_len.
    pub tokens: usize,
    /// Whether a backward pass is possible.
    pub training: bool,
    /// Layers whose activations are kept: all for training, else one.
    pub layers_kept: usize,
    /// States of the residual stream that are kept: before each half of each layer and after the
    /// last when training, else two taking turns.
    pub residuals_kept: usize,
    /// The regions, in the order of their first use.
    pub regions: Vec<Region>,
}

impl Plan {
    /// The plan for `samples` samples at once on `threads` threads.
    pub fn new(config: &ModelConfig, samples: usize, threads: usize, training: bool) -> Self {
        let tokens = samples * config.seq_len;
        let layers_kept = if training { config.layers } else { 1 };
        let residuals_kept = if training { 2 * config.layers + 1 } else { 2 };
        let head_rows = samples * config.heads * config.seq_len;
        let backward = |values: usize| if training { values } else { 0 };
        let scores = threads * ATTENTION_ROWS.min(config.seq_len) * config.seq_len;
        let regions = [
            (
                "rotary cosines and sines",
                config.seq_len * config.head_dim(),
            ),
            ("inputs and targets", 2 * tokens),
            ("residual stream", residuals_kept * tokens * config.hidden),
            ("norms' inverses", (2 * layers_kept + 1) * tokens),
            ("normed", tokens * config.hidden),
            ("q|k|v", layers_kept * tokens * config.qkv_dim()),
            ("attention's logarithms", layers_kept * head_rows),
            ("attention's output", layers_kept * tokens * config.hidden),
            ("gate|up", layers_kept * tokens * 2 * config.ffn),
            ("SwiGLU's output", tokens * config.ffn),
            ("scores", if training { 2 * scores } else { scores }),
            ("logits", tokens * config.vocab),
            ("losses", tokens),
            (
                "gradient of the residual stream",
                backward(tokens * config.hidden),
            ),
            (
                "gradient of a norm's output",
                backward(tokens * config.hidden),
            ),
            ("gradient of q|k|v", backward(tokens * config.qkv_dim())),
            ("gradient of gate|up", backward(tokens * 2 * config.ffn)),
            ("gradient of SwiGLU's output", backward(tokens * config.ffn)),
            (
                "partial gradients of a norm",
                backward(tokens.div_ceil(NORM_ROWS) * config.hidden),
            ),
        ];
        Self {
            samples,
            tokens,
            training,
            layers_kept,
            residuals_kept,
            regions: regions
                .map(|(name, values)| Region { name, values })
                .to_vec(),
        }
    }

    /// Bytes of all regions.
    pub fn bytes(&self) -> u64 {
        self.regions
            .iter()
            .map(|region| region.values as u64 * 4)
            .sum()
    }
}
