//! A step of the optimiser on one rank, on what it owns: AdamW value by value, and Muon, which needs whole
//! matrices.
//!
//! The averages are bf16 and rounded at random by a number that depends on the step and on the value's number in
//! the model; so the bits do not depend on how many ranks there are. A matrix that Muon trains is gathered,
//! made orthonormal by the rank whose turn it is, and sent back.

use super::gpu::{Address, Event, GpuError, Product, ProductForm, ProductResult, Stream};
use super::kernels::optimiser::{
    adamw, momentum, muon_apply, muon_factors, muon_scale, squares_bf16, sum_parts, AdamW,
    Momentum, MuonApply,
};
use super::kernels::values::squares;
use super::layout::{Piece, Segment, Unit, CHUNK};
use super::plan::{aligned, MuonWork, Region};
use super::rank::{Rank, States};
use crate::engine::optimiser::newton_schulz::{A, B, C, ITERATIONS};
use crate::engine::optimiser::{AdamWSettings, MuonSettings};

/// Least norm that a matrix is divided by.
const EPSILON: f32 = 1e-7;

/// One step of all parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) adamw: AdamWSettings,
    pub(super) muon: Option<MuonSettings>,
    /// AdamW's rate.
    pub(super) rate: f32,
    /// Factor of the gradient.
    pub(super) scale: f32,
    /// Its number, from 1.
    pub(super) number: u64,
}

/// Lower halves and averages on their way from and to the host: two units at once.
#[derive(Default)]
struct Visits {
    returned: [Option<Event>; 2],
}

impl Rank {
    /// The sums of the squares of each chunk of the gradient that this rank owns, unit after unit.
    pub(super) fn gradient_squares(&mut self) -> Result<Vec<f64>, GpuError> {
        let owned = self.shape.layout.owned();
        let (from, to) = (self.region(Region::Gradient), self.region(Region::Squares));
        squares(&*self.gpu, Stream::Compute, from, to, owned)?;
        let mut parts = vec![0.0; (owned / CHUNK) as usize];
        self.gpu.download(Stream::Compute, to, bytemuck::cast_slice_mut(&mut parts))?;
        Ok(parts)
    }

    /// Takes the step; the parameters have changed when this returns.
    pub(super) fn step(&mut self, step: &Step) -> Result<(), GpuError> {
        let mut visits = Visits::default();
        for unit in 0..self.shape.layout.units.len() {
            let states = self.bring(unit, &mut visits)?;
            self.step_unit(unit, states, step)?;
            self.take_back(unit, states, &mut visits)?;
        }
        self.forget_gathered()?;
        self.rest()
    }

    /// The lower halves and averages of a unit in device memory, for what follows on the compute stream.
    fn bring(&self, unit: usize, visits: &mut Visits) -> Result<States, GpuError> {
        let rest = self.states(unit).unwrap_or(States::NONE);
        if !self.shape.plan.work.offload {
            return Ok(rest);
        }
        let turn = unit % visits.returned.len();
        let here = self.visiting(turn);
        if let Some(returned) = visits.returned[turn] {
            self.gpu.wait(Stream::Inward, returned)?;
        }
        for (to, from, bytes) in self.visit(unit, here, rest) {
            self.gpu.copy(Stream::Inward, to, from, bytes)?;
        }
        let arrived = self.gpu.record(Stream::Inward)?;
        self.gpu.wait(Stream::Compute, arrived)?;
        Ok(here)
    }

    /// Sends them back to the host, if that is where they rest.
    fn take_back(&self, unit: usize, here: States, visits: &mut Visits) -> Result<(), GpuError> {
        if !self.shape.plan.work.offload {
            return Ok(());
        }
        let changed = self.gpu.record(Stream::Compute)?;
        self.gpu.wait(Stream::Outward, changed)?;
        let rest = self.states(unit).unwrap_or(States::NONE);
        for (to, from, bytes) in self.visit(unit, rest, here) {
            self.gpu.copy(Stream::Outward, to, from, bytes)?;
        }
        visits.returned[unit % visits.returned.len()] = Some(self.gpu.record(Stream::Outward)?);
        Ok(())
    }

    /// Where the lower halves and averages of a visiting unit lie.
    fn visiting(&self, turn: usize) -> States {
        let part = self.shape.plan.region(Region::Visiting) / 6;
        let at = |index: u64| self.region(Region::Visiting).plus(index * part);
        let first = 3 * turn as u64;
        States { low: at(first), mean: at(first + 1), square: at(first + 2) }
    }

    /// What is copied when a unit's lower halves and averages move.
    fn visit(&self, unit: usize, to: States, from: States) -> [(Address, Address, u64); 3] {
        let units = &self.shape.layout.units;
        let own = units.get(unit).map_or(0, |unit| unit.len / self.world() * 2);
        [
            (to.low, from.low, own),
            (to.mean, from.mean, own),
            (to.square, from.square, self.square_values(unit) * 2),
        ]
    }

    fn step_unit(&mut self, number: usize, states: States, step: &Step) -> Result<(), GpuError> {
        let shape = self.shape.clone();
        let Some(unit) = shape.layout.units.get(number) else { return Ok(()) };
        let rank = self.collective.rank();
        for (index, piece) in unit.pieces.iter().enumerate() {
            let square = self.square_place(number, index);
            let segment = shape.layout.segment(unit, piece, rank);
            if let (Some(square), Some(segment)) = (square, segment) {
                let square = states.square.plus(square * 2);
                self.adamw(unit, piece, &segment, States { square, ..states }, step)?;
            }
        }
        match step.muon {
            Some(muon) if unit.pieces.iter().any(|piece| piece.layer_matrix) => {
                self.muon(unit, states, muon, step)
            }
            _ => Ok(()),
        }
    }

    /// AdamW on what the rank owns of a tensor; `states.square` is the tensor's already.
    fn adamw(
        &self,
        unit: &Unit,
        piece: &Piece,
        segment: &Segment,
        states: States,
        step: &Step,
    ) -> Result<(), GpuError> {
        let decay = if piece.decays { step.adamw.decay } else { 0.0 };
        let halves = segment.owned * 2;
        let arguments = AdamW {
            hi: self.own_high(unit).plus(halves),
            lo: states.low.plus(halves),
            mean: states.mean.plus(halves),
            square: states.square,
            gradient: self.own_gradient(unit).plus(segment.owned * 4),
            len: segment.tensor.end - segment.tensor.start,
            first: unit.first + piece.values.start + segment.tensor.start,
            settings: AdamWSettings { decay, ..step.adamw },
            rate: step.rate,
            scale: step.scale,
            step: step.number,
        };
        adamw(&*self.gpu, Stream::Compute, &arguments)
    }

    /// Muon on a layer's matrices.
    fn muon(
        &mut self,
        unit: &Unit,
        states: States,
        muon: MuonSettings,
        step: &Step,
    ) -> Result<(), GpuError> {
        let shape = self.shape.clone();
        let rank = self.collective.rank();
        let own = self.region(Region::Direction);
        let matrices = || unit.pieces.iter().filter(|piece| piece.layer_matrix);
        let segments = || {
            matrices().filter_map(|piece| Some((piece, shape.layout.segment(unit, piece, rank)?)))
        };
        for (piece, segment) in segments() {
            let halves = segment.owned * 2;
            let arguments = Momentum {
                mean: states.mean.plus(halves),
                gradient: self.own_gradient(unit).plus(segment.owned * 4),
                direction: own.plus(halves),
                len: segment.tensor.end - segment.tensor.start,
                first: unit.first + piece.values.start + segment.tensor.start,
                momentum: muon.momentum,
                scale: step.scale,
                step: step.number,
            };
            momentum(&*self.gpu, Stream::Compute, &arguments)?;
        }
        let whole = self.whole_direction(unit)?;
        for (index, piece) in matrices().enumerate() {
            let owner = index % self.world() as usize;
            if owner == rank {
                self.orthogonalise(whole.plus(piece.values.start * 2), piece.shape)?;
            }
        }
        self.share_direction(unit, whole)?;
        let rate = step.rate * muon.relative_rate;
        let part = unit.len / self.world() * rank as u64;
        for (piece, segment) in segments() {
            let longer = piece.shape.0.max(piece.shape.1) as usize;
            let (rate, keep) = muon_factors(rate, muon.decay, longer);
            let halves = segment.owned * 2;
            let arguments = MuonApply {
                hi: self.own_high(unit).plus(halves),
                lo: states.low.plus(halves),
                direction: whole.plus((part + segment.owned) * 2),
                len: segment.tensor.end - segment.tensor.start,
                rate,
                keep,
            };
            muon_apply(&*self.gpu, Stream::Compute, &arguments)?;
        }
        Ok(())
    }

    /// All ranks' directions of a layer, one after the other.
    fn whole_direction(&mut self, unit: &Unit) -> Result<Address, GpuError> {
        let own = self.region(Region::Direction);
        if self.world() == 1 {
            return Ok(own);
        }
        // The layers' parameters that lie there are those before this step.
        let whole = self.gathered(unit.kind);
        let computed = self.gpu.record(Stream::Compute)?;
        self.gpu.wait(Stream::Exchange, computed)?;
        let bytes = unit.len / self.world() * 2;
        self.collective.gather(&*self.gpu, Stream::Exchange, own, whole, bytes)?;
        self.await_exchange()?;
        Ok(whole)
    }

    /// Sends each orthonormal matrix from the rank that made it to all.
    fn share_direction(&mut self, unit: &Unit, whole: Address) -> Result<(), GpuError> {
        if self.world() == 1 {
            return Ok(());
        }
        let computed = self.gpu.record(Stream::Compute)?;
        self.gpu.wait(Stream::Exchange, computed)?;
        let matrices = unit.pieces.iter().filter(|piece| piece.layer_matrix);
        for (index, piece) in matrices.enumerate() {
            let owner = index % self.world() as usize;
            let at = whole.plus(piece.values.start * 2);
            let bytes = (piece.values.end - piece.values.start) * 2;
            self.collective.broadcast(&*self.gpu, Stream::Exchange, owner, at, at, bytes)?;
        }
        self.await_exchange()
    }

    /// Brings a matrix (bf16) near its closest one with orthonormal rows or columns, in place: as the CPU's
    /// engine does it (see `engine::optimiser::newton_schulz`), each product rounded to bf16.
    fn orthogonalise(&self, x: Address, (rows, columns): (u64, u64)) -> Result<(), GpuError> {
        let work = MuonWork::new(&self.shape.layout);
        let other = self.region(Region::MuonWork);
        let square = other.plus(work.matrix);
        let polynomial = square.plus(work.square);
        let parts = polynomial.plus(work.square);
        let sum = parts.plus(work.parts - aligned(8));
        let (len, short) = (rows * columns, rows.min(columns));
        let compute = Stream::Compute;
        squares_bf16(&*self.gpu, compute, x, parts, len)?;
        sum_parts(&*self.gpu, compute, parts, sum, len.div_ceil(CHUNK))?;
        muon_scale(&*self.gpu, compute, x, len, sum, EPSILON)?;
        let multiply = |form, (m, n, k): (u64, u64, u64), a, b, d, alpha, beta| {
            let width = |(address, width): (Address, u64)| (address, width as u32);
            let (m, n, k) = (m as u32, n as u32, k as u32);
            let (a, b, d) = (width(a), width(b), width(d));
            let result = ProductResult::Bf16;
            self.gpu.product(compute, &Product { form, m, n, k, a, b, d, result, alpha, beta })
        };
        let wide = rows <= columns;
        let (mut from, mut to) = (x, other);
        for _ in 0..ITERATIONS {
            let matrix = (from, columns);
            let (form, inner) = match wide {
                true => (ProductForm::Nt, columns),
                false => (ProductForm::Tn, rows),
            };
            let (g, p) = ((square, short), (polynomial, short));
            multiply(form, (short, short, inner), matrix, matrix, g, 1.0, 0.0)?;
            self.gpu.copy(compute, polynomial, square, short * short * 2)?;
            multiply(ProductForm::Nt, (short, short, short), g, g, p, C, B)?;
            self.gpu.copy(compute, to, from, len * 2)?;
            let (a, b) = if wide { (p, matrix) } else { (matrix, p) };
            let size = (rows, columns, short);
            multiply(ProductForm::Nn, size, a, b, (to, columns), 1.0, A)?;
            (from, to) = (to, from);
        }
        if from != x {
            self.gpu.copy(compute, x, from, len * 2)?;
        }
        Ok(())
    }
}
