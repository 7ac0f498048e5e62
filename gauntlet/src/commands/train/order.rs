//! Settles the options of a training: from flags, from a TOML file with the same names, from defaults; in this order.

use std::{
    fs::{File, TryLockError},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context, Result};
use trainer::{
    budget::{BudgetError, CpuCosts},
    files,
    guard::GuardSettings,
    schedule::{Decay, RateSchedule, Shape},
    AdamWSettings, DeviceKind, ModelConfig, MuonSettings, Precision, PretrainSettings,
};

use super::args::{DecayArg, PrecisionArg, ScheduleArg, TrainArgs, TrainOptions};
use dataset::place::CACHE_BYTES_MAX;
use participant::memory;

use crate::{
    engine::{self, EngineArg, OptimiserArg},
    limits::{above_zero, said, within, SAMPLES, SAMPLE_TOKENS, SOME, STEPS, THREADS, TOKENS},
    text_file,
};

/// Samples that an evaluation computes at once: bounds its memory.
pub(super) const EVALUATED_AT_ONCE: usize = 4;

/// Learning rate after the warm-up.
const RATE: f32 = 1e-3;

/// Bytes of a GiB.
const GIB: f64 = (1u64 << 30) as f64;

/// The options of a training: flags, file and defaults together, checked as far as they can be without the data.
#[derive(Debug)]
pub(super) struct TrainingOrder {
    pub(super) out: PathBuf,
    pub(super) fresh: bool,
    pub(super) init: Option<PathBuf>,
    pub(super) data: Option<PathBuf>,
    pub(super) data_cache: PathBuf,
    pub(super) data_cache_bytes: u64,
    pub(super) lock: Option<PathBuf>,
    pub(super) seq_len: Option<usize>,
    pub(super) seed: u64,
    pub(super) device: DeviceKind,
    pub(super) engine: Option<EngineArg>,
    pub(super) threads: usize,
    pub(super) checkpoint_steps: u64,
    pub(super) keep_checkpoints: usize,
    pub(super) evaluate_steps: u64,
    pub(super) held_out_samples: usize,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) export: Option<PathBuf>,
    pub(super) peak_flops: Option<f64>,
    options: TrainOptions,
}

/// Takes each field from the first that has it.
macro_rules! first_of {
    ($flags:ident, $file:ident: $($field:ident),* $(,)?) => {
        TrainOptions { $($field: $flags.$field.or($file.$field),)* }
    };
}

impl TrainingOrder {
    pub(super) fn new(args: TrainArgs) -> Result<Self> {
        let options = merged(args.options, args.config.as_deref())?;
        check(&options)?;
        let default = CACHE_BYTES_MAX as f64 / GIB;
        let cache_gib = options.data_cache_gib.unwrap_or(default);
        if !(cache_gib.is_finite() && cache_gib >= 0.0) {
            bail!("data_cache_gib must be 0 or above");
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let data_cache = options.data_cache.clone();
        Ok(Self {
            data_cache: data_cache.unwrap_or_else(|| args.out.join("data-cache")),
            data_cache_bytes: (cache_gib * GIB) as u64,
            out: args.out,
            fresh: args.fresh,
            init: options.init.clone(),
            data: options.data.clone(),
            lock: options.lock.clone(),
            seq_len: options.seq_len,
            seed: options.seed.unwrap_or(1),
            device: options.device.unwrap_or_default().kind(options.engine)?,
            engine: options.engine,
            threads: options.threads.unwrap_or(cores),
            checkpoint_steps: options.checkpoint_steps.unwrap_or(100),
            keep_checkpoints: options.keep_checkpoints.unwrap_or(2),
            evaluate_steps: options.evaluate_steps.unwrap_or(100),
            held_out_samples: options.held_out_samples.unwrap_or(64),
            metrics: options.metrics,
            export: options.export.clone(),
            peak_flops: options.peak_gflops.map(|gflops| gflops * 1e9),
            options,
        })
    }

    /// The shape of a preset or of a file.
    pub(super) fn config(&self) -> Result<ModelConfig> {
        let name = self.options.model.as_deref().unwrap_or("nano");
        let path = Path::new(name);
        let mut config = match ModelConfig::preset(name) {
            Err(_) if path.exists() => files::configuration(path)
                .with_context(|| format!("cannot read the model's shape in {name}"))?,
            preset => preset?,
        };
        config.seq_len = self.seq_len.unwrap_or(config.seq_len);
        config.vocab = self.options.vocab.unwrap_or(config.vocab);
        config.validate()?;
        Ok(config)
    }

    /// Settles what decides the outcome. A training that is resumed keeps its micro-batch unless a flag gives another: it
    /// decides the last bits of every sum.
    pub(super) fn settings(
        &self,
        config: &ModelConfig,
        sample_count: u64,
        threads: usize,
        held: Option<&PretrainSettings>,
    ) -> Result<PretrainSettings> {
        let options = &self.options;
        let batch_size = options.batch_size.unwrap_or(8);
        let tokens_a_step = (batch_size as u64).saturating_mul(config.seq_len as u64);
        let steps = match (options.steps, options.tokens) {
            (Some(steps), _) => steps,
            (None, Some(tokens)) => tokens.div_ceil(tokens_a_step),
            (None, None) => 300,
        };
        if steps.checked_mul(tokens_a_step).is_none_or(|tokens| tokens > *TOKENS.end()) {
            bail!("{steps} steps of {tokens_a_step} tokens are more than {} tokens", TOKENS.end());
        }
        let held_micro =
            held.filter(|held| held.batch_size == batch_size).map(|held| held.micro_batch);
        let micro_batch =
            self.micro_batch(config, threads, batch_size, options.micro_batch.or(held_micro))?;
        let defaults = (AdamWSettings::default(), GuardSettings::default());
        let settings = PretrainSettings {
            steps,
            batch_size,
            micro_batch,
            precision: self.precision(),
            schedule: self.schedule(steps),
            adamw: AdamWSettings {
                beta1: options.beta1.unwrap_or(defaults.0.beta1),
                beta2: options.beta2.unwrap_or(defaults.0.beta2),
                decay: options.weight_decay.unwrap_or(defaults.0.decay),
                ..defaults.0
            },
            muon: self.muon()?,
            clip_norm: options.clip_norm.unwrap_or(1.0),
            seed: self.seed,
            guard: GuardSettings {
                spike_deviations: options.spike_deviations.unwrap_or(defaults.1.spike_deviations),
                skips_max: options.skips_max.unwrap_or(defaults.1.skips_max),
                rollbacks_max: options.rollbacks_max.unwrap_or(defaults.1.rollbacks_max),
            },
        };
        let betas = [settings.adamw.beta1, settings.adamw.beta2];
        if betas.iter().any(|beta| !(0.0..1.0).contains(beta)) {
            bail!("beta1 and beta2 must be from 0 to below 1, not {betas:?}");
        }
        let rest = [settings.adamw.decay, settings.clip_norm, settings.guard.spike_deviations];
        if rest.iter().any(|value| !value.is_finite() || *value < 0.0) {
            bail!("weight_decay, clip_norm and spike_deviations must be 0 or above, not {rest:?}");
        }
        if sample_count == 0 {
            bail!("the data set has not one sample of {} tokens", config.seq_len);
        }
        Ok(settings)
    }

    fn is_muon(&self) -> bool {
        self.options.optimiser.unwrap_or_default() == OptimiserArg::Muon
    }

    /// Muon's settings, if it is to train.
    fn muon(&self) -> Result<Option<MuonSettings>> {
        let options = &self.options;
        if !self.is_muon() {
            if options.matrix_rate.is_some() || options.momentum.is_some() {
                bail!("matrix_rate and momentum are Muon's: they need --optimiser muon");
            }
            return Ok(None);
        }
        let default = MuonSettings::default();
        let rate = options.rate.unwrap_or(RATE);
        let momentum = options.momentum.unwrap_or(default.momentum);
        if !(0.0..1.0).contains(&momentum) {
            bail!("momentum must be from 0 to below 1, not {momentum}");
        }
        let relative_rate = options.matrix_rate.unwrap_or(rate) / rate;
        if !relative_rate.is_normal() {
            bail!("matrix_rate and rate are too far apart: {relative_rate:e} times");
        }
        let decay = options.weight_decay.unwrap_or(default.decay);
        if rate * relative_rate * decay >= 1.0 {
            bail!("matrix_rate times weight_decay must be below 1: each step multiplies by what is left of 1");
        }
        Ok(Some(MuonSettings { momentum, decay, relative_rate }))
    }

    fn precision(&self) -> Precision {
        match self.options.precision {
            Some(PrecisionArg::Bf16) => Precision::Bf16,
            Some(PrecisionArg::F32) | None => Precision::F32,
        }
    }

    /// Refuses a model of which not even one sample at a time fits. To be asked before anything of it is allocated.
    pub(super) fn check_memory(&self, config: &ModelConfig, threads: usize) -> Result<()> {
        self.micro_batch(config, threads, 1, None).map(drop)
    }

    /// The samples at once that are asked for, or the most that fit; an error if they do not.
    fn micro_batch(
        &self,
        config: &ModelConfig,
        threads: usize,
        batch_size: usize,
        asked: Option<usize>,
    ) -> Result<usize> {
        let muon = self.is_muon();
        if let DeviceKind::Cuda(chosen) = self.device {
            return engine::cards_micro_batch(chosen, config, batch_size, asked, muon);
        }
        let precision = self.precision();
        // A micro-batch that is asked for may use all the memory there is; so may that of a resumed training, for which
        // less may be available than when it started.
        let memory = match asked {
            Some(_) => self.memory().or_else(memory::available),
            None => self.memory(),
        };
        let fits = memory::micro_batch(
            "a training",
            config,
            asked.unwrap_or(batch_size),
            memory,
            &|model, samples| memory_of(model, samples, precision, muon, threads),
        )?;
        match asked {
            Some(asked) if fits < asked => bail!(
                "{asked} samples at once do not fit the memory; {fits} do (--micro-batch {fits})"
            ),
            _ => Ok(fits),
        }
    }

    fn schedule(&self, steps: u64) -> RateSchedule {
        let options = &self.options;
        let decay = match options.decay.unwrap_or(DecayArg::Linear) {
            DecayArg::Linear => Decay::Linear,
            DecayArg::OneMinusSqrt => Decay::OneMinusSqrt,
        };
        let name = options.schedule.unwrap_or(ScheduleArg::Cosine);
        let shape = match name {
            ScheduleArg::Flat => Shape::Flat,
            ScheduleArg::Cosine => Shape::Cosine,
            ScheduleArg::Anneal => Shape::Anneal { decay },
            ScheduleArg::Wsd => {
                Shape::Wsd { decay_steps: options.decay_steps.unwrap_or(steps / 5), decay }
            }
        };
        let floor = if name == ScheduleArg::Anneal { 0.0 } else { 0.1 };
        RateSchedule {
            peak_rate: options.rate.unwrap_or(RATE),
            floor: options.floor.unwrap_or(floor),
            warm_up_steps: options.warm_up_steps.unwrap_or((steps / 10).min(100)),
            shape,
        }
    }

    /// Bytes that may be used, if that is said.
    fn memory(&self) -> Option<u64> {
        self.options.memory.map(|gib| (gib * GIB) as u64)
    }
}

/// Merges the flags with the options in the file at `path`. Flags win.
fn merged(flags: TrainOptions, path: Option<&Path>) -> Result<TrainOptions> {
    let mut file = TrainOptions::default();
    if let Some(path) = path {
        let text = text_file::read(path)?;
        file = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    }
    // A flag also wins over the file's other way to say the same.
    if flags.init.is_some() || flags.model.is_some() {
        (file.init, file.model, file.vocab) = (None, None, None);
    }
    if flags.steps.is_some() || flags.tokens.is_some() {
        (file.steps, file.tokens) = (None, None);
    }
    Ok(
        first_of!(flags, file: model, vocab, init, data, data_cache, data_cache_gib, lock, seq_len, steps, tokens, batch_size, micro_batch, precision, memory,
        optimiser, rate, matrix_rate, momentum, schedule, warm_up_steps, decay_steps, decay, floor, weight_decay, beta1, beta2, clip_norm,
        spike_deviations, skips_max, rollbacks_max, seed, device, engine, threads, checkpoint_steps, keep_checkpoints,
        evaluate_steps, held_out_samples, metrics, export, peak_gflops),
    )
}

/// Refuses options that contradict each other or are out of range.
fn check(options: &TrainOptions) -> Result<()> {
    if options.init.is_some() && options.model.is_some() {
        bail!("model and init both name the model to train; give one");
    }
    if options.init.is_some() && options.vocab.is_some() {
        bail!("the vocabulary of a trained model cannot be changed");
    }
    if options.steps.is_some() && options.tokens.is_some() {
        bail!("steps and tokens both set the length of the training; give one");
    }
    check_numbers(options)?;
    check_texts(options)
}

/// Refuses numbers that no training can have. What depends on the model or the length is checked with the settings.
fn check_numbers(options: &TrainOptions) -> Result<()> {
    if options.evaluate_steps == Some(0) {
        bail!("evaluate_steps must be above 0; held_out_samples = 0 is for no evaluation");
    }
    if options.checkpoint_steps == Some(0) {
        bail!(
            "checkpoint_steps must be above 0: without checkpoints a training resumes nowhere; a \
             number above that of the steps leaves only the last"
        );
    }
    if options.keep_checkpoints == Some(0) {
        bail!("keep_checkpoints must be above 0: the newest is the training's result");
    }
    let count = |value: Option<usize>| value.map(|value| value as u64);
    for (name, value, bounds) in [
        ("vocab", count(options.vocab), SOME),
        ("seq_len", count(options.seq_len), SAMPLE_TOKENS),
        ("steps", options.steps, STEPS),
        ("tokens", options.tokens, TOKENS),
        ("batch_size", count(options.batch_size), SAMPLES),
        ("micro_batch", count(options.micro_batch), SAMPLES),
        ("threads", count(options.threads), THREADS),
        ("checkpoint_steps", options.checkpoint_steps, STEPS),
        ("evaluate_steps", options.evaluate_steps, STEPS),
        ("held_out_samples", count(options.held_out_samples), 0..=*SAMPLES.end()),
    ] {
        value.map_or(Ok(()), |value| within(name, value, &bounds))?;
    }
    for (name, value) in [
        ("memory", options.memory),
        ("rate", options.rate.map(f64::from)),
        ("matrix_rate", options.matrix_rate.map(f64::from)),
        ("peak_gflops", options.peak_gflops),
    ] {
        value.map_or(Ok(()), |value| above_zero(name, value))?;
    }
    Ok(())
}

fn check_texts(options: &TrainOptions) -> Result<()> {
    let paths = [
        ("init", &options.init),
        ("data", &options.data),
        ("data_cache", &options.data_cache),
        ("lock", &options.lock),
        ("export", &options.export),
    ];
    for (name, path) in paths {
        path.as_ref().map_or(Ok(()), |path| said(name, path))?;
    }
    options.model.as_ref().map_or(Ok(()), |model| said("model", model))
}

/// Adds up the memory of a training: while it reads a checkpoint, or later, while it evaluates.
fn memory_of(
    config: &ModelConfig,
    samples: usize,
    precision: Precision,
    muon: bool,
    threads: usize,
) -> Result<CpuCosts, BudgetError> {
    CpuCosts::of_pretrainer(config, samples, precision, threads)?
        .with_muon(muon, config, threads)?
        .and(CpuCosts::of_evaluator(config, EVALUATED_AT_ONCE, threads)?)?
        .and_checkpoint(config)
}

/// Makes sure that one process at a time trains in a folder.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another process trains in {}", folder.display()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}
