//! Declares the source of a window's emission, a trait of which a runtime chooses an implementation.

use protocol::{Planck, RunId, Window};

/// Gives a run the emission of a window.
pub trait EmissionSource<AccountId> {
    /// Puts up to `amount` into `account` and returns how much arrived. Must not fail: a source that
    /// is empty returns less, and the window pays less.
    fn issue(run: RunId, window: Window, account: &AccountId, amount: Planck) -> Planck;
}

/// No emission: runs that only compare.
impl<AccountId> EmissionSource<AccountId> for () {
    fn issue(_run: RunId, _window: Window, _account: &AccountId, _amount: Planck) -> Planck {
        0
    }
}
