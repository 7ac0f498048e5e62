//! Runs a whole epoch of a chain that knows uids only: permits, activity, what is out of date, and emission.

use alloc::{vec, vec::Vec};

use super::{
    judge,
    matrix::{normalise_row, normalised, total, Row},
    Judgement,
};
use crate::{
    fixed::{Q32, Q32_BITS},
    settings::YumaSettings,
};

/// What the chain holds of one uid before an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Neuron {
    /// Its stake; all of them sum to less than 2^63.
    pub stake: u64,
    /// The last epoch gave it a permit.
    pub permit: bool,
    /// The block of its last weights.
    pub last_update: u64,
    /// The block in which its owner took the uid.
    pub registered_at: u64,
    /// Its weights as stored, by uid.
    pub weights: Row<u16>,
    /// Its bonds as stored, by uid.
    pub bonds: Row<u16>,
}

/// The state before an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochInput {
    /// The uids, from 0 on; at most 2^16.
    pub neurons: Vec<Neuron>,
    /// The block of the epoch.
    pub block: u64,
    /// The block of the last epoch, 0 if there was none.
    pub last_step: u64,
    /// Blocks between two epochs.
    pub tempo: u64,
    /// Blocks after its last weights for which a validator counts as active.
    pub activity_cutoff: u64,
    /// Most permits.
    pub validators_max: usize,
}

/// The state after an epoch, in the order of the uids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochOutcome {
    /// S: each uid's part of all stake.
    pub stake: Vec<Q32>,
    /// A: the same of those that are active and had a permit.
    pub active_stake: Vec<Q32>,
    /// W: the weights that counted; each row sums to 1.
    pub weights: Vec<Row<Q32>>,
    /// Consensus, trust, incentive, dividends; its bonds are those to be stored.
    pub judgement: Judgement,
    /// Who has a permit in the next epoch.
    pub permits: Vec<bool>,
}

/// Runs an epoch: permits are the last epoch's, and those of the next are given out.
pub fn epoch(input: &EpochInput, settings: &YumaSettings) -> EpochOutcome {
    let stake = stake_parts(&input.neurons);
    let permits = largest(&stake, input.validators_max);
    let active = input.neurons.iter().zip(&stake).map(|(neuron, stake)| {
        let is_active = neuron.last_update.saturating_add(input.activity_cutoff) >= input.block;
        if is_active && neuron.permit {
            *stake
        } else {
            Q32::ZERO
        }
    });
    let active_stake = normalised(active.collect());
    let weights: Vec<Row<Q32>> = (0..=u16::MAX)
        .zip(&input.neurons)
        .map(|(uid, neuron)| weights_of(uid, neuron, input))
        .collect();
    let bonds = bonds_in_force(input);
    let columns = input.neurons.len();
    let mut judgement = judge(columns, &active_stake, &weights, &bonds, settings);
    for ((bonds, neuron), permit) in judgement.bonds.iter_mut().zip(&input.neurons).zip(&permits) {
        if !permit {
            *bonds = if neuron.permit { Row::new() } else { neuron.bonds.clone() };
        }
    }
    EpochOutcome { stake, active_stake, weights, judgement, permits }
}

/// Stakes divided by their sum in 64.64 fixed point, cut to 32 fractional bits.
fn stake_parts(neurons: &[Neuron]) -> Vec<Q32> {
    stake_shares(neurons.iter().map(|neuron| neuron.stake))
}

/// Each stake's part of their sum, rounded down; zero of nothing.
pub(in crate::consensus) fn stake_shares(stakes: impl Iterator<Item = u64> + Clone) -> Vec<Q32> {
    let sum = stakes.clone().fold(0u128, |sum, stake| sum.saturating_add(u128::from(stake)));
    let share = |stake: u64| {
        let part = (u128::from(stake) << Q32_BITS).checked_div(sum).unwrap_or(0);
        Q32(i64::try_from(part).unwrap_or(i64::MAX))
    };
    stakes.map(share).collect()
}

/// Who is among the `most` largest. Of equals the higher uid comes first, and 0 is never among them.
fn largest(stake: &[Q32], most: usize) -> Vec<bool> {
    let mut order: Vec<(Q32, usize)> =
        stake.iter().enumerate().map(|(uid, stake)| (*stake, uid)).collect();
    order.sort_unstable();
    let mut permits = vec![false; stake.len()];
    for (stake, uid) in order.into_iter().rev().take(most) {
        if let Some(permit) = permits.get_mut(uid) {
            *permit = stake > Q32::ZERO;
        }
    }
    permits
}

/// The weights of a uid with a permit, without its own and those set before the other's owner came, normalised.
fn weights_of(uid: u16, neuron: &Neuron, input: &EpochInput) -> Row<Q32> {
    if !neuron.permit {
        return Row::new();
    }
    let is_in_force = |other: u16| {
        let registered = input.neurons.get(usize::from(other)).map(|other| other.registered_at);
        other != uid && registered.is_some_and(|registered| registered < neuron.last_update)
    };
    let mut row: Row<Q32> = neuron
        .weights
        .iter()
        .filter(|(other, _)| is_in_force(*other))
        .map(|(other, weight)| (*other, Q32::from_int(i32::from(*weight))))
        .collect();
    normalise_row(&mut row);
    row
}

/// The stored bonds without those in a uid that changed hands since the last epoch.
fn bonds_in_force(input: &EpochInput) -> Vec<Row<u16>> {
    let since = match input.last_step {
        0 => input.block.saturating_sub(input.tempo),
        last => last.saturating_add(1),
    };
    let is_in_force = |uid: u16| {
        input.neurons.get(usize::from(uid)).is_some_and(|neuron| neuron.registered_at < since)
    };
    let row = |neuron: &Neuron| {
        neuron.bonds.iter().copied().filter(|(uid, _)| is_in_force(*uid)).collect()
    };
    input.neurons.iter().map(row).collect()
}

/// An epoch's emission by uid, each amount rounded down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emissions {
    /// For what each did as a miner.
    pub server: Vec<u64>,
    /// For what each did as a validator.
    pub validator: Vec<u64>,
    /// For both.
    pub combined: Vec<u64>,
}

/// Divides an emission by incentive and dividends; where nobody judged anything, by the active stake, or by all stake
/// while none is active.
pub fn emissions(outcome: &EpochOutcome, emission: u64) -> Emissions {
    let Judgement { incentive, dividends, .. } = &outcome.judgement;
    let combined: Vec<Q32> =
        incentive.iter().zip(dividends).map(|(i, d)| i.saturating_add(*d)).collect();
    let sum = total(combined.iter().copied());
    let amounts = |parts: &[Q32]| parts.iter().map(|part| amount(*part, emission)).collect();
    if sum == Q32::ZERO {
        let is_idle = total(outcome.active_stake.iter().copied()) == Q32::ZERO;
        let by = if is_idle { &outcome.stake } else { &outcome.active_stake };
        let validator: Vec<u64> = amounts(by);
        return Emissions { server: amounts(incentive), combined: validator.clone(), validator };
    }
    let of_sum =
        |parts: &[Q32]| -> Vec<Q32> { parts.iter().map(|part| part.div_or_zero(sum)).collect() };
    Emissions {
        server: amounts(&of_sum(incentive)),
        validator: amounts(&of_sum(dividends)),
        combined: amounts(&normalised(combined)),
    }
}

/// floor(part · emission), from 0 to 2^64 − 1.
fn amount(part: Q32, emission: u64) -> u64 {
    let product = i128::from(part.0).saturating_mul(i128::from(emission)) >> Q32_BITS;
    u64::try_from(product.max(0)).unwrap_or(u64::MAX)
}
