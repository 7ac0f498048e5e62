//! Samples: flat files of tokens, mapped into memory, and a manifest whose root goes on chain.
//!
//! # Files
//!
//! - `train-0000.bin`, … and `held-out-0000.bin`, …: the documents one after the other, each ended
//!   by a token that no document contains. A token has one byte (the byte-level vocabulary), two
//!   (vocabularies of up to 65,536) or four, little endian.
//! - `manifest.json`: lengths, the BLAKE3 hashes of all pieces of [`PIECE_BYTES`], and the root,
//!   which is BLAKE3 of everything else in the manifest, in the binary form of [`Manifest::hash`].
//!   It is written last: a folder without it is not a data set.
//!
//! # Samples
//!
//! Sample `i` of a split is its tokens `i · L` to `i · L + L`, both included: L inputs and, one
//! further, L targets; the last token is the first of the next sample. No sample crosses files; in
//! version 2 a file starts with the last token of the one before, so that none is lost.
//!
//! # Two ways to build one
//!
//! [`build`] takes documents in memory and writes bytes (version 1): what `localnet` needs.
//! [`build_tokens`] (version 2) streams text of any size, from files or an object store, through a
//! tokenizer; it reads in this order: `settings` → `files` → `items` (documents of one file) →
//! `stream` (tokens of one source) → `mixture` → `shards` and `journal`.
//!
//! A data set in an object store is a [`RemoteDataset`]: samples are fetched by piece into a bounded
//! cache. A training takes its batches from a [`BatchSource`], which both kinds of data set are.

mod settings;

mod chunks;
mod files;
mod items;
mod parquet;
mod store;
mod stream;

mod mixture;

mod journal;
mod shards;

mod building;

mod bytes;
mod dataset;
mod error;
mod manifest;

mod cache;
mod remote;

mod batches;

pub use batches::{BatchSource, StreamedBatches};
pub use building::{build_tokens, BuildEvent, BuildOptions, BuildProgress};
pub use bytes::{build, DOCUMENT_END, SHARD_SAMPLES_MAX, VERSION};
pub use dataset::{Dataset, Samples};
pub use error::DataError;
pub use files::{survey, Survey};
pub use manifest::{
    Manifest, ShardManifest, SourceManifest, SplitManifest, TokenManifest, PIECE_BYTES,
};
pub use remote::{FetchedSamples, RemoteDataset, Split};
pub use settings::{BuildSettings, Format, SourceSettings, SHARD_BYTES};
pub use store::{is_url, Store, StoreOptions};

use crate::tokens::Tokens;

/// Samples of equal length.
pub trait SampleSource: Sync {
    /// Tokens of a sample.
    fn sample_len(&self) -> usize;

    /// Samples there are.
    fn sample_count(&self) -> u64;

    /// The tokens of sample `id`, one more than [`SampleSource::sample_len`]: the inputs, and the
    /// targets one further. `None` past the last sample.
    fn sample(&self, id: u64) -> Option<Tokens<'_>>;

    /// The token that ends a document. Where there is one, no token attends to a token of an earlier
    /// document of its sample.
    fn end_of_document(&self) -> Option<u32> {
        None
    }
}
