//! Decides what follows an outer step that failed: another try, or a whole state from peers.
//!
//! A state is some hundred times an accepted set, so the smallest trouble is no reason to fetch one: who does not
//! answer is asked again for as long as the step can still be taken.

use node_client::chain::ChainError;
use protocol::Window;

use crate::error::Error;

/// Tries to have a window's payloads before anything else is done, at least.
const TRIES_MIN: u32 = 16;

/// Windows that pass while they are tried, at least: within the history of chain and peers, and long enough for who
/// is back after an outage to deliver.
const PATIENCE_WINDOWS: Window = 3;

/// Steps of a window that may panic before a state is fetched instead: what does so each time is in what was accepted.
const PANICS_MAX: u32 = 3;

/// Why there was no outer step.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The chain, the disk or the device does not answer now.
    Passing(Error),
    /// Nobody delivers some of the accepted payloads now.
    Undelivered {
        /// What went wrong with one of them.
        error: Error,
        /// Bytes of the payloads that are missing.
        missing: u64,
        /// Bytes of all that were accepted in the window.
        accepted: u64,
    },
    /// The step itself failed on this machine. The own state is on disk, and it is taken from there again.
    Panicked(Error),
    /// This step can never be taken: the own state is not the final one, or the chain knows the window no longer.
    Lost(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match &error {
            Error::Panicked(_) => Self::Panicked(error),
            passing if passing.is_passing() => Self::Passing(error),
            _ => Self::Lost(error),
        }
    }
}

impl From<ChainError> for Trouble {
    fn from(error: ChainError) -> Self {
        Error::from(error).into()
    }
}

impl Trouble {
    /// What went wrong.
    pub(super) fn error(self) -> Error {
        match self {
            Self::Passing(error) | Self::Panicked(error) | Self::Lost(error) => error,
            Self::Undelivered { error, .. } => error,
        }
    }
}

/// Counts the tries of one window's step.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// The window, and the one that the chain was in at the first try.
    tried: Option<(Window, Window)>,
    tries: u32,
    panics: u32,
}

impl Patience {
    /// Whether a whole state of `state_bytes` bytes is to be fetched after the step of `window` failed while the
    /// chain is in window `now`.
    pub(super) fn is_over(
        &mut self,
        trouble: &Trouble,
        window: Window,
        now: Window,
        state_bytes: u64,
    ) -> bool {
        let since = match self.tried {
            Some((tried, since)) if tried == window => since,
            _ => {
                *self = Self { tried: Some((window, now)), ..Self::default() };
                now
            }
        };
        match trouble {
            Trouble::Passing(_) => false,
            Trouble::Lost(_) => true,
            Trouble::Panicked(_) => {
                self.panics = self.panics.saturating_add(1);
                self.panics >= PANICS_MAX
            }
            Trouble::Undelivered { missing, accepted, .. } => {
                self.tries = self.tries.saturating_add(1);
                let further = now.saturating_sub(window).saturating_sub(1);
                let replay = accepted.saturating_mul(further).saturating_add(*missing);
                let waited = now.saturating_sub(since);
                let is_in_vain = self.tries >= TRIES_MIN && waited >= PATIENCE_WINDOWS;
                is_in_vain || replay > state_bytes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: u64 = 1_000;

    fn undelivered(missing: u64) -> Trouble {
        let error = Error::Missed("nobody delivers it".into());
        Trouble::Undelivered { error, missing, accepted: 100 }
    }

    #[test]
    fn what_passes_is_waited_for_and_what_is_lost_is_not() {
        let mut patience = Patience::default();
        let unreachable = || ChainError::Transport("no answer".into());
        for now in 5..100 {
            assert!(!patience.is_over(&unreachable().into(), 4, now, STATE));
        }
        let lost: Trouble = Error::Missed("our state is not the final one".into()).into();
        assert!(patience.is_over(&lost, 4, 5, STATE));
    }

    #[tokio::test]
    async fn a_step_that_panics_is_taken_again_before_a_state_is_fetched() {
        let work: tokio::task::JoinHandle<()> = tokio::spawn(async { panic!("no memory") });
        let panicked = work.await.unwrap_err();
        let trouble: Trouble = Error::from(panicked).into();
        let mut patience = Patience::default();
        assert!(!patience.is_over(&trouble, 4, 5, STATE));
        // What others do not deliver is another matter.
        for _ in 0..PANICS_MAX {
            assert!(!patience.is_over(&undelivered(30), 4, 5, STATE));
        }
        assert!(!patience.is_over(&trouble, 4, 5, STATE));
        assert!(patience.is_over(&trouble, 4, 5, STATE));
        assert!(!patience.is_over(&trouble, 5, 6, STATE));
    }

    #[test]
    fn a_payload_is_tried_often_and_over_windows_before_it_is_given_up() {
        let mut patience = Patience::default();
        // Often, in one window.
        for _ in 0..10 * TRIES_MIN {
            assert!(!patience.is_over(&undelivered(30), 4, 5, STATE));
        }
        assert!(!patience.is_over(&undelivered(30), 4, 7, STATE));
        assert!(patience.is_over(&undelivered(30), 4, 8, STATE));
        // The next window's begins anew.
        assert!(!patience.is_over(&undelivered(30), 5, 8, STATE));
        // Over windows, and seldom.
        assert!(!patience.is_over(&undelivered(30), 5, 12, STATE));
    }

    #[test]
    fn who_would_replay_more_than_the_state_fetches_it_at_once() {
        // What is missing of one window and all of eight more.
        assert!(!Patience::default().is_over(&undelivered(100), 1, 10, STATE));
        assert!(!Patience::default().is_over(&undelivered(100), 1, 11, STATE));
        assert!(Patience::default().is_over(&undelivered(101), 1, 11, STATE));
    }
}
