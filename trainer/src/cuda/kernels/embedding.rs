//! The embedding: a row of the table for each token, and the table's gradient without atomics.

use super::start::{start, whole_vectors};
use crate::cuda::gpu::{Address, Argument, Gpu, GpuError, Stream};
use crate::cuda::kernel::Kernel;

/// Columns of a block of [`embed_gradient`].
const COLUMNS: u32 = 1024;

/// The kernels of `embedding.cu`.
pub const KERNELS: &[Kernel] = &[EMBED, EMBED_GRADIENT];
const EMBED: Kernel = kernel("embed");
const EMBED_GRADIENT: Kernel = kernel("embed_gradient");

const fn kernel(name: &'static str) -> Kernel {
    Kernel { name, file: "embedding", defines: &[], threads: 128, blocks: 8, shared_max: 0 }
}

/// Of [`embed`]; rows are bf16.
#[derive(Clone, Copy, Debug)]
pub struct Embed {
    /// (tokens), u32; each below the table's rows.
    pub tokens: Address,
    /// (vocab, width).
    pub table: Address,
    /// (tokens, width), written.
    pub out: Address,
    /// How many tokens.
    pub count: u32,
    /// Values of a row, a multiple of 8.
    pub width: u32,
}

/// out ← the table's row of each token.
pub fn embed(gpu: &dyn Gpu, stream: Stream, of: &Embed) -> Result<(), GpuError> {
    whole_vectors(&EMBED, of.width)?;
    let arguments = [
        Argument::Address(of.tokens),
        Argument::Address(of.table),
        Argument::Address(of.out),
        Argument::U32(of.width),
    ];
    start(gpu, stream, &EMBED, [of.count, 1, 1], &arguments)
}

/// Of [`embed_gradient`]. The host sorts the tokens, stably, by what they are.
#[derive(Clone, Copy, Debug)]
pub struct EmbedGradient {
    /// (tokens), u32: the positions of the tokens, sorted.
    pub order: Address,
    /// (distinct + 1), u32: where in `order` each distinct token's positions start, and how many there are.
    pub firsts: Address,
    /// (distinct), u32: the distinct tokens.
    pub ids: Address,
    /// (tokens, width), bf16.
    pub d_out: Address,
    /// (vocab, width), f32, added to.
    pub gradient: Address,
    /// How many distinct tokens.
    pub distinct: u32,
    /// Values of a row, a multiple of 8.
    pub width: u32,
}

/// gradient ← + the sum of the rows of each distinct token: summed in the order given, then added once.
pub fn embed_gradient(gpu: &dyn Gpu, stream: Stream, of: &EmbedGradient) -> Result<(), GpuError> {
    whole_vectors(&EMBED_GRADIENT, of.width)?;
    let arguments = [
        Argument::Address(of.order),
        Argument::Address(of.firsts),
        Argument::Address(of.ids),
        Argument::Address(of.d_out),
        Argument::Address(of.gradient),
        Argument::U32(of.width),
    ];
    let grid = [of.distinct, of.width.div_ceil(COLUMNS), 1];
    start(gpu, stream, &EMBED_GRADIENT, grid, &arguments)
}
