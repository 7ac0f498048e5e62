//! Tests of whole participants on a chain, a network and a clock in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod allocator;
mod desk;
mod hindrance;
mod payloads;
#[path = "../../../dataset/tests/it/shelf.rs"]
mod shelf;
mod sim;
