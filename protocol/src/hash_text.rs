//! Writes and reads a hash as 64 hexadecimal digits after `0x`, for `#[serde(with = "hash_text")]`.

use alloc::{format, string::String};

use serde::{de::Error, Deserialize, Deserializer, Serializer};

use crate::Hash;

pub(crate) fn serialize<S: Serializer>(hash: &Hash, to: S) -> Result<S::Ok, S::Error> {
    let mut text = String::from("0x");
    for byte in hash {
        text.push_str(&format!("{byte:02x}"));
    }
    to.serialize_str(&text)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Hash, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = || D::Error::custom("a hash is 0x and 64 hexadecimal digits");
    let digits = text.strip_prefix("0x").ok_or_else(wrong)?.as_bytes();
    let mut hash = Hash::default();
    if digits.len() != hash.len().saturating_mul(2) {
        return Err(wrong());
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        // `from_str_radix` alone would take a sign.
        if !pair.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong());
        }
        let pair = core::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}
