//! A GGUF model that is cut into several files, as llama.cpp's `gguf-split` does:
//! `NAME-00001-of-00003.gguf` and so on.
//!
//! The first part has all key-value pairs; each says which part it is (`split.no`, from 0 on), how
//! many there are (`split.count`) and how many tensors they have together (`split.tensors.count`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::header::{Header, Metadata, Stored};
use crate::files::error::FileError;

/// Most parts of a model.
const PARTS_MAX: u64 = 4096;

/// How many tensors the parts have together.
const TENSORS: &str = "split.tensors.count";

/// One file of a model.
pub(super) struct Part {
    pub(super) path: PathBuf,
    map: Mmap,
    header: Header,
}

impl Part {
    fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::io(path))?;
        // SAFETY: the map is only read, as bytes; see `Shard::open`.
        let map = unsafe { Mmap::map(&file) }.map_err(FileError::io(path))?;
        let header = Header::read(&map)
            .map_err(|reason| FileError::format(path, format!("not GGUF: {reason}")))?;
        Ok(Self { path: path.to_owned(), map, header })
    }

    pub(super) fn metadata(&self) -> Metadata<'_> {
        Metadata::new(&self.map, &self.header)
    }

    /// `len` bytes from `start` on, if the file has them.
    pub(super) fn bytes(&self, start: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(start).ok()?;
        self.map.get(start..start.checked_add(len)?)
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = (&String, &Stored)> {
        self.header.tensors.iter()
    }

    /// How many parts there are; 1 for a whole file.
    fn count(&self) -> Result<u64, FileError> {
        const COUNT: &str = "split.count";
        let count = self.number(COUNT)?.map_or(1, |count| count.max(1));
        match count > PARTS_MAX {
            true => {
                let reason = format!("{COUNT} is {count}, more than {PARTS_MAX}");
                Err(FileError::format(&self.path, reason))
            }
            false => Ok(count),
        }
    }

    fn number(&self, key: &str) -> Result<Option<u64>, FileError> {
        let found = self.metadata().number(key);
        found.map_err(|reason| FileError::format(&self.path, reason))
    }

    /// Checks that this is part `no` (from 0 on) of `count` with so many tensors together.
    fn check(&self, no: u64, count: u64, tensors: Option<u64>) -> Result<(), FileError> {
        let wrong = |reason: String| Err(FileError::format(&self.path, reason));
        if self.count()? != count {
            let found = self.count()?;
            return wrong(format!("part of a model in {found} files, not in {count}"));
        }
        match self.number("split.no")? {
            Some(found) if found == no => {}
            Some(found) => {
                let (found, named) = (found + 1, no + 1);
                return wrong(format!("by its content part {found}, by its name {named}"));
            }
            None => return wrong("does not say which part it is (split.no)".to_owned()),
        }
        let found = self.number(TENSORS)?;
        if found != tensors {
            let text = |count: Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
            let (found, expected) = (text(found), text(tensors));
            return wrong(format!(
                "of another model: one of {found} tensors, where the first part's has {expected}"
            ));
        }
        Ok(())
    }
}

/// The files of the model at `path`: a whole file, any part of one that is cut, or a folder with
/// either. In order.
pub(super) fn open(path: &Path) -> Result<Vec<Part>, FileError> {
    let path = match path.is_dir() {
        true => in_folder(path)?,
        false => path.to_owned(),
    };
    let opened = Part::open(&path)?;
    let count = opened.count()?;
    if count == 1 {
        return Ok(vec![opened]);
    }
    let Some(name) = Name::of(&path).filter(|name| name.count == count) else {
        let reason = format!(
            "one of {count} parts, which is not named as one: NAME-00001-of-{count:05}.gguf"
        );
        return Err(FileError::format(&path, reason));
    };
    let missing: Vec<String> = (1..=count)
        .map(|no| name.of_part(no))
        .filter(|part| !path.with_file_name(part).is_file())
        .collect();
    if let Some(first) = missing.first() {
        let number = missing.len();
        let reason = format!("{number} of its {count} parts are missing, the first is {first}");
        return Err(FileError::format(&path, reason));
    }
    let parts = (1..=count).map(|no| Part::open(&path.with_file_name(name.of_part(no))));
    let parts = parts.collect::<Result<Vec<_>, FileError>>()?;
    let tensors = match parts.first() {
        Some(part) => part.number(TENSORS)?,
        None => None,
    };
    for (part, no) in parts.iter().zip(0..) {
        part.check(no, count, tensors)?;
    }
    let found: usize = parts.iter().map(|part| part.header.tensors.len()).sum();
    match tensors {
        Some(tensors) if tensors == found as u64 => Ok(parts),
        _ => {
            let reason = format!("its {count} parts have {found} tensors, not split.tensors.count");
            Err(FileError::format(&path, reason))
        }
    }
}

/// `NAME-00002-of-00003.gguf`.
#[derive(Debug, PartialEq)]
struct Name {
    start: String,
    end: String,
    count: u64,
}

impl Name {
    /// The name of a file, if it is that of a part.
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (start, end) = name.split_at(name.len().checked_sub(".gguf".len())?);
        let (start, count) = start.rsplit_once("-of-")?;
        let (start, no) = start.rsplit_once('-')?;
        let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        let is_part = end.eq_ignore_ascii_case(".gguf") && is_number(no) && is_number(count);
        is_part.then_some(Self {
            start: start.to_owned(),
            end: end.to_owned(),
            count: count.parse().ok()?,
        })
    }

    /// The name of part `no`, from 1 on.
    fn of_part(&self, no: u64) -> String {
        let Self { start, end, count } = self;
        format!("{start}-{no:05}-of-{count:05}{end}")
    }
}

/// Whether this is the name of a GGUF file.
pub(crate) fn is_named_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// Whether a file's name begins with a dot, as those that macOS puts beside others do.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The names of GGUF files in a folder, sorted; hidden ones are passed over.
pub(crate) fn gguf_files(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = fs::read_dir(folder).map_err(FileError::io(folder))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(FileError::io(folder))?.path();
        if is_named_gguf(&path) && !is_hidden(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The one model's file in a folder, or the first part that is there.
fn in_folder(folder: &Path) -> Result<PathBuf, FileError> {
    let mut files = gguf_files(folder)?.into_iter();
    let first =
        files.next().ok_or_else(|| FileError::format(folder, "no GGUF file is in this folder"))?;
    let name = Name::of(&first);
    match files.find(|other| name.is_none() || Name::of(other) != name) {
        None => Ok(first),
        Some(other) => {
            let name = |path: &Path| path.file_name().map(|name| name.display().to_string());
            let [one, other] = [&first, &other].map(|path| name(path).unwrap_or_default());
            let reason = format!("several models are in this folder ({one}, {other}): name one");
            Err(FileError::format(folder, reason))
        }
    }
}
