//! What the CPU engine allocates, known before anything is: the bytes of every region for a model
//! and a micro-batch.
//!
//! [`crate::engine::Engine`] takes its buffers from this plan and nothing else, so that
//! what is printed is what is used. A CUDA engine gets a plan of its own with the same regions.

use serde::{Deserialize, Serialize};

use crate::config::ModelConfig;
use crate::matmul::MatrixUnit;

/// Rows of a block of attention: a block sees the keys up to its own last row, so that about half
/// of the products behind the causal mask are never made.
pub const ATTENTION_ROWS: usize = 64;

/// Rows that share one partial sum of a norm's gradient.
pub const NORM_ROWS: usize = 64;

/// Rows that one task takes from one end of a layer's half to the other, so that what they become stays in
/// the second cache. A multiple of [`NORM_ROWS`].
pub const BAND_ROWS: usize = 256;

/// Logits that are held at once, where that is at least [`BAND_ROWS`] rows: 16 MiB. Each chunk of rows
/// reads and writes the gradient of the whole output matrix once, which fewer rows would not pay for.
pub const LOGITS: usize = 1 << 22;

/// Gradients of the residual stream that a layer's backward pass holds: after it, between its halves and
/// before it.
pub(crate) const D_RESIDUALS: usize = 3;

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

/// The region where each thread packs matrices.
const SCRATCH: &str = "matrices packed by a thread";

/// The region where weights are packed for all threads.
pub(crate) const OPERANDS: &str = "packed weights";

/// The region where each thread packs a head's keys and values.
pub(crate) const KEYS: &str = "keys and values packed by a thread";

/// Values of four bytes that one thread's keys and values take: the keys transposed and the values; for the
/// backward pass both transposed and the keys.
fn keys(config: &ModelConfig, training: bool, unit: MatrixUnit) -> usize {
    let across = unit.packed(config.head_dim(), config.seq_len);
    let along = unit.packed(config.seq_len, config.head_dim());
    along + if training { 2 * across } else { across }
}

/// Values of four bytes that the weights take that are packed at the same time: those from one layer's
/// attention to the next one's, those of a layer's backward pass, or the output matrix both ways.
fn operands(config: &ModelConfig, training: bool, unit: MatrixUnit) -> usize {
    let (hidden, ffn, qkv_dim) = (config.hidden, config.ffn, config.qkv_dim());
    let weights = [(hidden, hidden), (2 * ffn, hidden), (hidden, ffn), (qkv_dim, hidden)];
    let forward = weights.map(|(outputs, inputs)| unit.packed(inputs, outputs));
    let backward = weights.map(|(outputs, inputs)| unit.packed(outputs, inputs));
    let head = unit.packed(hidden, config.vocab);
    let largest = head.max(forward.iter().sum());
    match training {
        false => largest,
        true => largest.max(backward.iter().sum()).max(head + unit.packed(config.vocab, hidden)),
    }
}

/// The regions that depend on what computes products, and the values of each.
fn unit_regions(
    config: &ModelConfig,
    threads: usize,
    training: bool,
    unit: MatrixUnit,
) -> [(&'static str, usize); 3] {
    [
        (SCRATCH, threads * unit.scratch()),
        (OPERANDS, operands(config, training, unit)),
        (KEYS, threads * keys(config, training, unit)),
    ]
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
    /// Threads that compute at once.
    pub threads: usize,
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
        let logit_rows = LOGITS / config.vocab / BAND_ROWS * BAND_ROWS;
        let logit_rows = logit_rows.max(BAND_ROWS).min(tokens);
        let rounded = match precision {
            Precision::F32 => 0,
            Precision::Bf16 => config.parameter_count() as usize,
        };
        let band = BAND_ROWS.min(tokens) * (config.hidden + config.ffn);
        let packed = unit_regions(config, threads, training, MatrixUnit::best());
        let regions = [
            ("parameters in bf16", rounded),
            ("rotary cosines and sines", config.seq_len * config.head_dim()),
            ("inputs, targets and documents", 3 * tokens),
            ("residual stream", residuals_kept * tokens * config.hidden),
            ("norms' inverses", (2 * layers_kept + 1) * tokens),
            ("normed", tokens * config.hidden),
            ("q|k|v", layers_kept * tokens * config.qkv_dim()),
            ("attention's logarithms", layers_kept * head_rows),
            ("attention's output", layers_kept * tokens * config.hidden),
            ("gate|up", layers_kept * tokens * 2 * config.ffn),
            ("rows of each thread", threads * band),
            ("scores", if training { 2 * scores } else { scores }),
            ("logits", logit_rows * config.vocab),
            ("losses", tokens),
            ("normed before attention", backward(tokens * config.hidden)),
            ("SwiGLU's output", backward(tokens * config.ffn)),
            ("gradients of the residual stream", backward(D_RESIDUALS * tokens * config.hidden)),
            ("gradient of attention's output", backward(tokens * config.hidden)),
            ("gradient of q|k|v", backward(tokens * config.qkv_dim())),
            ("gradient of gate|up", backward(tokens * 2 * config.ffn)),
            ("partial gradients of a norm", backward(tokens.div_ceil(NORM_ROWS) * config.hidden)),
        ];
        Self {
            samples,
            tokens,
            threads,
            training,
            layers_kept,
            residuals_kept,
            logit_rows,
            precision,
            regions: packed
                .into_iter()
                .chain(regions)
                .map(|(name, values)| Region { name, values })
                .collect(),
        }
    }

    /// The same plan for products on `unit`; [`Plan::new`] takes the best one of this machine.
    pub fn with_unit(mut self, config: &ModelConfig, unit: MatrixUnit) -> Self {
        for (name, values) in unit_regions(config, self.threads, self.training, unit) {
            for region in &mut self.regions {
                if region.name == name {
                    region.values = values;
                }
            }
        }
        self
    }

    /// Values of the region of that name, 0 if there is none.
    pub fn region(&self, name: &str) -> usize {
        let named = |region: &&Region| region.name == name;
        self.regions.iter().find(named).map_or(0, |region| region.values)
    }

    /// Bytes of all regions.
    pub fn bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.values as u64 * 4).sum()
    }
}
