//! Tests of the trainer through its public interface.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod budgets;
mod checkpoints;
mod compression;
mod datasets;
mod devices;
mod evaluation;
mod files;
mod gguf;
mod gradients;
mod harness;
mod harness_tasks;
mod initial;
mod learning;
mod pretraining;
mod samples;
mod schedules;
mod shelf;
mod stores;
mod token_data;
mod tokenizers;
