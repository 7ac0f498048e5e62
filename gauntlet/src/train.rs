//! `gauntlet train`: a model on this machine alone, without chain or peers.
//!
//! The folder of a training holds its checkpoints, its log (`metrics.jsonl`, a line a step) and, unless a built data set was
//! named, its data. The same command again goes on from the newest checkpoint; docs/TRAINING.md has the settings.

mod log;
mod options;
mod progress;

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
    pretrain::{newest, settings_of},
    Checkpoints, Dataset, Evaluator, Model, ModelConfig, PretrainEnd, PretrainEvent, Pretrainer,
    SampleSource, Threads,
};

pub use options::{TrainArgs, TrainOptions};

use self::{log::Log, options::Plan, progress::Progress};
use crate::{corpus, exit, signals, telemetry};

/// Samples that an evaluation computes at once: bounds its memory.
pub(crate) const EVALUATED_AT_ONCE: usize = 4;

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
    tokio::select! {
        code = &mut training => code?,
        () = signals::end_requested() => {
            end.store(true, Ordering::Relaxed);
            training.await?
        }
    }
}

fn train(plan: &Plan, end: &AtomicBool) -> Result<u8> {
    if let Some(config) = shape(plan)? {
        plan.check_memory(&config, plan.threads)?;
    }
    let folder = &plan.out;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let _lock = options::lock(folder)?;
    if plan.fresh {
        start_over(folder)?;
    }
    let threads = Threads::new(plan.threads)?;
    let checkpoints =
        Checkpoints::open(&folder.join("checkpoints"))?.keeping(plan.keep_checkpoints);
    let (model, tokenizer_folder) = initial_model(plan)?;
    let config = model.config().clone();
    let dataset = dataset(plan, config.seq_len)?;
    let vocab = dataset.manifest().tokens.as_ref();
    let vocab = vocab.map_or(256, |tokens| tokens.vocab_size);
    if vocab > config.vocab as u64 {
        bail!(
            "the data set has a vocabulary of {vocab} tokens, the model knows {}",
            config.vocab
        );
    }
    let checkpoint = newest(&checkpoints, &config)?;
    let held = checkpoint.as_ref().map(settings_of).transpose()?;
    let settings = plan.settings(&config, &dataset, threads.count(), held.as_ref())?;
    let samples = dataset.train();
    let (count, root) = (samples.sample_count(), dataset.root());
    let mut trainer = Pretrainer::new(model, settings, count, &root, threads.clone())?;
    let resumed = checkpoint.is_some();
    if let Some(checkpoint) = checkpoint {
        trainer.resume_from(checkpoint)?;
    }
    let mut log = Log::open(
        &folder.join("metrics.jsonl"),
        trainer.guard().rollbacks,
        trainer.steps_taken(),
    )?;
    let peak = plan.peak_flops.unwrap_or_else(|| measure_flops(&threads));
    let mut progress = Progress::new(&trainer, flops_a_token(&config) / peak);
    progress.begin(&config, &dataset, &trainer, peak, resumed);

    let mut evaluator = Evaluator::new(&config, threads, EVALUATED_AT_ONCE)?;
    let mut failure = None;
    let mut observe = |trainer: &Pretrainer, event: PretrainEvent| {
        let outcome = (|| {
            log.event(trainer, &event)?;
            progress.event(&event);
            let is_last = trainer.steps_taken() == trainer.settings().steps;
            let is_due = matches!(event, PretrainEvent::Step(_))
                && (trainer.steps_taken().is_multiple_of(plan.evaluate_steps) || is_last);
            if is_due && plan.held_out_samples > 0 && dataset.held_out().sample_count() > 0 {
                let loss =
                    evaluator.held_out_loss(trainer.model(), &dataset, plan.held_out_samples)?;
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
        samples,
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
        println!(
            "stopped after step {}; the same command goes on from there",
            trainer.steps_taken()
        );
        return Ok(exit::INTERRUPTED);
    }
    println!(
        "{} steps; state root {}",
        trainer.steps_taken(),
        hex::encode(trainer.model().state_root(trainer.engine().threads()))
    );
    if let Some(to) = &plan.export {
        let mut settings = ExportSettings::default();
        if let Some(from) = tokenizer_folder {
            settings = settings.like_folder(&from)?;
        }
        files::export(trainer.model(), to, &settings)?;
        println!("exported to {}", to.display());
    }
    Ok(exit::SUCCESS)
}

/// The model's shape, before its parameters are read or made; none of a `.gguf` file.
fn shape(plan: &Plan) -> Result<Option<ModelConfig>> {
    let Some(path) = &plan.init else {
        return plan.config().map(Some);
    };
    let path = path.join("config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let config = files::configuration(&path)?;
    Ok(Some(ModelConfig {
        seq_len: plan.seq_len.unwrap_or(config.seq_len),
        ..config
    }))
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

/// The data set: a built one, or a byte-level one made of text.
fn dataset(plan: &Plan, seq_len: usize) -> Result<Dataset> {
    if let Some(data) = plan
        .data
        .as_deref()
        .filter(|data| data.join("manifest.json").is_file())
    {
        return Dataset::open_with_sample_len(data, seq_len)
            .with_context(|| format!("data set in {}", data.display()));
    }
    let own = plan.out.join("data");
    if own.join("manifest.json").is_file() {
        return Ok(Dataset::open_with_sample_len(&own, seq_len)?);
    }
    corpus::build(plan.data.as_deref(), plan.lock.as_deref(), seq_len, &own)
}

/// Removes what an earlier training left in its folder.
fn start_over(folder: &Path) -> Result<()> {
    for name in ["checkpoints", "data"] {
        let path = folder.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    let log = folder.join("metrics.jsonl");
    if log.exists() {
        std::fs::remove_file(&log).with_context(|| format!("cannot remove {}", log.display()))?;
    }
    Ok(())
}
