//! The emulated GPU's products: against f64, and bits that depend on nothing but the operands.

use cuda_emulator::{Behaviour, Emulated};
use half::bf16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::cuda::gpu::{Product, ProductForm, ProductResult};
use trainer::cuda::{Address, Gpu, Stream};

const FORMS: [ProductForm; 3] = [ProductForm::Nt, ProductForm::Nn, ProductForm::Tn];

/// Between the values that rows do not use.
const UNUSED: f32 = 1e30;

fn noise(random: &mut ChaCha8Rng) -> bf16 {
    bf16::from_f32((random.gen::<f32>() - 0.5) * 2.0_f32.powi(random.gen_range(-3..4)))
}

/// A product's shape and the operands (m, k) and (k, n), row after row, by column.
struct Operands {
    shape: (usize, usize, usize),
    left: Vec<bf16>,
    right: Vec<bf16>,
}

impl Operands {
    fn new(shape: (usize, usize, usize), seed: u64) -> Self {
        let (m, n, k) = shape;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let left = (0..m * k).map(|_| noise(&mut random)).collect();
        let right = (0..k * n).map(|_| noise(&mut random)).collect();
        Self { shape, left, right }
    }

    /// The first rows and columns of the result.
    fn part(&self, m: usize, n: usize) -> Self {
        let (_, all, k) = self.shape;
        let right = self.right.chunks(all).flat_map(|row| &row[..n]).copied().collect();
        Self { shape: (m, n, k), left: self.left[..m * k].to_vec(), right }
    }

    /// Runs it with `more` values between rows; d was `before`.
    fn run(
        &self,
        form: ProductForm,
        result: ProductResult,
        (alpha, beta): (f32, f32),
        before: f32,
        more: usize,
    ) -> Vec<f32> {
        let (m, n, k) = self.shape;
        let gpu = Emulated::new(Behaviour::default());
        let put = |rows: usize, columns: usize, value: &dyn Fn(usize, usize) -> bf16| {
            let stride = columns + more;
            let mut values = vec![bf16::from_f32(UNUSED); rows * stride];
            for row in 0..rows {
                for column in 0..columns {
                    values[row * stride + column] = value(row, column);
                }
            }
            let at = gpu.allocate(values.len() as u64 * 2).unwrap();
            gpu.upload(Stream::Compute, at, bytemuck::cast_slice(&values)).unwrap();
            (at, stride as u32)
        };
        let left = |row: usize, term: usize| self.left[row * k + term];
        let right = |term: usize, column: usize| self.right[term * n + column];
        let a = match form {
            ProductForm::Nt | ProductForm::Nn => put(m, k, &left),
            ProductForm::Tn => put(k, m, &|term, row| left(row, term)),
        };
        let b = match form {
            ProductForm::Nt => put(n, k, &|column, term| right(term, column)),
            ProductForm::Nn | ProductForm::Tn => put(k, n, &right),
        };
        let stride = n + more;
        let d = self.before(&gpu, result, m * stride, before);
        let product = Product {
            form,
            m: m as u32,
            n: n as u32,
            k: k as u32,
            a,
            b,
            d: (d, stride as u32),
            result,
            alpha,
            beta,
        };
        gpu.product(Stream::Compute, &product).unwrap();
        let values = self.after(&gpu, result, m * stride, d);
        assert!(gpu.guards_are_whole());
        for row in values.chunks(stride) {
            assert!(row[n..].iter().all(|value| *value == before), "written between rows");
        }
        values.chunks(stride).flat_map(|row| &row[..n]).copied().collect()
    }

    fn before(&self, gpu: &dyn Gpu, result: ProductResult, len: usize, value: f32) -> Address {
        let at = gpu.allocate(len as u64 * 4).unwrap();
        match result {
            ProductResult::F32 => {
                gpu.upload(Stream::Compute, at, bytemuck::cast_slice(&vec![value; len]))
            }
            ProductResult::Bf16 => {
                let values = vec![bf16::from_f32(value); len];
                gpu.upload(Stream::Compute, at, bytemuck::cast_slice(&values))
            }
        }
        .unwrap();
        at
    }

    fn after(&self, gpu: &dyn Gpu, result: ProductResult, len: usize, at: Address) -> Vec<f32> {
        match result {
            ProductResult::F32 => {
                let mut values = vec![0.0_f32; len];
                gpu.download(Stream::Compute, at, bytemuck::cast_slice_mut(&mut values)).unwrap();
                values
            }
            ProductResult::Bf16 => {
                let mut values = vec![bf16::ZERO; len];
                gpu.download(Stream::Compute, at, bytemuck::cast_slice_mut(&mut values)).unwrap();
                values.into_iter().map(bf16::to_f32).collect()
            }
        }
    }

    /// The sums in f64, and those of the terms' magnitudes.
    fn exact(&self) -> Vec<(f64, f64)> {
        let (m, n, k) = self.shape;
        let sum = |row: usize, column: usize| {
            (0..k).fold((0.0, 0.0), |(sum, size), term| {
                let left = self.left[row * k + term].to_f64();
                let product = left * self.right[term * n + column].to_f64();
                (sum + product, size + product.abs())
            })
        };
        (0..m).flat_map(|row| (0..n).map(move |column| sum(row, column))).collect()
    }
}

const SHAPES: [(usize, usize, usize); 8] = [
    (1, 1, 1),
    (4, 16, 8),
    (5, 17, 33),
    (3, 15, 64),
    (64, 64, 64),
    (33, 40, 130),
    (7, 100, 1),
    (2, 3, 0),
];

#[test]
fn every_form_and_shape_agrees_with_f64() {
    for (seed, shape) in (0..).zip(SHAPES) {
        let operands = Operands::new(shape, seed);
        let exact = operands.exact();
        for form in FORMS {
            for (more, alpha, beta) in [(0, 1.0, 0.0), (3, 0.5, 1.0), (8, 2.0, -0.25)] {
                let result = ProductResult::F32;
                // Where beta is 0, what d was is not read.
                let before = if beta == 0.0 { -UNUSED } else { 1.5 };
                let values = operands.run(form, result, (alpha, beta), before, more);
                let rounded = operands.run(form, ProductResult::Bf16, (alpha, beta), before, more);
                assert_eq!(values.len(), exact.len());
                for ((value, rounded), (sum, size)) in values.iter().zip(rounded).zip(&exact) {
                    let with = if beta == 0.0 { 0.0 } else { f64::from(beta * before) };
                    let expected = f64::from(alpha) * sum + with;
                    // One rounding a term and three at the end.
                    let bound = (f64::from(alpha) * size + with.abs())
                        * (shape.2 as f64 + 3.0)
                        * f64::from(f32::EPSILON);
                    let error = (f64::from(*value) - expected).abs();
                    assert!(error <= bound, "{shape:?} {form:?}: {value} for {expected}");
                    // The same value, rounded once.
                    assert_eq!(rounded, bf16::from_f32(*value).to_f32());
                }
            }
        }
    }
}

#[test]
fn a_sum_has_the_same_bits_in_every_form_and_block() {
    let operands = Operands::new((37, 53, 200), 9);
    let whole = operands.run(FORMS[0], ProductResult::F32, (1.0, 0.0), 0.0, 0);
    let (m, n, k) = operands.shape;
    // In ascending order, each product and each sum rounded.
    for (index, value) in whole.iter().enumerate() {
        let (row, column) = (index / n, index % n);
        let sum = (0..k).fold(0.0_f32, |sum, term| {
            sum + operands.left[row * k + term].to_f32()
                * operands.right[term * n + column].to_f32()
        });
        assert_eq!(value.to_bits(), sum.to_bits());
    }
    for form in FORMS {
        for (rows, columns) in [(m, n), (1, 1), (5, 17), (36, 16), (37, 1)] {
            let part =
                operands.part(rows, columns).run(form, ProductResult::F32, (1.0, 0.0), 0.0, 1);
            for (row, values) in part.chunks(columns).enumerate() {
                assert_eq!(values, &whole[row * n..row * n + columns]);
            }
        }
    }
}

#[test]
fn what_was_there_is_added_once_and_last() {
    // In f32, 2²⁴ + 1 is 2²⁴: added at the start, all of the terms would be lost.
    let one = bf16::from_f32(1.0);
    let operands = Operands { shape: (1, 1, 64), left: vec![one; 64], right: vec![one; 64] };
    let before = 2.0_f32.powi(24);
    let values = operands.run(ProductForm::Nt, ProductResult::F32, (1.0, 1.0), before, 0);
    assert_eq!(values, [before + 64.0]);
}

#[test]
fn bf16_results_round_ties_to_even() {
    let value = |sum: &[f32]| {
        let left = sum.iter().map(|value| bf16::from_f32(*value)).collect();
        let operands =
            Operands { shape: (1, 1, sum.len()), left, right: vec![bf16::ONE; sum.len()] };
        operands.run(ProductForm::Nt, ProductResult::Bf16, (1.0, 0.0), 0.0, 0)[0]
    };
    // bf16 has 8 bits: between 1 and 2 a step of 1/128.
    assert_eq!(value(&[1.0, 1.0 / 256.0]), 1.0);
    assert_eq!(value(&[1.0, 3.0 / 256.0]), 1.0 + 2.0 / 128.0);
    assert_eq!(value(&[-1.0, -1.0 / 256.0]), -1.0);
    assert_eq!(value(&[1.0, 1.0 / 256.0, 1.0 / 65536.0]), 1.0 + 1.0 / 128.0);
}
