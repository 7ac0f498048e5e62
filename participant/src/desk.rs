//! Signs and submits: the one door to a signature of the hot key, and of the key that pays for accusations.
//!
//! **Invariant.** What must not be signed twice for one window (a commitment to an update or to scores, an attestation, what a juror says) is in the
//! journal before it is signed, by type: [`Desk::pledge`] writes the journal and returns the only value that can sign such a
//! call. Everything else that a participant signs is an [`Errand`], which can be no such call. The key is private to this file.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use codec::{Decode, Encode};
use node_client::{
    backoff::Backoff,
    chain::{Call, Chain, CommitmentName, EvaluationName, Included, SubmitError},
    journal::{Journal, JournalError, JournalKind},
    keys::{self, Keypair},
};
use protocol::{
    commitment::{AttestationOpening, ChunkProof, Opening},
    consensus::Evaluation,
    consent::Role,
    fault::verdict_commitment_hash,
    settings::SCORE_VERSION,
    AccountBytes, BlockNumber, Hash, RunId, Window,
};

use crate::{
    error::{miss, unfit, Attempt as _, Error, Result},
    heads::Heads,
    telemetry,
    work::Work,
};

/// How long one attempt may take to be final; the chain's client gives up before.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(150);

/// How long finality is waited for before it is said that a call was too late.
const FINALITY_PATIENCE: Duration = Duration::from_secs(60);

/// How many blocks an extrinsic is believed to take into a block before any did.
const INCLUSION_BLOCKS: u32 = 2;

/// How many inclusions are remembered.
const INCLUSIONS_MAX: usize = 16;

/// Pause before another attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause, which tries come to by and by: a part of a block.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Draws a salt for what is committed to in a window; nobody else can guess it. Two calls with the same arguments may
/// give different salts: the journal keeps the one that was used.
pub type Salts = Arc<dyn Fn(JournalKind, Window) -> Hash + Send + Sync>;

/// Signs for one participant of one run.
pub struct Desk {
    chain: Arc<dyn Chain>,
    hot: Keypair,
    /// Signs what is bonded.
    bonds: Option<Keypair>,
    heads: Heads,
    journal: Arc<Journal>,
    work: Work,
    salts: Salts,
    run: RunId,
    /// Blocks that the last calls took into a block. Never held across an await.
    inclusions: Mutex<VecDeque<u32>>,
}

/// What a juror says of a disputed evaluation, and the salt that opens its commitment to it.
#[derive(Encode, Decode, Clone, PartialEq, Eq, Debug)]
pub struct Vote {
    /// The evaluation.
    pub evaluation: EvaluationName,
    /// What the juror measured.
    pub measured: Evaluation,
    /// Opens its commitment.
    pub salt: Hash,
}

/// A promise that is in the journal: it can be signed, and no other one for its window can.
pub struct Pledge<'a> {
    desk: &'a Desk,
    kind: JournalKind,
    window: Window,
    hash: Hash,
    secret: Vec<u8>,
}

/// A call that promises nothing: it may be signed again.
#[derive(Clone, Debug)]
pub enum Errand {
    /// Says how to reach this peer.
    Announce {
        /// The peer id's bytes.
        peer_id: Vec<u8>,
        /// Multiaddresses as bytes, at most four.
        addresses: Vec<Vec<u8>>,
        /// The signature of the peer's key over [`protocol::consent::peer_consent`].
        proof: [u8; 64],
    },
    /// Opens the commitment to an update.
    RevealUpdate {
        /// The window it was made for.
        window: Window,
        /// What was committed to.
        opening: Opening,
        /// The chunks that the chain asked for, with their proofs.
        chunks: Vec<ChunkProof>,
    },
    /// Opens the commitment to an attestation.
    RevealAttestation {
        /// The window that it is of.
        window: Window,
        /// What was committed to.
        opening: AttestationOpening,
    },
    /// Opens the commitment to scores.
    RevealScores {
        /// The window that was scored.
        window: Window,
        /// The evaluations, one for each miner that was measured.
        evaluations: Vec<Evaluation>,
        /// Salt of the commitment that they open.
        salt: Hash,
    },
    /// Proves that of two commitments the later one is a copy.
    ReportCopy {
        /// Which.
        commitments: [CommitmentName; 2],
        /// The chunks of both at each place that is drawn for it.
        chunks: Vec<[ChunkProof; 2]>,
    },
    /// Proves that a chunk does not decode.
    ReportMalformed {
        /// Whose chunk.
        commitment: CommitmentName,
        /// The chunk, with its proof.
        chunk: ChunkProof,
    },
    /// Shows a chunk that somebody asks this miner for.
    AnswerData {
        /// Of which payload.
        commitment: CommitmentName,
        /// The chunk, with its proof.
        chunk: ChunkProof,
    },
    /// Asks for a chunk; bonded.
    ChallengeData {
        /// Of which payload.
        commitment: CommitmentName,
        /// The chunk's number.
        index: u32,
    },
    /// Ends a request for a chunk that nobody answered; the key of the bonds signs.
    TimeOut {
        /// Of which payload.
        commitment: CommitmentName,
        /// The chunk's number.
        index: u32,
    },
    /// Disputes an evaluation; bonded.
    DisputeEvaluation {
        /// Which.
        evaluation: EvaluationName,
    },
    /// Ends a dispute; the key of the bonds signs.
    CloseDispute {
        /// Of which evaluation.
        evaluation: EvaluationName,
    },
    /// Opens the commitment to what this juror measured.
    RevealVerdict(Vote),
}

/// A registration, which the cold key signs.
#[derive(Clone, Copy, Debug)]
pub enum Registration {
    /// As a miner for this price in planck at most; the chain burns the price and holds the bond of the cold key. Without
    /// a number, for twice what it costs when the first attempt begins.
    Miner(Option<u128>),
    /// As a validator with this stake in planck.
    Validator(u128),
}

/// Whether a call had to be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The chain had it already.
    Before,
    /// It was included now, or an earlier attempt was.
    Now,
}

impl Desk {
    /// Signs with `hot` for the run `run`.
    pub fn new(
        chain: Arc<dyn Chain>,
        hot: Keypair,
        heads: Heads,
        journal: Arc<Journal>,
        work: Work,
        salts: Salts,
        run: RunId,
    ) -> Self {
        let inclusions = Mutex::default();
        Self { chain, hot, bonds: None, heads, journal, work, salts, run, inclusions }
    }

    /// Has `bonds` sign what is bonded, if it is given.
    #[must_use]
    pub fn with_bonds(self, bonds: Option<Keypair>) -> Self {
        Self { bonds, ..self }
    }

    /// Blocks that a call may take from its submission into a block, going by the slowest of the last ones.
    pub fn inclusion_blocks(&self) -> u32 {
        let inclusions = self.inclusions.lock().unwrap_or_else(PoisonError::into_inner);
        inclusions.iter().copied().max().unwrap_or(INCLUSION_BLOCKS)
    }

    /// Blocks before the end of a phase after which nothing is begun that is to be submitted in it: as many as the slowest of
    /// the last calls took, and two at the least.
    pub fn margin_blocks(&self) -> u32 {
        self.inclusion_blocks().max(INCLUSION_BLOCKS)
    }

    fn note_inclusion(&self, blocks: u32) {
        let mut inclusions = self.inclusions.lock().unwrap_or_else(PoisonError::into_inner);
        inclusions.push_back(blocks);
        if inclusions.len() > INCLUSIONS_MAX {
            inclusions.pop_front();
        }
    }

    /// Account of the key that signs what is bonded.
    pub fn bonds_account(&self) -> Option<AccountBytes> {
        self.bonds.as_ref().map(keys::account)
    }

    /// Who signs a call.
    fn signer(&self, call: &Call) -> Result<&Keypair> {
        let is_bonded = matches!(
            call,
            Call::ChallengeData { .. }
                | Call::TimeOut { .. }
                | Call::DisputeEvaluation { .. }
                | Call::CloseDispute { .. }
        );
        match &self.bonds {
            _ if !is_bonded => Ok(&self.hot),
            Some(bonds) => Ok(bonds),
            None => unfit!("there is no key that pays for {}", call.name()),
        }
    }

    /// Account of the hot key.
    pub fn account(&self) -> AccountBytes {
        keys::account(&self.hot)
    }

    /// A salt for what is committed to in `window`.
    pub fn salt(&self, kind: JournalKind, window: Window) -> Hash {
        (self.salts)(kind, window)
    }

    /// The secret of what was pledged for `window`, before a restart for example.
    pub fn pledged(&self, kind: JournalKind, window: Window) -> Option<Vec<u8>> {
        self.journal.lookup(kind, self.run, window).map(|entry| entry.secret)
    }

    /// Puts `hash`, and the `secret` that opens it, into the journal. If the journal has another pledge for this window, made
    /// before a restart, that one stands and is returned: compare [`Pledge::secret`]. On return it survives a crash.
    ///
    /// # Errors
    /// The journal cannot be written, or has forgotten the window.
    pub async fn pledge(
        &self,
        kind: JournalKind,
        window: Window,
        hash: Hash,
        secret: Vec<u8>,
    ) -> Result<Pledge<'_>> {
        let (journal, run, kept) = (self.journal.clone(), self.run, secret.clone());
        let record = move || journal.record_with(kind, run, window, hash, &kept);
        let pledge = Pledge { desk: self, kind, window, hash, secret };
        match self.work.run(record).await? {
            Ok(_) => Ok(pledge),
            Err(JournalError::Conflict { .. }) => {
                let entry = self.journal.lookup(kind, run, window);
                let entry = entry.context("the journal forgot a pledge")?;
                Ok(Pledge { hash: entry.hash, secret: entry.secret, ..pledge })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Runs an errand by block `last`, unless `is_there` finds it done. Not cancel-safe: when dropped, an extrinsic may be on
    /// its way.
    ///
    /// # Errors
    /// The chain refuses it, or it was not included in time.
    pub async fn errand<F: Future<Output = Result<bool>>>(
        &self,
        errand: Errand,
        is_there: impl Fn() -> F,
        last: BlockNumber,
    ) -> Result<Submitted> {
        self.submit(self.call(errand), is_there, last).await
    }

    /// Runs an errand with one attempt. Not cancel-safe, as [`Desk::errand`].
    ///
    /// # Errors
    /// What the attempt says.
    pub async fn errand_once(&self, errand: Errand) -> Result<Included> {
        let call = self.call(errand);
        let attempt = self.chain.submit(self.signer(&call)?, call.clone());
        Ok(tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await??)
    }

    /// Registers the hot key, unless `is_there` finds it registered; `cold`, which owns the money, signs. For at most
    /// `patience`. Not cancel-safe, as [`Desk::errand`].
    ///
    /// # Errors
    /// The chain refuses it, or it was not included in time.
    pub async fn register<F: Future<Output = Result<bool>>>(
        &self,
        cold: &Keypair,
        registration: Registration,
        is_there: impl Fn() -> F,
        patience: Duration,
    ) -> Result<()> {
        let attempts = async {
            let mut backoff = self.backoff();
            let call = self.registration_call(cold, registration).await?;
            while !is_there().await? {
                match self.chain.submit(cold, call.clone()).await {
                    Ok(_) => {
                        let account = keys::address(&keys::account(cold));
                        tracing::info!(account, "registered");
                        break;
                    }
                    Err(refused @ SubmitError::Rejected { .. }) => match is_there().await? {
                        true => break,
                        false => return Err(refused).context("cannot register"),
                    },
                    Err(error) => tracing::debug!(%error, "registering again"),
                }
                tokio::time::sleep(backoff.pause()).await;
            }
            Ok(())
        };
        tokio::time::timeout(patience, attempts)
            .await
            .context("the registration was not included in time")?
    }

    async fn registration_call(&self, cold: &Keypair, registration: Registration) -> Result<Call> {
        let (run, hot) = (self.run, self.account());
        let genesis = self.chain.genesis_hash().await?;
        let prove =
            |role| keys::prove_hot_key(&self.hot, &genesis, run, role, &keys::account(cold));
        Ok(match registration {
            Registration::Miner(limit) => {
                let price = self.chain.entry_price(run, None).await?;
                let price = price.with_context(|| format!("there is no run {run}"))?;
                let max_price = limit.unwrap_or(price.saturating_mul(2));
                let proof = prove(Role::Miner);
                tracing::info!(price, max_price, "joining has a price, in planck");
                Call::RegisterMiner { run, hot, proof, max_price }
            }
            Registration::Validator(stake) => {
                Call::RegisterValidator { run, hot, proof: prove(Role::Validator), stake }
            }
        })
    }

    /// Forgets what was pledged before the window `first`; nothing can be pledged for those any more.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub async fn forget_before(&self, first: Window) -> Result<()> {
        let (journal, run) = (self.journal.clone(), self.run);
        Ok(self.work.run(move || journal.prune(run, first)).await??)
    }

    fn call(&self, errand: Errand) -> Call {
        let run = self.run;
        match errand {
            Errand::Announce { peer_id, addresses, proof } => {
                Call::Announce { run, peer_id, addresses, proof }
            }
            Errand::RevealUpdate { window, opening, chunks } => {
                Call::RevealUpdate { run, window, opening, chunks }
            }
            Errand::RevealAttestation { window, opening } => {
                Call::RevealAttestation { run, window, opening }
            }
            Errand::RevealScores { window, evaluations, salt } => {
                Call::RevealScores { run, window, evaluations, salt, version: SCORE_VERSION }
            }
            Errand::ReportCopy { commitments, chunks } => {
                Call::ReportCopy { run, commitments, chunks }
            }
            Errand::ReportMalformed { commitment, chunk } => {
                Call::ReportMalformed { run, commitment, chunk }
            }
            Errand::AnswerData { commitment, chunk } => Call::AnswerData { run, commitment, chunk },
            Errand::ChallengeData { commitment, index } => {
                Call::ChallengeData { run, commitment, index }
            }
            Errand::TimeOut { commitment, index } => Call::TimeOut { run, commitment, index },
            Errand::DisputeEvaluation { evaluation } => Call::DisputeEvaluation { run, evaluation },
            Errand::CloseDispute { evaluation } => Call::CloseDispute { run, evaluation },
            Errand::RevealVerdict(Vote { evaluation, measured, salt }) => {
                Call::RevealVerdict { run, evaluation, measured, salt }
            }
        }
    }

    /// Submits a call by block `last` unless it is there, and looks before each attempt and when all is over: an earlier
    /// attempt may have been included although nobody heard of it.
    async fn submit<F: Future<Output = Result<bool>>>(
        &self,
        call: Call,
        is_there: impl Fn() -> F,
        last: BlockNumber,
    ) -> Result<Submitted> {
        if is_there().await? {
            return Ok(Submitted::Before);
        }
        match self.include(call, &is_there, last).await {
            Err(error @ (Error::Refused(_) | Error::TooLate { .. })) => {
                match is_there().await? || self.is_there_finally(is_there).await? {
                    true => Ok(Submitted::Now),
                    false => Err(error),
                }
            }
            outcome => outcome.map(|()| Submitted::Now),
        }
    }

    /// Whether it is there once all that is in the best chain now is final: what is read is of the finalised chain.
    async fn is_there_finally<F: Future<Output = Result<bool>>>(
        &self,
        is_there: impl Fn() -> F,
    ) -> Result<bool> {
        let mut heads = self.heads.clone();
        let best = heads.best();
        if heads.now().number >= best {
            return Ok(false);
        }
        // Finality that stands still is no reason to wait for ever.
        let _ = tokio::time::timeout(FINALITY_PATIENCE, heads.reach(best)).await;
        is_there().await
    }

    /// The pauses between two tries.
    fn backoff(&self) -> Backoff {
        Backoff::new(RETRY_PAUSE, RETRY_PAUSE_MAX, &self.account())
    }

    /// Submits until the extrinsic is in a final block, the chain refuses it, or `last` is the best block.
    async fn include<F: Future<Output = Result<bool>>>(
        &self,
        call: Call,
        is_there: impl Fn() -> F,
        last: BlockNumber,
    ) -> Result<()> {
        let (name, signer) = (call.name(), self.signer(&call)?);
        let count = |result: &'static str| {
            metrics::counter!(telemetry::EXTRINSICS, "call" => name, "result" => result)
                .increment(1);
        };
        let (mut error, mut backoff) = ("the block has passed".to_owned(), self.backoff());
        // An extrinsic that is sent when `last` is the best block comes into a later one.
        while self.heads.best() < last {
            let sent = self.heads.best();
            let attempt = self.chain.submit(signer, call.clone());
            let attempt = tokio::time::timeout(ATTEMPT_TIMEOUT, attempt);
            let mut heads = self.heads.clone();
            let outcome = tokio::select! {
                biased;
                outcome = attempt => outcome,
                // What is not in a block by now comes into none; what is, is found when it is final.
                reached = heads.reach_best(last.saturating_add(INCLUSION_BLOCKS)) => {
                    reached?;
                    break;
                }
            };
            match outcome {
                Ok(Ok(included)) => {
                    self.note_inclusion(included.block.number.saturating_sub(sent));
                    count("ok");
                    return Ok(());
                }
                Ok(Err(refused @ SubmitError::Rejected { .. })) => {
                    count("refused");
                    return Err(Error::Refused(refused));
                }
                Ok(Err(other)) => error = other.to_string(),
                Err(_) => error = "no answer in time".to_owned(),
            }
            tracing::debug!(call = name, error, "submitting again");
            tokio::time::sleep(backoff.pause()).await;
            // That the chain does not answer now is no reason to give up.
            if is_there().await.unwrap_or(false) {
                count("ok");
                return Ok(());
            }
        }
        count("late");
        Err(Error::TooLate { last, error })
    }
}

impl Pledge<'_> {
    /// Hash of the promise, as it stands in the journal.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Bytes that open the promise, as they stand in the journal.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Submits the promise by block `last`, unless `is_there` finds it on chain. Not cancel-safe: when dropped, an extrinsic
    /// may be on its way.
    ///
    /// # Errors
    /// `call` is not what was pledged, the chain refuses it, or it was not included in time.
    pub async fn submit<F: Future<Output = Result<bool>>>(
        self,
        call: Call,
        is_there: impl Fn() -> F,
        last: BlockNumber,
    ) -> Result<Submitted> {
        if promise(&call) != Some((self.kind, self.desk.run, self.window, self.hash)) {
            miss!("the call {} is not what was pledged for window {}", call.name(), self.window);
        }
        self.desk.submit(call, is_there, last).await
    }

    /// Commits to one of the votes that were pledged, by block `last`, unless `is_there` finds it on chain under the hash that it is
    /// given. Not cancel-safe, as [`Pledge::submit`].
    ///
    /// # Errors
    /// `vote` is not among what was pledged, the chain refuses it, or it was not included in time.
    pub async fn vote<F: Future<Output = Result<bool>>>(
        &self,
        vote: &Vote,
        is_there: impl Fn(Hash) -> F,
        last: BlockNumber,
    ) -> Result<Submitted> {
        let pledged = Vec::<Vote>::decode(&mut &self.secret[..])?;
        if self.kind != JournalKind::Verdicts || !pledged.contains(vote) {
            miss!("the vote about {:?} is not what was pledged", vote.evaluation);
        }
        let (run, evaluation) = (self.desk.run, vote.evaluation);
        let (window, accused, _) = evaluation;
        let genesis = self.desk.chain.genesis_hash().await?;
        let (hot, measured, salt) = (self.desk.account(), &vote.measured, &vote.salt);
        let hash = verdict_commitment_hash(&genesis, run, window, accused, &hot, measured, salt);
        let call = Call::CommitVerdict { run, evaluation, hash };
        self.desk.submit(call, || is_there(hash), last).await
    }
}

/// What a call promises: the run, the window and the hash that stand in the journal.
fn promise(call: &Call) -> Option<(JournalKind, RunId, Window, Hash)> {
    match call {
        Call::CommitUpdate { run, window, hash } => {
            Some((JournalKind::UpdateCommitment, *run, *window, *hash))
        }
        Call::CommitScores { run, window, hash, .. } => {
            Some((JournalKind::ScoreCommitment, *run, *window, *hash))
        }
        Call::CommitAttestation { run, window, hash } => {
            Some((JournalKind::Attestation, *run, *window, *hash))
        }
        _ => None,
    }
}
