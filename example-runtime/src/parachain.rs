//! A parachain with blocks of twelve seconds: windows are counted in the relay chain's blocks of six, whatever becomes of its
//! own. Version and runtime APIs are as [`solo`](crate::solo)'s.

use alloc::vec::Vec;

use frame_support::{
    derive_impl,
    dispatch::DispatchClass,
    parameter_types,
    traits::{ConstU128, ConstU32, ConstU8},
    weights::{constants::WEIGHT_REF_TIME_PER_SECOND, IdentityFee, Weight},
};
use frame_system::{limits, EnsureRoot, EnsureSigned};
use pallet_gauntlet::{extension::CheckWindowWork, randomness::InsecureParentHash};
use pallet_transaction_payment::{ChargeTransactionPayment, FungibleAdapter};
use sp_inherents::InherentData;
use sp_runtime::{generic, Perbill};

use crate::{relay_clock, AccountId, Address, Balance, Header, Signature, UNIT};

/// As on a chain by itself; a parachain wraps all of it into `StorageWeightReclaim` of cumulus.
pub type TxExtension = (
    frame_system::CheckNonZeroSender<Runtime>,
    frame_system::CheckSpecVersion<Runtime>,
    frame_system::CheckTxVersion<Runtime>,
    frame_system::CheckGenesis<Runtime>,
    frame_system::CheckEra<Runtime>,
    frame_system::CheckNonce<Runtime>,
    frame_system::CheckWeight<Runtime>,
    CheckWindowWork<Runtime, ChargeTransactionPayment<Runtime>>,
    frame_system::WeightReclaim<Runtime>,
);

/// A transaction as it arrives.
pub type UncheckedExtrinsic =
    generic::UncheckedExtrinsic<Address, RuntimeCall, Signature, TxExtension>;
/// A block with decoded transactions.
pub type Block = generic::Block<Header, UncheckedExtrinsic>;

/// Executes blocks.
pub type Executive = frame_executive::Executive<
    Runtime,
    Block,
    frame_system::ChainContext<Runtime>,
    Runtime,
    AllPalletsWithSystem,
>;

#[frame_support::runtime]
mod runtime {
    #[runtime::runtime]
    #[runtime::derive(
        RuntimeCall,
        RuntimeEvent,
        RuntimeError,
        RuntimeOrigin,
        RuntimeFreezeReason,
        RuntimeHoldReason,
        RuntimeSlashReason,
        RuntimeLockId,
        RuntimeTask,
        RuntimeViewFunction
    )]
    pub struct Runtime;

    #[runtime::pallet_index(0)]
    pub type System = frame_system;

    #[runtime::pallet_index(1)]
    pub type RelayClock = relay_clock;

    #[runtime::pallet_index(2)]
    pub type Balances = pallet_balances;

    #[runtime::pallet_index(3)]
    pub type TransactionPayment = pallet_transaction_payment;

    #[runtime::pallet_index(4)]
    pub type Gauntlet = pallet_gauntlet;
}

parameter_types! {
    /// Two seconds of computation and the ten MiB of proof that relay chains allow (`MAX_POV_SIZE`); work has its own part of
    /// both.
    pub BlockWeights: limits::BlockWeights = {
        let block = Weight::from_parts(2 * WEIGHT_REF_TIME_PER_SECOND, 10 * 1024 * 1024);
        let ordinary = Perbill::from_percent(75);
        let mut weights = limits::BlockWeights::with_sensible_defaults(block, ordinary);
        let work = weights.per_class.get_mut(DispatchClass::Operational);
        work.max_total = Some(Perbill::from_percent(50) * block);
        work.max_extrinsic = work.reserved;
        weights
    };
}

#[derive_impl(frame_system::config_preludes::ParaChainDefaultConfig)]
impl frame_system::Config for Runtime {
    type Block = Block;
    type AccountData = pallet_balances::AccountData<Balance>;
    type BlockWeights = BlockWeights;
}

impl relay_clock::Config for Runtime {}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Runtime {
    type Balance = Balance;
    type ExistentialDeposit = ConstU128<{ UNIT / 1_000 }>;
    type AccountStore = System;
}

#[derive_impl(pallet_transaction_payment::config_preludes::TestDefaultConfig)]
impl pallet_transaction_payment::Config for Runtime {
    type OnChargeTransaction = FungibleAdapter<Balances, ()>;
    type OperationalFeeMultiplier = ConstU8<5>;
    type WeightToFee = IdentityFee<Balance>;
    type LengthToFee = IdentityFee<Balance>;
}

#[derive_impl(pallet_gauntlet::config_preludes::SolochainDefaultConfig)]
impl pallet_gauntlet::Config for Runtime {
    // In a cumulus runtime: cumulus_pallet_parachain_system::RelaychainDataProvider<Runtime>.
    type BlockNumberProvider = RelayClock;
    type ClockPerBlock = ConstU32<2>;
    type Currency = Balances;
    type CreateOrigin = EnsureSigned<AccountId>;
    type AdminOrigin = EnsureRoot<AccountId>;
    type Randomness = InsecureParentHash<Runtime>;
    type WeightInfo = pallet_gauntlet::weights::SubstrateWeight<Runtime>;
}

/// What an author puts in front of a block's transactions; the API `BlockBuilder` answers it.
pub fn inherents(data: InherentData) -> Vec<UncheckedExtrinsic> {
    data.create_extrinsics()
}
