//! What a training reads: a data set on this machine, one that is made of text, or one in a store, whose samples are fetched
//! while the steps before are computed.

use anyhow::{Context, Result};
use protocol::Hash;
use trainer::{
    data::{
        is_url, BatchSource, FetchedSamples, Manifest, RemoteDataset, Split, Store, StoreOptions,
        StreamedBatches,
    },
    evaluate::held_out_ids,
    Dataset, SampleSource,
};

use super::options::Plan;
use crate::corpus;

/// Where the samples are.
pub(super) enum Data {
    /// On this machine.
    Here(Box<Dataset>),
    /// In a store.
    Streamed(Box<Streamed>),
}

/// A data set in a store.
pub(super) struct Streamed {
    dataset: RemoteDataset,
    /// Those that evaluations read, which are the same ones each time.
    held_out: FetchedSamples,
}

impl Data {
    /// Opens the data set that is named, or makes one; samples have `seq_len` tokens.
    pub(super) fn open(plan: &Plan, seq_len: usize) -> Result<Self> {
        let url = plan.data.as_deref().and_then(|data| data.to_str());
        if let Some(url) = url.filter(|data| is_url(data)) {
            return Self::stream(url, plan, seq_len);
        }
        let built = plan
            .data
            .as_deref()
            .filter(|data| data.join("manifest.json").is_file());
        if let Some(folder) = built {
            let dataset = Dataset::open_with_sample_len(folder, seq_len)
                .with_context(|| format!("data set in {}", folder.display()))?;
            return Ok(Self::Here(Box::new(dataset)));
        }
        let own = plan.out.join("data");
        if own.join("manifest.json").is_file() {
            let dataset = Dataset::open_with_sample_len(&own, seq_len)?;
            return Ok(Self::Here(Box::new(dataset)));
        }
        let built = corpus::build(plan.data.as_deref(), plan.lock.as_deref(), seq_len, &own)?;
        Ok(Self::Here(Box::new(built)))
    }

    fn stream(url: &str, plan: &Plan, seq_len: usize) -> Result<Self> {
        let store = Store::open(url, &StoreOptions::default())?;
        let dataset = RemoteDataset::open(store, &plan.data_cache, plan.data_cache_bytes)
            .with_context(|| format!("no data set of `gauntlet data build` at {url}"))?
            .with_sample_len(seq_len)?;
        let ids = held_out_ids(dataset.sample_count(Split::HeldOut), plan.held_out_samples);
        let held_out = dataset.fetch(Split::HeldOut, &ids)?;
        Ok(Self::Streamed(Box::new(Streamed { dataset, held_out })))
    }

    pub(super) fn manifest(&self) -> &Manifest {
        match self {
            Self::Here(dataset) => dataset.manifest(),
            Self::Streamed(streamed) => streamed.dataset.manifest(),
        }
    }

    pub(super) fn root(&self) -> Hash {
        match self {
            Self::Here(dataset) => dataset.root(),
            Self::Streamed(streamed) => streamed.dataset.root(),
        }
    }

    /// Samples to train on.
    pub(super) fn train_count(&self) -> u64 {
        match self {
            Self::Here(dataset) => dataset.train().sample_count(),
            Self::Streamed(streamed) => streamed.dataset.sample_count(Split::Train),
        }
    }

    /// The held-out samples, or those of them that evaluations read.
    pub(super) fn held_out(&self) -> &dyn SampleSource {
        match self {
            Self::Here(dataset) => dataset.held_out(),
            Self::Streamed(streamed) => &streamed.held_out,
        }
    }

    /// The batches of a training.
    pub(super) fn batches(&self) -> Result<Box<dyn BatchSource + '_>> {
        Ok(match self {
            Self::Here(dataset) => Box::new(dataset.train()),
            Self::Streamed(streamed) => Box::new(StreamedBatches::new(streamed.dataset.clone())?),
        })
    }

    /// Bytes of a data set in a store.
    pub(super) fn streamed_bytes(&self) -> Option<u64> {
        match self {
            Self::Here(_) => None,
            Self::Streamed(streamed) => Some(streamed.dataset.bytes()),
        }
    }
}
