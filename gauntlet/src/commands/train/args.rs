//! The options of `gauntlet train`, as flags and as a TOML file with the same names.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use serde::Deserialize;
#[cfg(doc)]
use trainer::{
    schedule::{Decay, Shape},
    Precision,
};

use crate::engine::{DeviceArg, EngineArg, OptimiserArg};

/// Options of `train`.
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// Folder of the training: checkpoints, log, data. A training that it holds is resumed.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Options of this command in TOML, by their names with underscores. Flags win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Start at step 0, and remove what an earlier training left in the folder.
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
    /// A trained model to start from: a Hugging Face folder or a .gguf file.
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
    /// Format of the parameters in forward and backward pass. Default: f32.
    #[arg(long, value_enum)]
    pub precision: Option<PrecisionArg>,
    /// Memory that may be used, in GiB. Default: half of what is available, or all if that is too little.
    #[arg(long, value_name = "GIB")]
    pub memory: Option<f64>,
    /// The optimiser. Default: adamw.
    #[arg(long, value_enum)]
    pub optimiser: Option<OptimiserArg>,
    /// Learning rate after the warm-up. Default: 0.001.
    #[arg(long)]
    pub rate: Option<f32>,
    /// Learning rate of the matrices that Muon trains, after the warm-up. Default: that of the rest.
    #[arg(long)]
    pub matrix_rate: Option<f32>,
    /// β of Muon's momentum, from 0 to below 1. Default: 0.95.
    #[arg(long)]
    pub momentum: Option<f32>,
    /// Shape of the rate after the warm-up. Default: cosine.
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
    /// Decay of matrices, AdamW's and Muon's. Default: 0.1.
    #[arg(long)]
    pub weight_decay: Option<f32>,
    /// β1 of AdamW, from 0 to below 1. Default: 0.9.
    #[arg(long)]
    pub beta1: Option<f32>,
    /// β2 of AdamW, from 0 to below 1. Default: 0.95.
    #[arg(long)]
    pub beta2: Option<f32>,
    /// Norm to which a longer gradient is clipped; 0 for none. Default: 1.
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
    /// Where the model is computed: auto, cpu, cuda or cuda:NUMBER,…. Default: cpu.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceArg>,
    /// The processor's engine that computes. Default: cpu.
    #[arg(long, value_enum)]
    pub engine: Option<EngineArg>,
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
    /// This machine's peak in GFLOP/s, for the utilisation that is shown. Default: measured with matrix products.
    #[arg(long, value_name = "GFLOPS")]
    pub peak_gflops: Option<f64>,
}

/// [`Precision`] by name.
#[derive(ValueEnum, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionArg {
    /// Unrounded, as the optimiser has them.
    F32,
    /// Rounded to the nearest bf16.
    Bf16,
}

/// [`Shape`] by name.
#[derive(ValueEnum, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleArg {
    /// Constant after the warm-up.
    Flat,
    /// Falls along half a cosine after the warm-up.
    Cosine,
    /// Constant after the warm-up, and falls over the last steps.
    Wsd,
    /// Falls from the first step to the last.
    Anneal,
}

/// [`Decay`] by name.
#[derive(ValueEnum, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum DecayArg {
    /// Falls as 1 − x, with x from 0 to 1 over the decay.
    Linear,
    /// Falls as 1 − √x, with x from 0 to 1 over the decay.
    OneMinusSqrt,
}
