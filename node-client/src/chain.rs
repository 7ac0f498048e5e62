//! Reads and writes the chain through a trait over plain records; [`SubxtChain`] speaks to a node.
//!
//! Reads take `at`, the hash of a block, or `None` for the latest finalised one. Nothing here is cached but the
//! connection: two reads that must agree name the same block.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{
    stream::{self, BoxStream},
    StreamExt,
};
use protocol::{layout::Layout, AccountBytes, BlockNumber, Hash, Planck, RunId, Window};
use tokio::sync::watch;

pub use crate::keys::{HotKeyProof, Keypair};

mod types;
pub use types::*;

mod events;
pub use events::*;

pub mod views;

mod money;
pub use money::{parse_units, units, UNIT};

mod endpoints;
mod light;
mod read;
mod signed;
mod subxt;
pub use self::subxt::{connect, connect_to, SubxtChain};

mod door;
mod left;
mod submit;

#[cfg(test)]
mod nodes;

pub mod fake;

/// Why a read failed. Another attempt may succeed after [`ChainError::Transport`] only.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// No node answers now; the text is the last node's error.
    #[error("the chain does not answer: {0}")]
    Transport(String),
    /// Whatever answers has another chain than the one that is asked for.
    #[error("{url} has another chain: its block 0 is 0x{}", hex::encode(found))]
    OtherChain {
        /// The node that said so last.
        url: String,
        /// Hash of its block 0.
        found: Hash,
    },
    /// There is no such block, or its state is pruned.
    #[error("block {0} is unknown to the node, or its state is pruned")]
    UnknownBlock(String),
    /// A record is not what this client expects: node and client are of different versions.
    #[error("{what} of the chain cannot be read; is the node of another version? {reason}")]
    Decode {
        /// Which record was read, with its article.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why an extrinsic did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It is in a block and failed there; or the node refused to take it for a reason that will not pass.
    #[error("{pallet}::{error}: {docs}")]
    Rejected {
        /// The pallet, or `Transaction` when the node refused it.
        pallet: String,
        /// The error's name.
        error: String,
        /// What its caller can change.
        docs: String,
    },
    /// It left the node's pool without being included, time after time; it may be submitted again.
    #[error("the extrinsic was dropped: {0}")]
    Dropped(String),
    /// The connection broke; it is not known whether it was included.
    #[error("the connection broke before the extrinsic was in a finalised block: {0}")]
    Transport(String),
}

/// An extrinsic that is in a finalised block and succeeded there.
#[derive(Clone, Debug)]
pub struct Included {
    /// The finalised block that has it.
    pub block: BlockRef,
    /// The pallet's events that it caused.
    pub events: Vec<GauntletEvent>,
}

/// Blocks as they are finalised, in order, without gaps.
pub type FinalizedBlocks = BoxStream<'static, BlockRef>;

/// Numbers of the best block, as they change; who reads slowly misses some.
pub type BestNumbers = BoxStream<'static, BlockNumber>;

/// What `numbers` has now, and then what it changes to.
fn changes(mut numbers: watch::Receiver<BlockNumber>) -> BestNumbers {
    numbers.mark_changed();
    let stream = stream::unfold(numbers, |mut numbers| async move {
        numbers.changed().await.ok()?;
        let number = *numbers.borrow_and_update();
        Some((number, numbers))
    });
    stream.boxed()
}

/// A chain that runs the pallet. All methods are cancel-safe but [`Chain::submit`], whose extrinsic may be on its way.
#[async_trait]
#[allow(
    clippy::missing_errors_doc,
    reason = "every method fails with the error of its type, for its reasons"
)]
pub trait Chain: Send + Sync {
    /// Hash of block 0.
    async fn genesis_hash(&self) -> Result<Hash, ChainError>;
    /// The latest finalised block.
    async fn finalized_head(&self) -> Result<BlockRef, ChainError>;
    /// Number of the best block.
    async fn best_number(&self) -> Result<BlockNumber, ChainError>;
    /// Finalised blocks from the current head on. Goes on after a node's restart.
    async fn subscribe_finalized(&self) -> Result<FinalizedBlocks, ChainError>;
    /// Numbers of the best block from the current one on. Goes on after a node's restart.
    async fn subscribe_best(&self) -> Result<BestNumbers, ChainError>;
    /// The hash of a block of the best chain.
    async fn block_hash(&self, number: BlockNumber) -> Result<Option<Hash>, ChainError>;

    /// A run, if there is one.
    async fn run(&self, run: RunId, at: Option<Hash>) -> Result<Option<RunInfo>, ChainError>;
    /// Whether a run is paused: its windows take no updates, and nobody is at fault in them.
    async fn is_paused(&self, run: RunId, at: Option<Hash>) -> Result<bool, ChainError>;
    /// What creating a run with this layout costs.
    async fn run_cost(&self, layout: &Layout, at: Option<Hash>) -> Result<RunCost, ChainError>;
    /// The miners by uid.
    async fn miners(&self, run: RunId, at: Option<Hash>) -> Result<Vec<MinerInfo>, ChainError>;
    /// What joining as a miner costs in the block, in planck; `None` without such a run.
    async fn entry_price(&self, run: RunId, at: Option<Hash>)
        -> Result<Option<Planck>, ChainError>;
    /// The validators by index.
    async fn validators(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<ValidatorInfo>, ChainError>;
    /// How to reach the participants.
    async fn announcements(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<AnnouncementInfo>, ChainError>;
    /// What the chain fixed in a window; `None` before it opens and after it is pruned.
    async fn window(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Option<WindowInfo>, ChainError>;
    /// A window's commitments by uid.
    async fn commitments(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<CommitmentInfo>, ChainError>;
    /// A window's reveals by uid.
    async fn reveals(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<RevealInfo>, ChainError>;
    /// A window's permits by validator.
    async fn permits(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<PermitInfo>, ChainError>;
    /// A window's commitments to attestations by validator.
    async fn attestation_commitments(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<AttestationCommitmentInfo>, ChainError>;
    /// A window's attestations by validator.
    async fn attestations(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<AttestationInfo>, ChainError>;
    /// A window's commitments to evaluations by validator.
    async fn score_commitments(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<ScoreCommitmentInfo>, ChainError>;
    /// A window's evaluations by validator.
    async fn score_reveals(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<ScoreRevealInfo>, ChainError>;
    /// Miners that are gone and whose bonds wait, by uid and first window.
    async fn departures(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<DepartureInfo>, ChainError>;
    /// The faults of a window that are proven, by uid.
    async fn proven_faults(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<ProvenFaultInfo>, ChainError>;
    /// The requests for chunks that are open, by window and uid.
    async fn data_challenges(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<DataChallengeInfo>, ChainError>;
    /// The disputes that are not closed, by evaluation.
    async fn evaluation_disputes(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<EvaluationDisputeInfo>, ChainError>;
    /// A validator's pool, by its number.
    async fn stake_pool(
        &self,
        run: RunId,
        pool: u32,
        at: Option<Hash>,
    ) -> Result<Option<StakePoolInfo>, ChainError>;
    /// The slashes that wait, by number.
    async fn slashes(&self, run: RunId, at: Option<Hash>) -> Result<Vec<SlashInfo>, ChainError>;
    /// Where the run's emission is.
    async fn ledger(&self, run: RunId, at: Option<Hash>) -> Result<Ledger, ChainError>;
    /// What an account is owed, by window.
    async fn claims(
        &self,
        run: RunId,
        account: AccountBytes,
        at: Option<Hash>,
    ) -> Result<Vec<Claim>, ChainError>;
    /// An account's free balance.
    async fn balance(&self, account: AccountBytes, at: Option<Hash>) -> Result<Planck, ChainError>;
    /// The pallet's events in a block, in order.
    async fn events_at(&self, block: Hash) -> Result<Vec<GauntletEvent>, ChainError>;

    /// Signs and submits, and waits until the extrinsic is in a finalised block. Calls with one key may be submitted
    /// concurrently, by other programs, too: a nonce that is used meanwhile is no error.
    async fn submit(&self, signer: &Keypair, call: Call) -> Result<Included, SubmitError>;
}

/// A chain that every service of a process shares.
pub type SharedChain = Arc<dyn Chain>;
