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

mod error;

mod configuration;
mod gguf;
mod handed_on;
mod huggingface;
mod safetensors;
mod vocabulary;

use std::path::{Path, PathBuf};

pub use error::FileError;
pub use gguf::{is_gguf, Gguf};
pub use handed_on::HandedOn;
pub use huggingface::{check_free, export, open_folder, special_tokens, ExportSettings, Exported};
pub use safetensors::ValueType;

use crate::model::config::ModelConfig;
use crate::model::Model;

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
        (false, true) => configuration::read(&path.join(configuration::CONFIG)),
        (false, false) => configuration::read(path),
    }
}
