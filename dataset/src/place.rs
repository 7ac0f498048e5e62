//! The data set that a process reads: in a folder of this machine, or in a store, of which samples are fetched when they are
//! needed. Both give the same samples.

use std::path::{Path, PathBuf};

use protocol::Hash;

use crate::error::DataError;
use crate::folder::{Dataset, Samples};
use crate::manifest::Manifest;
use crate::remote::{
    is_url, FetchedSamples, RemoteDataset, RemoteStore, Split, StoreOptions, StreamedBatches,
};
use crate::samples::{BatchSource, SampleSource};
use crate::tokens::Tokens;

/// Most that is kept of a data set in a store, unless asked otherwise: 32 GiB.
pub const CACHE_BYTES_MAX: u64 = 32 << 30;

/// Why no data set could be opened at a place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The folder has no data set, or a damaged one.
    #[error("data set in {}", folder.display())]
    Folder {
        /// The folder that was named.
        folder: PathBuf,
        /// What is wrong there.
        source: DataError,
    },
    /// The store has no data set, or fails.
    #[error("no data set of `gauntlet data build` at {url}")]
    Address {
        /// The address that was named.
        url: String,
        /// What is wrong there.
        source: DataError,
    },
    /// The address is none, or samples cannot have the length that was asked for.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// A data set of `gauntlet data build`.
#[derive(Debug)]
pub enum Data {
    /// On this machine.
    Here(Box<Dataset>),
    /// In a store.
    Streamed(Box<RemoteDataset>),
}

/// Some samples of a data set.
#[derive(Debug)]
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
    ) -> Result<Self, PlaceError> {
        let Some(url) = url(place) else {
            let dataset = match sample_len {
                Some(sample_len) => Dataset::open_with_sample_len(place, sample_len),
                None => Dataset::open(place),
            };
            let dataset = dataset.map_err(in_folder(place))?;
            return Ok(Self::Here(Box::new(dataset)));
        };
        let store = RemoteStore::open(url, &StoreOptions::default())?;
        let mut dataset =
            RemoteDataset::open(store, cache, cache_bytes_max).map_err(at_address(url))?;
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
pub fn manifest(place: &Path) -> Result<Manifest, PlaceError> {
    let Some(url) = url(place) else {
        let dataset = Dataset::open(place).map_err(in_folder(place))?;
        return Ok(dataset.manifest().clone());
    };
    let store = RemoteStore::open(url, &StoreOptions::default())?;
    let dataset = RemoteDataset::open_uncached(store).map_err(at_address(url))?;
    Ok(dataset.manifest().clone())
}

fn in_folder(folder: &Path) -> impl FnOnce(DataError) -> PlaceError + '_ {
    move |source| PlaceError::Folder { folder: folder.to_owned(), source }
}

fn at_address(url: &str) -> impl FnOnce(DataError) -> PlaceError + '_ {
    move |source| PlaceError::Address { url: url.to_owned(), source }
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
