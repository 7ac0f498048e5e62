//! Divides the pots of a window: the miners' and validators' shares of them, and the amounts.

use alloc::{vec, vec::Vec};

use super::records::ConsensusError;
use crate::{
    fixed::{Q32, Q32_BITS, Q60_BITS, Q60_ONE},
    Planck, Uid,
};

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
pub(super) fn proportional_shares(parts: &[u128]) -> Option<Vec<Q32>> {
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
