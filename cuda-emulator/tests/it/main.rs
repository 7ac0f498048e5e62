//! The kernels on the emulator, and the gates that they must pass.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod collectives;
mod layout;
mod probe;
mod products;
mod streams;
