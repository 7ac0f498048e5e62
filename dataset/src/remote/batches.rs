//! Fetches the batches of a training from a store while the batches before are computed.

use std::collections::VecDeque;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};

use super::dataset::{FetchedSamples, RemoteDataset, Split};
use crate::error::DataError;
use crate::samples::{BatchSource, SampleSource};

/// Batches that are on their way or waiting.
const AHEAD: usize = 4;

/// Batches of training samples from a store: a thread fetches the next ones meanwhile.
#[derive(Debug)]
pub struct StreamedBatches {
    requests: SyncSender<BatchRequest>,
    /// What has been asked for, in order.
    ahead: VecDeque<Ahead>,
    current: Option<FetchedSamples>,
}

#[derive(Debug)]
struct BatchRequest {
    ids: Vec<u64>,
    reply: SyncSender<Result<FetchedSamples, DataError>>,
}

#[derive(Debug)]
struct Ahead {
    ids: Vec<u64>,
    samples: Receiver<Result<FetchedSamples, DataError>>,
}

impl StreamedBatches {
    /// Starts the thread. It ends when this is dropped, after the batch that it is fetching.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn new(dataset: RemoteDataset) -> Result<Self, DataError> {
        let (requests, asked) = sync_channel::<BatchRequest>(AHEAD);
        let work = move || {
            for BatchRequest { ids, reply } in asked {
                // Nobody may be waiting any more.
                let _ = reply.send(dataset.fetch(Split::Train, &ids));
            }
        };
        let thread = std::thread::Builder::new().name("batches".to_owned());
        let started = thread.spawn(work);
        started.map_err(|error| DataError::Threads(error.to_string()))?;
        Ok(Self { requests, ahead: VecDeque::with_capacity(AHEAD), current: None })
    }

    fn ask(&mut self, ids: Vec<u64>) -> Result<(), DataError> {
        let (reply, samples) = sync_channel(1);
        let request = BatchRequest { ids: ids.clone(), reply };
        self.requests.send(request).map_err(|_| ended())?;
        self.ahead.push_back(Ahead { ids, samples });
        Ok(())
    }
}

/// The thread ends before its owner only by a panic.
fn ended() -> DataError {
    DataError::Threads("the thread that fetches batches has ended".to_owned())
}

impl BatchSource for StreamedBatches {
    fn batch(
        &mut self,
        ids: &[u64],
        upcoming: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Result<&dyn SampleSource, DataError> {
        // Another than was foreseen: the training went back to a checkpoint.
        if self.ahead.front().is_some_and(|next| next.ids != ids) {
            self.ahead.clear();
        }
        if self.ahead.is_empty() {
            self.ask(ids.to_vec())?;
        }
        while self.ahead.len() < AHEAD {
            let first = (self.ahead.len() * ids.len()) as u64;
            let next = (first..first + ids.len() as u64).map(&mut *upcoming);
            let Some(next) = next.collect::<Option<Vec<u64>>>() else {
                break;
            };
            self.ask(next)?;
        }
        let next = self.ahead.pop_front().ok_or_else(ended)?;
        let samples = match next.samples.recv().map_err(|_| ended())? {
            Ok(samples) => samples,
            Err(error) => {
                // Those behind it are asked for again, in order.
                self.ahead.clear();
                return Err(error);
            }
        };
        Ok(self.current.insert(samples))
    }
}
