//! Implements [`Chain`] over subxt: one connection at a time, opened again, to the next of the nodes, when it breaks, and
//! to the one that is furthest when the one in use falls behind.
//!
//! Storage entries are named by code that subxt generates from `artifacts/metadata.scale`; before a value is read,
//! subxt compares the entry's type with the node's. Values are then decoded into the records of `stored`.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use codec::{Decode, DecodeAll, Encode};
use futures::StreamExt;
use protocol::{
    entry::{entry_price, EntryPrice},
    fault::ProvenFault,
    layout::Layout,
    settings::Settings,
    AccountBytes, BlockNumber, Hash, Planck, RunId, Window,
};
use subxt::{
    backend::LegacyBackend,
    client::{ClientAtBlock, OnlineClientAtBlockImpl},
    config::RpcConfigFor,
    utils::H256,
    OnlineClient, PolkadotConfig,
};
use subxt_rpcs::methods::LegacyRpcMethods;
use tokio::sync::{mpsc, watch, Mutex, RwLock};

use super::{
    changes, door::Account, endpoints::Endpoints, events::FIRST_UNREAD_EVENT, read, signed::Signed,
    AnnouncementInfo, AttestationCommitmentInfo, AttestationInfo, BestNumbers, BlockRef, Call,
    Chain, ChainError, Claim, CommitmentInfo, DataChallengeInfo, DepartureInfo,
    EvaluationDisputeInfo, FinalizedBlocks, GauntletEvent, Included, Keypair, Ledger, MinerInfo,
    PermitInfo, ProvenFaultInfo, RevealInfo, RunCost, RunInfo, ScoreCommitmentInfo,
    ScoreRevealInfo, SlashInfo, StakePoolInfo, SubmitError, ValidatorInfo, WindowInfo,
};
use crate::backoff::Backoff;

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
#[subxt::subxt(runtime_metadata_path = "artifacts/metadata.scale")]
mod api {}

mod stored;
mod views;

use api::runtime_types::bounded_collections::bounded_vec::BoundedVec;
use views::NoAnswer;

/// Pause after an attempt failed; it grows to the longest with each that follows.
const RETRY_PAUSE: Duration = Duration::from_millis(300);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(4);
/// How often the other nodes are asked how far they are.
const PROBE_INTERVAL: Duration = Duration::from_secs(4);
/// How long a node may take to say how far it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Blocks that the node in use may be behind another one before it is left.
const BEHIND_MAX: u64 = 3;
/// The same of final blocks: they come some at a time.
const FINAL_BEHIND_MAX: u64 = 8;
/// Blocks at the end of the best chain that may go again.
const FORK_BLOCKS: u64 = 3;
/// Blocks that are walked back, from child to parent, at most.
const WALK_MAX: BlockNumber = 256;
/// How long the stream of finalised blocks may be silent before the connection is looked at.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Finalised blocks that wait for a slow reader, at most; the stream then waits.
const BLOCKS_WAITING_MAX: usize = 256;

pub(super) type AtBlock = ClientAtBlock<PolkadotConfig, OnlineClientAtBlockImpl<PolkadotConfig>>;

type Rpcs = LegacyRpcMethods<RpcConfigFor<PolkadotConfig>>;

/// An open connection.
pub(super) struct Connection {
    pub(super) client: OnlineClient<PolkadotConfig>,
    rpcs: Rpcs,
    /// Which of the nodes it is with, and how many connections there were before it.
    node: usize,
    pub(super) generation: u64,
    /// Whether it is a light client of this process.
    pub(super) is_light: bool,
}

/// The chain as one of several nodes shows it. Clones share the connection.
#[derive(Clone)]
pub struct SubxtChain {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    endpoints: Endpoints,
    connection: RwLock<Arc<Connection>>,
    /// The generation of the connection in use.
    generation: watch::Sender<u64>,
    retries: Mutex<Retries>,
    genesis: Hash,
    /// The other nodes that answer, by their place in the endpoints' `urls`.
    others: Mutex<HashMap<usize, Arc<Rpcs>>>,
    /// What is remembered of each signer.
    pub(super) accounts: Mutex<HashMap<AccountBytes, Arc<Account<Signed>>>>,
}

/// What became of the attempts to open another connection.
struct Retries {
    /// The pauses before.
    backoff: Backoff,
    /// How many failed.
    failed: u64,
}

/// Connects to the first of `urls` that answers: a node (`ws://…`), or a light client in this process (`light:PATH` of the chain's
/// specification), which asks its `bootNodes`.
///
/// # Errors
/// [`ChainError::Transport`] with the last one's reason when none does.
pub async fn connect(urls: &[String]) -> Result<SubxtChain, ChainError> {
    connect_to(urls, None).await
}

/// Connects to the first of `urls` that answers and whose block 0 has the hash `genesis`, if one is given.
///
/// # Errors
/// As [`connect`]; [`ChainError::OtherChain`] if all that answer have another chain.
pub async fn connect_to(urls: &[String], genesis: Option<Hash>) -> Result<SubxtChain, ChainError> {
    let endpoints = Endpoints::new(urls);
    let connection = open_any(&endpoints, 0, 0, genesis).await?;
    let genesis = connection.client.genesis_hash().0;
    let shared = Arc::new(Shared {
        endpoints,
        connection: RwLock::new(Arc::new(connection)),
        generation: watch::Sender::new(0),
        // As many participants as ask one node lose it at once.
        retries: Mutex::new(Retries {
            backoff: Backoff::new(RETRY_PAUSE, RETRY_PAUSE_MAX, &rand::random::<[u8; 8]>()),
            failed: 0,
        }),
        genesis,
        others: Mutex::default(),
        accounts: Mutex::default(),
    });
    if urls.len() > 1 {
        tokio::spawn(compare_nodes(Arc::downgrade(&shared)));
    }
    Ok(SubxtChain { shared })
}

/// Connects to the first node from `first` on that answers, and that has this `genesis` if one is given.
async fn open_any(
    endpoints: &Endpoints,
    first: usize,
    generation: u64,
    genesis: Option<Hash>,
) -> Result<Connection, ChainError> {
    let mut reason = "no node is configured".to_owned();
    let mut other = None;
    let urls = &endpoints.urls;
    for step in 0..urls.len() {
        let node = (first + step) % urls.len();
        let patience = endpoints.patience(node);
        match tokio::time::timeout(patience, open(endpoints, node, generation)).await {
            Ok(Ok(connection)) => {
                let found = connection.client.genesis_hash().0;
                if genesis.is_none_or(|genesis| genesis == found) {
                    return Ok(connection);
                }
                tracing::warn!(url = urls[node], "a node has another chain");
                other = Some(ChainError::OtherChain { url: urls[node].clone(), found });
            }
            Ok(Err(error)) => reason = format!("{}: {error}", urls[node]),
            Err(_) => reason = format!("{}: no answer in {} s", urls[node], patience.as_secs()),
        }
    }
    Err(other.unwrap_or(ChainError::Transport(reason)))
}

async fn open(endpoints: &Endpoints, node: usize, generation: u64) -> Result<Connection, String> {
    let rpc = endpoints.open(node).await?;
    let backend = LegacyBackend::<PolkadotConfig>::builder().build(rpc.clone());
    let client =
        OnlineClient::from_backend(Arc::new(backend)).await.map_err(|error| error.to_string())?;
    let rpcs = Rpcs::new(rpc);
    // A light client has the genesis from its specification; whether it is connected, this says.
    rpcs.chain_get_finalized_head().await.map_err(|error| reason(&error))?;
    let is_light = endpoints.is_light(node);
    Ok(Connection { client, rpcs, node, generation, is_light })
}

/// Leaves the node in use whenever another one is further, as long as somebody uses the chain.
async fn compare_nodes(shared: Weak<Shared>) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        SubxtChain { shared }.leave_who_is_behind().await;
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

/// How far a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Reach {
    best: u64,
    /// `None` where it does not say.
    finalized: Option<u64>,
}

impl Reach {
    /// What a node says; `None` if it does not in time.
    async fn of(rpcs: &Rpcs) -> Option<Self> {
        let at = async |hash| Some(rpcs.chain_get_header(hash).await.ok()??.number);
        let best = tokio::time::timeout(PROBE_TIMEOUT, at(None)).await.ok()??;
        let last = async {
            let hash = rpcs.chain_get_finalized_head().await.ok()?;
            at(Some(hash)).await
        };
        let finalized = tokio::time::timeout(PROBE_TIMEOUT, last).await.ok().flatten();
        Some(Self { best, finalized })
    }

    /// Whether a node that is so far is left for one that is as far as `other`: the best chain decides what is late, and what is
    /// final is read.
    fn is_left_for(self, other: Self) -> bool {
        let is_behind = other.best.saturating_sub(self.best) >= BEHIND_MAX;
        let is_final_behind = self
            .finalized
            .zip(other.finalized)
            .is_some_and(|(own, other)| other.saturating_sub(own) >= FINAL_BEHIND_MAX);
        is_behind || (is_final_behind && self.best.saturating_sub(other.best) < BEHIND_MAX)
    }
}

/// The reason of an error of subxt with all its causes.
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn transport(error: impl std::error::Error + 'static) -> ChainError {
    ChainError::Transport(reason(&error))
}

impl SubxtChain {
    /// The connection in use.
    pub(super) async fn connection(&self) -> Arc<Connection> {
        self.shared.connection.read().await.clone()
    }

    /// Opens a connection in place of `broken`, unless somebody has.
    pub(super) async fn reconnect(&self, broken: &Connection) -> Result<(), ChainError> {
        let mut current = self.shared.connection.write().await;
        self.open_instead(&mut current, broken).await
    }

    async fn open_instead(
        &self,
        current: &mut Arc<Connection>,
        broken: &Connection,
    ) -> Result<(), ChainError> {
        if current.generation != broken.generation {
            return Ok(());
        }
        // Opened again a light client is the same one: a request of it failed, not its connection.
        if broken.is_light && self.shared.endpoints.urls.len() == 1 {
            return Ok(());
        }
        let first = (broken.node + 1) % self.shared.endpoints.urls.len().max(1);
        self.replace(current, first).await
    }

    /// After a pause, has another connection opened in place of one that broke: once for all who wait for one.
    async fn replace_broken(&self, broken: &Connection) {
        let (pause, failed) = {
            let retries = self.shared.retries.lock().await;
            (retries.backoff.current(), retries.failed)
        };
        tokio::select! {
            biased;
            () = self.moved(broken) => return,
            () = tokio::time::sleep(pause) => {}
        }
        let mut current = self.shared.connection.write().await;
        // Who waited for the same has tried, in vain.
        if self.shared.retries.lock().await.failed != failed {
            return;
        }
        let opened = self.open_instead(&mut current, broken).await;
        let mut retries = self.shared.retries.lock().await;
        match opened {
            Ok(()) => retries.backoff.reset(),
            Err(error) => {
                retries.failed += 1;
                retries.backoff.pause();
                tracing::debug!(%error, "the chain does not answer");
            }
        }
    }

    /// Opens a connection to the first node from `first` on in place of `current`.
    async fn replace(&self, current: &mut Arc<Connection>, first: usize) -> Result<(), ChainError> {
        let Shared { endpoints, genesis, .. } = &*self.shared;
        let generation = current.generation + 1;
        *current = Arc::new(open_any(endpoints, first, generation, Some(*genesis)).await?);
        self.shared.generation.send_replace(generation);
        Ok(())
    }

    /// Asks the other nodes how far they are, and goes to the furthest one if the one in use is far behind it.
    async fn leave_who_is_behind(&self) {
        let used = self.connection().await;
        let others = (0..self.shared.endpoints.urls.len()).filter(|node| *node != used.node);
        // All at once: who does not answer holds up nobody.
        let probes = others.map(|node| async move { Some((self.probe(node).await?, node)) });
        let others = futures::future::join_all(probes).await;
        // Last, so that it is not taken for slower than it is.
        let own = Reach::of(&used.rpcs).await.unwrap_or_default();
        let further = others.into_iter().flatten().filter(|(reach, _)| own.is_left_for(*reach));
        let Some((reach, node)) = further.max() else { return };
        let mut current = self.shared.connection.write().await;
        if current.generation == used.generation {
            let url = &self.shared.endpoints.urls[node];
            tracing::warn!(
                url,
                at = reach.best,
                left = own.best,
                final_at = ?reach.finalized,
                final_left = ?own.finalized,
                "another node is further, and is asked from now on"
            );
            if let Err(error) = self.replace(&mut current, node).await {
                tracing::debug!(%error, "the chain does not answer");
            }
        }
    }

    /// How far another node of this chain is. Its connection is kept as long as it answers.
    async fn probe(&self, node: usize) -> Option<Reach> {
        let kept = self.shared.others.lock().await.remove(&node);
        let rpcs = match kept {
            Some(rpcs) => rpcs,
            None => Arc::new(self.open_probe(node).await?),
        };
        let reach = Reach::of(&rpcs).await?;
        self.shared.others.lock().await.insert(node, rpcs);
        Some(reach)
    }

    /// Hands an extrinsic's bytes to all other nodes that answer, so that it is not lost with the one in use. Nobody waits for them,
    /// and what they say is of no interest.
    pub(super) async fn spread(&self, extrinsic: &[u8]) {
        let used = self.connection().await.node;
        let others = self.shared.others.lock().await;
        for (_, rpcs) in others.iter().filter(|(node, _)| **node != used) {
            let (rpcs, extrinsic) = (rpcs.clone(), extrinsic.to_vec());
            tokio::spawn(async move {
                let handed = rpcs.author_submit_extrinsic(&extrinsic);
                let _ = tokio::time::timeout(PROBE_TIMEOUT, handed).await;
            });
        }
    }

    /// A connection to another node, if it answers in time and has this chain.
    async fn open_probe(&self, node: usize) -> Option<Rpcs> {
        let opening = async {
            let rpcs = Rpcs::new(self.shared.endpoints.open(node).await.ok()?);
            let genesis = rpcs.genesis_hash().await.ok()?;
            (genesis.0 == self.shared.genesis).then_some(rpcs)
        };
        tokio::time::timeout(PROBE_TIMEOUT, opening).await.ok()?
    }

    /// The finalised blocks from `first` to `last`, which is final: each is its child's parent. At most [`WALK_MAX`] before `last`.
    pub(super) async fn back_to(
        &self,
        first: BlockNumber,
        last: BlockRef,
    ) -> Result<Vec<BlockRef>, ChainError> {
        let mut blocks = vec![last];
        let mut child = last;
        while child.number > first {
            let hash = child.hash;
            let header = self.read(move |connection| async move {
                let header = connection.rpcs.chain_get_header(Some(H256(hash))).await;
                header.map_err(transport)?.ok_or_else(|| {
                    ChainError::Transport(format!("no block 0x{}", hex::encode(hash)))
                })
            });
            child = BlockRef { number: child.number - 1, hash: header.await?.parent_hash.0 };
            blocks.push(child);
        }
        blocks.reverse();
        Ok(blocks)
    }

    /// The finalised blocks after block `number`, some of them if they are many. Who could not ask for so long that a light client does not
    /// find the way back goes on at its head.
    async fn finalized_after(&self, number: BlockNumber) -> Result<Vec<BlockRef>, ChainError> {
        let head = self.finalized_head().await?;
        if head.number <= number {
            return Ok(Vec::new());
        }
        if head.number - number <= WALK_MAX {
            return self.back_to(number + 1, head).await;
        }
        let last = number + WALK_MAX;
        match self.block_hash(last).await? {
            Some(hash) => self.back_to(number + 1, BlockRef { number: last, hash }).await,
            // Another node may have been asked that is behind the first one.
            None if self.finalized_head().await?.number < last => Ok(Vec::new()),
            None => {
                tracing::warn!(from = number, to = head.number, "blocks are left out");
                Ok(vec![head])
            }
        }
    }

    /// Waits until another connection than `used` is in use.
    pub(super) async fn moved(&self, used: &Connection) {
        let mut generation = self.shared.generation.subscribe();
        let _ = generation.wait_for(|generation| *generation != used.generation).await;
    }

    /// Runs a read until it succeeds, opening the connection again when it breaks.
    async fn read<R, F>(&self, attempt: impl Fn(Arc<Connection>) -> F) -> Result<R, ChainError>
    where
        F: Future<Output = Result<R, ChainError>>,
    {
        read::read(self, attempt).await
    }
}

#[async_trait]
impl read::Nodes for SubxtChain {
    type Connection = Connection;

    async fn connection(&self) -> Arc<Connection> {
        SubxtChain::connection(self).await
    }

    async fn moved(&self, used: &Connection) {
        SubxtChain::moved(self, used).await;
    }

    async fn replace(&self, broken: &Arc<Connection>) {
        let (chain, broken) = (self.clone(), broken.clone());
        let opened = tokio::spawn(async move { chain.replace_broken(&broken).await });
        // One that panicked has opened nothing.
        let _ = opened.await;
    }
}

impl Connection {
    /// The nonce of an account's next extrinsic, those in the node's pool counted.
    pub(super) async fn next_nonce(
        &self,
        account: &subxt::utils::AccountId32,
    ) -> Result<u64, String> {
        self.rpcs.system_account_next_index(account).await.map_err(|error| reason(&error))
    }

    /// A view of the chain some blocks behind the best one, which stays in the chain as good as surely; or at the finalised one, if that
    /// is further.
    pub(super) async fn near_best(&self) -> Result<AtBlock, SubmitError> {
        let failed = |error: subxt_rpcs::Error| SubmitError::Transport(reason(&error));
        let mut header = self.rpcs.chain_get_header(None).await.map_err(failed)?;
        let mut hash = None;
        for _ in 0..FORK_BLOCKS {
            let Some(child) = header else { break };
            hash = Some(child.parent_hash);
            header = self.rpcs.chain_get_header(hash).await.map_err(failed)?;
        }
        let number = header.map_or(0, |header| header.number);
        let failed = |error: ChainError| SubmitError::Transport(error.to_string());
        let finalised = self.at(None).await.map_err(failed)?;
        match hash {
            Some(hash) if number > finalised.block_number() => {
                self.at(Some(hash.0)).await.map_err(failed)
            }
            _ => Ok(finalised),
        }
    }

    /// A view of the chain at a block; `None` for the latest finalised one.
    pub(super) async fn at(&self, block: Option<Hash>) -> Result<AtBlock, ChainError> {
        let view = match block {
            Some(hash) => self.client.at_block(H256(hash)).await,
            None => self.client.at_current_block().await,
        };
        view.map_err(|error| match (&error, block) {
            (subxt::error::OnlineClientAtBlockError::BlockHeaderNotFound { .. }, Some(hash)) => {
                ChainError::UnknownBlock(format!("0x{}", hex::encode(hash)))
            }
            _ => transport(error),
        })
    }
}

/// A height as the chain counts it.
fn block_number(number: u64) -> Result<BlockNumber, ChainError> {
    BlockNumber::try_from(number).map_err(|error| undecodable("a header")(error.to_string()))
}

fn undecodable(what: &'static str) -> impl Fn(String) -> ChainError {
    move |reason| ChainError::Decode { what, reason }
}

fn decode<T: Decode>(what: &'static str, bytes: &[u8]) -> Result<T, ChainError> {
    T::decode_all(&mut &bytes[..]).map_err(|error| undecodable(what)(error.to_string()))
}

/// Reads one value of a generated storage entry.
macro_rules! value {
    ($self:ident, $at:ident, $what:literal, $entry:ident, $stored:ty, ($($key:expr),*)) => {{
        $self
            .read(move |connection| async move {
                let at = connection.at($at).await?;
                let found = at
                    .storage()
                    .try_fetch(api::storage().gauntlet().$entry(), ($($key,)*))
                    .await
                    .map_err(storage_error($what))?;
                found.map(|value| decode::<$stored>($what, value.bytes())).transpose()
            })
            .await
    }};
}

/// Reads all values of a generated storage entry under some keys, with the keys of each that come after those.
macro_rules! rows {
    ($self:ident, $at:ident, $what:literal, $entry:ident, $key:ty, $stored:ty, ($($prefix:expr),*)) => {{
        $self
            .read(move |connection| async move {
                let at = connection.at($at).await?;
                let mut entries = at
                    .storage()
                    .iter(api::storage().gauntlet().$entry(), ($($prefix,)*))
                    .await
                    .map_err(storage_error($what))?;
                let mut rows: Vec<($key, $stored)> = Vec::new();
                while let Some(entry) = entries.next().await {
                    let entry = entry.map_err(storage_error($what))?;
                    let key = entry.key().map_err(|error| undecodable($what)(error.to_string()))?;
                    let given = [$(stringify!($prefix)),*].len();
                    let mut rest = Vec::new();
                    for place in given..key.parts().len() {
                        let part = key.part(place);
                        let part = part.ok_or_else(|| undecodable($what)("no key".to_owned()))?;
                        // A concatenating hasher's key ends with what it hashed.
                        rest.extend_from_slice(part.value_bytes());
                    }
                    let key = decode::<$key>($what, &rest)?;
                    rows.push((key, decode::<$stored>($what, entry.value().bytes())?));
                }
                rows.sort_by(|a, b| a.0.cmp(&b.0));
                Ok(rows)
            })
            .await
    }};
}

/// Tells a broken connection from a node of another version.
fn storage_error(what: &'static str) -> impl Fn(subxt::error::StorageError) -> ChainError {
    move |error| {
        use subxt::error::StorageError as E;
        match error {
            E::IncompatibleCodegen => {
                undecodable(what)("the node's type differs from this client's metadata".to_owned())
            }
            other => transport(other),
        }
    }
}

impl SubxtChain {
    /// A run's settings of a version that its record or a kept window's names.
    async fn settings(
        &self,
        run: RunId,
        version: u32,
        at: Option<Hash>,
    ) -> Result<Settings, ChainError> {
        let found = value!(self, at, "settings", run_settings, Settings, (run, version))?;
        found.ok_or_else(|| undecodable("settings")(format!("version {version} is gone")))
    }
}

#[async_trait]
impl Chain for SubxtChain {
    async fn genesis_hash(&self) -> Result<Hash, ChainError> {
        Ok(self.shared.genesis)
    }

    async fn finalized_head(&self) -> Result<BlockRef, ChainError> {
        self.read(|connection| async move {
            let hash = connection.rpcs.chain_get_finalized_head().await.map_err(transport)?;
            let header = connection.rpcs.chain_get_header(Some(hash)).await.map_err(transport)?;
            let header = header.ok_or_else(|| ChainError::UnknownBlock(format!("{hash:?}")))?;
            Ok(BlockRef { number: block_number(header.number)?, hash: hash.0 })
        })
        .await
    }

    async fn best_number(&self) -> Result<BlockNumber, ChainError> {
        self.read(|connection| async move {
            let header = connection.rpcs.chain_get_header(None).await.map_err(transport)?;
            header.map_or(Ok(0), |header| block_number(header.number))
        })
        .await
    }

    async fn subscribe_finalized(&self) -> Result<FinalizedBlocks, ChainError> {
        let head = self.finalized_head().await?;
        let (blocks, waiting) = mpsc::channel(BLOCKS_WAITING_MAX);
        tokio::spawn(follow(self.clone(), head, blocks));
        let stream = futures::stream::unfold(waiting, |mut waiting| async move {
            waiting.recv().await.map(|block| (block, waiting))
        });
        Ok(stream.boxed())
    }

    async fn subscribe_best(&self) -> Result<BestNumbers, ChainError> {
        let (numbers, waiting) = watch::channel(self.best_number().await?);
        tokio::spawn(follow_best(self.clone(), numbers));
        Ok(changes(waiting))
    }

    async fn block_hash(&self, number: BlockNumber) -> Result<Option<Hash>, ChainError> {
        let hash = self.read(move |connection| async move {
            let hash = connection.rpcs.chain_get_block_hash(Some(number.into())).await;
            Ok(hash.map_err(transport)?.map(|hash| hash.0))
        });
        if let Some(hash) = hash.await? {
            return Ok(Some(hash));
        }
        // A light client has no list of blocks by their numbers.
        let head = self.finalized_head().await?;
        if number > head.number || head.number - number > WALK_MAX {
            return Ok(None);
        }
        Ok(self.back_to(number, head).await?.first().map(|block| block.hash))
    }

    async fn run(&self, run: RunId, at: Option<Hash>) -> Result<Option<RunInfo>, ChainError> {
        let record = value!(self, at, "a run", runs, stored::Run, (run))?;
        let Some(record) = record else {
            return Ok(None);
        };
        let settings = self.settings(run, record.settings_version, at).await?;
        let layout = value!(self, at, "a layout", layouts, Vec<u64>, (run))?.unwrap_or_default();
        Ok(Some(record.into_info(settings, layout)))
    }

    async fn is_paused(&self, run: RunId, at: Option<Hash>) -> Result<bool, ChainError> {
        let record = value!(self, at, "a run", runs, stored::Run, (run))?;
        Ok(record.is_some_and(|record| record.is_paused()))
    }

    async fn run_cost(&self, layout: &Layout, at: Option<Hash>) -> Result<RunCost, ChainError> {
        self.read(move |connection| async move {
            let at = connection.at(at).await?;
            let view = api::view_functions().gauntlet().run_cost(BoundedVec(layout.0.clone()));
            let cost = views::ask(&at, view, &layout.0.encode()).await;
            cost.map_err(|error| match error {
                NoAnswer::Node(error) => transport(error),
                NoAnswer::Runtime(reason) => undecodable("what a run costs")(reason),
            })
        })
        .await
    }

    async fn miners(&self, run: RunId, at: Option<Hash>) -> Result<Vec<MinerInfo>, ChainError> {
        let rows = rows!(self, at, "a miner", miners, u16, stored::Miner, (run))?;
        Ok(rows.into_iter().map(|(uid, miner)| miner.into_info(uid)).collect())
    }

    async fn entry_price(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Option<Planck>, ChainError> {
        let Some(info) = self.run(run, at).await? else {
            return Ok(None);
        };
        let last = value!(self, at, "a price", entry_prices, EntryPrice, (run))?;
        let block =
            self.read(move |connection| async move {
                block_number(connection.at(at).await?.block_number())
            })
            .await?;
        Ok(Some(entry_price(last, block, &info.settings.entry)))
    }

    async fn validators(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<ValidatorInfo>, ChainError> {
        let rows = rows!(self, at, "a validator", validators, u16, stored::Validator, (run))?;
        Ok(rows.into_iter().map(|(index, validator)| validator.into_info(index)).collect())
    }

    async fn announcements(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<AnnouncementInfo>, ChainError> {
        let rows = rows!(
            self,
            at,
            "an announcement",
            announcements,
            AccountBytes,
            stored::Announcement,
            (run)
        )?;
        Ok(rows.into_iter().map(|(hot, announcement)| announcement.into_info(hot)).collect())
    }

    async fn window(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Option<WindowInfo>, ChainError> {
        let record = value!(self, at, "a window", windows, stored::WindowRecord, (run, window))?;
        let Some(record) = record else {
            return Ok(None);
        };
        let settings = self.settings(run, record.settings_version, at).await?;
        Ok(Some(record.into_info(settings)))
    }

    async fn commitments(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<CommitmentInfo>, ChainError> {
        let rows =
            rows!(self, at, "a commitment", commitments, u16, stored::Commitment, (run, window))?;
        Ok(rows
            .into_iter()
            .map(|(uid, row)| CommitmentInfo {
                uid,
                hash: row.hash,
                block: row.block,
                order: row.order,
            })
            .collect())
    }

    async fn reveals(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<RevealInfo>, ChainError> {
        let rows = rows!(self, at, "a reveal", reveals, u16, stored::Reveal, (run, window))?;
        Ok(rows
            .into_iter()
            .map(|(uid, row)| RevealInfo {
                uid,
                opening: row.opening,
                committed_block: row.committed_block,
                order: row.order,
            })
            .collect())
    }

    async fn permits(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<PermitInfo>, ChainError> {
        let rows = value!(self, at, "permits", permits, Vec<(u16, u64)>, (run, window))?;
        let permits = rows.unwrap_or_default();
        Ok(permits.into_iter().map(|(index, stake)| PermitInfo { index, stake }).collect())
    }

    async fn attestation_commitments(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<AttestationCommitmentInfo>, ChainError> {
        let rows = rows!(
            self,
            at,
            "a commitment to an attestation",
            attestation_commitments,
            u16,
            Hash,
            (run, window)
        )?;
        let info = |(index, hash)| AttestationCommitmentInfo { index, hash };
        Ok(rows.into_iter().map(info).collect())
    }

    async fn attestations(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<AttestationInfo>, ChainError> {
        let rows = rows!(
            self,
            at,
            "an attestation",
            attestations,
            u16,
            stored::Attestation,
            (run, window)
        )?;
        Ok(rows
            .into_iter()
            .map(|(index, row)| AttestationInfo {
                index,
                bitmap: row.bitmap,
                state_root: row.state_root,
            })
            .collect())
    }

    async fn score_commitments(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<ScoreCommitmentInfo>, ChainError> {
        let rows =
            rows!(self, at, "a score commitment", score_commitments, u16, Hash, (run, window))?;
        Ok(rows.into_iter().map(|(index, hash)| ScoreCommitmentInfo { index, hash }).collect())
    }

    async fn score_reveals(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<ScoreRevealInfo>, ChainError> {
        let rows = rows!(
            self,
            at,
            "a score reveal",
            score_reveals,
            u16,
            stored::ScoreReveal,
            (run, window)
        )?;
        Ok(rows
            .into_iter()
            .map(|(index, row)| ScoreRevealInfo {
                index,
                evaluations: row.evaluations,
                salt: row.salt,
            })
            .collect())
    }

    async fn departures(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<DepartureInfo>, ChainError> {
        let rows =
            rows!(self, at, "a departure", departures, (u16, Window), stored::Departure, (run))?;
        Ok(rows.into_iter().map(|(key, departure)| departure.into_info(key)).collect())
    }

    async fn proven_faults(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<ProvenFaultInfo>, ChainError> {
        let rows = rows!(self, at, "a fault", proven_faults, u16, ProvenFault, (run, window))?;
        Ok(rows.into_iter().map(|(uid, fault)| ProvenFaultInfo { uid, fault }).collect())
    }

    async fn data_challenges(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<DataChallengeInfo>, ChainError> {
        let rows = rows!(
            self,
            at,
            "a request for a chunk",
            open_challenges,
            (Window, u16),
            Vec<stored::DataChallenge>,
            (run)
        )?;
        let of_payload = |(key, challenges): (_, Vec<stored::DataChallenge>)| {
            challenges.into_iter().map(move |challenge| challenge.into_info(key))
        };
        Ok(rows.into_iter().flat_map(of_payload).collect())
    }

    async fn evaluation_disputes(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<EvaluationDisputeInfo>, ChainError> {
        let rows = rows!(
            self,
            at,
            "a dispute",
            evaluation_disputes,
            (Window, u16, u16),
            stored::EvaluationDispute,
            (run)
        )?;
        Ok(rows.into_iter().map(|(name, dispute)| dispute.into_info(name)).collect())
    }

    async fn stake_pool(
        &self,
        run: RunId,
        pool: u32,
        at: Option<Hash>,
    ) -> Result<Option<StakePoolInfo>, ChainError> {
        let found = value!(self, at, "a pool", pools, stored::StakePool, (run, pool))?;
        Ok(found.map(stored::StakePool::into_info))
    }

    async fn slashes(&self, run: RunId, at: Option<Hash>) -> Result<Vec<SlashInfo>, ChainError> {
        let rows =
            rows!(self, at, "a slash", unapplied_slashes, u32, stored::UnappliedSlash, (run))?;
        Ok(rows.into_iter().map(|(number, slash)| slash.into_info(number)).collect())
    }

    async fn ledger(&self, run: RunId, at: Option<Hash>) -> Result<Ledger, ChainError> {
        Ok(value!(self, at, "a ledger", ledgers, Ledger, (run))?.unwrap_or_default())
    }

    async fn claims(
        &self,
        run: RunId,
        account: AccountBytes,
        at: Option<Hash>,
    ) -> Result<Vec<Claim>, ChainError> {
        let key = subxt::utils::AccountId32(account);
        let claims = value!(self, at, "claims", claims, Vec<Claim>, (run, key))?;
        Ok(claims.unwrap_or_default())
    }

    async fn balance(&self, account: AccountBytes, at: Option<Hash>) -> Result<Planck, ChainError> {
        self.read(move |connection| async move {
            let at = connection.at(at).await?;
            let found = at
                .storage()
                .try_fetch(api::storage().system().account(), (subxt::utils::AccountId32(account),))
                .await
                .map_err(storage_error("an account"))?;
            let Some(found) = found else { return Ok(0) };
            let info =
                found.decode().map_err(|error| undecodable("an account")(error.to_string()))?;
            Ok(info.data.free)
        })
        .await
    }

    async fn events_at(&self, block: Hash) -> Result<Vec<GauntletEvent>, ChainError> {
        self.read(move |connection| async move {
            let at = connection.at(Some(block)).await?;
            let events = at.events().fetch().await.map_err(transport)?;
            let mut ours = Vec::new();
            for event in events.iter() {
                let event = event.map_err(|error| undecodable("an event")(error.to_string()))?;
                if let Some(event) =
                    gauntlet_event(event.pallet_name(), event.event_index(), event.field_bytes())?
                {
                    ours.push(event);
                }
            }
            Ok(ours)
        })
        .await
    }

    async fn submit(&self, signer: &Keypair, call: Call) -> Result<Included, SubmitError> {
        self.submit_call(signer, call).await
    }
}

/// The pallet's event of these bytes; `None` for another pallet's, and for one that clients do not read.
pub(super) fn gauntlet_event(
    pallet: &str,
    index: u8,
    fields: &[u8],
) -> Result<Option<GauntletEvent>, ChainError> {
    if pallet != "Gauntlet" || index >= FIRST_UNREAD_EVENT {
        return Ok(None);
    }
    let mut bytes = vec![index];
    bytes.extend_from_slice(fields);
    decode("an event", &bytes).map(Some)
}

/// Sends each finalised block once, in order, until nobody listens.
async fn follow(chain: SubxtChain, mut last: BlockRef, blocks: mpsc::Sender<BlockRef>) {
    if blocks.send(last).await.is_err() {
        return;
    }
    loop {
        let connection = chain.connection().await;
        let ended = tokio::select! {
            ended = follow_connection(&chain, &connection, &mut last, &blocks) => ended,
            () = chain.moved(&connection) => continue,
        };
        if ended || blocks.is_closed() {
            return;
        }
        chain.replace_broken(&connection).await;
    }
}

/// Follows one connection. Returns whether nobody listens any more. Cancel-safe.
async fn follow_connection(
    chain: &SubxtChain,
    connection: &Connection,
    last: &mut BlockRef,
    blocks: &mpsc::Sender<BlockRef>,
) -> bool {
    let Ok(mut heads) = connection.rpcs.chain_subscribe_finalized_heads().await else {
        return false;
    };
    loop {
        match tokio::time::timeout(SILENCE_MAX, heads.next()).await {
            Ok(Some(Ok(_))) => {}
            Err(_) if !blocks.is_closed() => {}
            _ => return false,
        }
        loop {
            let Ok(new) = chain.finalized_after(last.number).await else {
                return false;
            };
            let is_all = new.len() < WALK_MAX as usize;
            for block in new {
                let Ok(room) = blocks.reserve().await else {
                    return true;
                };
                *last = block;
                room.send(block);
            }
            if is_all {
                break;
            }
        }
    }
}

/// Keeps `numbers` at the best block's until nobody listens.
async fn follow_best(chain: SubxtChain, numbers: watch::Sender<BlockNumber>) {
    loop {
        let connection = chain.connection().await;
        tokio::select! {
            () = follow_best_of(&chain, &connection, &numbers) => {}
            () = chain.moved(&connection) => continue,
            () = numbers.closed() => return,
        }
        chain.replace_broken(&connection).await;
    }
}

/// Follows the best block of one connection until it breaks.
async fn follow_best_of(
    chain: &SubxtChain,
    connection: &Connection,
    numbers: &watch::Sender<BlockNumber>,
) {
    let Ok(mut heads) = connection.rpcs.chain_subscribe_new_heads().await else {
        return;
    };
    loop {
        let number = match tokio::time::timeout(SILENCE_MAX, heads.next()).await {
            Ok(Some(Ok(header))) => block_number(header.number),
            Err(_) => chain.best_number().await,
            Ok(_) => return,
        };
        let Ok(number) = number else { return };
        numbers.send_replace(number);
    }
}

/// The bytes of a call: the pallet's index, the call's, the arguments in SCALE.
pub(super) fn call_bytes(at: &AtBlock, call: &Call) -> Result<Vec<u8>, String> {
    let pallet_name = if matches!(call, Call::Transfer { .. }) { "Balances" } else { "Gauntlet" };
    let metadata = at.metadata_ref();
    let pallet = metadata.pallet_by_name(pallet_name).ok_or("the chain has no such pallet")?;
    let variant = pallet.call_variant_by_name(call.name()).ok_or("the chain has no such call")?;
    let mut bytes = vec![pallet.call_index(), variant.index];
    bytes.extend(call.arguments());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_left_for_one_that_is_further_and_for_one_whose_blocks_become_final() {
        let reach = |best, finalized| Reach { best, finalized: Some(finalized) };
        let own = reach(100, 97);
        for other in [reach(103, 0), reach(98, 105), reach(102, 105)] {
            assert!(own.is_left_for(other), "{other:?}");
        }
        // What another has for a moment, or at the price of the best chain, or does not say.
        let silent = Reach { best: 102, finalized: None };
        for other in [reach(102, 104), reach(97, 105), reach(90, 90), own, silent] {
            assert!(!own.is_left_for(other), "{other:?}");
        }
        assert!(!silent.is_left_for(reach(104, 1_000)));
        assert!(Reach::default().is_left_for(own));
    }
}
