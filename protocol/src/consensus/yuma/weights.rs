//! Turns numbers into rows of weights, and a window's measurements into every validator's row.

use alloc::{vec, vec::Vec};

use super::{
    matrix::{normalise_row, Row},
    number::whole_u16,
};
use crate::{
    consensus::{measure::Measurement, records::ConsensusError, shares::powers_q60},
    fixed::{Q32, Q32_BITS, Q60_BITS},
};

/// A row's largest number from which on it is divided first, 2^15.
const DIVIDE_FIRST: Q32 = Q32::from_int(1 << 15);

/// One half.
const HALF: Q32 = Q32(1 << 31);

/// round(65535 · x / max), halves up; an all-zero row stays as it is.
///
/// 65535 · (x / max), so to say, where the largest is above 2^15, as 65535 · x would not fit.
pub fn max_upscale(row: &[Q32]) -> Vec<u16> {
    let most = Q32::from_int(i32::from(u16::MAX));
    let largest = row.iter().copied().max().unwrap_or_default();
    let upscaled = |value: &Q32| {
        let scaled = if largest == Q32::ZERO {
            value.saturating_mul(most)
        } else if largest > DIVIDE_FIRST {
            value.saturating_mul(most.div_or_zero(largest))
        } else {
            value.saturating_mul(most).div_or_zero(largest)
        };
        whole_u16(scaled.saturating_add(HALF))
    };
    row.iter().map(upscaled).collect()
}

/// [`max_upscale`] of whole numbers.
pub fn max_upscale_u16(row: &[u16]) -> Vec<u16> {
    let row: Vec<Q32> = row.iter().map(|value| Q32::from_int(i32::from(*value))).collect();
    max_upscale(&row)
}

/// The weights of each validator over the miners' places: its gains on random samples, 0 where negative, to the power,
/// upscaled to u16 and normalised. A miner that it did not measure has no entry.
pub(in crate::consensus) fn weight_rows(
    measurements: &[Vec<Measurement>],
    validators: usize,
    power: u8,
) -> Result<Vec<Row<Q32>>, ConsensusError> {
    let mut gains: Vec<Row<Q32>> = vec![Row::new(); validators];
    for (place, row) in (0..=u16::MAX).zip(measurements) {
        for measurement in row {
            if let Some(gains) = gains.get_mut(measurement.validator) {
                gains.push((place, measurement.random.max(Q32::ZERO)));
            }
        }
    }
    gains.into_iter().map(|row| weight_row(&row, power)).collect()
}

fn weight_row(gains: &Row<Q32>, power: u8) -> Result<Row<Q32>, ConsensusError> {
    let values: Vec<Q32> = gains.iter().map(|(_, gain)| *gain).collect();
    let powers = powers_q60(&values, power).ok_or(ConsensusError::Overflow("weight"))?;
    let powers = powers.into_iter().map(|power| {
        // At most 1, so that it fits.
        Q32(i64::try_from(power >> (Q60_BITS - Q32_BITS)).unwrap_or(0))
    });
    let votes = max_upscale(&powers.collect::<Vec<Q32>>());
    let mut row: Row<Q32> = gains
        .iter()
        .zip(votes)
        .map(|((place, _), vote)| (*place, Q32::from_int(i32::from(vote))))
        .collect();
    normalise_row(&mut row);
    Ok(row)
}
