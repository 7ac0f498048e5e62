//! `gauntlet plan`: computes the memory, disk and time that training a model takes on a machine, before anything is
//! allocated. [`trainer::budget`] has the arithmetic; this module has the options, this machine's numbers and the tables.

use std::path::Path;

use anyhow::{Context, Result};
use trainer::budget::{
    self, advice, hardware, Choice, CpuRates, Devices, Machine, PlanRequest, Recompute, Sharding,
    StateFormat, WindowShape,
};
use trainer::ModelConfig;

use self::args::{RecomputeArg, ShardingArg, StateArg};
pub use self::{args::PlanArgs, report::PlanReport};
use participant::memory;

use crate::{engine::OptimiserArg, exit};

mod args;
mod machine;
mod report;
mod table;

/// Prints a plan.
///
/// # Errors
/// The request makes no sense. A model that does not fit is no error: the plan is printed and the exit code is 1.
pub fn run(args: &PlanArgs) -> Result<u8> {
    let request = request(args)?;
    let budget = budget::plan(&request)?;
    let report = PlanReport {
        machine: request.machine.devices.name(),
        rates: match &request.machine.devices {
            Devices::Cpu(rates) => Some(rates.clone()),
            Devices::Gpus { .. } => None,
        },
        window: request.window.clone(),
        optimiser: args.optimiser,
        what_would_fit: advice::advice(&request, &budget)?,
        what_would_wait_less: advice::utilisation_advice(&request, &budget)?,
        budget,
    };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", table::text(&request, &report)),
    }
    Ok(match report.budget.fits {
        true => exit::SUCCESS,
        false => exit::FAILURE,
    })
}

fn request(args: &PlanArgs) -> Result<PlanRequest> {
    let mut model = match (&args.preset, &args.config) {
        (_, Some(path)) => configuration(path)?,
        (Some(preset), None) => ModelConfig::preset(preset)?,
        // clap asks for one of them.
        (None, None) => anyhow::bail!("neither --preset nor --config"),
    };
    if let Some(seq) = args.seq {
        model.seq_len = seq;
    }
    Ok(PlanRequest {
        model,
        machine: machine(args)?,
        window: WindowShape {
            batch: args.batch,
            inner_steps: args.inner_steps,
            peers: args.peers,
            keep: args.k,
            copies: args.copies,
            data_tokens: args.data_tokens,
            ..WindowShape::default()
        },
        choice: Choice {
            micro_batch: args.micro_batch,
            recompute: args.recompute.map(|recompute| match recompute {
                RecomputeArg::None => Recompute::None,
                RecomputeArg::NormSwiglu => Recompute::NormSwiglu,
                RecomputeArg::Full => Recompute::Full,
            }),
            sharding: args.sharding.map(|sharding| match sharding {
                ShardingArg::None => Sharding::None,
                ShardingArg::Optimiser => Sharding::Optimiser,
                ShardingArg::Full => Sharding::Full,
            }),
            state: match args.state {
                StateArg::Bytes18 => StateFormat::Bytes18,
                StateArg::Bytes16 => StateFormat::Bytes16,
                StateArg::Bytes12 => StateFormat::Bytes12,
                StateArg::Bytes10 => StateFormat::Bytes10,
                StateArg::Bytes8 => StateFormat::Bytes8,
                StateArg::Bytes6 => StateFormat::Bytes6,
            },
            muon: args.optimiser == OptimiserArg::Muon,
            feedback_bf16: args.feedback_bf16,
            mfu: args.mfu,
        },
    })
}

fn configuration(path: &Path) -> Result<ModelConfig> {
    trainer::files::configuration(path).with_context(|| format!("in {}", path.display()))
}

fn machine(args: &PlanArgs) -> Result<Machine> {
    let (devices, host_memory) = match &args.gpus {
        Some(gpus) => {
            let usual = hardware::usual_host_memory(gpus);
            (gpus.clone(), args.host_memory.unwrap_or(usual))
        }
        None => {
            let threads = args.cpu.unwrap_or_else(machine::threads);
            let rates = match args.calibrate {
                true => machine::calibrate(threads)?,
                false => CpuRates::assumed(threads),
            };
            let memory = args.host_memory.or_else(memory::available);
            let memory = memory.context("cannot tell how much memory there is; --memory does")?;
            (Devices::Cpu(rates), memory)
        }
    };
    let host_threads = match &devices {
        Devices::Cpu(rates) => rates.threads,
        Devices::Gpus { .. } => args.host_cores,
    };
    Ok(Machine {
        devices,
        host_memory,
        host_threads,
        disk: args.disk,
        up: args.up,
        down: args.down,
    })
}
