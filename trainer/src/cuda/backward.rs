//! The backward pass on one rank, from the gradient of what the last norm was given to that of every parameter.
//!
//! The gradient of the residual stream lies in one place and is changed there. A layer's gradient goes to whoever owns
//! it while the layer before computes.

use super::batch::MicroBatch;
use super::forward::{piece, tensor, Sizes};
use super::gpu::{Address, GpuError, ProductForm, ProductResult, Stream};
use super::kernels::attention::{
    attend_backward_keys, attend_backward_queries, attend_dots, AttendBackward, AttendDots,
};
use super::kernels::embedding::{embed_gradient, EmbedGradient};
use super::kernels::norm::{
    norm_again, norm_backward, norm_weight_gradient, NormAgain, NormBackward, NormWeightGradient,
};
use super::kernels::rows::{swiglu_backward, SwigluBackward, Turn};
use super::layout::{Unit, UnitKind};
use super::plan::{Activation, Recompute, Region, Working, NORM_ROWS};
use super::rank::{blocks, Rank};

/// A layer's places in the backward pass.
struct Layer<'a> {
    number: usize,
    unit: &'a Unit,
    weights: Address,
    gradient: Address,
    /// Whether the gradient is added to what is there.
    add: bool,
}

impl Rank {
    /// From the gradient of what the last norm was given to that of every parameter.
    pub(super) fn backward(
        &mut self,
        sizes: Sizes,
        batch: &MicroBatch,
        active: usize,
    ) -> Result<(), GpuError> {
        for layer in (0..self.shape.config.layers).rev() {
            if layer > 0 {
                self.fetch(Self::layer_unit(layer - 1))?;
            }
            self.backward_layer(layer, sizes)?;
            self.used(Self::layer_unit(layer))?;
            self.send_layer_gradient(layer, active)?;
        }
        self.embedding_backward(sizes, batch, active)?;
        self.await_exchange()
    }

    fn backward_layer(&mut self, number: usize, sizes: Sizes) -> Result<(), GpuError> {
        let shape = self.shape.clone();
        let Some(unit) = shape.layout.unit(UnitKind::Layer(number)) else { return Ok(()) };
        let weights = self.parameters(Self::layer_unit(number))?;
        let (gradient, add) = self.layer_gradient(number)?;
        let layer = Layer { number, unit, weights, gradient, add };
        if shape.plan.work.recompute == Recompute::Full {
            self.layer(number, weights, sizes, false)?;
        }
        self.feed_forward_backward(&layer, sizes)?;
        self.attention_backward(&layer, sizes)
    }

    fn feed_forward_backward(&mut self, layer: &Layer<'_>, sizes: Sizes) -> Result<(), GpuError> {
        let shape = self.shape.clone();
        let plan = &shape.plan;
        let of = |activation| self.at(plan.activation(activation, layer.number));
        let working = |part| self.at(plan.working(part));
        let (hidden, ffn) = (sizes.hidden, sizes.ffn);
        let d_state = (working(Working::State), hidden);
        let d_h = (working(Working::Hidden), ffn);
        self.to_input(layer, piece::DOWN, d_state, d_h, sizes)?;
        let h = of(Activation::Hidden);
        let d_gate_up = working(Working::GateUp);
        let arguments = SwigluBackward {
            gate_up: of(Activation::GateUp),
            d_h: d_h.0,
            h,
            d_gate_up,
            tokens: sizes.tokens as u32,
            ffn: ffn as u32,
        };
        swiglu_backward(&*self.gpu, Stream::Compute, &arguments)?;
        self.to_weights(layer, piece::DOWN, d_state, (h, ffn), sizes)?;

        let middle = of(Activation::Middle);
        let inverse = of(Activation::FfnInverse);
        let w = tensor(layer.unit, layer.weights, piece::FFN_NORM, 2);
        let normed = of(Activation::FfnNormed);
        if plan.work.recompute == Recompute::NormSwiglu {
            self.norm_again(middle, w, inverse, normed, sizes)?;
        }
        let d_wide = (d_gate_up, 2 * ffn);
        self.to_weights(layer, piece::GATE_UP, d_wide, (normed, hidden), sizes)?;
        let d_normed = working(Working::Normed);
        self.to_input(layer, piece::GATE_UP, d_wide, (d_normed, hidden), sizes)?;
        self.norm_back(layer, piece::FFN_NORM, (middle, w, inverse), sizes)
    }

    fn attention_backward(&mut self, layer: &Layer<'_>, sizes: Sizes) -> Result<(), GpuError> {
        let shape = self.shape.clone();
        let plan = &shape.plan;
        let of = |activation| self.at(plan.activation(activation, layer.number));
        let working = |part| self.at(plan.working(part));
        let hidden = sizes.hidden;
        let d_state = (working(Working::State), hidden);
        let attended = of(Activation::Attended);
        let d_attended = working(Working::Normed);
        self.to_weights(layer, piece::OUTPUT, d_state, (attended, hidden), sizes)?;
        self.to_input(layer, piece::OUTPUT, d_state, (d_attended, hidden), sizes)?;
        let d_qkv = working(Working::Qkv);
        let (shape_of, dots) = (self.attention(sizes), working(Working::Dots));
        let arrays = AttendDots { shape: shape_of, out: attended, d_out: d_attended, dots };
        attend_dots(&*self.gpu, Stream::Compute, &arrays)?;
        let arrays = AttendBackward {
            shape: shape_of,
            qkv: of(Activation::Qkv),
            starts: self.tokens(2),
            d_out: d_attended,
            log_sums: of(Activation::LogSums),
            dots,
            d_qkv,
        };
        attend_backward_keys(&*self.gpu, Stream::Compute, &arrays)?;
        attend_backward_queries(&*self.gpu, Stream::Compute, &arrays)?;
        self.turn(d_qkv, Turn::Back, sizes)?;

        let state = self.state(layer.number);
        let inverse = of(Activation::AttentionInverse);
        let w = tensor(layer.unit, layer.weights, piece::ATTENTION_NORM, 2);
        let normed = of(Activation::AttentionNormed);
        if plan.work.recompute == Recompute::NormSwiglu {
            self.norm_again(state, w, inverse, normed, sizes)?;
        }
        self.to_weights(layer, piece::QKV, (d_qkv, sizes.qkv), (normed, hidden), sizes)?;
        let d_normed = (working(Working::Normed), hidden);
        self.to_input(layer, piece::QKV, (d_qkv, sizes.qkv), d_normed, sizes)?;
        self.norm_back(layer, piece::ATTENTION_NORM, (state, w, inverse), sizes)
    }

    /// dx (tokens, inputs) = dy (tokens, outputs) · W.
    fn to_input(
        &self,
        layer: &Layer<'_>,
        pieces: std::ops::Range<usize>,
        dy: (Address, u64),
        dx: (Address, u64),
        sizes: Sizes,
    ) -> Result<(), GpuError> {
        for (index, block) in blocks(layer.unit, pieces).into_iter().enumerate() {
            let dy = (dy.0.plus(block.row * 2), dy.1);
            let w = (layer.weights.plus(block.values * 2), dx.1);
            let size = (sizes.tokens, dx.1, block.rows);
            let beta = if index > 0 { 1.0 } else { 0.0 };
            self.multiply(ProductForm::Nn, size, dy, w, dx, ProductResult::Bf16, beta)?;
        }
        Ok(())
    }

    /// dW (outputs, inputs) = dyᵀ · x, in f32.
    fn to_weights(
        &self,
        layer: &Layer<'_>,
        pieces: std::ops::Range<usize>,
        dy: (Address, u64),
        x: (Address, u64),
        sizes: Sizes,
    ) -> Result<(), GpuError> {
        let beta = if layer.add { 1.0 } else { 0.0 };
        for block in blocks(layer.unit, pieces) {
            let dy = (dy.0.plus(block.row * 2), dy.1);
            let dw = (layer.gradient.plus(block.values * 4), x.1);
            let size = (block.rows, x.1, sizes.tokens);
            self.multiply(ProductForm::Tn, size, dy, x, dw, ProductResult::F32, beta)?;
        }
        Ok(())
    }

    fn norm_again(
        &self,
        x: Address,
        w: Address,
        inverse: Address,
        normed: Address,
        sizes: Sizes,
    ) -> Result<(), GpuError> {
        let (tokens, width) = (sizes.tokens as u32, sizes.hidden as u32);
        norm_again(&*self.gpu, Stream::Compute, &NormAgain { x, w, inverse, normed, tokens, width })
    }

    /// From the gradient of a norm's output to that of the stream, to which it is added, and of the norm.
    fn norm_back(
        &self,
        layer: &Layer<'_>,
        piece: usize,
        (x, w, inverse): (Address, Address, Address),
        sizes: Sizes,
    ) -> Result<(), GpuError> {
        let plan = &self.shape.plan;
        let parts = self.at(plan.working(Working::NormParts));
        let (tokens, width) = (sizes.tokens as u32, sizes.hidden as u32);
        let arguments = NormBackward {
            d_normed: self.at(plan.working(Working::Normed)),
            x,
            w,
            inverse,
            d_x: self.at(plan.working(Working::State)),
            parts,
            tokens,
            width,
            add: true,
        };
        norm_backward(&*self.gpu, Stream::Compute, &arguments)?;
        let gradient = tensor(layer.unit, layer.gradient, piece, 4);
        if !layer.add {
            self.gpu.clear(Stream::Compute, gradient, sizes.hidden * 4)?;
        }
        let blocks = sizes.tokens.div_ceil(NORM_ROWS) as u32;
        let arguments = NormWeightGradient { parts, gradient, blocks, width };
        norm_weight_gradient(&*self.gpu, Stream::Compute, &arguments)
    }

    /// Adds the rows of the stream's gradient to the embedding's rows, each token's in the order of the positions.
    fn embedding_backward(
        &mut self,
        sizes: Sizes,
        batch: &MicroBatch,
        active: usize,
    ) -> Result<(), GpuError> {
        if self.shape.plan.end_parts > 0 {
            return self.send_ends_in_parts(UnitKind::Embedding, sizes, Some(batch), active);
        }
        let shape = self.shape.clone();
        let Some(unit) = shape.layout.units.first() else { return Ok(()) };
        let tied = shape.config.tied;
        let shared = tied || self.world() > 1;
        let gradient = match shared {
            true => self.region(Region::EndGradient),
            false => self.own_gradient(unit),
        };
        if shared && !tied {
            self.gpu.clear(Stream::Compute, gradient, unit.len * 4)?;
        }
        self.embedding_rows(batch, 0..sizes.vocab, gradient, sizes)?;
        if shared {
            self.send_ends(UnitKind::Embedding, active)?;
        }
        Ok(())
    }

    /// [`Rank::embedding_backward`] of the rows of some tokens, the first of which is at `to`.
    pub(super) fn embedding_rows(
        &self,
        batch: &MicroBatch,
        tokens: std::ops::Range<u64>,
        to: Address,
        sizes: Sizes,
    ) -> Result<(), GpuError> {
        let distinct = batch.distinct_in(tokens.clone());
        // The kernel counts rows from token 0; those before the first are not touched.
        let row_0 = to.0.wrapping_sub(tokens.start * sizes.hidden * 4);
        let arguments = EmbedGradient {
            order: self.tokens(3),
            firsts: self.tokens(4).plus(distinct.start * 4),
            ids: self.tokens(5).plus(distinct.start * 4),
            d_out: self.at(self.shape.plan.working(Working::State)),
            gradient: Address(row_0),
            distinct: (distinct.end - distinct.start) as u32,
            width: sizes.hidden as u32,
        };
        embed_gradient(&*self.gpu, Stream::Compute, &arguments)
    }
}
