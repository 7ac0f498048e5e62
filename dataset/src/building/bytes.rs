//! A data set of bytes, one a token: documents in memory, cut into samples. `localnet` uses it.
//!
//! Documents are held out whole, in the order of their hashes, until they are a fiftieth of the
//! text: no held-out document occurs in training. Where there are few documents (a single file,
//! say) they are cut into sections at line ends first, and the sections count as documents.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use protocol::Hash;
use rayon::prelude::*;

use crate::corpus::Document;
use crate::error::{at, check_sample_len, DataError};
use crate::folder::Dataset;
use crate::manifest::{piece_hashes, samples_in, Manifest, ShardManifest, SplitManifest, MANIFEST};

/// The version of the format.
pub const VERSION: u32 = 1;

/// Samples of a file, at most.
pub const SHARD_SAMPLES_MAX: u64 = 1 << 20;

/// Ends a document.
pub const DOCUMENT_END: u8 = 0;

/// Held-out text is at least total / 50.
const HELD_OUT_DIVISOR: usize = 50;

/// Fewer documents than this are cut into sections.
pub(super) const DOCUMENTS_MIN: usize = 64;

/// Sections that a text of few documents is cut into, about.
pub(super) const SECTIONS: usize = 256;

/// Shortest section, in bytes, but for a document's last.
pub(super) const SECTION_BYTES_MIN: usize = 1024;

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
        let chosen = documents.iter().zip(&held_out).filter(move |(_, held)| **held == wanted);
        chosen.map(|(document, _)| document.as_slice())
    };
    let bytes = |wanted| part(wanted).map(|text| text.len() as u64 + 1).sum::<u64>();
    if bytes(false) <= sample_len as u64 || bytes(true) <= sample_len as u64 {
        let (train, held_out) = (bytes(false), bytes(true));
        return Err(DataError::TooSmall { train, held_out, sample_len });
    }
    let mut manifest = Manifest {
        version: VERSION,
        sample_len,
        shard_samples: SHARD_SAMPLES_MAX,
        tokens: None,
        train: write_split(folder, "train", part(false), sample_len)?,
        held_out: write_split(folder, "held-out", part(true), sample_len)?,
        root: String::new(),
    };
    manifest.write(folder)?;
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
            let line_end =
                rest[section_bytes..].iter().take(section_bytes).position(|b| *b == b'\n');
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
    let hashes: Vec<Hash> = documents.par_iter().map(|text| blake3::hash(text).into()).collect();
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
    let mut split =
        SplitManifest { sample_count: 0, token_count: 0, document_count: 0, shards: Vec::new() };
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
        let written = writer.into_inner().map_err(|error| at(&unfinished)(error.into_error()))?;
        written.sync_all().map_err(at(&unfinished))?;
        fs::rename(&unfinished, &path).map_err(at(&path))?;
        split.sample_count += samples;
        split.token_count += shard.len() as u64;
        let token_count = shard.len() as u64;
        split.shards.push(ShardManifest { file, token_count, pieces: piece_hashes(shard) });
    }
    Ok(split)
}
