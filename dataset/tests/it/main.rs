//! Tests of data sets and tokenizers through their public interface.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod datasets;
mod practice;
mod shelf;
mod shelved;
mod stores;
mod token_data;
mod tokenizers;
