//! What is done to values one by one, whatever tensor they are of. Lengths are any, addresses are multiples of 16
//! bytes.

use super::start::{blocks_for, start};
use crate::cuda::gpu::{Address, Argument, Gpu, GpuError, Stream};
use crate::cuda::kernel::Kernel;

/// Values whose squares are one part.
pub const SQUARES_VALUES: u64 = 4096;

/// Values of a block of the others.
const BLOCK_VALUES: u64 = 1024;

/// The kernels of `values.cu`.
pub const KERNELS: &[Kernel] = &[SQUARES, SPLIT, JOIN, ADD_F32, WIDEN, NARROW];
const SQUARES: Kernel = kernel("squares");
const SPLIT: Kernel = kernel("split");
const JOIN: Kernel = kernel("join");
const ADD_F32: Kernel = kernel("add_f32");
const WIDEN: Kernel = kernel("widen");
const NARROW: Kernel = kernel("narrow");

const fn kernel(name: &'static str) -> Kernel {
    Kernel { name, file: "values", defines: &[], threads: 128, blocks: 8, shared_max: 0 }
}

/// parts (⌈len / [`SQUARES_VALUES`]⌉), f64 ← Σ value² of each 4096 of the `len` f32 values, in an order that depends
/// on nothing else.
pub fn squares(
    gpu: &dyn Gpu,
    stream: Stream,
    values: Address,
    parts: Address,
    len: u64,
) -> Result<(), GpuError> {
    let blocks = blocks_for(&SQUARES, len, SQUARES_VALUES)?;
    let arguments = [Argument::Address(values), Argument::Address(parts), Argument::U64(len)];
    start(gpu, stream, &SQUARES, [blocks, 1, 1], &arguments)
}

/// f32 values as two halves of 16 bits: `hi` is the nearest bf16, ties away from zero, and as bits
/// value = hi · 2^16 + lo with lo signed. Ties to even could not be undone.
#[derive(Clone, Copy, Debug)]
pub struct Halves {
    /// (len), bf16.
    pub hi: Address,
    /// (len), i16.
    pub lo: Address,
}

/// halves ← the f32 values at `from`. Any bits come back by [`join`]; a value beyond the largest bf16 has an infinite
/// `hi`.
pub fn split(
    gpu: &dyn Gpu,
    stream: Stream,
    from: Address,
    to: Halves,
    len: u64,
) -> Result<(), GpuError> {
    one_by_one(gpu, stream, &SPLIT, &[from, to.hi, to.lo], len)
}

/// to ← the f32 values of which [`split`] made the halves.
pub fn join(
    gpu: &dyn Gpu,
    stream: Stream,
    from: Halves,
    to: Address,
    len: u64,
) -> Result<(), GpuError> {
    one_by_one(gpu, stream, &JOIN, &[from.hi, from.lo, to], len)
}

/// to ← to + from, f32.
pub fn add_f32(
    gpu: &dyn Gpu,
    stream: Stream,
    to: Address,
    from: Address,
    len: u64,
) -> Result<(), GpuError> {
    one_by_one(gpu, stream, &ADD_F32, &[to, from], len)
}

/// to, f32 ← the bf16 values at `from`.
pub fn widen(
    gpu: &dyn Gpu,
    stream: Stream,
    from: Address,
    to: Address,
    len: u64,
) -> Result<(), GpuError> {
    one_by_one(gpu, stream, &WIDEN, &[from, to], len)
}

/// to, bf16 ← the f32 values at `from`, ties to even.
pub fn narrow(
    gpu: &dyn Gpu,
    stream: Stream,
    from: Address,
    to: Address,
    len: u64,
) -> Result<(), GpuError> {
    one_by_one(gpu, stream, &NARROW, &[from, to], len)
}

fn one_by_one(
    gpu: &dyn Gpu,
    stream: Stream,
    kernel: &Kernel,
    addresses: &[Address],
    len: u64,
) -> Result<(), GpuError> {
    let blocks = blocks_for(kernel, len, BLOCK_VALUES)?;
    let mut arguments: Vec<Argument> = addresses.iter().map(|at| Argument::Address(*at)).collect();
    arguments.push(Argument::U64(len));
    start(gpu, stream, kernel, [blocks, 1, 1], &arguments)
}
