//! Holds what all participants share: the chain, the hub, time, and what the simulation notes of what they do.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use codec::Encode;
use node_client::{
    chain::{fake::FakeChain, Call, Chain, Included, SubmitError},
    clock::ManualClock,
    keys::{self, Keypair},
    network::{MemoryHub, PeerId},
};
use protocol::{merkle::blake2_256, AccountBytes, BlockNumber, Hash, Window};
use rand::{rngs::StdRng, seq::SliceRandom, SeedableRng};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

/// Every participant has the milliseconds that are congruent to its number and one, modulo this; 0 is the simulation's.
pub(super) const SLOTS: u64 = 16;

/// Milliseconds from block to block; a multiple of [`SLOTS`].
pub(super) const BLOCK_MS: u64 = 1_024;

/// Longest delay of an act on a good day, milliseconds.
const DELAY_MS_MAX: u64 = 60;

/// How much slower a slow participant is.
const SLOWNESS: u64 = 40;

/// How a participant is connected now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    /// Nothing reaches the chain, or comes from it.
    pub(super) chain_down: bool,
    /// Some extrinsics get lost, and some answers.
    pub(super) chain_lossy: bool,
    /// Everything takes longer.
    pub(super) slow: bool,
    /// No payload reaches it.
    pub(super) no_payloads: bool,
    /// No commitment to an update of its reaches a block.
    pub(super) commits_nothing: bool,
    /// A checkpoint is on its disk long after it began to be written.
    pub(super) slow_disk: bool,
    /// Whether the chain was ever down for the process that runs now.
    pub(super) was_down: bool,
}

/// An extrinsic that waits for a block.
pub(super) struct Pending {
    signer: AccountBytes,
    call: Call,
    answer: oneshot::Sender<Result<Included, SubmitError>>,
}

/// A state that somebody fetched from peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Synced {
    pub(super) who: usize,
    pub(super) peer: PeerId,
    pub(super) id: Hash,
    /// Pieces that had come when the last attempt began.
    pub(super) had_before: u32,
    /// Pieces that came in all, the same one counted as often as it came.
    pub(super) had: u32,
}

/// Whose what: one signer, one kind of call, one window.
type Promise = (AccountBytes, &'static str, Window);

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) chain: FakeChain,
    /// The chain at another node, which every second participant asks.
    late: FakeChain,
    pub(super) hub: MemoryHub,
    pub(super) clock: ManualClock,
    start: Instant,
    links: Vec<watch::Sender<Link>>,
    pending: Mutex<Vec<Pending>>,
    /// The hash of what was signed first.
    signed: Mutex<BTreeMap<Promise, Hash>>,
    /// All that was ever published, by id.
    contents: Mutex<BTreeMap<Hash, Bytes>>,
    /// What anybody had copied to the mirror, and at which block first.
    copied: Mutex<BTreeMap<Hash, BlockNumber>>,
    /// What a script wants to be remembered.
    notes: Mutex<Vec<String>>,
    /// How states were fetched, the last attempt at each.
    synced: Mutex<BTreeMap<(usize, Hash), Synced>>,
}

impl World {
    pub(super) fn new(seed: u64, chain: FakeChain, participants: usize) -> Self {
        assert!((participants as u64) < SLOTS);
        Self {
            seed,
            late: chain.clone(),
            chain,
            hub: MemoryHub::new(),
            clock: ManualClock::new(0),
            start: Instant::now(),
            links: (0..participants).map(|_| watch::Sender::default()).collect(),
            pending: Mutex::default(),
            signed: Mutex::default(),
            contents: Mutex::default(),
            copied: Mutex::default(),
            notes: Mutex::default(),
            synced: Mutex::default(),
        }
    }

    /// The same world with another chain, of which one of two nodes is `behind` blocks late.
    pub(super) fn with_chain(self, chain: FakeChain, behind: BlockNumber) -> Self {
        Self { late: chain.behind(behind), chain, ..self }
    }

    /// The chain as the node has it that `who` asks.
    pub(super) fn node(&self, who: usize) -> &FakeChain {
        match who.is_multiple_of(2) {
            true => &self.chain,
            false => &self.late,
        }
    }

    /// Milliseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Waits until a moment of the simulation's own.
    pub(super) async fn until(&self, millis: u64) {
        tokio::time::sleep_until(self.start + Duration::from_millis(millis)).await;
    }

    pub(super) fn link(&self, who: usize) -> watch::Receiver<Link> {
        self.links[who].subscribe()
    }

    pub(super) fn set_link(&self, who: usize, change: impl FnOnce(&mut Link)) {
        self.links[who].send_modify(change);
    }

    /// A number that follows from the seed, who does what, and when.
    pub(super) fn draw(&self, who: usize, what: &str) -> u64 {
        let parts = (self.seed, who as u64, self.now(), what).encode();
        let hash = blake2_256(&[&parts]);
        u64::from_le_bytes(hash[..8].try_into().unwrap())
    }

    /// Lets time pass before `who` does `what`; on return it is a millisecond in which nobody else acts.
    pub(super) async fn pass(&self, who: usize, what: &str) {
        let slowness = if self.links[who].borrow().slow { SLOWNESS } else { 1 };
        let delay = 1 + self.draw(who, what) % (DELAY_MS_MAX * slowness);
        let earliest = self.now() + delay;
        let own = who as u64 + 1;
        let wait = (own + SLOTS - earliest % SLOTS) % SLOTS;
        self.until(earliest + wait).await;
    }

    /// Notes what `signer` signs, and panics if it is a second, different thing.
    pub(super) fn sign(&self, signer: AccountBytes, call: &Call) {
        let (window, hash) = match call {
            Call::CommitUpdate { window, hash, .. }
            | Call::CommitAttestation { window, hash, .. }
            | Call::CommitScores { window, hash, .. } => (*window, *hash),
            Call::RevealUpdate { window, opening, .. } => {
                (*window, blake2_256(&[&opening.encode()]))
            }
            Call::RevealAttestation { window, opening, .. } => {
                (*window, blake2_256(&[&opening.encode()]))
            }
            Call::RevealScores { window, evaluations, salt, .. } => {
                (*window, blake2_256(&[&evaluations.encode(), salt]))
            }
            _ => return,
        };
        let promise = (signer, call.name(), window);
        let first = *lock(&self.signed).entry(promise).or_insert(hash);
        assert_eq!(first, hash, "two different things signed: {call:?}");
    }

    /// Notes that a content may be seen by everybody from now on.
    pub(super) async fn note_copied(&self, id: Hash) {
        let block = self.chain.best_number().await.unwrap();
        lock(&self.copied).entry(id).or_insert(block);
    }

    /// The block at which a content was first copied to the mirror.
    pub(super) fn copied(&self, id: &Hash) -> Option<BlockNumber> {
        lock(&self.copied).get(id).copied()
    }

    /// What has been signed: who, which call, for which window.
    pub(super) fn signed(&self) -> BTreeMap<Promise, Hash> {
        lock(&self.signed).clone()
    }

    /// Hands an extrinsic to the chain's pool.
    pub(super) fn enqueue(
        &self,
        signer: AccountBytes,
        call: Call,
    ) -> oneshot::Receiver<Result<Included, SubmitError>> {
        let (answer, receiver) = oneshot::channel();
        lock(&self.pending).push(Pending { signer, call, answer });
        receiver
    }

    /// Makes a block of what waits, in an order that the seed decides, and so many blocks anew below it.
    pub(super) async fn make_block(&self, anew: u32) {
        let mut pending = std::mem::take(&mut *lock(&self.pending));
        // First an order that does not depend on who woke first, so that the shuffle gives the same.
        pending.sort_by_cached_key(|pending| (pending.signer, format!("{:?}", pending.call)));
        let mut rng = StdRng::seed_from_u64(self.seed ^ self.now() << 20);
        pending.shuffle(&mut rng);
        for Pending { signer, call, answer } in pending {
            // Who was killed meanwhile does not hear of it.
            self.chain.enqueue_for(signer, call, answer).unwrap();
        }
        self.clock.advance(Duration::from_millis(BLOCK_MS));
        self.chain.fork(anew);
    }

    /// Sends a call that no participant sends, and notes what becomes of it.
    pub(super) fn send(self: &Arc<Self>, signer: &Keypair, call: Call) {
        let name = call.name();
        let submission = self.chain.enqueue(keys::account(signer), call).unwrap();
        let world = self.clone();
        tokio::spawn(async move {
            let outcome = match submission.wait().await {
                Ok(_) => "done".to_owned(),
                Err(SubmitError::Rejected { error, .. }) => error,
                Err(error) => error.to_string(),
            };
            lock(&world.notes).push(format!("{name}: {outcome}"));
        });
    }

    /// Notes what a script wants to be remembered.
    pub(super) fn note(&self, text: String) {
        lock(&self.notes).push(text);
    }

    /// What was noted.
    pub(super) fn notes(&self) -> Vec<String> {
        lock(&self.notes).clone()
    }

    /// Notes that `who`, whose peer is `peer`, begins or goes on to fetch a state.
    pub(super) fn note_sync(&self, who: usize, peer: PeerId, id: Hash) {
        let had_before = self.hub.had(peer, &id);
        let sync = Synced { who, peer, id, had_before, had: 0 };
        lock(&self.synced).insert((who, id), sync);
    }

    /// The states of which peers served something.
    pub(super) fn synced(&self) -> Vec<Synced> {
        let synced = lock(&self.synced);
        let had =
            synced.values().map(|sync| Synced { had: self.hub.had(sync.peer, &sync.id), ..*sync });
        had.filter(|sync| sync.had > 0).collect()
    }

    /// Notes what was published.
    pub(super) fn note_content(&self, id: Hash, bytes: &Bytes) {
        lock(&self.contents).insert(id, bytes.clone());
    }

    /// What was ever published under `id`.
    pub(super) fn content(&self, id: &Hash) -> Option<Bytes> {
        lock(&self.contents).get(id).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
