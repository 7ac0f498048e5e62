//! What the ranks keep, handed over to a checkpoint: each rank what it owns, all at once, a block at a time.

use super::gpu::{GpuError, Stream};
use super::node::Node;
use super::rank::Rank;
use super::state::{average, segment};
use super::twin::join;
use crate::engine::learner::{Kept, Lent, Take};

/// Values that are on their way from a card at a time, so that no tensor is held whole.
const BLOCK: u64 = 1 << 20;

impl Rank {
    /// Hands over what this rank owns of a tensor, whose first value is number `first` of its kind; whether to go on.
    fn hand_over(
        &self,
        kept: Kept,
        tensor: usize,
        first: u64,
        take: Take<'_>,
    ) -> Result<bool, GpuError> {
        let (rank, layout) = (self.collective.rank(), &self.shape.layout);
        let Some((unit, _, own)) = segment(layout, tensor, rank) else { return Ok(true) };
        let unit_number = layout.places.get(tensor).map_or(0, |place| place.0);
        let (mut upper, mut lower, mut joined) = (Vec::new(), Vec::new(), Vec::new());
        for start in (own.tensor.start..own.tensor.end).step_by(BLOCK as usize) {
            let count = (own.tensor.end - start).min(BLOCK);
            let skipped = 2 * (start - own.tensor.start);
            upper.resize(count as usize, 0u16);
            let flow = match kept {
                Kept::Parameters => {
                    let Some(states) = self.states(unit_number) else { return Ok(true) };
                    let place = 2 * own.owned + skipped;
                    self.fetch_values(self.own_high(unit).plus(place), &mut upper)?;
                    lower.resize(count as usize, 0u16);
                    self.fetch_values(states.low.plus(place), &mut lower)?;
                    joined.clear();
                    joined.extend(
                        upper.iter().zip(&lower).map(|(upper, lower)| join(*upper, *lower)),
                    );
                    take(rank, first + start, Lent::F32(&joined))
                }
                Kept::Mean | Kept::Square => {
                    let Some(at) = average(self, kept, tensor, &own) else { return Ok(true) };
                    self.fetch_values(at.plus(skipped), &mut upper)?;
                    take(rank, first + start, Lent::Bf16(&upper))
                }
            };
            if flow.is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn fetch_values(&self, at: super::Address, into: &mut [u16]) -> Result<(), GpuError> {
        self.gpu.download(Stream::Compute, at, bytemuck::cast_slice_mut(into))
    }
}

impl Node {
    /// Hands over all values of a kind, each rank those that it owns; `lens` says how many there are of each tensor.
    pub(super) fn hand_over(
        &mut self,
        kept: Kept,
        lens: &[u64],
        take: Take<'_>,
    ) -> Result<(), GpuError> {
        self.all(|rank| {
            let mut first = 0;
            for (tensor, len) in lens.iter().enumerate() {
                if *len > 0 && !rank.hand_over(kept, tensor, first, take)? {
                    break;
                }
                first += len;
            }
            Ok(())
        })?;
        Ok(())
    }
}
