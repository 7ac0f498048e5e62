//! What a run remembers of miners that came and went.

use std::collections::BTreeMap;

use protocol::{entry::EntryPrice, AccountBytes, Planck, Uid, Window};

use super::super::DepartureInfo;

/// What a run remembers of joins and departures.
#[derive(Clone, Default)]
pub(super) struct Registry {
    pub(super) last_price: Option<EntryPrice>,
    /// The bonds of miners that are gone, by uid and registered window.
    pub(super) departures: BTreeMap<(Uid, Window), Departure>,
    /// Who leaves when a window begins.
    pub(super) leaving: BTreeMap<Window, Vec<Uid>>,
}

/// The bond of a miner that is gone.
#[derive(Clone)]
pub(super) struct Departure {
    pub(super) hot: AccountBytes,
    pub(super) cold: AccountBytes,
    pub(super) bond: Planck,
    pub(super) last: Window,
    pub(super) due: Window,
}

impl Departure {
    pub(super) fn info(&self, (uid, registered_window): (Uid, Window)) -> DepartureInfo {
        let Self { hot, cold, bond, last, due } = *self;
        DepartureInfo { uid, registered_window, hot, cold, bond, last, due }
    }
}
