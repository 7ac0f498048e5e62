//! `gauntlet plan`: what training a model takes on a machine, before anything is allocated. The arithmetic is
//! [`trainer::budget`]'s; here are the command line, this machine's numbers and the tables.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use trainer::budget::{
    self,
    advice::{self, Advice},
    hardware, quantity, Budget, Choice, CpuRates, Devices, Machine, Recompute, Request, Sharding,
    State, Window,
};
use trainer::ModelConfig;

use crate::{exit, memory, replica};

mod machine;
mod table;

/// Options of `plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// A preset: nano, 1M, 7M, 25M, 135M, 360M, 1B, 8B, 70B or covenant-72b.
    #[arg(
        long,
        value_name = "PRESET",
        required_unless_present = "config",
        conflicts_with = "config"
    )]
    pub preset: Option<String>,
    /// A model's config.json as Hugging Face writes it, or the model: its folder or GGUF file.
    #[arg(long, value_name = "FILE|DIR")]
    pub config: Option<PathBuf>,
    /// The GPUs of one peer, like 8xH200; H100-80, B200, A100-80, A100-40, RTX-4090, RTX-5090 and L40S are known too.
    /// Default: this machine's CPU.
    #[arg(long, value_name = "COUNTxKIND", value_parser = hardware::parse_gpus, conflicts_with_all = ["cpu", "calibrate"])]
    pub gpus: Option<Devices>,
    /// Threads of a CPU. Default: those of this machine.
    #[arg(long, value_name = "THREADS")]
    pub cpu: Option<u64>,
    /// Measure this CPU for a second or two instead of assuming what it can do.
    #[arg(long)]
    pub calibrate: bool,
    /// Memory that may be used on the CPU or on each host of GPUs. Default: what is available here; for each GPU of a host
    /// 250 GB, for each RTX 64 GB.
    #[arg(long, visible_alias = "memory", value_name = "BYTES", value_parser = quantity::parse_bytes)]
    pub host_memory: Option<u64>,
    /// Cores of each host of GPUs.
    #[arg(long, default_value_t = 64, value_name = "CORES")]
    pub host_cores: u64,
    /// Disk of each host. Default: not checked.
    #[arg(long, value_name = "BYTES", value_parser = quantity::parse_bytes)]
    pub disk: Option<u64>,
    /// Rate to the world: 110Mbps are bits, 110MB/s bytes.
    #[arg(long, default_value = "110Mbps", value_name = "RATE", value_parser = quantity::parse_rate)]
    pub up: f64,
    /// Rate from the world.
    #[arg(long, default_value = "500Mbps", value_name = "RATE", value_parser = quantity::parse_rate)]
    pub down: f64,
    /// Peers whose updates are accepted, this one among them.
    #[arg(long, default_value_t = 20)]
    pub peers: u64,
    /// Inner steps of a window (H).
    #[arg(long, default_value_t = 30)]
    pub inner_steps: u64,
    /// Samples of an inner step.
    #[arg(long, default_value_t = 192)]
    pub batch: u64,
    /// Tokens of a sample. Default: the model's.
    #[arg(long)]
    pub seq: Option<usize>,
    /// Values that an update keeps of 4096.
    #[arg(long, default_value_t = 64)]
    pub k: u16,
    /// Times that a peer sends its own update: 1 to a mirror, up to one to each of the others.
    #[arg(long, default_value_t = 1)]
    pub copies: u64,
    /// Tokens of the data set that lies on disk. Default: only two windows' samples, the rest is streamed.
    #[arg(long, default_value_t = 0)]
    pub data_tokens: u64,
    /// Samples at once on a device. Default: the fastest that fits.
    #[arg(long)]
    pub micro_batch: Option<u64>,
    /// What the backward pass computes again. Default: the fastest that fits.
    #[arg(long, value_enum)]
    pub recompute: Option<RecomputeArg>,
    /// What is spread over the GPUs. Default: the fastest that fits.
    #[arg(long, value_enum)]
    pub sharding: Option<ShardingArg>,
    /// Bytes a parameter of parameters, gradient and optimiser on GPUs.
    #[arg(long, value_enum, default_value = "12")]
    pub state: StateArg,
    /// Error feedback in bf16 on hosts of GPUs.
    #[arg(long)]
    pub feedback_bf16: bool,
    /// The part of the devices' peak (0 to 1) that a step is known to reach. Default: what the best engine would.
    #[arg(long, value_name = "PART")]
    pub mfu: Option<f64>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// What is computed again.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecomputeArg {
    /// Nothing.
    None,
    /// Norms and SwiGLU.
    NormSwiglu,
    /// Whole layers.
    Full,
}

/// What is spread over the GPUs.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardingArg {
    /// Nothing.
    None,
    /// The optimiser's state (ZeRO-1).
    Optimiser,
    /// Everything (ZeRO-3).
    Full,
}

/// Bytes a parameter.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateArg {
    /// bf16 beside an f32 master, all else f32.
    #[value(name = "18")]
    Bytes18,
    /// A split master, all else f32.
    #[value(name = "16")]
    Bytes16,
    /// bf16 moments.
    #[value(name = "12")]
    Bytes12,
    /// bf16 gradient too.
    #[value(name = "10")]
    Bytes10,
    /// 8-bit moments too.
    #[value(name = "8")]
    Bytes8,
}

/// What `plan --json` prints.
#[derive(Serialize, Debug)]
pub struct Report {
    /// The machine, in words.
    pub machine: String,
    /// A CPU's rates; none for GPUs.
    pub rates: Option<CpuRates>,
    /// What a window was taken to be.
    pub window: Window,
    /// The budget.
    pub budget: Budget,
    /// What would make it fit; empty if it does.
    pub what_would_fit: Vec<Advice>,
    /// What would let it train in more of a window; empty if that is most of it.
    pub what_would_wait_less: Vec<Advice>,
}

/// Prints a plan.
///
/// # Errors
/// The request makes no sense. That a model does not fit is exit code 1 after the plan has been printed.
pub fn run(args: &PlanArgs) -> Result<u8> {
    let request = request(args)?;
    let budget = budget::plan(&request)?;
    let report = Report {
        machine: request.machine.devices.name(),
        rates: match &request.machine.devices {
            Devices::Cpu(rates) => Some(rates.clone()),
            Devices::Gpus { .. } => None,
        },
        window: request.window.clone(),
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

fn request(args: &PlanArgs) -> Result<Request> {
    let mut model = match (&args.preset, &args.config) {
        (_, Some(path)) => configuration(path)?,
        (Some(preset), None) => ModelConfig::preset(preset)?,
        // clap asks for one of them.
        (None, None) => anyhow::bail!("neither --preset nor --config"),
    };
    if let Some(seq) = args.seq {
        model.seq_len = seq;
    }
    Ok(Request {
        model,
        machine: machine(args)?,
        window: Window {
            batch: args.batch,
            inner_steps: args.inner_steps,
            peers: args.peers,
            keep: args.k,
            copies: args.copies,
            data_tokens: args.data_tokens,
            states: replica::STATES_AT_ONCE,
            ..Window::default()
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
                StateArg::Bytes18 => State::Bytes18,
                StateArg::Bytes16 => State::Bytes16,
                StateArg::Bytes12 => State::Bytes12,
                StateArg::Bytes10 => State::Bytes10,
                StateArg::Bytes8 => State::Bytes8,
            },
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
