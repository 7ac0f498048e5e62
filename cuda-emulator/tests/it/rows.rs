//! The kernels that go through rows and values: against sums in f64 or twins bit for bit, in all orders of lanes,
//! under sanitizers, and with planted bugs.
//!
//! | planted bug | what it is |
//! |---|---|
//! | `BUG_EMBED_RAGGED` | threads beyond the last column do not stop |
//! | `BUG_NORM_NO_BARRIER` | no barrier between a block's sums and their reader |
//! | `BUG_NORM_UNROUNDED` | the norm of the sum before it is rounded |
//! | `BUG_BACKWARD_NO_BARRIER` | no barrier between the dot products and their readers |
//! | `BUG_BACKWARD_ONE_SET` | a warp that is ahead overwrites the dot products that another still reads |
//! | `BUG_BACKWARD_PARTS` | a block's part of the weight's gradient in another block's place |
//! | `BUG_BACKWARD_RAGGED` | the last block takes 64 rows though there are fewer |
//! | `BUG_ROTATE_POSITION` | the second sample's positions do not start again |
//! | `BUG_LOSS_NO_BARRIER` | no barrier between the warps' sums and their readers |
//! | `BUG_LOSS_TARGET_LATE` | the target's logit is read when it may be overwritten |
//! | `BUG_LOSS_RAGGED` | the last eight logits are left out of the sum |
//! | `BUG_VALUES_RAGGED` | the last thread takes eight values though there are fewer |
//! | `BUG_SQUARES_NO_BARRIER` | no barrier between the warps' sums and their reader |
//! | `BUG_SPLIT_EVEN` | the upper half is rounded to even, so that ties do not come back |

mod elementwise;
mod embedding;
mod loss;
mod norm;
mod values;

use cuda_emulator::{agree_in_all_orders, finds, sanitised, Case, Outcome, Sanitizer};
use half::bf16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What rounding once to bf16 leaves: 2^-9 at most, about 1.7e-3 in the mean.
const BF16: f64 = 3e-3;

/// What sums in f32 and fast exponentials leave.
const F32: f64 = 1e-5;

/// Values about 0 whose squares have the mean `scale`².
fn random(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut one = || (0..3).map(|_| random.gen_range(-1.0_f32..1.0)).sum::<f32>();
    (0..len).map(|_| one() * scale).collect()
}

/// Of [`random`], in bf16.
fn random_bf16(seed: u64, len: usize, scale: f32) -> Vec<u16> {
    narrow(&random(seed, len, scale))
}

/// Weights of a norm: about 1.
fn weights(seed: u64, len: usize) -> Vec<u16> {
    narrow(&random(seed, len, 0.1).iter().map(|value| 1.0 + value).collect::<Vec<f32>>())
}

fn narrow(values: &[f32]) -> Vec<u16> {
    values.iter().map(|value| bf16::from_f32(*value).to_bits()).collect()
}

fn widen(values: &[u16]) -> Vec<f32> {
    values.iter().map(|value| bf16::from_bits(*value).to_f32()).collect()
}

fn exact(values: &[u16]) -> Vec<f64> {
    widen(values).into_iter().map(f64::from).collect()
}

/// Asserts that the relative error in L2 is within `bound`, and that nothing is NaN.
fn close(what: &str, found: impl IntoIterator<Item = f32>, expected: &[f64], bound: f64) {
    let found: Vec<f64> = found.into_iter().map(f64::from).collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    let squares =
        |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let difference = squares(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let error = (difference / squares(&mut expected.iter().copied())).sqrt();
    assert!(error <= bound, "{what}: relative error {error:e}");
}

/// The outcome of a case, which is the same in all orders of lanes.
fn settled(case: &Case) -> Outcome {
    agree_in_all_orders(case).unwrap()
}

/// Asserts that a case reads and writes only what it may, and nothing at the same time.
fn clean(case: &Case) {
    sanitised(case, Sanitizer::Address).unwrap();
    sanitised(case, Sanitizer::Thread).unwrap();
}

/// Asserts that each bug shows in the case, and says how.
fn found(case: &Case, bugs: &[&str]) {
    for bug in bugs {
        let finding = finds(case, bug).unwrap();
        println!("{}", finding.unwrap_or_else(|| panic!("{bug} is not found")));
    }
}

fn u32_of(value: usize) -> u32 {
    u32::try_from(value).unwrap()
}
