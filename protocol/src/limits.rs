//! Fixes the numbers that chain and clients must have alike and that no run can set.

use crate::Window;

/// Windows for which the chain keeps the rows of a window, and participants their payloads and updates: as long as
/// somebody may ask for them.
pub const HISTORY_WINDOWS: Window = 8;

/// The most addresses that the chain keeps of a participant's announcement.
pub const ANNOUNCED_ADDRESSES_MAX: u32 = 4;
