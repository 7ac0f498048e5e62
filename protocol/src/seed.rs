//! Derives a window's seeds, each unknown before the block that fixes it.
//!
//! Both come from the chain's randomness of the block before and from all salts that validators revealed. What
//! somebody can choose among is counted in docs/decisions/0020: a salt is committed to before any other is revealed, so
//! that all that is left to its owner is to reveal it or not, and the order of the reveals changes nothing.
//!
//! Two draws are made for a window w: one in the block in which the challenge of w - 1 is drawn, if that window's
//! settings have [`overlap`](crate::settings::Training::overlap), and one in its own first block. The first, if it
//! was made and w - 1 is not excused, is the seed under which w is trained; else it is the second. The second always
//! decides how w - 1 is scored ([`crate::books::scoring_seed`]). Why that is safe: docs/decisions/0029.

use blake2::{digest::consts::U32, Blake2b, Digest};

use crate::{Hash, RunId, ValidatorIndex, Window};

/// Separates the seed of a window from every other hash.
const WINDOW_SEED_DOMAIN: &[u8] = b"gauntlet/window-seed/1";

/// Separates a revealed salt from every other hash.
const SALT_DOMAIN: &[u8] = b"gauntlet/salt/1";

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

/// A draw for a window: from the chain's randomness as of the block before the one in which it is made, and the salts
/// that validators revealed until then.
pub fn window_seed(randomness: &Hash, run: RunId, window: Window, salt_mix: &Hash) -> Hash {
    blake2_256_of(&[
        WINDOW_SEED_DOMAIN,
        randomness,
        &run.to_le_bytes(),
        &window.to_le_bytes(),
        salt_mix,
    ])
}

/// Adds the salt with which validator `index` revealed its scores of `window` to those before it; the first mix is all
/// zero.
///
/// The sum of hashes in GF(2)^256: the order of the reveals does not count, equal salts of two validators or windows
/// do not cancel, and a set of salts in which one is not known has a mix that nobody knows.
pub fn mix_salt(mix: &Hash, window: Window, index: ValidatorIndex, salt: &Hash) -> Hash {
    let hash = blake2_256_of(&[SALT_DOMAIN, &window.to_le_bytes(), &index.to_le_bytes(), salt]);
    let mut sum = *mix;
    for (byte, added) in sum.iter_mut().zip(hash) {
        *byte ^= added;
    }
    sum
}

/// The seed of a window's challenged chunks: from the window's seed and the chain's randomness as of the block behind
/// the last one in which miners could commit ([`Schedule::challenge_offset`](crate::window::Schedule::challenge_offset)).
///
/// Whoever decides that randomness can no longer commit to anything that fits it.
pub fn challenge_seed(window_seed: &Hash, randomness: &Hash) -> Hash {
    blake2_256_of(&[CHALLENGE_SEED_DOMAIN, window_seed, randomness])
}

/// The first eight bytes of a hash as a little-endian number.
pub(crate) fn low_u64(hash: &Hash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
