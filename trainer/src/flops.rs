//! How much arithmetic training is, and how much this machine can do: for the utilisation that a
//! training shows (MFU).

use std::time::{Duration, Instant};

use crate::config::ModelConfig;
use crate::threads::Threads;

/// Floating-point operations of training on one token, forward and backward: six for each weight of
/// a matrix product (two forward, four backward; the embedding is looked up, not multiplied), and
/// attention's two products over the half of the context that is before the token,
/// 6 · layers · heads · head_dim · seq_len in all (Chowdhery et al. 2022, appendix B, with causal
/// attention counted once).
pub fn flops_a_token(config: &ModelConfig) -> f64 {
    let weights: usize = config
        .tensors()
        .iter()
        .filter(|tensor| tensor.shape.len() > 1 && tensor.name != "model.embed_tokens.weight")
        .map(|tensor| tensor.len())
        .sum();
    let head = if config.tied {
        config.vocab * config.hidden
    } else {
        0
    };
    let attention = config.layers * config.heads * config.head_dim() * config.seq_len;
    6.0 * (weights + head + attention) as f64
}

/// Floating-point operations a second of matrix products of 512 × 512 × 512 in f32 on `threads`,
/// one product on each: the best of about a quarter of a second.
pub fn measure_flops(threads: &Threads) -> f64 {
    const SIZE: usize = 512;
    let a = vec![1.0f32; SIZE * SIZE];
    let b = vec![0.5f32; SIZE * SIZE];
    let until = Instant::now() + Duration::from_millis(250);
    let mut best = 0.0f64;
    while Instant::now() < until {
        let started = Instant::now();
        threads.for_each(threads.count(), |_| {
            let mut c = vec![0.0f32; SIZE * SIZE];
            let (m, row) = (SIZE, SIZE as isize);
            // SAFETY: three row-major matrices of SIZE · SIZE values, of which `c` is this task's.
            unsafe {
                gemm::gemm(
                    m,
                    m,
                    m,
                    c.as_mut_ptr(),
                    1,
                    row,
                    false,
                    a.as_ptr(),
                    1,
                    row,
                    b.as_ptr(),
                    1,
                    row,
                    0.0f32,
                    1.0f32,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
            std::hint::black_box(&c);
        });
        let flops = 2.0 * (SIZE * SIZE * SIZE * threads.count()) as f64;
        best = best.max(flops / started.elapsed().as_secs_f64());
    }
    best
}
