//! Encodes values as bytes: selects, quantises and packs them, and leaves the residual that was not sent.
//!
//! Written once and compiled for each [`Variant`]. Measured on one core of a shared 2-core Xeon with
//! AVX-512 over 4 Mi Laplace values by `cargo run --release -p gauntlet-protocol --example update_speed`, in
//! 10^9 parameters a second; "with feedback" is [`Encoder::encode_difference`], which reads three
//! arrays, "step" the outer step of two updates, for each:
//!
//! | k | bytes a chunk | bits a value | under f32 | encode | with feedback | parse | root | step |
//! |---|---|---|---|---|---|---|---|---|
//! | 32 | 45.3 | 11.3 | 361× | 1.99 | 1.37 | 49 | 14 | 9.4 |
//! | 64 | 79.4 | 9.9 | 206× | 1.78 | 1.18 | 27 | 14 | 8.3 |
//! | 128 | 139.4 | 8.7 | 118× | 1.31 | 0.96 | 14 | 9.7 | 6.7 |
//!
//! Bytes include header and table.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "floating point, and positions that the selection took from the same slice"
)]

use super::chunk::{checked_kept, write_chunk};
use super::payload::payload_bytes_max;
use super::quantise::{code_value, quantise};
use super::top_k::Selection;
use super::writer::{assemble, EncodedChunks};
use super::{ChunkError, UpdateError};
use crate::layout::{Layout, CHUNK_LEN};
use crate::variant::{Variant, Work};

/// Error feedback: `error ← decay · error + delta`, value by value; two `f32` operations each.
///
/// The shorter of the two slices decides how many values are touched.
pub fn accumulate(error: &mut [f32], delta: &[f32], decay: f32) {
    for (error, delta) in error.iter_mut().zip(delta) {
        *error = decay * *error + *delta;
    }
}

/// Error feedback from parameters: `error ← decay · error + (start − local)`, value by value.
///
/// The shortest of the slices decides how many values are touched.
#[inline(always)]
pub fn accumulate_difference(error: &mut [f32], start: &[f32], local: &[f32], decay: f32) {
    for ((error, start), local) in error.iter_mut().zip(start).zip(local) {
        *error = decay * *error + (*start - *local);
    }
}

/// Appends the bytes of one chunk to `out` and takes what they stand for off `values`, which
/// becomes the residual.
///
/// `values` is the chunk, 1 to 4096 of them; on an error neither it nor `out` has changed. Many
/// chunks go faster through one [`Encoder`], which keeps its memory.
pub fn encode_chunk_f32(
    values: &mut [f32],
    keep: u16,
    out: &mut Vec<u8>,
) -> Result<(), ChunkError> {
    Encoder::new().encode_chunk(values, keep, out)
}

/// Encodes chunks, keeping its working memory from one to the next. Has no other state: what it
/// writes depends on the values alone.
#[derive(Default)]
pub struct Encoder {
    variant: Variant,
    selection: Selection,
    indices: Vec<u16>,
    selected: Vec<f32>,
    codes: Vec<u8>,
}

impl Encoder {
    /// An encoder without memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An encoder that uses these instructions; the bytes are the same with any.
    pub fn with_variant(variant: Variant) -> Self {
        Self { variant, ..Self::default() }
    }

    /// [`encode_chunk_f32`] with the memory of this encoder.
    pub fn encode_chunk(
        &mut self,
        values: &mut [f32],
        keep: u16,
        out: &mut Vec<u8>,
    ) -> Result<(), ChunkError> {
        self.variant.run(EncodeChunk { encoder: self, values, feedback: None, keep, out })
    }

    /// Encodes the chunks of a tensor, or of a part of one that starts at a chunk's start, and
    /// appends them to `out`. `values` becomes the residual.
    ///
    /// On an error (the number is the chunk's in `values`) the chunks before are encoded.
    pub fn encode_tensor(
        &mut self,
        values: &mut [f32],
        keep: u16,
        out: &mut EncodedChunks,
    ) -> Result<(), UpdateError> {
        for (index, chunk) in (0u32..).zip(values.chunks_mut(CHUNK_LEN as usize)) {
            self.append(index, chunk, None, keep, out)?;
        }
        Ok(())
    }

    /// [`Encoder::encode_tensor`] with the error feedback in the same pass over memory: chunk by
    /// chunk, `error ← decay · error + (start − local)` ([`accumulate_difference`]), then encode
    /// it. `error` is `e` before and the residual after; the bytes are those of the two steps
    /// apart.
    pub fn encode_difference(
        &mut self,
        error: &mut [f32],
        start: &[f32],
        local: &[f32],
        decay: f32,
        keep: u16,
        out: &mut EncodedChunks,
    ) -> Result<(), UpdateError> {
        if error.len() != start.len() || error.len() != local.len() {
            return Err(UpdateError::Tensors);
        }
        let parameters = start.chunks(CHUNK_LEN as usize).zip(local.chunks(CHUNK_LEN as usize));
        let chunks = error.chunks_mut(CHUNK_LEN as usize).zip(parameters);
        for (index, (chunk, (start, local))) in (0u32..).zip(chunks) {
            let feedback = Some(Feedback { start, local, decay });
            self.append(index, chunk, feedback, keep, out)?;
        }
        Ok(())
    }

    /// Encodes chunk `index` of a tensor and notes its length.
    fn append(
        &mut self,
        index: u32,
        values: &mut [f32],
        feedback: Option<Feedback<'_>>,
        keep: u16,
        out: &mut EncodedChunks,
    ) -> Result<(), UpdateError> {
        let before = out.bytes.len();
        self.variant
            .run(EncodeChunk { encoder: self, values, feedback, keep, out: &mut out.bytes })
            .map_err(|error| UpdateError::Chunk { index, error })?;
        out.lens.push((out.bytes.len() - before) as u16);
        Ok(())
    }

    /// Encodes a whole update: `tensors` are those of the layout, in its order, holding
    /// `u = β·e + Δ`; they become the residual `e = u − what the bytes stand for`.
    ///
    /// Refuses values that are not finite, naming the chunk; the tensors then hold a mixture and
    /// their error feedback is to be dropped. On one thread; for several, encode tensors with an
    /// encoder each and put them together with [`assemble`].
    pub fn encode(
        &mut self,
        tensors: &mut [&mut [f32]],
        layout: &Layout,
        keep: u16,
    ) -> Result<Vec<u8>, UpdateError> {
        let chunk_count = layout.chunk_count().ok_or(UpdateError::Layout)?;
        checked_kept(CHUNK_LEN, keep).map_err(|_| UpdateError::Keep(keep))?;
        let lens = tensors.iter().map(|tensor| tensor.len() as u64);
        if !lens.eq(layout.0.iter().copied()) {
            return Err(UpdateError::Tensors);
        }
        let mut encoded = EncodedChunks {
            lens: Vec::with_capacity(chunk_count as usize),
            bytes: Vec::with_capacity(payload_bytes_max(layout, keep) as usize),
        };
        for tensor in tensors {
            let first = encoded.lens.len() as u32;
            self.encode_tensor(tensor, keep, &mut encoded).map_err(|error| error.after(first))?;
        }
        assemble(&[encoded], layout, keep)
    }
}

/// What error feedback adds to a chunk.
#[derive(Clone, Copy)]
struct Feedback<'a> {
    start: &'a [f32],
    local: &'a [f32],
    decay: f32,
}

/// One chunk's way from values to bytes.
struct EncodeChunk<'a, 'b> {
    encoder: &'a mut Encoder,
    values: &'a mut [f32],
    feedback: Option<Feedback<'b>>,
    keep: u16,
    out: &'a mut Vec<u8>,
}

impl Work for EncodeChunk<'_, '_> {
    type Output = Result<(), ChunkError>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Encoder { variant, selection, indices, selected, codes } = self.encoder;
        let values = self.values;
        let len = u32::try_from(values.len()).unwrap_or(u32::MAX);
        let kept = checked_kept(len, self.keep)?;
        if let Some(feedback) = self.feedback {
            accumulate_difference(values, feedback.start, feedback.local, feedback.decay);
        }
        selection.select(*variant, values, usize::from(kept))?;
        let positions = &selection.positions;
        selected.clear();
        selected.extend(positions.iter().map(|position| values[*position as usize]));
        let scale = quantise(selected, codes);
        indices.clear();
        if scale == 0 {
            // Nothing worth sending: the one form that such a chunk has.
            indices.extend(0..kept);
        } else {
            indices.extend(positions.iter().map(|position| *position as u16));
            let table = [0, 1, 2, 3].map(|code| code_value(scale, code));
            for (position, code) in positions.iter().zip(codes.iter()) {
                values[*position as usize] -= table[usize::from(*code & 3)];
            }
        }
        write_chunk(scale, indices, codes, len, self.out);
        Ok(())
    }
}
