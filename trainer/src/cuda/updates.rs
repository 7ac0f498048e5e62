//! SparseLoCo and Gauntlet on the ranks: each rank encodes the chunks that it owns, and applies to them what an
//! update has for them.
//!
//! Both work in the memory that nothing uses between two passes ([`Rank::spare`]), some chunks at a time, so that
//! neither takes any of the plan's. What an applied update replaced rests on the host until it is put back:
//! 4 · k bytes a chunk, and the chunk's own.

use std::ops::Range;

use protocol::layout::CHUNK_LEN;
use protocol::update::{EncodedChunks, Payload, UpdateError};

use super::gpu::{Address, GpuError, Stream};
use super::kernels::sparse::{
    apply_update, compact, encode_chunks, slot_bytes, undo_update, Apply, Encode, Staged, Values,
};
use super::layout::CHUNK;
use super::node::Node;
use super::plan::{aligned, Region};
use super::rank::Rank;
use crate::compute::threads::Shared;
use crate::engine::learner::TensorToEncode;
use crate::engine::weights::Change;
use crate::engine::BatchError;

/// The most chunks at a time: 16 MiB of parameters.
const CHUNKS_MAX: u64 = 1024;

/// Chunks of a tensor that were encoded at once.
struct Slots {
    /// Values that they stand for.
    len: u64,
    slots: Vec<u8>,
    lengths: Vec<u32>,
}

/// Chunks of a tensor on one rank to which an update was applied.
struct Applied {
    tensor: usize,
    values: Range<u64>,
    staged: Staged,
    saved: Vec<u32>,
}

/// What puts back the parameters to which an update was applied.
pub(super) struct Undo {
    keep: u16,
    /// Of each rank.
    applied: Vec<Vec<Applied>>,
}

/// What a rank is to apply to some chunks of a tensor.
struct Task {
    tensor: usize,
    values: Range<u64>,
    /// The first of the chunks in the update.
    first: u32,
}

impl Rank {
    /// Device memory in which nothing lies between two passes, and its bytes.
    fn spare(&self) -> (Address, u64) {
        let first = self.shape.plan.start(Region::Residual);
        (self.at(first), self.shape.plan.bytes() - first)
    }

    /// Where some values of a tensor lie, all of which this rank owns.
    fn owned(&self, tensor: usize, values: &Range<u64>) -> Option<Values> {
        let shape = &self.shape;
        let (unit_number, _) = *shape.layout.places.get(tensor)?;
        let (unit, piece) = shape.layout.place(tensor)?;
        let own = shape.layout.segment(unit, piece, self.collective.rank())?;
        let inside = own.tensor.start <= values.start && values.end <= own.tensor.end;
        let at = 2 * (own.owned + values.start - own.tensor.start);
        let low = self.states(unit_number)?.low;
        inside.then(|| Values::Halves { hi: self.own_high(unit).plus(at), lo: low.plus(at) })
    }

    /// What this rank owns of a tensor.
    fn segment_of(&self, tensor: usize) -> Option<Range<u64>> {
        let (unit, piece) = self.shape.layout.place(tensor)?;
        let own = self.shape.layout.segment(unit, piece, self.collective.rank())?;
        Some(own.tensor)
    }

    /// Encodes what this rank owns of a tensor; `feedback` and `start` are those values.
    fn encode(
        &mut self,
        tensor: usize,
        feedback: &mut [f32],
        start: &[f32],
        (keep, decay): (u16, f32),
    ) -> Result<Vec<Slots>, GpuError> {
        let Some(own) = self.segment_of(tensor) else { return Ok(Vec::new()) };
        let at_once = (self.chunks_at_once(encoding_bytes(keep)) * CHUNK) as usize;
        let firsts = (own.start..own.end).step_by(at_once.max(1));
        let parts = feedback.chunks_mut(at_once.max(1)).zip(start.chunks(at_once.max(1)));
        let mut encoded = Vec::new();
        for (first, (feedback, start)) in firsts.zip(parts) {
            let values = first..first + feedback.len() as u64;
            encoded.push(self.encode_part(tensor, values, feedback, start, (keep, decay))?);
        }
        Ok(encoded)
    }

    fn encode_part(
        &mut self,
        tensor: usize,
        values: Range<u64>,
        feedback: &mut [f32],
        start: &[f32],
        (keep, decay): (u16, f32),
    ) -> Result<Slots, GpuError> {
        let len = values.end - values.start;
        let chunks = len.div_ceil(CHUNK);
        let slots_len = chunks * u64::from(slot_bytes(keep));
        let local = self.owned(tensor, &values).ok_or_else(not_owned)?;
        let (feedback_at, _) = self.spare();
        let start_at = feedback_at.plus(aligned(len * 4));
        let slots_at = start_at.plus(aligned(len * 4));
        let lengths_at = slots_at.plus(aligned(slots_len));
        let (gpu, stream) = (&*self.gpu, Stream::Compute);
        gpu.upload(stream, feedback_at, bytemuck::cast_slice(feedback))?;
        gpu.upload(stream, start_at, bytemuck::cast_slice(start))?;
        let work = Encode {
            feedback: feedback_at,
            start: Values::Whole(start_at),
            local,
            slots: slots_at,
            lengths: lengths_at,
            len,
            keep,
            decay,
        };
        encode_chunks(gpu, stream, &work)?;
        let mut encoded =
            Slots { len, slots: vec![0; slots_len as usize], lengths: vec![0; chunks as usize] };
        gpu.download(stream, feedback_at, bytemuck::cast_slice_mut(feedback))?;
        gpu.download(stream, slots_at, &mut encoded.slots)?;
        gpu.download(stream, lengths_at, bytemuck::cast_slice_mut(&mut encoded.lengths))?;
        Ok(encoded)
    }

    /// How many chunks there is room for, at so many bytes each, beside what makes several regions of them.
    fn chunks_at_once(&self, bytes: u64) -> u64 {
        let room = self.spare().1.saturating_sub(4 * aligned(1));
        (room / bytes).min(CHUNKS_MAX)
    }

    /// What this rank is to apply, tensor after tensor.
    fn tasks(&self, change: &Change<'_>) -> Vec<Task> {
        let (arena, layout) = (change.base.arena(), change.base.layout());
        let at_once = self.chunks_at_once(applying_bytes(change.payload.keep())).max(1);
        let mut tasks = Vec::new();
        for (number, &tensor) in (0u32..).zip(&arena.canonical) {
            let own = self.segment_of(tensor);
            let (Some(own), Some((first, _))) = (own, layout.tensor_chunks(number)) else {
                continue;
            };
            for start in (own.start..own.end).step_by((at_once * CHUNK) as usize) {
                let values = start..own.end.min(start + at_once * CHUNK);
                tasks.push(Task { tensor, values, first: first + (start / CHUNK) as u32 });
            }
        }
        tasks
    }

    fn apply_task(
        &mut self,
        task: Task,
        payload: &Payload<'_>,
        rate: f32,
    ) -> Result<Applied, GpuError> {
        let Task { tensor, values, first } = task;
        let chunks = (values.end - values.start).div_ceil(CHUNK) as u32;
        let staged = Staged::new(&[payload], first..first + chunks);
        let staged = staged.map_err(|error| GpuError::Failed {
            call: "an update's chunks".into(),
            reason: error.to_string(),
        })?;
        let saved = vec![0; chunks as usize * usize::from(payload.keep())];
        let mut applied = Applied { tensor, values, staged, saved };
        let work = self.prepare(&applied, payload.keep())?;
        apply_update(&*self.gpu, Stream::Compute, &work, rate)?;
        let saved = bytemuck::cast_slice_mut(&mut applied.saved);
        self.gpu.download(Stream::Compute, work.saved, saved)?;
        Ok(applied)
    }

    fn undo_task(&mut self, applied: &Applied, keep: u16) -> Result<(), GpuError> {
        let work = self.prepare(applied, keep)?;
        self.gpu.upload(Stream::Compute, work.saved, bytemuck::cast_slice(&applied.saved))?;
        undo_update(&*self.gpu, Stream::Compute, &work)?;
        self.gpu.synchronise(Stream::Compute)
    }

    /// Brings an update's chunks to the card.
    fn prepare(&self, applied: &Applied, keep: u16) -> Result<Apply, GpuError> {
        let (bytes, _) = self.spare();
        let staged = &applied.staged;
        let offsets = bytes.plus(aligned(staged.bytes.len() as u64));
        let saved = offsets.plus(aligned(staged.offsets.len() as u64 * 4));
        let theta = self.owned(applied.tensor, &applied.values).ok_or_else(not_owned)?;
        self.gpu.upload(Stream::Compute, bytes, &staged.bytes)?;
        self.gpu.upload(Stream::Compute, offsets, bytemuck::cast_slice(&staged.offsets))?;
        let len = applied.values.end - applied.values.start;
        Ok(Apply { theta, bytes, offsets, saved, len, keep })
    }
}

/// Bytes on the card for a chunk that is encoded: error feedback, the window's start, the slot and its length.
fn encoding_bytes(keep: u16) -> u64 {
    2 * CHUNK * 4 + u64::from(slot_bytes(keep)) + 4
}

/// Bytes on the card for a chunk that is applied: its bytes, two offsets, and what was there before.
fn applying_bytes(keep: u16) -> u64 {
    u64::from(slot_bytes(keep)) + 8 + 4 * u64::from(keep)
}

fn not_owned() -> GpuError {
    GpuError::Failed { call: "an update".into(), reason: "values of another rank".into() }
}

impl Node {
    /// Whether every rank has room for a chunk at least.
    fn has_room(&self, bytes: u64) -> bool {
        self.ranks.iter().all(|rank| rank.chunks_at_once(bytes) > 0)
    }

    /// Encodes a tensor on the ranks that own it; `false`, and nothing has happened, if there is no room for it.
    ///
    /// # Errors
    /// A rank failed, or a value is not finite, and the error feedback is a mixture.
    pub(super) fn encode(
        &mut self,
        part: TensorToEncode<'_>,
        into: &mut EncodedChunks,
    ) -> Result<bool, BatchError> {
        let TensorToEncode { tensor, feedback, start, keep, decay } = part;
        if keep == 0 || u32::from(keep) > CHUNK_LEN {
            return Err(UpdateError::Keep(keep).into());
        }
        if feedback.len() != start.len() {
            return Err(UpdateError::Tensors.into());
        }
        if !self.has_room(encoding_bytes(keep)) {
            return Ok(false);
        }
        let len = feedback.len();
        let feedback = Shared::new(feedback);
        let encoded = self.all(|rank| {
            let Some(own) = rank.segment_of(tensor) else { return Ok(Vec::new()) };
            let own = own.start as usize..own.end as usize;
            let here = start.get(own.clone()).filter(|_| own.end <= len).ok_or_else(not_owned)?;
            // SAFETY: what the ranks own of a tensor is disjoint.
            let feedback = unsafe { feedback.part(own.start, own.end) };
            rank.encode(tensor, feedback, here, (keep, decay))
        })?;
        let mut chunks = 0;
        for slots in encoded.iter().flatten() {
            compact(&slots.slots, &slots.lengths, slots.len, keep, into)
                .map_err(|error| error.after(chunks))?;
            chunks += slots.lengths.len() as u32;
        }
        Ok(true)
    }

    /// Applies an update to the parameters, which are those of `change.base`; `None`, and nothing has happened, if
    /// there is no room for it.
    ///
    /// # Errors
    /// A rank failed; the parameters are a mixture.
    pub(super) fn apply(&mut self, change: &Change<'_>) -> Result<Option<Undo>, GpuError> {
        let keep = change.payload.keep();
        if !self.keeps_lower() || !self.has_room(applying_bytes(keep)) {
            return Ok(None);
        }
        let applied = self.all(|rank| {
            let tasks = rank.tasks(change);
            let apply = |task| rank.apply_task(task, change.payload, change.rate);
            tasks.into_iter().map(apply).collect::<Result<Vec<_>, _>>()
        })?;
        Ok(Some(Undo { keep, applied }))
    }

    /// Puts the parameters back to what they were, bit for bit.
    ///
    /// # Errors
    /// A rank failed; the parameters are a mixture.
    pub(super) fn undo(&mut self, undo: &Undo) -> Result<(), GpuError> {
        self.all(|rank| {
            let applied = undo.applied.get(rank.collective.rank()).into_iter().flatten();
            applied.into_iter().try_for_each(|applied| rank.undo_task(applied, undo.keep))
        })?;
        Ok(())
    }

    /// Whether the parameters are here to all their bits, and not in bf16 alone.
    pub(super) fn keeps_lower(&self) -> bool {
        self.shape.plan.work.training || self.shape.plan.work.changes
    }
}
