//! The CUDA engine on emulated GPUs, from a gradient to a miner's and a validator's window: the engine's own code
//! above the traits `Gpu` and `Collective`, its kernels compiled by the host's compiler, and no GPU.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod curves;
mod emulators;
mod failures;
mod gradients;
mod memory;
mod models;
mod resuming;
mod sameness;
#[path = "../it/samples.rs"]
mod samples;
mod windows;
mod worlds;
