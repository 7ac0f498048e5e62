//! Muon: momentum of which each matrix is made nearly orthonormal before it is taken as a step.
//!
//! As Jordan et al. 2024, scaled and with decay as Liu et al. 2025 (arXiv 2502.16982) and PyTorch's
//! `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`. For a matrix θ (rows, columns) with gradient g:
//!
//! ```text
//! m ← β m + (1 − β) g
//! u = β m + (1 − β) g                            Nesterov
//! o = orthogonalise(u / max(‖u‖, 1e-7))          newton_schulz
//! θ ← θ (1 − rate · decay) − rate · 0.2 √max(rows, columns) · o
//! ```
//!
//! So a step moves a value by about 0.2 · rate in the root mean square, as AdamW's steps do, and AdamW's rates and decay
//! fit. Each tensor is a matrix by itself: q, k, v, gate and up, which the engine multiplies together, are not
//! mixed. Embedding and output matrix are AdamW's, like norms.
//!
//! A thread takes whole matrices, so that bits do not depend on the number of threads.

use serde::{Deserialize, Serialize};

use super::newton_schulz::{orthogonalise, Buffers, Needs};
use super::packing::{Packed, Packing};
use crate::compute::aligned::Aligned;
use crate::compute::matmul::{MatrixUnit, Multiplier};
use crate::compute::ops::{self, multiversion, BLOCK};
use crate::compute::threads::{Shared, Threads};
use crate::compute::Compute;
use crate::model::config::Arena;

/// Least norm that a matrix is divided by.
const EPSILON: f32 = 1e-7;

/// Root mean square of a step's values at rate 1: about that of AdamW's steps.
pub(super) const STEP_RMS: f32 = 0.2;

/// What Muon is set to.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MuonSettings {
    /// Decay β of the average of gradients.
    pub momentum: f32,
    /// Weight decay, multiplied by the rate.
    pub decay: f32,
    /// Its learning rate, as a multiple of AdamW's of the same step.
    pub relative_rate: f32,
}

impl Default for MuonSettings {
    fn default() -> Self {
        Self { momentum: 0.95, decay: 0.1, relative_rate: 1.0 }
    }
}

/// The momentum of the layers' matrices, and memory to make steps of it.
pub(super) struct Muon {
    settings: MuonSettings,
    packing: Packing,
    momentum: Vec<f32>,
    multiplier: Multiplier,
    needs: Needs,
    /// [`Buffers`] of each thread.
    buffers: Aligned,
}

/// Bytes that Muon works with beside its momentum: on each thread what the largest matrix needs.
pub fn work_bytes(arena: &Arena, threads: usize, unit: MatrixUnit) -> u64 {
    let values = needs(arena, unit).len() + unit.scratch();
    (threads * values) as u64 * 4
}

/// What suffices for any of the layers' matrices.
fn needs(arena: &Arena, unit: MatrixUnit) -> Needs {
    let shapes = arena.layer_matrices().map(|(_, placed)| placed.info.shape.as_slice());
    shapes.fold(Needs::default(), |needs, shape| match *shape {
        [rows, columns] => needs.max(Needs::of(rows, columns, unit)),
        _ => needs,
    })
}

impl Muon {
    pub(super) fn new(settings: MuonSettings, arena: &Arena, compute: &Compute) -> Self {
        let packing = Packing::new(arena, |tensor| arena.is_layer_matrix(tensor));
        let needs = needs(arena, compute.unit);
        let threads = compute.threads.clone();
        Self {
            settings,
            momentum: vec![0.0; packing.len()],
            packing,
            buffers: Aligned::zeros(threads.count() * needs.len()),
            multiplier: Multiplier::new(threads, compute.unit, 0),
            needs,
        }
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        let values = self.momentum.len() + self.buffers.len();
        values as u64 * 4 + self.multiplier.bytes()
    }

    /// One step of all matrices, AdamW's rate being `rate`.
    pub(super) fn step(
        &mut self,
        threads: &Threads,
        parameters: &mut [f32],
        gradient: &[f32],
        rate: f32,
        gradient_scale: f32,
    ) {
        let (settings, matrices, needs) = (self.settings, self.packing.tensors(), self.needs);
        let rate = rate * settings.relative_rate;
        let parts = self.multiplier.parts();
        let (parameters, momentum) = (Shared::new(parameters), Shared::new(&mut self.momentum));
        let buffers = Shared::new(&mut self.buffers);
        threads.for_each_on(matrices.len(), |thread, index| {
            let Packed { parameters: values, averages, shape, .. } = &matrices[index];
            let &[rows, columns] = shape.as_slice() else { return };
            let len = needs.len();
            // SAFETY: matrices are disjoint, and so is what each thread works with.
            let (parameters, momentum, buffers, mut part) = unsafe {
                (
                    parameters.part(values.start, values.end),
                    momentum.part(averages.start, averages.end),
                    buffers.part(thread * len, (thread + 1) * len),
                    parts.part(thread),
                )
            };
            let mut buffers = Buffers::cut(needs, buffers);
            let matrix = &mut buffers.matrix[..parameters.len()];
            let gradient = &gradient[values.clone()];
            blend(momentum, gradient, matrix, settings.momentum, gradient_scale);
            scale(matrix, 1.0 / norm(matrix).max(EPSILON));
            orthogonalise(&mut part, &mut buffers, (rows, columns));
            let (rate, keep) = factors(rate, settings.decay, rows.max(columns));
            descend(parameters, &buffers.matrix[..parameters.len()], keep, rate);
        });
    }

    /// The momentum of a tensor, if Muon trains it.
    pub(super) fn momentum(&mut self, tensor: usize) -> Option<&mut [f32]> {
        let range = self.packing.averages(tensor)?;
        Some(&mut self.momentum[range])
    }

    pub(super) fn copy_from(&mut self, other: &Self) {
        self.momentum.copy_from_slice(&other.momentum);
    }

    pub(super) fn reset(&mut self) {
        self.momentum.fill(0.0);
    }
}

/// What [`descend`] takes for a matrix whose longer side is `longer`: the factor of its direction, and what decay leaves of a
/// parameter.
pub(crate) fn factors(rate: f32, decay: f32, longer: usize) -> (f32, f32) {
    (rate * STEP_RMS * (longer as f32).sqrt(), 1.0 - rate * decay)
}

/// Squares are summed in `f32` within a block, in `f64` over the blocks.
fn norm(matrix: &[f32]) -> f32 {
    let squares = matrix.chunks(BLOCK).map(|block| f64::from(ops::sum_of_squares(block)));
    squares.sum::<f64>().sqrt() as f32
}

multiversion! {
/// m ← m + (1 − β)(g − m), u ← g + β (m − g), with g = scale · `gradient`.
pub fn blend(momentum: &mut [f32], gradient: &[f32], update: &mut [f32], beta: f32, scale: f32) {
    let len = momentum.len();
    let (gradient, update) = (&gradient[..len], &mut update[..len]);
    for i in 0..len {
        let g = gradient[i] * scale;
        momentum[i] += (1.0 - beta) * (g - momentum[i]);
        update[i] = g + beta * (momentum[i] - g);
    }
}
}

multiversion! {
/// x ← factor · x.
pub fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}
}

multiversion! {
/// θ ← keep · θ − rate · step.
pub fn descend(parameters: &mut [f32], step: &[f32], keep: f32, rate: f32) {
    for (parameter, step) in parameters.iter_mut().zip(step) {
        *parameter = keep * *parameter - rate * step;
    }
}
}
