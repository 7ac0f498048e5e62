//! Pieces on this machine's disk: a folder of bounded size. A piece is checked each time it is
//! read, so what a kill or a failing disk leaves is fetched again and never used.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::{at, DataError};
use crate::manifest::hex;
use crate::tokens::PIECE_BYTES;

/// A folder of pieces.
#[derive(Debug)]
pub(super) struct PieceCache {
    /// `None` keeps nothing.
    folder: Option<PathBuf>,
    bytes_max: u64,
    state: Mutex<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    /// Length and last use of each piece.
    pieces: HashMap<String, (u64, u64)>,
    bytes: u64,
    clock: u64,
}

impl PieceCache {
    /// The cache in `folder`, with what an earlier process left there.
    pub(super) fn open(folder: &Path, bytes_max: u64) -> Result<Self, DataError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let mut state = CacheState::default();
        for entry in fs::read_dir(folder).map_err(at(folder))? {
            let entry = entry.map_err(at(folder))?;
            let len = entry.metadata().map_err(at(&entry.path()))?.len();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".tmp") {
                let _ = fs::remove_file(entry.path());
                continue;
            }
            state.bytes += len;
            state.pieces.insert(name, (len, 0));
        }
        let cache = Self { folder: Some(folder.to_owned()), bytes_max, state: Mutex::new(state) };
        cache.evict(&mut cache.lock());
        Ok(cache)
    }

    /// A cache that keeps nothing.
    pub(super) fn none() -> Self {
        Self { folder: None, bytes_max: 0, state: Mutex::default() }
    }

    /// Bytes of all pieces.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// The state is whole between any two statements that can panic, which are none.
    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece that is here and has this hash.
    pub(super) fn get(&self, name: &str, hash: &str) -> Option<Bytes> {
        let folder = self.folder.as_ref()?;
        let mut state = self.lock();
        state.clock += 1;
        let now = state.clock;
        state.pieces.get_mut(name)?.1 = now;
        drop(state);
        let bytes = fs::read(folder.join(name)).ok();
        let is_whole = |bytes: &Vec<u8>| hex(blake3::hash(bytes).into()) == hash;
        bytes.filter(is_whole).map(Bytes::from)
    }

    /// Keeps a piece, if it can: a full disk is no reason to stop.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let Some(folder) = &self.folder else {
            return;
        };
        if self.bytes_max < PIECE_BYTES as u64 {
            return;
        }
        // Two threads may fetch the same piece: each writes a file of its own.
        let unfinished = folder.join(format!("{name}.{:?}.tmp", std::thread::current().id()));
        let written =
            fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, folder.join(name)));
        if let Err(error) = written {
            tracing::warn!(%error, name, "cannot keep a piece");
            let _ = fs::remove_file(&unfinished);
            return;
        }
        let mut state = self.lock();
        state.clock += 1;
        let entry = (bytes.len() as u64, state.clock);
        let before = state.pieces.insert(name.to_owned(), entry);
        state.bytes += entry.0;
        state.bytes -= before.map_or(0, |(len, _)| len);
        self.evict(&mut state);
    }

    /// Removes what was not used for longest until the rest fits.
    fn evict(&self, state: &mut CacheState) {
        let Some(folder) = &self.folder else {
            return;
        };
        if state.bytes <= self.bytes_max {
            return;
        }
        let mut order: Vec<(u64, String)> =
            state.pieces.iter().map(|(name, (_, used))| (*used, name.clone())).collect();
        order.sort();
        // A little more than needed, so that not every piece sorts them all.
        let goal = self.bytes_max - self.bytes_max / 16;
        for (_, name) in order {
            if state.bytes <= goal {
                break;
            }
            if let Some((len, _)) = state.pieces.remove(&name) {
                state.bytes -= len;
                let _ = fs::remove_file(folder.join(&name));
            }
        }
    }
}
