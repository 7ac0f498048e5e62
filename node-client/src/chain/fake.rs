//! A chain in memory for tests: blocks are made by hand, the rules are the pallet's.
//!
//! [`FakeChain::advance`] makes blocks; each takes what was submitted since the one before, in order. Every block is
//! final ([`FakeChain::set_finality_lag`]: some blocks later; until then [`FakeChain::fork`] can replace it), and every hash follows from
//! the seed, the block's number and the forks before, so that one seed gives one story. The rules themselves (`state`, `run`) are those of the pallet and call the same functions of `protocol`; a refusal has
//! the pallet's name for it. The twin test of `runtime-tests` compares it with the real runtime.
//!
//! Not modelled: fees, that an account must keep the existential deposit, the issuance (a transfer of more than there is fails by another name),
//! weights (a settlement is written in one block), the order in which a block visits the runs, delegation, the
//! withdrawal of stake, the chain's governance but for the runs' weights (no slash is cancelled).

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        atomic::{AtomicU32, Ordering},
        Arc, Mutex, MutexGuard, PoisonError,
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{stream, StreamExt};
use protocol::{
    books::Permit, layout::Layout, merkle::blake2_256, AccountBytes, BlockNumber, Hash, Planck,
    RunId, ValidatorIndex, Window,
};
use tokio::sync::{oneshot, watch};

use self::{
    run::{Run, WindowRows},
    state::State,
};
use super::{
    changes,
    door::{self, Account, Pool, Trace},
    AnnouncementInfo, AttestationCommitmentInfo, AttestationInfo, BestNumbers, BlockRef, Call,
    Chain, ChainError, Claim, CommitmentInfo, DataChallengeInfo, DepartureInfo,
    EvaluationDisputeInfo, FinalizedBlocks, GauntletEvent, Included, Keypair, Ledger, MinerInfo,
    PermitInfo, ProvenFaultInfo, RevealInfo, RunCost, RunInfo, ScoreCommitmentInfo,
    ScoreRevealInfo, SlashInfo, StakePoolInfo, SubmitError, ValidatorInfo, WindowInfo,
};
use crate::keys;

mod accusations;
mod cost;
mod departures;
mod disputes;
mod emission;
mod forks;
mod proofs;
mod refusal;
mod registry;
mod run;
mod state;

/// Blocks whose state can be read; older ones are pruned.
pub const STATES_MAX: usize = 1_024;
/// Extrinsics that wait for a block, at most.
pub const QUEUE_MAX: usize = 4_096;

/// How long a call may wait for its block: longer than any test.
const PATIENCE: Duration = Duration::from_secs(1 << 24);

/// Separates the hashes of fake blocks from every other hash.
const BLOCK_DOMAIN: &[u8] = b"gauntlet/fake-block/1";

/// The chain, as one of its nodes has it. Clones are the same chain.
#[derive(Clone)]
pub struct FakeChain {
    shared: Arc<Shared>,
    /// How many blocks this node is behind.
    behind: BlockNumber,
}

struct Shared {
    seed: u64,
    chain: Mutex<Blocks>,
    head: watch::Sender<BlockNumber>,
    /// How far the last final block is behind the head.
    lag: AtomicU32,
    finalized: watch::Sender<BlockNumber>,
}

struct Blocks {
    /// The states after the latest blocks, in order; never empty.
    states: VecDeque<Arc<State>>,
    /// The hashes of all blocks of the best chain, by number.
    hashes: Vec<Hash>,
    /// How often the best chain was replaced by another.
    forks: u64,
    queue: VecDeque<Queued>,
    /// Weights of runs that governance sets in the next block.
    weights: Vec<(RunId, u16)>,
    nonces: HashMap<AccountBytes, Nonces>,
    /// What is in the blocks that are not final yet, in their order.
    untold: VecDeque<Untold>,
}

/// What a block took, until it is final.
struct Untold {
    number: BlockNumber,
    weights: Vec<(RunId, u16)>,
    outcomes: Vec<Outcome>,
}

/// A call and what became of it.
type Outcome = (Queued, Result<Included, SubmitError>);

/// Who waits for a call's outcome.
pub type Answer = oneshot::Sender<Result<Included, SubmitError>>;

/// The nonces of an account, as the pool counts them.
#[derive(Clone, Copy, Default)]
struct Nonces {
    next: u64,
    /// How often another program is yet to use the next one just before it is handed over.
    overtaken: u32,
}

struct Queued {
    signer: AccountBytes,
    call: Call,
    done: Answer,
}

/// An extrinsic that waits for its block.
pub struct Submission {
    done: oneshot::Receiver<Result<Included, SubmitError>>,
}

impl Submission {
    /// Waits for the block that has it.
    ///
    /// # Errors
    /// As [`Chain::submit`].
    pub async fn wait(self) -> Result<Included, SubmitError> {
        self.done
            .await
            .unwrap_or_else(|_| Err(SubmitError::Transport("the chain is gone".to_owned())))
    }
}

impl FakeChain {
    /// A chain at block 0 on which these accounts have money.
    pub fn new(seed: u64, balances: impl IntoIterator<Item = (AccountBytes, Planck)>) -> Self {
        let hash = block_hash(seed, 0, 0);
        let genesis = State::genesis(hash, balances);
        Self {
            behind: 0,
            shared: Arc::new(Shared {
                seed,
                chain: Mutex::new(Blocks {
                    states: VecDeque::from([Arc::new(genesis)]),
                    hashes: vec![hash],
                    forks: 0,
                    queue: VecDeque::new(),
                    weights: Vec::new(),
                    nonces: HashMap::new(),
                    untold: VecDeque::new(),
                }),
                head: watch::Sender::new(0),
                lag: AtomicU32::new(0),
                finalized: watch::Sender::new(0),
            }),
        }
    }

    /// Has blocks from now on be final only when `blocks` more are on top of them, and calls answered only then.
    pub fn set_finality_lag(&self, blocks: u32) {
        self.shared.lag.store(blocks, Ordering::Relaxed);
    }

    /// Makes `blocks` blocks; the first takes what waits.
    pub fn advance(&self, blocks: u32) {
        for _ in 0..blocks {
            self.make_block();
        }
    }

    /// Makes blocks until `number` is the head; none if it is behind.
    pub fn advance_to(&self, number: BlockNumber) {
        let head = *self.shared.head.borrow();
        self.advance(number.saturating_sub(head));
    }

    /// Has another program use the next nonce of `account` just before it is handed over, the next `times` times.
    pub fn overtake(&self, account: AccountBytes, times: u32) {
        self.chain().nonces.entry(account).or_default().overtaken = times;
    }

    /// Has the chain's governance give a run another weight among the runs, in the next block before its calls. A run
    /// that there is not then gets none.
    pub fn set_run_weight(&self, run: RunId, weight: u16) {
        self.chain().weights.push((run, weight));
    }

    /// Puts a call into the queue of the next block.
    ///
    /// # Errors
    /// [`SubmitError::Dropped`] when [`QUEUE_MAX`] calls wait.
    pub fn enqueue(&self, signer: AccountBytes, call: Call) -> Result<Submission, SubmitError> {
        let (done, receiver) = oneshot::channel();
        self.enqueue_for(signer, call, done)?;
        Ok(Submission { done: receiver })
    }

    /// Puts a call into the queue of the next block, whose outcome is sent to `done`.
    ///
    /// # Errors
    /// As [`FakeChain::enqueue`].
    pub fn enqueue_for(
        &self,
        signer: AccountBytes,
        call: Call,
        done: Answer,
    ) -> Result<(), SubmitError> {
        let mut chain = self.chain();
        if chain.queue.len() >= QUEUE_MAX {
            return Err(SubmitError::Dropped("the pool is full".to_owned()));
        }
        chain.queue.push_back(Queued { signer, call, done });
        Ok(())
    }

    /// Makes a block with this call (and what waits), and returns the call's outcome; only while every block is final.
    ///
    /// # Errors
    /// As [`Chain::submit`].
    pub fn execute(&self, signer: &Keypair, call: Call) -> Result<Included, SubmitError> {
        let mut submission = self.enqueue(keys::account(signer), call)?;
        self.advance(1);
        let lost = |_| Err(SubmitError::Transport("the block has no answer".to_owned()));
        submission.done.try_recv().unwrap_or_else(lost)
    }

    fn chain(&self) -> MutexGuard<'_, Blocks> {
        self.shared.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_block(&self) {
        let mut chain = self.chain();
        let waiting = std::mem::take(&mut chain.queue);
        chain.push(self.shared.seed, waiting);
        self.tell(chain);
    }

    /// Makes the last block known, and tells what became of the calls of those that are final.
    fn tell(&self, mut chain: MutexGuard<'_, Blocks>) {
        let Some(number) = chain.states.back().map(|state| state.number) else {
            return;
        };
        let lag = self.shared.lag.load(Ordering::Relaxed);
        let finalized = number.saturating_sub(lag).max(*self.shared.finalized.borrow());
        let told = chain.untold.partition_point(|block| block.number <= finalized);
        let told: Vec<_> = chain.untold.drain(..told).flat_map(|block| block.outcomes).collect();
        drop(chain);
        self.shared.head.send_replace(number);
        self.shared.finalized.send_replace(finalized);
        for (queued, outcome) in told {
            // Who does not wait for it does not want it.
            let _ = queued.done.send(outcome);
        }
    }

    /// The state after a block, or after the latest final one.
    fn state(&self, at: Option<Hash>) -> Result<Arc<State>, ChainError> {
        let finalized = self.seen(*self.shared.finalized.borrow());
        let head = self.seen(*self.shared.head.borrow());
        let chain = self.chain();
        let mut states = chain.states.iter().rev().filter(|state| state.number <= head);
        let found = match at {
            None => states.find(|state| state.number <= finalized),
            Some(hash) => states.find(|state| chain.hash(state.number) == Some(hash)),
        };
        found.cloned().ok_or_else(|| ChainError::UnknownBlock(hex::encode(at.unwrap_or_default())))
    }

    /// What `read` finds in a run; the default where there is no such run.
    fn in_run<R: Default>(
        &self,
        run: RunId,
        at: Option<Hash>,
        read: impl FnOnce(&Run) -> R,
    ) -> Result<R, ChainError> {
        let state = self.state(at)?;
        Ok(state.runs.get(&run).map(read).unwrap_or_default())
    }

    /// What `read` finds in the rows of a window; the default where there are none.
    fn in_window<R: Default>(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
        read: impl FnOnce(&WindowRows) -> R,
    ) -> Result<R, ChainError> {
        self.in_run(run, at, |run| run.windows.get(&window).map(read).unwrap_or_default())
    }
}

/// The hash of block `number` of the chain of `seed`, made when its best chain had been replaced `forks` times.
fn block_hash(seed: u64, forks: u64, number: BlockNumber) -> Hash {
    let fork = forks.to_le_bytes();
    // A chain without forks has the hashes that it always had.
    let fork: &[u8] = if forks > 0 { &fork } else { &[] };
    blake2_256(&[BLOCK_DOMAIN, &seed.to_le_bytes(), &number.to_le_bytes(), fork])
}

fn values<K, V: Clone>(rows: &std::collections::BTreeMap<K, V>) -> Vec<V> {
    rows.values().cloned().collect()
}

#[async_trait]
impl Chain for FakeChain {
    async fn genesis_hash(&self) -> Result<Hash, ChainError> {
        Ok(block_hash(self.shared.seed, 0, 0))
    }

    async fn finalized_head(&self) -> Result<BlockRef, ChainError> {
        let number = self.seen(*self.shared.finalized.borrow());
        self.block(number)
            .ok_or_else(|| ChainError::UnknownBlock(format!("the final block {number}")))
    }

    async fn best_number(&self) -> Result<BlockNumber, ChainError> {
        Ok(self.seen(*self.shared.head.borrow()))
    }

    async fn subscribe_finalized(&self) -> Result<FinalizedBlocks, ChainError> {
        let (chain, head) = (self.clone(), self.shared.finalized.subscribe());
        let first = self.seen(*head.borrow());
        // Final blocks stay: a reader that is slow misses nothing and nothing waits for it.
        let blocks = stream::unfold((chain, head, first), |(chain, mut head, number)| async move {
            head.wait_for(|head| chain.seen(*head) >= number).await.ok()?;
            let block = chain.block(number)?;
            Some((block, (chain, head, number.checked_add(1)?)))
        });
        Ok(blocks.boxed())
    }

    async fn subscribe_best(&self) -> Result<BestNumbers, ChainError> {
        let chain = self.clone();
        let numbers = changes(self.shared.head.subscribe());
        Ok(numbers.map(move |number| chain.seen(number)).boxed())
    }

    async fn block_hash(&self, number: BlockNumber) -> Result<Option<Hash>, ChainError> {
        let head = self.best_number().await?;
        Ok(self.block(number).filter(|_| number <= head).map(|block| block.hash))
    }

    async fn run(&self, run: RunId, at: Option<Hash>) -> Result<Option<RunInfo>, ChainError> {
        self.in_run(run, at, |run| Some(run.info.clone()))
    }

    /// Never: the fake has no such call.
    async fn is_paused(&self, _: RunId, _: Option<Hash>) -> Result<bool, ChainError> {
        Ok(false)
    }

    async fn run_cost(&self, layout: &Layout, _: Option<Hash>) -> Result<RunCost, ChainError> {
        Ok(cost::run_cost(layout))
    }

    async fn miners(&self, run: RunId, at: Option<Hash>) -> Result<Vec<MinerInfo>, ChainError> {
        self.in_run(run, at, |run| values(&run.miners))
    }

    async fn entry_price(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Option<Planck>, ChainError> {
        let number = self.state(at)?.number;
        self.in_run(run, at, |run| Some(run.entry_price(number)))
    }

    async fn validators(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<ValidatorInfo>, ChainError> {
        self.in_run(run, at, |run| values(&run.validators))
    }

    async fn announcements(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<AnnouncementInfo>, ChainError> {
        self.in_run(run, at, |run| values(&run.announcements))
    }

    async fn window(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Option<WindowInfo>, ChainError> {
        self.in_window(run, window, at, |rows| Some(rows.info.clone()))
    }

    async fn commitments(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<CommitmentInfo>, ChainError> {
        self.in_window(run, window, at, |rows| values(&rows.commitments))
    }

    async fn reveals(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<RevealInfo>, ChainError> {
        self.in_window(run, window, at, |rows| values(&rows.reveals))
    }

    async fn permits(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<PermitInfo>, ChainError> {
        let info = |(index, stake): &Permit| PermitInfo { index: *index, stake: *stake };
        self.in_window(run, window, at, |rows| rows.permits.iter().map(info).collect())
    }

    async fn attestation_commitments(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<AttestationCommitmentInfo>, ChainError> {
        let info =
            |(&index, &hash): (&ValidatorIndex, &Hash)| AttestationCommitmentInfo { index, hash };
        self.in_window(run, window, at, |rows| {
            rows.attestation_commitments.iter().map(info).collect()
        })
    }

    async fn attestations(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<AttestationInfo>, ChainError> {
        self.in_window(run, window, at, |rows| values(&rows.attestations))
    }

    async fn score_commitments(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<ScoreCommitmentInfo>, ChainError> {
        let info = |(&index, &hash): (&ValidatorIndex, &Hash)| ScoreCommitmentInfo { index, hash };
        self.in_window(run, window, at, |rows| rows.score_commitments.iter().map(info).collect())
    }

    async fn score_reveals(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<ScoreRevealInfo>, ChainError> {
        self.in_window(run, window, at, |rows| values(&rows.score_reveals))
    }

    async fn departures(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<DepartureInfo>, ChainError> {
        self.in_run(run, at, |run| {
            let departures = run.registry.departures.iter();
            departures.map(|(key, departure)| departure.info(*key)).collect()
        })
    }

    async fn proven_faults(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<ProvenFaultInfo>, ChainError> {
        self.in_window(run, window, at, |rows| {
            rows.proven.iter().map(|(&uid, &fault)| ProvenFaultInfo { uid, fault }).collect()
        })
    }

    async fn data_challenges(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<DataChallengeInfo>, ChainError> {
        self.in_run(run, at, |run| run.proofs.challenges.values().flatten().cloned().collect())
    }

    async fn evaluation_disputes(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<EvaluationDisputeInfo>, ChainError> {
        self.in_run(run, at, |run| values(&run.proofs.disputes))
    }

    async fn stake_pool(
        &self,
        run: RunId,
        pool: u32,
        at: Option<Hash>,
    ) -> Result<Option<StakePoolInfo>, ChainError> {
        self.in_run(run, at, |run| {
            run.pools.get(&pool).map(|pool| StakePoolInfo {
                cold: pool.cold,
                index: pool.index,
                own: pool.own,
                delegated: 0,
            })
        })
    }

    async fn slashes(&self, run: RunId, at: Option<Hash>) -> Result<Vec<SlashInfo>, ChainError> {
        self.in_run(run, at, |run| values(&run.proofs.slashes))
    }

    async fn ledger(&self, run: RunId, at: Option<Hash>) -> Result<Ledger, ChainError> {
        self.in_run(run, at, |run| run.money.ledger)
    }

    async fn claims(
        &self,
        run: RunId,
        account: AccountBytes,
        at: Option<Hash>,
    ) -> Result<Vec<Claim>, ChainError> {
        self.in_run(run, at, |run| run.money.claims.get(&account).cloned().unwrap_or_default())
    }

    async fn balance(&self, account: AccountBytes, at: Option<Hash>) -> Result<Planck, ChainError> {
        Ok(self.state(at)?.balance(&account))
    }

    async fn events_at(&self, block: Hash) -> Result<Vec<GauntletEvent>, ChainError> {
        Ok(self.state(Some(block))?.events.clone())
    }

    async fn submit(&self, signer: &Keypair, call: Call) -> Result<Included, SubmitError> {
        let pool = FakePool { chain: self, account: keys::account(signer), call };
        door::submit(&pool, &Account::default(), [0; 32], PATIENCE).await
    }
}

/// The pool for one call of one account.
struct FakePool<'a> {
    chain: &'a FakeChain,
    account: AccountBytes,
    call: Call,
}

#[async_trait]
impl Pool for FakePool<'_> {
    type Signed = u64;
    type Progress = Submission;

    async fn next_nonce(&self) -> Result<u64, SubmitError> {
        Ok(self.chain.chain().nonces.entry(self.account).or_default().next)
    }

    async fn sign(&self, nonce: u64) -> Result<u64, SubmitError> {
        Ok(nonce)
    }

    async fn hand_over(&self, nonce: &u64) -> Result<Submission, SubmitError> {
        let mut chain = self.chain.chain();
        let nonces = chain.nonces.entry(self.account).or_default();
        if let Some(left) = nonces.overtaken.checked_sub(1) {
            nonces.overtaken = left;
            nonces.next += 1;
        }
        if *nonce != nonces.next {
            let text = "Invalid Transaction (1010): Transaction is outdated";
            return Err(SubmitError::Dropped(text.to_owned()));
        }
        nonces.next += 1;
        drop(chain);
        self.chain.enqueue(self.account, self.call.clone())
    }

    async fn watch(&self, submission: Submission) -> Result<Included, SubmitError> {
        submission.wait().await
    }

    /// What is in the queue comes into a block.
    async fn trace(&self, _: &mut u64) -> Result<Trace, SubmitError> {
        Ok(Trace::Open)
    }

    async fn reconnect(&self) {}
}
