//! Builds data sets, in two ways.
//!
//! [`build()`] takes documents in memory and writes bytes (version 1): what `localnet` needs.
//! [`build_tokens`] (version 2) streams text of any size, from files or an object store, through a
//! tokenizer; it reads in this order: `settings` → `files` → `items` (documents of one file) →
//! `stream` (tokens of one source) → `mixture` → `build`, with a `journal`.

mod settings;

mod chunks;
mod files;
mod item;
mod items;
mod parquet;
mod stream;
mod unpack;

mod mixture;

mod journal;

mod build;

mod bytes;

pub use build::{build_tokens, BuildEvent, BuildOptions, BuildProgress};
pub use bytes::{build, DOCUMENT_END, SHARD_SAMPLES_MAX, VERSION};
pub use files::{survey, Survey};
pub use settings::{BuildSettings, Format, SourceSettings, SHARD_BYTES};
pub use unpack::text_of;
