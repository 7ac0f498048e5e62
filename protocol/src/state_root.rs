//! Computes the state root: one hash for all parameters of a model, of which every piece can be
//! checked by itself.
//!
//! A tensor's values, `f32` little endian in row-major order, are cut into pieces of
//! [`PIECE_VALUES`]; a piece's hash is BLAKE3 of its bytes. The manifest lists the tensors in
//! ascending order of their names, with their lengths and their pieces' hashes, and the root is
//! BLAKE3 of a domain string and the manifest in SCALE:
//!
//! ```text
//! root = BLAKE3("gauntlet/state/1" ‖ SCALE(Vec<Tensor>))
//! Tensor = {name: String, value_count: u64, pieces: Vec<[u8; 32]>}
//! ```
//!
//! A joiner asks any peer for the manifest, which is served under [`manifest_id`], checks it against the root on chain, and
//! then each megabyte as it arrives, from whichever peer. The parameters are served under the root: the tensors' bytes one
//! after the other, in the manifest's order. Pieces may be hashed on many threads.

use codec::{Decode, Encode};

use crate::ids::Hash;

/// Values of a piece (the last of a tensor may be shorter): one MiB.
pub const PIECE_VALUES: usize = 1 << 18;

const DOMAIN: &[u8] = b"gauntlet/state/1";

const MANIFEST_DOMAIN: &[u8] = b"gauntlet/manifest/1";

/// One tensor's entry in the manifest.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct TensorManifest {
    /// The tensor's name.
    pub name: String,
    /// Values of the tensor.
    pub value_count: u64,
    /// BLAKE3 of each piece's bytes, in order.
    pub pieces: Vec<Hash>,
}

/// Everything that the state root stands for: the tensors in ascending order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct StateManifest(Vec<TensorManifest>);

impl StateManifest {
    /// Sorts the tensors by name (bytewise) and hashes none of their values again.
    pub fn new(mut tensors: Vec<TensorManifest>) -> Self {
        tensors.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        Self(tensors)
    }

    /// The tensors, in ascending order of their names.
    pub fn tensors(&self) -> &[TensorManifest] {
        &self.0
    }

    /// The state root.
    pub fn root(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(DOMAIN);
        hasher.update(&self.encode());
        hasher.finalize().into()
    }

    /// Reads a manifest that a peer sent and checks it against `root`; `None` if it is another's or
    /// not a manifest. Memory is bounded by the bytes.
    pub fn parse(mut bytes: &[u8], root: &Hash) -> Option<Self> {
        let manifest = Self::decode(&mut bytes).ok()?;
        (bytes.is_empty() && manifest.root() == *root).then_some(manifest)
    }
}

/// The content id under which peers serve the manifest of the state `root`.
pub fn manifest_id(root: &Hash) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(MANIFEST_DOMAIN);
    hasher.update(root);
    hasher.finalize().into()
}

/// The most bytes that a manifest of `tensors` tensors with `values` values in all has.
pub fn manifest_bytes_max(tensors: u64, values: u64) -> u64 {
    // A name of at most 255 bytes, and lengths; a hash a piece, of which each tensor's last may be short.
    let pieces = values.div_ceil(PIECE_VALUES as u64).saturating_add(tensors);
    tensors.saturating_mul(288).saturating_add(pieces.saturating_mul(32)).saturating_add(16)
}

impl TensorManifest {
    /// Hashes a tensor's values, on this thread.
    pub fn new(name: &str, values: &[f32]) -> Self {
        Self {
            name: name.to_owned(),
            value_count: values.len() as u64,
            pieces: values.chunks(PIECE_VALUES).map(piece_hash).collect(),
        }
    }

    /// Whether `values` are piece `index` of this tensor.
    pub fn verify_piece(&self, index: usize, values: &[f32]) -> bool {
        self.pieces.get(index) == Some(&piece_hash(values))
    }
}

/// BLAKE3 of the little-endian bytes of `values`.
pub fn piece_hash(values: &[f32]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    // Large enough for the widest SIMD of BLAKE3 (16 chunks of one KiB), small enough for the L1.
    let mut bytes = [0u8; 16 * 1024];
    for part in values.chunks(bytes.len() / 4) {
        for (bytes, value) in bytes.chunks_exact_mut(4).zip(part) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        hasher.update(bytes.get(..part.len().saturating_mul(4)).unwrap_or_default());
    }
    hasher.finalize().into()
}

/// The state root of a model: its tensors with their names, in any order. A name must not occur
/// twice; the bits of the values count, so 0 and −0 differ.
pub fn state_root<'a>(tensors: impl Iterator<Item = (&'a str, &'a [f32])>) -> Hash {
    StateManifest::new(tensors.map(|(name, values)| TensorManifest::new(name, values)).collect())
        .root()
}
