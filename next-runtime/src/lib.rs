//! The blob of a runtime that differs from ours by its `spec_version` alone, which is one higher: what a live chain is
//! upgraded to in `cargo xtask javascript`. There is nothing else here.

#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(target_family = "wasm")]
pub use runtime::*;
