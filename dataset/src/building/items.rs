//! The documents of one file, one after the other, in bounded memory.
//!
//! A file gives items: documents, and lines (or rows) that have none and say why. Their order and
//! number depend on the file's content and the settings alone, so that a build that was killed can
//! skip the items that it had.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use super::files::{Compression, InputFile};
use super::item::Item;
use super::parquet::Rows;
use super::settings::Format;
use crate::error::DataError;

/// Bytes read from a file at once.
const BUFFER_BYTES: usize = 1 << 18;

/// What some editors and Windows programs put before the first line of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How documents are taken from a file.
#[derive(Clone, Debug)]
pub(super) struct ItemSettings {
    /// Field or column of the text.
    pub(super) field: String,
    /// Longest document.
    pub(super) document_bytes_max: usize,
    /// Longest line.
    pub(super) line_bytes_max: usize,
    /// About where text files are cut into documents.
    pub(super) section_bytes: Option<usize>,
}

/// The items of a file.
pub(super) type Items = Box<dyn Iterator<Item = Result<Item, DataError>> + Send>;

/// Opens a file. The bytes that are read of it are added to `bytes_read` meanwhile.
pub(super) fn open(
    file: &InputFile,
    settings: &ItemSettings,
    bytes_read: &Arc<AtomicU64>,
) -> Result<Items, DataError> {
    let whole: Items = match file.format {
        Format::Parquet => Box::new(Rows::open(file, &settings.field, bytes_read)?),
        Format::Text => {
            let len = settings.section_bytes.unwrap_or(usize::MAX);
            let input = input(file, bytes_read)?;
            let sections = Sections::new(input, len.min(settings.document_bytes_max));
            return Ok(Box::new(named(file, sections)));
        }
        Format::Lines | Format::Jsonl => {
            let lines = Lines::new(input(file, bytes_read)?, settings.line_bytes_max);
            let field = match file.format {
                Format::Jsonl => Some(settings.field.clone()),
                _ => None,
            };
            let items = lines.map(move |line| line.map(|line| line.item(field.as_deref())));
            Box::new(named(file, items))
        }
    };
    let max = settings.document_bytes_max;
    Ok(Box::new(whole.flat_map(move |item| split(item, max))))
}

/// Says in errors which file it was.
fn named(
    file: &InputFile,
    items: impl Iterator<Item = io::Result<Item>> + Send + 'static,
) -> impl Iterator<Item = Result<Item, DataError>> + Send {
    let name = file.name.clone();
    items.map(move |item| {
        item.map_err(|error| DataError::Input { name: name.clone(), message: error.to_string() })
    })
}

/// Leaves empty documents out and splits those that are too long.
fn split(item: Result<Item, DataError>, max: usize) -> Vec<Result<Item, DataError>> {
    match item {
        Ok(Item::Document(text)) if text.is_empty() => Vec::new(),
        Ok(Item::Document(text)) if text.len() > max => {
            let mut parts = Vec::new();
            let mut rest = text.as_str();
            while rest.len() > max {
                let (part, after) = rest.split_at(cut(rest, max));
                parts.push(Ok(Item::Document(part.to_owned())));
                rest = after;
            }
            parts.push(Ok(Item::Document(rest.to_owned())));
            parts
        }
        item => vec![item],
    }
}

/// Where to cut a text of which at most `max` bytes may stay together and behind which there is
/// more: behind the last line that fits, or between characters where the first line does not.
fn cut(text: &str, max: usize) -> usize {
    let end = text.floor_char_boundary(max);
    match text[..end].rfind('\n') {
        Some(newline) => newline + 1,
        None => end,
    }
}

/// The file's content, decompressed.
fn input(
    file: &InputFile,
    bytes_read: &Arc<AtomicU64>,
) -> Result<Box<dyn BufRead + Send>, DataError> {
    let raw = Counted { inner: file.open()?, bytes_read: Arc::clone(bytes_read) };
    let raw = BufReader::with_capacity(BUFFER_BYTES, raw);
    Ok(match file.compression {
        Compression::None => Box::new(raw),
        Compression::Gzip => {
            let inner = flate2::bufread::MultiGzDecoder::new(raw);
            Box::new(BufReader::with_capacity(BUFFER_BYTES, inner))
        }
        Compression::Zstd => {
            let inner = zstd::stream::read::Decoder::with_buffer(raw);
            let inner = inner.map_err(|error| DataError::Input {
                name: file.name.clone(),
                message: error.to_string(),
            })?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, inner))
        }
    })
}

/// Counts the bytes that are read.
pub(super) struct Counted<R> {
    pub(super) inner: R,
    pub(super) bytes_read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// One line.
struct TextLine {
    /// Counted from 1.
    number: u64,
    /// Without its end; `None` if it was too long.
    bytes: Option<Vec<u8>>,
}

impl TextLine {
    /// The document of the line, or of this field of the JSON object that it is.
    fn item(self, field: Option<&str>) -> Item {
        let Some(bytes) = self.bytes else {
            return Item::Bad(self.number, "longer than line_bytes_max".to_owned());
        };
        let text = match field {
            Some(field) => text_of_json(&bytes, field),
            None => String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned()),
        };
        match text {
            Ok(text) => Item::Document(text),
            Err(reason) => Item::Bad(self.number, reason),
        }
    }
}

/// Lines of bounded length; what is longer is skipped without being kept.
struct Lines {
    input: Box<dyn BufRead + Send>,
    bytes_max: usize,
    number: u64,
}

impl Lines {
    fn new(input: Box<dyn BufRead + Send>, bytes_max: usize) -> Self {
        Self { input, bytes_max, number: 0 }
    }

    fn read(&mut self) -> io::Result<Option<TextLine>> {
        let mut bytes = Vec::new();
        let mut is_too_long = false;
        let mut is_end = true;
        loop {
            let available = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                available => available?,
            };
            if available.is_empty() {
                break;
            }
            is_end = false;
            let newline = available.iter().position(|byte| *byte == b'\n');
            let part = newline.map_or(available, |newline| &available[..newline]);
            is_too_long |= bytes.len() + part.len() > self.bytes_max;
            match is_too_long {
                true => bytes = Vec::new(),
                false => bytes.extend_from_slice(part),
            }
            let used = part.len() + usize::from(newline.is_some());
            self.input.consume(used);
            if newline.is_some() {
                break;
            }
        }
        if is_end {
            return Ok(None);
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if self.number == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        self.number += 1;
        Ok(Some(TextLine { number: self.number, bytes: (!is_too_long).then_some(bytes) }))
    }
}

impl Iterator for Lines {
    type Item = io::Result<TextLine>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read() {
                Ok(Some(line))
                    if line.bytes.as_ref().is_some_and(|b| b.trim_ascii().is_empty()) => {}
                Ok(line) => return line.map(Ok),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The parts of a text file, each of at most `bytes_max`, cut at line ends where possible.
struct Sections {
    input: Box<dyn BufRead + Send>,
    bytes_max: usize,
    buffer: Vec<u8>,
    line: u64,
}

impl Sections {
    fn new(input: Box<dyn BufRead + Send>, bytes_max: usize) -> Self {
        Self { input, bytes_max, buffer: Vec::new(), line: 1 }
    }

    fn read(&mut self) -> io::Result<Option<Item>> {
        // One byte further than fits shows whether there is more.
        let missing = self.bytes_max + 1 - self.buffer.len();
        let mut more = self.input.by_ref().take(missing as u64);
        more.read_to_end(&mut self.buffer)?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        // The last character may be cut by the buffer's end, and nowhere else.
        let valid = match std::str::from_utf8(&self.buffer) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() && self.buffer.len() > self.bytes_max => {
                std::str::from_utf8(&self.buffer[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return Ok(Some(self.not_text())),
        };
        let part = match self.buffer.len() > self.bytes_max {
            true => &valid[..cut(valid, self.bytes_max)],
            false => valid,
        };
        let (len, document) = (part.len(), part.to_owned());
        self.line += document.bytes().filter(|byte| *byte == b'\n').count() as u64;
        self.buffer.drain(..len);
        Ok(Some(Item::Document(document)))
    }

    /// What is in the buffer is not UTF-8: the rest of the file is not text.
    fn not_text(&mut self) -> Item {
        let valid = match std::str::from_utf8(&self.buffer) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let lines = self.buffer[..valid].iter().filter(|byte| **byte == b'\n');
        let line = self.line + lines.count() as u64;
        self.buffer = Vec::new();
        self.input = Box::new(io::empty());
        Item::Bad(line, "not UTF-8; the file is left out from here".to_owned())
    }
}

impl Iterator for Sections {
    type Item = io::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// The string in a field of a JSON object.
fn text_of_json(line: &[u8], field: &str) -> Result<String, String> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let found = Field(field).deserialize(&mut json);
    match found.and_then(|text| json.end().map(|()| text)) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(format!("no field {field:?}")),
        Err(error) => {
            // The line within the line is always the first: only the column helps.
            let message = error.to_string();
            let what = message.split(" at line ").next().unwrap_or_default();
            Err(format!("{what} (column {})", error.column()))
        }
    }
}

/// Takes one field of an object and passes over the others.
struct Field<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an object whose {:?} is a string", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            match key == self.0 {
                true => found = Some(map.next_value()?),
                false => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static [u8], max: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        let input = BufReader::with_capacity(3, text);
        Lines::new(Box::new(input), max)
            .map(|line| line.map(|line| (line.number, line.bytes)).unwrap())
            .collect()
    }

    #[test]
    fn lines_are_bounded_and_counted() {
        let found = lines(b"one\r\n\n  \nmuch too long\ntwo", 6);
        let expected = [(1, Some(b"one".to_vec())), (4, None), (5, Some(b"two".to_vec()))];
        assert_eq!(found, expected);
        assert!(lines(b"", 6).is_empty());
        let marked = lines(b"\xef\xbb\xbfone\n\xef\xbb\xbftwo", 6);
        assert_eq!(marked[0], (1, Some(b"one".to_vec())));
        assert_eq!(marked[1], (2, Some(b"\xef\xbb\xbftwo".to_vec())));
    }

    #[test]
    fn json_gives_the_field_or_says_why_not() {
        let text = |line: &str| text_of_json(line.as_bytes(), "text");
        assert_eq!(
            text(r#"{"a":[{"text":1}],"text":"x\u00df\n","b":null}"#),
            Ok("xß\n".to_owned())
        );
        assert!(text(r#"{"a":1}"#).unwrap_err().contains("no field"));
        assert!(text(r#"{"text":1}"#).is_err());
        let cut = text(r#"{"text":"a""#).unwrap_err();
        assert!(cut.ends_with("(column 11)"), "{cut}");
        assert!(text(r#"{"text":"a"} x"#).is_err());
        assert!(text("[]").unwrap_err().contains("an object whose"));
    }

    fn sections(text: &'static str, max: usize) -> Vec<String> {
        let input = BufReader::with_capacity(3, text.as_bytes());
        let items = Sections::new(Box::new(input), max).map(Result::unwrap);
        let texts = items.map(|item| match item {
            Item::Document(text) => text,
            Item::Bad(..) => panic!("bad"),
        });
        texts.collect()
    }

    #[test]
    fn text_is_cut_at_line_ends_and_never_inside_a_character() {
        assert_eq!(sections("ab\ncd\nef", 6), ["ab\ncd\n", "ef"]);
        assert_eq!(sections("ab\ncd\nef", 8), ["ab\ncd\nef"]);
        assert_eq!(sections("abßßßcd", 5), ["abß", "ßßc", "d"].map(str::to_owned));
        assert_eq!(sections("🦀🦀🦀", 5), ["🦀", "🦀", "🦀"]);
        assert!(sections("", 5).is_empty());
        let long = "ab\ncdß\nefgh";
        let whole = split(Ok(Item::Document(long.to_owned())), 5);
        let parts: Vec<Item> = whole.into_iter().map(Result::unwrap).collect();
        let expected = ["ab\n", "cdß\n", "efgh"];
        assert_eq!(parts, expected.map(|part| Item::Document(part.to_owned())));
    }

    #[test]
    fn text_that_is_not_utf8_is_named_by_line() {
        let input: &[u8] = b"one\ntwo\n\xff\nfour";
        let items: Vec<_> = Sections::new(Box::new(input), 100).map(Result::unwrap).collect();
        assert!(matches!(&items[..], [Item::Bad(3, reason)] if reason.contains("UTF-8")));
    }
}
