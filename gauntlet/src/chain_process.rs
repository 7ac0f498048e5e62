//! Reaches the chain: connects to one that runs, or starts the process of one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{bail, Context, Result};
use node_client::chain::{self, Chain};

use crate::{
    run_folder::{CHAIN_FOLDER, LOGS_FOLDER},
    supervise::{free_port, Process, Program},
};

/// How long the chain may take to answer.
const CHAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Name of the binary.
const BINARY: &str = "gauntlet-node";

/// The name of a chain's first node, and of its files.
const NAME: &str = "node";

/// The network key of a chain's first node, and who it is by that: so that others can be told before it runs. It is no
/// secret; the node listens on loopback.
const NODE_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const PEER_ID: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

/// How long the node may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(180);

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

/// The node's binary: the one that is named, or the one beside this program.
///
/// # Errors
/// There is none.
pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.parent().unwrap_or(Path::new(".")).join(BINARY),
    };
    if path.is_file() {
        return Ok(path);
    }
    bail!(
        "there is no chain binary at {}; build it with `cargo build --release -p node`, or name it with --node",
        path.display()
    )
}

/// A node of a development chain and how to reach it.
pub(crate) struct Node {
    pub(crate) process: Process,
    /// WebSocket address of its RPC.
    pub(crate) url: String,
    peer_port: u16,
}

/// How fast a development chain goes.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Milliseconds from block to block; 0 makes none.
    pub(crate) block_millis: u64,
    /// Blocks that the last final one is behind the newest.
    pub(crate) finality_lag: u32,
    /// Every so many blocks the last one is replaced; 0 for never.
    pub(crate) fork_every: u32,
}

/// Starts a development chain whose database is in the run folder.
///
/// # Errors
/// It cannot be started.
pub(crate) fn start(binary: &Path, folder: &Path, pace: Pace) -> Result<Node> {
    let own = [format!("--node-key={NODE_KEY}"), format!("--fork-every={}", pace.fork_every)];
    launch(binary, folder, NAME, &folder.join(CHAIN_FOLDER), pace, &own)
}

/// Starts a node that follows the chain of the `first` one, as the `number`-th that does, from 1 on.
///
/// # Errors
/// It cannot be started.
pub(crate) fn follow(
    binary: &Path,
    folder: &Path,
    pace: Pace,
    first: &Node,
    number: u16,
) -> Result<Node> {
    let own = [
        "--follow".to_owned(),
        format!("--bootnodes=/ip4/127.0.0.1/tcp/{}/p2p/{PEER_ID}", first.peer_port),
    ];
    let base_path = folder.join(format!("{CHAIN_FOLDER}-{number}"));
    launch(binary, folder, &format!("{NAME}-{number}"), &base_path, pace, &own)
}

/// Starts a node with the options that all have and some of its `own`.
fn launch(
    binary: &Path,
    folder: &Path,
    name: &str,
    base_path: &Path,
    pace: Pace,
    own: &[String],
) -> Result<Node> {
    let (rpc_port, peer_port) = (free_port()?, free_port()?);
    let args = [
        "--dev".to_owned(),
        format!("--block-millis={}", pace.block_millis),
        format!("--finality-lag={}", pace.finality_lag),
        format!("--base-path={}", base_path.display()),
        format!("--rpc-port={rpc_port}"),
        format!("--listen-addr=/ip4/127.0.0.1/tcp/{peer_port}"),
        "--state-pruning=archive".to_owned(),
        "--blocks-pruning=archive".to_owned(),
        "--no-prometheus".to_owned(),
        "--no-telemetry".to_owned(),
        "--no-mdns".to_owned(),
        "--rpc-max-connections=1000".to_owned(),
    ];
    let program = Program {
        name: name.to_owned(),
        binary: binary.to_owned(),
        args: [&args, own].concat(),
        logs: folder.join(LOGS_FOLDER),
    };
    let url = format!("ws://127.0.0.1:{rpc_port}");
    Ok(Node { process: program.start()?, url, peer_port })
}

impl Node {
    /// Connects to the chain as soon as it answers.
    ///
    /// # Errors
    /// It ended, or does not answer in time.
    pub(crate) async fn connect(&mut self) -> Result<Arc<dyn Chain>> {
        let urls = [self.url.clone()];
        self.connect_by(&urls).await
    }

    /// Connects to the chain by any of `urls`, this node's among them, as soon as one answers.
    ///
    /// # Errors
    /// This node ended, or none answers in time.
    pub(crate) async fn connect_by(&mut self, urls: &[String]) -> Result<Arc<dyn Chain>> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.ended()? {
                bail!("the chain ended at once ({status}); {}", self.process.log_tail());
            }
            let attempt = chain::connect(urls);
            let error = match tokio::time::timeout(Duration::from_secs(10), attempt).await {
                Ok(Ok(chain)) => return Ok(Arc::new(chain)),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if started.elapsed() > START_TIMEOUT {
                return Err(anyhow::anyhow!(error)).with_context(|| {
                    format!("the chain does not answer; {}", self.process.log_tail())
                });
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
