//! Keeps what a build has done, in a file beside the data: lines of JSON, each brought to the disk before
//! the next thing happens. After a kill -9 the build goes on at the last mark; a line that was cut
//! by the kill is not there.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::stream::Place;
use crate::error::{at, DataError};
use crate::manifest::ShardManifest;
use crate::shards::SplitMark;

/// Name of the journal's file.
pub(super) const JOURNAL: &str = "journal.jsonl";

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Record {
    /// The first: what is built, as a hash of settings, tokenizer and files.
    Build(String),
    /// A file of the split to train on is full.
    Train(ShardManifest),
    /// A held-out file is full.
    HeldOut(ShardManifest),
    /// Everything up to here is on the disk.
    Mark(Mark),
    /// All text is read: only the last files are to be ended.
    End,
}

/// A point at which the build can go on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    pub(super) train: SplitMark,
    pub(super) held_out: SplitMark,
    pub(super) sources: Vec<SourceMark>,
}

/// How far a source is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceMark {
    pub(super) place: Place,
    pub(super) is_exhausted: bool,
    pub(super) document_count: u64,
    pub(super) token_count: u64,
    pub(super) text_bytes: u64,
    pub(super) bad_line_count: u64,
}

/// What an earlier build left.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Left {
    pub(super) mark: Mark,
    pub(super) train: Vec<ShardManifest>,
    pub(super) held_out: Vec<ShardManifest>,
    pub(super) is_ended: bool,
}

/// The journal of the build that runs.
pub(super) struct BuildJournal {
    path: PathBuf,
    file: File,
    /// Full files that it knows.
    train: usize,
    held_out: usize,
}

impl BuildJournal {
    /// Opens the journal in `folder` for the build with this fingerprint, or begins one. What an
    /// earlier build left up to its last mark comes with it.
    pub(super) fn open(
        folder: &Path,
        fingerprint: &str,
    ) -> Result<(Self, Option<Left>), DataError> {
        let path = folder.join(JOURNAL);
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true);
        let mut file = options.open(&path).map_err(at(&path))?;
        if file.try_lock().is_err() {
            return Err(DataError::Occupied {
                folder: folder.to_owned(),
                what: "a build that is running",
            });
        }
        let (records, len) = read(&path)?;
        // What the kill cut off goes, so that the next line starts at a line's start.
        file.set_len(len).map_err(at(&path))?;
        file.seek(SeekFrom::Start(len)).map_err(at(&path))?;
        let left = left(&path, fingerprint, records)?;
        let mut journal = Self {
            path,
            file,
            train: left.as_ref().map_or(0, |left| left.train.len()),
            held_out: left.as_ref().map_or(0, |left| left.held_out.len()),
        };
        if len == 0 {
            journal.append(&[Record::Build(fingerprint.to_owned())])?;
        }
        Ok((journal, left))
    }

    /// Writes the full files that it does not know yet, and a mark.
    pub(super) fn mark(
        &mut self,
        train: &[ShardManifest],
        held_out: &[ShardManifest],
        mark: Mark,
    ) -> Result<(), DataError> {
        let new_train = train.iter().skip(self.train).cloned();
        let new_held_out = held_out.iter().skip(self.held_out).cloned();
        let mut records: Vec<Record> = new_train.map(Record::Train).collect();
        records.extend(new_held_out.map(Record::HeldOut));
        records.push(Record::Mark(mark));
        (self.train, self.held_out) = (train.len(), held_out.len());
        self.append(&records)
    }

    /// Writes that all text is read.
    pub(super) fn end(&mut self) -> Result<(), DataError> {
        self.append(&[Record::End])
    }

    /// The build is done: the journal goes.
    pub(super) fn remove(self) -> Result<(), DataError> {
        fs::remove_file(&self.path).map_err(at(&self.path))
    }

    fn append(&mut self, records: &[Record]) -> Result<(), DataError> {
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record).map_err(|error| DataError::Journal {
                path: self.path.clone(),
                message: error.to_string(),
            })?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines).and_then(|()| self.file.sync_data()).map_err(at(&self.path))
    }
}

/// The whole lines of a journal, and their bytes.
fn read(path: &Path) -> Result<(Vec<Record>, u64), DataError> {
    let mut input = BufReader::new(File::open(path).map_err(at(path))?);
    let mut records = Vec::new();
    let mut len = 0;
    loop {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line).map_err(at(path))?;
        let Some((b'\n', json)) = line.split_last() else {
            return Ok((records, len));
        };
        let record = serde_json::from_slice(json);
        records.push(record.map_err(|error| DataError::Journal {
            path: path.to_owned(),
            message: error.to_string(),
        })?);
        len += line.len() as u64;
    }
}

/// What the records say was done up to the last mark.
fn left(path: &Path, fingerprint: &str, records: Vec<Record>) -> Result<Option<Left>, DataError> {
    let wrong =
        |message: &str| DataError::Journal { path: path.to_owned(), message: message.to_owned() };
    let mut left = Left::default();
    let mut is_marked = false;
    for (index, record) in records.into_iter().enumerate() {
        match record {
            Record::Build(found) if index == 0 && found == fingerprint => {}
            Record::Build(_) => {
                return Err(wrong(
                    "is of a build with other settings, another tokenizer or other files",
                ));
            }
            _ if index == 0 => return Err(wrong("does not say what is built")),
            Record::Train(shard) => left.train.push(shard),
            Record::HeldOut(shard) => left.held_out.push(shard),
            Record::Mark(mark) => {
                left.mark = mark;
                is_marked = true;
            }
            Record::End => left.is_ended = true,
        }
    }
    let mark = &left.mark;
    if mark.train.shards > left.train.len() || mark.held_out.shards > left.held_out.len() {
        return Err(wrong("has fewer files than its mark"));
    }
    left.train.truncate(mark.train.shards);
    left.held_out.truncate(mark.held_out.shards);
    Ok(is_marked.then_some(left))
}
