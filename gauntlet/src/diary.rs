//! What a participant has done, one JSON object a line: for `localnet`, reports and people.
//!
//! Nothing reads it back to decide anything; that is the journal's and the checkpoint's part. Lines are appended and not
//! synced, so a crash may lose or tear the last ones; a torn line is skipped.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result};
use protocol::{Uid, Window};
use serde::{Deserialize, Serialize};

/// Name of the diary in a participant's folder.
pub const FILE_NAME: &str = "diary.jsonl";

/// The most bytes read of a diary at a time; what lies beyond is read next time.
const READ_MAX: u64 = 4 << 20;

/// One thing that was done.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
// Externally tagged: with serde_json's `arbitrary_precision`, which the node's crates switch on in a build of the whole
// workspace, an internally tagged enum cannot read a fraction.
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The participant is up.
    Started {
        /// The window whose parameters it holds.
        window: Window,
    },
    /// A miner trained.
    Trained {
        /// In this window.
        window: Window,
        /// Local steps taken.
        steps: usize,
        /// Loss of the first step, nats a token.
        loss_first: f32,
        /// Loss of the last step.
        loss_last: f32,
        /// Tokens trained on.
        tokens: u64,
        /// How long it took.
        seconds: f64,
        /// Bytes of the update.
        update_bytes: u64,
    },
    /// A duty of a window was done.
    Done {
        /// The window.
        window: Window,
        /// Which duty.
        duty: Duty,
        /// From its start to the inclusion of its extrinsic.
        seconds: f64,
    },
    /// A duty of a window was missed.
    Missed {
        /// The window.
        window: Window,
        /// Which duty.
        duty: Duty,
        /// Why.
        reason: String,
    },
    /// The agreed parameters at the start of a window are held.
    State {
        /// The window.
        window: Window,
        /// Their state root.
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
        /// The window.
        window: Window,
        /// Nats a token.
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
    /// Reveal it.
    Reveal,
    /// Fetch what was revealed and attest.
    Attest,
    /// Take the outer step.
    Apply,
    /// Measure and commit to the scores.
    Score,
    /// Reveal the scores.
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

/// An open diary.
#[derive(Debug)]
pub struct Diary {
    // Held for one write, never across an await.
    file: Mutex<File>,
}

impl Diary {
    /// Opens (or creates) the diary in `folder`.
    ///
    /// # Errors
    /// The disk failed.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Writes one line. A failure is logged: the work goes on without a diary.
    pub fn write(&self, line: &Line) {
        let mut text = match serde_json::to_vec(line) {
            Ok(text) => text,
            Err(error) => return tracing::warn!(%error, "diary line"),
        };
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(&text) {
            tracing::warn!(%error, "cannot write the diary");
        }
    }

    /// Notes that a duty was done.
    pub fn done(&self, window: Window, duty: Duty, seconds: f64) {
        metrics::histogram!(crate::telemetry::PART_SECONDS, "part" => duty.name()).record(seconds);
        self.write(&Line::Done { window, duty, seconds });
    }

    /// Notes, and logs, that a duty was missed.
    pub fn missed(&self, window: Window, duty: Duty, reason: impl ToString) {
        let reason = reason.to_string();
        tracing::warn!(window, duty = duty.name(), reason, "missed");
        metrics::counter!(crate::telemetry::MISSED, "duty" => duty.name()).increment(1);
        self.write(&Line::Missed { window, duty, reason });
    }
}

/// Reads a diary while it is being written.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    offset: u64,
}

impl Reader {
    /// Reads the diary in `folder` from its beginning.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join(FILE_NAME), offset: 0 }
    }

    /// The lines since the last call; none while there is no diary. Lines that are not whole are left for the next call.
    ///
    /// # Errors
    /// The disk failed.
    pub fn read(&mut self) -> io::Result<Vec<Line>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = Vec::new();
        file.take(READ_MAX).read_to_end(&mut text)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        self.offset += whole as u64;
        let lines = text[..whole].split(|byte| *byte == b'\n');
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_each_whole_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = Reader::new(folder.path());
        assert!(reader.read().unwrap().is_empty());
        let diary = Diary::open(folder.path()).unwrap();
        diary.write(&Line::Started { window: 3 });
        let mut file = OpenOptions::new().append(true).open(folder.path().join(FILE_NAME)).unwrap();
        file.write_all(b"{\"held_out\":").unwrap();
        assert_eq!(reader.read().unwrap(), [Line::Started { window: 3 }]);
        assert!(reader.read().unwrap().is_empty());
        file.write_all(b"{\"window\":1,\"loss\":2.5}}\n").unwrap();
        assert_eq!(reader.read().unwrap(), [Line::HeldOut { window: 1, loss: 2.5 }]);
    }
}
