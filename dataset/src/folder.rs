//! An open data set: its manifest, and its files mapped into memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use protocol::Hash;

use crate::error::{at, check_sample_len, DataError};
use crate::manifest::{
    piece_hashes, samples_in, Manifest, SplitManifest, MANIFEST, MANIFEST_BYTES_MAX,
};
use crate::samples::SampleSource;
use crate::tokens::{Tokens, PIECE_BYTES};

// Files are little endian and are used as they lie.
const _: () = assert!(cfg!(target_endian = "little"));

/// A data set, mapped into memory.
#[derive(Debug)]
pub struct Dataset {
    folder: PathBuf,
    manifest: Manifest,
    root: Hash,
    train: Samples,
    held_out: Samples,
}

/// The samples of one split.
#[derive(Debug)]
pub struct Samples {
    sample_len: usize,
    sample_count: u64,
    token_bytes: usize,
    end_of_document: Option<u32>,
    /// The files, and the number of the first sample of each.
    shards: Vec<(u64, Mmap)>,
}

impl SampleSource for Samples {
    fn sample_len(&self) -> usize {
        self.sample_len
    }

    fn sample_count(&self) -> u64 {
        self.sample_count
    }

    fn sample(&self, id: u64) -> Option<Tokens<'_>> {
        if id >= self.sample_count {
            return None;
        }
        let after = self.shards.partition_point(|(first, _)| *first <= id);
        let (first, shard) = self.shards.get(after.checked_sub(1)?)?;
        let start = usize::try_from(id - first).ok()?;
        let start = start.checked_mul(self.sample_len * self.token_bytes)?;
        let len = (self.sample_len + 1) * self.token_bytes;
        tokens(shard.get(start..start.checked_add(len)?)?, self.token_bytes)
    }

    fn end_of_document(&self) -> Option<u32> {
        self.end_of_document
    }
}

/// Bytes of a file as tokens of so many bytes each; `None` if they are not aligned to them.
pub(crate) fn tokens(bytes: &[u8], token_bytes: usize) -> Option<Tokens<'_>> {
    match token_bytes {
        1 => Some(Tokens::U8(bytes)),
        2 => bytemuck::try_cast_slice(bytes).ok().map(Tokens::U16),
        _ => bytemuck::try_cast_slice(bytes).ok().map(Tokens::U32),
    }
}

impl Dataset {
    /// Opens the data set in `folder`: reads the manifest, checks it against its root, and the
    /// files' lengths against it. The files' content is checked by [`Dataset::verify`].
    ///
    /// The files are mapped: they must not be changed while the data set is open.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        Self::open_as(folder, None)
    }

    /// [`Dataset::open`] with samples of `sample_len` tokens instead of those it was built for. The
    /// files stay as they are; what is left of a sample at the end of each is not used.
    pub fn open_with_sample_len(folder: &Path, sample_len: usize) -> Result<Self, DataError> {
        check_sample_len(sample_len)?;
        Self::open_as(folder, Some(sample_len))
    }

    fn open_as(folder: &Path, sample_len: Option<usize>) -> Result<Self, DataError> {
        let path = folder.join(MANIFEST);
        let found = fs::metadata(&path).map_err(at(&path))?.len();
        if found > MANIFEST_BYTES_MAX {
            return Err(DataError::FileLen { path, found, expected: MANIFEST_BYTES_MAX });
        }
        let text = fs::read(&path).map_err(at(&path))?;
        let manifest = Manifest::from_json(&text, &path)?;
        let sample_len = sample_len.unwrap_or(manifest.sample_len);
        Ok(Self {
            folder: folder.to_owned(),
            root: manifest.hash(),
            train: Samples::open(folder, &manifest, &manifest.train, sample_len)?,
            held_out: Samples::open(folder, &manifest, &manifest.held_out, sample_len)?,
            manifest,
        })
    }

    /// Reads everything and checks it against the manifest's hashes.
    ///
    /// # Errors
    /// [`DataError::Corrupt`] names the first damaged piece, [`DataError::Token`] the first file
    /// with a token that the vocabulary does not have.
    pub fn verify(&self) -> Result<(), DataError> {
        self.verify_with(&mut |_| {})
    }

    /// [`Dataset::verify`], which calls `observe` with the bytes of each file that was found whole.
    ///
    /// # Errors
    /// As [`Dataset::verify`].
    pub fn verify_with(&self, observe: &mut dyn FnMut(u64)) -> Result<(), DataError> {
        let splits =
            [(&self.manifest.train, &self.train), (&self.manifest.held_out, &self.held_out)];
        for (split, samples) in splits {
            for (shard, (_, bytes)) in split.shards.iter().zip(&samples.shards) {
                let found = piece_hashes(bytes);
                let count = found.len().max(shard.pieces.len());
                let path = self.folder.join(&shard.file);
                if let Some(index) = (0..count).find(|&i| found.get(i) != shard.pieces.get(i)) {
                    let offset = (index * PIECE_BYTES) as u64;
                    return Err(DataError::Corrupt { path, offset });
                }
                self.check_vocabulary(bytes, path)?;
                observe(bytes.len() as u64);
            }
        }
        Ok(())
    }

    fn check_vocabulary(&self, bytes: &[u8], path: PathBuf) -> Result<(), DataError> {
        let Some(manifest) = &self.manifest.tokens else {
            return Ok(());
        };
        let largest = match tokens(bytes, manifest.token_bytes) {
            Some(Tokens::U8(tokens)) => tokens.iter().max().map(|&token| u32::from(token)),
            Some(Tokens::U16(tokens)) => tokens.iter().max().map(|&token| u32::from(token)),
            Some(Tokens::U32(tokens)) => tokens.iter().max().copied(),
            None => None,
        };
        match largest {
            Some(token) if u64::from(token) >= manifest.vocab_size => {
                let vocab_size = manifest.vocab_size;
                Err(DataError::Token { path, token, vocab_size })
            }
            _ => Ok(()),
        }
    }

    /// The root that goes on chain.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// What the data set consists of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Tokens of a sample.
    pub fn sample_len(&self) -> usize {
        self.train.sample_len
    }

    /// The samples to train on.
    pub fn train(&self) -> &Samples {
        &self.train
    }

    /// The samples that are never trained on. A data set of tokens may have been built without.
    pub fn held_out(&self) -> &Samples {
        &self.held_out
    }
}

impl Samples {
    fn open(
        folder: &Path,
        manifest: &Manifest,
        split: &SplitManifest,
        sample_len: usize,
    ) -> Result<Self, DataError> {
        let token_bytes = manifest.token_bytes();
        let mut shards = Vec::with_capacity(split.shards.len().min(1 << 16));
        let mut sample_count = 0u64;
        for shard in &split.shards {
            let path = folder.join(&shard.file);
            let file = File::open(&path).map_err(at(&path))?;
            let found = file.metadata().map_err(at(&path))?.len();
            let expected = shard.token_count.saturating_mul(token_bytes as u64);
            if found != expected {
                return Err(DataError::FileLen { path, found, expected });
            }
            // SAFETY: the documentation of `open` forbids changing the file meanwhile; its bytes
            // have no invalid values.
            let map = unsafe { Mmap::map(&file) }.map_err(at(&path))?;
            shards.push((sample_count, map));
            sample_count = sample_count.saturating_add(samples_in(shard.token_count, sample_len));
        }
        Ok(Self {
            sample_len,
            sample_count,
            token_bytes,
            end_of_document: manifest.end_of_document(),
            shards,
        })
    }
}
