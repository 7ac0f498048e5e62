//! Keeps what was compiled, so that a kernel is compiled once on a machine.
//!
//! A file of the user's cache folder (`gauntlet/cubins`) is named by the hash of all that its content depends on: source,
//! prelude, options and compiler. It begins with the hash of what follows; a file that does not is
//! compiled again. A cache that cannot be read or written costs time and no more.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::compiler::{self, Architecture, Compiled, Unit};
use super::gpu::GpuError;
use super::kernels;

/// Changes when the files' form does.
const FORM: &str = "gauntlet cubins, form 1";

/// Bytes of the hash that a file begins with.
const HASH: usize = blake3::OUT_LEN;

/// A folder of compiled kernels.
#[derive(Clone, Debug)]
pub struct Cubins {
    /// `None` keeps nothing.
    folder: Option<PathBuf>,
}

impl Cubins {
    /// In the user's cache folder; keeps nothing where the environment names none.
    pub fn of_user() -> Self {
        let folder =
            |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache =
            folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        Self { folder: cache.map(|cache| cache.join("gauntlet/cubins")) }
    }

    /// In a folder.
    pub fn at(folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()) }
    }

    /// Where they are; `None` where nothing is kept.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// What a unit compiles to: kept, or compiled now.
    ///
    /// # Errors
    /// NVRTC is not there, or refuses the source.
    pub fn compiled(&self, unit: &Unit, architecture: Architecture) -> Result<Compiled, GpuError> {
        let key = key(unit, architecture, compiler::version()?)?;
        self.kept_or(&key, || compiler::compile(unit, architecture))
    }

    /// What is kept under a key, or else what `compile` gives, kept from now on.
    fn kept_or(
        &self,
        key: &str,
        compile: impl FnOnce() -> Result<Compiled, GpuError>,
    ) -> Result<Compiled, GpuError> {
        let path = self.folder.as_ref().map(|folder| folder.join(key));
        let kept = path.as_ref().and_then(|path| fs::read(path).ok());
        if let Some(compiled) = kept.and_then(|bytes| read(&bytes)) {
            return Ok(compiled);
        }
        let compiled = compile()?;
        if let Some(path) = path {
            if let Err(error) = write(&path, &compiled) {
                tracing::debug!(%error, path = %path.display(), "a compiled kernel is not kept");
            }
        }
        Ok(compiled)
    }
}

/// The name of a unit's file: the hash of all that it depends on.
fn key(unit: &Unit, architecture: Architecture, nvrtc: (i32, i32)) -> Result<String, GpuError> {
    let mut hasher = blake3::Hasher::new();
    let version = format!("{}.{}", nvrtc.0, nvrtc.1);
    let options = compiler::options(unit, architecture);
    let texts = [FORM, &version, unit.source()?, kernels::PRELUDE];
    for text in texts.into_iter().chain(options.iter().map(String::as_str)) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    Ok(format!("{}.cubin", hasher.finalize().to_hex()))
}

/// Reads a file's bytes: hash, length of the log in 4 bytes, log, cubin. `None` if they are damaged.
fn read(bytes: &[u8]) -> Option<Compiled> {
    let (hash, rest) = bytes.split_first_chunk::<HASH>()?;
    if blake3::hash(rest).as_bytes() != hash {
        return None;
    }
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (log, cubin) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some(Compiled { cubin: cubin.to_vec(), log: String::from_utf8(log.to_vec()).ok()? })
}

/// Writes a file beside its place and moves it there, so that no other process sees a part of it.
fn write(path: &Path, compiled: &Compiled) -> std::io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut rest = (compiled.log.len() as u32).to_le_bytes().to_vec();
    rest.extend(compiled.log.as_bytes());
    rest.extend(&compiled.cubin);
    let mut bytes = blake3::hash(&rest).as_bytes().to_vec();
    bytes.append(&mut rest);

    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("{}-{number}", std::process::id()));
    let outcome = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if outcome.is_err() {
        let _ = fs::remove_file(&beside);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(text: &str) -> Compiled {
        Compiled { cubin: vec![1, 2, 3], log: text.to_owned() }
    }

    #[test]
    fn what_was_compiled_is_kept_and_nothing_damaged_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let cubins = Cubins::at(folder.path());
        let first = cubins.kept_or("k.cubin", || Ok(compiled("first"))).unwrap();
        let again = cubins.kept_or("k.cubin", || panic!("it is kept")).unwrap();
        assert_eq!((first.log.as_str(), &first), ("first", &again));
        let path = folder.path().join("k.cubin");
        let whole = fs::read(&path).unwrap();
        for at in [0, HASH, HASH + 4, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            let new = cubins.kept_or("k.cubin", || Ok(compiled("new"))).unwrap();
            assert_eq!(new.log, "new", "a bit of byte {at}");
        }
        for len in [0, HASH, HASH + 2, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(cubins.kept_or("k.cubin", || Ok(compiled("new"))).unwrap().log, "new");
        }
        // Nothing is left of the files that were moved to their places.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_time_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let cubins = Cubins::at(&file);
        assert_eq!(cubins.kept_or("k.cubin", || Ok(compiled("a"))).unwrap().log, "a");
        assert_eq!(cubins.kept_or("k.cubin", || Ok(compiled("b"))).unwrap().log, "b");
    }

    #[test]
    fn an_error_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cubins = Cubins::at(folder.path());
        let error = || GpuError::Compile { kernel: "k".to_owned(), log: "no".to_owned() };
        assert_eq!(cubins.kept_or("k.cubin", || Err(error())), Err(error()));
        assert_eq!(cubins.kept_or("k.cubin", || Ok(compiled("a"))).unwrap().log, "a");
    }
}
