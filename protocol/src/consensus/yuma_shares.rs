//! Divides a window's pots by Yuma consensus, from the same measurements as by standing.

use alloc::vec::Vec;

use super::{
    measure::Measurement,
    records::{is_paid, ConsensusError, MinerInput, ValidatorInput},
    shares::Shares,
    yuma::{judge, normalised, stake_shares, weight_rows, Row},
    Standing,
};
use crate::{fixed::Q32, settings::YumaSettings, Uid};

/// What shares are computed from.
pub(super) struct Measured<'a> {
    pub(super) miners: &'a [MinerInput],
    pub(super) validators: &'a [ValidatorInput],
    /// By miner.
    pub(super) measurements: &'a [Vec<Measurement>],
    /// The miners' standings after the window as numbers.
    pub(super) values: &'a [Q32],
}

/// Shares by Yuma: the present validators by their dividends, miners by their incentive times their penalty, nothing without a standing
/// above 0. What that leaves, and all of it in a window in which nobody agreed on anything, is carried.
///
/// Weights are the gains on random samples, to the power ([`weight_rows`]); the active stake is that of the present
/// validators; agreement is what the clip left of a validator's weights.
pub(super) fn by_yuma(
    measured: &Measured<'_>,
    standings: &[Standing],
    power: u8,
    settings: &YumaSettings,
) -> Result<Shares, ConsensusError> {
    let Measured { miners, validators, measurements, values } = measured;
    let weights = weight_rows(measurements, validators.len(), power)?;
    let stakes = validators.iter().map(|validator| match validator.present {
        true => validator.stake,
        false => 0,
    });
    let stakes = normalised(stake_shares(stakes));
    let places = places_of(miners);
    let bonds: Vec<Row<u16>> =
        validators.iter().map(|validator| by_place(&validator.bonds, &places)).collect();
    let judged = judge(miners.len(), &stakes, &weights, &bonds, settings);
    let miner_shares = miners
        .iter()
        .zip(standings)
        .zip(*values)
        .zip(&judged.incentive)
        .map(|(((miner, standing), value), incentive)| {
            if !is_paid(miner) || *value <= Q32::ZERO {
                return Some(Q32::ZERO);
            }
            incentive.checked_mul(standing.penalty.clamp(Q32::ZERO, Q32::ONE))
        })
        .collect::<Option<Vec<Q32>>>()
        .ok_or(ConsensusError::Overflow("miner share"))?;
    let agreements = judged.trust.iter().map(|trust| (*trust).clamp(Q32::ZERO, Q32::ONE));
    let dividends = judged.dividends.iter().zip(*validators);
    let dividends =
        dividends.map(|(part, validator)| if validator.present { *part } else { Q32::ZERO });
    Ok(Shares {
        miners: miner_shares,
        agreements: agreements.collect(),
        validators: dividends.collect(),
        bonds: judged.bonds.iter().map(|row| by_uid(row, miners)).collect(),
    })
}

/// The miners' places among the inputs, by uid.
fn places_of(miners: &[MinerInput]) -> Vec<(Uid, u16)> {
    let mut places: Vec<(Uid, u16)> =
        miners.iter().map(|miner| miner.uid).zip(0..=u16::MAX).collect();
    places.sort_unstable();
    places
}

/// Entries by uid as entries by place.
fn by_place(bonds: &[(Uid, u16)], places: &[(Uid, u16)]) -> Row<u16> {
    let place = |uid: Uid| {
        let at = places.binary_search_by_key(&uid, |(uid, _)| *uid).ok()?;
        places.get(at).map(|(_, place)| *place)
    };
    let mut row: Row<u16> =
        bonds.iter().filter_map(|(uid, bond)| Some((place(*uid)?, *bond))).collect();
    row.sort_unstable();
    row
}

/// Entries by place as entries by uid; those of 0 are left out, as they mean nothing.
fn by_uid(row: &Row<u16>, miners: &[MinerInput]) -> Vec<(Uid, u16)> {
    let uid = |place: u16| miners.get(usize::from(place)).map(|miner| miner.uid);
    let mut bonds: Vec<(Uid, u16)> = row
        .iter()
        .filter(|(_, bond)| *bond > 0)
        .filter_map(|(place, bond)| Some((uid(*place)?, *bond)))
        .collect();
    bonds.sort_unstable();
    bonds
}
