//! The options of `gauntlet bench`.

use clap::Args;

use crate::{
    engine::{DeviceArg, EngineArg, OptimiserArg},
    limits,
};

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
    /// The processor's engine that is measured.
    pub(super) fn engine(&self) -> EngineArg {
        self.engine.unwrap_or_default()
    }
}
