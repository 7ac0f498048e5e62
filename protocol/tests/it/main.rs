//! All integration tests of the crate in one binary.
#![cfg(feature = "std")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commitment;
mod known;
mod layout;
mod merkle;
mod update;

mod aggregate;
mod outer;
mod pieces;
mod senders;
mod state_root;
mod validity;
mod vectors_sparseloco;

mod accept;
mod assignment;
mod attacks;
mod books;
mod change;
mod coming_back;
mod consensus;
mod emission;
mod entry;
mod fault;
mod fixed;
mod incentive;
mod money;
mod pool;
mod props;
mod randomness;
mod rating;
mod samples;
mod vectors_plackett_luce;
mod vectors_yuma;
mod window;
mod yuma;
