//! The rows of one column of a Parquet file, a few at a time.

use std::fs::File;
use std::io::{Cursor, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::basic::Type;
use parquet::column::reader::{get_typed_column_reader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::error::{at, DataError};
use super::files::{FilePlace, InputFile};
use super::items::Item;
use super::store::Store;

/// Rows that are decoded at once.
const ROWS: usize = 64;

/// The rows of a column, in order.
pub(super) struct Rows {
    name: String,
    reader: SerializedFileReader<Chunks>,
    column: usize,
    /// Most a definition level can be: a value is there.
    level_max: i16,
    next_group: usize,
    current: Option<ColumnReaderImpl<ByteArrayType>>,
    row: u64,
    decoded: std::vec::IntoIter<Item>,
    bytes_read: Arc<AtomicU64>,
}

impl Rows {
    /// Opens the file and finds the column, by its path (`meta.text` for a field of a group).
    pub(super) fn open(
        file: &InputFile,
        column: &str,
        bytes_read: &Arc<AtomicU64>,
    ) -> Result<Self, DataError> {
        let wrong = |message: String| DataError::Input {
            name: file.name.clone(),
            message,
        };
        let content = match &file.place {
            FilePlace::Disk(path) => Chunks::Disk(File::open(path).map_err(at(path))?),
            FilePlace::Store(store, object) => Chunks::Store {
                store: store.clone(),
                object: object.clone(),
                len: file.len,
                block: Arc::new(Mutex::new((0, Bytes::new()))),
            },
        };
        let reader =
            SerializedFileReader::new(content).map_err(|error| wrong(error.to_string()))?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let names = || schema.columns().iter().map(|column| column.path().string());
        let Some(index) = names().position(|name| name == column) else {
            let names: Vec<String> = names().take(20).collect();
            return Err(wrong(format!(
                "no column {column:?}; there are {}",
                names.join(", ")
            )));
        };
        let description = schema.column(index);
        if description.physical_type() != Type::BYTE_ARRAY || description.max_rep_level() != 0 {
            return Err(wrong(format!(
                "the column {column:?} is not one of strings"
            )));
        }
        Ok(Self {
            name: file.name.clone(),
            column: index,
            level_max: description.max_def_level(),
            reader,
            next_group: 0,
            current: None,
            row: 0,
            decoded: Vec::new().into_iter(),
            bytes_read: Arc::clone(bytes_read),
        })
    }

    /// Decodes the next rows; `false` at the end of the file.
    fn decode(&mut self) -> Result<bool, ParquetError> {
        loop {
            let Some(column) = &mut self.current else {
                if self.next_group == self.reader.num_row_groups() {
                    return Ok(false);
                }
                let group = self.reader.get_row_group(self.next_group)?;
                let reader = group.get_column_reader(self.column)?;
                self.current = Some(get_typed_column_reader(reader));
                self.next_group += 1;
                continue;
            };
            let mut values: Vec<ByteArray> = Vec::with_capacity(ROWS);
            let mut levels: Vec<i16> = Vec::with_capacity(ROWS);
            let wanted = (self.level_max > 0).then_some(&mut levels);
            let (rows, _, _) = column.read_records(ROWS, wanted, None, &mut values)?;
            if rows == 0 {
                self.current = None;
                self.count_group();
                continue;
            }
            self.decoded = self.items(rows, &levels, values).into_iter();
            return Ok(true);
        }
    }

    fn items(&mut self, rows: usize, levels: &[i16], values: Vec<ByteArray>) -> Vec<Item> {
        let mut values = values.into_iter();
        let items = (0..rows).map(|index| {
            self.row += 1;
            let is_there = levels
                .get(index)
                .is_none_or(|level| *level == self.level_max);
            let value = match is_there {
                true => values.next(),
                false => None,
            };
            let Some(value) = value else {
                return Item::Bad(self.row, "no value".to_owned());
            };
            match std::str::from_utf8(value.data()) {
                Ok(text) => Item::Document(text.to_owned()),
                Err(_) => Item::Bad(self.row, "not UTF-8".to_owned()),
            }
        });
        items.collect()
    }

    /// Counts a row group as read, with all its columns: the file's length is what is compared.
    fn count_group(&self) {
        let group = self.reader.metadata().row_group(self.next_group - 1);
        let bytes = u64::try_from(group.compressed_size()).unwrap_or(0);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Iterator for Rows {
    type Item = Result<Item, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.decoded.next() {
                return Some(Ok(item));
            }
            match self.decode() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.next_group = self.reader.num_row_groups();
                    self.current = None;
                    return Some(Err(DataError::Input {
                        name: self.name.clone(),
                        message: error.to_string(),
                    }));
                }
            }
        }
    }
}

/// Bytes that are asked of a store at once, where less is wanted: page headers are tiny, and pages
/// lie side by side.
const BLOCK_BYTES: u64 = 4 << 20;

/// Where a Parquet file is read from.
enum Chunks {
    Disk(File),
    Store {
        store: Store,
        object: String,
        len: u64,
        /// The block that was read last and where it starts.
        block: Arc<Mutex<(u64, Bytes)>>,
    },
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        match self {
            Self::Disk(file) => Length::len(file),
            Self::Store { len, .. } => *len,
        }
    }
}

impl ChunkReader for Chunks {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        match self {
            Self::Disk(file) => Ok(Box::new(file.get_read(start)?)),
            // The reader takes a page's header from it, and the page itself by `get_bytes`.
            Self::Store { len, .. } => {
                let len = usize::try_from(len.saturating_sub(start).min(BLOCK_BYTES));
                let bytes = self.get_bytes(start, len.unwrap_or(0))?;
                Ok(Box::new(Cursor::new(bytes)))
            }
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let (store, object, len, block) = match self {
            Self::Disk(file) => return file.get_bytes(start, length),
            Self::Store {
                store,
                object,
                len,
                block,
            } => (store, object, *len, block),
        };
        let end = start.saturating_add(length as u64);
        if end > len {
            let message = format!("bytes {start} to {end} of {len}");
            return Err(ParquetError::EOF(message));
        }
        let mut block = block.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = start >= block.0 && end <= block.0 + block.1.len() as u64;
        if !is_there {
            let range = start..len.min(end.max(start + BLOCK_BYTES));
            let bytes = store.read(object, range);
            *block = (
                start,
                bytes.map_err(|error| ParquetError::External(error.into()))?,
            );
        }
        let from = usize::try_from(start - block.0).unwrap_or(0);
        Ok(block.1.slice(from..from + length))
    }
}
