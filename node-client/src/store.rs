//! Keeps published bytes on disk, by content id, within a bound.
//!
//! An object is one file: a header (magic, length, BLAKE3 of the content) and the content. It is written to a temporary
//! file, synced, and renamed, so that after `kill -9` or a power cut an object is there whole or not at all. A pinned
//! object stays until it is unpinned; of the others the oldest go first when the bound in bytes is reached.
//!
//! The store does not know what a content id means (a Merkle root, a state root): whoever fetched the bytes has checked
//! them. The BLAKE3 in the header finds a disk that changed them later ([`Store::get_checked`]).
//!
//! What is too large for a copy in memory is put from where it lies ([`Store::put_content`]): pieces of a MiB, read, hashed and
//! written on several threads. What is served is read range by range ([`Store::read_range`]) and kept nowhere.
//!
//! Calls block on the disk; async callers use `tokio::task::spawn_blocking`. One process at a time holds a folder.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        Mutex, MutexGuard, PoisonError,
    },
};

use bytes::Bytes;
use protocol::{
    content_hash::{content_hash, PieceHash, PIECE_BYTES},
    Hash,
};

const MAGIC: [u8; 8] = *b"GXOBJ\0\0\x01";

/// Magic, content length (u64, little endian), BLAKE3 of the content.
const HEADER_LEN: usize = 8 + 8 + 32;

/// Threads that read, hash and write one content at most: what a fast disk takes.
const PUT_THREADS_MAX: usize = 8;

/// Content that is read part by part where it lies.
pub trait Content: Send + Sync {
    /// Bytes in all.
    fn byte_len(&self) -> u64;

    /// Writes the bytes from `offset` on to `into`; returns how many there are, fewer than `into` has only at the end. Called
    /// from several threads.
    fn read(&self, offset: u64, into: &mut [u8]) -> usize;
}

impl Content for [u8] {
    fn byte_len(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.get(offset..).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        len
    }
}

/// What went wrong with a [`Store`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object cannot be kept even after dropping everything that is not pinned: raise the bound or unpin.
    #[error("no room for {needed} bytes: {pinned} of at most {bytes_max} bytes are pinned")]
    Full {
        /// Bytes of the refused object.
        needed: u64,
        /// Bytes held by pinned objects.
        pinned: u64,
        /// The store's bound.
        bytes_max: u64,
    },
    /// The object's file is damaged: remove the object and fetch it again.
    #[error("object {} is damaged on disk", hex::encode(id))]
    Damaged {
        /// The object's content id.
        id: Hash,
    },
    /// Another process holds the folder: stop it, or use another folder.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The store's folder.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("store: {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

/// A part of an object, as [`Store::read_range`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Bytes of the whole object.
    pub total_len: u64,
    /// The bytes from the wanted offset on; shorter than wanted at the object's end.
    pub bytes: Bytes,
}

/// A folder of objects; share it in an `Arc`.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    bytes_max: u64,
    // A std mutex, never held across an await. Renames and removals happen under it, writes and syncs of content do not.
    index: Mutex<Index>,
    // Locked for as long as the store lives.
    _lock: File,
}

/// Which objects exist. Invariants: `by_age` has exactly one entry per object; `bytes` is the sum of all lengths.
#[derive(Debug, Default)]
struct Index {
    objects: HashMap<Hash, Object>,
    by_age: BTreeMap<u64, Hash>,
    bytes: u64,
    next_age: u64,
}

#[derive(Clone, Copy, Debug)]
struct Object {
    len: u64,
    age: u64,
    pinned: bool,
}

impl Index {
    fn insert(&mut self, id: Hash, len: u64, pinned: bool) {
        self.remove(&id);
        let age = self.next_age;
        self.next_age += 1;
        self.by_age.insert(age, id);
        self.objects.insert(id, Object { len, age, pinned });
        self.bytes = self.bytes.saturating_add(len);
    }

    fn remove(&mut self, id: &Hash) -> Option<Object> {
        let object = self.objects.remove(id)?;
        self.by_age.remove(&object.age);
        self.bytes = self.bytes.saturating_sub(object.len);
        Some(object)
    }

    fn pinned_bytes(&self) -> u64 {
        let pinned = self.objects.values().filter(|object| object.pinned);
        pinned.map(|object| object.len).sum()
    }

    /// The oldest objects that must go, without the pinned and without `keep`, for `len` more bytes to fit.
    fn evictions(&self, keep: &Hash, len: u64, bytes_max: u64) -> Option<Vec<Hash>> {
        let replaced = self.objects.get(keep).map_or(0, |object| object.len);
        let mut bytes = self.bytes.saturating_sub(replaced).saturating_add(len);
        let mut evicted = Vec::new();
        for id in self.by_age.values() {
            if bytes <= bytes_max {
                break;
            }
            let Some(object) = self.objects.get(id) else {
                continue;
            };
            if !object.pinned && id != keep {
                bytes = bytes.saturating_sub(object.len);
                evicted.push(*id);
            }
        }
        (bytes <= bytes_max).then_some(evicted)
    }
}

impl Store {
    /// Opens (or creates) the store in `root`, which keeps at most `bytes_max` bytes of content.
    ///
    /// What an interrupted put left behind is cleared away. A store that is over a bound that was lowered shrinks at
    /// the next put.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another process holds the folder, [`StoreError::Io`].
    pub fn open(root: impl Into<PathBuf>, bytes_max: u64) -> Result<Self, StoreError> {
        let root = root.into();
        for folder in ["objects", "pins", "tmp"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        }
        let lock = lock(&root)?;
        clear(&root.join("tmp"))?;
        let pins = pins(&root.join("pins"))?;
        let mut found = objects(&root.join("objects"))?;
        found.sort_by_key(|(id, _, modified)| (*modified, *id));
        let mut index = Index::default();
        for (id, len, _) in found {
            index.insert(id, len, pins.contains(&id));
        }
        Ok(Self { root, bytes_max, index: Mutex::new(index), _lock: lock })
    }

    /// Keeps `bytes` under `id`, replacing what was there, and drops the oldest unpinned objects if the bound demands
    /// it. On return the object survives a crash.
    ///
    /// # Errors
    /// [`StoreError::Full`], with nothing changed; [`StoreError::Io`].
    pub fn put(&self, id: Hash, bytes: &[u8]) -> Result<(), StoreError> {
        self.put_content(id, bytes)
    }

    /// [`Store::put`] of what is not in memory in one piece. Holds a MiB for each of at most 8 threads, and 64 bytes for
    /// each MiB of the content.
    ///
    /// # Errors
    /// As there, and [`StoreError::Io`] if the content is shorter than it says.
    pub fn put_content<C: Content + ?Sized>(
        &self,
        id: Hash,
        content: &C,
    ) -> Result<(), StoreError> {
        let len = content.byte_len();
        self.room(&id, len)?;
        let tmp = self.root.join("tmp");
        let mut file =
            tempfile::NamedTempFile::new_in(&tmp).map_err(io_error("create in", &tmp))?;
        let written = write_pieces(file.as_file(), content, len).and_then(|digest| {
            let mut header = [0; HEADER_LEN];
            header[..8].copy_from_slice(&MAGIC);
            header[8..16].copy_from_slice(&len.to_le_bytes());
            header[16..].copy_from_slice(&digest);
            file.write_all(&header)?;
            file.as_file().sync_all()
        });
        written.map_err(io_error("write in", &tmp))?;

        let path = self.object_path(&id);
        let mut index = self.index();
        // Others may have put meanwhile: the room is found again, under the lock, and taken.
        let evicted =
            index.evictions(&id, len, self.bytes_max).ok_or_else(|| self.full(&index, len))?;
        for old in evicted {
            self.remove_object(&mut index, &old)?;
        }
        let folder = parent(&path);
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        file.persist(&path).map_err(|error| io_error("rename to", &path)(error.error))?;
        let pinned = self.pin_path(&id).exists();
        index.insert(id, len, pinned);
        drop(index);
        sync_folder(folder)
    }

    /// Whether an object is kept under `id`.
    pub fn contains(&self, id: &Hash) -> bool {
        self.index().objects.contains_key(id)
    }

    /// Bytes of the object's content, or `None` without one.
    pub fn len_of(&self, id: &Hash) -> Option<u64> {
        self.index().objects.get(id).map(|object| object.len)
    }

    /// The object's content as it is on disk, or `None` without one. The caller checks it against the content id.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the file's header is wrong; [`StoreError::Io`].
    pub fn get(&self, id: &Hash) -> Result<Option<Bytes>, StoreError> {
        Ok(self.read(id)?.map(|(_, bytes)| bytes))
    }

    /// Like [`Store::get`], and compares the content with the BLAKE3 taken when it was put.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if one bit differs; [`StoreError::Io`].
    pub fn get_checked(&self, id: &Hash) -> Result<Option<Bytes>, StoreError> {
        match self.read(id)? {
            Some((digest, bytes)) if blake3::hash(&bytes) == digest => Ok(Some(bytes)),
            Some(_) => Err(StoreError::Damaged { id: *id }),
            None => Ok(None),
        }
    }

    /// At most `len` bytes of the object from `offset` on, or `None` without such an object. An offset at or beyond the
    /// end gives no bytes.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the file is shorter than it was; [`StoreError::Io`].
    pub fn read_range(
        &self,
        id: &Hash,
        offset: u64,
        len: u32,
    ) -> Result<Option<Range>, StoreError> {
        let Some(total_len) = self.len_of(id) else {
            return Ok(None);
        };
        let wanted = total_len.saturating_sub(offset).min(u64::from(len));
        let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(usize::MAX)];
        if !bytes.is_empty() {
            let path = self.object_path(id);
            let file = match File::open(&path) {
                Ok(file) => file,
                // Dropped by a put between the look at the index and now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(io_error("open", &path)(error)),
            };
            file.read_exact_at(&mut bytes, offset.saturating_add(HEADER_LEN as u64)).map_err(
                |error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => StoreError::Damaged { id: *id },
                    _ => io_error("read", &path)(error),
                },
            )?;
        }
        Ok(Some(Range { total_len, bytes: bytes.into() }))
    }

    /// Keeps the object until [`Store::unpin`], whatever the bound; survives a restart. An id without an object may be
    /// pinned before the object is put. No effect if pinned already.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn pin(&self, id: &Hash) -> Result<(), StoreError> {
        let path = self.pin_path(id);
        let mut index = self.index();
        File::create(&path).map_err(io_error("create", &path))?;
        sync_folder(parent(&path))?;
        if let Some(object) = index.objects.get_mut(id) {
            object.pinned = true;
        }
        Ok(())
    }

    /// Lets the object go when its turn comes. No effect if not pinned.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn unpin(&self, id: &Hash) -> Result<(), StoreError> {
        let mut index = self.index();
        remove_file(&self.pin_path(id))?;
        if let Some(object) = index.objects.get_mut(id) {
            object.pinned = false;
        }
        Ok(())
    }

    /// Drops the object, pinned or not. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&self, id: &Hash) -> Result<bool, StoreError> {
        let mut index = self.index();
        remove_file(&self.pin_path(id))?;
        self.remove_object(&mut index, id)
    }

    /// The content ids of all objects, oldest first.
    pub fn ids(&self) -> Vec<Hash> {
        self.index().by_age.values().copied().collect()
    }

    /// The content ids of the pinned objects, oldest first.
    pub fn pinned_ids(&self) -> Vec<Hash> {
        let index = self.index();
        let pinned = |id: &&Hash| index.objects.get(*id).is_some_and(|object| object.pinned);
        index.by_age.values().filter(pinned).copied().collect()
    }

    /// Bytes of content kept now.
    pub fn bytes(&self) -> u64 {
        self.index().bytes
    }

    /// The file that holds the object, header first; for tools that look at a kept folder.
    pub fn object_path(&self, id: &Hash) -> PathBuf {
        let name = hex::encode(id);
        // 256 folders keep each one short at the bounds this store is used with.
        let folder = name.get(..2).unwrap_or_default().to_owned();
        self.root.join("objects").join(folder).join(name)
    }

    fn pin_path(&self, id: &Hash) -> PathBuf {
        self.root.join("pins").join(hex::encode(id))
    }

    // A panic under the lock leaves at worst a wrong age: the index is usable.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self, id: &Hash, len: u64) -> Result<(), StoreError> {
        let index = self.index();
        match index.evictions(id, len, self.bytes_max) {
            Some(_) => Ok(()),
            None => Err(self.full(&index, len)),
        }
    }

    fn full(&self, index: &Index, needed: u64) -> StoreError {
        StoreError::Full { needed, pinned: index.pinned_bytes(), bytes_max: self.bytes_max }
    }

    fn remove_object(&self, index: &mut Index, id: &Hash) -> Result<bool, StoreError> {
        remove_file(&self.object_path(id))?;
        Ok(index.remove(id).is_some())
    }

    fn read(&self, id: &Hash) -> Result<Option<(blake3::Hash, Bytes)>, StoreError> {
        let Some(len) = self.len_of(id) else {
            return Ok(None);
        };
        let path = self.object_path(id);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error("read", &path))?;
        let bytes = Bytes::from(bytes);
        let (magic, rest) = split(&bytes, id, MAGIC.len())?;
        let (stored_len, rest) = split(&rest, id, 8)?;
        let (digest, content) = split(&rest, id, 32)?;
        let damaged = || StoreError::Damaged { id: *id };
        let digest = <[u8; 32]>::try_from(&digest[..]).map_err(|_| damaged())?;
        // The length is the one on disk now: the object may have been replaced since the look at the index.
        let intact = magic == MAGIC[..] && stored_len[..] == (content.len() as u64).to_le_bytes();
        if !intact {
            tracing::warn!(id = hex::encode(id), len, "damaged object");
            return Err(damaged());
        }
        Ok(Some((blake3::Hash::from_bytes(digest), content)))
    }
}

/// Writes a content behind the place of the header, from several threads; returns its BLAKE3.
fn write_pieces<C: Content + ?Sized>(file: &File, content: &C, len: u64) -> io::Result<Hash> {
    let count = len.div_ceil(PIECE_BYTES as u64);
    let next = AtomicU64::new(0);
    let work = || -> io::Result<Vec<(u64, PieceHash)>> {
        let mut hashes = Vec::new();
        let mut buffer = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(hashes);
            }
            let offset = index.saturating_mul(PIECE_BYTES as u64);
            let wanted = len.saturating_sub(offset).min(PIECE_BYTES as u64);
            buffer.resize(usize::try_from(wanted).unwrap_or_default(), 0);
            if content.read(offset, &mut buffer) != buffer.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            hashes.push((index, PieceHash::new(index, &buffer)));
            file.write_all_at(&buffer, offset.saturating_add(HEADER_LEN as u64))?;
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(PUT_THREADS_MAX).min(usize::try_from(count).unwrap_or(usize::MAX));
    let mut hashes = if threads <= 1 {
        work()?
    } else {
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut hashes = work()?;
            for other in others {
                let panicked = |_| io::Error::other("a writer panicked");
                hashes.extend(other.join().map_err(panicked)??);
            }
            Ok::<_, io::Error>(hashes)
        })?
    };
    hashes.sort_unstable_by_key(|(index, _)| *index);
    let hashes: Vec<PieceHash> = hashes.into_iter().map(|(_, hash)| hash).collect();
    content_hash(&hashes, len).ok_or_else(|| io::Error::other("a piece is missing"))
}

fn split(bytes: &Bytes, id: &Hash, at: usize) -> Result<(Bytes, Bytes), StoreError> {
    if bytes.len() < at {
        return Err(StoreError::Damaged { id: *id });
    }
    Ok((bytes.slice(..at), bytes.slice(at..)))
}

fn lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join("lock");
    let file = File::create(&path).map_err(io_error("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse { path: root.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

fn clear(folder: &Path) -> Result<(), StoreError> {
    for path in entries(folder)? {
        remove_file(&path)?;
    }
    Ok(())
}

fn pins(folder: &Path) -> Result<HashSet<Hash>, StoreError> {
    Ok(entries(folder)?.iter().filter_map(|path| id(path)).collect())
}

/// Every object's content id, length and time of change. Files with other names are left alone.
fn objects(folder: &Path) -> Result<Vec<(Hash, u64, std::time::SystemTime)>, StoreError> {
    let mut found = Vec::new();
    for path in entries(folder)?.iter().filter(|path| path.is_dir()) {
        for path in entries(path)? {
            let Some(id) = id(&path) else { continue };
            let metadata = fs::metadata(&path).map_err(io_error("look at", &path))?;
            let modified = metadata.modified().map_err(io_error("look at", &path))?;
            let len = metadata.len().saturating_sub(HEADER_LEN as u64);
            found.push((id, len, modified));
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    read().map_err(io_error("list", folder))
}

fn id(path: &Path) -> Option<Hash> {
    let name = path.file_name()?.to_str()?;
    hex::decode(name).ok()?.try_into().ok()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes a rename or creation in `folder` survive a power cut.
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(io_error("sync", folder))
}
