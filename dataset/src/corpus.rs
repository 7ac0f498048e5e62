//! Text to train on: a file or a folder of the user's, or by default the sources and Markdown of
//! the crates that Cargo.lock pins, as they lie in cargo's registry folder.
//!
//! The order and the selection depend on names and contents alone, so that the same files give the
//! same documents on every machine. A file that is no text (zero bytes, or hardly UTF-8) is skipped, and so
//! is one that is equal to an earlier one: licences are in every crate. A byte here and there that is not
//! UTF-8 becomes U+FFFD with a warning; in the default corpus such a file is skipped.
//!
//! For the default corpus only crates of families that every Linux build of this project compiles
//! are taken ([`FAMILIES`]); a crate for another system may or may not have been downloaded.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::utf8::{self, BYTE_ORDER_MARK};

/// The crates of the default corpus: a name itself, or (ending in `-`) the start of one.
pub const FAMILIES: [&str; 48] = [
    "anyhow",
    "arrayvec",
    "async-trait",
    "bip39",
    "bitvec",
    "blake2",
    "blake3",
    "bytes",
    "clap",
    "clap_builder",
    "codec-",
    "crossbeam-",
    "ed25519-",
    "either",
    "frame-",
    "futures",
    "futures-",
    "gemm",
    "hashbrown",
    "hex",
    "http",
    "hyper",
    "hyper-util",
    "indexmap",
    "itertools",
    "jsonrpsee-",
    "k256",
    "libp2p",
    "libp2p-",
    "log",
    "memchr",
    "num-",
    "pallet-",
    "parity-",
    "rand",
    "rayon",
    "rayon-",
    "regex",
    "regex-",
    "sc-",
    "serde",
    "serde_",
    "smallvec",
    "sp-",
    "substrate-",
    "tokio",
    "tokio-",
    "tracing-",
];

/// Extensions of files that are taken from a folder.
pub const EXTENSIONS: [&str; 24] = [
    "adoc", "c", "cc", "cpp", "css", "csv", "go", "h", "html", "java", "js", "json", "jsonl", "md",
    "org", "py", "rs", "rst", "sh", "tex", "toml", "ts", "txt", "yaml",
];

/// Files of a folder and its folders, at most: a bound on the walk, not on the text.
const FILES_MAX: usize = 1 << 20;

/// Folders inside folders, at most.
const DEPTH_MAX: usize = 64;

/// Why there is no corpus.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// A file or folder could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// More files or deeper folders than the walk's bounds.
    #[error("{0} has more files or deeper folders than a corpus may have")]
    TooMany(PathBuf),
    /// There is not one document.
    #[error("no text in {0}: a document is UTF-8 without zero bytes, not empty, and (in a folder) has one of the known extensions")]
    Empty(PathBuf),
    /// Cargo's registry folder is not where it should be.
    #[error("no crates in {0}: build the project first, or give a text with --data")]
    Registry(PathBuf),
}

/// One text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// Where it comes from, relative and with `/`; for messages and for the order.
    pub name: String,
    /// UTF-8 without zero bytes.
    pub text: Vec<u8>,
}

/// How much text is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CorpusLimits {
    /// Bytes in all. Documents that would exceed it are left out.
    pub total_bytes_max: u64,
    /// Bytes of a file of a folder or crate; longer ones are left out.
    pub file_bytes_max: u64,
    /// Bytes of a crate, in the default corpus, so that it is varied.
    pub crate_bytes_max: u64,
}

impl Default for CorpusLimits {
    fn default() -> Self {
        Self { total_bytes_max: 48 << 20, file_bytes_max: 256 << 10, crate_bytes_max: 512 << 10 }
    }
}

/// The text of a file, or of a folder with all folders inside, in the order of the names.
///
/// A file that is named itself is taken whatever its extension, up to the limit for the total.
pub fn gather(path: &Path, limits: &CorpusLimits) -> Result<Vec<Document>, CorpusError> {
    let metadata = fs::metadata(path).map_err(at(path))?;
    let mut gathered = Gathered::new(limits.total_bytes_max);
    if metadata.is_file() {
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        if metadata.len() <= limits.total_bytes_max {
            gathered.take_users_file(name, path)?;
        }
    } else {
        for (name, file) in walk(path)? {
            if fs::metadata(&file).map_err(at(&file))?.len() <= limits.file_bytes_max {
                gathered.take_users_file(name, &file)?;
            }
        }
    }
    match gathered.documents.is_empty() {
        true => Err(CorpusError::Empty(path.to_owned())),
        false => Ok(gathered.documents),
    }
}

/// The default corpus: Rust sources and Markdown of the crates of [`FAMILIES`] that `cargo_lock`
/// pins, in the order of their names, from cargo's registry folder (`CARGO_HOME` or `~/.cargo`).
pub fn default_corpus(
    cargo_lock: &Path,
    limits: &CorpusLimits,
) -> Result<Vec<Document>, CorpusError> {
    corpus_from_registry(cargo_lock, &registry_folder(), limits)
}

/// [`default_corpus`] from a given `registry/src` folder.
pub fn corpus_from_registry(
    cargo_lock: &Path,
    registry: &Path,
    limits: &CorpusLimits,
) -> Result<Vec<Document>, CorpusError> {
    let lock = fs::read_to_string(cargo_lock).map_err(at(cargo_lock))?;
    let folders = crate_folders(registry)?;
    let mut gathered = Gathered::new(limits.total_bytes_max);
    for name in locked_crates(&lock) {
        let Some(folder) = folders.get(&name) else {
            tracing::warn!(name, "a locked crate is not unpacked: the corpus will be another");
            continue;
        };
        let mut crate_bytes = 0;
        for (file_name, file) in walk(folder)? {
            if !(file_name.ends_with(".rs") || file_name.ends_with(".md")) {
                continue;
            }
            let len = fs::metadata(&file).map_err(at(&file))?.len();
            if len > limits.file_bytes_max || crate_bytes + len > limits.crate_bytes_max {
                continue;
            }
            if gathered.take_file(format!("{name}/{file_name}"), &file)? {
                crate_bytes += len;
            }
        }
    }
    match gathered.documents.is_empty() {
        true => Err(CorpusError::Registry(registry.to_owned())),
        false => Ok(gathered.documents),
    }
}

/// Documents, each once.
struct Gathered {
    documents: Vec<Document>,
    seen: HashSet<[u8; 32]>,
    bytes_left: u64,
}

impl Gathered {
    fn new(bytes_max: u64) -> Self {
        Self { documents: Vec::new(), seen: HashSet::new(), bytes_left: bytes_max }
    }

    /// Takes a file if it is text, new, and there is room; says whether it did.
    fn take_file(&mut self, name: String, path: &Path) -> Result<bool, CorpusError> {
        let text = fs::read(path).map_err(at(path))?;
        match std::str::from_utf8(&text) {
            Ok(_) => Ok(self.take(name, text)),
            Err(_) => Ok(false),
        }
    }

    /// As [`Self::take_file`], of a file of the user's: without a byte order mark, and with U+FFFD for what is not UTF-8.
    fn take_users_file(&mut self, name: String, path: &Path) -> Result<bool, CorpusError> {
        let bytes = fs::read(path).map_err(at(path))?;
        let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
        if text.contains(&0) || !utf8::is_mostly(text) {
            return Ok(false);
        }
        let (text, damage) = utf8::mend(text, (bytes.len() - text.len()) as u64);
        if let Some(damage) = damage {
            tracing::warn!("{}: {damage}", path.display());
        }
        Ok(self.take(name, text.into_bytes()))
    }

    /// Takes a text if it is one, new, and there is room; says whether it did.
    fn take(&mut self, name: String, text: Vec<u8>) -> bool {
        let is_text = !text.is_empty() && !text.contains(&0);
        if !is_text || text.len() as u64 > self.bytes_left {
            return false;
        }
        if !self.seen.insert(*blake3::hash(&text).as_bytes()) {
            return false;
        }
        self.bytes_left -= text.len() as u64;
        self.documents.push(Document { name, text });
        true
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CorpusError + '_ {
    move |source| CorpusError::Io { path: path.to_owned(), source }
}

/// The files with known extensions under `root`, with their names relative to it, sorted by them.
/// Hidden files and folders, links and folders named `target` are left out.
fn walk(root: &Path) -> Result<Vec<(String, PathBuf)>, CorpusError> {
    let mut files = Vec::new();
    let mut folders = vec![(String::new(), root.to_owned(), 0)];
    while let Some((prefix, folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let entry = entry.map_err(at(&folder))?;
            let kind = entry.file_type().map_err(at(&folder))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') || name == "target" {
                continue;
            }
            let relative = format!("{prefix}{name}");
            if kind.is_dir() {
                if depth == DEPTH_MAX {
                    return Err(CorpusError::TooMany(root.to_owned()));
                }
                folders.push((format!("{relative}/"), entry.path(), depth + 1));
            } else if kind.is_file() && has_known_extension(&name) {
                files.push((relative, entry.path()));
            }
            if files.len() + folders.len() > FILES_MAX {
                return Err(CorpusError::TooMany(root.to_owned()));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn has_known_extension(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// `registry/src` of cargo's home.
fn registry_folder() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    home.unwrap_or_else(|| PathBuf::from(".cargo")).join("registry").join("src")
}

/// The unpacked crates of all registries, by `name-version`.
fn crate_folders(registry: &Path) -> Result<BTreeMap<String, PathBuf>, CorpusError> {
    let mut folders = BTreeMap::new();
    let Ok(indexes) = fs::read_dir(registry) else {
        return Err(CorpusError::Registry(registry.to_owned()));
    };
    for index in indexes {
        let index = index.map_err(at(registry))?.path();
        let Ok(crates) = fs::read_dir(&index) else {
            continue;
        };
        for entry in crates {
            let entry = entry.map_err(at(&index))?;
            if let Ok(name) = entry.file_name().into_string() {
                folders.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    Ok(folders)
}

/// `name-version` of the packages of [`FAMILIES`] that come from a registry, sorted.
fn locked_crates(lock: &str) -> Vec<String> {
    let mut crates = Vec::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key))?;
            line.strip_prefix(" = \"")?.strip_suffix('"')
        };
        let (Some(name), Some(version)) = (field("name"), field("version")) else {
            continue;
        };
        if field("source").is_some_and(|source| source.starts_with("registry+")) && in_family(name)
        {
            crates.push(format!("{name}-{version}"));
        }
    }
    crates.sort();
    crates
}

fn in_family(name: &str) -> bool {
    FAMILIES.iter().any(|family| {
        let is_start = family.ends_with('-') || family.ends_with('_');
        name == *family || (is_start && name.starts_with(family))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_file_gives_registry_crates_of_the_families() {
        let lock = "version = 4\n\n[[package]]\nname = \"sp-core\"\nversion = \"43.0.0\"\n\
            source = \"registry+https://x\"\n\n[[package]]\nname = \"protocol\"\nversion = \"0.1.0\"\n\
            \n[[package]]\nname = \"windows-sys\"\nversion = \"1.0.0\"\nsource = \"registry+https://x\"\n\
            \n[[package]]\nname = \"bytes\"\nversion = \"1.2.3\"\nsource = \"registry+https://x\"\n";
        assert_eq!(locked_crates(lock), ["bytes-1.2.3", "sp-core-43.0.0"]);
    }

    #[test]
    fn folder_is_gathered_in_order_without_copies_and_binaries() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("b/target")).unwrap();
        fs::create_dir(root.join(".git")).unwrap();
        for (name, text) in [
            ("z.md", b"last".as_slice()),
            ("b/a.rs", b"fn main() {}"),
            ("b/copy.txt", b"last"),
            ("b/zero.txt", b"a\0b"),
            ("b/latin.txt", b"\xef\xbb\xbf\xe4hnlich"),
            ("b/target/x.rs", b"built"),
            (".git/y.txt", b"hidden"),
            ("photo.png", b"png"),
            ("a.txt", b"first"),
        ] {
            fs::write(root.join(name), text).unwrap();
        }
        let documents = gather(root, &CorpusLimits::default()).unwrap();
        let names: Vec<_> = documents.iter().map(|document| document.name.as_str()).collect();
        assert_eq!(names, ["a.txt", "b/a.rs", "b/copy.txt", "b/latin.txt"]);
        assert_eq!(documents[3].text, "\u{fffd}hnlich".as_bytes());
        let one = gather(&root.join("z.md"), &CorpusLimits::default()).unwrap();
        assert_eq!(one[0].text, b"last");
        let small = CorpusLimits { total_bytes_max: 6, ..CorpusLimits::default() };
        assert_eq!(gather(root, &small).unwrap().len(), 1);
        assert!(matches!(gather(&root.join("none"), &small), Err(CorpusError::Io { .. })));
    }
}
