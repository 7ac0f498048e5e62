//! Lends parameters to a device, one tensor at a time.
//!
//! A device that computes elsewhere reads each tensor into memory of its own; what computes on the
//! host's memory takes the whole arena where it lies there in one piece, and copies nothing.

use protocol::update::{chunk_values, Chunk, Payload, UpdateError};

use crate::engine::BatchError;
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
        let chunk_len = protocol::layout::CHUNK_LEN as usize;
        for (index, theta) in (first..).zip(theta.chunks_mut(chunk_len)) {
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
