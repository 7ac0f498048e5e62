//! Says where the averages of some tensors lie: one after the other, in the order of the arena.

use std::ops::Range;

use crate::model::config::Arena;

/// A tensor whose averages are kept.
pub(super) struct Packed {
    /// Its number in the arena.
    tensor: usize,
    /// Its parameters in the arena.
    pub(super) parameters: Range<usize>,
    /// Its averages, among those of all such tensors.
    pub(super) averages: Range<usize>,
    pub(super) shape: Vec<usize>,
    /// Whether weight decay makes it smaller.
    pub(super) decays: bool,
}

/// The tensors that one optimiser trains.
pub(super) struct Packing(Vec<Packed>);

impl Packing {
    /// The tensors of the arena that `trains` says.
    pub(super) fn new(arena: &Arena, trains: impl Fn(usize) -> bool) -> Self {
        let mut packed: Vec<Packed> = Vec::new();
        for (tensor, placed) in arena.tensors.iter().enumerate().filter(|(at, _)| trains(*at)) {
            let start = packed.last().map_or(0, |last| last.averages.end);
            packed.push(Packed {
                tensor,
                parameters: placed.range.clone(),
                averages: start..start + placed.range.len(),
                shape: placed.info.shape.clone(),
                decays: arena.decays(tensor),
            });
        }
        Self(packed)
    }

    pub(super) fn tensors(&self) -> &[Packed] {
        &self.0
    }

    /// Values of one average of all of them.
    pub(super) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| last.averages.end)
    }

    /// Where the averages of tensor `tensor` of the arena lie, if it is among them.
    pub(super) fn averages(&self, tensor: usize) -> Option<Range<usize>> {
        let place = self.0.binary_search_by_key(&tensor, |packed| packed.tensor).ok()?;
        Some(self.0[place].averages.clone())
    }
}
