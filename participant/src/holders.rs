//! Finds who had a miner's slot in a window: it may have left since.

use node_client::chain::CommitmentName;
use protocol::{AccountBytes, Uid, Window};

use crate::{
    error::{Attempt as _, Result},
    handles::Handles,
};

/// A miner that has, or had, a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    /// Its slot.
    pub(crate) uid: Uid,
    /// Account of its hot key.
    pub(crate) hot: AccountBytes,
    /// First window in which it takes part.
    pub(crate) registered_window: Window,
    /// Last window in which it took part, if it is gone.
    pub(crate) last_window: Option<Window>,
}

impl Holder {
    /// Whether the slot was its own in a window.
    pub(crate) fn had(&self, window: Window) -> bool {
        self.registered_window <= window && self.last_window.is_none_or(|last| window <= last)
    }

    /// How the chain calls its commitment of a window.
    pub(crate) fn commitment(&self, window: Window) -> CommitmentName {
        (window, self.uid, self.registered_window)
    }
}

/// All miners of the run, and those that are gone and whose bonds wait.
///
/// # Errors
/// The chain does not answer.
pub(crate) async fn all(handles: &Handles) -> Result<Vec<Holder>> {
    let run = handles.run.id;
    let miners = handles.chain.miners(run, None).await?;
    let gone = handles.chain.departures(run, None).await?;
    let miners = miners.into_iter().map(|miner| Holder {
        uid: miner.uid,
        hot: miner.hot,
        registered_window: miner.registered_window,
        last_window: None,
    });
    let gone = gone.into_iter().map(|gone| Holder {
        uid: gone.uid,
        hot: gone.hot,
        registered_window: gone.registered_window,
        last_window: Some(gone.last),
    });
    Ok(miners.chain(gone).collect())
}

/// Who had the slot `uid` in `window`.
///
/// # Errors
/// The chain does not answer, or knows it no more.
pub(crate) async fn of(handles: &Handles, window: Window, uid: Uid) -> Result<Holder> {
    let found = all(handles).await?.into_iter();
    let mut found = found.filter(|holder| holder.uid == uid && holder.had(window));
    found.next().context("the miner is gone")
}
