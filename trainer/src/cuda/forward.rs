//! The forward pass on one rank, from the tokens to the last norm's output.
//!
//! The residual stream and all activations are bf16; each kernel and product computes in f32 and rounds
//! once. What a layer computes is written by `layer` alone, so that computing it again for the backward pass gives the same bits.

use super::gpu::{Address, GpuError, ProductForm, ProductResult, Stream};
use super::kernels::attention::{attend, Attend};
use super::kernels::embedding::{embed, Embed};
use super::kernels::norm::{add_norm, AddNorm};
use super::kernels::rows::{rotate, swiglu, Rotate, Swiglu};
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

/// The scale of attention's scores.
pub(super) fn attention_scale(head_dim: usize) -> f32 {
    (1.0 / (head_dim as f64).sqrt()) as f32
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
        if self.shape.config.tied { 0 } else { 2 + self.shape.config.layers }
    }

    /// From the loaded tokens to the last norm's output.
    pub(super) fn forward(&mut self, sizes: Sizes) -> Result<(), GpuError> {
        let layers = self.shape.config.layers;
        self.fetch(0)?;
        self.fetch(Self::layer_unit(0))?;
        let table = self.parameters(0)?;
        let tokens = self.region(Region::Tokens);
        let arguments = Embed { tokens, table, out: self.state(0), width: sizes.hidden as u32 };
        embed(&*self.gpu, Stream::Compute, sizes.tokens as u32, &arguments)?;
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
        let before = match layers {
            0 => self.state(0),
            _ => self.at(self.shape.plan.activation(Activation::Middle, layers - 1)),
        };
        let arguments = AddNorm {
            x: before,
            y: self.region(Region::Branch),
            sum: self.state(layers),
            w,
            normed: self.region(Region::FinalNormed),
            inverse: self.region(Region::FinalInverse),
            width: sizes.hidden as u32,
            epsilon,
        };
        add_norm(&*self.gpu, Stream::Compute, sizes.tokens as u32, &arguments)?;
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
        let (rows, width, epsilon) = (sizes.tokens as u32, sizes.hidden as u32, config.norm_epsilon);
        let state = self.state(layer);
        let before = match layer {
            0 => None,
            _ => Some(self.at(plan.activation(Activation::Middle, layer - 1))),
        };
        let (x, y) = match before.filter(|_| first_time) {
            Some(middle) => (middle, self.region(Region::Branch)),
            None => (state, Address::default()),
        };
        let normed = of(Activation::AttentionNormed);
        let arguments = AddNorm {
            x,
            y,
            sum: state,
            w: tensor(unit, weights, piece::ATTENTION_NORM, 2),
            normed,
            inverse: of(Activation::AttentionInverse),
            width,
            epsilon,
        };
        add_norm(&*self.gpu, Stream::Compute, rows, &arguments)?;

        let qkv = of(Activation::Qkv);
        self.apply(unit, weights, piece::QKV, (normed, sizes.hidden), (qkv, sizes.qkv), sizes.tokens)?;
        self.turn(qkv, 1.0, sizes)?;
        let attended = of(Activation::Attended);
        attend(
            &*self.gpu,
            Stream::Compute,
            &Attend {
                qkv,
                starts: self.tokens(2),
                out: attended,
                log_sums: of(Activation::LogSums),
                samples: sizes.samples as u32,
                seq_len: config.seq_len as u32,
                heads: config.heads as u32,
                kv_heads: config.kv_heads as u32,
                head_dim: config.head_dim() as u32,
                scale: attention_scale(config.head_dim()),
            },
        )?;

        let branch = self.region(Region::Branch);
        let (hidden, tokens) = (sizes.hidden, sizes.tokens);
        self.apply(unit, weights, piece::OUTPUT, (attended, hidden), (branch, hidden), tokens)?;
        let middle = of(Activation::Middle);
        let normed = of(Activation::FfnNormed);
        let arguments = AddNorm {
            x: state,
            y: branch,
            sum: middle,
            w: tensor(unit, weights, piece::FFN_NORM, 2),
            normed,
            inverse: of(Activation::FfnInverse),
            width,
            epsilon,
        };
        add_norm(&*self.gpu, Stream::Compute, rows, &arguments)?;
        let gate_up = of(Activation::GateUp);
        let wide = (gate_up, 2 * sizes.ffn);
        self.apply(unit, weights, piece::GATE_UP, (normed, hidden), wide, tokens)?;
        let h = of(Activation::Hidden);
        let arguments = Swiglu { gate_up, h, ffn: sizes.ffn as u32 };
        if first_time {
            swiglu(&*self.gpu, Stream::Compute, rows, &arguments)?;
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
    pub(super) fn turn(&self, qkv: Address, direction: f32, sizes: Sizes) -> Result<(), GpuError> {
        let config = &self.shape.config;
        let cos = self.region(Region::Rotary);
        let sin = cos.plus(self.shape.plan.region(Region::Rotary) / 2);
        let arguments = Rotate {
            qkv,
            cos,
            sin,
            seq_len: config.seq_len as u32,
            heads: (config.heads + config.kv_heads) as u32,
            head_dim: config.head_dim() as u32,
            stride: sizes.qkv as u32,
            direction,
        };
        rotate(&*self.gpu, Stream::Compute, sizes.tokens as u32, &arguments)
    }

    /// One of the lists of [`Region::Tokens`]: inputs, targets, documents, order, firsts, ids.
    pub(super) fn tokens(&self, list: u64) -> Address {
        self.region(Region::Tokens).plus(self.shape.plan.region(Region::Tokens) / 6 * list)
    }
}
