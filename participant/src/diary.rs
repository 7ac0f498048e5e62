//! Notes what a participant does, one JSON object a line: for `localnet`, reports and people.
//!
//! Nothing reads it back to decide anything; that is the journal's and the checkpoint's part. Lines are appended and not
//! synced, so a crash may lose or tear the last ones; a torn line is skipped.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use protocol::Window;
use tokio::sync::broadcast;

use crate::{
    error::{Attempt as _, Result},
    events::{self, Event, Events, EVENTS_MAX},
};

pub use crate::diary_record::{DiaryRecord, Duty, FaultKind, ProofStep};

/// Name of the diary in a participant's folder.
pub const FILE_NAME: &str = "diary.jsonl";

/// The most bytes read of a diary at a time; what lies beyond is read next time.
const READ_MAX: u64 = 4 << 20;

/// Appends to a diary, and tells the readers of events.
#[derive(Debug)]
pub struct Diary {
    // Held for one write, never across an await.
    file: Mutex<File>,
    events: broadcast::Sender<Event>,
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
        Ok(Self { file: Mutex::new(file), events: broadcast::channel(EVENTS_MAX).0 })
    }

    /// What is done from now on.
    pub(crate) fn events(&self) -> Events {
        events::stream(self.events.subscribe())
    }

    /// Whether anybody reads the events.
    pub(crate) fn has_readers(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// Tells the readers of the events, and nobody else.
    pub(crate) fn tell(&self, event: Event) {
        // Without a reader there is nobody to tell.
        let _ = self.events.send(event);
    }

    /// Writes one line. A failure is logged: the work goes on without a diary.
    pub fn write(&self, line: &DiaryRecord) {
        if let Some(event) = Event::of(line) {
            self.tell(event);
        }
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
        self.write(&DiaryRecord::Done { window, duty, seconds });
    }

    /// Notes, and logs, a step of a proof.
    pub fn proof(&self, window: Window, step: ProofStep) {
        tracing::info!(window, ?step, "proof of a fault");
        metrics::counter!(crate::telemetry::PROOFS, "step" => step.name()).increment(1);
        self.write(&DiaryRecord::Proof { window, step });
    }

    /// Notes, and logs, that a duty was missed.
    pub fn missed(&self, window: Window, duty: Duty, reason: impl ToString) {
        let reason = reason.to_string();
        tracing::warn!(window, duty = duty.name(), reason, "missed");
        metrics::counter!(crate::telemetry::MISSED, "duty" => duty.name()).increment(1);
        self.write(&DiaryRecord::Missed { window, duty, reason });
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
    pub fn read(&mut self) -> io::Result<Vec<DiaryRecord>> {
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
        diary.write(&DiaryRecord::Started { window: 3 });
        let mut file = OpenOptions::new().append(true).open(folder.path().join(FILE_NAME)).unwrap();
        file.write_all(b"{\"held_out\":").unwrap();
        assert_eq!(reader.read().unwrap(), [DiaryRecord::Started { window: 3 }]);
        assert!(reader.read().unwrap().is_empty());
        file.write_all(b"{\"window\":1,\"loss\":2.5}}\n").unwrap();
        assert_eq!(reader.read().unwrap(), [DiaryRecord::HeldOut { window: 1, loss: 2.5 }]);
    }
}
