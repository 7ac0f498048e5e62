//! Plans what the CPU engine allocates, before anything is: the bytes of every region for a model
//! and a micro-batch.
//!
//! [`crate::engine::Engine`] takes its buffers from this plan and nothing else, so that
//! what is printed is what is used. A device of another kind plans its own memory.

use serde::{Deserialize, Serialize};

use crate::compute::matmul::MatrixUnit;
use crate::model::config::ModelConfig;

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

/// The regions of an engine's memory, in the order of their first use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Region {
    /// Where each thread packs matrices.
    Scratch,
    /// Where weights are packed for all threads.
    Operands,
    /// Where each thread packs a head's keys and values.
    Keys,
    /// The parameters rounded to bf16; empty in f32.
    Rounded,
    /// Cosines and sines of the rotary positions.
    Rotary,
    /// Inputs, targets and where a token's document starts.
    Tokens,
    /// States of the residual stream.
    Residual,
    /// One over the root of each norm.
    Inverse,
    /// The last norm's output.
    Normed,
    /// Queries, keys and values of each layer that is kept.
    Qkv,
    /// Logarithms of attention's sums.
    LogSums,
    /// Attention's output of each layer that is kept.
    Attended,
    /// Gate and up of each layer that is kept.
    GateUp,
    /// Rows that each thread takes through a layer's half.
    Band,
    /// Attention's scores of each thread.
    Scores,
    /// Logits of the rows that are held at once.
    Logits,
    /// The loss of each token.
    Losses,
    /// The output of the norm before attention.
    AttentionNormed,
    /// SwiGLU's output in the backward pass.
    SwiGlu,
    /// Gradients of the residual stream, taking turns.
    DResidual,
    /// The gradient of attention's output.
    DAttended,
    /// The gradient of queries, keys and values.
    DQkv,
    /// The gradient of gate and up.
    DGateUp,
    /// Partial sums of a norm's gradient.
    DNormParts,
}

impl Region {
    /// All of them, in order.
    pub const ALL: [Self; REGIONS] = [
        Self::Scratch,
        Self::Operands,
        Self::Keys,
        Self::Rounded,
        Self::Rotary,
        Self::Tokens,
        Self::Residual,
        Self::Inverse,
        Self::Normed,
        Self::Qkv,
        Self::LogSums,
        Self::Attended,
        Self::GateUp,
        Self::Band,
        Self::Scores,
        Self::Logits,
        Self::Losses,
        Self::AttentionNormed,
        Self::SwiGlu,
        Self::DResidual,
        Self::DAttended,
        Self::DQkv,
        Self::DGateUp,
        Self::DNormParts,
    ];

    /// The name that a plan's table shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scratch => "matrices packed by a thread",
            Self::Operands => "packed weights",
            Self::Keys => "keys and values packed by a thread",
            Self::Rounded => "parameters in bf16",
            Self::Rotary => "rotary cosines and sines",
            Self::Tokens => "inputs, targets and documents",
            Self::Residual => "residual stream",
            Self::Inverse => "norms' inverses",
            Self::Normed => "normed",
            Self::Qkv => "q|k|v",
            Self::LogSums => "attention's logarithms",
            Self::Attended => "attention's output",
            Self::GateUp => "gate|up",
            Self::Band => "rows of each thread",
            Self::Scores => "scores",
            Self::Logits => "logits",
            Self::Losses => "losses",
            Self::AttentionNormed => "normed before attention",
            Self::SwiGlu => "SwiGLU's output",
            Self::DResidual => "gradients of the residual stream",
            Self::DAttended => "gradient of attention's output",
            Self::DQkv => "gradient of q|k|v",
            Self::DGateUp => "gradient of gate|up",
            Self::DNormParts => "partial gradients of a norm",
        }
    }
}

/// How many regions there are.
const REGIONS: usize = Region::DNormParts as usize + 1;

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
) -> [(Region, usize); 3] {
    [
        (Region::Scratch, threads * unit.scratch()),
        (Region::Operands, operands(config, training, unit)),
        (Region::Keys, threads * keys(config, training, unit)),
    ]
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
    /// Values of four bytes of each region, in the order of [`Region::ALL`].
    values: [usize; REGIONS],
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
            (Region::Rounded, rounded),
            (Region::Rotary, config.seq_len * config.head_dim()),
            (Region::Tokens, 3 * tokens),
            (Region::Residual, residuals_kept * tokens * config.hidden),
            (Region::Inverse, (2 * layers_kept + 1) * tokens),
            (Region::Normed, tokens * config.hidden),
            (Region::Qkv, layers_kept * tokens * config.qkv_dim()),
            (Region::LogSums, layers_kept * head_rows),
            (Region::Attended, layers_kept * tokens * config.hidden),
            (Region::GateUp, layers_kept * tokens * 2 * config.ffn),
            (Region::Band, threads * band),
            (Region::Scores, if training { 2 * scores } else { scores }),
            (Region::Logits, logit_rows * config.vocab),
            (Region::Losses, tokens),
            (Region::AttentionNormed, backward(tokens * config.hidden)),
            (Region::SwiGlu, backward(tokens * config.ffn)),
            (Region::DResidual, backward(D_RESIDUALS * tokens * config.hidden)),
            (Region::DAttended, backward(tokens * config.hidden)),
            (Region::DQkv, backward(tokens * config.qkv_dim())),
            (Region::DGateUp, backward(tokens * 2 * config.ffn)),
            (Region::DNormParts, backward(tokens.div_ceil(NORM_ROWS) * config.hidden)),
        ];
        let mut plan = Self {
            samples,
            tokens,
            threads,
            training,
            layers_kept,
            residuals_kept,
            logit_rows,
            precision,
            values: [0; REGIONS],
        };
        plan.set(packed);
        plan.set(regions);
        plan
    }

    /// The same plan for products on `unit`; [`Plan::new`] takes the best one of this machine.
    pub fn with_unit(mut self, config: &ModelConfig, unit: MatrixUnit) -> Self {
        self.set(unit_regions(config, self.threads, self.training, unit));
        self
    }

    fn set<const N: usize>(&mut self, regions: [(Region, usize); N]) {
        for (region, values) in regions {
            self.values[region as usize] = values;
        }
    }

    /// Values of four bytes of a region; 0 for one that this plan has no use for.
    pub fn region(&self, region: Region) -> usize {
        self.values[region as usize]
    }

    /// The regions and the values of four bytes of each, in the order of their first use.
    pub fn regions(&self) -> impl Iterator<Item = (Region, usize)> + '_ {
        Region::ALL.into_iter().zip(self.values)
    }

    /// Bytes of all regions.
    pub fn bytes(&self) -> u64 {
        self.values.iter().map(|values| *values as u64 * 4).sum()
    }
}
