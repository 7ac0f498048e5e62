//! What the optimisers' kernels do, on a CPU and bit for bit: the reference of their tests and of
//! `gauntlet doctor --cuda`.
//!
//! Every operation is rounded by itself. The formulas are those of the CPU's engine; what is a GPU's own is how
//! values are stored: a parameter as two halves, an average as bf16 that is rounded at random.

use super::kernels::optimiser::AdamW;
use crate::engine::optimiser::adamw::StepConstants;

/// NaN in bf16, whatever it was.
const NAN_BF16: u16 = 0x7FFF;

/// The `f32` of a bf16 number.
pub fn widen(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

/// The nearest bf16 number, ties to even; every NaN becomes one.
pub fn round(value: f32) -> u16 {
    if value.is_nan() {
        return NAN_BF16;
    }
    let bits = value.to_bits();
    (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

/// A parameter from its halves: `hi · 2^16 + lo`, with `lo` as a signed number.
pub fn join(hi: u16, lo: u16) -> f32 {
    f32::from_bits((u32::from(hi) << 16).wrapping_add(i32::from(lo as i16) as u32))
}

/// The halves of a parameter: a bf16 number, ties up, and the 16 lower bits, so that [`join`] restores every
/// number. Every NaN becomes one whose upper half is NaN.
pub fn split(value: f32) -> (u16, u16) {
    let bits = if value.is_nan() { 0x7FC0_0000 } else { value.to_bits() };
    ((bits.wrapping_add(0x8000) >> 16) as u16, bits as u16)
}

/// Spreads each bit over all: the finaliser "lowbias32" of Wellons' hash-prospector.
const fn mix(x: u32) -> u32 {
    let x = (x ^ x >> 16).wrapping_mul(0x7FEB_352D);
    let x = (x ^ x >> 15).wrapping_mul(0x846C_A68B);
    x ^ x >> 16
}

/// The noise of value `index` of the whole model in a step: the lower half rounds the mean, the upper one
/// the square. A hash, so that there is no state to keep or to share.
pub const fn noise(step: u32, index: u64) -> u32 {
    let key = mix(step ^ mix(((index >> 32) as u32).wrapping_add(0x9E37_79B9)));
    mix(mix(index as u32 ^ key).wrapping_add(key))
}

/// To bf16: up with the probability of what is cut off, by 16 bits of noise, so that the mean over the noise is the
/// value. The last numbers before infinity are cut instead.
pub fn round_randomly(value: f32, noise: u16) -> u16 {
    if value.is_nan() {
        return NAN_BF16;
    }
    let bits = value.to_bits();
    let noise = if bits & 0x7FFF_FFFF >= 0x7F7F_0000 { 0 } else { u32::from(noise) };
    (bits.wrapping_add(noise) >> 16) as u16
}

/// What a GPU keeps of some parameters that AdamW trains; all four are as long.
#[derive(Debug)]
pub struct Kept<'a> {
    /// Upper halves of the parameters, bf16.
    pub hi: &'a mut [u16],
    /// Lower halves.
    pub lo: &'a mut [u16],
    /// Averages of gradients, bf16.
    pub mean: &'a mut [u16],
    /// Averages of their squares, bf16.
    pub square: &'a mut [u16],
}

/// The kernel `adamw`; of the arguments the addresses and `len` are not used.
pub fn adamw(kept: Kept<'_>, gradient: &[f32], arguments: &AdamW) {
    let StepConstants { beta1, beta2, epsilon, rate, square_scale, keep, gradient_scale } =
        arguments.constants();
    let parameters = kept.hi.iter_mut().zip(kept.lo);
    let averages = kept.mean.iter_mut().zip(kept.square);
    let values = parameters.zip(averages).zip(gradient);
    for (index, (((hi, lo), (mean, square)), gradient)) in (arguments.first..).zip(values) {
        let noise = noise(arguments.step as u32, index);
        let g = gradient * gradient_scale;
        let m = beta1 * widen(*mean) + (1.0 - beta1) * g;
        let v = beta2 * widen(*square) + (1.0 - beta2) * g * g;
        let root = (v * square_scale).sqrt() + epsilon;
        (*hi, *lo) = split(join(*hi, *lo) * keep - rate * m / root);
        *mean = round_randomly(m, noise as u16);
        *square = round_randomly(v, (noise >> 16) as u16);
    }
}

/// The kernel `momentum`; `first` is the first value's number in the whole model.
pub fn momentum(
    mean: &mut [u16],
    gradient: &[f32],
    direction: &mut [u16],
    first: u64,
    (beta, scale, step): (f32, f32, u64),
) {
    let values = mean.iter_mut().zip(gradient).zip(direction);
    for (index, ((mean, gradient), direction)) in (first..).zip(values) {
        let g = gradient * scale;
        let m = widen(*mean);
        let m = m + (1.0 - beta) * (g - m);
        *direction = round(g + beta * (m - g));
        *mean = round_randomly(m, noise(step as u32, index) as u16);
    }
}

/// The kernel `muon_scale`.
pub fn muon_scale(direction: &mut [u16], norm_squares: f64, epsilon: f32) {
    let factor = 1.0 / (norm_squares as f32).sqrt().max(epsilon);
    for value in direction {
        *value = round(widen(*value) * factor);
    }
}

/// The kernel `muon_apply`.
pub fn muon_apply(hi: &mut [u16], lo: &mut [u16], direction: &[u16], rate: f32, keep: f32) {
    for ((hi, lo), direction) in hi.iter_mut().zip(lo).zip(direction) {
        (*hi, *lo) = split(keep * join(*hi, *lo) - rate * widen(*direction));
    }
}

/// The sum over a block's 256 threads: a tree over the lanes of each warp, then the warps in order.
fn block_sum(mut threads: [f64; 256]) -> f64 {
    let mut total = None;
    for warp in threads.chunks_exact_mut(32) {
        for by in [16, 8, 4, 2, 1] {
            let (low, high) = warp.split_at_mut(by);
            low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        }
        let sum = warp.first().copied().unwrap_or_default();
        total = Some(total.map_or(sum, |total| total + sum));
    }
    total.unwrap_or_default()
}

/// The kernel `squares_bf16`: a sum for each 4096 values.
pub fn squares_bf16(values: &[u16]) -> Vec<f64> {
    let part = |part: &[u16]| {
        let mut threads = [0.0f64; 256];
        for half in part.chunks(2048) {
            for (sum, eight) in threads.iter_mut().zip(half.chunks(8)) {
                *sum = eight.iter().fold(*sum, |sum, value| {
                    let value = f64::from(widen(*value));
                    sum + value * value
                });
            }
        }
        block_sum(threads)
    };
    values.chunks(4096).map(part).collect()
}

/// The kernel `sum_parts`.
pub fn sum_parts(parts: &[f64]) -> f64 {
    let mut threads = [0.0f64; 256];
    for row in parts.chunks(256) {
        threads.iter_mut().zip(row).for_each(|(sum, part)| *sum += *part);
    }
    block_sum(threads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::gpu::Address;
    use crate::engine::optimiser::{adamw as engine, muon};
    use crate::AdamWSettings;

    /// Numbers of all sizes, most of them ordinary.
    fn draw(random: &mut u64) -> f32 {
        *random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let bits = (*random >> 32) as u32;
        let value = f32::from_bits(bits);
        match bits % 16 {
            0 if value.is_finite() => value,
            _ => (bits as i32) as f32 / 2f32.powi(33),
        }
    }

    #[test]
    fn halves_restore_every_number() {
        let mut random = 1;
        for step in 0..1u32 << 20 {
            let bits = step << 12 | (draw(&mut random).to_bits() & 0xFFF);
            for bits in [bits, bits & !0xFFFF | 0x8000, bits & !0xFFFF | 0x7FFF] {
                let value = f32::from_bits(bits);
                let (hi, lo) = split(value);
                if value.is_nan() {
                    assert!(join(hi, lo).is_nan() && widen(hi).is_nan());
                } else {
                    assert_eq!(join(hi, lo).to_bits(), bits);
                }
            }
        }
    }

    /// The parameters after a step are those of the CPU's engine, bit for bit, if averages begin as bf16.
    #[test]
    fn steps_are_the_engines() {
        let mut random = 7;
        let len = 5000;
        for step in [1u64, 2, 77, 1 << 40] {
            let arguments = AdamW {
                hi: Address(0),
                lo: Address(0),
                mean: Address(0),
                square: Address(0),
                gradient: Address(0),
                len: len as u64,
                first: 3 << 33,
                settings: AdamWSettings::default(),
                rate: 3e-4,
                scale: 0.37,
                step,
            };
            let mut parameters: Vec<f32> = (0..len).map(|_| draw(&mut random)).collect();
            let gradient: Vec<f32> = (0..len).map(|_| draw(&mut random)).collect();
            let mut mean: Vec<u16> = (0..len).map(|_| round(draw(&mut random))).collect();
            let mut square: Vec<u16> = (0..len).map(|_| round(draw(&mut random).abs())).collect();
            let mut full_mean: Vec<f32> = mean.iter().copied().map(widen).collect();
            let mut full_square: Vec<f32> = square.iter().copied().map(widen).collect();
            let (mut hi, mut lo): (Vec<u16>, Vec<u16>) =
                parameters.iter().copied().map(split).unzip();

            let kept = Kept { hi: &mut hi, lo: &mut lo, mean: &mut mean, square: &mut square };
            adamw(kept, &gradient, &arguments);
            let constants = arguments.constants();
            engine::step_block(
                &mut parameters,
                &gradient,
                &mut full_mean,
                &mut full_square,
                &constants,
            );
            for (at, parameter) in parameters.iter().enumerate() {
                let value = join(hi[at], lo[at]);
                assert_eq!(value.to_bits(), parameter.to_bits(), "{value} {parameter} at {at}");
                // An average is one of the two bf16 numbers beside the engine's.
                let difference = i64::from(mean[at]) - i64::from(full_mean[at].to_bits() >> 16);
                assert!((0..=1).contains(&difference), "{difference} at {at}");
            }

            let mut mean: Vec<u16> = full_mean.iter().copied().map(round).collect();
            let mut full_mean: Vec<f32> = mean.iter().copied().map(widen).collect();
            let (mut direction, mut full_direction) = (vec![0; len], vec![0.0; len]);
            momentum(&mut mean, &gradient, &mut direction, 9, (0.95, 0.37, step));
            muon::blend(&mut full_mean, &gradient, &mut full_direction, 0.95, 0.37);
            let rounded: Vec<u16> = full_direction.iter().copied().map(round).collect();
            assert_eq!(direction, rounded);

            let (rate, keep) = muon::factors(0.01, 0.1, 777);
            muon_apply(&mut hi, &mut lo, &direction, rate, keep);
            let step: Vec<f32> = direction.iter().copied().map(widen).collect();
            muon::descend(&mut parameters, &step, keep, rate);
            for (at, parameter) in parameters.iter().enumerate() {
                assert_eq!(join(hi[at], lo[at]).to_bits(), parameter.to_bits());
            }
        }
    }

    /// Over many steps, and over many values, the mean of what is rounded is the value: within five standard
    /// deviations of a fair coin's.
    #[test]
    fn noise_is_unbiased() {
        for (value, which) in [(1.003f32, 0), (-3.3e-7, 0), (0.7777, 16), (5.5e30, 16), (1e-39, 0)]
        {
            let below = f32::from_bits(value.to_bits() & 0xFFFF_0000);
            let above = f32::from_bits((value.to_bits() & 0xFFFF_0000) + 0x1_0000);
            let chance = f64::from(value.to_bits() & 0xFFFF) / 65536.0;
            let ups = |noises: &mut dyn Iterator<Item = u32>| {
                let mut ups = 0;
                for noise in noises {
                    let rounded = widen(round_randomly(value, (noise >> which) as u16));
                    assert!(rounded == below || rounded == above);
                    ups += u32::from(rounded == above);
                }
                f64::from(ups)
            };
            let count = 200_000u32;
            let bound = 5.0 * (f64::from(count) * chance * (1.0 - chance)).sqrt();
            let over_steps = ups(&mut (1..=count).map(|step| noise(step, 123_456_789_012)));
            let over_values =
                ups(&mut (0..u64::from(count)).map(|index| noise(41, index + (1 << 32) - 1000)));
            let strided = ups(&mut (0..u64::from(count)).map(|index| noise(2, index * 4096)));
            for ups in [over_steps, over_values, strided] {
                assert!((ups - f64::from(count) * chance).abs() < bound, "{value}: {ups}");
            }
        }
    }

    /// Noises beside each other, of the next step and of the two averages have nothing to do with each other: the
    /// correlation over n pairs is within five of its standard deviations 1/√n.
    #[test]
    fn noises_are_independent() {
        let count = 1u64 << 18;
        let low = |noise: u32| f64::from(noise & 0xFFFF) / 65536.0 - 0.5;
        let high = |noise: u32| f64::from(noise >> 16) / 65536.0 - 0.5;
        let pairs: [&dyn Fn(u64) -> (f64, f64); 5] = [
            &|index| (low(noise(5, index)), low(noise(5, index + 1))),
            &|index| (low(noise(5, index)), low(noise(6, index))),
            &|index| (low(noise(5, index)), high(noise(5, index))),
            &|index| (low(noise(5, index)), low(noise(5, index + (1 << 32)))),
            &|index| (high(noise(5, index)), high(noise(5, index + 4096))),
        ];
        for (which, pair) in pairs.iter().enumerate() {
            let products: f64 = (0..count).map(pair).map(|(a, b)| a * b).sum();
            let correlation = products * 12.0 / count as f64;
            assert!(correlation.abs() < 5.0 / (count as f64).sqrt(), "{which}: {correlation}");
        }
    }

    #[test]
    fn edges_are_kept() {
        for noise in [0, 1, 0x7FFF, 0xFFFF] {
            assert_eq!(round_randomly(f32::INFINITY, noise), 0x7F80);
            assert_eq!(round_randomly(f32::NEG_INFINITY, noise), 0xFF80);
            assert_eq!(round_randomly(f32::MAX, noise), 0x7F7F);
            assert_eq!(round_randomly(f32::from_bits(0x7F80_0001), noise), NAN_BF16);
            assert_eq!(round_randomly(f32::from_bits(0xFFFF_FFFF), noise), NAN_BF16);
            assert_eq!(round_randomly(-0.0, noise), 0x8000);
        }
        assert_eq!(round_randomly(f32::from_bits(0x7F7E_FFFF), 0xFFFF), 0x7F7F);
    }
}
