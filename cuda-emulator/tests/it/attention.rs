//! Attention's kernels against f64, in every order of lanes, under sanitizers and with planted bugs.

use cuda_emulator::{agree_in_all_orders, finds, sanitised, Case, EmulatorError, Sanitizer};
use half::bf16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::cuda::kernels::attention::{
    attend, attend_backward_keys, attend_backward_queries, attend_dots, Attend, AttendBackward,
    AttendDots, Shape,
};
use trainer::cuda::{Address, GpuError, Stream};

/// An attention's data: the shape, where documents begin in each sample, and random values.
struct Data {
    shape: Shape,
    starts: Vec<u32>,
    qkv: Vec<bf16>,
    d_out: Vec<bf16>,
}

impl Data {
    /// `documents`: where they begin, in all samples but the first, which is one document.
    fn new(shape: Shape, documents: &[u32]) -> Self {
        let starts = (0..shape.samples)
            .flat_map(|sample| (0..shape.seq_len).map(move |token| (sample, token)))
            .map(|(sample, token)| {
                let begun = documents.iter().filter(|start| sample > 0 && **start <= token);
                begun.copied().max().unwrap_or(0)
            })
            .collect();
        let tokens = (shape.samples * shape.seq_len) as usize;
        let out = (shape.heads * shape.head_width) as usize;
        let width = out + 2 * (shape.kv_heads * shape.head_width) as usize;
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let qkv = normal(&mut random, tokens * width);
        let d_out = normal(&mut random, tokens * out);
        Self { shape, starts, qkv, d_out }
    }

    fn case(&self) -> Case {
        let mut case = Case::new();
        let shape = self.shape;
        let rows = (shape.samples * shape.heads * shape.seq_len) as usize;
        let qkv = case.input("qkv", &self.qkv);
        let starts = case.input("starts", &self.starts);
        let d_out = case.input("d_out", &self.d_out);
        let out = case.fresh("out", self.d_out.len() * 2);
        let log_sums = case.fresh("log_sums", rows * 4);
        let dots = case.fresh("dots", rows * 4);
        let d_qkv = case.fresh("d_qkv", self.qkv.len() * 2);
        let backward = AttendBackward { shape, qkv, starts, d_out, log_sums, dots, d_qkv };
        case.launch(|gpu| {
            attend(gpu, Stream::Compute, &Attend { shape, qkv, starts, out, log_sums })?;
            attend_dots(gpu, Stream::Compute, &AttendDots { shape, out, d_out, dots })?;
            attend_backward_keys(gpu, Stream::Compute, &backward)?;
            attend_backward_queries(gpu, Stream::Compute, &backward)
        })
        .expect("kernels for this shape");
        case
    }

    /// Where a head of a token is in q|k|v; key-value heads come after the queries', values after keys.
    fn at(&self, sample: u32, token: u32, head: u32) -> usize {
        let Shape { seq_len, heads, kv_heads, head_width, .. } = self.shape;
        let row = u64::from(sample) * u64::from(seq_len) + u64::from(token);
        ((row * u64::from(heads + 2 * kv_heads) + u64::from(head)) * u64::from(head_width)) as usize
    }

    /// The definition in f64, term by term.
    fn expected(&self) -> Expected {
        let Shape { samples, seq_len, heads, kv_heads, head_width } = self.shape;
        let width = head_width as usize;
        let scale = 1.0 / f64::from(head_width).sqrt();
        let wide = |values: &[bf16]| values.iter().map(|value| value.to_f64()).collect::<Vec<_>>();
        let (qkv, d_out) = (wide(&self.qkv), wide(&self.d_out));
        let mut e = Expected {
            out: vec![0.0; d_out.len()],
            log_sums: Vec::new(),
            d_qkv: vec![0.0; qkv.len()],
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for (sample, head) in
            (0..samples).flat_map(|sample| (0..heads).map(move |head| (sample, head)))
        {
            let k_head = heads + head / (heads / kv_heads);
            for token in 0..seq_len {
                let row = (sample * seq_len + token) as usize;
                let own = (row * heads as usize + head as usize) * width;
                let q = self.at(sample, token, head);
                let keys = self.starts[row]..=token;
                let places = keys.map(|key| {
                    (self.at(sample, key, k_head), self.at(sample, key, k_head + kv_heads))
                });
                let places: Vec<_> = places.collect();
                let scores: Vec<f64> = places
                    .iter()
                    .map(|(k, _)| dot(&qkv[q..q + width], &qkv[*k..k + width]) * scale)
                    .collect();
                let log_sum = log_sum(&scores);
                e.log_sums.push(log_sum);
                let shares: Vec<f64> = scores.iter().map(|score| (score - log_sum).exp()).collect();
                let slopes: Vec<f64> = places
                    .iter()
                    .map(|(_, v)| dot(&d_out[own..own + width], &qkv[*v..v + width]))
                    .collect();
                let mean = dot(&shares, &slopes);
                for (((k, v), share), slope) in places.iter().zip(&shares).zip(&slopes) {
                    let d_score = share * (slope - mean) * scale;
                    for i in 0..width {
                        e.out[own + i] += share * qkv[v + i];
                        e.d_qkv[q + i] += d_score * qkv[k + i];
                        e.d_qkv[k + i] += d_score * qkv[q + i];
                        e.d_qkv[v + i] += share * d_out[own + i];
                    }
                }
            }
        }
        e
    }

    /// The heads of q, of k or of v alone.
    fn part<T: Copy>(&self, values: &[T], part: usize) -> Vec<T> {
        let Shape { heads, kv_heads, head_width, .. } = self.shape;
        let ends = [0, heads, heads + kv_heads, heads + 2 * kv_heads]
            .map(|head| (head * head_width) as usize);
        values
            .chunks_exact(ends[3])
            .flat_map(|row| &row[ends[part]..ends[part + 1]])
            .copied()
            .collect()
    }

    /// Runs everything in every order and compares: relative errors of outputs below 4e-3, of gradients below this.
    /// (What a softmax passes back is a difference, and of nearly equal numbers where one key has nearly all of it: of
    /// few keys, or of large scores. One of the two is of outputs as they were rounded.)
    fn check(&self, error_max: f64) {
        let shape = self.shape;
        let outcome = agree_in_all_orders(&self.case()).expect("one outcome");
        let expected = self.expected();
        let out = outcome.values::<bf16>("out");
        near(&format!("{shape:?}: out"), &wide(&out), &expected.out, 4e-3);
        let log_sums = outcome.values::<f32>("log_sums");
        for (got, want) in log_sums.iter().zip(&expected.log_sums) {
            assert!(
                (f64::from(*got) - want).abs() < 1e-5,
                "{shape:?}: log sum {got}, expected {want}"
            );
        }
        let d_qkv = wide(&outcome.values::<bf16>("d_qkv"));
        for (part, name) in ["d_q", "d_k", "d_v"].into_iter().enumerate() {
            let (got, want) = (self.part(&d_qkv, part), self.part(&expected.d_qkv, part));
            near(&format!("{shape:?}: {name}"), &got, &want, error_max);
        }
        self.check_dots(&out, &outcome.values("dots"));
        assert!(outcome.counts.matrix_loads > 0);
        assert_eq!(outcome.counts.conflicts, 0, "{shape:?}: bank conflicts");
    }

    /// The dots are of the rounded outputs, so they are nearer.
    fn check_dots(&self, out: &[bf16], dots: &[f32]) {
        let Shape { seq_len, heads, head_width, .. } = self.shape;
        let rows =
            out.chunks_exact(head_width as usize).zip(self.d_out.chunks_exact(head_width as usize));
        for (row, (out, d_out)) in rows.enumerate() {
            let terms: Vec<f64> =
                out.iter().zip(d_out).map(|(a, b)| a.to_f64() * b.to_f64()).collect();
            let (token, head) = (row / heads as usize, row % heads as usize);
            let (sample, token) = (token / seq_len as usize, token % seq_len as usize);
            let got = f64::from(dots[(sample * heads as usize + head) * seq_len as usize + token]);
            let size: f64 = terms.iter().map(|term| term.abs()).sum();
            assert!(
                (got - terms.iter().sum::<f64>()).abs() <= 1e-6 * size,
                "{:?}: dot of row {row}",
                self.shape
            );
        }
    }
}

struct Expected {
    out: Vec<f64>,
    log_sums: Vec<f64>,
    d_qkv: Vec<f64>,
}

/// Nearly normal values: sums of twelve even ones.
fn normal(random: &mut ChaCha8Rng, count: usize) -> Vec<bf16> {
    (0..count)
        .map(|_| bf16::from_f32((0..12).map(|_| random.gen::<f32>()).sum::<f32>() - 6.0))
        .collect()
}

fn log_sum(scores: &[f64]) -> f64 {
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + scores.iter().map(|score| (score - top).exp()).sum::<f64>().ln()
}

fn wide(values: &[bf16]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

/// The relative L2 error; what is all but zero must be so.
fn near(what: &str, got: &[f64], want: &[f64], error_max: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let size = want.iter().map(|value| value * value).sum::<f64>();
    let apart = got.iter().zip(want).map(|(got, want)| (got - want) * (got - want)).sum::<f64>();
    let error = (apart / size.max(1e-3)).sqrt();
    assert!(error <= error_max, "{what}: error {error:.2e}");
}

fn shape(samples: u32, seq_len: u32, heads: u32, kv_heads: u32, head_width: u32) -> Shape {
    Shape { samples, seq_len, heads, kv_heads, head_width }
}

// Documents begin inside of a tile, at a tile's first and last token, and at the last key of a block; the end is ragged.
const DOCUMENTS: [u32; 4] = [37, 64, 95, 127];

#[test]
fn attention_is_right_at_each_head_width() {
    for head_width in [32, 64, 128] {
        Data::new(shape(2, 140, 2, 1, head_width), &DOCUMENTS).check(4e-3);
    }
}

#[test]
fn attention_is_right_for_groups_of_1_2_4_and_8_heads() {
    for kv_heads in [8, 4, 2, 1] {
        Data::new(shape(2, 40, 8, kv_heads, 32), &[7, 33]).check(4e-3);
    }
}

#[test]
fn attention_is_right_at_each_length() {
    for seq_len in [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129] {
        let error_max = if seq_len < 15 { 3e-2 } else { 6e-3 };
        Data::new(shape(2, seq_len, 1, 1, 32), &[30, 31, 32, 64, 128]).check(error_max);
    }
}

#[test]
fn attention_is_right_where_each_token_is_a_document() {
    let each: Vec<u32> = (0..70).collect();
    Data::new(shape(2, 70, 2, 2, 64), &each).check(4e-3);
}

#[test]
fn attention_keeps_what_large_scores_say() {
    let mut data = Data::new(shape(1, 80, 1, 1, 64), &[]);
    for value in &mut data.qkv {
        *value = bf16::from_f32(value.to_f32() * 4.0);
    }
    data.check(1e-2);
}

#[test]
fn attention_is_clean_under_asan_and_ubsan() {
    for head_width in [32, 64, 128] {
        sanitised(
            &Data::new(shape(2, 140, 2, 1, head_width), &DOCUMENTS).case(),
            Sanitizer::Address,
        )
        .unwrap();
    }
}

#[test]
fn attention_is_clean_under_tsan() {
    sanitised(&Data::new(shape(1, 97, 2, 1, 32), &[]).case(), Sanitizer::Thread).unwrap();
}

/// What is planted in attention.cu, by kernel.
const IN_ATTEND: [&str; 8] = [
    "BUG_NO_SWIZZLE",
    "BUG_ATTEND_NO_WAIT",
    "BUG_ATTEND_WAIT_AFTER_BARRIER",
    "BUG_ATTEND_NO_BARRIER",
    "BUG_LAST_TILE",
    "BUG_DOCUMENT_START",
    "BUG_NOT_CAUSAL",
    "BUG_SUM_NOT_RESCALED",
];
const IN_KEYS: [&str; 4] =
    ["BUG_KEYS_NO_WAIT", "BUG_KEYS_NO_BARRIER", "BUG_LAST_QUERIES", "BUG_DOCUMENT_END"];
const IN_QUERIES: [&str; 5] = [
    "BUG_QUERIES_NO_WAIT_FOR_ROWS",
    "BUG_QUERIES_NO_BARRIER_FOR_ROWS",
    "BUG_QUERIES_NO_WAIT",
    "BUG_QUERIES_NO_BARRIER",
    "BUG_QUERIES_NOT_CAUSAL",
];
const PAST_THE_END: [&str; 2] = ["BUG_ROW_PAST_THE_END", "BUG_DOTS_PAST_THE_END"];

/// Each must be found in a case of two samples that has all of: a ragged end, a second block of keys, documents.
fn find_each(bugs: &[&str]) {
    let case = Data::new(shape(2, 140, 2, 1, 32), &DOCUMENTS).case();
    for bug in bugs {
        let finding =
            finds(&case, bug).expect("a compiler").unwrap_or_else(|| panic!("{bug} is not found"));
        println!("{}", finding.to_string().lines().next().unwrap_or_default());
    }
}

#[test]
fn attention_shows_each_bug_of_order_planted_forward() {
    find_each(&IN_ATTEND[..4]);
}

#[test]
fn attention_shows_each_bug_of_bounds_planted_forward() {
    find_each(&IN_ATTEND[4..]);
}

#[test]
fn attention_shows_each_bug_planted_for_keys() {
    find_each(&IN_KEYS);
}

#[test]
fn attention_shows_each_bug_planted_for_queries() {
    find_each(&IN_QUERIES);
}

#[test]
fn attention_shows_each_bug_planted_at_the_end() {
    find_each(&PAST_THE_END);
}

#[test]
fn attention_has_no_planted_bug_that_no_test_looks_for() {
    let mut listed = [&IN_ATTEND[..], &IN_KEYS, &IN_QUERIES, &PAST_THE_END].concat();
    let source = trainer::cuda::kernels::source("attention").unwrap();
    let mut planted: Vec<&str> = source
        .lines()
        .filter(|line| line.starts_with('#'))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("BUG_"))
        .collect();
    planted.sort_unstable();
    planted.dedup();
    listed.sort_unstable();
    assert_eq!(planted, listed);
}

#[test]
fn attention_names_the_head_widths_that_it_has() {
    let mut case = Case::new();
    let at = case.fresh("nothing", 16);
    let start = |case: &mut Case, shape: Shape| {
        let arrays = Attend { shape, qkv: at, starts: at, out: at, log_sums: Address(0) };
        case.launch(|gpu| {
            attend(gpu, Stream::Compute, &arrays)
                .inspect_err(|e| assert!(matches!(e, GpuError::Failed { .. })))
        })
    };
    let Err(EmulatorError::Case(reason)) = start(&mut case, shape(1, 8, 2, 1, 96)) else {
        panic!("it started")
    };
    assert!(reason.contains("32, 64 and 128 values wide, not 96"), "{reason}");
    let Err(EmulatorError::Case(reason)) = start(&mut case, shape(1, 8, 3, 2, 64)) else {
        panic!("it started")
    };
    assert!(reason.contains("multiple of the key-value heads"), "{reason}");
}
