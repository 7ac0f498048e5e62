//! Judges validators that commit to scores and do not reveal them.
//!
//! Whoever withholds a reveal has chosen one of two seeds for the next window, and one of two settlements of this one,
//! after it saw what the others revealed. The commitment without a reveal is on chain, so that nobody's word is needed:
//! it is a strike, and a validator with a strike in one of the last [`STRIKE_WINDOWS`] windows is paid for none of them.
//! What that costs against what one choice is worth is counted in docs/decisions/0020.

use core::ops::RangeInclusive;

use crate::{
    consensus::ValidatorOutcome, fixed::Q32, limits::HISTORY_WINDOWS, ValidatorIndex, Window,
};

/// Windows for which a validator that withheld its scores is not paid, the one in which it withheld them included.
pub const STRIKE_WINDOWS: Window = 4;

// The rows that prove a strike must still be on chain.
const _: () = assert!(STRIKE_WINDOWS < HISTORY_WINDOWS);

/// The windows of which a withheld reveal counts at the settlement of `window`, for a validator that takes part since
/// `registered_window`: earlier rows of its slot belong to somebody who has left.
pub fn judged_windows(window: Window, registered_window: Window) -> RangeInclusive<Window> {
    let first = window.saturating_sub(STRIKE_WINDOWS.saturating_sub(1));
    first.max(registered_window)..=window
}

/// Whether a validator that committed to scores of a window owes the reveal: nobody does of a window that is `excused`, in
/// which the chain stood still, the run was paused or most of the stake was silent.
pub fn is_withheld(committed: bool, revealed: bool, excused: bool) -> bool {
    committed && !revealed && !excused
}

/// Whether a validator has a strike at the settlement of `window`. `withheld` says of a window whether the validator's
/// rows of it are a strike, [`is_withheld`].
pub fn is_struck(
    window: Window,
    registered_window: Window,
    withheld: impl FnMut(Window) -> bool,
) -> bool {
    judged_windows(window, registered_window).any(withheld)
}

/// Takes the pay of the `struck` (sorted) out of a settlement. Their shares go to nobody: what they leave is carried, so
/// that no validator earns by another's strike.
pub fn refuse_pay(validators: &mut [ValidatorOutcome], struck: &[ValidatorIndex]) {
    for validator in validators {
        if struck.binary_search(&validator.index).is_ok() {
            validator.share = Q32::ZERO;
        }
    }
}
