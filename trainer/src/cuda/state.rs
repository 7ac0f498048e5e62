//! Parameters and averages between the host, where they are f32 and tensors, and the ranks, where they are halves and
//! spread.

use super::gpu::{GpuError, Stream};
use super::layout::{Layout, Piece, Segment, Unit};
use super::node::Node;
use super::rank::Rank;
use super::twin::{join, round, split, widen};
use crate::compute::threads::{Shared, Threads};
use crate::engine::learner::Kept;
use crate::engine::weights::Weights;
use crate::engine::BatchError;

/// Values that a thread splits or joins at once.
const BLOCK: usize = 64 * 1024;

/// Two halves of many values.
#[derive(Default)]
pub(super) struct Staging {
    upper: Vec<u16>,
    lower: Vec<u16>,
}

impl Staging {
    /// Splits f32 values.
    fn split(&mut self, threads: &Threads, values: &[f32]) {
        self.resize(values.len());
        let (upper, lower) = (Shared::new(&mut self.upper), Shared::new(&mut self.lower));
        threads.blocks(values.len(), BLOCK, |first, end| {
            // SAFETY: blocks are disjoint.
            let (upper, lower) = unsafe { (upper.part(first, end), lower.part(first, end)) };
            for ((value, upper), lower) in values[first..end].iter().zip(upper).zip(lower) {
                (*upper, *lower) = split(*value);
            }
        });
    }

    /// Joins them again.
    fn join(&self, threads: &Threads, values: &mut [f32]) {
        let len = values.len();
        let shared = Shared::new(values);
        threads.blocks(len, BLOCK, |first, end| {
            // SAFETY: blocks are disjoint.
            let values = unsafe { shared.part(first, end) };
            let halves = self.upper[first..end].iter().zip(&self.lower[first..end]);
            for (value, (upper, lower)) in values.iter_mut().zip(halves) {
                *value = join(*upper, *lower);
            }
        });
    }

    fn resize(&mut self, len: usize) {
        self.upper.resize(len, 0);
        self.lower.resize(len, 0);
    }
}

/// What rank `rank` owns of a tensor, as a range of the tensor and where it lies.
pub(super) fn segment(
    layout: &Layout,
    tensor: usize,
    rank: usize,
) -> Option<(&Unit, &Piece, Segment)> {
    let (unit, piece) = layout.place(tensor)?;
    Some((unit, piece, layout.segment(unit, piece, rank)?))
}

fn range(segment: &Segment) -> std::ops::Range<usize> {
    segment.tensor.start as usize..segment.tensor.end as usize
}

impl Node {
    /// Copies all parameters to their ranks, tensor by tensor; `room` is for those that do not lie on the host in one piece.
    pub(super) fn bring(
        &mut self,
        threads: &Threads,
        staging: &mut Staging,
        room: &mut Vec<f32>,
        weights: &mut dyn Weights,
    ) -> Result<(), BatchError> {
        let arena = self.shape.config.arena();
        let given = weights.arena().map_or(arena.len, <[f32]>::len);
        if given != arena.len {
            return Err(BatchError::Parameters { given, expected: arena.len });
        }
        for (index, tensor) in arena.tensors.iter().enumerate() {
            let values = match weights.arena().and_then(|arena| arena.get(tensor.range.clone())) {
                Some(values) => values,
                None => {
                    room.resize(tensor.range.len(), 0.0);
                    weights.read(index, room)?;
                    &*room
                }
            };
            self.write_parameters(threads, staging, index, values)?;
        }
        Ok(())
    }

    /// Copies a tensor's parameters to their ranks; the lower halves only where there is a place for them.
    pub(super) fn write_parameters(
        &mut self,
        threads: &Threads,
        staging: &mut Staging,
        tensor: usize,
        values: &[f32],
    ) -> Result<(), GpuError> {
        staging.split(threads, values);
        let shape = self.shape.clone();
        let keeps_lower = self.keeps_lower();
        let unit_number = shape.layout.places.get(tensor).map_or(0, |place| place.0);
        for (number, rank) in self.ranks.iter_mut().enumerate() {
            let Some((unit, _, own)) = segment(&shape.layout, tensor, number) else { continue };
            let upper = bytemuck::cast_slice(&staging.upper[range(&own)]);
            rank.gpu.upload(Stream::Compute, rank.own_high(unit).plus(own.owned * 2), upper)?;
            if let (true, Some(states)) = (keeps_lower, rank.states(unit_number)) {
                let lower = bytemuck::cast_slice(&staging.lower[range(&own)]);
                rank.gpu.upload(Stream::Compute, states.low.plus(own.owned * 2), lower)?;
            }
        }
        Ok(())
    }

    /// Copies a tensor's parameters from their ranks.
    pub(super) fn read_parameters(
        &mut self,
        threads: &Threads,
        staging: &mut Staging,
        tensor: usize,
        values: &mut [f32],
    ) -> Result<(), GpuError> {
        staging.resize(values.len());
        let shape = self.shape.clone();
        let unit_number = shape.layout.places.get(tensor).map_or(0, |place| place.0);
        for (number, rank) in self.ranks.iter_mut().enumerate() {
            let Some((unit, _, own)) = segment(&shape.layout, tensor, number) else { continue };
            let Some(states) = rank.states(unit_number) else { continue };
            let upper = bytemuck::cast_slice_mut(&mut staging.upper[range(&own)]);
            rank.gpu.download(Stream::Compute, rank.own_high(unit).plus(own.owned * 2), upper)?;
            let lower = bytemuck::cast_slice_mut(&mut staging.lower[range(&own)]);
            rank.gpu.download(Stream::Compute, states.low.plus(own.owned * 2), lower)?;
        }
        staging.join(threads, values);
        Ok(())
    }

    /// Copies one of a tensor's averages to its ranks, rounded to bf16: those that came from ranks are unchanged.
    pub(super) fn write_average(
        &mut self,
        kept: Kept,
        tensor: usize,
        values: &[f32],
    ) -> Result<(), GpuError> {
        let rounded: Vec<u16> = values.iter().map(|value| round(*value)).collect();
        let shape = self.shape.clone();
        for (number, rank) in self.ranks.iter_mut().enumerate() {
            let Some((_, _, own)) = segment(&shape.layout, tensor, number) else { continue };
            let Some(at) = average(rank, kept, tensor, &own) else { continue };
            let bytes = bytemuck::cast_slice(&rounded[range(&own)]);
            rank.gpu.upload(Stream::Compute, at, bytes)?;
        }
        Ok(())
    }

    /// Copies one of a tensor's averages from its ranks.
    pub(super) fn read_average(
        &mut self,
        kept: Kept,
        tensor: usize,
        values: &mut [f32],
    ) -> Result<(), GpuError> {
        let mut rounded = vec![0u16; values.len()];
        let shape = self.shape.clone();
        for (number, rank) in self.ranks.iter_mut().enumerate() {
            let Some((_, _, own)) = segment(&shape.layout, tensor, number) else { continue };
            let Some(at) = average(rank, kept, tensor, &own) else { continue };
            let bytes = bytemuck::cast_slice_mut(&mut rounded[range(&own)]);
            rank.gpu.download(Stream::Compute, at, bytes)?;
        }
        for (value, rounded) in values.iter_mut().zip(rounded) {
            *value = widen(rounded);
        }
        Ok(())
    }

    /// Copies a tensor's gradient from its ranks, for tests.
    pub(super) fn read_gradient(
        &mut self,
        tensor: usize,
        values: &mut [f32],
    ) -> Result<(), GpuError> {
        let shape = self.shape.clone();
        for (number, rank) in self.ranks.iter_mut().enumerate() {
            let Some((unit, _, own)) = segment(&shape.layout, tensor, number) else { continue };
            let bytes = bytemuck::cast_slice_mut(&mut values[range(&own)]);
            let at = rank.own_gradient(unit).plus(own.owned * 4);
            rank.gpu.download(Stream::Compute, at, bytes)?;
        }
        Ok(())
    }
}

/// Where a rank keeps an average of what it owns of a tensor.
pub(super) fn average(
    rank: &Rank,
    kept: Kept,
    tensor: usize,
    own: &Segment,
) -> Option<super::Address> {
    let (unit, piece) = *rank.shape.layout.places.get(tensor)?;
    let states = rank.states(unit)?;
    match kept {
        Kept::Mean => Some(states.mean.plus(own.owned * 2)),
        Kept::Square => Some(states.square.plus(rank.square_place(unit, piece)? * 2)),
        Kept::Parameters => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_join_to_the_same_bits() {
        let edges = [
            0.0,
            -0.0,
            1.0,
            f32::from_bits(0x3F80_8000),
            f32::MIN_POSITIVE,
            1e-45,
            f32::MAX,
            f32::MIN,
        ];
        let more = (0..200_000u32).map(|index| f32::from_bits(index.wrapping_mul(0x9E37_79B9)));
        let ties = (0..1_000u32).map(|index| f32::from_bits((index * 65_537) << 13 | 0x8000));
        for value in edges.into_iter().chain(more).chain(ties).filter(|value| value.is_finite()) {
            let (upper, lower) = split(value);
            assert_eq!(join(upper, lower).to_bits(), value.to_bits(), "{value:e}");
        }
    }
}
