//! The chain: `pallet-gauntlet` between the pallets that a solo chain needs.
//!
//! Nothing of Gauntlet's rules is here, only its place in a chain. [`configs`] configures each pallet, [`authorities`] keeps
//! who makes blocks, [`governance`] says who decides what, [`apis`] answers a node's calls, and [`genesis`] makes the
//! states that a chain can start from.

#![cfg_attr(not(feature = "std"), no_std)]
// The runtime macros generate one large recursive type for each pallet tuple.
#![recursion_limit = "256"]
// Every item that a person wrote is documented; those that the macros write can't be.
#![allow(missing_docs)]

extern crate alloc;

#[cfg(feature = "std")]
include!(concat!(env!("OUT_DIR"), "/wasm_binary.rs"));

pub mod apis;
pub mod authorities;
pub mod configs;
pub mod fees;
pub mod genesis;
pub mod governance;
pub mod limits;
#[cfg(feature = "std")]
pub mod transactions;

use alloc::{borrow::Cow, vec::Vec};

use sp_runtime::{
    generic, impl_opaque_keys,
    traits::{BlakeTwo256, IdentifyAccount, Verify},
    MultiAddress, MultiSignature,
};
use sp_version::RuntimeVersion;

/// A signature by any of the schemes that the chain accepts.
pub type Signature = MultiSignature;
/// The public identity of a signer, 32 bytes.
pub type AccountId = <<Signature as Verify>::Signer as IdentifyAccount>::AccountId;
/// How a call names an account.
pub type Address = MultiAddress<AccountId, ()>;
/// An amount in planck, 10^-12 of a [`UNIT`].
pub type Balance = u128;
/// The number of transactions that an account has sent.
pub type Nonce = u32;
/// A hash of a block, of a state or of a transaction.
pub type Hash = sp_core::H256;
/// The height of a block.
pub type BlockNumber = u32;
/// A block's header.
pub type Header = generic::Header<BlockNumber, BlakeTwo256>;
/// A block with decoded transactions.
pub type Block = generic::Block<Header, UncheckedExtrinsic>;

/// The parts of a transaction beside its call, in the order in which they are checked.
pub type TxExtension = (
    frame_system::CheckNonZeroSender<Runtime>,
    frame_system::CheckSpecVersion<Runtime>,
    frame_system::CheckTxVersion<Runtime>,
    frame_system::CheckGenesis<Runtime>,
    frame_system::CheckEra<Runtime>,
    frame_system::CheckNonce<Runtime>,
    frame_system::CheckWeight<Runtime>,
    pallet_gauntlet::extension::CheckWindowWork<
        Runtime,
        pallet_transaction_payment::ChargeTransactionPayment<Runtime>,
    >,
    frame_metadata_hash_extension::CheckMetadataHash<Runtime>,
    frame_system::WeightReclaim<Runtime>,
);

/// A transaction as it arrives, with its signature not yet checked.
pub type UncheckedExtrinsic =
    generic::UncheckedExtrinsic<Address, RuntimeCall, Signature, TxExtension>;

/// The payload that a signer signs.
pub type SignedPayload = generic::SignedPayload<RuntimeCall, TxExtension>;

/// What the next upgrade of a running chain changes in its storage, in one block; empty once every chain has it.
pub type SingleBlockMigrations = (
    pallet_gauntlet::migrations::MigrateV1ToV2<Runtime>,
    pallet_gauntlet::migrations::MigrateV2ToV3<Runtime>,
);

/// Executes blocks: hooks, inherents and transactions in order.
pub type Executive = frame_executive::Executive<
    Runtime,
    Block,
    frame_system::ChainContext<Runtime>,
    Runtime,
    AllPalletsWithSystem,
>;

/// The types with undecoded transactions that a node works with.
pub mod opaque {
    use sp_runtime::{generic, traits::BlakeTwo256};

    use super::BlockNumber;

    pub use sp_runtime::OpaqueExtrinsic as UncheckedExtrinsic;

    /// The header of a block.
    pub type Header = generic::Header<BlockNumber, BlakeTwo256>;
    /// A block whose transactions are bytes.
    pub type Block = generic::Block<Header, UncheckedExtrinsic>;
}

impl_opaque_keys! {
    /// The keys with which an author seals blocks and votes for their finality.
    pub struct SessionKeys {
        /// Seals blocks.
        pub aura: Aura,
        /// Votes for finality.
        pub grandpa: Grandpa,
    }
}

/// Declares the version under this `spec_version`: the attribute, which writes it into the blob, takes a literal only.
macro_rules! version {
    ($spec_version:tt) => {
        /// Which runtime this is. `spec_version` rises with every change of behaviour, `transaction_version` with every
        /// change of how a call or an extension is encoded: docs/decisions/0019-the-chain.md.
        #[sp_version::runtime_version]
        pub const VERSION: RuntimeVersion = RuntimeVersion {
            spec_name: Cow::Borrowed("gauntlet"),
            impl_name: Cow::Borrowed("gauntlet"),
            authoring_version: 1,
            spec_version: $spec_version,
            impl_version: 1,
            apis: apis::RUNTIME_API_VERSIONS,
            transaction_version: 4,
            system_version: 1,
        };
    };
}

#[cfg(not(feature = "next-version"))]
version!(4);
// What the crate `next-runtime` upgrades a live chain to.
#[cfg(feature = "next-version")]
version!(5);

/// One token, in planck.
pub const UNIT: Balance = 1_000_000_000_000;
/// The least an account may hold, in planck; one that falls below is removed.
pub const EXISTENTIAL_DEPOSIT: Balance = UNIT / 1_000;
/// The length of an Aura slot in milliseconds: the block time where several authors take turns.
pub const SLOT_MILLIS: u64 = 2_000;
/// The prefix of an account's text form; 42 is the one of chains without their own.
pub const SS58_PREFIX: u8 = 42;

// In the order in which genesis is built and hooks run. Index 6 was sudo's and stays free.
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
    pub type Timestamp = pallet_timestamp;

    // Before the session that may change who the authorities are.
    #[runtime::pallet_index(2)]
    pub type Aura = pallet_aura;

    #[runtime::pallet_index(9)]
    pub type Authorship = pallet_authorship;

    #[runtime::pallet_index(4)]
    pub type Balances = pallet_balances;

    #[runtime::pallet_index(5)]
    pub type TransactionPayment = pallet_transaction_payment;

    // Before the session, whose genesis asks it.
    #[runtime::pallet_index(10)]
    pub type Authorities = authorities;

    #[runtime::pallet_index(11)]
    pub type Session = pallet_session;

    #[runtime::pallet_index(12)]
    pub type Historical = pallet_session::historical;

    #[runtime::pallet_index(13)]
    pub type Offences = pallet_offences;

    #[runtime::pallet_index(3)]
    pub type Grandpa = pallet_grandpa;

    #[runtime::pallet_index(14)]
    pub type Council = pallet_collective<Instance1>;

    #[runtime::pallet_index(15)]
    pub type Preimage = pallet_preimage;

    #[runtime::pallet_index(16)]
    pub type Scheduler = pallet_scheduler;

    #[runtime::pallet_index(17)]
    pub type Whitelist = pallet_whitelist;

    #[runtime::pallet_index(18)]
    pub type SafeMode = pallet_safe_mode;

    #[runtime::pallet_index(7)]
    pub type Utility = pallet_utility;

    #[runtime::pallet_index(19)]
    pub type Multisig = pallet_multisig;

    #[runtime::pallet_index(20)]
    pub type Proxy = pallet_proxy;

    #[runtime::pallet_index(8)]
    pub type Gauntlet = pallet_gauntlet;
}
