//! Divides the miners' pot by their standings.
//!
//! Who does as much as is typical is paid in full, and hardly more for noise in its favour; who does clearly less falls off
//! a knee, so that two halves of one miner are not paid as two, and a lazy one not at all. Where the knee lies follows from
//! how well the standings are known (docs/decisions/0014).

use alloc::vec::Vec;

use super::{
    measure::{lower_median, weighted_median, Measured},
    shares::{power_shares, proportional_shares},
    standing::proof_gate,
    Standing,
};
use crate::{
    fixed::{Q32, Q60_BITS, Q60_ONE},
    settings::{Incentive, StandingKind},
};

/// A standing at so many times the knee is paid in full: with `power` 1 four fifths.
const RATIO_MAX: Q32 = Q32::from_int(4);

/// The miners' shares after the window, given their standings and these as one number.
///
/// In the division are those that revealed without fault and are not on probation. Who was not scored is divided for, and
/// its part is carried; so is what a miner lacks of its first windows' trust, n² / (n² + `trust_windows`²).
pub(super) fn miner_shares(measured: &Measured<'_>, incentive: &Incentive) -> Option<Vec<Q32>> {
    let Measured { miners, medians, standings, values, .. } = measured;
    let paid: Vec<Q32> = miners
        .iter()
        .zip(*values)
        .map(|(miner, value)| if miner.is_paid() { *value } else { Q32::ZERO })
        .collect();
    let shares = match incentive.standing {
        StandingKind::Gain => knee_shares(standings, &paid, incentive)?,
        StandingKind::PlackettLuce => power_shares(&paid, incentive.power)?,
    };
    shares
        .into_iter()
        .zip(*medians)
        .zip(*standings)
        .map(|((share, medians), standing)| {
            if medians.is_none() {
                return Some(Q32::ZERO);
            }
            share.checked_mul(trust(standing.scored_windows, incentive.trust_windows)?)
        })
        .collect()
}

/// n² / (n² + windows²), rounded down: of the first windows, in which a lazy miner is not told from others yet, next to nothing is
/// paid, and of those after twice `windows` four fifths.
fn trust(scored_windows: u32, trust_windows: u32) -> Option<Q32> {
    let [n, windows] = [scored_windows, trust_windows].map(i128::from);
    let n = n.checked_mul(n)?;
    Q32::from_ratio(n, n.checked_add(windows.checked_mul(windows)?)?)
}

/// Shares proportional to x^p / (1 + x^p) · gate · penalty, for x = e / (typical · knee) and p = `power`.
///
/// `values` are what the standings are worth; zero for who is not paid. Typical is the lower median of e over those that
/// are, weighted by what they are worth; the knee is for the lower median of their windows.
fn knee_shares(standings: &[Standing], values: &[Q32], incentive: &Incentive) -> Option<Vec<Q32>> {
    let rows = || standings.iter().zip(values);
    let paid = || rows().filter(|(_, value)| **value > Q32::ZERO);
    let gains: Vec<(Q32, u128)> =
        paid().map(|(row, value)| (row.gain, u128::try_from(value.0).unwrap_or(0))).collect();
    let Some(typical) = weighted_median(&gains) else {
        return proportional_shares(&alloc::vec![0; standings.len()]);
    };
    let windows = lower_median(paid().map(|(row, _)| Q32(i64::from(row.scored_windows))));
    let knee = typical.checked_mul(knee(windows.unwrap_or_default().0, incentive)?)?;
    let parts = rows()
        .map(|(standing, value)| {
            if *value <= Q32::ZERO {
                return Some(0);
            }
            let ratio = standing.gain.checked_div(knee.max(Q32(1))).unwrap_or(RATIO_MAX);
            let factor = proof_gate(standing, incentive)?.checked_mul(standing.penalty)?;
            let part = saturating_power(ratio.min(RATIO_MAX), incentive.power)?;
            // Both are at most 1.
            let part = part.checked_mul(i128::from(factor.0))? >> 32;
            u128::try_from(part).ok()
        })
        .collect::<Option<Vec<u128>>>()?;
    proportional_shares(&parts)
}

/// Where the knee lies when the standings are averages of `windows`: knee − spread / √windows, not below a quarter of the
/// knee. An average of more windows than its rate remembers is no better known.
fn knee(windows: i64, incentive: &Incentive) -> Option<Q32> {
    let knee = Q32::from_ppm(incentive.knee_ppm);
    let remembered = i64::from(1_000_000u32.checked_div(incentive.gain_rate_min_ppm)?);
    let windows = i32::try_from(windows.clamp(1, remembered.max(1))).ok()?;
    let root = Q32::from_int(windows).sqrt()?;
    let spread = Q32::from_ppm(incentive.knee_spread_ppm).checked_div(root)?;
    Some(knee.checked_sub(spread)?.max(Q32(knee.0 >> 2)))
}

/// x^power / (1 + x^power) with 60 fractional bits, rounded down, for x from 0 to 4 and a power up to 16.
fn saturating_power(x: Q32, power: u8) -> Option<i128> {
    // 4^16 is 2^32: the product stays below 2^92, and times x below 2^126.
    let mut product = Q60_ONE;
    for _ in 0..power {
        product = product.checked_mul(i128::from(x.0))? >> 32;
    }
    let shift = Q60_BITS.checked_sub(30)?;
    // p / (1 + p) = 1 − 1 / (1 + p), the division with 30 bits less so that it fits.
    let whole = Q60_ONE.checked_add(product)?;
    let inverse = (Q60_ONE << shift).checked_div(whole)? << shift;
    if product >= Q60_ONE {
        return Q60_ONE.checked_sub(inverse);
    }
    // Small powers keep their bits: p · (1 / (1 + p)).
    product.checked_mul(inverse >> shift).map(|part| part >> shift)
}
