//! The forward pass on one rank, from the tokens to the last norm's output.
//!
//! The residual stream and all activations are bf16; each kernel and product computes in f32 and rounds
//! once. What a layer computes is written by `layer` alone, so that computing it again for the backward pass gives the same bits.

use super::gpu::{Address, GpuError, ProductForm, ProductResult, Stream};
use super::kernels::attention::{attend, Attend, Shape as AttentionShape};
use super::kernels::embedding::{embed, Embed};
use super::kernels::norm::{add_norm, AddNorm, Addend};
use super::kernels::rows::{rotate, swiglu, Rotate, Swiglu, Turn};
use super::layout::{Unit, UnitKind};
use super::plan::{Activation, Region};
use super::rank::{blocks, Rank};

/// The tensors of a layer, in the arena's order.
pub(super) mod piece {
    use std::ops::Range;

    pub(crate) const ATTENTION_NORM: usize = 0;
    pub(crate) const QKV: Range<usize> = 1..4;
    pub(crate) const OUTPUT: Range<usize> = 4..5;
    pub(crate) const FFN_NORM: usize = 5;
    pub(crate) const GATE_UP: Range<usize> = 6..8;
    pub(crate) const DOWN: Range<usize> = 8..9;
}

/// The sizes of a micro-batch.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) samples: u64,
    pub(super) tokens: u64,
    pub(super) hidden: u64,
    pub(super) qkv: u64,
    pub(super) ffn: u64,
    pub(super) vocab: u64,
}

/// Where a tensor of a unit begins.
pub(super) fn tensor(unit: &Unit, base: Address, piece: usize, value_bytes: u64) -> Address {
    let first = unit.pieces.get(piece).map_or(0, |piece| piece.values.start);
    base.plus(first * value_bytes)
}

impl Rank {
    pub(super) fn sizes(&self, samples: usize) -> Sizes {
        let config = &self.shape.config;
        Sizes {
            samples: samples as u64,
            tokens: (samples * config.seq_len) as u64,
            hidden: config.hidden as u64,
            qkv: config.qkv_dim() as u64,
            ffn: config.ffn as u64,
            vocab: config.vocab as u64,
        }
    }

    /// The sizes of attention.
    pub(super) fn attention(&self, sizes: Sizes) -> AttentionShape {
        let config = &self.shape.config;
        AttentionShape {
            samples: sizes.samples as u32,
            seq_len: config.seq_len as u32,
            heads: config.heads as u32,
            kv_heads: config.kv_heads as u32,
            head_width: config.head_dim() as u32,
        }
    }

    /// The stream before layer `layer`, or after the last one.
    pub(super) fn state(&self, layer: usize) -> Address {
        let plan = &self.shape.plan;
        let states = if plan.work.training { self.shape.config.layers + 1 } else { 2 };
        let stream = plan.region(Region::Residual) / states as u64;
        self.region(Region::Residual).plus((layer % states) as u64 * stream)
    }

    /// The unit number of a layer.
    pub(super) fn layer_unit(layer: usize) -> usize {
        1 + layer
    }

    /// The unit number of the last norm.
    pub(super) fn norm_unit(&self) -> usize {
        1 + self.shape.config.layers
    }

    /// The unit number of the output matrix.
    pub(super) fn head_unit(&self) -> usize {
        if self.shape.config.tied {
            0
        } else {
            2 + self.shape.config.layers
        }
    }

    /// From the loaded tokens to the last norm's output.
    pub(super) fn forward(&mut self, sizes: Sizes) -> Result<(), GpuError> {
        let layers = self.shape.config.layers;
        self.fetch(0)?;
        self.fetch(Self::layer_unit(0))?;
        let table = self.parameters(0)?;
        let tokens = self.region(Region::Tokens);
        let (count, width) = (sizes.tokens as u32, sizes.hidden as u32);
        let arguments = Embed { tokens, table, out: self.state(0), count, width };
        embed(&*self.gpu, Stream::Compute, &arguments)?;
        self.used(0)?;
        for layer in 0..layers {
            if layer + 1 < layers {
                self.fetch(Self::layer_unit(layer + 1))?;
            }
            let weights = self.parameters(Self::layer_unit(layer))?;
            self.layer(layer, weights, sizes, true)?;
            self.used(Self::layer_unit(layer))?;
        }
        self.fetch(self.norm_unit())?;
        self.fetch(self.head_unit())?;
        let w = self.parameters(self.norm_unit())?;
        let epsilon = self.shape.config.norm_epsilon;
        let arguments = AddNorm {
            x: self.at(self.shape.plan.activation(Activation::Middle, layers - 1)),
            add: Some(Addend { y: self.region(Region::Branch), sum: self.state(layers) }),
            w,
            normed: self.region(Region::FinalNormed),
            inverse: self.region(Region::FinalInverse),
            tokens: sizes.tokens as u32,
            width: sizes.hidden as u32,
            epsilon,
        };
        add_norm(&*self.gpu, Stream::Compute, &arguments)?;
        self.used(self.norm_unit())
    }

    /// One layer. `first_time` it also computes its input from the layer before, and what it adds to the stream.
    pub(super) fn layer(
        &mut self,
        layer: usize,
        weights: Address,
        sizes: Sizes,
        first_time: bool,
    ) -> Result<(), GpuError> {
        let shape = self.shape.clone();
        let (config, plan) = (&shape.config, &shape.plan);
        let Some(unit) = shape.layout.unit(UnitKind::Layer(layer)) else { return Ok(()) };
        let of = |activation| self.at(plan.activation(activation, layer));
        let (rows, width, epsilon) =
            (sizes.tokens as u32, sizes.hidden as u32, config.norm_epsilon);
        let state = self.state(layer);
        let branch = self.region(Region::Branch);
        let before = layer.checked_sub(1).filter(|_| first_time);
        let (x, add) = match before {
            Some(before) => {
                let middle = self.at(plan.activation(Activation::Middle, before));
                (middle, Some(Addend { y: branch, sum: state }))
            }
            None => (state, None),
        };
        let normed = of(Activation::AttentionNormed);
        let arguments = AddNorm {
            x,
            add,
            w: tensor(unit, weights, piece::ATTENTION_NORM, 2),
            normed,
            inverse: of(Activation::AttentionInverse),
            tokens: rows,
            width,
            epsilon,
        };
        add_norm(&*self.gpu, Stream::Compute, &arguments)?;

        let qkv = of(Activation::Qkv);
        self.apply(
            unit,
            weights,
            piece::QKV,
            (normed, sizes.hidden),
            (qkv, sizes.qkv),
            sizes.tokens,
        )?;
        self.turn(qkv, Turn::Forward, sizes)?;
        let attended = of(Activation::Attended);
        let arrays = Attend {
            shape: self.attention(sizes),
            qkv,
            starts: self.tokens(2),
            out: attended,
            log_sums: of(Activation::LogSums),
        };
        attend(&*self.gpu, Stream::Compute, &arrays)?;

        let (hidden, tokens) = (sizes.hidden, sizes.tokens);
        self.apply(unit, weights, piece::OUTPUT, (attended, hidden), (branch, hidden), tokens)?;
        let middle = of(Activation::Middle);
        let normed = of(Activation::FfnNormed);
        let arguments = AddNorm {
            x: state,
            add: Some(Addend { y: branch, sum: middle }),
            w: tensor(unit, weights, piece::FFN_NORM, 2),
            normed,
            inverse: of(Activation::FfnInverse),
            tokens: rows,
            width,
            epsilon,
        };
        add_norm(&*self.gpu, Stream::Compute, &arguments)?;
        let gate_up = of(Activation::GateUp);
        let wide = (gate_up, 2 * sizes.ffn);
        self.apply(unit, weights, piece::GATE_UP, (normed, hidden), wide, tokens)?;
        let h = of(Activation::Hidden);
        if first_time {
            let arguments = Swiglu { gate_up, h, tokens: rows, ffn: sizes.ffn as u32 };
            swiglu(&*self.gpu, Stream::Compute, &arguments)?;
            self.apply(unit, weights, piece::DOWN, (h, sizes.ffn), (branch, hidden), tokens)?;
        }
        Ok(())
    }

    /// y (tokens, outputs) = x (tokens, inputs) · Wᵀ, W being pieces of a unit one below the other.
    fn apply(
        &self,
        unit: &Unit,
        weights: Address,
        pieces: std::ops::Range<usize>,
        x: (Address, u64),
        y: (Address, u64),
        tokens: u64,
    ) -> Result<(), GpuError> {
        for block in blocks(unit, pieces) {
            let w = (weights.plus(block.values * 2), x.1);
            let d = (y.0.plus(block.row * 2), y.1);
            let size = (tokens, block.rows, x.1);
            self.multiply(ProductForm::Nt, size, x, w, d, ProductResult::Bf16, 0.0)?;
        }
        Ok(())
    }

    /// Turns q and k of q|k|v by their positions, or back.
    pub(super) fn turn(&self, qkv: Address, turn: Turn, sizes: Sizes) -> Result<(), GpuError> {
        let config = &self.shape.config;
        let cos = self.region(Region::Rotary);
        let sin = cos.plus(self.shape.plan.region(Region::Rotary) / 2);
        let arguments = Rotate {
            qkv,
            cos,
            sin,
            tokens: sizes.tokens as u32,
            seq_len: config.seq_len as u32,
            heads: (config.heads + config.kv_heads) as u32,
            head_dim: config.head_dim() as u32,
            stride: sizes.qkv as u32,
            turn,
        };
        rotate(&*self.gpu, Stream::Compute, &arguments)
    }

    /// One of the lists of [`Region::Tokens`]: inputs, targets, documents, order, firsts, ids.
    pub(super) fn tokens(&self, list: u64) -> Address {
        self.region(Region::Tokens).plus(self.shape.plan.region(Region::Tokens) / 6 * list)
    }
}
