//! Encodes and decodes updates, format version 1: a pseudo-gradient as a strict, canonical, bounded byte string.
//!
//! A tensor is cut into chunks of [`CHUNK_LEN`] values; a chunk keeps the `k` largest magnitudes of
//! them, each as a position, a sign and one of two magnitudes. One byte string decodes to one
//! update or is refused; there are never two encodings of the same update.
//!
//! # Bytes
//!
//! All numbers are little endian, all bit strings least significant bit first.
//!
//! ```text
//! payload  version: u8 = 1
//!          keep: u16                k, 1 to 4096
//!          chunk_count: u32         as the layout has it
//!          lengths: chunk_count × (u8 if keep <= 960, else u16)
//!                                   bytes of a chunk, less the fewest it can have
//!          chunks                   one after the other
//!
//! chunk    scale: u16               bf16 bits: 0, or 2^-64 to 2^64
//!          codes: kept × 2 bits     bit 0 magnitude (0: scale, 1: 1.5 × scale), bit 1 sign
//!          remainders: kept × a bits
//!          quotients: kept × (q zeros, then a one)
//!          padding: zeros up to a whole byte
//! ```
//!
//! `kept = ceil(keep · len / 4096)` for a chunk of `len` values. The positions are strictly
//! increasing and coded as gaps (the values skipped since the position before), Rice coded: `gap =
//! q · 2^a + remainder`, where [`rice_parameter`] gives `a` as a function of `len` and `kept`
//! alone. A chunk with scale 0 keeps the first `kept` positions with codes 0, and has no other
//! form.
//!
//! # What can be trusted
//!
//! [`decode_chunk`] and [`Payload::parse`] read bytes of strangers: they never panic, allocate in
//! proportion to the bytes that are there, and on success promise that encoding again gives the
//! same bytes. They are integer only, so the chain runs them; the quantiser needs the feature
//! `std`. Every value of a decoded update is finite and at most 1.5 · 2^64 in magnitude.
//!
//! [`CHUNK_LEN`]: crate::layout::CHUNK_LEN

use core::fmt;

mod bits;

mod form;

mod chunk;
mod payload;
mod pieces;
mod read;

#[cfg(feature = "std")]
mod top_k;

#[cfg(feature = "std")]
mod quantise;

#[cfg(feature = "std")]
mod encode;
#[cfg(feature = "std")]
mod writer;

#[cfg(feature = "std")]
pub mod compatible;

pub use chunk::{
    chunk_bytes_max, chunk_bytes_min, decode_chunk, decode_chunk_into, encode_chunk,
    CHUNK_BYTES_MAX,
};
#[cfg(feature = "std")]
pub use encode::{accumulate, accumulate_difference, encode_chunk_f32, Encoder};
pub use form::{rice_parameter, Chunk, SCALE_MAX_BF16, SCALE_MIN_BF16};
pub use payload::{payload_bytes_max, Frame, Payload, HEADER_BYTES};
pub use pieces::{piece_list_id, PieceForm, PieceList, PieceParts, PIECE_CHUNKS};
#[cfg(feature = "std")]
pub use quantise::{chunk_values, code_value, quantise, LEVEL_HIGH};
#[cfg(feature = "std")]
pub(crate) use read::ChunkReader;
#[cfg(feature = "std")]
pub use top_k::top_k;
#[cfg(feature = "std")]
pub use writer::{assemble, EncodedChunks, UpdateWriter, WriteError};

/// The version byte of the format that this module reads and writes.
pub const VERSION: u8 = 1;

/// Why one chunk cannot be read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ChunkError {
    /// `keep` is 0 or above 4096.
    Keep(u16),
    /// The chunk's number of values is 0 or above 4096.
    Len(u32),
    /// The bytes are fewer or more than the chunk needs.
    ByteLen(usize),
    /// The scale is neither 0 nor a bf16 number from 2^-64 to 2^64.
    Scale(u16),
    /// A position is not above the one before, or past the chunk's end.
    Index,
    /// A code is not a number of two bits, or there are not as many codes and positions as are
    /// kept.
    Codes,
    /// A chunk with scale 0 is not in its only form.
    Zero,
    /// The bits after the last position are not all zero.
    Padding,
    /// A value to encode is NaN or infinite.
    NotFinite,
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep(keep) => write!(f, "keep is {keep}, not 1 to 4096"),
            Self::Len(len) => write!(f, "a chunk of {len} values, not 1 to 4096"),
            Self::ByteLen(len) => write!(f, "a chunk of {len} bytes, which is not its length"),
            Self::Scale(bits) => write!(f, "the scale {bits:#06x} is out of range"),
            Self::Index => write!(f, "a position is out of range or out of order"),
            Self::Codes => write!(f, "the codes do not fit the positions"),
            Self::Zero => write!(f, "a chunk of scale zero is not in its only form"),
            Self::Padding => write!(f, "the padding is not zero"),
            Self::NotFinite => write!(f, "a value is NaN or infinite"),
        }
    }
}

impl core::error::Error for ChunkError {}

/// Why an update cannot be read or written.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UpdateError {
    /// The layout is not valid ([`crate::layout::Layout::is_valid`]).
    Layout,
    /// `keep` is 0 or above 4096.
    Keep(u16),
    /// The bytes end before the header or the table of lengths does, or the chunks do not fill the
    /// rest exactly; the number of bytes is given.
    ByteLen(usize),
    /// The version byte is not [`VERSION`].
    Version(u8),
    /// The header's `keep` is not the run's.
    KeepMismatch(u16),
    /// The header's number of chunks is not the layout's.
    ChunkCount(u32),
    /// Chunk `index` is refused.
    Chunk {
        /// The chunk's number in the payload.
        index: u32,
        /// What is wrong with it.
        error: ChunkError,
    },
    /// The tensors given are not as many or as long as the layout says.
    Tensors,
}

impl UpdateError {
    /// The same with a chunk's number counted from `before` chunks earlier: an error of a part of an update as one of the
    /// whole.
    #[must_use]
    pub fn after(self, before: u32) -> Self {
        match self {
            Self::Chunk { index, error } => {
                Self::Chunk { index: before.saturating_add(index), error }
            }
            other => other,
        }
    }
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout => write!(f, "the layout is not valid"),
            Self::Keep(keep) => write!(f, "keep is {keep}, not 1 to 4096"),
            Self::ByteLen(len) => write!(f, "an update of {len} bytes, which is not its length"),
            Self::Version(version) => write!(f, "update format version {version} is not known"),
            Self::KeepMismatch(keep) => write!(f, "the update keeps {keep}, not what the run does"),
            Self::ChunkCount(count) => write!(f, "the update has {count} chunks, the layout not"),
            Self::Chunk { index, error } => write!(f, "chunk {index}: {error}"),
            Self::Tensors => write!(f, "the tensors are not those of the layout"),
        }
    }
}

impl core::error::Error for UpdateError {}
