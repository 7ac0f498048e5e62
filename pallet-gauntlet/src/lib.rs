//! # Gauntlet
//!
//! Strangers train one model together; this pallet keeps the books. It records who committed and
//! revealed what in which window, computes the accepted set and the settlement with the pure
//! functions of `protocol`, and pays.
//!
//! # Goals
//!
//! - Nothing about acceptance, rating or pay is anybody's word: all of it follows from extrinsics.
//! - Work that grows with the number of participants is paged and weighed; nothing here panics.
//! - One ledger a run: every unit minted is paid, claimable, carried or burned.
//!
//! # Design
//!
//! All state is keyed by [`RunId`](protocol::RunId). A hot key signs the work of each window, a cold
//! key owns bond, stake and pay. The boundaries of a window come from
//! [`phase_at`](protocol::window::phase_at) alone:
//!
//! ```text
//! |<------------------------ window w ------------------------>|<-------------- window w+1 -------------
//! | commit_update          | reveal_update  | attest  |        | commit_scores | reveal_scores | settle w
//! 0                    commit_end       reveal_end  attest_end                                 score_reveal_end
//! ^ seed                   ^ challenge seed          ^ state root, accepted set
//! ```
//!
//! `on_initialize` does what a boundary asks for; [`settlement`] advances in `on_poll` with half of a
//! block at most and in `on_idle` with the rest of it, step by step ([`Stage`]), and then removes the
//! rows of windows that are [`Config::HistoryWindows`] old.
//!
//! # One scenario
//!
//! `create_run`; a cold key calls `register_miner(run, hot)`, another `register_validator`. In window
//! w the miner's hot key calls `commit_update` and, after `commit_end`, `reveal_update` with the
//! chunks that [`challenged_chunks`](protocol::commitment::challenged_chunks) names; the validators
//! `attest`. In w+1 they `commit_scores` and `reveal_scores`. Then the window is settled, and after
//! `claim_delay_windows` anybody may call `claim` for the miner's cold key.
//!
//! # Properties
//!
//! - A commitment is immutable, and there is one a miner and window.
//! - A call outside of its phase fails and changes nothing.
//! - Two reveals of one payload: the earlier commitment stands, whichever is revealed first.
//! - A participant that registers takes part from the next window on; a slot's new holder inherits nothing.
//! - A change of settings never affects a window that is open.
//! - The run's account holds what is claimable and carried, and the foundation, at least.
//! - Successful calls of a window's work (calls 7 to 11) are free; failing ones are paid for.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod types;

mod registration;
mod runs;
mod validators;

mod submission;

mod window;

pub mod settlement;

pub mod emission;
mod emission_source;

mod view;

#[cfg(any(feature = "try-runtime", test))]
mod try_state;

pub mod weights;

#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;

pub use pallet::*;
pub use types::*;
pub use weights::WeightInfo;

/// A run of a runtime.
pub type RunOf<T> = Run<<T as frame_system::Config>::AccountId>;
/// A miner of a runtime.
pub type MinerOf<T> = Miner<<T as frame_system::Config>::AccountId>;
/// A validator of a runtime.
pub type ValidatorOf<T> = Validator<<T as frame_system::Config>::AccountId>;

#[frame_support::pallet]
pub mod pallet {
    use alloc::{boxed::Box, vec::Vec};

    use frame_support::{
        pallet_prelude::*,
        traits::{fungible, EnsureOrigin},
        weights::WeightMeter,
        PalletId,
    };
    use frame_system::pallet_prelude::*;
    use protocol::{
        commitment::Opening, fixed::Q32, settings::Settings, AccountBytes, BlockNumber, Hash,
        Planck, RunId, Uid, ValidatorIndex, Window,
    };

    use crate::{emission_source::EmissionSource, types::*, WeightInfo};

    /// The pallet.
    #[pallet::pallet]
    pub struct Pallet<T>(_);

    /// What the pallet needs of a runtime.
    #[pallet::config]
    pub trait Config:
        frame_system::Config<AccountId: Into<AccountBytes>, Hash: Into<Hash>>
    {
        /// The currency of bonds, stakes and pay.
        type Currency: fungible::Mutate<Self::AccountId>
            + fungible::hold::Mutate<Self::AccountId, Reason = Self::RuntimeHoldReason>
            + fungible::Inspect<Self::AccountId, Balance = Planck>;

        /// The runtime's reasons of holds.
        type RuntimeHoldReason: From<HoldReason>;

        /// Who may create a run, and the account that owns it.
        type CreateOrigin: EnsureOrigin<Self::RuntimeOrigin, Success = Self::AccountId>;

        /// Where the emission comes from.
        type EmissionSource: EmissionSource<Self::AccountId>;

        /// Derives each run's account.
        #[pallet::constant]
        type PalletId: Get<PalletId>;

        /// Most runs, as every block looks at each of them.
        #[pallet::constant]
        type RunsMax: Get<u32>;

        /// Windows after which the rows of a window are removed; at least 3.
        #[pallet::constant]
        type HistoryWindows: Get<Window>;

        /// Windows between `set_params` and the first window under the new settings; at least 1.
        #[pallet::constant]
        type AdminDelayWindows: Get<Window>;

        /// The weights of calls and hooks.
        type WeightInfo: WeightInfo;
    }

    /// Why the pallet holds an account's money.
    #[pallet::composite_enum]
    pub enum HoldReason {
        /// A registered miner's bond.
        #[codec(index = 0)]
        MinerBond,
        /// A registered validator's stake.
        #[codec(index = 1)]
        ValidatorStake,
    }

    // Identifiers and indices are given out by the chain, so that Twox64 cannot be attacked; keys
    // that somebody chooses (accounts, payload roots) are hashed with Blake2.

    /// The identifier of the next run. Written by `create_run`.
    #[pallet::storage]
    pub type NextRunId<T> = StorageValue<_, RunId, ValueQuery>;

    /// The runs. Written by `create_run` and at the boundaries of windows; at most
    /// [`Config::RunsMax`].
    #[pallet::storage]
    pub type Runs<T: Config> = CountedStorageMap<_, Twox64Concat, RunId, Run<T::AccountId>>;

    /// The element counts of a run's tensors. Written once, by `create_run`.
    #[pallet::storage]
    pub type Layouts<T> = StorageMap<_, Twox64Concat, RunId, LayoutVec>;

    /// Settings that replace a run's at a coming window. Written by `set_params`, removed when they
    /// are applied; at most one a run.
    #[pallet::storage]
    pub type PendingSettings<T> = StorageMap<_, Twox64Concat, RunId, ScheduledSettings>;

    /// The miners by slot. Written by registration and settlement, removed by `deregister_miner`; at
    /// most `uid_max` a run.
    #[pallet::storage]
    pub type Miners<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, Uid, Miner<T::AccountId>>;

    /// The slot of a miner's hot key; the inverse of [`Miners`].
    #[pallet::storage]
    pub type MinerUids<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Blake2_128Concat, T::AccountId, Uid>;

    /// Which miner slots are taken; the keys of [`Miners`] as bits.
    #[pallet::storage]
    pub type MinerSlots<T> = StorageMap<_, Twox64Concat, RunId, Slots, ValueQuery>;

    /// The validators by slot. Written by registration, `attest` and settlement, removed by
    /// `deregister_validator`; at most [`VALIDATORS_MAX`] a run.
    #[pallet::storage]
    pub type Validators<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        RunId,
        Twox64Concat,
        ValidatorIndex,
        Validator<T::AccountId>,
    >;

    /// The slot of a validator's hot key; the inverse of [`Validators`].
    #[pallet::storage]
    pub type ValidatorIndices<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Blake2_128Concat, T::AccountId, ValidatorIndex>;

    /// Which validator slots are taken; the keys of [`Validators`] as bits.
    #[pallet::storage]
    pub type ValidatorSlots<T> = StorageMap<_, Twox64Concat, RunId, Slots, ValueQuery>;

    /// How peers reach a participant, by hot key. Written by `announce`, removed when the
    /// participant leaves; at most one for each of them.
    #[pallet::storage]
    pub type Announcements<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Blake2_128Concat, T::AccountId, Announcement>;

    /// What the chain fixed in each window. Written at the boundaries of the window and by its
    /// settlement, removed [`Config::HistoryWindows`] later.
    #[pallet::storage]
    pub type Windows<T> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, Window, WindowRecord>;

    /// The commitments made in a window so far: the order of the next one. Removed with the window.
    #[pallet::storage]
    pub type CommitCounts<T> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, Window, u32, ValueQuery>;

    /// The commitments of a window by uid, immutable. Written by `commit_update`, removed with the
    /// window; at most one a slot.
    #[pallet::storage]
    pub type Commitments<T> = StorageNMap<
        _,
        (NMapKey<Twox64Concat, RunId>, NMapKey<Twox64Concat, Window>, NMapKey<Twox64Concat, Uid>),
        Commitment,
    >;

    /// The reveals of a window by uid. Written by `reveal_update`, which also removes a copy when the
    /// original is revealed after it; removed with the window.
    #[pallet::storage]
    pub type Reveals<T> = StorageNMap<
        _,
        (NMapKey<Twox64Concat, RunId>, NMapKey<Twox64Concat, Window>, NMapKey<Twox64Concat, Uid>),
        Reveal,
    >;

    /// Who revealed a payload in a window; the inverse of [`Reveals`].
    #[pallet::storage]
    pub type PayloadOwners<T> = StorageNMap<
        _,
        (
            NMapKey<Twox64Concat, RunId>,
            NMapKey<Twox64Concat, Window>,
            NMapKey<Blake2_128Concat, Hash>,
        ),
        Uid,
    >;

    /// The attestations of a window by validator. Written by `attest`, removed with the window.
    #[pallet::storage]
    pub type Attestations<T> = StorageNMap<
        _,
        (
            NMapKey<Twox64Concat, RunId>,
            NMapKey<Twox64Concat, Window>,
            NMapKey<Twox64Concat, ValidatorIndex>,
        ),
        Attestation,
    >;

    /// The validators' commitments to their evaluations of a window. Written by `commit_scores`,
    /// removed with the window.
    #[pallet::storage]
    pub type ScoreCommitments<T> = StorageNMap<
        _,
        (
            NMapKey<Twox64Concat, RunId>,
            NMapKey<Twox64Concat, Window>,
            NMapKey<Twox64Concat, ValidatorIndex>,
        ),
        Hash,
    >;

    /// The validators' evaluations of a window. Written by `reveal_scores`, removed with the window.
    #[pallet::storage]
    pub type ScoreReveals<T> = StorageNMap<
        _,
        (
            NMapKey<Twox64Concat, RunId>,
            NMapKey<Twox64Concat, Window>,
            NMapKey<Twox64Concat, ValidatorIndex>,
        ),
        ScoreReveal,
    >;

    /// The settlement being written, if any. Written and removed by `on_poll` and `on_idle`; at most
    /// one a run.
    #[pallet::storage]
    pub type Settlements<T: Config> = StorageMap<_, Twox64Concat, RunId, Settlement<T::AccountId>>;

    /// The pages of the settlement being written, each removed when it is paid.
    #[pallet::storage]
    pub type SettlementPages<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        RunId,
        Twox64Concat,
        u32,
        BoundedVec<MinerPay<T::AccountId>, ConstU32<PAGE_LEN>>,
    >;

    /// What a run owes to an account, by the window in which it was earned. Written by settlement,
    /// removed by `claim`. A full list joins its two oldest windows under the later of the two.
    #[pallet::storage]
    pub type Claims<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        RunId,
        Blake2_128Concat,
        T::AccountId,
        ClaimList,
        ValueQuery,
    >;

    /// Where every unit of a run's emission is. Written by settlement and `claim`.
    #[pallet::storage]
    pub type Ledgers<T> = StorageMap<_, Twox64Concat, RunId, Ledger, ValueQuery>;

    /// What happened, with the numbers. The fields are named after the records they come from.
    #[allow(missing_docs)]
    #[pallet::event]
    #[pallet::generate_deposit(pub(crate) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A run was created.
        RunCreated { run: RunId, owner: T::AccountId },
        /// A miner registered; it takes part from the next window on.
        MinerRegistered { run: RunId, uid: Uid, hot: T::AccountId, cold: T::AccountId },
        /// A miner left and has its bond back.
        MinerLeft { run: RunId, uid: Uid },
        /// A validator registered; it takes part from the next window on.
        ValidatorRegistered {
            run: RunId,
            index: ValidatorIndex,
            hot: T::AccountId,
            cold: T::AccountId,
            stake: Planck,
        },
        /// A validator's stake grew to `stake`.
        StakeAdded { run: RunId, index: ValidatorIndex, stake: Planck },
        /// A validator left and has its stake back.
        ValidatorLeft { run: RunId, index: ValidatorIndex },
        /// A participant said how to reach it.
        Announced { run: RunId, hot: T::AccountId },
        /// A window began.
        WindowOpened { run: RunId, window: Window, seed: Hash },
        /// A miner committed to an update.
        UpdateCommitted { run: RunId, window: Window, uid: Uid, hash: Hash },
        /// A miner opened its commitment.
        UpdateRevealed { run: RunId, window: Window, uid: Uid, payload_root: Hash, byte_len: u64 },
        /// The reveal of `uid` was removed: `original` committed to the same payload before.
        CopyRefused { run: RunId, window: Window, uid: Uid, original: Uid },
        /// A validator attested.
        Attested { run: RunId, window: Window, index: ValidatorIndex, state_root: Hash },
        /// The accepted set is fixed. Without a state root it is empty.
        WindowAccepted { run: RunId, window: Window, state_root: Option<Hash>, accepted: Vec<Uid> },
        /// A validator committed to its evaluations.
        ScoresCommitted { run: RunId, window: Window, index: ValidatorIndex, hash: Hash },
        /// A validator revealed its evaluations.
        ScoresRevealed { run: RunId, window: Window, index: ValidatorIndex, count: u32 },
        /// What a window meant for a miner.
        MinerScored {
            run: RunId,
            window: Window,
            uid: Uid,
            own: Option<Q32>,
            random: Option<Q32>,
            standing_value: Q32,
            share: Q32,
            paid: Planck,
        },
        /// What a window meant for a validator.
        ValidatorPaid {
            run: RunId,
            window: Window,
            index: ValidatorIndex,
            agreement: Q32,
            paid: Planck,
        },
        /// A window was settled: what was minted for it, what was credited to whom, and what is carried.
        WindowSettled {
            run: RunId,
            window: Window,
            minted: Planck,
            owner: Planck,
            miners: Planck,
            validators: Planck,
            carried: Planck,
        },
        /// A window pays nobody; its pot is carried.
        WindowVoid { run: RunId, window: Window, error: VoidReason },
        /// Pay was transferred.
        Claimed { run: RunId, account: T::AccountId, amount: Planck },
        /// Other settings will be in force from `window` on.
        SettingsScheduled { run: RunId, window: Window },
        /// Other settings are in force.
        SettingsApplied { run: RunId, window: Window },
    }

    /// Why a call was refused, and what its caller can change.
    #[pallet::error]
    pub enum Error<T> {
        /// There is no run of this number; the event `RunCreated` names those that exist.
        RunUnknown,
        /// The chain has as many runs as it may have; none can be created.
        TooManyRuns,
        /// The boundaries of a window are out of order; see `protocol::window::Schedule`.
        ScheduleInvalid,
        /// A setting is out of its range; `Settings::validate` says which one.
        SettingOutOfRange,
        /// The outer rate's decay must not begin in its warm-up; choose a later `decay_start`.
        DecayInWarmUp,
        /// All miners of a window together need more samples than the data set has.
        TooFewSamples,
        /// The parts of the emission must sum to one million.
        EmissionSumWrong,
        /// A layout needs one tensor at least, none of them empty, and less than 2^32 chunks.
        LayoutInvalid,
        /// A run must start in a block to come; choose a later `start_block`.
        StartsInThePast,
        /// Schedule, `keep`, `model_seed` and `genesis_state_root` cannot change, `uid_max` cannot
        /// fall; leave them as they are.
        SettingImmutable,
        /// Only the run's owner may do this.
        NotOwner,
        /// The hot key already takes part in this run; use another one.
        HotKeyTaken,
        /// All slots of the run are taken; try again when somebody has left.
        NoFreeSlot,
        /// There is no such miner; look up the uid by its hot key.
        MinerUnknown,
        /// There is no such validator; look up the index by its hot key.
        ValidatorUnknown,
        /// Only the participant's cold key may do this.
        NotColdKey,
        /// The stake is below the run's `validator_stake_min`; stake more.
        StakeTooLow,
        /// A validator's stake must be below 2^64 planck; stake less.
        StakeTooHigh,
        /// There is work of this window under the participant's key; leave in the next window,
        /// before committing to anything in it.
        WorkOpen,
        /// The hot key takes part in this run neither as miner nor as validator.
        HotKeyUnknown,
        /// The run's first block has not come; try again from `start_block` on.
        RunNotStarted,
        /// The participant takes part from a later window on.
        NotYetActive,
        /// This is not the window that the call's phase concerns now; look at `phase_at`.
        WrongWindow,
        /// The window's phase does not allow the call now; look at `phase_at`.
        WrongPhase,
        /// There already is a commitment of this window; it cannot be replaced.
        AlreadyCommitted,
        /// There is no commitment of this window to reveal.
        NotCommitted,
        /// The commitment of this window has been revealed.
        AlreadyRevealed,
        /// What was revealed does not hash to the commitment; reveal what was committed, with its salt.
        OpeningMismatch,
        /// The payload must have the layout's number of chunks.
        ChunkCountWrong,
        /// No payload of the layout is empty or this long.
        ByteLenOutOfRange,
        /// Show exactly the chunks that `challenged_chunks` names, in ascending order.
        ChunksNotChallenged,
        /// A chunk with its proof does not lead to the payload root.
        ProofInvalid,
        /// A chunk does not decode; encode updates with `protocol::update`.
        ChunkMalformed,
        /// Another miner committed to this payload before; train one of your own.
        CopiedPayload,
        /// The bitmap has more bytes than the run has slots; leave out those behind the last uid.
        BitmapTooLong,
        /// The validator has attested in this window; it cannot again.
        AlreadyAttested,
        /// The account can claim nothing yet; see `claim_delay_windows`.
        NothingClaimable,
        /// A record that the chain itself keeps is missing or a sum does not fit; please report it.
        Internal,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(now: BlockNumberFor<T>) -> Weight {
            Self::do_boundaries(now)
        }

        fn on_poll(_now: BlockNumberFor<T>, meter: &mut WeightMeter) {
            Self::do_poll(meter);
        }

        fn on_idle(_now: BlockNumberFor<T>, remaining: Weight) -> Weight {
            Self::do_idle(remaining)
        }

        fn integrity_test() {
            Self::check_constants();
        }

        #[cfg(feature = "try-runtime")]
        fn try_state(_now: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
            Self::do_try_state()
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Creates a run.
        ///
        /// ## Dispatch Origin
        ///
        /// [`Config::CreateOrigin`]; the account becomes the owner and pays the existential deposit
        /// that keeps the run's account alive.
        ///
        /// ## Errors
        ///
        /// What [`Settings::validate`] refuses, an invalid layout, a start that is not in the future,
        /// and too many runs.
        #[pallet::call_index(0)]
        #[pallet::weight(T::WeightInfo::create_run(layout.len() as u32))]
        pub fn create_run(
            origin: OriginFor<T>,
            settings: Box<Settings>,
            layout: LayoutVec,
        ) -> DispatchResult {
            let owner = T::CreateOrigin::ensure_origin(origin)?;
            Self::do_create_run(owner, *settings, layout).map(|_| ())
        }

        /// Registers a miner with hot key `hot`, which takes part from the next window on.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the cold key; the run's `miner_bond` is held on it until the miner leaves.
        ///
        /// ## Errors
        ///
        /// An unknown run, a hot key that takes part already, no free slot, too little money.
        #[pallet::call_index(1)]
        #[pallet::weight(T::WeightInfo::register_miner())]
        pub fn register_miner(
            origin: OriginFor<T>,
            run: RunId,
            hot: T::AccountId,
        ) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::do_register_miner(cold, run, hot).map(|_| ())
        }

        /// Frees a miner's slot and releases its bond. Pay that is already claimable stays so; a
        /// window that is not settled yet pays it nothing.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the miner's cold key.
        ///
        /// ## Errors
        ///
        /// An unknown miner, another's miner, a commitment in the current window.
        #[pallet::call_index(2)]
        #[pallet::weight(T::WeightInfo::deregister_miner())]
        pub fn deregister_miner(origin: OriginFor<T>, run: RunId, uid: Uid) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::do_deregister_miner(cold, run, uid)
        }

        /// Registers a validator with hot key `hot`, which takes part from the next window on.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the cold key; `stake` is held on it until the validator leaves.
        ///
        /// ## Errors
        ///
        /// As [`Self::register_miner`], and a stake out of range.
        #[pallet::call_index(3)]
        #[pallet::weight(T::WeightInfo::register_validator())]
        pub fn register_validator(
            origin: OriginFor<T>,
            run: RunId,
            hot: T::AccountId,
            stake: Planck,
        ) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::do_register_validator(cold, run, hot, stake).map(|_| ())
        }

        /// Adds to a validator's stake; it counts at once.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the validator's cold key.
        ///
        /// ## Errors
        ///
        /// An unknown validator, another's validator, too high a stake, too little money.
        #[pallet::call_index(4)]
        #[pallet::weight(T::WeightInfo::add_stake())]
        pub fn add_stake(
            origin: OriginFor<T>,
            run: RunId,
            index: ValidatorIndex,
            amount: Planck,
        ) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::do_add_stake(cold, run, index, amount)
        }

        /// Frees a validator's slot and releases its stake; a window that is not settled yet pays it
        /// nothing.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the validator's cold key.
        ///
        /// ## Errors
        ///
        /// An unknown validator, another's validator, an attestation or a score commitment made in
        /// the current window.
        #[pallet::call_index(5)]
        #[pallet::weight(T::WeightInfo::deregister_validator())]
        pub fn deregister_validator(
            origin: OriginFor<T>,
            run: RunId,
            index: ValidatorIndex,
        ) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::do_deregister_validator(cold, run, index)
        }

        /// Says how peers reach the caller; replaces what it said before.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the hot key of a miner or validator.
        ///
        /// ## Errors
        ///
        /// A key that does not take part in the run.
        #[pallet::call_index(6)]
        #[pallet::weight(T::WeightInfo::announce())]
        pub fn announce(
            origin: OriginFor<T>,
            run: RunId,
            peer_id: PeerId,
            addresses: Addresses,
        ) -> DispatchResult {
            let hot = ensure_signed(origin)?;
            Self::do_announce(hot, run, peer_id, addresses)
        }

        /// Commits to an update of the current window; free if it succeeds.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by a miner's hot key.
        ///
        /// ## Errors
        ///
        /// Another window or phase, a miner that takes part later, a second commitment.
        #[pallet::call_index(7)]
        #[pallet::weight(T::WeightInfo::commit_update())]
        pub fn commit_update(
            origin: OriginFor<T>,
            run: RunId,
            window: Window,
            hash: Hash,
        ) -> DispatchResultWithPostInfo {
            let hot = ensure_signed(origin)?;
            Self::do_commit_update(hot, run, window, hash)?;
            Ok(Pays::No.into())
        }

        /// Opens the caller's commitment and shows the chunks that the chain asks for; free if it
        /// succeeds.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by a miner's hot key.
        ///
        /// ## Errors
        ///
        /// Another window or phase, no commitment, a second reveal, an opening that does not fit the
        /// commitment or the layout, other chunks than those asked for, an invalid proof, a chunk
        /// that does not decode, a payload that somebody else committed to before.
        #[pallet::call_index(8)]
        #[pallet::weight(T::WeightInfo::reveal_update(chunks.len() as u32))]
        pub fn reveal_update(
            origin: OriginFor<T>,
            run: RunId,
            window: Window,
            opening: Opening,
            chunks: RevealedChunks,
        ) -> DispatchResultWithPostInfo {
            let hot = ensure_signed(origin)?;
            Self::do_reveal_update(hot, run, window, opening, chunks)?;
            Ok(Pays::No.into())
        }

        /// Says which revealed payloads the caller could fetch and found valid, and which state it
        /// holds; free if it succeeds.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by a validator's hot key.
        ///
        /// ## Errors
        ///
        /// Another window or phase, a validator that takes part later, a second attestation, a bitmap
        /// longer than the run's slots.
        #[pallet::call_index(9)]
        #[pallet::weight(T::WeightInfo::attest())]
        pub fn attest(
            origin: OriginFor<T>,
            run: RunId,
            window: Window,
            bitmap: Bitmap,
            state_root: Hash,
        ) -> DispatchResultWithPostInfo {
            let hot = ensure_signed(origin)?;
            Self::do_attest(hot, run, window, bitmap, state_root)?;
            Ok(Pays::No.into())
        }

        /// Commits to the evaluations of the window before the current one; free if it succeeds.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by a validator's hot key.
        ///
        /// ## Errors
        ///
        /// Another window or phase, a validator that took no part in it, a second commitment.
        #[pallet::call_index(10)]
        #[pallet::weight(T::WeightInfo::commit_scores())]
        pub fn commit_scores(
            origin: OriginFor<T>,
            run: RunId,
            window: Window,
            hash: Hash,
        ) -> DispatchResultWithPostInfo {
            let hot = ensure_signed(origin)?;
            Self::do_commit_scores(hot, run, window, hash)?;
            Ok(Pays::No.into())
        }

        /// Reveals the evaluations that the caller committed to; free if it succeeds. The salt becomes
        /// part of the next window's seed.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by a validator's hot key.
        ///
        /// ## Errors
        ///
        /// Another window or phase, no commitment, a second reveal, evaluations and salt that do not
        /// fit the commitment.
        #[pallet::call_index(11)]
        #[pallet::weight(T::WeightInfo::reveal_scores(evaluations.len() as u32))]
        pub fn reveal_scores(
            origin: OriginFor<T>,
            run: RunId,
            window: Window,
            evaluations: Evaluations,
            salt: Hash,
        ) -> DispatchResultWithPostInfo {
            let hot = ensure_signed(origin)?;
            Self::do_reveal_scores(hot, run, window, evaluations, salt)?;
            Ok(Pays::No.into())
        }

        /// Transfers to `account` what it earned and may claim by now.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody.
        ///
        /// ## Errors
        ///
        /// An unknown run, nothing claimable, an amount that cannot open an account.
        #[pallet::call_index(12)]
        #[pallet::weight(T::WeightInfo::claim())]
        pub fn claim(origin: OriginFor<T>, run: RunId, account: T::AccountId) -> DispatchResult {
            ensure_signed(origin)?;
            Self::do_claim(run, account).map(|_| ())
        }

        /// Replaces the run's settings from the window on that is [`Config::AdminDelayWindows`] after
        /// the current one. Settings that wait already are replaced.
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the run's owner.
        ///
        /// ## Errors
        ///
        /// What [`Settings::validate`] refuses, and a change of what cannot change.
        #[pallet::call_index(13)]
        #[pallet::weight(T::WeightInfo::set_params())]
        pub fn set_params(
            origin: OriginFor<T>,
            run: RunId,
            settings: Box<Settings>,
        ) -> DispatchResult {
            let owner = ensure_signed(origin)?;
            Self::do_set_params(owner, run, *settings)
        }
    }

    #[pallet::view_functions]
    impl<T: Config> Pallet<T> {
        /// All participants of a run.
        pub fn metagraph(run: RunId) -> Option<Metagraph<T::AccountId>> {
            Self::view_metagraph(run)
        }

        /// The settings in force.
        pub fn settings(run: RunId) -> Option<Settings> {
            Runs::<T>::get(run).map(|run| run.settings)
        }

        /// What the chain fixed in a window; `None` when it is gone or has not begun.
        pub fn window_info(run: RunId, window: Window) -> Option<WindowRecord> {
            Windows::<T>::get(run, window)
        }

        /// The current window and the seed that assigns its samples.
        pub fn assignment_seed(run: RunId) -> Option<(Window, Hash)> {
            Self::view_assignment_seed(run)
        }

        /// The accepted set of a window; `None` before it is fixed.
        pub fn accepted_set(run: RunId, window: Window) -> Option<Vec<Uid>> {
            Self::view_accepted_set(run, window)
        }
    }

    impl<T: Config> Pallet<T> {
        /// The number of the current block.
        pub(crate) fn now() -> BlockNumber {
            use sp_runtime::SaturatedConversion;
            frame_system::Pallet::<T>::block_number().saturated_into()
        }
    }
}
