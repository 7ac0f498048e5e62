//! Draws the numbers of random tests from a seed.

use sp_io::hashing::blake2_256;

/// Numbers that a seed decides: the hashes of a counter.
pub(crate) struct Draws {
    seed: u64,
    count: u64,
}

impl Draws {
    /// The numbers of `seed` behind the first `count`.
    pub(crate) fn after(seed: u64, count: u64) -> Self {
        Draws { seed, count }
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.count += 1;
        let hash = blake2_256(&[self.seed.to_le_bytes(), self.count.to_le_bytes()].concat());
        let (first, _) = hash.split_first_chunk().expect("a hash has eight bytes");
        u64::from_le_bytes(*first) % limit
    }

    /// True once in `limit` times.
    pub(crate) fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }
}
