//! The kernels on the emulator, and the gates that they must pass.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attention;
mod layout;
mod probe;
mod rows;

mod optimiser;
mod sparse;

mod expected;
mod measured;
