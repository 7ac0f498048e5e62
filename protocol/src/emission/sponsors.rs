//! Releases the money that sponsors put into a run, bounded in every window.

use alloc::vec::Vec;

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use super::pots::{Pot, Pots};
use crate::{consensus::part_of, fixed::Q32, Planck};

/// Most sponsors of a run at a time.
pub const SPONSORS_MAX: u32 = 16;

/// What an account put into a run.
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
    Debug
)]
pub struct Sponsorship<AccountId> {
    /// The account.
    pub sponsor: AccountId,
    /// Planck that a window releases, at most.
    pub per_window: Planck,
    /// Planck that were not released yet.
    pub unspent: Planck,
    /// Planck that windows have had of it.
    pub released: Planck,
}

/// Why an account cannot be a sponsor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FundError {
    /// It offers nothing, or nothing a window.
    #[error("a sponsor must put something in and release something in each window")]
    Nothing,
    /// All places are taken by sponsors with as much unspent money.
    #[error("all places are taken; put in more than the smallest sponsor has left")]
    NoPlace,
    /// The sum does not fit.
    #[error("the sum does not fit")]
    Overflow,
}

/// What [`fund`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Funded<AccountId> {
    /// The sponsor has its place.
    Added,
    /// The sponsor has the place of another, to which this much is to be given back.
    Replaced(AccountId, Planck),
}

/// `sponsor` puts `amount` in, of which a window releases `per_window` at most; the new `per_window` also holds for what it
/// had put in before.
///
/// Where all places are taken, the sponsor that has least left makes room for one that brings more, so that nobody keeps
/// others out with dust.
///
/// # Errors
/// See [`FundError`]; nothing is changed then.
pub fn fund<AccountId: PartialEq + Clone>(
    sponsors: &mut Vec<Sponsorship<AccountId>>,
    sponsor: &AccountId,
    amount: Planck,
    per_window: Planck,
) -> Result<Funded<AccountId>, FundError> {
    if amount == 0 || per_window == 0 {
        return Err(FundError::Nothing);
    }
    if let Some(own) = sponsors.iter_mut().find(|own| own.sponsor == *sponsor) {
        own.unspent = own.unspent.checked_add(amount).ok_or(FundError::Overflow)?;
        own.per_window = per_window;
        return Ok(Funded::Added);
    }
    let new = Sponsorship { sponsor: sponsor.clone(), per_window, unspent: amount, released: 0 };
    if sponsors.len() < SPONSORS_MAX as usize {
        sponsors.push(new);
        return Ok(Funded::Added);
    }
    let least = sponsors.iter_mut().min_by_key(|other| other.unspent);
    let least = least.filter(|other| other.unspent < amount).ok_or(FundError::NoPlace)?;
    let left = core::mem::replace(least, new);
    Ok(Funded::Replaced(left.sponsor, left.unspent))
}

/// Releases a window's part of what sponsors put in. Returns the sum in planck.
pub fn release<'a, AccountId: 'a>(
    sponsors: impl IntoIterator<Item = &'a mut Sponsorship<AccountId>>,
) -> Planck {
    let mut sum: Planck = 0;
    for sponsor in sponsors {
        let part = sponsor.per_window.min(sponsor.unspent);
        // A part that does not fit into a sum is not released.
        let sums = sum.checked_add(part).zip(sponsor.released.checked_add(part));
        if let Some((total, released)) = sums {
            sum = total;
            sponsor.released = released;
            sponsor.unspent = sponsor.unspent.saturating_sub(part);
        }
    }
    sum
}

/// What goes back to one sponsor when a run ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refunds<AccountId> {
    /// The sponsor.
    pub sponsor: AccountId,
    /// Planck that were not released.
    pub unspent: Planck,
    /// Planck of what was released and nobody earned, by group.
    pub carried: Pots,
}

/// Divides what is left of a run that ends: each sponsor gets back what was not released of its money, and of each carry
/// the part that its released money has in all that the run was given (`given`: minted and released, in planck), rounded
/// down. The rest of the carries is the schedule's.
pub fn refunds<AccountId: Clone>(
    sponsors: &[Sponsorship<AccountId>],
    carried: &Pots,
    given: Planck,
) -> Vec<Refunds<AccountId>> {
    let refund = |own: &Sponsorship<AccountId>| {
        let share = share_of(own.released, given);
        let mut parts = Pots::default();
        for pot in Pot::ALL {
            *parts.of_mut(pot) = part_of(carried.of(pot), share).unwrap_or(0);
        }
        Refunds { sponsor: own.sponsor.clone(), unspent: own.unspent, carried: parts }
    };
    sponsors.iter().map(refund).collect()
}

/// part / whole, rounded down; 0 where that is no share.
fn share_of(part: Planck, whole: Planck) -> Q32 {
    // Both lose the same low bits, so that what is multiplied fits; the whole is rounded up, so that the quotient is
    // never above the exact one.
    let shift = u128::BITS.saturating_sub(whole.leading_zeros()).saturating_sub(94);
    let cut = |amount: Planck| amount.checked_shr(shift).unwrap_or(0);
    let (part, whole) = (cut(part), cut(whole).saturating_add((shift > 0).into()));
    let ratio = i128::try_from(part).ok().zip(i128::try_from(whole).ok());
    let share = ratio.and_then(|(part, whole)| Q32::from_ratio(part, whole)).unwrap_or(Q32::ZERO);
    share.min(Q32::ONE)
}
