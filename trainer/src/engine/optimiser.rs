//! The step that turns a gradient into other parameters: AdamW on every tensor, or Muon on the matrices of
//! the layers and AdamW on the rest.
//!
//! What an optimiser remembers is a miner's own, never sent to anybody, and survives the outer step.

pub mod adamw;
pub mod muon;
pub(crate) mod newton_schulz;
mod packing;

pub use self::adamw::AdamWSettings;
pub use self::muon::MuonSettings;
pub use self::newton_schulz::{newton_schulz_flops, Symmetric};

use self::adamw::AdamW;
use self::muon::Muon;
use crate::compute::ops::{self, BLOCK};
use crate::compute::threads::{Shared, Threads};
use crate::compute::Compute;
use crate::model::config::Arena;

/// What an optimiser remembers of all parameters, and how many steps it has taken.
pub struct Optimiser {
    adamw: AdamW,
    muon: Option<Muon>,
    threads: Threads,
    steps: u64,
    /// Sums of squares of blocks of the gradient.
    partial: Vec<f64>,
}

impl Optimiser {
    /// Remembers nothing yet. With `muon`, that trains the layers' matrices and `adamw` only embedding, output matrix
    /// and norms. Allocates all it will ever need.
    pub fn new(
        adamw: AdamWSettings,
        muon: Option<MuonSettings>,
        arena: &Arena,
        compute: &Compute,
    ) -> Self {
        Self {
            adamw: AdamW::new(adamw, arena, |tensor| {
                muon.is_none() || !arena.is_layer_matrix(tensor)
            }),
            muon: muon.map(|settings| Muon::new(settings, arena, compute)),
            threads: compute.threads.clone(),
            steps: 0,
            partial: vec![0.0; arena.len.div_ceil(BLOCK)],
        }
    }

    /// Bytes that it remembers, and that it works with beside.
    pub fn allocated_bytes(&self) -> u64 {
        let muon = self.muon.as_ref().map_or(0, Muon::allocated_bytes);
        self.adamw.allocated_bytes() + muon + self.partial.len() as u64 * 8
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The gradient's norm: squares are summed in `f32` within a block, in `f64` over the blocks.
    pub fn gradient_norm(&mut self, gradient: &[f32]) -> f64 {
        let partial = Shared::new(&mut self.partial);
        self.threads.blocks(gradient.len(), BLOCK, |first, end| {
            let block = first / BLOCK;
            // SAFETY: blocks are disjoint.
            let partial = unsafe { partial.part(block, block + 1) };
            partial[0] = f64::from(ops::sum_of_squares(&gradient[first..end]));
        });
        self.partial.iter().sum::<f64>().sqrt()
    }

    /// One step of all parameters with `gradient · gradient_scale`, both in the order of the arena. `rate` is AdamW's;
    /// Muon's is [`MuonSettings::relative_rate`] times as high.
    pub fn step(
        &mut self,
        parameters: &mut [f32],
        gradient: &[f32],
        rate: f32,
        gradient_scale: f32,
    ) {
        self.steps += 1;
        self.adamw.step(&self.threads, parameters, gradient, self.steps, rate, gradient_scale);
        if let Some(muon) = &mut self.muon {
            muon.step(&self.threads, parameters, gradient, rate, gradient_scale);
        }
    }

    /// The average of tensor `tensor`'s gradients.
    pub(crate) fn mean(&mut self, tensor: usize) -> &mut [f32] {
        match self.muon.as_mut().and_then(|muon| muon.momentum(tensor)) {
            Some(momentum) => momentum,
            None => self.adamw.mean(tensor),
        }
    }

    /// The average of its gradients' squares; empty for a matrix that Muon trains.
    pub(crate) fn square(&mut self, tensor: usize) -> &mut [f32] {
        self.adamw.square(tensor)
    }

    /// Says how many steps the averages stand for.
    pub(crate) fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Remembers what another of the same settings and model does, and nothing else.
    pub fn copy_from(&mut self, other: &Self) {
        self.steps = other.steps;
        self.adamw.copy_from(&other.adamw);
        if let (Some(muon), Some(other)) = (&mut self.muon, &other.muon) {
            muon.copy_from(other);
        }
    }

    /// Forgets everything.
    pub(crate) fn reset(&mut self) {
        self.steps = 0;
        self.adamw.reset();
        if let Some(muon) = &mut self.muon {
            muon.reset();
        }
    }
}

#[cfg(test)]
mod tests;
