//! A data set that lies in an object store: samples are fetched when a window needs them.
//!
//! What is fetched are whole pieces, each checked against its hash before a token of it is used,
//! and kept in a folder of bounded size, from which the least recently used ones go. Which samples a
//! training will want is known beforehand (they are assigned, or follow from the step), so
//! [`crate::StreamedBatches`] fetches those of the next steps while one is computed.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use protocol::Hash;

use super::cache::PieceCache;
use super::store::RemoteStore;
use crate::error::{at, check_sample_len, DataError};
use crate::folder::{tokens, Dataset};
use crate::manifest::{
    hex, piece_hashes, samples_in, Manifest, ShardManifest, SplitManifest, MANIFEST,
    MANIFEST_BYTES_MAX,
};
use crate::samples::SampleSource;
use crate::tokens::{Tokens, PIECE_BYTES};

/// Pieces that are fetched together, and are in memory meanwhile.
const PIECES: usize = 16;

/// How often a piece is fetched that is not what the manifest says.
const ATTEMPTS: usize = 3;

/// A split of a data set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split {
    /// To train on.
    Train,
    /// Never trained on.
    HeldOut,
}

/// A data set in a store. Cloning shares it and its cache.
#[derive(Clone, Debug)]
pub struct RemoteDataset {
    store: RemoteStore,
    manifest: Arc<Manifest>,
    cache: Arc<PieceCache>,
    sample_len: usize,
    train: Arc<Cuts>,
    held_out: Arc<Cuts>,
}

/// How the files of a split are cut into samples.
#[derive(Debug)]
struct Cuts {
    /// Number of the first sample of each file.
    firsts: Vec<u64>,
    sample_count: u64,
}

impl Cuts {
    fn new(split: &SplitManifest, sample_len: usize) -> Arc<Self> {
        let mut sample_count = 0u64;
        let first = |shard: &ShardManifest| {
            let first = sample_count;
            sample_count = sample_count.saturating_add(samples_in(shard.token_count, sample_len));
            first
        };
        Arc::new(Self { firsts: split.shards.iter().map(first).collect(), sample_count })
    }

    /// The file of a sample, and the sample's number there.
    fn place(&self, id: u64) -> Option<(usize, u64)> {
        if id >= self.sample_count {
            return None;
        }
        let after = self.firsts.partition_point(|first| *first <= id);
        let shard = after.checked_sub(1)?;
        Some((shard, id - self.firsts.get(shard)?))
    }
}

/// A piece of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct PieceId {
    is_held_out: bool,
    shard: usize,
    piece: usize,
}

/// Bytes of a piece that belong to a sample.
struct Part {
    /// Index of the sample among those that are fetched.
    sample: usize,
    /// Where they start in the piece.
    from: usize,
    /// Where they start in the sample.
    to: usize,
    len: usize,
}

impl RemoteDataset {
    /// Reads the manifest and checks it against its root. Pieces will be kept in `cache_folder`, up
    /// to `cache_bytes_max` of them.
    ///
    /// # Errors
    /// The store fails, or what it has is no manifest.
    pub fn open(
        store: RemoteStore,
        cache_folder: &Path,
        cache_bytes_max: u64,
    ) -> Result<Self, DataError> {
        let uncached = Self::open_uncached(store)?;
        let folder = cache_folder.join(&uncached.manifest.root);
        Ok(Self { cache: Arc::new(PieceCache::open(&folder, cache_bytes_max)?), ..uncached })
    }

    /// [`RemoteDataset::open`] without a cache, to verify or copy.
    ///
    /// # Errors
    /// As there.
    pub fn open_uncached(store: RemoteStore) -> Result<Self, DataError> {
        let len = store.len(MANIFEST)?;
        let path = PathBuf::from(format!("{}/{MANIFEST}", store.url()));
        if len > MANIFEST_BYTES_MAX {
            return Err(DataError::FileLen { path, found: len, expected: MANIFEST_BYTES_MAX });
        }
        let manifest = Manifest::from_json(&store.read(MANIFEST, 0..len)?, &path)?;
        Ok(Self {
            store,
            cache: Arc::new(PieceCache::none()),
            sample_len: manifest.sample_len,
            train: Cuts::new(&manifest.train, manifest.sample_len),
            held_out: Cuts::new(&manifest.held_out, manifest.sample_len),
            manifest: Arc::new(manifest),
        })
    }

    /// The same data set with samples of `sample_len` tokens, those of
    /// [`Dataset::open_with_sample_len`].
    ///
    /// # Errors
    /// A sample cannot have so many tokens.
    pub fn with_sample_len(self, sample_len: usize) -> Result<Self, DataError> {
        check_sample_len(sample_len)?;
        Ok(Self {
            sample_len,
            train: Cuts::new(&self.manifest.train, sample_len),
            held_out: Cuts::new(&self.manifest.held_out, sample_len),
            ..self
        })
    }

    /// What the data set consists of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The root that goes on chain.
    pub fn root(&self) -> Hash {
        self.manifest.hash()
    }

    /// Bytes of the pieces that are kept on this machine.
    pub fn cached_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Samples of a split.
    pub fn sample_count(&self, split: Split) -> u64 {
        self.cuts(split).sample_count
    }

    /// Bytes of the files of both splits.
    pub fn bytes(&self) -> u64 {
        let tokens = self.manifest.train.token_count + self.manifest.held_out.token_count;
        tokens * self.manifest.token_bytes() as u64
    }

    fn cuts(&self, split: Split) -> &Cuts {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }

    fn split(&self, is_held_out: bool) -> &SplitManifest {
        match is_held_out {
            true => &self.manifest.held_out,
            false => &self.manifest.train,
        }
    }

    /// These samples, from the cache or the store.
    ///
    /// # Errors
    /// There is no such sample; the store fails; or what it has is not what the manifest says,
    /// which [`DataError::Corrupt`] names.
    pub fn fetch(&self, split: Split, ids: &[u64]) -> Result<FetchedSamples, DataError> {
        let token_bytes = self.manifest.token_bytes();
        let sample_bytes = (self.sample_len + 1) * token_bytes;
        let mut parts: BTreeMap<PieceId, Vec<Part>> = BTreeMap::new();
        for (index, &id) in ids.iter().enumerate() {
            self.add_parts(split, id, index, sample_bytes, &mut parts)?;
        }
        // Words of four bytes, so that tokens of any size are aligned.
        let mut samples = vec![vec![0u32; sample_bytes.div_ceil(4)]; ids.len()];
        let pieces: Vec<PieceId> = parts.keys().copied().collect();
        for pieces in pieces.chunks(PIECES) {
            for (piece, bytes) in pieces.iter().zip(self.pieces(pieces)?) {
                for part in parts.get(piece).into_iter().flatten() {
                    let sample: &mut [u8] = bytemuck::cast_slice_mut(&mut samples[part.sample]);
                    sample[part.to..part.to + part.len]
                        .copy_from_slice(&bytes[part.from..part.from + part.len]);
                }
            }
        }
        Ok(FetchedSamples {
            sample_len: self.sample_len,
            sample_count: self.sample_count(split),
            token_bytes,
            end_of_document: self.manifest.end_of_document(),
            samples: ids.iter().copied().zip(samples).collect(),
        })
    }

    /// Which parts of which pieces make a sample.
    fn add_parts(
        &self,
        split: Split,
        id: u64,
        index: usize,
        sample_bytes: usize,
        parts: &mut BTreeMap<PieceId, Vec<Part>>,
    ) -> Result<(), DataError> {
        let is_held_out = split == Split::HeldOut;
        let (shard, inside) = self.cuts(split).place(id).ok_or_else(|| {
            let count = self.sample_count(split);
            DataError::Settings(format!("there is no sample {id}: the data set has {count}"))
        })?;
        let sample_step = (self.sample_len * self.manifest.token_bytes()) as u64;
        let mut from = inside * sample_step;
        let mut to = 0;
        while to < sample_bytes {
            let piece = (from / PIECE_BYTES as u64) as usize;
            let start = (from % PIECE_BYTES as u64) as usize;
            let len = (PIECE_BYTES - start).min(sample_bytes - to);
            let id = PieceId { is_held_out, shard, piece };
            parts.entry(id).or_default().push(Part { sample: index, from: start, to, len });
            from += len as u64;
            to += len;
        }
        Ok(())
    }

    /// Checked pieces, in order.
    fn pieces(&self, wanted: &[PieceId]) -> Result<Vec<Bytes>, DataError> {
        let mut found: Vec<Option<Bytes>> = wanted
            .iter()
            .map(|piece| self.cache.get(&self.name(piece), &self.hash(piece)))
            .collect();
        for attempt in 1..=ATTEMPTS {
            let missing: Vec<usize> = (0..wanted.len()).filter(|&i| found[i].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            let ranges = missing.iter().map(|&index| self.range(&wanted[index]));
            let fetched = self.store.read_all(&ranges.collect::<Vec<_>>())?;
            for (index, bytes) in missing.into_iter().zip(fetched) {
                let piece = &wanted[index];
                if hex(blake3::hash(&bytes).into()) == self.hash(piece) {
                    self.cache.put(&self.name(piece), &bytes);
                    found[index] = Some(bytes);
                } else if attempt == ATTEMPTS {
                    let file = &self.shard(piece).file;
                    return Err(DataError::Corrupt {
                        path: PathBuf::from(format!("{}/{file}", self.store.url())),
                        offset: (piece.piece * PIECE_BYTES) as u64,
                    });
                }
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    fn shard(&self, piece: &PieceId) -> &ShardManifest {
        &self.split(piece.is_held_out).shards[piece.shard]
    }

    fn hash(&self, piece: &PieceId) -> String {
        let pieces = &self.shard(piece).pieces;
        pieces.get(piece.piece).cloned().unwrap_or_default()
    }

    fn name(&self, piece: &PieceId) -> String {
        format!("{}.{:06}", self.shard(piece).file, piece.piece)
    }

    fn range(&self, piece: &PieceId) -> (&str, std::ops::Range<u64>) {
        let shard = self.shard(piece);
        let len = shard.token_count * self.manifest.token_bytes() as u64;
        let start = (piece.piece * PIECE_BYTES) as u64;
        (&shard.file, start..len.min(start + PIECE_BYTES as u64))
    }

    /// Checks every piece of the data set in the store, without keeping any; calls `observe` with
    /// the bytes of each file that was found whole.
    ///
    /// # Errors
    /// [`DataError::Corrupt`] names the first damaged piece.
    pub fn verify(&self, observe: &mut dyn FnMut(u64)) -> Result<(), DataError> {
        self.each_file(|_, _| Ok(None), observe)
    }

    /// Copies the data set into a folder and opens it. Files that are there and whole are kept, so
    /// a copy that was interrupted goes on.
    ///
    /// # Errors
    /// The store or the disk fails, or a piece is not what the manifest says.
    pub fn download(
        &self,
        folder: &Path,
        observe: &mut dyn FnMut(u64),
    ) -> Result<Dataset, DataError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let target = |shard: &ShardManifest, len: u64| {
            let path = folder.join(&shard.file);
            let is_there = fs::metadata(&path).is_ok_and(|data| data.len() == len);
            let is_whole =
                is_there && fs::read(&path).is_ok_and(|b| piece_hashes(&b) == shard.pieces);
            Ok(Some((path, is_whole)))
        };
        self.each_file(target, observe)?;
        let mut manifest = Manifest::clone(&self.manifest);
        manifest.write(folder)?;
        Dataset::open(folder)
    }

    /// Reads and checks all files, and writes each where `target` says, unless it is whole there.
    fn each_file(
        &self,
        target: impl Fn(&ShardManifest, u64) -> Result<Option<(PathBuf, bool)>, DataError>,
        observe: &mut dyn FnMut(u64),
    ) -> Result<(), DataError> {
        for is_held_out in [false, true] {
            for (shard, manifest) in self.split(is_held_out).shards.iter().enumerate() {
                let len = manifest.token_count * self.manifest.token_bytes() as u64;
                match target(manifest, len)? {
                    Some((_, true)) => {}
                    Some((path, false)) => {
                        let part = path.with_extension("bin.part");
                        let mut file = File::create(&part).map_err(at(&part))?;
                        let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(at(&part));
                        self.each_piece(is_held_out, shard, &mut write)?;
                        file.sync_all().map_err(at(&part))?;
                        fs::rename(&part, &path).map_err(at(&path))?;
                    }
                    None => self.each_piece(is_held_out, shard, &mut |_| Ok(()))?,
                }
                observe(len);
            }
        }
        Ok(())
    }

    fn each_piece(
        &self,
        is_held_out: bool,
        shard: usize,
        take: &mut dyn FnMut(&[u8]) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let count = self.split(is_held_out).shards[shard].pieces.len();
        let all: Vec<PieceId> =
            (0..count).map(|piece| PieceId { is_held_out, shard, piece }).collect();
        for pieces in all.chunks(PIECES) {
            for bytes in self.pieces_uncached(pieces)? {
                take(&bytes)?;
            }
        }
        Ok(())
    }

    fn pieces_uncached(&self, pieces: &[PieceId]) -> Result<Vec<Bytes>, DataError> {
        let uncached = Self { cache: Arc::new(PieceCache::none()), ..self.clone() };
        uncached.pieces(pieces)
    }
}

/// Samples that were fetched; the others of the data set are not there.
#[derive(Clone, Debug)]
pub struct FetchedSamples {
    sample_len: usize,
    sample_count: u64,
    token_bytes: usize,
    end_of_document: Option<u32>,
    samples: HashMap<u64, Vec<u32>>,
}

impl SampleSource for FetchedSamples {
    fn sample_len(&self) -> usize {
        self.sample_len
    }

    /// Samples of the data set, fetched or not.
    fn sample_count(&self) -> u64 {
        self.sample_count
    }

    /// A sample that was fetched, `None` for others.
    fn sample(&self, id: u64) -> Option<Tokens<'_>> {
        let bytes: &[u8] = bytemuck::cast_slice(self.samples.get(&id)?);
        let len = (self.sample_len + 1) * self.token_bytes;
        tokens(bytes.get(..len)?, self.token_bytes)
    }

    fn end_of_document(&self) -> Option<u32> {
        self.end_of_document
    }
}
