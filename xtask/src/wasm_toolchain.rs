//! A Rust compiler that can build for `wasm32v1-none`, the target of the runtime.
//!
//! In order of preference: the compiler in use has the target; rustup adds it; or it is made from a distribution's
//! packages, whose `core` and `alloc` are compiled from the packaged sources into a folder of our own that otherwise
//! refers to the distribution's files. The last needs no other server than the distribution's.

use std::{
    env, fmt, fs,
    io::Write,
    os::unix::fs::{symlink, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command::{output, quiet},
    failure::Failure,
};

/// The target that the runtime is built for.
const TARGET: &str = "wasm32v1-none";
/// The name under which rustup knows a toolchain that was made here.
const NAME: &str = "gauntlet-wasm";
/// Where a distribution keeps its compiler, apart from rustup's.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";
const DISTRIBUTION_CARGO: &str = "/usr/bin/cargo";
/// Packages with a compiler, its sources and its linker; the first set that the distribution has and that is new
/// enough is taken. Debian keeps a current compiler for its browsers under the names with `-web`.
const PACKAGES: [&[&str]; 2] =
    [&["rustc-web", "cargo-web", "rust-web-src", "lld-22"], &["rustc", "cargo", "rust-src", "lld"]];

/// How the Wasm target is reached.
pub(crate) enum WasmToolchain {
    /// The compiler in use has it.
    InUse,
    /// A toolchain made here, linked into rustup.
    Linked(PathBuf),
    /// A toolchain made here; there is no rustup, so it builds everything.
    Alone(PathBuf),
}

impl WasmToolchain {
    /// Sets what cargo needs to find the toolchain.
    pub(crate) fn apply(&self, cargo: &mut Command) {
        match self {
            Self::InUse => {}
            Self::Linked(_) => {
                cargo.env("WASM_BUILD_TOOLCHAIN", NAME);
            }
            Self::Alone(folder) => {
                let bin = folder.join("bin");
                let path = env::var_os("PATH").unwrap_or_default();
                let paths = std::iter::once(bin.clone()).chain(env::split_paths(&path));
                if let Ok(paths) = env::join_paths(paths) {
                    cargo.env("PATH", paths);
                }
                cargo.env("CARGO", bin.join("cargo")).env("RUSTC", bin.join("rustc"));
            }
        }
    }
}

impl fmt::Display for WasmToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => write!(f, "{TARGET} of the compiler in use"),
            Self::Linked(folder) => write!(f, "{} (rustup: {NAME})", folder.display()),
            Self::Alone(folder) => write!(f, "{}", folder.display()),
        }
    }
}

/// Finds or makes a toolchain with the target; `minor_min` is the oldest minor version of Rust that will do.
///
/// `GAUNTLET_WASM_TOOLCHAIN=distribution` skips what the compiler in use and rustup offer.
pub(crate) fn ensure(cache_dir: &Path, minor_min: u32) -> Result<WasmToolchain, Failure> {
    let rustup = quiet(Command::new("rustup").arg("--version"));
    let wanted = env::var("GAUNTLET_WASM_TOOLCHAIN").unwrap_or_default();
    if wanted != "distribution" {
        if has_target(&mut Command::new("rustc")) {
            return Ok(WasmToolchain::InUse);
        }
        if rustup
            && quiet(Command::new("rustup").args(["target", "add", TARGET]))
            && has_target(&mut Command::new("rustc"))
        {
            return Ok(WasmToolchain::InUse);
        }
    }

    let folder = cache_dir.join("wasm-toolchain");
    let version = distribution_version(minor_min)?;
    make(&folder, &version)?;
    if !rustup {
        return Ok(WasmToolchain::Alone(folder));
    }
    let linked = quiet(Command::new("rustup").args(["toolchain", "link", NAME]).arg(&folder));
    if !linked {
        return Err(format!(
            "rustup does not take the Wasm toolchain; `rustup toolchain link {NAME} {}` says why",
            folder.display()
        ));
    }
    Ok(WasmToolchain::Linked(folder))
}

/// The minor version in the first line of `rustc --version`; `None` if it is not Rust 1.
pub(crate) fn minor_version(text: &str) -> Option<u32> {
    let mut parts = text.strip_prefix("rustc 1.")?.split('.');
    parts.next()?.parse().ok()
}

/// Whether a compiler has the target's `core`.
fn has_target(rustc: &mut Command) -> bool {
    let Some(sysroot) = output(rustc.args(["--print", "sysroot"])) else {
        return false;
    };
    let libraries = Path::new(&sysroot).join("lib/rustlib").join(TARGET);
    libraries.join("lib").is_dir()
}

/// The version of the distribution's compiler, installed first if it is missing or too old.
fn distribution_version(minor_min: u32) -> Result<String, Failure> {
    let usable = || {
        let version = output(Command::new(DISTRIBUTION_RUSTC).arg("-vV"))?;
        let sysroot = output(Command::new(DISTRIBUTION_RUSTC).args(["--print", "sysroot"]))?;
        let sources = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core");
        let complete = minor_version(&version)? >= minor_min
            && sources.is_dir()
            && Path::new(DISTRIBUTION_CARGO).exists();
        complete.then_some(version)
    };
    if let Some(version) = usable() {
        return Ok(version);
    }

    let mut last_set = PACKAGES[0];
    for set in PACKAGES {
        let available =
            quiet(Command::new("apt-cache").args(["show", "--no-all-versions"]).args(set));
        if !available {
            continue;
        }
        last_set = set;
        eprintln!("installing {}", set.join(" "));
        if install(set) {
            if let Some(version) = usable() {
                return Ok(version);
            }
        }
    }
    Err(format!(
        "no Rust compiler here can build for {TARGET}: `rustup target add {TARGET}` adds it where rustup can download, \
         or `apt-get install {}` as root where the packages are Rust 1.{minor_min} or newer",
        last_set.join(" ")
    ))
}

/// Installs Debian packages, as root or by a sudo that does not ask.
fn install(packages: &[&str]) -> bool {
    let apt = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"];
    let is_root = output(Command::new("id").arg("-u")).is_some_and(|id| id == "0");
    let mut command = if is_root {
        Command::new(apt[0])
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", apt[0]]);
        sudo
    };
    quiet(command.args(&apt[1..]).args(packages).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Makes the toolchain in `folder` unless it is there for this `version`.
fn make(folder: &Path, version: &str) -> Result<(), Failure> {
    let stamp = folder.join("made-from");
    if fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == version) {
        return Ok(());
    }
    eprintln!("making a Wasm toolchain from {DISTRIBUTION_RUSTC}");
    let failed = |error: std::io::Error| {
        format!("cannot make a Wasm toolchain in {}: {error}", folder.display())
    };
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(failed)?;
    }
    let libraries = compile_core(&folder.join("build"))?;
    lay_out(folder, version, &libraries).map_err(failed)?;
    fs::remove_dir_all(folder.join("build")).map_err(failed)?;
    // Last, so that whatever was interrupted is made again.
    fs::write(stamp, version).map_err(failed)
}

/// Compiles `core` and `alloc` for the target from the distribution's sources, and returns the libraries' paths.
fn compile_core(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| format!("cannot write to {}: {error}", folder.display());
    fs::create_dir_all(folder.join("src")).map_err(failed)?;
    fs::write(folder.join("src/lib.rs"), "#![no_std]\n").map_err(failed)?;
    fs::write(
        folder.join("Cargo.toml"),
        "[package]\nname = \"core-for-wasm\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n",
    )
    .map_err(failed)?;

    let compiled = Command::new(DISTRIBUTION_CARGO)
        .args(["build", "--quiet", "--release", "--target", TARGET])
        .args(["-Z", "build-std=core,alloc"])
        .current_dir(folder)
        // The option is not for general use yet; the distribution's own Wasm packages are built the same way.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", DISTRIBUTION_RUSTC)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        // The runtime is linked with optimisation across crates, which wants bitcode.
        .env("RUSTFLAGS", "-Cembed-bitcode=yes")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN")
        .output();
    match compiled {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            // What the compiler said is the only way to find the cause.
            let _ = std::io::stderr().write_all(&output.stderr);
            return Err(format!("{DISTRIBUTION_CARGO} cannot compile core for {TARGET}"));
        }
        Err(error) => return Err(format!("cannot run {DISTRIBUTION_CARGO}: {error}")),
    }

    let deps = folder.join("target").join(TARGET).join("release/deps");
    let mut libraries = Vec::new();
    for entry in fs::read_dir(deps).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let wanted = ["libcore-", "liballoc-", "libcompiler_builtins-"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if wanted && name.ends_with(".rlib") {
            libraries.push(path);
        }
    }
    if libraries.len() < 3 {
        return Err(format!("compiling core for {TARGET} left no libraries"));
    }
    Ok(libraries)
}

/// Lays out a toolchain: our libraries for the target, the distribution's for the host, and its programs told so.
fn lay_out(folder: &Path, version: &str, libraries: &[PathBuf]) -> std::io::Result<()> {
    let rustlib = folder.join("lib/rustlib");
    let target = rustlib.join(TARGET).join("lib");
    fs::create_dir_all(&target)?;
    for library in libraries {
        fs::copy(library, target.join(library.file_name().unwrap_or_default()))?;
    }

    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let sysroot = output(Command::new(DISTRIBUTION_RUSTC).args(["--print", "sysroot"]))
        .unwrap_or_else(|| "/usr".into());
    symlink(Path::new(&sysroot).join("lib/rustlib").join(host), rustlib.join(host))?;

    let bin = folder.join("bin");
    fs::create_dir_all(&bin)?;
    let quoted = folder.display().to_string().replace('\'', r"'\''");
    write_program(
        &bin.join("rustc"),
        &format!("exec {DISTRIBUTION_RUSTC} --sysroot '{quoted}' \"$@\""),
    )?;
    // Cargo asks the compiler beside it, and names itself to what it runs.
    write_program(
        &bin.join("cargo"),
        &format!(
            "export RUSTC='{quoted}/bin/rustc' CARGO='{quoted}/bin/cargo'\nexec {DISTRIBUTION_CARGO} \"$@\""
        ),
    )
}

/// Writes an executable shell script.
fn write_program(path: &Path, body: &str) -> std::io::Result<()> {
    fs::write(path, format!("#!/bin/sh\n{body}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::minor_version;

    #[test]
    fn minor_version_is_the_second_number() {
        let check = |text, expected| assert_eq!(minor_version(text), expected);
        check("rustc 1.95.0 (59807616e 2026-04-14)", Some(95));
        check(
            "rustc 1.96.0 (1234 2026-05-28) (built from a source tarball)\nbinary: rustc",
            Some(96),
        );
        check("rustc 2.0.0", None);
        check("cargo 1.95.0", None);
    }
}
