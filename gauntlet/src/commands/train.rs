//! `gauntlet train`: trains a model on this machine alone, without chain or peers.
//!
//! The folder of a training holds its checkpoints, its log (`metrics.jsonl`, a line a step) and, unless a built data set was
//! named, its data. The same command again resumes at the newest checkpoint; docs/TRAINING.md has the settings.

mod args;
mod data;
mod log;
mod observer;
mod order;
mod progress;
mod text;
mod training;

use std::{path::Path, sync::atomic::AtomicBool};

use anyhow::{Context, Result};
use trainer::{
    files::{self, ExportSettings},
    FileError, PretrainEnd,
};

pub use self::args::{TrainArgs, TrainOptions};
use self::{order::TrainingOrder, training::Training};
use crate::{exit, signals, telemetry, terminal::print};

/// Trains to the last step, or until Ctrl-C; returns the exit code.
///
/// # Errors
/// The settings make no sense, data or model cannot be read, the disk is full, or the training diverged. The newest
/// checkpoint is whole whatever happens.
pub async fn run(args: TrainArgs) -> Result<u8> {
    let order = TrainingOrder::new(args)?;
    order.engine.unwrap_or_default().start_again_with_threads(order.threads)?;
    if let Some(address) = order.metrics {
        telemetry::serve_metrics(address)?;
    }
    signals::blocking_until_asked_to_end(move |end| train(&order, end)).await
}

fn train(order: &TrainingOrder, end: &AtomicBool) -> Result<u8> {
    order.check_memory(&training::shape(order)?, order.threads)?;
    let folder = &order.out;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let _lock = order::lock(folder)?;
    if let Some(to) = &order.export {
        files::check_free(to)?;
    }
    let mut training = Training::open(order, end)?;
    let ended = training.run(order, end)?;
    let Training { trainer, threads, initial, .. } = training;
    let steps = trainer.steps_taken();
    if ended == PretrainEnd::Stopped {
        print(&format!("stopped after step {steps}; the same command resumes there"));
        return Ok(exit::INTERRUPTED);
    }
    let model = trainer.into_model()?;
    print(&format!("{steps} steps; state root {}", hex::encode(model.state_root(&threads))));
    if let Some(to) = &order.export {
        let settings = match initial {
            Some(from) => like_initial(&from)?,
            None => ExportSettings::default(),
        };
        files::export(&model, to, &settings)?;
        print(&format!("exported to {}", to.display()));
    }
    Ok(exit::SUCCESS)
}

/// What the model that training began with says beside its parameters. A vocabulary that cannot be converted is left out:
/// nothing that was learned is lost over it.
fn like_initial(from: &Path) -> Result<ExportSettings> {
    match ExportSettings::default().like_model(from) {
        Err(error @ FileError::Vocabulary { .. }) => {
            tracing::warn!("the exported model has no tokenizer: {error}");
            Ok(ExportSettings::default())
        }
        settings => Ok(settings?),
    }
}
