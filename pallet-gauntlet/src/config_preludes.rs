//! Values of [`Config`](crate::Config) for a runtime to begin with, by [`derive_impl`]:
//!
//! ```ignore
//! #[derive_impl(pallet_gauntlet::config_preludes::SolochainDefaultConfig)]
//! impl pallet_gauntlet::Config for Runtime {
//!     type BlockNumberProvider = System;
//!     type Currency = Balances;
//!     type CreateOrigin = EnsureSigned<AccountId>;
//!     type AdminOrigin = EnsureRoot<AccountId>;
//!     type Randomness = Beacon;
//!     type WeightInfo = pallet_gauntlet::weights::SubstrateWeight<Runtime>;
//! }
//! ```
//!
//! The six items that it names have no default, since a wrong one costs money or security: which clock, whose money, who may
//! create runs and who governs them, whose dice, and how fast the machine is. Amounts are in planck of a currency with twelve
//! decimals; one with others overrides [`FreeWorkMin`](crate::Config::FreeWorkMin) and
//! [`RunDeposit`](crate::Config::RunDeposit).

use frame_support::{
    derive_impl,
    pallet_prelude::inject_runtime_type,
    parameter_types, register_default_impl,
    traits::{ConstU128, ConstU32, ConstU64, LinearStoragePrice},
    PalletId,
};
use protocol::{limits::HISTORY_WINDOWS, Planck};
use sp_runtime::MultiSignature;

use crate::pallet::DefaultConfig;

/// A token of twelve decimals, in planck.
const UNIT: Planck = 1_000_000_000_000;
/// Blocks of six seconds in a day.
const BLOCKS_A_DAY: u32 = 24 * 60 * 60 / 6;

parameter_types! {
    /// Derives the accounts of runs.
    pub const GauntletPalletId: PalletId = PalletId(*b"gauntlet");
    /// What a run of a main network holds of its owner, whatever its layout.
    pub const RunDepositBase: Planck = 1_000 * UNIT;
    /// And for each byte of its layout.
    pub const RunDepositByte: Planck = UNIT / 10;
}

/// A test's values: waits are short, and a run costs no deposit.
pub struct TestDefaultConfig;

#[derive_impl(frame_system::config_preludes::TestDefaultConfig, no_aggregated_types)]
impl frame_system::DefaultConfig for TestDefaultConfig {}

#[register_default_impl(TestDefaultConfig)]
impl DefaultConfig for TestDefaultConfig {
    type ClockPerBlock = ConstU32<1>;
    #[inject_runtime_type]
    type RuntimeHoldReason = ();
    type HotKeyProof = MultiSignature;
    type Emission = ();
    type PalletId = GauntletPalletId;
    type RunsMax = ConstU32<4>;
    type HistoryWindows = ConstU64<HISTORY_WINDOWS>;
    type RunDeposit = ();
    type StartHorizon = ConstU32<100_000>;
    type IdleWindows = ConstU64<6>;
    type ReapDelayWindows = ConstU64<12>;
    type AdminDelayWindows = ConstU64<2>;
    type FreeWorkMin = ConstU128<UNIT>;
    type WorkBytesMax = ConstU32<100_000>;
    type DisputeWindows = ConstU64<12>;
    type SlashDelayWindows = ConstU64<2>;
}

/// A main network's values, for windows of about two hours and blocks of six seconds. Nothing is minted: runs live on their
/// sponsors until the runtime names another [`Emission`](crate::Config::Emission).
pub struct SolochainDefaultConfig;

#[derive_impl(frame_system::config_preludes::SolochainDefaultConfig, no_aggregated_types)]
impl frame_system::DefaultConfig for SolochainDefaultConfig {}

#[register_default_impl(SolochainDefaultConfig)]
impl DefaultConfig for SolochainDefaultConfig {
    type ClockPerBlock = ConstU32<1>;
    #[inject_runtime_type]
    type RuntimeHoldReason = ();
    type HotKeyProof = MultiSignature;
    type Emission = ();
    type PalletId = GauntletPalletId;
    type RunsMax = ConstU32<16>;
    type HistoryWindows = ConstU64<HISTORY_WINDOWS>;
    type RunDeposit = LinearStoragePrice<RunDepositBase, RunDepositByte, Planck>;
    // A month.
    type StartHorizon = ConstU32<{ 30 * BLOCKS_A_DAY }>;
    // A month of windows of two hours.
    type IdleWindows = ConstU64<360>;
    type ReapDelayWindows = ConstU64<{ 2 * HISTORY_WINDOWS }>;
    // A day of them.
    type AdminDelayWindows = ConstU64<12>;
    type FreeWorkMin = ConstU128<{ 10 * UNIT }>;
    // Half of the SDK's usual block of five MiB.
    type WorkBytesMax = ConstU32<{ 5 * 1024 * 1024 / 2 }>;
    type DisputeWindows = ConstU64<12>;
    type SlashDelayWindows = ConstU64<2>;
}
