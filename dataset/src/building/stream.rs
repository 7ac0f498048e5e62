//! The tokens of one source: a thread reads its files ahead, another has them tokenised by the
//! pool, and both wait where the next one has enough. The order is that of the files.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;

use protocol::Hash;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::files::InputFile;
use super::item::Item;
use super::items::{self, ItemSettings};
use crate::error::DataError;
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
    /// What is wrong with a line: file, line, and what.
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

/// What a thread sends the next one. A source ends with `None`: a channel that is closed before it
/// is one whose thread has panicked, and what it read so far must not pass for the whole source.
type Sent<T> = Result<Option<Batch<T>>, DataError>;

/// The pieces of one source, in order.
pub(super) struct Stream {
    batches: Receiver<Sent<Piece>>,
    queue: VecDeque<(Place, Piece)>,
    is_ended: bool,
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
        Ok(Self { batches, queue: VecDeque::new(), is_ended: false })
    }

    /// The next piece and the place behind it; `None` where the source ends.
    pub(super) fn next(&mut self) -> Result<Option<(Place, Piece)>, DataError> {
        while self.queue.is_empty() && !self.is_ended {
            match self.batches.recv() {
                Ok(sent) => match sent? {
                    Some(batch) => self.queue = batch.into(),
                    None => self.is_ended = true,
                },
                Err(_) => return Err(DataError::Panicked),
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
    texts: &SyncSender<Sent<Item>>,
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
                    Item::Document(text) | Item::Bad(_, text) | Item::Mended(_, _, text) => {
                        text.len()
                    }
                };
                batch.push((place, item));
                if batch_bytes >= plan.batch_bytes || batch.len() >= BATCH_ITEMS {
                    batch_bytes = 0;
                    if texts.send(Ok(Some(std::mem::take(&mut batch)))).is_err() {
                        return Ok(());
                    }
                }
            }
            place.file += 1;
            place.item = 0;
        }
        place = Place { pass: place.pass + 1, ..Place::default() };
    }
    if texts.send(Ok(Some(batch))).is_ok() {
        let _ = texts.send(Ok(None));
    }
    Ok(())
}

/// Tokenises batches until there are no more, or nobody wants them.
fn encode(shared: &Shared, texts: &Receiver<Sent<Item>>, pieces: &SyncSender<Sent<Piece>>) {
    while let Ok(sent) = texts.recv() {
        let sent = sent.and_then(|batch| batch.map(|batch| tokenise(shared, batch)).transpose());
        let is_last = !matches!(sent, Ok(Some(_)));
        if pieces.send(sent).is_err() || is_last {
            return;
        }
    }
}

fn tokenise(shared: &Shared, batch: Batch<Item>) -> Result<Batch<Piece>, DataError> {
    let pieces: Vec<Result<(Place, Piece), DataError>> = shared.pool.install(|| {
        let items = batch.into_par_iter().with_max_len(4);
        items.map(|(place, item)| Ok((place, piece(shared, place, item)?))).collect()
    });
    pieces.into_iter().collect()
}

fn piece(shared: &Shared, place: Place, item: Item) -> Result<Piece, DataError> {
    let text = match item {
        Item::Document(text) | Item::Mended(_, _, text) => text,
        Item::Bad(_, reason) => return Ok(Piece::Bad(reason)),
    };
    let hash: Hash = blake3::hash(text.as_bytes()).into();
    let is_held_out = leading(&hash) < shared.held_out_below;
    if is_held_out && place.pass > 0 {
        return Ok(Piece::Passed);
    }
    let mut tokens = shared.tokenizer.encode(&text)?;
    tokens.extend(shared.tokenizer.end_of_document());
    let encoded = Encoded { tokens, text_bytes: text.len() as u64 };
    Ok(match is_held_out {
        true => Piece::HeldOut(encoded),
        false => Piece::Train(encoded),
    })
}

/// The first eight bytes of a hash as a number.
fn leading(hash: &Hash) -> u64 {
    hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panicked_is_no_end_of_the_source() {
        let (pieces, batches) = sync_channel(2);
        let mut stream = Stream { batches, queue: VecDeque::new(), is_ended: false };
        let batch = vec![(Place::default(), Piece::Passed)];
        pieces.send(Ok(Some(batch))).unwrap();
        drop(pieces);
        assert!(matches!(stream.next(), Ok(Some((_, Piece::Passed)))));
        assert!(matches!(stream.next(), Err(DataError::Panicked)));

        let (pieces, batches) = sync_channel(1);
        stream.batches = batches;
        pieces.send(Ok(None)).unwrap();
        drop(pieces);
        assert!(matches!(stream.next(), Ok(None)));
        assert!(matches!(stream.next(), Ok(None)));
    }
}
