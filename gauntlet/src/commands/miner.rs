//! `gauntlet miner`: runs a miner until it is told to end.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use participant::{handles::Role, open, Miner};

use crate::{engine::DeviceArg, exit, participant_file, signals, telemetry};

/// Options of `miner`.
#[derive(Args, Debug)]
pub struct MinerArgs {
    /// The participant's configuration (TOML); docs/OPERATING.md explains it.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Where the model is computed: auto, cpu, cuda or cuda:NUMBER,…. Default: what the configuration says.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceArg>,
}

/// Runs a miner and returns the exit code.
///
/// # Errors
/// It cannot start, or a service failed for good.
pub async fn run(args: MinerArgs) -> Result<u8> {
    let (mut settings, metrics) = participant_file::load(&args.config, Role::Miner)?;
    if let Some(device) = args.device {
        settings.device = device.kind(None)?;
    }
    if let Some(address) = metrics {
        telemetry::serve_metrics(address)?;
    }
    let surroundings = open::connect(&settings).await?;
    let miner = Miner::open(settings, surroundings).await?;
    miner.run(signals::leave_requested()).await?;
    Ok(exit::SUCCESS)
}
