//! Recomputes a run from what is on chain and from the payloads, with the functions of `protocol` alone, and says where
//! chain and replay part.
//!
//! It recomputes, window by window:
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

use futures::StreamExt;
use node_client::chain::{BlockRef, Chain, GauntletEvent, RunInfo};
use protocol::{consensus::Standing, fixed::Q32, BlockNumber, Hash, Planck, RunId, Uid, Window};
use trainer::{Model, ModelConfig, Threads};

use crate::{
    error::{unfit, Attempt as _, Result},
    memory,
    open::initial_model,
};

/// Blocks whose events are asked for at a time.
const BLOCKS_AT_ONCE: usize = 16;

/// Names the run that is audited, and what is known of it beside the chain.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// Number of the run on its chain.
    pub run: RunId,
    /// Genesis hash that the chain must have.
    pub genesis: Hash,
    /// Shape of the run's model.
    pub model: ModelConfig,
    /// Folder of the payloads that validators archived.
    pub archive: PathBuf,
    /// Threads that compute, at least 1.
    pub threads: usize,
}

/// One window as the replay found it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowFinding {
    /// Number of the window, from 0 on.
    pub window: Window,
    /// Root of the replayed parameters; `None` once a window could not be replayed.
    pub state_root: Option<Hash>,
    /// Whether the chain has a final root for it.
    pub is_final: bool,
    /// Miners whose updates the chain accepted.
    pub accepted: Vec<Uid>,
    /// Payloads that the archive has.
    pub payloads_kept: usize,
    /// Payloads that were revealed.
    pub payloads_revealed: usize,
    /// Whether an accepted payload is missing, so that later state roots cannot be recomputed.
    pub ends_replay: bool,
    /// Whether chain and replay agree in it.
    pub agrees: bool,
}

/// Where chain and replay part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Number of the window, from 0 on.
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

/// Replays one run. Settlements are audited first, then windows in order: [`Audit::settlements`], [`Audit::next_window`],
/// [`Audit::ledger`].
pub struct Audit {
    chain: Arc<dyn Chain>,
    run: RunId,
    info: RunInfo,
    genesis: Hash,
    archive: PathBuf,
    threads: Threads,
    /// From block 0 on.
    blocks: Vec<Block>,
    window_count: Window,
    next_window: Window,
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
    /// Reads the chain up to its finalised head.
    ///
    /// # Errors
    /// The chain does not answer, is another one or has no such run; the model is not the run's or does not fit the memory.
    pub async fn open(chain: Arc<dyn Chain>, settings: AuditSettings) -> Result<Self> {
        let AuditSettings { run, genesis: expected, model: config, archive, threads } = settings;
        let genesis = chain.genesis_hash().await?;
        if genesis != expected {
            let hex = hex::encode;
            unfit!("this chain's genesis is 0x{}, the run's 0x{}", hex(genesis), hex(expected));
        }
        let head = chain.finalized_head().await?;
        let info = chain
            .run(run, Some(head.hash))
            .await?
            .with_context(|| format!("there is no run {run} on this chain"))?;
        let threads = Threads::new(threads)?;
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
            next_window: 0,
            state: Some((model, root)),
            miners: BTreeMap::new(),
            minted: 0,
            carried: 0,
            salt_mix: [0; 32],
            mixed_to: 0,
            differences: Vec::new(),
        })
    }

    /// Audits the settlements of the first `windows` windows, or of all that are settled. Returns how many those are.
    ///
    /// # Errors
    /// No window is settled yet, or the chain does not answer.
    pub async fn settlements(&mut self, windows: Option<Window>) -> Result<Window> {
        let settled = self.settled_windows();
        self.window_count = windows.map_or(settled, |windows| windows.min(settled));
        if self.window_count == 0 {
            unfit!("no window of run {} is settled yet", self.run);
        }
        for window in 0..self.window_count {
            self.settlement(window)
                .await
                .with_context(|| format!("settlement of window {window}"))?;
        }
        Ok(self.window_count)
    }

    /// Audits the next window and takes its outer step; `None` after the last one.
    ///
    /// # Errors
    /// The chain does not answer or lacks what a chain keeps. A difference is no error: see [`Audit::differences`].
    pub async fn next_window(&mut self) -> Result<Option<WindowFinding>> {
        let window = self.next_window;
        if window >= self.window_count {
            return Ok(None);
        }
        self.next_window = window + 1;
        let (before, had_state) = (self.differences.len(), self.state.is_some());
        let mut finding = self.window(window).await.with_context(|| format!("window {window}"))?;
        finding.ends_replay = had_state && self.state.is_none();
        finding.agrees = self.differences.len() == before;
        Ok(Some(finding))
    }

    /// Where chain and replay part, as far as was audited.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// Number of the last block that is audited.
    pub fn head(&self) -> usize {
        self.blocks.len().saturating_sub(1)
    }

    /// Counts the windows that are settled, or void, from 0 on.
    pub fn settled_windows(&self) -> Window {
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

    /// Audits the ledger: it is conserved, and minted what the windows did.
    ///
    /// # Errors
    /// The chain does not answer.
    pub async fn ledger(&mut self) -> Result<()> {
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
            Ok::<_, crate::Error>(Block { hash, events })
        }
    });
    let blocks: Vec<Result<Block>> = reads.buffered(BLOCKS_AT_ONCE).collect().await;
    blocks.into_iter().collect()
}
