//! Counts a window's steps and losses.

/// One inner step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepReport {
    /// The step in the window, from 0.
    pub step: usize,
    /// Steps of the optimiser since its start, this one included.
    pub optimiser_step: u64,
    /// Mean loss of the batch, in nats a token, before the step.
    pub loss: f32,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f32,
    /// Tokens of the batch.
    pub tokens: usize,
}

/// One window's losses, in nats a token.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct LossSummary {
    /// Loss of the first step.
    pub first: f32,
    /// Loss of the last step.
    pub last: f32,
    /// Mean over the steps.
    pub mean: f32,
    /// Steps taken.
    pub steps: usize,
    /// Tokens trained on.
    pub tokens: u64,
    /// Whether the caller stopped it before its last step.
    pub stopped: bool,
}

/// What the steps of a window said so far.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Progress {
    summary: LossSummary,
    total: f64,
}

impl Progress {
    /// Steps taken.
    pub(super) fn steps(&self) -> usize {
        self.summary.steps
    }

    /// Counts one more.
    pub(super) fn count(&mut self, report: &StepReport) {
        let summary = &mut self.summary;
        if summary.steps == 0 {
            summary.first = report.loss;
        }
        summary.last = report.loss;
        summary.steps += 1;
        summary.tokens += report.tokens as u64;
        self.total += f64::from(report.loss);
    }

    /// The window's losses, if it should have had `steps` steps.
    pub(super) fn summary(&self, steps: usize) -> LossSummary {
        let mean = (self.total / self.summary.steps.max(1) as f64) as f32;
        LossSummary { mean, stopped: self.summary.steps < steps, ..self.summary }
    }
}

/// How far a window is that is trained before its θ is known.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Ahead {
    pub(super) progress: Progress,
    pub(super) has_arrived: bool,
}
