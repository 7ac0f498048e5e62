//! A chain by itself: windows are counted in its own blocks.

use alloc::{borrow::Cow, vec, vec::Vec};

use frame_support::{
    derive_impl,
    dispatch::DispatchClass,
    parameter_types,
    traits::{ConstU128, ConstU8},
    view_functions::{ViewFunctionDispatchError, ViewFunctionId},
    weights::{constants::WEIGHT_REF_TIME_PER_SECOND, IdentityFee, Weight},
};
use frame_system::{limits, EnsureRoot, EnsureSigned};
use pallet_gauntlet::{
    emission_schedule::{Halving, HalvingMint},
    extension::CheckWindowWork,
    randomness::InsecureParentHash,
};
use pallet_transaction_payment::{ChargeTransactionPayment, FungibleAdapter};
use protocol::settings::Settings;
use sp_api::impl_runtime_apis;
use sp_core::OpaqueMetadata;
use sp_inherents::{CheckInherentsResult, InherentData};
use sp_runtime::{
    generic,
    traits::Block as BlockT,
    transaction_validity::{TransactionSource, TransactionValidity},
    ApplyExtrinsicResult, ExtrinsicInclusionMode, Perbill,
};
use sp_version::RuntimeVersion;

use crate::{AccountId, Address, Balance, Header, Signature, UNIT};

/// The parts of a transaction beside its call: the extension that charges fees stands inside of the one that lets work in.
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

/// The storage of a chain that began with an older pallet is led to this one's, once.
pub type SingleBlockMigrations = (
    pallet_gauntlet::migrations::MigrateV1ToV2<Runtime>,
    pallet_gauntlet::migrations::MigrateV2ToV3<Runtime>,
);

/// Executes blocks.
pub type Executive = frame_executive::Executive<
    Runtime,
    Block,
    frame_system::ChainContext<Runtime>,
    Runtime,
    AllPalletsWithSystem,
>;

#[sp_version::runtime_version]
pub const VERSION: RuntimeVersion = RuntimeVersion {
    spec_name: Cow::Borrowed("example"),
    impl_name: Cow::Borrowed("example"),
    authoring_version: 1,
    spec_version: 1,
    impl_version: 1,
    apis: RUNTIME_API_VERSIONS,
    transaction_version: 1,
    system_version: 1,
};

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
    pub type Balances = pallet_balances;

    #[runtime::pallet_index(2)]
    pub type TransactionPayment = pallet_transaction_payment;

    #[runtime::pallet_index(3)]
    pub type Gauntlet = pallet_gauntlet;
}

parameter_types! {
    pub const Version: RuntimeVersion = VERSION;
}

parameter_types! {
    /// Work is of the operational class: a quarter of a block is its own also where everything else is full, and more
    /// than half of a block it never has.
    pub BlockWeights: limits::BlockWeights = {
        let block = Weight::from_parts(2 * WEIGHT_REF_TIME_PER_SECOND, u64::MAX);
        let ordinary = Perbill::from_percent(75);
        let mut weights = limits::BlockWeights::with_sensible_defaults(block, ordinary);
        let work = weights.per_class.get_mut(DispatchClass::Operational);
        work.max_total = Some(Perbill::from_percent(50) * block);
        work.max_extrinsic = work.reserved;
        weights
    };
}

#[derive_impl(frame_system::config_preludes::SolochainDefaultConfig)]
impl frame_system::Config for Runtime {
    type Block = Block;
    type AccountData = pallet_balances::AccountData<Balance>;
    type BlockWeights = BlockWeights;
    type Version = Version;
    type SingleBlockMigrations = SingleBlockMigrations;
}

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

parameter_types! {
    /// A quarter of a UNIT a block, halved every four years of blocks of six seconds, never more than the cap.
    pub const Emission: Halving = Halving {
        start_block: 0,
        per_block: UNIT / 4,
        halving_blocks: 21_024_000,
        cap: 10_500_000 * UNIT,
    };
}

#[derive_impl(pallet_gauntlet::config_preludes::SolochainDefaultConfig)]
impl pallet_gauntlet::Config for Runtime {
    type BlockNumberProvider = System;
    type Currency = Balances;
    type CreateOrigin = EnsureSigned<AccountId>;
    type AdminOrigin = EnsureRoot<AccountId>;
    type Emission = HalvingMint<Balances, Emission>;
    type Randomness = InsecureParentHash<Runtime>;
    type WeightInfo = pallet_gauntlet::weights::SubstrateWeight<Runtime>;
}

/// A genesis with one run, whose owner can pay its deposit.
pub fn genesis(owner: AccountId, settings: Settings, layout: Vec<u64>) -> RuntimeGenesisConfig {
    let balances = vec![(owner.clone(), 10_000 * UNIT)];
    RuntimeGenesisConfig {
        balances: BalancesConfig { balances, ..Default::default() },
        gauntlet: GauntletConfig { runs: vec![(owner, settings, layout)] },
        ..Default::default()
    }
}

// In front of the APIs, which use what it defines.
#[cfg(feature = "runtime-benchmarks")]
frame_benchmarking::define_benchmarks!([pallet_balances, Balances][pallet_gauntlet, Gauntlet]);

impl_runtime_apis! {
    impl sp_api::Core<Block> for Runtime {
        fn version() -> RuntimeVersion {
            VERSION
        }

        fn execute_block(block: <Block as BlockT>::LazyBlock) {
            Executive::execute_block(block);
        }

        fn initialize_block(header: &Header) -> ExtrinsicInclusionMode {
            Executive::initialize_block(header)
        }
    }

    impl sp_api::Metadata<Block> for Runtime {
        fn metadata() -> OpaqueMetadata {
            OpaqueMetadata::new(Runtime::metadata().into())
        }

        fn metadata_at_version(version: u32) -> Option<OpaqueMetadata> {
            Runtime::metadata_at_version(version)
        }

        fn metadata_versions() -> Vec<u32> {
            Runtime::metadata_versions()
        }
    }

    impl frame_support::view_functions::runtime_api::RuntimeViewFunction<Block> for Runtime {
        fn execute_view_function(
            id: ViewFunctionId,
            input: Vec<u8>,
        ) -> Result<Vec<u8>, ViewFunctionDispatchError> {
            Runtime::execute_view_function(id, input)
        }
    }

    impl sp_block_builder::BlockBuilder<Block> for Runtime {
        fn apply_extrinsic(extrinsic: UncheckedExtrinsic) -> ApplyExtrinsicResult {
            Executive::apply_extrinsic(extrinsic)
        }

        fn finalize_block() -> Header {
            Executive::finalize_block()
        }

        fn inherent_extrinsics(data: InherentData) -> Vec<UncheckedExtrinsic> {
            data.create_extrinsics()
        }

        fn check_inherents(
            block: <Block as BlockT>::LazyBlock,
            data: InherentData,
        ) -> CheckInherentsResult {
            data.check_extrinsics(&block)
        }
    }

    impl sp_transaction_pool::runtime_api::TaggedTransactionQueue<Block> for Runtime {
        fn validate_transaction(
            source: TransactionSource,
            extrinsic: UncheckedExtrinsic,
            block_hash: <Runtime as frame_system::Config>::Hash,
        ) -> TransactionValidity {
            Executive::validate_transaction(source, extrinsic, block_hash)
        }
    }

    #[cfg(feature = "runtime-benchmarks")]
    impl frame_benchmarking::Benchmark<Block> for Runtime {
        fn benchmark_metadata(
            extra: bool,
        ) -> (Vec<frame_benchmarking::BenchmarkList>, Vec<frame_support::traits::StorageInfo>) {
            use frame_benchmarking::BenchmarkList;
            use frame_support::traits::StorageInfoTrait;

            let mut list = Vec::<BenchmarkList>::new();
            list_benchmarks!(list, extra);
            (list, AllPalletsWithSystem::storage_info())
        }

        fn dispatch_benchmark(
            config: frame_benchmarking::BenchmarkConfig,
        ) -> Result<Vec<frame_benchmarking::BenchmarkBatch>, alloc::string::String> {
            use frame_benchmarking::BenchmarkBatch;
            use frame_support::traits::WhitelistedStorageKeys;

            let whitelist = AllPalletsWithSystem::whitelisted_storage_keys();
            let mut batches = Vec::<BenchmarkBatch>::new();
            let params = (&config, &whitelist);
            add_benchmarks!(params, batches);
            Ok(batches)
        }
    }

    #[cfg(feature = "try-runtime")]
    impl frame_try_runtime::TryRuntime<Block> for Runtime {
        fn on_runtime_upgrade(checks: frame_try_runtime::UpgradeCheckSelect) -> (Weight, Weight) {
            match Executive::try_runtime_upgrade(checks) {
                Ok(weight) => (weight, BlockWeights::get().max_block),
                Err(error) => panic!("a check of the upgrade failed: {error:?}"),
            }
        }

        fn execute_block(
            block: <Block as BlockT>::LazyBlock,
            state_root_check: bool,
            signature_check: bool,
            select: frame_try_runtime::TryStateSelect,
        ) -> Weight {
            match Executive::try_execute_block(block, state_root_check, signature_check, select) {
                Ok(weight) => weight,
                Err(error) => panic!("the block failed: {error:?}"),
            }
        }
    }
}
