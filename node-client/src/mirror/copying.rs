//! Copies a content to a mirror in parts, each tried again where it failed.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::{multipart::PartId, path::Path, ObjectStoreExt};
use protocol::Hash;

use super::{Mirror, MirrorError};
use crate::{clock::Clock, store::Content};

/// Bytes of a part, which are in memory at a time; S3 takes none below 5 MiB but the last.
const PART_BYTES: u64 = 8 << 20;

/// Parts of one object, which is S3's bound; those of a larger content are longer.
const PARTS_MAX: u64 = 10_000;

/// How often a request is made, and the waits between, each twice the one before: six minutes in all.
const TRIES_MAX: u32 = 11;
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Tries to clear away what was begun and will not be ended: the bucket's rule does it otherwise.
const ABORT_TRIES: u32 = 1;

impl Mirror {
    /// Copies a content there, and where its numbered pieces lie, unless they are there in this length. Whether it did.
    /// Tries for minutes what fails; a part that arrived is not sent again. Holds one part in memory: 8 MiB, or a
    /// 10,000th of the content if that is more.
    ///
    /// Cancel-safe: what was begun is not seen by anybody.
    ///
    /// # Errors
    /// [`MirrorError`]; also of a content that is shorter than it says.
    pub async fn put(
        &self,
        clock: &dyn Clock,
        id: &Hash,
        content: Arc<dyn Content>,
        cut: Option<Bytes>,
    ) -> Result<bool, MirrorError> {
        let (key, len) = (self.content_key(id), content.byte_len());
        let there = again(clock, TRIES_MAX, || self.len_at(&key)).await?;
        if there != Some(len) {
            self.put_content(clock, &key, &content, len).await?;
        }
        let Some(cut) = cut else {
            return Ok(there != Some(len));
        };
        // Who finds it finds the content.
        let key = self.cut_key(id);
        let is_cut = again(clock, TRIES_MAX, || self.len_at(&key)).await?;
        let is_cut = is_cut == Some(cut.len() as u64);
        if !is_cut {
            self.put_bytes(clock, &key, cut).await?;
        }
        Ok(there != Some(len) || !is_cut)
    }

    async fn put_content(
        &self,
        clock: &dyn Clock,
        key: &Path,
        content: &Arc<dyn Content>,
        len: u64,
    ) -> Result<(), MirrorError> {
        if len <= PART_BYTES {
            let bytes = read(content, 0, len).await?;
            return self.put_bytes(clock, key, bytes).await;
        }
        let create = || async { Ok(self.writes.create_multipart(key).await?) };
        let upload = again(clock, TRIES_MAX, create).await?;
        let ended = async {
            let parts = self.put_parts(clock, key, &upload, content, len).await?;
            let complete = || async {
                Ok(self.writes.complete_multipart(key, &upload, parts.clone()).await.map(drop)?)
            };
            again(clock, TRIES_MAX, complete).await
        };
        let ended = ended.await;
        if ended.is_err() {
            let abort = || async { Ok(self.writes.abort_multipart(key, &upload).await?) };
            let _ = again(clock, ABORT_TRIES, abort).await;
        }
        ended
    }

    async fn put_parts(
        &self,
        clock: &dyn Clock,
        key: &Path,
        upload: &String,
        content: &Arc<dyn Content>,
        len: u64,
    ) -> Result<Vec<PartId>, MirrorError> {
        let part_len = part_len(len);
        let mut parts = Vec::new();
        for index in 0..len.div_ceil(part_len) {
            let offset = index.saturating_mul(part_len);
            let bytes = read(content, offset, part_len.min(len.saturating_sub(offset))).await?;
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let put = || async {
                Ok(self.writes.put_part(key, upload, index, bytes.clone().into()).await?)
            };
            parts.push(again(clock, TRIES_MAX, put).await?);
            self.pace(clock, bytes.len()).await;
        }
        Ok(parts)
    }

    async fn put_bytes(
        &self,
        clock: &dyn Clock,
        key: &Path,
        bytes: Bytes,
    ) -> Result<(), MirrorError> {
        let len = bytes.len();
        let put = || async { Ok(self.writes.put(key, bytes.clone().into()).await.map(drop)?) };
        again(clock, TRIES_MAX, put).await?;
        self.pace(clock, len).await;
        Ok(())
    }

    /// Waits until so many bytes more may be sent.
    async fn pace(&self, clock: &dyn Clock, len: usize) {
        if let Some(rate) = self.up_bytes_per_second {
            let millis = (len as u64).saturating_mul(1_000) / rate.max(1);
            clock.sleep(Duration::from_millis(millis)).await;
        }
    }
}

/// Bytes of each part but the last of a content of `len` bytes.
fn part_len(len: u64) -> u64 {
    len.div_ceil(PARTS_MAX).max(PART_BYTES)
}

/// Some bytes of a content, which has them, read on a thread that may block.
async fn read(content: &Arc<dyn Content>, offset: u64, len: u64) -> Result<Bytes, MirrorError> {
    let (content, len) = (content.clone(), usize::try_from(len).unwrap_or(usize::MAX));
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; len];
        (content.read(offset, &mut bytes) == len).then(|| Bytes::from(bytes))
    });
    let bytes = read.await.ok().flatten();
    bytes.ok_or_else(|| MirrorError::Refused("the content cannot be read".to_owned()))
}

/// Makes a request until it succeeds, is refused, or has failed `tries` times.
async fn again<T, F>(
    clock: &dyn Clock,
    tries: u32,
    mut request: impl FnMut() -> F,
) -> Result<T, MirrorError>
where
    F: Future<Output = Result<T, MirrorError>>,
{
    let mut wait = WAIT;
    for _ in 1..tries {
        match request().await {
            Err(MirrorError::Failed(error)) => {
                tracing::debug!(error, ?wait, "a request to the mirror failed");
                clock.sleep(wait).await;
                wait = wait.saturating_mul(2).min(WAIT_MAX);
            }
            ended => return ended,
        }
    }
    request().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_content_has_more_parts_than_an_object_may() {
        // 72 B parameters in f32.
        for len in [1, PART_BYTES, 80 << 30, 282_399_375_360, 1 << 42] {
            assert!(len.div_ceil(part_len(len)) <= PARTS_MAX, "{len}");
        }
        assert_eq!(part_len(PARTS_MAX * PART_BYTES), PART_BYTES);
        assert_eq!(part_len(282_399_375_360), 28_239_938);
    }
}
