//! The bytes of a Parquet file, on disk or in a store: no more at once than a bound.

use std::fs::File;
use std::io::{Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::files::{FilePlace, InputFile};
use crate::error::{at, DataError};
use crate::remote::store::RemoteStore;

/// Bytes of a page's header that its sizes lie in.
const SIZES_BYTES: u64 = 24;

/// Bytes that are asked of a store at once, where less is wanted: page headers are tiny, and pages
/// lie side by side.
const BLOCK_BYTES: u64 = 4 << 20;

/// A Parquet file, of which no part is read that is larger than a bound.
pub(super) struct Chunks {
    place: Place,
    page_bytes_max: u64,
    /// Whether the description has been read: what is read from now on is pages.
    is_open: Arc<AtomicBool>,
}

/// Where a Parquet file is read from.
enum Place {
    Disk(File),
    Store {
        store: RemoteStore,
        object: String,
        len: u64,
        /// The block that was read last and where it starts.
        block: Mutex<(u64, Bytes)>,
    },
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        match &self.place {
            Place::Disk(file) => Length::len(file),
            Place::Store { len, .. } => *len,
        }
    }
}

impl ChunkReader for Chunks {
    type T = Box<dyn Read>;

    /// From here a page's header is read, and the page itself by `get_bytes`; before the file is open, its end.
    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        if self.is_open.load(Ordering::Relaxed) {
            let len = SIZES_BYTES.min(self.len().saturating_sub(start));
            let header = self.place.bytes(start, len)?;
            let sizes = page_sizes(&header).ok_or_else(|| {
                ParquetError::General(format!("at byte {start} there is no page"))
            })?;
            self.check(start, sizes.0.max(sizes.1))?;
        }
        match &self.place {
            Place::Disk(file) => Ok(Box::new(file.get_read(start)?)),
            Place::Store { len, .. } => {
                let bytes = self.place.bytes(start, len.saturating_sub(start).min(BLOCK_BYTES))?;
                Ok(Box::new(Cursor::new(bytes)))
            }
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.check(start, length as u64)?;
        self.place.bytes(start, length as u64)
    }
}

impl Chunks {
    /// Opens the file; no page of more than `page_bytes_max` bytes will be read, packed or not, and
    /// no description.
    pub(super) fn open(file: &InputFile, page_bytes_max: u64) -> Result<Self, DataError> {
        let place = match &file.place {
            FilePlace::Disk(path) => Place::Disk(File::open(path).map_err(at(path))?),
            FilePlace::Store(store, object) => Place::Store {
                store: store.clone(),
                object: object.clone(),
                len: file.len,
                block: Mutex::new((0, Bytes::new())),
            },
        };
        Ok(Self { place, page_bytes_max, is_open: Arc::default() })
    }

    /// To be set once the description has been read.
    pub(super) fn is_open(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_open)
    }

    fn check(&self, start: u64, len: u64) -> Result<(), ParquetError> {
        if len <= self.page_bytes_max {
            return Ok(());
        }
        let what = match self.is_open.load(Ordering::Relaxed) {
            true => "page",
            false => "description",
        };
        Err(ParquetError::General(format!(
            "the {what} at byte {start} has {len} bytes, and {} at most are read at once; \
             write the file with smaller pages",
            self.page_bytes_max
        )))
    }
}

impl Place {
    fn bytes(&self, start: u64, length: u64) -> Result<Bytes, ParquetError> {
        let length_usize = usize::try_from(length).map_err(|_| ParquetError::NeedMoreData(0))?;
        let (store, object, len, block) = match self {
            Self::Disk(file) => return file.get_bytes(start, length_usize),
            Self::Store { store, object, len, block } => (store, object, *len, block),
        };
        let end = start.saturating_add(length);
        if end > len {
            let message = format!("bytes {start} to {end} of {len}");
            return Err(ParquetError::EOF(message));
        }
        let mut block = block.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = start >= block.0 && end <= block.0 + block.1.len() as u64;
        if !is_there {
            let range = start..len.min(end.max(start + BLOCK_BYTES));
            let bytes = store.read(object, range);
            *block = (start, bytes.map_err(|error| ParquetError::External(error.into()))?);
        }
        let from = usize::try_from(start - block.0).unwrap_or(0);
        Ok(block.1.slice(from..from + length_usize))
    }
}

/// Bytes of a page unpacked and packed, of its header: Thrift's compact form of three numbers (the page's kind and these),
/// each behind a byte that says "the next field, i32". `None` if it does not start so, or a size is negative.
fn page_sizes(header: &[u8]) -> Option<(u64, u64)> {
    let mut rest = header.iter();
    let mut number = || {
        if *rest.next()? != 0x15 {
            return None;
        }
        let mut zigzag = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = *rest.next()?;
            zigzag |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return (zigzag & 1 == 0).then_some(zigzag >> 1);
            }
        }
        None
    };
    let _kind = number()?;
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_pages_are_read_as_thrift_writes_them() {
        let header = [0x15, 0x00, 0x15, 0x80, 0x80, 0x04, 0x15, 0x0e, 0x2c];
        assert_eq!(page_sizes(&header), Some((32_768, 7)));
        assert_eq!(page_sizes(&header[..7]), None);
        let negative = [0x15, 0x00, 0x15, 0x01, 0x15, 0x0e];
        assert_eq!(page_sizes(&negative), None);
        let endless = [0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(page_sizes(&endless), None);
    }
}
