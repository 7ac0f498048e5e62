//! The files that hold a checkpoint's values: as many as there are ranks, each written by one thread, and read together
//! by any number of them.
//!
//! A file has spans one behind the other: so many values of a [`Section`] from a place on, as f32 or, of averages that
//! a device keeps so, as bf16. Which spans a file has is in its [`PartNote`]; that the spans of all files together are
//! each section once and whole is checked when they are written, and when they are read.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use protocol::content_hash::PIECE_BYTES;
use protocol::layout::CHUNK_LEN;
use serde::{Deserialize, Serialize};

use super::hashing::{Hashing, Pieces, BUFFER};
use crate::compute::threads::Threads;
use crate::engine::learner::Lent;

/// Values that are converted at a time.
const BLOCK: usize = 16 * 1024;

/// What values are, in the order in which they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Section {
    /// θ.
    Parameters,
    /// The average of gradients.
    Mean,
    /// The average of their squares, without tensors that Muon trains.
    Square,
    /// A miner's error feedback.
    Feedback,
}

impl Section {
    pub(super) const ALL: [Self; 4] = [Self::Parameters, Self::Mean, Self::Square, Self::Feedback];
}

/// A file that could not be written or read.
#[derive(Debug)]
pub(super) struct PartError {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PartError + '_ {
    move |source| PartError { path: path.to_owned(), source }
}

/// Values one behind the other: the section's number, whether they are bf16, which is the first, how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Span(u8, bool, u64, u64);

impl Span {
    fn bytes(self) -> Option<u64> {
        self.3.checked_mul(if self.1 { 2 } else { 4 })
    }
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartNote {
    bytes: u64,
    /// BLAKE3.
    hash: [u8; 32],
    spans: Vec<Span>,
}

/// One file that is being written.
struct Part {
    path: PathBuf,
    out: Hashing,
    spans: Vec<Span>,
}

impl Part {
    fn put(&mut self, section: Section, first: u64, values: Lent<'_>) -> io::Result<()> {
        let (halves, len) = match values {
            Lent::F32(values) => (false, values.len() as u64),
            Lent::Bf16(values) => (true, values.len() as u64),
        };
        let number = section as u8;
        match self.spans.last_mut() {
            Some(Span(known, known_halves, start, so_far))
                if *known == number && *known_halves == halves && *start + *so_far == first =>
            {
                *so_far += len;
            }
            _ if len > 0 => self.spans.push(Span(number, halves, first, len)),
            _ => {}
        }
        match values {
            Lent::F32(values) => self.write(values, |value| value.to_le_bytes()),
            Lent::Bf16(values) => self.write(values, |value| value.to_le_bytes()),
        }
    }

    fn write<T: Copy, const N: usize>(
        &mut self,
        values: &[T],
        bytes_of: impl Fn(T) -> [u8; N],
    ) -> io::Result<()> {
        let mut buffer = [0u8; BLOCK * 4];
        for block in values.chunks(BLOCK) {
            let bytes = &mut buffer[..block.len() * N];
            for (bytes, value) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(block) {
                *bytes = bytes_of(*value);
            }
            self.out.write_all(bytes)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<PartNote, PartError> {
        let (bytes, hash) = self.out.finish().map_err(at(&self.path))?;
        Ok(PartNote { bytes, hash, spans: self.spans })
    }
}

/// The files of a checkpoint that is being written.
pub(crate) struct Parts {
    parts: Vec<Mutex<Part>>,
    failed: Mutex<Option<PartError>>,
}

impl Parts {
    /// Makes the files; several of them hash each on its own thread, one on all of `threads`.
    pub(super) fn create(paths: Vec<PathBuf>, threads: &Threads) -> Result<Self, PartError> {
        let threads = if paths.len() > 1 { Threads::single() } else { threads.clone() };
        let pieces = (BUFFER / PIECE_BYTES / paths.len().max(1)).max(1);
        let create = |path: PathBuf| {
            let file = File::create(&path).map_err(at(&path))?;
            let out = Hashing::new(file, threads.clone(), pieces * PIECE_BYTES);
            Ok(Mutex::new(Part { path, out, spans: Vec::new() }))
        };
        let parts = paths.into_iter().map(create).collect::<Result<_, _>>()?;
        Ok(Self { parts, failed: Mutex::new(None) })
    }

    /// Writes values of a section, of which they are number `first` and what follows, to a file. Breaks once anything
    /// has failed; why is said at the end.
    pub(crate) fn put(
        &self,
        part: usize,
        section: Section,
        first: u64,
        values: Lent<'_>,
    ) -> ControlFlow<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_some() {
            return ControlFlow::Break(());
        }
        drop(failed);
        let Some(part) = self.parts.get(part) else { return ControlFlow::Break(()) };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(source) = part.put(section, first, values) else {
            return ControlFlow::Continue(());
        };
        failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert(PartError { path: part.path.clone(), source });
        ControlFlow::Break(())
    }

    /// Writes all of a section that lies on the host: an equal part to each file, at once.
    pub(crate) fn put_all(&self, section: Section, values: &[f32]) {
        let each = values.len().div_ceil(self.parts.len().max(1));
        let each = each.next_multiple_of(CHUNK_LEN as usize).max(1);
        let put = |part: usize, values: &[f32]| {
            // Why it ends early is said at the end.
            let _ = self.put(part, section, (part * each) as u64, Lent::F32(values));
        };
        if let [_] = self.parts[..] {
            return put(0, values);
        }
        thread::scope(|scope| {
            for (part, values) in values.chunks(each).enumerate() {
                scope.spawn(move || put(part, values));
            }
        });
    }

    /// Brings all files to the disk, at once; what they hold.
    pub(super) fn finish(self) -> Result<Vec<PartNote>, PartError> {
        if let Some(error) = self.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let parts = self.parts.into_iter();
        let mut parts: Vec<Part> =
            parts.map(|part| part.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        let Some(last) = parts.pop() else { return Ok(Vec::new()) };
        thread::scope(|scope| {
            let start = |part: Part| {
                let path = part.path.clone();
                (path, scope.spawn(move || part.finish()))
            };
            let threads: Vec<_> = parts.into_iter().map(start).collect();
            let last = last.finish();
            let join = |(path, thread): (PathBuf, thread::ScopedJoinHandle<'_, _>)| {
                let panicked = || at(&path)(io::Error::other("its thread panicked"));
                thread.join().unwrap_or_else(|_| Err(panicked()))
            };
            threads.into_iter().map(join).chain([last]).collect()
        })
    }
}

/// Where a span is.
#[derive(Clone, Copy, Debug)]
struct Place {
    first: u64,
    len: u64,
    halves: bool,
    part: usize,
    /// Its first byte in the file.
    offset: u64,
}

/// Where all values are, section by section in their order.
#[derive(Debug)]
pub(super) struct Index([Vec<Place>; 4]);

impl Index {
    /// `None` unless the spans are every section once and whole, and the files as long as their spans.
    pub(super) fn new(notes: &[PartNote], lens: [u64; 4]) -> Option<Self> {
        let mut places: [Vec<Place>; 4] = Default::default();
        for (part, note) in notes.iter().enumerate() {
            let mut offset = 0u64;
            for span in &note.spans {
                let Span(section, halves, first, len) = *span;
                let place = Place { first, len, halves, part, offset };
                places.get_mut(usize::from(section))?.push(place);
                offset = offset.checked_add(span.bytes()?)?;
            }
            if offset != note.bytes {
                return None;
            }
        }
        for (places, len) in places.iter_mut().zip(lens) {
            places.sort_by_key(|place| place.first);
            let end = places.iter().try_fold(0u64, |end, place| {
                (place.first == end).then_some(end)?.checked_add(place.len)
            });
            if end != Some(len) {
                return None;
            }
        }
        Some(Self(places))
    }
}

/// The files of a checkpoint that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    files: Vec<(PathBuf, File)>,
    index: Index,
}

impl Reading {
    /// Opens the files and checks their hashes; says what is wrong where something is.
    pub(super) fn open(
        paths: Vec<PathBuf>,
        notes: &[PartNote],
        index: Index,
        threads: &Threads,
    ) -> Result<Self, String> {
        let named = |path: &Path, what: &dyn Display| format!("{}: {what}", path.display());
        let mut files = Vec::with_capacity(notes.len());
        // All at first: who replaces them while they are read takes their names alone.
        for path in paths.into_iter().take(notes.len()) {
            let file = File::open(&path).map_err(|error| named(&path, &error))?;
            files.push((path, file));
        }
        for ((path, file), note) in files.iter().zip(notes) {
            if !is_whole(file, note, threads).map_err(|error| named(path, &error))? {
                return Err(named(path, &"the hash does not match"));
            }
        }
        Ok(Self { files, index })
    }

    /// Reads values of a section from number `first` on.
    pub(super) fn read(
        &self,
        section: Section,
        mut first: u64,
        mut values: &mut [f32],
    ) -> Result<(), PartError> {
        let places = &self.index.0[section as usize];
        let mut number = places.partition_point(|place| place.first + place.len <= first);
        while !values.is_empty() {
            let place = places.get(number);
            let file = place.and_then(|place| self.files.get(place.part));
            let (Some(place), Some((path, file))) = (place, file) else {
                let source = io::Error::other("it does not have so many values");
                return Err(PartError { path: PathBuf::new(), source });
            };
            let skipped = first - place.first;
            let count = values.len().min((place.len - skipped) as usize);
            let (now, rest) = values.split_at_mut(count);
            read_values(file, place, skipped, now).map_err(at(path))?;
            (values, first, number) = (rest, first + count as u64, number + 1);
        }
        Ok(())
    }
}

/// Whether a file is as its note says.
fn is_whole(file: &File, note: &PartNote, threads: &Threads) -> io::Result<bool> {
    if file.metadata()?.len() != note.bytes {
        return Ok(false);
    }
    let mut pieces = Pieces::new(threads.clone());
    let mut buffer = Vec::new();
    while pieces.len() < note.bytes {
        buffer.resize((note.bytes - pieces.len()).min(BUFFER as u64) as usize, 0);
        file.read_exact_at(&mut buffer, pieces.len())?;
        pieces.add(&buffer);
    }
    Ok(pieces.finish()? == note.hash)
}

fn read_values(file: &File, place: &Place, skipped: u64, values: &mut [f32]) -> io::Result<()> {
    let size = if place.halves { 2 } else { 4 };
    let mut offset = place.offset + skipped * size as u64;
    let mut buffer = vec![0u8; BLOCK * size];
    for block in values.chunks_mut(BLOCK) {
        let bytes = &mut buffer[..block.len() * size];
        file.read_exact_at(bytes, offset)?;
        offset += bytes.len() as u64;
        if place.halves {
            for (value, bytes) in block.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        } else {
            for (value, bytes) in block.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENS: [u64; 4] = [10_000, 10_000, 300, 0];

    fn paths(folder: &Path, count: usize) -> Vec<PathBuf> {
        (0..count).map(|part| folder.join(format!("part-{part}"))).collect()
    }

    fn values(section: Section) -> Vec<f32> {
        let len = LENS[section as usize];
        // bf16 holds them.
        (0..len).map(|index| (index % 250) as f32 + 256.0 * section as u8 as f32).collect()
    }

    fn write(folder: &Path, count: usize) -> Vec<PartNote> {
        let parts = Parts::create(paths(folder, count), &Threads::single()).unwrap();
        parts.put_all(Section::Parameters, &values(Section::Parameters));
        parts.put_all(Section::Mean, &values(Section::Mean));
        let squares = values(Section::Square);
        let halves: Vec<u16> = squares.iter().map(|value| (value.to_bits() >> 16) as u16).collect();
        // The last part has what comes first.
        let (start, end) = halves.split_at(100);
        for (part, first, values) in [(count - 1, 0, start), (0, 100, end)] {
            assert!(parts.put(part, Section::Square, first, Lent::Bf16(values)).is_continue());
        }
        parts.finish().unwrap()
    }

    #[test]
    fn what_any_number_of_parts_hold_is_read_in_any_pieces() {
        for count in [1, 2, 3, 8] {
            let folder = tempfile::tempdir().unwrap();
            let notes = write(folder.path(), count);
            let index = Index::new(&notes, LENS).unwrap();
            let paths = paths(folder.path(), count);
            let reading = Reading::open(paths, &notes, index, &Threads::single()).unwrap();
            for section in [Section::Parameters, Section::Mean, Section::Square] {
                let expected: Vec<f32> = match section {
                    Section::Square => values(section)
                        .iter()
                        .map(|value| f32::from_bits(value.to_bits() >> 16 << 16))
                        .collect(),
                    _ => values(section),
                };
                for piece in [97, 4_096, 10_000] {
                    let mut read = vec![0.0f32; expected.len()];
                    for (number, part) in read.chunks_mut(piece).enumerate() {
                        reading.read(section, (number * piece) as u64, part).unwrap();
                    }
                    assert_eq!(read, expected, "{count} parts, {piece} at once");
                }
            }
            assert!(reading.read(Section::Feedback, 0, &mut [0.0]).is_err());
        }
    }

    #[test]
    fn spans_that_are_not_all_of_a_section_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let notes = write(folder.path(), 2);
        assert!(Index::new(&notes[..1], LENS).is_none());
        assert!(Index::new(&notes, [10_000, 10_000, 301, 0]).is_none());
        assert!(Index::new(&notes, [10_000, 10_000, 300, 1]).is_none());
        let change = |change: &dyn Fn(&mut PartNote)| {
            let mut changed = notes.clone();
            change(&mut changed[0]);
            Index::new(&changed, LENS).is_none()
        };
        assert!(change(&|note| note.bytes += 1));
        assert!(change(&|note| note.spans[0].0 = 4));
        assert!(change(&|note| note.spans[0].2 = 1));
        assert!(change(&|note| note.spans[0].3 = u64::MAX));
    }

    #[test]
    fn a_disk_that_fails_is_named_at_the_end() {
        // A device that is always full.
        let full = PathBuf::from("/dev/full");
        let folder = tempfile::tempdir().unwrap();
        let paths = vec![folder.path().join("good"), full.clone()];
        let parts = Parts::create(paths, &Threads::single()).unwrap();
        // More than is held back.
        parts.put_all(Section::Parameters, &vec![1.0; 8 << 20]);
        assert!(parts.put(0, Section::Mean, 0, Lent::F32(&[1.0])).is_break());
        assert_eq!(parts.finish().unwrap_err().path, full);
    }
}
