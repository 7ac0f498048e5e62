//! Scores kept in a file, so that an evaluation that was interrupted goes on where it stopped.
//!
//! The file has a line of JSON for each score: its key, which covers the model's parameters and all
//! tokens, and the score. Lines are only ever added; a line that is cut off is ignored.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::Model;

use super::request::Score;

/// What a score belongs to, but for the model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key(blake3::Hash);

impl Key {
    /// The key of `continuation` after reading `inputs`.
    pub(crate) fn new(inputs: &[u32], continuation: &[u32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(inputs.len() as u64).to_le_bytes());
        for token in inputs.iter().chain(continuation) {
            hasher.update(&token.to_le_bytes());
        }
        Self(hasher.finalize())
    }
}

#[derive(Serialize, Deserialize)]
struct CachedScore {
    key: String,
    log_likelihood: f64,
    greedy: bool,
}

/// Whether a line that is no score may be the start of one.
fn may_be_ours(line: &[u8]) -> bool {
    const START: &[u8] = b"{\"key\":";
    let line = line.trim_ascii();
    START.starts_with(line) || line.starts_with(START)
}

/// Scores of one model, in memory and in a file.
#[derive(Debug)]
pub struct Cache {
    model: blake3::Hash,
    scores: HashMap<blake3::Hash, Score>,
    file: BufWriter<File>,
}

impl Cache {
    /// Opens or makes the file. Scores of other models, or of another device than that of the name `device`
    /// ([`crate::Device::name`]), are kept and not used.
    ///
    /// # Errors
    /// It cannot be read or written, or holds something else than scores.
    pub fn open(path: &Path, model: &Model, device: &str) -> io::Result<Self> {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        let mut scores = HashMap::new();
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        let mut cut_off = false;
        while reader.read_until(b'\n', &mut line)? > 0 {
            cut_off = line.last() != Some(&b'\n');
            let parsed: Option<CachedScore> = serde_json::from_slice(&line).ok();
            if parsed.is_none() && !may_be_ours(&line) {
                let message = "it holds something else than scores; name a new file";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            if let Some((key, line)) = parsed.and_then(|l| Some((l.key.parse().ok()?, l))) {
                let score = Score { log_likelihood: line.log_likelihood, greedy: line.greedy };
                scores.insert(key, score);
            }
            line.clear();
        }
        let mut file = BufWriter::new(file);
        if cut_off {
            file.write_all(b"\n")?;
        }
        Ok(Self { model: fingerprint(model, device), scores, file })
    }

    fn whole(&self, key: &Key) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.model.as_bytes());
        hasher.update(key.0.as_bytes());
        hasher.finalize()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Score> {
        self.scores.get(&self.whole(key)).copied()
    }

    /// Adds a score; it is in the file after [`Cache::flush`].
    pub(crate) fn put(&mut self, key: Key, score: Score) -> io::Result<()> {
        let key = self.whole(&key);
        self.scores.insert(key, score);
        let line = CachedScore {
            key: key.to_string(),
            log_likelihood: score.log_likelihood,
            greedy: score.greedy,
        };
        serde_json::to_writer(&mut self.file, &line)?;
        self.file.write_all(b"\n")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Hash of the model's shape and parameters.
fn fingerprint(model: &Model, device: &str) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{:?}", model.config()).as_bytes());
    // In the order of memory, which depends on the shape alone.
    hasher.update(bytemuck::cast_slice(model.parameters()));
    // Files from before there were other devices have no name in them.
    if device != "cpu" {
        hasher.update(device.as_bytes());
    }
    hasher.finalize()
}
