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

    /// Keeps the update of `window`; on return it survives a crash. Blocks.
    ///
    /// # Errors
    /// The disk failed.
    pub fn save(&self, window: Window, bytes: &[u8]) -> Result<()> {
        self.write(&self.path(window), bytes)?;
        if let Some(old) = window.checked_sub(KEPT_WINDOWS) {
            // They may never have been there.
            let _ = fs::remove_file(self.note_path(old));
            let _ = fs::remove_file(self.path(old));
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
        let mut newest = None;
        let cannot_list = || format!("cannot list {}", self.folder.display());
        for entry in fs::read_dir(&self.folder).with_context(cannot_list)? {
            let name = entry.with_context(cannot_list)?.file_name();
            let number = name.to_str().and_then(|name| {
                name.strip_prefix("window-")?.strip_suffix(".note")?.parse::<Window>().ok()
            });
            newest = newest.max(number);
        }
        let Some(window) = newest else { return Ok(None) };
        let path = self.note_path(window);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let note = serde_json::from_slice(&text);
        Ok(Some((window, note.with_context(|| format!("{} is not ours", path.display()))?)))
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
        self.path(window).with_extension("note")
    }

    fn path(&self, window: Window) -> PathBuf {
        self.folder.join(format!("window-{window:06}.update"))
    }
}
