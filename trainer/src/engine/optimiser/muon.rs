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

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::newton_schulz::{orthogonalise, Buffers, Needs};
use super::BLOCK;
use crate::compute::aligned::Aligned;
use crate::compute::matmul::{MatrixUnit, Multiplier};
use crate::compute::ops::{self, multiversion};
use crate::compute::threads::{Shared, Threads};
use crate::compute::Compute;
use crate::model::config::Arena;

/// Least norm that a matrix is divided by.
const EPSILON: f32 = 1e-7;

/// Root mean square of a step's values at rate 1: about that of AdamW's steps.
const STEP_RMS: f32 = 0.2;

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

/// A matrix that Muon trains.
struct Place {
    /// Its parameters in the arena.
    parameters: Range<usize>,
    /// Its momentum, among those of all matrices.
    momentum: Range<usize>,
    rows: usize,
    columns: usize,
}

/// The momentum of the layers' matrices, and memory to make steps of it.
pub(super) struct Muon {
    settings: MuonSettings,
    places: Vec<Place>,
    /// Which place a tensor of the arena has.
    place_of: Vec<Option<usize>>,
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
        let mut places: Vec<Place> = Vec::new();
        let mut place_of = vec![None; arena.tensors.len()];
        let needs = needs(arena, compute.unit);
        for (tensor, placed) in arena.layer_matrices() {
            let &[rows, columns] = placed.info.shape.as_slice() else { continue };
            let start = places.last().map_or(0, |last| last.momentum.end);
            place_of[tensor] = Some(places.len());
            places.push(Place {
                parameters: placed.range.clone(),
                momentum: start..start + placed.range.len(),
                rows,
                columns,
            });
        }
        let len = places.last().map_or(0, |last| last.momentum.end);
        let threads = compute.threads.clone();
        Self {
            settings,
            places,
            place_of,
            momentum: vec![0.0; len],
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
        let (settings, places, needs) = (self.settings, &self.places, self.needs);
        let rate = rate * settings.relative_rate;
        let keep = 1.0 - rate * settings.decay;
        let parts = self.multiplier.parts();
        let (parameters, momentum) = (Shared::new(parameters), Shared::new(&mut self.momentum));
        let buffers = Shared::new(&mut self.buffers);
        threads.for_each_on(places.len(), |thread, index| {
            let place = &places[index];
            let (values, averages) = (&place.parameters, &place.momentum);
            let len = needs.len();
            // SAFETY: places are disjoint, and so is what each thread works with.
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
            orthogonalise(&mut part, &mut buffers, (place.rows, place.columns));
            let longer = place.rows.max(place.columns) as f32;
            let matrix = &buffers.matrix[..parameters.len()];
            descend(parameters, matrix, keep, rate * STEP_RMS * longer.sqrt());
        });
    }

    /// The momentum of a tensor, if Muon trains it.
    pub(super) fn momentum(&mut self, tensor: usize) -> Option<&mut [f32]> {
        let place = self.place_of.get(tensor).copied().flatten()?;
        Some(&mut self.momentum[self.places[place].momentum.clone()])
    }

    pub(super) fn copy_from(&mut self, other: &Self) {
        self.momentum.copy_from_slice(&other.momentum);
    }

    pub(super) fn reset(&mut self) {
        self.momentum.fill(0.0);
    }
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::{AdamWSettings, Optimiser};
    use super::*;
    use crate::model::config::{ModelConfig, Placed, TensorInfo};

    /// An arena of nothing but matrices of a layer.
    fn arena(shapes: &[(usize, usize)]) -> Arena {
        let mut end = 0;
        let place = |&(rows, columns): &(usize, usize)| {
            let info = TensorInfo { name: format!("at {end}"), shape: vec![rows, columns] };
            let start = end;
            end += rows * columns;
            Placed { info, range: start..end }
        };
        let tensors: Vec<Placed> = shapes.iter().map(place).collect();
        Arena {
            canonical: (0..tensors.len()).collect(),
            tensors,
            embedding: 0..0,
            layers: Vec::new(),
            final_norm: 0..0,
            head: 0..0,
            len: end,
        }
    }

    fn optimiser(settings: MuonSettings, arena: &Arena, compute: &Compute) -> Optimiser {
        Optimiser::new(AdamWSettings::default(), Some(settings), arena, compute)
    }

    fn single() -> Compute {
        Compute::new(Threads::single())
    }

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt()
    }

    /// Numbers between −1 and 1 without any order.
    fn noise(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    #[derive(Deserialize)]
    struct Fixture {
        rate: f32,
        momentum: f32,
        decay: f32,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        rows: usize,
        columns: usize,
        start: Vec<f32>,
        gradients: Vec<Vec<f32>>,
        f32: Vec<f32>,
        bf16: Vec<f32>,
    }

    #[test]
    fn muon_steps_as_that_of_pytorch() {
        let fixture = include_str!("../../../tests/fixtures/muon.json");
        let fixture: Fixture = serde_json::from_str(fixture).unwrap();
        let Fixture { rate, momentum, decay, cases } = fixture;
        for case in cases {
            let arena = arena(&[(case.rows, case.columns)]);
            let settings = MuonSettings { momentum, decay, relative_rate: 0.5 };
            let mut muon = optimiser(settings, &arena, &single());
            let mut parameters = case.start.clone();
            for gradient in &case.gradients {
                muon.step(&mut parameters, gradient, 2.0 * rate, 1.0);
            }
            let moved = distance(&case.start, &case.f32);
            let (exact, rounded) =
                (distance(&parameters, &case.f32), distance(&parameters, &case.bf16));
            assert!(exact < 1e-5 * moved, "{} {}: {exact}", case.rows, case.columns);
            assert!(rounded < 0.02 * moved, "{} {}: {rounded}", case.rows, case.columns);
        }
    }

    /// One step from zero without decay, divided by its length: the orthogonalised gradient.
    fn direction(shape: (usize, usize), gradient: &[f32], compute: &Compute) -> Vec<f32> {
        let arena = arena(&[shape]);
        let settings = MuonSettings { decay: 0.0, ..MuonSettings::default() };
        let mut parameters = vec![0.0; arena.len];
        optimiser(settings, &arena, compute).step(&mut parameters, gradient, 1.0, 1.0);
        let length = -STEP_RMS * (shape.0.max(shape.1) as f32).sqrt();
        parameters.iter().map(|value| value / length).collect()
    }

    /// Length of uᵀ X for a wide X, of X u for a tall one, over the length of u.
    fn stretch(x: &[f32], (rows, columns): (usize, usize), u: &[f32]) -> f64 {
        let wide = rows <= columns;
        let (short, long) = if wide { (rows, columns) } else { (columns, rows) };
        let at = |i: usize, j: usize| if wide { x[i * columns + j] } else { x[j * columns + i] };
        let product = |j: usize| -> f64 {
            (0..short).map(|i| f64::from(at(i, j)) * f64::from(u[i])).sum::<f64>()
        };
        let squares: f64 = (0..long).map(|j| product(j).powi(2)).sum();
        let length: f64 = u[..short].iter().map(|u| f64::from(*u).powi(2)).sum();
        (squares / length).sqrt()
    }

    const SHAPES: [(usize, usize); 9] = [
        (64, 192),
        (192, 64),
        (130, 130),
        (70, 150),
        (33, 32),
        (32, 33),
        (1, 9),
        (9, 1),
        (200, 17),
    ];

    #[test]
    fn steps_are_nearly_orthonormal_on_every_matrix_unit() {
        for shape in SHAPES {
            let gradient = noise(shape.0 * shape.1, 7);
            let expected = direction(shape, &gradient, &single());
            for seed in 1..=5 {
                let stretch = stretch(&expected, shape, &noise(shape.0.min(shape.1), seed));
                assert!((0.65..1.2).contains(&stretch), "{shape:?}: {stretch}");
            }
            for unit in MatrixUnit::ALL.into_iter().filter(|unit| unit.available()) {
                let found = direction(shape, &gradient, &single().with_unit(unit));
                let off =
                    distance(&found, &expected) / distance(&expected, &vec![0.0; found.len()]);
                assert!(off < 1e-4, "{shape:?} {unit:?}: {off}");
            }
        }
    }

    #[test]
    fn steps_are_the_same_bits_on_any_number_of_threads() {
        let arena = arena(&SHAPES);
        let train = |threads: usize| {
            let compute = Compute::new(Threads::new(threads).unwrap());
            let mut muon = optimiser(MuonSettings::default(), &arena, &compute);
            let mut parameters = noise(arena.len, 1);
            for step in 2..5 {
                muon.step(&mut parameters, &noise(arena.len, step), 1e-2, 0.7);
            }
            parameters
        };
        let expected = train(1);
        assert_eq!(expected, train(2));
        assert_eq!(expected, train(3));
    }

    #[test]
    fn every_matrix_is_orthogonalised_by_itself() {
        let (upper, lower) = ((8, 16), (8, 16));
        let gradient = noise(256, 3);
        let apart = [
            direction(upper, &gradient[..128], &single()),
            direction(lower, &gradient[128..], &single()),
        ];
        let arena = arena(&[upper, lower]);
        let settings = MuonSettings { decay: 0.0, ..MuonSettings::default() };
        let mut both = vec![0.0; arena.len];
        optimiser(settings, &arena, &single()).step(&mut both, &gradient, 1.0, 1.0);
        let length = -STEP_RMS * 4.0;
        let both: Vec<f32> = both.iter().map(|value| value / length).collect();
        assert_eq!(both, apart.concat());
        let stacked = direction((16, 16), &gradient, &single());
        assert!(distance(&both, &stacked) > 0.5);
    }

    #[test]
    fn a_gradient_of_zeros_moves_nothing_and_a_huge_value_stays_finite() {
        let shape = (12, 20);
        let still = direction(shape, &[0.0; 240], &single());
        assert!(still.iter().all(|value| *value == 0.0));
        let mut gradient = noise(240, 1);
        gradient[17] = 1e18;
        let step = direction(shape, &gradient, &single());
        assert!(step.iter().all(|value| value.is_finite()));
        assert!(step[17] > 0.65, "{}", step[17]);
    }

    #[test]
    fn embedding_output_matrix_and_norms_are_adamws() {
        let config = ModelConfig { tied: false, ..ModelConfig::preset("nano").unwrap() };
        let arena = config.arena();
        let gradient = noise(arena.len, 1);
        let step = |muon: Option<MuonSettings>| {
            let mut parameters = noise(arena.len, 2);
            let mut optimiser = Optimiser::new(AdamWSettings::default(), muon, &arena, &single());
            optimiser.step(&mut parameters, &gradient, 1e-2, 1.0);
            let averages: Vec<[usize; 2]> = (0..arena.tensors.len())
                .map(|tensor| [optimiser.mean(tensor).len(), optimiser.square(tensor).len()])
                .collect();
            (parameters, averages)
        };
        let (adamw, _) = step(None);
        let (muon, averages) = step(Some(MuonSettings::default()));
        for (tensor, placed) in arena.tensors.iter().enumerate() {
            let range = placed.range.clone();
            let in_layer = placed.info.shape.len() == 2 && placed.info.name.contains("layers");
            assert_eq!(adamw[range.clone()] == muon[range.clone()], !in_layer, "{tensor}");
            let squares = if in_layer { 0 } else { range.len() };
            assert_eq!(averages[tensor], [range.len(), squares]);
        }
    }
}
