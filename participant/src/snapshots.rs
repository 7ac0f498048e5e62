//! Says which states are kept on disk for those who join, and until when.
//!
//! A state that only the newest three windows have is gone before a large one is fetched. So every few windows'
//! state, a snapshot, is served as long as the chain knows the windows since: who has fetched it replays those.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use node_client::chain::Chain;
use protocol::{state_root::manifest_id, Hash, RunId, Window};

use crate::{error::Result, payloads::SERVED_WINDOWS};

/// Windows from one snapshot to the next, unless asked otherwise: the newest is less than half as old as what can be
/// replayed, so that the other half is left to fetch it. 72 billion parameters at 500 Mb/s take 75 minutes, four
/// windows of 23 are 92.
pub const SNAPSHOT_EVERY: Window = SERVED_WINDOWS / 2;

/// Snapshots that are on disk at once, at most.
pub const fn snapshots_max(every: Window) -> u64 {
    match SERVED_WINDOWS.checked_div(every) {
        Some(count) => count + 1,
        None => 0,
    }
}

/// Whether the state of `window` is one for those who join.
pub(crate) fn is_snapshot(window: Window, every: Window) -> bool {
    every > 0 && window.is_multiple_of(every)
}

/// The roots that are final on chain, of `windows`, in order.
///
/// # Errors
/// The chain does not answer.
pub(crate) async fn final_roots(
    chain: &dyn Chain,
    run: RunId,
    windows: impl IntoIterator<Item = Window>,
) -> Result<Vec<(Window, Hash)>> {
    let mut found = Vec::new();
    for window in windows {
        let record = chain.window(run, window, None).await?;
        found.extend(record.and_then(|record| record.state_root).map(|root| (window, root)));
    }
    Ok(found)
}

/// The snapshots that a participant keeps beside its newest states.
#[derive(Debug, Default)]
pub struct Snapshots {
    every: Window,
    // Held for a look or a change, never across an await.
    kept: Mutex<BTreeMap<Window, Hash>>,
}

impl Snapshots {
    /// None yet; one `every` so many windows, 0 for none.
    pub fn new(every: Window) -> Self {
        Self { every, kept: Mutex::default() }
    }

    /// Goes on keeping those snapshots that a process before has left among what it served, `kept`; returns their
    /// contents.
    ///
    /// # Errors
    /// The chain does not answer.
    pub(crate) async fn adopt(
        &self,
        chain: &dyn Chain,
        run: RunId,
        now: Window,
        kept: &[Hash],
    ) -> Result<Vec<Hash>> {
        let windows = now.saturating_sub(SERVED_WINDOWS)..=now;
        let windows = windows.filter(|window| is_snapshot(*window, self.every));
        let finals = final_roots(chain, run, windows).await?;
        let is_here = |root: &Hash| kept.contains(root) && kept.contains(&manifest_id(root));
        let ours: Vec<_> = finals.into_iter().filter(|(_, root)| is_here(root)).collect();
        self.kept().extend(ours.iter().copied());
        Ok(ours.iter().flat_map(|(_, root)| [*root, manifest_id(root)]).collect())
    }

    /// Whether the state of `window`, which is no longer among the newest, stays: it is a snapshot.
    pub(crate) fn keep(&self, window: Window, root: Hash) -> bool {
        let is_one = is_snapshot(window, self.every);
        if is_one {
            self.kept().insert(window, root);
        }
        is_one
    }

    /// Lets go of those from which nobody can replay any more in window `now`; returns the roots that no other one has.
    pub(crate) fn expire(&self, now: Window) -> Vec<Hash> {
        let mut kept = self.kept();
        let still = kept.split_off(&now.saturating_sub(SERVED_WINDOWS));
        let gone = std::mem::replace(&mut *kept, still);
        gone.into_values().filter(|root| !kept.values().any(|other| other == root)).collect()
    }

    /// Whether a snapshot has this root.
    pub(crate) fn has(&self, root: &Hash) -> bool {
        self.kept().values().any(|kept| kept == root)
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<Window, Hash>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_stays_as_long_as_somebody_can_replay_from_it() {
        let snapshots = Snapshots::new(4);
        let root = |window: Window| [window as u8; 32];
        let mut kept_max = 0;
        for window in 0..40u64 {
            assert_eq!(snapshots.keep(window, root(window)), window % 4 == 0);
            let gone = snapshots.expire(window);
            let expected = window.checked_sub(SERVED_WINDOWS + 1).filter(|old| old % 4 == 0);
            assert_eq!(gone, expected.map(root).into_iter().collect::<Vec<_>>(), "{window}");
            kept_max = kept_max.max(snapshots.kept().len() as u64);
        }
        assert_eq!(kept_max, snapshots_max(4));
        assert!(snapshots.has(&root(32)) && !snapshots.has(&root(28)));
        assert!(!Snapshots::new(0).keep(0, root(0)));
        assert_eq!(snapshots_max(0), 0);
    }

    #[test]
    fn a_root_that_two_windows_have_is_kept_for_the_later() {
        let snapshots = Snapshots::new(4);
        assert!(snapshots.keep(0, [7; 32]) && snapshots.keep(4, [7; 32]));
        assert_eq!(snapshots.expire(9), [[0; 32]; 0]);
        assert_eq!(snapshots.expire(13), [[7; 32]]);
    }
}
