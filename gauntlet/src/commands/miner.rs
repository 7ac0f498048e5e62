//! `gauntlet miner`: runs a miner until it is told to end.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::miner;

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
    miner::run(&args.config).await
}
