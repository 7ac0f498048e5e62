//! Says why a model cannot be read or written, and reads small files whole.

use std::io;
use std::path::{Path, PathBuf};

use crate::model::config::ConfigError;

/// Why a model cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what its name says, or damaged.
    #[error("{path}: {reason}")]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The model uses something that is not implemented.
    #[error("{path}: {what} is not supported")]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// The configuration's numbers do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Tensors that the model needs are not there.
    #[error("{count} tensors are missing, the first is {first}")]
    Missing {
        /// The first in order of names.
        first: String,
        /// How many.
        count: usize,
    },
    /// A tensor that the model does not have.
    #[error("tensor {0} is not one of this model's")]
    Extra(String),
    /// A tensor has another shape than the configuration says.
    #[error("tensor {name} has shape {found:?}, not {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// In the file.
        found: Vec<usize>,
        /// By the configuration.
        expected: Vec<usize>,
    },
    /// A tensor's values are of a type that is not read.
    #[error("tensor {name} is of type {found}; F32, F16 and BF16 are read")]
    Type {
        /// Its name.
        name: String,
        /// The type's name.
        found: String,
    },
    /// A GGUF file's vocabulary has no equal `tokenizer.json`, or none is known.
    #[error("{path}: its vocabulary is not converted: {reason}")]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A value is NaN or infinite, or becomes so in the type that is written.
    #[error("tensor {0} has a value that is NaN or infinite, or too large for the type")]
    NotFinite(String),
    /// What would be written is there already.
    #[error("{0} exists and is not an empty folder")]
    Exists(PathBuf),
}

impl FileError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn format(path: &Path, reason: impl ToString) -> Self {
        Self::Format { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_owned(), what: what.into() }
    }
}

/// The whole of a text file of at most `bytes_max` bytes.
pub(super) fn read_small(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let found = std::fs::metadata(path).map_err(FileError::io(path))?.len();
    if found > bytes_max {
        let reason = format!("{found} bytes, more than {bytes_max}");
        return Err(FileError::format(path, reason));
    }
    std::fs::read(path).map_err(FileError::io(path))
}
