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

    /// GGUF's names of the types, in the plural.
    pub(super) fn name(kind: u32) -> &'static str {
        match kind {
            U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64 => "integers",
            F32 | F64 => "floats",
            BOOL => "flags",
            TEXT => "texts",
            _ => "lists",
        }
    }
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

impl Value {
    /// As it stands in an error.
    fn describe(&self) -> String {
        match self {
            Self::Integer(number) => format!("the integer {number}"),
            Self::Float(float) => format!("the float {float}"),
            Self::Flag(flag) => format!("the flag {flag}"),
            Self::Text(range) => format!("a text of {} bytes", range.len()),
            Self::List(list) => format!("a list of {} {}", list.count, kinds::name(list.kind)),
        }
    }
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
            Some(value) => {
                let found = value.describe();
                return Err(format!("general.alignment is {found}, which makes no sense"));
            }
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
///
/// What a file does not have is `None`; what it has in a type that says something else than what is
/// asked for is an error that names the pair, never `None`.
pub(crate) struct Metadata<'a> {
    bytes: &'a [u8],
    pairs: &'a HashMap<String, Value>,
}

/// What a pair holds: `None` if there is no such pair, or why it does not hold it.
pub(crate) type Found<T> = Result<Option<T>, String>;

impl<'a> Metadata<'a> {
    /// Those of a header, with the bytes that it was read from.
    pub(super) fn new(bytes: &'a [u8], header: &'a Header) -> Self {
        Self { bytes, pairs: &header.pairs }
    }

    /// Whether there is such a pair.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.pairs.contains_key(key)
    }

    /// The names of all pairs that begin with `start`, sorted.
    pub(crate) fn keys(&self, start: &str) -> Vec<&'a str> {
        let keys = self.pairs.keys().map(String::as_str);
        let mut keys: Vec<_> = keys.filter(|key| key.starts_with(start)).collect();
        keys.sort_unstable();
        keys
    }

    /// What `read` makes of a pair's value; an error where it makes nothing of it.
    fn read<T>(&self, key: &str, what: &str, read: impl Fn(&Value) -> Option<T>) -> Found<T> {
        let Some(value) = self.pairs.get(key) else {
            return Ok(None);
        };
        let wrong = || format!("{key} is {}, not {what}", value.describe());
        read(value).map(Some).ok_or_else(wrong)
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Found<&'a str> {
        self.read(key, "a text", |value| match value {
            Value::Text(range) => std::str::from_utf8(self.bytes.get(range.clone())?).ok(),
            _ => None,
        })
    }

    /// A flag.
    pub(crate) fn flag(&self, key: &str) -> Found<bool> {
        self.read(key, "a flag", |value| match value {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A number that is not negative, of any type of integers.
    pub(crate) fn number(&self, key: &str) -> Found<u64> {
        self.read(key, "a number from 0 on", |value| match value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        })
    }

    /// The same, which may also be a list of one number for each layer, all of them equal.
    pub(super) fn number_of_layers(&self, key: &str) -> Found<u64> {
        if !matches!(self.pairs.get(key), Some(Value::List(_))) {
            return self.number(key);
        }
        let numbers = self.integers(key)?.unwrap_or_default();
        match numbers.split_first() {
            Some((first, rest)) if rest.iter().all(|number| number == first) => {
                let number = u64::try_from(*first);
                number.map(Some).map_err(|_| format!("{key} is {first}, not a number from 0 on"))
            }
            Some(_) => Err(format!("{key} differs from layer to layer")),
            None => Err(format!("{key} is an empty list")),
        }
    }

    /// A token's number.
    pub(crate) fn token(&self, key: &str) -> Found<u32> {
        let wrong = |id| format!("{key} is {id}, which is no token");
        self.number(key)?.map(|id| id.try_into().map_err(|_| wrong(id))).transpose()
    }

    /// A float of either type, or an integer that a float of 32 bits holds exactly.
    pub(super) fn float(&self, key: &str) -> Found<f32> {
        self.read(key, "a number", |value| match value {
            Value::Float(float) => Some(*float as f32),
            Value::Integer(number) => exact_float(*number),
            _ => None,
        })
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &str) -> Found<Vec<&'a str>> {
        self.list_of(key, "texts", |kind, reader| match kind {
            kinds::TEXT => std::str::from_utf8(reader.text().ok()?).ok(),
            _ => None,
        })
    }

    /// A list of floats, or of integers that floats of 32 bits hold exactly.
    pub(crate) fn floats(&self, key: &str) -> Found<Vec<f32>> {
        self.list_of(key, "numbers", |kind, reader| match reader.value(kind, 0).ok()? {
            Value::Float(float) => Some(float as f32),
            Value::Integer(number) => exact_float(number),
            _ => None,
        })
    }

    /// A list of integers of any type.
    pub(crate) fn integers(&self, key: &str) -> Found<Vec<i64>> {
        self.list_of(key, "integers", |kind, reader| match reader.value(kind, 0).ok()? {
            Value::Integer(number) => number.try_into().ok(),
            _ => None,
        })
    }

    /// How many values a list has, of whatever type.
    pub(crate) fn list_len(&self, key: &str) -> Found<usize> {
        self.read(key, "a list", |value| match value {
            Value::List(list) => Some(list.count),
            _ => None,
        })
    }

    fn list_of<T>(
        &self,
        key: &str,
        what: &str,
        read: impl Fn(u32, &mut Reader<'a>) -> Option<T>,
    ) -> Found<Vec<T>> {
        self.read(key, &format!("a list of {what}"), |value| {
            let Value::List(list) = value else {
                return None;
            };
            let mut reader = Reader { bytes: self.bytes, at: list.start };
            (0..list.count).map(|_| read(list.kind, &mut reader)).collect()
        })
    }
}

/// The float of an integer, if it has one.
fn exact_float(number: i128) -> Option<f32> {
    let float = number as f32;
    (float as i128 == number).then_some(float)
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
        assert_eq!(metadata.integers("key"), Ok(Some(vec![-1, 7])));
        assert_eq!(metadata.list_len("key"), Ok(Some(2)));
        assert_eq!((metadata.texts("other"), metadata.number("other")), (Ok(None), Ok(None)));
        let error = "key is a list of 2 integers, not a list of texts";
        assert_eq!(metadata.texts("key"), Err(error.to_owned()));
        let error = "key is a list of 2 integers, not a number from 0 on";
        assert_eq!(metadata.number("key"), Err(error.to_owned()));
        let text = list(kinds::TEXT, 1, &[2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
        let bytes = header(kinds::LIST, &text);
        let read = Header::read(&bytes).unwrap();
        assert_eq!(Metadata::new(&bytes, &read).texts("key"), Ok(Some(vec!["ab"])));
        for len in 0..bytes.len() {
            assert!(Header::read(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    /// A pair of each type, by each way to ask for it: what it says without a loss, or an error; what
    /// is there is never absent.
    #[test]
    fn a_pair_of_another_type_is_read_without_loss_or_refused_by_name() {
        let asked = |kind: u32, value: &[u8]| {
            let bytes = header(kind, value);
            let read = Header::read(&bytes).unwrap();
            let metadata = Metadata::new(&bytes, &read);
            let failed = [
                metadata.text("key").err(),
                metadata.flag("key").err(),
                metadata.number("key").err(),
                metadata.float("key").err(),
            ];
            for error in failed.iter().flatten() {
                assert!(error.starts_with("key is "), "{error}");
            }
            let (number, float) = (metadata.number("key"), metadata.float("key"));
            (failed.map(|error| error.is_none()), number.ok().flatten(), float.ok().flatten())
        };
        let integer = |number| ([false, false, true, true], Some(number), Some(number as f32));
        assert_eq!(asked(kinds::U8, &[200]), integer(200));
        assert_eq!(asked(kinds::I8, &[7]), integer(7));
        assert_eq!(asked(kinds::U16, &500u16.to_le_bytes()), integer(500));
        assert_eq!(asked(kinds::I16, &500i16.to_le_bytes()), integer(500));
        assert_eq!(asked(kinds::U32, &500_000u32.to_le_bytes()), integer(500_000));
        assert_eq!(asked(kinds::I32, &500_000i32.to_le_bytes()), integer(500_000));
        assert_eq!(asked(kinds::U64, &500_000u64.to_le_bytes()), integer(500_000));
        assert_eq!(asked(kinds::I64, &500_000i64.to_le_bytes()), integer(500_000));
        let lossy = ([false, false, true, false], Some(16_777_217), None);
        assert_eq!(asked(kinds::U32, &16_777_217u32.to_le_bytes()), lossy);
        let negative = ([false, false, false, true], None, Some(-1.0));
        assert_eq!(asked(kinds::I32, &(-1i32).to_le_bytes()), negative);
        let float = ([false, false, false, true], None, Some(0.5));
        assert_eq!(asked(kinds::F32, &0.5f32.to_le_bytes()), float);
        assert_eq!(asked(kinds::F64, &0.5f64.to_le_bytes()), float);
        assert_eq!(asked(kinds::BOOL, &[1]), ([false, true, false, false], None, None));
        let text = [&1u64.to_le_bytes()[..], b"5"].concat();
        assert_eq!(asked(kinds::TEXT, &text), ([true, false, false, false], None, None));
        let no_text = [&1u64.to_le_bytes()[..], &[255]].concat();
        assert_eq!(asked(kinds::TEXT, &no_text), ([false; 4], None, None));
        assert_eq!(asked(kinds::LIST, &list(kinds::U8, 1, &[1])), ([false; 4], None, None));
    }

    #[test]
    fn a_list_for_the_layers_is_one_number_if_all_are_equal() {
        let asked = |kind: u32, values: &[u8]| {
            let count = values.len() as u64;
            let bytes = header(kinds::LIST, &list(kind, count, values));
            let read = Header::read(&bytes).unwrap();
            Metadata::new(&bytes, &read).number_of_layers("key")
        };
        assert_eq!(asked(kinds::U8, &[4, 4, 4]), Ok(Some(4)));
        assert_eq!(asked(kinds::U8, &[4, 2]).unwrap_err(), "key differs from layer to layer");
        assert!(asked(kinds::U8, &[]).unwrap_err().contains("empty"));
        assert!(asked(kinds::BOOL, &[1, 1]).unwrap_err().contains("a list of 2 flags"));
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
