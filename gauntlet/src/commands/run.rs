//! `gauntlet run`: creates, shows and manages runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use node_client::{
    chain::{Call, Chain, GauntletEvent},
    keys,
};
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

mod cost;
mod draft;
pub use draft::DraftArgs;

/// Blocks from the creation of a run to its first window, if nobody says otherwise.
const START_IN_BLOCKS: u32 = 100;

/// Rows that one call of `run reap` removes.
const REAP_ROWS: u32 = 256;

/// Commands on runs.
#[derive(Subcommand, Debug)]
pub enum RunCommand {
    /// Create a run, from settings in a file or from the flags.
    Create(RunCreateArgs),
    /// Show a run's settings.
    Show(RunShowArgs),
    /// Announce that a run pauses: its windows take no updates, and nobody is at fault in them.
    Pause(RunKeyArgs),
    /// Resume a paused run, or withdraw an announced pause.
    Resume(RunKeyArgs),
    /// End a run: as its owner after the chain's delay, as anybody when it is idle.
    Close(RunKeyArgs),
    /// Remove a closed run from the chain; bonds, stakes, claims and the deposit go to whom they belong.
    Reap(RunKeyArgs),
    /// Offer a run to another owner.
    Offer(RunOfferArgs),
    /// Become the owner of a run that is offered to this key.
    Accept(RunKeyArgs),
    /// Drop settings that wait for a coming window.
    Cancel(RunKeyArgs),
}

/// Options of `run create`.
#[derive(Args, Debug)]
pub struct RunCreateArgs {
    /// WebSocket address of the chain.
    #[arg(long, env = env::URL, default_value = DEFAULT_URL, value_parser = limits::text)]
    pub url: String,
    /// Settings of the run (JSON, as `run show` and `--dry-run` print it); their roots are filled in from model and
    /// data. Default: those that follow from the flags below.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// What is asked of the run where there is no file.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// Blocks from now to the first window: time to register. Default: the settings' `start_block`, or 100 from now.
    #[arg(long, value_name = "BLOCKS")]
    pub start_in: Option<u32>,
    /// Print the settings and create nothing.
    #[arg(long)]
    pub dry_run: bool,
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

/// Options of the commands that one key gives on one run.
#[derive(Args, Debug)]
pub struct RunKeyArgs {
    /// WebSocket address of the chain.
    #[arg(long, env = env::URL, default_value = DEFAULT_URL, value_parser = limits::text)]
    pub url: String,
    /// The run's number on the chain.
    pub run: RunId,
    /// The key that signs: the owner's, where the command says nothing else.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// Options of `run offer`.
#[derive(Args, Debug)]
pub struct RunOfferArgs {
    /// Address of the new owner; without it the offer is withdrawn.
    #[arg(long, value_name = "ADDRESS", value_parser = limits::text)]
    pub to: Option<String>,
    /// Chain, run and key.
    #[command(flatten)]
    pub order: RunKeyArgs,
}

/// Runs a command on runs.
///
/// # Errors
/// As [`create`], [`show`] and [`sign`].
pub async fn run(command: RunCommand) -> Result<u8> {
    match command {
        RunCommand::Create(args) => create(args).await,
        RunCommand::Show(args) => show(args).await,
        RunCommand::Pause(args) => sign(&args, Call::PauseRun { run: args.run }).await,
        RunCommand::Resume(args) => sign(&args, Call::ResumeRun { run: args.run }).await,
        RunCommand::Close(args) => sign(&args, Call::CloseRun { run: args.run }).await,
        RunCommand::Reap(args) => reap(args).await,
        RunCommand::Offer(args) => {
            let to = args.to.as_deref().map(keys::account_from_address).transpose()?;
            sign(&args.order, Call::OfferRun { run: args.order.run, to }).await
        }
        RunCommand::Accept(args) => sign(&args, Call::AcceptRun { run: args.run }).await,
        RunCommand::Cancel(args) => sign(&args, Call::CancelParams { run: args.run }).await,
    }
}

/// Creates a run from settings in JSON or drafted ones; what follows from model and data is filled in.
///
/// # Errors
/// The settings are wrong, or the chain refuses them.
pub async fn create(args: RunCreateArgs) -> Result<u8> {
    let config = ModelConfig::preset(&args.model)?;
    let place = args.data.clone();
    let manifest = tokio::task::spawn_blocking(move || place::manifest(&place)).await??;
    let chain = connect(&args.url).await?;
    let (mut settings, start_in) = match &args.settings {
        Some(path) => (read(path)?, args.start_in),
        None => {
            let settings = draft::settings(&args.draft, manifest.train.sample_count)?;
            (settings, Some(args.start_in.unwrap_or(START_IN_BLOCKS)))
        }
    };
    draft::start(&mut settings.schedule, start_in, chain.best_number().await?)?;
    memory::check("the first state", &config, None, |model| memory::copies(model, 1))?;
    let model = Model::init(&config, settings.training.model_seed)?;
    settings.training.genesis_state_root = model.state_root(&Threads::new(1)?);
    settings.training.data_root = manifest.hash();
    settings.training.sample_count = manifest.train.sample_count;
    settings.training.sample_len = manifest.sample_len as u32;
    settings.validate()?;
    let cost = cost::tell(&chain, model.layout()).await?;
    if args.dry_run {
        println!("{}", serde_json::to_string_pretty(&settings)?);
        return Ok(exit::SUCCESS);
    }

    let account = wallet::account(&args.key)?;
    cost::check(&chain, &account, cost).await?;
    let owner = wallet::open(&args.key, &args.url)?;
    let start = settings.schedule.start_block;
    let call = Call::CreateRun { settings: Box::new(settings), layout: model.layout().clone() };
    let included = chain.submit(&owner, call).await.context("cannot create the run")?;
    let run = included.events.iter().find_map(|event| match event {
        GauntletEvent::RunCreated { run, .. } => Some(*run),
        _ => None,
    });
    println!("run {}", run.context("the chain did not say which run it created")?);
    eprintln!("its first window begins at block {start}");
    Ok(exit::SUCCESS)
}

/// Reads settings from a file.
fn read(path: &Path) -> Result<Settings> {
    let text = text_file::read(path)?;
    serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))
}

/// Submits a call on a run and prints what the chain did.
///
/// # Errors
/// The key cannot be opened, or the chain refuses the call.
async fn sign(args: &RunKeyArgs, call: Call) -> Result<u8> {
    let key = wallet::open(&args.key, &args.url)?;
    let chain = connect(&args.url).await?;
    let included = chain.submit(&key, call).await?;
    for event in &included.events {
        println!("{event:?}");
    }
    Ok(exit::SUCCESS)
}

/// Removes a closed run page by page.
async fn reap(args: RunKeyArgs) -> Result<u8> {
    let key = wallet::open(&args.key, &args.url)?;
    let chain = connect(&args.url).await?;
    let call = Call::ReapRun { run: args.run, rows: REAP_ROWS };
    loop {
        let included = chain.submit(&key, call.clone()).await.context("cannot remove the run")?;
        let is_gone = included
            .events
            .iter()
            .any(|event| matches!(event, GauntletEvent::RunReaped { run } if *run == args.run));
        if is_gone {
            println!("run {} is gone", args.run);
            return Ok(exit::SUCCESS);
        }
    }
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
    let owner = keys::address(&info.owner);
    eprintln!(
        "run {} of {owner}: {values} parameters in {} tensors",
        args.run,
        info.layout.0.len()
    );
    println!("{}", serde_json::to_string_pretty(&info.settings)?);
    Ok(exit::SUCCESS)
}
