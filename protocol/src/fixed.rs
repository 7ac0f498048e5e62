//! Computes in signed fixed point with 32 fractional bits, the number of ratings, standings and
//! shares. Every operation says its rounding and returns `None` where the result does not fit.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

/// A signed number with 32 fractional bits: value = n / 2^32, from -2^31 to just under 2^31.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default
)]
pub struct Q32(pub i64);

/// Fractional bits of [`Q32`].
pub const Q32_BITS: u32 = 32;

/// Fractional bits of the wider numbers inside [`exp_q60`] and the ratings.
pub(crate) const Q60_BITS: u32 = 60;

/// 1.0 with 60 fractional bits.
pub(crate) const Q60_ONE: i128 = 1 << Q60_BITS;

/// ln 2 with 60 fractional bits, floor(ln 2 · 2^60).
const LN_2_Q60: i128 = 799_144_290_325_165_978;

/// Terms of the Taylor series of e^r for |r| ≤ ln 2 / 2: the first one left out is below 2^-62.
const EXP_TERMS: i128 = 14;

impl Q32 {
    /// 0.
    pub const ZERO: Q32 = Q32(0);
    /// 1.
    pub const ONE: Q32 = Q32(1 << Q32_BITS);
    /// The largest value, just under 2^31.
    pub const MAX: Q32 = Q32(i64::MAX);
    /// The smallest value, -2^31.
    pub const MIN: Q32 = Q32(i64::MIN);

    /// A whole number, exactly.
    pub const fn from_int(value: i32) -> Q32 {
        // |value| ≤ 2^31, so that the shift cannot lose a bit.
        Q32((value as i64) << Q32_BITS)
    }

    /// num / den, truncated toward zero. `None` if `den` is 0 or the result does not fit.
    pub fn from_ratio(num: i128, den: i128) -> Option<Q32> {
        let scaled = num.checked_mul(1 << Q32_BITS)?;
        Q32::from_wide(scaled.checked_div(den)?)
    }

    /// Parts per million, truncated: 1_000_000 is [`Q32::ONE`].
    pub fn from_ppm(ppm: u32) -> Q32 {
        // A u32 of millionths is below 4295, so that the value always fits.
        Q32::from_ratio(i128::from(ppm), 1_000_000).unwrap_or(Q32::MAX)
    }

    fn from_wide(value: i128) -> Option<Q32> {
        i64::try_from(value).ok().map(Q32)
    }

    /// self + other, exactly.
    pub fn checked_add(self, other: Q32) -> Option<Q32> {
        self.0.checked_add(other.0).map(Q32)
    }

    /// self − other, exactly.
    pub fn checked_sub(self, other: Q32) -> Option<Q32> {
        self.0.checked_sub(other.0).map(Q32)
    }

    /// −self, exactly.
    pub fn checked_neg(self) -> Option<Q32> {
        self.0.checked_neg().map(Q32)
    }

    /// self · other, rounded down (toward −∞).
    pub fn checked_mul(self, other: Q32) -> Option<Q32> {
        let product = i128::from(self.0).checked_mul(i128::from(other.0))?;
        Q32::from_wide(product >> Q32_BITS)
    }

    /// self / other, truncated toward zero. `None` if `other` is 0.
    pub fn checked_div(self, other: Q32) -> Option<Q32> {
        Q32::from_ratio(i128::from(self.0), i128::from(other.0))
    }

    /// |self|. `None` for [`Q32::MIN`].
    pub fn checked_abs(self) -> Option<Q32> {
        self.0.checked_abs().map(Q32)
    }

    /// The square root, rounded down to the last bit. `None` for a negative number.
    pub fn sqrt(self) -> Option<Q32> {
        let wide = u128::try_from(self.0).ok()? << Q32_BITS;
        i64::try_from(wide.isqrt()).ok().map(Q32)
    }

    /// e^self, rounded down; off by less than one unit of the last bit plus 2^-56 of the value.
    /// `None` from 31·ln 2 ≈ 21.48 on, where the result no longer fits; 0 below −32·ln 2.
    pub fn exp(self) -> Option<Q32> {
        let wide = exp_q60(i128::from(self.0) << (Q60_BITS - Q32_BITS))?;
        Q32::from_wide(wide >> (Q60_BITS - Q32_BITS))
    }

    /// self + other, at [`Q32::MAX`] or [`Q32::MIN`] where that does not fit.
    pub fn saturating_add(self, other: Q32) -> Q32 {
        Q32(self.0.saturating_add(other.0))
    }

    /// self − other, at [`Q32::MAX`] or [`Q32::MIN`] where that does not fit.
    pub fn saturating_sub(self, other: Q32) -> Q32 {
        Q32(self.0.saturating_sub(other.0))
    }

    /// self · other, rounded down, at [`Q32::MAX`] or [`Q32::MIN`] where that does not fit.
    pub fn saturating_mul(self, other: Q32) -> Q32 {
        // Two factors below 2^63 each always fit.
        let product = i128::from(self.0).saturating_mul(i128::from(other.0)) >> Q32_BITS;
        Q32::clamped(product)
    }

    /// self / other, truncated toward zero, 0 where `other` is, at [`Q32::MAX`] or [`Q32::MIN`] where that does not fit.
    pub fn div_or_zero(self, other: Q32) -> Q32 {
        let quotient = (i128::from(self.0) << Q32_BITS).checked_div(i128::from(other.0));
        Q32::clamped(quotient.unwrap_or(0))
    }

    fn clamped(value: i128) -> Q32 {
        Q32::from_wide(value).unwrap_or(if value < 0 { Q32::MIN } else { Q32::MAX })
    }

    /// The nearest `f64`, for display and for tests; no rule uses it.
    #[cfg(feature = "std")]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / (1u64 << Q32_BITS) as f64
    }
}

/// e^x with 60 fractional bits on both sides, relative error below 2^-56 or one unit of the last
/// bit, whichever is larger. `None` where e^x reaches 2^64 or so.
///
/// x = k·ln 2 + r with |r| ≤ ln 2 / 2, e^x = 2^k · e^r, e^r by its Taylor series.
pub(crate) fn exp_q60(x: i128) -> Option<i128> {
    // k = floor(x / ln 2 + 1/2).
    let k = x.checked_add(LN_2_Q60 >> 1)?.checked_div_euclid(LN_2_Q60)?;
    let r = x.checked_sub(k.checked_mul(LN_2_Q60)?)?;
    let mut term = Q60_ONE;
    let mut sum = Q60_ONE;
    for n in 1..=EXP_TERMS {
        term = (term.checked_mul(r)? >> Q60_BITS).checked_div(n)?;
        sum = sum.checked_add(term)?;
    }
    if k >= 64 {
        return None;
    }
    match u32::try_from(k) {
        // sum < 2^61 and k < 64: no bit is lost.
        Ok(left) => sum.checked_shl(left),
        Err(_) => {
            let right = u32::try_from(k.checked_neg()?).unwrap_or(u32::MAX);
            Some(sum.checked_shr(right).unwrap_or(0))
        }
    }
}
