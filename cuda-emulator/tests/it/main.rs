//! The kernels on the emulator, and the gates that they must pass.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attention;
mod collectives;
mod expected;
mod layout;
mod measured;
mod optimiser;
mod probe;
mod products;
mod rows;
mod script;
mod sparse;
mod streams;
