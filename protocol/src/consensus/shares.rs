//! Divides the pots of a window: the miners' and validators' shares of them, and the amounts.

use alloc::{vec, vec::Vec};

use super::{
    measure::{lower_median, weighted_median, Measurement, Medians},
    records::{ConsensusError, ValidatorInput},
};
use crate::{
    fixed::{Q32, Q32_BITS, Q60_BITS, Q60_ONE},
    Planck, Uid,
};

/// A difference between two validators below this never counts as full disagreement: 2^-16, the
/// noise of a loss measured in f32.
pub const DEVIATION_FLOOR: Q32 = Q32(1 << 16);

/// A factor on the present stake's typical deviation: a validator that deviates so far agrees no more.
const DEVIATION_FACTOR: Q32 = Q32::from_int(3);

/// Who gets which part of a window's pots, in the order of the inputs.
pub(super) struct Shares {
    pub(super) miners: Vec<Q32>,
    pub(super) agreements: Vec<Q32>,
    pub(super) validators: Vec<Q32>,
    /// Each validator's bonds after the window, by uid.
    pub(super) bonds: Vec<Vec<(Uid, u16)>>,
}

/// Shares proportional to value^power. Values are first divided by the largest, so that nothing
/// overflows; powers have 60 fractional bits; shares are rounded down. All zero if no value is
/// positive.
pub fn power_shares(values: &[Q32], power: u8) -> Option<Vec<Q32>> {
    proportional_shares(&powers_q60(values, power)?)
}

/// (value / largest)^power with 60 fractional bits, rounded down; 0 for a value that is not positive.
pub(super) fn powers_q60(values: &[Q32], power: u8) -> Option<Vec<u128>> {
    let largest = values.iter().copied().max().unwrap_or_default();
    if largest <= Q32::ZERO {
        return Some(vec![0; values.len()]);
    }
    let mut powers: Vec<u128> = Vec::with_capacity(values.len());
    for value in values {
        if *value <= Q32::ZERO {
            // Also for a power of 0, under which all positive values are equal.
            powers.push(0);
            continue;
        }
        let scaled = i128::from(value.0).checked_mul(Q60_ONE)?;
        let base = scaled.checked_div(i128::from(largest.0))?;
        let mut product = Q60_ONE;
        for _ in 0..power {
            product = product.checked_mul(base)? >> Q60_BITS;
        }
        powers.push(u128::try_from(product).ok()?);
    }
    Some(powers)
}

/// part / sum of the parts for each, rounded down; parts must be below 2^96.
fn proportional_shares(parts: &[u128]) -> Option<Vec<Q32>> {
    let mut sum = 0u128;
    for part in parts {
        if part >> 96 != 0 {
            return None;
        }
        sum = sum.checked_add(*part)?;
    }
    if sum == 0 {
        return Some(vec![Q32::ZERO; parts.len()]);
    }
    parts
        .iter()
        .map(|part| i64::try_from((part << Q32_BITS).checked_div(sum)?).ok().map(Q32))
        .collect()
}

/// How far each validator agrees with the medians of the scored miners that it evaluated:
/// 1 − the mean over them of (min(1, |own − median|/scale) + min(1, |random − median|/scale)) / 2.
/// Zero for a validator that evaluated none.
///
/// A scale, one for own and one for random, is the largest of the typical size of a median (their
/// lower median over the miners), three times the stake-weighted median deviation, and
/// [`DEVIATION_FLOOR`]. By the first, a validator that is off by less than a typical gain is believed in part;
/// by the second, half of the evaluations by stake agree to two thirds however noisy measuring is.
/// A minority of the stake moves neither.
pub(super) fn agreements_of(
    measurements: &[Vec<Measurement>],
    medians: &[Option<Medians>],
    validator_count: usize,
) -> Option<Vec<Q32>> {
    let own_scale = deviation_scale(measurements, medians, |m| m.own, |m| m.own)?;
    let random_scale = deviation_scale(measurements, medians, |m| m.random, |m| m.random)?;
    // Per validator: sum of deviations, from 0 to 2 each, and number of evaluations.
    let mut sums = vec![(0i128, 0i128); validator_count];
    for (row, medians) in measurements.iter().zip(medians) {
        let Some(medians) = medians else { continue };
        for measurement in row {
            let own = relative_deviation(measurement.own, medians.own, own_scale)?;
            let random = relative_deviation(measurement.random, medians.random, random_scale)?;
            let (sum, count) = sums.get_mut(measurement.validator)?;
            *sum = sum.checked_add(i128::from(own.checked_add(random)?.0))?;
            *count = count.checked_add(1)?;
        }
    }
    sums.into_iter()
        .map(|(sum, count)| {
            if count == 0 {
                return Some(Q32::ZERO);
            }
            let mean = sum.checked_div(count.checked_mul(2)?)?;
            Q32::ONE.checked_sub(Q32(i64::try_from(mean).ok()?))
        })
        .collect()
}

fn deviation_scale(
    measurements: &[Vec<Measurement>],
    medians: &[Option<Medians>],
    of_measurement: impl Fn(&Measurement) -> Q32,
    of_medians: impl Fn(&Medians) -> Q32,
) -> Option<Q32> {
    let mut sizes: Vec<Q32> = Vec::new();
    let mut deviations: Vec<(Q32, u64)> = Vec::new();
    for (row, medians) in measurements.iter().zip(medians) {
        let Some(medians) = medians else { continue };
        let median = of_medians(medians);
        sizes.push(median.checked_abs()?);
        for measurement in row {
            let deviation = of_measurement(measurement).checked_sub(median)?.checked_abs()?;
            deviations.push((deviation, measurement.stake));
        }
    }
    let size = lower_median(sizes.into_iter()).unwrap_or_default();
    let deviation = weighted_median(&deviations).unwrap_or_default();
    Some(size.max(deviation.checked_mul(DEVIATION_FACTOR)?).max(DEVIATION_FLOOR))
}

/// min(1, |x − median| / scale), rounded down.
fn relative_deviation(x: Q32, median: Q32, scale: Q32) -> Option<Q32> {
    let deviation = x.checked_sub(median)?.checked_abs()?;
    if deviation >= scale {
        return Some(Q32::ONE);
    }
    deviation.checked_div(scale)
}

/// Validators' shares, proportional to stake · agreement · presence, rounded down.
///
/// Presence is 0 for an absent validator, else min(1, own number of usable evaluations / the
/// stake-weighted lower median of that number over the present validators), so that measuring one
/// easy miner does not pay like measuring all.
pub(super) fn validator_shares(
    validators: &[ValidatorInput],
    measurements: &[Vec<Measurement>],
    agreements: &[Q32],
) -> Option<Vec<Q32>> {
    let mut counts = vec![0i64; validators.len()];
    for measurement in measurements.iter().flatten() {
        let count = counts.get_mut(measurement.validator)?;
        *count = count.checked_add(1)?;
    }
    let present: Vec<(Q32, u64)> = validators
        .iter()
        .zip(&counts)
        .filter(|(validator, _)| validator.present)
        .map(|(validator, count)| (Q32(*count), validator.stake))
        .collect();
    let typical_count = weighted_median(&present).unwrap_or_default().0;
    let mut parts: Vec<u128> = Vec::with_capacity(validators.len());
    for ((validator, count), agreement) in validators.iter().zip(&counts).zip(agreements) {
        let presence = if typical_count == 0 || *count >= typical_count {
            Q32::ONE
        } else {
            Q32::from_ratio(i128::from(*count), i128::from(typical_count))?
        };
        let factor = u128::try_from(agreement.checked_mul(presence)?.0).ok()?;
        // Who was absent has no measurement and so an agreement of 0. Below 2^64 · 2^32.
        parts.push(u128::from(validator.stake).checked_mul(factor)?);
    }
    proportional_shares(&parts)
}

/// Divides a pot by shares, each amount rounded down. Returns the amounts and the rest of the pot;
/// together they are the pot exactly.
pub fn pay(pot: Planck, shares: &[Q32]) -> Result<(Vec<Planck>, Planck), ConsensusError> {
    let mut whole = Q32::ZERO;
    for share in shares {
        if *share < Q32::ZERO {
            return Err(ConsensusError::Shares);
        }
        whole = whole.checked_add(*share).ok_or(ConsensusError::Shares)?;
    }
    if whole > Q32::ONE {
        return Err(ConsensusError::Shares);
    }
    let mut remainder = pot;
    let mut amounts = Vec::with_capacity(shares.len());
    for share in shares {
        let amount = part_of(pot, *share).ok_or(ConsensusError::Overflow("pay"))?;
        remainder = remainder.checked_sub(amount).ok_or(ConsensusError::Shares)?;
        amounts.push(amount);
    }
    Ok((amounts, remainder))
}

/// pot · share, rounded down, exact for every pot.
pub(crate) fn part_of(pot: Planck, share: Q32) -> Option<Planck> {
    let share = u128::try_from(share.0).ok()?;
    // pot = high · 2^32 + low: high · share needs no rounding.
    let high = (pot >> Q32_BITS).checked_mul(share)?;
    let low = (pot & u128::from(u32::MAX)).checked_mul(share)? >> Q32_BITS;
    high.checked_add(low)
}
