//! Watches a training from step to step: writes its log, shows its progress, and evaluates it when that is due.

use anyhow::Result;
use trainer::{Evaluator, PretrainEvent, Pretrainer};

use super::{log::TrainingLog, progress::TrainingProgress};
use dataset::place::Found;

/// The log, the bar and the evaluation of a training.
pub(super) struct Observer<'a> {
    /// Steps from evaluation to evaluation.
    pub(super) evaluate_steps: u64,
    pub(super) log: TrainingLog,
    pub(super) progress: TrainingProgress,
    /// Measures the held-out loss.
    pub(super) evaluator: Evaluator,
    /// The samples on which it is measured; without any it is not.
    pub(super) held_out: Found<'a>,
    /// Their numbers.
    pub(super) held_out_ids: Vec<u64>,
}

impl Observer<'_> {
    /// Takes note of one event.
    ///
    /// # Errors
    /// The log cannot be written, or the evaluation failed.
    pub(super) fn event(&mut self, trainer: &mut Pretrainer, event: &PretrainEvent) -> Result<()> {
        self.log.event(trainer, event)?;
        self.progress.event(event);
        let is_last = trainer.steps_taken() == trainer.settings().steps;
        let is_due = matches!(event, PretrainEvent::Step(_))
            && (trainer.steps_taken().is_multiple_of(self.evaluate_steps) || is_last);
        if is_due && !self.held_out_ids.is_empty() {
            let loss =
                self.evaluator.loss(trainer.weights(), &self.held_out, &self.held_out_ids)?;
            self.log.held_out(trainer, loss)?;
            self.progress.held_out(trainer.steps_taken(), loss);
        }
        Ok(())
    }
}
