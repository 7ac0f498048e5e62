//! The files of a source, in an order that depends on their names alone.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::settings::{Format, SourceSettings};
use super::unpack::{other_compression, Compression};
use crate::corpus;
use crate::error::{at, DataError};
use crate::manifest::hex;
use crate::remote::store::{is_url, RemoteStore, StoreOptions};

/// Files of a source, and folders in a folder, at most.
const FILES_MAX: usize = 1 << 22;

/// Folders inside folders, at most.
const DEPTH_MAX: usize = 64;

/// A file to read text from.
#[derive(Clone, Debug)]
pub(super) struct InputFile {
    /// As messages name it: relative to the folder that was given.
    pub(super) name: String,
    /// Where it lies.
    pub(super) place: FilePlace,
    /// Bytes as they lie there.
    pub(super) len: u64,
    /// What it is, beneath its compression.
    pub(super) format: Format,
    /// How it is compressed as a whole.
    pub(super) compression: Compression,
}

/// Where a file lies.
#[derive(Clone, Debug)]
pub(super) enum FilePlace {
    /// On this machine.
    Disk(PathBuf),
    /// In a store, under this name.
    Store(RemoteStore, String),
}

/// The files of `source`. With `says_left_out`, a warning counts the files of each folder that are none of its.
///
/// # Errors
/// A path does not exist, or no file of the right kind is there.
pub(super) fn list(
    source: &SourceSettings,
    says_left_out: bool,
) -> Result<Vec<InputFile>, DataError> {
    let mut files = Vec::new();
    for path in &source.paths {
        let found = files.len();
        match is_url(path) {
            true => list_store(path, source.format, &mut files)?,
            false => {
                let left_out = list_disk(Path::new(path), source.format, &mut files)?;
                if let Some(first) = left_out.first().filter(|_| says_left_out) {
                    let count = left_out.len();
                    tracing::warn!(
                        "{path}: {count} files of other kinds are left out, {first} is the first"
                    );
                }
            }
        }
        if files.len() == found {
            return Err(DataError::Input {
                name: path.clone(),
                message: "no file of a known kind is in it".to_owned(),
            });
        }
    }
    Ok(files)
}

/// What a source consists of, without reading it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survey {
    /// Files that would be read.
    pub file_count: u64,
    /// Their bytes, as they lie there.
    pub bytes: u64,
    /// Whether all are text that is not compressed, no JSONL and no Parquet.
    pub is_plain: bool,
    /// BLAKE3 of all names and lengths, in hexadecimal digits: another number says that the text is another one, the same
    /// number does not say that nobody has edited it.
    pub names: String,
}

/// Lists the files of `source`.
///
/// # Errors
/// A path does not exist, or no file of the right kind is there.
pub fn survey(source: &SourceSettings) -> Result<Survey, DataError> {
    let files = list(source, false)?;
    let mut names = blake3::Hasher::new();
    for file in &files {
        names.update(format!("{:?} {}\n", file.name, file.len).as_bytes());
    }
    let is_plain =
        |file: &InputFile| file.format == Format::Text && file.compression == Compression::None;
    Ok(Survey {
        file_count: files.len() as u64,
        bytes: files.iter().map(|file| file.len).sum(),
        is_plain: files.iter().all(is_plain),
        names: hex(names.finalize().into()),
    })
}

/// Adds the files of a path that are wanted; the names of a folder's others.
fn list_disk(
    path: &Path,
    format: Option<Format>,
    files: &mut Vec<InputFile>,
) -> Result<Vec<String>, DataError> {
    let mut add = |name: &str, path: PathBuf| -> Result<(), DataError> {
        let len = fs::metadata(&path).map_err(at(&path))?.len();
        files.push(input(name, FilePlace::Disk(path), len, format)?);
        Ok(())
    };
    if fs::metadata(path).map_err(at(path))?.is_file() {
        let name = path.file_name().unwrap_or(path.as_os_str());
        add(&name.to_string_lossy(), path.to_owned())?;
        return Ok(Vec::new());
    }
    let mut left_out = Vec::new();
    for (name, file) in walk(path)? {
        match is_wanted(&name, format) || is_wanted_unpacked(&name, format) {
            true => add(&name, file)?,
            false => left_out.push(name),
        }
    }
    Ok(left_out)
}

fn list_store(
    url: &str,
    format: Option<Format>,
    files: &mut Vec<InputFile>,
) -> Result<(), DataError> {
    let store = RemoteStore::open(url, &StoreOptions::default())?;
    for (object, len) in store.list()? {
        // An empty name is that of the address itself.
        let name = match object.is_empty() {
            true => url.rsplit('/').next().unwrap_or(url),
            false => &object,
        };
        if object.is_empty() || is_wanted(name, format) || is_wanted_unpacked(name, format) {
            let name = name.to_owned();
            let place = FilePlace::Store(store.clone(), object);
            files.push(input(&name, place, len, format)?);
        }
    }
    Ok(())
}

fn input(
    name: &str,
    place: FilePlace,
    len: u64,
    format: Option<Format>,
) -> Result<InputFile, DataError> {
    if let Some((_, message)) = other_compression(&name.to_ascii_lowercase()) {
        return Err(DataError::Input { name: name.to_owned(), message });
    }
    let (extension, compression) = split_extension(name);
    let format = format.unwrap_or(match &*extension {
        "jsonl" | "ndjson" => Format::Jsonl,
        "parquet" => Format::Parquet,
        _ => Format::Text,
    });
    if format == Format::Parquet && compression != Compression::None {
        return Err(DataError::Input {
            name: name.to_owned(),
            message: "a Parquet file that is compressed as a whole cannot be read".to_owned(),
        });
    }
    Ok(InputFile { name: name.to_owned(), place, len, format, compression })
}

impl InputFile {
    /// A reader of its content as it lies there.
    pub(super) fn open(&self) -> Result<Box<dyn Read + Send>, DataError> {
        match &self.place {
            FilePlace::Disk(path) => Ok(Box::new(File::open(path).map_err(at(path))?)),
            FilePlace::Store(store, object) => Ok(Box::new(store.reader(object, self.len))),
        }
    }
}

/// The extension of a file's name beneath that of its compression, in small letters.
fn split_extension(name: &str) -> (String, Compression) {
    let name = name.to_ascii_lowercase();
    let (stem, compression) = match name.strip_suffix(".gz") {
        Some(stem) => (stem, Compression::Gzip),
        None => match name.strip_suffix(".zst") {
            Some(stem) => (stem, Compression::Zstd),
            None => (&*name, Compression::None),
        },
    };
    let extension = stem.rsplit_once('.').map_or("", |(_, extension)| extension);
    (extension.to_owned(), compression)
}

/// Whether a file of a folder is taken: by its extension.
fn is_wanted(name: &str, format: Option<Format>) -> bool {
    let (extension, _) = split_extension(name);
    match format {
        Some(Format::Parquet) => extension == "parquet",
        Some(Format::Jsonl) => matches!(&*extension, "jsonl" | "ndjson" | "json"),
        Some(Format::Text | Format::Lines) => corpus::EXTENSIONS.contains(&&*extension),
        None => {
            matches!(&*extension, "ndjson" | "parquet") || corpus::EXTENSIONS.contains(&&*extension)
        }
    }
}

/// Whether a file would be taken if it were not packed in a way that is not read: it is refused by name, and not left out.
fn is_wanted_unpacked(name: &str, format: Option<Format>) -> bool {
    other_compression(&name.to_ascii_lowercase()).is_some_and(|(stem, _)| is_wanted(stem, format))
}

/// The files under `root` with their names relative to it, sorted by them. Hidden ones are left
/// out; links to files are followed (model hubs keep their files so), links to folders are not.
fn walk(root: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let too_many = || DataError::Input {
        name: root.display().to_string(),
        message: "more files or deeper folders than a source may have".to_owned(),
    };
    let mut files = Vec::new();
    let mut folders = vec![(String::new(), root.to_owned(), 0)];
    while let Some((prefix, folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let entry = entry.map_err(at(&folder))?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            let relative = format!("{prefix}{name}");
            let kind = entry.file_type().map_err(at(&path))?;
            if kind.is_dir() && depth == DEPTH_MAX {
                return Err(too_many());
            } else if kind.is_dir() {
                folders.push((format!("{relative}/"), path, depth + 1));
            } else if kind.is_file() || fs::metadata(&path).is_ok_and(|data| data.is_file()) {
                files.push((relative, path));
            }
            if files.len() + folders.len() > FILES_MAX {
                return Err(too_many());
            }
        }
    }
    files.sort();
    Ok(files)
}
