//! Makes the machine ready to build: compilers, the Wasm target, protoc, and where built files go.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command::{output, quiet},
    failure::Failure,
    nvrtc,
    wasm_toolchain::{self, WasmToolchain},
};

/// The oldest compiler that the workspace builds with; `rust-version` in Cargo.toml says the same.
const RUST_MINOR_MIN: u32 = 93;

/// A machine that is ready, and how cargo is called on it.
pub(crate) struct Setup {
    root: PathBuf,
    cache_dir: PathBuf,
    target_dir: PathBuf,
    protoc: PathBuf,
    rustc_version: String,
    wasm: WasmToolchain,
}

impl Setup {
    /// Looks at the machine, gets what is missing, and says what cannot be had.
    pub(crate) fn ensure() -> Result<Self, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .ok_or("the checkout has no root folder")?
            .to_owned();
        let cache_dir = cache_dir()?;
        let target_dir = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => root.join(dir),
            None => cache_dir.join("target"),
        };
        let protoc = protoc_bin_vendored::protoc_bin_path()
            .map_err(|error| format!("there is no protoc for this machine: {error}"))?;

        for compiler in ["cc", "c++"] {
            if !quiet(Command::new(compiler).arg("--version")) {
                return Err(format!(
                    "`{compiler}` is missing; `apt-get install build-essential` as root installs it"
                ));
            }
        }
        let rustc_version = output(Command::new("rustc").arg("--version"))
            .ok_or("rustc is missing; https://rustup.rs installs it")?;
        match wasm_toolchain::minor_version(&rustc_version) {
            Some(minor) if minor >= RUST_MINOR_MIN => {}
            _ => {
                return Err(format!(
                "Rust 1.{RUST_MINOR_MIN} or newer is needed and this is {rustc_version}; `rustup update stable` gets it"
            ))
            }
        }
        let wasm = wasm_toolchain::ensure(&cache_dir, RUST_MINOR_MIN)?;

        Ok(Self { root, cache_dir, target_dir, protoc, rustc_version, wasm })
    }

    /// Cargo with the set-up in its environment, in the root of the checkout.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // What the outer cargo said of this program is not true of what the inner one builds.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(&*name);
            }
        }
        cargo
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target_dir)
            .env("PROTOC", &self.protoc);
        self.wasm.apply(&mut cargo);
        if let Some(folder) = nvrtc::kept(&self.cache_dir) {
            cargo.env(nvrtc::VARIABLE, folder);
        }
        cargo
    }

    /// The root of the checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Our folder in the user's cache.
    pub(crate) fn cache_dir(&self) -> &Path {
        &self.cache_dir
    }

    /// Where the release build of the workspace lies.
    pub(crate) fn release_folder(&self) -> PathBuf {
        self.folder_of("release")
    }

    /// Where cargo puts what a profile compiles.
    pub(crate) fn folder_of(&self, profile: &str) -> PathBuf {
        self.target_dir.join(profile)
    }

    /// A built program.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.release_folder().join(name)
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rust    {}", self.rustc_version)?;
        writeln!(f, "wasm    {}", self.wasm)?;
        writeln!(f, "protoc  {}", self.protoc.display())?;
        writeln!(f, "target  {}", self.target_dir.display())
    }
}

/// Our folder in the user's cache.
fn cache_dir() -> Result<PathBuf, Failure> {
    let folder =
        |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    Ok(cache
        .ok_or("neither HOME nor XDG_CACHE_HOME names a folder; set CARGO_TARGET_DIR and HOME")?
        .join("gauntlet"))
}
