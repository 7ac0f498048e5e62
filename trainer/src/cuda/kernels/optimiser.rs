//! Starts the optimisers' kernels: AdamW in one pass, and what Muon does beside its products.
//!
//! Masters are the two halves of an f32, averages are bf16 and rounded at random, as
//! [`twin`](crate::cuda::twin) has it bit for bit. Arrays of values begin at multiples of 16 bytes, so that a call
//! may begin at any multiple of eight values; the bits are the same however a range is cut into calls.

use crate::cuda::gpu::{Address, Argument, Gpu, GpuError, Launch, Stream};
use crate::cuda::kernel::Kernel;
use crate::engine::optimiser::adamw::StepConstants;
use crate::AdamWSettings;

/// Values that a block takes.
const BLOCK: u64 = 2048;

/// Values of whose squares one part is the sum.
pub const PART: u64 = 4096;

const fn kernel(name: &'static str, blocks: u32) -> Kernel {
    Kernel { name, file: "optimiser", defines: &[], threads: 256, blocks, shared_max: 0 }
}

const ADAMW: Kernel = kernel("adamw", 4);
const MOMENTUM: Kernel = kernel("momentum", 4);
const MUON_SCALE: Kernel = kernel("muon_scale", 4);
const MUON_APPLY: Kernel = kernel("muon_apply", 4);
const SQUARES_BF16: Kernel = kernel("squares_bf16", 4);
const SUM_PARTS: Kernel = kernel("sum_parts", 1);

/// The kernels of this file.
pub const KERNELS: &[Kernel] = &[ADAMW, MOMENTUM, MUON_SCALE, MUON_APPLY, SQUARES_BF16, SUM_PARTS];

/// Starts a kernel on a line of blocks that take `values` of `len` values each; it reads or writes vectors of 16 bytes at
/// `vectors`.
fn start(
    gpu: &dyn Gpu,
    stream: Stream,
    kernel: &Kernel,
    (len, values): (u64, u64),
    vectors: &[Address],
    arguments: &[Argument],
) -> Result<(), GpuError> {
    let misplaced = vectors.iter().any(|address| address.0 % 16 != 0);
    let blocks = u32::try_from(len.div_ceil(values)).ok().filter(|blocks| *blocks >> 31 == 0);
    let (false, Some(blocks)) = (misplaced, blocks) else {
        let reason = "an address is not a multiple of 16 bytes, or there are too many values";
        return Err(GpuError::Failed { call: kernel.name.to_owned(), reason: reason.to_owned() });
    };
    if blocks == 0 {
        return Ok(());
    }
    gpu.launch(stream, Launch { kernel, grid: [blocks, 1, 1], shared: 0, arguments })
}

/// What [`adamw`] works on, and how.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Upper halves of the parameters, bf16.
    pub hi: Address,
    /// Lower halves, 16 bits.
    pub lo: Address,
    /// Averages of gradients, bf16.
    pub mean: Address,
    /// Averages of their squares, bf16.
    pub square: Address,
    /// Gradients, f32.
    pub gradient: Address,
    /// Values.
    pub len: u64,
    /// The first value's number in the whole model, of which the noise depends.
    pub first: u64,
    /// Decays of the averages, ε, and the decay of the parameters, which is 0 for norms.
    pub settings: AdamWSettings,
    /// Learning rate.
    pub rate: f32,
    /// Factor of the gradients.
    pub scale: f32,
    /// The step's number, from 1.
    pub step: u64,
}

impl AdamW {
    /// What is the same for all values, as the CPU's engine computes it.
    pub(crate) fn constants(&self) -> StepConstants {
        StepConstants::new(&self.settings, self.step, self.rate, self.scale)
    }
}

/// One step of AdamW; the same formulas as the CPU's engine
/// ([`step_block`](crate::engine::optimiser::adamw::step_block)), with averages that are rounded after
/// they are used.
///
/// # Errors
/// An array of values does not begin at a multiple of 16 bytes, or the launch fails.
pub fn adamw(gpu: &dyn Gpu, stream: Stream, a: &AdamW) -> Result<(), GpuError> {
    let (settings, constants) = (&a.settings, a.constants());
    let arguments = [
        Argument::Address(a.hi),
        Argument::Address(a.lo),
        Argument::Address(a.mean),
        Argument::Address(a.square),
        Argument::Address(a.gradient),
        Argument::U64(a.len),
        Argument::U64(a.first),
        Argument::F32(a.rate),
        Argument::F32(settings.beta1),
        Argument::F32(settings.beta2),
        Argument::F32(settings.epsilon),
        Argument::F32(settings.decay),
        Argument::F32(constants.rate),
        Argument::F32(constants.square_scale),
        Argument::F32(a.scale),
        Argument::U32(a.step as u32),
    ];
    let vectors = [a.hi, a.lo, a.mean, a.square, a.gradient];
    start(gpu, stream, &ADAMW, (a.len, BLOCK), &vectors, &arguments)
}

/// What [`momentum`] works on, and how.
#[derive(Clone, Copy, Debug)]
pub struct Momentum {
    /// Averages of gradients, bf16.
    pub mean: Address,
    /// Gradients, f32.
    pub gradient: Address,
    /// Where the direction goes, bf16.
    pub direction: Address,
    /// Values.
    pub len: u64,
    /// The first value's number in the whole model, of which the noise depends.
    pub first: u64,
    /// Decay β of the average.
    pub momentum: f32,
    /// Factor of the gradients.
    pub scale: f32,
    /// The step's number, from 1.
    pub step: u64,
}

/// Muon's average, and of it the direction before it is made orthonormal: with g = scale · gradient,
/// m ← m + (1 − β)(g − m), rounded at random after it is used, and direction ← g + β (m − g), rounded to bf16.
///
/// # Errors
/// An array of values does not begin at a multiple of 16 bytes, or the launch fails.
pub fn momentum(gpu: &dyn Gpu, stream: Stream, a: &Momentum) -> Result<(), GpuError> {
    let arguments = [
        Argument::Address(a.mean),
        Argument::Address(a.gradient),
        Argument::Address(a.direction),
        Argument::U64(a.len),
        Argument::U64(a.first),
        Argument::F32(a.momentum),
        Argument::F32(a.scale),
        Argument::U32(a.step as u32),
    ];
    let vectors = [a.mean, a.gradient, a.direction];
    start(gpu, stream, &MOMENTUM, (a.len, BLOCK), &vectors, &arguments)
}

/// Divides a matrix (bf16) of `len` values by its Frobenius norm, whose square is the f64 at `norm_squares`
/// ([`squares_bf16`], [`sum_parts`]), but by `epsilon` at least.
///
/// # Errors
/// An array of values does not begin at a multiple of 16 bytes, or the launch fails.
pub fn muon_scale(
    gpu: &dyn Gpu,
    stream: Stream,
    direction: Address,
    len: u64,
    norm_squares: Address,
    epsilon: f32,
) -> Result<(), GpuError> {
    let arguments = [
        Argument::Address(direction),
        Argument::U64(len),
        Argument::Address(norm_squares),
        Argument::F32(epsilon),
    ];
    start(gpu, stream, &MUON_SCALE, (len, BLOCK), &[direction], &arguments)
}

/// What [`muon_apply`] works on, and how.
#[derive(Clone, Copy, Debug)]
pub struct MuonApply {
    /// Upper halves of the parameters, bf16.
    pub hi: Address,
    /// Lower halves, 16 bits.
    pub lo: Address,
    /// The orthonormal direction, bf16.
    pub direction: Address,
    /// Values.
    pub len: u64,
    /// Factor of the direction: the rate times 0.2 √(longer side) ([`muon_factors`]).
    pub rate: f32,
    /// What decay leaves of a parameter: 1 − rate · decay ([`muon_factors`]).
    pub keep: f32,
}

/// θ ← keep · θ − rate · direction, as the CPU's engine does it
/// ([`descend`](crate::engine::optimiser::muon::descend)).
///
/// # Errors
/// An array of values does not begin at a multiple of 16 bytes, or the launch fails.
pub fn muon_apply(gpu: &dyn Gpu, stream: Stream, a: &MuonApply) -> Result<(), GpuError> {
    let arguments = [
        Argument::Address(a.hi),
        Argument::Address(a.lo),
        Argument::Address(a.direction),
        Argument::U64(a.len),
        Argument::F32(a.rate),
        Argument::F32(a.keep),
    ];
    start(gpu, stream, &MUON_APPLY, (a.len, BLOCK), &[a.hi, a.lo, a.direction], &arguments)
}

/// [`MuonApply`]'s `rate` and `keep` for a matrix whose longer side is `longer`: `rate` is AdamW's of the step
/// times Muon's relative one.
pub fn muon_factors(rate: f32, decay: f32, longer: usize) -> (f32, f32) {
    crate::engine::optimiser::muon::factors(rate, decay, longer)
}

/// The sum of the squares of each [`PART`] of `len` bf16 values, as f64 to `parts`.
///
/// # Errors
/// An array of values does not begin at a multiple of 16 bytes, or the launch fails.
pub fn squares_bf16(
    gpu: &dyn Gpu,
    stream: Stream,
    values: Address,
    parts: Address,
    len: u64,
) -> Result<(), GpuError> {
    let arguments = [Argument::Address(values), Argument::Address(parts), Argument::U64(len)];
    start(gpu, stream, &SQUARES_BF16, (len, PART), &[values], &arguments)
}

/// The sum of `count` f64, in an order that depends on `count` alone; 0 of none.
///
/// # Errors
/// An array of values does not begin at a multiple of 16 bytes, or the launch fails.
pub fn sum_parts(
    gpu: &dyn Gpu,
    stream: Stream,
    parts: Address,
    to: Address,
    count: u64,
) -> Result<(), GpuError> {
    let arguments = [Argument::Address(parts), Argument::Address(to), Argument::U64(count)];
    start(gpu, stream, &SUM_PARTS, (1, 1), &[], &arguments)
}
