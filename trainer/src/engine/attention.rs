//! Causal attention within documents, forward and backward, in blocks of rows.

use crate::config::ModelConfig;
use crate::matmul::{Part, Parts, View};
use crate::ops;
use crate::plan::ATTENTION_ROWS;
use crate::threads::{Shared, Threads};

/// How the heads of a sample lie in q|k|v and in attention's output.
#[derive(Clone, Copy)]
struct Heads {
    seq_len: usize,
    head_dim: usize,
    qkv_dim: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    group: usize,
    rows: usize,
    scale: f32,
}

impl Heads {
    fn new(config: &ModelConfig) -> Self {
        Self {
            seq_len: config.seq_len,
            head_dim: config.head_dim(),
            qkv_dim: config.qkv_dim(),
            hidden: config.hidden,
            heads: config.heads,
            kv_heads: config.kv_heads,
            group: config.heads / config.kv_heads,
            rows: ATTENTION_ROWS.min(config.seq_len),
            scale: 1.0 / (config.head_dim() as f32).sqrt(),
        }
    }

    /// Where query `row` of `head` of `sample` starts in q|k|v.
    fn query(&self, sample: usize, head: usize, row: usize) -> usize {
        (sample * self.seq_len + row) * self.qkv_dim + head * self.head_dim
    }

    /// Where the keys of `kv_head` start.
    fn keys(&self, sample: usize, kv_head: usize) -> usize {
        self.query(sample, self.heads + kv_head, 0)
    }

    /// Where the values of `kv_head` start.
    fn values(&self, sample: usize, kv_head: usize) -> usize {
        self.query(sample, self.heads + self.kv_heads + kv_head, 0)
    }

    /// Where `row` of `head` of `sample` starts in attention's output.
    fn output(&self, sample: usize, head: usize, row: usize) -> usize {
        (sample * self.seq_len + row) * self.hidden + head * self.head_dim
    }

    /// The blocks of rows, from the last to the first: (first, end).
    fn blocks_from_last(&self) -> impl Iterator<Item = (usize, usize)> {
        let (rows, seq_len) = (self.rows, self.seq_len);
        (0..seq_len.div_ceil(rows)).rev().map(move |block| {
            let first = block * rows;
            (first, (first + rows).min(seq_len))
        })
    }
}

/// Calls `task(products, scratch, sample, kv_head)` for all pairs, each part of them with products and
/// scratch of its own.
fn for_each_kv_head(
    threads: &Threads,
    parts: &Parts<'_>,
    heads: Heads,
    samples: usize,
    scratch: &mut [f32],
    task: impl Fn(&mut Part<'_>, &mut [f32], usize, usize) + Sync + Send,
) {
    let pairs = samples * heads.kv_heads;
    let count = threads.count();
    let scratch_len = scratch.len() / count;
    let scratch = Shared::new(scratch);
    threads.for_each(count, |part| {
        // SAFETY: each part has its own.
        let mut products = unsafe { parts.part(part) };
        // SAFETY: likewise.
        let scratch = unsafe { scratch.part(part * scratch_len, (part + 1) * scratch_len) };
        for pair in pairs * part / count..pairs * (part + 1) / count {
            task(
                &mut products,
                scratch,
                pair / heads.kv_heads,
                pair % heads.kv_heads,
            );
        }
    });
}

/// Causal attention within documents: (T, Q) → (T, D), with the logarithms of the softmax's sums for the backward
/// pass.
#[allow(
    clippy::too_many_arguments,
    reason = "buffers that a caller has laid out"
)]
pub(super) fn attend(
    threads: &Threads,
    parts: &Parts<'_>,
    config: &ModelConfig,
    samples: usize,
    qkv: &[f32],
    starts: &[u32],
    attended: &mut [f32],
    log_sums: &mut [f32],
    scratch: &mut [f32],
) {
    let heads = Heads::new(config);
    let (seq_len, head_dim, qkv_dim) = (heads.seq_len, heads.head_dim, heads.qkv_dim);
    assert!(qkv.len() >= samples * seq_len * qkv_dim);
    let (attended, log_sums) = (Shared::new(attended), Shared::new(log_sums));
    for_each_kv_head(
        threads,
        parts,
        heads,
        samples,
        scratch,
        |products, scratch, sample, kv_head| {
            let starts = &starts[sample * seq_len..(sample + 1) * seq_len];
            for head in kv_head * heads.group..(kv_head + 1) * heads.group {
                for (first, end) in heads.blocks_from_last() {
                    let queries = &qkv[heads.query(sample, head, first)..];
                    let rows = end - first;
                    // No row of the block sees a key before its first row's document.
                    let from = starts[first] as usize;
                    let width = end - from;
                    let keys = &qkv[heads.keys(sample, kv_head) + from * qkv_dim..];
                    let values = &qkv[heads.values(sample, kv_head) + from * qkv_dim..];
                    let scores = &mut scratch[..rows * width];
                    // SAFETY: all views lie inside their matrices; the scores are this task's own.
                    unsafe {
                        products.product(
                            (rows, width, head_dim),
                            View::new(scores.as_mut_ptr(), width, 1),
                            View::new(queries.as_ptr(), qkv_dim, 1),
                            View::new(keys.as_ptr(), 1, qkv_dim),
                            heads.scale,
                            false,
                        );
                    }
                    let log_start = (sample * heads.heads + head) * seq_len;
                    // SAFETY: one task for each head of each sample.
                    let log_sums = unsafe { log_sums.part(log_start + first, log_start + end) };
                    ops::causal_softmax(scores, width, &starts[first..end], first, log_sums);
                    // SAFETY: as above; each head of each sample has its own columns and rows.
                    unsafe {
                        products.product(
                            (rows, head_dim, width),
                            View::new(
                                attended.at(heads.output(sample, head, first)),
                                heads.hidden,
                                1,
                            ),
                            View::new(scores.as_ptr(), width, 1),
                            View::new(values.as_ptr(), qkv_dim, 1),
                            1.0,
                            false,
                        );
                    }
                }
            }
        },
    );
}

/// Attention backward: the gradient of q|k|v (after rotation) from that of attention's output.
///
/// Blocks run from the last to the first: the last one sees all keys of its documents, so the first
/// head of a group writes the gradient of keys and values there (and zeros before those documents)
/// and everything after it adds to it.
#[allow(
    clippy::too_many_arguments,
    reason = "buffers that a caller has laid out"
)]
pub(super) fn attend_backward(
    threads: &Threads,
    parts: &Parts<'_>,
    config: &ModelConfig,
    samples: usize,
    qkv: &[f32],
    starts: &[u32],
    attended: &[f32],
    d_attended: &[f32],
    log_sums: &[f32],
    d_qkv: &mut [f32],
    scratch: &mut [f32],
) {
    let heads = Heads::new(config);
    let (seq_len, head_dim, qkv_dim) = (heads.seq_len, heads.head_dim, heads.qkv_dim);
    let hidden = heads.hidden;
    assert!(qkv.len() >= samples * seq_len * qkv_dim);
    assert!(d_attended.len() >= samples * seq_len * hidden);
    let d_qkv = Shared::new(d_qkv);
    for_each_kv_head(
        threads,
        parts,
        heads,
        samples,
        scratch,
        |products, scratch, sample, kv_head| {
            let (p_scratch, dp_scratch) = scratch.split_at_mut(scratch.len() / 2);
            let starts = &starts[sample * seq_len..(sample + 1) * seq_len];
            let (key_start, value_start) =
                (heads.keys(sample, kv_head), heads.values(sample, kv_head));
            let mut accumulate = false;
            for head in kv_head * heads.group..(kv_head + 1) * heads.group {
                for (first, end) in heads.blocks_from_last() {
                    let rows = end - first;
                    let from = starts[first] as usize;
                    let width = end - from;
                    let skipped = from * qkv_dim;
                    let keys = View::new(qkv[key_start + skipped..].as_ptr(), qkv_dim, 1);
                    let values = View::new(qkv[value_start + skipped..].as_ptr(), 1, qkv_dim);
                    let d_keys = View::new(d_qkv.at(key_start + skipped), qkv_dim, 1);
                    let d_values = View::new(d_qkv.at(value_start + skipped), qkv_dim, 1);
                    if !accumulate {
                        for row in 0..from {
                            for start in [key_start, value_start] {
                                let start = start + row * qkv_dim;
                                // SAFETY: each pair of a sample and a key head has its own columns.
                                unsafe { d_qkv.part(start, start + head_dim) }.fill(0.0);
                            }
                        }
                    }
                    let (p, dp) = (
                        &mut p_scratch[..rows * width],
                        &mut dp_scratch[..rows * width],
                    );
                    let queries = &qkv[heads.query(sample, head, first)..];
                    let queries = View::new(queries.as_ptr(), qkv_dim, 1);
                    let output_start = heads.output(sample, head, first);
                    let d_output = View::new(d_attended[output_start..].as_ptr(), hidden, 1);
                    let mut run = |shape, c, a, b, scale, accumulate| {
                        // SAFETY: all views lie inside their matrices; each pair of a sample and a
                        // key head has its own columns and rows of `d_qkv`, and its own scratch.
                        unsafe {
                            products.product(shape, c, a, b, scale, accumulate);
                        }
                    };

                    // p = softmax(scale · q · kᵀ)
                    let keys_transposed = View::new(keys.start, 1, qkv_dim);
                    let shape = (rows, width, head_dim);
                    let p_out = View::new(p.as_mut_ptr(), width, 1);
                    run(shape, p_out, queries, keys_transposed, heads.scale, false);
                    let log_start = (sample * heads.heads + head) * seq_len;
                    let log_sums = &log_sums[log_start + first..log_start + end];
                    ops::causal_softmax_again(p, width, &starts[first..end], first, log_sums);

                    // dv += pᵀ · do;  dp = do · vᵀ
                    let p_transposed = View::new(p.as_ptr(), 1, width);
                    let shape = (width, head_dim, rows);
                    run(shape, d_values, p_transposed, d_output, 1.0, accumulate);
                    let shape = (rows, width, head_dim);
                    run(
                        shape,
                        View::new(dp.as_mut_ptr(), width, 1),
                        d_output,
                        values,
                        1.0,
                        false,
                    );

                    // ds = p · (dp − Σ p · dp) · scale, the sum being do · o
                    let mut dots = [0.0f32; ATTENTION_ROWS];
                    for (row, dot) in dots[..rows].iter_mut().enumerate() {
                        let start = output_start + row * hidden;
                        let columns = start..start + head_dim;
                        *dot = ops::dot(&attended[columns.clone()], &d_attended[columns]);
                    }
                    ops::softmax_backward(dp, p, width, &dots[..rows], heads.scale);

                    // dq = ds · k;  dk += dsᵀ · q
                    let ds = View::new(dp.as_ptr(), width, 1);
                    let d_queries =
                        View::new(d_qkv.at(heads.query(sample, head, first)), qkv_dim, 1);
                    run((rows, head_dim, width), d_queries, ds, keys, 1.0, false);
                    let ds_transposed = View::new(dp.as_ptr(), 1, width);
                    run(
                        (width, head_dim, rows),
                        d_keys,
                        ds_transposed,
                        queries,
                        1.0,
                        accumulate,
                    );
                    accumulate = true;
                }
            }
        },
    );
}
