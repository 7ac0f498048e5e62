//! AdamW and gradient clipping, each in one pass over memory.
//!
//! AdamW as in Loshchilov and Hutter 2019 and in PyTorch: the decay is θ ← θ · (1 − rate · decay)
//! before the step, of matrices only, not of norms. State: two averages and a step count; they are
//! a miner's own, never sent to anybody, and survive the outer step.

use serde::{Deserialize, Serialize};

use crate::compute::ops::{self, multiversion};
use crate::compute::threads::{Shared, Threads};
use crate::model::config::Arena;

/// Values that one task updates.
const BLOCK: usize = 16 * 1024;

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

/// The optimiser's state, in the order of the arena.
#[derive(Clone, Debug)]
pub struct AdamW {
    pub(crate) settings: AdamWSettings,
    pub(crate) mean: Vec<f32>,
    pub(crate) square: Vec<f32>,
    pub(crate) step: u64,
    /// Sums of squares of blocks of the gradient.
    partial: Vec<f64>,
}

impl AdamW {
    /// A fresh state for `count` parameters.
    pub fn new(settings: AdamWSettings, count: usize) -> Self {
        Self {
            settings,
            mean: vec![0.0; count],
            square: vec![0.0; count],
            step: 0,
            partial: vec![0.0; count.div_ceil(BLOCK)],
        }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The gradient's norm: squares are summed in `f32` within a block, in `f64` over the blocks.
    pub fn gradient_norm(&mut self, threads: &Threads, gradient: &[f32]) -> f64 {
        let partial = Shared::new(&mut self.partial);
        threads.blocks(gradient.len(), BLOCK, |first, end| {
            let block = first / BLOCK;
            // SAFETY: blocks are disjoint.
            let partial = unsafe { partial.part(block, block + 1) };
            partial[0] = f64::from(ops::sum_of_squares(&gradient[first..end]));
        });
        self.partial.iter().sum::<f64>().sqrt()
    }

    /// One step of all parameters with `gradient · gradient_scale`.
    pub fn step(
        &mut self,
        threads: &Threads,
        arena: &Arena,
        parameters: &mut [f32],
        gradient: &[f32],
        rate: f32,
        gradient_scale: f32,
    ) {
        self.step += 1;
        let settings = self.settings;
        let constants = StepConstants {
            beta1: settings.beta1,
            beta2: settings.beta2,
            epsilon: settings.epsilon,
            rate: (f64::from(rate) / bias_correction(settings.beta1, self.step)) as f32,
            square_scale: (1.0 / bias_correction(settings.beta2, self.step)) as f32,
            keep: 0.0,
            gradient_scale,
        };
        let parameters = Shared::new(parameters);
        let (mean, square) = (Shared::new(&mut self.mean), Shared::new(&mut self.square));
        // One pass over all tensors: to gather the threads for each would cost more than a small one's step.
        threads.blocks(arena.len, BLOCK, |first, end| {
            let from = arena.tensors.partition_point(|tensor| tensor.range.end <= first);
            let tensors = arena.tensors[from..].iter();
            for tensor in tensors.take_while(|tensor| tensor.range.start < end) {
                let decay = if tensor.info.shape.len() > 1 { settings.decay } else { 0.0 };
                let constants = StepConstants { keep: 1.0 - rate * decay, ..constants };
                let (first, end) = (tensor.range.start.max(first), tensor.range.end.min(end));
                // SAFETY: blocks are disjoint, and so are tensors.
                let (parameters, mean, square) = unsafe {
                    (parameters.part(first, end), mean.part(first, end), square.part(first, end))
                };
                step_block(parameters, &gradient[first..end], mean, square, &constants);
            }
        });
    }
}

/// 1 − β^step.
fn bias_correction(beta: f32, step: u64) -> f64 {
    1.0 - f64::from(beta).powi(step.min(1 << 24) as i32)
}

/// What is the same for every parameter of a tensor.
#[derive(Clone, Copy)]
pub struct StepConstants {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    /// Rate divided by the bias correction of the mean.
    rate: f32,
    /// One over the bias correction of the squares.
    square_scale: f32,
    /// What decay leaves of a parameter.
    keep: f32,
    gradient_scale: f32,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::ModelConfig;

    /// Expected values from the definition in f64.
    #[test]
    fn adamw_follows_its_definition() {
        let arena = ModelConfig::preset("nano").unwrap().arena();
        let settings = AdamWSettings::default();
        let mut adamw = AdamW::new(settings, arena.len);
        let mut parameters = vec![0.5f32; arena.len];
        let (mut mean, mut square, mut expected) = (0.0f64, 0.0f64, 0.5f64);
        for step in 1..=3 {
            let gradient = 0.1 * step as f32;
            let gradients = vec![gradient; arena.len];
            adamw.step(&Threads::single(), &arena, &mut parameters, &gradients, 1e-2, 0.5);
            let g = f64::from(gradient) * 0.5;
            mean = 0.9 * mean + 0.1 * g;
            square = 0.95 * square + 0.05 * g * g;
            let root = (square / (1.0 - 0.95f64.powi(step))).sqrt() + 1e-8;
            expected *= 1.0 - 1e-2 * 0.1;
            expected -= 1e-2 * mean / (1.0 - 0.9f64.powi(step)) / root;
        }
        let matrix = f64::from(parameters[arena.embedding.start]);
        assert!((matrix - expected).abs() < 1e-6, "{matrix} {expected}");
        let norm = f64::from(parameters[arena.final_norm.start]);
        assert!(norm > matrix, "norms do not decay");
    }
}
