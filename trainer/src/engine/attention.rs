//! Causal attention within documents, forward and backward, in blocks of rows.

use crate::compute::matmul::{Matrix, Part, Parts, Right, Target, View, CUT};
use crate::compute::ops;
use crate::compute::threads::{Shared, Threads};
use crate::engine::plan::ATTENTION_ROWS;
use crate::model::config::ModelConfig;

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

    /// (seq_len, head_dim) from `start` on in q|k|v.
    fn part<'a>(&self, qkv: &'a [f32], start: usize) -> Matrix<'a> {
        let shape = (self.seq_len, self.head_dim);
        Matrix::part(&qkv[start..], shape, (self.qkv_dim, 1))
    }

    fn keys_of<'a>(&self, qkv: &'a [f32], sample: usize, kv_head: usize) -> Matrix<'a> {
        self.part(qkv, self.keys(sample, kv_head))
    }

    fn values_of<'a>(&self, qkv: &'a [f32], sample: usize, kv_head: usize) -> Matrix<'a> {
        self.part(qkv, self.values(sample, kv_head))
    }

    /// The first key of a block of scores whose first row's document starts at `start`: no later, and where packed
    /// keys can be cut.
    fn first_key(&self, start: u32) -> usize {
        start as usize / CUT * CUT
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

/// What one thread computes with: products, room for scores and room for packed keys and values.
struct Tools<'a> {
    products: Part<'a>,
    scores: &'a mut [f32],
    keys: &'a mut [f32],
}

/// Packs a matrix to the start of `room`; what is left of it.
fn pack<'a>(
    products: &Part<'_>,
    matrix: Matrix<'a>,
    room: &'a mut [f32],
) -> (Right<'a>, &'a mut [f32]) {
    let (packed, rest) = room.split_at_mut(products.packed(&matrix));
    (products.pack(matrix, packed), rest)
}

/// Calls `task(tools, sample, kv_head)` for all pairs, with tools of the thread that calls it, for which `room` has
/// space: that of scores, and that of keys and values.
fn for_each_kv_head(
    threads: &Threads,
    parts: &Parts<'_>,
    heads: Heads,
    samples: usize,
    room: [&mut [f32]; 2],
    task: impl Fn(&mut Tools<'_>, usize, usize) + Sync,
) {
    let count = threads.count();
    let lens = [room[0].len() / count, room[1].len() / count];
    let room = room.map(Shared::new);
    threads.for_each_on(samples * heads.kv_heads, |thread, pair| {
        // SAFETY: each thread has its own.
        let mut tools = unsafe {
            let own =
                |index: usize| room[index].part(thread * lens[index], (thread + 1) * lens[index]);
            Tools { products: parts.part(thread), scores: own(0), keys: own(1) }
        };
        task(&mut tools, pair / heads.kv_heads, pair % heads.kv_heads);
    });
}

/// Causal attention within documents: (T, Q) → (T, D), with the logarithms of the softmax's sums for the backward
/// pass.
#[allow(clippy::too_many_arguments, reason = "buffers that a caller has laid out")]
pub(super) fn attend(
    threads: &Threads,
    parts: &Parts<'_>,
    config: &ModelConfig,
    samples: usize,
    qkv: &[f32],
    starts: &[u32],
    attended: &mut [f32],
    log_sums: &mut [f32],
    room: [&mut [f32]; 2],
) {
    let heads = Heads::new(config);
    let (seq_len, head_dim, qkv_dim) = (heads.seq_len, heads.head_dim, heads.qkv_dim);
    assert!(qkv.len() >= samples * seq_len * qkv_dim);
    let (attended, log_sums) = (Shared::new(attended), Shared::new(log_sums));
    for_each_kv_head(threads, parts, heads, samples, room, |tools, sample, kv_head| {
        let starts = &starts[sample * seq_len..(sample + 1) * seq_len];
        let products = &mut tools.products;
        let keys = heads.keys_of(qkv, sample, kv_head).transposed();
        let (keys, rest) = pack(products, keys, tools.keys);
        let (values, _) = pack(products, heads.values_of(qkv, sample, kv_head), rest);
        for head in kv_head * heads.group..(kv_head + 1) * heads.group {
            for (first, end) in heads.blocks_from_last() {
                let queries = &qkv[heads.query(sample, head, first)..];
                let queries = View::new(queries.as_ptr(), qkv_dim, 1);
                let (rows, from) = (end - first, heads.first_key(starts[first]));
                let width = end - from;
                let scores = &mut tools.scores[..rows * width];
                let to = View::new(scores.as_mut_ptr(), width, 1);
                // SAFETY: all views lie inside their matrices; the scores are this task's own.
                unsafe {
                    let to = Target::set(to).times(heads.scale);
                    let shape = (rows, width, head_dim);
                    products.product_with(shape, to, queries, &keys, (0, from));
                }
                let log_start = (sample * heads.heads + head) * seq_len;
                // SAFETY: one task for each head of each sample.
                let log_sums = unsafe { log_sums.part(log_start + first, log_start + end) };
                ops::causal_softmax(scores, width, &starts[first..end], (from, first), log_sums);
                let scores = View::new(scores.as_ptr(), width, 1);
                // SAFETY: as above; each head of each sample has its own columns and rows.
                unsafe {
                    let to = attended.at(heads.output(sample, head, first));
                    let to = Target::set(View::new(to, heads.hidden, 1));
                    let shape = (rows, head_dim, width);
                    products.product_with(shape, to, scores, &values, (from, 0));
                }
            }
        }
    });
}

/// Attention backward: the gradient of q|k|v (after rotation) from that of attention's output.
///
/// Blocks run from the last to the first: the last one sees all keys of its documents, so the first
/// head of a group writes the gradient of keys and values there (and zeros before those documents)
/// and everything after it adds to it.
#[allow(clippy::too_many_arguments, reason = "buffers that a caller has laid out")]
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
    room: [&mut [f32]; 2],
) {
    let heads = Heads::new(config);
    let (seq_len, head_dim, qkv_dim) = (heads.seq_len, heads.head_dim, heads.qkv_dim);
    let hidden = heads.hidden;
    assert!(qkv.len() >= samples * seq_len * qkv_dim);
    assert!(d_attended.len() >= samples * seq_len * hidden);
    let d_qkv = Shared::new(d_qkv);
    for_each_kv_head(threads, parts, heads, samples, room, |tools, sample, kv_head| {
        let (p_room, dp_room) = tools.scores.split_at_mut(tools.scores.len() / 2);
        let products = &mut tools.products;
        let starts = &starts[sample * seq_len..(sample + 1) * seq_len];
        let transposed = heads.keys_of(qkv, sample, kv_head).transposed();
        let (keys_transposed, rest) = pack(products, transposed, tools.keys);
        let transposed = heads.values_of(qkv, sample, kv_head).transposed();
        let (values_transposed, rest) = pack(products, transposed, rest);
        let (keys, _) = pack(products, heads.keys_of(qkv, sample, kv_head), rest);
        let starts_of = [heads.keys(sample, kv_head), heads.values(sample, kv_head)];
        let mut accumulate = false;
        for head in kv_head * heads.group..(kv_head + 1) * heads.group {
            for (first, end) in heads.blocks_from_last() {
                let (rows, from) = (end - first, heads.first_key(starts[first]));
                let width = end - from;
                if !accumulate {
                    for start in starts_of {
                        for row in 0..from {
                            let start = start + row * qkv_dim;
                            // SAFETY: each pair of a sample and a key head has its own columns.
                            unsafe { d_qkv.part(start, start + head_dim) }.fill(0.0);
                        }
                    }
                }
                let [d_keys, d_values] = starts_of.map(|start| {
                    let to = View::new(d_qkv.at(start + from * qkv_dim), qkv_dim, 1);
                    Target::add_if(to, accumulate)
                });
                let (p, dp) = (&mut p_room[..rows * width], &mut dp_room[..rows * width]);
                let queries = &qkv[heads.query(sample, head, first)..];
                let queries = View::new(queries.as_ptr(), qkv_dim, 1);
                let output_start = heads.output(sample, head, first);
                let d_output = View::new(d_attended[output_start..].as_ptr(), hidden, 1);
                let to = |scores: &mut [f32]| Target::set(View::new(scores.as_mut_ptr(), width, 1));
                let (scores_shape, sums_shape) = ((rows, width, head_dim), (width, head_dim, rows));

                // p = softmax(scale · q · kᵀ);  dp = do · vᵀ
                let (p_out, dp_out) = (to(p).times(heads.scale), to(dp));
                // SAFETY: all views lie inside their matrices; p and dp are this task's own.
                unsafe {
                    let place = (0, from);
                    products.product_with(scores_shape, p_out, queries, &keys_transposed, place);
                    products.product_with(
                        scores_shape,
                        dp_out,
                        d_output,
                        &values_transposed,
                        place,
                    );
                }
                let log_start = (sample * heads.heads + head) * seq_len;
                let log_sums = &log_sums[log_start + first..log_start + end];
                let place = (from, first);
                ops::causal_softmax_again(p, width, &starts[first..end], place, log_sums);

                // dv += pᵀ · do
                let p_view = View::new(p.as_ptr(), width, 1);
                // SAFETY: as above; each pair of a sample and a key head has its own columns and rows of `d_qkv`.
                unsafe { products.transposed_product(sums_shape, d_values, p_view, d_output) };

                // ds = p · (dp − Σ p · dp) · scale, the sum being do · o
                let mut dots = [0.0f32; ATTENTION_ROWS];
                let [o, d_o] = [attended, d_attended].map(|values| &values[output_start..]);
                ops::row_dots(o, d_o, hidden, head_dim, &mut dots[..rows]);
                ops::softmax_backward(dp, p, width, &dots[..rows], heads.scale);

                // dq = ds · k;  dk += dsᵀ · q
                let ds = View::new(dp.as_ptr(), width, 1);
                let d_queries = View::new(d_qkv.at(heads.query(sample, head, first)), qkv_dim, 1);
                // SAFETY: as above.
                unsafe {
                    let to = Target::set(d_queries);
                    products.product_with((rows, head_dim, width), to, ds, &keys, (from, 0));
                    products.transposed_product(sums_shape, d_keys, ds, queries);
                }
                accumulate = true;
            }
        }
    });
}
