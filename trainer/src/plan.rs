//! What the CPU engine allocates, known before anything is: the bytes of every region for a model
//! and a micro-batch.
//!
//! [`crate::engine::Engine`] takes its buffers from this plan and nothing else, so that
//! what is printed is what is used. A CUDA engine gets a plan of its own with the same regions.

use serde::{Deserialize, Serialize};

use crate::config::ModelConfig;

/// Rows of a block of attention: a block sees the keys up to its own last row, so that about half
/// of the products behind the causal mask are never made.
pub const ATTENTION_ROWS: usize = 64;

/// Rows that share one partial sum of a norm's gradient.
pub const NORM_ROWS: usize = 64;

/// Logits that are held at once, where that is at least [`LOGIT_ROWS_MIN`] rows: 16 MiB.
pub const LOGITS: usize = 1 << 22;

/// The least rows of logits at once. Each chunk of rows reads and writes the gradient of the whole
/// output matrix once, which fewer rows would not pay for.
pub const LOGIT_ROWS_MIN: usize = 256;

/// What the parameters are in forward and backward pass; the master copy that the optimiser
/// changes, the gradient and all activations are `f32` with either.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The master copy itself.
    #[default]
    F32,
    /// The master copy rounded to bf16, nearest even: what a GPU multiplies with.
    Bf16,
}

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
    /// Rows of logits at once.
    pub logit_rows: usize,
    /// What the parameters are in forward and backward pass.
    pub precision: Precision,
    /// The regions, in the order of their first use.
    pub regions: Vec<Region>,
}

impl Plan {
    /// The plan for `samples` samples at once on `threads` threads, in f32. Allocates none of it.
    pub fn new(config: &ModelConfig, samples: usize, threads: usize, training: bool) -> Self {
        Self::with_precision(config, samples, threads, training, Precision::F32)
    }

    /// [`Plan::new`] with the precision that parameters have in forward and backward pass.
    pub fn with_precision(
        config: &ModelConfig,
        samples: usize,
        threads: usize,
        training: bool,
        precision: Precision,
    ) -> Self {
        let tokens = samples * config.seq_len;
        let layers_kept = if training { config.layers } else { 1 };
        let residuals_kept = if training { 2 * config.layers + 1 } else { 2 };
        let head_rows = samples * config.heads * config.seq_len;
        let backward = |values: usize| if training { values } else { 0 };
        let scores = threads * ATTENTION_ROWS.min(config.seq_len) * config.seq_len;
        let logit_rows = (LOGITS / config.vocab).max(LOGIT_ROWS_MIN).min(tokens);
        let rounded = match precision {
            Precision::F32 => 0,
            Precision::Bf16 => config.parameter_count() as usize,
        };
        let regions = [
            ("parameters in bf16", rounded),
            (
                "rotary cosines and sines",
                config.seq_len * config.head_dim(),
            ),
            ("inputs, targets and documents", 3 * tokens),
            ("residual stream", residuals_kept * tokens * config.hidden),
            ("norms' inverses", (2 * layers_kept + 1) * tokens),
            ("normed", tokens * config.hidden),
            ("q|k|v", layers_kept * tokens * config.qkv_dim()),
            ("attention's logarithms", layers_kept * head_rows),
            ("attention's output", layers_kept * tokens * config.hidden),
            ("gate|up", layers_kept * tokens * 2 * config.ffn),
            ("SwiGLU's output", tokens * config.ffn),
            ("scores", if training { 2 * scores } else { scores }),
            ("logits", logit_rows * config.vocab),
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
            logit_rows,
            precision,
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
