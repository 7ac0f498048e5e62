//! The CUDA engine on emulated GPUs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod emulators;
mod gradients;
mod models;
mod sameness;
#[path = "../it/samples.rs"]
mod samples;
mod worlds;
