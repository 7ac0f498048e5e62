//! Recomputes a run from what is on chain and from the payloads, with the functions of `protocol` alone, and says where
//! chain and replay part.
//!
//! What is recomputed, window by window:
//!
//! - **seeds**: from block hashes and the validators' revealed salts, in the order of the chain;
//! - **commitments**: every opening and every score reveal hashes to what had been committed to;
//! - **accepted set** and final state root: from the attestations and the standings that this audit itself computed;
//! - **payloads**: each one that was kept has the root that was revealed; each accepted one is there;
//! - **state roots**: θ from the model's seed on, by the outer steps;
//! - **ratings, shares and pay**: from the revealed evaluations, against the chain's events;
//! - **ledger**: minted = paid + claimable + carried + burned, and each window's part of it.
//!
//! What is not: the evaluations themselves, which are measurements. That half of the stake measured alike is what the
//! rules rely on.

mod settle;
mod window;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use anyhow::{bail, Context, Result};
use futures::StreamExt;
use node_client::chain::{BlockRef, Chain, GauntletEvent, RunInfo};
use protocol::{consensus::Standing, fixed::Q32, BlockNumber, Hash, Planck, RunId, Uid, Window};
use trainer::{Model, ModelConfig, Threads};

use crate::{
    chain_process as node,
    commands::audit::AuditArgs,
    exit, memory,
    participant::initial_model,
    run_folder::{RunFile, PAYLOADS_FOLDER},
    signals, supervise,
};

/// Blocks whose events are asked for at a time.
const BLOCKS_AT_ONCE: usize = 16;

/// How long the chain may take to end.
const END_PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// Audits a run folder; returns the exit code.
///
/// # Errors
/// The audit could not be done. A difference is no error but [`exit::DISAGREEMENT`].
pub async fn run(args: AuditArgs) -> Result<u8> {
    let file = RunFile::read(&args.folder)?;
    let folder = args.folder.canonicalize()?;
    let mut node = None;
    let chain: Arc<dyn Chain> = match &args.url {
        Some(url) => Arc::new(node::connect(url).await?),
        None => {
            let binary = node::find(args.node.as_deref())?;
            node.insert(node::start(&binary, &folder, 0)?).connect().await?
        }
    };
    let result = tokio::select! {
        result = audit(chain, &file, folder.join(PAYLOADS_FOLDER), args.windows) => result.map(Some),
        () = signals::end_requested() => Ok(None),
    };
    if let Some(node) = &mut node {
        supervise::stop(std::slice::from_mut(&mut node.process), END_PATIENCE).await;
    }
    let Some(audit) = result? else {
        return Ok(exit::INTERRUPTED);
    };
    for difference in &audit.differences {
        println!("DIFFERENCE: {difference}");
    }
    if audit.differences.is_empty() {
        println!("\nchain and replay agree in all {} windows", audit.window_count);
        return Ok(exit::SUCCESS);
    }
    println!("\nchain and replay part in {} places", audit.differences.len());
    Ok(exit::DISAGREEMENT)
}

async fn audit(
    chain: Arc<dyn Chain>,
    file: &RunFile,
    archive: PathBuf,
    windows: Option<Window>,
) -> Result<Audit> {
    let mut audit = Audit::open(chain, file, archive).await?;
    let settled = audit.settled_windows();
    audit.window_count = windows.map_or(settled, |windows| windows.min(settled));
    if audit.window_count == 0 {
        bail!("no window of run {} is settled yet", file.run);
    }
    println!("run {}: {} windows are settled, blocks 0 to {}", file.run, settled, audit.head());
    for window in 0..audit.window_count {
        audit.settlement(window).await.with_context(|| format!("settlement of window {window}"))?;
    }
    for window in 0..audit.window_count {
        let before = audit.differences.len();
        let row = audit.window(window).await.with_context(|| format!("window {window}"))?;
        let verdict = if audit.differences.len() == before { "agrees" } else { "DIFFERS" };
        println!("{row}  {verdict}");
    }
    audit.ledger().await?;
    Ok(audit)
}

/// Where chain and replay part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The window.
    pub window: Window,
    /// The miner, if it concerns one.
    pub uid: Option<Uid>,
    /// What differs, and how.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid {
            Some(uid) => write!(f, "window {}, uid {uid}: {}", self.window, self.what),
            None => write!(f, "window {}: {}", self.window, self.what),
        }
    }
}

/// One block and what happened in it.
struct Block {
    hash: Hash,
    events: Vec<GauntletEvent>,
}

/// What the replay knows of a miner.
struct Tracked {
    /// A uid may pass to another miner: this tells them apart.
    registered_window: Window,
    standing: Standing,
    /// Its standing as one number, from which block on.
    values: Vec<(BlockNumber, Q32)>,
}

/// The replay.
struct Audit {
    chain: Arc<dyn Chain>,
    run: RunId,
    info: RunInfo,
    genesis: Hash,
    archive: PathBuf,
    threads: Threads,
    /// From block 0 on.
    blocks: Vec<Block>,
    window_count: Window,
    /// θ of the window that is audited next, with its root; unknown after a window that could not be replayed.
    state: Option<(Model, Hash)>,
    miners: BTreeMap<Uid, Tracked>,
    minted: Planck,
    carried: Planck,
    salt_mix: Hash,
    /// The first block whose salts are not in the mix yet.
    mixed_to: usize,
    differences: Vec<Difference>,
}

impl Audit {
    async fn open(chain: Arc<dyn Chain>, file: &RunFile, archive: PathBuf) -> Result<Self> {
        let genesis = chain.genesis_hash().await?;
        if format!("0x{}", hex::encode(genesis)) != file.genesis {
            bail!("this chain's genesis is 0x{}, the run's {}", hex::encode(genesis), file.genesis);
        }
        let run = file.run;
        let head = chain.finalized_head().await?;
        let info = chain
            .run(run, Some(head.hash))
            .await?
            .with_context(|| format!("there is no run {run} on this chain"))?;
        let threads = Threads::new(std::thread::available_parallelism().map_or(1, usize::from))?;
        let config = ModelConfig::preset(&file.model)?;
        // The state, and the one that is made from it.
        memory::check("an audit", &config, None, |model| memory::copies(model, 2))?;
        let (model, root) = initial_model(&config, &info, &threads)?;
        let blocks = read_blocks(&chain, head).await?;
        Ok(Self {
            chain,
            run,
            info,
            genesis,
            archive,
            threads,
            blocks,
            window_count: 0,
            state: Some((model, root)),
            miners: BTreeMap::new(),
            minted: 0,
            carried: 0,
            salt_mix: [0; 32],
            mixed_to: 0,
            differences: Vec::new(),
        })
    }

    fn head(&self) -> usize {
        self.blocks.len().saturating_sub(1)
    }

    /// Windows that are settled, or void, from 0 on.
    fn settled_windows(&self) -> Window {
        let closed = self.events().filter_map(|(_, event)| match event {
            GauntletEvent::WindowSettled { run, window, .. }
            | GauntletEvent::WindowVoid { run, window, .. }
                if *run == self.run =>
            {
                Some(window + 1)
            }
            _ => None,
        });
        closed.max().unwrap_or(0)
    }

    /// All events with the number of their block.
    fn events(&self) -> impl Iterator<Item = (BlockNumber, &GauntletEvent)> {
        (0..)
            .zip(&self.blocks)
            .flat_map(|(number, block)| block.events.iter().map(move |event| (number, event)))
    }

    /// The hash of a block that is over.
    fn hash(&self, number: BlockNumber) -> Result<Hash> {
        let block = self.blocks.get(number as usize);
        Ok(block.with_context(|| format!("block {number} is not there yet"))?.hash)
    }

    fn differ(&mut self, window: Window, uid: Option<Uid>, what: impl Into<String>) {
        self.differences.push(Difference { window, uid, what: what.into() });
    }

    /// Compares one number, and notes a difference.
    fn compare<T: PartialEq + fmt::Debug>(
        &mut self,
        (window, uid): (Window, Option<Uid>),
        what: &str,
        on_chain: T,
        replayed: T,
    ) {
        if on_chain != replayed {
            self.differ(window, uid, format!("{what}: chain {on_chain:?}, replay {replayed:?}"));
        }
    }

    /// The chain's ledger is conserved, and minted what the windows did.
    async fn ledger(&mut self) -> Result<()> {
        let head = self.hash(self.head() as BlockNumber)?;
        let ledger = self.chain.ledger(self.run, Some(head)).await?;
        let last = self.window_count.saturating_sub(1);
        let parts = [ledger.paid, ledger.claimable, ledger.carried, ledger.burned];
        let sum = parts.iter().try_fold(0u128, |sum, part| sum.checked_add(*part));
        self.compare((last, None), "ledger: the sum of its parts", sum, Some(ledger.minted));
        if self.window_count == self.settled_windows() {
            self.compare((last, None), "ledger: minted", ledger.minted, self.minted);
            self.compare((last, None), "ledger: carried", ledger.carried, self.carried);
        }
        Ok(())
    }
}

/// All blocks up to `head`, with the pallet's events.
async fn read_blocks(chain: &Arc<dyn Chain>, head: BlockRef) -> Result<Vec<Block>> {
    let reads = futures::stream::iter(0..=head.number).map(|number| {
        let chain = chain.clone();
        async move {
            let hash = chain
                .block_hash(number)
                .await?
                .with_context(|| format!("the node has no block {number}"))?;
            // The genesis block has no events.
            let events = if number == 0 { Vec::new() } else { chain.events_at(hash).await? };
            anyhow::Ok(Block { hash, events })
        }
    });
    let blocks: Vec<Result<Block>> = reads.buffered(BLOCKS_AT_ONCE).collect().await;
    blocks.into_iter().collect()
}
