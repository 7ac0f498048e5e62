//! Causal attention within documents: forward, and backward in two kernels that add nothing atomically. The
//! method is FlashAttention-2's (Dao 2023, arXiv:2307.08691); what the arrays hold is said in `attention.cu`.
//!
//! A layer goes forward with [`attend`], and backward with [`attend_dots`], [`attend_backward_keys`] and
//! [`attend_backward_queries`], of which the last two may come in either order.

use crate::cuda::kernel::Kernel;
use crate::cuda::{Address, Argument, Gpu, GpuError, Launch, Stream};

/// Head widths for which there are kernels.
pub const HEAD_WIDTHS: [u32; 3] = [32, 64, 128];

/// Queries of a block of [`attend`].
const FORWARD_ROWS: u32 = 128;
/// Keys of a block of [`attend_backward_keys`], and queries of its tile.
const BACKWARD_KEYS: u32 = 128;
const BACKWARD_KEYS_QUERIES: u32 = 32;
/// Queries of a block of [`attend_backward_queries`].
const BACKWARD_QUERIES: u32 = 64;
/// Keys of a tile of the other two.
const TILE_KEYS: u32 = 32;
/// Threads of a block of [`attend_dots`], and values that each takes of a row.
const DOT_THREADS: u32 = 256;
const DOT_VALUES: u32 = 8;
/// Blocks that a grid has in its second and third direction at most.
const GRID_MAX: u32 = 65_535;

/// The kernels of one head width, in the order of [`Which`].
const fn of_width(head_width: u32, defines: &'static [(&'static str, u32)]) -> [Kernel; 4] {
    let row = head_width * 2;
    [
        // Queries; two tiles of keys and values.
        kernel("attend", defines, 128, 2, (FORWARD_ROWS + 4 * TILE_KEYS) * row),
        kernel("attend_dots", defines, DOT_THREADS, 4, 0),
        // Keys and values; two tiles of queries and gradients, with three values of 4 bytes a query.
        kernel(
            "attend_backward_keys",
            defines,
            256,
            1,
            (2 * BACKWARD_KEYS + 4 * BACKWARD_KEYS_QUERIES) * row
                + 2 * 3 * 4 * BACKWARD_KEYS_QUERIES,
        ),
        // Queries and gradients; two tiles of keys and values.
        kernel(
            "attend_backward_queries",
            defines,
            128,
            2,
            (2 * BACKWARD_QUERIES + 4 * TILE_KEYS) * row,
        ),
    ]
}

const fn kernel(
    name: &'static str,
    defines: &'static [(&'static str, u32)],
    threads: u32,
    blocks: u32,
    shared_max: u32,
) -> Kernel {
    Kernel { name, file: "attention", defines, threads, blocks, shared_max }
}

/// By head width, as in [`HEAD_WIDTHS`].
static BY_WIDTH: [[Kernel; 4]; 3] = [
    of_width(32, &[("HEAD_DIM", 32)]),
    of_width(64, &[("HEAD_DIM", 64)]),
    of_width(128, &[("HEAD_DIM", 128)]),
];

/// All kernels of this file.
pub static KERNELS: &[Kernel] = BY_WIDTH.as_flattened();

/// Which of a head width's kernels.
#[derive(Clone, Copy)]
enum Which {
    Forward,
    Dots,
    Keys,
    Queries,
}

/// The sizes of an attention.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shape {
    /// Samples.
    pub samples: u32,
    /// Tokens of a sample.
    pub seq_len: u32,
    /// Query heads, a multiple of `kv_heads`.
    pub heads: u32,
    /// Key-value heads.
    pub kv_heads: u32,
    /// Values of a head: one of [`HEAD_WIDTHS`].
    pub head_width: u32,
}

impl Shape {
    /// Factor of the scores: 1 / √`head_width`.
    fn scale(&self) -> f32 {
        1.0 / (self.head_width as f32).sqrt()
    }

    /// The kernel for these sizes, if there is one and it can be started on them.
    fn kernel(&self, which: Which) -> Result<&'static Kernel, GpuError> {
        let failed =
            |reason: String| GpuError::Failed { call: format!("attention of {self:?}"), reason };
        let width = HEAD_WIDTHS.iter().position(|width| *width == self.head_width);
        let kernels = width.and_then(|at| BY_WIDTH.get(at)).ok_or_else(|| {
            let [a, b, c] = HEAD_WIDTHS;
            failed(format!(
                "there are kernels for heads {a}, {b} and {c} values wide, not {}",
                self.head_width
            ))
        })?;
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return Err(failed("the heads are not a multiple of the key-value heads".to_owned()));
        }
        if self.samples > GRID_MAX || self.seq_len.div_ceil(BACKWARD_QUERIES) > GRID_MAX {
            return Err(failed("there are more blocks than a grid has".to_owned()));
        }
        // Places within a sample are counted in 32 bits.
        let width = u64::from(self.heads) + 2 * u64::from(self.kv_heads);
        if u64::from(self.seq_len) * width * u64::from(self.head_width) > u64::from(u32::MAX) {
            return Err(failed("a sample has 2^32 values or more".to_owned()));
        }
        let [forward, dots, keys, queries] = kernels;
        Ok(match which {
            Which::Forward => forward,
            Which::Dots => dots,
            Which::Keys => keys,
            Which::Queries => queries,
        })
    }

    /// What follows the pointers among the arguments of all but the dots.
    fn arguments(&self) -> [Argument; 4] {
        [
            Argument::U32(self.seq_len),
            Argument::U32(self.heads),
            Argument::U32(self.kv_heads),
            Argument::F32(self.scale()),
        ]
    }
}

/// What [`attend`] reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Attend {
    /// Sizes.
    pub shape: Shape,
    /// Queries, keys and values after the rotation: bf16 (`samples`, `seq_len`, `heads` + 2 `kv_heads`, `head_width`).
    pub qkv: Address,
    /// Where the document of each token begins in its sample: u32 (`samples`, `seq_len`), at most the token's own
    /// place and never less than the token's before.
    pub starts: Address,
    /// Written: bf16 (`samples`, `seq_len`, `heads`, `head_width`).
    pub out: Address,
    /// Written: the logarithm of the sum of exponentials of each query's scores, f32 (`samples`, `heads`, `seq_len`).
    pub log_sums: Address,
}

/// out = softmax(q · kᵀ / √width) · v, over the keys of a token's own document up to itself.
///
/// # Errors
/// Sizes for which there is no kernel, named, and what the launch says.
pub fn attend(gpu: &dyn Gpu, stream: Stream, arrays: &Attend) -> Result<(), GpuError> {
    let shape = &arrays.shape;
    let kernel = shape.kernel(Which::Forward)?;
    let pointers = [arrays.qkv, arrays.starts, arrays.out, arrays.log_sums].map(Argument::Address);
    let grid = [shape.heads, shape.samples, shape.seq_len.div_ceil(FORWARD_ROWS)];
    start(gpu, stream, kernel, grid, &[&pointers[..], &shape.arguments()])
}

/// What [`attend_dots`] reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct AttendDots {
    /// Sizes.
    pub shape: Shape,
    /// What [`attend`] wrote.
    pub out: Address,
    /// Its gradient, of the same shape.
    pub d_out: Address,
    /// Written: f32 (`samples`, `heads`, `seq_len`).
    pub dots: Address,
}

/// dots = the product of each output with its gradient: what the softmax's gradient subtracts.
///
/// # Errors
/// As [`attend`].
pub fn attend_dots(gpu: &dyn Gpu, stream: Stream, arrays: &AttendDots) -> Result<(), GpuError> {
    let shape = &arrays.shape;
    let kernel = shape.kernel(Which::Dots)?;
    let rows = DOT_THREADS / (shape.head_width / DOT_VALUES);
    let pointers = [arrays.out, arrays.d_out, arrays.dots].map(Argument::Address);
    let sizes = [Argument::U32(shape.seq_len), Argument::U32(shape.heads)];
    let grid = [(shape.seq_len * shape.heads).div_ceil(rows), shape.samples, 1];
    start(gpu, stream, kernel, grid, &[&pointers[..], &sizes])
}

/// What [`attend_backward_keys`] and [`attend_backward_queries`] read and write.
#[derive(Clone, Copy, Debug)]
pub struct AttendBackward {
    /// Sizes.
    pub shape: Shape,
    /// As [`Attend::qkv`].
    pub qkv: Address,
    /// As [`Attend::starts`].
    pub starts: Address,
    /// The gradient of [`Attend::out`].
    pub d_out: Address,
    /// As [`attend`] wrote it.
    pub log_sums: Address,
    /// As [`attend_dots`] wrote it.
    pub dots: Address,
    /// Written: the gradient of `qkv`, of the same shape. Each kernel writes its own part.
    pub d_qkv: Address,
}

/// The gradient of keys and values, summed over a group's query heads.
///
/// # Errors
/// As [`attend`].
pub fn attend_backward_keys(
    gpu: &dyn Gpu,
    stream: Stream,
    arrays: &AttendBackward,
) -> Result<(), GpuError> {
    let shape = &arrays.shape;
    let grid = [shape.kv_heads, shape.samples, shape.seq_len.div_ceil(BACKWARD_KEYS)];
    backward(gpu, stream, Which::Keys, grid, arrays)
}

/// The gradient of queries.
///
/// # Errors
/// As [`attend`].
pub fn attend_backward_queries(
    gpu: &dyn Gpu,
    stream: Stream,
    arrays: &AttendBackward,
) -> Result<(), GpuError> {
    let shape = &arrays.shape;
    let grid = [shape.heads, shape.samples, shape.seq_len.div_ceil(BACKWARD_QUERIES)];
    backward(gpu, stream, Which::Queries, grid, arrays)
}

fn backward(
    gpu: &dyn Gpu,
    stream: Stream,
    which: Which,
    grid: [u32; 3],
    arrays: &AttendBackward,
) -> Result<(), GpuError> {
    let kernel = arrays.shape.kernel(which)?;
    let AttendBackward { shape, qkv, starts, d_out, log_sums, dots, d_qkv } = *arrays;
    let pointers = [qkv, starts, d_out, log_sums, dots, d_qkv].map(Argument::Address);
    start(gpu, stream, kernel, grid, &[&pointers[..], &shape.arguments()])
}

fn start(
    gpu: &dyn Gpu,
    stream: Stream,
    kernel: &'static Kernel,
    grid: [u32; 3],
    arguments: &[&[Argument]],
) -> Result<(), GpuError> {
    gpu.launch(
        stream,
        Launch { kernel, grid, shared: kernel.shared_max, arguments: &arguments.concat() },
    )
}
