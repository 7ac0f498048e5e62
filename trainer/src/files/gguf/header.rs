//! The header of a GGUF file: its key-value pairs, and where its tensors lie.
//!
//! Nothing of the file is copied but names: texts and lists stay where they are and are read when
//! asked for, so that a header takes little memory whatever a file claims to hold. Versions 2 and 3
//! are read, which differ in nothing that matters here.

use std::collections::HashMap;
use std::ops::Range;

/// `GGUF`.
const MAGIC: [u8; 4] = *b"GGUF";

/// Most pairs and most tensors of a file; a LLaMA of 80 layers has 723 tensors and some 40 pairs.
const ENTRIES_MAX: u64 = 1 << 16;

/// Longest name of a pair or a tensor, in bytes.
const NAME_BYTES_MAX: usize = 1 << 10;

/// Most lists within lists.
const DEPTH_MAX: usize = 8;

/// Most dimensions of a tensor.
const DIMENSIONS_MAX: u32 = 4;

/// Where tensors start, unless `general.alignment` says otherwise: at multiples of so many bytes.
const ALIGNMENT: u64 = 32;

/// Types of values, by GGUF's numbers.
mod kinds {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const TEXT: u32 = 8;
    pub(super) const LIST: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

/// A value of a pair.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    /// Any integer; all of them fit.
    Integer(i128),
    Float(f64),
    Flag(bool),
    Text(Range<usize>),
    List(List),
}

/// So many values of one type from a place on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct List {
    kind: u32,
    count: usize,
    start: usize,
}

/// A tensor as the header describes it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// ggml's number of the type of its values.
    pub(super) kind: u32,
    /// Rows first, as everywhere else (the file has them last).
    pub(super) shape: Vec<usize>,
    /// Its first byte in the file.
    pub(super) start: u64,
}

/// What a file says before its tensors.
#[derive(Debug)]
pub(super) struct Header {
    pairs: HashMap<String, Value>,
    pub(super) tensors: HashMap<String, Stored>,
}

impl Header {
    /// The header of a file with these bytes.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.array::<4>()? != MAGIC {
            return Err("it does not begin with GGUF".to_owned());
        }
        match u32::from_le_bytes(reader.array()?) {
            2 | 3 => {}
            version if (2..=3).contains(&version.swap_bytes()) => {
                return Err("it is big-endian".to_owned())
            }
            version => return Err(format!("version {version}, not 2 or 3")),
        }
        let tensor_count = reader.count("tensors")?;
        let pair_count = reader.count("pairs")?;
        let pairs = reader.pairs(pair_count)?;
        let mut tensors = HashMap::new();
        for _ in 0..tensor_count {
            let name = reader.name()?;
            let stored = reader.stored(&name)?;
            if tensors.insert(name.clone(), stored).is_some() {
                return Err(format!("it has two tensors {name}"));
            }
        }
        let alignment = match pairs.get("general.alignment") {
            None => ALIGNMENT,
            Some(Value::Integer(bytes)) if (1..=1 << 24).contains(bytes) => *bytes as u64,
            Some(value) => return Err(format!("an alignment of {value:?} makes no sense")),
        };
        let data = (reader.at as u64).next_multiple_of(alignment);
        for stored in tensors.values_mut() {
            stored.start = stored.start.saturating_add(data);
        }
        Ok(Self { pairs, tensors })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or("it ends within its header")?;
        self.at += len;
        Ok(taken)
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], String> {
        let mut array = [0; LEN];
        array.copy_from_slice(self.take(LEN)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length that an address can have.
    fn len(&mut self) -> Result<usize, String> {
        usize::try_from(self.u64()?).map_err(|error| error.to_string())
    }

    fn count(&mut self, what: &str) -> Result<u64, String> {
        let count = self.u64()?;
        match count <= ENTRIES_MAX {
            true => Ok(count),
            false => Err(format!("{count} {what}, more than {ENTRIES_MAX}")),
        }
    }

    fn text(&mut self) -> Result<&'a [u8], String> {
        let len = self.len()?;
        self.take(len)
    }

    fn name(&mut self) -> Result<String, String> {
        let bytes = self.text()?;
        match std::str::from_utf8(bytes) {
            Ok(name) if name.len() <= NAME_BYTES_MAX => Ok(name.to_owned()),
            _ => Err(format!("a name of {} bytes is no name", bytes.len())),
        }
    }

    fn pairs(&mut self, count: u64) -> Result<HashMap<String, Value>, String> {
        let mut pairs = HashMap::new();
        for _ in 0..count {
            let name = self.name()?;
            let kind = self.u32()?;
            let value = self.value(kind, 0)?;
            if pairs.insert(name.clone(), value).is_some() {
                return Err(format!("it has two pairs {name}"));
            }
        }
        Ok(pairs)
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, String> {
        Ok(match kind {
            kinds::U8 => Value::Integer(self.array::<1>()?[0].into()),
            kinds::I8 => Value::Integer(i8::from_le_bytes(self.array()?).into()),
            kinds::U16 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            kinds::I16 => Value::Integer(i16::from_le_bytes(self.array()?).into()),
            kinds::U32 => Value::Integer(self.u32()?.into()),
            kinds::I32 => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            kinds::U64 => Value::Integer(self.u64()?.into()),
            kinds::I64 => Value::Integer(i64::from_le_bytes(self.array()?).into()),
            kinds::F32 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            kinds::F64 => Value::Float(f64::from_le_bytes(self.array()?)),
            kinds::BOOL => Value::Flag(self.array::<1>()?[0] != 0),
            kinds::TEXT => {
                let len = self.text()?.len();
                Value::Text(self.at - len..self.at)
            }
            kinds::LIST => Value::List(self.list(depth)?),
            other => return Err(format!("values of type {other} are not known")),
        })
    }

    /// A list, of which the place is kept and the values are skipped.
    fn list(&mut self, depth: usize) -> Result<List, String> {
        let kind = self.u32()?;
        let count = self.len()?;
        let start = self.at;
        if depth == DEPTH_MAX {
            return Err("lists within lists within lists".to_owned());
        }
        match size(kind) {
            Some(size) => {
                let bytes = count.checked_mul(size);
                self.take(bytes.ok_or("a list is too long")?)?;
            }
            // Each of them takes bytes, so that the end of the file ends this.
            None => {
                for _ in 0..count {
                    self.value(kind, depth + 1)?;
                }
            }
        }
        Ok(List { kind, count, start })
    }

    fn stored(&mut self, name: &str) -> Result<Stored, String> {
        let dimensions = self.u32()?;
        if dimensions > DIMENSIONS_MAX {
            return Err(format!("{name} has {dimensions} dimensions"));
        }
        let shape: Result<Vec<usize>, String> = (0..dimensions).map(|_| self.len()).collect();
        let mut shape = shape?;
        shape.reverse();
        Ok(Stored { kind: self.u32()?, shape, start: self.u64()? })
    }
}

/// Bytes of a value of the types that all have as many.
fn size(kind: u32) -> Option<usize> {
    match kind {
        kinds::U8 | kinds::I8 | kinds::BOOL => Some(1),
        kinds::U16 | kinds::I16 => Some(2),
        kinds::U32 | kinds::I32 | kinds::F32 => Some(4),
        kinds::U64 | kinds::I64 | kinds::F64 => Some(8),
        _ => None,
    }
}

/// A file's key-value pairs.
pub(crate) struct Metadata<'a> {
    bytes: &'a [u8],
    pairs: &'a HashMap<String, Value>,
}

impl<'a> Metadata<'a> {
    /// Those of a header, with the bytes that it was read from.
    pub(super) fn new(bytes: &'a [u8], header: &'a Header) -> Self {
        Self { bytes, pairs: &header.pairs }
    }

    /// Whether there is such a pair.
    pub(super) fn has(&self, key: &str) -> bool {
        self.pairs.contains_key(key)
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        match self.pairs.get(key)? {
            Value::Text(range) => std::str::from_utf8(self.bytes.get(range.clone())?).ok(),
            _ => None,
        }
    }

    /// A flag.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        match self.pairs.get(key)? {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A number that is not negative, of any type of integers.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        match self.pairs.get(key)? {
            Value::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A token's number.
    pub(crate) fn token(&self, key: &str) -> Option<u32> {
        self.number(key)?.try_into().ok()
    }

    /// A float.
    pub(super) fn float(&self, key: &str) -> Option<f32> {
        match self.pairs.get(key)? {
            Value::Float(float) => Some(*float as f32),
            _ => None,
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &str) -> Option<Vec<&'a str>> {
        let (list, mut reader) = self.reader(key, &[kinds::TEXT])?;
        let text = |_| std::str::from_utf8(reader.text().ok()?).ok();
        (0..list.count).map(text).collect()
    }

    /// A list of floats of 32 bits.
    pub(crate) fn floats(&self, key: &str) -> Option<Vec<f32>> {
        let (list, mut reader) = self.reader(key, &[kinds::F32])?;
        let float = |_| reader.array().ok().map(f32::from_le_bytes);
        (0..list.count).map(float).collect()
    }

    /// A list of integers of 32 bits.
    pub(crate) fn integers(&self, key: &str) -> Option<Vec<i64>> {
        let (list, mut reader) = self.reader(key, &[kinds::I32, kinds::U32])?;
        let integer = |_| {
            let bytes = reader.array().ok()?;
            Some(match list.kind {
                kinds::I32 => i32::from_le_bytes(bytes).into(),
                _ => u32::from_le_bytes(bytes).into(),
            })
        };
        (0..list.count).map(integer).collect()
    }

    /// How many values a list has, of whatever type.
    pub(crate) fn list_len(&self, key: &str) -> Option<usize> {
        match self.pairs.get(key)? {
            Value::List(list) => Some(list.count),
            _ => None,
        }
    }

    fn reader(&self, key: &str, kinds: &[u32]) -> Option<(List, Reader<'a>)> {
        match self.pairs.get(key)? {
            Value::List(list) if kinds.contains(&list.kind) => {
                let (bytes, at) = (self.bytes, list.start);
                Some((*list, Reader { bytes, at }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header without tensors and with one pair.
    fn header(kind: u32, value: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend(1u64.to_le_bytes());
        bytes.extend(3u64.to_le_bytes());
        bytes.extend(b"key");
        bytes.extend(kind.to_le_bytes());
        bytes.extend(value);
        bytes
    }

    fn list(kind: u32, count: u64, values: &[u8]) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &count.to_le_bytes(), values].concat()
    }

    #[test]
    fn values_are_read_where_they_lie() {
        let bytes = header(kinds::LIST, &list(kinds::I32, 2, &[255, 255, 255, 255, 7, 0, 0, 0]));
        let read = Header::read(&bytes).unwrap();
        let metadata = Metadata::new(&bytes, &read);
        assert_eq!(metadata.integers("key"), Some(vec![-1, 7]));
        assert_eq!(metadata.list_len("key"), Some(2));
        assert_eq!((metadata.texts("key"), metadata.number("key")), (None, None));
        let text = list(kinds::TEXT, 1, &[2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
        let bytes = header(kinds::LIST, &text);
        let read = Header::read(&bytes).unwrap();
        assert_eq!(Metadata::new(&bytes, &read).texts("key"), Some(vec!["ab"]));
        for len in 0..bytes.len() {
            assert!(Header::read(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn lengths_that_no_file_has_are_errors() {
        let nested =
            (0..20).fold(list(kinds::U8, 0, &[]), |inside, _| list(kinds::LIST, 1, &inside));
        let cases = [
            (header(kinds::LIST, &list(kinds::U64, u64::MAX, &[])), "too long"),
            (header(kinds::LIST, &list(kinds::LIST, u64::MAX, &[])), "ends within"),
            (header(kinds::LIST, &nested), "within lists"),
            (header(13, &[]), "type 13"),
        ];
        for (bytes, expected) in cases {
            let error = Header::read(&bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let mut big_endian = header(kinds::BOOL, &[1]);
        big_endian[4..8].reverse();
        assert!(Header::read(&big_endian).unwrap_err().contains("big-endian"));
    }
}
