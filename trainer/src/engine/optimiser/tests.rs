//! AdamW against its definition, Muon against PyTorch's and against what it promises.

use serde::Deserialize;

use super::muon::{work_bytes, Muon, STEP_RMS};
use super::{newton_schulz_flops, AdamWSettings, MuonSettings, Optimiser, Symmetric};
use crate::compute::matmul::MatrixUnit;
use crate::compute::threads::Threads;
use crate::compute::Compute;
use crate::model::config::{Arena, ModelConfig, Placed, TensorInfo};

/// Expected values from the definition in f64.
#[test]
fn adamw_follows_its_definition() {
    let arena = ModelConfig::preset("nano").unwrap().arena();
    let compute = Compute::new(Threads::single());
    let mut optimiser = Optimiser::new(AdamWSettings::default(), None, &arena, &compute);
    let mut parameters = vec![0.5f32; arena.len];
    let (mut mean, mut square, mut expected) = (0.0f64, 0.0f64, 0.5f64);
    for step in 1..=3 {
        let gradient = 0.1 * step as f32;
        let gradients = vec![gradient; arena.len];
        optimiser.step(&mut parameters, &gradients, 1e-2, 0.5);
        let g = f64::from(gradient) * 0.5;
        mean = 0.9 * mean + 0.1 * g;
        square = 0.95 * square + 0.05 * g * g;
        let root = (square / (1.0 - 0.95f64.powi(step))).sqrt() + 1e-8;
        expected *= 1.0 - 1e-2 * 0.1;
        expected -= 1e-2 * mean / (1.0 - 0.9f64.powi(step)) / root;
    }
    let matrix = f64::from(parameters[arena.embedding.start]);
    assert!((matrix - expected).abs() < 1e-6, "{matrix} {expected}");
    let norm = f64::from(parameters[arena.final_norm.start]);
    assert!(norm > matrix, "norms do not decay");
}

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

const SHAPES: [(usize, usize); 9] =
    [(64, 192), (192, 64), (130, 130), (70, 150), (33, 32), (32, 33), (1, 9), (9, 1), (200, 17)];

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
            let off = distance(&found, &expected) / distance(&expected, &vec![0.0; found.len()]);
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
    for huge in [1e18, 1e30] {
        let mut gradient = noise(240, 1);
        gradient[17] = huge;
        let step = direction(shape, &gradient, &single());
        assert!(step.iter().all(|value| value.is_finite()));
        // The square of the other is beyond f32: no step.
        assert!(step[17] > 0.65 || huge > 1e19, "{}", step[17]);
    }
}

#[test]
fn what_is_allocated_is_what_is_counted_beforehand() {
    for threads in [1, 3] {
        for unit in MatrixUnit::ALL.into_iter().filter(|unit| unit.available()) {
            let compute = Compute::new(Threads::new(threads).unwrap()).with_unit(unit);
            let arena = arena(&SHAPES);
            let muon = Muon::new(MuonSettings::default(), &arena, &compute);
            let beside = muon.allocated_bytes() - 4 * arena.len as u64;
            assert_eq!(beside, work_bytes(&arena, threads, unit), "{unit:?}");
        }
    }
}

#[test]
fn the_arithmetic_is_that_of_the_products() {
    let arena = arena(&[(128, 512), (512, 128)]);
    let flops = |symmetric| newton_schulz_flops(&arena, symmetric);
    let (short, long) = (128.0, 512.0);
    let gradient = 2.0 * 6.0 * short * long;
    let part = short * (20.0 / 6.0 + 10.0 / 6.0 * short / long);
    let ratio = flops(Symmetric::Whole) / gradient / part;
    assert!((ratio - 1.0).abs() < 1e-12, "{ratio}");
    assert_eq!(flops(Symmetric::Half), 10.0 * short * short * (3.0 * long + short));
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

/// What nobody trains would else move by the same for every miner, and look copied.
#[test]
fn a_row_of_a_lookup_that_nobody_trains_stays_as_it_is() {
    for tied in [false, true] {
        let config = ModelConfig { tied, ..ModelConfig::preset("nano").unwrap() };
        let arena = config.arena();
        let before = noise(arena.len, 2);
        for muon in [None, Some(MuonSettings::default())] {
            let mut parameters = before.clone();
            let mut optimiser = Optimiser::new(AdamWSettings::default(), muon, &arena, &single());
            optimiser.step(&mut parameters, &vec![0.0; arena.len], 1e-2, 1.0);
            let stays =
                |place: &std::ops::Range<usize>| parameters[place.clone()] == before[place.clone()];
            assert_eq!(stays(&arena.embedding), !tied);
            assert!(!stays(&arena.head), "the output matrix decays");
        }
    }
}
