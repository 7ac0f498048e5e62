//! Lends parameters to a device, one tensor at a time.
//!
//! A device that computes elsewhere reads each tensor into memory of its own; what computes on the
//! host's memory takes the whole arena where it lies there in one piece, and copies nothing.

use protocol::layout::{Layout, CHUNK_LEN};
use protocol::update::{chunk_values, Chunk, Payload, UpdateError};

use crate::compute::threads::{Shared, Threads};
use crate::engine::BatchError;
use crate::model::config::Arena;
use crate::model::{next_stamp, Model};

/// Parameters of one model, readable tensor by tensor. Tensors are counted as in
/// [`Arena::tensors`](crate::model::config::Arena::tensors).
pub trait Weights {
    /// A number that is equal only for equal parameters: a device need not read again what it has.
    fn stamp(&self) -> u64;

    /// Writes tensor `tensor` to `into`, which is as long as the tensor.
    fn read(&mut self, tensor: usize, into: &mut [f32]) -> Result<(), BatchError>;

    /// All parameters in the order of the arena, where they lie on the host in one piece.
    fn arena(&self) -> Option<&[f32]> {
        None
    }

    /// What makes these parameters of others, if that is less than they are: a device that has the others may make them itself.
    fn change(&self) -> Option<Change<'_>> {
        None
    }
}

/// One update that is applied to θ, without clipping: θ − rate · v.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// θ.
    pub base: &'a Model,
    /// The update, read with the model's layout.
    pub payload: &'a Payload<'a>,
    /// The rate.
    pub rate: f32,
}

impl Weights for &Model {
    fn stamp(&self) -> u64 {
        Model::stamp(self)
    }

    fn read(&mut self, tensor: usize, into: &mut [f32]) -> Result<(), BatchError> {
        let place = self.arena().tensors.get(tensor);
        let values = place.map_or(&[][..], |place| &self.parameters()[place.range.clone()]);
        copy(values, into)
    }

    fn arena(&self) -> Option<&[f32]> {
        Some(self.parameters())
    }
}

/// Copies a tensor to a place that must be as long.
pub(crate) fn copy(from: &[f32], to: &mut [f32]) -> Result<(), BatchError> {
    if from.len() != to.len() {
        return Err(BatchError::Parameters { given: from.len(), expected: to.len() });
    }
    to.copy_from_slice(from);
    Ok(())
}

/// A model with one update applied, without clipping: θ − rate · v, made tensor by tensor.
pub(crate) struct Updated<'a> {
    model: &'a Model,
    payload: Payload<'a>,
    rate: f32,
    /// The canonical number of each tensor of the arena.
    canonical: Vec<u32>,
    chunk: Chunk,
    stamp: u64,
}

impl<'a> Updated<'a> {
    /// Reads and checks the whole update.
    pub(crate) fn new(
        model: &'a Model,
        bytes: &'a [u8],
        keep: u16,
        rate: f32,
    ) -> Result<Self, UpdateError> {
        let mut canonical = vec![0; model.arena().canonical.len()];
        for (number, place) in (0u32..).zip(&model.arena().canonical) {
            canonical[*place] = number;
        }
        let payload = Payload::parse(bytes, model.layout(), keep)?;
        let (chunk, stamp) = (Chunk::default(), next_stamp());
        Ok(Self { model, payload, rate, canonical, chunk, stamp })
    }

    /// The same arithmetic, in the same order, as `protocol::aggregate::apply_single`.
    fn apply(&mut self, tensor: u32, theta: &mut [f32]) -> Result<(), UpdateError> {
        let chunks = self.model.layout().tensor_chunks(tensor);
        let (first, _) = chunks.ok_or(UpdateError::Tensors)?;
        for (index, theta) in (first..).zip(theta.chunks_mut(CHUNK_LEN as usize)) {
            self.payload.decode_into(index, theta.len() as u32, &mut self.chunk)?;
            for (position, value) in chunk_values(&self.chunk) {
                if let Some(theta) = theta.get_mut(usize::from(position)) {
                    *theta -= self.rate * value;
                }
            }
        }
        Ok(())
    }
}

impl Weights for Updated<'_> {
    fn stamp(&self) -> u64 {
        self.stamp
    }

    fn read(&mut self, tensor: usize, into: &mut [f32]) -> Result<(), BatchError> {
        let mut model = self.model;
        model.read(tensor, into)?;
        let number = self.canonical.get(tensor).copied();
        // The update was checked as a whole, so that this cannot fail.
        number
            .ok_or(UpdateError::Tensors)
            .and_then(|number| self.apply(number, into))
            .map_err(BatchError::from)
    }

    fn change(&self) -> Option<Change<'_>> {
        Some(Change { base: self.model, payload: &self.payload, rate: self.rate })
    }
}

/// What undoes an update that was applied to a model where it lies: the values that were there before, one for each value of
/// the update (k of 4096 parameters), tensor by tensor.
pub(crate) struct Undo {
    before: Vec<Vec<f32>>,
    /// θ's, which it has again in the end.
    stamp: u64,
}

/// θ ← θ − rate · v without clipping, with the arithmetic of `protocol::aggregate::apply_single`, several tensors at a time.
///
/// # Errors
/// The update is not of the model's layout.
pub(crate) fn apply_in_place(
    threads: &Threads,
    model: &mut Model,
    payload: &Payload<'_>,
    rate: f32,
) -> Result<Undo, UpdateError> {
    let stamp = model.stamp();
    let keep = usize::from(payload.keep());
    let room = |len: usize| Vec::with_capacity(len.div_ceil(CHUNK_LEN as usize) * keep);
    let before = touch_model(threads, model, payload, room, |_, before, theta, value| {
        before.push(*theta);
        *theta -= rate * value;
    });
    Ok(Undo { before: before?, stamp })
}

impl Undo {
    /// Puts back the bits of before; `payload` is the one that was applied.
    pub(crate) fn undo(
        self,
        threads: &Threads,
        model: &mut Model,
        payload: &Payload<'_>,
    ) -> Result<(), UpdateError> {
        let before = &self.before;
        touch_model(
            threads,
            model,
            payload,
            |_| 0,
            |tensor, next, theta, _| {
                if let Some(before) = before.get(tensor).and_then(|before| before.get(*next)) {
                    *theta = *before;
                }
                *next += 1;
            },
        )?;
        model.set_stamp(self.stamp);
        Ok(())
    }
}

/// [`touch`] of a model's parameters.
fn touch_model<S: Send>(
    threads: &Threads,
    model: &mut Model,
    payload: &Payload<'_>,
    make: impl Fn(usize) -> S + Sync,
    visit: impl Fn(usize, &mut S, &mut f32, f32) + Sync,
) -> Result<Vec<S>, UpdateError> {
    let (arena, layout) = (model.arena().clone(), model.layout().clone());
    touch(threads, (&arena, &layout), model.parameters_mut(), payload, make, visit)
}

/// Visits each value of `values`, which lie as an arena's do, of which the update has one, too, in the update's order within
/// a tensor; several tensors at a time, with something of its own for each, which is returned.
pub(crate) fn touch<S: Send>(
    threads: &Threads,
    (arena, layout): (&Arena, &Layout),
    values: &mut [f32],
    payload: &Payload<'_>,
    make: impl Fn(usize) -> S + Sync,
    visit: impl Fn(usize, &mut S, &mut f32, f32) + Sync,
) -> Result<Vec<S>, UpdateError> {
    let mut views = arena.views_mut(values);
    let count = views.len();
    let views = Shared::new(&mut views);
    let visited = threads.map(count, |tensor| {
        // SAFETY: each task has its own tensor.
        let own = &mut *unsafe { views.part(tensor, tensor + 1) }[0];
        let (mut state, mut chunk) = (make(own.len()), Chunk::default());
        let (first, _) = layout.tensor_chunks(tensor as u32).ok_or(UpdateError::Tensors)?;
        for (index, own) in (first..).zip(own.chunks_mut(CHUNK_LEN as usize)) {
            payload.decode_into(index, own.len() as u32, &mut chunk)?;
            for (position, value) in chunk_values(&chunk) {
                if let Some(own) = own.get_mut(usize::from(position)) {
                    visit(tensor, &mut state, own, value);
                }
            }
        }
        Ok(state)
    });
    visited.into_iter().collect()
}
