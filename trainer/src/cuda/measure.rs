//! Times a GPU: products, attention, what is bound by memory, copies.
//!
//! Written for any [`Gpu`], so that it runs on the emulator, whose times mean nothing, with sizes that are small.

use std::time::Instant;

use super::gpu::{Address, Gpu, GpuError, Product, ProductForm, ProductResult, Stream};
use super::kernels::attention::{self, Attend, AttendBackward, AttendDots, Shape};
use super::kernels::norm::{add_norm, AddNorm, Addend};
use super::kernels::optimiser::{adamw, AdamW};
use super::kernels::rows::{swiglu, Swiglu};
use super::kernels::sparse::{encode_chunks, slot_bytes, Encode, Values};
use crate::engine::optimiser::AdamWSettings;

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Rows of a product.
    pub tokens: u32,
    /// Columns and terms of each matrix.
    pub matrices: [(u32, u32); 4],
    /// The attention.
    pub attention: Shape,
    /// Values of a row of what is bound by memory.
    pub width: u32,
    /// Parameters of an optimiser's step and of an update, a multiple of 4096.
    pub parameters: u64,
    /// Bytes of a copy.
    pub copied: u64,
    /// Times that each is done between two looks at the clock.
    pub repeats: u32,
}

impl Sizes {
    /// Of a model of 8B parameters at 4,096 tokens a sample: its layers' matrices and heads.
    pub const LARGE: Self = Self {
        tokens: 12_288,
        matrices: [(6_144, 4_096), (4_096, 4_096), (28_672, 4_096), (4_096, 14_336)],
        attention: Shape { samples: 3, seq_len: 4_096, heads: 32, kv_heads: 8, head_width: 128 },
        width: 4_096,
        parameters: 1 << 28,
        copied: 1 << 30,
        repeats: 10,
    };

    /// So little that an emulator does it.
    pub const SMALL: Self = Self {
        tokens: 64,
        matrices: [(96, 64), (64, 64), (128, 64), (64, 128)],
        attention: Shape { samples: 1, seq_len: 64, heads: 2, kv_heads: 1, head_width: 64 },
        width: 64,
        parameters: 1 << 13,
        copied: 1 << 16,
        repeats: 1,
    };
}

/// One measurement.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// What was done.
    pub name: String,
    /// Seconds of one.
    pub seconds: f64,
    /// How much of it: operations or bytes a second.
    pub rate: f64,
    /// `TFLOP/s` or `GB/s`.
    pub unit: &'static str,
}

/// How to find the best of a library's ways for a product: seconds of each, as
/// [`Hardware::compare_products`](super::hardware::Hardware::compare_products).
pub type Compare<'a> = &'a dyn Fn(&Product, u32) -> Result<Vec<f64>, GpuError>;

/// Times everything; the arena is allocated once.
///
/// # Errors
/// There is not enough memory, or a call fails.
pub fn all(
    gpu: &dyn Gpu,
    sizes: &Sizes,
    compare: Option<Compare<'_>>,
) -> Result<Vec<Measured>, GpuError> {
    let bytes = arena(sizes);
    let bench = Bench { gpu, sizes: *sizes, arena: gpu.allocate(bytes)? };
    gpu.clear(STREAM, bench.arena, bytes)?;
    let mut measured = bench.products(compare)?;
    measured.extend(bench.attention()?);
    measured.extend(bench.memory_bound()?);
    measured.extend(bench.copies()?);
    Ok(measured)
}

const STREAM: Stream = Stream::Compute;

/// Bytes that the largest measurement needs.
fn arena(sizes: &Sizes) -> u64 {
    let tokens = u64::from(sizes.tokens);
    let product = sizes.matrices.iter().map(|(n, k)| {
        let (n, k) = (u64::from(*n), u64::from(*k));
        2 * tokens * (n + k) + 4 * n * k
    });
    let shape = sizes.attention;
    let row = u64::from((shape.heads + 2 * shape.kv_heads) * shape.head_width);
    let rows = u64::from(shape.samples) * u64::from(shape.seq_len);
    let attention = rows * (2 * row * 2 + 2 * row * 2 + 4 * u64::from(3 * shape.heads + 1));
    let optimiser = sizes.parameters * 20;
    let rows = tokens * u64::from(sizes.width) * 8;
    let most = product.chain([attention, optimiser, rows, 2 * sizes.copied]).max();
    most.unwrap_or(0) + (1 << 16)
}

struct Bench<'a> {
    gpu: &'a dyn Gpu,
    sizes: Sizes,
    arena: Address,
}

impl Bench<'_> {
    /// Places behind each other in the arena, each of so many bytes.
    fn places<const N: usize>(&self, bytes: [u64; N]) -> [Address; N] {
        let mut next = self.arena;
        bytes.map(|bytes| {
            let at = next;
            next = next.plus(bytes.next_multiple_of(256));
            at
        })
    }

    /// Seconds of one of what `start` starts.
    fn seconds(
        &self,
        streams: &[Stream],
        start: impl Fn() -> Result<(), GpuError>,
    ) -> Result<f64, GpuError> {
        let wait = || streams.iter().try_for_each(|stream| self.gpu.synchronise(*stream));
        start()?;
        wait()?;
        let started = Instant::now();
        for _ in 0..self.sizes.repeats {
            start()?;
        }
        wait()?;
        Ok(started.elapsed().as_secs_f64() / f64::from(self.sizes.repeats))
    }

    fn products(&self, compare: Option<Compare<'_>>) -> Result<Vec<Measured>, GpuError> {
        let mut measured = Vec::new();
        let m = self.sizes.tokens;
        for (n, k) in self.sizes.matrices {
            let [t, o, i] = [m, n, k].map(u64::from);
            let [x, w, y] = self.places([2 * t * i, 4 * o * i, 2 * t * o]);
            let nt = Product {
                form: ProductForm::Nt,
                m,
                n,
                k,
                a: (x, k),
                b: (w, k),
                d: (y, n),
                result: ProductResult::Bf16,
                alpha: 1.0,
                beta: 0.0,
            };
            let nn = Product { form: ProductForm::Nn, n: k, k: n, a: (y, n), d: (x, k), ..nt };
            let tn = Product {
                form: ProductForm::Tn,
                m: n,
                n: k,
                k: m,
                a: (y, n),
                b: (x, k),
                d: (w, k),
                result: ProductResult::F32,
                beta: 1.0,
                ..nt
            };
            for (name, product) in
                [("forward", nt), ("input's gradient", nn), ("weight's gradient", tn)]
            {
                let operations = 2.0 * f64::from(m) * f64::from(n) * f64::from(k);
                let name = format!("product {n} × {k}, {name}");
                let mut add = |name: String, seconds: f64| {
                    let rate = operations / seconds;
                    measured.push(Measured { name, seconds, rate, unit: "TFLOP/s" });
                };
                let seconds = self.seconds(&[STREAM], || self.gpu.product(STREAM, &product))?;
                add(name.clone(), seconds);
                if let Some(compare) = compare {
                    let ways = compare(&product, self.sizes.repeats)?;
                    let best = ways.iter().copied().fold(f64::INFINITY, f64::min);
                    add(format!("{name}, best of {}", ways.len()), best);
                }
            }
        }
        Ok(measured)
    }

    fn attention(&self) -> Result<Vec<Measured>, GpuError> {
        let shape = self.sizes.attention;
        let [samples, tokens, heads, width] =
            [shape.samples, shape.seq_len, shape.heads, shape.head_width].map(u64::from);
        let row = u64::from(shape.heads + 2 * shape.kv_heads) * width;
        let rows = samples * tokens;
        let [qkv, d_qkv, out, d_out, starts, log_sums, dots] = self.places([
            2 * rows * row,
            2 * rows * row,
            2 * rows * heads * width,
            2 * rows * heads * width,
            4 * rows,
            4 * rows * heads,
            4 * rows * heads,
        ]);
        // One document a sample.
        self.gpu.clear(STREAM, starts, 4 * rows)?;
        let forward = Attend { shape, qkv, starts, out, log_sums };
        let of_dots = AttendDots { shape, out, d_out, dots };
        let back = AttendBackward { shape, qkv, starts, d_out, log_sums, dots, d_qkv };
        let seconds = self.seconds(&[STREAM], || attention::attend(self.gpu, STREAM, &forward))?;
        let backward = self.seconds(&[STREAM], || {
            attention::attend_dots(self.gpu, STREAM, &of_dots)?;
            attention::attend_backward_keys(self.gpu, STREAM, &back)?;
            attention::attend_backward_queries(self.gpu, STREAM, &back)
        })?;
        // Two products over half of the square forward; what the backward pass's two kernels compute is seven.
        let product = (samples * heads * tokens * tokens * width) as f64;
        let of = |name: &str, products: f64, seconds: f64| Measured {
            name: format!(
                "attention {tokens} × {}/{} × {width}, {name}",
                shape.heads, shape.kv_heads
            ),
            seconds,
            rate: products * product / seconds,
            unit: "TFLOP/s",
        };
        Ok(vec![of("forward", 2.0, seconds), of("backward, executed", 7.0, backward)])
    }

    fn memory_bound(&self) -> Result<Vec<Measured>, GpuError> {
        let (tokens, width) = (self.sizes.tokens, self.sizes.width);
        let len = u64::from(tokens) * u64::from(width);
        let mut measured = Vec::new();
        let mut add = |name: &str, bytes: u64, seconds: f64| {
            let rate = bytes as f64 / seconds;
            measured.push(Measured { name: name.to_owned(), seconds, rate, unit: "GB/s" });
        };
        let [x, y, normed, w, inverse] =
            self.places([2 * len, 2 * len, 2 * len, 2 * u64::from(width), 4 * u64::from(tokens)]);
        let sum = Some(Addend { y, sum: x });
        let of = AddNorm { x, add: sum, w, normed, inverse, tokens, width, epsilon: 1e-5 };
        add("norm of a sum", 8 * len, self.seconds(&[STREAM], || add_norm(self.gpu, STREAM, &of))?);

        let [gate_up, h] = self.places([4 * len, 2 * len]);
        let of = Swiglu { gate_up, h, tokens, ffn: width };
        add("SwiGLU", 6 * len, self.seconds(&[STREAM], || swiglu(self.gpu, STREAM, &of))?);

        let len = self.sizes.parameters;
        let [hi, lo, mean, square, gradient] =
            self.places([2 * len, 2 * len, 2 * len, 2 * len, 4 * len]);
        let of = AdamW {
            hi,
            lo,
            mean,
            square,
            gradient,
            len,
            first: 0,
            settings: AdamWSettings::default(),
            rate: 1e-3,
            scale: 1.0,
            step: 1,
        };
        add("AdamW", 20 * len, self.seconds(&[STREAM], || adamw(self.gpu, STREAM, &of))?);

        const KEEP: u16 = 64;
        let chunks = len / 4_096;
        let [feedback, start, start_low, local, local_low, slots, lengths] = self.places([
            4 * len,
            2 * len,
            2 * len,
            2 * len,
            2 * len,
            chunks * u64::from(slot_bytes(KEEP)),
            4 * chunks,
        ]);
        let of = Encode {
            feedback,
            start: Values::Halves { hi: start, lo: start_low },
            local: Values::Halves { hi: local, lo: local_low },
            slots,
            lengths,
            len,
            keep: KEEP,
            decay: 0.95,
        };
        add(
            "an update's chunks",
            16 * len,
            self.seconds(&[STREAM], || encode_chunks(self.gpu, STREAM, &of))?,
        );
        Ok(measured)
    }

    fn copies(&self) -> Result<Vec<Measured>, GpuError> {
        let bytes = self.sizes.copied;
        let [from, to] = self.places([bytes, bytes]);
        let (one, other) = (self.gpu.allocate_pinned(bytes)?, self.gpu.allocate_pinned(bytes)?);
        let copy = |stream, to, from| self.gpu.copy(stream, to, from, bytes);
        let (inward, outward) = (Stream::Inward, Stream::Outward);
        let inside = self.seconds(&[STREAM], || copy(STREAM, to, from))?;
        let to_card = self.seconds(&[inward], || copy(inward, to, one))?;
        let to_host = self.seconds(&[outward], || copy(outward, other, from))?;
        let both = self.seconds(&[inward, outward], || {
            copy(inward, to, one)?;
            copy(outward, other, from)
        })?;
        let of = |name: &str, times: f64, seconds: f64| Measured {
            name: name.to_owned(),
            seconds,
            rate: times * bytes as f64 / seconds,
            unit: "GB/s",
        };
        Ok(vec![
            of("copy inside, read and written", 2.0, inside),
            of("copy from the host", 1.0, to_card),
            of("copy to the host", 1.0, to_host),
            of("both ways at once, together", 2.0, both),
        ])
    }
}
