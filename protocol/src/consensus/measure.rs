//! Turns validators' evaluations into relative improvements, and these into a stake-weighted median for each miner.

use alloc::{vec, vec::Vec};

use super::{
    records::{is_paid, ConsensusError, MinerInput, ValidatorInput},
    Evaluation,
};
use crate::{
    fixed::Q32,
    settings::{Incentive, PPM},
    Uid,
};

/// One usable measurement: relative improvements as validator `validator` saw them.
#[derive(Clone, Copy)]
pub(super) struct Measurement {
    pub(super) validator: usize,
    pub(super) stake: u64,
    pub(super) own: Q32,
    pub(super) random: Q32,
}

/// The medians of one miner's improvements, on own and on random samples.
#[derive(Clone, Copy)]
pub(super) struct Medians {
    pub(super) own: Q32,
    pub(super) random: Q32,
}

/// (before − after) / before, truncated toward zero and not below −1: a loss that doubles is as bad
/// as any. `None` for a loss of 0 before, of which nothing can be said.
pub fn relative_improvement(before: u32, after: u32) -> Option<Q32> {
    let gained = i128::from(before).checked_sub(i128::from(after))?;
    let gained = gained.max(i128::from(before).checked_neg()?);
    Q32::from_ratio(gained, i128::from(before))
}

/// The usable measurements of each miner, in the order of `miners`.
///
/// Usable: the validator is present with a stake, the miner is known and revealed, the validator
/// names it once, and neither loss before is zero. O(evaluations · log).
pub(super) fn measure(
    miners: &[MinerInput],
    validators: &[ValidatorInput],
) -> Result<Vec<Vec<Measurement>>, ConsensusError> {
    let mut places: Vec<(Uid, usize)> = miners
        .iter()
        .enumerate()
        .filter(|(_, miner)| is_paid(miner))
        .map(|(place, miner)| (miner.uid, place))
        .collect();
    places.sort_unstable();
    let mut measurements: Vec<Vec<Measurement>> = vec![Vec::new(); miners.len()];
    for (at, validator) in validators.iter().enumerate() {
        if !validator.present || validator.stake == 0 {
            continue;
        }
        for evaluation in named_once(&validator.evaluations) {
            let own = relative_improvement(evaluation.own_before, evaluation.own_after);
            let random = relative_improvement(evaluation.random_before, evaluation.random_after);
            let (Some(own), Some(random)) = (own, random) else {
                continue;
            };
            let row = places
                .binary_search_by_key(&evaluation.uid, |(uid, _)| *uid)
                .ok()
                .and_then(|found| places.get(found))
                .and_then(|(_, place)| measurements.get_mut(*place));
            if let Some(row) = row {
                row.push(Measurement { validator: at, stake: validator.stake, own, random });
            }
        }
    }
    Ok(measurements)
}

/// The evaluations of uids that are named exactly once, by uid.
fn named_once(evaluations: &[Evaluation]) -> impl Iterator<Item = &Evaluation> {
    let mut sorted: Vec<&Evaluation> = evaluations.iter().collect();
    sorted.sort_by_key(|evaluation| evaluation.uid);
    let mut once: Vec<&Evaluation> = Vec::with_capacity(sorted.len());
    for group in sorted.chunk_by(|a, b| a.uid == b.uid) {
        if let [evaluation] = group {
            once.push(evaluation);
        }
    }
    once.into_iter()
}

/// The sum of stakes; a u128 holds 2^64 of them.
fn total_stake(stakes: impl Iterator<Item = u64>) -> u128 {
    stakes.fold(0, |sum, stake| sum.saturating_add(u128::from(stake)))
}

/// The lower stake-weighted median: the smallest value up to which the stakes reach half of their
/// sum. `None` without any stake. O(n log n).
pub fn weighted_median(values: &[(Q32, u64)]) -> Option<Q32> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let total = total_stake(sorted.iter().map(|(_, stake)| *stake));
    if total == 0 {
        return None;
    }
    let mut reached = 0u128;
    for (value, stake) in sorted {
        reached = reached.saturating_add(u128::from(stake));
        if reached.saturating_mul(2) >= total {
            return Some(value);
        }
    }
    None
}

/// The lower median: element ⌊(n−1)/2⌋ of the sorted values. `None` of nothing.
pub fn lower_median(values: impl Iterator<Item = Q32>) -> Option<Q32> {
    let mut sorted: Vec<Q32> = values.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? >> 1).copied()
}

/// The medians of each miner that validators with at least `evaluation_quorum_ppm` of the present
/// stake evaluated.
pub(super) fn medians_of(
    measurements: &[Vec<Measurement>],
    validators: &[ValidatorInput],
    incentive: &Incentive,
) -> Vec<Option<Medians>> {
    let present = total_stake(validators.iter().filter(|v| v.present).map(|v| v.stake));
    let quorum = present.saturating_mul(u128::from(incentive.evaluation_quorum_ppm));
    measurements
        .iter()
        .map(|row| {
            let stake = total_stake(row.iter().map(|measurement| measurement.stake));
            if stake.saturating_mul(u128::from(PPM)) < quorum {
                return None;
            }
            let own: Vec<_> = row.iter().map(|m| (m.own, m.stake)).collect();
            let random: Vec<_> = row.iter().map(|m| (m.random, m.stake)).collect();
            Some(Medians { own: weighted_median(&own)?, random: weighted_median(&random)? })
        })
        .collect()
}
