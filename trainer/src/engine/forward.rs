//! The forward pass, from the tokens to the last norm's output.
//!
//! Attention needs whole samples; everything else is done row by row. So a layer is two stages: attention,
//! head by head, and what lies between one layer's attention and the next one's, on bands of rows that stay
//! in a core's cache from the one to the other.

use super::attention::attend;
use super::Engine;
use crate::compute::matmul::{Matrix, Part, Right};
use crate::compute::ops;
use crate::compute::threads::Rows;
use crate::engine::plan::BAND_ROWS;
use crate::model::config::{Arena, LayerPlaces, ModelConfig};

/// What the stages between attention and attention read and write.
struct Stage<'a> {
    config: &'a ModelConfig,
    arena: &'a Arena,
    parameters: &'a [f32],
    inputs: &'a [u32],
    cos: &'a [f32],
    sin: &'a [f32],
    /// The stream before the layer that ends, between its halves, and after it.
    before: Rows<'a>,
    middle: Rows<'a>,
    after: Rows<'a>,
    /// The inverses of the norms before SwiGLU and of the next norm.
    middle_inverse: Rows<'a>,
    next_inverse: Rows<'a>,
    attended: Rows<'a>,
    gate_up: Rows<'a>,
    qkv: Rows<'a>,
    normed: Rows<'a>,
}

impl Engine {
    /// From the loaded tokens to the last norm's output.
    pub(super) fn forward(&mut self, parameters: &[f32], tokens: usize) {
        let layers = self.config.layers;
        for layer in 0..=layers {
            self.between_attentions(parameters, layer, tokens);
            if layer == layers {
                break;
            }
            let slot = layer % self.plan.layers_kept;
            let (config, buffers) = (&self.config, &mut self.buffers);
            let room = self.plan.tokens;
            let layer_of = |width: usize| slot * room * width..(slot + 1) * room * width;
            attend(
                &self.threads,
                &self.multiplier.parts(),
                config,
                tokens / config.seq_len,
                &buffers.qkv[layer_of(config.qkv_dim())],
                &buffers.starts,
                &mut buffers.attended[layer_of(config.hidden)],
                &mut buffers.log_sums[layer_of(config.heads)],
                [&mut buffers.scores, &mut buffers.keys],
            );
        }
    }

    /// The end of the layer before `layer` (or the embedding, if there is none) and the start of `layer`
    /// (or the last norm).
    fn between_attentions(&mut self, parameters: &[f32], layer: usize, tokens: usize) {
        let (config, arena, plan) = (&self.config, &self.arena, &self.plan);
        let (hidden, ffn, room) = (config.hidden, config.ffn, plan.tokens);
        let buffers = &mut self.buffers;
        let slot = |layer: usize| layer % plan.layers_kept * room;
        let ending = layer.checked_sub(1);
        let ended = ending.unwrap_or(0);
        let residual = Rows::new(&mut buffers.residual, hidden);
        let state = |index: usize| residual.skip(index % plan.residuals_kept * room);
        let inverse = Rows::new(&mut buffers.inverse, 1);
        let next_norm = match layer < config.layers {
            true => layer % plan.layers_kept * 2,
            false => plan.layers_kept * 2,
        };
        let stage = Stage {
            config,
            arena,
            parameters,
            inputs: &buffers.inputs,
            cos: &buffers.cos,
            sin: &buffers.sin,
            before: state(2 * ended),
            middle: state(2 * ended + 1),
            after: state(2 * layer),
            middle_inverse: inverse.skip((ended % plan.layers_kept * 2 + 1) * room),
            next_inverse: inverse.skip(next_norm * room),
            attended: Rows::new(&mut buffers.attended, hidden).skip(slot(ended)),
            gate_up: Rows::new(&mut buffers.gate_up, 2 * ffn).skip(slot(ended)),
            qkv: Rows::new(&mut buffers.qkv, config.qkv_dim()).skip(slot(layer)),
            normed: Rows::new(&mut buffers.normed, hidden),
        };
        let none = Matrix::forward(&[], 0, 0);
        let weight = |place: &std::ops::Range<usize>, outputs: usize, inputs: usize| {
            Matrix::forward(&parameters[place.clone()], outputs, inputs)
        };
        let ending = ending.map(|layer| &arena.layers[layer]);
        let starting = arena.layers.get(layer);
        let (parts, [output, gate_up, down, qkv]) = self.multiplier.prepare([
            ending.map_or(none, |places| weight(&places.output, hidden, hidden)),
            ending.map_or(none, |places| weight(&places.gate_up, 2 * ffn, hidden)),
            ending.map_or(none, |places| weight(&places.down, hidden, ffn)),
            starting.map_or(none, |places| weight(&places.qkv, config.qkv_dim(), hidden)),
        ]);
        let scratch = Rows::new(&mut buffers.band, BAND_ROWS.min(room) * (hidden + ffn));
        self.threads.for_each_on(tokens.div_ceil(BAND_ROWS), |thread, band| {
            let rows = (band * BAND_ROWS, ((band + 1) * BAND_ROWS).min(tokens));
            // SAFETY: each thread has its own, and each band its rows of everything.
            unsafe {
                let (mut part, scratch) = (parts.part(thread), scratch.get(thread, thread + 1));
                match ending {
                    None => stage.embed(rows),
                    Some(places) => {
                        stage.end(places, &mut part, [&output, &gate_up, &down], scratch, rows);
                    }
                }
                match starting {
                    None => stage.finish(rows),
                    Some(places) => stage.start(places, &mut part, &qkv, scratch, rows),
                }
            }
        });
    }

    /// All logits, in memory beyond the plan.
    pub(super) fn all_logits(&mut self, parameters: &[f32], tokens: usize) {
        let (vocab, hidden) = (self.config.vocab, self.config.hidden);
        if self.all_logits.is_empty() {
            self.all_logits = crate::compute::aligned::Aligned::zeros(self.plan.tokens * vocab);
        }
        let head = &parameters[self.arena.head.clone()];
        let (parts, [head]) = self.multiplier.prepare([Matrix::forward(head, vocab, hidden)]);
        let logits = Rows::new(&mut self.all_logits, vocab);
        let normed = &self.buffers.normed;
        self.threads.for_each_on(tokens.div_ceil(BAND_ROWS), |thread, band| {
            let (first, end) = (band * BAND_ROWS, ((band + 1) * BAND_ROWS).min(tokens));
            // SAFETY: each thread has its own part, each band its rows.
            let (mut part, logits) = unsafe { (parts.part(thread), logits.get(first, end)) };
            let normed = &normed[first * hidden..end * hidden];
            part.rows(end - first, logits, normed, &head, false);
        });
    }
}

impl Stage<'_> {
    /// The tokens' rows of the embedding.
    ///
    /// # Safety
    /// Nobody else may touch these rows, here and below.
    unsafe fn embed(&self, (first, end): (usize, usize)) {
        let hidden = self.config.hidden;
        let embedding = &self.parameters[self.arena.embedding.clone()];
        // SAFETY: by the caller's promise.
        let x = unsafe { self.after.get(first, end) };
        for (row, token) in x.chunks_exact_mut(hidden).zip(&self.inputs[first..end]) {
            row.copy_from_slice(&embedding[*token as usize * hidden..][..hidden]);
        }
    }

    /// x ← x + attended · Woᵀ, then x ← x + swiglu(norm(x) · Wgate|upᵀ) · Wdownᵀ.
    ///
    /// # Safety
    /// As [`Stage::embed`].
    unsafe fn end(
        &self,
        places: &LayerPlaces,
        part: &mut Part<'_>,
        [output, gate_up, down]: [&Right<'_>; 3],
        scratch: &mut [f32],
        (first, end): (usize, usize),
    ) {
        let (rows, ffn) = (end - first, self.config.ffn);
        let (h, normed) = scratch.split_at_mut(scratch.len() / (ffn + self.config.hidden) * ffn);
        let (h, normed) = (&mut h[..rows * ffn], &mut normed[..rows * self.config.hidden]);
        // SAFETY: by the caller's promise; in evaluation `before` and `after` are the same rows, of
        // which the first is used no more when the second is taken.
        unsafe {
            let middle = self.middle.get(first, end);
            middle.copy_from_slice(self.before.get(first, end));
            part.rows(rows, middle, self.attended.get(first, end), output, true);
            let w = &self.parameters[places.ffn_norm.clone()];
            let inverse = self.middle_inverse.get(first, end);
            ops::rms_norm(middle, w, self.config.norm_epsilon, normed, inverse);
            let wide = self.gate_up.get(first, end);
            part.rows(rows, wide, normed, gate_up, false);
            ops::swiglu(wide, h, ffn);
            let after = self.after.get(first, end);
            after.copy_from_slice(middle);
            part.rows(rows, after, h, down, true);
        }
    }

    /// q|k|v ← rotated norm(x) · Wqkvᵀ.
    ///
    /// # Safety
    /// As [`Stage::embed`].
    unsafe fn start(
        &self,
        places: &LayerPlaces,
        part: &mut Part<'_>,
        right: &Right<'_>,
        scratch: &mut [f32],
        (first, end): (usize, usize),
    ) {
        let config = self.config;
        let normed = &mut scratch[..(end - first) * config.hidden];
        let w = &self.parameters[places.attention_norm.clone()];
        let (width, heads) = (config.qkv_dim(), config.heads + config.kv_heads);
        let half = config.head_dim() / 2;
        // SAFETY: by the caller's promise.
        unsafe {
            let inverse = self.next_inverse.get(first, end);
            ops::rms_norm(self.after.get(first, end), w, config.norm_epsilon, normed, inverse);
            let qkv = self.qkv.get(first, end);
            part.rows(end - first, qkv, normed, right, false);
            ops::rope(qkv, width, heads, first, self.cos, self.sin, half, 1.0);
        }
    }

    /// The last norm.
    ///
    /// # Safety
    /// As [`Stage::embed`].
    unsafe fn finish(&self, (first, end): (usize, usize)) {
        let w = &self.parameters[self.arena.final_norm.clone()];
        // SAFETY: by the caller's promise.
        unsafe {
            let (x, y) = (self.after.get(first, end), self.normed.get(first, end));
            let inverse = self.next_inverse.get(first, end);
            ops::rms_norm(x, w, self.config.norm_epsilon, y, inverse);
        }
    }
}
