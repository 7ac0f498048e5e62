//! Keeps a copy of every payload for auditors, in a folder that several validators of a machine may share.
//!
//! A payload is `window-NNNNNN/uid-NNNN.update`. A folder of contents, each named by its content id in hexadecimal, as
//! a mirror's bucket has them, is read as well.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use protocol::{Hash, Uid, Window};

/// Where an archive keeps the payload of `uid` in `window`.
pub fn archive_path(archive: &Path, window: Window, uid: Uid) -> PathBuf {
    archive.join(window_folder(window)).join(format!("uid-{uid:04}.update"))
}

/// Reads the payload of `uid` in `window`, which has this root, by either name.
///
/// # Errors
/// It is not there, or the disk failed.
pub fn read_archived(archive: &Path, window: Window, uid: Uid, root: &Hash) -> io::Result<Vec<u8>> {
    match std::fs::read(archive_path(archive, window, uid)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let by_id = std::fs::read(archive.join(hex::encode(root)));
            // Where neither is, the first is what one looks for.
            by_id.map_err(|_| error)
        }
        read => read,
    }
}

fn window_folder(window: Window) -> String {
    format!("window-{window:06}")
}

/// The archive of a validator.
pub(super) struct Archive {
    pub(super) folder: PathBuf,
    /// Bytes of payloads that it keeps at most; `None` for no bound.
    bytes_max: Option<u64>,
    /// Held while a payload is counted, and what is there while it is looked through.
    counted: Mutex<Counted>,
}

/// What is known to be in an archive.
#[derive(Default)]
struct Counted {
    /// The window of the last payload: when it is another, all is counted anew, as other processes write, too.
    window: Option<Window>,
    /// What there was then, and all payloads since.
    bytes: u64,
    /// Whether no older window was left then that could make room.
    is_alone: bool,
}

impl Archive {
    pub(super) fn new(folder: PathBuf, bytes_max: Option<u64>) -> Self {
        Self { folder, bytes_max, counted: Mutex::default() }
    }

    /// Writes one payload, whole or not at all; several processes may write the same one. If there is more than may be
    /// kept then, the oldest windows go, but never this one or a later one. Blocks.
    pub(super) fn keep(&self, window: Window, uid: Uid, bytes: &[u8]) -> io::Result<()> {
        let path = archive_path(&self.folder, window, uid);
        if !path.exists() {
            self.write(&path, uid, bytes)?;
        }
        self.bytes_max.map_or(Ok(()), |bytes_max| self.bound(window, bytes.len() as u64, bytes_max))
    }

    fn write(&self, path: &Path, uid: Uid, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder)?;
        let part = folder.join(format!(".uid-{uid:04}.{}", std::process::id()));
        std::fs::write(&part, bytes)?;
        std::fs::rename(&part, path)
    }

    /// Counts a payload, and lets old ones go if there is too much.
    fn bound(&self, window: Window, len: u64, bytes_max: u64) -> io::Result<()> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.bytes = counted.bytes.saturating_add(len);
        let has_room = counted.bytes <= bytes_max || counted.is_alone;
        if counted.window != Some(window) || !has_room {
            let bytes = self.shrink(window, bytes_max)?;
            *counted = Counted { window: Some(window), bytes, is_alone: bytes > bytes_max };
        }
        Ok(())
    }

    /// Lets the oldest windows before `window` go until there is no more than may be kept; returns what is left.
    fn shrink(&self, window: Window, bytes_max: u64) -> io::Result<u64> {
        let mut windows = self.windows()?;
        let mut bytes: u64 = windows.iter().map(|(_, bytes)| bytes).sum();
        windows.retain(|(old, _)| *old < window);
        for (old, old_bytes) in windows {
            if bytes <= bytes_max {
                break;
            }
            tracing::info!(window = old, "the archive is full: the payloads of a window go");
            // Another process may do the same.
            match std::fs::remove_dir_all(self.folder.join(window_folder(old))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => bytes = bytes.saturating_sub(old_bytes),
            }
        }
        Ok(bytes)
    }

    /// The windows of which there are payloads, the oldest first, and their bytes. What has another name is nobody's
    /// here.
    fn windows(&self) -> io::Result<Vec<(Window, u64)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("window-")?.parse().ok());
            let Some(window) = number.filter(|window| *window_folder(*window) == *name) else {
                continue;
            };
            found.push((window, bytes_in(&entry.path())?));
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0u64;
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        // One that another process has just removed counts for nothing.
        bytes = bytes.saturating_add(entry?.metadata().map_or(0, |metadata| metadata.len()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_windows_make_room_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::new(folder.path().to_owned(), Some(250));
        let others =
            ["window-000000-copy", "window-1", "notes"].map(|name| folder.path().join(name));
        for other in &others {
            std::fs::create_dir(other).unwrap();
        }
        for (window, uid) in [(1, 0), (1, 1), (9, 0), (10, 0), (10, 1)] {
            archive.keep(window, uid, &[7; 60]).unwrap();
        }
        let windows = |archive: &Archive| archive.windows().unwrap();
        assert_eq!(windows(&archive), [(9, 60), (10, 120)]);
        assert!(others.iter().all(|other| other.exists()));
        // A window that alone is too large stays, and what comes late of an old one takes nothing newer away.
        for uid in 2..6 {
            archive.keep(10, uid, &[7; 60]).unwrap();
        }
        archive.keep(8, 0, &[7; 60]).unwrap();
        assert_eq!(windows(&archive), [(8, 60), (10, 360)]);
        let endless = Archive::new(folder.path().to_owned(), None);
        endless.keep(11, 0, &[7; 60]).unwrap();
        assert_eq!(windows(&endless).len(), 3);
    }

    #[test]
    fn what_is_there_is_counted_once_a_window() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::new(folder.path().to_owned(), Some(250));
        archive.keep(1, 0, &[7; 60]).unwrap();
        // Of another process.
        let other = archive_path(folder.path(), 0, 0);
        std::fs::create_dir(other.parent().unwrap()).unwrap();
        std::fs::write(&other, [7; 200]).unwrap();
        archive.keep(1, 1, &[7; 60]).unwrap();
        assert!(other.exists());
        archive.keep(2, 0, &[7; 60]).unwrap();
        assert!(!other.exists());
        // What this one adds is counted at once.
        for uid in 1..3 {
            archive.keep(2, uid, &[7; 60]).unwrap();
        }
        assert_eq!(archive.windows().unwrap(), [(2, 180)]);
    }

    #[test]
    fn a_payload_is_found_by_its_miner_or_by_its_root() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, root) = (Archive::new(folder.path().to_owned(), None), [0xab; 32]);
        let read = || read_archived(folder.path(), 3, 2, &root);
        assert_eq!(read().unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(folder.path().join("ab".repeat(32)), b"by root").unwrap();
        assert_eq!(read().unwrap(), b"by root");
        archive.keep(3, 2, b"by miner").unwrap();
        assert_eq!(read().unwrap(), b"by miner");
    }
}
