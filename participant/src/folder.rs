//! Keeps a participant's folder to one process, and to one chain.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

use protocol::Hash;

use crate::error::{unfit, Attempt as _, Result};

/// The file that the process in a folder has locked; its content is the process's id.
const LOCK_NAME: &str = "lock";

/// The file that remembers the chain's genesis hash.
const GENESIS_NAME: &str = "genesis";

/// A folder that is this process's alone until this is dropped, or the process ends, however.
#[derive(Debug)]
pub struct FolderLock {
    /// Locked by the system, for as long as it is open.
    _file: File,
}

impl FolderLock {
    /// Takes the folder.
    ///
    /// # Errors
    /// Another process has it, or the disk failed.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK_NAME);
        let open =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // It may just be written; then its number stays unsaid.
                let _ = file.read_to_string(&mut owner);
                unfit!(
                    "the folder {} is another process's ({}): each needs its own folder and hot key",
                    folder.display(),
                    owner.trim()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "process {}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

/// The genesis hash of the chain that a folder has met; `None` if it has met none.
///
/// # Errors
/// The disk failed, or the file has no hash.
pub(crate) fn genesis(folder: &Path) -> Result<Option<Hash>> {
    let path = folder.join(GENESIS_NAME);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path)?;
    let mut hash = [0; 32];
    let digits = text.trim().strip_prefix("0x").unwrap_or_default();
    if hex::decode_to_slice(digits, &mut hash).is_err() {
        unfit!("{} has no hash of a block", path.display());
    }
    Ok(Some(hash))
}

/// Remembers the chain of a folder.
///
/// # Errors
/// The disk failed.
pub(crate) fn remember_genesis(folder: &Path, genesis: &Hash) -> Result<()> {
    let path = folder.join(GENESIS_NAME);
    let text = format!("0x{}\n", hex::encode(genesis));
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_processs_and_free_when_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        let refused = FolderLock::take(folder.path()).unwrap_err().line();
        let owner = format!("another process's (process {})", std::process::id());
        assert!(refused.contains(&owner), "{refused}");
        drop(lock);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_remembers_its_chain_and_no_nonsense() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(genesis(folder.path()).unwrap(), None);
        remember_genesis(folder.path(), &[7; 32]).unwrap();
        assert_eq!(genesis(folder.path()).unwrap(), Some([7; 32]));
        std::fs::write(folder.path().join(GENESIS_NAME), "0x07").unwrap();
        assert!(genesis(folder.path()).unwrap_err().line().contains("no hash"));
    }
}
