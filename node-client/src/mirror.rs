//! Keeps contents in a bucket of an S3-compatible store, for whoever cannot have them of a peer, or not fast enough.
//!
//! An object's key is the folder of the run and the content id in hexadecimal; where the numbered pieces of a content
//! lie stands beside it ([`Cut`](crate::store::Cut), as the store has it on disk), under the same key and `.cut`. An
//! object is there whole or not at all.
//!
//! Who may write to the bucket can put anything under an id, so what comes from there is checked like what comes from a
//! peer. Nothing is ever deleted: that is the bucket's own rule, as is what becomes of copies that were begun and not
//! ended.

mod copying;
mod place;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use object_store::{
    memory::InMemory, multipart::MultipartStore, path::Path, GetOptions, GetRange, ObjectStore,
    ObjectStoreExt,
};
use protocol::Hash;

pub use place::{MirrorPlace, PlaceError};

use crate::store::Range;

/// The most bytes of a list of where pieces lie: of 43,690 pieces, 57 GB.
const CUT_BYTES_MAX: u32 = 1 << 20;

/// Why a mirror did not do what was asked, by what to do next.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Another time it may work.
    #[error("the mirror fails: {0}")]
    Failed(String),
    /// It will not work until somebody changes keys or settings.
    #[error("the mirror refuses: {0}")]
    Refused(String),
}

impl From<object_store::Error> for MirrorError {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        match error {
            E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::NotImplemented { .. } => Self::Refused(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Whether an object is not there. Who may not list a bucket is refused what it lacks, by S3 and by what is compatible with it.
fn is_missing(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    matches!(error, E::NotFound { .. } | E::PermissionDenied { .. })
}

/// What a bucket can do.
trait Bucket: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Bucket for T {}

/// A folder of a bucket; clones are the same one.
#[derive(Clone)]
pub struct Mirror {
    name: String,
    folder: Path,
    reads: Arc<dyn Bucket>,
    writes: Arc<dyn Bucket>,
    is_copied_to: bool,
    up_bytes_per_second: Option<u64>,
}

/// The name alone: what is inside has secrets.
impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mirror({:?})", self.name)
    }
}

impl Mirror {
    /// An empty mirror in the memory of this process, for tests.
    pub fn in_memory() -> Self {
        let bucket = Arc::new(InMemory::new());
        Self::new("memory".to_owned(), Path::default(), bucket.clone(), bucket)
    }

    fn new(name: String, folder: Path, reads: Arc<dyn Bucket>, writes: Arc<dyn Bucket>) -> Self {
        Self { name, folder, reads, writes, is_copied_to: false, up_bytes_per_second: None }
    }

    /// The same mirror, to which contents are copied, at so many bytes a second at most.
    pub fn copied_to(self, up_bytes_per_second: Option<u64>) -> Self {
        Self { is_copied_to: true, up_bytes_per_second, ..self }
    }

    /// Whether contents are copied to it.
    pub fn is_copied_to(&self) -> bool {
        self.is_copied_to
    }

    /// What logs call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// At most `len` bytes of a content from `offset` on; `None` if it is not there. Holds no more than that, whatever
    /// is sent. Cancel-safe.
    ///
    /// # Errors
    /// [`MirrorError`]; also of an offset at or beyond the end.
    pub async fn read(
        &self,
        id: &Hash,
        offset: u64,
        len: u32,
    ) -> Result<Option<Range>, MirrorError> {
        self.read_object(&self.content_key(id), offset, len).await
    }

    /// Where the numbered pieces of a content lie, as the store has it on disk; `None` if it is not there. Cancel-safe.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub async fn read_cut(&self, id: &Hash) -> Result<Option<Bytes>, MirrorError> {
        let range = self.read_object(&self.cut_key(id), 0, CUT_BYTES_MAX).await?;
        match range {
            Some(range) if range.total_len != range.bytes.len() as u64 => {
                Err(MirrorError::Failed("a list of pieces is too long".to_owned()))
            }
            range => Ok(range.map(|range| range.bytes)),
        }
    }

    /// Bytes of a content, or `None` if it is not there. Cancel-safe.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub async fn len_of(&self, id: &Hash) -> Result<Option<u64>, MirrorError> {
        self.len_at(&self.content_key(id)).await
    }

    async fn len_at(&self, key: &Path) -> Result<Option<u64>, MirrorError> {
        match self.reads.head(key).await {
            Ok(object) => Ok(Some(object.size)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn read_object(
        &self,
        key: &Path,
        offset: u64,
        len: u32,
    ) -> Result<Option<Range>, MirrorError> {
        let range = offset..offset.saturating_add(len.into());
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..Default::default() };
        let found = match self.reads.get_opts(key, options).await {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let total_len = found.meta.size;
        let wanted = total_len.saturating_sub(offset).min(len.into());
        let mut bytes = Vec::new();
        let mut chunks = found.into_stream();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() as u64 > wanted {
                break;
            }
        }
        if bytes.len() as u64 != wanted {
            return Err(MirrorError::Failed("more or fewer bytes than asked for".to_owned()));
        }
        Ok(Some(Range { total_len, bytes: bytes.into() }))
    }

    fn content_key(&self, id: &Hash) -> Path {
        self.folder.clone().join(hex::encode(id))
    }

    fn cut_key(&self, id: &Hash) -> Path {
        self.folder.clone().join(format!("{}.cut", hex::encode(id)))
    }
}
