//! The lines of a diary: what a participant has done in a window.

use protocol::{Uid, Window};
use serde::{Deserialize, Serialize};

/// Records one thing that was done or missed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
// Externally tagged: with serde_json's `arbitrary_precision`, which the node's crates switch on in a build of the whole
// workspace, an internally tagged enum cannot read a fraction.
#[serde(rename_all = "snake_case")]
pub enum DiaryRecord {
    /// The participant is up.
    Started {
        /// The window whose parameters it holds.
        window: Window,
    },
    /// A miner took its local steps and made an update.
    Trained {
        /// Number of the window, from 0 on.
        window: Window,
        /// Local steps that were taken, at most H.
        steps: usize,
        /// Loss of the first step, nats a token.
        loss_first: f32,
        /// Loss of the last step.
        loss_last: f32,
        /// Tokens of all local steps together.
        tokens: u64,
        /// How long it took.
        seconds: f64,
        /// Bytes of the update.
        update_bytes: u64,
    },
    /// A duty of a window was done.
    Done {
        /// Number of the window, from 0 on.
        window: Window,
        /// The duty, as a part of the window.
        duty: Duty,
        /// From its start to the inclusion of its extrinsic.
        seconds: f64,
    },
    /// A duty of a window was missed.
    Missed {
        /// Number of the window, from 0 on.
        window: Window,
        /// The duty, as a part of the window.
        duty: Duty,
        /// The reason, in one line for people.
        reason: String,
    },
    /// The agreed parameters at the start of a window are held.
    State {
        /// Number of the window, from 0 on.
        window: Window,
        /// Their state root, hexadecimal with `0x`.
        state_root: String,
        /// Whose updates led here.
        accepted: Vec<Uid>,
        /// How long fetching and the outer step took.
        seconds: f64,
        /// Whether they came whole from a peer.
        synced: bool,
    },
    /// The held-out loss of the agreed parameters at the start of a window.
    HeldOut {
        /// Number of the window, from 0 on.
        window: Window,
        /// Mean loss in nats a token.
        loss: f64,
    },
}

/// What a participant has to do in a window.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// Train and make the update.
    Train,
    /// Commit to the update.
    Commit,
    /// Open the commitment to the update.
    Reveal,
    /// Fetch what was revealed and attest.
    Attest,
    /// Take the outer step.
    Apply,
    /// Measure and commit to the scores.
    Score,
    /// Open the commitment to the scores.
    RevealScores,
}

impl Duty {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Commit => "commit",
            Self::Reveal => "reveal",
            Self::Attest => "attest",
            Self::Apply => "apply",
            Self::Score => "score",
            Self::RevealScores => "reveal_scores",
        }
    }
}
