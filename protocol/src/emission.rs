//! Counts a run's money: what the chain's schedule gives it, what sponsors add, what each group may be paid, and where
//! every unit is.
//!
//! ```text
//! schedule ── weight of the run ──> budget ─┐
//!                                            ├─> split by the settings ─> carry of the owner      ─┐
//! sponsors ── per_window of each ──> release ┘                         ─> carry of the miners      ├─> claims ─> paid
//!                                                                      ─> carry of the validators ─┘
//! ```
//!
//! Properties, for every order of calls and every setting (proved by `protocol/tests/it/emission.rs` over 10^6 blocks):
//!
//! - All runs together get at most what the schedule gives, whatever their windows and however weights change.
//! - minted + funded = paid + claimable + carried + unspent + slashed + burned, exactly.
//! - What one group did not earn stays that group's; a window pays of it [`Emission::release_ppm`](crate::settings::Emission) at most.
//! - A claim is due in the window that was fixed when it was earned, or earlier, never later.

mod claims;
mod ledger;
mod pots;
mod schedule;
mod sponsors;

pub use claims::{add_claim, claim_due_window, take_due, Claim, CLAIMS_MAX};
pub use ledger::{Ledger, LedgerError};
pub use pots::{payable, split_emission, Pot, Pots};
pub use schedule::{Accrual, Halving, RunWeight};
pub use sponsors::{fund, refunds, release, FundError, Funded, Refunds, Sponsorship, SPONSORS_MAX};
