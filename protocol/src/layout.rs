//! Cuts a model's parameters into tensors and chunks: has the element counts in canonical order, and
//! turns a chunk's number into its place.
//!
//! Canonical order is ascending order of the tensors' names (bytewise). The names are not here: the
//! chain stores only the counts, and the state root binds the names.

use alloc::vec::Vec;

use codec::{Decode, DecodeWithMemTracking, Encode};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

/// Values in a full chunk; the last chunk of a tensor may be shorter.
pub const CHUNK_LEN: u32 = 4096;

/// Tensors in a model, at most. A 72-billion-parameter model of 80 layers has 723.
pub const LAYOUT_TENSORS_MAX: u32 = 1024;

/// The element counts of a model's tensors, in canonical (name) order.
///
/// Every method treats a layout that is not valid (see [`Layout::is_valid`]) as data: it answers
/// `None` or nothing, and never panics.
#[derive(
    Clone,
    PartialEq,
    Eq,
    Debug,
    Default,
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    Serialize,
    Deserialize
)]
pub struct Layout(pub Vec<u64>);

/// Where one chunk lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkPlace {
    /// The tensor, counted from 0 in canonical order.
    pub tensor: u32,
    /// The chunk's first value, counted in values from the start of its tensor.
    pub offset: u64,
    /// Values in the chunk, 1 to [`CHUNK_LEN`].
    pub len: u32,
}

impl Layout {
    /// Whether there is at least one tensor and at most [`LAYOUT_TENSORS_MAX`], none is empty, and
    /// the chunks can be numbered by a `u32`.
    pub fn is_valid(&self) -> bool {
        self.chunk_count().is_some()
    }

    /// Chunks in the whole model, or `None` for a layout that is not valid.
    pub fn chunk_count(&self) -> Option<u32> {
        if self.0.is_empty() || self.0.len() > LAYOUT_TENSORS_MAX as usize {
            return None;
        }
        let mut count = 0u32;
        for &values in &self.0 {
            count = count.checked_add(tensor_chunks(values)?)?;
        }
        Some(count)
    }

    /// Values in the whole model, or `None` when the number does not fit.
    pub fn value_count(&self) -> Option<u64> {
        self.0.iter().try_fold(0u64, |sum, &values| sum.checked_add(values))
    }

    /// Values in chunk `index` of the whole model, or `None` past the last chunk or for a layout
    /// that is not valid. Costs a walk over the tensors, not over the chunks.
    pub fn chunk_len(&self, index: u32) -> Option<u32> {
        self.place(index).map(|place| place.len)
    }

    /// Where chunk `index` of the whole model lies, or `None` past the last chunk or for a layout
    /// that is not valid.
    pub fn place(&self, index: u32) -> Option<ChunkPlace> {
        self.chunk_count()?;
        let mut left = index;
        for (tensor, &values) in (0u32..).zip(&self.0) {
            let chunks = tensor_chunks(values)?;
            if left < chunks {
                let offset = u64::from(left).checked_mul(u64::from(CHUNK_LEN))?;
                let rest = values.checked_sub(offset)?;
                return Some(ChunkPlace {
                    tensor,
                    offset,
                    len: rest.min(u64::from(CHUNK_LEN)) as u32,
                });
            }
            left = left.checked_sub(chunks)?;
        }
        None
    }

    /// The number of the first chunk of tensor `tensor`, and how many chunks it has.
    pub fn tensor_chunks(&self, tensor: u32) -> Option<(u32, u32)> {
        self.chunk_count()?;
        let index = usize::try_from(tensor).ok()?;
        let mut first = 0u32;
        for &values in self.0.get(..index)? {
            first = first.checked_add(tensor_chunks(values)?)?;
        }
        Some((first, tensor_chunks(*self.0.get(index)?)?))
    }

    /// All chunks in order: the place of chunk 0, of chunk 1, … Empty for a layout that is not
    /// valid.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkPlace> + '_ {
        self.chunks_from(0)
    }

    /// The chunks from number `first` on, in order. Empty past the last, and for a layout that is not valid. Costs a walk over
    /// the tensors, and nothing for the chunks before.
    pub fn chunks_from(&self, first: u32) -> impl Iterator<Item = ChunkPlace> + '_ {
        let start = self.place(first);
        let tensors: &[u64] = if start.is_some() { &self.0 } else { &[] };
        let (start_tensor, start_offset) =
            start.map_or((0, 0), |place| (place.tensor, place.offset));
        let tensors = (0u32..).zip(tensors).skip(start_tensor as usize);
        tensors.flat_map(move |(tensor, &values)| {
            let first = if tensor == start_tensor { start_offset } else { 0 };
            (first..values).step_by(CHUNK_LEN as usize).map(move |offset| ChunkPlace {
                tensor,
                offset,
                len: values.saturating_sub(offset).min(u64::from(CHUNK_LEN)) as u32,
            })
        })
    }
}

/// Chunks of one tensor of `values` values; `None` for an empty tensor or more chunks than a `u32`
/// counts.
fn tensor_chunks(values: u64) -> Option<u32> {
    match values {
        0 => None,
        _ => u32::try_from(values.div_ceil(u64::from(CHUNK_LEN))).ok(),
    }
}

/// How many values a chunk of `chunk_len` values keeps when a full one keeps `keep`:
/// `mul_ceil(keep, chunk_len / 4096)`.
///
/// At least 1 and at most `chunk_len` for `1 <= keep <= 4096` and `1 <= chunk_len <= 4096`; other
/// inputs are clamped into these ranges, so that the answer is always a possible count.
pub const fn kept(chunk_len: u32, keep: u16) -> u16 {
    let len = if chunk_len > CHUNK_LEN { CHUNK_LEN } else { chunk_len };
    let keep = if keep as u32 > CHUNK_LEN { CHUNK_LEN } else { keep as u32 };
    // At most 2^24, and after the division at most 2^12.
    len.saturating_mul(keep).div_ceil(CHUNK_LEN) as u16
}
