//! Records each commitment on disk before it is signed, so that a participant never commits to two things in one window.
//!
//! Before a commitment is signed it is recorded here. A second record of the same kind, run and window is accepted only
//! if it is the same; a different one is refused, whatever the reason for it (a restart with other data, a second
//! process, a bug), because the chain would take it for a fault. A record may carry a secret (the salt and whatever
//! else opens the commitment), so that a process that is restarted between commit and reveal can still reveal.
//!
//! The file is append-only text, a JSON object per line, synced before [`Journal::record`] returns. Each line carries a
//! checksum. A last line that a crash has torn was never acknowledged and is cut off; any other damage is an error,
//! because guessing could mean signing twice. A write that failed, because the disk was full for a while, is cut off and the
//! next one goes on. [`Journal::prune`] forgets windows that are over; a pruned window can
//! never be recorded again.
//!
//! Calls block on the disk; async callers use `tokio::task::spawn_blocking`. One process at a time holds a journal.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::{Hash, RunId, Window};
use serde::{Deserialize, Serialize};

/// The most bytes of secret one record carries: a score reveal of 256 evaluations is under 8 KiB.
pub const SECRET_LEN_MAX: usize = 64 * 1024;

/// What a record is about; a participant makes at most one of each per window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalKind {
    /// A miner's commitment to its update.
    UpdateCommitment,
    /// A validator's commitment to its evaluations.
    ScoreCommitment,
    /// A validator's attestation (the hash of its bitmap and state root).
    Attestation,
    /// All that a validator says as a juror of the disputes of which the jury commits in the window.
    Verdicts,
}

/// What [`Journal::record`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// There was no record; now there is.
    New,
    /// The same hash had been recorded before; its first secret is kept.
    Same,
}

/// One record, as [`Journal::lookup`] returns it.
#[derive(Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// What was committed to.
    pub hash: Hash,
    /// What opens it; empty if none was given.
    pub secret: Vec<u8>,
}

// The secret stays out of logs.
impl std::fmt::Debug for JournalEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalEntry")
            .field("hash", &hex::encode(self.hash))
            .field("secret_len", &self.secret.len())
            .finish()
    }
}

/// What went wrong with a [`Journal`].
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Something else has been recorded for this window: do not sign.
    #[error(
        "{kind:?} of run {run}, window {window} is recorded as {}, not {}",
        hex::encode(recorded),
        hex::encode(refused)
    )]
    Conflict {
        /// Kind of the record.
        kind: JournalKind,
        /// The run of that record.
        run: RunId,
        /// The window of that record.
        window: Window,
        /// What stands in the journal.
        recorded: Hash,
        /// What was to be recorded now.
        refused: Hash,
    },
    /// The window is older than what the journal still remembers: do not sign.
    #[error(
        "window {window} of run {run} is before window {first}, the first the journal remembers"
    )]
    Pruned {
        /// The run.
        run: RunId,
        /// The window asked for.
        window: Window,
        /// The first window that may still be recorded.
        first: Window,
    },
    /// The secret is longer than [`SECRET_LEN_MAX`].
    #[error("a secret of {len} bytes is longer than {SECRET_LEN_MAX}")]
    SecretTooLong {
        /// Bytes of the secret.
        len: usize,
    },
    /// Another process holds the journal: two processes with the same keys must not run.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The journal's file.
        path: PathBuf,
    },
    /// A line in the middle is damaged: a person must look before anything is signed.
    #[error("{} is damaged in line {line}", path.display())]
    Damaged {
        /// The journal's file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The disk failed: what was to be recorded may not be signed.
    #[error("journal: {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder it was being done to.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { action, path, source }
}

/// An open journal; share it in an `Arc`.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    // Never held across an await.
    inner: Mutex<Inner>,
    // Locked for as long as the journal lives; a file of its own, because pruning replaces the journal's.
    _lock: File,
}

type Key = (RunId, Window, JournalKind);

#[derive(Debug)]
struct Inner {
    file: File,
    records: Records,
    // Of the lines that were acknowledged.
    len: u64,
    // Set when a write failed half-way: what is behind `len` is unknown until it is cut off.
    broken: bool,
}

#[derive(Debug, Default)]
struct Records {
    entries: BTreeMap<Key, JournalEntry>,
    /// First window of a run that may be recorded, if any have been pruned.
    first: BTreeMap<RunId, Window>,
}

/// What a line says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum JournalRecord {
    Record {
        kind: JournalKind,
        run: RunId,
        window: Window,
        hash: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        secret: String,
    },
    Pruned {
        run: RunId,
        first: Window,
    },
}

impl Journal {
    /// Opens (or creates, readable by its owner only) the journal at `path`, reading all of it.
    ///
    /// # Errors
    /// [`JournalError::InUse`], [`JournalError::Damaged`], [`JournalError::Io`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let path = path.into();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        }
        let lock = lock(&path)?;
        let mut file = open(&path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io_error("read", &path))?;
        let (records, good_len) = parse(&text, &path)?;
        if good_len < text.len() {
            tracing::warn!(path = %path.display(), cut = text.len() - good_len, "cut off a torn last line");
            file.set_len(good_len as u64)
                .and_then(|()| file.sync_all())
                .map_err(io_error("truncate", &path))?;
        }
        file.seek(SeekFrom::End(0)).map_err(io_error("seek in", &path))?;
        sync_folder(&path)?;
        let inner = Inner { file, records, len: good_len as u64, broken: false };
        Ok(Self { path, inner: Mutex::new(inner), _lock: lock })
    }

    /// Records that this participant commits to `hash`. On return the record survives a crash; sign only then.
    ///
    /// # Errors
    /// [`JournalError::Conflict`] and [`JournalError::Pruned`]: do not sign. [`JournalError::Io`]: do not sign, stop.
    pub fn record(
        &self,
        kind: JournalKind,
        run: RunId,
        window: Window,
        hash: Hash,
    ) -> Result<Recorded, JournalError> {
        self.record_with(kind, run, window, hash, &[])
    }

    /// Like [`Journal::record`], and keeps what opens the commitment, at most [`SECRET_LEN_MAX`] bytes, in clear text
    /// in a file that only its owner can read. The secret of the first record of a window is the one that stays.
    ///
    /// # Errors
    /// As [`Journal::record`], and [`JournalError::SecretTooLong`].
    pub fn record_with(
        &self,
        kind: JournalKind,
        run: RunId,
        window: Window,
        hash: Hash,
        secret: &[u8],
    ) -> Result<Recorded, JournalError> {
        if secret.len() > SECRET_LEN_MAX {
            return Err(JournalError::SecretTooLong { len: secret.len() });
        }
        let mut inner = self.inner();
        if let Some(entry) = inner.records.entries.get(&(run, window, kind)) {
            if entry.hash == hash {
                return Ok(Recorded::Same);
            }
            return Err(JournalError::Conflict {
                kind,
                run,
                window,
                recorded: entry.hash,
                refused: hash,
            });
        }
        let first = inner.records.first.get(&run).copied().unwrap_or(0);
        if window < first {
            return Err(JournalError::Pruned { run, window, first });
        }
        let line = JournalRecord::Record {
            kind,
            run,
            window,
            hash: hex::encode(hash),
            secret: hex::encode(secret),
        };
        inner.append(&self.path, &line)?;
        let entry = JournalEntry { hash, secret: secret.to_vec() };
        inner.records.entries.insert((run, window, kind), entry);
        Ok(Recorded::New)
    }

    /// What has been recorded, or `None`.
    pub fn lookup(&self, kind: JournalKind, run: RunId, window: Window) -> Option<JournalEntry> {
        let inner = self.inner();
        inner.records.entries.get(&(run, window, kind)).cloned()
    }

    /// Forgets every window of `run` before `first`, which can then never be recorded again, and rewrites the file
    /// without them. Call it with a window far enough back that its reveals are over.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the journal is then as before, on disk and in memory.
    pub fn prune(&self, run: RunId, first: Window) -> Result<(), JournalError> {
        let mut inner = self.inner();
        if first <= inner.records.first.get(&run).copied().unwrap_or(0) {
            return Ok(());
        }
        let entries = inner.records.entries.iter();
        let kept = entries.filter(|((of, window, _), _)| *of != run || *window >= first);
        let mut floors = inner.records.first.clone();
        floors.insert(run, first);
        let records = Records {
            entries: kept.map(|(key, entry)| (*key, entry.clone())).collect(),
            first: floors,
        };
        let (file, len) = rewrite(&self.path, &records)?;
        *inner = Inner { file, records, len, broken: false };
        Ok(())
    }

    // A panic under the lock cannot leave a record half made in memory; half a line on disk sets `broken`.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn append(&mut self, path: &Path, line: &JournalRecord) -> Result<(), JournalError> {
        if self.broken {
            self.repair(path)?;
        }
        let text = to_text(line).map_err(io_error("encode for", path))?;
        self.broken = true;
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // If the disk does not let it now, it is tried again before the next line.
            let _ = self.repair(path);
            return Err(io_error("write", path)(error));
        }
        self.len += text.len() as u64;
        self.broken = false;
        Ok(())
    }

    /// Cuts off what a failed write may have left after the last line that was acknowledged.
    fn repair(&mut self, path: &Path) -> Result<(), JournalError> {
        self.file
            .set_len(self.len)
            .and_then(|()| self.file.seek(SeekFrom::End(0)))
            .and_then(|_| self.file.sync_all())
            .map_err(io_error("truncate", path))?;
        self.broken = false;
        Ok(())
    }
}

/// A line is the first 8 bytes of the BLAKE3 of its JSON in hex, a space, the JSON, a newline.
fn to_text(line: &JournalRecord) -> io::Result<String> {
    let json = serde_json::to_string(line)?;
    Ok(format!("{} {json}\n", checksum(&json)))
}

fn from_text(text: &[u8]) -> Option<JournalRecord> {
    let text = std::str::from_utf8(text).ok()?;
    let (sum, json) = text.split_once(' ')?;
    if sum != checksum(json) {
        return None;
    }
    serde_json::from_str(json).ok()
}

fn checksum(json: &str) -> String {
    let digest = blake3::hash(json.as_bytes());
    hex::encode(digest.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]))
}

/// Reads all lines; returns with them the length of the text up to a torn last line.
///
/// Torn is a last line without its newline, or one with NUL bytes, which file systems leave where data was not written
/// before a power cut. Every other line that does not check is damage.
fn parse(text: &[u8], path: &Path) -> Result<(Records, usize), JournalError> {
    let mut records = Records::default();
    let mut good_len = 0;
    let mut lines = text.split_inclusive(|byte| *byte == b'\n').enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let is_last = lines.peek().is_none();
        let complete = line.strip_suffix(b"\n");
        let read = complete.and_then(from_text).and_then(|line| records.apply(line));
        match read {
            Some(()) => good_len += line.len(),
            None if is_last && (complete.is_none() || line.contains(&0)) => break,
            None => return Err(JournalError::Damaged { path: path.to_owned(), line: number + 1 }),
        }
    }
    Ok((records, good_len))
}

impl Records {
    /// `None` if the line contradicts itself or the lines before it.
    fn apply(&mut self, line: JournalRecord) -> Option<()> {
        match line {
            JournalRecord::Record { kind, run, window, hash, secret } => {
                let hash = hex::decode(hash).ok()?.try_into().ok()?;
                let secret = hex::decode(secret).ok()?;
                let entry = JournalEntry { hash, secret };
                match self.entries.insert((run, window, kind), entry) {
                    Some(_) => None,
                    None => Some(()),
                }
            }
            JournalRecord::Pruned { run, first } => {
                self.first.insert(run, first);
                Some(())
            }
        }
    }

    fn lines(&self) -> impl Iterator<Item = JournalRecord> + '_ {
        let floors = self
            .first
            .iter()
            .map(|(run, first)| JournalRecord::Pruned { run: *run, first: *first });
        let entries =
            self.entries.iter().map(|((run, window, kind), entry)| JournalRecord::Record {
                kind: *kind,
                run: *run,
                window: *window,
                hash: hex::encode(entry.hash),
                secret: hex::encode(&entry.secret),
            });
        floors.chain(entries)
    }
}

/// Replaces the file at `path` by one that holds `records`, in one step that a crash cannot halve; returns it with its length.
fn rewrite(path: &Path, records: &Records) -> Result<(File, u64), JournalError> {
    let mut text = String::new();
    for line in records.lines() {
        text.push_str(&to_text(&line).map_err(io_error("encode for", path))?);
    }
    // NamedTempFile is made with mode 0600.
    let folder = folder(path);
    let mut file =
        tempfile::NamedTempFile::new_in(folder).map_err(io_error("create in", folder))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().sync_all())
        .map_err(io_error("write in", folder))?;
    let file = file.persist(path).map_err(|error| io_error("rename to", path)(error.error))?;
    sync_folder(path)?;
    Ok((file, text.len() as u64))
}

fn open(path: &Path) -> Result<File, JournalError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io_error("open", path))
}

fn lock(path: &Path) -> Result<File, JournalError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = open(Path::new(&name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(JournalError::InUse { path: path.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(io_error("lock", path)(error)),
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes the file's creation or rename survive a power cut.
fn sync_folder(path: &Path) -> Result<(), JournalError> {
    let folder = folder(path);
    File::open(folder).and_then(|file| file.sync_all()).map_err(io_error("sync", folder))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_was_full_for_a_while_costs_what_was_not_acknowledged_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        let record = |window| journal.record(JournalKind::UpdateCommitment, 0, window, [1; 32]);
        record(1).unwrap();
        let writable = {
            let mut inner = journal.inner();
            // Half a line is written, then the disk takes nothing more, and lets nothing be cut off.
            inner.file.write_all(b"half a li").unwrap();
            std::mem::replace(&mut inner.file, File::open(&path).unwrap())
        };
        for window in [2, 3] {
            assert!(matches!(record(window), Err(JournalError::Io { .. })));
        }
        journal.inner().file = writable;
        record(3).unwrap();
        record(4).unwrap();
        drop(journal);
        let journal = Journal::open(&path).unwrap();
        let there = |window| journal.lookup(JournalKind::UpdateCommitment, 0, window).is_some();
        assert_eq!([1, 2, 3, 4].map(there), [true, false, true, true]);
    }
}
