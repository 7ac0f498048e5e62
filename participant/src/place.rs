//! The data set that a process reads: in a folder of this machine, or in a store, of which samples are fetched when they are
//! needed. Both give the same samples.

use std::path::Path;

use crate::error::{Attempt as _, Result};
use protocol::Hash;
use trainer::{
    data::{
        is_url, BatchSource, FetchedSamples, Manifest, RemoteDataset, Samples, Split, Store,
        StoreOptions, StreamedBatches,
    },
    DataError, Dataset, SampleSource, Tokens,
};

/// Most that is kept of a data set in a store, unless asked otherwise: 32 GiB.
pub const CACHE_BYTES_MAX: u64 = 32 << 30;

/// A data set of `gauntlet data build`.
pub enum Data {
    /// On this machine.
    Here(Box<Dataset>),
    /// In a store.
    Streamed(Box<RemoteDataset>),
}

/// Some samples of a data set.
pub enum Found<'a> {
    /// All of a split.
    Here(&'a Samples),
    /// Those that were asked for.
    Fetched(FetchedSamples),
}

impl Data {
    /// Opens the data set in the folder or at the address `place`. Pieces from a store are kept in `cache`, up to
    /// `cache_bytes_max`. Samples have `sample_len` tokens, or as many as it was built for.
    ///
    /// # Errors
    /// There is none, or the store fails.
    pub fn open(
        place: &Path,
        cache: &Path,
        cache_bytes_max: u64,
        sample_len: Option<usize>,
    ) -> Result<Self> {
        let Some(url) = url(place) else {
            let dataset = match sample_len {
                Some(sample_len) => Dataset::open_with_sample_len(place, sample_len),
                None => Dataset::open(place),
            };
            let dataset = dataset.with_context(|| format!("data set in {}", place.display()))?;
            return Ok(Self::Here(Box::new(dataset)));
        };
        let store = Store::open(url, &StoreOptions::default())?;
        let mut dataset = RemoteDataset::open(store, cache, cache_bytes_max)
            .with_context(|| format!("no data set of `gauntlet data build` at {url}"))?;
        if let Some(sample_len) = sample_len {
            dataset = dataset.with_sample_len(sample_len)?;
        }
        Ok(Self::Streamed(Box::new(dataset)))
    }

    /// What it consists of.
    pub fn manifest(&self) -> &Manifest {
        match self {
            Self::Here(dataset) => dataset.manifest(),
            Self::Streamed(dataset) => dataset.manifest(),
        }
    }

    /// The root that goes on chain.
    pub fn root(&self) -> Hash {
        match self {
            Self::Here(dataset) => dataset.root(),
            Self::Streamed(dataset) => dataset.root(),
        }
    }

    /// Samples of a split.
    pub fn sample_count(&self, split: Split) -> u64 {
        match self {
            Self::Here(dataset) => part(dataset, split).sample_count(),
            Self::Streamed(dataset) => dataset.sample_count(split),
        }
    }

    /// The samples `ids`; of a data set on this machine all others, too. Blocks while they are fetched.
    ///
    /// # Errors
    /// There is no such sample in the store, it fails, or what it has is damaged.
    pub fn samples(&self, split: Split, ids: &[u64]) -> Result<Found<'_>, DataError> {
        Ok(match self {
            Self::Here(dataset) => Found::Here(part(dataset, split)),
            Self::Streamed(dataset) => Found::Fetched(dataset.fetch(split, ids)?),
        })
    }

    /// The batches of a training. Those from a store are fetched ahead.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn batches(&self) -> Result<Box<dyn BatchSource + '_>, DataError> {
        Ok(match self {
            Self::Here(dataset) => Box::new(dataset.train()),
            Self::Streamed(dataset) => {
                Box::new(StreamedBatches::new(RemoteDataset::clone(dataset))?)
            }
        })
    }
}

/// What the data set at `place` consists of; nothing of it is fetched or kept.
///
/// # Errors
/// There is none, or the store fails.
pub fn manifest(place: &Path) -> Result<Manifest> {
    let Some(url) = url(place) else {
        let dataset = Dataset::open(place);
        let dataset = dataset.with_context(|| format!("data set in {}", place.display()))?;
        return Ok(dataset.manifest().clone());
    };
    let store = Store::open(url, &StoreOptions::default())?;
    let dataset = RemoteDataset::open_uncached(store)
        .with_context(|| format!("no data set of `gauntlet data build` at {url}"))?;
    Ok(dataset.manifest().clone())
}

/// The address, if it is one and no folder.
pub fn url(place: &Path) -> Option<&str> {
    place.to_str().filter(|place| is_url(place))
}

fn part(dataset: &Dataset, split: Split) -> &Samples {
    match split {
        Split::Train => dataset.train(),
        Split::HeldOut => dataset.held_out(),
    }
}

impl SampleSource for Found<'_> {
    fn sample_len(&self) -> usize {
        self.source().sample_len()
    }

    fn sample_count(&self) -> u64 {
        self.source().sample_count()
    }

    fn sample(&self, id: u64) -> Option<Tokens<'_>> {
        self.source().sample(id)
    }

    fn end_of_document(&self) -> Option<u32> {
        self.source().end_of_document()
    }
}

impl Found<'_> {
    fn source(&self) -> &dyn SampleSource {
        match self {
            Self::Here(samples) => *samples,
            Self::Fetched(samples) => samples,
        }
    }
}
