//! Tests of whole processes: the real node, real participants, killed and restarted.
//!
//! They need the chain's binary: `GAUNTLET_NODE`, or `gauntlet-node` beside the `gauntlet` that is tested, where
//! `cargo xtask test` has put it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command_line;
mod data;
mod embed;
mod faults;
mod kill;
mod light;
mod localnet;
mod nodes;
mod nonces;
mod packaging;
mod plan;
mod practice;
mod train;
mod twice;
mod walk;
