//! The rows of one column of a Parquet file, a few at a time.
//!
//! A file is read and unpacked by the page, which its writer makes as large as it likes: most are of
//! a MiB, and one of more than [`PAGE_BYTES_MAX`] is an error before anything is allocated for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use parquet::basic::Type;
use parquet::column::reader::{get_typed_column_reader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::chunks::Chunks;
use super::files::InputFile;
use super::item::Item;
use crate::error::DataError;
use crate::utf8;

/// Rows that are decoded at once.
const ROWS: usize = 64;

/// Largest page, packed or not, and largest description at the end of a file.
const PAGE_BYTES_MAX: u64 = 256 << 20;

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
    /// Rows that are decoded: parts of their page, which become text one by one.
    decoded: std::vec::IntoIter<Option<ByteArray>>,
    bytes_read: Arc<AtomicU64>,
}

impl Rows {
    /// Opens the file and finds the column, by its path (`meta.text` for a field of a group).
    pub(super) fn open(
        file: &InputFile,
        column: &str,
        bytes_read: &Arc<AtomicU64>,
    ) -> Result<Self, DataError> {
        Self::open_bounded(file, column, bytes_read, PAGE_BYTES_MAX)
    }

    fn open_bounded(
        file: &InputFile,
        column: &str,
        bytes_read: &Arc<AtomicU64>,
        page_bytes_max: u64,
    ) -> Result<Self, DataError> {
        let wrong = |message: String| DataError::Input { name: file.name.clone(), message };
        let content = Chunks::open(file, page_bytes_max)?;
        let is_open = content.is_open();
        let reader =
            SerializedFileReader::new(content).map_err(|error| wrong(error.to_string()))?;
        is_open.store(true, Ordering::Relaxed);
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let names = || schema.columns().iter().map(|column| column.path().string());
        let Some(index) = names().position(|name| name == column) else {
            let names: Vec<String> = names().take(20).collect();
            return Err(wrong(format!("no column {column:?}; there are {}", names.join(", "))));
        };
        let description = schema.column(index);
        if description.physical_type() != Type::BYTE_ARRAY || description.max_rep_level() != 0 {
            return Err(wrong(format!("the column {column:?} is not one of strings")));
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
            let mut values = values.into_iter();
            let is_there = |row| levels.get(row).is_none_or(|level| *level == self.level_max);
            let rows = (0..rows).map(|row| is_there(row).then(|| values.next()).flatten());
            self.decoded = rows.collect::<Vec<_>>().into_iter();
            return Ok(true);
        }
    }

    /// The next of the rows that are decoded.
    fn item(&mut self) -> Option<Item> {
        let value = self.decoded.next()?;
        self.row += 1;
        let Some(value) = value else {
            return Some(Item::Bad(self.row, "no value".to_owned()));
        };
        Some(match std::str::from_utf8(value.data()) {
            Ok(text) => Item::Document(text.to_owned()),
            Err(_) => {
                let (text, said) = utf8::mend(value.data(), 0);
                Item::Mended(self.row, said.unwrap_or_default(), text)
            }
        })
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
            if let Some(item) = self.item() {
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::super::files::FilePlace;
    use super::super::settings::Format;
    use super::super::unpack;
    use super::*;

    /// Reads a file of one page with three rows of `row_bytes`, under a bound.
    fn read(row_bytes: usize, compression: Compression, max: u64) -> Result<Vec<Item>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let schema = parse_message_type("message m { required binary text (UTF8); }").unwrap();
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_dictionary_enabled(false)
            .set_data_page_size_limit(1 << 30)
            .build();
        let file = File::create(&path).unwrap();
        let mut writer =
            SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let rows = ["a", "b", "c"].map(|row| ByteArray::from(row.repeat(row_bytes).into_bytes()));
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&rows, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        let file = InputFile {
            name: "a.parquet".to_owned(),
            len: std::fs::metadata(&path).unwrap().len(),
            place: FilePlace::Disk(path),
            format: Format::Parquet,
            compression: unpack::Compression::None,
        };
        Rows::open_bounded(&file, "text", &Arc::default(), max)?.collect()
    }

    #[test]
    fn a_page_that_is_too_large_is_an_error_packed_or_not() {
        for kind in [Compression::UNCOMPRESSED, Compression::ZSTD(ZstdLevel::default())] {
            let rows = read(30_000, kind, 90_100).unwrap();
            assert_eq!(rows.len(), 3);
            assert_eq!(rows[2], Item::Document("c".repeat(30_000)));
            let error = read(30_000, kind, 90_000).unwrap_err().to_string();
            assert!(error.contains("has 90012 bytes, and 90000 at most"), "{error}");
        }
        let error = read(10, Compression::UNCOMPRESSED, 20).unwrap_err();
        assert!(error.to_string().contains("the description"), "{error}");
    }
}
