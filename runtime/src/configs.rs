//! Configures each pallet of the runtime.

use frame_support::{
    derive_impl, parameter_types,
    traits::{
        ConstBool, ConstU128, ConstU32, ConstU64, ConstU8, LinearStoragePrice, VariantCountOf,
    },
    weights::constants::ParityDbWeight,
    PalletId,
};
use frame_system::{
    offchain::{CreateBare, CreateTransactionBase},
    EnsureSigned,
};
use pallet_gauntlet::emission_schedule::{Halving, HalvingMint};
use pallet_session::{
    disabling::UpToLimitDisablingStrategy,
    historical::{self, NoteHistoricalRoot},
    PeriodicSessions,
};
use pallet_transaction_payment::FungibleAdapter;
use sp_consensus_aura::sr25519::AuthorityId as AuraId;
use sp_runtime::traits::{ConvertInto, OpaqueKeys};
use sp_staking::SessionIndex;
use sp_version::RuntimeVersion;

use crate::{
    authorities::{AccountOnly, NeverEnds},
    fees,
    governance::AdminOrigin,
    limits::{RuntimeBlockLength, RuntimeBlockWeights, BLOCK_BYTES_MAX, WORK_RATIO},
    AccountId, Aura, Authorities, Balance, Balances, Block, BlockNumber, Hash, Historical, Nonce,
    Offences, OriginCaller, PalletInfo, Runtime, RuntimeCall, RuntimeEvent, RuntimeFreezeReason,
    RuntimeHoldReason, RuntimeOrigin, RuntimeTask, SafeMode, Session, SessionKeys, System,
    UncheckedExtrinsic, EXISTENTIAL_DEPOSIT, SLOT_MILLIS, SS58_PREFIX, UNIT, VERSION,
};

/// Blocks of a day.
const BLOCKS_A_DAY: u32 = (24 * 60 * 60 * 1_000 / SLOT_MILLIS) as u32;
/// The blocks between two changes of the authorities: ten minutes.
const SESSION_BLOCKS: BlockNumber = 300;
/// Sessions for which an equivocation can be reported: a week.
const REPORTABLE_SESSIONS: SessionIndex = 1_008;

/// When the authorities may change.
type Sessions = PeriodicSessions<ConstU32<SESSION_BLOCKS>, ConstU32<0>>;

parameter_types! {
    /// What each run has held of its owner.
    pub const RunDepositBase: Balance = 1_000 * UNIT;
    /// And for each byte of its layout.
    pub const RunDepositByte: Balance = UNIT / 10;
    /// How many blocks back a hash can be looked up and a mortal transaction may be signed against.
    pub const BlockHashCount: BlockNumber = 2_400;
    /// The runtime's version.
    pub const Version: RuntimeVersion = VERSION;
    /// The prefix of an account's text form.
    pub const Ss58Prefix: u8 = SS58_PREFIX;
    /// The longest list of authorities.
    pub const AuthoritiesMax: u32 = 32;
    /// For how many sessions after it an equivocation can be reported.
    pub const ReportableSessions: SessionIndex = REPORTABLE_SESSIONS;
    /// Derives the account of each run.
    pub const GauntletPalletId: PalletId = PalletId(*b"gauntlet");
    /// What all runs together are given: a quarter of a UNIT a block (10,800 a day), halved every 63,072,000 blocks (four
    /// years of 2 seconds each), which comes to 31,536,000 UNIT; it ends at the cap, some 39 years from the first block.
    pub const EmissionSchedule: Halving = Halving {
        start_block: 0,
        per_block: UNIT / 4,
        halving_blocks: 63_072_000,
        cap: 31_500_000 * UNIT,
    };
    /// What a key must have at stake for its work to be free; a full block of bytes costs about four times as much.
    pub const FreeWorkMin: Balance = 10 * UNIT;
    /// The bytes of work in a block.
    pub WorkBytesMax: u32 = WORK_RATIO * BLOCK_BYTES_MAX;
}

#[derive_impl(frame_system::config_preludes::SolochainDefaultConfig)]
impl frame_system::Config for Runtime {
    type Block = Block;
    type BlockWeights = RuntimeBlockWeights;
    type BlockLength = RuntimeBlockLength;
    type BlockHashCount = BlockHashCount;
    type AccountId = AccountId;
    type AccountData = pallet_balances::AccountData<Balance>;
    type Nonce = Nonce;
    type Hash = Hash;
    type DbWeight = ParityDbWeight;
    type Version = Version;
    type SS58Prefix = Ss58Prefix;
    type MaxConsumers = ConstU32<16>;
    type BaseCallFilter = SafeMode;
    type SingleBlockMigrations = crate::SingleBlockMigrations;
}

impl pallet_timestamp::Config for Runtime {
    type Moment = u64;
    type OnTimestampSet = Aura;
    // Any increase will do: Aura already demands a later slot.
    type MinimumPeriod = ConstU64<1>;
    type WeightInfo = pallet_timestamp::weights::SubstrateWeight<Runtime>;
}

impl pallet_aura::Config for Runtime {
    type AuthorityId = AuraId;
    type DisabledValidators = Session;
    type MaxAuthorities = AuthoritiesMax;
    type AllowMultipleBlocksPerSlot = ConstBool<false>;
    type SlotDuration = ConstU64<SLOT_MILLIS>;
}

impl pallet_authorship::Config for Runtime {
    type FindAuthor = pallet_session::FindAccountFromAuthorIndex<Self, Aura>;
    // Authors are not paid.
    type EventHandler = ();
}

impl crate::authorities::Config for Runtime {
    type Sessions = Sessions;
    type AdminOrigin = AdminOrigin;
    type AuthoritiesMax = AuthoritiesMax;
    type ReportableSessions = ReportableSessions;
}

impl pallet_session::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type ValidatorId = AccountId;
    // Anybody may set keys, against a deposit; governance names whose keys count.
    type ValidatorIdOf = ConvertInto;
    // `Authorities` ends them.
    type ShouldEndSession = NeverEnds;
    type NextSessionRotation = Sessions;
    type SessionManager = NoteHistoricalRoot<Self, Authorities>;
    type SessionHandler = <SessionKeys as OpaqueKeys>::KeyTypeIdProviders;
    type Keys = SessionKeys;
    type DisablingStrategy = UpToLimitDisablingStrategy;
    type WeightInfo = pallet_session::weights::SubstrateWeight<Runtime>;
    type Currency = Balances;
    type KeyDeposit = ConstU128<UNIT>;
}

impl historical::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type FullIdentification = ();
    type FullIdentificationOf = AccountOnly;
}

impl pallet_offences::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type IdentificationTuple = historical::IdentificationTuple<Self>;
    type OnOffenceHandler = Authorities;
}

impl pallet_grandpa::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = ();
    type MaxAuthorities = AuthoritiesMax;
    type MaxNominators = ConstU32<0>;
    type MaxSetIdSessionEntries = ConstU64<{ REPORTABLE_SESSIONS as u64 }>;
    type KeyOwnerProof = sp_session::MembershipProof;
    type EquivocationReportSystem = pallet_grandpa::EquivocationReportSystem<
        Self,
        Offences,
        Historical,
        ConstU64<{ REPORTABLE_SESSIONS as u64 * SESSION_BLOCKS as u64 }>,
    >;
}

impl<LocalCall> CreateTransactionBase<LocalCall> for Runtime
where
    RuntimeCall: From<LocalCall>,
{
    type Extrinsic = UncheckedExtrinsic;
    type RuntimeCall = RuntimeCall;
}

impl<LocalCall> CreateBare<LocalCall> for Runtime
where
    RuntimeCall: From<LocalCall>,
{
    fn create_bare(call: RuntimeCall) -> UncheckedExtrinsic {
        UncheckedExtrinsic::new_bare(call)
    }
}

impl pallet_balances::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeHoldReason = RuntimeHoldReason;
    type RuntimeFreezeReason = RuntimeFreezeReason;
    type Balance = Balance;
    type ExistentialDeposit = ConstU128<EXISTENTIAL_DEPOSIT>;
    type AccountStore = System;
    type ReserveIdentifier = [u8; 8];
    type FreezeIdentifier = RuntimeFreezeReason;
    type MaxLocks = ConstU32<50>;
    type MaxReserves = ();
    type MaxFreezes = VariantCountOf<RuntimeFreezeReason>;
    type DustRemoval = ();
    type DoneSlashHandler = ();
    type WeightInfo = pallet_balances::weights::SubstrateWeight<Runtime>;
}

impl pallet_transaction_payment::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    // Fees are burned: no author earns by filling blocks.
    type OnChargeTransaction = FungibleAdapter<Balances, ()>;
    type OperationalFeeMultiplier = ConstU8<5>;
    type WeightToFee = fees::WeightFee;
    type LengthToFee = fees::LengthFee;
    type FeeMultiplierUpdate = fees::Congestion;
    type WeightInfo = pallet_transaction_payment::weights::SubstrateWeight<Runtime>;
}

impl pallet_utility::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeCall = RuntimeCall;
    type PalletsOrigin = OriginCaller;
    type WeightInfo = pallet_utility::weights::SubstrateWeight<Runtime>;
}

impl pallet_gauntlet::Config for Runtime {
    type BlockNumberProvider = System;
    type ClockPerBlock = ConstU32<1>;
    type Currency = Balances;
    type RuntimeHoldReason = RuntimeHoldReason;
    // Anybody may start a run and then owns it.
    type CreateOrigin = EnsureSigned<AccountId>;
    type AdminOrigin = AdminOrigin;
    type HotKeyProof = sp_runtime::MultiSignature;
    type Emission = HalvingMint<Balances, EmissionSchedule>;
    type PalletId = GauntletPalletId;
    type RunsMax = ConstU32<16>;
    type HistoryWindows = ConstU64<{ pallet_gauntlet::HISTORY_WINDOWS }>;
    type RunDeposit = LinearStoragePrice<RunDepositBase, RunDepositByte, Balance>;
    // A month.
    type StartHorizon = ConstU32<{ 30 * BLOCKS_A_DAY }>;
    // Between a day and a month, by the length of the run's windows.
    type IdleWindows = ConstU64<1_000>;
    type ReapDelayWindows = ConstU64<{ 2 * pallet_gauntlet::HISTORY_WINDOWS }>;
    type AdminDelayWindows = ConstU64<2>;
    type Randomness = pallet_gauntlet::randomness::InsecureParentHash<Runtime>;
    type FreeWorkMin = FreeWorkMin;
    type WorkBytesMax = WorkBytesMax;
    type DisputeWindows = ConstU64<12>;
    type SlashDelayWindows = ConstU64<2>;
    type WeightInfo = pallet_gauntlet::weights::SubstrateWeight<Runtime>;
}
