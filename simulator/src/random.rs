//! Draws numbers from one seed.

use protocol::Hash;
use sp_io::hashing::blake2_256;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed and a name: what one thing draws does not move what another one draws.
    pub fn new(seed: u64, name: &str) -> Random {
        let hash = blake2_256(&[&seed.to_le_bytes(), name.as_bytes()].concat());
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        Random(u64::from_le_bytes(first))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to just below 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of mean 0 and variance 1: the sum of twelve uniform ones, so that none is beyond 6.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// One of `0..bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((self.unit() * bound as f64) as usize).min(bound.saturating_sub(1))
    }

    /// Thirty-two bytes.
    pub fn hash(&mut self) -> Hash {
        blake2_256(&self.next().to_le_bytes())
    }
}
