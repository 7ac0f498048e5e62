//! What a layer does to each row between its products: rotary positions and SwiGLU. bf16 rows, f32 inside, as in
//! [`compute::ops`](crate::compute::ops).

use super::start::{refused, start, whole_vectors};
use crate::cuda::gpu::{Address, Argument, Gpu, GpuError, Stream};
use crate::cuda::kernel::Kernel;

/// The kernels of `rows.cu`.
pub const KERNELS: &[Kernel] = &[ROTATE, SWIGLU, SWIGLU_BACKWARD];
const ROTATE: Kernel = kernel("rotate");
const SWIGLU: Kernel = kernel("swiglu");
const SWIGLU_BACKWARD: Kernel = kernel("swiglu_backward");

const fn kernel(name: &'static str) -> Kernel {
    Kernel { name, file: "rows", defines: &[], threads: 128, blocks: 8, shared_max: 0 }
}

/// Which way [`rotate`] turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Forward pass.
    Forward,
    /// Backward pass: by the negated angle.
    Back,
}

/// Of [`rotate`].
#[derive(Clone, Copy, Debug)]
pub struct Rotate {
    /// (tokens, stride), bf16, turned in place: the heads of q, then of k, then v, which stays.
    pub qkv: Address,
    /// (seq_len, head_dim / 2), f32.
    pub cos: Address,
    /// As `cos`.
    pub sin: Address,
    /// How many rows.
    pub tokens: u32,
    /// Tokens of a sample: row r has position r mod seq_len.
    pub seq_len: u32,
    /// Heads that are turned, those of q and k together.
    pub heads: u32,
    /// Columns of a head, a multiple of 16; pairs are columns i and i + head_dim / 2.
    pub head_dim: u32,
    /// Values of a row, a multiple of 8.
    pub stride: u32,
    /// Which way.
    pub turn: Turn,
}

/// Rotary positions, in place.
pub fn rotate(gpu: &dyn Gpu, stream: Stream, of: &Rotate) -> Result<(), GpuError> {
    whole_vectors(&ROTATE, of.stride)?;
    if !of.head_dim.is_multiple_of(16) || of.seq_len == 0 {
        let reason = format!("{} columns a head, {} tokens a sample", of.head_dim, of.seq_len);
        return Err(refused(&ROTATE, reason));
    }
    let arguments = [
        Argument::Address(of.qkv),
        Argument::Address(of.cos),
        Argument::Address(of.sin),
        Argument::U32(of.seq_len),
        Argument::U32(of.heads),
        Argument::U32(of.head_dim),
        Argument::U32(of.stride),
        Argument::F32(if of.turn == Turn::Back { -1.0 } else { 1.0 }),
    ];
    start(gpu, stream, &ROTATE, [of.tokens, 1, 1], &arguments)
}

/// Of [`swiglu`]; rows are bf16.
#[derive(Clone, Copy, Debug)]
pub struct Swiglu {
    /// (tokens, 2 · ffn): the gate, then what it lets up.
    pub gate_up: Address,
    /// (tokens, ffn), written.
    pub h: Address,
    /// How many rows.
    pub tokens: u32,
    /// Values of a row of `h`, a multiple of 8.
    pub ffn: u32,
}

/// h ← silu(gate) · up.
pub fn swiglu(gpu: &dyn Gpu, stream: Stream, of: &Swiglu) -> Result<(), GpuError> {
    whole_vectors(&SWIGLU, of.ffn)?;
    let arguments = [Argument::Address(of.gate_up), Argument::Address(of.h), Argument::U32(of.ffn)];
    start(gpu, stream, &SWIGLU, [of.tokens, 1, 1], &arguments)
}

/// Of [`swiglu_backward`]; rows are bf16.
#[derive(Clone, Copy, Debug)]
pub struct SwigluBackward {
    /// (tokens, 2 · ffn).
    pub gate_up: Address,
    /// (tokens, ffn).
    pub d_h: Address,
    /// (tokens, ffn), written: the very bits of [`swiglu`]; must not be `d_h`.
    pub h: Address,
    /// (tokens, 2 · ffn), written; may be `gate_up`.
    pub d_gate_up: Address,
    /// How many rows.
    pub tokens: u32,
    /// Values of a row of `h`, a multiple of 8.
    pub ffn: u32,
}

/// d_gate_up ← the gradient through SwiGLU; h ← what [`swiglu`] made.
pub fn swiglu_backward(gpu: &dyn Gpu, stream: Stream, of: &SwigluBackward) -> Result<(), GpuError> {
    whole_vectors(&SWIGLU_BACKWARD, of.ffn)?;
    let arguments = [
        Argument::Address(of.gate_up),
        Argument::Address(of.d_h),
        Argument::Address(of.h),
        Argument::Address(of.d_gate_up),
        Argument::U32(of.ffn),
    ];
    start(gpu, stream, &SWIGLU_BACKWARD, [of.tokens, 1, 1], &arguments)
}
