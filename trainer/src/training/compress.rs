//! Compresses a miner's window as SparseLoCo does, over all cores and without a second copy of
//! anything: error feedback and `protocol`'s encoder.
//!
//! With Δ = θ_start − θ_local and the feedback e of the windows before: u = β · e + Δ; the update
//! stands for a sparse, quantised u; e becomes what it leaves out (Sarfi et al. 2025, "Communication
//! efficient LLM pre-training with SparseLoCo"). A chunk depends on its own values alone, so the
//! bytes are the same with any number of threads.
//!
//! [`UpdateStream`] takes the tensors one after the other, from wherever they lie: memory, or a
//! file that is mapped into it. Beside them it holds the encoded chunks of one wave, at most
//! [`SPANS`] · [`SPAN`] chunks a thread, and one or two bytes for each chunk of the model. Measured
//! by the example `sparseloco_speed`; docs/study/README.md has the figures.

use std::io::{Seek, Write};

use protocol::layout::{Layout, CHUNK_LEN};
use protocol::update::{EncodedChunks, Encoder, UpdateError, UpdateWriter, WriteError};
use protocol::variant::Variant;

use crate::compute::threads::{Shared, Threads};

/// Chunks that one task works on: half a MiB of parameters.
pub const SPAN: usize = 32;

/// Tasks a thread in one wave: enough that threads of unequal speed end together.
pub const SPANS: usize = 16;

const SPAN_LEN: usize = SPAN * CHUNK_LEN as usize;

/// One tensor, or a part of one that starts where a chunk does: three slices of the same length.
pub struct TensorPart<'a> {
    /// The error feedback e, which becomes the residual.
    pub feedback: &'a mut [f32],
    /// θ at the window's start.
    pub start: &'a [f32],
    /// θ after the local steps.
    pub local: &'a [f32],
}

/// Some chunks of a part, and where its bytes go.
struct Span<'a> {
    part: TensorPart<'a>,
    first_chunk: u32,
}

/// What a task keeps from one span to the next.
#[derive(Default)]
struct Scratch {
    encoder: Encoder,
    encoded: EncodedChunks,
}

/// Encodes an update tensor by tensor, in the layout's order, into a sink.
pub struct UpdateStream<W> {
    threads: Threads,
    writer: UpdateWriter<W>,
    keep: u16,
    decay: f32,
    scratch: Vec<Scratch>,
    /// Chunks encoded.
    chunks: u32,
}

impl<W: Write + Seek> UpdateStream<W> {
    /// Starts an update. `decay` is what is left of the error feedback from window to window.
    pub fn new(
        threads: &Threads,
        sink: W,
        layout: &Layout,
        keep: u16,
        decay: f32,
    ) -> Result<Self, WriteError> {
        Self::with_variant(threads, sink, layout, keep, decay, Variant::best())
    }

    /// [`UpdateStream::new`] with given instructions, for measurements. The bytes are the same.
    pub fn with_variant(
        threads: &Threads,
        sink: W,
        layout: &Layout,
        keep: u16,
        decay: f32,
        variant: Variant,
    ) -> Result<Self, WriteError> {
        let scratch = || Scratch {
            encoder: Encoder::with_variant(variant),
            encoded: EncodedChunks::default(),
        };
        Ok(Self {
            writer: UpdateWriter::new(sink, layout, keep)?,
            scratch: (0..threads.count() * SPANS).map(|_| scratch()).collect(),
            threads: threads.clone(),
            keep,
            decay,
            chunks: 0,
        })
    }

    /// Encodes the next parts of the model. All but a tensor's last part must be whole chunks.
    ///
    /// On an error the error feedback of what has been given so far is a mixture and must be
    /// dropped.
    pub fn encode<'a>(
        &mut self,
        parts: impl IntoIterator<Item = TensorPart<'a>>,
    ) -> Result<(), WriteError> {
        let mut spans = Vec::with_capacity(self.scratch.len());
        for part in parts {
            if part.feedback.len() != part.start.len() || part.feedback.len() != part.local.len() {
                return Err(UpdateError::Tensors.into());
            }
            let parameters = part.start.chunks(SPAN_LEN).zip(part.local.chunks(SPAN_LEN));
            for (feedback, (start, local)) in part.feedback.chunks_mut(SPAN_LEN).zip(parameters) {
                let first_chunk = self.chunks;
                self.chunks += feedback.len().div_ceil(CHUNK_LEN as usize) as u32;
                spans.push(Span { part: TensorPart { feedback, start, local }, first_chunk });
                if spans.len() == self.scratch.len() {
                    self.wave(&mut spans)?;
                }
            }
        }
        self.wave(&mut spans)
    }

    /// Takes the next chunks as they were encoded elsewhere, on a device: their number and lengths are checked, not their content.
    pub fn append(&mut self, encoded: &EncodedChunks) -> Result<(), WriteError> {
        self.writer.append(encoded)?;
        self.chunks += encoded.lens.len() as u32;
        Ok(())
    }

    /// The error of a chunk that was to follow, with the chunk's number in the model.
    pub(crate) fn numbered(&self, error: UpdateError) -> UpdateError {
        error.after(self.chunks)
    }

    /// Encodes the spans at once and writes them in order.
    fn wave(&mut self, spans: &mut Vec<Span<'_>>) -> Result<(), WriteError> {
        let (keep, decay, count) = (self.keep, self.decay, spans.len());
        let work = Shared::new(spans);
        let scratch = Shared::new(&mut self.scratch);
        let results = self.threads.map(count, |index| {
            // SAFETY: each task has a span and a scratch of its own.
            let (span, scratch) = unsafe {
                (&mut work.part(index, index + 1)[0], &mut scratch.part(index, index + 1)[0])
            };
            let Scratch { encoder, encoded } = scratch;
            encoded.lens.clear();
            encoded.bytes.clear();
            let TensorPart { feedback, start, local } = &mut span.part;
            encoder
                .encode_difference(feedback, start, local, decay, keep, encoded)
                .map_err(|error| error.after(span.first_chunk))
        });
        for (result, scratch) in results.into_iter().zip(&self.scratch) {
            result?;
            self.writer.append(&scratch.encoded)?;
        }
        spans.clear();
        Ok(())
    }

    /// Writes the table; the sink is then at the update's end. Refuses to if tensors are missing.
    pub fn finish(self) -> Result<W, WriteError> {
        self.writer.finish()
    }
}
