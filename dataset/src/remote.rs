//! Reads data sets and text from an object store or a web server: requests, a bounded cache of
//! pieces, samples by their numbers, and batches that are fetched ahead.

mod ranges;
pub(crate) mod store;

mod cache;
mod dataset;

mod batches;

pub use batches::StreamedBatches;
pub use dataset::{FetchedSamples, RemoteDataset, Split};
pub use store::{choose_tls, is_url, RemoteStore, StoreOptions};
