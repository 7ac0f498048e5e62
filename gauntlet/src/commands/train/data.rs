//! Opens the data set of a training: on this machine, made from text, or in a store, whose samples are fetched while
//! the steps before are computed.

use std::sync::atomic::AtomicBool;

use anyhow::Result;
use dataset::{BatchSource, Manifest, Split};
use protocol::Hash;
use trainer::evaluate::held_out_ids;

use super::{order::TrainingOrder, text};
use dataset::place::{self, Found};

/// The data set of a training.
pub(super) struct TrainingData {
    dataset: place::Data,
}

impl TrainingData {
    /// Opens the data set that is named, or makes one, until `end` is set; samples have `seq_len` tokens.
    pub(super) fn open(order: &TrainingOrder, seq_len: usize, end: &AtomicBool) -> Result<Self> {
        let built = order
            .data
            .as_deref()
            .filter(|data| place::url(data).is_some() || data.join("manifest.json").is_file());
        let dataset = match built {
            Some(place) => {
                let (cache, max) = (&order.data_cache, order.data_cache_bytes);
                place::Data::open(place, cache, max, Some(seq_len))?
            }
            None => place::Data::Here(Box::new(text::open(order, seq_len, end)?)),
        };
        Ok(Self { dataset })
    }

    pub(super) fn manifest(&self) -> &Manifest {
        self.dataset.manifest()
    }

    pub(super) fn root(&self) -> Hash {
        self.dataset.root()
    }

    /// Samples to train on.
    pub(super) fn train_count(&self) -> u64 {
        self.dataset.sample_count(Split::Train)
    }

    /// Held-out samples.
    pub(super) fn held_out_count(&self) -> u64 {
        self.dataset.sample_count(Split::HeldOut)
    }

    /// Up to `samples_max` held-out samples, which are the same ones each time, and their numbers.
    pub(super) fn held_out(&self, samples_max: usize) -> Result<(Found<'_>, Vec<u64>)> {
        let ids = held_out_ids(self.held_out_count(), samples_max);
        Ok((self.dataset.samples(Split::HeldOut, &ids)?, ids))
    }

    /// The batches of a training.
    pub(super) fn batches(&self) -> Result<Box<dyn BatchSource + '_>> {
        Ok(self.dataset.batches()?)
    }

    /// Bytes of a data set in a store.
    pub(super) fn streamed_bytes(&self) -> Option<u64> {
        match &self.dataset {
            place::Data::Here(_) => None,
            place::Data::Streamed(dataset) => Some(dataset.bytes()),
        }
    }
}
