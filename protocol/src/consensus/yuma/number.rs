//! Turns fractions into the numbers of 16 bits that such a chain stores, and uids into places.

use crate::{fixed::Q32, Uid};

/// n / 65535, truncated.
pub(super) fn ratio_u16(part: u16) -> Q32 {
    Q32::from_int(i32::from(part)).div_or_zero(Q32::from_int(i32::from(u16::MAX)))
}

/// floor(65535 · value), from 0 to 65535.
pub fn proportion_u16(value: Q32) -> u16 {
    whole_u16(value.saturating_mul(Q32::from_int(i32::from(u16::MAX))))
}

/// The whole part of a number, from 0 to 65535.
pub(super) fn whole_u16(value: Q32) -> u16 {
    let whole = (value.0 >> crate::fixed::Q32_BITS).clamp(0, i64::from(u16::MAX));
    u16::try_from(whole).unwrap_or(u16::MAX)
}

/// The place of a uid's column.
pub(super) fn place(uid: Uid) -> usize {
    usize::from(uid)
}
