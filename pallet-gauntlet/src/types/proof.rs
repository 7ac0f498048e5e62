//! The records of accusations: challenges for a chunk, and disputes of an evaluation before a jury of who was there.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use protocol::{
    consensus::Evaluation,
    fault::{Judge, COPY_CHUNKS},
    merkle::MERKLE_PROOF_MAX,
    BlockNumber, Hash, Planck, Uid, ValidatorIndex, Window,
};
use scale_info::TypeInfo;

use super::{stake::PoolId, VALIDATORS_MAX};

/// Bytes of a chunk that can be shown; a longer one cannot be answered with either.
pub const SHOWN_BYTES_MAX: u32 = 4_096;
/// Chunks of one payload that are asked for at once, at most.
pub const CHALLENGES_PER_MINER_MAX: u32 = 4;
/// Chunks that one account asks for at once, at most.
pub const CHALLENGES_PER_ACCOUNT_MAX: u32 = 16;

/// Names a commitment of a run.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug
)]
pub struct CommitmentName {
    /// Its window.
    pub window: Window,
    /// Its miner's slot.
    pub uid: Uid,
    /// Since when its miner has, or had, the slot.
    pub registered_window: Window,
}

/// A chunk that somebody shows, with the proof that it belongs to a payload.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct ShownChunk {
    /// Its bytes.
    pub bytes: BoundedVec<u8, ConstU32<SHOWN_BYTES_MAX>>,
    /// Its neighbours in the Merkle tree, from the bottom up.
    pub proof: BoundedVec<Hash, ConstU32<MERKLE_PROOF_MAX>>,
}

/// What two payloads have at each place that is drawn for a proof of a copy, see
/// [`copy_places`](protocol::fault::copy_places).
pub type CopyProof = BoundedVec<[ShownChunk; 2], ConstU32<{ COPY_CHUNKS as u32 }>>;

/// A request for a chunk that is open.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct DataChallenge<AccountId> {
    /// The chunk's number.
    pub index: u32,
    /// Who asks; the bond is held on it.
    pub challenger: AccountId,
    /// What the miner has for the answer.
    pub bond: Planck,
    /// The last block in which it can be answered.
    pub deadline: BlockNumber,
}

/// The requests for chunks of one payload that are open.
pub type DataChallenges<AccountId> =
    BoundedVec<DataChallenge<AccountId>, ConstU32<CHALLENGES_PER_MINER_MAX>>;

/// Names an evaluation: the window, the validator that made it, and the miner.
pub type EvaluationName = (Window, ValidatorIndex, Uid);

/// The validators with a permit for a window, by index, as they were in its first block: who may judge its evaluations.
pub type Bench<AccountId> = BoundedVec<Judge<AccountId>, ConstU32<VALIDATORS_MAX>>;

/// A juror and how far it has come.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct Juror<AccountId> {
    /// Its slot.
    pub index: ValidatorIndex,
    /// Its cold key when it committed, which has its part of a lost bond.
    pub cold: AccountId,
    /// What it committed to.
    pub commitment: Option<Hash>,
    /// What it measured.
    pub measured: Option<Evaluation>,
}

/// A dispute of an evaluation.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct EvaluationDispute<AccountId> {
    /// What the validator says.
    pub evaluation: Evaluation,
    /// The money of the validator.
    pub pool: PoolId,
    /// Who disputes; the bond is held on it.
    pub challenger: AccountId,
    /// Lost if the jury confirms the evaluation.
    pub bond: Planck,
    /// The window of the dispute; jurors commit in the next one, and reveal in the one after.
    pub opened: Window,
    /// Who of the bench has committed, in that order.
    pub jury: BoundedVec<Juror<AccountId>, ConstU32<VALIDATORS_MAX>>,
}
