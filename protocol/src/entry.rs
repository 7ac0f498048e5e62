//! Decides what joining costs, who has to make room and who may be removed (section "Who takes part" of
//! docs/PROTOCOL.md).
//!
//! The price is a pair of a number and the block in which it was paid; what it is worth later follows from the pair
//! alone, so that no block has to write it down.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{
    consent::Role, fixed::Q32, settings::Entry, settings::PPM, BlockNumber, Planck, Uid,
    ValidatorIndex, Window,
};

/// A participant's place in a run.
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
pub enum Seat {
    /// A miner's slot.
    Miner(Uid),
    /// A validator's slot.
    Validator(ValidatorIndex),
}

impl Seat {
    /// What its holder works as.
    pub fn role(self) -> Role {
        match self {
            Self::Miner(_) => Role::Miner,
            Self::Validator(_) => Role::Validator,
        }
    }
}

/// The price of joining as the last miner that joined left it.
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
pub struct EntryPrice {
    /// In planck, right after that join.
    pub price: Planck,
    /// The block of that join.
    pub block: BlockNumber,
}

impl EntryPrice {
    /// The row that a miner which joins in `block` and pays `price` leaves behind: `price · price_rise_ppm / 10⁶`,
    /// rounded up, at most `price_max`.
    pub fn after_join(price: Planck, block: BlockNumber, entry: &Entry) -> Self {
        // Settings keep a price below 2^90 and a factor below 2^24.
        let risen =
            price.saturating_mul(u128::from(entry.price_rise_ppm)).div_ceil(u128::from(PPM));
        Self { price: risen.min(entry.price_max), block }
    }
}

/// What joining costs in `block`, in planck: from `last` on the price halves every `price_halving_blocks` blocks, and
/// is never below `price_min` nor above `price_max`; `price_min` before anybody joined.
///
/// Between two halvings it falls by equal steps: with q whole halvings and r blocks more,
/// `⌊p / 2^q⌋ − ⌊(⌊p / 2^q⌋ − ⌊p / 2^(q+1)⌋) · r / h⌋`, at most 6.1 % above the exponential. It never rises with `block`.
pub fn entry_price(last: Option<EntryPrice>, block: BlockNumber, entry: &Entry) -> Planck {
    let Some(EntryPrice { price, block: joined }) = last else {
        return entry.price_min;
    };
    // Settings refuse 0 blocks; a price that never falls would be the safe reading of it.
    let halving_blocks = entry.price_halving_blocks.max(1);
    let elapsed = block.saturating_sub(joined);
    let halvings = elapsed.checked_div(halving_blocks).unwrap_or(0);
    let rest = elapsed.checked_rem(halving_blocks).unwrap_or(0);
    let upper = price.checked_shr(halvings).unwrap_or(0);
    let fall = upper.saturating_sub(upper >> 1);
    // Below 2^90 · 2^32.
    let fallen =
        fall.saturating_mul(u128::from(rest)).checked_div(u128::from(halving_blocks)).unwrap_or(0);
    // Settings that changed since the join bind at once.
    upper.saturating_sub(fallen).min(entry.price_max).max(entry.price_min)
}

/// The row of a miner from which follows whether it keeps its slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its slot.
    pub uid: Uid,
    /// Its standing F, as the last settlement left it.
    pub value: Q32,
    /// The first window in which it takes part.
    pub registered_window: Window,
    /// It has asked to leave: its slot becomes free by itself.
    pub is_leaving: bool,
}

/// Whether a miner that takes part from `registered_window` on is safe from the better ones in `window`.
pub fn is_immune(registered_window: Window, window: Window, entry: &Entry) -> bool {
    window < registered_window.saturating_add(u64::from(entry.immunity_windows))
}

/// The miner that makes room for a newcomer in `window` when no slot is free: of those that are neither immune nor
/// leaving the one with the least standing, among equal ones that of the earliest registration, then of the lowest uid.
/// `None` if all are safe. The order of the rows does not matter.
pub fn victim(
    holders: impl IntoIterator<Item = Holder>,
    window: Window,
    entry: &Entry,
) -> Option<Uid> {
    holders
        .into_iter()
        .filter(|holder| !holder.is_leaving && !is_immune(holder.registered_window, window, entry))
        .min_by_key(|holder| (holder.value, holder.registered_window, holder.uid))
        .map(|holder| holder.uid)
}

/// Whether anybody may remove a miner in `window`: it has not committed to anything in `idle_windows` whole windows.
///
/// Settings make that at least 2, so that such a miner has no row in a window that is not settled.
pub fn is_idle(
    committed_window: Option<Window>,
    registered_window: Window,
    window: Window,
    entry: &Entry,
) -> bool {
    let idle_since = committed_window
        .map_or(registered_window, |committed| committed.saturating_add(1))
        .max(registered_window);
    window >= idle_since.saturating_add(u64::from(entry.idle_windows))
}
