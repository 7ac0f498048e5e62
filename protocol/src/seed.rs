//! Derives a window's seeds, each unknown before the block that fixes it.

use blake2::{digest::consts::U32, Blake2b, Digest};

use crate::{Hash, RunId, Window};

/// Separates the seed of a window from every other hash.
const WINDOW_SEED_DOMAIN: &[u8] = b"gauntlet/window-seed/1";

/// Separates the mix of salts from every other hash.
const SALT_MIX_DOMAIN: &[u8] = b"gauntlet/salt-mix/1";

/// Separates the seed of the challenged chunks from every other hash.
const CHALLENGE_SEED_DOMAIN: &[u8] = b"gauntlet/challenge-seed/1";

/// blake2b with 32 bytes of output over the concatenated parts.
///
/// Callers give parts of fixed length, or at most one of variable length at the end.
pub(crate) fn blake2_256_of(parts: &[&[u8]]) -> Hash {
    let mut hasher = Blake2b::<U32>::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The seed of a window: from the hash of the block before its first one and the salts that
/// validators revealed since the window before.
///
/// A block author can choose among few block hashes, a validator can withhold a salt at the cost
/// of its presence; neither can choose a seed.
pub fn window_seed(parent_hash: &Hash, run: RunId, window: Window, salt_mix: &Hash) -> Hash {
    blake2_256_of(&[
        WINDOW_SEED_DOMAIN,
        parent_hash,
        &run.to_le_bytes(),
        &window.to_le_bytes(),
        salt_mix,
    ])
}

/// Mixes one revealed salt into those before it. The order counts; the first mix is all zero.
pub fn mix_salt(mix: &Hash, salt: &Hash) -> Hash {
    blake2_256_of(&[SALT_MIX_DOMAIN, mix, salt])
}

/// The seed of a window's challenged chunks: from the window's seed and the hash of the last block in which
/// miners could commit, so that nobody knows it while it can still choose a payload.
pub fn challenge_seed(window_seed: &Hash, parent_hash: &Hash) -> Hash {
    blake2_256_of(&[CHALLENGE_SEED_DOMAIN, window_seed, parent_hash])
}

/// The first eight bytes of a hash as a little-endian number.
pub(crate) fn low_u64(hash: &Hash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
