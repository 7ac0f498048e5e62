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
//! - One emission a chain, which governance alone divides among runs; a run's settings split what it is given.
//! - One ledger a run: every unit that came in is paid, claimable, carried, unspent, slashed or burned.
//!
//! # Design
//!
//! All state is keyed by [`RunId`](protocol::RunId). A hot key signs the work of each window, a cold
//! key owns bond, stake and pay. The boundaries of a window come from
//! [`phase_at`](protocol::window::phase_at) alone:
//!
//! ```text
//! |<------------------------ window w ------------------------>|<-------------- window w+1 -------------
//! | commit_update     | reveal_update | commit_, reveal_attestation |  | commit_scores | reveal_scores | settle w
//! 0               commit_end      reveal_end                attest_end                              score_reveal_end
//! ^ seed, permits     ^ challenge seed                       ^ state root, accepted set
//! ```
//!
//! `on_initialize` crosses the boundaries that are due ([`RunSchedule`]) in a quarter of a block at
//! most; [`settlement`] advances in `on_poll` with half of a
//! block at most and in `on_idle` with the rest of it, step by step ([`Stage`]), and then removes the
//! rows of windows that are [`Config::HistoryWindows`] old.
//!
//! # One scenario
//!
//! `create_run`; a cold key calls `register_miner` with its hot key's consent, another `register_validator`. In window
//! w the miner's hot key calls `commit_update` and, after `commit_end`, `reveal_update` with the
//! chunks that [`challenged_chunks`](protocol::commitment::challenged_chunks) names; the validators
//! `commit_attestation` and `reveal_attestation`. In w+1 they `commit_scores` and `reveal_scores`. Then the window is settled, and after
//! `claim_delay_windows` anybody may call `claim` for the miner's cold key. [`scenario`] plays it, and every other call.
//!
//! # Properties
//!
//! - A commitment is immutable, and there is one a miner and window.
//! - A call outside of its phase fails and changes nothing.
//! - Two reveals of one payload: the earlier commitment stands, whichever is revealed first.
//! - A participant that registers takes part from the next window on; a slot's new holder inherits nothing.
//! - No key works for a cold key that it did not consent to; no hot key can keep its cold key from leaving.
//! - A change of settings never affects a window that is open.
//! - All runs together never get more than [`Config::Emission`] gives; a run without a weight gets nothing of it.
//! - What owner, miners or validators did not earn is carried for them and for nobody else.
//! - Pay can be claimed from the window on that was fixed when it was earned, whatever the settings become.
//! - The run's account holds what is claimable, carried and unspent, and the foundation, at least.
//! - All stake that counts in a window is that of its permits, taken in its first block; a change in it counts later.
//! - The calls of a window's work are free, come before every tip and cannot fail in a block ([`extension`]).
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used
)]

extern crate alloc;

pub mod types;

mod registration;
mod runs;
mod validators;

mod lifecycle;
mod reap;

mod schedule;
mod work;

mod stake;

mod slashing;

mod proofs;

mod announcement;
mod changes;
mod disputes;
mod keys;

mod submission;

mod window;

pub mod extension;
pub mod randomness;

pub mod settlement;

mod emission;
pub mod emission_schedule;

pub mod config_preludes;
pub mod migrations;

pub mod view;

pub mod scenario;

#[cfg(any(feature = "try-runtime", test))]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "no block runs these checks, and a sum that does not fit should fail them"
)]
mod try_state;

#[allow(
    clippy::arithmetic_side_effects,
    reason = "costs of some nanoseconds and bytes for each of at most 2^16 things, in u64"
)]
pub mod weights;

#[cfg(feature = "runtime-benchmarks")]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "no chain runs a benchmark: one that fails should"
)]
mod benchmarking;

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should"
)]
mod mock;
#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    reason = "a test that fails should"
)]
mod tests;

#[cfg(feature = "runtime-benchmarks")]
pub use benchmarking::BenchmarkProof;
pub use pallet::*;
pub use types::*;
pub use weights::WeightInfo;

/// The next boundaries of a runtime's runs.
pub type Agenda<T> = frame_support::BoundedVec<Due, <T as Config>::RunsMax>;
/// A run of a runtime.
pub type RunOf<T> = Run<<T as frame_system::Config>::AccountId>;
/// A miner of a runtime.
pub type MinerOf<T> = Miner<<T as frame_system::Config>::AccountId>;
/// Runs and accounts whose pay one call claims.
pub type ClaimBatch<T> = frame_support::BoundedVec<
    (protocol::RunId, <T as frame_system::Config>::AccountId),
    frame_support::traits::ConstU32<CLAIM_BATCH_MAX>,
>;
/// A validator of a runtime.
pub type ValidatorOf<T> = Validator<<T as frame_system::Config>::AccountId>;
/// The money behind a validator of a runtime.
pub type StakePoolOf<T> = StakePool<<T as frame_system::Config>::AccountId>;
/// A slash that waits in a runtime.
pub type UnappliedSlashOf<T> = UnappliedSlash<<T as frame_system::Config>::AccountId>;

#[frame_support::pallet]
#[allow(clippy::expect_used, clippy::unreachable, reason = "what the macro writes")]
pub mod pallet {
    use alloc::{boxed::Box, vec::Vec};

    use frame_support::{
        pallet_prelude::*,
        traits::{fungible, EnsureOrigin, Footprint, Randomness},
        weights::WeightMeter,
        PalletId,
    };
    use frame_system::pallet_prelude::*;
    use protocol::{
        commitment::Opening,
        consensus::Evaluation,
        consent::Role,
        emission::{Accrual, Pots, RunWeight},
        entry::{EntryPrice, Seat},
        fault::{ProvenFault, Verdict},
        fixed::Q32,
        settings::Settings,
        window::Boundaries,
        AccountBytes, BlockNumber, Hash, Planck, RunId, Uid, ValidatorIndex, Window,
    };
    use sp_runtime::traits::{BlockNumberProvider, Convert, IdentifyAccount, Verify};

    use crate::{emission_schedule::EmissionSchedule, types::*, ClaimBatch, WeightInfo};

    /// The version of the records in storage: [`migrations`](crate::migrations) leads to it from those before.
    pub const STORAGE_VERSION: StorageVersion = StorageVersion::new(3);

    /// The pallet.
    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    /// What the pallet needs of a runtime. [`config_preludes`](crate::config_preludes) has values for all that does not
    /// depend on the chain, docs/INTEGRATING.md a page about all of it.
    #[pallet::config(with_default)]
    pub trait Config:
        frame_system::Config<AccountId: Into<AccountBytes>, Hash: Into<Hash>>
    {
        /// The clock by which windows are counted: `frame_system::Pallet` for the chain's own
        /// blocks, or a relay chain's, whose number may jump. Numbers are below 2^32.
        #[pallet::no_default]
        type BlockNumberProvider: BlockNumberProvider<BlockNumber: TryInto<BlockNumber>>;

        /// Blocks of [`Config::BlockNumberProvider`] for each block of this chain: 1 for its own
        /// clock, 2 for a parachain of 12 s by a relay chain of 6 s. A phase in which the chain
        /// made less than half of the blocks that this promises excuses everybody. Mainnet: 1.
        #[pallet::constant]
        type ClockPerBlock: Get<BlockNumber>;

        /// The currency of bonds, stakes and pay.
        #[pallet::no_default]
        type Currency: fungible::Mutate<Self::AccountId>
            + fungible::hold::Mutate<Self::AccountId, Reason = Self::RuntimeHoldReason>
            + fungible::Balanced<Self::AccountId>
            + fungible::BalancedHold<Self::AccountId, Reason = Self::RuntimeHoldReason>
            + fungible::Inspect<Self::AccountId, Balance = Planck>;

        /// The runtime's reasons of holds.
        #[pallet::no_default_bounds]
        type RuntimeHoldReason: From<HoldReason>;

        /// Who may create a run, and the account that owns it. Mainnet: anybody who signs, since the deposit and
        /// [`Config::RunsMax`] keep the number down; or the chain's governance, where runs are few and chosen.
        #[pallet::no_default]
        type CreateOrigin: EnsureOrigin<Self::RuntimeOrigin, Success = Self::AccountId>;

        /// The chain's governance: may do to a run what its owner alone may not. Mainnet: two thirds of a council, or a
        /// referendum's track; never one key.
        #[pallet::no_default]
        type AdminOrigin: EnsureOrigin<Self::RuntimeOrigin>;

        /// A hot key's signature, with which it consents to work for a cold key; `MultiSignature` wherever accounts are
        /// public keys.
        #[pallet::no_default_bounds]
        type HotKeyProof: Parameter + Verify<Signer: IdentifyAccount<AccountId = Self::AccountId>>;

        /// The chain's one emission, of which runs get a part by the weights that [`Config::AdminOrigin`] sets: planck a
        /// block. A mint with a cap where money is new ([`HalvingMint`](crate::emission_schedule::HalvingMint); on
        /// mainnet 0.25 UNIT a block, halved every four years), a pot where somebody pays, `()` where runs live on their
        /// sponsors alone.
        #[pallet::no_default_bounds]
        type Emission: EmissionSchedule<Self::AccountId>;

        /// Derives each run's account: eight bytes that no other pallet of the runtime has. Never to be changed, as the
        /// money would stay behind.
        #[pallet::constant]
        type PalletId: Get<PalletId>;

        /// Most runs. The schedule of all of them is one value that every block reads: 25 bytes for
        /// each, and all of them may have a boundary in one block, of which a quarter must hold them. Mainnet: 16.
        #[pallet::constant]
        type RunsMax: Get<u32>;

        /// Windows after which the rows of a window are removed; at least 3, and what participants' software keeps
        /// ([`HISTORY_WINDOWS`]) unless that is changed, too. Mainnet: 8.
        #[pallet::constant]
        type HistoryWindows: Get<Window>;

        /// What the owner of a run has held of it while there is the run, in planck, by the bytes of the layout. So much
        /// that it is dear to take all of [`Config::RunsMax`] for a while. Mainnet: 1,000 UNIT and 0.1 UNIT a byte.
        type RunDeposit: Convert<Footprint, Planck>;

        /// The latest start of a run, in blocks of [`Config::BlockNumberProvider`] after its
        /// creation. Mainnet: a month.
        #[pallet::constant]
        type StartHorizon: Get<BlockNumber>;

        /// Windows without an accepted update after which anybody may close a run. Mainnet: as many
        /// as a month has; 360 of two hours.
        #[pallet::constant]
        type IdleWindows: Get<Window>;

        /// Windows after a run's last one before it may be removed, so that everybody can claim and
        /// dispute; at least [`Config::DisputeWindows`]. Mainnet: 16.
        #[pallet::constant]
        type ReapDelayWindows: Get<Window>;

        /// Windows between an owner's announcement (other settings, a pause, the end, a hand-over)
        /// and its effect; at least 1. Mainnet: as long as participants need to leave; 12 of two hours.
        #[pallet::constant]
        type AdminDelayWindows: Get<Window>;

        /// What nobody knows before the block in front of the current one, and that block's author at most chooses
        /// among few. Seeds and challenges come from it, so that what was decided earlier (as BABE's randomness of an
        /// epoch ago) will not do. [`InsecureParentHash`](crate::randomness::InsecureParentHash) is for development:
        /// docs/decisions/0020 counts what an author can do with each.
        #[pallet::no_default]
        type Randomness: Randomness<Self::Hash, BlockNumberFor<Self>>;

        /// The least that a hot key has at stake, in planck, for its work to be free: a miner's bond or a validator's
        /// stake. Others pay fees. So much that nobody registers keys only to fill blocks for nothing: on a main
        /// network about what a full block costs in fees.
        #[pallet::constant]
        type FreeWorkMin: Get<Planck>;

        /// Bytes of free work in a block, at most. The rest of a block's length is left to transactions that pay, so
        /// that half of the block is a good value.
        #[pallet::constant]
        type WorkBytesMax: Get<u32>;

        /// Windows in which a fault can still cost its author money, from the window of the fault to that in which the slash
        /// is applied; every run's stake unbonds for as long at least. More protects the run better and locks stakes longer.
        /// For a main network with windows of two hours: 12.
        #[pallet::constant]
        type DisputeWindows: Get<Window>;

        /// Windows between the proof of a fault and its slash, in which [`Config::AdminOrigin`] can cancel it; less than
        /// [`Config::DisputeWindows`] less [`Config::HistoryWindows`]. For a main network with windows of two hours: 2.
        #[pallet::constant]
        type SlashDelayWindows: Get<Window>;

        /// The weights of calls and hooks, as measured on the machine that the chain's authors need at least; those of
        /// [`SubstrateWeight`](crate::weights::SubstrateWeight) until then.
        #[pallet::no_default]
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
        /// The deposit of a run's owner.
        #[codec(index = 2)]
        RunDeposit,
        /// What nominators delegated to a validator, on its pool's account.
        #[codec(index = 4)]
        Delegation,
        /// What an accusation costs if it is false.
        #[codec(index = 6)]
        DisputeBond,
    }

    /// The runs of the chain's first block.
    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// Owner, settings and the element counts of the tensors of each; the owners need money.
        pub runs: Vec<(T::AccountId, Settings, Vec<u64>)>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            for (owner, settings, layout) in &self.runs {
                let created = LayoutVec::try_from(layout.clone())
                    .map_err(|_| Error::<T>::LayoutInvalid.into())
                    .and_then(|layout| {
                        Pallet::<T>::do_create_run(owner.clone(), settings.clone(), layout)
                    });
                assert!(created.is_ok(), "a run of the genesis is refused: {created:?}");
            }
        }
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

    /// A run's settings by version; windows name the version under which they are worked and
    /// settled. Written by `create_run` and when a window opens, removed when no kept window and
    /// not the run names the version.
    #[pallet::storage]
    pub type RunSettings<T> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, SettingsVersion, Settings>;

    /// Each run's next boundary, which is all that `on_initialize` looks at. Written when a
    /// boundary is crossed; one entry a run.
    #[pallet::storage]
    pub type RunSchedule<T: Config> = StorageValue<_, crate::Agenda<T>, ValueQuery>;

    /// The runs for which settlement or removal of rows waits, whose turn is next first. Written by
    /// the boundaries and by `on_poll` and `on_idle`; each run once.
    #[pallet::storage]
    pub type WorkQueue<T: Config> = StorageValue<_, BoundedVec<RunId, T::RunsMax>, ValueQuery>;

    /// Settings that replace a run's at a coming window. Written by `set_params`, removed when they
    /// are applied; at most one a run.
    #[pallet::storage]
    pub type PendingSettings<T> = StorageMap<_, Twox64Concat, RunId, ScheduledSettings>;

    /// Runs that are offered to another owner. Written by `offer_run`, removed by `accept_run`; at
    /// most one a run.
    #[pallet::storage]
    pub type RunOffers<T: Config> = StorageMap<_, Twox64Concat, RunId, Offer<T::AccountId>>;

    /// The miners by slot. Written by registration, `commit_update` and settlement, removed when they leave, are evicted
    /// or have to make room; at most `uid_max` a run.
    #[pallet::storage]
    pub type Miners<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, Uid, Miner<T::AccountId>>;

    /// The slot of a miner's hot key, and of the one in [`NextHotKeys`]; the inverse of both.
    #[pallet::storage]
    pub type MinerUids<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Blake2_128Concat, T::AccountId, Uid>;

    /// Which miner slots are taken; the keys of [`Miners`] as bits.
    #[pallet::storage]
    pub type MinerSlots<T> = StorageMap<_, Twox64Concat, RunId, Slots, ValueQuery>;

    /// The validators by slot. Written by registration, `reveal_attestation` and settlement, removed by
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

    /// The slot of a validator's hot key, and of the one in [`NextHotKeys`]; the inverse of both.
    #[pallet::storage]
    pub type ValidatorIndices<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Blake2_128Concat, T::AccountId, ValidatorIndex>;

    /// The validators' bonds under [`protocol::settings::ConsensusKind::Yuma`]. Written by settlement, removed with the
    /// validator and by the next settlement that leaves it none; at most one a validator.
    #[pallet::storage]
    pub type Bonds<T> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, ValidatorIndex, BondRow>;

    /// Which validator slots are taken; the keys of [`Validators`] as bits.
    #[pallet::storage]
    pub type ValidatorSlots<T> = StorageMap<_, Twox64Concat, RunId, Slots, ValueQuery>;

    /// The identifier of a run's next pool. Written by `register_validator`.
    #[pallet::storage]
    pub type NextPoolId<T> = StorageMap<_, Twox64Concat, RunId, PoolId, ValueQuery>;

    /// The money behind validators. Written with every move of it, removed when the validator has left and nobody has
    /// money in it; each pool was opened with a validator's least stake at least.
    #[pallet::storage]
    pub type Pools<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, PoolId, StakePool<T::AccountId>>;

    /// What nominators have in a pool. Written by `delegate` and `undelegate`, removed with the last withdrawal; each began
    /// with the run's least delegation.
    #[pallet::storage]
    pub type Delegations<T: Config> = StorageNMap<
        _,
        (
            NMapKey<Twox64Concat, RunId>,
            NMapKey<Twox64Concat, PoolId>,
            NMapKey<Blake2_128Concat, T::AccountId>,
        ),
        Delegation,
        ValueQuery,
    >;

    /// What left a pool, by the window in which it did. Written by all that takes money out of a pool, removed when all of it
    /// is withdrawn.
    #[pallet::storage]
    pub type Unbondings<T> = StorageNMap<
        _,
        (
            NMapKey<Twox64Concat, RunId>,
            NMapKey<Twox64Concat, PoolId>,
            NMapKey<Twox64Concat, Window>,
        ),
        Unbonding,
    >;

    /// Which slashes of a run wait. Written by proofs and by `on_poll` and `on_idle`.
    #[pallet::storage]
    pub type SlashQueues<T> = StorageMap<_, Twox64Concat, RunId, SlashQueue, ValueQuery>;

    /// The slashes that wait. Written by proofs, removed when they are applied or cancelled; each has cost a proof.
    #[pallet::storage]
    pub type UnappliedSlashes<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, u32, UnappliedSlash<T::AccountId>>;

    /// The faults of a window that are proven, so that each costs once. Written by proofs, removed with the window.
    #[pallet::storage]
    pub type ProvenFaults<T> = StorageNMap<
        _,
        (NMapKey<Twox64Concat, RunId>, NMapKey<Twox64Concat, Window>, NMapKey<Twox64Concat, Uid>),
        ProvenFault,
    >;

    /// The chunks of payloads that are asked for. Written by `challenge_data`, removed by `answer_data` and `time_out`; each
    /// is bonded.
    #[pallet::storage]
    pub type OpenChallenges<T: Config> = StorageNMap<
        _,
        (NMapKey<Twox64Concat, RunId>, NMapKey<Twox64Concat, Window>, NMapKey<Twox64Concat, Uid>),
        DataChallenges<T::AccountId>,
        ValueQuery,
    >;

    /// How many chunks an account asks for. Written with [`OpenChallenges`].
    #[pallet::storage]
    pub type ChallengeCounts<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Blake2_128Concat, T::AccountId, u32, ValueQuery>;

    /// The evaluations that are disputed, by window, validator and miner. Written by `dispute_evaluation` and the jury,
    /// removed by `close_dispute`; each is bonded.
    #[pallet::storage]
    pub type EvaluationDisputes<T: Config> = StorageNMap<
        _,
        (
            NMapKey<Twox64Concat, RunId>,
            NMapKey<Twox64Concat, Window>,
            NMapKey<Twox64Concat, ValidatorIndex>,
            NMapKey<Twox64Concat, Uid>,
        ),
        EvaluationDispute<T::AccountId>,
    >;
    /// What the last miner that joined a run left as the price of joining. Written by `register_miner`.
    #[pallet::storage]
    pub type EntryPrices<T> = StorageMap<_, Twox64Concat, RunId, EntryPrice>;

    /// The bonds of miners that are gone, by uid and registered window, which no two miners have alike. Written when a miner's
    /// slot becomes free, removed by `withdraw_bond`; each row holds money of its cold key.
    #[pallet::storage]
    pub type Departures<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        RunId,
        Twox64Concat,
        (Uid, Window),
        Departure<T::AccountId>,
    >;

    /// How many [`Departures`] name a hot or cold key, if any does; it cannot join before the last is withdrawn.
    #[pallet::storage]
    pub type CoolingKeys<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Blake2_128Concat, T::AccountId, u32, ValueQuery>;

    /// What happens when a window begins. Written by `leave_miner` and `rotate_hot_key`, removed by `on_poll` and
    /// `on_idle` in that window. A full list passes on to the next window's.
    #[pallet::storage]
    pub type Changes<T> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, Window, ChangeList, ValueQuery>;

    /// The hot keys that replace those in force. Written by `rotate_hot_key`, removed when they are in force and when the
    /// participant is gone; at most one a seat.
    #[pallet::storage]
    pub type NextHotKeys<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, Seat, NextHotKey<T::AccountId>>;

    /// The seats that are offered to another cold key. Written by `offer_cold`, removed by `cancel_cold`, `accept_cold`
    /// and when the participant is gone; at most one a seat.
    #[pallet::storage]
    pub type ColdOffers<T: Config> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, Seat, ColdOffer<T::AccountId>>;

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

    /// The validators with a permit for a window and their stakes in its first block, sorted by index. Written there, used
    /// for all that is decided and paid of the window, removed with it.
    #[pallet::storage]
    pub type Permits<T> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, Window, PermitList, ValueQuery>;

    /// Who may judge the evaluations of a window, and which pools answer for them: the validators with a permit for it, as
    /// they were in its first block, sorted by index. Written there, removed with the window, or with the last dispute of
    /// it that is closed later.
    #[pallet::storage]
    pub type Benches<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        RunId,
        Twox64Concat,
        Window,
        Bench<T::AccountId>,
        ValueQuery,
    >;

    /// The validators' commitments to their attestations of a window. Written by `commit_attestation`, removed with the
    /// window.
    #[pallet::storage]
    pub type AttestationCommitments<T> = StorageNMap<
        _,
        (
            NMapKey<Twox64Concat, RunId>,
            NMapKey<Twox64Concat, Window>,
            NMapKey<Twox64Concat, ValidatorIndex>,
        ),
        Hash,
    >;

    /// The attestations of a window by validator. Written by `reveal_attestation`, removed with the window.
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

    /// What each page of a settlement credited to miners, by window and page; empty ones are not kept. Written by
    /// settlement, removed with the window; a slot is in one page at most.
    #[pallet::storage]
    pub type PaidMiners<T> = StorageNMap<
        _,
        (NMapKey<Twox64Concat, RunId>, NMapKey<Twox64Concat, Window>, NMapKey<Twox64Concat, u32>),
        MinerPayPage,
    >;

    /// What each settled window credited; the miners one by one are in [`PaidMiners`]. Written at the end of the
    /// settlement, removed with the window.
    #[pallet::storage]
    pub type PaidWindows<T> =
        StorageDoubleMap<_, Twox64Concat, RunId, Twox64Concat, Window, PaidWindow>;

    /// What a run owes to an account, by the window from which on it can be claimed. Written by settlement, removed by
    /// `claim`; see [`add_claim`](protocol::emission::add_claim) for a full list.
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

    /// Where every unit of a run's money is. Written by settlement, `fund_run` and `claim`.
    #[pallet::storage]
    pub type Ledgers<T> = StorageMap<_, Twox64Concat, RunId, Ledger, ValueQuery>;

    /// The runs' parts of the chain's emission. Written by `set_run_weight` and when windows open, removed with the run.
    #[pallet::storage]
    pub type RunWeights<T> = StorageMap<_, Twox64Concat, RunId, RunWeight, ValueQuery>;

    /// What the schedule gave a unit of weight so far. Written when a window of a run with a weight opens.
    #[pallet::storage]
    pub type ChainAccrual<T> = StorageValue<_, Accrual, ValueQuery>;

    /// Planck that runs have had of the schedule, those that ended included: at most what it gives. Written by settlement.
    #[pallet::storage]
    pub type Emitted<T> = StorageValue<_, Planck, ValueQuery>;

    /// Who put money into a run. Written by `fund_run` and settlement, removed with the run.
    #[pallet::storage]
    pub type Sponsors<T: Config> =
        StorageMap<_, Twox64Concat, RunId, SponsorList<T::AccountId>, ValueQuery>;
    /// Bytes of free work in this block. Written by [`extension`](crate::extension), removed at the block's end.
    #[pallet::storage]
    #[pallet::whitelist_storage]
    pub type WorkBytes<T> = StorageValue<_, u32, ValueQuery>;

    /// What happened, with the numbers. The fields are named after the records they come from.
    #[allow(missing_docs)]
    #[pallet::event]
    #[pallet::generate_deposit(pub(crate) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A run was created.
        RunCreated { run: RunId, owner: T::AccountId },
        /// A miner registered for `price`, which was burned; it takes part from the next window on.
        MinerRegistered {
            run: RunId,
            uid: Uid,
            hot: T::AccountId,
            cold: T::AccountId,
            price: Planck,
        },
        /// A miner's slot is free; its bond can be had from window `due` on, or was returned.
        MinerLeft { run: RunId, uid: Uid, registered_window: Window, due: Option<Window> },
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
        /// A validator left; its stake unbonds.
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
        /// A window was settled: what the schedule and the sponsors gave it, what was credited to whom, and what each
        /// group carries.
        WindowSettled {
            run: RunId,
            window: Window,
            minted: Planck,
            funded: Planck,
            paid: Pots,
            carried: Pots,
        },
        /// A window pays nobody; what schedule and sponsors gave it is carried.
        WindowVoid { run: RunId, window: Window, error: VoidReason, minted: Planck, funded: Planck },
        /// Pay was transferred.
        Claimed { run: RunId, account: T::AccountId, amount: Planck },
        /// Other settings will be in force from `window` on.
        SettingsScheduled { run: RunId, window: Window },
        /// Other settings are in force.
        SettingsApplied { run: RunId, window: Window },
        /// A run has another weight among the runs, from its next window on.
        #[codec(index = 45)]
        RunWeightSet { run: RunId, weight: u16 },
        /// A sponsor put money into a run, of which a window releases `per_window` at most.
        #[codec(index = 46)]
        RunFunded { run: RunId, sponsor: T::AccountId, amount: Planck, per_window: Planck },
        /// What was left of a run was made claimable for its sponsors, or given back to the schedule.
        #[codec(index = 47)]
        RunSwept { run: RunId, refunded: Planck, given_back: Planck },
        /// A validator with more stake takes the slot of the one with the least.
        #[codec(index = 50)]
        ValidatorDisplaced { run: RunId, index: ValidatorIndex },
        /// A nominator put money into a validator's pool.
        #[codec(index = 51)]
        Delegated { run: RunId, pool: PoolId, who: T::AccountId, amount: Planck, shares: u128 },
        /// Stake or a delegation was taken out; it can be withdrawn from window `due` on.
        #[codec(index = 52)]
        Unbonding { run: RunId, pool: PoolId, who: T::AccountId, amount: Planck, due: Window },
        /// What had unbonded is free.
        #[codec(index = 53)]
        Withdrawn { run: RunId, pool: PoolId, who: T::AccountId, amount: Planck },
        /// A validator takes `ppm` of its nominators' pay from `window` on.
        #[codec(index = 54)]
        TakeSet { run: RunId, pool: PoolId, ppm: u32, window: Window },
        /// Nominators' pay that was due joined their pool.
        #[codec(index = 55)]
        Compounded { run: RunId, pool: PoolId, amount: Planck },
        /// A fault was proven; its slash will be applied in `window`.
        #[codec(index = 56)]
        SlashDeferred { run: RunId, slash: u32, offender: Offender, amount: Planck, window: Window },
        /// The chain's governance cancelled a slash.
        #[codec(index = 57)]
        SlashCancelled { run: RunId, slash: u32 },
        /// Money was taken for a fault: half went to the reporter, if there is one, the rest was burned.
        #[codec(index = 58)]
        Slashed {
            run: RunId,
            slash: u32,
            offender: Offender,
            amount: Planck,
            reporter: Option<T::AccountId>,
        },
        /// A miner's fault was proven.
        #[codec(index = 59)]
        FaultProven {
            run: RunId,
            window: Window,
            uid: Uid,
            fault: ProvenFault,
            reporter: T::AccountId,
        },
        /// A chunk of a miner's payload is asked for, until block `deadline`.
        #[codec(index = 60)]
        DataChallenged {
            run: RunId,
            window: Window,
            uid: Uid,
            index: u32,
            challenger: T::AccountId,
            deadline: BlockNumber,
        },
        /// A miner showed a chunk that was asked for.
        #[codec(index = 61)]
        DataAnswered { run: RunId, window: Window, uid: Uid, index: u32 },
        /// What validator `index` measured of miner `uid` is disputed.
        #[codec(index = 62)]
        EvaluationDisputed {
            run: RunId,
            window: Window,
            index: ValidatorIndex,
            uid: Uid,
            challenger: T::AccountId,
        },
        /// A jury's finding about an evaluation.
        #[codec(index = 63)]
        DisputeClosed {
            run: RunId,
            window: Window,
            index: ValidatorIndex,
            uid: Uid,
            verdict: Verdict,
        },
        /// A miner asked to leave; it takes part up to `last_window`.
        #[codec(index = 22)]
        MinerLeaving { run: RunId, uid: Uid, last_window: Window },
        /// A miner of standing `value` has to make room for a newcomer.
        #[codec(index = 23)]
        MinerDisplaced { run: RunId, uid: Uid, value: Q32 },
        /// A miner that did nothing was removed.
        #[codec(index = 24)]
        MinerEvicted { run: RunId, uid: Uid },
        /// The bond of a miner that is gone went back.
        #[codec(index = 25)]
        BondReturned { run: RunId, uid: Uid, cold: T::AccountId, amount: Planck },
        /// Another hot key will sign for a seat from `window` on.
        #[codec(index = 26)]
        HotKeyRotating { run: RunId, seat: Seat, hot: T::AccountId, window: Window },
        /// Another hot key signs for a seat.
        #[codec(index = 27)]
        HotKeyRotated { run: RunId, seat: Seat, hot: T::AccountId },
        /// A seat can be accepted by the cold key `to` from `window` on.
        #[codec(index = 28)]
        ColdOffered { run: RunId, seat: Seat, to: T::AccountId, window: Window },
        /// The offer of a seat was taken back.
        #[codec(index = 29)]
        ColdOfferCancelled { run: RunId, seat: Seat },
        /// A seat and what is held for it belong to another cold key.
        #[codec(index = 30)]
        ColdHandedOver { run: RunId, seat: Seat, cold: T::AccountId },
        /// Settings that waited will not be in force.
        #[codec(index = 31)]
        SettingsCancelled { run: RunId },
        /// The run will be paused from `window` on.
        #[codec(index = 32)]
        RunPauseAnnounced { run: RunId, window: Window },
        /// The run is paused from `window` on.
        #[codec(index = 33)]
        RunPaused { run: RunId, window: Window },
        /// The run takes work again, and an announced pause will not come.
        #[codec(index = 34)]
        RunResumed { run: RunId },
        /// The run ends with `last_window`.
        #[codec(index = 35)]
        RunClosing { run: RunId, last_window: Window },
        /// The run's last window is settled.
        #[codec(index = 36)]
        RunClosed { run: RunId },
        /// The run is gone, with everything that belonged to it.
        #[codec(index = 37)]
        RunReaped { run: RunId },
        /// `to` may become the owner from `window` on.
        #[codec(index = 38)]
        RunOffered { run: RunId, to: T::AccountId, window: Window },
        /// Nobody may become the owner any more.
        #[codec(index = 39)]
        RunOfferWithdrawn { run: RunId },
        /// The run has another owner.
        #[codec(index = 40)]
        RunHandedOver { run: RunId, owner: T::AccountId },
        /// A validator committed to an attestation.
        #[codec(index = 41)]
        AttestationCommitted { run: RunId, window: Window, index: ValidatorIndex, hash: Hash },
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
        /// A run must start within `StartHorizon` blocks; choose an earlier `start_block`.
        StartsTooLate,
        /// Schedule, `keep`, `model_seed` and `genesis_state_root` cannot change, `uid_max` cannot
        /// fall; leave them as they are.
        SettingImmutable,
        /// A setting may not move so far in one change; `Settings::may_become` says which one. Change
        /// it in steps.
        ChangeTooLarge,
        /// No settings wait for a coming window.
        #[codec(index = 140)]
        NothingScheduled,
        /// The chain's governance forced settings that wait; it alone may drop or replace them.
        #[codec(index = 148)]
        SettingsForced,
        /// The run is paused; wait until it is resumed.
        #[codec(index = 141)]
        RunPaused,
        /// The run is not paused, and no pause is announced.
        #[codec(index = 142)]
        RunNotPaused,
        /// The chain's governance paused the run and alone may resume it.
        #[codec(index = 143)]
        PausedByAdmin,
        /// The run is closed or will be.
        #[codec(index = 144)]
        RunClosing,
        /// The run is not closed; close it first.
        #[codec(index = 145)]
        RunNotClosed,
        /// The run was closed too recently; see `ReapDelayWindows`.
        #[codec(index = 146)]
        ReapNotDue,
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
        /// The stake exceeds all money that there can be; stake less.
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
        /// The chain is behind and has not opened this window yet; try again in the next block.
        #[codec(index = 147)]
        WindowNotOpen,
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
        /// The validator has no permit for the window: its stake was not among the highest in the window's first block.
        NoPermit,
        /// The run counts scores of another version of measuring; see `score_version`, and update.
        ScoreVersionWrong,
        /// The account can claim nothing yet; see `claim_delay_windows`.
        NothingClaimable,
        /// A record that the chain itself keeps is missing or a sum does not fit; please report it.
        Internal,
        /// The chunks that a reveal must show are drawn in the second block of the phase; try again in the next block.
        #[codec(index = 95)]
        ChallengeNotDrawn,
        /// There is no such pool; the validator's record names its own.
        #[codec(index = 100)]
        PoolUnknown,
        /// The delegation is below the run's `delegation_min`; delegate more.
        #[codec(index = 101)]
        DelegationTooLow,
        /// A share of the pool is worth nothing after a slash, or so much that rounding would cost the caller dear; choose
        /// another validator.
        #[codec(index = 102)]
        PoolUnsound,
        /// The caller has fewer shares of the pool; look up its delegation.
        #[codec(index = 103)]
        TooFewShares,
        /// Name more than nothing to take out.
        #[codec(index = 104)]
        NothingToUnbond,
        /// Too much unbonds already; withdraw what is due first.
        #[codec(index = 105)]
        TooManyUnbondings,
        /// Nothing of the caller's has unbonded yet; see the event `Unbonding`.
        #[codec(index = 106)]
        NothingUnbonded,
        /// The take would exceed the run's `take_max_ppm`.
        #[codec(index = 107)]
        TakeTooHigh,
        /// A take rises by `take_step_ppm` at once, at most.
        #[codec(index = 108)]
        TakeTooFast,
        /// A rise of the take waits; raise it again when it is in force.
        #[codec(index = 109)]
        TakeWaiting,
        /// Stake must unbond for the chain's `DisputeWindows` at least; choose more `unbonding_windows`.
        #[codec(index = 110)]
        UnbondingTooShort,
        /// No slash of this number waits.
        #[codec(index = 111)]
        SlashUnknown,
        /// The chunk decodes; there is nothing to report.
        #[codec(index = 112)]
        ChunkWellFormed,
        /// The chunk keeps too few values, or only zeros, to be somebody's; show another one.
        #[codec(index = 113)]
        ChunkTooCommon,
        /// The chunks differ in more positions than a copy's, or are one commitment's.
        #[codec(index = 114)]
        NotACopy,
        /// A payload has no chunk of this number.
        #[codec(index = 115)]
        ChunkUnknown,
        /// There is no reveal of this window by this participant, or it is removed.
        #[codec(index = 116)]
        NotRevealed,
        /// Faults of this window can be reported no longer, or not yet.
        #[codec(index = 117)]
        FaultTooOld,
        /// A fault of this miner in this window is proven already.
        #[codec(index = 118)]
        FaultKnown,
        /// So many chunks are asked for already, of this payload or by this account; wait for the answers.
        #[codec(index = 119)]
        TooManyChallenges,
        /// This chunk is asked for already.
        #[codec(index = 120)]
        AlreadyChallenged,
        /// Nobody asks for this chunk.
        #[codec(index = 121)]
        ChallengeUnknown,
        /// The time for the answer is over.
        #[codec(index = 122)]
        TooLate,
        /// The time for the answer, or for the jury, is not over, or the window in which it ends is not accepted.
        #[codec(index = 123)]
        TooEarly,
        /// This evaluation is disputed already.
        #[codec(index = 124)]
        AlreadyDisputed,
        /// This evaluation is not disputed.
        #[codec(index = 125)]
        DisputeUnknown,
        /// Only validators with a permit for the disputed window that are not party to the dispute measure again.
        #[codec(index = 126)]
        NotAJuror,
        /// The hot key's signature is not over `protocol::consent::hot_key_consent` of this chain, run, role and cold key.
        HotKeyProofInvalid,
        /// The peer id is not that of an ed25519 key, or that key did not sign `protocol::consent::peer_consent`.
        PeerProofInvalid,
        /// Joining costs more than `max_price`; `next_price` says how much, and it falls with every block.
        PriceTooHigh,
        /// A bond of this hot or cold key still waits; call `withdraw_bond` when it is due, or join with other keys.
        CoolingOff,
        /// The miner has asked to leave; it takes part in no later window.
        LeavingAlready,
        /// The miner has committed to an update lately, or the run was paused or the chain stood still; see `idle_windows`.
        NotIdle,
        /// There is no bond of a miner that is gone and had this uid from this window on.
        NoBond,
        /// The bond stays at risk until the window that `Departures` names.
        BondNotDue,
        /// The seat or run is not offered to the caller.
        NotOffered,
        /// The offer can be accepted from the window that `ColdOffers` names.
        OfferNotDue,
        /// What is due is less than an account can live on; it stays, and is paid with what is due next.
        #[codec(index = 90)]
        ClaimTooSmall,
        /// A sponsor must put in the existential deposit at least, and release something in each window.
        #[codec(index = 91)]
        FundingTooSmall,
        /// The run has as many sponsors as it may have; put in more than the smallest of them has left.
        #[codec(index = 92)]
        TooManySponsors,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(_now: BlockNumberFor<T>) -> Weight {
            Self::do_boundaries()
        }

        fn on_poll(_now: BlockNumberFor<T>, meter: &mut WeightMeter) {
            Self::do_poll(meter);
        }

        fn on_idle(_now: BlockNumberFor<T>, remaining: Weight) -> Weight {
            Self::do_idle(remaining)
        }

        fn on_finalize(_now: BlockNumberFor<T>) {
            WorkBytes::<T>::kill();
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
        /// Scene 1 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// [`Config::CreateOrigin`]; the account becomes the owner and pays the existential deposit
        /// that keeps the run's account alive.
        ///
        /// ## Errors
        ///
        /// What [`Settings::validate`] refuses, an invalid layout, a start that is not in the future or
        /// too far in it, too many runs, too little money for the deposit.
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

        /// Registers a miner with hot key `hot`, which takes part from the next window on. Burns the price of joining, which
        /// is `max_price` at most and which `next_price` tells. If every slot is taken, the miner of the least standing
        /// that is not immune makes room.
        ///
        /// Scene 2 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the cold key, on which the run's `miner_bond` is held beside the price. `proof` is the hot key's
        /// signature over [`hot_key_consent`](protocol::consent::hot_key_consent).
        ///
        /// ## Errors
        ///
        /// An unknown run, a hot key that takes part already or does not consent, keys that left too short a time ago, too
        /// high a price, no slot, too little money.
        #[pallet::call_index(1)]
        #[pallet::weight(T::WeightInfo::register_miner(UIDS_MAX))]
        pub fn register_miner(
            origin: OriginFor<T>,
            run: RunId,
            hot: T::AccountId,
            proof: T::HotKeyProof,
            max_price: Planck,
        ) -> DispatchResultWithPostInfo {
            let cold = ensure_signed(origin)?;
            Self::ensure_consent(run, Role::Miner, &cold, &hot, &proof)?;
            let searched = Self::searched_for_slot(run);
            Self::do_register_miner(cold, run, hot, max_price)?;
            Ok(Some(T::WeightInfo::register_miner(searched)).into())
        }

        /// Asks to leave. The miner is paid for the open window and takes part in no later one; its slot is free when that
        /// window is settled, and its bond can be withdrawn `unbonding_windows` later. One that has not begun leaves at once.
        ///
        /// Scene 8 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the miner's cold key.
        ///
        /// ## Errors
        ///
        /// An unknown miner, another's miner, a miner that is leaving already.
        #[pallet::call_index(2)]
        #[pallet::weight(T::WeightInfo::leave_miner())]
        pub fn leave_miner(origin: OriginFor<T>, run: RunId, uid: Uid) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::do_leave_miner(cold, run, uid)
        }

        /// Registers a validator with hot key `hot`, which takes part from the next window on.
        ///
        /// Scene 2 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the cold key; `stake` is held on it until the validator has left and it has unbonded.
        ///
        /// ## Errors
        ///
        /// As [`Self::register_miner`] but for the price, and a stake below the least; of a full table, one that does not exceed the lowest.
        #[pallet::call_index(3)]
        #[pallet::weight(T::WeightInfo::register_validator())]
        pub fn register_validator(
            origin: OriginFor<T>,
            run: RunId,
            hot: T::AccountId,
            proof: T::HotKeyProof,
            stake: Planck,
        ) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::ensure_consent(run, Role::Validator, &cold, &hot, &proof)?;
            Self::do_register_validator(cold, run, hot, stake).map(|_| ())
        }

        /// Adds to a validator's own stake.
        ///
        /// Scene 6 of [the scenario](crate::scenario).
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

        /// Frees a validator's slot at any time, whatever its hot key does; its stake unbonds. A window that is not settled
        /// yet pays it nothing.
        ///
        /// Scene 8 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the validator's cold key.
        ///
        /// ## Errors
        ///
        /// An unknown validator, another's validator.
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
        /// Scene 2 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the hot key of a miner or validator. `proof` is the signature of the peer's ed25519 key over
        /// [`peer_consent`](protocol::consent::peer_consent).
        ///
        /// ## Errors
        ///
        /// A key that does not take part in the run, a peer id that is not its own.
        #[pallet::call_index(6)]
        #[pallet::weight((T::WeightInfo::announce(), DispatchClass::Operational))]
        pub fn announce(
            origin: OriginFor<T>,
            run: RunId,
            peer_id: PeerId,
            addresses: Addresses,
            proof: PeerProof,
        ) -> DispatchResult {
            let hot = ensure_signed(origin)?;
            Self::ensure_peer(run, &hot, &peer_id, proof)?;
            Self::do_announce(hot, run, peer_id, addresses)
        }

        /// Commits to an update of the current window.
        ///
        /// Scene 3 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by a miner's hot key.
        ///
        /// ## Errors
        ///
        /// Another window or phase, a miner that takes part later, a second commitment.
        #[pallet::call_index(7)]
        #[pallet::weight((T::WeightInfo::commit_update(), DispatchClass::Operational))]
        pub fn commit_update(
            origin: OriginFor<T>,
            run: RunId,
            window: Window,
            hash: Hash,
        ) -> DispatchResult {
            let hot = ensure_signed(origin)?;
            Self::do_commit_update(hot, run, window, hash)
        }

        /// Opens the caller's commitment and shows the chunks that the chain asks for.
        ///
        /// Scene 3 of [the scenario](crate::scenario).
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
        #[pallet::weight((T::WeightInfo::reveal_update(chunks.len() as u32), DispatchClass::Operational))]
        pub fn reveal_update(
            origin: OriginFor<T>,
            run: RunId,
            window: Window,
            opening: Opening,
            chunks: RevealedChunks,
        ) -> DispatchResult {
            let hot = ensure_signed(origin)?;
            Self::do_reveal_update(hot, run, window, opening, chunks)
        }

        /// Commits to the evaluations of the window before the current one.
        ///
        /// Scene 3 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by a validator's hot key.
        ///
        /// ## Errors
        ///
        /// Another window or phase, a validator without a permit for it, a second commitment, another version of measuring
        /// than the run's.
        #[pallet::call_index(10)]
        #[pallet::weight((T::WeightInfo::commit_scores(), DispatchClass::Operational))]
        pub fn commit_scores(
            origin: OriginFor<T>,
            run: RunId,
            window: Window,
            hash: Hash,
            version: u32,
        ) -> DispatchResult {
            let hot = ensure_signed(origin)?;
            Self::do_commit_scores(hot, run, window, hash, version)
        }

        /// Reveals the evaluations that the caller committed to. The salt becomes
        /// part of the next window's seed.
        ///
        /// Scene 3 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by a validator's hot key.
        ///
        /// ## Errors
        ///
        /// Another window or phase, no permit, no commitment, a second reveal, another version of measuring than the run's,
        /// evaluations and salt that do not fit the commitment.
        #[pallet::call_index(11)]
        #[pallet::weight((T::WeightInfo::reveal_scores(evaluations.len() as u32), DispatchClass::Operational))]
        pub fn reveal_scores(
            origin: OriginFor<T>,
            run: RunId,
            window: Window,
            evaluations: Evaluations,
            salt: Hash,
            version: u32,
        ) -> DispatchResult {
            let hot = ensure_signed(origin)?;
            Self::do_reveal_scores(hot, run, window, evaluations, salt, version)
        }

        /// Transfers to `account` what it earned and may claim by now.
        ///
        /// Scene 5 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody.
        ///
        /// ## Errors
        ///
        /// An unknown run, nothing claimable, less than an account can live on.
        #[pallet::call_index(12)]
        #[pallet::weight(T::WeightInfo::claim())]
        pub fn claim(origin: OriginFor<T>, run: RunId, account: T::AccountId) -> DispatchResult {
            ensure_signed(origin)?;
            Self::do_claim(run, account).map(|_| ())
        }

        /// Replaces the run's settings from the window on that is [`Config::AdminDelayWindows`] after
        /// the current one. Settings that wait already are replaced.
        ///
        /// Scene 7 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the run's owner.
        ///
        /// ## Errors
        ///
        /// What [`Settings::validate`] refuses, and what [`Settings::may_become`] does; settings that the governance forced
        /// and that wait; a run that ends before that window.
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

        // Index 9 was an attestation without commitment.

        /// Commits to what [`Self::reveal_attestation`] will say of the current window, so that nobody can copy it.
        ///
        /// Scene 3 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the hot key of a validator with a permit for the window.
        ///
        /// ## Errors
        ///
        /// Another window or phase, no permit, a second commitment.
        #[pallet::call_index(14)]
        #[pallet::weight((T::WeightInfo::commit_attestation(), DispatchClass::Operational))]
        pub fn commit_attestation(
            origin: OriginFor<T>,
            run: RunId,
            window: Window,
            hash: Hash,
        ) -> DispatchResult {
            let hot = ensure_signed(origin)?;
            Self::do_commit_attestation(hot, run, window, hash)
        }

        /// Says which revealed payloads the caller could fetch and found valid, and which state it
        /// holds.
        ///
        /// Scene 3 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the hot key of a validator with a permit for the window.
        ///
        /// ## Errors
        ///
        /// Another window or phase, no permit, no commitment, a second reveal, words that do not fit the commitment, a
        /// bitmap longer than the run's slots.
        #[pallet::call_index(15)]
        #[pallet::weight((T::WeightInfo::reveal_attestation(), DispatchClass::Operational))]
        pub fn reveal_attestation(
            origin: OriginFor<T>,
            run: RunId,
            window: Window,
            bitmap: Bitmap,
            state_root: Hash,
            salt: Hash,
        ) -> DispatchResult {
            let hot = ensure_signed(origin)?;
            Self::do_reveal_attestation(hot, run, window, bitmap, state_root, salt)
        }

        /// Sets a run's weight among the runs, by which the chain's emission is divided; from the run's next window on.
        /// With 0, as at its creation, a run gets nothing of it.
        ///
        /// Scene 1 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// [`Config::AdminOrigin`].
        ///
        /// ## Errors
        ///
        /// An unknown run.
        #[pallet::call_index(20)]
        #[pallet::weight(T::WeightInfo::set_run_weight())]
        pub fn set_run_weight(origin: OriginFor<T>, run: RunId, weight: u16) -> DispatchResult {
            T::AdminOrigin::ensure_origin(origin)?;
            Self::do_set_run_weight(run, weight)
        }

        /// Puts `amount` into a run as its sponsor: each window gets `per_window` of it at most, until it is spent. What
        /// is left when the run ends can be claimed by the sponsor.
        ///
        /// Scene 1 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody, who pays it.
        ///
        /// ## Errors
        ///
        /// An unknown run, less than the existential deposit, nothing a window, too little money, and a run whose sponsors
        /// all have as much left.
        #[pallet::call_index(21)]
        #[pallet::weight(T::WeightInfo::fund_run())]
        pub fn fund_run(
            origin: OriginFor<T>,
            run: RunId,
            amount: Planck,
            per_window: Planck,
        ) -> DispatchResult {
            let sponsor = ensure_signed(origin)?;
            Self::do_fund_run(sponsor, run, amount, per_window)
        }

        /// Transfers to several accounts, or of several runs, what they may claim by now; who may claim nothing yet is
        /// passed over.
        ///
        /// Scene 5 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody.
        ///
        /// ## Errors
        ///
        /// Nobody may claim anything.
        #[pallet::call_index(22)]
        #[pallet::weight(T::WeightInfo::claim().saturating_mul(claims.len() as u64))]
        pub fn claim_many(origin: OriginFor<T>, claims: ClaimBatch<T>) -> DispatchResult {
            ensure_signed(origin)?;
            Self::do_claim_many(claims)
        }

        /// Pauses a run: its windows take no updates, and nobody is at fault in them. The governance's
        /// pause begins at once, the owner's [`Config::AdminDelayWindows`] later.
        ///
        /// Scene 7 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the run's owner, or [`Config::AdminOrigin`].
        ///
        /// ## Errors
        ///
        /// Another's run, one that is paused already, one that is closed.
        #[pallet::call_index(30)]
        #[pallet::weight(T::WeightInfo::pause_run())]
        pub fn pause_run(origin: OriginFor<T>, run: RunId) -> DispatchResult {
            Self::do_pause_run(origin, run)
        }

        /// Resumes a paused run, or withdraws an announced pause.
        ///
        /// Scene 7 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the run's owner, or [`Config::AdminOrigin`], which alone resumes what it paused.
        ///
        /// ## Errors
        ///
        /// Another's run, one that is not paused, one that the governance paused.
        #[pallet::call_index(31)]
        #[pallet::weight(T::WeightInfo::resume_run())]
        pub fn resume_run(origin: OriginFor<T>, run: RunId) -> DispatchResult {
            Self::do_resume_run(origin, run)
        }

        /// Ends a run: with the current window if the governance says so or it is idle, and
        /// [`Config::AdminDelayWindows`] later if its owner does. One that has not begun ends at once. Settings that wait for
        /// a later window are cancelled.
        ///
        /// Scene 8 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the run's owner, or [`Config::AdminOrigin`]; signed by anybody when no update was
        /// accepted for [`Config::IdleWindows`].
        ///
        /// ## Errors
        ///
        /// Another's run that is not idle, one that ends as early already.
        #[pallet::call_index(32)]
        #[pallet::weight(T::WeightInfo::close_run())]
        pub fn close_run(origin: OriginFor<T>, run: RunId) -> DispatchResult {
            Self::do_close_run(origin, run)
        }

        /// Removes up to `rows` rows of a closed run: bonds and stakes go back, claims are paid, and
        /// with the last rows the deposit is released and the run is gone.
        ///
        /// Scene 8 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody.
        ///
        /// ## Errors
        ///
        /// A run that is not closed, or was so less than [`Config::ReapDelayWindows`] ago.
        #[pallet::call_index(33)]
        #[pallet::weight(T::WeightInfo::reap_run((*rows).min(REAP_ROWS_MAX)))]
        pub fn reap_run(origin: OriginFor<T>, run: RunId, rows: u32) -> DispatchResultWithPostInfo {
            ensure_signed(origin)?;
            let removed = Self::do_reap_run(run, rows.min(REAP_ROWS_MAX))?;
            Ok(Some(T::WeightInfo::reap_run(removed)).into())
        }

        /// Offers a run to another owner, who may accept it [`Config::AdminDelayWindows`] later (from
        /// the next window on if the governance offers it); or withdraws the offer.
        ///
        /// Scene 7 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the run's owner, or [`Config::AdminOrigin`].
        ///
        /// ## Errors
        ///
        /// Another's run, no offer to withdraw.
        #[pallet::call_index(34)]
        #[pallet::weight(T::WeightInfo::offer_run())]
        pub fn offer_run(
            origin: OriginFor<T>,
            run: RunId,
            to: Option<T::AccountId>,
        ) -> DispatchResult {
            Self::do_offer_run(origin, run, to)
        }

        /// Makes the caller the owner of a run that was offered to it. The deposit is held of the
        /// caller and released to the former owner.
        ///
        /// Scene 7 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the account that the run is offered to.
        ///
        /// ## Errors
        ///
        /// No such offer, one for a later window, too little money.
        #[pallet::call_index(35)]
        #[pallet::weight(T::WeightInfo::accept_run())]
        pub fn accept_run(origin: OriginFor<T>, run: RunId) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_accept_run(who, run)
        }

        /// Drops settings that wait for a coming window.
        ///
        /// Scene 7 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the run's owner, or [`Config::AdminOrigin`].
        ///
        /// ## Errors
        ///
        /// Another's run, nothing that waits, for the owner what the governance forced.
        #[pallet::call_index(36)]
        #[pallet::weight(T::WeightInfo::cancel_params())]
        pub fn cancel_params(origin: OriginFor<T>, run: RunId) -> DispatchResult {
            Self::do_cancel_params(origin, run)
        }

        /// Replaces the run's settings from the next window on, however far they move.
        ///
        /// Scene 7 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// [`Config::AdminOrigin`].
        ///
        /// ## Errors
        ///
        /// What [`Settings::validate`] refuses, and a change of what cannot change; a run that ends before that window.
        #[pallet::call_index(37)]
        #[pallet::weight(T::WeightInfo::set_params())]
        pub fn force_params(
            origin: OriginFor<T>,
            run: RunId,
            settings: Box<Settings>,
        ) -> DispatchResult {
            T::AdminOrigin::ensure_origin(origin)?;
            Self::do_force_params(run, *settings)
        }

        /// Removes a miner that has not committed to anything in `idle_windows` whole windows; free if it succeeds. Its bond
        /// waits as that of a miner that left.
        ///
        /// Scene 8 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody.
        ///
        /// ## Errors
        ///
        /// An unknown miner, one that is not idle.
        #[pallet::call_index(40)]
        #[pallet::weight(T::WeightInfo::evict())]
        pub fn evict(origin: OriginFor<T>, run: RunId, uid: Uid) -> DispatchResultWithPostInfo {
            ensure_signed(origin)?;
            Self::do_evict(run, uid)?;
            Ok(Pays::No.into())
        }

        /// Returns the bond of the miner that had `uid` from `registered_window` on and is gone to its cold key, and lets both
        /// of its keys join again.
        ///
        /// Scene 8 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody.
        ///
        /// ## Errors
        ///
        /// No bond of such a miner, or one that is still at risk.
        #[pallet::call_index(41)]
        #[pallet::weight(T::WeightInfo::withdraw_bond())]
        pub fn withdraw_bond(
            origin: OriginFor<T>,
            run: RunId,
            uid: Uid,
            registered_window: Window,
        ) -> DispatchResult {
            ensure_signed(origin)?;
            Self::do_withdraw_bond(run, uid, registered_window)
        }

        /// Has another hot key sign for a seat from the next window on; the old one finishes the open window. Standing, bond
        /// and stake stay. A second call before that replaces the key that waits.
        ///
        /// Scene 6 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the seat's cold key. `proof` is the new key's consent, as at registration.
        ///
        /// ## Errors
        ///
        /// An unknown seat, another's seat, a key that takes part already, does not consent or left too short a time ago.
        #[pallet::call_index(42)]
        #[pallet::weight(T::WeightInfo::rotate_hot_key())]
        pub fn rotate_hot_key(
            origin: OriginFor<T>,
            run: RunId,
            seat: Seat,
            hot: T::AccountId,
            proof: T::HotKeyProof,
        ) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::ensure_consent(run, seat.role(), &cold, &hot, &proof)?;
            Self::do_rotate_hot_key(cold, run, seat, hot)
        }

        /// Offers a seat to another cold key, which may accept it `hand_over_windows` later. Replaces an earlier offer.
        ///
        /// Scene 6 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the seat's cold key.
        ///
        /// ## Errors
        ///
        /// An unknown seat, another's seat.
        #[pallet::call_index(43)]
        #[pallet::weight(T::WeightInfo::offer_cold())]
        pub fn offer_cold(
            origin: OriginFor<T>,
            run: RunId,
            seat: Seat,
            to: T::AccountId,
        ) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::do_offer_cold(cold, run, seat, to)
        }

        /// Takes over a seat with what is held for it. Pay that the old cold key may claim stays its own.
        ///
        /// Scene 6 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the key that the seat is offered to.
        ///
        /// ## Errors
        ///
        /// No such offer, or one that cannot be accepted yet.
        #[pallet::call_index(44)]
        #[pallet::weight(T::WeightInfo::accept_cold())]
        pub fn accept_cold(origin: OriginFor<T>, run: RunId, seat: Seat) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::do_accept_cold(cold, run, seat)
        }

        /// Takes back the offer of a seat.
        ///
        /// Scene 6 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the seat's cold key.
        ///
        /// ## Errors
        ///
        /// An unknown seat, another's seat, no offer.
        #[pallet::call_index(45)]
        #[pallet::weight(T::WeightInfo::cancel_cold())]
        pub fn cancel_cold(origin: OriginFor<T>, run: RunId, seat: Seat) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::do_cancel_cold(cold, run, seat)
        }

        /// Takes a part of a validator's own stake out; it can be withdrawn `unbonding_windows` later.
        ///
        /// Scene 6 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the validator's cold key.
        ///
        /// ## Errors
        ///
        /// An unknown validator, another's validator, less left than the least stake, too many parts that unbond.
        #[pallet::call_index(50)]
        #[pallet::weight(T::WeightInfo::unstake())]
        pub fn unstake(
            origin: OriginFor<T>,
            run: RunId,
            index: ValidatorIndex,
            amount: Planck,
        ) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::do_unstake(cold, run, index, amount)
        }

        /// Frees what the caller had in a pool, as validator or as nominator, and what has unbonded by now.
        ///
        /// Scene 8 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the validator's cold key or the nominator.
        ///
        /// ## Errors
        ///
        /// An unknown pool, nothing that has unbonded.
        #[pallet::call_index(51)]
        #[pallet::weight(T::WeightInfo::withdraw_unbonded(2 * UNBONDINGS_MAX))]
        pub fn withdraw_unbonded(origin: OriginFor<T>, run: RunId, pool: PoolId) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_withdraw_unbonded(who, run, pool)
        }

        /// Puts money into a validator's pool: it counts as the validator's stake, earns its part of the validator's pay and
        /// answers for the validator's faults.
        ///
        /// Scene 2 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody.
        ///
        /// ## Errors
        ///
        /// An unknown validator, less than the least delegation, too little money, a pool that cannot divide it.
        #[pallet::call_index(52)]
        #[pallet::weight(T::WeightInfo::delegate())]
        pub fn delegate(
            origin: OriginFor<T>,
            run: RunId,
            index: ValidatorIndex,
            amount: Planck,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_delegate(who, run, index, amount)
        }

        /// Takes shares out of a pool; what they are worth now can be withdrawn `unbonding_windows` later, less slashes for
        /// what the validator did until now.
        ///
        /// Scene 6 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the nominator.
        ///
        /// ## Errors
        ///
        /// An unknown pool, more shares than the caller has, too many parts that unbond.
        #[pallet::call_index(53)]
        #[pallet::weight(T::WeightInfo::undelegate())]
        pub fn undelegate(
            origin: OriginFor<T>,
            run: RunId,
            pool: PoolId,
            shares: u128,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_undelegate(who, run, pool, shares)
        }

        /// Sets what a validator takes of its nominators' pay: less at once, more by a step and after a delay.
        ///
        /// Scene 2 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the validator's cold key.
        ///
        /// ## Errors
        ///
        /// An unknown validator, another's validator, too high a take, too large a step, a rise that waits.
        #[pallet::call_index(54)]
        #[pallet::weight(T::WeightInfo::set_take())]
        pub fn set_take(
            origin: OriginFor<T>,
            run: RunId,
            index: ValidatorIndex,
            take_ppm: u32,
        ) -> DispatchResult {
            let cold = ensure_signed(origin)?;
            Self::do_set_take(cold, run, index, take_ppm)
        }

        /// Moves the nominators' pay that is due into their pool.
        ///
        /// Scene 5 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody.
        ///
        /// ## Errors
        ///
        /// An unknown pool, nothing that is due.
        #[pallet::call_index(55)]
        #[pallet::weight(T::WeightInfo::compound())]
        pub fn compound(origin: OriginFor<T>, run: RunId, pool: PoolId) -> DispatchResult {
            ensure_signed(origin)?;
            Self::do_compound(run, pool)
        }

        /// Cancels a slash that waits.
        ///
        /// Scene 4 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// [`Config::AdminOrigin`].
        ///
        /// ## Errors
        ///
        /// No slash of this number waits.
        #[pallet::call_index(56)]
        #[pallet::weight(T::WeightInfo::cancel_slash())]
        pub fn cancel_slash(origin: OriginFor<T>, run: RunId, slash: u32) -> DispatchResult {
            T::AdminOrigin::ensure_origin(origin)?;
            Self::do_cancel_slash(run, slash)
        }

        /// Proves that one of two commitments is a copy of the other, in one window or over several: by the chunks of both at
        /// the places that the later window's challenge seed draws ([`protocol::fault::copy_places`]), more than half of which are
        /// alike. The later one's miner is slashed. Free if it succeeds.
        ///
        /// Scene 4 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody. Half of the slash is the signer's, or its cold key's if it is a participant's hot key.
        ///
        /// ## Errors
        ///
        /// A commitment that is not revealed or too old, a proof that is not valid or not of the drawn places, chunks that differ
        /// or say too little, a fault that is known.
        #[pallet::call_index(60)]
        #[pallet::weight((T::WeightInfo::report_copy(), DispatchClass::Operational))]
        pub fn report_copy(
            origin: OriginFor<T>,
            run: RunId,
            commitments: [CommitmentName; 2],
            chunks: CopyProof,
        ) -> DispatchResultWithPostInfo {
            let reporter = ensure_signed(origin)?;
            Self::do_report_copy(reporter, run, commitments, &chunks)?;
            Ok(Pays::No.into())
        }

        /// Proves that a chunk of a payload does not decode. Its miner is slashed. Free if it succeeds.
        ///
        /// Scene 4 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody. Half of the slash is the signer's, or its cold key's if it is a participant's hot key.
        ///
        /// ## Errors
        ///
        /// A commitment that is not revealed or too old, a proof that is not valid, a chunk that decodes, a fault that is known.
        #[pallet::call_index(61)]
        #[pallet::weight((T::WeightInfo::report_malformed(), DispatchClass::Operational))]
        pub fn report_malformed(
            origin: OriginFor<T>,
            run: RunId,
            commitment: CommitmentName,
            index: u32,
            chunk: Box<ShownChunk>,
        ) -> DispatchResultWithPostInfo {
            let reporter = ensure_signed(origin)?;
            Self::do_report_malformed(reporter, run, commitment, index, *chunk)?;
            Ok(Pays::No.into())
        }

        /// Asks for a chunk of a payload. The miner must show it within `answer_blocks` and then has the challenger's bond; if
        /// it does not, it is slashed.
        ///
        /// Scene 4 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody; the run's `challenge_bond` is held until the answer or the time-out.
        ///
        /// ## Errors
        ///
        /// A commitment that is not revealed or too old, no such chunk, one that is asked for already, too many of them.
        #[pallet::call_index(62)]
        #[pallet::weight(T::WeightInfo::challenge_data())]
        pub fn challenge_data(
            origin: OriginFor<T>,
            run: RunId,
            commitment: CommitmentName,
            index: u32,
        ) -> DispatchResult {
            let challenger = ensure_signed(origin)?;
            Self::do_challenge_data(challenger, run, commitment, index)
        }

        /// Shows a chunk that is asked for; free if it succeeds.
        ///
        /// Scene 4 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the miner's hot or cold key.
        ///
        /// ## Errors
        ///
        /// A chunk that nobody asks for, an answer that is late, a proof that is not valid.
        #[pallet::call_index(63)]
        #[pallet::weight((T::WeightInfo::answer_data(), DispatchClass::Operational))]
        pub fn answer_data(
            origin: OriginFor<T>,
            run: RunId,
            commitment: CommitmentName,
            index: u32,
            chunk: Box<ShownChunk>,
        ) -> DispatchResultWithPostInfo {
            let who = ensure_signed(origin)?;
            Self::do_answer_data(who, run, commitment, index, *chunk)?;
            Ok(Pays::No.into())
        }

        /// Ends a request for a chunk that was not answered in time. Its miner is slashed, the challenger has its bond back.
        ///
        /// Scene 4 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody.
        ///
        /// ## Errors
        ///
        /// A chunk that nobody asks for, a request whose time is not over, or whose last window is not accepted yet.
        #[pallet::call_index(64)]
        #[pallet::weight(T::WeightInfo::time_out())]
        pub fn time_out(
            origin: OriginFor<T>,
            run: RunId,
            commitment: CommitmentName,
            index: u32,
        ) -> DispatchResult {
            ensure_signed(origin)?;
            Self::do_time_out(run, commitment, index)
        }

        /// Disputes what a validator measured: those who had a permit with it measure again.
        ///
        /// Scene 4 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody; the run's `dispute_bond` is held, and lost if more than half of all stake confirms the evaluation.
        ///
        /// ## Errors
        ///
        /// An evaluation that is not revealed, too old or disputed already, whose validator has no money left, too little money.
        #[pallet::call_index(65)]
        #[pallet::weight(T::WeightInfo::dispute_evaluation())]
        pub fn dispute_evaluation(
            origin: OriginFor<T>,
            run: RunId,
            evaluation: EvaluationName,
        ) -> DispatchResult {
            let challenger = ensure_signed(origin)?;
            Self::do_dispute_evaluation(challenger, run, evaluation)
        }

        /// Commits to what a juror measured, in the window after the dispute.
        ///
        /// Scene 4 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the hot key of a validator with a permit for the disputed window.
        ///
        /// ## Errors
        ///
        /// No such dispute, another window, a party to it or none of the bench, a second commitment.
        #[pallet::call_index(66)]
        #[pallet::weight((T::WeightInfo::commit_verdict(), DispatchClass::Operational))]
        pub fn commit_verdict(
            origin: OriginFor<T>,
            run: RunId,
            evaluation: EvaluationName,
            hash: Hash,
        ) -> DispatchResult {
            let hot = ensure_signed(origin)?;
            Self::do_commit_verdict(hot, run, evaluation, hash)
        }

        /// Reveals what a juror measured, two windows after the dispute.
        ///
        /// Scene 4 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by the hot key of a juror.
        ///
        /// ## Errors
        ///
        /// No such dispute, another window, no juror, no commitment, a second reveal, one that does not fit the commitment.
        #[pallet::call_index(67)]
        #[pallet::weight((T::WeightInfo::reveal_verdict(), DispatchClass::Operational))]
        pub fn reveal_verdict(
            origin: OriginFor<T>,
            run: RunId,
            evaluation: EvaluationName,
            measured: Evaluation,
            salt: Hash,
        ) -> DispatchResult {
            let hot = ensure_signed(origin)?;
            Self::do_reveal_verdict(hot, run, evaluation, measured, salt)
        }

        /// Ends a dispute whose jury has had its time: what more than half of all stake says is false costs the validator, what as
        /// much says is true the challenger its bond.
        ///
        /// Scene 4 of [the scenario](crate::scenario).
        ///
        /// ## Dispatch Origin
        ///
        /// Signed by anybody.
        ///
        /// ## Errors
        ///
        /// No such dispute, a jury whose time is not over.
        #[pallet::call_index(68)]
        #[pallet::weight(T::WeightInfo::close_dispute())]
        pub fn close_dispute(
            origin: OriginFor<T>,
            run: RunId,
            evaluation: EvaluationName,
        ) -> DispatchResult {
            ensure_signed(origin)?;
            Self::do_close_dispute(run, evaluation)
        }
    }

    #[pallet::view_functions]
    impl<T: Config> Pallet<T> {
        /// A page of the participants of a run; `None` for an unknown run.
        pub fn metagraph(run: RunId, page: u32) -> Option<Metagraph<T::AccountId>> {
            Self::view_metagraph(run, page)
        }

        /// Where a run is and when its next phase begins; `None` for an unknown run.
        pub fn phase(run: RunId) -> Option<PhaseInfo> {
            Self::view_phase(run)
        }

        /// The blocks at which the work on a window changes; `None` for an unknown run.
        pub fn schedule(run: RunId, window: Window) -> Option<Boundaries> {
            Self::view_schedule(run, window)
        }

        /// A page of what a miner trains on in the current window, [`VIEW_PAGE`](crate::view::VIEW_PAGE) samples long;
        /// `None` for an unknown miner and before the run's first block.
        pub fn assignment(run: RunId, uid: Uid, page: u32) -> Option<Assignment> {
            Self::view_assignment(run, uid, page)
        }

        /// A miner's score; `None` for an unknown miner.
        pub fn standing(run: RunId, uid: Uid) -> Option<StandingInfo> {
            Self::view_standing(run, uid)
        }

        /// What is disputed and proven of a window.
        pub fn disputes(run: RunId, window: Window) -> Disputes<T::AccountId> {
            Self::view_disputes(run, window)
        }

        /// What a run owes an account; `None` for an unknown run.
        pub fn claimable(run: RunId, account: T::AccountId) -> Option<Claimable> {
            Self::view_claimable(run, &account)
        }

        /// What a window credited to whom, claimed since or not; `None` when it is gone, void or not settled yet.
        pub fn pay(run: RunId, window: Window) -> Option<WindowPay> {
            Self::view_pay(run, window)
        }

        /// What a seat's holders were credited for the windows from `first` to `last`, oldest first: those that are
        /// settled and kept, [`VIEW_PAGE`](crate::view::VIEW_PAGE) at most; `None` for an unknown run.
        pub fn pay_history(
            run: RunId,
            seat: Seat,
            first: Window,
            last: Window,
        ) -> Option<Vec<SeatPay>> {
            Self::view_pay_history(run, seat, first, last)
        }

        /// The settings in force.
        pub fn settings(run: RunId) -> Option<Settings> {
            let version = Runs::<T>::get(run)?.settings_version;
            RunSettings::<T>::get(run, version)
        }

        /// What the chain fixed in a window; `None` when it is gone or has not begun.
        pub fn window_info(run: RunId, window: Window) -> Option<WindowRecord> {
            Windows::<T>::get(run, window)
        }

        /// The current window and the seed that assigns its samples.
        pub fn assignment_seed(run: RunId) -> Option<(Window, Hash)> {
            Self::view_assignment_seed(run)
        }

        /// What `create_run` with this layout takes of the owner.
        pub fn run_cost(layout: LayoutVec) -> RunCost {
            Self::view_run_cost(&layout)
        }

        /// What joining a run as a miner costs in this block, in planck.
        pub fn next_price(run: RunId) -> Option<Planck> {
            Self::view_next_price(run)
        }

        /// The bond of a miner that is gone, and when it can be withdrawn.
        pub fn departure(
            run: RunId,
            uid: Uid,
            registered_window: Window,
        ) -> Option<Departure<T::AccountId>> {
            Departures::<T>::get(run, (uid, registered_window))
        }

        /// The accepted set of a window; `None` before it is fixed.
        pub fn accepted_set(run: RunId, window: Window) -> Option<Vec<Uid>> {
            Self::view_accepted_set(run, window)
        }
    }
}
