//! What the emulator refuses, and what it finds.

use crate::settings::Settings;

/// Why the emulator did not run a kernel, or what it found wrong with one.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// There is no such source.
    #[error("no source {0}.cu")]
    NoSource(String),
    /// The compiler is missing or does not take the source.
    #[error("{file}.cu does not compile: {log}")]
    Compile {
        /// The source's name without `.cu`.
        file: String,
        /// What the compiler, or starting it, said.
        log: String,
    },
    /// The library does not load or lacks a kernel.
    #[error("{file}.cu: {reason}")]
    Load {
        /// The source's name without `.cu`.
        file: String,
        /// What the loader says.
        reason: String,
    },
    /// A file of ours could not be read or written.
    #[error("{0}")]
    Files(#[from] std::io::Error),
    /// The launch failed: a deadlock, lanes apart, a wrong address.
    #[error("{kernel}, {settings}: {reason}")]
    Launch {
        /// The kernel's name.
        kernel: String,
        /// How it was run.
        settings: Settings,
        /// What is wrong.
        reason: String,
    },
    /// Two ways to run a case give different bits.
    #[error("{0}")]
    Differ(String),
    /// A kernel wrote where it must not.
    #[error("{settings}: {reason}")]
    Wrote {
        /// How it was run.
        settings: Settings,
        /// Where it wrote.
        reason: String,
    },
    /// A case that cannot be run as it is put together.
    #[error("a case: {0}")]
    Case(String),
    /// A program made of a case ended otherwise than it should.
    #[error("{0}")]
    Report(String),
}
