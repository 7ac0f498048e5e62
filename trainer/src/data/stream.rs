//! The tokens of one source: a thread reads its files ahead, another has them tokenised by the
//! pool, and both wait where the next one has enough. The order is that of the files.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;

use protocol::Hash;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::error::DataError;
use super::files::InputFile;
use super::items::{self, Item, ItemSettings};
use crate::tokenizer::Tokenizer;

/// Bytes of text that are tokenised together, at most: a few such batches of each source are in
/// memory at once.
pub(super) const BATCH_BYTES_MAX: usize = 4 << 20;

/// The same where there are many sources.
pub(super) const BATCH_BYTES_MIN: usize = 256 << 10;

/// The batches of all sources that are read at one time, about.
pub(super) const BATCHES_BYTES: usize = 64 << 20;

/// Items that are tokenised together, at most.
const BATCH_ITEMS: usize = 1 << 13;

/// Where the next item of a source is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// How often all files were read before.
    pub(super) pass: u32,
    /// The file.
    pub(super) file: usize,
    /// Items of the file that are behind.
    pub(super) item: u64,
}

/// What a source gives.
#[derive(Debug)]
pub(super) enum Piece {
    /// A document to train on.
    Train(Encoded),
    /// A document that is held out.
    HeldOut(Encoded),
    /// A document that was held out when it was read the first time.
    Passed,
    /// A line without a document: file, line, and why.
    Bad(String),
}

/// The tokens of a document.
#[derive(Debug)]
pub(super) struct Encoded {
    /// Ended by the token that ends documents.
    pub(super) tokens: Vec<u32>,
    /// Bytes of its text.
    pub(super) text_bytes: u64,
}

/// What all sources share.
pub(super) struct Shared {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) pool: rayon::ThreadPool,
    /// Documents whose hash starts with a smaller number are held out.
    pub(super) held_out_below: u64,
    /// Bytes read of all files.
    pub(super) bytes_read: Arc<AtomicU64>,
}

/// The files of a source and how often they may be read.
#[derive(Clone, Debug)]
pub(super) struct SourcePlan {
    pub(super) files: Vec<InputFile>,
    pub(super) items: ItemSettings,
    pub(super) repeat: u32,
    /// Bytes of text that are tokenised together, about.
    pub(super) batch_bytes: usize,
}

/// Items with the place behind each.
type Batch<T> = Vec<(Place, T)>;

/// The pieces of one source, in order.
pub(super) struct Stream {
    batches: Receiver<Result<Batch<Piece>, DataError>>,
    queue: VecDeque<(Place, Piece)>,
}

impl Stream {
    /// Starts to read `plan` at `start`. The threads end when the stream is dropped.
    pub(super) fn start(
        plan: SourcePlan,
        start: Place,
        shared: Arc<Shared>,
    ) -> Result<Self, DataError> {
        let (texts, texts_in) = sync_channel(1);
        let (pieces, batches) = sync_channel(1);
        let bytes_read = Arc::clone(&shared.bytes_read);
        spawn("data-read", move || {
            if let Err(error) = read(&plan, start, &bytes_read, &texts) {
                // Nobody listens any more, or the error is the last thing that is heard.
                let _ = texts.send(Err(error));
            }
        })?;
        spawn("data-tokens", move || encode(&shared, &texts_in, &pieces))?;
        Ok(Self {
            batches,
            queue: VecDeque::new(),
        })
    }

    /// The next piece and the place behind it; `None` where the source ends.
    pub(super) fn next(&mut self) -> Result<Option<(Place, Piece)>, DataError> {
        while self.queue.is_empty() {
            match self.batches.recv() {
                Ok(batch) => self.queue = batch?.into(),
                Err(_) => return Ok(None),
            }
        }
        Ok(self.queue.pop_front())
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), DataError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    match thread.spawn(run) {
        Ok(_) => Ok(()),
        Err(error) => Err(DataError::Threads(error.to_string())),
    }
}

/// Sends the items from `start` on, in batches.
fn read(
    plan: &SourcePlan,
    start: Place,
    bytes_read: &Arc<AtomicU64>,
    texts: &SyncSender<Result<Batch<Item>, DataError>>,
) -> Result<(), DataError> {
    let mut batch = Vec::new();
    let mut batch_bytes = 0;
    let mut place = start;
    while place.pass < plan.repeat {
        while let Some(file) = plan.files.get(place.file) {
            let skipped = usize::try_from(place.item).unwrap_or(usize::MAX);
            for item in items::open(file, &plan.items, bytes_read)?.skip(skipped) {
                let item = match item? {
                    Item::Bad(line, reason) => {
                        Item::Bad(line, format!("{}:{line}: {reason}", file.name))
                    }
                    document => document,
                };
                place.item += 1;
                batch_bytes += match &item {
                    Item::Document(text) | Item::Bad(_, text) => text.len(),
                };
                batch.push((place, item));
                if batch_bytes >= plan.batch_bytes || batch.len() >= BATCH_ITEMS {
                    batch_bytes = 0;
                    if texts.send(Ok(std::mem::take(&mut batch))).is_err() {
                        return Ok(());
                    }
                }
            }
            place.file += 1;
            place.item = 0;
        }
        place = Place {
            pass: place.pass + 1,
            ..Place::default()
        };
    }
    let _ = texts.send(Ok(batch));
    Ok(())
}

/// Tokenises batches until there are no more, or nobody wants them.
fn encode(
    shared: &Shared,
    texts: &Receiver<Result<Batch<Item>, DataError>>,
    pieces: &SyncSender<Result<Batch<Piece>, DataError>>,
) {
    while let Ok(batch) = texts.recv() {
        let encoded = batch.and_then(|batch| {
            let encoded: Vec<Result<(Place, Piece), DataError>> = shared.pool.install(|| {
                let items = batch.into_par_iter().with_max_len(4);
                items
                    .map(|(place, item)| Ok((place, piece(shared, place, item)?)))
                    .collect()
            });
            encoded.into_iter().collect()
        });
        let is_last = encoded.is_err();
        if pieces.send(encoded).is_err() || is_last {
            return;
        }
    }
}

fn piece(shared: &Shared, place: Place, item: Item) -> Result<Piece, DataError> {
    let text = match item {
        Item::Document(text) => text,
        Item::Bad(_, reason) => return Ok(Piece::Bad(reason)),
    };
    let hash: Hash = blake3::hash(text.as_bytes()).into();
    let is_held_out = leading(&hash) < shared.held_out_below;
    if is_held_out && place.pass > 0 {
        return Ok(Piece::Passed);
    }
    let mut tokens = shared.tokenizer.encode(&text)?;
    tokens.extend(shared.tokenizer.end_of_document());
    let encoded = Encoded {
        tokens,
        text_bytes: text.len() as u64,
    };
    Ok(match is_held_out {
        true => Piece::HeldOut(encoded),
        false => Piece::Train(encoded),
    })
}

/// The first eight bytes of a hash as a number.
fn leading(hash: &Hash) -> u64 {
    hash.iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}
