//! Tests of the library from outside; one binary, so that it links once.

// Clippy's `allow-unwrap-in-tests` does not see the helpers of a test binary.
#![allow(clippy::unwrap_used)]

mod chain;
mod dials;
mod forgotten;
mod journal;
mod keys;
mod mirror;
mod network;
mod reach;
mod relay;
mod serving;
mod store;
