//! Moves the validators' bonds in the miners, which reward who saw a miner's worth early.

use alloc::{vec, vec::Vec};

use super::{
    matrix::{accumulate_columns, normalise, total, upscale_columns, Row},
    number::{place, proportion_u16},
};
use crate::fixed::Q32;

/// A_i · (W + β (K − W)): W for a β of 0, K for 1. Between them, entries of 0 are left out.
pub(super) fn learned(
    weights: &[Row<Q32>],
    clipped: &[Row<Q32>],
    active_stake: &[Q32],
    beta: Q32,
) -> Vec<Row<Q32>> {
    let mut bonds = match beta {
        Q32::ZERO => weights.to_vec(),
        Q32::ONE => clipped.to_vec(),
        _ => weights.iter().zip(clipped).map(|(w, k)| between(w, k, beta)).collect(),
    };
    for (row, stake) in bonds.iter_mut().zip(active_stake) {
        for (_, value) in row {
            *value = value.saturating_mul(*stake);
        }
    }
    bonds
}

/// W + β (K − W) of one row, its positive entries. K has no entry that W has not.
fn between(weights: &Row<Q32>, clipped: &Row<Q32>, beta: Q32) -> Row<Q32> {
    weights
        .iter()
        .map(|(uid, weight)| {
            let found = clipped.binary_search_by_key(uid, |(uid, _)| *uid).ok();
            let clip = found.and_then(|at| clipped.get(at)).map_or(Q32::ZERO, |(_, clip)| *clip);
            let step = beta.saturating_mul(clip.saturating_sub(*weight));
            (*uid, weight.saturating_add(step))
        })
        .filter(|(_, value)| *value > Q32::ZERO)
        .collect()
}

/// Stored bonds as whole numbers.
pub(super) fn stored(bonds: &[Row<u16>]) -> Vec<Row<Q32>> {
    let row = |row: &Row<u16>| {
        row.iter().map(|(uid, bond)| (*uid, Q32::from_int(i32::from(*bond)))).collect()
    };
    bonds.iter().map(row).collect()
}

/// α · new + (1 − α) · old over the entries of either, the positive ones. A row that `old` lacks is empty.
pub(super) fn average(
    new: &[Row<Q32>],
    old: &[Row<Q32>],
    alpha: Q32,
    columns: usize,
) -> Vec<Row<Q32>> {
    let rest = Q32::ONE.saturating_sub(alpha);
    let empty = Row::new();
    let olds = old.iter().chain(core::iter::repeat(&empty));
    new.iter()
        .zip(olds)
        .map(|(new, old)| {
            let mut dense = vec![Q32::ZERO; columns];
            accumulate_columns(&mut dense, new, |value| alpha.saturating_mul(value));
            accumulate_columns(&mut dense, old, |value| rest.saturating_mul(value));
            (0..=u16::MAX).zip(dense).filter(|(_, value)| *value > Q32::ZERO).collect()
        })
        .collect()
}

/// D = norm(Σ_j I_j · E_ij).
pub(super) fn dividends_of(bonds: &[Row<Q32>], incentive: &[Q32]) -> Vec<Q32> {
    let earned = |row: &Row<Q32>| {
        total(row.iter().filter_map(|(uid, bond)| {
            incentive.get(place(*uid)).map(|part| part.saturating_mul(*bond))
        }))
    };
    let mut dividends: Vec<Q32> = bonds.iter().map(earned).collect();
    normalise(&mut dividends);
    dividends
}

/// Bonds to be stored: each column divided by its largest entry, as floor(65535 · value).
pub(super) fn upscaled(mut bonds: Vec<Row<Q32>>, columns: usize) -> Vec<Row<u16>> {
    upscale_columns(&mut bonds, columns);
    let stored =
        |row: Row<Q32>| row.into_iter().map(|(uid, value)| (uid, proportion_u16(value))).collect();
    bonds.into_iter().map(stored).collect()
}
