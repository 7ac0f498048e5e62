//! The output matrix and cross entropy, with their backward pass.

use super::Engine;
use crate::compute::matmul::{Matrix, Part, Right};
use crate::compute::ops;
use crate::compute::threads::Rows;
use crate::engine::plan::{BAND_ROWS, NORM_ROWS};

impl Engine {
    /// The sum of the tokens' losses, from the last norm's output. With a gradient (and whether to add to
    /// it), also those of the output matrix, of the last norm and of what it was given, times `scale`.
    pub(super) fn cross_entropy(
        &mut self,
        parameters: &[f32],
        gradient: Option<(&mut [f32], bool)>,
        tokens: usize,
        scale: f32,
    ) -> f64 {
        let (vocab, hidden, ffn) = (self.config.vocab, self.config.hidden, self.config.ffn);
        let (layers, room) = (self.config.layers, self.plan.tokens);
        let buffers = &mut self.buffers;
        let head = &parameters[self.arena.head.clone()];
        let back = match &gradient {
            Some(_) => Matrix::backward(head, vocab, hidden),
            None => Matrix::backward(&[], 0, 0),
        };
        let (mut parts, [head, back]) =
            self.multiplier.prepare([Matrix::forward(head, vocab, hidden), back]);
        let band = Rows::new(&mut buffers.band, BAND_ROWS.min(room) * (hidden + ffn));
        let mut gradient = gradient;
        let mut from = 0;
        while from < tokens {
            let rows = self.plan.logit_rows.min(tokens - from);
            let chunk = Chunk {
                normed: Rows::new(&mut buffers.normed, hidden).skip(from),
                logits: Rows::new(&mut buffers.logits, vocab),
                losses: Rows::new(&mut buffers.losses, 1).skip(from),
                targets: &buffers.targets[from..from + rows],
                vocab,
                scale,
            };
            let training = gradient.is_some();
            let norm = training.then(|| NormBackward {
                w: &parameters[self.arena.final_norm.clone()],
                x: Rows::new(&mut buffers.residual, hidden).skip(2 * layers * room + from),
                inverse: Rows::new(&mut buffers.inverse, 1).skip(2 * layers * room + from),
                dx: Rows::new(&mut buffers.d_residual, hidden).skip(from),
                parts: Rows::new(&mut buffers.d_norm_parts, hidden).skip(from / NORM_ROWS),
            });
            self.threads.for_each_on(rows.div_ceil(BAND_ROWS), |thread, index| {
                let rows = (index * BAND_ROWS, ((index + 1) * BAND_ROWS).min(rows));
                // SAFETY: each thread has its own, and each band its rows of everything.
                unsafe {
                    let mut part = parts.part(thread);
                    chunk.losses(&mut part, &head, rows);
                    if let Some(norm) = &norm {
                        let d_normed =
                            &mut band.get(thread, thread + 1)[..(rows.1 - rows.0) * hidden];
                        let d_logits = chunk.logits.get(rows.0, rows.1);
                        part.rows(rows.1 - rows.0, d_normed, d_logits, &back, false);
                        norm.run(d_normed, false, rows);
                    }
                }
            });
            if let Some((gradient, add)) = &mut gradient {
                let d_head = &mut gradient[self.arena.head.clone()];
                let normed = &buffers.normed[from * hidden..(from + rows) * hidden];
                let shape = (vocab, hidden, rows);
                parts.weight_gradient(shape, d_head, &buffers.logits, normed, *add || from > 0);
            }
            from += rows;
        }
        if let Some((gradient, add)) = gradient {
            let dw = &mut gradient[self.arena.final_norm.clone()];
            sum_norm_parts(&buffers.d_norm_parts, tokens, dw, add);
        }
        buffers.losses[..tokens].iter().map(|loss| f64::from(*loss)).sum()
    }
}

/// The rows whose logits are held at once.
struct Chunk<'a> {
    normed: Rows<'a>,
    logits: Rows<'a>,
    losses: Rows<'a>,
    targets: &'a [u32],
    vocab: usize,
    scale: f32,
}

impl Chunk<'_> {
    /// The losses of some rows; the logits become their gradient.
    ///
    /// # Safety
    /// Nobody else may touch these rows.
    unsafe fn losses(&self, part: &mut Part<'_>, head: &Right<'_>, (first, end): (usize, usize)) {
        // SAFETY: by the caller's promise.
        unsafe {
            let logits = self.logits.get(first, end);
            part.rows(end - first, logits, self.normed.get(first, end), head, false);
            let losses = self.losses.get(first, end);
            let targets = &self.targets[first..end];
            ops::cross_entropy(logits, targets, self.vocab, self.scale, losses);
        }
    }
}

/// RMSNorm backward on bands of rows; a norm's own gradient is summed over blocks of rows first and
/// then over the blocks in order, so that it does not depend on the number of threads.
pub(super) struct NormBackward<'a> {
    pub(super) w: &'a [f32],
    pub(super) x: Rows<'a>,
    pub(super) inverse: Rows<'a>,
    pub(super) dx: Rows<'a>,
    /// (blocks of rows, width).
    pub(super) parts: Rows<'a>,
}

impl NormBackward<'_> {
    /// Adds to `dx` (or, if `!add`, writes) and writes the blocks' parts. `first` is a multiple of
    /// [`NORM_ROWS`].
    ///
    /// # Safety
    /// Nobody else may touch these rows.
    pub(super) unsafe fn run(&self, dy: &[f32], add: bool, (first, end): (usize, usize)) {
        let width = self.w.len();
        for (index, dy) in dy.chunks(NORM_ROWS * width).enumerate() {
            let first = first + index * NORM_ROWS;
            let end = end.min(first + NORM_ROWS);
            let block = first / NORM_ROWS;
            // SAFETY: by the caller's promise.
            unsafe {
                let dw = self.parts.get(block, block + 1);
                dw.fill(0.0);
                let (x, dx) = (self.x.get(first, end), self.dx.get(first, end));
                let inverse = self.inverse.get(first, end);
                ops::rms_norm_backward(x, self.w, inverse, dy, dx, dw, add);
            }
        }
    }
}

/// Adds the blocks' parts of a norm's gradient to it in order (or, if `!add`, replaces it).
pub(super) fn sum_norm_parts(parts: &[f32], tokens: usize, dw: &mut [f32], add: bool) {
    if !add {
        dw.fill(0.0);
    }
    let blocks = tokens.div_ceil(NORM_ROWS);
    for part in parts.chunks_exact(dw.len()).take(blocks) {
        ops::add(dw, part);
    }
}
