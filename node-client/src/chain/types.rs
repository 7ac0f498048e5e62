//! Defines what the chain says as plain records: accounts are 32 bytes, amounts planck, the rest types of `protocol`.

use codec::{Compact, Decode, Encode};
pub use protocol::emission::{Claim, Ledger, Sponsorship};
use protocol::{
    commitment::{AttestationOpening, ChunkProof, Opening},
    consensus::{Evaluation, Standing},
    entry::Seat,
    fault::ProvenFault,
    fixed::Q32,
    layout::Layout,
    settings::Settings,
    AccountBytes, BlockNumber, Hash, Planck, RunId, Uid, ValidatorIndex, Window,
};

use crate::keys::HotKeyProof;

/// Names a block by height and hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockRef {
    /// Height; the genesis block has 0.
    pub number: BlockNumber,
    /// Hash of its header.
    pub hash: Hash,
}

/// Describes a run as the chain has it now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunInfo {
    /// Account that may change the settings.
    pub owner: AccountBytes,
    /// The settings in force.
    pub settings: Settings,
    /// Element counts of the tensors in canonical order.
    pub layout: Layout,
}

/// What a run costs the account that creates it, as the chain says.
#[derive(Decode, Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunCost {
    /// Held of the owner until the run is removed, in planck.
    pub deposit: Planck,
    /// Goes to the run's account, which it keeps alive, in planck. As much must be left to the owner.
    pub foundation: Planck,
}

impl RunCost {
    /// What leaves the owner's free balance, in planck.
    pub fn taken(&self) -> Planck {
        self.deposit.saturating_add(self.foundation)
    }

    /// What the owner must have free beside the call's fee, in planck.
    pub fn needed(&self) -> Planck {
        self.taken().saturating_add(self.foundation)
    }
}

/// A miner in its slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MinerInfo {
    /// Slot in the run, from 0 on.
    pub uid: Uid,
    /// Account of the hot key, which signs the work.
    pub hot: AccountBytes,
    /// Account of the cold key, which owns bond and pay.
    pub cold: AccountBytes,
    /// Bond held by the chain, in planck.
    pub bond: Planck,
    /// First window in which it takes part.
    pub registered_window: Window,
    /// Last window in which it committed to an update.
    pub committed_window: Option<Window>,
    /// Last window in which it takes part, if it asked to leave.
    pub last_window: Option<Window>,
    /// Its score over time.
    pub standing: Standing,
    /// The standing as one number, F.
    pub value: Q32,
    /// Its part of the miners' pot of the last settled window.
    pub share: Q32,
}

/// A validator in its slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValidatorInfo {
    /// Slot in the run, from 0 on.
    pub index: ValidatorIndex,
    /// Account of the hot key, which signs the work.
    pub hot: AccountBytes,
    /// Account of the cold key, which owns stake and pay.
    pub cold: AccountBytes,
    /// Stake held by the chain, in planck.
    pub stake: Planck,
    /// First window in which it takes part.
    pub registered_window: Window,
    /// Last window in which it attested.
    pub attested_window: Option<Window>,
}

/// How to reach a participant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnouncementInfo {
    /// Account of its hot key.
    pub hot: AccountBytes,
    /// Its libp2p peer id, binary.
    pub peer_id: Vec<u8>,
    /// Its multiaddresses, binary; at most four.
    pub addresses: Vec<Vec<u8>>,
}

/// How far a window has come. The order is the chain's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum WindowStatus {
    /// The accepted set is not known yet.
    Open,
    /// State root and accepted set are what they will be.
    Accepted,
    /// Pay is being written.
    Settling,
    /// Standings and pay are written.
    Settled,
    /// Nobody was paid, all of it was carried.
    Void,
}

/// What the chain fixed in a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowInfo {
    /// Decides which samples belong to whom.
    pub seed: Hash,
    /// Decides who evaluates whom of the window before, and on which samples.
    pub scoring_seed: Hash,
    /// Decides which chunks a reveal must show.
    pub challenge_seed: Option<Hash>,
    /// The seed of the next window, unless this one is excused, in a run whose training overlaps with the exchange.
    pub next_seed: Option<Hash>,
    /// The root on which the stake agreed.
    pub state_root: Option<Hash>,
    /// The updates that everybody applies, by uid.
    pub accepted: Vec<Uid>,
    /// Bitmap of the miners whose payload provably cannot be had.
    pub unavailable: Vec<u8>,
    /// How far it has come.
    pub status: WindowStatus,
    /// What it may have of the chain's emission, in planck; known when the next window opens.
    pub budget: Planck,
    /// What the emission gave it, in planck; known when it is settled.
    pub minted: Planck,
    /// What the run's sponsors gave it, in planck; known when it is settled.
    pub funded: Planck,
    /// The settings under which it is settled.
    pub settings: Settings,
    /// Nobody is at fault in it: the chain stood still, or the run was paused.
    pub excused: bool,
}

/// A miner's commitment to its update.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitmentInfo {
    /// Slot of the miner.
    pub uid: Uid,
    /// Hash that was committed to.
    pub hash: Hash,
    /// The block that included it.
    pub block: BlockNumber,
    /// Its place among the window's commitments.
    pub order: u32,
}

/// A miner's opened commitment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RevealInfo {
    /// Slot of the miner.
    pub uid: Uid,
    /// What it had committed to.
    pub opening: Opening,
    /// The block of the commitment.
    pub committed_block: BlockNumber,
    /// The commitment's place among the window's commitments.
    pub order: u32,
}

/// A validator's permit for a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PermitInfo {
    /// Slot of the validator.
    pub index: ValidatorIndex,
    /// Its stake in the window's first block, see [`protocol::books::stakes_u64`].
    pub stake: u64,
}

/// A validator's commitment to an attestation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttestationCommitmentInfo {
    /// Slot of the validator.
    pub index: ValidatorIndex,
    /// Hash that was committed to.
    pub hash: Hash,
}

/// A validator's attestation of payloads and state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttestationInfo {
    /// Slot of the validator.
    pub index: ValidatorIndex,
    /// The uids whose payloads it fetched and found valid.
    pub bitmap: Vec<u8>,
    /// Root of its θ_w.
    pub state_root: Hash,
}

/// A validator's commitment to its evaluations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScoreCommitmentInfo {
    /// Slot of the validator.
    pub index: ValidatorIndex,
    /// Hash that was committed to.
    pub hash: Hash,
}

/// A validator's evaluations, opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScoreRevealInfo {
    /// Slot of the validator.
    pub index: ValidatorIndex,
    /// One evaluation for each miner that it measured.
    pub evaluations: Vec<Evaluation>,
    /// Salt of the commitment that they open.
    pub salt: Hash,
}

/// Bytes of a chunk that can be shown on chain, at most; a longer one can neither be reported nor be an answer.
pub const SHOWN_BYTES_MAX: usize = 4_096;

/// Names a commitment: its window, its miner's slot, and the first window in which that miner has, or had, the slot.
pub type CommitmentName = (Window, Uid, Window);

/// Names an evaluation: its window, the validator that made it, and the miner.
pub type EvaluationName = (Window, ValidatorIndex, Uid);

/// A miner that is gone, whose bond waits and answers for what it did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DepartureInfo {
    /// Slot that it had.
    pub uid: Uid,
    /// First window in which it took part.
    pub registered_window: Window,
    /// Account of the hot key, which signed the work.
    pub hot: AccountBytes,
    /// Account of the cold key, which owns the bond.
    pub cold: AccountBytes,
    /// What is left of the bond, in planck.
    pub bond: Planck,
    /// Last window in which it took part.
    pub last: Window,
    /// Window from which on the bond can be had.
    pub due: Window,
}

/// A fault of a miner that is proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProvenFaultInfo {
    /// Slot of the miner.
    pub uid: Uid,
    /// What it did.
    pub fault: ProvenFault,
}

/// A request for a chunk that is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataChallengeInfo {
    /// Window of the payload.
    pub window: Window,
    /// Slot of its miner.
    pub uid: Uid,
    /// The chunk's number.
    pub index: u32,
    /// Who asks; the bond is held on it.
    pub challenger: AccountBytes,
    /// What the miner has for the answer, in planck.
    pub bond: Planck,
    /// Last block in which it can be answered.
    pub deadline: BlockNumber,
}

/// A juror, and how far it has come.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct JurorInfo {
    /// Slot of the validator.
    pub index: ValidatorIndex,
    /// Account of its cold key when it committed, which has its part of a lost bond.
    pub cold: AccountBytes,
    /// What it committed to.
    pub commitment: Option<Hash>,
    /// What it measured.
    pub measured: Option<Evaluation>,
}

/// A dispute of an evaluation that is not closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EvaluationDisputeInfo {
    /// Which evaluation.
    pub name: EvaluationName,
    /// What the validator says.
    pub evaluation: Evaluation,
    /// The pool that answers for it.
    pub pool: u32,
    /// Who disputes; the bond is held on it.
    pub challenger: AccountBytes,
    /// Lost if the jury confirms the evaluation, in planck.
    pub bond: Planck,
    /// Window of the dispute. Jurors commit in the next one, and reveal in the one after.
    pub opened: Window,
    /// Who of the bench has committed, in that order.
    pub jury: Vec<JurorInfo>,
}

/// The money of one validator and its nominators.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StakePoolInfo {
    /// Account of the validator's cold key.
    pub cold: AccountBytes,
    /// Slot of the validator; `None` once it has left.
    pub index: Option<ValidatorIndex>,
    /// The validator's own stake, in planck.
    pub own: Planck,
    /// What nominators delegated, in planck.
    pub delegated: Planck,
}

/// Whose money a slash takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Offender {
    /// A miner.
    Miner {
        /// Its slot.
        uid: Uid,
        /// Since when it has it.
        registered_window: Window,
    },
    /// The pool of a validator.
    Pool(u32),
}

/// A slash that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlashInfo {
    /// Its number in the run.
    pub number: u32,
    /// Who pays.
    pub offender: Offender,
    /// Window of the fault.
    pub window: Window,
    /// How much, at most, in planck.
    pub amount: Planck,
    /// Who gets half of it.
    pub reporter: Option<AccountBytes>,
    /// First window in which it is applied.
    pub due: Window,
}

/// An extrinsic of the pallet (and one of Balances), with its arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields are the arguments of the pallet's calls")]
pub enum Call {
    /// Creates a run; signed by its owner.
    CreateRun { settings: Box<Settings>, layout: Layout },
    /// Registers a miner; signed by the cold key.
    RegisterMiner { run: RunId, hot: AccountBytes, proof: HotKeyProof, max_price: Planck },
    /// Asks to leave after the open window; signed by the cold key.
    LeaveMiner { run: RunId, uid: Uid },
    /// Registers a validator; signed by the cold key.
    RegisterValidator { run: RunId, hot: AccountBytes, proof: HotKeyProof, stake: Planck },
    /// Adds to a stake; signed by the cold key.
    AddStake { run: RunId, index: ValidatorIndex, amount: Planck },
    /// Frees a validator's slot; signed by the cold key.
    DeregisterValidator { run: RunId, index: ValidatorIndex },
    /// Says how to reach the signer.
    Announce { run: RunId, peer_id: Vec<u8>, addresses: Vec<Vec<u8>>, proof: [u8; 64] },
    /// Commits to an update.
    CommitUpdate { run: RunId, window: Window, hash: Hash },
    /// Opens the commitment to an update.
    RevealUpdate { run: RunId, window: Window, opening: Opening, chunks: Vec<ChunkProof> },
    /// Commits to an attestation.
    CommitAttestation { run: RunId, window: Window, hash: Hash },
    /// Opens the commitment to an attestation of payloads and state.
    RevealAttestation { run: RunId, window: Window, opening: AttestationOpening },
    /// Commits to the evaluations of a window.
    CommitScores { run: RunId, window: Window, hash: Hash, version: u32 },
    /// Opens the commitment to evaluations.
    RevealScores {
        run: RunId,
        window: Window,
        evaluations: Vec<Evaluation>,
        salt: Hash,
        version: u32,
    },
    /// Transfers pay to its account.
    Claim { run: RunId, account: AccountBytes },
    /// Replaces the settings some windows later.
    SetParams { run: RunId, settings: Box<Settings> },
    /// Puts money into a run, of which a window releases `per_window` at most; signed by the sponsor.
    FundRun { run: RunId, amount: Planck, per_window: Planck },
    /// Removes a miner that does nothing.
    Evict { run: RunId, uid: Uid },
    /// Returns the bond of a miner that is gone to its cold key.
    WithdrawBond { run: RunId, uid: Uid, registered_window: Window },
    /// Has another hot key sign from the next window on; signed by the cold key.
    RotateHotKey { run: RunId, seat: Seat, hot: AccountBytes, proof: HotKeyProof },
    /// Offers a seat to another cold key; signed by the cold key.
    OfferCold { run: RunId, seat: Seat, to: AccountBytes },
    /// Takes over a seat that is offered to the signer.
    AcceptCold { run: RunId, seat: Seat },
    /// Takes back the offer of a seat; signed by the cold key.
    CancelCold { run: RunId, seat: Seat },
    /// Pauses a run; signed by its owner.
    PauseRun { run: RunId },
    /// Resumes a run; signed by its owner.
    ResumeRun { run: RunId },
    /// Ends a run; signed by its owner, or by anybody when it is idle.
    CloseRun { run: RunId },
    /// Removes rows of a closed run.
    ReapRun { run: RunId, rows: u32 },
    /// Offers a run to another owner, or withdraws the offer; signed by its owner.
    OfferRun { run: RunId, to: Option<AccountBytes> },
    /// Makes the signer the owner of a run that was offered to it.
    AcceptRun { run: RunId },
    /// Drops the settings that wait; signed by the run's owner.
    CancelParams { run: RunId },
    /// Proves that of two commitments the later one is a copy, by the chunks of both at the places that are drawn for it, in
    /// their order; see [`copy_places`](protocol::fault::copy_places).
    ReportCopy { run: RunId, commitments: [CommitmentName; 2], chunks: Vec<[ChunkProof; 2]> },
    /// Proves that a chunk does not decode.
    ReportMalformed { run: RunId, commitment: CommitmentName, chunk: ChunkProof },
    /// Asks for a chunk; a bond of the signer is held.
    ChallengeData { run: RunId, commitment: CommitmentName, index: u32 },
    /// Shows a chunk that is asked for; signed by the miner's hot or cold key.
    AnswerData { run: RunId, commitment: CommitmentName, chunk: ChunkProof },
    /// Ends a request for a chunk that was not answered in time.
    TimeOut { run: RunId, commitment: CommitmentName, index: u32 },
    /// Disputes an evaluation; a bond of the signer is held.
    DisputeEvaluation { run: RunId, evaluation: EvaluationName },
    /// Commits to what a juror measured.
    CommitVerdict { run: RunId, evaluation: EvaluationName, hash: Hash },
    /// Opens the commitment to what a juror measured.
    RevealVerdict { run: RunId, evaluation: EvaluationName, measured: Evaluation, salt: Hash },
    /// Judges a dispute by what its jury revealed.
    CloseDispute { run: RunId, evaluation: EvaluationName },
    /// Transfers money (pallet Balances).
    Transfer { to: AccountBytes, amount: Planck },
}

impl Call {
    /// The call's name on the chain.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateRun { .. } => "create_run",
            Self::RegisterMiner { .. } => "register_miner",
            Self::LeaveMiner { .. } => "leave_miner",
            Self::RegisterValidator { .. } => "register_validator",
            Self::AddStake { .. } => "add_stake",
            Self::DeregisterValidator { .. } => "deregister_validator",
            Self::Announce { .. } => "announce",
            Self::CommitUpdate { .. } => "commit_update",
            Self::RevealUpdate { .. } => "reveal_update",
            Self::CommitAttestation { .. } => "commit_attestation",
            Self::RevealAttestation { .. } => "reveal_attestation",
            Self::CommitScores { .. } => "commit_scores",
            Self::RevealScores { .. } => "reveal_scores",
            Self::Claim { .. } => "claim",
            Self::SetParams { .. } => "set_params",
            Self::FundRun { .. } => "fund_run",
            Self::Evict { .. } => "evict",
            Self::WithdrawBond { .. } => "withdraw_bond",
            Self::RotateHotKey { .. } => "rotate_hot_key",
            Self::OfferCold { .. } => "offer_cold",
            Self::AcceptCold { .. } => "accept_cold",
            Self::CancelCold { .. } => "cancel_cold",
            Self::PauseRun { .. } => "pause_run",
            Self::ResumeRun { .. } => "resume_run",
            Self::CloseRun { .. } => "close_run",
            Self::ReapRun { .. } => "reap_run",
            Self::OfferRun { .. } => "offer_run",
            Self::AcceptRun { .. } => "accept_run",
            Self::CancelParams { .. } => "cancel_params",
            Self::ReportCopy { .. } => "report_copy",
            Self::ReportMalformed { .. } => "report_malformed",
            Self::ChallengeData { .. } => "challenge_data",
            Self::AnswerData { .. } => "answer_data",
            Self::TimeOut { .. } => "time_out",
            Self::DisputeEvaluation { .. } => "dispute_evaluation",
            Self::CommitVerdict { .. } => "commit_verdict",
            Self::RevealVerdict { .. } => "reveal_verdict",
            Self::CloseDispute { .. } => "close_dispute",
            Self::Transfer { .. } => "transfer_allow_death",
        }
    }

    /// The arguments in SCALE, as the chain reads them.
    pub fn arguments(&self) -> Vec<u8> {
        match self {
            Self::CreateRun { settings, layout } => (settings, &layout.0).encode(),
            Self::RegisterMiner { run, hot, proof, max_price } => {
                (run, hot, proof, max_price).encode()
            }
            Self::LeaveMiner { run, uid } | Self::Evict { run, uid } => (run, uid).encode(),
            Self::RegisterValidator { run, hot, proof, stake } => (run, hot, proof, stake).encode(),
            Self::AddStake { run, index, amount } => (run, index, amount).encode(),
            Self::DeregisterValidator { run, index } => (run, index).encode(),
            Self::Announce { run, peer_id, addresses, proof } => {
                (run, peer_id, addresses, proof).encode()
            }
            Self::CommitUpdate { run, window, hash }
            | Self::CommitAttestation { run, window, hash } => (run, window, hash).encode(),
            Self::CommitScores { run, window, hash, version } => {
                (run, window, hash, version).encode()
            }
            Self::RevealUpdate { run, window, opening, chunks } => {
                (run, window, opening, chunks).encode()
            }
            Self::RevealAttestation { run, window, opening } => (run, window, opening).encode(),
            Self::RevealScores { run, window, evaluations, salt, version } => {
                (run, window, evaluations, salt, version).encode()
            }
            Self::Claim { run, account } => (run, account).encode(),
            Self::SetParams { run, settings } => (run, settings).encode(),
            Self::FundRun { run, amount, per_window } => (run, amount, per_window).encode(),
            Self::WithdrawBond { run, uid, registered_window } => {
                (run, uid, registered_window).encode()
            }
            Self::RotateHotKey { run, seat, hot, proof } => (run, seat, hot, proof).encode(),
            Self::OfferCold { run, seat, to } => (run, seat, to).encode(),
            Self::AcceptCold { run, seat } | Self::CancelCold { run, seat } => (run, seat).encode(),
            Self::PauseRun { run }
            | Self::ResumeRun { run }
            | Self::CloseRun { run }
            | Self::AcceptRun { run }
            | Self::CancelParams { run } => run.encode(),
            Self::ReapRun { run, rows } => (run, rows).encode(),
            Self::OfferRun { run, to } => (run, to).encode(),
            Self::ReportCopy { run, commitments, chunks } => {
                let chunks: Vec<_> = chunks.iter().map(|pair| pair.each_ref().map(shown)).collect();
                (run, commitments, chunks).encode()
            }
            Self::ReportMalformed { run, commitment, chunk }
            | Self::AnswerData { run, commitment, chunk } => {
                (run, commitment, chunk.index, shown(chunk)).encode()
            }
            Self::ChallengeData { run, commitment, index }
            | Self::TimeOut { run, commitment, index } => (run, commitment, index).encode(),
            Self::DisputeEvaluation { run, evaluation }
            | Self::CloseDispute { run, evaluation } => (run, evaluation).encode(),
            Self::CommitVerdict { run, evaluation, hash } => (run, evaluation, hash).encode(),
            Self::RevealVerdict { run, evaluation, measured, salt } => {
                (run, evaluation, measured, salt).encode()
            }
            // The address is `MultiAddress::Id`, the amount compact.
            Self::Transfer { to, amount } => (0u8, to, Compact(*amount)).encode(),
        }
    }
}

/// A chunk as a proof shows it: its number is an argument of its own.
fn shown(chunk: &ChunkProof) -> (&[u8], &[Hash]) {
    (&chunk.chunk, &chunk.proof)
}
