//! Lays a chunk's parts out: the allowed scales, the bits of a position, the places of the parts.

use alloc::vec::Vec;

use crate::layout::kept;

/// The bf16 bits of the smallest scale that is not 0: 2^-64. Anything smaller is 0, so that no
/// machine's treatment of subnormal numbers matters.
pub const SCALE_MIN_BF16: u16 = 0x1F80;

/// The bf16 bits of the largest scale: 2^64, so that no sum of 65,536 updates leaves `f32`.
pub const SCALE_MAX_BF16: u16 = 0x5F80;

/// One decoded chunk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chunk {
    /// The smaller magnitude as bf16 bits: 0, or [`SCALE_MIN_BF16`] to [`SCALE_MAX_BF16`].
    pub scale_bf16: u16,
    /// The positions of the kept values in the chunk, strictly increasing.
    pub indices: Vec<u16>,
    /// One code for each position: bit 0 set for the larger magnitude, bit 1 for a negative value.
    pub codes: Vec<u8>,
}

/// The number of low bits of a gap that are written as they are, for `kept` positions among `len`.
///
/// The smallest `a` with `13 (len − kept) < 27 · kept · 2^a`: a gap's mean, `(len − kept) / kept`,
/// at which `a + 1` becomes the better parameter is `2^a / −ln(0.618) = 2.078 · 2^a`. For 64 of
/// 4096 it is 5, and a position costs 7.5 bits where the entropy is 7.4.
pub const fn rice_parameter(len: u32, kept: u16) -> u32 {
    // At most 13 · 2^32 and 27 · 2^16: they fit 64 bits.
    let skipped = (len.saturating_sub(kept as u32) as u64).saturating_mul(13);
    let mut bound = (kept as u64).saturating_mul(27);
    let mut parameter = 0u32;
    // Stops at 12 for a chunk; at 16 for input that is none.
    while skipped >= bound && parameter < 16 {
        bound = bound.saturating_mul(2);
        parameter = parameter.saturating_add(1);
    }
    parameter
}

/// Where the parts of a chunk lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// Values kept.
    pub(super) kept: u32,
    /// Bits of a remainder.
    pub(super) parameter: u32,
}

impl Form {
    /// The form of a chunk of `len` values under `keep`.
    pub(super) const fn new(len: u32, keep: u16) -> Self {
        let kept = kept(len, keep);
        Self { kept: kept as u32, parameter: rice_parameter(len, kept) }
    }
}
