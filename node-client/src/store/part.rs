//! Keeps what has come of a content, piece by piece, until all of it has.
//!
//! A part is two files: a sparse one, in which each piece has its slot, and a map of the bytes that each slot holds, 0 for none. The map is
//! written after the data, and both are synced every [`SYNC_BYTES`], so that a `kill -9` loses the pieces on their way and a power
//! cut as much as that besides. What an earlier process left is not trusted: a piece is served, and counts, when it has been checked
//! again ([`Part::confirm`]).

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        Mutex, MutexGuard, PoisonError,
    },
};

use bytes::Bytes;
use protocol::Hash;

use super::{
    content::{Content, Cut, Range, Span, HEADER_LEN},
    piece_map::PieceMap,
};

/// Bytes that may be lost to a power cut.
pub const SYNC_BYTES: u64 = 64 << 20;

const MAGIC: [u8; 8] = *b"GXPART\0\x01";

/// Magic and BLAKE3 of the slots; then a `u32`, little endian, for each slot.
const MAP_HEADER_LEN: usize = 8 + 32;

/// Where a piece is kept: the first byte, and the most bytes it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Counted from the part's first byte. Slots are in ascending order and do not overlap.
    pub offset: u64,
    /// At most so many bytes.
    pub len_max: u32,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// Bytes; 0 for none.
    len: u32,
    is_checked: bool,
}

/// A content of which pieces are still to come; shared in an `Arc`.
#[derive(Debug)]
pub struct Part {
    slots: Vec<Slot>,
    data: File,
    /// The map, and where both files are; `None` for a part that ends with the process.
    named: Option<(File, Paths)>,
    // Held for a look or a change, never while files are read or written.
    kept: Mutex<Vec<Kept>>,
    unsynced: AtomicU64,
}

/// The two files of a part.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) data: PathBuf,
    pub(super) map: PathBuf,
}

impl Paths {
    pub(super) fn new(folder: &Path, id: &Hash) -> Self {
        let name = hex::encode(id);
        Self { data: folder.join(format!("{name}.data")), map: folder.join(format!("{name}.map")) }
    }
}

impl Part {
    /// A part that nothing of is left when it is dropped.
    ///
    /// # Errors
    /// The folder for temporary files is not writable.
    pub fn unnamed(slots: Vec<Slot>) -> io::Result<Self> {
        let kept = Mutex::new(vec![Kept::default(); slots.len()]);
        Ok(Self { data: tempfile::tempfile()?, named: None, kept, unsynced: 0.into(), slots })
    }

    /// The part in these files with what it holds, or an empty one where they are missing or of other slots.
    pub(super) fn open(paths: Paths, slots: Vec<Slot>) -> io::Result<Self> {
        let open = |path| {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
        };
        let (data, map): (File, File) = (open(&paths.data)?, open(&paths.map)?);
        let mut header = [0; MAP_HEADER_LEN];
        header[..8].copy_from_slice(&MAGIC);
        header[8..].copy_from_slice(digest(&slots).as_bytes());
        let map_len = MAP_HEADER_LEN as u64 + 4 * slots.len() as u64;
        let mut found = vec![0; usize::try_from(map_len).unwrap_or(usize::MAX)];
        let is_ours = map.metadata()?.len() == map_len
            && map.read_exact_at(&mut found, 0).is_ok()
            && found[..MAP_HEADER_LEN] == header;
        if !is_ours {
            data.set_len(0)?;
            map.set_len(0)?;
            map.set_len(map_len)?;
            map.write_all_at(&header, 0)?;
            found.fill(0);
        }
        let lens =
            found[MAP_HEADER_LEN..].as_chunks::<4>().0.iter().copied().map(u32::from_le_bytes);
        let kept = slots
            .iter()
            .zip(lens)
            .map(|(slot, len)| Kept { len: len.min(slot.len_max), is_checked: false });
        let kept = Mutex::new(kept.collect());
        Ok(Self { data, named: Some((map, paths)), kept, unsynced: 0.into(), slots })
    }

    /// Where its pieces are kept.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Bytes of piece `index`, checked or not; `None` if it is not here.
    pub fn len_of(&self, index: usize) -> Option<u32> {
        let len = self.kept().get(index)?.len;
        (len > 0).then_some(len)
    }

    /// Whether piece `index` is here and was checked.
    pub fn has(&self, index: usize) -> bool {
        self.kept().get(index).is_some_and(|kept| kept.is_checked)
    }

    /// Which pieces are here and were checked.
    pub fn map(&self) -> PieceMap {
        PieceMap::of(self.kept().iter().map(|kept| kept.is_checked))
    }

    /// The same, if it is short enough to be sent beside a piece.
    pub fn short_map(&self) -> Option<PieceMap> {
        let is_short = self.kept().len().div_ceil(8) <= PieceMap::BESIDE_MAX;
        is_short.then(|| self.map())
    }

    /// Whether all pieces are here and were checked.
    pub fn is_whole(&self) -> bool {
        self.kept().iter().all(|kept| kept.is_checked)
    }

    /// The bytes of piece `index`, checked or not; `None` if it is not here.
    ///
    /// # Errors
    /// The disk failed.
    pub fn read(&self, index: usize) -> io::Result<Option<Bytes>> {
        match self.len_of(index) {
            Some(len) => self.read_within(index, 0, len).map(Some),
            None => Ok(None),
        }
    }

    /// Says of a piece that is here whether it is right. One that is not is forgotten.
    pub fn confirm(&self, index: usize, is_right: bool) {
        if let Some(kept) = self.kept().get_mut(index) {
            *kept = Kept {
                len: if is_right { kept.len } else { 0 },
                is_checked: is_right && kept.len > 0,
            };
        }
    }

    /// Keeps piece `index`, which has been checked.
    ///
    /// # Errors
    /// It has no bytes or more than its slot, or the disk failed.
    pub fn write(&self, index: usize, bytes: &[u8]) -> io::Result<()> {
        let slot = self.slots.get(index).ok_or(io::ErrorKind::InvalidInput)?;
        let len = u32::try_from(bytes.len()).ok().filter(|len| (1..=slot.len_max).contains(len));
        let len = len.ok_or(io::ErrorKind::InvalidInput)?;
        self.data.write_all_at(bytes, HEADER_LEN as u64 + slot.offset)?;
        if let Some((map, _)) = &self.named {
            map.write_all_at(&len.to_le_bytes(), MAP_HEADER_LEN as u64 + 4 * index as u64)?;
        }
        if let Some(kept) = self.kept().get_mut(index) {
            *kept = Kept { len, is_checked: true };
        }
        let unsynced = self.unsynced.fetch_add(u64::from(len), Ordering::Relaxed);
        if unsynced + u64::from(len) >= SYNC_BYTES {
            self.unsynced.store(0, Ordering::Relaxed);
            self.sync()?;
        }
        Ok(())
    }

    /// What is here of `len` bytes from `offset` on of piece `index`, and the bytes of that piece; `None` unless it is here and was
    /// checked.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn range_of(
        &self,
        index: usize,
        offset: u64,
        len: u32,
    ) -> io::Result<Option<Range>> {
        let Some(whole) = self.len_of(index).filter(|_| self.has(index)) else {
            return Ok(None);
        };
        let wanted = u64::from(whole).saturating_sub(offset).min(u64::from(len));
        let bytes = self.read_within(index, offset, u32::try_from(wanted).unwrap_or_default())?;
        Ok(Some(Range { total_len: u64::from(whole), bytes }))
    }

    /// The same of a range of the whole content, whose slots follow each other; `None` unless one checked piece has all of it.
    pub(super) fn range(&self, offset: u64, len: u32) -> io::Result<Option<Range>> {
        let index = self.slots.partition_point(|slot| slot.offset <= offset).checked_sub(1);
        let Some((index, slot)) = index.and_then(|index| Some((index, self.slots.get(index)?)))
        else {
            return Ok(None);
        };
        let total_len = self.slots.last().map_or(0, |last| last.offset + u64::from(last.len_max));
        let within = offset - slot.offset;
        let range = self.range_of(index, within, len)?;
        let wanted = total_len.saturating_sub(offset).min(u64::from(len));
        let range = range.filter(|range| range.bytes.len() as u64 == wanted && wanted > 0);
        Ok(range.map(|range| Range { total_len, ..range }))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.data.sync_data()?;
        self.named.as_ref().map_or(Ok(()), |(map, _)| map.sync_data())
    }

    /// Its files, if it has names.
    pub(super) fn files(&self) -> (&File, Option<&Paths>) {
        (&self.data, self.named.as_ref().map(|(_, paths)| paths))
    }

    fn read_within(&self, index: usize, offset: u64, len: u32) -> io::Result<Bytes> {
        let slot = self.slots.get(index).ok_or(io::ErrorKind::InvalidInput)?;
        let mut bytes = vec![0; len as usize];
        self.data.read_exact_at(&mut bytes, HEADER_LEN as u64 + slot.offset + offset)?;
        Ok(bytes.into())
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(slots: &[Slot]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for slot in slots {
        hasher.update(&slot.offset.to_le_bytes());
        hasher.update(&slot.len_max.to_le_bytes());
    }
    hasher.finalize()
}

/// A part of which all is here, as the content it is of.
pub struct Assembled<'a> {
    part: &'a Part,
    /// Where each stretch of the content begins and where its bytes are, in order and without gaps.
    stretches: Vec<(u64, Source)>,
    head: &'a [u8],
    byte_len: u64,
}

#[derive(Clone, Copy)]
enum Source {
    Head,
    /// Of a piece, from this byte of it on.
    Piece(usize, u32),
}

impl<'a> Assembled<'a> {
    /// The content of `byte_len` bytes that begins with `head` and whose pieces lie as `cut` says, or one after the other without a cut.
    /// `None` if they do not fill it exactly.
    pub fn new(part: &'a Part, head: &'a [u8], cut: Option<&Cut>, byte_len: u64) -> Option<Self> {
        let mut parts: Vec<(Span, Source)> = Vec::new();
        if !head.is_empty() {
            parts.push((Span { offset: 0, len: u32::try_from(head.len()).ok()? }, Source::Head));
        }
        for (index, slot) in part.slots.iter().enumerate() {
            let len = part.len_of(index).filter(|_| part.has(index))?;
            let [first, second] = match cut {
                Some(cut) => *cut.0.get(index)?,
                None => [Span { offset: slot.offset, len }, Span::default()],
            };
            if first.len.checked_add(second.len)? != len {
                return None;
            }
            parts.push((first, Source::Piece(index, 0)));
            parts.push((second, Source::Piece(index, first.len)));
        }
        parts.retain(|(span, _)| span.len > 0);
        parts.sort_by_key(|(span, _)| span.offset);
        let mut end = 0;
        for (span, _) in &parts {
            if span.offset != end {
                return None;
            }
            end += u64::from(span.len);
        }
        let stretches = parts.into_iter().map(|(span, source)| (span.offset, source)).collect();
        (end == byte_len).then_some(Self { part, stretches, head, byte_len })
    }

    /// All of it in memory; `None` if the disk failed.
    pub fn to_bytes(&self) -> Option<Bytes> {
        let mut bytes = vec![0; usize::try_from(self.byte_len).ok()?];
        (self.read(0, &mut bytes) == bytes.len()).then(|| bytes.into())
    }

    /// Reads up to the end of the stretch in which `offset` lies.
    fn read_stretch(&self, offset: u64, into: &mut [u8]) -> Option<usize> {
        let at = self.stretches.partition_point(|(begin, _)| *begin <= offset).checked_sub(1)?;
        let (begin, source) = *self.stretches.get(at)?;
        let end = self.stretches.get(at + 1).map_or(self.byte_len, |(begin, _)| *begin);
        let len = into.len().min(usize::try_from(end.saturating_sub(offset)).ok()?);
        let within = offset - begin;
        let into = into.get_mut(..len)?;
        match source {
            Source::Head => {
                let within = usize::try_from(within).ok()?;
                into.copy_from_slice(self.head.get(within..within + len)?);
            }
            Source::Piece(index, first) => {
                let slot = self.part.slots.get(index)?;
                let offset = HEADER_LEN as u64 + slot.offset + u64::from(first) + within;
                self.part.data.read_exact_at(into, offset).ok()?;
            }
        }
        Some(len)
    }
}

impl Content for Assembled<'_> {
    fn byte_len(&self) -> u64 {
        self.byte_len
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let mut done = 0;
        while done < into.len() && offset + (done as u64) < self.byte_len {
            match self.read_stretch(offset + done as u64, &mut into[done..]) {
                Some(len) if len > 0 => done += len,
                _ => break,
            }
        }
        done
    }
}
