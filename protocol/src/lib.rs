//! The rules of Gauntlet as pure functions: the chain, every client and every test get the same
//! number from the same bytes, because they all call these.
//!
//! Nothing here knows a clock, a network, a database or FRAME. All arithmetic that decides who is
//! accepted and who is paid is integer and checked: a function returns a typed error or `None`
//! where a number does not fit, and no function panics, whatever its input. Floating point exists
//! only behind the feature `std`, in the quantiser of [`update`] and in the outer step of
//! `aggregate`, both bit for bit specified.
//!
//! Read the modules in the order in which they are declared: it is the order of one window.
//!
//! # Glossary
//!
//! - **run**: one model being trained ([`RunId`]); many runs may share a chain.
//! - **window**: one training round of a run, counted in blocks ([`Window`], from 0).
//! - **phase**: a part of a window ([`window::Phase`]).
//! - **miner**: trains; holds a slot of the run, its **uid** ([`Uid`]).
//! - **validator**: measures what the miners' updates are worth ([`ValidatorIndex`]).
//! - **update**: a compressed pseudo-gradient ([`update`]); **payload**: its bytes.
//! - **commitment**: the hash that binds a payload before anybody can see it ([`commitment`]).
//! - **attestation**: what one validator could fetch and found valid, and the state it holds.
//! - **accepted set**: the miners whose updates every replica applies ([`accept`]).
//! - **evaluation**: what one validator measured of one update ([`consensus::Evaluation`]).
//! - **standing**: a miner's score over time ([`consensus::Standing`]).
//! - **settlement**: the computation that ends a window ([`consensus::settle`]).
//! - **state root**: the hash of all parameters of the model.
//! - **hot key** signs the work of each window, **cold key** owns the money; a hot key **consents** to the cold key
//!   for which it works ([`consent`]).
//! - **seat**: a participant's slot, a miner's or a validator's ([`entry::Seat`]).
//!
//! # Units
//!
//! - `_ppm`: parts per million; `_ppb`: parts per billion.
//! - [`fixed::Q32`]: a signed number with 32 fractional bits, value = n / 2^32.
//! - a **loss** is in nats as Q8.24 in a `u32`, value = n / 2^24.
//! - money is in [`Planck`]; a validator's stake inside a settlement is a `u64` of planck.
//! - blocks are the chain's ([`BlockNumber`]); windows, steps and samples are counted from 0.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]

extern crate alloc;

/// The crate's page, whose example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CratePage;

pub mod ids;

pub mod fixed;

pub mod window;

pub mod boundary;

pub mod limits;

mod hash_text;
pub mod settings;

pub mod consent;

pub mod entry;

pub mod seed;

pub mod assignment;

pub mod samples;

pub mod layout;

#[cfg(feature = "std")]
pub mod variant;

pub mod update;

pub mod merkle;

pub mod commitment;

pub mod accept;

#[cfg(feature = "std")]
pub mod aggregate;

#[cfg(feature = "std")]
pub mod validity;

#[cfg(feature = "std")]
pub mod state_root;

#[cfg(feature = "std")]
pub mod content_hash;

pub mod rating;

pub mod consensus;

pub mod emission;

pub mod pool;

pub mod fault;

pub mod books;

pub mod strikes;

pub use ids::{AccountBytes, BlockNumber, Hash, Planck, RunId, Uid, ValidatorIndex, Window};
