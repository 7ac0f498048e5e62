//! Assigns samples to miners, and miners to validators, by draws that anybody can recompute.
//!
//! Properties: within a window no two assigned samples are equal, of one miner or of two; every
//! sample is equally likely; each miner is evaluated by the same number of validators, which nobody chooses, and each
//! validator evaluates in proportion to its stake.

use alloc::vec::Vec;

use crate::{
    seed::{blake2_256_of, low_u64},
    Hash, Uid, ValidatorIndex,
};

/// Key of the permutation from which the miners' own samples are drawn.
const OWN_DOMAIN: &[u8] = b"gauntlet/own-samples/1";

/// Key of the permutation from which random samples are drawn.
const RANDOM_DOMAIN: &[u8] = b"gauntlet/random-samples/1";

/// Separates the hashes that order the miners for their evaluation.
const MINER_DOMAIN: &[u8] = b"gauntlet/evaluated-miners/1";

/// Separates the hashes that order the validators that evaluate.
const VALIDATOR_DOMAIN: &[u8] = b"gauntlet/evaluators/1";

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

/// Who evaluates whom in a window.
///
/// The miners lie on a circle in an order that the seed draws, and each validator takes an arc of it; the arcs follow one
/// another in an order that the seed draws too, and go round the circle `evaluators` times. So each miner is evaluated by
/// exactly `evaluators` different validators, and nobody chooses whom. The length of an arc is proportional to the
/// validator's stake, from 1 to `evaluations_max`, as its pay will be.
///
/// With fewer validators than `evaluators` everybody evaluates everybody; where the arcs at their longest do not go round so
/// often, each miner has as many evaluators as there is room for, or one more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draw {
    /// The miners in the circle's order.
    circle: Vec<Uid>,
    arcs: Vec<Arc>,
}

/// A validator's part of the circle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Arc {
    validator: ValidatorIndex,
    first: usize,
    len: usize,
}

impl Draw {
    /// Draws for the miners `uids` among the validators of `permits`, which are given with their stakes.
    ///
    /// O((miners + validators²) · log), one hash for each of them.
    pub fn new(
        seed: &Hash,
        permits: &[(ValidatorIndex, u64)],
        uids: &[Uid],
        evaluators: u16,
        evaluations_max: u16,
    ) -> Draw {
        let circle = shuffled(seed, MINER_DOMAIN, uids);
        let indices: Vec<ValidatorIndex> = permits.iter().map(|(index, _)| *index).collect();
        let order = shuffled(seed, VALIDATOR_DOMAIN, &indices);
        let stake_of = |index: ValidatorIndex| {
            permits.iter().find(|(other, _)| *other == index).map_or(0, |(_, stake)| *stake)
        };
        let stakes: Vec<u64> = order.iter().map(|index| stake_of(*index)).collect();
        let longest = circle.len().min(usize::from(evaluations_max));
        let rounds = usize::from(evaluators).min(order.len());
        let lens = arc_lens(&stakes, circle.len().saturating_mul(rounds), longest);
        let mut first = 0usize;
        let arcs = order
            .into_iter()
            .zip(lens)
            .map(|(validator, len)| {
                let arc = Arc { validator, first, len };
                first = first.saturating_add(len);
                arc
            })
            .collect();
        Draw { circle, arcs }
    }

    /// The miners that `validator` must evaluate, sorted by uid; none if it has no permit.
    pub fn of(&self, validator: ValidatorIndex) -> Vec<Uid> {
        let Some(arc) = self.arcs.iter().find(|arc| arc.validator == validator) else {
            return Vec::new();
        };
        let mut drawn: Vec<Uid> = (0..arc.len)
            .filter_map(|step| {
                let place = arc.first.checked_add(step)?.checked_rem(self.circle.len())?;
                self.circle.get(place).copied()
            })
            .collect();
        drawn.sort_unstable();
        drawn
    }
}

/// `items` without repetition, in an order that nobody knows before the seed.
fn shuffled(seed: &Hash, domain: &[u8], items: &[u16]) -> Vec<u16> {
    let mut keyed: Vec<(Hash, u16)> = items
        .iter()
        .map(|item| (blake2_256_of(&[domain, seed, &item.to_le_bytes()]), *item))
        .collect();
    keyed.sort_unstable();
    keyed.dedup();
    keyed.into_iter().map(|(_, item)| item).collect()
}

/// Divides `total` places by stake, each part from 1 to `longest`; less than `total` only if all have the longest.
///
/// Parts that would be longer than the longest are cut and what they leave is divided among the others, again by stake;
/// what rounding leaves goes to the first that has room.
fn arc_lens(stakes: &[u64], total: usize, longest: usize) -> Vec<usize> {
    let mut lens = alloc::vec![0usize; stakes.len()];
    let mut left = total.min(longest.saturating_mul(stakes.len()));
    for len in lens.iter_mut().filter(|_| longest > 0) {
        *len = usize::from(left > 0);
        left = left.saturating_sub(1);
    }
    while left > 0 {
        let has_room = |len: usize| len < longest;
        let stake: u128 = stakes
            .iter()
            .zip(&lens)
            .filter(|(_, len)| has_room(**len))
            .fold(0, |sum, (stake, _)| sum.saturating_add(u128::from(*stake)));
        let round = left;
        for (len, own) in lens.iter_mut().zip(stakes) {
            // Below 2^64 · 2^22. Whoever has room gets a place at least, so that this ends.
            let part = u128::try_from(round).unwrap_or(0).saturating_mul(u128::from(*own));
            let part = usize::try_from(part.checked_div(stake).unwrap_or(0)).unwrap_or(usize::MAX);
            let part = part.max(1).min(left).min(longest.saturating_sub(*len));
            *len = len.saturating_add(part);
            left = left.saturating_sub(part);
        }
    }
    lens
}
