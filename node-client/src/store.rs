//! Keeps published bytes on disk, by content id, within a bound.
//!
//! An object is one file: a header (magic, length, BLAKE3 of the content) and the content. It is written to a temporary
//! file, synced, and renamed, so that after `kill -9` or a power cut an object is there whole or not at all. A pinned
//! object stays until it is unpinned; of the others the oldest go first when the bound in bytes is reached.
//!
//! The store does not know what a content id means (a Merkle root, a state root): whoever fetched the bytes has checked
//! them. What the disk has changed since is found: a range by the sums of its blocks ([`Store::read_range`]), which lie in a file
//! beside the object, the whole by the BLAKE3 in the header ([`Store::get_checked`]). A folder that was written before there were
//! sums is read without them, and so is what is still arriving.
//!
//! What is too large for a copy in memory is put from where it lies ([`Store::put_content`]): pieces of a MiB, read, hashed and
//! written on several threads. What is served is read range by range ([`Store::read_range`]) and kept nowhere.
//!
//! What arrives in pieces is kept in a [`Part`] until it is whole, over restarts, and each piece served from when it was checked. A
//! content whose pieces are asked for by their numbers is kept with a [`Cut`], which says where they lie in it.
//!
//! Calls block on the disk; async callers use `tokio::task::spawn_blocking`. One process at a time holds a folder.

mod content;
mod part;
mod piece_map;
mod sums;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc, Mutex, MutexGuard, PoisonError,
    },
};

use bytes::Bytes;
use protocol::{
    content_hash::{content_hash, PieceHash, PIECE_BYTES},
    Hash,
};
use tempfile::NamedTempFile;

pub use content::{Content, Cut, Range, Span};
pub use part::{Assembled, Part, Slot, SYNC_BYTES};
pub use piece_map::PieceMap;

use content::{CUT_ENTRY_LEN, HEADER_LEN};
use part::Paths;

const MAGIC: [u8; 8] = *b"GXOBJ\0\0\x01";

/// Contents of which a part is kept; the oldest make room.
const PARTS_MAX: usize = 128;

/// Threads that read, hash and write one content at most: what a fast disk takes.
const PUT_THREADS_MAX: usize = 8;

/// What a store has of what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This, of a content that is whole here.
    Range(Range),
    /// This, and of the content these pieces; a map longer than [`PieceMap::BESIDE_MAX`] is left out.
    Part(Range, Option<PieceMap>),
    /// Other pieces of the content: these.
    OtherPieces(PieceMap),
    /// Nothing of the content.
    Nothing,
}

/// Who finds what the disk has changed.
#[derive(Clone, Copy)]
enum Check {
    /// The store, by its sums.
    Sums,
    /// Who reads.
    Reader,
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

/// A folder of objects; share it in an `Arc`.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    bytes_max: u64,
    // A std mutex, never held across an await. Renames and removals happen under it, writes and syncs of content do not.
    index: Mutex<Index>,
    // What is arriving. Never locked while `index` is.
    parts: Mutex<HashMap<Hash, Arc<Part>>>,
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
    /// Whether this process put it or has read all of it, and has found no damage since.
    intact: bool,
}

impl Index {
    fn insert(&mut self, id: Hash, len: u64, pinned: bool, intact: bool) {
        self.remove(&id);
        let age = self.next_age;
        self.next_age += 1;
        self.by_age.insert(age, id);
        self.objects.insert(id, Object { len, age, pinned, intact });
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
        for folder in ["objects", "pins", "tmp", "cuts", "parts", "sums"] {
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
            index.insert(id, len, pins.contains(&id), false);
        }
        let store = Self {
            root,
            bytes_max,
            index: Mutex::new(index),
            parts: Mutex::default(),
            _lock: lock,
        };
        store.clear_parts(PARTS_MAX)?;
        for folder in ["cuts", "sums"] {
            for path in entries(&store.root.join(folder))? {
                // An id is in the name before the dot, if there is one.
                if id(&path.with_extension("")).is_none_or(|id| !store.contains(&id)) {
                    remove_file(&path)?;
                }
            }
        }
        Ok(store)
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
        let (mut file, sums) = (self.temporary()?, self.temporary()?);
        let written =
            write_pieces(file.as_file(), sums.as_file(), content, len).and_then(|digest| {
                file.write_all(&header(len, &digest))?;
                sums.as_file().sync_all()?;
                file.as_file().sync_all()
            });
        written.map_err(io_error("write in", &self.root.join("tmp")))?;
        // There before its object is.
        place(sums, &self.sums_path(&id))?;
        self.install(id, len, |path| persist(file, path))?;
        self.forget_part(&id)
    }

    /// Makes room for an object and puts its file in its place.
    fn install(
        &self,
        id: Hash,
        len: u64,
        persist: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), StoreError> {
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
        persist(&path).map_err(io_error("rename to", &path))?;
        let pinned = self.pin_path(&id).exists();
        index.insert(id, len, pinned, true);
        drop(index);
        sync_folder(folder)
    }

    /// [`Store::put_content`] of a content whose pieces are asked for by their numbers.
    ///
    /// # Errors
    /// As there.
    pub fn put_cut<C: Content + ?Sized>(
        &self,
        id: Hash,
        content: &C,
        cut: &Cut,
    ) -> Result<(), StoreError> {
        let (mut file, sums) = (self.temporary()?, self.temporary()?);
        let bytes = cut.to_bytes();
        let mut write = || {
            file.write_all(&bytes)?;
            sums::write(sums.as_file(), &bytes, 0)?;
            sums.as_file().sync_all()?;
            file.as_file().sync_all()
        };
        write().map_err(io_error("write in", &self.root.join("tmp")))?;
        place(sums, &self.cut_sums_path(&id))?;
        place(file, &self.cut_path(&id))?;
        self.put_content(id, content)
    }

    /// The part of the content `id` with these slots: what is here of it, from earlier or an earlier process, or an empty one.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn part(&self, id: Hash, slots: Vec<Slot>) -> Result<Arc<Part>, StoreError> {
        let mut parts = self.parts();
        if let Some(part) = parts.get(&id).filter(|part| part.slots() == slots) {
            return Ok(part.clone());
        }
        parts.remove(&id);
        drop(parts);
        self.clear_parts(PARTS_MAX - 1)?;
        let folder = self.root.join("parts");
        let part =
            Part::open(Paths::new(&folder, &id), slots).map_err(io_error("open in", &folder))?;
        Ok(self.parts().entry(id).or_insert_with(|| Arc::new(part)).clone())
    }

    /// Whether something of the content `id` is here that is not whole.
    pub fn has_part(&self, id: &Hash) -> bool {
        self.parts().contains_key(id)
    }

    /// Makes a part that is whole the object `id`: the content of `byte_len` bytes that begins with `head` and is cut as `cut` says.
    /// Without a cut it is not written again.
    ///
    /// # Errors
    /// As [`Store::put_content`]; the part stays. Of what is not whole, [`StoreError::Damaged`].
    pub fn finish(
        &self,
        id: Hash,
        part: &Part,
        head: &[u8],
        cut: Option<&Cut>,
        byte_len: u64,
    ) -> Result<(), StoreError> {
        let content =
            Assembled::new(part, head, cut, byte_len).ok_or(StoreError::Damaged { id })?;
        let (data, Some(paths)) = part.files() else {
            return self.put_content(id, &content);
        };
        if let Some(cut) = cut {
            return self.put_cut(id, &content, cut);
        }
        self.room(&id, byte_len)?;
        let sums = self.temporary()?;
        let digest = hash_pieces(sums.as_file(), &content, byte_len);
        let written = digest.and_then(|digest| {
            data.write_all_at(&header(byte_len, &digest), 0)?;
            sums.as_file().sync_all()?;
            data.sync_all()
        });
        written.map_err(io_error("write to", &paths.data))?;
        place(sums, &self.sums_path(&id))?;
        self.install(id, byte_len, |path| fs::rename(&paths.data, path))?;
        self.forget_part(&id)
    }

    /// Forgets the part of the content `id`, on disk too. No effect if there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn forget_part(&self, id: &Hash) -> Result<(), StoreError> {
        self.parts().remove(id);
        let Paths { data, map } = Paths::new(&self.root.join("parts"), id);
        remove_file(&map)?;
        remove_file(&data)
    }

    /// Drops the parts of what is an object by now, and the oldest of more than `count_max` that nobody works with.
    fn clear_parts(&self, count_max: usize) -> Result<(), StoreError> {
        let mut found = Vec::new();
        for path in entries(&self.root.join("parts"))? {
            // An id is in the name before the dot.
            let Some(id) = id(&path.with_extension("")) else { continue };
            if self.contains(&id) {
                remove_file(&path)?;
            } else if path.extension().is_some_and(|extension| extension == "map") {
                let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
                found.push((modified.map_err(io_error("look at", &path))?, id));
            }
        }
        found.sort_unstable();
        let over = found.len().saturating_sub(count_max);
        for (_, id) in found.into_iter().take(over) {
            let is_idle = self.parts().get(&id).is_none_or(|part| Arc::strong_count(part) == 1);
            if is_idle {
                self.forget_part(&id)?;
            }
        }
        Ok(())
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
    /// [`StoreError::Damaged`] if a block of them, 16 KiB, is not what was put; [`StoreError::Io`].
    pub fn read_range(
        &self,
        id: &Hash,
        offset: u64,
        len: u32,
    ) -> Result<Option<Range>, StoreError> {
        self.range(id, offset, len, Check::Sums)
    }

    fn range(
        &self,
        id: &Hash,
        offset: u64,
        len: u32,
        check: Check,
    ) -> Result<Option<Range>, StoreError> {
        let Some(total_len) = self.len_of(id) else {
            return Ok(None);
        };
        let end = total_len.min(offset.saturating_add(len.into()));
        if offset >= end {
            return Ok(Some(Range { total_len, bytes: Bytes::new() }));
        }
        let path = self.object_path(id);
        // Dropped by a put between the look at the index and now, perhaps.
        let Some(file) = open(&path)? else { return Ok(None) };
        let sums = open_sums(&self.sums_path(id), check)?;
        let read = sums::read(&file, HEADER_LEN as u64, sums.as_ref(), offset..end);
        let bytes = read.map_err(io_error("read", &path))?;
        let bytes = bytes.ok_or_else(|| self.damaged(id))?;
        Ok(Some(Range { total_len, bytes }))
    }

    /// Notes that an object is damaged.
    fn damaged(&self, id: &Hash) -> StoreError {
        if let Some(object) = self.index().objects.get_mut(id) {
            object.intact = false;
        }
        StoreError::Damaged { id: *id }
    }

    /// Whether the object and its sums are what was put; what cannot be read is not. Reads all of them on several threads, unless this
    /// process has put them, or read them so, and no read has found damage since.
    pub fn is_intact(&self, id: &Hash) -> bool {
        let Some(Object { len, intact, .. }) = self.index().objects.get(id).copied() else {
            return false;
        };
        if intact {
            return true;
        }
        let read = || -> io::Result<bool> {
            let mut found = [0; HEADER_LEN];
            File::open(self.object_path(id))?.read_exact_at(&mut found, 0)?;
            let digest = each_piece(&Kept { store: self, id, len }, len, |_, _| Ok(()))?;
            Ok(found == header(len, &digest))
        };
        let is_it = read().unwrap_or(false);
        if let Some(object) = self.index().objects.get_mut(id) {
            object.intact = is_it;
        }
        is_it
    }

    /// What is here of a piece of a content: of an object that was put with a [`Cut`], or of a part.
    ///
    /// # Errors
    /// As [`Store::read_range`].
    pub fn read_piece(
        &self,
        id: &Hash,
        piece: u32,
        offset: u64,
        len: u32,
    ) -> Result<Found, StoreError> {
        self.piece(id, piece, offset, len, Check::Sums)
    }

    /// What is here of a content, as it is on disk now, for who knows what it should be: of one of its pieces, or else of all.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a file is shorter than it was; [`StoreError::Io`].
    pub fn find_unchecked(
        &self,
        id: &Hash,
        piece: Option<u32>,
        offset: u64,
        len: u32,
    ) -> Result<Found, StoreError> {
        match piece {
            Some(piece) => self.piece(id, piece, offset, len, Check::Reader),
            None => self.find(id, offset, len, Check::Reader),
        }
    }

    fn piece(
        &self,
        id: &Hash,
        piece: u32,
        offset: u64,
        len: u32,
        check: Check,
    ) -> Result<Found, StoreError> {
        let path = self.cut_path(id);
        let file = if self.contains(id) { open(&path)? } else { None };
        let Some(file) = file else {
            return self.read_part(id, |part| part.range_of(piece as usize, offset, len));
        };
        let at = u64::from(piece).saturating_mul(CUT_ENTRY_LEN as u64);
        let end = at.saturating_add(CUT_ENTRY_LEN as u64);
        if file.metadata().map_err(io_error("look at", &path))?.len() < end {
            return Ok(Found::Nothing);
        }
        let entry = self.read_cut(id, &file, at..end, check)?;
        let Some(spans) = Cut::entry(&entry, 0) else { return Ok(Found::Nothing) };
        let (total_len, wanted) = Cut::range(&spans, offset, len);
        let mut bytes = Vec::new();
        for span in wanted {
            match self.range(id, span.offset, span.len, check)? {
                Some(range) if range.bytes.len() == span.len as usize => {
                    bytes.extend_from_slice(&range.bytes)
                }
                Some(_) => return Err(StoreError::Damaged { id: *id }),
                None => return Ok(Found::Nothing),
            }
        }
        Ok(Found::Range(Range { total_len, bytes: bytes.into() }))
    }

    /// Where the pieces of an object lie that was put with a [`Cut`], as it is on disk; `None` of one without.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not what was put; [`StoreError::Io`].
    pub fn cut(&self, id: &Hash) -> Result<Option<Bytes>, StoreError> {
        let path = self.cut_path(id);
        let file = if self.contains(id) { open(&path)? } else { None };
        let Some(file) = file else { return Ok(None) };
        let len = file.metadata().map_err(io_error("look at", &path))?.len();
        self.read_cut(id, &file, 0..len, Check::Sums).map(Some)
    }

    /// A part of what says where an object's pieces lie, which has it.
    fn read_cut(
        &self,
        id: &Hash,
        file: &File,
        range: std::ops::Range<u64>,
        check: Check,
    ) -> Result<Bytes, StoreError> {
        let sums = open_sums(&self.cut_sums_path(id), check)?;
        let read = sums::read(file, 0, sums.as_ref(), range);
        let read = read.map_err(io_error("read", &self.cut_path(id)))?;
        read.ok_or_else(|| self.damaged(id))
    }

    /// The object as content that is read where it lies and checked ([`Store::read_range`]), or `None` without one.
    pub fn stored(self: &Arc<Self>, id: &Hash) -> Option<Stored> {
        let len = self.len_of(id)?;
        Some(Stored { store: self.clone(), id: *id, len })
    }

    /// What is here of a range of a content: of an object, or of a part if one piece of it has all of the range. No
    /// part has all of a range of no bytes: that asks which pieces are here.
    ///
    /// # Errors
    /// As [`Store::read_range`].
    pub fn find_range(&self, id: &Hash, offset: u64, len: u32) -> Result<Found, StoreError> {
        self.find(id, offset, len, Check::Sums)
    }

    fn find(&self, id: &Hash, offset: u64, len: u32, check: Check) -> Result<Found, StoreError> {
        match self.range(id, offset, len, check)? {
            Some(range) => Ok(Found::Range(range)),
            None => self.read_part(id, |part| part.range(offset, len)),
        }
    }

    fn read_part(
        &self,
        id: &Hash,
        read: impl FnOnce(&Part) -> io::Result<Option<Range>>,
    ) -> Result<Found, StoreError> {
        let part = self.parts().get(id).cloned();
        let Some(part) = part else { return Ok(Found::Nothing) };
        let found = read(&part).map_err(io_error("read in", &self.root.join("parts")))?;
        Ok(match found {
            Some(range) => Found::Part(range, part.short_map()),
            None => Found::OtherPieces(part.map()),
        })
    }

    /// The object's content, mapped into memory: what is not looked at is not read. `None` without one, or if the file is not what it
    /// was.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn map(&self, id: &Hash) -> Result<Option<Bytes>, StoreError> {
        let Some(len) = self.len_of(id) else {
            return Ok(None);
        };
        let path = self.object_path(id);
        let Some(file) = open(&path)? else { return Ok(None) };
        // SAFETY: an object's file is replaced and removed, never written, and this process alone has the folder.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io_error("map", &path))?;
        let is_whole = map.len() as u64 == len.saturating_add(HEADER_LEN as u64);
        Ok(is_whole.then(|| Bytes::from_owner(map).slice(HEADER_LEN..)))
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

    fn cut_path(&self, id: &Hash) -> PathBuf {
        self.root.join("cuts").join(hex::encode(id))
    }

    /// The sums of the object.
    fn sums_path(&self, id: &Hash) -> PathBuf {
        self.root.join("sums").join(hex::encode(id))
    }

    /// The sums of its cut.
    fn cut_sums_path(&self, id: &Hash) -> PathBuf {
        self.sums_path(id).with_extension("cut")
    }

    fn temporary(&self) -> Result<NamedTempFile, StoreError> {
        let folder = self.root.join("tmp");
        NamedTempFile::new_in(&folder).map_err(io_error("create in", &folder))
    }

    fn parts(&self) -> MutexGuard<'_, HashMap<Hash, Arc<Part>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
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
        let files = [self.cut_path(id), self.object_path(id)];
        for path in files.into_iter().chain([self.cut_sums_path(id), self.sums_path(id)]) {
            remove_file(&path)?;
        }
        Ok(index.remove(id).is_some())
    }

    fn read(&self, id: &Hash) -> Result<Option<(blake3::Hash, Bytes)>, StoreError> {
        let Some(len) = self.len_of(id) else {
            return Ok(None);
        };
        let path = self.object_path(id);
        let Some(mut file) = open(&path)? else { return Ok(None) };
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

/// An object of a store as content ([`Store::stored`]): what the disk has changed, or the store has dropped, it has not.
#[derive(Clone, Debug)]
pub struct Stored {
    store: Arc<Store>,
    id: Hash,
    len: u64,
}

impl Content for Stored {
    fn byte_len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let Self { store, id, len } = self;
        Kept { store, id, len: *len }.read(offset, into)
    }
}

/// The same for as long as a call lasts.
struct Kept<'a> {
    store: &'a Store,
    id: &'a Hash,
    len: u64,
}

impl Content for Kept<'_> {
    fn byte_len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let len = u32::try_from(into.len()).unwrap_or(u32::MAX);
        match self.store.read_range(self.id, offset, len) {
            Ok(range) => range.map_or(0, |range| range.bytes.read(0, into)),
            Err(error) => {
                tracing::warn!(%error, "cannot read an object");
                0
            }
        }
    }
}

/// What stands before an object's content.
fn header(len: u64, digest: &Hash) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&len.to_le_bytes());
    header[16..].copy_from_slice(digest);
    header
}

/// Writes a content behind the place of the header, and its sums, from several threads; returns its BLAKE3.
fn write_pieces<C: Content + ?Sized>(
    file: &File,
    sums: &File,
    content: &C,
    len: u64,
) -> io::Result<Hash> {
    each_piece(content, len, |bytes, offset| {
        sums::write(sums, bytes, offset)?;
        file.write_all_at(bytes, offset.saturating_add(HEADER_LEN as u64))
    })
}

/// BLAKE3 of a content, whose sums it writes, from several threads.
fn hash_pieces<C: Content + ?Sized>(sums: &File, content: &C, len: u64) -> io::Result<Hash> {
    each_piece(content, len, |bytes, offset| sums::write(sums, bytes, offset))
}

/// Reads a content on several threads, hands over each MiB of it with its offset, and returns its BLAKE3.
fn each_piece<C: Content + ?Sized>(
    content: &C,
    len: u64,
    take: impl Fn(&[u8], u64) -> io::Result<()> + Sync,
) -> io::Result<Hash> {
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
            take(&buffer, offset)?;
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

/// The file, or `None` if there is none.
fn open(path: &Path) -> Result<Option<File>, StoreError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("open", path)(error)),
    }
}

/// The sums in a file, if there are any and they are wanted.
fn open_sums(path: &Path, check: Check) -> Result<Option<File>, StoreError> {
    match check {
        Check::Sums => open(path),
        Check::Reader => Ok(None),
    }
}

/// Puts a temporary file in its place.
fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// [`persist`], so that the file is there after a power cut.
fn place(file: NamedTempFile, path: &Path) -> Result<(), StoreError> {
    persist(file, path).map_err(io_error("rename to", path))?;
    sync_folder(parent(path))
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
