//! `gauntlet bench`: measures how fast this machine trains, with our engine and with candle's autograd.
//!
//! A step is forward and backward pass and AdamW on one batch of noise. Ours also computes the
//! gradient's norm, as every real step does; candle's does not. `trainer/checks/bench_train.sh` runs both
//! and PyTorch in turn.

mod cuda;

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use clap::{Args, Subcommand};
use dataset::{SampleSource, Tokens};
use serde_json::{json, Value};
use trainer::{
    autograd::Autograd, budget::CpuCosts, AdamWSettings, Compute, DeviceKind, Engine, MatrixUnit,
    Model, ModelConfig, MuonSettings, Optimiser, Precision, Threads,
};

use participant::memory;

use crate::{
    engine::{DeviceArg, EngineArg, OptimiserArg},
    exit, limits,
};

/// Steps before the clock starts: first touch of memory, threads.
const WARM_UP_STEPS: usize = 2;
/// Batches that take turns.
const BATCHES: usize = 4;
/// The measurements, each a command of `bench`.
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Steps of training on noise.
    Train(BenchTrainArgs),
}

/// Options of `bench train`.
#[derive(Args, Debug)]
pub struct BenchTrainArgs {
    /// The model: a preset's name.
    #[arg(long, default_value = "1M", value_name = "PRESET", value_parser = limits::text)]
    pub preset: String,
    /// Threads that compute.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Samples of a step.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub batch: u16,
    /// Steps that are measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub steps: u16,
    /// Where the model is computed: cpu, cuda or cuda:NUMBER,….
    #[arg(long, default_value_t, value_name = "DEVICE")]
    pub device: DeviceArg,
    /// Samples at once on a GPU. Default: the most that fit.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub micro_batch: Option<u16>,
    /// Layers of the model, where a card is too small for all. Default: the preset's.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub layers: Option<u16>,
    /// The processor's engine that trains. Default: cpu.
    #[arg(long, value_enum)]
    pub engine: Option<EngineArg>,
    /// The optimiser (our engine only).
    #[arg(long, value_enum, default_value = "adamw")]
    pub optimiser: OptimiserArg,
    /// Round the parameters to bf16 in forward and backward pass (our engine only).
    #[arg(long)]
    pub bf16: bool,
    /// Print JSON, on one line.
    #[arg(long)]
    pub json: bool,
}

impl BenchTrainArgs {
    fn engine(&self) -> EngineArg {
        self.engine.unwrap_or_default()
    }
}

/// Runs a measurement and prints its result.
///
/// # Errors
/// There is no such preset, or the threads cannot be started.
pub fn run(command: BenchCommand) -> Result<u8> {
    let BenchCommand::Train(args) = command;
    let mut config = ModelConfig::preset(&args.preset)?;
    config.layers = args.layers.map_or(config.layers, usize::from);
    if let DeviceKind::Cuda(chosen) = args.device.kind(args.engine)? {
        let report = cuda::train(&args, chosen, &config)?;
        match args.json {
            true => println!("{report}"),
            false => println!("{report:#}"),
        }
        return Ok(exit::SUCCESS);
    }
    memory::check("a measurement", &config, None, |model| {
        let (batch, threads) = (args.batch.into(), args.threads.into());
        let costs = CpuCosts::of_pretrainer(model, batch, precision(&args), threads)?;
        costs.with_muon(args.optimiser == OptimiserArg::Muon, model, threads)?.bytes()
    })?;
    let model = Model::init(&config, 1)?;
    let samples = Noise::new(&config, usize::from(args.batch) * BATCHES);
    let measured = match args.engine() {
        EngineArg::Cpu | EngineArg::Vector | EngineArg::Portable => {
            train_engine(&args, &model, &samples)?
        }
        EngineArg::Candle => train_candle(&args, &model, &samples)?,
    };
    let report = measured.report(&args, &config);
    match args.json {
        true => println!("{report}"),
        false => println!("{report:#}"),
    }
    Ok(exit::SUCCESS)
}

/// Tokens of a linear congruential generator.
struct Noise {
    sample_len: usize,
    tokens: Vec<u32>,
}

impl Noise {
    fn new(config: &ModelConfig, samples: usize) -> Self {
        let mut state = 1u64;
        let tokens = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % config.vocab as u64) as u32
        });
        Self {
            sample_len: config.seq_len,
            tokens: tokens.take(samples * config.seq_len + 1).collect(),
        }
    }
}

impl SampleSource for Noise {
    fn sample_len(&self) -> usize {
        self.sample_len
    }

    fn sample_count(&self) -> u64 {
        (self.tokens.len() / self.sample_len) as u64
    }

    fn sample(&self, id: u64) -> Option<Tokens<'_>> {
        let start = usize::try_from(id).ok()?.checked_mul(self.sample_len)?;
        self.tokens.get(start..start + self.sample_len + 1).map(Tokens::U32)
    }
}

/// How long one step took.
#[derive(Clone, Copy, Default)]
struct StepTimes {
    forward: Duration,
    output: Duration,
    backward: Duration,
    optimiser: Duration,
    total: Duration,
}

/// The result of a measurement.
struct Measured {
    steps: Vec<StepTimes>,
    /// What multiplied matrices; of ours only.
    unit: Option<MatrixUnit>,
    /// Bytes of buffers, parameters, gradient and optimiser; of ours only.
    allocated: Option<u64>,
    /// Nats a token at the last step.
    loss: f64,
}

impl Measured {
    fn report(&self, args: &BenchTrainArgs, config: &ModelConfig) -> Value {
        let milliseconds =
            |part: fn(&StepTimes) -> Duration| median(&self.steps, part).as_secs_f64() * 1e3;
        let tokens = f64::from(args.batch) * config.seq_len as f64;
        let best = self.steps.iter().map(|step| step.total).min().unwrap_or_default();
        let phases = match args.engine() {
            EngineArg::Cpu | EngineArg::Vector | EngineArg::Portable => json!({
                "forward": milliseconds(|step| step.forward),
                "output": milliseconds(|step| step.output),
                "backward": milliseconds(|step| step.backward),
                "optimiser": milliseconds(|step| step.optimiser),
            }),
            EngineArg::Candle => json!({
                "forward": milliseconds(|step| step.forward),
                "backward": milliseconds(|step| step.backward),
                "optimiser": milliseconds(|step| step.optimiser),
            }),
        };
        json!({
            "engine": format!("{:?}", args.engine()).to_lowercase(),
            "unit": self.unit,
            "optimiser": args.optimiser,
            "preset": args.preset,
            "parameters": config.parameter_count(),
            "threads": args.threads,
            "batch": args.batch,
            "seq_len": config.seq_len,
            "steps": self.steps.len(),
            "tokens_per_second": {
                "median": tokens / median(&self.steps, |step| step.total).as_secs_f64(),
                "best": tokens / best.as_secs_f64(),
            },
            "step_ms": milliseconds(|step| step.total),
            "phases_ms": phases,
            "allocated_bytes": self.allocated,
            "loss": self.loss,
        })
    }
}

/// The median of one part of the steps.
fn median(steps: &[StepTimes], part: fn(&StepTimes) -> Duration) -> Duration {
    let mut times: Vec<Duration> = steps.iter().map(part).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The samples of each step.
fn batch(args: &BenchTrainArgs, step: usize) -> Vec<u64> {
    let first = (step % BATCHES) as u64 * u64::from(args.batch);
    (first..first + u64::from(args.batch)).collect()
}

fn precision(args: &BenchTrainArgs) -> Precision {
    match args.bf16 {
        true => Precision::Bf16,
        false => Precision::F32,
    }
}

fn train_engine(args: &BenchTrainArgs, model: &Model, samples: &Noise) -> Result<Measured> {
    let precision = precision(args);
    let unit = match args.engine() {
        EngineArg::Vector => MatrixUnit::Vector,
        EngineArg::Portable => MatrixUnit::Portable,
        EngineArg::Cpu | EngineArg::Candle => MatrixUnit::best(),
    };
    ensure!(unit.available(), "this machine has no such unit");
    let threads = Threads::new(args.threads.into())?;
    let compute = Compute::new(threads).with_unit(unit);
    let (batch_size, config) = (args.batch.into(), model.config());
    let mut engine = Engine::with_precision(config, batch_size, true, compute.clone(), precision)?;
    let mut parameters = model.parameters().to_vec();
    let mut gradient = vec![0.0; parameters.len()];
    let muon = (args.optimiser == OptimiserArg::Muon).then(MuonSettings::default);
    let mut optimiser = Optimiser::new(AdamWSettings::default(), muon, model.arena(), &compute);
    let tokens = f64::from(args.batch) * model.config().seq_len as f64;
    let mut measured = Measured {
        steps: Vec::new(),
        unit: Some(unit),
        allocated: Some(
            engine.allocated_bytes() + optimiser.allocated_bytes() + parameters.len() as u64 * 8,
        ),
        loss: 0.0,
    };
    for step in 0..WARM_UP_STEPS + usize::from(args.steps) {
        let ids = batch(args, step);
        let start = Instant::now();
        let scale = (1.0 / tokens) as f32;
        let loss =
            engine.loss_and_gradient(&parameters, &mut gradient, samples, &ids, scale, false)?;
        let middle = Instant::now();
        let norm = optimiser.gradient_norm(&gradient);
        let clip = if norm > 1.0 { (1.0 / norm) as f32 } else { 1.0 };
        optimiser.step(&mut parameters, &gradient, 1e-3, clip);
        let times = engine.times();
        if step >= WARM_UP_STEPS {
            measured.steps.push(StepTimes {
                forward: times.forward,
                output: times.output,
                backward: times.backward,
                optimiser: middle.elapsed(),
                total: start.elapsed(),
            });
        }
        measured.loss = loss / tokens;
    }
    Ok(measured)
}

fn train_candle(args: &BenchTrainArgs, model: &Model, samples: &Noise) -> Result<Measured> {
    let is_ours_alone = args.bf16 || args.optimiser == OptimiserArg::Muon;
    ensure!(!is_ours_alone, "candle: only AdamW in f32 is supported");
    args.engine().start_again_with_threads(args.threads.into())?;
    let mut candle = Autograd::new(model)?;
    let tokens = f64::from(args.batch) * model.config().seq_len as f64;
    let mut measured = Measured { steps: Vec::new(), unit: None, allocated: None, loss: 0.0 };
    for step in 0..WARM_UP_STEPS + usize::from(args.steps) {
        let ids = batch(args, step);
        let start = Instant::now();
        let loss = (candle.loss(samples, &ids)? / tokens)?;
        let forward = Instant::now();
        let gradients = loss.backward()?;
        let backward = Instant::now();
        candle.step(&gradients, &AdamWSettings::default(), 1e-3)?;
        if step >= WARM_UP_STEPS {
            measured.steps.push(StepTimes {
                forward: forward - start,
                backward: backward - forward,
                optimiser: backward.elapsed(),
                total: start.elapsed(),
                ..StepTimes::default()
            });
        }
        measured.loss = f64::from(loss.to_scalar::<f32>()?);
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_see_the_same_loss_fall() {
        let args = BenchTrainArgs {
            preset: "nano".into(),
            threads: 1,
            batch: 1,
            steps: 4,
            device: DeviceArg::Cpu,
            micro_batch: None,
            layers: None,
            engine: None,
            optimiser: OptimiserArg::AdamW,
            bf16: false,
            json: true,
        };
        let model = Model::init(&ModelConfig::preset("nano").unwrap(), 1).unwrap();
        let samples = Noise::new(model.config(), BATCHES);
        let ours = train_engine(&args, &model, &samples).unwrap();
        assert_eq!(ours.steps.len(), 4);
        let report = ours.report(&args, model.config());
        assert!(report["tokens_per_second"]["best"].as_f64().unwrap() > 0.0);
        assert!(report["allocated_bytes"].as_u64().unwrap() > 4 * 4 * 200_000);

        let mut candle = Autograd::new(&model).unwrap();
        let mut loss = 0.0;
        for step in 0..6 {
            let sum = candle.loss(&samples, &batch(&args, step)).unwrap();
            let mean = (sum / 128.0).unwrap();
            candle.step(&mean.backward().unwrap(), &AdamWSettings::default(), 1e-3).unwrap();
            loss = f64::from(mean.to_scalar::<f32>().unwrap());
        }
        // Ours clips the gradient, which hardly matters to AdamW.
        assert!((ours.loss / loss - 1.0).abs() < 0.02, "{} {loss}", ours.loss);
    }
}
