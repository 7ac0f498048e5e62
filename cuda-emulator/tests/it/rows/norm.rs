use super::*;
use trainer::cuda::kernels::norm::{
    self, AddNorm, Addend, NormAgain, NormBackward, NormWeightGradient, PART_ROWS,
};
use trainer::cuda::Address;
use trainer::cuda::Stream::Compute;

const EPSILON: f32 = 1e-5;

/// How x + y is given to the kernel.
#[derive(Clone, Copy, PartialEq)]
enum Sum {
    No,
    Elsewhere,
    InPlace,
}

fn forward_case(tokens: usize, width: usize, sum: Sum) -> Case {
    let len = tokens * width;
    let mut case = Case::new();
    let x = case.output("x", &random_bf16(1, len, 1.0));
    let y = case.input("y", &random_bf16(2, len, 0.7));
    let apart = case.fresh("sum", len * 2);
    let add = match sum {
        Sum::No => None,
        Sum::Elsewhere => Some(Addend { y, sum: apart }),
        Sum::InPlace => Some(Addend { y, sum: x }),
    };
    let w = case.input("w", &weights(3, width));
    let inverse = case.fresh("inverse", tokens * 4);
    let (tokens, width) = (u32_of(tokens), u32_of(width));
    let normed = case.fresh("normed", len * 2);
    let of = AddNorm { x, add, w, normed, inverse, tokens, width, epsilon: EPSILON };
    case.launch(|gpu| norm::add_norm(gpu, Compute, &of)).unwrap();
    let x = add.map_or(x, |add| add.sum);
    let again = NormAgain { x, w, inverse, normed: case.fresh("again", len * 2), tokens, width };
    case.launch(|gpu| norm::norm_again(gpu, Compute, &again)).unwrap();
    case
}

#[test]
fn the_norm_is_that_of_the_rounded_sum() {
    let shapes = [(1, 8), (5, 128), (3, 320), (2, 352), (3, 576), (2, 1408), (1, 14336)];
    for (tokens, width) in shapes {
        for sum in [Sum::No, Sum::Elsewhere, Sum::InPlace] {
            let outcome = settled(&forward_case(tokens, width, sum));
            let (x, y) = (random_bf16(1, tokens * width, 1.0), random_bf16(2, tokens * width, 0.7));
            let added = widen(&x).iter().zip(widen(&y)).map(|(x, y)| x + y).collect::<Vec<f32>>();
            let rows = if sum == Sum::No { x.clone() } else { narrow(&added) };
            let untouched = vec![0xffff; rows.len()];
            assert_eq!(
                outcome.values::<u16>("x"),
                if sum == Sum::InPlace { &rows } else { &x }.as_slice()
            );
            assert_eq!(
                outcome.values::<u16>("sum"),
                if sum == Sum::Elsewhere { &rows } else { &untouched }.as_slice()
            );

            let w = exact(&weights(3, width));
            let (mut inverse, mut normed) = (Vec::new(), Vec::new());
            for row in exact(&rows).chunks_exact(width) {
                let mean = row.iter().map(|x| x * x).sum::<f64>() / width as f64;
                let scale = 1.0 / (mean + f64::from(EPSILON)).sqrt();
                inverse.push(scale);
                normed.extend(row.iter().zip(&w).map(|(x, w)| x * scale * w));
            }
            close("inverse", outcome.values::<f32>("inverse"), &inverse, F32);
            close("normed", widen(&outcome.values::<u16>("normed")), &normed, BF16);
            assert_eq!(outcome.bytes("again"), outcome.bytes("normed"));
        }
    }
}

/// Inputs of a backward pass.
struct Backward {
    tokens: usize,
    width: usize,
    dy: Vec<u16>,
    x: Vec<u16>,
    w: Vec<u16>,
    inverse: Vec<f32>,
    before: Vec<u16>,
}

impl Backward {
    fn new(tokens: usize, width: usize) -> Self {
        let row = |seed: u64, scale: f32| random_bf16(seed, tokens * width, scale);
        let inverse = random(7, tokens, 0.2).iter().map(|value| 1.0 + value).collect();
        let (dy, x, before) = (row(4, 1.0), row(5, 1.0), row(6, 0.5));
        Self { tokens, width, dy, x, w: weights(3, width), inverse, before }
    }

    fn parts(&self) -> usize {
        self.tokens.div_ceil(PART_ROWS as usize)
    }

    fn case(&self, add: bool) -> Case {
        let mut case = Case::new();
        let parts = case.fresh("parts", self.parts() * self.width * 4);
        let of = NormBackward {
            d_normed: case.input("dy", &self.dy),
            x: case.input("x", &self.x),
            w: case.input("w", &self.w),
            inverse: case.input("inverse", &self.inverse),
            d_x: if add {
                case.output("dx", &self.before)
            } else {
                case.fresh("dx", self.before.len() * 2)
            },
            parts,
            tokens: u32_of(self.tokens),
            width: u32_of(self.width),
            add,
        };
        case.launch(|gpu| norm::norm_backward(gpu, Compute, &of)).unwrap();
        case
    }
}

#[test]
fn the_gradient_of_the_norm_is_that_of_its_formula() {
    for (tokens, width) in
        [(1, 8), (63, 128), (64, 320), (65, 352), (130, 576), (9, 1408), (3, 14336)]
    {
        let given = Backward::new(tokens, width);
        let (dy, x, w) = (exact(&given.dy), exact(&given.x), exact(&given.w));
        for add in [false, true] {
            let mut dx = if add { exact(&given.before) } else { vec![0.0; given.before.len()] };
            let mut parts = vec![0.0; given.parts() * width];
            for token in 0..tokens {
                let scale = f64::from(given.inverse[token]);
                let at = token * width;
                let dot: f64 = (0..width).map(|i| dy[at + i] * w[i] * x[at + i]).sum();
                let along = dot * scale.powi(3) / width as f64;
                for i in 0..width {
                    dx[at + i] += scale * w[i] * dy[at + i] - x[at + i] * along;
                    parts[token / 64 * width + i] += dy[at + i] * x[at + i] * scale;
                }
            }
            let outcome = settled(&given.case(add));
            close("dx", widen(&outcome.values::<u16>("dx")), &dx, BF16);
            close("parts", outcome.values::<f32>("parts"), &parts, F32);
        }
    }
}

fn weight_case(parts: &[f32], before: &[f32]) -> Case {
    let mut case = Case::new();
    let of = NormWeightGradient {
        parts: case.input("parts", parts),
        gradient: case.output("gradient", before),
        blocks: u32_of(parts.len() / before.len()),
        width: u32_of(before.len()),
    };
    case.launch(|gpu| norm::norm_weight_gradient(gpu, Compute, &of)).unwrap();
    case
}

#[test]
fn parts_are_summed_in_order_and_added_once() {
    for (blocks, width) in [(1, 8), (3, 128), (13, 352), (2, 1416)] {
        let (parts, before) = (random(8, blocks * width, 1.0), random(9, width, 5.0));
        let mut sums = vec![0.0_f32; width];
        for part in parts.chunks_exact(width) {
            sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        let expected: Vec<f32> =
            before.iter().zip(&sums).map(|(before, sum)| before + sum).collect();
        assert_eq!(settled(&weight_case(&parts, &before)).values::<f32>("gradient"), expected);
    }
}

#[test]
fn a_width_that_is_not_whole_vectors_is_refused() {
    let nowhere = Address(0);
    let again = NormAgain {
        x: nowhere,
        w: nowhere,
        inverse: nowhere,
        normed: nowhere,
        tokens: 1,
        width: 12,
    };
    let error = Case::new().launch(|gpu| norm::norm_again(gpu, Compute, &again)).unwrap_err();
    assert!(error.to_string().contains("a width of 12 is no multiple of 8"), "{error}");
}

#[test]
fn nothing_is_read_or_written_outside() {
    clean(&forward_case(2, 352, Sum::InPlace));
    clean(&Backward::new(70, 128).case(true));
    clean(&weight_case(&random(8, 3 * 352, 1.0), &random(9, 352, 5.0)));
}

#[test]
fn planted_bugs_are_found() {
    found(&forward_case(3, 352, Sum::Elsewhere), &["BUG_NORM_NO_BARRIER", "BUG_NORM_UNROUNDED"]);
    let bugs = [
        "BUG_BACKWARD_NO_BARRIER",
        "BUG_BACKWARD_ONE_SET",
        "BUG_BACKWARD_PARTS",
        "BUG_BACKWARD_RAGGED",
    ];
    found(&Backward::new(70, 128).case(true), &bugs);
}
