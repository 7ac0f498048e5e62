//! Keeps the money behind a validator in common pools: nominators hold shares, so that pay and slashes of any number of
//! them are one addition or subtraction.
//!
//! Every rounding is against whoever moves money, never against those who stay: who joins gets no more shares than it paid
//! for, who leaves takes no more than its shares are worth. No planck is lost: what a pool holds is what was put in, less
//! what was taken out and slashed, to the unit; the last one to leave takes all of it.

use alloc::vec::Vec;

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{
    settings::{Staking, PPM},
    Planck, Window,
};

/// A share of what a joiner loses to rounding must not exceed this part of its money, or it is refused: one millionth.
const ROUNDING_PARTS: Planck = 1_000_000;

/// ⌊a · b / c⌋ for any numbers, or `None` if it does not fit or `c` is 0.
///
/// Long multiplication bit by bit, carrying quotient and remainder: no product wider than the result is ever formed.
pub fn mul_div(a: u128, b: u128, c: u128) -> Option<u128> {
    let (whole, part) = (b.checked_div(c)?, b.checked_rem(c)?);
    let (mut quotient, mut remainder) = (0u128, 0u128);
    for bit in (0..u128::BITS.saturating_sub(a.leading_zeros())).rev() {
        quotient = quotient.checked_mul(2)?;
        (quotient, remainder) = add_remainder(quotient, remainder, remainder, c)?;
        if a >> bit & 1 == 1 {
            quotient = quotient.checked_add(whole)?;
            (quotient, remainder) = add_remainder(quotient, remainder, part, c)?;
        }
    }
    Some(quotient)
}

/// Adds two remainders below `c`: what reaches `c` carries one into the quotient.
fn add_remainder(quotient: u128, a: u128, b: u128, c: u128) -> Option<(u128, u128)> {
    let room = c.checked_sub(a)?;
    match b.checked_sub(room) {
        Some(rest) => Some((quotient.checked_add(1)?, rest)),
        None => Some((quotient, a.checked_add(b)?)),
    }
}

/// An amount of money that belongs to shares.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug,
    Default
)]
pub struct Pool {
    /// All shares.
    pub shares: u128,
    /// What they are worth together, in planck.
    pub amount: Planck,
}

impl Pool {
    /// What `shares` are worth: ⌊shares · amount / all shares⌋.
    pub fn value_of(&self, shares: u128) -> Option<Planck> {
        if shares == 0 {
            return Some(0);
        }
        mul_div(shares, self.amount, self.shares)
    }

    /// The shares that `amount` buys: ⌊amount · all shares / pool's amount⌋, or one a planck in a pool without shares.
    ///
    /// `None` if they are none, if they do not fit, if a slash took all that the pool had, or if rounding would cost the
    /// joiner more than a millionth of its money (somebody has made a share very dear).
    pub fn shares_for(&self, amount: Planck) -> Option<u128> {
        if self.shares == 0 {
            return Some(amount).filter(|_| amount > 0 && self.amount == 0);
        }
        let shares = mul_div(amount, self.shares, self.amount).filter(|shares| *shares > 0)?;
        let after = Pool {
            shares: self.shares.checked_add(shares)?,
            amount: self.amount.checked_add(amount)?,
        };
        let lost = amount.checked_sub(after.value_of(shares)?)?;
        (lost <= amount.checked_div(ROUNDING_PARTS)?.max(1)).then_some(shares)
    }

    /// Puts `amount` in; returns the shares of who did. `None` as [`Pool::shares_for`].
    pub fn join(&mut self, amount: Planck) -> Option<u128> {
        let shares = self.shares_for(amount)?;
        let joined = Pool {
            shares: self.shares.checked_add(shares)?,
            amount: self.amount.checked_add(amount)?,
        };
        *self = joined;
        Some(shares)
    }

    /// Takes `shares` out; returns what they are worth. `None` if there are not so many.
    pub fn leave(&mut self, shares: u128) -> Option<Planck> {
        let value = self.value_of(shares)?;
        let left = Pool {
            shares: self.shares.checked_sub(shares)?,
            amount: self.amount.checked_sub(value)?,
        };
        *self = left;
        Some(value)
    }

    /// Pays `amount` to all shares in proportion. `None` if there is none, or the sum does not fit.
    pub fn pay(&mut self, amount: Planck) -> Option<()> {
        if self.shares == 0 {
            return None;
        }
        self.amount = self.amount.checked_add(amount)?;
        Some(())
    }

    /// Takes up to `amount` from all shares in proportion; returns what was there to take.
    pub fn slash(&mut self, amount: Planck) -> Planck {
        let taken = amount.min(self.amount);
        self.amount = self.amount.saturating_sub(taken);
        taken
    }
}

/// Divides a slash among the parts that were at stake, in proportion to them: ⌊amount · part / sum⌋ each, and the units that
/// rounding leaves from the first parts that still have them. The answers sum to `min(amount, sum)` exactly.
pub fn divide_slash(amount: Planck, parts: &[Planck]) -> Option<Vec<Planck>> {
    let sum = parts.iter().try_fold(0u128, |sum, part| sum.checked_add(*part))?;
    let amount = amount.min(sum);
    if amount == 0 {
        return Some(parts.iter().map(|_| 0).collect());
    }
    let mut taken =
        parts.iter().map(|part| mul_div(amount, *part, sum)).collect::<Option<Vec<Planck>>>()?;
    let rounded = taken.iter().try_fold(0u128, |sum, part| sum.checked_add(*part))?;
    let mut rest = amount.checked_sub(rounded)?;
    for (taken, part) in taken.iter_mut().zip(parts) {
        let more = rest.min(part.checked_sub(*taken)?);
        *taken = taken.checked_add(more)?;
        rest = rest.checked_sub(more)?;
    }
    Some(taken)
}

/// A validator's pay, divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PaySplit {
    /// The validator's part: that of its own stake, and its take of the nominators'.
    pub validator: Planck,
    /// The nominators' part.
    pub nominators: Planck,
}

/// Divides a validator's pay: nominators get ⌊⌊amount · delegated / (own + delegated)⌋ · (1 − take)⌋, the validator the rest.
pub fn split_pay(
    amount: Planck,
    own: Planck,
    delegated: Planck,
    take_ppm: u32,
) -> Option<PaySplit> {
    let nominators = if delegated == 0 {
        0
    } else {
        let earned = mul_div(amount, delegated, own.checked_add(delegated)?)?;
        let kept_ppm = PPM.saturating_sub(take_ppm);
        mul_div(earned, u128::from(kept_ppm), u128::from(PPM))?
    };
    Some(PaySplit { validator: amount.checked_sub(nominators)?, nominators })
}

/// The part of its nominators' pay that a validator takes.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug,
    Default
)]
pub struct Take {
    /// In force now, in parts per million.
    pub ppm: u32,
    /// The window from which on another take is in force, and that take.
    pub next: Option<(Window, u32)>,
}

/// Why a take cannot be raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TakeError {
    /// It would exceed `take_max_ppm`.
    #[error("the take would exceed the run's largest")]
    TooHigh,
    /// It would rise by more than `take_step_ppm`.
    #[error("the take would rise by more than one step")]
    TooFast,
    /// Another rise waits.
    #[error("another rise of the take waits")]
    Waiting,
}

impl Take {
    /// The take in force in `window`, in parts per million.
    pub fn at(&self, window: Window) -> u32 {
        self.next.filter(|(from, _)| *from <= window).map_or(self.ppm, |(_, ppm)| ppm)
    }

    /// The take after a change in `window`: down at once; up by `take_step_ppm` at most, `take_delay_windows` later, one
    /// rise after the other.
    pub fn changed(
        &self,
        to_ppm: u32,
        window: Window,
        staking: &Staking,
    ) -> Result<Self, TakeError> {
        let ppm = self.at(window);
        if to_ppm <= ppm {
            return Ok(Take { ppm: to_ppm, next: None });
        }
        if to_ppm > staking.take_max_ppm {
            return Err(TakeError::TooHigh);
        }
        if to_ppm.saturating_sub(ppm) > staking.take_step_ppm {
            return Err(TakeError::TooFast);
        }
        if self.next.is_some_and(|(from, _)| from > window) {
            return Err(TakeError::Waiting);
        }
        let from = window.saturating_add(u64::from(staking.take_delay_windows));
        Ok(Take { ppm, next: Some((from, to_ppm)) })
    }
}
