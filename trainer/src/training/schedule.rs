//! Learning-rate schedules: the rate of a step as a pure function, so that a resumed run needs no
//! state of it.
//!
//! A schedule has two parts: a linear warm-up, the same for all, and a shape after it. Steps count
//! from 1 to `steps`; a rate is never 0 before the last step.

use serde::{Deserialize, Serialize};

/// What the rate does after the warm-up.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Stays at the peak.
    Flat,
    /// Half a cosine from the peak down to the floor at the last step (Loshchilov and Hutter 2017).
    Cosine,
    /// Warm-up, stable, decay (Hu et al. 2024): stays at the peak, and over the last `decay_steps`
    /// falls to the floor.
    Wsd {
        /// Steps of the decay.
        decay_steps: u64,
        /// How it falls.
        decay: Decay,
    },
    /// Falls from the first step after the warm-up to the floor at the last, for the last phase of a
    /// long training.
    Anneal {
        /// How it falls.
        decay: Decay,
    },
}

/// How a rate falls; x goes from 0 to 1 over the decay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// 1 − x.
    Linear,
    /// 1 − √x, which spends fewer steps at a high rate (Hägele et al. 2024).
    OneMinusSqrt,
}

/// The learning rate of every step.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSchedule {
    /// Rate after the warm-up.
    pub peak_rate: f32,
    /// Lowest rate, as a part of the peak: 0 to 1.
    pub floor: f32,
    /// Steps over which the rate grows linearly to the peak.
    pub warm_up_steps: u64,
    /// What comes after.
    pub shape: Shape,
}

/// Why a schedule makes no sense.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The peak must be finite and above 0.
    #[error("a peak rate of {0}")]
    PeakRate(f32),
    /// The floor is a part of the peak.
    #[error("a floor of {0}, not 0 to 1 of the peak")]
    Floor(f32),
    /// Warm-up and decay are longer than the training.
    #[error("{warm_up} steps of warm-up and {decay} of decay in {steps} steps")]
    TooLong {
        /// Steps of the warm-up.
        warm_up: u64,
        /// Steps of the decay.
        decay: u64,
        /// Steps in all.
        steps: u64,
    },
}

impl RateSchedule {
    /// Whether the numbers fit a training of `steps` steps.
    ///
    /// # Errors
    /// [`ScheduleError`] names the number that does not.
    pub fn check(&self, steps: u64) -> Result<(), ScheduleError> {
        if !self.peak_rate.is_finite() || self.peak_rate <= 0.0 {
            return Err(ScheduleError::PeakRate(self.peak_rate));
        }
        if !(0.0..=1.0).contains(&self.floor) {
            return Err(ScheduleError::Floor(self.floor));
        }
        let (warm_up, decay) = (self.warm_up_steps, self.decay_steps(steps));
        match warm_up.checked_add(decay) {
            Some(both) if both <= steps => Ok(()),
            _ => Err(ScheduleError::TooLong { warm_up, decay, steps }),
        }
    }

    /// Whether the rates of steps that were taken would be others had the training another length.
    pub fn depends_on_steps(&self) -> bool {
        self.shape != Shape::Flat
    }

    /// The rate of step `step` (from 1) of `steps`:
    ///
    /// ```text
    /// warm-up of W steps:  peak · step / W                                      step ≤ W
    /// after it:            peak · (floor + (1 − floor) · f(x))
    /// flat:                f = 1
    /// cosine:              f = (1 + cos πx) / 2,    x = (step − W) / (steps − W)
    /// wsd:                  f = 1 or the decay's,    x = (step − (steps − D)) / D, D decay steps
    /// anneal:              the decay's,             x = (step − W) / (steps − W)
    /// ```
    pub fn rate(&self, step: u64, steps: u64) -> f32 {
        let peak = f64::from(self.peak_rate);
        if step < self.warm_up_steps {
            return (peak * step.max(1) as f64 / self.warm_up_steps as f64) as f32;
        }
        let floor = f64::from(self.floor);
        let part = self.part(step.min(steps), steps);
        (peak * (floor + (1.0 - floor) * part)) as f32
    }

    /// f of the formula.
    fn part(&self, step: u64, steps: u64) -> f64 {
        let decay_steps = self.decay_steps(steps);
        let passed = (step + decay_steps).saturating_sub(steps);
        if decay_steps == 0 || passed == 0 {
            return 1.0;
        }
        let x = passed as f64 / decay_steps as f64;
        match self.shape {
            Shape::Flat => 1.0,
            Shape::Cosine => (1.0 + (std::f64::consts::PI * x).cos()) / 2.0,
            Shape::Wsd { decay, .. } | Shape::Anneal { decay } => match decay {
                Decay::Linear => 1.0 - x,
                Decay::OneMinusSqrt => 1.0 - x.sqrt(),
            },
        }
    }

    fn decay_steps(&self, steps: u64) -> u64 {
        match self.shape {
            Shape::Flat => 0,
            Shape::Cosine | Shape::Anneal { .. } => steps.saturating_sub(self.warm_up_steps),
            Shape::Wsd { decay_steps, .. } => decay_steps,
        }
    }
}
