//! Where the parameters lie on the ranks.
//!
//! A unit is what is gathered at once: the embedding, each layer, the last norm, the output matrix. In
//! it lie the arena's tensors in the arena's order, each from a multiple of [`CHUNK`] values on, so that no chunk
//! of an update lies on two ranks. Rank r owns the r-th equal part of every unit. A value's number
//! in the model, which the rounding of the optimiser's averages depends on, does not depend on how many ranks
//! there are.

use std::ops::Range;

use crate::model::config::{Arena, ModelConfig};

/// Values of an update's chunk: parts of units begin at multiples of it.
pub const CHUNK: u64 = protocol::layout::CHUNK_LEN as u64;

/// What a unit is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnitKind {
    /// The embedding, which is the output matrix too where they are tied.
    Embedding,
    /// A layer.
    Layer(usize),
    /// The last norm.
    FinalNorm,
    /// The output matrix, where it is not the embedding.
    Head,
}

/// A tensor in its unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Its number among the arena's tensors.
    pub tensor: usize,
    /// Its values in the unit.
    pub values: Range<u64>,
    /// Rows and columns; a vector is one row.
    pub shape: (u64, u64),
    /// Whether weight decay makes it smaller.
    pub decays: bool,
    /// Whether Muon may train it.
    pub layer_matrix: bool,
}

/// Tensors that are gathered at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// What it is.
    pub kind: UnitKind,
    /// Its tensors, in the arena's order.
    pub pieces: Vec<Piece>,
    /// The number in the model of its first value.
    pub first: u64,
    /// Values in all, a multiple of [`CHUNK`] · world.
    pub len: u64,
    /// Values of the units before it that each rank owns.
    pub owned_before: u64,
}

/// All units of a model on so many ranks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// In the order of their use by the forward pass.
    pub units: Vec<Unit>,
    /// Ranks.
    pub world: u64,
    /// Unit and piece of each tensor of the arena.
    pub places: Vec<(usize, usize)>,
}

/// Part of a tensor that a rank owns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// In the tensor.
    pub tensor: Range<u64>,
    /// Where it begins among what the rank owns of the unit.
    pub owned: u64,
}

impl Layout {
    /// The layout of a valid configuration on `world` ranks, at least 1.
    pub fn new(config: &ModelConfig, world: usize) -> Self {
        let (arena, world) = (config.arena(), world.max(1) as u64);
        let mut layout =
            Self { units: Vec::new(), world, places: vec![(0, 0); arena.tensors.len()] };
        let mut first = 0;
        let mut owned_before = 0;
        for (kind, tensors) in unit_tensors(config, &arena) {
            let mut unit = Unit { kind, pieces: Vec::new(), first, len: 0, owned_before };
            for tensor in tensors {
                layout.places[tensor] = (layout.units.len(), unit.pieces.len());
                unit.push(&arena, tensor);
            }
            first += unit.len;
            unit.len = unit.len.next_multiple_of(CHUNK * world);
            owned_before += unit.len / world;
            layout.units.push(unit);
        }
        layout
    }

    /// Values that each rank owns.
    pub fn owned(&self) -> u64 {
        self.units.last().map_or(0, |unit| unit.owned_before + unit.len / self.world)
    }

    /// The largest unit of a kind, in values.
    pub fn largest(&self, of: impl Fn(UnitKind) -> bool) -> u64 {
        let units = self.units.iter().filter(|unit| of(unit.kind));
        units.map(|unit| unit.len).max().unwrap_or(0)
    }

    /// The unit of a kind.
    pub fn unit(&self, kind: UnitKind) -> Option<&Unit> {
        self.units.iter().find(|unit| unit.kind == kind)
    }

    /// The piece that is a tensor of the arena, and its unit.
    pub fn place(&self, tensor: usize) -> Option<(&Unit, &Piece)> {
        let (unit, piece) = *self.places.get(tensor)?;
        let unit = self.units.get(unit)?;
        Some((unit, unit.pieces.get(piece)?))
    }

    /// What rank `rank` owns of a piece; `None` if nothing.
    pub fn segment(&self, unit: &Unit, piece: &Piece, rank: usize) -> Option<Segment> {
        let part = unit.len / self.world;
        let (start, end) = (rank as u64 * part, (rank as u64 + 1) * part);
        let (first, last) = (piece.values.start.max(start), piece.values.end.min(end));
        (first < last).then(|| Segment {
            tensor: first - piece.values.start..last - piece.values.start,
            owned: first - start,
        })
    }
}

impl Unit {
    fn push(&mut self, arena: &Arena, tensor: usize) {
        let Some(placed) = arena.tensors.get(tensor) else { return };
        let len = placed.range.len() as u64;
        let shape = match *placed.info.shape.as_slice() {
            [rows, columns] => (rows as u64, columns as u64),
            _ => (1, len),
        };
        self.pieces.push(Piece {
            tensor,
            values: self.len..self.len + len,
            shape,
            decays: arena.decays(tensor),
            layer_matrix: arena.is_layer_matrix(tensor),
        });
        self.len = (self.len + len).next_multiple_of(CHUNK);
    }
}

/// The units in the order of their use, and the numbers of their tensors in the arena.
fn unit_tensors(config: &ModelConfig, arena: &Arena) -> Vec<(UnitKind, Range<usize>)> {
    let count = arena.tensors.len();
    let in_layers = 1..1 + (count - 2 - usize::from(!config.tied));
    let a_layer = in_layers.len() / config.layers;
    let mut units = vec![(UnitKind::Embedding, 0..1)];
    for layer in 0..config.layers {
        let first = in_layers.start + layer * a_layer;
        units.push((UnitKind::Layer(layer), first..first + a_layer));
    }
    units.push((UnitKind::FinalNorm, in_layers.end..in_layers.end + 1));
    if !config.tied {
        units.push((UnitKind::Head, in_layers.end + 1..in_layers.end + 2));
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_own_every_value_once_and_chunks_whole() {
        for (name, world) in [("nano", 1), ("nano", 8), ("25M", 2), ("8B", 8), ("covenant-72b", 8)]
        {
            let config = ModelConfig::preset(name).unwrap();
            let layout = Layout::new(&config, world);
            for (tensor, placed) in config.arena().tensors.iter().enumerate() {
                let (unit, piece) = layout.place(tensor).unwrap();
                assert_eq!(piece.tensor, tensor);
                let segments = (0..world).filter_map(|rank| layout.segment(unit, piece, rank));
                let mut next = 0;
                for segment in segments {
                    assert_eq!(segment.tensor.start, next);
                    assert!(next % CHUNK == 0 && segment.owned % CHUNK == 0);
                    next = segment.tensor.end;
                }
                assert_eq!(next, placed.range.len() as u64, "{name}, {}", placed.info.name);
            }
        }
    }

    #[test]
    fn numbers_in_the_model_do_not_depend_on_the_ranks() {
        let config = ModelConfig::preset("nano").unwrap();
        let numbers = |world| {
            let layout = Layout::new(&config, world);
            let number = |tensor| {
                let (unit, piece) = layout.place(tensor).unwrap();
                unit.first + piece.values.start
            };
            (0..config.arena().tensors.len()).map(number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), numbers(8));
    }
}
