//! Builds Merkle trees over chunks: one hash stands for a list of byte strings, and each can be shown to
//! belong to it.
//!
//! All hashes are BLAKE2b-256 and domain separated by their first byte, so that no leaf can pass
//! for a node:
//!
//! ```text
//! leaf(i, bytes) = H(0x00 ‖ i as u32 LE ‖ bytes)
//! node(l, r)     = H(0x01 ‖ l ‖ r)
//! root           = H(0x02 ‖ count as u32 LE ‖ top)
//! ```
//!
//! A level's last node without a partner goes up unchanged. Because a leaf holds its number and the
//! root the number of leaves, equal trees mean equal lists.

use alloc::vec::Vec;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};

use crate::ids::Hash;

/// Hashes in a proof, at most: the height of a tree whose leaves are counted by a `u32`.
pub const MERKLE_PROOF_MAX: u32 = 32;

const LEAF: u8 = 0x00;
const NODE: u8 = 0x01;
const ROOT: u8 = 0x02;

/// BLAKE2b with 32 bytes of output over the concatenation of `parts`
/// (`sp_core::hashing::blake2_256`).
pub fn blake2_256(parts: &[&[u8]]) -> Hash {
    let mut hasher = Blake2b::<U32>::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The hash of leaf number `index`.
pub fn leaf_hash(index: u32, bytes: &[u8]) -> Hash {
    blake2_256(&[&[LEAF], &index.to_le_bytes(), bytes])
}

/// The hash of two neighbours.
fn node_hash(left: &Hash, right: &Hash) -> Hash {
    blake2_256(&[&[NODE], left, right])
}

/// The root over a tree of `count` leaves whose last level is `top`.
fn root_hash(count: u32, top: &Hash) -> Hash {
    blake2_256(&[&[ROOT], &count.to_le_bytes(), top])
}

/// The level above `level`, half as long, rounded up.
fn level_above(level: &[Hash]) -> Vec<Hash> {
    level
        .chunks(2)
        .filter_map(|pair| match pair {
            [left, right] => Some(node_hash(left, right)),
            [single] => Some(*single),
            _ => None,
        })
        .collect()
}

/// The root over `leaves` in order, or `None` for no leaves or more than a `u32` counts.
pub fn root<'a>(leaves: impl ExactSizeIterator<Item = &'a [u8]>) -> Option<Hash> {
    let hashes: Vec<Hash> =
        (0u32..).zip(leaves).map(|(index, bytes)| leaf_hash(index, bytes)).collect();
    root_of_leaf_hashes(&hashes)
}

/// The root over leaves whose hashes ([`leaf_hash`]) are known, or `None` for none or more than a
/// `u32` counts.
pub fn root_of_leaf_hashes(leaf_hashes: &[Hash]) -> Option<Hash> {
    let count = u32::try_from(leaf_hashes.len()).ok()?;
    root_of_subtrees(count, leaf_hashes)
}

/// The node that stands for `leaf_hashes`, all the leaves of an aligned subtree: 2^n of them, the first of which has a number that
/// 2^n divides, or fewer at the list's end. It is a node of the whole list's tree, because the last of an odd level goes up
/// unchanged. `None` for no leaves.
pub fn subtree(leaf_hashes: &[Hash]) -> Option<Hash> {
    let mut level = leaf_hashes.to_vec();
    while level.len() > 1 {
        level = level_above(&level);
    }
    level.first().copied()
}

/// The root over `count` leaves of which each 2^n, in order, stand under one of `nodes` ([`subtree`]). `None` for no nodes. That
/// there are `count` / 2^n of them is for the caller to see to: other lists have other roots.
pub fn root_of_subtrees(count: u32, nodes: &[Hash]) -> Option<Hash> {
    Some(root_hash(count, &subtree(nodes)?))
}

/// The proof of leaf `index`: its neighbour, its parent's neighbour, … from the bottom up, without
/// the levels on which it has none. `None` when there is no such leaf.
pub fn proof(leaf_hashes: &[Hash], index: u32) -> Option<Vec<Hash>> {
    u32::try_from(leaf_hashes.len()).ok()?;
    let mut position = usize::try_from(index).ok()?;
    leaf_hashes.get(position)?;
    let mut proof = Vec::new();
    let mut level = leaf_hashes.to_vec();
    while level.len() > 1 {
        if let Some(neighbour) = level.get(position ^ 1) {
            proof.push(*neighbour);
        }
        level = level_above(&level);
        position /= 2;
    }
    Some(proof)
}

/// Whether `bytes` is leaf number `index` of the `count` leaves under `root`. Costs one hash a
/// level; any input is answered, and a proof that is too long or too short is refused.
pub fn verify(root: &Hash, count: u32, index: u32, bytes: &[u8], proof: &[Hash]) -> bool {
    if index >= count {
        return false;
    }
    let mut hash = leaf_hash(index, bytes);
    let mut position = index;
    let mut level_len = count;
    let mut rest = proof.iter();
    while level_len > 1 {
        // The last of an odd level has no neighbour and goes up as it is.
        if position ^ 1 < level_len {
            let Some(neighbour) = rest.next() else {
                return false;
            };
            hash = if position & 1 == 0 {
                node_hash(&hash, neighbour)
            } else {
                node_hash(neighbour, &hash)
            };
        }
        position /= 2;
        level_len = level_len.div_ceil(2);
    }
    rest.next().is_none() && root_hash(count, &hash) == *root
}
