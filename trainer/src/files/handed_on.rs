//! What goes with a model from one folder to the next although nothing here understands it: lists of
//! end tokens, names of special tokens, chat templates, the settings of generation, and the fields of
//! `config.json` that change nothing of what is computed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{json, Map, Value};

use super::configuration;
use super::error::{read_small, FileError};

/// How a model writes texts.
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";

/// What Hugging Face's tokenizers know beside their vocabulary.
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Files that belong to the tokenizer, beside `tokenizer.json`.
const OF_TOKENIZER: [&str; 8] = [
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
];

/// Folder of the chat templates beside the first one.
const TEMPLATES: &str = "additional_chat_templates";

/// Largest file that is handed on.
const BYTES_MAX: u64 = 1 << 28;

/// Most chat templates.
const TEMPLATES_MAX: usize = 256;

/// What a folder or a GGUF file says beside model and vocabulary.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct HandedOn {
    /// The fields of `config.json`.
    pub(super) config: Map<String, Value>,
    /// Files, by their path in the folder.
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl HandedOn {
    /// That of a Hugging Face folder.
    pub(super) fn of_folder(folder: &Path) -> Result<Self, FileError> {
        let config = configuration::fields(&folder.join(configuration::CONFIG))?;
        let mut handed_on = Self { config, files: BTreeMap::new() };
        for name in OF_TOKENIZER.into_iter().chain([GENERATION_CONFIG]) {
            handed_on.add(folder, name.to_owned())?;
        }
        let templates = fs::read_dir(folder.join(TEMPLATES)).into_iter().flatten();
        for entry in templates.take(TEMPLATES_MAX) {
            let name = entry.map_err(FileError::io(folder))?.file_name();
            if let Some(name) = name.to_str().filter(|name| name.ends_with(".jinja")) {
                handed_on.add(folder, format!("{TEMPLATES}/{name}"))?;
            }
        }
        Ok(handed_on)
    }

    /// That of a GGUF file, whose tokenizer becomes a `tokenizer.json`.
    pub(super) fn of_tokenizer_config(mut config: Map<String, Value>) -> Self {
        let mut handed_on = Self::default();
        if !config.is_empty() {
            // Says to transformers that tokenizer.json alone is the tokenizer.
            config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
            let text = Value::Object(config).to_string();
            handed_on.files.insert(TOKENIZER_CONFIG.to_owned(), text.into_bytes());
        }
        handed_on
    }

    fn add(&mut self, folder: &Path, name: String) -> Result<(), FileError> {
        let path = folder.join(&name);
        if path.is_file() {
            self.files.insert(name, read_small(&path, BYTES_MAX)?);
        }
        Ok(())
    }

    /// Without what belongs to the tokenizer, which another one replaces.
    pub(super) fn without_tokenizer(mut self) -> Self {
        self.files.retain(|name, _| name == GENERATION_CONFIG);
        self
    }
}
