//! A kernel's source as a library or as a program, by the host's C++ compiler.
//!
//! What was compiled is kept in a folder beside this program, by the BLAKE3 of everything that decides it. Several
//! processes may ask for the same at once: one compiles, the others wait at a file's lock.

use crate::error::EmulatorError;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use trainer::cuda::kernels;
use trainer::cuda::Kernel;

const HEADER: &str = include_str!("../cpp/emulate.h");
const SCHEDULER: &str = include_str!("../cpp/emulate.cpp");
const RUNNER: &str = include_str!("../cpp/runner.cpp");

/// What the compiler adds to find mistakes of memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sanitizer {
    /// ASan and UBSan: outside of an array, undefined arithmetic, addresses that are not aligned.
    Address,
    /// TSan: two lanes or blocks at one place without a barrier between them. Lanes are its fibres.
    Thread,
}

/// A source with what is fixed in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Program {
    /// The source's name without `.cu`.
    pub file: String,
    /// The source.
    pub text: String,
    /// Constants as `-DNAME=value`, or `-DNAME` where there is no value.
    pub defines: Vec<(String, Option<u32>)>,
}

impl Program {
    /// A source that is not among the engine's, as tests have them.
    pub fn new(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), text: text.to_owned(), defines: Vec::new() }
    }

    /// A kernel of the engine.
    pub fn of(kernel: &Kernel) -> Result<Self, EmulatorError> {
        let text = kernels::source(kernel.file)
            .ok_or_else(|| EmulatorError::NoSource(kernel.file.to_owned()))?;
        Ok(Self::new(kernel.file, text).with_constants(kernel.defines))
    }

    /// With a kernel's constants.
    #[must_use]
    pub fn with_constants(mut self, constants: &[(&str, u32)]) -> Self {
        self.defines =
            constants.iter().map(|(name, value)| ((*name).to_owned(), Some(*value))).collect();
        self
    }

    /// With a planted bug.
    #[must_use]
    pub fn with_bug(mut self, name: &str) -> Self {
        self.defines.push((name.to_owned(), None));
        self
    }

    /// Whether the source has such a bug to plant.
    pub fn has_bug(&self, name: &str) -> bool {
        self.text.match_indices(name).any(|(at, _)| {
            !self.text[at + name.len()..]
                .starts_with(|next: char| next.is_alphanumeric() || next == '_')
        })
    }

    /// The path of the library with its kernels as `emulate_…`, compiled if it is not there yet.
    pub fn library(&self) -> Result<PathBuf, EmulatorError> {
        let scheduler = self.scheduler(false)?.join("emulate.o");
        self.built("kernels.so", |folder| {
            let mut compiler = self.compiler(folder);
            compiler
                .args(["-O2", "-shared", "-o", "kernels.so", "-x", "c++"])
                .arg(self.source_name());
            compiler.args(["-x", "none"]).arg(&scheduler).arg("-lpthread");
            vec![compiler]
        })
    }

    /// The path of a program that runs a case's file, compiled if it is not there yet.
    pub fn runner(&self, sanitizer: Option<Sanitizer>) -> Result<PathBuf, EmulatorError> {
        let (name, flags): (_, &[&str]) = match sanitizer {
            None => ("runner", &["-O2"]),
            Some(Sanitizer::Address) => (
                "runner-address",
                &["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
            ),
            Some(Sanitizer::Thread) => {
                ("runner-thread", &["-O1", "-g1", "-fsanitize=thread", "-DEMU_TSAN"])
            }
        };
        let scheduler = self.scheduler(sanitizer == Some(Sanitizer::Thread))?;
        self.built(name, |folder| {
            let mut compiler = self.compiler(folder);
            compiler
                .args(flags)
                .args(["-rdynamic", "-o", name, "-x", "c++"])
                .arg(self.source_name())
                .args(["-x", "none"]);
            compiler
                .args([scheduler.join("emulate.o"), scheduler.join("runner.o")])
                .args(["-lpthread", "-ldl"]);
            vec![compiler]
        })
    }

    /// The folder with `emulate.o` and `runner.o`, which all programs share: neither lanes nor the reader of cases is
    /// looked at by a sanitizer; what they call is.
    fn scheduler(&self, for_tsan: bool) -> Result<PathBuf, EmulatorError> {
        let ours = Self::new("scheduler", "");
        let runner = ours.built("runner.o", |folder| {
            let mut compiler = ours.compiler(folder);
            compiler.args(["-O2", "-g1"]);
            if for_tsan {
                compiler.arg("-DEMU_TSAN");
            }
            compiler.args(["-c", "emulate.cpp", "runner.cpp"]);
            vec![compiler]
        })?;
        runner.parent().map(Path::to_path_buf).ok_or_else(|| self.refused("no folder".to_owned()))
    }

    fn source_name(&self) -> String {
        format!("{}.cu", self.file)
    }

    /// The compiler with what all calls have, in `folder`.
    fn compiler(&self, folder: &Path) -> Command {
        let mut compiler = Command::new(compiler_name());
        compiler.current_dir(folder).args([
            "-std=c++17",
            "-march=native",
            "-ffp-contract=off",
            "-fno-gnu-unique",
        ]);
        compiler.args(["-fPIC", "-fvisibility=hidden", "-I."]);
        compiler.arg(format!("-ffile-prefix-map={}=.", folder.display()));
        compiler.args(["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-function"]);
        if cfg!(target_arch = "x86_64") {
            compiler.arg("-mtls-dialect=gnu2");
        }
        for (name, value) in &self.defines {
            compiler.arg(
                value.map_or_else(|| format!("-D{name}"), |value| format!("-D{name}={value}")),
            );
        }
        compiler
    }

    /// `name` in the folder of this program, made by `commands` if it is not there.
    fn built(
        &self,
        name: &str,
        commands: impl Fn(&Path) -> Vec<Command>,
    ) -> Result<PathBuf, EmulatorError> {
        let kept = kept_folder()?;
        let sources = [
            (self.source_name(), self.text.as_str()),
            ("prelude.cuh".to_owned(), kernels::PRELUDE),
            ("emulate.h".to_owned(), HEADER),
            ("emulate.cpp".to_owned(), SCHEDULER),
            ("runner.cpp".to_owned(), RUNNER),
        ];
        let mut hash = blake3::Hasher::new();
        let mut take = |part: &str| {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        };
        take(machine(&self.file)?);
        for (file, text) in &sources {
            take(file);
            take(text);
        }
        for command in commands(Path::new(".")) {
            take(&format!("{command:?}"));
        }
        let key = hash.finalize().to_hex();
        let folder = kept.join(format!("{}-{}", self.file, &key[..32]));
        let built = folder.join(name);
        if built.exists() {
            return Ok(built);
        }
        let lock = File::create(kept.join(format!("{}-{}.lock", self.file, &key[..32])))?;
        lock.lock()?;
        if built.exists() {
            return Ok(built);
        }
        let making = kept.join(format!("{}-{}.{}", self.file, &key[..32], std::process::id()));
        fs::create_dir_all(&making)?;
        for (file, text) in &sources {
            fs::write(making.join(file), text)?;
        }
        for mut command in commands(&making) {
            let output = command
                .output()
                .map_err(|error| self.refused(format!("{}: {error}", compiler_name())))?;
            if !output.status.success() {
                let log = told(&output);
                fs::remove_dir_all(&making)?;
                return Err(self.refused(log));
            }
        }
        fs::rename(&making, &folder)?;
        Ok(built)
    }

    fn refused(&self, log: String) -> EmulatorError {
        EmulatorError::Compile { file: self.file.clone(), log }
    }
}

/// What a program wrote, both ways.
pub(crate) fn told(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stdout));
    text
}

fn compiler_name() -> String {
    std::env::var("CXX").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "c++".to_owned())
}

/// The compiler's version and the processor it compiles for.
fn machine(file: &str) -> Result<&'static str, EmulatorError> {
    static MACHINE: OnceLock<String> = OnceLock::new();
    if let Some(known) = MACHINE.get() {
        return Ok(known);
    }
    let refused = |log: String| EmulatorError::Compile { file: file.to_owned(), log };
    let name = compiler_name();
    let output = Command::new(&name).arg("--version").output().map_err(|error| {
        refused(format!("{name}: {error}; install a C++ compiler (Debian: g++) or name one in CXX"))
    })?;
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let about = |line: &&str| {
        ["model name", "flags", "Features", "CPU part"].iter().any(|word| line.starts_with(word))
    };
    let lines: Vec<&str> =
        cpu.split("\n\n").next().unwrap_or_default().lines().filter(about).collect();
    Ok(MACHINE.get_or_init(|| format!("{}\n{}", told(&output), lines.join("\n"))))
}

/// Where what is compiled is kept: beside this program, which is cargo's target folder for a test, else in the
/// folder for temporary files.
fn kept_folder() -> Result<PathBuf, EmulatorError> {
    let beside = std::env::current_exe()?.parent().map(|folder| folder.join("cuda-emulator"));
    if let Some(folder) = beside {
        if fs::create_dir_all(&folder).is_ok() {
            return Ok(folder);
        }
    }
    // SAFETY: asks for a number.
    let user = unsafe { libc::getuid() };
    let folder = std::env::temp_dir().join(format!("gauntlet-cuda-emulator-{user}"));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
