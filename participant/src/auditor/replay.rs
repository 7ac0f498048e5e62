//! What a replay knows of its run: the blocks that it reads, the state that it carries from window to window, and the
//! differences that it found.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use futures::StreamExt;
use node_client::chain::{BlockRef, Chain, GauntletEvent, MinerInfo, RunInfo};
use protocol::{
    books::Bonds, consensus::Standing, emission::Pots, fixed::Q32, BlockNumber, Hash, Planck,
    RunId, Uid, ValidatorIndex, Window,
};
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
    /// Folder of the payloads that validators archived, or of a copy of the run's folder in a mirror's bucket.
    pub archive: PathBuf,
    /// Threads that compute, at least 1.
    pub threads: usize,
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
pub(super) struct Block {
    pub(super) hash: Hash,
    pub(super) events: Vec<GauntletEvent>,
}

/// What the replay knows of a miner.
pub(super) struct Tracked {
    /// A uid may pass to another miner: this tells them apart.
    pub(super) registered_window: Window,
    pub(super) standing: Standing,
    /// What its standing was worth, oldest first.
    pub(super) values: Vec<Value>,
}

/// A standing as one number.
pub(super) struct Value {
    /// The block from which on it holds.
    pub(super) from: BlockNumber,
    pub(super) value: Q32,
    /// Whether any window has scored the miner by then.
    pub(super) is_scored: bool,
}

/// The books of a run as recomputed so far. `settle` and `window` move it on.
pub(super) struct Replay {
    pub(super) chain: Arc<dyn Chain>,
    pub(super) run: RunId,
    pub(super) info: RunInfo,
    pub(super) genesis: Hash,
    pub(super) archive: PathBuf,
    pub(super) threads: Threads,
    /// From block 0 on.
    pub(super) blocks: Vec<Block>,
    /// θ of the window that is audited next, with its root; unknown after a window that could not be replayed.
    pub(super) state: Option<(Model, Hash)>,
    pub(super) miners: BTreeMap<Uid, Tracked>,
    /// The validators' bonds as the last settlement left them.
    pub(super) bonds: BTreeMap<ValidatorIndex, Bonds>,
    pub(super) minted: Planck,
    /// Of sponsors' money, what windows had.
    pub(super) released: Planck,
    pub(super) carried: Pots,
    pub(super) salt_mix: Hash,
    /// The first block whose salts are not in the mix yet.
    pub(super) mixed_to: usize,
    pub(super) differences: Vec<Difference>,
}

impl Replay {
    /// Reads the chain up to its finalised head.
    ///
    /// # Errors
    /// The chain does not answer, is another one or has no such run; the model is not the run's or does not fit the memory.
    pub(super) async fn open(chain: Arc<dyn Chain>, settings: AuditSettings) -> Result<Self> {
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
        // The state, which each outer step changes where it lies.
        memory::check("an audit", &config, None, |model| memory::copies(model, 1))?;
        let (model, manifest) = initial_model(&config, &info, &threads)?;
        let blocks = read_blocks(&chain, head).await?;
        Ok(Self {
            chain,
            run,
            info,
            genesis,
            archive,
            threads,
            blocks,
            state: Some((model, manifest.root())),
            miners: BTreeMap::new(),
            bonds: BTreeMap::new(),
            minted: 0,
            released: 0,
            carried: Pots::default(),
            salt_mix: [0; 32],
            mixed_to: 0,
            differences: Vec::new(),
        })
    }

    /// Counts the windows that are settled, or void, from 0 on.
    pub(super) fn settled_windows(&self) -> Window {
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

    /// The standing that this audit computed, a newcomer's for who is new in its slot.
    pub(super) fn standing(&self, miner: &MinerInfo) -> Standing {
        match self.miners.get(&miner.uid) {
            Some(tracked) if tracked.registered_window == miner.registered_window => {
                tracked.standing.clone()
            }
            _ => Standing::default(),
        }
    }

    /// All events with the number of their block.
    pub(super) fn events(&self) -> impl Iterator<Item = (BlockNumber, &GauntletEvent)> {
        (0..)
            .zip(&self.blocks)
            .flat_map(|(number, block)| block.events.iter().map(move |event| (number, event)))
    }

    /// The hash of a block that is over.
    pub(super) fn hash(&self, number: BlockNumber) -> Result<Hash> {
        let block = self.blocks.get(number as usize);
        Ok(block.with_context(|| format!("block {number} is not there yet"))?.hash)
    }

    pub(super) fn differ(&mut self, window: Window, uid: Option<Uid>, what: impl Into<String>) {
        self.differences.push(Difference { window, uid, what: what.into() });
    }

    /// Compares one number, and notes a difference.
    pub(super) fn compare<T: PartialEq + fmt::Debug>(
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
