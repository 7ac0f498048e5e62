//! Describes what a data set of tokens is built from: sources, their weights, and bounds. Read from TOML.

use serde::{Deserialize, Serialize};

use crate::error::{check_sample_len, DataError};

/// Bytes of a file of tokens, about, where nothing else is said.
pub const SHARD_BYTES: u64 = 256 << 20;

/// Weights are kept in millionths of 1, so that every machine computes the same mixture.
const WEIGHT_PARTS: f64 = 1e6;

/// Sources of a build, at most: each has two threads and a few batches of text.
const SOURCES_MAX: usize = 1024;

/// How a data set of tokens is built.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BuildSettings {
    /// Tokens of a sample.
    pub sample_len: usize,
    /// Bytes of a file of tokens; rounded down to whole samples.
    pub shard_bytes: u64,
    /// Share of the documents that is held out, chosen by the hash of their text; 0 for none.
    pub held_out: f64,
    /// Longer documents are split, at a line's end where there is one, and the parts are documents
    /// of their own. Bounds the memory of the build: tokenising takes about a hundred times this
    /// for each thread.
    pub document_bytes_max: usize,
    /// Longer lines of JSONL are bad.
    pub line_bytes_max: usize,
    /// Bad lines (and rows) that are warned of before the build fails: left out for what they lack,
    /// or read with U+FFFD for what is not UTF-8. A text file with such bytes counts once.
    pub bad_lines_max: u64,
    /// The build ends with the document that reaches so many tokens to train on.
    pub tokens_max: Option<u64>,
    /// Where the text comes from.
    #[serde(rename = "source")]
    pub sources: Vec<SourceSettings>,
}

impl Default for BuildSettings {
    fn default() -> Self {
        Self {
            sample_len: 2048,
            shard_bytes: SHARD_BYTES,
            held_out: 0.01,
            document_bytes_max: 1 << 20,
            line_bytes_max: 64 << 20,
            bad_lines_max: 100,
            tokens_max: None,
            sources: Vec::new(),
        }
    }
}

/// One source of text.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSettings {
    /// Its name in messages and in the manifest; no two are equal.
    pub name: String,
    /// Files, folders, or addresses of an object store (`s3://bucket/prefix`), read in this order,
    /// and within a folder in the order of names.
    pub paths: Vec<String>,
    /// What the files are. Default: what their extensions say (`.jsonl`, `.ndjson`, `.parquet`,
    /// anything else is text).
    pub format: Option<Format>,
    /// The field of a JSON object, or the column of a Parquet file, that has the text.
    pub field: String,
    /// Its share of the tokens to train on, relative to the other sources' weights. Where no source
    /// has a weight they are taken whole, one after the other.
    pub weight: Option<f64>,
    /// How often its documents may be used.
    pub repeat: u32,
    /// Text files are cut into documents of about so many bytes, at line ends. Default: not, unless
    /// the whole build has less than 64 files, all of text.
    pub section_bytes: Option<usize>,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            paths: Vec::new(),
            format: None,
            field: "text".to_owned(),
            weight: None,
            repeat: 1,
            section_bytes: None,
        }
    }
}

/// What a file is, beneath a compression that its extension names (`.gz`, `.zst`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A file is a document.
    Text,
    /// A line is a document.
    Lines,
    /// A line is a JSON object with a field that is a document.
    Jsonl,
    /// A row has a column that is a document.
    Parquet,
}

impl BuildSettings {
    /// Checks bounds and names.
    ///
    /// # Errors
    /// [`DataError::Settings`] says what makes no sense.
    pub fn check(&self) -> Result<(), DataError> {
        let wrong = |message: String| Err(DataError::Settings(message));
        check_sample_len(self.sample_len)?;
        if self.sources.is_empty() {
            return wrong("no source: a build needs one at least".to_owned());
        }
        if self.sources.len() > SOURCES_MAX {
            return wrong(format!("more than {SOURCES_MAX} sources"));
        }
        if !(0.0..=0.5).contains(&self.held_out) {
            return wrong(format!("held_out is {}, not from 0 to 0.5", self.held_out));
        }
        if !(1024..=1 << 28).contains(&self.document_bytes_max) {
            let found = self.document_bytes_max;
            return wrong(format!("document_bytes_max is {found}, not from 1024 to 2^28"));
        }
        if !(1024..=1 << 31).contains(&self.line_bytes_max) {
            let found = self.line_bytes_max;
            return wrong(format!("line_bytes_max is {found}, not from 1024 to 2^31"));
        }
        if !(1 << 16..=1 << 36).contains(&self.shard_bytes) {
            let found = self.shard_bytes;
            return wrong(format!("shard_bytes is {found}, not from 2^16 to 2^36"));
        }
        if self.tokens_max == Some(0) {
            return wrong("tokens_max is 0: a data set of nothing".to_owned());
        }
        let weighted = self.sources.iter().filter(|s| s.weight.is_some()).count();
        if weighted != 0 && weighted != self.sources.len() {
            return wrong("some sources have a weight and some have none".to_owned());
        }
        for (index, source) in self.sources.iter().enumerate() {
            source.check()?;
            if self.sources[..index].iter().any(|s| s.name == source.name) {
                return wrong(format!("two sources are named {:?}", source.name));
            }
        }
        Ok(())
    }
}

impl SourceSettings {
    fn check(&self) -> Result<(), DataError> {
        let wrong =
            |message| Err(DataError::Settings(format!("source {:?}: {message}", self.name)));
        if self.name.is_empty() {
            return wrong("a source needs a name");
        }
        if self.paths.is_empty() {
            return wrong("a source needs paths");
        }
        if self.paths.iter().any(|path| path.trim().is_empty()) {
            return wrong("one of its paths is empty");
        }
        if self.field.is_empty() {
            return wrong("the field's name is empty");
        }
        if self.weight.is_some_and(|weight| !(1e-6..=1e6).contains(&weight)) {
            return wrong("the weight is not from 0.000001 to 1000000");
        }
        if self.repeat == 0 {
            return wrong("repeat is 0: leave the source out instead");
        }
        if self.section_bytes.is_some_and(|bytes| bytes < 64) {
            return wrong("section_bytes is less than 64");
        }
        Ok(())
    }

    /// The weight in millionths; 0 for none.
    pub(super) fn weight_ppm(&self) -> u64 {
        // In range by `check`; rounded once, here.
        self.weight.map_or(0, |weight| ((weight * WEIGHT_PARTS).round() as u64).max(1))
    }
}
