//! `gauntlet audit`: replays a run, of a folder or of any chain, and prints where chain and replay differ.

use std::{path::PathBuf, slice, sync::Arc, time::Duration};

use anyhow::{bail, Context, Result};
use clap::Args;
use node_client::chain::Chain;
use participant::auditor::{Audit, AuditSettings, WindowFinding};
use protocol::{Hash, RunId, Window};
use trainer::ModelConfig;

use crate::{
    chain_process::{self, Pace},
    commands::wallet::genesis_hash,
    env, exit, limits,
    run_folder::{RunFile, PAYLOADS_FOLDER},
    signals, supervise,
};

/// How long the chain may take to end.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// Options of `audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// A folder that `localnet` left. The chain in it is started and read; nothing in it is changed.
    #[arg(value_name = "RUN_FOLDER", required_unless_present = "payloads")]
    pub folder: Option<PathBuf>,
    /// Ask this chain, whose node keeps all states, instead of starting the one in the folder.
    #[arg(long, value_name = "URL", value_parser = limits::text)]
    pub url: Option<String>,
    /// The run, if there is no folder.
    #[command(flatten)]
    pub named: NamedRun,
    /// The chain's binary. Default: `gauntlet-node` beside this program.
    #[arg(long, env = env::NODE, value_name = "FILE")]
    pub node: Option<PathBuf>,
    /// Windows to audit, counted from 0. Default: all that are settled.
    #[arg(long, value_parser = limits::count::<u64>(limits::SOME))]
    pub windows: Option<u64>,
}

/// Names a run of a chain that is asked, and what is known of it.
#[derive(Args, Debug)]
pub struct NamedRun {
    /// Folder of the payloads that a validator archived: its `archive`, or a copy of the run's folder in a mirror's
    /// bucket.
    #[arg(long, value_name = "DIR", requires = "url", conflicts_with = "folder")]
    pub payloads: Option<PathBuf>,
    /// The run's number on the chain.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, conflicts_with = "folder")]
    pub run: RunId,
    /// The run's model: a preset's name.
    #[arg(long, value_name = "PRESET", default_value = "nano", value_parser = limits::text, conflicts_with = "folder")]
    pub model: String,
    /// Hash of the chain's block 0. Default: whatever chain answers.
    #[arg(long, value_name = "HASH", value_parser = genesis_hash, conflicts_with = "folder")]
    pub genesis: Option<Hash>,
}

/// Audits a run; returns the exit code.
///
/// # Errors
/// The audit could not be done. A difference is no error but [`exit::DISAGREEMENT`].
pub async fn run(args: AuditArgs) -> Result<u8> {
    let mut node = None;
    let (chain, settings): (Arc<dyn Chain>, _) = match (&args.folder, &args.url) {
        (None, None) => bail!("name a run folder, or a chain with --url"),
        (None, Some(url)) => {
            let chain = chain_process::connect(url).await?;
            let genesis = chain.genesis_hash().await?;
            let settings = args.named.settings(genesis)?;
            (Arc::new(chain), settings)
        }
        (Some(folder), url) => {
            let file = RunFile::read(folder)?;
            let folder = folder.canonicalize()?;
            let settings = of_folder(&file, folder.join(PAYLOADS_FOLDER))?;
            let chain: Arc<dyn Chain> = match url {
                Some(url) => Arc::new(chain_process::connect(url).await?),
                None => {
                    let binary = chain_process::find(args.node.as_deref())?;
                    let pace = Pace { block_millis: 0, finality_lag: 0, fork_every: 0 };
                    node.insert(chain_process::start(&binary, &folder, pace)?).connect().await?
                }
            };
            (chain, settings)
        }
    };
    let result = tokio::select! {
        result = audit(chain, settings, args.windows) => result.map(Some),
        () = signals::end_requested() => Ok(None),
    };
    if let Some(node) = &mut node {
        supervise::stop(slice::from_mut(&mut node.process), END_PATIENCE).await;
    }
    let Some((audit, windows)) = result? else {
        return Ok(exit::INTERRUPTED);
    };
    let differences = audit.differences();
    for difference in differences {
        println!("DIFFERENCE: {difference}");
    }
    if differences.is_empty() {
        println!("\nchain and replay agree in all {windows} windows");
        return Ok(exit::SUCCESS);
    }
    println!("\nchain and replay part in {} places", differences.len());
    Ok(exit::DISAGREEMENT)
}

impl NamedRun {
    /// The settings of an audit of this run on the chain that has `genesis`.
    fn settings(self, genesis: Hash) -> Result<AuditSettings> {
        let payloads = self.payloads.context("--payloads names the payloads that were archived")?;
        if !payloads.is_dir() {
            bail!(
                "{} is not a folder: it is what a validator's `archive` names",
                payloads.display()
            );
        }
        let genesis = self.genesis.unwrap_or(genesis);
        settings(genesis, self.run, &self.model, payloads).context("--model")
    }
}

/// The settings of an audit of the run that a folder describes.
fn of_folder(file: &RunFile, archive: PathBuf) -> Result<AuditSettings> {
    let genesis = genesis_hash(&file.genesis)
        .ok()
        .with_context(|| format!("the run folder's genesis {:?} is no hash", file.genesis))?;
    settings(genesis, file.run, &file.model, archive).context("the run folder's model")
}

fn settings(genesis: Hash, run: RunId, model: &str, archive: PathBuf) -> Result<AuditSettings> {
    Ok(AuditSettings {
        run,
        genesis,
        model: ModelConfig::preset(model)?,
        archive,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    })
}

/// Replays the first `windows` windows, or all that are settled, and prints each. Returns the audit with their number.
async fn audit(
    chain: Arc<dyn Chain>,
    settings: AuditSettings,
    windows: Option<Window>,
) -> Result<(Audit, Window)> {
    let run = settings.run;
    let mut audit = Audit::open(chain, settings).await?;
    let (settled, head) = (audit.settled_windows(), audit.head());
    if settled > 0 {
        println!("run {run}: {settled} windows are settled, blocks 0 to {head}");
    }
    let count = audit.settlements(windows).await?;
    while let Some(finding) = audit.next_window().await? {
        if finding.ends_replay {
            println!(
                "window {}: without every accepted payload, later state roots cannot be recomputed",
                finding.window
            );
        }
        println!("{}", row(&finding));
    }
    audit.ledger().await?;
    Ok((audit, count))
}

fn row(finding: &WindowFinding) -> String {
    let root = finding.state_root;
    format!(
        "window {:>4}  state {} {}  accepted {:?}  payloads {} of {}  {}",
        finding.window,
        root.map_or("unknown".to_owned(), |root| format!("0x{}…", hex::encode(&root[..6]))),
        if finding.is_final { "final" } else { "not final" },
        finding.accepted,
        finding.payloads_kept,
        finding.payloads_revealed,
        if finding.agrees { "agrees" } else { "DIFFERS" },
    )
}
