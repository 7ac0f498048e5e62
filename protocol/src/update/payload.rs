//! Parses a whole update (header, table of lengths, chunks) without copying it.

use alloc::vec::Vec;

use super::chunk::{chunk_bytes_max, chunk_bytes_min, decode_chunk, decode_chunk_into};
use super::form::Chunk;
use super::{ChunkError, UpdateError, VERSION};
use crate::ids::Hash;
use crate::layout::{Layout, CHUNK_LEN};
use crate::merkle::{leaf_hash, proof, root_of_leaf_hashes};

/// Bytes before the table of lengths: version, `keep` and the number of chunks.
pub const HEADER_BYTES: usize = 7;

/// The largest `keep` with one byte a chunk in the table. A chunk's length varies by
/// `(len − kept) / 2^a <= 27/13 · kept` bits, so at most by 250 bytes here.
const SHORT_TABLE_KEEP_MAX: u16 = 960;

/// Bytes of one entry of the table of lengths.
pub(super) const fn table_entry_bytes(keep: u16) -> usize {
    if keep <= SHORT_TABLE_KEEP_MAX {
        1
    } else {
        2
    }
}

/// The first bytes of a payload.
pub(super) fn header(keep: u16, chunk_count: u32) -> [u8; HEADER_BYTES] {
    let [k0, k1] = keep.to_le_bytes();
    let [c0, c1, c2, c3] = chunk_count.to_le_bytes();
    [VERSION, k0, k1, c0, c1, c2, c3]
}

/// Bytes of any payload of this layout under `keep`, at most; 0 for a layout or `keep` that is not
/// valid, for which no payload is.
pub fn payload_bytes_max(layout: &Layout, keep: u16) -> u64 {
    bytes_max(layout, keep).unwrap_or(0)
}

fn bytes_max(layout: &Layout, keep: u16) -> Option<u64> {
    let count = u64::from(layout.chunk_count()?);
    if keep == 0 || u32::from(keep) > CHUNK_LEN {
        return None;
    }
    let table = count.checked_mul(table_entry_bytes(keep) as u64)?;
    let mut bytes = table.checked_add(HEADER_BYTES as u64)?;
    for values in &layout.0 {
        let full = values.checked_div(u64::from(CHUNK_LEN))?;
        let rest = values.checked_rem(u64::from(CHUNK_LEN))? as u32;
        bytes =
            bytes.checked_add(full.checked_mul(u64::from(chunk_bytes_max(CHUNK_LEN, keep)))?)?;
        if rest > 0 {
            bytes = bytes.checked_add(u64::from(chunk_bytes_max(rest, keep)))?;
        }
    }
    Some(bytes)
}

/// An update that has been read: bytes of which every part is known to be well formed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload<'a> {
    bytes: &'a [u8],
    keep: u16,
    /// Where each chunk ends in `bytes`; as many as there are chunks.
    ends: Vec<usize>,
    /// Where the first chunk starts.
    start: usize,
}

impl<'a> Payload<'a> {
    /// Reads and checks all of `bytes`, every chunk included, under the run's layout and `keep`.
    ///
    /// Never panics. The memory it takes is at most eight bytes for each byte of the table, and
    /// only after the table is known to be there.
    pub fn parse(bytes: &'a [u8], layout: &Layout, keep: u16) -> Result<Self, UpdateError> {
        let mut scratch = Chunk::default();
        Self::cut(bytes, layout, keep, |chunk, len| {
            decode_chunk_into(chunk, len, keep, &mut scratch)
        })
    }

    /// Cuts `bytes` into the chunks of the layout, of which `check` is given each with its number of values.
    fn cut(
        bytes: &'a [u8],
        layout: &Layout,
        keep: u16,
        mut check: impl FnMut(&[u8], u32) -> Result<(), ChunkError>,
    ) -> Result<Self, UpdateError> {
        let chunk_count = layout.chunk_count().ok_or(UpdateError::Layout)?;
        if keep == 0 || u32::from(keep) > CHUNK_LEN {
            return Err(UpdateError::Keep(keep));
        }
        let wrong_len = UpdateError::ByteLen(bytes.len());
        let Some(([version, k0, k1, c0, c1, c2, c3], rest)) =
            bytes.split_first_chunk::<HEADER_BYTES>()
        else {
            return Err(wrong_len);
        };
        if *version != VERSION {
            return Err(UpdateError::Version(*version));
        }
        let found_keep = u16::from_le_bytes([*k0, *k1]);
        if found_keep != keep {
            return Err(UpdateError::KeepMismatch(found_keep));
        }
        let found_count = u32::from_le_bytes([*c0, *c1, *c2, *c3]);
        if found_count != chunk_count {
            return Err(UpdateError::ChunkCount(found_count));
        }
        let entry_bytes = table_entry_bytes(keep);
        let table = usize::try_from(chunk_count)
            .ok()
            .and_then(|count| count.checked_mul(entry_bytes))
            .and_then(|table_bytes| rest.get(..table_bytes))
            .ok_or_else(|| wrong_len.clone())?;
        let start = HEADER_BYTES.saturating_add(table.len());

        let mut ends = Vec::with_capacity(chunk_count as usize);
        let mut end = start;
        let chunks = layout.chunks().zip(table.chunks_exact(entry_bytes));
        for (index, (place, entry)) in (0u32..).zip(chunks) {
            let excess = match entry {
                [low] => u32::from(*low),
                [low, high] => u32::from(u16::from_le_bytes([*low, *high])),
                _ => return Err(wrong_len),
            };
            let len = chunk_bytes_min(place.len, keep).saturating_add(excess);
            let begin = end;
            end = begin.saturating_add(len as usize);
            let chunk = bytes.get(begin..end).ok_or_else(|| wrong_len.clone())?;
            check(chunk, place.len).map_err(|error| UpdateError::Chunk { index, error })?;
            ends.push(end);
        }
        if end != bytes.len() {
            return Err(wrong_len);
        }
        Ok(Self { bytes, keep, ends, start })
    }

    /// All bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The `keep` under which it was made.
    pub fn keep(&self) -> u16 {
        self.keep
    }

    /// Chunks, as many as in the layout.
    pub fn chunk_count(&self) -> u32 {
        // As many as the layout's, which a u32 counts.
        self.ends.len() as u32
    }

    /// The bytes of chunk `index`, or `None` past the last.
    pub fn chunk(&self, index: u32) -> Option<&'a [u8]> {
        let index = usize::try_from(index).ok()?;
        let begin = match index.checked_sub(1) {
            None => self.start,
            Some(before) => *self.ends.get(before)?,
        };
        self.bytes.get(begin..*self.ends.get(index)?)
    }

    /// The bytes of all chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        (0..self.chunk_count()).filter_map(|index| self.chunk(index))
    }

    /// Reads chunk `index` of `len` values into `chunk`; `len` is the layout's for this chunk.
    pub fn decode_into(&self, index: u32, len: u32, chunk: &mut Chunk) -> Result<(), UpdateError> {
        let bytes = self.chunk(index).ok_or(UpdateError::ChunkCount(self.chunk_count()))?;
        decode_chunk_into(bytes, len, self.keep, chunk)
            .map_err(|error| UpdateError::Chunk { index, error })
    }

    /// The hashes of the leaves of the payload's Merkle tree, one for each chunk.
    pub fn leaf_hashes(&self) -> Vec<Hash> {
        (0u32..).zip(self.chunks()).map(|(index, chunk)| leaf_hash(index, chunk)).collect()
    }

    /// The Merkle root over the chunks: the payload's name on the chain and among peers. Hashes all
    /// bytes. The header and the table follow from the chunks, so the root stands for all of it.
    pub fn root(&self) -> Hash {
        // A payload has at least one chunk, and a u32 counts them.
        root_of_leaf_hashes(&self.leaf_hashes()).unwrap_or_default()
    }

    /// Chunk `index` with the proof that it belongs to [`Payload::root`], or `None` past the last.
    /// `leaf_hashes` are [`Payload::leaf_hashes`].
    pub fn chunk_proof(
        &self,
        leaf_hashes: &[Hash],
        index: u32,
    ) -> Option<crate::commitment::ChunkProof> {
        Some(crate::commitment::ChunkProof {
            index,
            chunk: self.chunk(index)?.to_vec(),
            proof: proof(leaf_hashes, index)?,
        })
    }
}

/// The bytes of a stranger's update, cut into chunks of which none is known to be well formed: what proves that one is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame<'a>(Payload<'a>);

impl<'a> Frame<'a> {
    /// Cuts `bytes` into the chunks of the run's layout under its `keep`; looks at no chunk. Never panics.
    ///
    /// # Errors
    /// Header and table are not those of such an update, or the chunks do not fill the rest exactly.
    pub fn cut(bytes: &'a [u8], layout: &Layout, keep: u16) -> Result<Self, UpdateError> {
        Payload::cut(bytes, layout, keep, |_, _| Ok(())).map(Self)
    }

    /// The Merkle root over the chunks, as [`Payload::root`].
    pub fn root(&self) -> Hash {
        self.0.root()
    }

    /// Chunks, as many as in the layout.
    pub fn chunk_count(&self) -> u32 {
        self.0.chunk_count()
    }

    /// The hashes of the leaves of the Merkle tree, as [`Payload::leaf_hashes`].
    pub fn leaf_hashes(&self) -> Vec<Hash> {
        self.0.leaf_hashes()
    }

    /// Chunk `index` with its proof, as [`Payload::chunk_proof`].
    pub fn chunk_proof(
        &self,
        leaf_hashes: &[Hash],
        index: u32,
    ) -> Option<crate::commitment::ChunkProof> {
        self.0.chunk_proof(leaf_hashes, index)
    }

    /// The bytes of the table of lengths of `count` chunks from `first` on, and those of the chunks themselves; fewer at the end, and
    /// `None` past it.
    pub(super) fn part(&self, first: u32, count: u32) -> Option<(&'a [u8], &'a [u8])> {
        let Payload { bytes, keep, ends, start } = &self.0;
        let (first, count) = (usize::try_from(first).ok()?, usize::try_from(count).ok()?);
        let last = first.saturating_add(count).min(ends.len()).checked_sub(1)?;
        let begin = match first.checked_sub(1) {
            None => *start,
            Some(before) => *ends.get(before)?,
        };
        let chunks = bytes.get(begin..*ends.get(last)?)?;
        let entry = table_entry_bytes(*keep);
        let table = bytes.get(HEADER_BYTES..*start)?;
        let table =
            table.get(first.checked_mul(entry)?..last.checked_add(1)?.checked_mul(entry)?)?;
        Some((table, chunks))
    }

    /// The first chunk of at most `bytes_max` bytes that does not decode; `None` if there is no such chunk. `layout` is the one
    /// that it was cut by.
    pub fn malformed(&self, layout: &Layout, bytes_max: usize) -> Option<u32> {
        let chunks = (0u32..).zip(self.0.chunks()).zip(layout.chunks());
        let mut malformed = chunks.filter(|((_, chunk), place)| {
            chunk.len() <= bytes_max && decode_chunk(chunk, place.len, self.0.keep).is_err()
        });
        malformed.next().map(|((index, _), _)| index)
    }
}
