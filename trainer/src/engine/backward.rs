//! The backward pass, from the gradient of what the last norm was given to that of every parameter.
//!
//! The stages are those of the forward pass: bands of rows before and after attention's heads. The
//! weights' gradients need all rows and come last in each layer.

use super::attention::attend_backward;
use super::output::{sum_norm_parts, NormBackward};
use super::Engine;
use crate::compute::matmul::{Matrix, Part, Right};
use crate::compute::ops;
use crate::compute::threads::Rows;
use crate::engine::plan::{BAND_ROWS, D_RESIDUALS};
use crate::model::config::{LayerPlaces, ModelConfig};

/// What the stages before and after attention's read and write.
struct Stage<'a> {
    config: &'a ModelConfig,
    /// The norm before SwiGLU and its output again.
    ffn_norm: NormBackward<'a>,
    ffn_normed: Rows<'a>,
    /// The norm before attention and its output again.
    attention_norm: NormBackward<'a>,
    attention_normed: Rows<'a>,
    gate_up: Rows<'a>,
    d_after: Rows<'a>,
    swiglu: Rows<'a>,
    d_gate_up: Rows<'a>,
    d_attended: Rows<'a>,
    d_qkv: Rows<'a>,
    cos: &'a [f32],
    sin: &'a [f32],
    /// (threads) of the rows of a band, F + D each.
    band: Rows<'a>,
}

impl Engine {
    /// From the gradient of what the last norm was given to that of every parameter.
    pub(super) fn backward(
        &mut self,
        parameters: &[f32],
        gradient: &mut [f32],
        tokens: usize,
        accumulate: bool,
    ) {
        for (turn, layer) in (0..self.config.layers).rev().enumerate() {
            self.backward_layer(parameters, gradient, layer, turn, tokens, accumulate);
        }

        // Embedding: where it is tied, the output matrix's gradient is already there.
        let hidden = self.config.hidden;
        let d_embedding = &mut gradient[self.arena.embedding.clone()];
        if !self.config.tied && !accumulate {
            d_embedding.fill(0.0);
        }
        let first = state(2 * self.config.layers) * self.plan.tokens * hidden;
        let rows = self.buffers.d_residual[first..].chunks_exact(hidden);
        for (row, token) in rows.zip(&self.buffers.inputs[..tokens]) {
            ops::add(&mut d_embedding[*token as usize * hidden..][..hidden], row);
        }
    }

    /// One layer, the one with `turn` others behind it.
    fn backward_layer(
        &mut self,
        parameters: &[f32],
        gradient: &mut [f32],
        layer: usize,
        turn: usize,
        tokens: usize,
        accumulate: bool,
    ) {
        let (config, threads, room) = (&self.config, &self.threads, self.plan.tokens);
        let (hidden, ffn, qkv_dim) = (config.hidden, config.ffn, config.qkv_dim());
        let places = &self.arena.layers[layer];
        let weight = |place: &std::ops::Range<usize>, outputs: usize, inputs: usize| {
            Matrix::backward(&parameters[place.clone()], outputs, inputs)
        };
        let (mut parts, [down, gate_up, output, qkv]) = self.multiplier.prepare([
            weight(&places.down, hidden, ffn),
            weight(&places.gate_up, 2 * ffn, hidden),
            weight(&places.output, hidden, hidden),
            weight(&places.qkv, qkv_dim, hidden),
        ]);
        let buffers = &mut self.buffers;
        let layer_of = |width: usize| layer * room * width..(layer + 1) * room * width;
        let bands = tokens.div_ceil(BAND_ROWS);
        let band_of = |band: usize| (band * BAND_ROWS, ((band + 1) * BAND_ROWS).min(tokens));

        let stage = stage(config, places, parameters, buffers, layer, turn, room);
        threads.for_each_on(bands, |thread, band| {
            // SAFETY: each thread has its own part and scratch, each band its rows of everything.
            unsafe {
                let (mut part, scratch) = (parts.part(thread), stage.band.get(thread, thread + 1));
                stage.feed_forward(&mut part, [&down, &gate_up, &output], scratch, band_of(band));
            }
        });
        let dw = &mut gradient[places.ffn_norm.clone()];
        sum_norm_parts(&buffers.d_norm_parts, tokens, dw, accumulate);

        attend_backward(
            threads,
            &parts,
            config,
            tokens / config.seq_len,
            &buffers.qkv[layer_of(qkv_dim)],
            &buffers.starts,
            &buffers.attended[layer_of(hidden)],
            &buffers.d_attended,
            &buffers.log_sums[layer_of(config.heads)],
            &mut buffers.d_qkv,
            [&mut buffers.scores, &mut buffers.keys],
        );

        let stage = self::stage(config, places, parameters, buffers, layer, turn, room);
        threads.for_each_on(bands, |thread, band| {
            // SAFETY: as above.
            unsafe {
                let (mut part, scratch) = (parts.part(thread), stage.band.get(thread, thread + 1));
                stage.before_attention(&mut part, &qkv, scratch, band_of(band));
            }
        });
        let dw = &mut gradient[places.attention_norm.clone()];
        sum_norm_parts(&buffers.d_norm_parts, tokens, dw, accumulate);

        let d_state = |index: usize| &buffers.d_residual[state(index) * room * hidden..];
        let (d_after, d_middle) = (d_state(2 * turn), d_state(2 * turn + 1));
        let attended = &buffers.attended[layer_of(hidden)];
        let products = [
            (&places.down, hidden, ffn, d_after, &buffers.swiglu[..]),
            (&places.gate_up, 2 * ffn, hidden, &buffers.d_gate_up[..], &buffers.normed[..]),
            (&places.output, hidden, hidden, d_middle, attended),
            (&places.qkv, qkv_dim, hidden, &buffers.d_qkv[..], &buffers.attention_normed[..]),
        ];
        for (place, outputs, inputs, dy, x) in products {
            let dw = &mut gradient[place.clone()];
            parts.weight_gradient((outputs, inputs, tokens), dw, dy, x, accumulate);
        }
    }
}

/// Where the gradient of the residual stream lies, `index` halves of layers before the last norm.
fn state(index: usize) -> usize {
    index % D_RESIDUALS
}

/// The stages of `layer`.
fn stage<'a>(
    config: &'a ModelConfig,
    places: &LayerPlaces,
    parameters: &'a [f32],
    buffers: &'a mut super::Buffers,
    layer: usize,
    turn: usize,
    room: usize,
) -> Stage<'a> {
    let (hidden, ffn) = (config.hidden, config.ffn);
    let residual = Rows::new(&mut buffers.residual, hidden);
    let inverse = Rows::new(&mut buffers.inverse, 1);
    let parts = Rows::new(&mut buffers.d_norm_parts, hidden);
    let d_residual = Rows::new(&mut buffers.d_residual, hidden);
    let d_state = |index: usize| d_residual.skip(state(index) * room);
    let norm = |w: &std::ops::Range<usize>, index: usize, dx: Rows<'a>| NormBackward {
        w: &parameters[w.clone()],
        x: residual.skip(index * room),
        inverse: inverse.skip(index * room),
        dx,
        parts,
    };
    Stage {
        config,
        ffn_norm: norm(&places.ffn_norm, 2 * layer + 1, d_state(2 * turn + 1)),
        ffn_normed: Rows::new(&mut buffers.normed, hidden),
        attention_norm: norm(&places.attention_norm, 2 * layer, d_state(2 * turn + 2)),
        attention_normed: Rows::new(&mut buffers.attention_normed, hidden),
        gate_up: Rows::new(&mut buffers.gate_up, 2 * ffn).skip(layer * room),
        d_after: d_state(2 * turn),
        swiglu: Rows::new(&mut buffers.swiglu, ffn),
        d_gate_up: Rows::new(&mut buffers.d_gate_up, 2 * ffn),
        d_attended: Rows::new(&mut buffers.d_attended, hidden),
        d_qkv: Rows::new(&mut buffers.d_qkv, config.qkv_dim()),
        cos: &buffers.cos,
        sin: &buffers.sin,
        band: Rows::new(&mut buffers.band, BAND_ROWS.min(room) * (hidden + ffn)),
    }
}

impl Stage<'_> {
    /// From the gradient after the layer to that of attention's output, through SwiGLU.
    ///
    /// # Safety
    /// Nobody else may touch these rows.
    unsafe fn feed_forward(
        &self,
        part: &mut Part<'_>,
        [down, gate_up, output]: [&Right<'_>; 3],
        scratch: &mut [f32],
        (first, end): (usize, usize),
    ) {
        let (rows, hidden, ffn) = (end - first, self.config.hidden, self.config.ffn);
        let (dh, d_normed) = scratch.split_at_mut(scratch.len() / (ffn + hidden) * ffn);
        let (dh, d_normed) = (&mut dh[..rows * ffn], &mut d_normed[..rows * hidden]);
        let norm = &self.ffn_norm;
        // SAFETY: by the caller's promise.
        unsafe {
            let d_after = self.d_after.get(first, end);
            part.rows(rows, dh, d_after, down, false);
            let (h, wide) = (self.swiglu.get(first, end), self.d_gate_up.get(first, end));
            ops::swiglu_backward(self.gate_up.get(first, end), dh, h, wide, ffn);
            part.rows(rows, d_normed, wide, gate_up, false);
            let (x, inverse) = (norm.x.get(first, end), norm.inverse.get(first, end));
            ops::rms_norm_again(x, norm.w, inverse, self.ffn_normed.get(first, end));
            norm.dx.get(first, end).copy_from_slice(d_after);
            norm.run(d_normed, true, (first, end));
            let (d_middle, d_attended) = (norm.dx.get(first, end), self.d_attended.get(first, end));
            part.rows(rows, d_attended, d_middle, output, false);
        }
    }

    /// From the gradient of rotated q|k|v to that before the layer.
    ///
    /// # Safety
    /// Nobody else may touch these rows.
    unsafe fn before_attention(
        &self,
        part: &mut Part<'_>,
        qkv: &Right<'_>,
        scratch: &mut [f32],
        (first, end): (usize, usize),
    ) {
        let config = self.config;
        let (width, heads) = (config.qkv_dim(), config.heads + config.kv_heads);
        let half = config.head_dim() / 2;
        let d_normed = &mut scratch[..(end - first) * config.hidden];
        let norm = &self.attention_norm;
        // SAFETY: by the caller's promise.
        unsafe {
            let d_qkv = self.d_qkv.get(first, end);
            ops::rope(d_qkv, width, heads, first, self.cos, self.sin, half, -1.0);
            part.rows(end - first, d_normed, d_qkv, qkv, false);
            let (x, inverse) = (norm.x.get(first, end), norm.inverse.get(first, end));
            ops::rms_norm_again(x, norm.w, inverse, self.attention_normed.get(first, end));
            let d_middle = self.ffn_norm.dx.get(first, end);
            norm.dx.get(first, end).copy_from_slice(d_middle);
            norm.run(d_normed, true, (first, end));
        }
    }
}
