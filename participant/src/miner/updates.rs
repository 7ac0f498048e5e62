//! Keeps the miner's own updates on disk, by window, from when they are made: they may not be served before they are revealed.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
};

use bytes::Bytes;
use protocol::Window;

use crate::error::{Attempt as _, Result};

/// Updates kept: as long as the chain may ask for them.
const KEPT_WINDOWS: u64 = protocol::limits::HISTORY_WINDOWS;

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
        let path = self.path(window);
        let part = path.with_extension("part");
        let write = || -> io::Result<()> {
            let mut file = File::create(&part)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        if let Some(old) = window.checked_sub(KEPT_WINDOWS) {
            // It may never have been there.
            let _ = fs::remove_file(self.path(old));
        }
        Ok(())
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

    fn path(&self, window: Window) -> PathBuf {
        self.folder.join(format!("window-{window:06}.update"))
    }
}
