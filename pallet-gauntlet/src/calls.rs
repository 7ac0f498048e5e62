//! Sorts the calls for runtimes that treat some of them differently.

use crate::{Call, Config};

impl<T: Config> Call<T> {
    /// Whether the call is of a window's work, or an answer that is due by a block: signed by a hot key, and moving no money
    /// of its signer's will. A runtime that stops other calls for a while lets these pass, so that nobody's training is
    /// lost and nobody is at fault.
    pub fn is_window_work(&self) -> bool {
        matches!(
            self,
            Call::commit_update { .. }
                | Call::reveal_update { .. }
                | Call::attest { .. }
                | Call::commit_scores { .. }
                | Call::reveal_scores { .. }
                | Call::answer_data { .. }
                | Call::commit_verdict { .. }
                | Call::reveal_verdict { .. }
        )
    }
}
