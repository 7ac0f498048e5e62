//! Finds what more than κ of the stake endorses, and clips the weights to it.

use alloc::{vec, vec::Vec};

use super::{
    matrix::{normalised, total, Row},
    number::place,
};
use crate::fixed::Q32;

/// The smallest score whose cumulative stake, scores ascending, is strictly above Σ stake − κ, for stakes that are first
/// divided by their sum; the largest score if there is none. 0 without any positive stake.
///
/// A stake of 0 has no voice. The same number as upstream's quick-select, which may take n² steps. O(n log n).
pub fn weighted_quantile(stakes: &[Q32], scores: &[Q32], kappa: Q32) -> Q32 {
    let voices = || stakes.iter().zip(scores).filter(|(stake, _)| **stake > Q32::ZERO);
    let stakes = normalised(voices().map(|(stake, _)| *stake).collect());
    let minority = total(stakes.iter().copied()).saturating_sub(kappa);
    let mut votes: Vec<(Q32, Q32)> = voices().map(|(_, score)| *score).zip(stakes).collect();
    quantile(&mut votes, Q32::ZERO, minority)
}

/// The smallest score of (score, stake) that carries the sum of stakes above `minority`, beginning with `absent` stake.
fn quantile(votes: &mut [(Q32, Q32)], absent: Q32, minority: Q32) -> Q32 {
    votes.sort_unstable();
    let mut reached = absent;
    for (score, stake) in votes.iter() {
        reached = reached.saturating_add(*stake);
        if reached > minority {
            return *score;
        }
    }
    votes.last().map_or(Q32::ZERO, |(score, _)| *score)
}

/// C: [`weighted_quantile`] of each column over the rows of positive stake. Who has no entry in a column votes 0 there.
pub(super) fn consensus_of(
    columns: usize,
    active_stake: &[Q32],
    weights: &[Row<Q32>],
    kappa: Q32,
) -> Vec<Q32> {
    let voices = || weights.iter().zip(active_stake).filter(|(_, stake)| **stake > Q32::ZERO);
    let stakes = normalised(voices().map(|(_, stake)| *stake).collect());
    let all = total(stakes.iter().copied());
    let minority = all.saturating_sub(kappa);
    let mut votes: Vec<Vec<(Q32, Q32)>> = vec![Vec::new(); columns];
    for ((row, _), stake) in voices().zip(&stakes) {
        for (uid, weight) in row {
            if let Some(column) = votes.get_mut(place(*uid)) {
                column.push((*weight, *stake));
            }
        }
    }
    votes
        .into_iter()
        .map(|mut column| {
            let present = total(column.iter().map(|(_, stake)| *stake));
            let absent = all.saturating_sub(present);
            if absent > minority {
                return Q32::ZERO;
            }
            quantile(&mut column, absent, minority)
        })
        .collect()
}

/// K = min(W, C). An entry disappears where C is 0 and it is not.
pub(super) fn clip(weights: &[Row<Q32>], consensus: &[Q32]) -> Vec<Row<Q32>> {
    let clipped = |row: &Row<Q32>| {
        row.iter()
            .filter_map(|(uid, weight)| {
                let most = *consensus.get(place(*uid))?;
                (*weight <= most || most > Q32::ZERO).then_some((*uid, (*weight).min(most)))
            })
            .collect()
    };
    weights.iter().map(clipped).collect()
}
