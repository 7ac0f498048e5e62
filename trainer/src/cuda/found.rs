//! What of CUDA is on this machine: which libraries, where, and what brings those that are not there.
//!
//! A library is looked for in the folders of `GAUNTLET_CUDA_LIBRARIES`, in `CUDA_HOME`, in the folders of
//! pip's packages (of `VIRTUAL_ENV` and of the system's Python), in `/usr/local/cuda*`, and where the
//! loader looks. It is loaded by its full path for the whole process, after which cudarc finds it by its
//! file name. Nothing here fails without CUDA, and no function of cudarc is called for a library that is not there:
//! it would panic.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library as Loaded, RTLD_GLOBAL, RTLD_NOW};

use super::gpu::GpuError;

/// Folders to look for libraries in before all others, with `:` between them.
pub const FOLDERS: &str = "GAUNTLET_CUDA_LIBRARIES";

/// A library of CUDA's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Library {
    /// The driver's, which comes with the driver and no other way.
    Driver,
    /// Compiles the kernels.
    Nvrtc,
    /// Multiplies matrices.
    CublasLt,
    /// Joins several GPUs; one needs none.
    Nccl,
}

impl Library {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Driver, Self::Nvrtc, Self::CublasLt, Self::Nccl];

    /// Its file names, the first that is found is taken.
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["libcuda.so.1"],
            Self::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so.12"],
            Self::CublasLt => &["libcublasLt.so.13", "libcublasLt.so.12"],
            Self::Nccl => &["libnccl.so.2"],
        }
    }

    /// What it is for, in a few words.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Driver => "the driver",
            Self::Nvrtc => "compiles the kernels",
            Self::CublasLt => "multiplies matrices",
            Self::Nccl => "joins several GPUs; one needs none",
        }
    }

    /// What brings it.
    pub fn cure(self) -> &'static str {
        match self {
            Self::Driver => {
                "it comes with NVIDIA's driver, 580 or newer (Debian, Ubuntu: apt-get install nvidia-driver; \
                 in a container: start it with the host's GPUs, docker run --gpus all)"
            }
            Self::Nvrtc => {
                "pip install nvidia-cuda-nvrtc (or, of NVIDIA's apt repository, cuda-nvrtc-13-0); \
                 for a driver older than 580: nvidia-cuda-nvrtc-cu12"
            }
            Self::CublasLt => {
                "pip install nvidia-cublas (or, of NVIDIA's apt repository, libcublas-13-0); \
                 for a driver older than 580: nvidia-cublas-cu12"
            }
            Self::Nccl => {
                "pip install nvidia-nccl-cu13 (or, of NVIDIA's apt repository, libnccl2)"
            }
        }
    }

    /// The error of a machine that does not have it.
    pub fn missing(self) -> GpuError {
        let [library, ..] = self.files() else {
            return GpuError::Missing { library: String::new(), cure: String::new() };
        };
        GpuError::Missing { library: (*library).to_owned(), cure: self.cure().to_owned() }
    }
}

/// A library that was looked for.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub library: Library,
    /// The file that was loaded; `None` where there is none. A file that the loader knows may have no folder here.
    pub path: Option<PathBuf>,
    /// Why the files that were there could not be loaded.
    pub refused: Vec<String>,
    loaded: Option<Loaded>,
}

impl Found {
    /// The loaded library, for what cudarc has no functions for.
    pub fn loaded(&self) -> Option<&Loaded> {
        self.loaded.as_ref()
    }
}

/// Looks for all libraries, once in a process, and loads those that are there.
pub fn libraries() -> &'static [Found] {
    static FOUND: OnceLock<Vec<Found>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let folders = folders(&|name| env::var_os(name).map(PathBuf::from));
        Library::ALL.into_iter().map(|library| find(library, &folders)).collect()
    })
}

/// A library that is on this machine, or the error that says what brings it.
///
/// # Errors
/// It is not there.
pub fn need(library: Library) -> Result<&'static Found, GpuError> {
    let found = libraries().iter().find(|found| found.library == library);
    let Some(found) = found.filter(|found| found.loaded.is_some()) else {
        let refused = found.and_then(|found| found.refused.first());
        return Err(match (library.missing(), refused) {
            (GpuError::Missing { library, cure }, Some(reason)) => {
                GpuError::Missing { library, cure: format!("{cure}; what is there: {reason}") }
            }
            (error, _) => error,
        });
    };
    // SAFETY: it opens and closes a library that is loaded already.
    let reached = unsafe {
        match library {
            Library::Driver => cudarc::driver::sys::is_culib_present(),
            Library::Nvrtc => cudarc::nvrtc::sys::is_culib_present(),
            Library::CublasLt => cudarc::cublaslt::sys::is_culib_present(),
            Library::Nccl => true,
        }
    };
    reached.then_some(found).ok_or_else(|| library.missing())
}

/// The folders to look in, in order; `variable` reads the environment.
fn folders(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = variable(FOLDERS)
        .iter()
        .flat_map(|list| env::split_paths(list).collect::<Vec<_>>())
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect();
    for toolkit in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable) {
        folders.push(toolkit.join("lib64"));
    }
    let pythons = variable("VIRTUAL_ENV").into_iter().chain(variable("CONDA_PREFIX"));
    let local = variable("HOME").map(|home| home.join(".local"));
    let roots = pythons.chain(local).chain(["/usr/local", "/usr", "/opt/venv"].map(PathBuf::from));
    for root in roots {
        folders.extend(wheels(&root));
    }
    let mut toolkits = children(Path::new("/usr/local"), |name| name.starts_with("cuda"));
    // The newest last in the order of names; `cuda` itself, a link to the one that is wanted, first.
    toolkits.sort_by_key(|path| (path.file_name() != Some(OsStr::new("cuda")), path.clone()));
    folders.extend(toolkits.into_iter().map(|toolkit| toolkit.join("lib64")));
    folders
}

/// The folders of libraries that pip's packages bring to a Python at `root`.
fn wheels(root: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for lib in ["lib", "lib64"] {
        for python in children(&root.join(lib), |name| name.starts_with("python3")) {
            for packages in ["site-packages", "dist-packages"] {
                let nvidia = python.join(packages).join("nvidia");
                folders
                    .extend(children(&nvidia, |_| true).into_iter().map(|part| part.join("lib")));
            }
        }
    }
    folders
}

/// What lies in a folder and has a name of this kind, in order; nothing where there is no folder.
fn children(folder: &Path, kind: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(&kind))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

fn find(library: Library, folders: &[PathBuf]) -> Found {
    let mut refused = Vec::new();
    for file in library.files() {
        for path in folders.iter().map(|folder| folder.join(file)).filter(|path| path.exists()) {
            if library == Library::Nvrtc {
                load_builtins(&path);
            }
            match load(path.as_os_str()) {
                Ok(loaded) => {
                    return Found { library, path: Some(path), refused, loaded: Some(loaded) }
                }
                Err(reason) => refused.push(reason),
            }
        }
        if let Ok(loaded) = load(OsStr::new(file)) {
            let path = Some(place(file).unwrap_or_else(|| PathBuf::from(file)));
            return Found { library, path, refused, loaded: Some(loaded) };
        }
    }
    Found { library, path: None, refused, loaded: None }
}

/// NVRTC loads its second half by name as it compiles; beside it by full path, it is found.
fn load_builtins(nvrtc: &Path) {
    let folder = nvrtc.parent().unwrap_or(Path::new(""));
    for path in children(folder, |name| name.starts_with("libnvrtc-builtins.so")) {
        if let Ok(loaded) = load(path.as_os_str()) {
            // For as long as the process lives.
            std::mem::forget(loaded);
        }
    }
}

fn load(path: &OsStr) -> Result<Loaded, String> {
    // SAFETY: a library of NVIDIA's, whose start does nothing that depends on ours.
    unsafe { Loaded::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }
        .map_err(|error| error.source().unwrap_or(&error).to_string())
}

/// Where a library of this process lies, by its file name.
fn place(file: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().filter_map(|line| line.find('/').and_then(|at| line.get(at..)));
    // libcuda.so.1 is a link to libcuda.so.580.65.06, and the file's own name is what is mapped.
    let stem = file.split(".so").next()?;
    path.map(Path::new)
        .find(|path| {
            let name = path.file_name().and_then(OsStr::to_str);
            name.is_some_and(|name| name.split(".so").next() == Some(stem))
        })
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_the_ones_asked_for_then_toolkit_then_pythons() {
        let venv = tempfile::tempdir().unwrap();
        let wheel = venv.path().join("lib/python3.12/site-packages/nvidia/cu13/lib");
        fs::create_dir_all(&wheel).unwrap();
        let variable = |name: &str| match name {
            FOLDERS => Some(PathBuf::from("/one::/two")),
            "CUDA_HOME" => Some(PathBuf::from("/toolkit")),
            "VIRTUAL_ENV" => Some(venv.path().to_owned()),
            _ => None,
        };
        let found = folders(&variable);
        let first = ["/one", "/two", "/toolkit/lib64"].map(PathBuf::from);
        assert_eq!(found[..3], first);
        assert_eq!(found[3], wheel);
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_and_said() {
        let folder = tempfile::tempdir().unwrap();
        for file in Library::Nccl.files() {
            fs::write(folder.path().join(file), "not a library").unwrap();
        }
        let found = find(Library::Nccl, &[folder.path().to_owned()]);
        assert_eq!(found.refused.len(), 1);
        assert!(found.refused[0].contains("libnccl.so.2"), "{}", found.refused[0]);
    }

    #[test]
    fn looking_never_fails_and_each_missing_library_names_what_brings_it() {
        assert_eq!(libraries().len(), Library::ALL.len());
        for library in Library::ALL {
            if let Err(error) = need(library) {
                let text = error.to_string();
                assert!(text.contains(library.files()[0]), "{text}");
                assert!(text.contains("pip install") || text.contains("apt-get install"), "{text}");
            }
        }
    }
}
