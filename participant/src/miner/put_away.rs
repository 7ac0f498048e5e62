//! Writes a window's checkpoint beside what follows: the update is committed to, the next window begins, and only its
//! training waits for the trainer.

use protocol::Window;
use tokio::task::JoinHandle;

use super::workshop::{Kept, Workshop};
use crate::diary::Duty;

/// The checkpoint that is being written, if one is.
#[derive(Default)]
pub(super) struct PutAway(Option<JoinHandle<()>>);

impl PutAway {
    /// Starts to put the trainer away after its work for `window`. What fails is a missed checkpoint, and costs nothing
    /// else.
    pub(super) fn start(&mut self, workshop: &Workshop, window: Window, kept: Option<Kept>) {
        let workshop = workshop.clone();
        self.0 = Some(tokio::spawn(async move {
            if let Err(error) = workshop.put_away(kept).await {
                workshop.handles.machine.diary.missed(window, Duty::Checkpoint, error.line());
            }
        }));
    }

    /// Waits until nothing is being written any more. Cancel-safe.
    pub(super) async fn end(&mut self) {
        if let Some(task) = &mut self.0 {
            // That it panicked is in the log, and the trainer is set anew in each window.
            let _ = task.await;
            self.0 = None;
        }
    }
}

impl Drop for PutAway {
    /// With the miner ends what it started.
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
