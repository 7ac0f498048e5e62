//! Tells an embedding program what its participant does, as it happens.

use futures::{stream, stream::BoxStream, StreamExt};
use protocol::{Planck, Uid, Window};
use tokio::sync::broadcast;

use crate::diary_record::{DiaryRecord, Duty, ProofStep};

/// Events that wait for a slow reader; it misses the oldest when there are more.
pub(crate) const EVENTS_MAX: usize = 256;

/// Events of one participant until it ends. A reader that is more than 256 events late misses the oldest.
pub type Events = BoxStream<'static, Event>;

/// Something that a participant did, missed or got.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The miner trained, and its update is on disk.
    Trained {
        /// Number of the window, from 0 on.
        window: Window,
        /// Loss of the last local step, nats a token.
        loss: f32,
        /// Bytes of the update.
        update_bytes: u64,
    },
    /// The commitment to the update is in a block.
    Committed {
        /// Number of the window, from 0 on.
        window: Window,
    },
    /// The update is open, and served to peers.
    Revealed {
        /// Number of the window, from 0 on.
        window: Window,
    },
    /// The validator attested what it found valid.
    Attested {
        /// Number of the window, from 0 on.
        window: Window,
    },
    /// The validator committed to its scores.
    Scored {
        /// The window that was scored.
        window: Window,
    },
    /// The validator's scores are open.
    ScoresRevealed {
        /// The window that was scored.
        window: Window,
    },
    /// The agreed parameters at the start of a window are held.
    Advanced {
        /// Number of the window, from 0 on.
        window: Window,
        /// Their state root, hexadecimal with `0x`.
        state_root: String,
        /// Miners whose updates led here; none if the parameters came whole from a peer.
        accepted: Vec<Uid>,
    },
    /// The held-out loss of the agreed parameters was measured.
    HeldOut {
        /// Number of the window, from 0 on.
        window: Window,
        /// Mean loss in nats a token.
        loss: f64,
    },
    /// A duty of a window was missed.
    Missed {
        /// Number of the window, from 0 on.
        window: Window,
        /// What should have been done.
        duty: Duty,
        /// Why it was not.
        reason: String,
    },
    /// Something of a proof of a fault that concerns this participant is on chain.
    Proof {
        /// The window in which it happened, or that of the fault.
        window: Window,
        /// What happened.
        step: ProofStep,
    },
    /// The chain credited pay for a window; `claim` transfers it later.
    Paid {
        /// The window that was settled.
        window: Window,
        /// How much, in planck.
        amount: Planck,
    },
}

impl Event {
    /// The event that a line of the diary stands for, if it is one.
    pub(crate) fn of(line: &DiaryRecord) -> Option<Self> {
        Some(match line {
            DiaryRecord::Started { .. } => return None,
            DiaryRecord::Trained { window, loss_last, update_bytes, .. } => {
                Self::Trained { window: *window, loss: *loss_last, update_bytes: *update_bytes }
            }
            DiaryRecord::Done { window, duty, .. } => {
                let window = *window;
                match duty {
                    // The lines `Trained` and `State` say more.
                    Duty::Train | Duty::Checkpoint | Duty::Apply => return None,
                    Duty::Commit => Self::Committed { window },
                    Duty::Reveal => Self::Revealed { window },
                    Duty::Attest => Self::Attested { window },
                    Duty::Score => Self::Scored { window },
                    Duty::RevealScores => Self::ScoresRevealed { window },
                    // The lines `Proof` say more.
                    Duty::Answer | Duty::Judge => return None,
                }
            }
            DiaryRecord::Missed { window, duty, reason } => {
                Self::Missed { window: *window, duty: *duty, reason: reason.clone() }
            }
            DiaryRecord::State { window, state_root, accepted, .. } => Self::Advanced {
                window: *window,
                state_root: state_root.clone(),
                accepted: accepted.clone(),
            },
            DiaryRecord::Proof { window, step } => Self::Proof { window: *window, step: *step },
            DiaryRecord::HeldOut { window, loss } => Self::HeldOut { window: *window, loss: *loss },
        })
    }
}

/// The stream of what `receiver` hears.
pub(crate) fn stream(receiver: broadcast::Receiver<Event>) -> Events {
    stream::unfold(receiver, |mut receiver| async move {
        loop {
            match receiver.recv().await {
                Ok(event) => return Some((event, receiver)),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "events were read too slowly");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duties_are_events() {
        let done = |duty| Event::of(&DiaryRecord::Done { window: 3, duty, seconds: 1.0 });
        assert_eq!(done(Duty::Commit), Some(Event::Committed { window: 3 }));
        assert_eq!(done(Duty::Train), None);
        let missed = DiaryRecord::Missed { window: 4, duty: Duty::Reveal, reason: "late".into() };
        let expected = Event::Missed { window: 4, duty: Duty::Reveal, reason: "late".into() };
        assert_eq!(Event::of(&missed), Some(expected));
    }
}
