//! SparseLoCo's compression of a miner's window: error feedback, then `protocol`'s encoder over
//! all cores.
//!
//! With Δ = θ_start − θ_local and the error e of the windows before: u = β · e + Δ; the update
//! stands for a sparse, quantised u; e becomes what it leaves out (Sarfi et al. 2025, "Communication
//! efficient LLM pre-training with SparseLoCo"). A chunk depends on its own values alone, so the
//! bytes are the same with any number of threads.

use protocol::layout::{Layout, CHUNK_LEN};
use protocol::update::{accumulate_difference, assemble, EncodedChunks, Encoder, UpdateError};

use crate::config::Arena;
use crate::threads::{Shared, Threads};

/// Chunks that one task encodes: a MiB of parameters.
const CHUNKS: usize = 64;

/// Values that one task of the error feedback touches.
const BLOCK: usize = 64 * 1024;

/// error ← decay · error + (start − local), value by value.
pub fn accumulate(
    threads: &Threads,
    error: &mut [f32],
    start: &[f32],
    local: &[f32],
    error_decay: f32,
) {
    let len = error.len();
    let error = Shared::new(error);
    threads.blocks(len, BLOCK, |first, end| {
        // SAFETY: blocks are disjoint.
        let error = unsafe { error.part(first, end) };
        accumulate_difference(error, &start[first..end], &local[first..end], error_decay);
    });
}

/// Encodes `error` (holding u) into an update; it becomes the residual.
///
/// On an error `error` holds a mixture and must be dropped.
pub fn encode(
    threads: &Threads,
    arena: &Arena,
    layout: &Layout,
    error: &mut [f32],
    keep: u16,
) -> Result<Vec<u8>, UpdateError> {
    /// A run of whole chunks of one tensor.
    struct Span {
        start: usize,
        end: usize,
        first_chunk: u32,
    }
    let mut spans = Vec::new();
    let mut first_chunk = 0u32;
    for tensor in arena.canonical_tensors() {
        let mut start = tensor.range.start;
        while start < tensor.range.end {
            let end = (start + CHUNKS * CHUNK_LEN as usize).min(tensor.range.end);
            spans.push(Span {
                start,
                end,
                first_chunk,
            });
            first_chunk += (end - start).div_ceil(CHUNK_LEN as usize) as u32;
            start = end;
        }
    }
    let error = Shared::new(error);
    let parts = threads.map(spans.len(), |index| {
        let span = &spans[index];
        // SAFETY: spans are disjoint.
        let values = unsafe { error.part(span.start, span.end) };
        let mut encoded = EncodedChunks::default();
        match Encoder::new().encode_tensor(values, keep, &mut encoded) {
            Ok(()) => Ok(encoded),
            Err(UpdateError::Chunk { index, error }) => Err(UpdateError::Chunk {
                index: span.first_chunk + index,
                error,
            }),
            Err(error) => Err(error),
        }
    });
    let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
    assemble(&parts, layout, keep)
}
