//! Computes BLAKE3 of a long content on many threads: the same hash as in one go.
//!
//! BLAKE3 is a tree over KiBs (its paper, §2.1). A piece of [`PIECE_BYTES`], a power of two, that begins at a multiple of
//! it is a whole subtree, so that pieces are hashed by themselves, in any order, and their hashes are merged at the
//! end. A content's hashes take 64 bytes a MiB.

use blake3::hazmat::{
    left_subtree_len, merge_subtrees_non_root, merge_subtrees_root, ChainingValue, HasherExt, Mode,
};

use crate::ids::Hash;

/// Bytes of a piece (a content's last may be shorter): one MiB.
pub const PIECE_BYTES: usize = 1 << 20;

/// A piece's part of its content's hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PieceHash {
    /// As a subtree of the content's.
    subtree: ChainingValue,
    /// As the whole content: of the first piece only, which may be all there is.
    whole: Hash,
}

impl PieceHash {
    /// Hashes piece `index`, from 0 on: `bytes` are [`PIECE_BYTES`], or fewer and at least one if it is the last.
    pub fn new(index: u64, bytes: &[u8]) -> Self {
        let whole = if index == 0 { blake3::hash(bytes).into() } else { Hash::default() };
        // A subtree is never empty; no content of this length has a piece that is.
        if bytes.is_empty() {
            return Self { subtree: ChainingValue::default(), whole };
        }
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(index.saturating_mul(PIECE_BYTES as u64));
        hasher.update(bytes);
        Self { subtree: hasher.finalize_non_root(), whole }
    }
}

/// BLAKE3 of a content of `len` bytes whose pieces have these hashes, in order; `None` if it has another number of pieces.
pub fn content_hash(pieces: &[PieceHash], len: u64) -> Option<Hash> {
    let count = len.div_ceil(PIECE_BYTES as u64);
    match pieces {
        [] if len == 0 => Some(blake3::hash(&[]).into()),
        [only] if count == 1 => Some(only.whole),
        _ if count >= 2 && pieces.len() as u64 == count => {
            let (left, right) = halves(pieces, len)?;
            Some(merge_subtrees_root(&left, &right, Mode::Hash).into())
        }
        _ => None,
    }
}

/// The hashes of both children of a subtree of at least two pieces.
fn halves(pieces: &[PieceHash], len: u64) -> Option<(ChainingValue, ChainingValue)> {
    let left_len = left_subtree_len(len);
    // A power of two above half of what is more than a piece: a multiple of a piece.
    let left_count = usize::try_from(left_len.checked_div(PIECE_BYTES as u64)?).ok()?;
    let (left, right) = pieces.split_at_checked(left_count)?;
    Some((subtree(left, left_len)?, subtree(right, len.checked_sub(left_len)?)?))
}

fn subtree(pieces: &[PieceHash], len: u64) -> Option<ChainingValue> {
    if let [only] = pieces {
        return Some(only.subtree);
    }
    if pieces.is_empty() {
        return None;
    }
    let (left, right) = halves(pieces, len)?;
    Some(merge_subtrees_non_root(&left, &right, Mode::Hash))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_the_hash_of_the_whole() {
        let content: Vec<u8> =
            (0..5 * PIECE_BYTES as u32 + 4_000).map(|at| (at % 251) as u8).collect();
        let piece = PIECE_BYTES;
        for len in [0, 1, 1024, piece - 1, piece, piece + 1, 2 * piece, 3 * piece, content.len()] {
            let bytes = &content[..len];
            let mut pieces: Vec<PieceHash> = (0u64..)
                .zip(bytes.chunks(piece))
                .map(|(index, bytes)| PieceHash::new(index, bytes))
                .collect();
            let expected: Hash = blake3::hash(bytes).into();
            assert_eq!(content_hash(&pieces, len as u64), Some(expected), "{len}");
            pieces.push(PieceHash::default());
            assert_eq!(content_hash(&pieces, len as u64), None, "{len}");
        }
    }
}
