//! Fixes the numbers that chain and clients must have alike and that no run can set.

use crate::{ValidatorIndex, Window};

/// Windows for which the chain keeps the rows of a window, and participants their payloads and updates: as long as
/// somebody may ask for them.
pub const HISTORY_WINDOWS: Window = 8;

/// Windows from a dispute to its verdict: one to wait for the draw and commit, one to reveal, and it is closed in the third.
pub const DISPUTE_WINDOWS: Window = 3;

/// Validators of a run, at most.
pub const VALIDATORS_MAX: ValidatorIndex = 64;

/// The most addresses that the chain keeps of a participant's announcement.
pub const ANNOUNCED_ADDRESSES_MAX: u32 = 4;
