//! The outer step on the cards, for θ that lies on the host: parts of it visit the cards, each part's updates with it,
//! and come back with the bits that [`protocol::aggregate`] makes on a processor.
//!
//! A card gives [`ROOM`] bytes for it, once, of what its learner or predictor leaves; where it does not have them, the
//! host takes the step. A part that came back is final; if a card fails, the host takes the step of the parts that did
//! not.

use std::thread;

use protocol::aggregate::{aggregate_chunks, OuterRule};
use protocol::update::{Payload, UpdateError};

use super::gpu::{Address, Gpu, GpuError, Stream};
use super::kernels::sparse::{outer_step, slot_bytes, OuterStep, Staged, Values};
use super::layout::CHUNK;
use super::plan::aligned;
use super::seats::Gpus;
use crate::model::outer_step::TensorStep;

/// Bytes of a card for parameters and updates on their way.
pub const ROOM: u64 = 64 << 20;

/// Bytes of a card that are to be free beside them.
const LEFT: u64 = 256 << 20;

/// The most chunks at a time: 16 MiB of parameters.
const CHUNKS_MAX: u64 = 1024;

/// A card that takes outer steps.
struct Card {
    gpu: Box<dyn Gpu>,
    room: Address,
    /// A part that came back.
    back: Vec<f32>,
}

/// Consecutive chunks of a tensor.
struct Part<'a> {
    /// The first of them in the model, and in the tensor.
    first: [u32; 2],
    theta: &'a mut [f32],
    is_done: bool,
}

/// What is the same for all parts of a tensor.
struct Work<'a> {
    payloads: Vec<&'a Payload<'a>>,
    factors: &'a [f32],
    keep: u16,
    rule: OuterRule,
}

impl Work<'_> {
    /// Chunks with all that the step of them needs for which [`ROOM`] is enough.
    fn chunks_at_once(&self) -> u64 {
        let updates = self.payloads.len() as u64;
        let beside = aligned(4 * updates) + 4 * updates + 4 * aligned(1);
        let chunk = 4 * CHUNK + updates * (u64::from(slot_bytes(self.keep)) + 4);
        (ROOM.saturating_sub(beside) / chunk).min(CHUNKS_MAX)
    }
}

impl Card {
    /// Takes the step of some parts, until one fails.
    fn parts(&mut self, parts: &mut [Part<'_>], work: &Work<'_>) -> Result<(), GpuError> {
        for part in parts {
            self.part(part, work)?;
            part.theta.copy_from_slice(&self.back);
            part.is_done = true;
        }
        Ok(())
    }

    /// Brings the outer step of a part back, which is as it was.
    fn part(&mut self, part: &Part<'_>, work: &Work<'_>) -> Result<(), GpuError> {
        let (len, updates) = (part.theta.len() as u64, work.payloads.len() as u32);
        let [first, _] = part.first;
        let staged = Staged::new(&work.payloads, first..first + len.div_ceil(CHUNK) as u32);
        let staged = staged.map_err(|error| GpuError::Failed {
            call: "an update's chunks".to_owned(),
            reason: error.to_string(),
        })?;
        let factors = self.room.plus(aligned(4 * len));
        let offsets = factors.plus(aligned(4 * u64::from(updates)));
        let bytes = offsets.plus(aligned(4 * staged.offsets.len() as u64));
        let (gpu, stream) = (&*self.gpu, Stream::Compute);
        gpu.upload(stream, self.room, bytemuck::cast_slice(part.theta))?;
        gpu.upload(stream, factors, bytemuck::cast_slice(work.factors))?;
        gpu.upload(stream, offsets, bytemuck::cast_slice(&staged.offsets))?;
        gpu.upload(stream, bytes, &staged.bytes)?;
        let theta = Values::Whole(self.room);
        let (keep, rule) = (work.keep, work.rule);
        outer_step(
            gpu,
            stream,
            &OuterStep { theta, bytes, offsets, factors, len, updates, keep, rule },
        )?;
        self.back.resize(part.theta.len(), 0.0);
        gpu.download(stream, self.room, bytemuck::cast_slice_mut(&mut self.back))
    }
}

/// The cards that take outer steps, at least one.
pub(super) struct OuterCards(Vec<Card>);

impl OuterCards {
    /// Opens the cards and takes the room; `None` where one has too little.
    ///
    /// # Errors
    /// A card fails.
    pub(super) fn open(gpus: &dyn Gpus) -> Result<Option<Self>, GpuError> {
        let mut cards = Vec::new();
        for seat in gpus.open()? {
            let gpu = seat.gpu;
            if gpu.memory()?.0 < ROOM + LEFT {
                return Ok(None);
            }
            let room = gpu.allocate(ROOM)?;
            cards.push(Card { gpu, room, back: Vec::new() });
        }
        Ok((!cards.is_empty()).then_some(Self(cards)))
    }

    /// The outer step of one tensor, and why a card did not take its part of it, which the host then did.
    ///
    /// # Errors
    /// An update is not of this layout; the tensor may have changed in part.
    pub(super) fn step(&mut self, tensor: TensorStep<'_>) -> Result<Option<GpuError>, UpdateError> {
        let factors = tensor.factors()?;
        let TensorStep { theta, updates, first_chunk, rule, .. } = tensor;
        let payloads: Vec<&Payload<'_>> = tensor.payloads.iter().collect();
        let keep = payloads.first().map_or(1, |payload| payload.keep());
        let work = Work { payloads, factors: &factors, keep, rule };
        // All cards have a part of a tensor.
        let chunks = (theta.len() as u64).div_ceil(CHUNK);
        let each_card = chunks.div_ceil(self.0.len().max(1) as u64).max(1);
        let at_once = work.chunks_at_once().min(each_card);
        let firsts = (0u32..).step_by(at_once.max(1) as usize);
        let of_part =
            |(inside, theta)| Part { first: [first_chunk + inside, inside], theta, is_done: false };
        let values = (at_once.max(1) * CHUNK) as usize;
        let mut parts: Vec<Part<'_>> = firsts.zip(theta.chunks_mut(values)).map(of_part).collect();
        // Updates of which not even a chunk's fit are the host's.
        let failed = if at_once > 0 { self.parts(&mut parts, &work) } else { None };
        for part in parts.into_iter().filter(|part| !part.is_done) {
            aggregate_chunks(part.theta, updates, &factors, part.first[1], rule)?;
        }
        Ok(failed)
    }

    /// Lets all cards take the step of their parts at once; the error of one that failed.
    fn parts(&mut self, parts: &mut [Part<'_>], work: &Work<'_>) -> Option<GpuError> {
        let each = parts.len().div_ceil(self.0.len()).max(1);
        if parts.len() <= each {
            return self.0.first_mut()?.parts(parts, work).err();
        }
        thread::scope(|scope| {
            let shares = self.0.iter_mut().zip(parts.chunks_mut(each));
            let threads: Vec<_> =
                shares.map(|(card, parts)| scope.spawn(move || card.parts(parts, work))).collect();
            let died = || {
                let (call, reason) = ("a card's thread".to_owned(), "it panicked".to_owned());
                Err(GpuError::Failed { call, reason })
            };
            let results =
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| died()));
            results.fold(None, |failed, result| failed.or(result.err()))
        })
    }
}
