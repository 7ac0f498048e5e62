//! Cuts a payload into pieces, each of which can be checked by itself against the payload's root.
//!
//! A piece is [`PIECE_CHUNKS`] chunks, a power of two, the first of which has a number that it divides: the leaves of an aligned
//! subtree, whose node is a node of the payload's Merkle tree ([`crate::merkle::subtree`]). The nodes in order are the *piece
//! list*, which folds to the root; so whoever has the root on the chain knows of a list whether it is the right one, and whoever
//! has the list of a piece. Nothing of this is on the chain.
//!
//! ```text
//! list   node of piece 0 ‖ node of piece 1 ‖ …                 32 bytes each, served under [`piece_list_id`]
//! piece  its part of the table of lengths ‖ its chunks          as they are in the payload
//! ```
//!
//! The header and the lengths follow from the chunks, so pieces that are all right make the one payload with that root. A payload
//! of no more than [`PIECE_CHUNKS`] chunks is one piece, and its list follows from its root.

use alloc::vec::Vec;

use super::chunk::{chunk_bytes_max, chunk_bytes_min};
use super::payload::{header, table_entry_bytes, Frame, HEADER_BYTES};
use crate::ids::Hash;
use crate::layout::{Layout, CHUNK_LEN};
use crate::merkle::{blake2_256, leaf_hash, root_of_subtrees, subtree};

/// Chunks of a piece (the last of a payload may have fewer): about 1.3 MB when each keeps 64 values.
pub const PIECE_CHUNKS: u32 = 1 << 14;

const LIST_DOMAIN: &[u8] = b"gauntlet/pieces/1";

/// The content id under which peers serve the piece list of the payload with this root.
pub fn piece_list_id(root: &Hash) -> Hash {
    blake2_256(&[LIST_DOMAIN, root])
}

/// How the payloads of one layout and `keep` are cut into pieces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PieceForm {
    layout: Layout,
    keep: u16,
    chunk_count: u32,
}

/// Where the two parts of a piece lie in a payload, in bytes from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PieceParts {
    /// First byte of its part of the table of lengths.
    pub table_start: u64,
    /// Bytes of that part.
    pub table_len: u32,
    /// First byte of its chunks.
    pub chunks_start: u64,
    /// Bytes of its chunks.
    pub chunks_len: u32,
}

impl PieceForm {
    /// `None` for a layout or `keep` that is not valid, for which no payload is.
    pub fn new(layout: Layout, keep: u16) -> Option<Self> {
        let chunk_count = layout.chunk_count()?;
        let is_valid = keep > 0 && u32::from(keep) <= CHUNK_LEN;
        is_valid.then_some(Self { layout, keep, chunk_count })
    }

    /// Pieces of a payload, at least 1.
    pub fn count(&self) -> u32 {
        self.chunk_count.div_ceil(PIECE_CHUNKS)
    }

    /// The first bytes of every payload, which are in no piece.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        header(self.keep, self.chunk_count)
    }

    /// The fewest and the most bytes that piece `index` may have; `None` past the last. Costs a walk over its chunks.
    pub fn byte_lens(&self, index: u32) -> Option<(u32, u32)> {
        let table_len = self.table_len(index)?;
        let (mut least, mut most) = (table_len, table_len);
        for place in self.chunks(index) {
            least = least.saturating_add(chunk_bytes_min(place, self.keep));
            most = most.saturating_add(chunk_bytes_max(place, self.keep));
        }
        Some((least, most))
    }

    /// How many bytes piece `index` has, read off its first bytes, which hold at least its part of the table; `None` if they do not.
    pub fn byte_len(&self, index: u32, begin: &[u8]) -> Option<u32> {
        let table_len = self.table_len(index)?;
        let table = begin.get(..usize::try_from(table_len).ok()?)?;
        let lens = self.chunk_byte_lens(index, table);
        Some(lens.fold(table_len, u32::saturating_add))
    }

    /// The node over the chunks of piece `index`, whose bytes are `bytes`: the one in the piece list, if they are the right ones.
    /// `None` if they are not cut as its table says. Hashes all bytes; never panics.
    pub fn node(&self, index: u32, bytes: &[u8]) -> Option<Hash> {
        let table_len = usize::try_from(self.table_len(index)?).ok()?;
        let (table, mut rest) = bytes.split_at_checked(table_len)?;
        let first = index.checked_mul(PIECE_CHUNKS)?;
        let mut leaves = Vec::with_capacity(PIECE_CHUNKS as usize);
        for (number, len) in (first..).zip(self.chunk_byte_lens(index, table)) {
            let (chunk, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            leaves.push(leaf_hash(number, chunk));
            rest = after;
        }
        if rest.is_empty() {
            subtree(&leaves)
        } else {
            None
        }
    }

    /// Where the pieces lie in a payload of which they have these lengths in bytes, in order; `None` for another number of them, or
    /// a length that no piece has.
    pub fn parts(&self, byte_lens: &[u32]) -> Option<Vec<PieceParts>> {
        if u32::try_from(byte_lens.len()).ok()? != self.count() {
            return None;
        }
        let entry_bytes = u64::try_from(table_entry_bytes(self.keep)).ok()?;
        let mut table_start = HEADER_BYTES as u64;
        let table_bytes = u64::from(self.chunk_count).checked_mul(entry_bytes)?;
        let mut chunks_start = table_start.checked_add(table_bytes)?;
        let mut parts = Vec::with_capacity(byte_lens.len());
        for (index, byte_len) in (0u32..).zip(byte_lens) {
            let table_len = self.table_len(index)?;
            let chunks_len = byte_len.checked_sub(table_len)?;
            parts.push(PieceParts { table_start, table_len, chunks_start, chunks_len });
            table_start = table_start.checked_add(u64::from(table_len))?;
            chunks_start = chunks_start.checked_add(u64::from(chunks_len))?;
        }
        Some(parts)
    }

    /// The pieces of a payload that was cut under the same layout and `keep`: where each lies, in order.
    pub fn parts_of(&self, frame: &Frame<'_>) -> Option<Vec<PieceParts>> {
        let lens: Option<Vec<u32>> = (0..self.count())
            .map(|index| {
                let (table, chunks) = frame.part(index.checked_mul(PIECE_CHUNKS)?, PIECE_CHUNKS)?;
                u32::try_from(table.len().checked_add(chunks.len())?).ok()
            })
            .collect();
        self.parts(&lens?)
    }

    /// Chunks of piece `index`; `None` past the last.
    fn chunk_count_of(&self, index: u32) -> Option<u32> {
        let first = index.checked_mul(PIECE_CHUNKS)?;
        let rest = self.chunk_count.checked_sub(first)?;
        (rest > 0).then(|| rest.min(PIECE_CHUNKS))
    }

    /// Bytes of the part of the table of piece `index`; `None` past the last.
    fn table_len(&self, index: u32) -> Option<u32> {
        let entry_bytes = u32::try_from(table_entry_bytes(self.keep)).ok()?;
        self.chunk_count_of(index)?.checked_mul(entry_bytes)
    }

    /// The numbers of values of the chunks of piece `index`.
    fn chunks(&self, index: u32) -> impl Iterator<Item = u32> + '_ {
        let first = index.saturating_mul(PIECE_CHUNKS);
        self.layout.chunks_from(first).take(PIECE_CHUNKS as usize).map(|place| place.len)
    }

    /// The lengths in bytes that `table` gives to the chunks of piece `index`.
    fn chunk_byte_lens<'a>(
        &'a self,
        index: u32,
        table: &'a [u8],
    ) -> impl Iterator<Item = u32> + 'a {
        let entries = table.chunks_exact(table_entry_bytes(self.keep));
        self.chunks(index).zip(entries).map(|(len, entry)| {
            let excess = match entry {
                [low] => u32::from(*low),
                [low, high] => u32::from(u16::from_le_bytes([*low, *high])),
                _ => 0,
            };
            chunk_bytes_min(len, self.keep).saturating_add(excess)
        })
    }
}

/// The nodes over the pieces of one payload, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PieceList(Vec<Hash>);

impl PieceList {
    /// The list of a payload, from the hashes of its leaves ([`Frame::leaf_hashes`]).
    pub fn new(leaf_hashes: &[Hash]) -> Self {
        Self(leaf_hashes.chunks(PIECE_CHUNKS as usize).filter_map(subtree).collect())
    }

    /// Reads a list that a peer sent and checks it against the payload's root; `None` if it is another's or no list.
    pub fn parse(bytes: &[u8], form: &PieceForm, root: &Hash) -> Option<Self> {
        let (nodes, rest) = bytes.as_chunks::<32>();
        let is_whole = rest.is_empty() && u32::try_from(nodes.len()) == Ok(form.count());
        let is_right = is_whole && root_of_subtrees(form.chunk_count, nodes) == Some(*root);
        is_right.then(|| Self(nodes.to_vec()))
    }

    /// Its bytes: the nodes, one after the other.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.concat()
    }

    /// Whether `bytes` are those of piece `index`. Costs a hash of all of them; never panics.
    pub fn verify(&self, form: &PieceForm, index: u32, bytes: &[u8]) -> bool {
        let listed = usize::try_from(index).ok().and_then(|index| self.0.get(index));
        listed.is_some_and(|listed| form.node(index, bytes) == Some(*listed))
    }
}
