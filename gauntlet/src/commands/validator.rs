//! `gauntlet validator`: runs a validator until it is told to end.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::validator;

/// Options of `validator`.
#[derive(Args, Debug)]
pub struct ValidatorArgs {
    /// The participant's configuration (TOML); docs/OPERATING.md explains it.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs a validator and returns the exit code.
///
/// # Errors
/// It cannot start, or a service failed for good.
pub async fn run(args: ValidatorArgs) -> Result<u8> {
    validator::run(&args.config).await
}
