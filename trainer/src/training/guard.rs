//! The divergence guard: what to do with a step whose loss is not what the steps before promise.
//!
//! A step is judged by loss and gradient norm before its gradient is applied, so that a bad batch
//! costs nothing but its time. The running mean and variance of the loss are exponential averages
//! over about 50 applied steps. Everything the guard knows is in [`GuardState`], which a checkpoint
//! keeps: a resumed run judges as the uninterrupted one would have.

use serde::{Deserialize, Serialize};

/// Weight of a new loss in the running averages.
const AVERAGE_RATE: f64 = 0.02;

/// Steps before a spike can be told from the fall at the beginning.
const OBSERVED_MIN: u64 = 50;

/// The deviation counts at least as this part of the mean: a very even loss has no spikes of 1 %.
const DEVIATION_MIN: f64 = 0.02;

/// How patient the guard is.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardSettings {
    /// A loss of more than mean + this many deviations is a spike; 0 for none.
    pub spike_deviations: f32,
    /// Bad steps in a row that are skipped; one more goes back to the last checkpoint.
    pub skips_max: u32,
    /// Times that training goes back to a checkpoint, each time with the rate halved.
    pub rollbacks_max: u32,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self { spike_deviations: 8.0, skips_max: 3, rollbacks_max: 3 }
    }
}

/// What the guard knows. Numbers with fractions are kept by their bits: they come back exact.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardState {
    mean_bits: u64,
    variance_bits: u64,
    observed: u64,
    /// Bad steps since the last good one.
    pub skipped_in_a_row: u32,
    /// Bad steps in all.
    pub skipped: u64,
    /// Times that training went back.
    pub rollbacks: u32,
}

/// What is to be done with a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Apply its gradient.
    Apply,
    /// Leave its gradient out and go on.
    Skip,
    /// Go back to the last checkpoint, with half the rate.
    RollBack,
    /// Patience has ended.
    Stop,
}

impl GuardState {
    /// Factor on the schedule's rate: a half for each time that training went back.
    pub fn rate_factor(&self) -> f32 {
        0.5f32.powi(self.rollbacks.min(64) as i32)
    }

    /// Judges a step by its loss and gradient norm, and remembers both.
    pub fn judge(&mut self, settings: &GuardSettings, loss: f32, gradient_norm: f32) -> Verdict {
        let is_number = loss.is_finite() && gradient_norm.is_finite();
        if is_number && !self.is_spike(settings, f64::from(loss)) {
            self.observe(f64::from(loss));
            return Verdict::Apply;
        }
        self.skipped += 1;
        self.skipped_in_a_row += 1;
        if self.skipped_in_a_row <= settings.skips_max {
            return Verdict::Skip;
        }
        match self.rollbacks < settings.rollbacks_max {
            true => Verdict::RollBack,
            false => Verdict::Stop,
        }
    }

    /// The state to go on with after going back to a checkpoint whose state was `saved`.
    pub fn rolled_back(&self, saved: &Self) -> Self {
        Self { skipped: self.skipped, rollbacks: self.rollbacks + 1, skipped_in_a_row: 0, ..*saved }
    }

    fn is_spike(&self, settings: &GuardSettings, loss: f64) -> bool {
        if settings.spike_deviations <= 0.0 || self.observed < OBSERVED_MIN {
            return false;
        }
        let mean = f64::from_bits(self.mean_bits);
        let variance = f64::from_bits(self.variance_bits);
        let deviation = variance.max(0.0).sqrt().max(DEVIATION_MIN * mean.abs());
        loss > mean + f64::from(settings.spike_deviations) * deviation
    }

    fn observe(&mut self, loss: f64) {
        let (mean, variance) = (f64::from_bits(self.mean_bits), f64::from_bits(self.variance_bits));
        let rate = AVERAGE_RATE.max(1.0 / (self.observed + 1) as f64);
        let difference = loss - mean;
        self.mean_bits = (mean + rate * difference).to_bits();
        let variance = (1.0 - rate) * (variance + rate * difference * difference);
        self.variance_bits = variance.to_bits();
        self.observed += 1;
        self.skipped_in_a_row = 0;
    }
}
