//! Explains why a data set cannot be built or used.

use std::io;
use std::path::{Path, PathBuf};

use crate::tokenizer::TokenizerError;
use crate::tokens::PIECE_BYTES;

/// Why a data set cannot be built or used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The manifest is not JSON of the right form.
    #[error("{path}: {message}")]
    Manifest {
        /// The manifest's file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The manifest's version is not known.
    #[error("data set version {0}, not 1 or 2")]
    Version(u32),
    /// The manifest does not hash to the root it names.
    #[error("the manifest of {0} does not match its root")]
    Root(PathBuf),
    /// A file has another length than the manifest says.
    #[error("{path} has {found} bytes, not {expected}")]
    FileLen {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The manifest's.
        expected: u64,
    },
    /// A file's content is not what the manifest says.
    #[error("{path} is damaged in the {PIECE_BYTES} bytes from {offset}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the damaged piece starts.
        offset: u64,
    },
    /// A file has a token that the vocabulary does not have.
    #[error("{path} has the token {token}, and the vocabulary only {vocab_size}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Its largest token.
        token: u32,
        /// Tokens of the vocabulary.
        vocab_size: u64,
    },
    /// Too little text for one sample each to train on and to hold out.
    #[error("too little text: {train} bytes to train on and {held_out} held out, for samples of {sample_len} tokens")]
    TooSmall {
        /// Bytes to train on.
        train: u64,
        /// Bytes held out.
        held_out: u64,
        /// Tokens of a sample.
        sample_len: usize,
    },
    /// Too few tokens for one sample to train on, or for one to hold out.
    #[error("{tokens} tokens {split} are less than a sample of {sample_len} and its last target: {advice}")]
    TooFewTokens {
        /// "to train on" or "held out".
        split: &'static str,
        /// Tokens there are.
        tokens: u64,
        /// Tokens of a sample.
        sample_len: usize,
        /// What would help.
        advice: &'static str,
    },
    /// A setting of the build makes no sense.
    #[error("{0}")]
    Settings(String),
    /// An input could not be read.
    #[error("{name}: {message}")]
    Input {
        /// The file, as in messages.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// More lines (or rows) without text than allowed.
    #[error("{count} bad lines, and {max} are allowed; the last: {last}")]
    BadLines {
        /// Bad lines found.
        count: u64,
        /// Allowed.
        max: u64,
        /// The last one, with file, line and reason.
        last: String,
    },
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The build was asked to stop; the same command goes on where it stood.
    #[error("stopped; the same build into {0} goes on where it stood")]
    Stopped(PathBuf),
    /// The folder holds something that a build would destroy.
    #[error("{folder} holds {what}: choose another folder, or start over (which deletes it)")]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// The journal of an unfinished build cannot be used.
    #[error("{path}: {message}; start over (which deletes what is there)")]
    Journal {
        /// The journal or a file that it describes.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The object store failed.
    #[error("{url}: {message}")]
    Store {
        /// What was asked for.
        url: String,
        /// What it said.
        message: String,
    },
    /// A thread that reads or tokenises text has panicked: a fault of this program. What is done up
    /// to the last mark is kept.
    #[error("a thread that reads text has panicked; its message is above. The same build goes on at its last mark")]
    Panicked,
    /// Threads could not be started.
    #[error("cannot start threads: {0}")]
    Threads(String),
    /// A sample needs at least one token.
    #[error("samples of {0} tokens, not 1 to 16777216")]
    SampleLen(usize),
}

/// Turns an error of reading or writing `path` into ours.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> DataError + '_ {
    move |source| DataError::Io { path: path.to_owned(), source }
}

/// Checks the length of samples.
pub(crate) fn check_sample_len(sample_len: usize) -> Result<(), DataError> {
    match sample_len {
        1..=0x100_0000 => Ok(()),
        _ => Err(DataError::SampleLen(sample_len)),
    }
}
