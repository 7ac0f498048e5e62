//! Runs one training: opens everything it needs, in the order in which mistakes cost least, and takes its steps.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
};

use anyhow::{bail, Context, Result};
use trainer::{
    devices, files,
    flops::{flops_a_token, measure_flops},
    pretrain::settings_in,
    Checkpoints, Device, Evaluator, Model, ModelConfig, PretrainEnd, PretrainEvent, Pretrainer,
    Threads,
};

use super::{
    data::TrainingData,
    log::TrainingLog,
    observer::Observer,
    order::{TrainingOrder, EVALUATED_AT_ONCE},
    progress::TrainingProgress,
};

/// Everything that a training has before its first step.
pub(super) struct Training {
    config: ModelConfig,
    data: TrainingData,
    checkpoints: Checkpoints,
    /// The model and its optimiser.
    pub(super) trainer: Pretrainer,
    device: Arc<dyn Device>,
    /// The threads that compute.
    pub(super) threads: Threads,
    /// Whether an earlier process took some of the steps.
    is_resumed: bool,
    /// The folder whose tokenizer goes with the model.
    pub(super) initial: Option<PathBuf>,
}

impl Training {
    /// Opens model, data and checkpoints, and resumes at the newest checkpoint. Text becomes a data set meanwhile, until `end`
    /// is set.
    ///
    /// # Errors
    /// The settings make no sense, do not fit the checkpoints, or something cannot be read.
    pub(super) fn open(order: &TrainingOrder, end: &AtomicBool) -> Result<Self> {
        let threads = Threads::new(order.threads)?;
        let device = devices::open(order.device, threads.clone())?;
        let checkpoints =
            Checkpoints::open(&order.out.join("checkpoints"))?.keeping(order.keep_checkpoints);
        let (model, initial) = initial_model(order)?;
        let config = model.config().clone();
        if order.fresh {
            // Before what is there is replaced: a training is not to be lost to a mistyped flag.
            order.settings(&config, 1, threads.count(), None)?.check()?;
        }
        let data = TrainingData::open(order, config.seq_len, end)?;
        check_vocabulary(order, &data, config.vocab)?;
        let held = match order.fresh {
            true => None,
            false => settings_in(&checkpoints)?,
        };
        let count = data.train_count();
        let settings = order.settings(&config, count, threads.count(), held.as_ref())?;
        let mut trainer = Pretrainer::new(model, settings, count, &data.root(), &*device)?;
        if order.fresh {
            // Not before everything that could be wrong with this one has been found.
            start_over(&order.out, &checkpoints)?;
        }
        let is_resumed = trainer.resume(&checkpoints)?;
        Ok(Self { config, data, checkpoints, trainer, device, threads, is_resumed, initial })
    }

    /// Trains to the last step, or until `end` is set.
    ///
    /// # Errors
    /// The data cannot be read, the disk is full, or the training diverged.
    pub(super) fn run(&mut self, order: &TrainingOrder, end: &AtomicBool) -> Result<PretrainEnd> {
        let Self { config, data, checkpoints, trainer, device, threads, is_resumed, .. } = self;
        let path = order.out.join("metrics.jsonl");
        let log = TrainingLog::open(&path, trainer.guard().rollbacks, trainer.steps_taken())?;
        let peak = order.peak_flops.unwrap_or_else(|| measure_flops(&threads.clone().into()));
        let progress = TrainingProgress::new(trainer, flops_a_token(config) / peak);
        progress.begin(config, data, trainer, peak, *is_resumed);
        if let Some(bytes) = data.streamed_bytes() {
            progress.streamed(bytes, order);
        }
        let evaluator = Evaluator::new(config, &**device, EVALUATED_AT_ONCE)?;
        let (held_out, held_out_ids) = data.held_out(order.held_out_samples)?;
        let evaluate_steps = order.evaluate_steps;
        let mut observer =
            Observer { evaluate_steps, log, progress, evaluator, held_out, held_out_ids };
        let mut batches = data.batches()?;
        let mut failure = None;
        let mut observe = |trainer: &mut Pretrainer, event: PretrainEvent| {
            if let Err(error) = observer.event(trainer, &event) {
                failure.get_or_insert(error);
            }
            match failure.is_some() || end.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let every = order.checkpoint_steps;
        let ended = trainer::pretrain(trainer, &mut *batches, checkpoints, every, &mut observe);
        observer.progress.finish();
        let ended = ended?;
        failure.map_or(Ok(ended), Err)
    }
}

/// Refuses a data set with more tokens than the model knows.
fn check_vocabulary(order: &TrainingOrder, data: &TrainingData, known: usize) -> Result<()> {
    let tokens = data.manifest().tokens.as_ref();
    let vocab = tokens.map_or(256, |tokens| tokens.vocab_size);
    if vocab > known as u64 {
        bail!(
            "the data set has a vocabulary of {vocab} tokens, the model knows {known}{}",
            match order.init {
                Some(_) => String::new(),
                None => format!(" (--vocab {vocab})"),
            }
        );
    }
    Ok(())
}

/// Reads the model's shape, before its parameters are read or made.
pub(super) fn shape(order: &TrainingOrder) -> Result<ModelConfig> {
    let Some(path) = &order.init else {
        return order.config();
    };
    let config = files::configuration(path)
        .with_context(|| format!("cannot load the model {}", path.display()))?;
    Ok(ModelConfig { seq_len: order.seq_len.unwrap_or(config.seq_len), ..config })
}

/// Reads or makes the initial parameters; returns also where they were read, whose tokenizer goes with them.
fn initial_model(order: &TrainingOrder) -> Result<(Model, Option<PathBuf>)> {
    let Some(path) = &order.init else {
        return Ok((Model::init(&order.config()?, order.seed)?, None));
    };
    let (model, _) =
        files::open(path).with_context(|| format!("cannot load the model {}", path.display()))?;
    let model = match order.seq_len {
        Some(seq_len) => model.with_seq_len(seq_len)?,
        None => model,
    };
    Ok((model, Some(path.clone())))
}

/// Removes an earlier training's files from its folder, but for the data set made from text.
fn start_over(folder: &Path, checkpoints: &Checkpoints) -> Result<()> {
    checkpoints.remove_all()?;
    let log = folder.join("metrics.jsonl");
    if log.exists() {
        std::fs::remove_file(&log).with_context(|| format!("cannot remove {}", log.display()))?;
    }
    Ok(())
}
