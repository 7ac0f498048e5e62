//! JSON as other writers write it: a file, or the string in a field of a line.
//!
//! What other writers put into lines is read: `NaN` and infinities in any field (Python's `json` writes
//! them), halves of surrogate pairs, bytes that are no UTF-8. The last two become U+FFFD and are said.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::utf8::{self, BYTE_ORDER_MARK};

/// What JSON of other writers has for numbers that JSON does not have; longest first where one starts another.
const NO_NUMBERS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// The JSON value in `bytes`, as Python's `json` reads it: `NaN` and infinities are null, halves of surrogate pairs U+FFFD,
/// and of a name that is there twice the last one counts. A byte order mark is passed over.
///
/// # Errors
/// It is no JSON; the error is that of the bytes as they are.
pub fn value(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    serde_json::from_slice(bytes).or_else(|error| {
        let (mended, _) = mend(bytes);
        serde_json::from_slice(&mended).map_err(|_| error)
    })
}

/// The string in a field of the JSON object that `line` is, and what of it had to be mended. `offset` is where the line
/// starts in its file.
///
/// # Errors
/// The line is no such object, or the field is not there or no string.
pub(crate) fn text(
    line: &[u8],
    field: &str,
    offset: u64,
) -> Result<(String, Option<String>), String> {
    // Files that were joined have the mark between them, too.
    let marked = line.strip_prefix(BYTE_ORDER_MARK);
    let offset = offset + (line.len() - marked.unwrap_or(line).len()) as u64;
    let line = marked.unwrap_or(line);
    // Nearly every line is as it should be: only the others are looked at byte for byte.
    if let Ok(text) = parse(line, field) {
        return Ok((text, None));
    }
    let (mended, not_utf8) = match std::str::from_utf8(line) {
        Ok(_) => (Cow::Borrowed(line), None),
        Err(_) => {
            let (text, damage) = utf8::mend(line, offset);
            (Cow::Owned(text.into_bytes()), damage)
        }
    };
    let (mended, halves) = mend(&mended);
    let text = parse(&mended, field)?;
    let halves = (halves > 0).then(|| {
        let halves = match halves {
            1 => "half of a surrogate pair".to_owned(),
            count => format!("{count} halves of surrogate pairs"),
        };
        format!("{halves} read as U+FFFD")
    });
    let said: Vec<String> = not_utf8.into_iter().chain(halves).collect();
    Ok((text, (!said.is_empty()).then(|| said.join("; "))))
}

fn parse(line: &[u8], field: &str) -> Result<String, String> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let found = Field(field).deserialize(&mut json);
    match found.and_then(|text| json.end().map(|()| text)) {
        Ok(Some(Found::Text(text))) => Ok(text),
        Ok(Some(Found::Other(kind))) => Err(format!("the field {field:?} is {kind}, no string")),
        Ok(None) => Err(format!("no field {field:?}")),
        Err(error) => {
            // The line within the line is always the first: only the column helps.
            let message = error.to_string();
            let what = message.split(" at line ").next().unwrap_or_default();
            Err(format!("{what} (column {})", error.column()))
        }
    }
}

/// The line with `null` for what is no number, and U+FFFD for halves of surrogate pairs, which are counted.
fn mend(line: &[u8]) -> (Vec<u8>, usize) {
    let mut mended = Vec::with_capacity(line.len() + 16);
    let (mut halves, mut is_string, mut at) = (0, false, 0);
    while let Some(&byte) = line.get(at) {
        let rest = &line[at..];
        let mut used = 1;
        if !is_string {
            let found = NO_NUMBERS.iter().find(|name| rest.starts_with(name));
            if let Some(name) = found {
                mended.extend_from_slice(b"null");
                at += name.len();
                continue;
            }
            is_string = byte == b'"';
        } else if byte == b'"' {
            is_string = false;
        } else if byte == b'\\' {
            used = match surrogate(rest) {
                Some(0xd800..=0xdbff) if matches!(surrogate(&rest[6..]), Some(0xdc00..)) => 12,
                Some(_) => {
                    halves += 1;
                    mended.extend_from_slice(b"\\ufffd");
                    at += 6;
                    continue;
                }
                None => 2.min(rest.len()),
            };
        }
        mended.extend_from_slice(&rest[..used]);
        at += used;
    }
    (mended, halves)
}

/// The surrogate of an escape that a text starts with.
fn surrogate(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    // A sign is no digit.
    let is_number = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    let unit = u16::from_str_radix(digits, 16).ok()?;
    (0xd800..0xe000).contains(&unit).then_some(unit)
}

/// Takes one field of an object and passes over the others.
struct Field<'a>(&'a str);

/// What a field is.
enum Found {
    Text(String),
    /// What it is instead.
    Other(&'static str),
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<Found>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Found>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an object whose {:?} is a string", self.0)
    }

    /// Of a name that is there twice the last counts, as in Python and JavaScript.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            match key == self.0 {
                true => found = Some(map.next_value_seed(Content)?),
                false => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// The content of the field.
struct Content;

impl<'de> DeserializeSeed<'de> for Content {
    type Value = Found;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Found, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Content {
    type Value = Found;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        Ok(Found::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Found, E> {
        Ok(Found::Text(text))
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Other("null"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Found::Other("true or false"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        Ok(Found::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::Other("a number"))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Found, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_by_python() {
        let read = |json: &str| value(json.as_bytes()).map_err(|error| error.to_string());
        let expected = serde_json::json!({"a": null, "b": [null, "NaN \u{fffd}"], "c": 2});
        let found =
            "\u{feff}{\"a\": NaN, \"b\": [-Infinity, \"NaN \\ud800\"], \"c\": 1, \"c\": 2}\r\n";
        assert_eq!(read(found), Ok(expected));
        assert_eq!(read("{\"a\": Nan}"), Err("expected value at line 1 column 7".to_owned()));
    }

    fn text_of(line: &str) -> Result<String, String> {
        text(line.as_bytes(), "text", 0).map(|(text, said)| {
            assert_eq!(said, None, "{line}");
            text
        })
    }

    #[test]
    fn json_gives_the_field_or_says_why_not() {
        assert_eq!(
            text_of(r#"{"a":[{"text":1}],"text":"x\u00df\n","b":null}"#),
            Ok("xß\n".to_owned())
        );
        assert!(text_of(r#"{"a":1}"#).unwrap_err().contains("no field"));
        assert!(text_of(r#"{"text":1}"#).unwrap_err().contains("is a number, no string"));
        assert!(text_of(r#"{"text":null}"#).unwrap_err().contains("is null"));
        let cut = text_of(r#"{"text":"a""#).unwrap_err();
        assert!(cut.ends_with("(column 11)"), "{cut}");
        assert!(text_of(r#"{"text":"a"} x"#).is_err());
        assert!(text_of("[]").unwrap_err().contains("an object whose"));
    }

    #[test]
    fn what_nobody_asked_for_does_not_matter() {
        let lines = [
            r#"{"text": "a", "score": NaN}"#,
            r#"{"score": [NaN, -Infinity, {"b": Infinity}], "text": "a"}"#,
            r#"{"id": 123456789012345678901234567890, "x": 1e999, "text": "a"}"#,
            r#"{"text": 7, "text": "a"}"#,
            r#"{"text": NaN, "text": "a"}"#,
            r#"{"b": "\ud800", "text": "a"}"#,
            "\u{feff}{\"text\": \"a\"}",
        ];
        for line in lines {
            assert_eq!(text_of(line), Ok("a".to_owned()), "{line}");
        }
        let inside = r#"{"text": "NaN \"-Infinity\\", "score": NaN}"#;
        assert_eq!(text_of(inside), Ok("NaN \"-Infinity\\".to_owned()));
        assert!(text_of(r#"{"text": NaN}"#).unwrap_err().contains("is null"));
        assert!(text_of(r#"{"text": "a", "b": Nan}"#).is_err());
        let deep = format!(r#"{{"b": {}{}, "text": "a"}}"#, "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(text_of(&deep), Ok("a".to_owned()));
    }

    #[test]
    fn halves_of_pairs_and_bytes_that_are_no_text_are_replaced_and_said() {
        let found = text(br#"{"text": "a\ud800b \ud83e\udd80 \udc00", "s": NaN}"#, "text", 0);
        let (text_found, said) = found.unwrap();
        assert_eq!(text_found, "a\u{fffd}b 🦀 \u{fffd}");
        assert_eq!(said.unwrap(), "2 halves of surrogate pairs read as U+FFFD");
        let (text_found, said) = text(b"{\"text\": \"a\xff\"}", "text", 100).unwrap();
        assert_eq!(text_found, "a\u{fffd}");
        assert_eq!(said.unwrap(), "1 byte that is not UTF-8, at byte 111, read as U+FFFD");
    }
}
