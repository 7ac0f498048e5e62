//! The memory of one rank: every region in bytes, known before anything is allocated.
//!
//! The engine allocates [`Plan::bytes`] in one piece and nothing after it.

use serde::Serialize;

use super::kernels::norm::PART_ROWS;
use super::layout::{Layout, UnitKind, CHUNK};
use crate::model::config::ModelConfig;

/// Regions begin at multiples of this many bytes.
const ALIGNMENT: u64 = 256;

/// Bytes of bf16, of f32 and of f64.
const HALF: u64 = 2;
const FLOAT: u64 = 4;
const DOUBLE: u64 = 8;

/// Rows of logits at once.
pub const LOGIT_ROWS: u64 = 4096;

/// Rows of which a norm's gradient is summed at once.
pub const NORM_ROWS: u64 = PART_ROWS as u64;

/// Gathered layers, gradients of layers and parts of a gradient that are there at once: one in use, one on its way.
pub(super) const TURNS: usize = 2;

/// Parts of the gradient of embedding and output matrix at least, where it goes in parts.
const END_PARTS_MIN: u64 = 4;

/// Bytes of a part of the gradient of embedding and output matrix, where it goes in parts.
const END_PART: u64 = 256 << 20;

/// What is computed again in the backward pass instead of being kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// Nothing.
    None,
    /// Outputs of the norms and of SwiGLU: elementwise work only.
    NormSwiglu,
    /// Whole layers, of which only the input is kept: the forward pass twice.
    Full,
}

impl Recompute {
    /// All of them, the fastest first.
    pub const ALL: [Self; 3] = [Self::None, Self::NormSwiglu, Self::Full];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NormSwiglu => "norm-swiglu",
            Self::Full => "full",
        }
    }
}

/// What a rank is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// Samples at once.
    pub samples: usize,
    /// Whether there is a backward pass.
    pub training: bool,
    /// What is computed again in it.
    pub recompute: Recompute,
    /// Whether Muon trains the layers' matrices.
    pub muon: bool,
    /// Whether the master's rest and the averages lie in pinned host memory.
    pub offload: bool,
    /// Without a backward pass: whether updates are applied to the parameters, which takes their rest, too.
    pub changes: bool,
}

impl Work {
    /// Predicting `samples` samples at once, with room for what updates change if `changes`.
    pub fn prediction(samples: usize, changes: bool) -> Self {
        // Without a backward pass nothing is computed again.
        let recompute = Recompute::None;
        Self { samples, training: false, recompute, muon: false, offload: false, changes }
    }
}

/// A part of a rank's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Region {
    /// Parameters in bf16, which are the masters' upper halves: what the rank owns.
    High,
    /// The masters' lower halves.
    Low,
    /// Averages of gradients, bf16.
    Mean,
    /// Averages of squared gradients, bf16.
    Square,
    /// The gradient, f32.
    Gradient,
    /// Lower halves and averages of two units on their way from and to the host.
    Visiting,
    /// Two layers as all ranks own them, bf16.
    GatheredLayers,
    /// Embedding or output matrix, bf16.
    GatheredEnds,
    /// The last norm, bf16.
    GatheredNorm,
    /// Gradients of two layers on their way, f32.
    LayerGradients,
    /// Gradient of embedding and output matrix of one micro-batch, f32.
    EndGradient,
    /// Gradient of the last norm of one micro-batch, f32.
    NormGradient,
    /// What other ranks send for a sum, f32.
    Received,
    /// Sums of squares of chunks, f64.
    Squares,
    /// Muon's direction: what the rank owns of a layer, bf16.
    Direction,
    /// Muon's products.
    MuonWork,
    /// Rotary cosines and sines, f32.
    Rotary,
    /// Inputs, targets, documents, and the order of the inputs by token.
    Tokens,
    /// The residual stream before each layer and after the last, bf16.
    Residual,
    /// The last norm's output, bf16.
    FinalNormed,
    /// The last norm's inverses, f32.
    FinalInverse,
    /// What is kept of each layer.
    Kept,
    /// What a layer computes and does not keep.
    Passing,
    /// What a half of a layer adds to the stream, bf16.
    Branch,
    /// Logits of some rows, bf16.
    Logits,
    /// Losses, f32.
    Losses,
    /// What the backward pass works in.
    Backward,
}

/// Number of regions.
const REGIONS: usize = Region::Backward as usize + 1;

impl Region {
    /// All of them, in the order of the arena.
    pub const ALL: [Self; REGIONS] = [
        Self::High,
        Self::Low,
        Self::Mean,
        Self::Square,
        Self::Gradient,
        Self::Visiting,
        Self::GatheredLayers,
        Self::GatheredEnds,
        Self::GatheredNorm,
        Self::LayerGradients,
        Self::EndGradient,
        Self::NormGradient,
        Self::Received,
        Self::Squares,
        Self::Direction,
        Self::MuonWork,
        Self::Rotary,
        Self::Tokens,
        Self::Residual,
        Self::FinalNormed,
        Self::FinalInverse,
        Self::Kept,
        Self::Passing,
        Self::Branch,
        Self::Logits,
        Self::Losses,
        Self::Backward,
    ];

    /// The name that a plan's table shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "parameters (bf16)",
            Self::Low => "rest of the f32 master",
            Self::Mean => "first moment",
            Self::Square => "second moment",
            Self::Gradient => "gradient",
            Self::Visiting => "states on their way from and to the host (2)",
            Self::GatheredLayers => "gathered layers (2)",
            Self::GatheredEnds => "gathered embedding or output matrix",
            Self::GatheredNorm => "gathered last norm",
            Self::LayerGradients => "gradients on their way (2 layers)",
            Self::EndGradient => "gradient of embedding and output matrix on its way",
            Self::NormGradient => "gradient of the last norm on its way",
            Self::Received => "sums from other GPUs",
            Self::Squares => "sums of squares",
            Self::Direction => "Muon's direction",
            Self::MuonWork => "Muon's products",
            Self::Rotary => "rotary cosines and sines",
            Self::Tokens => "inputs, targets and documents",
            Self::Residual => "residual stream",
            Self::FinalNormed => "the last norm's output",
            Self::FinalInverse => "the last norm's inverses",
            Self::Kept => "activations of the layers",
            Self::Passing => "activations that are not kept",
            Self::Branch => "what a half of a layer adds",
            Self::Logits => "logits, up to 4096 tokens",
            Self::Losses => "losses",
            Self::Backward => "working space of the backward pass",
        }
    }
}

/// What a layer computes for the tokens of a micro-batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// The output of the norm before attention, (T, D) bf16.
    AttentionNormed,
    /// Its inverses, (T) f32.
    AttentionInverse,
    /// Rotated q|k|v, (T, Q) bf16.
    Qkv,
    /// Attention's output, (T, D) bf16.
    Attended,
    /// Attention's logarithms, (samples, heads, seq_len) f32.
    LogSums,
    /// The stream between the halves, (T, D) bf16.
    Middle,
    /// The output of the norm before SwiGLU, (T, D) bf16.
    FfnNormed,
    /// Its inverses, (T) f32.
    FfnInverse,
    /// gate|up, (T, 2 F) bf16.
    GateUp,
    /// SwiGLU's output, (T, F) bf16.
    Hidden,
}

impl Activation {
    /// All of them, in the order of their computation.
    pub const ALL: [Self; 10] = [
        Self::AttentionNormed,
        Self::AttentionInverse,
        Self::Qkv,
        Self::Attended,
        Self::LogSums,
        Self::Middle,
        Self::FfnNormed,
        Self::FfnInverse,
        Self::GateUp,
        Self::Hidden,
    ];

    /// Whether it is kept for the backward pass.
    fn kept(self, recompute: Recompute) -> bool {
        match recompute {
            Recompute::None => true,
            Recompute::NormSwiglu => {
                !matches!(self, Self::AttentionNormed | Self::FfnNormed | Self::Hidden)
            }
            Recompute::Full => false,
        }
    }

    fn bytes(self, config: &ModelConfig, tokens: u64) -> u64 {
        let values = match self {
            Self::AttentionNormed | Self::Attended | Self::Middle | Self::FfnNormed => {
                config.hidden
            }
            Self::AttentionInverse | Self::FfnInverse => 1,
            Self::Qkv => config.qkv_dim(),
            Self::LogSums => config.heads,
            Self::GateUp => 2 * config.ffn,
            Self::Hidden => config.ffn,
        };
        let size = match self {
            Self::AttentionInverse | Self::FfnInverse | Self::LogSums => FLOAT,
            _ => HALF,
        };
        aligned(tokens * values as u64 * size)
    }
}

/// What the backward pass works in, in the order of [`Region::Backward`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Working {
    /// Gradient of the residual stream, (T, D) bf16.
    State,
    /// Gradient of a norm's output and of attention's output, (T, D) bf16.
    Normed,
    /// Gradient of q|k|v, (T, Q) bf16.
    Qkv,
    /// Gradient of gate|up, (T, 2 F) bf16.
    GateUp,
    /// Gradient of SwiGLU's output, (T, F) bf16.
    Hidden,
    /// Dot products of attention, (samples, heads, seq_len) f32.
    Dots,
    /// Parts of a norm's gradient, (blocks of rows, D) f32.
    NormParts,
}

impl Working {
    const ALL: [Self; 7] = [
        Self::State,
        Self::Normed,
        Self::Qkv,
        Self::GateUp,
        Self::Hidden,
        Self::Dots,
        Self::NormParts,
    ];

    fn bytes(self, config: &ModelConfig, tokens: u64) -> u64 {
        let (hidden, ffn) = (config.hidden as u64, config.ffn as u64);
        aligned(match self {
            Self::State | Self::Normed => tokens * hidden * HALF,
            Self::Qkv => tokens * config.qkv_dim() as u64 * HALF,
            Self::GateUp => tokens * 2 * ffn * HALF,
            Self::Hidden => tokens * ffn * HALF,
            Self::Dots => tokens * config.heads as u64 * FLOAT,
            Self::NormParts => tokens.div_ceil(NORM_ROWS) * hidden * FLOAT,
        })
    }
}

/// The memory of one rank, the same for all ranks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What it is for.
    pub work: Work,
    /// Tokens at once.
    pub tokens: u64,
    /// Rows of logits at once.
    pub logit_rows: u64,
    /// Parts in which the gradient of embedding and output matrix goes to the ranks: of each rank's rows, so many parts one
    /// after the other; 0 for a gradient that is there as a whole.
    pub end_parts: u64,
    /// Bytes in pinned host memory.
    pub pinned: u64,
    /// Bytes of each region, in the order of [`Region::ALL`].
    bytes: [u64; REGIONS],
    /// Where what a layer computes begins in [`Region::Kept`], if it is kept, or in [`Region::Passing`].
    activations: [(bool, u64); Activation::ALL.len()],
    /// Where the backward pass's parts begin in [`Region::Backward`].
    working: [u64; Working::ALL.len()],
    /// Bytes that are kept of one layer.
    layer_kept: u64,
}

/// Parts of each rank's rows in which the gradient of embedding and output matrix is sent. Possible where ranks own whole
/// rows, and where all logits are there at once, so that they last until the embedding's gradient is known.
fn end_parts(config: &ModelConfig, layout: &Layout, all_logits: bool) -> u64 {
    let (vocab, hidden) = (config.vocab as u64, config.hidden as u64);
    let whole_rows =
        vocab.is_multiple_of(layout.world) && (vocab * hidden).is_multiple_of(CHUNK * layout.world);
    if layout.world == 1 || !all_logits || !whole_rows {
        return 0;
    }
    let rows = vocab / layout.world;
    let mut parts = 1;
    let large = |parts| parts < END_PARTS_MIN || vocab * hidden * FLOAT / parts > END_PART;
    while rows.is_multiple_of(2 * parts) && large(parts) {
        parts *= 2;
    }
    parts
}

/// The next multiple of the alignment.
pub(super) fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

impl Plan {
    /// The plan for one rank of the layout.
    pub fn new(config: &ModelConfig, layout: &Layout, work: Work) -> Self {
        let tokens = (work.samples * config.seq_len) as u64;
        let mut plan = Self {
            work,
            tokens,
            logit_rows: tokens.min(LOGIT_ROWS),
            end_parts: 0,
            pinned: 0,
            bytes: [0; REGIONS],
            activations: [(false, 0); Activation::ALL.len()],
            working: [0; Working::ALL.len()],
            layer_kept: 0,
        };
        plan.lay_activations(config);
        plan.add_passes(config);
        plan.add_gathered(layout);
        plan.set(Region::High, layout.owned() * HALF);
        if work.training {
            plan.add_training(config, layout);
        } else if work.changes {
            plan.set(Region::Low, layout.owned() * HALF);
        }
        plan
    }

    fn set(&mut self, region: Region, bytes: u64) {
        self.bytes[region as usize] = aligned(bytes);
    }

    fn lay_activations(&mut self, config: &ModelConfig) {
        let (mut kept, mut passing) = (0, 0);
        for activation in Activation::ALL {
            let keeps = self.work.training && activation.kept(self.work.recompute);
            let place = if keeps { &mut kept } else { &mut passing };
            self.activations[activation as usize] = (keeps, *place);
            *place += activation.bytes(config, self.tokens);
        }
        self.layer_kept = kept;
        self.set(Region::Kept, kept * config.layers as u64);
        self.set(Region::Passing, passing);
    }

    fn add_passes(&mut self, config: &ModelConfig) {
        let (tokens, hidden) = (self.tokens, config.hidden as u64);
        let stream = aligned(tokens * hidden * HALF);
        let states = if self.work.training { config.layers as u64 + 1 } else { 2 };
        let positions = (config.seq_len * config.head_dim() / 2) as u64;
        self.set(Region::Rotary, 2 * aligned(positions * FLOAT));
        // Inputs, targets, documents, order, firsts, ids.
        self.set(Region::Tokens, 6 * aligned((tokens + 1) * FLOAT));
        self.set(Region::Residual, states * stream);
        self.set(Region::FinalNormed, stream);
        self.set(Region::FinalInverse, tokens * FLOAT);
        self.set(Region::Branch, stream);
        self.set(Region::Logits, self.logit_rows * config.vocab as u64 * HALF);
        self.set(Region::Losses, tokens * FLOAT);
    }

    fn add_gathered(&mut self, layout: &Layout) {
        if layout.world == 1 {
            return;
        }
        let layer = layout.largest(|kind| matches!(kind, UnitKind::Layer(_)));
        let ends = layout.largest(|kind| matches!(kind, UnitKind::Embedding | UnitKind::Head));
        let norm = layout.largest(|kind| kind == UnitKind::FinalNorm);
        self.set(Region::GatheredLayers, TURNS as u64 * layer * HALF);
        self.set(Region::GatheredEnds, ends * HALF);
        self.set(Region::GatheredNorm, norm * HALF);
        if self.work.training {
            self.set(Region::LayerGradients, TURNS as u64 * layer * FLOAT);
            self.set(Region::NormGradient, norm * FLOAT);
            self.set(Region::Received, layer.max(ends).max(norm) / layout.world * FLOAT);
        }
    }

    fn add_training(&mut self, config: &ModelConfig, layout: &Layout) {
        let owned = layout.owned();
        let squares = squares_owned(layout, self.work.muon);
        let states = [
            (Region::Low, owned * HALF),
            (Region::Mean, owned * HALF),
            (Region::Square, squares * HALF),
        ];
        let largest = layout.largest(|_| true) / layout.world;
        match self.work.offload {
            false => {
                for (region, bytes) in states {
                    self.set(region, bytes);
                }
            }
            true => {
                self.pinned = states.iter().map(|(_, bytes)| aligned(*bytes)).sum();
                self.set(Region::Visiting, 2 * 3 * aligned(largest * HALF));
            }
        }
        self.set(Region::Gradient, owned * FLOAT);
        let ends = layout.largest(|kind| matches!(kind, UnitKind::Embedding | UnitKind::Head));
        self.end_parts = end_parts(config, layout, self.tokens == self.logit_rows);
        if let Some(part) = ends.checked_div(self.end_parts) {
            self.set(Region::EndGradient, TURNS as u64 * part * FLOAT);
        } else if layout.world > 1 || config.tied || self.tokens > self.logit_rows {
            self.set(Region::EndGradient, ends * FLOAT);
        }
        self.set(Region::Squares, (owned / CHUNK + 1) * DOUBLE);
        if self.work.muon {
            let layer = layout.largest(|kind| matches!(kind, UnitKind::Layer(_)));
            self.set(Region::Direction, layer / layout.world * HALF);
            self.set(Region::MuonWork, MuonWork::new(layout).bytes());
        }
        let mut at = 0;
        for working in Working::ALL {
            self.working[working as usize] = at;
            at += working.bytes(config, self.tokens);
        }
        self.set(Region::Backward, at);
    }

    /// Bytes of a region.
    pub fn region(&self, region: Region) -> u64 {
        self.bytes[region as usize]
    }

    /// Where a region begins in the arena.
    pub fn start(&self, region: Region) -> u64 {
        self.bytes.iter().take(region as usize).sum()
    }

    /// The regions and their bytes.
    pub fn regions(&self) -> impl Iterator<Item = (Region, u64)> + '_ {
        Region::ALL.into_iter().zip(self.bytes)
    }

    /// Bytes of device memory in all.
    pub fn bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// Where what layer `layer` computes begins in the arena.
    pub fn activation(&self, activation: Activation, layer: usize) -> u64 {
        match self.activations[activation as usize] {
            (true, at) => self.start(Region::Kept) + self.layer_kept * layer as u64 + at,
            (false, at) => self.start(Region::Passing) + at,
        }
    }

    /// Where a part of the backward pass's working space begins in the arena.
    pub fn working(&self, working: Working) -> u64 {
        self.start(Region::Backward) + self.working[working as usize]
    }
}

/// Values for whose squared gradients a rank keeps averages: with Muon, those of the tensors that it leaves to AdamW.
/// The most of all ranks.
pub(super) fn squares_owned(layout: &Layout, muon: bool) -> u64 {
    if !muon {
        return layout.owned();
    }
    let owned = |rank: usize| -> u64 {
        let pieces =
            layout.units.iter().flat_map(|unit| unit.pieces.iter().map(move |p| (unit, p)));
        let averaged = pieces.filter(|(_, piece)| !piece.layer_matrix);
        averaged.filter_map(|(unit, piece)| layout.segment(unit, piece, rank)).map(room).sum()
    };
    (0..layout.world as usize).map(owned).max().unwrap_or(0)
}

/// Values that a segment's squares take.
pub(super) fn room(segment: super::layout::Segment) -> u64 {
    (segment.tensor.end - segment.tensor.start).next_multiple_of(CHUNK)
}

/// What Newton–Schulz works in: the next iterate of the largest matrix, and two squares of its shorter side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MuonWork {
    /// Bytes of a matrix.
    pub(super) matrix: u64,
    /// Bytes of a square.
    pub(super) square: u64,
    /// Bytes of sums of squares.
    pub(super) parts: u64,
}

impl MuonWork {
    pub(super) fn new(layout: &Layout) -> Self {
        let pieces = layout.units.iter().flat_map(|unit| &unit.pieces);
        let shapes = pieces.filter(|piece| piece.layer_matrix).map(|piece| piece.shape);
        let (mut matrix, mut square) = (0, 0);
        for (rows, columns) in shapes {
            let short = rows.min(columns);
            matrix = matrix.max(aligned(rows * columns * HALF));
            square = square.max(aligned(short * short * HALF));
        }
        // The parts, and behind them their sum.
        let parts = aligned((matrix / HALF).div_ceil(CHUNK) * DOUBLE) + aligned(DOUBLE);
        Self { matrix, square, parts }
    }

    pub(super) fn bytes(self) -> u64 {
        self.matrix + 2 * self.square + self.parts
    }
}
