//! `gauntlet miner`: runs a miner until it is told to end.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use participant::{handles::Role, open, Miner};

use crate::{exit, participant_file, signals, telemetry};

/// Options of `miner`.
#[derive(Args, Debug)]
pub struct MinerArgs {
    /// The participant's configuration (TOML); docs/OPERATING.md explains it.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs a miner and returns the exit code.
///
/// # Errors
/// It cannot start, or a service failed for good.
pub async fn run(args: MinerArgs) -> Result<u8> {
    let (settings, metrics) = participant_file::load(&args.config, Role::Miner)?;
    if let Some(address) = metrics {
        telemetry::serve_metrics(address)?;
    }
    let surroundings = open::connect(&settings).await?;
    let miner = Miner::open(settings, surroundings).await?;
    miner.run(signals::end_requested()).await?;
    Ok(exit::SUCCESS)
}
