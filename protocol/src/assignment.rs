//! Assigns samples to miners, and miners to validators, by keyed permutations that anybody can recompute.
//!
//! Properties: within a window no two assigned samples are equal, of one miner or of two; every
//! sample is equally likely; validators with neighbouring indices evaluate different miners, so
//! that the evaluations spread evenly.

use alloc::vec::Vec;

use crate::{
    seed::{blake2_256_of, low_u64},
    Hash, Uid, ValidatorIndex,
};

/// Key of the permutation from which the miners' own samples are drawn.
const OWN_DOMAIN: &[u8] = b"gauntlet/own-samples/1";

/// Key of the permutation from which random samples are drawn.
const RANDOM_DOMAIN: &[u8] = b"gauntlet/random-samples/1";

/// Key of the permutation that spreads the evaluations.
const EVALUATION_DOMAIN: &[u8] = b"gauntlet/evaluations/1";

/// Rounds of the Feistel network; four suffice for a pseudo-random permutation.
const ROUNDS: u8 = 6;

/// A keyed permutation of `0..count`.
///
/// A Feistel network over the rectangle `left_size × right_size`, just large enough to hold
/// `count` (x = right · left_size + left; the rounds add in turn a hash of the right half to the
/// left one and the other way round). What falls outside `0..count` is permuted again until it
/// falls inside. The rectangle exceeds `count` by less than `left_size` ≈ √count, so that this is
/// rare: about one hash chain an index, six hashes of blake2_256.
#[derive(Clone, Debug)]
pub struct Permutation {
    key: Hash,
    count: u64,
    left_size: u64,
    right_size: u64,
}

impl Permutation {
    /// The permutation of `0..count` under `key`. `None` if `count` is 0 or above 2^63.
    pub fn new(key: Hash, count: u64) -> Option<Permutation> {
        if count == 0 || count > 1 << 63 {
            return None;
        }
        let floor = count.isqrt();
        let left_size =
            if floor.checked_mul(floor)? < count { floor.checked_add(1)? } else { floor };
        let right_size = count.div_ceil(left_size);
        Some(Permutation { key, count, left_size, right_size })
    }

    /// Where `index` goes. `None` if it is not below `count`.
    pub fn apply(&self, index: u64) -> Option<u64> {
        if index >= self.count {
            return None;
        }
        let mut at = index;
        // Ends: the rounds permute the rectangle, and the cycle of `index` returns to `index`.
        loop {
            at = self.permute_rectangle(at)?;
            if at < self.count {
                return Some(at);
            }
        }
    }

    fn permute_rectangle(&self, at: u64) -> Option<u64> {
        let mut left = at.checked_rem(self.left_size)?;
        let mut right = at.checked_div(self.left_size)?;
        for round in 0..ROUNDS {
            if round & 1 == 0 {
                left = self.add_hash(round, right, left, self.left_size)?;
            } else {
                right = self.add_hash(round, left, right, self.right_size)?;
            }
        }
        right.checked_mul(self.left_size)?.checked_add(left)
    }

    /// (to + H(key, round, from)) mod size.
    fn add_hash(&self, round: u8, from: u64, to: u64, size: u64) -> Option<u64> {
        let hash = blake2_256_of(&[&self.key, &[round], &from.to_le_bytes()]);
        // The size is below 2^32 + 1: the remainder is uniform up to 2^-31, the sum fits.
        let step = low_u64(&hash).checked_rem(size)?;
        to.checked_add(step)?.checked_rem(size)
    }
}

/// The permutation behind [`assigned_sample`], for callers that draw many samples of one window.
pub fn own_samples(seed: &Hash, sample_count: u64) -> Option<Permutation> {
    Permutation::new(blake2_256_of(&[OWN_DOMAIN, seed]), sample_count)
}

/// The permutation behind [`random_sample`], for callers that draw many samples of one window.
pub fn random_samples(seed: &Hash, salt: &[u8], sample_count: u64) -> Option<Permutation> {
    Permutation::new(blake2_256_of(&[RANDOM_DOMAIN, seed, salt]), sample_count)
}

/// The sample that miner `uid` trains on at `position` (`step · batch_size + sample of the batch`).
///
/// `per_uid` is the number of positions of a miner, `inner_steps · batch_size`. `None` if
/// `position` is not below `per_uid`, or if the data set is too small for this uid
/// ([`crate::settings::Settings::validate`] rules that out for every uid of a run).
pub fn assigned_sample(
    seed: &Hash,
    uid: Uid,
    position: u64,
    per_uid: u64,
    sample_count: u64,
) -> Option<u64> {
    if position >= per_uid {
        return None;
    }
    let index = u64::from(uid).checked_mul(per_uid)?.checked_add(position)?;
    own_samples(seed, sample_count)?.apply(index)
}

/// The sample at `position` of the random samples drawn under `salt`, all different. `None` if
/// `position` is not below `sample_count`.
///
/// Drawn from the whole data set, so that a random sample may also be somebody's own.
pub fn random_sample(seed: &Hash, salt: &[u8], position: u64, sample_count: u64) -> Option<u64> {
    random_samples(seed, salt, sample_count)?.apply(position)
}

/// Assigns to validator `validator_index` those of `uids` that it must evaluate, sorted by uid.
///
/// All of them when `count` is at least their number. Otherwise the uids are shuffled under the
/// seed and laid out in a circle; validator i takes the `count` places from `i · count` on. With
/// validators of indices 0 to n − 1 each miner is thus evaluated by ⌊n·count/len⌋ or one more.
pub fn assigned_evaluations(
    seed: &Hash,
    validator_index: ValidatorIndex,
    uids: &[Uid],
    count: u16,
) -> Vec<Uid> {
    let mut sorted = uids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if usize::from(count) >= sorted.len() {
        return sorted;
    }
    let mut assigned: Vec<Uid> = evaluation_places(seed, validator_index, sorted.len(), count)
        .filter_map(|place| sorted.get(usize::try_from(place).ok()?).copied())
        .collect();
    assigned.sort_unstable();
    assigned
}

/// The places in the sorted list of uids that a validator must evaluate.
fn evaluation_places(
    seed: &Hash,
    validator_index: ValidatorIndex,
    len: usize,
    count: u16,
) -> impl Iterator<Item = u64> {
    // There are at most 2^16 uids.
    let len = u64::try_from(len).unwrap_or(0);
    let permutation = Permutation::new(blake2_256_of(&[EVALUATION_DOMAIN, seed]), len);
    let first = u64::from(validator_index).saturating_mul(u64::from(count));
    (0..u64::from(count)).filter_map(move |step| {
        let place = first.checked_add(step)?.checked_rem(len)?;
        permutation.as_ref()?.apply(place)
    })
}
