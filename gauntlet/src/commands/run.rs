//! Create and show runs.

use std::time::Duration;

use anyhow::{Context, Result};
use node_client::chain::{self, Call, Chain, GauntletEvent};
use protocol::settings::Settings;
use trainer::{Model, ModelConfig, Threads};

use crate::{
    cli::{RunCreateArgs, RunShowArgs},
    commands::wallet,
    dataset, exit, memory,
};

/// How long the chain may take to answer.
const CHAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to the chain at `url`.
///
/// # Errors
/// It does not answer.
pub(crate) async fn connect(url: &str) -> Result<impl Chain> {
    let urls = [url.to_owned()];
    tokio::time::timeout(CHAIN_TIMEOUT, chain::connect(&urls))
        .await
        .ok()
        .context("no answer in time")
        .and_then(|connected| Ok(connected?))
        .with_context(|| format!("cannot reach a chain at {url}"))
}

/// Creates a run from settings in JSON; what follows from model and data is filled in.
///
/// # Errors
/// The settings are wrong, or the chain refuses them.
pub async fn create(args: RunCreateArgs) -> Result<u8> {
    let text = std::fs::read_to_string(&args.settings)
        .with_context(|| format!("cannot read {}", args.settings.display()))?;
    let mut settings: Settings =
        serde_json::from_str(&text).with_context(|| format!("in {}", args.settings.display()))?;
    let config = ModelConfig::preset(&args.model)?;
    let place = args.data.clone();
    let manifest = tokio::task::spawn_blocking(move || dataset::manifest(&place)).await??;
    memory::check("the first state", &config, None, |model| memory::copies(model, 1))?;
    let model = Model::init(&config, settings.training.model_seed)?;
    settings.training.genesis_state_root = model.state_root(&Threads::new(1)?);
    settings.training.data_root = manifest.hash();
    settings.training.sample_count = manifest.train.sample_count;
    settings.training.sample_len = manifest.sample_len as u32;
    settings.validate()?;

    let owner = wallet::open(&args.key)?;
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
