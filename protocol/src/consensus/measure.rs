//! Turns validators' evaluations into relative improvements, and these into a stake-weighted median for each miner.

use alloc::{vec, vec::Vec};

use super::{
    records::{MinerInput, ValidatorInput},
    Evaluation, Medians, Standing,
};
use crate::{
    fixed::Q32,
    settings::{Incentive, PPM, UID_MAX},
    Uid,
};

/// One usable measurement: relative improvements as validator `validator` saw them.
#[derive(Clone, Copy)]
pub(super) struct Measurement {
    pub(super) validator: usize,
    pub(super) weight: u128,
    pub(super) own: Q32,
    pub(super) random: Q32,
}

/// What shares are computed from; miners and validators in the order of the inputs.
pub(super) struct Measured<'a> {
    pub(super) miners: &'a [MinerInput],
    pub(super) validators: &'a [ValidatorInput],
    /// By miner.
    pub(super) measurements: &'a [Vec<Measurement>],
    /// By miner; `None` for one that was not scored.
    pub(super) medians: &'a [Option<Medians>],
    /// The miners' standings after the window.
    pub(super) standings: &'a [Standing],
    /// The same as numbers.
    pub(super) values: &'a [Q32],
}

/// What a validator's word on one miner counts: its stake, divided by the part of the miners that were drawn for it.
///
/// Who has more stake is drawn more often. Without the division its stake would count twice, and one that is drawn for all
/// would outvote two that are drawn for few and have as much stake together with their like. Where everybody evaluates
/// everybody the weights are the stakes.
fn weight_of(validator: &ValidatorInput) -> u128 {
    let scaled = u128::from(validator.stake).saturating_mul(u128::from(UID_MAX));
    u128::try_from(validator.drawn.len())
        .ok()
        .and_then(|drawn| scaled.checked_div(drawn))
        .unwrap_or(0)
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
/// Usable: the validator is present with a stake, the miner was drawn for it, is known, revealed and without fault, the
/// validator names it once, and neither loss before is zero. O(evaluations · log).
pub(super) fn measure(
    miners: &[MinerInput],
    validators: &[ValidatorInput],
) -> Vec<Vec<Measurement>> {
    let places = Places::of(miners);
    let mut measurements: Vec<Vec<Measurement>> = vec![Vec::new(); miners.len()];
    for (at, validator) in validators.iter().enumerate() {
        if !validator.present || validator.stake == 0 {
            continue;
        }
        let weight = weight_of(validator);
        for evaluation in named_once(&validator.evaluations) {
            if validator.drawn.binary_search(&evaluation.uid).is_err() {
                continue;
            }
            let own = relative_improvement(evaluation.own_before, evaluation.own_after);
            let random = relative_improvement(evaluation.random_before, evaluation.random_after);
            let (Some(own), Some(random)) = (own, random) else {
                continue;
            };
            let row = places.find(evaluation.uid).and_then(|place| measurements.get_mut(place));
            if let Some(row) = row {
                row.push(Measurement { validator: at, weight, own, random });
            }
        }
    }
    measurements
}

/// Where each miner that can be scored stands in the list of miners.
pub(super) struct Places(Vec<(Uid, usize)>);

impl Places {
    pub(super) fn of(miners: &[MinerInput]) -> Self {
        let mut places: Vec<(Uid, usize)> = miners
            .iter()
            .enumerate()
            .filter(|(_, miner)| miner.is_scorable())
            .map(|(place, miner)| (miner.uid, place))
            .collect();
        places.sort_unstable();
        Self(places)
    }

    pub(super) fn find(&self, uid: Uid) -> Option<usize> {
        let found = self.0.binary_search_by_key(&uid, |(uid, _)| *uid).ok()?;
        self.0.get(found).map(|(_, place)| *place)
    }
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

/// The lower weighted median: the smallest value up to which the weights reach half of their
/// sum, which must be below 2^127. `None` without any weight. O(n log n).
pub fn weighted_median(values: &[(Q32, u128)]) -> Option<Q32> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let total = sorted.iter().fold(0u128, |sum, (_, weight)| sum.saturating_add(*weight));
    if total == 0 {
        return None;
    }
    let mut reached = 0u128;
    for (value, weight) in sorted {
        reached = reached.saturating_add(weight);
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

/// The validators drawn for a miner: how many, and what their words count together.
#[derive(Clone, Copy, Default)]
struct Drawn {
    count: u64,
    weight: u128,
}

impl Drawn {
    fn add(&mut self, weight: u128) {
        self.count = self.count.saturating_add(1);
        self.weight = self.weight.saturating_add(weight);
    }
}

/// The medians of each miner that enough of the validators drawn for it evaluated: by weight `evaluation_quorum_ppm` of
/// theirs, by number half of them.
pub(super) fn medians_of(
    miners: &[MinerInput],
    measurements: &[Vec<Measurement>],
    validators: &[ValidatorInput],
    incentive: &Incentive,
) -> Vec<Option<Medians>> {
    let places = Places::of(miners);
    let mut drawn = vec![Drawn::default(); miners.len()];
    for validator in validators.iter().filter(|validator| validator.stake > 0) {
        let weight = weight_of(validator);
        for place in validator.drawn.iter().filter_map(|uid| places.find(*uid)) {
            if let Some(drawn) = drawn.get_mut(place) {
                drawn.add(weight);
            }
        }
    }
    let quorum = u128::from(incentive.evaluation_quorum_ppm);
    measurements
        .iter()
        .zip(drawn)
        .map(|(row, drawn)| {
            let mut measured = Drawn::default();
            row.iter().for_each(|measurement| measured.add(measurement.weight));
            // Weights are below 2^76, their sums below 2^92.
            let is_enough = measured.weight.saturating_mul(u128::from(PPM))
                >= drawn.weight.saturating_mul(quorum)
                && measured.count.saturating_mul(2) >= drawn.count;
            if !is_enough {
                return None;
            }
            let own: Vec<_> = row.iter().map(|m| (m.own, m.weight)).collect();
            let random: Vec<_> = row.iter().map(|m| (m.random, m.weight)).collect();
            Some(Medians { own: weighted_median(&own)?, random: weighted_median(&random)? })
        })
        .collect()
}
