//! The lines of a diary: what a participant has done in a window.

use protocol::{fault, Planck, Uid, ValidatorIndex, Window};
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
        /// Of them, those that were taken before the parameters of the window had arrived.
        #[serde(default)]
        steps_ahead: usize,
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
    /// Something of a proof of a fault that concerns this participant is on chain.
    Proof {
        /// The window in which it happened; the window of the fault where the chain names one.
        window: Window,
        /// What happened.
        step: ProofStep,
    },
}

/// A step of a proof that concerns this participant.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ProofStep {
    /// This participant proved a miner's fault.
    Proved {
        /// Slot of the miner.
        uid: Uid,
        /// What it did.
        fault: FaultKind,
    },
    /// A fault of this miner was proven.
    Convicted {
        /// What it did.
        fault: FaultKind,
    },
    /// This participant asks a miner for a chunk.
    Challenged {
        /// Slot of the miner.
        uid: Uid,
        /// The chunk's number.
        index: u32,
    },
    /// Somebody asks this miner for a chunk.
    Asked {
        /// The chunk's number.
        index: u32,
    },
    /// This miner showed a chunk that it was asked for, and has the bond.
    Answered {
        /// The chunk's number.
        index: u32,
    },
    /// This participant disputes an evaluation.
    Disputed {
        /// Slot of the validator.
        index: ValidatorIndex,
        /// Slot of the miner.
        uid: Uid,
    },
    /// An evaluation of this validator is disputed.
    Doubted {
        /// Slot of the miner.
        uid: Uid,
    },
    /// This juror said what it measured.
    Voted {
        /// Slot of the validator.
        index: ValidatorIndex,
        /// Slot of the miner.
        uid: Uid,
    },
    /// A bond is lost: the accusation was wrong.
    BondLost {
        /// How much, in planck.
        amount: Planck,
    },
    /// Half of a slash has come to an account of this participant.
    Rewarded {
        /// How much, in planck.
        amount: Planck,
    },
    /// Money of this participant was taken for a fault.
    Slashed {
        /// How much, in planck.
        amount: Planck,
    },
}

impl ProofStep {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proved { .. } => "proved",
            Self::Convicted { .. } => "convicted",
            Self::Challenged { .. } => "challenged",
            Self::Asked { .. } => "asked",
            Self::Answered { .. } => "answered",
            Self::Disputed { .. } => "disputed",
            Self::Doubted { .. } => "doubted",
            Self::Voted { .. } => "voted",
            Self::BondLost { .. } => "bond_lost",
            Self::Rewarded { .. } => "rewarded",
            Self::Slashed { .. } => "slashed",
        }
    }
}

/// A fault of a miner that a proof shows ([`fault::ProvenFault`]).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It committed to what an earlier commitment has.
    Copy,
    /// It committed to a chunk that does not decode.
    Malformed,
    /// It did not show a chunk when it was asked to.
    Withheld,
}

impl FaultKind {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Malformed => "malformed",
            Self::Withheld => "withheld",
        }
    }
}

impl From<fault::ProvenFault> for FaultKind {
    fn from(fault: fault::ProvenFault) -> Self {
        match fault {
            fault::ProvenFault::Copy => Self::Copy,
            fault::ProvenFault::Malformed => Self::Malformed,
            fault::ProvenFault::Withheld => Self::Withheld,
        }
    }
}

/// What a participant has to do in a window.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// Train and make the update.
    Train,
    /// Write a checkpoint: of a miner's trainer, whose update and what opens it are on disk without it, or of θ.
    Checkpoint,
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
    /// Show a chunk that somebody asks for on chain.
    Answer,
    /// Measure a disputed evaluation as a juror, and say what was measured.
    Judge,
}

impl Duty {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Checkpoint => "checkpoint",
            Self::Commit => "commit",
            Self::Reveal => "reveal",
            Self::Attest => "attest",
            Self::Apply => "apply",
            Self::Score => "score",
            Self::RevealScores => "reveal_scores",
            Self::Answer => "answer",
            Self::Judge => "judge",
        }
    }
}
