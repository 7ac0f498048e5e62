//! What a training is told: by flags, by a TOML file with the same names, by defaults; in this order.

use std::{
    fs::{File, TryLockError},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context, Result};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use trainer::{
    files,
    guard::GuardSettings,
    schedule::{Decay, Schedule, Shape},
    AdamWSettings, ModelConfig, Precision, PretrainSettings,
};

use crate::{dataset::CACHE_BYTES_MAX, memory};

/// Bytes of a GiB.
const GIB: f64 = (1u64 << 30) as f64;

/// Options of `train`.
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// Folder of the training: checkpoints, log, data. A training that is there goes on.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Options of this command in TOML, by their names with underscores. Flags win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Begin at step 0: what an earlier training left in the folder is removed.
    #[arg(long)]
    pub fresh: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the command's description")]
    pub options: TrainOptions,
}

/// Every option that a file can have too.
#[derive(Args, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub struct TrainOptions {
    /// The model: a preset (nano, 1M, 7M, 25M, 135M, …), or a config.json as Hugging Face writes it. Default: nano.
    #[arg(long, value_name = "PRESET|FILE", conflicts_with = "init")]
    pub model: Option<String>,
    /// Tokens that the model knows. Default: those that --model says.
    #[arg(long, value_name = "TOKENS", conflicts_with = "init")]
    pub vocab: Option<usize>,
    /// A trained model to go on from: a Hugging Face folder or a .gguf file.
    #[arg(long, value_name = "DIR|FILE")]
    pub init: Option<PathBuf>,
    /// A data set of `gauntlet data build`, here or in a store (s3://bucket/folder, https://host/folder), or text, which
    /// becomes a byte-level one. Default: the sources and Markdown of the crates that Cargo.lock pins.
    #[arg(long, value_name = "DIR|FILE|URL")]
    pub data: Option<PathBuf>,
    /// Where pieces of a data set in a store are kept. Default: `data-cache` in the training's folder.
    #[arg(long, value_name = "DIR")]
    pub data_cache: Option<PathBuf>,
    /// Most that is kept of it, in GiB. Default: 32.
    #[arg(long, value_name = "GIB")]
    pub data_cache_gib: Option<f64>,
    /// Cargo.lock whose crates are the default text.
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
    /// Tokens of a sample. Default: the model's.
    #[arg(long, value_name = "TOKENS")]
    pub seq_len: Option<usize>,
    /// Steps of the optimiser. Default: 300.
    #[arg(long, conflicts_with = "tokens")]
    pub steps: Option<u64>,
    /// Tokens to train on, instead of steps; rounded up to whole steps.
    #[arg(long)]
    pub tokens: Option<u64>,
    /// Samples of a step. Default: 8.
    #[arg(long)]
    pub batch_size: Option<usize>,
    /// Samples at once; the rest of a step is accumulated. Default: the most that fit the memory.
    #[arg(long)]
    pub micro_batch: Option<usize>,
    /// What the parameters are in forward and backward pass. Default: f32.
    #[arg(long, value_enum)]
    pub precision: Option<PrecisionArg>,
    /// Memory that may be used, in GiB. Default: half of what is available, or all if that is too little.
    #[arg(long, value_name = "GIB")]
    pub memory: Option<f64>,
    /// Learning rate after the warm-up. Default: 0.001.
    #[arg(long)]
    pub rate: Option<f32>,
    /// What the rate does after the warm-up. Default: cosine.
    #[arg(long, value_enum)]
    pub schedule: Option<ScheduleArg>,
    /// Steps of the warm-up. Default: a tenth of the steps, at most 100.
    #[arg(long)]
    pub warm_up_steps: Option<u64>,
    /// Steps of the decay of `wsd`. Default: a fifth of the steps.
    #[arg(long)]
    pub decay_steps: Option<u64>,
    /// How `wsd` and `anneal` fall. Default: linear.
    #[arg(long, value_enum)]
    pub decay: Option<DecayArg>,
    /// Lowest rate as a part of the highest. Default: 0.1, for anneal 0.
    #[arg(long)]
    pub floor: Option<f32>,
    /// AdamW's decay of matrices. Default: 0.1.
    #[arg(long)]
    pub weight_decay: Option<f32>,
    /// AdamW's β1. Default: 0.9.
    #[arg(long)]
    pub beta1: Option<f32>,
    /// AdamW's β2. Default: 0.95.
    #[arg(long)]
    pub beta2: Option<f32>,
    /// Longest gradient; 0 for any. Default: 1.
    #[arg(long)]
    pub clip_norm: Option<f32>,
    /// Deviations above the running mean at which a loss is a spike and its step is skipped; 0 for none. Default: 8.
    #[arg(long)]
    pub spike_deviations: Option<f32>,
    /// Bad steps in a row that are skipped before training goes back to a checkpoint. Default: 3.
    #[arg(long)]
    pub skips_max: Option<u32>,
    /// Times that training goes back to a checkpoint, with half the rate each time. Default: 3.
    #[arg(long)]
    pub rollbacks_max: Option<u32>,
    /// Seed of the initial parameters and of the order of the samples. Default: 1.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Threads that compute. Default: one for each core.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Steps from checkpoint to checkpoint. Default: 100.
    #[arg(long)]
    pub checkpoint_steps: Option<u64>,
    /// Checkpoints that are kept. Default: 2.
    #[arg(long)]
    pub keep_checkpoints: Option<usize>,
    /// Steps from evaluation to evaluation on the held-out samples. Default: 100.
    #[arg(long)]
    pub evaluate_steps: Option<u64>,
    /// Held-out samples of an evaluation; 0 for none. Default: 64.
    #[arg(long)]
    pub held_out_samples: Option<usize>,
    /// Serve metrics for Prometheus at this address.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// Where to write the model after the last step, as a Hugging Face folder.
    #[arg(long, value_name = "DIR")]
    pub export: Option<PathBuf>,
    /// What this machine can do at best, for the utilisation that is shown. Default: measured with matrix products.
    #[arg(long, value_name = "GFLOPS")]
    pub peak_gflops: Option<f64>,
}

/// [`Precision`] by name.
#[derive(ValueEnum, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionArg {
    /// As the optimiser has them.
    F32,
    /// Rounded to the nearest bf16.
    Bf16,
}

/// [`Shape`] by name.
#[derive(ValueEnum, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleArg {
    /// Stays.
    Flat,
    /// Half a cosine.
    Cosine,
    /// Stays, and falls over the last steps.
    Wsd,
    /// Falls from the first step to the last.
    Anneal,
}

/// [`Decay`] by name.
#[derive(ValueEnum, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum DecayArg {
    /// 1 − x.
    Linear,
    /// 1 − √x.
    OneMinusSqrt,
}

/// Flags, file and defaults together.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) out: PathBuf,
    pub(super) fresh: bool,
    pub(super) init: Option<PathBuf>,
    pub(super) data: Option<PathBuf>,
    pub(super) data_cache: PathBuf,
    pub(super) data_cache_bytes: u64,
    pub(super) lock: Option<PathBuf>,
    pub(super) seq_len: Option<usize>,
    pub(super) seed: u64,
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

impl Plan {
    pub(super) fn new(args: TrainArgs) -> Result<Self> {
        let mut file = TrainOptions::default();
        if let Some(path) = &args.config {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            file = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        }
        let flags = args.options;
        // A flag also wins over the file's other way to say the same.
        if flags.init.is_some() || flags.model.is_some() {
            (file.init, file.model, file.vocab) = (None, None, None);
        }
        if flags.steps.is_some() || flags.tokens.is_some() {
            (file.steps, file.tokens) = (None, None);
        }
        let options = first_of!(flags, file: model, vocab, init, data, data_cache, data_cache_gib, lock, seq_len, steps, tokens, batch_size, micro_batch, precision, memory,
            rate, schedule, warm_up_steps, decay_steps, decay, floor, weight_decay, beta1, beta2, clip_norm,
            spike_deviations, skips_max, rollbacks_max, seed, threads, checkpoint_steps, keep_checkpoints,
            evaluate_steps, held_out_samples, metrics, export, peak_gflops);
        if options.init.is_some() && options.model.is_some() {
            bail!("model and init are two ways to say what to train; give one");
        }
        if options.init.is_some() && options.vocab.is_some() {
            bail!("the vocabulary of a trained model cannot be changed");
        }
        if options.steps.is_some() && options.tokens.is_some() {
            bail!("steps and tokens are two ways to say how long to train; give one");
        }
        let peak_flops = options.peak_gflops.map(|gflops| gflops * 1e9);
        if peak_flops.is_some_and(|peak| !(peak.is_finite() && peak > 0.0)) {
            bail!("peak_gflops must be above 0");
        }
        if options.evaluate_steps == Some(0) {
            bail!("evaluate_steps must be above 0; held_out_samples = 0 is for no evaluation");
        }
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
            threads: options.threads.unwrap_or(cores),
            checkpoint_steps: options.checkpoint_steps.unwrap_or(100),
            keep_checkpoints: options.keep_checkpoints.unwrap_or(2),
            evaluate_steps: options.evaluate_steps.unwrap_or(100),
            held_out_samples: options.held_out_samples.unwrap_or(64),
            metrics: options.metrics,
            export: options.export.clone(),
            peak_flops,
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

    /// What decides the outcome. The micro-batch of a training that goes on is the one it was begun with, unless a flag says
    /// another: it decides the last bits of every sum.
    pub(super) fn settings(
        &self,
        config: &ModelConfig,
        sample_count: u64,
        threads: usize,
        held: Option<&PretrainSettings>,
    ) -> Result<PretrainSettings> {
        let options = &self.options;
        let batch_size = options.batch_size.unwrap_or(8);
        if batch_size == 0 || batch_size > 1 << 20 {
            bail!("a batch of {batch_size} samples");
        }
        let tokens_a_step = (batch_size as u64).saturating_mul(config.seq_len as u64);
        let steps = match (options.steps, options.tokens) {
            (Some(steps), _) => steps,
            (None, Some(tokens)) => tokens.div_ceil(tokens_a_step),
            (None, None) => 300,
        };
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
        let precision = self.precision();
        // What is asked for may use all that there is; so may the micro-batch of a training that goes on, for which less
        // may be available than when it began.
        let memory = match asked {
            Some(_) => self.memory()?.or_else(memory::available),
            None => self.memory()?,
        };
        let fits = memory::micro_batch(
            "a training",
            config,
            asked.unwrap_or(batch_size),
            memory,
            &|model, samples| memory::training(model, samples, precision, threads),
        )?;
        match asked {
            Some(asked) if fits < asked => bail!(
                "{asked} samples at once do not fit the memory; {fits} do (--micro-batch {fits})"
            ),
            _ => Ok(fits),
        }
    }

    fn schedule(&self, steps: u64) -> Schedule {
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
        Schedule {
            peak_rate: options.rate.unwrap_or(1e-3),
            floor: options.floor.unwrap_or(floor),
            warm_up_steps: options.warm_up_steps.unwrap_or((steps / 10).min(100)),
            shape,
        }
    }

    /// Bytes that may be used, if that is said.
    fn memory(&self) -> Result<Option<u64>> {
        if let Some(gib) = self.options.memory {
            if !(gib.is_finite() && gib > 0.0) {
                bail!("memory must be above 0 GiB");
            }
            return Ok(Some((gib * GIB) as u64));
        }
        Ok(None)
    }
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
