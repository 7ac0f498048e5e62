//! Tests of the trainer through its public interface.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ahead;
mod budgets;
mod checkpoints;
mod compression;
mod devices;
mod evaluation;
mod files;
mod gguf;
mod gradients;
mod harness;
mod harness_tasks;
mod initial;
mod learning;
mod practice;
mod pretraining;
mod samples;
mod schedules;
#[path = "../../../dataset/tests/it/shelf.rs"]
mod shelf;
#[path = "../../../dataset/tests/it/shelved.rs"]
mod shelved;
mod stores;
