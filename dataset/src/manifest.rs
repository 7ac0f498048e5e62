//! The manifest of a data set: what its files are, the hashes of their pieces, and the root.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use protocol::Hash;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{at, check_sample_len, DataError};
use crate::tokens::PIECE_BYTES;

/// Largest manifest that is read.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 28;

/// Name of the manifest's file.
pub(crate) const MANIFEST: &str = "manifest.json";

/// One file of tokens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardManifest {
    /// The file's name in the data set's folder.
    pub file: String,
    /// Tokens in it.
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
    /// Documents (or parts of documents) in all files.
    pub document_count: u64,
    /// The files, in order.
    pub shards: Vec<ShardManifest>,
}

/// A source of a mixture and what was taken from it to train on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceManifest {
    /// Its name.
    pub name: String,
    /// Its weight in millionths of 1; 0 where the sources are taken whole, one after the other.
    pub weight_ppm: u64,
    /// Documents, those of repeats included.
    pub document_count: u64,
    /// Tokens, the ends of documents included.
    pub token_count: u64,
    /// Lines or rows without text, which were left out, and those with bytes that are not UTF-8.
    pub bad_line_count: u64,
}

/// What the tokens of a data set are, from version 2 on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenManifest {
    /// Bytes of a token: 1, 2 or 4, little endian.
    pub token_bytes: usize,
    /// One more than the largest token there can be.
    pub vocab_size: u64,
    /// The token that ends every document.
    pub end_of_document: u32,
    /// [`crate::Tokenizer::hash`] in hexadecimal.
    pub tokenizer: String,
    /// Where the tokens come from.
    pub sources: Vec<SourceManifest>,
}

/// What a data set consists of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1 for bytes ([`crate::build`]), 2 for tokens ([`crate::build_tokens`]).
    pub version: u32,
    /// Tokens of a sample.
    pub sample_len: usize,
    /// Samples of every file but the last of a split.
    pub shard_samples: u64,
    /// What the tokens are; `None` in version 1, where they are bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenManifest>,
    /// To train on.
    pub train: SplitManifest,
    /// Never trained on.
    pub held_out: SplitManifest,
    /// [`Manifest::hash`] in hexadecimal.
    pub root: String,
}

impl Manifest {
    /// The root: BLAKE3 of a domain string and all fields but the root itself; numbers as u64
    /// little endian, lists and strings behind their length. The description of the tokens comes
    /// last, where there is one.
    pub fn hash(&self) -> Hash {
        let mut fields = Fields(blake3::Hasher::new());
        let domain: &[u8] = match self.tokens {
            None => b"gauntlet/data/1",
            Some(_) => b"gauntlet/data/2",
        };
        fields.0.update(domain);
        fields.number(u64::from(self.version));
        fields.number(self.sample_len as u64);
        fields.number(self.shard_samples);
        for split in [&self.train, &self.held_out] {
            fields.number(split.sample_count);
            fields.number(split.token_count);
            fields.number(split.document_count);
            fields.number(split.shards.len() as u64);
            for shard in &split.shards {
                fields.text(&shard.file);
                fields.number(shard.token_count);
                fields.number(shard.pieces.len() as u64);
                shard.pieces.iter().for_each(|piece| fields.text(piece));
            }
        }
        if let Some(tokens) = &self.tokens {
            fields.number(tokens.token_bytes as u64);
            fields.number(tokens.vocab_size);
            fields.number(u64::from(tokens.end_of_document));
            fields.text(&tokens.tokenizer);
            fields.number(tokens.sources.len() as u64);
            for source in &tokens.sources {
                fields.text(&source.name);
                fields.number(source.weight_ppm);
                fields.number(source.document_count);
                fields.number(source.token_count);
                fields.number(source.bad_line_count);
            }
        }
        fields.0.finalize().into()
    }

    /// Bytes of a token.
    pub fn token_bytes(&self) -> usize {
        self.tokens.as_ref().map_or(1, |tokens| tokens.token_bytes)
    }

    /// The token that ends a document, where the data set says so.
    pub fn end_of_document(&self) -> Option<u32> {
        self.tokens.as_ref().map(|tokens| tokens.end_of_document)
    }

    /// Reads the content of a manifest's file and checks it against its root and its own rules, so
    /// that whatever else reads a data set may rely on them. `path` is for messages.
    ///
    /// # Errors
    /// It is no manifest, of an unknown version, or contradicts itself.
    pub fn from_json(text: &[u8], path: &Path) -> Result<Self, DataError> {
        let manifest: Self = serde_json::from_slice(text).map_err(|error| DataError::Manifest {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        let expected = 1 + u32::from(manifest.tokens.is_some());
        if manifest.version != expected {
            return Err(DataError::Version(manifest.version));
        }
        if manifest.root != hex(manifest.hash()) {
            let folder = path.parent().unwrap_or(path);
            return Err(DataError::Root(folder.to_owned()));
        }
        check_sample_len(manifest.sample_len)?;
        if !matches!(manifest.token_bytes(), 1 | 2 | 4) {
            return Err(wrong(path, "a token has neither 1 nor 2 nor 4 bytes"));
        }
        manifest.check_split(&manifest.train, path)?;
        let may_be_empty = manifest.tokens.is_some() && manifest.held_out.shards.is_empty();
        if !may_be_empty {
            manifest.check_split(&manifest.held_out, path)?;
        }
        Ok(manifest)
    }

    /// Writes the manifest, with its root, beside and then over what is there.
    pub(crate) fn write(&mut self, folder: &Path) -> Result<(), DataError> {
        self.root = hex(self.hash());
        let path = folder.join(MANIFEST);
        let text = serde_json::to_vec_pretty(self).map_err(|error| DataError::Manifest {
            path: path.clone(),
            message: error.to_string(),
        })?;
        let unfinished = folder.join("manifest.json.tmp");
        let mut file = File::create(&unfinished).map_err(at(&unfinished))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(at(&unfinished))?;
        fs::rename(&unfinished, &path).map_err(at(&path))
    }

    fn check_split(&self, split: &SplitManifest, path: &Path) -> Result<(), DataError> {
        let mut sample_count = 0u64;
        let mut token_count = 0u64;
        let last = split.shards.len().saturating_sub(1);
        for (index, shard) in split.shards.iter().enumerate() {
            // A manifest of a stranger must not name files elsewhere.
            let is_plain = !shard.file.contains(['/', '\\']) && shard.file.ends_with(".bin");
            if !is_plain {
                return Err(wrong(path, "a file's name is not a plain one"));
            }
            let samples = samples_in(shard.token_count, self.sample_len);
            if samples == 0 || samples > self.shard_samples {
                return Err(wrong(path, "a file has no samples or too many"));
            }
            if index < last && samples != self.shard_samples {
                return Err(wrong(path, "a file before the last is not full"));
            }
            let bytes = shard.token_count.checked_mul(self.token_bytes() as u64);
            let Some(bytes) = bytes else {
                return Err(wrong(path, "a file is impossibly long"));
            };
            if shard.pieces.len() as u64 != bytes.div_ceil(PIECE_BYTES as u64) {
                return Err(wrong(path, "a file has not the hashes of its pieces"));
            }
            sample_count = sample_count.saturating_add(samples);
            token_count = token_count.saturating_add(shard.token_count);
        }
        if sample_count == 0 || sample_count != split.sample_count {
            return Err(wrong(path, "the number of samples is not that of the files"));
        }
        if token_count != split.token_count {
            return Err(wrong(path, "the number of tokens is not that of the files"));
        }
        Ok(())
    }
}

/// A hasher of fields.
struct Fields(blake3::Hasher);

impl Fields {
    fn number(&mut self, value: u64) {
        self.0.update(&value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }
}

/// Samples that `token_count` tokens of one file make.
pub(crate) fn samples_in(token_count: u64, sample_len: usize) -> u64 {
    token_count.saturating_sub(1) / sample_len as u64
}

/// A hash as manifests write it.
pub(crate) fn hex(hash: Hash) -> String {
    blake3::Hash::from(hash).to_hex().to_string()
}

/// The hashes of the pieces of a file's content.
pub(crate) fn piece_hashes(bytes: &[u8]) -> Vec<String> {
    bytes.par_chunks(PIECE_BYTES).map(|piece| hex(blake3::hash(piece).into())).collect()
}

fn wrong(path: &Path, message: &str) -> DataError {
    DataError::Manifest { path: path.to_owned(), message: message.to_owned() }
}
