//! The documents of one file, one after the other, in bounded memory.
//!
//! A file gives items: documents, and lines (or rows) that have none and say why. Their order and
//! number depend on the file's content and the settings alone, so that a build that was killed can
//! skip the items that it had.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::files::InputFile;
use super::item::Item;
use super::parquet::Rows;
use super::settings::Format;
use super::unpack::{unpack, Input};
use crate::error::DataError;
use crate::json;
use crate::utf8::{self, Decoder, BYTE_ORDER_MARK};

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

/// Leaves empty documents out, splits those that are too long, and says before a document what was mended.
fn split(item: Result<Item, DataError>, max: usize) -> Vec<Result<Item, DataError>> {
    match item {
        Ok(Item::Mended(line, reason, text)) => {
            let mut items = vec![Ok(Item::Bad(line, reason))];
            items.append(&mut split(Ok(Item::Document(text)), max));
            items
        }
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
fn input(file: &InputFile, bytes_read: &Arc<AtomicU64>) -> Result<Input, DataError> {
    let raw = Counted { inner: file.open()?, bytes_read: Arc::clone(bytes_read) };
    unpack(raw, file.compression)
        .map_err(|error| DataError::Input { name: file.name.clone(), message: error.to_string() })
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
    /// Where it starts in the file, unpacked.
    offset: u64,
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
            Some(field) => json::text(&bytes, field, self.offset),
            None => Ok(String::from_utf8(bytes)
                .map(|text| (text, None))
                .unwrap_or_else(|error| utf8::mend(error.as_bytes(), self.offset))),
        };
        match text {
            Ok((text, None)) => Item::Document(text),
            Ok((text, Some(mended))) => Item::Mended(self.number, mended, text),
            Err(reason) => Item::Bad(self.number, reason),
        }
    }
}

/// Lines of bounded length; what is longer is skipped without being kept.
struct Lines {
    input: Input,
    bytes_max: usize,
    /// Lines, and bytes of the file, that are behind.
    number: u64,
    offset: u64,
}

impl Lines {
    fn new(input: Input, bytes_max: usize) -> Self {
        Self { input, bytes_max, number: 0, offset: 0 }
    }

    fn read(&mut self) -> io::Result<Option<TextLine>> {
        let mut bytes = Vec::new();
        let mut offset = self.offset;
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
            self.offset += used as u64;
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
            offset += BYTE_ORDER_MARK.len() as u64;
        }
        self.number += 1;
        Ok(Some(TextLine { number: self.number, offset, bytes: (!is_too_long).then_some(bytes) }))
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

/// Bytes of a text file that say whether it is one.
const START_BYTES: usize = 4096;

/// What there is to say of a file that is none.
const NO_TEXT: &str =
    "no text in UTF-8; `iconv -f ENCODING -t UTF-8` converts another encoding; the file is \
    left out";

/// The parts of a text file, each of at most `bytes_max`, cut at line ends where possible.
struct Sections {
    input: Input,
    bytes_max: usize,
    decoder: Decoder,
    /// Text that is in no part yet.
    buffer: String,
    is_started: bool,
    is_ended: bool,
}

impl Sections {
    fn new(input: Input, bytes_max: usize) -> Self {
        Self {
            input,
            bytes_max,
            decoder: Decoder::default(),
            buffer: String::new(),
            is_started: false,
            is_ended: false,
        }
    }

    /// The next part; behind the last one, what of the file was not UTF-8.
    fn read(&mut self) -> io::Result<Option<Item>> {
        if !self.is_started {
            self.is_started = true;
            if !self.start()? {
                return Ok(Some(Item::Bad(1, NO_TEXT.to_owned())));
            }
        }
        // One byte further than fits shows whether there is more.
        while !self.is_ended && self.buffer.len() <= self.bytes_max {
            self.fill()?;
        }
        if self.buffer.is_empty() {
            let damage = std::mem::take(&mut self.decoder).damage();
            return Ok(damage.map(|(line, said)| Item::Bad(line, said)));
        }
        let len = match self.buffer.len() > self.bytes_max {
            true => cut(&self.buffer, self.bytes_max),
            false => self.buffer.len(),
        };
        let document = self.buffer[..len].to_owned();
        self.buffer.drain(..len);
        Ok(Some(Item::Document(document)))
    }

    /// Reads the file's start; `false` if that is no text, and the file over.
    fn start(&mut self) -> io::Result<bool> {
        let mut start = Vec::with_capacity(START_BYTES);
        self.input.by_ref().take(START_BYTES as u64).read_to_end(&mut start)?;
        if !utf8::is_mostly(&start) {
            self.is_ended = true;
            return Ok(false);
        }
        let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&start);
        self.decoder.skip(start.len() - text.len());
        self.decoder.push(text, &mut self.buffer);
        Ok(true)
    }

    /// Reads no more than the buffer lacks, or to the end of the file.
    fn fill(&mut self) -> io::Result<()> {
        let available = match self.input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            available => available?,
        };
        let used = available.len().min(self.bytes_max + 1 - self.buffer.len());
        self.decoder.push(&available[..used], &mut self.buffer);
        self.input.consume(used);
        if used == 0 {
            self.is_ended = true;
            self.decoder.finish(&mut self.buffer);
        }
        Ok(())
    }
}

impl Iterator for Sections {
    type Item = io::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

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

    fn sections(text: &'static str, max: usize) -> Vec<String> {
        let input = BufReader::with_capacity(3, text.as_bytes());
        let items = Sections::new(Box::new(input), max).map(Result::unwrap);
        let texts = items.map(|item| match item {
            Item::Document(text) => text,
            _ => panic!("bad"),
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
    fn a_bad_byte_costs_one_character_and_is_said() {
        let input: &[u8] = b"\xef\xbb\xbfone\ntwo\n\xff\nfour \xff";
        for capacity in 1..12 {
            let input = BufReader::with_capacity(capacity, input);
            let items: Vec<_> = Sections::new(Box::new(input), 10).map(Result::unwrap).collect();
            let documents = ["one\ntwo\n", "\u{fffd}\n", "four \u{fffd}"];
            let said = "2 bytes that are not UTF-8, the first at byte 11, read as U+FFFD";
            let mut expected: Vec<_> = documents.map(|text| Item::Document(text.to_owned())).into();
            expected.push(Item::Bad(3, said.to_owned()));
            assert_eq!(items, expected, "{capacity}");
        }
        // Binary files and other encodings are no text with some bad bytes.
        let pictures: &[u8] = b"\x89PIC\0\0\xff\0";
        for other in [pictures, b"\xcf\xf0\xe8\xe2\xe5\xf2, \xec\xe8\xf0"] {
            let items: Vec<_> = Sections::new(Box::new(other), 100).map(Result::unwrap).collect();
            assert_eq!(items, [Item::Bad(1, NO_TEXT.to_owned())]);
        }
        let line = TextLine { number: 3, offset: 40, bytes: Some(b"a\xffb".to_vec()) };
        let said = "1 byte that is not UTF-8, at byte 41, read as U+FFFD".to_owned();
        let item = line.item(None);
        assert_eq!(item, Item::Mended(3, said.clone(), "a\u{fffd}b".to_owned()));
        let items: Vec<Item> = split(Ok(item), 100).into_iter().map(Result::unwrap).collect();
        assert_eq!(items, [Item::Bad(3, said), Item::Document("a\u{fffd}b".to_owned())]);
    }
}
