//! Says who decides what: a council, by motions, and nobody alone.
//!
//! | decision | by whom |
//! |---|---|
//! | emission's division, forced changes of a run, authorities, seats, safe mode | 2/3 of the council ([`AdminOrigin`]) |
//! | entering safe mode | 1/2 of the council, for it has to be quick and harms no window |
//! | whatever needs root, such as a new runtime | 2/3 of the council admit the call's hash, 3/4 of it dispatch the call |
//!
//! A motion that reaches its threshold is executed when anybody closes it; one with a single seat at once. Accounts of
//! members can be multisigs.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{
    parameter_types,
    traits::{
        fungible::HoldConsideration, ConstU128, ConstU32, Contains, EitherOf, EqualPrivilegeOnly,
        InstanceFilter, LinearStoragePrice, MapSuccess,
    },
    weights::Weight,
};
use frame_system::{EnsureRoot, EnsureRootWithSuccess};
use pallet_collective::{EnsureProportionAtLeast, Instance1, PrimeDefaultVote};
use scale_info::TypeInfo;
use sp_runtime::{
    traits::{BlakeTwo256, Replace},
    Perbill,
};

use crate::{
    limits::RuntimeBlockWeights, AccountId, Balance, Balances, BlockNumber, OriginCaller, Preimage,
    Runtime, RuntimeCall, RuntimeEvent, RuntimeHoldReason, RuntimeOrigin, System, SLOT_MILLIS,
    UNIT,
};

/// Blocks in a day.
const DAY: BlockNumber = (24 * 60 * 60 * 1_000 / SLOT_MILLIS) as BlockNumber;

/// At least so many of so many seats of the council.
type CouncilPart<const N: u32, const D: u32> = EnsureProportionAtLeast<AccountId, Instance1, N, D>;

/// Who administers the chain: root, or two thirds of the council.
pub type AdminOrigin = EitherOf<EnsureRoot<AccountId>, CouncilPart<2, 3>>;

/// A deposit for `items` entries of `bytes` in all that somebody leaves in the state, in planck.
const fn deposit(items: u32, bytes: u32) -> Balance {
    items as Balance * UNIT / 10 + bytes as Balance * UNIT / 10_000
}

parameter_types! {
    /// The most that a motion's call may weigh: half of a block.
    pub MotionWeightMax: Weight = Perbill::from_percent(50) * RuntimeBlockWeights::get().max_block;
    /// The part of a block that calls of the agenda may take.
    pub ScheduledWeightMax: Weight = Perbill::from_percent(50) * RuntimeBlockWeights::get().max_block;
    /// What a deposit for a stored call is held for.
    pub const PreimageHoldReason: RuntimeHoldReason =
        RuntimeHoldReason::Preimage(pallet_preimage::HoldReason::Preimage);
    /// How long safe mode lasts once entered.
    pub const SafeModeDuration: BlockNumber = DAY;
    /// None: only governance enters safe mode.
    pub const NoDeposit: Option<Balance> = None;
    /// None: there is no deposit to release.
    pub const NoDelay: Option<BlockNumber> = None;
}

impl pallet_collective::Config<Instance1> for Runtime {
    type RuntimeOrigin = RuntimeOrigin;
    type Proposal = RuntimeCall;
    type RuntimeEvent = RuntimeEvent;
    type MotionDuration = ConstU32<{ 3 * DAY }>;
    type MaxProposals = ConstU32<32>;
    type MaxMembers = ConstU32<32>;
    type DefaultVote = PrimeDefaultVote;
    type WeightInfo = pallet_collective::weights::SubstrateWeight<Runtime>;
    type SetMembersOrigin = AdminOrigin;
    type MaxProposalWeight = MotionWeightMax;
    type DisapproveOrigin = AdminOrigin;
    type KillOrigin = AdminOrigin;
    // Members are few and known.
    type Consideration = ();
}

impl pallet_preimage::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = pallet_preimage::weights::SubstrateWeight<Runtime>;
    type Currency = Balances;
    type ManagerOrigin = AdminOrigin;
    type Consideration = HoldConsideration<
        AccountId,
        Balances,
        PreimageHoldReason,
        LinearStoragePrice<ConstU128<{ deposit(1, 0) }>, ConstU128<{ deposit(0, 1) }>, Balance>,
    >;
}

impl pallet_scheduler::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeOrigin = RuntimeOrigin;
    type PalletsOrigin = OriginCaller;
    type RuntimeCall = RuntimeCall;
    type MaximumWeight = ScheduledWeightMax;
    type ScheduleOrigin = AdminOrigin;
    type OriginPrivilegeCmp = EqualPrivilegeOnly;
    type MaxScheduledPerBlock = ConstU32<32>;
    type WeightInfo = pallet_scheduler::weights::SubstrateWeight<Runtime>;
    type Preimages = Preimage;
    type BlockNumberProvider = System;
}

impl pallet_whitelist::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeCall = RuntimeCall;
    type WhitelistOrigin = AdminOrigin;
    type DispatchWhitelistedOrigin = EitherOf<EnsureRoot<AccountId>, CouncilPart<3, 4>>;
    type Preimages = Preimage;
    type DeferredDispatchExpiration = ConstU32<{ 7 * DAY }>;
    type BlockNumberProvider = System;
    type WeightInfo = pallet_whitelist::weights::SubstrateWeight<Runtime>;
}

impl pallet_safe_mode::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type Currency = Balances;
    type RuntimeHoldReason = RuntimeHoldReason;
    type WhitelistedCalls = SafeCalls;
    type EnterDuration = SafeModeDuration;
    type ExtendDuration = SafeModeDuration;
    type EnterDepositAmount = NoDeposit;
    type ExtendDepositAmount = NoDeposit;
    type ForceEnterOrigin = EitherOf<
        EnsureRootWithSuccess<AccountId, SafeModeDuration>,
        MapSuccess<CouncilPart<1, 2>, Replace<SafeModeDuration>>,
    >;
    type ForceExtendOrigin = EitherOf<
        EnsureRootWithSuccess<AccountId, SafeModeDuration>,
        MapSuccess<CouncilPart<1, 2>, Replace<SafeModeDuration>>,
    >;
    type ForceExitOrigin = AdminOrigin;
    type ForceDepositOrigin = AdminOrigin;
    type Notify = ();
    type ReleaseDelay = NoDelay;
    type WeightInfo = pallet_safe_mode::weights::SubstrateWeight<Runtime>;
}

/// The calls that safe mode leaves alone: a window's work, so that nobody's training is lost and nobody is at fault, and
/// what the chain and its governance need to leave safe mode. Money does not move.
pub struct SafeCalls;

impl Contains<RuntimeCall> for SafeCalls {
    fn contains(call: &RuntimeCall) -> bool {
        match call {
            RuntimeCall::Gauntlet(call) => call.is_window_work(),
            RuntimeCall::System(_)
            | RuntimeCall::Timestamp(_)
            | RuntimeCall::Authorities(_)
            | RuntimeCall::Session(_)
            | RuntimeCall::Grandpa(_)
            | RuntimeCall::Council(_)
            | RuntimeCall::Preimage(_)
            | RuntimeCall::Scheduler(_)
            | RuntimeCall::Whitelist(_)
            | RuntimeCall::SafeMode(_)
            // What they wrap is filtered again.
            | RuntimeCall::Utility(_)
            | RuntimeCall::Multisig(_)
            | RuntimeCall::Proxy(_) => true,
            _ => false,
        }
    }
}

impl pallet_multisig::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeCall = RuntimeCall;
    type Currency = Balances;
    type DepositBase = ConstU128<{ deposit(1, 88) }>;
    type DepositFactor = ConstU128<{ deposit(0, 32) }>;
    type MaxSignatories = ConstU32<32>;
    type WeightInfo = pallet_multisig::weights::SubstrateWeight<Runtime>;
    type BlockNumberProvider = System;
}

impl pallet_proxy::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeCall = RuntimeCall;
    type Currency = Balances;
    type ProxyType = ProxyType;
    type ProxyDepositBase = ConstU128<{ deposit(1, 8) }>;
    type ProxyDepositFactor = ConstU128<{ deposit(0, 37) }>;
    type MaxProxies = ConstU32<32>;
    type WeightInfo = pallet_proxy::weights::SubstrateWeight<Runtime>;
    type MaxPending = ConstU32<32>;
    type CallHasher = BlakeTwo256;
    type AnnouncementDepositBase = ConstU128<{ deposit(1, 8) }>;
    type AnnouncementDepositFactor = ConstU128<{ deposit(0, 68) }>;
    type BlockNumberProvider = System;
}

/// What one account lets another do in its name.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo
)]
pub enum ProxyType {
    /// Everything.
    #[default]
    Any,
    /// Everything of Gauntlet: registering, staking, claiming; no transfers.
    Gauntlet,
    /// To move earned pay to its owner's account, and nothing else.
    Claim,
    /// To vote in the council.
    Council,
}

impl InstanceFilter<RuntimeCall> for ProxyType {
    fn filter(&self, call: &RuntimeCall) -> bool {
        match self {
            Self::Any => true,
            Self::Gauntlet => matches!(call, RuntimeCall::Gauntlet(_)),
            Self::Claim => {
                matches!(call, RuntimeCall::Gauntlet(pallet_gauntlet::Call::claim { .. }))
            }
            Self::Council => matches!(call, RuntimeCall::Council(_)),
        }
    }

    fn is_superset(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (Self::Gauntlet, Self::Claim) => true,
            _ => self == other,
        }
    }
}
