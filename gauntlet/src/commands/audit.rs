//! `gauntlet audit`: replays the run in a folder and prints where chain and replay differ.

use std::{path::PathBuf, slice, sync::Arc, time::Duration};

use anyhow::{bail, Context, Result};
use clap::Args;
use node_client::chain::Chain;
use participant::auditor::{Audit, AuditSettings, WindowFinding};
use protocol::Window;
use trainer::ModelConfig;

use crate::{
    chain_process, env, exit, limits,
    run_folder::{RunFile, PAYLOADS_FOLDER},
    signals, supervise,
};

/// How long the chain may take to end.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// Options of `audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// A folder that `localnet` left. The chain in it is started and read; nothing in it is changed.
    #[arg(value_name = "RUN_FOLDER")]
    pub folder: PathBuf,
    /// Ask this chain instead of starting the one in the folder.
    #[arg(long, value_name = "URL", value_parser = limits::text)]
    pub url: Option<String>,
    /// The chain's binary. Default: `gauntlet-node` beside this program.
    #[arg(long, env = env::NODE, value_name = "FILE")]
    pub node: Option<PathBuf>,
    /// Windows to audit, counted from 0. Default: all that are settled.
    #[arg(long, value_parser = limits::count::<u64>(limits::SOME))]
    pub windows: Option<u64>,
}

/// Audits a run folder; returns the exit code.
///
/// # Errors
/// The audit could not be done. A difference is no error but [`exit::DISAGREEMENT`].
pub async fn run(args: AuditArgs) -> Result<u8> {
    let file = RunFile::read(&args.folder)?;
    let folder = args.folder.canonicalize()?;
    let settings = settings(&file, folder.join(PAYLOADS_FOLDER))?;
    let mut node = None;
    let chain: Arc<dyn Chain> = match &args.url {
        Some(url) => Arc::new(chain_process::connect(url).await?),
        None => {
            let binary = chain_process::find(args.node.as_deref())?;
            node.insert(chain_process::start(&binary, &folder, 0, 0)?).connect().await?
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

fn settings(file: &RunFile, archive: PathBuf) -> Result<AuditSettings> {
    let text = file.genesis.strip_prefix("0x").unwrap_or(&file.genesis);
    let mut genesis = [0; 32];
    if hex::decode_to_slice(text, &mut genesis).is_err() {
        bail!("the run folder's genesis {:?} is no hash", file.genesis);
    }
    Ok(AuditSettings {
        run: file.run,
        genesis,
        model: ModelConfig::preset(&file.model)
            .with_context(|| format!("the run folder's model {:?}", file.model))?,
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
