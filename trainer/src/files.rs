//! Models as the rest of the world keeps them: Hugging Face folders, read and written, and GGUF
//! files, read.
//!
//! A Hugging Face folder (`config.json`, one or more `.safetensors`, mostly a `tokenizer.json`) is
//! this project's own form of a model on a disk: an import writes one, an export writes one, and
//! whatever takes a model takes such a folder. [`open`] reads either kind; [`export`] writes.
//!
//! # What is refused
//!
//! Only LLaMA as [`crate::model::config`] describes it: biases, other activations, heads of another width
//! than `hidden / heads`, quantised safetensors and RoPE scalings other than `linear` and `llama3`
//! are errors that name what is in the way, never a model that computes something else. Nothing in
//! a file is believed before it is checked: memory is taken for what `config.json` says only once
//! the files hold that many values.

mod configuration;
mod gguf;
mod huggingface;
mod safetensors;
mod vocabulary;

use std::io;
use std::path::{Path, PathBuf};

pub use gguf::Gguf;
pub use huggingface::{check_free, export, open_folder, ExportSettings, Exported};
pub use safetensors::ValueType;

use crate::model::config::{ConfigError, ModelConfig};
use crate::model::Model;

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
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    fn format(path: &Path, reason: impl ToString) -> Self {
        Self::Format { path: path.to_owned(), reason: reason.to_string() }
    }

    fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_owned(), what: what.into() }
    }
}

/// The model in a Hugging Face folder or of GGUF ([`is_gguf`]), and the folder's `tokenizer.json` if
/// it has one (a GGUF file's vocabulary is in [`Gguf::tokenizer`]).
///
/// Samples are as long as the model's longest context; see [`Model::with_seq_len`].
///
/// # Errors
/// The files cannot be read, are damaged, or are of a model that is not supported.
pub fn open(path: &Path) -> Result<(Model, Option<PathBuf>), FileError> {
    match is_gguf(path) {
        true => Ok((Gguf::open(path)?.model()?, None)),
        false => open_folder(path),
    }
}

/// The configuration of the model that [`open`] would read, without reading its tensors: what says
/// whether there is memory for it. `path` may be a `config.json`, too.
///
/// # Errors
/// As for [`open`], as far as the headers show it.
pub fn configuration(path: &Path) -> Result<ModelConfig, FileError> {
    match (is_gguf(path), path.is_dir()) {
        (true, _) => Ok(Gguf::open(path)?.config().clone()),
        (false, true) => configuration::read(&path.join(huggingface::CONFIG)),
        (false, false) => configuration::read(path),
    }
}

/// Whether the model at `path` is one of GGUF: a file of that name, or a folder with such files and
/// without a `config.json`.
pub fn is_gguf(path: &Path) -> bool {
    let has_gguf = || gguf::gguf_files(path).is_ok_and(|files| !files.is_empty());
    match path.is_dir() {
        true => !path.join(huggingface::CONFIG).exists() && has_gguf(),
        false => gguf::is_named_gguf(path),
    }
}

/// The whole of a text file of at most `bytes_max` bytes.
fn read_small(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let found = std::fs::metadata(path).map_err(FileError::io(path))?.len();
    if found > bytes_max {
        let reason = format!("{found} bytes, more than {bytes_max}");
        return Err(FileError::format(path, reason));
    }
    std::fs::read(path).map_err(FileError::io(path))
}
