//! The smallest runtimes with `pallet-gauntlet`. Nobody runs them: they are the code that docs/INTEGRATING.md quotes, and
//! tests play a window through on both.
//!
//! [`solo`] counts windows in its own blocks, [`parachain`] in a relay chain's, as [`relay_clock`] keeps them.

#![cfg_attr(not(feature = "std"), no_std)]
// The runtime macros generate one large recursive type for each pallet tuple.
#![recursion_limit = "256"]
// Every item that a person wrote is documented; those that the macros write can't be.
#![allow(missing_docs)]

extern crate alloc;

pub mod relay_clock;

pub mod parachain;
pub mod solo;

use sp_runtime::{
    generic,
    traits::{BlakeTwo256, IdentifyAccount, Verify},
    MultiAddress, MultiSignature,
};

/// A signature by any of the usual schemes.
pub type Signature = MultiSignature;
/// The public identity of a signer, 32 bytes.
pub type AccountId = <<Signature as Verify>::Signer as IdentifyAccount>::AccountId;
/// How a call names an account.
pub type Address = MultiAddress<AccountId, ()>;
/// An amount in planck, 10^-12 of a [`UNIT`].
pub type Balance = u128;
/// A block's header.
pub type Header = generic::Header<u32, BlakeTwo256>;

/// One token, in planck.
pub const UNIT: Balance = 1_000_000_000_000;
