//! Checks of a GPU: small inputs through every kernel and through the products, and what must come out.
//!
//! What must come out was computed by the emulator and is a file of this crate (`check/expected.bin`), so that a machine with a
//! GPU needs nothing else. Should a card disagree in what is called *exact*, emulator and card understand an instruction
//! differently, and nothing that was computed on this card is to be trusted.
//!
//! A kernel that is added gets its lines in `CHECKS`; a test of `cuda-emulator` says which kernels are in no
//! check, and another that the file is what the emulator computes now
//! (`cargo run --release -p cuda-emulator --example expected` writes it anew).

use super::gpu::{Address, Gpu, GpuError, Product, ProductForm, ProductResult, Stream};
use super::kernel::Kernel;
use super::kernels::attention::{self, Attend, AttendBackward, AttendDots, Shape};
use super::kernels::embedding::{embed, embed_gradient, Embed, EmbedGradient};
use super::kernels::loss::{cross_entropy, CrossEntropy};
use super::kernels::norm::{
    add_norm, norm_again, norm_backward, norm_weight_gradient, AddNorm, Addend, NormAgain,
    NormBackward, NormWeightGradient,
};
use super::kernels::optimiser::{
    adamw, momentum, muon_apply, muon_scale, squares_bf16, sum_parts, AdamW, Momentum, MuonApply,
};
use super::kernels::rows::{rotate, swiglu, swiglu_backward, Rotate, Swiglu, SwigluBackward, Turn};
use super::kernels::sparse::{
    apply_update, encode_chunks, outer_step, slot_bytes, undo_update, Apply, Encode, OuterStep,
    Values,
};
use super::kernels::values::{self, Halves};
use super::twin;
use crate::engine::optimiser::AdamWSettings;

/// What the emulator computed.
const EXPECTED: &[u8] = include_bytes!("check/expected.bin");

/// Bytes of device memory that the checks need.
const ARENA: u64 = 16 << 20;

/// Relative distance (L2) up to which bf16 results agree: a few are rounded the other way.
const NEAR_BF16: f64 = 3e-3;

/// The same of f32 results, of which some come from approximations of exponentials.
const NEAR_F32: f64 = 1e-4;

/// How a result is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// Every bit.
    Exact,
    /// As bf16 values, within a distance.
    NearBf16,
    /// As f32 values, within a distance.
    NearF32,
}

impl Comparison {
    const ALL: [Self; 3] = [Self::Exact, Self::NearBf16, Self::NearF32];
}

/// A result of a check.
#[derive(Clone, PartialEq, Debug)]
pub struct Output {
    /// The check, and which of its results.
    pub name: String,
    /// How it is compared.
    pub comparison: Comparison,
    /// What came out.
    pub bytes: Vec<u8>,
}

/// What a result was found to be.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    /// The check, and which of its results.
    pub name: String,
    /// How it was compared.
    pub comparison: Comparison,
    /// The relative distance; 0 is equal in every bit, or an exact one in which something differs is infinite.
    pub distance: f64,
    /// Whether that is near enough.
    pub agrees: bool,
}

/// A check's name and its results, or why it ended.
pub type Checked = (&'static str, Result<Vec<Output>, GpuError>);

type Run = fn(&mut Desk<'_>) -> Result<(), GpuError>;

/// All checks, each a few kernels that belong together. One that fails stands alone.
const CHECKS: [(&str, Run); 9] = [
    ("values", of_values),
    ("products", of_products),
    ("embedding", of_embedding),
    ("norms", of_norms),
    ("rows", of_rows),
    ("attention", of_attention),
    ("loss", of_loss),
    ("optimisers", of_optimisers),
    ("sparse", of_sparse),
];

/// Runs all checks on a GPU: the name of each with its results.
///
/// # Errors
/// There is no room for the checks at all.
pub fn run(gpu: &dyn Gpu) -> Result<Vec<Checked>, GpuError> {
    let arena = gpu.allocate(ARENA)?;
    let mut results = Vec::new();
    for (name, check) in CHECKS {
        let mut desk = Desk { gpu, arena, used: 0, check: name, outputs: Vec::new() };
        let outcome = check(&mut desk).and_then(|()| gpu.synchronise(Stream::Compute));
        results.push((name, outcome.map(|()| desk.outputs)));
    }
    Ok(results)
}

/// Compares results with what the emulator computed; a result that it did not compute does not agree.
pub fn compare(outputs: &[Output]) -> Vec<Finding> {
    compare_with(&expected(EXPECTED), outputs)
}

fn compare_with(expected: &[Output], outputs: &[Output]) -> Vec<Finding> {
    let find = |name: &str| expected.iter().find(|output| output.name == name);
    let finding = |output: &Output| {
        let distance =
            find(&output.name).map_or(f64::INFINITY, |expected| distance(expected, output));
        let most = match output.comparison {
            Comparison::Exact => 0.0,
            Comparison::NearBf16 => NEAR_BF16,
            Comparison::NearF32 => NEAR_F32,
        };
        Finding {
            name: output.name.clone(),
            comparison: output.comparison,
            distance,
            agrees: distance <= most,
        }
    };
    outputs.iter().map(finding).collect()
}

/// ‖found − expected‖ / ‖expected‖; infinite where lengths differ or something is not finite.
fn distance(expected: &Output, found: &Output) -> f64 {
    if expected.bytes == found.bytes {
        return 0.0;
    }
    if expected.bytes.len() != found.bytes.len() {
        return f64::INFINITY;
    }
    let read = |bytes: &[u8]| -> Vec<f64> {
        match found.comparison {
            Comparison::Exact => Vec::new(),
            Comparison::NearBf16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|pair| twin::widen(u16::from_le_bytes(*pair)).into())
                .collect(),
            Comparison::NearF32 => {
                let values = bytes.as_chunks::<4>().0.iter();
                values.map(|four| f32::from_le_bytes(*four).into()).collect()
            }
        }
    };
    let (expected, found) = (read(&expected.bytes), read(&found.bytes));
    let squares = expected.iter().map(|value| value * value).sum::<f64>();
    let apart = expected.iter().zip(&found).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    let distance = (apart / squares).sqrt();
    // Exact results come here only where a bit differs; so do zeros that should be something.
    if distance.is_finite() && squares > 0.0 {
        distance
    } else {
        f64::INFINITY
    }
}

/// Results as a file: for each, the name's length (u8), the name, how it is compared (u8), bytes (u32), and these.
pub fn to_bytes(outputs: &[Output]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for output in outputs {
        bytes.push(output.name.len().min(255) as u8);
        bytes.extend(output.name.bytes().take(255));
        bytes.push(output.comparison as u8);
        bytes.extend((output.bytes.len() as u32).to_le_bytes());
        bytes.extend(&output.bytes);
    }
    bytes
}

/// Reads [`to_bytes`]; ends where the bytes make no sense.
fn expected(mut bytes: &[u8]) -> Vec<Output> {
    fn next(bytes: &mut &[u8]) -> Option<Output> {
        let mut take = |len: usize| {
            let (head, rest) = bytes.split_at_checked(len)?;
            *bytes = rest;
            Some(head)
        };
        let len = *take(1)?.first()?;
        let name = String::from_utf8(take(len.into())?.to_vec()).ok()?;
        let comparison = *Comparison::ALL.get(usize::from(*take(1)?.first()?))?;
        let len = u32::from_le_bytes(*take(4)?.first_chunk()?);
        Some(Output { name, comparison, bytes: take(len as usize)?.to_vec() })
    }
    std::iter::from_fn(|| next(&mut bytes)).collect()
}

/// Where a check lays out its inputs and takes its results.
struct Desk<'a> {
    gpu: &'a dyn Gpu,
    arena: Address,
    used: u64,
    check: &'static str,
    outputs: Vec<Output>,
}

impl Desk<'_> {
    /// Zeros.
    fn room(&mut self, bytes: usize) -> Result<Address, GpuError> {
        let at = self.arena.plus(self.used);
        self.used += (bytes as u64).next_multiple_of(256);
        if self.used > ARENA {
            return Err(GpuError::OutOfMemory { wanted: self.used, free: ARENA });
        }
        self.gpu.clear(Stream::Compute, at, bytes as u64)?;
        Ok(at)
    }

    fn put<T: bytemuck::Pod>(&mut self, values: &[T]) -> Result<Address, GpuError> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let at = self.room(bytes.len())?;
        self.gpu.upload(Stream::Compute, at, bytes)?;
        Ok(at)
    }

    /// bf16 values from -`scale` to `scale`, the same at each call of the same seed.
    fn bf16(&mut self, seed: u32, len: usize, scale: f32) -> Result<Address, GpuError> {
        let values: Vec<u16> = reals(seed, len, scale).into_iter().map(twin::round).collect();
        self.put(&values)
    }

    fn f32(&mut self, seed: u32, len: usize, scale: f32) -> Result<Address, GpuError> {
        self.put(&reals(seed, len, scale))
    }

    fn take(
        &mut self,
        name: &str,
        comparison: Comparison,
        at: Address,
        bytes: usize,
    ) -> Result<(), GpuError> {
        let mut found = vec![0; bytes];
        self.gpu.download(Stream::Compute, at, &mut found)?;
        let name = format!("{}: {name}", self.check);
        self.outputs.push(Output { name, comparison, bytes: found });
        Ok(())
    }

    fn exact(&mut self, name: &str, at: Address, bytes: usize) -> Result<(), GpuError> {
        self.take(name, Comparison::Exact, at, bytes)
    }

    fn near_bf16(&mut self, name: &str, at: Address, values: usize) -> Result<(), GpuError> {
        self.take(name, Comparison::NearBf16, at, 2 * values)
    }

    fn near_f32(&mut self, name: &str, at: Address, values: usize) -> Result<(), GpuError> {
        self.take(name, Comparison::NearF32, at, 4 * values)
    }
}

/// Values from -`scale` to `scale`, the same on every machine.
fn reals(seed: u32, len: usize, scale: f32) -> Vec<f32> {
    let unit = |at: usize| (twin::noise(seed, at as u64) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    (0..len).map(|at| unit(at) * scale).collect()
}

/// Whole numbers from -3 to 3 as bf16: their products and sums are exact in any order.
fn small_integers(seed: u32, len: usize) -> Vec<u16> {
    let integer = |at: usize| (twin::noise(seed, at as u64) % 7) as f32 - 3.0;
    (0..len).map(|at| twin::round(integer(at))).collect()
}

const STREAM: Stream = Stream::Compute;

fn of_values(desk: &mut Desk<'_>) -> Result<(), GpuError> {
    const LEN: usize = 4_096 + 1_003;
    let len = LEN as u64;
    let (a, b) = (desk.f32(1, LEN, 2.0)?, desk.f32(2, LEN, 1e-3)?);
    let halves = Halves { hi: desk.room(2 * LEN)?, lo: desk.room(2 * LEN)? };
    let (joined, narrow, wide) = (desk.room(4 * LEN)?, desk.room(2 * LEN)?, desk.room(4 * LEN)?);
    let parts = desk.room(16)?;
    values::split(desk.gpu, STREAM, a, halves, len)?;
    values::join(desk.gpu, STREAM, halves, joined, len)?;
    values::add_f32(desk.gpu, STREAM, joined, b, len)?;
    values::narrow(desk.gpu, STREAM, joined, narrow, len)?;
    values::widen(desk.gpu, STREAM, narrow, wide, len)?;
    values::squares(desk.gpu, STREAM, joined, parts, len)?;
    desk.exact("upper halves", halves.hi, 2 * LEN)?;
    desk.exact("lower halves", halves.lo, 2 * LEN)?;
    desk.exact("sums", joined, 4 * LEN)?;
    desk.exact("rounded", narrow, 2 * LEN)?;
    desk.exact("widened", wide, 4 * LEN)?;
    desk.exact("squares", parts, 16)
}

fn of_products(desk: &mut Desk<'_>) -> Result<(), GpuError> {
    const M: usize = 40;
    const N: usize = 48;
    const K: usize = 72;
    // One stride for every operand, longer than any row.
    const STRIDE: usize = 80;
    let rows = M.max(N).max(K);
    let a = desk.put(&small_integers(3, rows * STRIDE))?;
    let b = desk.put(&small_integers(4, rows * STRIDE))?;
    for form in [ProductForm::Nt, ProductForm::Nn, ProductForm::Tn] {
        for (result, bytes) in [(ProductResult::Bf16, 2), (ProductResult::F32, 4)] {
            let d = desk.room(bytes * M * STRIDE)?;
            let mut product = Product {
                form,
                m: M as u32,
                n: N as u32,
                k: K as u32,
                a: (a, STRIDE as u32),
                b: (b, STRIDE as u32),
                d: (d, STRIDE as u32),
                result,
                alpha: 0.5,
                beta: 0.0,
            };
            desk.gpu.product(STREAM, &product)?;
            // Of bf16 sums once rounded are near, f32 sums of halves are exact.
            if result == ProductResult::F32 {
                product.beta = 1.0;
                desk.gpu.product(STREAM, &product)?;
                desk.exact(&format!("{form:?}, f32, added to"), d, bytes * M * STRIDE)?;
            } else {
                desk.exact(&format!("{form:?}, bf16"), d, bytes * M * STRIDE)?;
            }
        }
    }
    Ok(())
}

fn of_embedding(desk: &mut Desk<'_>) -> Result<(), GpuError> {
    const WIDTH: usize = 72;
    const VOCAB: usize = 40;
    // Each token with its position, sorted by token: 7 is there three times, in the order of its positions.
    let tokens: [u32; 8] = [7, 39, 7, 0, 12, 7, 12, 1];
    let order: [u32; 8] = [3, 7, 0, 2, 5, 4, 6, 1];
    let (firsts, ids): ([u32; 6], [u32; 5]) = ([0, 1, 2, 5, 7, 8], [0, 1, 7, 12, 39]);
    let places = [desk.put(&tokens)?, desk.put(&order)?, desk.put(&firsts)?, desk.put(&ids)?];
    let [tokens, order, firsts, ids] = places;
    let table = desk.bf16(5, VOCAB * WIDTH, 1.0)?;
    let d_out = desk.bf16(6, 8 * WIDTH, 1.0)?;
    let (out, gradient) = (desk.room(2 * 8 * WIDTH)?, desk.f32(7, VOCAB * WIDTH, 1.0)?);
    let width = WIDTH as u32;
    embed(desk.gpu, STREAM, &Embed { tokens, table, out, count: 8, width })?;
    let of = EmbedGradient { order, firsts, ids, d_out, gradient, distinct: 5, width };
    embed_gradient(desk.gpu, STREAM, &of)?;
    desk.exact("rows", out, 2 * 8 * WIDTH)?;
    desk.exact("gradient", gradient, 4 * VOCAB * WIDTH)
}

fn of_norms(desk: &mut Desk<'_>) -> Result<(), GpuError> {
    const TOKENS: usize = 70;
    const WIDTH: usize = 136;
    const LEN: usize = TOKENS * WIDTH;
    let (tokens, width) = (TOKENS as u32, WIDTH as u32);
    let (x, y) = (desk.bf16(8, LEN, 2.0)?, desk.bf16(9, LEN, 1.0)?);
    let (w, d_normed) = (desk.bf16(10, WIDTH, 1.0)?, desk.bf16(11, LEN, 1.0)?);
    let d_x = desk.bf16(12, LEN, 1.0)?;
    let (sum, normed, again) = (desk.room(2 * LEN)?, desk.room(2 * LEN)?, desk.room(2 * LEN)?);
    let (inverse, parts) = (desk.room(4 * TOKENS)?, desk.room(4 * 2 * WIDTH)?);
    let gradient = desk.f32(13, WIDTH, 1.0)?;
    let add = Some(Addend { y, sum });
    let of = AddNorm { x, add, w, normed, inverse, tokens, width, epsilon: 1e-5 };
    add_norm(desk.gpu, STREAM, &of)?;
    let of = NormAgain { x: sum, w, inverse, normed: again, tokens, width };
    norm_again(desk.gpu, STREAM, &of)?;
    let of = NormBackward { d_normed, x: sum, w, inverse, d_x, parts, tokens, width, add: true };
    norm_backward(desk.gpu, STREAM, &of)?;
    norm_weight_gradient(
        desk.gpu,
        STREAM,
        &NormWeightGradient { parts, gradient, blocks: 2, width },
    )?;
    desk.exact("residual", sum, 2 * LEN)?;
    desk.near_bf16("normed", normed, LEN)?;
    desk.near_bf16("normed again", again, LEN)?;
    desk.near_f32("inverse", inverse, TOKENS)?;
    desk.near_bf16("gradient", d_x, LEN)?;
    desk.near_f32("gradient of the weights", gradient, WIDTH)
}

fn of_rows(desk: &mut Desk<'_>) -> Result<(), GpuError> {
    const TOKENS: usize = 10;
    const STRIDE: usize = 3 * 32 + 32;
    const FFN: usize = 104;
    let (tokens, ffn) = (TOKENS as u32, FFN as u32);
    let qkv = desk.bf16(14, TOKENS * STRIDE, 1.0)?;
    // Any numbers do in place of cosines and sines.
    let (cos, sin) = (desk.f32(15, 5 * 16, 1.0)?, desk.f32(16, 5 * 16, 1.0)?);
    for (turn, name) in [(Turn::Forward, "turned"), (Turn::Back, "turned back")] {
        let (heads, head_dim, stride) = (3, 32, STRIDE as u32);
        let of = Rotate { qkv, cos, sin, tokens, seq_len: 5, heads, head_dim, stride, turn };
        rotate(desk.gpu, STREAM, &of)?;
        desk.near_bf16(name, qkv, TOKENS * STRIDE)?;
    }
    let (gate_up, d_h) = (desk.bf16(17, 2 * TOKENS * FFN, 4.0)?, desk.bf16(18, TOKENS * FFN, 1.0)?);
    let (h, again) = (desk.room(2 * TOKENS * FFN)?, desk.room(2 * TOKENS * FFN)?);
    let d_gate_up = desk.room(4 * TOKENS * FFN)?;
    swiglu(desk.gpu, STREAM, &Swiglu { gate_up, h, tokens, ffn })?;
    let of = SwigluBackward { gate_up, d_h, h: again, d_gate_up, tokens, ffn };
    swiglu_backward(desk.gpu, STREAM, &of)?;
    desk.near_bf16("swiglu", h, TOKENS * FFN)?;
    desk.near_bf16("swiglu again", again, TOKENS * FFN)?;
    desk.near_bf16("gradient of swiglu", d_gate_up, 2 * TOKENS * FFN)
}

fn of_attention(desk: &mut Desk<'_>) -> Result<(), GpuError> {
    const TOKENS: usize = 140;
    // Two documents, the second from the middle of a tile on.
    let starts: Vec<u32> = (0..TOKENS).map(|at| if at < 37 { 0 } else { 37 }).collect();
    for head_width in attention::HEAD_WIDTHS {
        desk.used = 0;
        let width = head_width as usize;
        let (rows, outs) = (TOKENS * 4 * width, TOKENS * 2 * width);
        let shape = Shape { samples: 1, seq_len: TOKENS as u32, heads: 2, kv_heads: 1, head_width };
        let (qkv, starts) = (desk.bf16(19, rows, 2.0)?, desk.put(&starts)?);
        let (out, log_sums) = (desk.room(2 * outs)?, desk.room(4 * 2 * TOKENS)?);
        let (d_out, dots) = (desk.bf16(20, outs, 1.0)?, desk.room(4 * 2 * TOKENS)?);
        let d_qkv = desk.room(2 * rows)?;
        attention::attend(desk.gpu, STREAM, &Attend { shape, qkv, starts, out, log_sums })?;
        attention::attend_dots(desk.gpu, STREAM, &AttendDots { shape, out, d_out, dots })?;
        let of = AttendBackward { shape, qkv, starts, d_out, log_sums, dots, d_qkv };
        attention::attend_backward_keys(desk.gpu, STREAM, &of)?;
        attention::attend_backward_queries(desk.gpu, STREAM, &of)?;
        desk.near_bf16(&format!("heads of {width}"), out, outs)?;
        desk.near_f32(&format!("log sums, heads of {width}"), log_sums, 2 * TOKENS)?;
        desk.near_bf16(&format!("gradient, heads of {width}"), d_qkv, rows)?;
    }
    Ok(())
}

fn of_loss(desk: &mut Desk<'_>) -> Result<(), GpuError> {
    const ROWS: usize = 6;
    const VOCAB: usize = 1_000;
    let logits = desk.bf16(21, ROWS * VOCAB, 8.0)?;
    let (targets, losses) = (desk.put(&[0u32, 999, 512, 7, 300, 999])?, desk.room(4 * ROWS)?);
    let (rows, vocab, scale) = (ROWS as u32, VOCAB as u32, Some(0.25));
    let of = CrossEntropy { logits, targets, losses, rows, vocab, scale };
    cross_entropy(desk.gpu, STREAM, &of)?;
    desk.near_f32("losses", losses, ROWS)?;
    desk.near_bf16("gradient", logits, ROWS * VOCAB)
}

fn of_optimisers(desk: &mut Desk<'_>) -> Result<(), GpuError> {
    const LEN: usize = 4_096 + 1_000;
    let len = LEN as u64;
    let whole = reals(22, LEN, 0.05);
    let (hi, lo): (Vec<u16>, Vec<u16>) = whole.iter().map(|value| twin::split(*value)).unzip();
    let (hi, lo) = (desk.put(&hi)?, desk.put(&lo)?);
    let squares: Vec<u16> =
        reals(23, LEN, 1e-3).iter().map(|value| twin::round(value.abs())).collect();
    let (mean, square) = (desk.bf16(24, LEN, 1e-2)?, desk.put(&squares)?);
    let gradient = desk.f32(25, LEN, 0.1)?;
    let settings = AdamWSettings::default();
    let (rate, scale, step, first) = (1e-3, 0.7, 3, 1 << 33);
    let of = AdamW { hi, lo, mean, square, gradient, len, first, settings, rate, scale, step };
    adamw(desk.gpu, STREAM, &of)?;
    for (name, at) in
        [("upper halves", hi), ("lower halves", lo), ("means", mean), ("squares", square)]
    {
        desk.exact(name, at, 2 * LEN)?;
    }
    let (direction, parts, norm) = (desk.room(2 * LEN)?, desk.room(16)?, desk.room(8)?);
    let of = Momentum { mean, gradient, direction, len, first, momentum: 0.95, scale, step };
    momentum(desk.gpu, STREAM, &of)?;
    desk.exact("direction", direction, 2 * LEN)?;
    squares_bf16(desk.gpu, STREAM, direction, parts, len)?;
    sum_parts(desk.gpu, STREAM, parts, norm, 2)?;
    muon_scale(desk.gpu, STREAM, direction, len, norm, 1e-7)?;
    let of = MuonApply { hi, lo, direction, len, rate: 2e-3, keep: 0.999 };
    muon_apply(desk.gpu, STREAM, &of)?;
    desk.exact("square of the norm", norm, 8)?;
    desk.exact("scaled direction", direction, 2 * LEN)?;
    desk.exact("upper halves by Muon", hi, 2 * LEN)?;
    desk.exact("lower halves by Muon", lo, 2 * LEN)
}

fn of_sparse(desk: &mut Desk<'_>) -> Result<(), GpuError> {
    /// One whole chunk and a part of one.
    const LEN: usize = 4_096 + 1_500;
    const KEEP: u16 = 64;
    let (len, slot) = (LEN as u64, slot_bytes(KEEP) as usize);
    // Squares of the noise: many small differences and few large ones.
    let start = reals(26, LEN, 0.1);
    let local: Vec<f32> = start
        .iter()
        .zip(reals(27, LEN, 1.0))
        .map(|(start, noise)| start + noise * noise * noise * 0.01)
        .collect();
    let (feedback, start) = (desk.f32(28, LEN, 1e-4)?, desk.put(&start)?);
    let local = desk.put(&local)?;
    let (slots, lengths) = (desk.room(2 * slot)?, desk.room(8)?);
    let of = Encode {
        feedback,
        start: Values::Whole(start),
        local: Values::Whole(local),
        slots,
        lengths,
        len,
        keep: KEEP,
        decay: 0.95,
    };
    encode_chunks(desk.gpu, STREAM, &of)?;
    desk.exact("lengths", lengths, 8)?;
    desk.exact("feedback", feedback, 4 * LEN)?;
    let (mut lens, mut bytes) = ([0u8; 8], vec![0u8; 2 * slot]);
    desk.gpu.download(STREAM, lengths, &mut lens)?;
    desk.gpu.download(STREAM, slots, &mut bytes)?;
    // The chunks one behind the other, as one update has them.
    let lens: Vec<usize> =
        lens.as_chunks::<4>().0.iter().map(|len| u32::from_le_bytes(*len) as usize).collect();
    let mut chunks = Vec::new();
    let mut offsets = vec![0u32];
    for (slot, len) in bytes.chunks(slot).zip(lens) {
        chunks.extend(slot.iter().take(len));
        offsets.push(chunks.len() as u32);
    }
    let name = format!("{}: chunks", desk.check);
    desk.outputs.push(Output { name, comparison: Comparison::Exact, bytes: chunks.clone() });

    // What the kernels read ends with whole words.
    chunks.resize(chunks.len().next_multiple_of(4) + 16, 0);
    let (bytes, offsets) = (desk.put(&chunks)?, desk.put(&offsets)?);
    let saved = desk.room(2 * 4 * usize::from(KEEP))?;
    let theta = Values::Whole(start);
    let of = Apply { theta, bytes, offsets, saved, len, keep: KEEP };
    apply_update(desk.gpu, STREAM, &of, 0.7)?;
    desk.exact("one update applied", start, 4 * LEN)?;
    undo_update(desk.gpu, STREAM, &of)?;
    desk.exact("and taken back", start, 4 * LEN)?;
    let factors = desk.put(&[0.75f32])?;
    let rule = protocol::aggregate::OuterRule::new(900_000, 0);
    let of = OuterStep { theta, bytes, offsets, factors, len, updates: 1, keep: KEEP, rule };
    outer_step(desk.gpu, STREAM, &of)?;
    desk.exact("outer step", start, 4 * LEN)
}

/// What a kernel with its constants is called.
pub fn full_name(kernel: &Kernel) -> String {
    let constants = kernel.defines.iter().map(|(name, value)| format!(" {name}={value}"));
    kernel.name.to_owned() + &constants.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(comparison: Comparison, bytes: &[u8]) -> Output {
        Output { name: "a: b".to_owned(), comparison, bytes: bytes.to_vec() }
    }

    #[test]
    fn results_come_back_from_a_file() {
        let outputs = [output(Comparison::Exact, &[1, 2, 3]), output(Comparison::NearF32, &[0; 8])];
        let bytes = to_bytes(&outputs);
        assert_eq!(expected(&bytes), outputs);
        for len in 0..bytes.len() {
            assert!(expected(&bytes[..len]).len() < 2);
        }
    }

    #[test]
    fn a_bit_is_found_in_what_is_exact_and_a_distance_in_what_is_near() {
        let found = |comparison, expected: &[u8], found: &[u8]| {
            let findings =
                compare_with(&[output(comparison, expected)], &[output(comparison, found)]);
            (findings[0].agrees, findings[0].distance)
        };
        assert_eq!(found(Comparison::Exact, &[1, 2], &[1, 2]), (true, 0.0));
        assert_eq!(found(Comparison::Exact, &[1, 2], &[1, 3]), (false, f64::INFINITY));
        let [one, near, far] = [1.0f32, 1.00001, 1.001].map(f32::to_le_bytes);
        assert!(found(Comparison::NearF32, &one, &near).0);
        assert!(!found(Comparison::NearF32, &one, &far).0);
        assert!(!found(Comparison::NearF32, &one, &f32::NAN.to_le_bytes()).0);
        assert!(!found(Comparison::NearF32, &[0; 4], &one).0);
        assert!(!found(Comparison::NearF32, &one, &one[..2]).0);
        let unknown = Output { name: "c".to_owned(), ..output(Comparison::Exact, &[]) };
        assert!(!compare_with(&[], &[unknown])[0].agrees);
    }
}
