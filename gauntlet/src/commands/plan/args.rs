//! The options of `gauntlet plan`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use trainer::budget::{hardware, quantity, Devices};

use crate::{engine::OptimiserArg, limits};

/// Options of `plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// A preset: nano, 1M, 7M, 25M, 135M, 360M, 1B, 8B, 70B or covenant-72b.
    #[arg(
        long,
        value_name = "PRESET",
        value_parser = limits::text,
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
    /// Measure this CPU for a second or two instead of assuming its rates.
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
    /// The part of the forward pass that the backward pass computes again. Default: the fastest that fits.
    #[arg(long, value_enum)]
    pub recompute: Option<RecomputeArg>,
    /// The part of the training's state that is spread over the GPUs. Default: the fastest that fits.
    #[arg(long, value_enum)]
    pub sharding: Option<ShardingArg>,
    /// Bytes a parameter of parameters, gradient and optimiser on GPUs.
    #[arg(long, value_enum, default_value = "12")]
    pub state: StateArg,
    /// The optimiser of the inner steps.
    #[arg(long, value_enum, default_value = "adamw")]
    pub optimiser: OptimiserArg,
    /// Error feedback in bf16 on hosts of GPUs.
    #[arg(long)]
    pub feedback_bf16: bool,
    /// The part of the devices' peak (0 to 1) that a step is known to reach. Default: that of the best engine.
    #[arg(long, value_name = "PART")]
    pub mfu: Option<f64>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The part that the backward pass computes again.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecomputeArg {
    /// Nothing.
    None,
    /// Norms and SwiGLU.
    NormSwiglu,
    /// Whole layers.
    Full,
}

/// The part that is spread over the GPUs.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardingArg {
    /// Nothing.
    None,
    /// The optimiser's state (ZeRO-1).
    Optimiser,
    /// Everything (ZeRO-3).
    Full,
}

/// Formats of parameters, gradient and moments on GPUs.
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
    /// As 12, with the master's rest and the moments in the host's memory.
    #[value(name = "6")]
    Bytes6,
}
