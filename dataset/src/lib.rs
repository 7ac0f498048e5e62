//! Turns text into tokens, and tokens into samples with a root that goes on chain; opens what it
//! built, in a folder of this machine or in a store. Knows no model, no chain and no peer.
//!
//! Read the modules in the order in which they are declared:
//!
//! 1. [`corpus`] gathers text and [`tokenizer`] turns it into [`tokens`];
//! 2. [`samples`] says what a training reads, `manifest` and `shards` how it lies in files, and
//!    [`Dataset`] opens a folder of them;
//! 3. [`remote`] reads a data set from a store, by piece and into a bounded cache;
//! 4. [`building`] writes one;
//! 5. [`place`] opens whichever kind a path or an address names.
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

pub mod corpus;

pub mod tokenizer;
pub mod tokens;

mod error;
pub mod json;
mod utf8;

pub mod samples;

mod manifest;

mod folder;
mod shards;

pub mod remote;

pub mod building;

pub mod place;

pub use building::{
    build, build_tokens, survey, text_of, BuildEvent, BuildOptions, BuildProgress, BuildSettings,
    Format, SourceSettings, Survey, DOCUMENT_END, SHARD_BYTES, SHARD_SAMPLES_MAX, VERSION,
};
pub use corpus::{default_corpus, gather, CorpusError, CorpusLimits, Document};
pub use error::DataError;
pub use folder::{Dataset, Samples};
pub use manifest::{Manifest, ShardManifest, SourceManifest, SplitManifest, TokenManifest};
pub use remote::{
    choose_tls, is_url, FetchedSamples, RemoteDataset, RemoteStore, Split, StoreOptions,
    StreamedBatches,
};
pub use samples::{BatchSource, SampleSource};
pub use tokenizer::{Tokenizer, TokenizerError};
pub use tokens::{Tokens, PIECE_BYTES};
