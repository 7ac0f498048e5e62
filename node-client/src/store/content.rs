//! What a store keeps: content read where it lies, a range of it, and where its pieces lie in it.

use bytes::Bytes;

/// Magic, content length (u64, little endian), BLAKE3 of the content.
pub(super) const HEADER_LEN: usize = 8 + 8 + 32;

/// Content that is read part by part where it lies.
pub trait Content: Send + Sync {
    /// Bytes in all.
    fn byte_len(&self) -> u64;

    /// Writes the bytes from `offset` on to `into`; returns how many there are, fewer than `into` has only at the end. Called
    /// from several threads.
    fn read(&self, offset: u64, into: &mut [u8]) -> usize;
}

impl Content for [u8] {
    fn byte_len(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.get(offset..).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        len
    }
}

impl Content for Bytes {
    fn byte_len(&self) -> u64 {
        self[..].byte_len()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        self[..].read(offset, into)
    }
}

/// Some bytes of a content that follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first of them.
    pub offset: u64,
    /// How many they are.
    pub len: u32,
}

/// Where the pieces of a content lie in it: each is the bytes of its first span and then those of its second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut(pub Vec<[Span; 2]>);

/// Bytes of one piece of a [`Cut`] on disk: two spans, each an offset (u64) and a length (u32), little endian.
pub(super) const CUT_ENTRY_LEN: usize = 24;

impl Cut {
    /// The spans of a piece in what [`Store::cut`](super::Store::cut) gives; `None` if there is no such piece.
    pub fn entry(bytes: &[u8], piece: u32) -> Option<[Span; 2]> {
        let start = (piece as usize).checked_mul(CUT_ENTRY_LEN)?;
        let entry = bytes.get(start..start.checked_add(CUT_ENTRY_LEN)?)?;
        let (first, second) = entry.split_first_chunk()?;
        Some([Span::from_bytes(first), Span::from_bytes(second.first_chunk()?)])
    }

    /// Bytes of the piece that is these spans, and what of them are at most `len` bytes from `offset` on of it.
    pub fn range(spans: &[Span; 2], offset: u64, len: u32) -> (u64, [Span; 2]) {
        let (mut total_len, mut left) = (0u64, len);
        let wanted = spans.map(|span| {
            let within = offset.saturating_sub(total_len).min(span.len.into());
            total_len = total_len.saturating_add(span.len.into());
            let rest = u64::from(span.len).saturating_sub(within).min(left.into());
            let len = u32::try_from(rest).unwrap_or_default();
            left = left.saturating_sub(len);
            Span { offset: span.offset.saturating_add(within), len }
        });
        (total_len, wanted)
    }

    /// As it is on disk.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len().saturating_mul(CUT_ENTRY_LEN));
        for span in self.0.iter().flatten() {
            bytes.extend_from_slice(&span.offset.to_le_bytes());
            bytes.extend_from_slice(&span.len.to_le_bytes());
        }
        bytes
    }
}

impl Span {
    pub(super) fn from_bytes(bytes: &[u8; CUT_ENTRY_LEN / 2]) -> Self {
        let [o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3] = *bytes;
        Self {
            offset: u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
        }
    }
}

/// A part of an object, as [`Store::read_range`](super::Store::read_range) returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Bytes of the whole object.
    pub total_len: u64,
    /// The bytes from the wanted offset on; shorter than wanted at the object's end.
    pub bytes: Bytes,
}
