//! One rank: a GPU, its end of the collective, its memory, and how units come and go between ranks.

use std::sync::Arc;

use super::collective::Collective;
use super::gpu::{Address, Event, Gpu, GpuError, Product, ProductForm, ProductResult, Stream};
use super::layout::{Layout, Unit, UnitKind};
use super::plan::{aligned, room, Plan, Region, TURNS};
use crate::model::config::ModelConfig;

/// What all ranks know of a model.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) config: ModelConfig,
    pub(super) layout: Layout,
    pub(super) plan: Plan,
}

/// When a place was filled, and when it was last used.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    holds: Option<usize>,
    filled: Option<Event>,
    used: Option<Event>,
}

/// One rank. A thread at a time works with it.
pub(super) struct Rank {
    pub(super) gpu: Box<dyn Gpu>,
    pub(super) collective: Box<dyn Collective>,
    pub(super) shape: Arc<Shape>,
    base: Address,
    pinned: Address,
    /// Where the squares of each unit's pieces lie, in values; `None` for those that Muon trains.
    squares: Vec<Vec<Option<u64>>>,
    layers: [Place; TURNS],
    ends: Place,
    norm: Place,
    /// When the gradients that lay in each turn had been sent.
    sent: [Option<Event>; TURNS],
}

/// The addresses of what is kept of the optimiser for one unit, what the rank owns of it.
#[derive(Clone, Copy)]
pub(super) struct States {
    pub(super) low: Address,
    pub(super) mean: Address,
    pub(super) square: Address,
}

impl States {
    /// Of a unit that does not exist.
    pub(super) const NONE: Self = Self { low: Address(0), mean: Address(0), square: Address(0) };
}

/// A matrix that lies in one piece: its first value in the unit, its first row among those of the matrices
/// that are multiplied together, its rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Block {
    pub(super) values: u64,
    pub(super) row: u64,
    pub(super) rows: u64,
}

/// Pieces of a unit one below the other, those without a gap as one block.
pub(super) fn blocks(unit: &Unit, pieces: std::ops::Range<usize>) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut row = 0;
    let mut end = 0;
    for piece in unit.pieces.get(pieces).unwrap_or_default() {
        let rows = piece.shape.0;
        match blocks.last_mut() {
            Some(block) if end == piece.values.start => block.rows += rows,
            _ => blocks.push(Block { values: piece.values.start, row, rows }),
        }
        row += rows;
        end = piece.values.end;
    }
    blocks
}

impl Rank {
    /// Allocates what the plan says, all of it zero.
    pub(super) fn new(
        gpu: Box<dyn Gpu>,
        collective: Box<dyn Collective>,
        shape: Arc<Shape>,
    ) -> Result<Self, GpuError> {
        let base = gpu.allocate(shape.plan.bytes())?;
        gpu.clear(Stream::Compute, base, shape.plan.bytes())?;
        let pinned = match shape.plan.pinned {
            0 => Address::default(),
            bytes => gpu.allocate_pinned(bytes)?,
        };
        if shape.plan.pinned > 0 {
            gpu.synchronise(Stream::Compute)?;
            zero_pinned(&*gpu, pinned, shape.plan.pinned)?;
        }
        let squares = square_places(&shape, collective.rank());
        gpu.synchronise(Stream::Compute)?;
        Ok(Self {
            gpu,
            collective,
            shape,
            base,
            pinned,
            squares,
            layers: [Place::default(); TURNS],
            ends: Place::default(),
            norm: Place::default(),
            sent: [None; TURNS],
        })
    }

    pub(super) fn world(&self) -> u64 {
        self.shape.layout.world
    }

    /// Where a region begins.
    pub(super) fn region(&self, region: Region) -> Address {
        self.base.plus(self.shape.plan.start(region))
    }

    /// An address from an offset in the arena.
    pub(super) fn at(&self, offset: u64) -> Address {
        self.base.plus(offset)
    }

    /// What this rank owns of a unit's parameters in bf16.
    pub(super) fn own_high(&self, unit: &Unit) -> Address {
        self.region(Region::High).plus(unit.owned_before * 2)
    }

    /// What this rank owns of a unit's gradient.
    pub(super) fn own_gradient(&self, unit: &Unit) -> Address {
        self.region(Region::Gradient).plus(unit.owned_before * 4)
    }

    /// What this rank owns of a unit's lower halves and averages, where they rest.
    pub(super) fn states(&self, unit: usize) -> Option<States> {
        let before = self.shape.layout.units.get(unit)?.owned_before * 2;
        let owned = aligned(self.shape.layout.owned() * 2);
        let square = self.squares.get(unit)?.iter().flatten().next().copied().unwrap_or(0) * 2;
        Some(match self.shape.plan.work.offload {
            false => States {
                low: self.region(Region::Low).plus(before),
                mean: self.region(Region::Mean).plus(before),
                square: self.region(Region::Square).plus(square),
            },
            true => States {
                low: self.pinned.plus(before),
                mean: self.pinned.plus(owned + before),
                square: self.pinned.plus(2 * owned + square),
            },
        })
    }

    /// Values of squares that the rank keeps of a unit, which lie together.
    pub(super) fn square_values(&self, unit: usize) -> u64 {
        let Some(own) = self.shape.layout.units.get(unit) else { return 0 };
        let averaged = own.pieces.iter().zip(self.squares.get(unit).into_iter().flatten());
        let segments = averaged
            .filter(|(_, place)| place.is_some())
            .filter_map(|(piece, _)| self.shape.layout.segment(own, piece, self.collective.rank()));
        segments.map(room).sum()
    }

    /// Where a piece's squares begin among those of its unit, in values.
    pub(super) fn square_place(&self, unit: usize, piece: usize) -> Option<u64> {
        let places = self.squares.get(unit)?;
        let first = places.iter().flatten().next()?;
        Some((*places.get(piece)?)? - first)
    }

    /// Starts to bring a unit's parameters here, unless they are here.
    pub(super) fn fetch(&mut self, unit: usize) -> Result<(), GpuError> {
        let shape = self.shape.clone();
        let Some(of) = shape.layout.units.get(unit) else { return Ok(()) };
        if self.world() == 1 || self.place(of.kind).holds == Some(unit) {
            return Ok(());
        }
        let into = self.gathered(of.kind);
        if let Some(used) = self.place(of.kind).used {
            self.gpu.wait(Stream::Exchange, used)?;
        }
        let bytes = of.len / self.world() * 2;
        self.collective.gather(&*self.gpu, Stream::Exchange, self.own_high(of), into, bytes)?;
        let filled = Some(self.gpu.record(Stream::Exchange)?);
        *self.place_mut(of.kind) = Place { holds: Some(unit), filled, used: None };
        Ok(())
    }

    /// The parameters of a unit in bf16, for what follows on the compute stream.
    pub(super) fn parameters(&mut self, unit: usize) -> Result<Address, GpuError> {
        let shape = self.shape.clone();
        let Some(of) = shape.layout.units.get(unit) else { return Ok(Address::default()) };
        if self.world() == 1 {
            return Ok(self.own_high(of));
        }
        self.fetch(unit)?;
        if let Some(filled) = self.place(of.kind).filled {
            self.gpu.wait(Stream::Compute, filled)?;
        }
        Ok(self.gathered(of.kind))
    }

    /// Says that what is on the compute stream by now uses the unit's parameters last.
    pub(super) fn used(&mut self, unit: usize) -> Result<(), GpuError> {
        let kind = self.shape.layout.units.get(unit).map(|unit| unit.kind);
        if let (Some(kind), true) = (kind, self.world() > 1) {
            let used = self.gpu.record(Stream::Compute)?;
            self.place_mut(kind).used = Some(used);
        }
        Ok(())
    }

    /// Forgets what was gathered: the parameters are about to change, or have changed. Lets the exchange wait for
    /// what the compute stream has by now.
    pub(super) fn forget_gathered(&mut self) -> Result<(), GpuError> {
        if self.world() > 1 {
            let now = Some(self.gpu.record(Stream::Compute)?);
            let place = Place { holds: None, filled: None, used: now };
            self.layers = [place; TURNS];
            self.ends = place;
            self.norm = place;
        }
        Ok(())
    }

    fn place(&self, kind: UnitKind) -> Place {
        match kind {
            UnitKind::Layer(layer) => self.layers[layer % TURNS],
            UnitKind::FinalNorm => self.norm,
            UnitKind::Embedding | UnitKind::Head => self.ends,
        }
    }

    fn place_mut(&mut self, kind: UnitKind) -> &mut Place {
        match kind {
            UnitKind::Layer(layer) => &mut self.layers[layer % TURNS],
            UnitKind::FinalNorm => &mut self.norm,
            UnitKind::Embedding | UnitKind::Head => &mut self.ends,
        }
    }

    /// Where a gathered unit lies.
    pub(super) fn gathered(&self, kind: UnitKind) -> Address {
        match kind {
            UnitKind::Layer(layer) => self.turn_of(Region::GatheredLayers, layer),
            UnitKind::FinalNorm => self.region(Region::GatheredNorm),
            UnitKind::Embedding | UnitKind::Head => self.region(Region::GatheredEnds),
        }
    }

    /// Where a layer lies in a region in which [`TURNS`] of them take turns.
    fn turn_of(&self, region: Region, layer: usize) -> Address {
        let turn = self.shape.plan.region(region) / TURNS as u64;
        self.region(region).plus((layer % TURNS) as u64 * turn)
    }

    /// Waits until all streams are empty.
    pub(super) fn rest(&self) -> Result<(), GpuError> {
        Stream::ALL.into_iter().try_for_each(|stream| self.gpu.synchronise(stream))
    }

    /// Where a layer's gradient is to be written, and whether it is to be added to what is there.
    pub(super) fn layer_gradient(&mut self, layer: usize) -> Result<(Address, bool), GpuError> {
        let shape = self.shape.clone();
        if self.world() == 1 {
            let unit = shape.layout.unit(UnitKind::Layer(layer));
            return Ok((unit.map_or(Address::default(), |unit| self.own_gradient(unit)), true));
        }
        if let Some(sent) = self.sent[layer % TURNS] {
            self.gpu.wait(Stream::Compute, sent)?;
        }
        Ok((self.turn_of(Region::LayerGradients, layer), false))
    }

    /// Sends a layer's gradient to whoever owns it; the first `active` ranks' count.
    pub(super) fn send_layer_gradient(
        &mut self,
        layer: usize,
        active: usize,
    ) -> Result<(), GpuError> {
        if self.world() == 1 {
            return Ok(());
        }
        let from = self.turn_of(Region::LayerGradients, layer);
        self.send(UnitKind::Layer(layer), from, active)?;
        self.sent[layer % TURNS] = Some(self.gpu.record(Stream::Exchange)?);
        Ok(())
    }

    /// Adds the gradient of a whole unit at `from` to what the ranks own of it; the first `active` ranks' count.
    pub(super) fn send(
        &mut self,
        kind: UnitKind,
        from: Address,
        active: usize,
    ) -> Result<(), GpuError> {
        let shape = self.shape.clone();
        let Some(unit) = shape.layout.unit(kind) else { return Ok(()) };
        let own = self.own_gradient(unit);
        let computed = self.gpu.record(Stream::Compute)?;
        self.gpu.wait(Stream::Exchange, computed)?;
        self.collective.reduce_scatter(
            &*self.gpu,
            Stream::Exchange,
            from,
            own,
            self.region(Region::Received),
            unit.len / self.world(),
            active,
        )
    }

    /// Lets the compute stream wait for all that is on the exchange stream by now.
    pub(super) fn await_exchange(&self) -> Result<(), GpuError> {
        if self.world() > 1 {
            let sent = self.gpu.record(Stream::Exchange)?;
            self.gpu.wait(Stream::Compute, sent)?;
        }
        Ok(())
    }

    /// A product with dense rows on the compute stream.
    #[allow(clippy::too_many_arguments, reason = "a product's shape and operands")]
    pub(super) fn multiply(
        &self,
        form: ProductForm,
        (m, n, k): (u64, u64, u64),
        a: (Address, u64),
        b: (Address, u64),
        d: (Address, u64),
        result: ProductResult,
        beta: f32,
    ) -> Result<(), GpuError> {
        let row = |(address, width): (Address, u64)| (address, width as u32);
        let (m, n, k) = (m as u32, n as u32, k as u32);
        let (a, b, d) = (row(a), row(b), row(d));
        let product = Product { form, m, n, k, a, b, d, result, alpha: 1.0, beta };
        self.gpu.product(Stream::Compute, &product)
    }
}

/// Where the squares of each unit's pieces lie on a rank, in values: one after the other, those of Muon's
/// matrices left out.
fn square_places(shape: &Shape, rank: usize) -> Vec<Vec<Option<u64>>> {
    let mut next = 0;
    let of_unit = |unit: &Unit| {
        let places = unit.pieces.iter().map(|piece| {
            if shape.plan.work.muon && piece.layer_matrix {
                return None;
            }
            let place = next;
            next += shape.layout.segment(unit, piece, rank).map_or(0, room);
            Some(place)
        });
        places.collect()
    };
    shape.layout.units.iter().map(of_unit).collect()
}

/// Writes zeros to pinned memory.
fn zero_pinned(gpu: &dyn Gpu, to: Address, bytes: u64) -> Result<(), GpuError> {
    const PART: u64 = 1 << 20;
    let zeros = vec![0; PART.min(bytes) as usize];
    let mut done = 0;
    while done < bytes {
        let part = PART.min(bytes - done);
        gpu.upload(Stream::Inward, to.plus(done), &zeros[..part as usize])?;
        done += part;
    }
    gpu.synchronise(Stream::Inward)
}
