//! Ranges of objects, also of a server that answers each with the whole object.
//!
//! Simple web servers (`python -m http.server`) know no ranges, others answer them in a form that the
//! client does not take. The part is then cut out of the whole as it comes: never more than the part
//! is in memory, but all bytes in front of it cross the network. Parts that follow each other are cut out
//! of one stream.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use tokio::sync::Mutex;

/// Reads parts of objects.
pub(super) struct Ranges {
    store: Arc<dyn ObjectStore>,
    /// Whether a range has been answered with something else.
    gives_whole: AtomicBool,
    /// The object that was cut last, and its name: parts are mostly asked for in order.
    last: Mutex<Option<(Path, Whole)>>,
}

/// An object that is read from its start.
pub(super) struct Whole {
    chunks: BoxStream<'static, Result<Bytes, Error>>,
    /// What came and is not read yet, and where it starts.
    rest: Bytes,
    at: u64,
}

impl Ranges {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, gives_whole: AtomicBool::new(false), last: Mutex::default() }
    }

    /// Exactly the bytes of a range: a store that gives fewer has not the object it said.
    pub(super) async fn get(&self, path: &Path, range: Range<u64>) -> Result<Bytes, Error> {
        if !self.gives_whole.load(Ordering::Relaxed) {
            let (bytes, whole) = self.next(path, range, None).await?;
            if let Some(whole) = whole {
                *self.last.lock().await = Some((path.clone(), whole));
            }
            return Ok(bytes);
        }
        // One after the other, so that parts that are asked for together are cut out of one stream.
        let mut last = self.last.lock().await;
        let kept = last.take().filter(|(of, whole)| of == path && whole.at <= range.start);
        if let Some((_, mut whole)) = kept {
            // A stream that nobody read for long may have broken.
            if let Ok(bytes) = whole.read(range.clone()).await {
                *last = Some((path.clone(), whole));
                return Ok(bytes);
            }
        }
        let (bytes, whole) = self.next(path, range, None).await?;
        *last = whole.map(|whole| (path.clone(), whole));
        Ok(bytes)
    }

    /// As [`Self::get`], of ranges that follow each other: what is returned with the first serves the next.
    pub(super) async fn next(
        &self,
        path: &Path,
        range: Range<u64>,
        whole: Option<Whole>,
    ) -> Result<(Bytes, Option<Whole>), Error> {
        if let Some(mut whole) = whole.filter(|whole| whole.at <= range.start) {
            return Ok((whole.read(range).await?, Some(whole)));
        }
        if !self.gives_whole.load(Ordering::Relaxed) {
            match self.store.get_range(path, range.clone()).await {
                Ok(bytes) => return exact(bytes, &range).map(|bytes| (bytes, None)),
                Err(error) if is_about_ranges(&error) => self.note_whole(path, &error),
                Err(error) => return Err(error),
            }
        }
        let mut whole =
            Whole { chunks: self.store.get(path).await?.into_stream(), rest: Bytes::new(), at: 0 };
        Ok((whole.read(range).await?, Some(whole)))
    }

    fn note_whole(&self, path: &Path, error: &Error) {
        if !self.gives_whole.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %path, %error,
                "the server does not answer ranges: each is cut out of the whole file as it comes"
            );
        }
    }
}

impl Whole {
    /// Passes over what is before a range, and reads it.
    async fn read(&mut self, range: Range<u64>) -> Result<Bytes, Error> {
        let len = range.end - range.start;
        let mut part = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        while self.at < range.end {
            if self.rest.is_empty() {
                match self.chunks.try_next().await? {
                    Some(chunk) => self.rest = chunk,
                    None => break,
                }
            }
            let is_before = self.at < range.start;
            let until = if is_before { range.start } else { range.end };
            let wanted = usize::try_from(until - self.at).unwrap_or(usize::MAX);
            let taken = self.rest.split_to(wanted.min(self.rest.len()));
            self.at += taken.len() as u64;
            if !is_before {
                part.extend_from_slice(&taken);
            }
        }
        exact(part.into(), &range)
    }
}

/// Whether an answer was none to a range. `object_store` says it in words alone.
fn is_about_ranges(error: &Error) -> bool {
    let text = error.to_string().to_lowercase();
    let is_answer = matches!(error, Error::NotSupported { .. } | Error::Generic { .. });
    is_answer && ["range", "non-partial", "requested"].iter().any(|word| text.contains(word))
}

fn exact(bytes: Bytes, range: &Range<u64>) -> Result<Bytes, Error> {
    match bytes.len() as u64 == range.end - range.start {
        true => Ok(bytes),
        false => Err(Error::Generic {
            store: "gauntlet",
            source: format!("{} bytes came for the range {range:?}", bytes.len()).into(),
        }),
    }
}
