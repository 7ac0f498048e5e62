//! `gauntlet validator`: runs a validator until it is told to end.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use participant::{handles::Role, open, Validator};

use crate::{engine::DeviceArg, exit, participant_file, signals, telemetry};

/// Options of `validator`.
#[derive(Args, Debug)]
pub struct ValidatorArgs {
    /// The participant's configuration (TOML); docs/OPERATING.md explains it.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Where the model is computed: auto, cpu, cuda or cuda:NUMBER,…. Default: what the configuration says.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceArg>,
}

/// Runs a validator and returns the exit code.
///
/// # Errors
/// It cannot start, or a service failed for good.
pub async fn run(args: ValidatorArgs) -> Result<u8> {
    let (mut settings, metrics) = participant_file::load(&args.config, Role::Validator)?;
    if let Some(device) = args.device {
        settings.device = device.kind(None)?;
    }
    if let Some(address) = metrics {
        telemetry::serve_metrics(address)?;
    }
    let surroundings = open::connect(&settings).await?;
    let validator = Validator::open(settings, surroundings).await?;
    validator.run(signals::leave_requested()).await?;
    Ok(exit::SUCCESS)
}
