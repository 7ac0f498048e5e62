//! `gauntlet run`: creates and shows runs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use node_client::chain::{Call, Chain, GauntletEvent};
use protocol::{settings::Settings, RunId};
use trainer::{Model, ModelConfig, Threads};

use super::wallet::{self, KeyArgs};
use dataset::place;
use participant::memory;

use crate::{
    chain_process::connect,
    env::{self, DEFAULT_URL},
    exit, limits, text_file,
};

/// Commands on runs.
#[derive(Subcommand, Debug)]
pub enum RunCommand {
    /// Create a run from settings in a file.
    Create(RunCreateArgs),
    /// Show a run's settings.
    Show(RunShowArgs),
}

/// Options of `run create`.
#[derive(Args, Debug)]
pub struct RunCreateArgs {
    /// WebSocket address of the chain.
    #[arg(long, env = env::URL, default_value = DEFAULT_URL, value_parser = limits::text)]
    pub url: String,
    /// Settings of the run (JSON, as `run show` prints it); their roots are filled in from model and data.
    #[arg(long, value_name = "FILE")]
    pub settings: PathBuf,
    /// The model: nano, 1M, 7M, 25M, 135M, 360M, 1B, 8B, 70B or covenant-72b.
    #[arg(long, default_value = "nano", value_name = "PRESET", value_parser = limits::text)]
    pub model: String,
    /// The data set's folder, or its address in a store (`s3://bucket/folder`, `https://host/folder`).
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Key of the run's owner, who pays for its creation.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// Options of `run show`.
#[derive(Args, Debug)]
pub struct RunShowArgs {
    /// WebSocket address of the chain.
    #[arg(long, env = env::URL, default_value = DEFAULT_URL, value_parser = limits::text)]
    pub url: String,
    /// The run's number on the chain.
    #[arg(default_value_t = 0)]
    pub run: RunId,
}

/// Runs a command on runs.
///
/// # Errors
/// As [`create`] and [`show`].
pub async fn run(command: RunCommand) -> Result<u8> {
    match command {
        RunCommand::Create(args) => create(args).await,
        RunCommand::Show(args) => show(args).await,
    }
}

/// Creates a run from settings in JSON; what follows from model and data is filled in.
///
/// # Errors
/// The settings are wrong, or the chain refuses them.
pub async fn create(args: RunCreateArgs) -> Result<u8> {
    let text = text_file::read(&args.settings)?;
    let mut settings: Settings =
        serde_json::from_str(&text).with_context(|| format!("in {}", args.settings.display()))?;
    let config = ModelConfig::preset(&args.model)?;
    let place = args.data.clone();
    let manifest = tokio::task::spawn_blocking(move || place::manifest(&place)).await??;
    memory::check("the first state", &config, None, |model| memory::copies(model, 1))?;
    let model = Model::init(&config, settings.training.model_seed)?;
    settings.training.genesis_state_root = model.state_root(&Threads::new(1)?);
    settings.training.data_root = manifest.hash();
    settings.training.sample_count = manifest.train.sample_count;
    settings.training.sample_len = manifest.sample_len as u32;
    settings.validate()?;

    let owner = wallet::open(&args.key, &args.url)?;
    let chain = connect(&args.url).await?;
    let call = Call::CreateRun { settings: Box::new(settings), layout: model.layout().clone() };
    let included = chain.submit(&owner, call).await.context("cannot create the run")?;
    let run = included.events.iter().find_map(|event| match event {
        GauntletEvent::RunCreated { run, .. } => Some(*run),
        _ => None,
    });
    println!("run {}", run.context("the chain did not say which run it created")?);
    Ok(exit::SUCCESS)
}

/// Shows a run's settings as JSON, which `run create` reads.
///
/// # Errors
/// There is no such run.
pub async fn show(args: RunShowArgs) -> Result<u8> {
    let chain = connect(&args.url).await?;
    let info = chain
        .run(args.run, None)
        .await?
        .with_context(|| format!("there is no run {} on this chain", args.run))?;
    let values = info.layout.value_count().unwrap_or(0);
    let owner = node_client::keys::address(&info.owner);
    eprintln!(
        "run {} of {owner}: {values} parameters in {} tensors",
        args.run,
        info.layout.0.len()
    );
    println!("{}", serde_json::to_string_pretty(&info.settings)?);
    Ok(exit::SUCCESS)
}
