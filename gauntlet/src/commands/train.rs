//! `gauntlet train`: a model on this machine alone, without chain or peers.
//!
//! The folder of a training holds its checkpoints, its log (`metrics.jsonl`, a line a step) and, unless a built data set was
//! named, its data. The same command again goes on from the newest checkpoint; docs/TRAINING.md has the settings.

mod args;
mod data;
mod log;
mod order;
mod progress;
mod text;

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
};

use anyhow::{bail, Context, Result};
use trainer::{
    files::{self, ExportSettings},
    flops::{flops_a_token, measure_flops},
    pretrain::settings_in,
    Checkpoints, DataError, Evaluator, Model, ModelConfig, PretrainEnd, PretrainEvent, Pretrainer,
    Threads,
};

pub use self::args::{TrainArgs, TrainOptions};

use self::{
    data::Data,
    log::Log,
    order::{Plan, EVALUATED_AT_ONCE},
    progress::Progress,
};
use crate::{exit, signals, telemetry, terminal::print};

/// Trains to the last step, or until Ctrl-C; returns the exit code.
///
/// # Errors
/// The settings make no sense, data or model cannot be read, the disk is full, or the training diverged. The newest
/// checkpoint is whole whatever happens.
pub async fn run(args: TrainArgs) -> Result<u8> {
    let plan = Plan::new(args)?;
    if let Some(address) = plan.metrics {
        telemetry::serve_metrics(address)?;
    }
    let end = Arc::new(AtomicBool::new(false));
    let flag = end.clone();
    let training = tokio::task::spawn_blocking(move || train(&plan, &flag));
    let mut training = std::pin::pin!(training);
    let ended = tokio::select! {
        ended = &mut training => ended?,
        () = signals::end_requested() => {
            end.store(true, Ordering::Relaxed);
            signals::end_at_once_when_asked_again();
            training.await?
        }
    };
    match ended {
        // While a data set was made of text.
        Err(error) if matches!(error.downcast_ref(), Some(DataError::Stopped(_))) => {
            exit::tell(&exit::line(&error));
            Ok(exit::INTERRUPTED)
        }
        ended => ended,
    }
}

fn train(plan: &Plan, end: &AtomicBool) -> Result<u8> {
    plan.check_memory(&shape(plan)?, plan.threads)?;
    let folder = &plan.out;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let _lock = order::lock(folder)?;
    if let Some(to) = &plan.export {
        files::check_free(to)?;
    }
    let threads = Threads::new(plan.threads)?;
    let checkpoints =
        Checkpoints::open(&folder.join("checkpoints"))?.keeping(plan.keep_checkpoints);
    let (model, tokenizer_folder) = initial_model(plan)?;
    let config = model.config().clone();
    if plan.fresh {
        // Before what is there is replaced: a training is not to be lost to a mistyped flag.
        plan.settings(&config, 1, threads.count(), None)?.check()?;
    }
    let data = Data::open(plan, config.seq_len, end)?;
    let vocab = data.manifest().tokens.as_ref();
    let vocab = vocab.map_or(256, |tokens| tokens.vocab_size);
    if vocab > config.vocab as u64 {
        bail!(
            "the data set has a vocabulary of {vocab} tokens, the model knows {}{}",
            config.vocab,
            match plan.init {
                Some(_) => String::new(),
                None => format!(" (--vocab {vocab})"),
            }
        );
    }
    let held = match plan.fresh {
        true => None,
        false => settings_in(&checkpoints)?,
    };
    let count = data.train_count();
    let settings = plan.settings(&config, count, threads.count(), held.as_ref())?;
    let mut trainer = Pretrainer::new(model, settings, count, &data.root(), threads.clone())?;
    if plan.fresh {
        // Not before everything that could be wrong with this one has been found.
        start_over(folder, &checkpoints)?;
    }
    let resumed = trainer.resume(&checkpoints)?;
    let mut log =
        Log::open(&folder.join("metrics.jsonl"), trainer.guard().rollbacks, trainer.steps_taken())?;
    let peak = plan.peak_flops.unwrap_or_else(|| measure_flops(&threads));
    let mut progress = Progress::new(&trainer, flops_a_token(&config) / peak);
    progress.begin(&config, &data, &trainer, peak, resumed);
    if let Some(bytes) = data.streamed_bytes() {
        progress.streamed(bytes, plan);
    }

    let mut evaluator = Evaluator::new(&config, threads.clone(), EVALUATED_AT_ONCE)?;
    let (held_out, held_out_ids) = data.held_out(plan.held_out_samples)?;
    let mut batches = data.batches()?;
    let mut failure = None;
    let mut observe = |trainer: &mut Pretrainer, event: PretrainEvent| {
        let outcome = (|| {
            log.event(trainer, &event)?;
            progress.event(&event);
            let is_last = trainer.steps_taken() == trainer.settings().steps;
            let is_due = matches!(event, PretrainEvent::Step(_))
                && (trainer.steps_taken().is_multiple_of(plan.evaluate_steps) || is_last);
            if is_due && !held_out_ids.is_empty() {
                let loss = evaluator.loss(trainer.model()?, &held_out, &held_out_ids)?;
                log.held_out(trainer, loss)?;
                progress.held_out(trainer.steps_taken(), loss);
            }
            anyhow::Ok(())
        })();
        if let Err(error) = outcome {
            failure.get_or_insert(error);
        }
        match failure.is_some() || end.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let ended = trainer::pretrain(
        &mut trainer,
        &mut *batches,
        &checkpoints,
        plan.checkpoint_steps,
        &mut observe,
    );
    progress.finish();
    let ended = ended?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    if ended == PretrainEnd::Stopped {
        print(&format!(
            "stopped after step {}; the same command goes on from there",
            trainer.steps_taken()
        ));
        return Ok(exit::INTERRUPTED);
    }
    print(&format!(
        "{} steps; state root {}",
        trainer.steps_taken(),
        hex::encode(trainer.model()?.state_root(&threads))
    ));
    if let Some(to) = &plan.export {
        let mut settings = ExportSettings::default();
        if let Some(from) = tokenizer_folder {
            settings = settings.like_folder(&from)?;
        }
        files::export(trainer.model()?, to, &settings)?;
        print(&format!("exported to {}", to.display()));
    }
    Ok(exit::SUCCESS)
}

/// The model's shape, before its parameters are read or made.
fn shape(plan: &Plan) -> Result<ModelConfig> {
    let Some(path) = &plan.init else {
        return plan.config();
    };
    let config = files::configuration(path)
        .with_context(|| format!("cannot load the model {}", path.display()))?;
    Ok(ModelConfig { seq_len: plan.seq_len.unwrap_or(config.seq_len), ..config })
}

/// The initial parameters, and the folder whose tokenizer goes with them.
fn initial_model(plan: &Plan) -> Result<(Model, Option<std::path::PathBuf>)> {
    let Some(path) = &plan.init else {
        return Ok((Model::init(&plan.config()?, plan.seed)?, None));
    };
    let (model, tokenizer) =
        files::open(path).with_context(|| format!("cannot load the model {}", path.display()))?;
    let model = match plan.seq_len {
        Some(seq_len) => model.with_seq_len(seq_len)?,
        None => model,
    };
    Ok((model, tokenizer.map(|_| path.clone())))
}

/// Removes what an earlier training left in its folder, but for the data set that was made of text.
fn start_over(folder: &Path, checkpoints: &Checkpoints) -> Result<()> {
    checkpoints.remove_all()?;
    let log = folder.join("metrics.jsonl");
    if log.exists() {
        std::fs::remove_file(&log).with_context(|| format!("cannot remove {}", log.display()))?;
    }
    Ok(())
}
