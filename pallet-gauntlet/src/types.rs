//! The records that the pallet stores. Their numbers come from `protocol`; nothing here computes.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use protocol::{
    boundary::Crossing,
    commitment::Opening,
    consensus::{ConsensusError, Evaluation, Standing},
    entry::Seat,
    fixed::Q32,
    merkle::MERKLE_PROOF_MAX,
    settings::Settings,
    update::CHUNK_BYTES_MAX,
    window::Schedule,
    AccountBytes, BlockNumber, Hash, Planck, RunId, Uid, ValidatorIndex, Window,
};
pub use protocol::{
    emission::{Claim, Ledger, Pots, Sponsorship, CLAIMS_MAX, SPONSORS_MAX},
    limits::HISTORY_WINDOWS,
};
use scale_info::TypeInfo;

mod proof;
mod stake;
mod view;
pub use proof::{
    Bench, CommitmentName, CopyProof, DataChallenge, DataChallenges, EvaluationDispute,
    EvaluationName, Juror, ShownChunk, CHALLENGES_PER_ACCOUNT_MAX, CHALLENGES_PER_MINER_MAX,
    SHOWN_BYTES_MAX,
};
pub(crate) use stake::pool_seed;
pub use stake::{
    Delegation, Offender, PoolId, SlashQueue, StakePool, UnappliedSlash, Unbonding, UNBONDINGS_MAX,
};
pub use view::{
    Assignment, Claimable, Disputes, Metagraph, PhaseInfo, RunCost, SeatPay, StandingInfo,
    WindowPay,
};

/// Miner slots that the types have room for; a run's own limit is `Incentive::uid_max`.
pub const UIDS_MAX: u32 = 4_096;
/// Bytes of a bitmap with one bit for each slot.
pub const BITMAP_BYTES_MAX: u32 = UIDS_MAX / 8;
/// Most miners of an accepted set.
pub const ACCEPTED_MAX: u32 = 256;
/// Most evaluations in one reveal.
pub const EVALUATIONS_MAX: u32 = 256;
/// Most chunks in one reveal.
pub const CHUNKS_MAX: u32 = 4;
/// Most validators of a run, so that attestations and scores of a window fit into one block.
pub const VALIDATORS_MAX: u32 = protocol::limits::VALIDATORS_MAX as u32;
/// Claims that one call makes.
pub const CLAIM_BATCH_MAX: u32 = 64;
/// Changes that one list holds; see [`crate::Changes`].
pub const CHANGES_MAX: u32 = 256;
/// Changes that one step of a hook makes.
pub const CHANGES_PAGE: u32 = 16;
/// Lists that hold a departure and a rotation of every seat there can be, and one more.
pub const CHANGE_LISTS_MAX: u32 = (2 * UIDS_MAX + VALIDATORS_MAX).div_ceil(CHANGES_MAX) + 1;
/// Miners that one step of a settlement pays.
pub const PAGE_LEN: u32 = 64;
/// Rows that one `reap_run` removes, at most.
pub const REAP_ROWS_MAX: u32 = 512;
/// Bytes of a libp2p peer id.
pub const PEER_ID_BYTES_MAX: u32 = 64;
/// Bytes of a multiaddress.
pub const ADDRESS_BYTES_MAX: u32 = 128;
/// Addresses that one participant announces.
pub const ADDRESSES_MAX: u32 = protocol::limits::ANNOUNCED_ADDRESSES_MAX;

// The protocol's limits and the sizes of the types are one.
const _: () = assert!(protocol::settings::UID_MAX as u32 == UIDS_MAX);
const _: () = assert!(protocol::settings::ACCEPTED_MAX as u32 == ACCEPTED_MAX);
const _: () = assert!(protocol::settings::EVALUATIONS_MAX as u32 == EVALUATIONS_MAX);
const _: () = assert!(protocol::settings::CHALLENGE_CHUNKS_MAX as u32 == CHUNKS_MAX);
const _: () = assert!(protocol::settings::PERMITS_MAX as u32 == VALIDATORS_MAX);

/// One bit for each slot: bit `slot % 8` (least significant first) of byte `slot / 8`.
pub type Bitmap = BoundedVec<u8, ConstU32<BITMAP_BYTES_MAX>>;
/// Element counts of a model's tensors in canonical order.
pub type LayoutVec = BoundedVec<u64, ConstU32<{ protocol::layout::LAYOUT_TENSORS_MAX }>>;
/// A set of miners, sorted by uid.
pub type AcceptedSet = BoundedVec<Uid, ConstU32<ACCEPTED_MAX>>;
/// The validators with a permit for a window, by index, with their stakes.
pub type PermitList = BoundedVec<protocol::books::Permit, ConstU32<VALIDATORS_MAX>>;
/// What a validator measured in one window.
pub type Evaluations = BoundedVec<Evaluation, ConstU32<EVALUATIONS_MAX>>;
/// The chunks that a reveal shows.
pub type RevealedChunks = BoundedVec<RevealedChunk, ConstU32<CHUNKS_MAX>>;
/// A libp2p peer id.
pub type PeerId = BoundedVec<u8, ConstU32<PEER_ID_BYTES_MAX>>;
/// An ed25519 signature of a peer's key over [`protocol::consent::peer_consent`].
pub type PeerProof = [u8; 64];
/// The multiaddresses of a peer.
pub type Addresses =
    BoundedVec<BoundedVec<u8, ConstU32<ADDRESS_BYTES_MAX>>, ConstU32<ADDRESSES_MAX>>;
/// What happens when a window begins.
pub type ChangeList = BoundedVec<Change, ConstU32<CHANGES_MAX>>;
/// Pay by the window from which on it can be claimed, oldest first.
pub type ClaimList = BoundedVec<Claim, ConstU32<CLAIMS_MAX>>;
/// What one page of a settlement credited to miners, in planck, by uid.
pub type MinerPayPage = BoundedVec<(Uid, Planck), ConstU32<PAGE_LEN>>;
/// What a window credited to validators, in planck, by index.
pub type ValidatorPayList = BoundedVec<(ValidatorIndex, Planck), ConstU32<VALIDATORS_MAX>>;
/// The sponsors of a run.
pub type SponsorList<AccountId> = BoundedVec<Sponsorship<AccountId>, ConstU32<SPONSORS_MAX>>;

/// Counts the settings that a run has had, from 0 on.
pub type SettingsVersion = u32;

/// The next boundary of a run, and when the one before was crossed.
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
pub struct Due {
    /// The run.
    pub run: RunId,
    /// Its next boundary.
    pub next: Crossing,
    /// When the one before was crossed, or the run created.
    pub since: Mark,
}

/// An instant by the pallet's clock and by the chain's own count of blocks.
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
pub struct Mark {
    /// By [`crate::Config::BlockNumberProvider`], by which windows are counted.
    pub clock: BlockNumber,
    /// Blocks of this chain.
    pub block: BlockNumber,
}

/// Whether a run takes work.
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
pub enum RunStatus {
    /// Its first block has not come.
    Waiting,
    /// Its windows follow one another.
    Open,
    /// Its windows follow one another and take no updates; nobody is at fault in them.
    Paused {
        /// The chain's governance paused it, which alone may resume it.
        by_admin: bool,
    },
    /// Its last window is settled; what is left is claimed, and then removed.
    Closed,
}

/// One model being trained.
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
pub struct Run<AccountId> {
    /// May change the settings and receives the owner's part of the emission.
    pub owner: AccountId,
    /// The version of its settings in force; see [`crate::RunSettings`].
    pub settings_version: SettingsVersion,
    /// When its windows and phases begin, which no settings change.
    pub schedule: Schedule,
    /// The block of its creation.
    pub created_at: BlockNumber,
    /// Whether it has begun.
    pub status: RunStatus,
    /// Chunks of the layout.
    pub chunk_count: u32,
    /// Bytes of a payload of this layout, at most.
    pub payload_bytes_max: u64,
    /// All salts that validators revealed so far, mixed; part of the next window's seed.
    pub salt_mix: Hash,
    /// Held on the owner while there is the run.
    pub deposit: Planck,
    /// What the owner paid into the run's account to keep it alive; never paid out.
    pub foundation: Planck,
    /// The last window that was opened; `None` before the first.
    pub window: Option<Window>,
    /// The last window of the run, once it is to be closed.
    pub last_window: Option<Window>,
    /// The window from which on it will be paused, as its owner announced.
    pub pause_from: Option<Window>,
    /// The last window in which an update was accepted, or in which the governance ended its pause; 0 before the first.
    pub active_window: Window,
    /// The next window to be settled; those before it are settled or void.
    pub next_settlement: Window,
    /// The next window whose rows will be removed; those before it have none.
    pub next_pruning: Window,
}

impl<AccountId> Run<AccountId> {
    /// Whether the run has this window: it goes on, or ends with a later one or this.
    pub(crate) fn has_window(&self, window: Window) -> bool {
        self.last_window.is_none_or(|last| window <= last)
    }
}

/// A miner and its slot's history.
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
pub struct Miner<AccountId> {
    /// Signs the work of each window.
    pub hot: AccountId,
    /// Owns bond and pay.
    pub cold: AccountId,
    /// Held on `cold` until the miner leaves.
    pub bond: Planck,
    /// The first window in which it takes part. Rows of its uid in earlier windows belong to
    /// somebody who has left.
    pub registered_window: Window,
    /// The last window in which it committed to an update.
    pub committed_window: Option<Window>,
    /// The last window in which it takes part, if it asked to leave.
    pub last_window: Option<Window>,
    /// Its score over time, as of the last settlement.
    pub standing: Standing,
    /// The standing as one number, F.
    pub value: Q32,
    /// Its part of the miners' pot in the last settled window.
    pub share: Q32,
}

/// The bond of a miner that is gone.
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
pub struct Departure<AccountId> {
    /// Signed the miner's work.
    pub hot: AccountId,
    /// Owns the bond, which is held on it.
    pub cold: AccountId,
    /// What is left of the bond.
    pub bond: Planck,
    /// The last window in which the miner took part.
    pub last: Window,
    /// The window from which on it can be had.
    pub due: Window,
}

/// A hot key that replaces a participant's.
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
pub struct NextHotKey<AccountId> {
    /// The key.
    pub hot: AccountId,
    /// The window from which on it signs.
    pub window: Window,
}

/// A seat that its cold key offers to another one.
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
pub struct ColdOffer<AccountId> {
    /// Who may accept it.
    pub to: AccountId,
    /// The window from which on it may be accepted.
    pub window: Window,
}

/// What happens when a window begins.
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
pub enum Change {
    /// A miner's slot becomes free.
    Leave(Uid),
    /// A participant's [`NextHotKey`] signs.
    RotateHotKey(Seat),
}

/// A validator.
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
pub struct Validator<AccountId> {
    /// Signs the work of each window.
    pub hot: AccountId,
    /// Owns stake and pay.
    pub cold: AccountId,
    /// Its own stake and what is delegated to it: what [`StakePool`] holds.
    pub stake: Planck,
    /// The pool of its money.
    pub pool: PoolId,
    /// The first window in which it takes part; see [`Miner::registered_window`].
    pub registered_window: Window,
    /// The last window in which it attested; for people, nothing follows from it.
    pub attested_window: Option<Window>,
    /// Its agreement with the medians in the last settled window.
    pub agreement: Q32,
    /// Its part of the validators' pot in the last settled window.
    pub share: Q32,
}

/// Which slots of a table are taken. Slots are given out from the lowest free one.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    PartialEq,
    Eq,
    Debug,
    Default
)]
pub struct Slots(pub Bitmap);

impl Slots {
    /// Takes the lowest free slot below `limit`.
    pub fn take(&mut self, limit: u32) -> Option<u16> {
        let full_bytes = self.0.iter().take_while(|byte| **byte == u8::MAX).count();
        let free_bit = self.0.get(full_bytes).map_or(0, |byte| byte.trailing_ones());
        // At most 512 bytes.
        let slot = (full_bytes as u32).saturating_mul(8).saturating_add(free_bit);
        if slot >= limit.min(UIDS_MAX) {
            return None;
        }
        if full_bytes == self.0.len() {
            self.0.try_push(0).ok()?;
        }
        *self.0.get_mut(full_bytes)? |= 1 << free_bit;
        Some(slot as u16)
    }

    /// Frees a slot.
    pub fn release(&mut self, slot: u16) {
        if let Some(byte) = self.0.get_mut(usize::from(slot >> 3)) {
            *byte &= !(1 << (slot & 7));
        }
    }

    /// Whether a slot is taken.
    pub fn contains(&self, slot: u16) -> bool {
        protocol::accept::bitmap_contains(&self.0, slot)
    }

    /// How many slots are taken.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }
}

/// How peers reach a participant.
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
pub struct Announcement {
    /// Its libp2p peer id.
    pub peer_id: PeerId,
    /// Its multiaddresses.
    pub addresses: Addresses,
    /// The block of the announcement.
    pub block: BlockNumber,
}

/// How far a window has come.
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
pub enum WindowStatus {
    /// The accepted set is not known yet.
    Open,
    /// State root and accepted set are what they will be.
    Accepted,
    /// Standings and pay are computed and being written.
    Settling,
    /// Everybody is paid.
    Settled,
    /// Nobody was paid, all of it was carried.
    Void,
}

/// What the chain fixed in one window of a run.
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
pub struct WindowRecord {
    /// Decides which samples belong to whom.
    pub seed: Hash,
    /// Decides who evaluates whom of the window before, and on which samples; drawn when this one opened. It is the
    /// seed, if that was not known earlier.
    pub scoring_seed: Hash,
    /// Decides which chunks a reveal must show; known from the end of the commit phase.
    pub challenge_seed: Option<Hash>,
    /// The seed of the next window, unless this one is excused; known with the challenge's, in a run whose training
    /// overlaps with the exchange.
    pub next_seed: Option<Hash>,
    /// The root on which the stake agreed, if it did; known when the attest phase ends.
    pub state_root: Option<Hash>,
    /// The miners whose updates everybody applies, sorted by uid.
    pub accepted: AcceptedSet,
    /// The miners of which validators proved that their payload cannot be had.
    pub unavailable: Bitmap,
    /// How far the window has come.
    pub status: WindowStatus,
    /// What it may have of the chain's emission: the run's part of its blocks. Known when the next window opens.
    pub budget: Planck,
    /// What the emission gave of that: less only if its source is empty. Known when its settlement begins.
    pub minted: Planck,
    /// What the run's sponsors gave. Known when its settlement begins.
    pub funded: Planck,
    /// The version of the settings in force, from opening to settlement; see [`crate::RunSettings`].
    pub settings_version: SettingsVersion,
    /// The chain stood still in one of the window's phases, the run was paused, or less than half of the permitted stake
    /// attested: nobody is at fault in it.
    pub excused: bool,
}

/// A miner's commitment to an update.
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
pub struct Commitment {
    /// [`protocol::commitment::commitment_hash`] of the opening.
    pub hash: Hash,
    /// The block of the commitment.
    pub block: BlockNumber,
    /// The commitments of the window before it: who committed a payload first owns it.
    pub order: u32,
}

/// A revealed update.
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
pub struct Reveal {
    /// What was committed.
    pub opening: Opening,
    /// The block of the commitment.
    pub committed_block: BlockNumber,
    /// See [`Commitment::order`].
    pub order: u32,
}

/// A chunk that the chain asked for, with the proof that it belongs to the payload.
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
pub struct RevealedChunk {
    /// Its number in the payload.
    pub index: u32,
    /// Its bytes.
    pub chunk: BoundedVec<u8, ConstU32<CHUNK_BYTES_MAX>>,
    /// Its neighbours in the Merkle tree, from the bottom up.
    pub proof: BoundedVec<Hash, ConstU32<MERKLE_PROOF_MAX>>,
}

/// What a validator could fetch, and the state it holds.
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
pub struct Attestation {
    /// The uids whose payloads it fetched and found valid.
    pub bitmap: Bitmap,
    /// Root of the parameters it holds at the start of the window.
    pub state_root: Hash,
}

/// A validator's evaluations of one window.
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
pub struct ScoreReveal {
    /// What it measured.
    pub evaluations: Evaluations,
    /// Part of the next window's seed.
    pub salt: Hash,
}

/// A validator's bonds in the miners, which [`protocol::consensus::yuma`] averages over windows.
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
pub struct BondRow {
    /// The window whose settlement wrote them: a miner that came later has no part in them.
    pub window: Window,
    /// 65535 for a miner's largest bond, by uid.
    pub entries: BoundedVec<(Uid, u16), ConstU32<UIDS_MAX>>,
}

/// A run offered to another owner.
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
pub struct Offer<AccountId> {
    /// Who may accept it.
    pub to: AccountId,
    /// The first window in which it may be accepted.
    pub window: Window,
}

/// Settings that will replace a run's.
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
pub struct ScheduledSettings {
    /// The first window under them.
    pub window: Window,
    /// The settings.
    pub settings: Settings,
    /// The chain's governance forced them; it alone may drop or replace them.
    pub by_admin: bool,
}

/// What a settlement does next.
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
pub enum Stage {
    /// Writes the standings and the pay of one page of miners.
    Miners {
        /// The next page.
        page: u32,
        /// Pages in all.
        page_count: u32,
    },
    /// Writes the validators' pay and closes the window.
    Validators,
}

/// A settlement whose numbers are computed and not all written.
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
pub struct Settlement<AccountId> {
    /// The window being settled.
    pub window: Window,
    /// What to do next.
    pub stage: Stage,
    /// The first window in which the pay can be claimed.
    pub due: Window,
    /// What was credited so far.
    pub paid: Pots,
    /// What is to be written for the validators.
    pub validators: BoundedVec<ValidatorPay<AccountId>, ConstU32<VALIDATORS_MAX>>,
}

/// What a settlement writes for a miner.
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
pub struct MinerPay<AccountId> {
    /// The miner.
    pub uid: Uid,
    /// The account that is paid.
    pub cold: AccountId,
    /// Median relative improvement on its own samples.
    pub own: Option<Q32>,
    /// Median relative improvement on random samples.
    pub random: Option<Q32>,
    /// Its standing after the window.
    pub standing: Standing,
    /// The standing as one number, F.
    pub value: Q32,
    /// Its part of the miners' pot.
    pub share: Q32,
    /// Its pay.
    pub amount: Planck,
}

/// What a settlement writes for a validator.
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
pub struct ValidatorPay<AccountId> {
    /// The validator.
    pub index: ValidatorIndex,
    /// The account that is paid.
    pub cold: AccountId,
    /// How far it agreed with the medians.
    pub agreement: Q32,
    /// Its part of the validators' pot.
    pub share: Q32,
    /// Its pay.
    pub amount: Planck,
}

/// What a settled window credited. Who was credited nothing is not listed.
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
pub struct PaidWindow {
    /// The sum of each group, in planck.
    pub paid: Pots,
    /// The validators' pay, with what their nominators got of it.
    pub validators: ValidatorPayList,
}

/// Why a window is void.
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
pub enum VoidReason {
    /// A miner or validator was counted twice.
    Duplicate,
    /// The ratings could not be moved.
    Rating,
    /// A number left its range.
    Overflow,
    /// Shares were negative or summed to more than one.
    Shares,
    /// The parts of the emission exceed the whole.
    EmissionParts,
    /// The window's records are gone: the chain was too busy to settle it in time.
    TooLate,
}

impl From<ConsensusError> for VoidReason {
    fn from(error: ConsensusError) -> Self {
        match error {
            ConsensusError::DuplicateMiner(_) | ConsensusError::DuplicateValidator(_) => {
                Self::Duplicate
            }
            ConsensusError::Rating(_) => Self::Rating,
            ConsensusError::Overflow(_) => Self::Overflow,
            ConsensusError::Shares => Self::Shares,
            ConsensusError::EmissionParts => Self::EmissionParts,
        }
    }
}

/// An account as the 32 bytes that commitments bind.
pub fn account_bytes<AccountId: Into<AccountBytes> + Clone>(account: &AccountId) -> AccountBytes {
    account.clone().into()
}
