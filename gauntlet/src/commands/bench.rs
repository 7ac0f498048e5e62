//! `gauntlet bench`: measures how fast this machine trains, with our engine and with candle's autograd.
//!
//! A step is forward and backward pass and AdamW on one batch of noise. Ours also computes the
//! gradient's norm, as every real step does; candle's does not. `trainer/checks/bench_train.sh` runs both
//! and PyTorch in turn.

mod args;
mod noise;

mod cuda;

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use clap::Subcommand;
use serde_json::{json, Value};
use trainer::{
    autograd::Autograd, budget::CpuCosts, AdamWSettings, Compute, DeviceKind, Engine, MatrixUnit,
    Model, ModelConfig, MuonSettings, Optimiser, Precision, Threads,
};

use participant::memory;

pub use self::args::BenchTrainArgs;
use self::noise::{batch, Noise, BATCHES, WARM_UP_STEPS};

use crate::{
    engine::{EngineArg, OptimiserArg},
    exit,
};

/// The measurements, each a command of `bench`.
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Steps of training on noise.
    Train(BenchTrainArgs),
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
        let ids = batch(args.batch, step);
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
        let ids = batch(args.batch, step);
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
    use crate::engine::DeviceArg;

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
            let sum = candle.loss(&samples, &batch(args.batch, step)).unwrap();
            let mean = (sum / 128.0).unwrap();
            candle.step(&mean.backward().unwrap(), &AdamWSettings::default(), 1e-3).unwrap();
            loss = f64::from(mean.to_scalar::<f32>().unwrap());
        }
        // Ours clips the gradient, which hardly matters to AdamW.
        assert!((ours.loss / loss - 1.0).abs() < 0.02, "{} {loss}", ours.loss);
    }
}
