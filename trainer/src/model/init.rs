//! The initial parameters, from a seed and nothing else: the same bytes on every machine.
//!
//! Each value depends on the seed, its tensor's name and its own number alone. The randomness is
//! SplitMix64 over a key from BLAKE3; a value is the sum of four uniform 16-bit integers, centred,
//! which is close to normal (excess kurtosis −0.3) and needs no logarithm: one exact conversion
//! and one `f32` product. Standard deviations use only IEEE division and square root.
//!
//! Norms start at 1 and the embedding at σ = 0.02; a matrix from n inputs at σ = √(2 / 5n) ("small
//! init", Nguyen and Salazar 2019), divided by √(2 · layers) where it writes into the residual
//! stream, as GPT-2 does.

use crate::compute::threads::{Shared, Threads};
use crate::model::config::{ModelConfig, Placed};

/// Values that one task draws: a MiB.
const SPAN: usize = 1 << 18;

/// Standard deviation of the embedding, and of an output matrix of its own.
const EMBEDDING_DEVIATION: f64 = 0.02;

/// Binds the key of a tensor to this procedure.
const DOMAIN: &[u8] = b"gauntlet/init/1";

/// All parameters of a model in the order of its arena. Each value follows from its number, so that any number of threads
/// draws the same.
pub(crate) fn parameters(config: &ModelConfig, seed: u64, threads: &Threads) -> Vec<f32> {
    let arena = config.arena();
    // Zeroed by the system, and first touched by the thread that draws.
    let mut values = vec![0.0; arena.len];
    let all = Shared::new(&mut values);
    let spans: Vec<(&Placed, usize)> = arena
        .tensors
        .iter()
        .flat_map(|tensor| (0..tensor.range.len()).step_by(SPAN).map(move |first| (tensor, first)))
        .collect();
    threads.for_each(spans.len(), |index| {
        let (tensor, first) = spans[index];
        let start = tensor.range.start + first;
        // SAFETY: spans are disjoint.
        let values = unsafe { all.part(start, tensor.range.end.min(start + SPAN)) };
        fill(values, first as u64, tensor, config, seed);
    });
    values
}

/// Draws the values of a tensor from number `first` on.
fn fill(values: &mut [f32], first: u64, tensor: &Placed, config: &ModelConfig, seed: u64) {
    let &[_, inputs] = tensor.info.shape.as_slice() else {
        values.fill(1.0);
        return;
    };
    let scale = (deviation(&tensor.info.name, inputs, config) / sum_deviation()) as f32;
    let key = key(seed, &tensor.info.name);
    for (index, value) in (first..).zip(values) {
        *value = centred_sum(splitmix(key, index)) as f32 * scale;
    }
}

/// The standard deviation of a matrix with `inputs` columns.
fn deviation(name: &str, inputs: usize, config: &ModelConfig) -> f64 {
    if name == "model.embed_tokens.weight" || name == "lm_head.weight" {
        return EMBEDDING_DEVIATION;
    }
    let deviation = (0.4 / inputs as f64).sqrt();
    let into_residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
    match into_residual {
        true => deviation / (2.0 * config.layers as f64).sqrt(),
        false => deviation,
    }
}

/// The generator's key for a tensor.
fn key(seed: u64, name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN);
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Output `index` of SplitMix64 with the state `key` (Steele, Lea and Flood 2014).
fn splitmix(key: u64, index: u64) -> u64 {
    let mut z = key.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The four 16-bit parts of `bits`, summed and centred: −131070 to 131070, exact in `f32`.
fn centred_sum(bits: u64) -> i32 {
    let part = |index: u32| ((bits >> (16 * index)) & 0xFFFF) as i32;
    part(0) + part(1) + part(2) + part(3) - 2 * 0xFFFF
}

/// Standard deviation of [`centred_sum`]: √(4 · (2^32 − 1) / 12).
fn sum_deviation() -> f64 {
    (4.0 * (4_294_967_296.0 - 1.0) / 12.0f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_have_the_deviation_that_is_divided_by() {
        let count = 1 << 16;
        let sums = (0..count).map(|index| f64::from(centred_sum(splitmix(7, index))));
        let squares: f64 = sums.map(|sum| sum * sum).sum();
        let measured = (squares / count as f64).sqrt();
        assert!((measured / sum_deviation() - 1.0).abs() < 0.01);
    }
}
