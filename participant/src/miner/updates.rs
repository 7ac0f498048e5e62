//! Keeps the miner's own updates on disk, by window, from when they are made: they may not be served before they are revealed.
//!
//! Beside an update lies what its commitment opens to ([`Note`]): once that is there, the update is the window's, and a process
//! that starts again commits to it or reveals it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use protocol::{commitment::Opening, Uid, Window};
use serde::{Deserialize, Serialize};

use crate::error::{Attempt as _, Result};

/// Updates kept: as long as the chain may ask for them.
const KEPT_WINDOWS: u64 = protocol::limits::HISTORY_WINDOWS;

/// How the names of updates and of their notes end.
const UPDATE: &str = "update";
const NOTE: &str = "note";

/// What a checkpoint says beside the trainer's own state, and what lies beside an update: whose the update that was made
/// last is, and what its commitment opens to.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// Slot of the miner in the run.
    pub uid: Uid,
    /// What opens the commitment.
    pub opening: Opening,
}

/// A folder of own updates.
#[derive(Clone, Debug)]
pub struct Updates {
    folder: PathBuf,
}

impl Updates {
    /// The updates in `folder`, which exists.
    pub fn open(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps the update of `window`, and none of those that the chain asks for no more; on return it survives a crash.
    /// Blocks.
    ///
    /// # Errors
    /// The disk failed.
    pub fn save(&self, window: Window, bytes: &[u8]) -> Result<()> {
        self.write(&self.path(window), bytes)?;
        if let Err(error) = self.forget_before(window) {
            tracing::warn!(error = error.line(), "cannot remove old updates");
        }
        Ok(())
    }

    /// Removes what the chain does not ask for in `window` any more, however long the miner was away.
    fn forget_before(&self, window: Window) -> Result<()> {
        let Some(old) = window.checked_sub(KEPT_WINDOWS) else { return Ok(()) };
        // The note goes first: without it an update is nothing.
        for ending in [NOTE, UPDATE] {
            for kept in self.windows(ending)?.into_iter().filter(|kept| *kept <= old) {
                let path = self.path(kept).with_extension(ending);
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Makes the update that was kept for `window` the window's; on return this survives a crash. Blocks.
    ///
    /// # Errors
    /// The disk failed.
    pub fn note(&self, window: Window, note: &Note) -> Result<()> {
        self.write(&self.note_path(window), &serde_json::to_vec(note)?)
    }

    /// Whether the update of `window` is the window's.
    pub fn has_note(&self, window: Window) -> bool {
        self.note_path(window).exists()
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let part = self.folder.join("part");
        let write = || -> io::Result<()> {
            let mut file = File::create(&part)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&part, path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The newest window whose update was made, and what opens it. Blocks.
    ///
    /// # Errors
    /// The disk failed, or the note is not ours.
    pub fn newest(&self) -> Result<Option<(Window, Note)>> {
        let newest = self.windows(NOTE)?.into_iter().max();
        let Some(window) = newest else { return Ok(None) };
        let path = self.note_path(window);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let note = serde_json::from_slice(&text);
        Ok(Some((window, note.with_context(|| format!("{} is not ours", path.display()))?)))
    }

    /// The windows of which there is a file with this ending.
    fn windows(&self, ending: &str) -> Result<Vec<Window>> {
        let cannot_list = || format!("cannot list {}", self.folder.display());
        let mut windows = Vec::new();
        for entry in fs::read_dir(&self.folder).with_context(cannot_list)? {
            let name = entry.with_context(cannot_list)?.file_name();
            let number = name.to_str().and_then(|name| {
                let name = name.strip_prefix("window-")?.strip_suffix(ending)?;
                name.strip_suffix('.')?.parse::<Window>().ok()
            });
            windows.extend(number);
        }
        Ok(windows)
    }

    /// The update of `window`, if it is there. Blocks.
    ///
    /// # Errors
    /// The disk failed.
    pub fn load(&self, window: Window) -> Result<Option<Bytes>> {
        let path = self.path(window);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn note_path(&self, window: Window) -> PathBuf {
        self.path(window).with_extension(NOTE)
    }

    fn path(&self, window: Window) -> PathBuf {
        self.folder.join(format!("window-{window:06}.{UPDATE}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_away_for_long_keeps_no_update_that_nobody_asks_for() {
        let folder = tempfile::tempdir().unwrap();
        let updates = Updates::open(folder.path().to_owned());
        let opening = Opening {
            payload_root: [1; 32],
            chunk_count: 1,
            byte_len: 1,
            base_state_root: [2; 32],
            salt: [3; 32],
        };
        let note = Note { uid: 5, opening };
        let keep = |window| {
            updates.save(window, b"update").and_then(|()| updates.note(window, &note)).unwrap();
        };
        (0..4).for_each(keep);
        fs::write(folder.path().join("window-7.txt"), b"another's").unwrap();
        let first = 2 + KEPT_WINDOWS;
        keep(first);
        let mut windows = updates.windows(UPDATE).unwrap();
        windows.sort_unstable();
        assert_eq!(windows, [3, first]);
        assert_eq!(updates.newest().unwrap(), Some((first, note.clone())));
        // After a long time all of them are gone, and nothing else.
        keep(1_000_000);
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["window-1000000.note", "window-1000000.update", "window-7.txt"]);
    }
}
