//! Sorts the calls for runtimes that treat some of them differently.

use crate::{Call, Config};

impl<T: Config> Call<T> {
    /// Whether the call is of a window's work: signed by a hot key, within a phase, and moving no money. A runtime that
    /// stops other calls for a while lets these pass, so that nobody's training is lost.
    pub fn is_window_work(&self) -> bool {
        matches!(
            self,
            Call::commit_update { .. }
                | Call::reveal_update { .. }
                | Call::attest { .. }
                | Call::commit_scores { .. }
                | Call::reveal_scores { .. }
        )
    }
}
