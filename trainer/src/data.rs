//! Samples: flat files of tokens (one byte a token), mapped into memory, and a manifest whose root
//! goes on chain.
//!
//! # Files
//!
//! - `train-0000.bin`, … and `held-out-0000.bin`, …: the documents one after the other, each ended
//!   by a zero byte (which no document contains).
//! - `manifest.json`: lengths, the BLAKE3 hashes of all pieces of [`PIECE_BYTES`], and the root,
//!   which is BLAKE3 of everything else in the manifest, in the binary form of [`Manifest::hash`].
//!   It is written last: a folder without it is not a data set.
//!
//! # Samples
//!
//! Sample `i` of a split is its tokens `i · L` to `i · L + L`, both included: L inputs and, one
//! further, L targets; the last token is the first of the next sample. No sample crosses files.
//!
//! # Held-out text
//!
//! Documents are held out whole, in the order of their hashes, until they are a fiftieth of the
//! text: no held-out document occurs in training. Where there are few documents (a single file,
//! say) they are cut into sections at line ends first, and the sections count as documents.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use protocol::Hash;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::corpus::Document;
use crate::tokens::Tokens;

/// The version of the format.
pub const VERSION: u32 = 1;

/// Bytes of a piece with a hash of its own; the last one of a file may be shorter.
pub const PIECE_BYTES: usize = 1 << 20;

/// Samples of a file, at most.
pub const SHARD_SAMPLES_MAX: u64 = 1 << 20;

/// Ends a document.
pub const DOCUMENT_END: u8 = 0;

/// Held-out text is at least total / 50.
const HELD_OUT_DIVISOR: usize = 50;

/// Fewer documents than this are cut into sections.
const DOCUMENTS_MIN: usize = 64;

/// Sections that a text of few documents is cut into, about.
const SECTIONS: usize = 256;

/// Shortest section, in bytes, but for a document's last.
const SECTION_BYTES_MIN: usize = 1024;

/// Largest manifest that is read.
const MANIFEST_BYTES_MAX: u64 = 1 << 28;

/// Name of the manifest's file.
const MANIFEST: &str = "manifest.json";

/// Why a data set cannot be built or used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The manifest is not JSON of the right form.
    #[error("{path}: {message}")]
    Manifest {
        /// The manifest's file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The manifest's version is not known.
    #[error("data set version {0}, not 1")]
    Version(u32),
    /// The manifest does not hash to the root it names.
    #[error("the manifest of {0} does not match its root")]
    Root(PathBuf),
    /// A file has another length than the manifest says.
    #[error("{path} has {found} bytes, not {expected}")]
    FileLen {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The manifest's.
        expected: u64,
    },
    /// A file's content is not what the manifest says.
    #[error("{path} is damaged in the {PIECE_BYTES} bytes from {offset}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the damaged piece starts.
        offset: u64,
    },
    /// Too little text for one sample each to train on and to hold out.
    #[error("too little text: {train} bytes to train on and {held_out} held out, for samples of {sample_len} tokens")]
    TooSmall {
        /// Bytes to train on.
        train: u64,
        /// Bytes held out.
        held_out: u64,
        /// Tokens of a sample.
        sample_len: usize,
    },
    /// A sample needs at least one token.
    #[error("samples of {0} tokens, not 1 to 16777216")]
    SampleLen(usize),
}

/// Samples of equal length.
pub trait SampleSource: Sync {
    /// Tokens of a sample.
    fn sample_len(&self) -> usize;

    /// Samples there are.
    fn sample_count(&self) -> u64;

    /// The tokens of sample `id`, one more than [`SampleSource::sample_len`]: the inputs, and the
    /// targets one further. `None` past the last sample.
    fn sample(&self, id: u64) -> Option<Tokens<'_>>;

    /// The token that ends a document. Where there is one, no token attends to a token of an earlier
    /// document of its sample.
    fn end_of_document(&self) -> Option<u32> {
        None
    }
}

/// One file of tokens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardManifest {
    /// The file's name in the data set's folder.
    pub file: String,
    /// Tokens, which are bytes.
    pub token_count: u64,
    /// BLAKE3 of each piece, in hexadecimal.
    pub pieces: Vec<String>,
}

/// One half of the data: to train on, or held out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitManifest {
    /// Samples in all files.
    pub sample_count: u64,
    /// Tokens in all files.
    pub token_count: u64,
    /// Documents (or sections of documents) in all files.
    pub document_count: u64,
    /// The files, in order.
    pub shards: Vec<ShardManifest>,
}

/// What a data set consists of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Tokens of a sample.
    pub sample_len: usize,
    /// Samples of every file but the last of a split.
    pub shard_samples: u64,
    /// To train on.
    pub train: SplitManifest,
    /// Never trained on.
    pub held_out: SplitManifest,
    /// [`Manifest::hash`] in hexadecimal.
    pub root: String,
}

impl Manifest {
    /// The root: BLAKE3 of a domain string and all fields but the root itself; numbers as u64
    /// little endian, lists and strings behind their length.
    pub fn hash(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"gauntlet/data/1");
        let mut number = |value: u64, bytes: &[u8]| {
            hasher.update(&value.to_le_bytes());
            hasher.update(bytes);
        };
        number(u64::from(self.version), &[]);
        number(self.sample_len as u64, &[]);
        number(self.shard_samples, &[]);
        for split in [&self.train, &self.held_out] {
            number(split.sample_count, &[]);
            number(split.token_count, &[]);
            number(split.document_count, &[]);
            number(split.shards.len() as u64, &[]);
            for shard in &split.shards {
                number(shard.file.len() as u64, shard.file.as_bytes());
                number(shard.token_count, &[]);
                number(shard.pieces.len() as u64, &[]);
                for piece in &shard.pieces {
                    number(piece.len() as u64, piece.as_bytes());
                }
            }
        }
        hasher.finalize().into()
    }
}

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
    shard_samples: u64,
    shards: Vec<Mmap>,
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
        let shard = self
            .shards
            .get(usize::try_from(id / self.shard_samples).ok()?)?;
        let start = usize::try_from(id % self.shard_samples)
            .ok()?
            .checked_mul(self.sample_len)?;
        shard
            .get(start..start + self.sample_len + 1)
            .map(Tokens::U8)
    }
}

/// Samples that `token_count` tokens of one file make.
fn samples_in(token_count: u64, sample_len: usize) -> u64 {
    token_count.saturating_sub(1) / sample_len as u64
}

impl Dataset {
    /// Opens the data set in `folder`: reads the manifest, checks it against its root, and the
    /// files' lengths against it. The files' content is checked by [`Dataset::verify`].
    ///
    /// The files are mapped: they must not be changed while the data set is open.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(MANIFEST);
        let found = fs::metadata(&path).map_err(at(&path))?.len();
        if found > MANIFEST_BYTES_MAX {
            return Err(DataError::FileLen {
                path,
                found,
                expected: MANIFEST_BYTES_MAX,
            });
        }
        let text = fs::read(&path).map_err(at(&path))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| DataError::Manifest {
                path: path.clone(),
                message: error.to_string(),
            })?;
        if manifest.version != VERSION {
            return Err(DataError::Version(manifest.version));
        }
        let root = manifest.hash();
        if manifest.root != blake3::Hash::from(root).to_hex().as_str() {
            return Err(DataError::Root(folder.to_owned()));
        }
        check_sample_len(manifest.sample_len)?;
        let train = Samples::open(folder, &manifest, &manifest.train)?;
        let held_out = Samples::open(folder, &manifest, &manifest.held_out)?;
        Ok(Self {
            folder: folder.to_owned(),
            root,
            train,
            held_out,
            manifest,
        })
    }

    /// Reads everything and checks it against the manifest's hashes.
    pub fn verify(&self) -> Result<(), DataError> {
        let splits = [
            (&self.manifest.train, &self.train),
            (&self.manifest.held_out, &self.held_out),
        ];
        for (split, samples) in splits {
            for (shard, bytes) in split.shards.iter().zip(&samples.shards) {
                let found = piece_hashes(bytes);
                let count = found.len().max(shard.pieces.len());
                if let Some(index) = (0..count).find(|&i| found.get(i) != shard.pieces.get(i)) {
                    let offset = (index * PIECE_BYTES) as u64;
                    return Err(DataError::Corrupt {
                        path: self.folder.join(&shard.file),
                        offset,
                    });
                }
            }
        }
        Ok(())
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
        self.manifest.sample_len
    }

    /// The samples to train on.
    pub fn train(&self) -> &Samples {
        &self.train
    }

    /// The samples that are never trained on.
    pub fn held_out(&self) -> &Samples {
        &self.held_out
    }
}

impl Samples {
    fn open(folder: &Path, manifest: &Manifest, split: &SplitManifest) -> Result<Self, DataError> {
        let wrong = |message: &str| DataError::Manifest {
            path: folder.join(MANIFEST),
            message: message.to_owned(),
        };
        let mut shards = Vec::with_capacity(split.shards.len().min(1 << 16));
        let mut sample_count = 0u64;
        let last = split.shards.len().saturating_sub(1);
        for (index, shard) in split.shards.iter().enumerate() {
            // A manifest of a stranger must not name files elsewhere.
            let is_plain = !shard.file.contains(['/', '\\']) && shard.file.ends_with(".bin");
            if !is_plain {
                return Err(wrong("a file's name is not a plain one"));
            }
            let samples = samples_in(shard.token_count, manifest.sample_len);
            if samples == 0 || samples > manifest.shard_samples {
                return Err(wrong("a file has no samples or too many"));
            }
            if index < last && samples != manifest.shard_samples {
                return Err(wrong("a file before the last is not full"));
            }
            sample_count = sample_count.saturating_add(samples);
            let path = folder.join(&shard.file);
            let file = File::open(&path).map_err(at(&path))?;
            let found = file.metadata().map_err(at(&path))?.len();
            if found != shard.token_count {
                return Err(DataError::FileLen {
                    path,
                    found,
                    expected: shard.token_count,
                });
            }
            // SAFETY: the documentation of `open` forbids changing the file meanwhile; its bytes
            // have no invalid values.
            shards.push(unsafe { Mmap::map(&file) }.map_err(at(&path))?);
        }
        if sample_count == 0 || sample_count != split.sample_count {
            return Err(wrong("the number of samples is not that of the files"));
        }
        let token_count = split
            .shards
            .iter()
            .map(|shard| shard.token_count)
            .sum::<u64>();
        if token_count != split.token_count {
            return Err(wrong("the number of tokens is not that of the files"));
        }
        Ok(Self {
            sample_len: manifest.sample_len,
            sample_count,
            shard_samples: manifest.shard_samples,
            shards,
        })
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DataError + '_ {
    move |source| DataError::Io {
        path: path.to_owned(),
        source,
    }
}

fn check_sample_len(sample_len: usize) -> Result<(), DataError> {
    match sample_len {
        1..=0x100_0000 => Ok(()),
        _ => Err(DataError::SampleLen(sample_len)),
    }
}

fn piece_hashes(bytes: &[u8]) -> Vec<String> {
    bytes
        .par_chunks(PIECE_BYTES)
        .map(|piece| blake3::hash(piece).to_hex().to_string())
        .collect()
}

/// Writes a data set of these documents into `folder`, which is made if needed; what another data
/// set left there is replaced. The same documents give the same bytes and the same root.
pub fn build(
    documents: Vec<Document>,
    sample_len: usize,
    folder: &Path,
) -> Result<Dataset, DataError> {
    check_sample_len(sample_len)?;
    let documents = sections(documents);
    let held_out = choose_held_out(&documents);
    fs::create_dir_all(folder).map_err(at(folder))?;
    let manifest_path = folder.join(MANIFEST);
    match fs::remove_file(&manifest_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(at(&manifest_path)(error));
        }
        _ => {}
    }
    let part = |wanted: bool| {
        let chosen = documents
            .iter()
            .zip(&held_out)
            .filter(move |(_, held)| **held == wanted);
        chosen.map(|(document, _)| document.as_slice())
    };
    let bytes = |wanted| part(wanted).map(|text| text.len() as u64 + 1).sum::<u64>();
    if bytes(false) <= sample_len as u64 || bytes(true) <= sample_len as u64 {
        let (train, held_out) = (bytes(false), bytes(true));
        return Err(DataError::TooSmall {
            train,
            held_out,
            sample_len,
        });
    }
    let mut manifest = Manifest {
        version: VERSION,
        sample_len,
        shard_samples: SHARD_SAMPLES_MAX,
        train: write_split(folder, "train", part(false), sample_len)?,
        held_out: write_split(folder, "held-out", part(true), sample_len)?,
        root: String::new(),
    };
    manifest.root = blake3::Hash::from(manifest.hash()).to_hex().to_string();
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| DataError::Manifest {
        path: manifest_path.clone(),
        message: error.to_string(),
    })?;
    let unfinished = folder.join("manifest.json.tmp");
    let mut file = File::create(&unfinished).map_err(at(&unfinished))?;
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .map_err(at(&unfinished))?;
    fs::rename(&unfinished, &manifest_path).map_err(at(&manifest_path))?;
    Dataset::open(folder)
}

/// The documents' texts, without zero bytes; few documents are cut into sections at line ends.
fn sections(documents: Vec<Document>) -> Vec<Vec<u8>> {
    let mut texts: Vec<Vec<u8>> = Vec::with_capacity(documents.len());
    for document in documents {
        let mut text = document.text;
        text.retain(|byte| *byte != DOCUMENT_END);
        if !text.is_empty() {
            texts.push(text);
        }
    }
    if texts.len() >= DOCUMENTS_MIN {
        return texts;
    }
    let total: usize = texts.iter().map(Vec::len).sum();
    let section_bytes = (total / SECTIONS).max(SECTION_BYTES_MIN);
    let mut sections = Vec::new();
    for text in texts {
        let mut rest = text.as_slice();
        while rest.len() > section_bytes {
            // To the end of the line, or of the section where the line is too long.
            let line_end = rest[section_bytes..]
                .iter()
                .take(section_bytes)
                .position(|b| *b == b'\n');
            let (section, after) = rest.split_at(section_bytes + line_end.map_or(0, |at| at + 1));
            sections.push(section.to_vec());
            rest = after;
        }
        if !rest.is_empty() {
            sections.push(rest.to_vec());
        }
    }
    sections
}

/// Which documents are held out: in the order of their hashes, until they are 1 / 50 of the text.
/// None that is more than a quarter of the text.
fn choose_held_out(documents: &[Vec<u8>]) -> Vec<bool> {
    let total: usize = documents.iter().map(Vec::len).sum();
    let hashes: Vec<Hash> = documents
        .par_iter()
        .map(|text| blake3::hash(text).into())
        .collect();
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by_key(|&index| (hashes[index], index));
    let mut held_out = vec![false; documents.len()];
    let mut taken = 0;
    let mut last = None;
    for index in order {
        // Equal documents have equal hashes and stand side by side: they go together.
        let is_copy = last == Some(hashes[index]);
        if taken >= total.div_ceil(HELD_OUT_DIVISOR) && !is_copy {
            break;
        }
        if documents[index].len() > total / 4 {
            continue;
        }
        held_out[index] = true;
        taken += documents[index].len();
        last = Some(hashes[index]);
    }
    held_out
}

/// Writes the documents into as many files as they need. What is left of a sample at the end is
/// not written.
fn write_split<'a>(
    folder: &Path,
    name: &str,
    documents: impl Iterator<Item = &'a [u8]>,
    sample_len: usize,
) -> Result<SplitManifest, DataError> {
    let mut split = SplitManifest {
        sample_count: 0,
        token_count: 0,
        document_count: 0,
        shards: Vec::new(),
    };
    let mut tokens = Vec::new();
    for document in documents {
        tokens.extend_from_slice(document);
        tokens.push(DOCUMENT_END);
        split.document_count += 1;
    }
    let shard_tokens = SHARD_SAMPLES_MAX as usize * sample_len + 1;
    // Each file but the last holds its samples and the target of its last token.
    for (index, shard) in tokens.chunks(shard_tokens).enumerate() {
        let samples = samples_in(shard.len() as u64, sample_len);
        if samples == 0 {
            break;
        }
        let shard = &shard[..samples as usize * sample_len + 1];
        let file = format!("{name}-{index:04}.bin");
        let path = folder.join(&file);
        // Beside and then renamed: the old file may be mapped by somebody.
        let unfinished = folder.join(format!("{file}.tmp"));
        let mut writer = BufWriter::new(File::create(&unfinished).map_err(at(&unfinished))?);
        writer.write_all(shard).map_err(at(&unfinished))?;
        let written = writer
            .into_inner()
            .map_err(|error| at(&unfinished)(error.into_error()))?;
        written.sync_all().map_err(at(&unfinished))?;
        fs::rename(&unfinished, &path).map_err(at(&path))?;
        split.sample_count += samples;
        split.token_count += shard.len() as u64;
        let token_count = shard.len() as u64;
        split.shards.push(ShardManifest {
            file,
            token_count,
            pieces: piece_hashes(shard),
        });
    }
    Ok(split)
}
