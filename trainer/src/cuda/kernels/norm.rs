//! RMSNorm with the residual's sum before it, and its gradients. Rows and weights are bf16, everything inside is f32,
//! as in [`compute::ops`](crate::compute::ops): normed = x · inverse · w with inverse = 1 / √(mean(x²) + ε).

use super::start::{start, whole_vectors};
use crate::cuda::gpu::{Address, Argument, Gpu, GpuError, Stream};
use crate::cuda::kernel::Kernel;

/// Rows whose part of the weight's gradient is one row of `parts`.
pub const PART_ROWS: u32 = 64;

/// Columns of a block of [`norm_weight_gradient`].
const COLUMNS: u32 = 128;

/// The kernels of `norm.cu`.
pub const KERNELS: &[Kernel] = &[ADD_NORM, NORM_AGAIN, NORM_BACKWARD, NORM_WEIGHT_GRADIENT];
const ADD_NORM: Kernel = kernel("add_norm", 128, 8);
const NORM_AGAIN: Kernel = kernel("norm_again", 128, 8);
const NORM_BACKWARD: Kernel = kernel("norm_backward", 256, 2);
const NORM_WEIGHT_GRADIENT: Kernel = kernel("norm_weight_gradient", 128, 8);

const fn kernel(name: &'static str, threads: u32, blocks: u32) -> Kernel {
    Kernel { name, file: "norm", defines: &[], threads, blocks, shared_max: 0 }
}

/// Of [`add_norm`]; rows are bf16.
#[derive(Clone, Copy, Debug)]
pub struct AddNorm {
    /// (tokens, width).
    pub x: Address,
    /// What is added to x and where the rounded sum goes, both (tokens, width); the sum may go to `x`. Without it the
    /// norm is that of x.
    pub add: Option<Addend>,
    /// (width).
    pub w: Address,
    /// (tokens, width), written.
    pub normed: Address,
    /// (tokens), f32, written: 1 / √(mean(x²) + ε) of each row.
    pub inverse: Address,
    /// How many rows.
    pub tokens: u32,
    /// Values of a row, a multiple of 8.
    pub width: u32,
    /// ε.
    pub epsilon: f32,
}

/// The residual's sum before a norm.
#[derive(Clone, Copy, Debug)]
pub struct Addend {
    /// (tokens, width), bf16.
    pub y: Address,
    /// (tokens, width), bf16, written: x + y.
    pub sum: Address,
}

/// sum ← x + y, rounded to bf16; normed ← the norm of the rounded sum.
pub fn add_norm(gpu: &dyn Gpu, stream: Stream, of: &AddNorm) -> Result<(), GpuError> {
    whole_vectors(&ADD_NORM, of.width)?;
    let (y, sum) = of.add.map_or((Address(0), Address(0)), |add| (add.y, add.sum));
    let arguments = [
        Argument::Address(of.x),
        Argument::Address(y),
        Argument::Address(sum),
        Argument::Address(of.w),
        Argument::Address(of.normed),
        Argument::Address(of.inverse),
        Argument::U32(of.width),
        Argument::F32(of.epsilon),
    ];
    start(gpu, stream, &ADD_NORM, [of.tokens, 1, 1], &arguments)
}

/// Of [`norm_again`]; rows are bf16.
#[derive(Clone, Copy, Debug)]
pub struct NormAgain {
    /// (tokens, width).
    pub x: Address,
    /// (width).
    pub w: Address,
    /// (tokens), f32, from [`add_norm`].
    pub inverse: Address,
    /// (tokens, width), written: the very bits that [`add_norm`] wrote.
    pub normed: Address,
    /// How many rows.
    pub tokens: u32,
    /// Values of a row, a multiple of 8.
    pub width: u32,
}

/// normed ← x · inverse · w.
pub fn norm_again(gpu: &dyn Gpu, stream: Stream, of: &NormAgain) -> Result<(), GpuError> {
    whole_vectors(&NORM_AGAIN, of.width)?;
    let arguments = [
        Argument::Address(of.x),
        Argument::Address(of.w),
        Argument::Address(of.inverse),
        Argument::Address(of.normed),
        Argument::U32(of.width),
    ];
    start(gpu, stream, &NORM_AGAIN, [of.tokens, 1, 1], &arguments)
}

/// Of [`norm_backward`]; rows are bf16.
#[derive(Clone, Copy, Debug)]
pub struct NormBackward {
    /// (tokens, width); must not be `d_x`.
    pub d_normed: Address,
    /// (tokens, width): what was normed.
    pub x: Address,
    /// (width).
    pub w: Address,
    /// (tokens), f32, from [`add_norm`].
    pub inverse: Address,
    /// (tokens, width): with `add` added to, else written.
    pub d_x: Address,
    /// (⌈tokens / [`PART_ROWS`]⌉, width), f32, written: each block of rows' part of the weight's gradient.
    pub parts: Address,
    /// How many rows.
    pub tokens: u32,
    /// Values of a row, a multiple of 8.
    pub width: u32,
    /// Whether `d_x` holds the gradient so far.
    pub add: bool,
}

/// d_x ← (d_x if `add`) + the gradient through the norm; parts ← the weight's gradient of each 64 rows.
pub fn norm_backward(gpu: &dyn Gpu, stream: Stream, of: &NormBackward) -> Result<(), GpuError> {
    whole_vectors(&NORM_BACKWARD, of.width)?;
    let arguments = [
        Argument::Address(of.d_normed),
        Argument::Address(of.x),
        Argument::Address(of.w),
        Argument::Address(of.inverse),
        Argument::Address(of.d_x),
        Argument::Address(of.parts),
        Argument::U32(of.tokens),
        Argument::U32(of.width),
        Argument::U32(u32::from(of.add)),
    ];
    start(gpu, stream, &NORM_BACKWARD, [of.tokens.div_ceil(PART_ROWS), 1, 1], &arguments)
}

/// Of [`norm_weight_gradient`].
#[derive(Clone, Copy, Debug)]
pub struct NormWeightGradient {
    /// (blocks, width), f32, from [`norm_backward`].
    pub parts: Address,
    /// (width), f32, added to.
    pub gradient: Address,
    /// Rows of `parts`.
    pub blocks: u32,
    /// Values of a row.
    pub width: u32,
}

/// gradient ← + the sum of the parts: summed in order, then added once.
pub fn norm_weight_gradient(
    gpu: &dyn Gpu,
    stream: Stream,
    of: &NormWeightGradient,
) -> Result<(), GpuError> {
    let arguments = [
        Argument::Address(of.parts),
        Argument::Address(of.gradient),
        Argument::U32(of.blocks),
        Argument::U32(of.width),
    ];
    start(gpu, stream, &NORM_WEIGHT_GRADIENT, [of.width.div_ceil(COLUMNS), 1, 1], &arguments)
}
