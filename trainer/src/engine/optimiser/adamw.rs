//! AdamW in one pass over memory.
//!
//! As in Loshchilov and Hutter 2019 and in PyTorch: the decay is θ ← θ · (1 − rate · decay) before the step, of
//! matrices only, not of norms, nor of an embedding that is not the output matrix ([`Arena::decays`]).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::packing::Packing;
use crate::compute::ops::{multiversion, BLOCK};
use crate::compute::threads::{Shared, Threads};
use crate::model::config::Arena;

/// What AdamW is set to. The default is Covenant's: (0.9, 0.95), ε 1e-8, decay 0.1.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWSettings {
    /// Decay of the average of gradients.
    pub beta1: f32,
    /// Decay of the average of squared gradients.
    pub beta2: f32,
    /// Added to the root of the squared average.
    pub epsilon: f32,
    /// Weight decay, multiplied by the rate.
    pub decay: f32,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, decay: 0.1 }
    }
}

/// Two averages for each parameter of the tensors it trains.
pub(super) struct AdamW {
    settings: AdamWSettings,
    packing: Packing,
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl AdamW {
    /// Averages of zero for the tensors of the arena that `trains` says.
    pub(super) fn new(
        settings: AdamWSettings,
        arena: &Arena,
        trains: impl Fn(usize) -> bool,
    ) -> Self {
        let packing = Packing::new(arena, trains);
        let len = packing.len();
        Self { settings, packing, mean: vec![0.0; len], square: vec![0.0; len] }
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        (self.mean.len() + self.square.len()) as u64 * 4
    }

    /// Step number `step`, from 1.
    pub(super) fn step(
        &mut self,
        threads: &Threads,
        parameters: &mut [f32],
        gradient: &[f32],
        step: u64,
        rate: f32,
        gradient_scale: f32,
    ) {
        let settings = self.settings;
        let constants = StepConstants::new(&settings, step, rate, gradient_scale);
        let (tensors, len) = (self.packing.tensors(), self.packing.len());
        let parameters = Shared::new(parameters);
        let (mean, square) = (Shared::new(&mut self.mean), Shared::new(&mut self.square));
        // One pass over all tensors: to gather the threads for each would cost more than a small one's step.
        threads.blocks(len, BLOCK, |first, end| {
            let from = tensors.partition_point(|tensor| tensor.averages.end <= first);
            for tensor in tensors[from..].iter().take_while(|tensor| tensor.averages.start < end) {
                let decay = if tensor.decays { settings.decay } else { 0.0 };
                let constants = StepConstants { keep: keep(rate, decay), ..constants };
                let (first, end) = (tensor.averages.start.max(first), tensor.averages.end.min(end));
                let start = tensor.parameters.start + (first - tensor.averages.start);
                let range = start..start + (end - first);
                // SAFETY: blocks are disjoint, and so are tensors.
                let (parameters, mean, square) = unsafe {
                    (
                        parameters.part(range.start, range.end),
                        mean.part(first, end),
                        square.part(first, end),
                    )
                };
                step_block(parameters, &gradient[range], mean, square, &constants);
            }
        });
    }

    /// The average of a tensor's gradients; empty for one that AdamW does not train.
    pub(super) fn mean(&mut self, tensor: usize) -> &mut [f32] {
        let range = self.averages(tensor);
        &mut self.mean[range]
    }

    /// The average of their squares, likewise.
    pub(super) fn square(&mut self, tensor: usize) -> &mut [f32] {
        let range = self.averages(tensor);
        &mut self.square[range]
    }

    fn averages(&self, tensor: usize) -> Range<usize> {
        self.packing.averages(tensor).unwrap_or_default()
    }

    pub(super) fn copy_from(&mut self, other: &Self) {
        self.mean.copy_from_slice(&other.mean);
        self.square.copy_from_slice(&other.square);
    }

    pub(super) fn reset(&mut self) {
        self.mean.fill(0.0);
        self.square.fill(0.0);
    }
}

/// 1 − β^step.
fn bias_correction(beta: f32, step: u64) -> f64 {
    1.0 - f64::from(beta).powi(step.min(1 << 24) as i32)
}

/// What decay leaves of a parameter.
fn keep(rate: f32, decay: f32) -> f32 {
    1.0 - rate * decay
}

/// What is the same for every parameter of a tensor.
#[derive(Clone, Copy)]
pub struct StepConstants {
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) epsilon: f32,
    /// Rate divided by the bias correction of the mean.
    pub(crate) rate: f32,
    /// One over the bias correction of the squares.
    pub(crate) square_scale: f32,
    /// What decay leaves of a parameter.
    pub(crate) keep: f32,
    pub(crate) gradient_scale: f32,
}

impl StepConstants {
    /// Those of step number `step`, from 1, of a tensor that decays as `settings` says.
    pub(crate) fn new(settings: &AdamWSettings, step: u64, rate: f32, gradient_scale: f32) -> Self {
        Self {
            beta1: settings.beta1,
            beta2: settings.beta2,
            epsilon: settings.epsilon,
            rate: (f64::from(rate) / bias_correction(settings.beta1, step)) as f32,
            square_scale: (1.0 / bias_correction(settings.beta2, step)) as f32,
            keep: keep(rate, settings.decay),
            gradient_scale,
        }
    }
}

multiversion! {
/// AdamW on one block.
pub fn step_block(
    parameters: &mut [f32],
    gradient: &[f32],
    mean: &mut [f32],
    square: &mut [f32],
    constants: &StepConstants,
) {
    let len = parameters.len();
    let (gradient, mean, square) = (&gradient[..len], &mut mean[..len], &mut square[..len]);
    let c = *constants;
    for i in 0..len {
        let g = gradient[i] * c.gradient_scale;
        mean[i] = c.beta1 * mean[i] + (1.0 - c.beta1) * g;
        square[i] = c.beta2 * square[i] + (1.0 - c.beta2) * g * g;
        let root = (square[i] * c.square_scale).sqrt() + c.epsilon;
        parameters[i] = parameters[i] * c.keep - c.rate * mean[i] / root;
    }
}
}
