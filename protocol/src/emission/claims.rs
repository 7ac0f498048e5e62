//! Lists what an account may claim, and from which window on.

use alloc::vec::Vec;

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{settings::CLAIM_DELAY_MAX, Planck, Window};

/// Amounts of an account that are kept apart.
pub const CLAIMS_MAX: u32 = 64;

// What waits is due in one of the next CLAIM_DELAY_MAX windows. So half of a full list is due, and joining its two
// oldest entries pays nothing early.
const _: () = assert!(2 * CLAIM_DELAY_MAX <= CLAIMS_MAX);

/// An amount that is owed to an account.
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
pub struct Claim {
    /// The first window in which it can be claimed, fixed when it was earned.
    pub due: Window,
    /// Planck.
    pub amount: Planck,
}

/// The window from which on the pay of `window` can be claimed: `delay` windows after the one in which it is settled.
pub fn claim_due_window(window: Window, delay: u32) -> Window {
    window.saturating_add(1).saturating_add(delay.into())
}

/// Adds what can be claimed from window `due` on to a list, which stays in order of windows and within [`CLAIMS_MAX`].
///
/// Amounts of one window are one. A full list joins its two oldest entries under the **older** window of the two, so that
/// nothing is locked, however often and with whatever delay an account earns.
pub fn add_claim(claims: &mut Vec<Claim>, due: Window, amount: Planck) {
    if amount == 0 {
        return;
    }
    let place = claims.partition_point(|claim| claim.due < due);
    if let Some(claim) = claims.get_mut(place).filter(|claim| claim.due == due) {
        claim.amount = claim.amount.saturating_add(amount);
        return;
    }
    claims.insert(place, Claim { due, amount });
    if claims.len() > CLAIMS_MAX as usize {
        let oldest = claims.remove(0);
        if let Some(next) = claims.first_mut() {
            *next = Claim { due: oldest.due, amount: next.amount.saturating_add(oldest.amount) };
        }
    }
}

/// Takes what is due in window `now` out of a list, and returns the sum in planck.
pub fn take_due(claims: &mut Vec<Claim>, now: Window) -> Planck {
    let mut amount: Planck = 0;
    claims.retain(|claim| {
        let is_due = claim.due <= now;
        if is_due {
            amount = amount.saturating_add(claim.amount);
        }
        !is_due
    });
    amount
}
