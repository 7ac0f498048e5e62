//! The files of a split while they grow: `train-0003.bin.part` takes tokens, is marked from time
//! to time (its content up to there survives a kill -9), and becomes `train-0003.bin` when full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use crate::error::{at, DataError};
use crate::manifest::{hex, piece_hashes, samples_in, ShardManifest, SplitManifest};
use crate::tokens::PIECE_BYTES;

/// Form of a split's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ShardForm {
    /// Bytes of a token: 1, 2 or 4.
    pub(crate) token_bytes: usize,
    /// Tokens of a sample.
    pub(crate) sample_len: usize,
    /// Samples of a full file.
    pub(crate) shard_samples: u64,
}

impl ShardForm {
    fn shard_tokens(&self) -> u64 {
        self.shard_samples * self.sample_len as u64 + 1
    }
}

/// How far a split is: what a journal keeps.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SplitMark {
    /// Full files.
    pub(crate) shards: usize,
    /// Tokens in the file that is not full.
    pub(crate) part_tokens: u64,
    /// BLAKE3 of that file's content up to there.
    pub(crate) part_hash: String,
    /// Documents in all files.
    pub(crate) document_count: u64,
}

/// Writes the files of one split.
pub(crate) struct ShardWriter {
    folder: PathBuf,
    name: &'static str,
    form: ShardForm,
    file: Option<BufWriter<File>>,
    /// Hash of what is in the file.
    hasher: blake3::Hasher,
    /// Hash of the piece that is not whole.
    piece: blake3::Hasher,
    piece_bytes: usize,
    pieces: Vec<String>,
    part_tokens: u64,
    document_count: u64,
    /// Full files, those that the journal does not know yet last.
    shards: Vec<ShardManifest>,
    /// Scratch: tokens as bytes.
    bytes: Vec<u8>,
}

impl ShardWriter {
    /// A writer without files.
    pub(crate) fn new(folder: &Path, name: &'static str, form: ShardForm) -> Self {
        Self {
            folder: folder.to_owned(),
            name,
            form,
            file: None,
            hasher: blake3::Hasher::new(),
            piece: blake3::Hasher::new(),
            piece_bytes: 0,
            pieces: Vec::new(),
            part_tokens: 0,
            document_count: 0,
            shards: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// A writer that goes on at a mark: full files are checked against their hashes, what was
    /// written behind the mark is cut off.
    pub(crate) fn resume(
        folder: &Path,
        name: &'static str,
        form: ShardForm,
        mark: &SplitMark,
        shards: Vec<ShardManifest>,
    ) -> Result<Self, DataError> {
        let mut writer = Self::new(folder, name, form);
        for shard in &shards {
            check_shard(folder, shard)?;
        }
        writer.shards = shards;
        writer.document_count = mark.document_count;
        let part = writer.part_path();
        if mark.part_tokens == 0 {
            return Ok(writer);
        }
        // It may have become full, and been renamed, after the mark.
        if !part.exists() {
            let full = writer.full_path();
            fs::rename(&full, &part).map_err(at(&full))?;
        }
        let len = mark.part_tokens * form.token_bytes as u64;
        let mut file = OpenOptions::new().read(true).write(true).open(&part).map_err(at(&part))?;
        writer.absorb_file(&mut file, len, &part)?;
        if writer.hasher.finalize().to_hex().as_str() != mark.part_hash {
            return Err(damaged(&part));
        }
        file.set_len(len).map_err(at(&part))?;
        writer.part_tokens = mark.part_tokens;
        // Reading left the position at the end.
        writer.file = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(writer)
    }

    fn absorb_file(&mut self, file: &mut File, len: u64, path: &Path) -> Result<(), DataError> {
        let mut left = len;
        let mut buffer = vec![0; PIECE_BYTES];
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            match file.read_exact(&mut buffer[..part]) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(damaged(path));
                }
                read => read.map_err(at(path))?,
            }
            self.absorb(&buffer[..part]);
            left -= part as u64;
        }
        Ok(())
    }

    /// Adds a document.
    pub(crate) fn push(&mut self, tokens: &[u32]) -> Result<(), DataError> {
        let mut rest = tokens;
        while !rest.is_empty() {
            let room = self.form.shard_tokens() - self.part_tokens;
            let fits = rest.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (now, later) = rest.split_at(fits);
            self.write(now)?;
            rest = later;
            if self.part_tokens == self.form.shard_tokens() {
                let last = now.last().copied();
                self.complete()?;
                // The last target is the first input of the next file.
                self.write(last.as_slice())?;
            }
        }
        self.document_count += 1;
        Ok(())
    }

    fn write(&mut self, tokens: &[u32]) -> Result<(), DataError> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        match self.form.token_bytes {
            // Tokens are below the vocabulary's size, which decides about the bytes.
            1 => bytes.extend(tokens.iter().map(|token| *token as u8)),
            2 => bytes.extend(tokens.iter().flat_map(|token| (*token as u16).to_le_bytes())),
            _ => bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes())),
        }
        let path = self.part_path();
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = File::create(&path).map_err(at(&path))?;
                none.insert(BufWriter::with_capacity(1 << 20, file))
            }
        };
        file.write_all(&bytes).map_err(at(&path))?;
        self.absorb(&bytes);
        self.part_tokens += tokens.len() as u64;
        self.bytes = bytes;
        Ok(())
    }

    /// Hashes what the file gets.
    fn absorb(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = PIECE_BYTES - self.piece_bytes;
            let (now, later) = rest.split_at(rest.len().min(room));
            self.piece.update(now);
            self.piece_bytes += now.len();
            rest = later;
            if self.piece_bytes == PIECE_BYTES {
                self.end_piece();
            }
        }
    }

    fn end_piece(&mut self) {
        if self.piece_bytes > 0 {
            self.pieces.push(hex(self.piece.finalize().into()));
            self.piece.reset();
            self.piece_bytes = 0;
        }
    }

    /// The file is full: it gets its name.
    fn complete(&mut self) -> Result<(), DataError> {
        self.end_piece();
        let (part, full) = (self.part_path(), self.full_path());
        self.sync()?;
        self.file = None;
        fs::rename(&part, &full).map_err(at(&full))?;
        self.shards.push(ShardManifest {
            file: file_name(self.name, self.shards.len()),
            token_count: self.part_tokens,
            pieces: std::mem::take(&mut self.pieces),
        });
        self.hasher.reset();
        self.part_tokens = 0;
        Ok(())
    }

    /// Brings what was written to the disk.
    fn sync(&mut self) -> Result<(), DataError> {
        let path = self.part_path();
        if let Some(file) = &mut self.file {
            file.flush().and_then(|()| file.get_ref().sync_data()).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Brings everything to the disk and says how far the split is.
    pub(crate) fn mark(&mut self) -> Result<SplitMark, DataError> {
        self.sync()?;
        Ok(SplitMark {
            shards: self.shards.len(),
            part_tokens: self.part_tokens,
            part_hash: hex(self.hasher.finalize().into()),
            document_count: self.document_count,
        })
    }

    /// Full files.
    pub(crate) fn shards(&self) -> &[ShardManifest] {
        &self.shards
    }

    /// Documents in all files.
    pub(crate) fn document_count(&self) -> u64 {
        self.document_count
    }

    /// Tokens in all files, those that two files share counted once.
    pub(crate) fn token_count(&self) -> u64 {
        let full = self.shards.len() as u64 * (self.form.shard_tokens() - 1);
        full + self.part_tokens
    }

    fn part_path(&self) -> PathBuf {
        let name = file_name(self.name, self.shards.len());
        self.folder.join(format!("{name}.part"))
    }

    fn full_path(&self) -> PathBuf {
        self.folder.join(file_name(self.name, self.shards.len()))
    }

    /// Ends the last file where its last sample ends; what is left of a sample is dropped. May be
    /// repeated after a kill at any point in it: it depends on the files alone.
    pub(crate) fn finish(mut self) -> Result<SplitManifest, DataError> {
        self.sync()?;
        self.file = None;
        let (part, full) = (self.part_path(), self.full_path());
        let path = match part.exists() {
            true => &part,
            false => &full,
        };
        let token_bytes = self.form.token_bytes as u64;
        let len = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(at(path)(error)),
        };
        let samples = samples_in(len / token_bytes, self.form.sample_len);
        if samples > 0 {
            let token_count = samples * self.form.sample_len as u64 + 1;
            let file = OpenOptions::new().read(true).write(true).open(path);
            let file = file.map_err(at(path))?;
            file.set_len(token_count * token_bytes)
                .and_then(|()| file.sync_all())
                .map_err(at(path))?;
            fs::rename(path, &full).map_err(at(&full))?;
            self.shards.push(ShardManifest {
                file: file_name(self.name, self.shards.len()),
                token_count,
                pieces: file_pieces(&full)?,
            });
        } else if len > 0 {
            fs::remove_file(path).map_err(at(path))?;
        }
        let samples = |shard: &ShardManifest| samples_in(shard.token_count, self.form.sample_len);
        Ok(SplitManifest {
            sample_count: self.shards.iter().map(samples).sum(),
            token_count: self.shards.iter().map(|shard| shard.token_count).sum(),
            document_count: self.document_count,
            shards: self.shards,
        })
    }

    /// A writer of a split of which only the finishing is left.
    pub(crate) fn to_finish(
        folder: &Path,
        name: &'static str,
        form: ShardForm,
        mark: &SplitMark,
        shards: Vec<ShardManifest>,
    ) -> Self {
        let mut writer = Self::new(folder, name, form);
        writer.shards = shards;
        writer.document_count = mark.document_count;
        writer
    }
}

/// The name of a split's file.
pub(crate) fn file_name(split: &str, index: usize) -> String {
    format!("{split}-{index:04}.bin")
}

fn damaged(path: &Path) -> DataError {
    DataError::Journal {
        path: path.to_owned(),
        message: "does not have the content that the journal says".to_owned(),
    }
}

/// Checks a full file against its hashes.
fn check_shard(folder: &Path, shard: &ShardManifest) -> Result<(), DataError> {
    let path = folder.join(&shard.file);
    match file_pieces(&path)? == shard.pieces {
        true => Ok(()),
        false => Err(damaged(&path)),
    }
}

fn file_pieces(path: &Path) -> Result<Vec<String>, DataError> {
    let file = File::open(path).map_err(at(path))?;
    // SAFETY: the file is this build's own, and nothing writes to it while it is mapped.
    let bytes = unsafe { Mmap::map(&file) }.map_err(at(path))?;
    Ok(piece_hashes(&bytes))
}
