//! Counts the arithmetic of training, and measures what this machine can do: for the utilisation that a
//! training shows (MFU).

use std::time::{Duration, Instant};

use crate::compute::matmul::{Matrix, Multiplier};
use crate::compute::threads::Rows;
use crate::compute::Compute;
use crate::model::config::ModelConfig;

/// Floating-point operations of training on one token, forward and backward (Chowdhery et al. 2022,
/// appendix B, with causal attention counted once): [`product_flops_a_token`] and
/// [`attention_flops_a_token`].
pub fn flops_a_token(config: &ModelConfig) -> f64 {
    product_flops_a_token(config) + attention_flops_a_token(config)
}

/// Six for each weight of a matrix product: two forward, four backward. The embedding is looked up,
/// not multiplied.
pub fn product_flops_a_token(config: &ModelConfig) -> f64 {
    let weights: usize = config
        .tensors()
        .iter()
        .filter(|tensor| tensor.shape.len() > 1 && tensor.name != "model.embed_tokens.weight")
        .map(|tensor| tensor.len())
        .sum();
    let head = if config.tied { config.vocab * config.hidden } else { 0 };
    6.0 * (weights + head) as f64
}

/// Attention's two products over the half of the context that is before the token, a third of them
/// forward: 6 · layers · heads · head_dim · seq_len.
pub fn attention_flops_a_token(config: &ModelConfig) -> f64 {
    6.0 * (config.layers * config.heads * config.head_dim() * config.seq_len) as f64
}

/// Floating-point operations a second of matrix products of 512 × 512 × 512 in f32, one product on each thread: the best of about a quarter of a second.
pub fn measure_flops(compute: &Compute) -> f64 {
    let Compute { threads, unit } = compute;
    const SIZE: usize = 512;
    let values = SIZE * SIZE;
    let (a, b) = (vec![1.0f32; values], vec![0.5f32; values]);
    let mut multiplier = Multiplier::new(threads.clone(), *unit, unit.packed(SIZE, SIZE));
    let (parts, [b]) = multiplier.prepare([Matrix::forward(&b, SIZE, SIZE)]);
    let mut results = vec![0.0f32; values * threads.count()];
    let results = Rows::new(&mut results, values);
    let until = Instant::now() + Duration::from_millis(250);
    let mut best = 0.0f64;
    while Instant::now() < until {
        let started = Instant::now();
        threads.for_each_on(threads.count(), |thread, _| {
            // SAFETY: each thread has its own.
            let (mut part, c) = unsafe { (parts.part(thread), results.get(thread, thread + 1)) };
            part.rows(SIZE, c, &a, &b, false);
            std::hint::black_box(&c);
        });
        let flops = 2.0 * (values * SIZE * threads.count()) as f64;
        best = best.max(flops / started.elapsed().as_secs_f64());
    }
    best
}
