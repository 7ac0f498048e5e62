//! Hugging Face's folders: `config.json`, `model.safetensors` or shards with an index, and
//! `tokenizer.json`.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::configuration::{self, Tokens, CONFIG};
use super::error::{read_small, FileError};
use super::gguf::{is_gguf, Gguf};
use super::handed_on::{HandedOn, GENERATION_CONFIG, TOKENIZER_CONFIG};
use super::safetensors::{self, Shard, ValueType};
use crate::model::config::{ModelConfig, TensorInfo};
use crate::model::Model;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";

/// An adapter to a model that lies elsewhere: transformers reads that one.
const ADAPTER: &str = "adapter_config.json";

/// The output matrix's name.
const HEAD: &str = "lm_head.weight";

/// Largest index of shards.
const INDEX_BYTES_MAX: u64 = 1 << 24;

/// Most shards of a model.
const SHARDS_MAX: usize = 4096;

/// Most files that an error names.
const FOUND_MAX: usize = 8;

/// `model.safetensors.index.json`: which file has which tensor.
#[derive(Serialize, Deserialize)]
struct Index {
    #[serde(default)]
    metadata: serde_json::Value,
    weight_map: BTreeMap<String, String>,
}

/// The model in a Hugging Face folder, and its `tokenizer.json` if there is one.
///
/// # Errors
/// As for [`super::open`].
pub fn open_folder(folder: &Path) -> Result<(Model, Option<PathBuf>), FileError> {
    let config = configuration::read(&folder.join(CONFIG))?;
    let shards = open_shards(folder)?;
    let places = place_tensors(&config, &shards)?;
    let mut parameters = vec![0.0f32; config.arena().len];
    let tensors = config.tensors();
    let views = config.arena().views_mut(&mut parameters);
    views
        .into_par_iter()
        .zip(&tensors)
        .zip(&places)
        .try_for_each(|((view, tensor), &shard)| shards[shard].read(&tensor.name, view))?;
    check_output_matrix(&config, &shards, &parameters)?;
    let tokenizer = Some(folder.join(TOKENIZER)).filter(|path| path.is_file());
    Ok((Model::with_parameters(&config, parameters), tokenizer))
}

/// The folder's files of tensors: of a single one and an index of several the single one, as
/// transformers takes them.
fn open_shards(folder: &Path) -> Result<Vec<Shard>, FileError> {
    if folder.join(ADAPTER).exists() {
        return Err(FileError::unsupported(folder, format!("an adapter ({ADAPTER})")));
    }
    let index_path = folder.join(INDEX);
    if !folder.join(SINGLE).exists() && !index_path.exists() {
        return Err(FileError::unsupported(folder, other_weights(folder)));
    }
    if folder.join(SINGLE).is_file() || !index_path.exists() {
        return Ok(vec![Shard::open(&folder.join(SINGLE))?]);
    }
    let bytes = read_small(&index_path, INDEX_BYTES_MAX)?;
    let index = dataset::json::value(&bytes).and_then(serde_json::from_value::<Index>);
    let index = index.map_err(|error| FileError::format(&index_path, error))?;
    let mut files: Vec<&String> = index.weight_map.values().collect();
    files.sort_unstable();
    files.dedup();
    if files.is_empty() || files.len() > SHARDS_MAX {
        let reason = format!("{} shards, not 1 to {SHARDS_MAX}", files.len());
        return Err(FileError::format(&index_path, reason));
    }
    let shards = files.iter().map(|file| {
        // A name only: the index must not lead out of the folder.
        if Path::new(file).file_name() != Some(file.as_ref()) {
            return Err(FileError::format(&index_path, format!("{file:?} is no file's name")));
        }
        Shard::open(&folder.join(file))
    });
    shards.collect()
}

/// What a folder without weights that are read has instead.
fn other_weights(folder: &Path) -> String {
    let is_weights = |name: &String| {
        let endings = [".bin", ".pt", ".pth", ".safetensors", ".h5", ".msgpack", ".onnx"];
        endings.iter().any(|ending| name.ends_with(ending)) && !name.starts_with('.')
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<String> = names.filter(is_weights).take(FOUND_MAX).collect();
    found.sort();
    match found.is_empty() {
        true => format!("no {SINGLE} and no {INDEX}"),
        false => format!(
            "no {SINGLE} and no {INDEX}, but {}: write them anew with transformers' save_pretrained",
            found.join(", ")
        ),
    }
}

/// For each tensor of the model, in canonical order, the shard that has it. All are checked, and
/// there are no others.
fn place_tensors(config: &ModelConfig, shards: &[Shard]) -> Result<Vec<usize>, FileError> {
    let mut places: HashMap<String, usize> = HashMap::new();
    for (number, shard) in shards.iter().enumerate() {
        places.extend(shard.names().into_iter().map(|name| (name, number)));
    }
    let tensors = config.tensors();
    let missing: Vec<&TensorInfo> =
        tensors.iter().filter(|tensor| !places.contains_key(&tensor.name)).collect();
    if let Some(first) = missing.first() {
        return Err(FileError::Missing { first: first.name.clone(), count: missing.len() });
    }
    let places_in_order = tensors.iter().map(|tensor| {
        let shard = places.remove(&tensor.name).unwrap_or_default();
        shards[shard].check(tensor)?;
        Ok(shard)
    });
    let places_in_order = places_in_order.collect::<Result<Vec<_>, FileError>>()?;
    let extra = places.into_keys().filter(|name| !is_redundant(name, config));
    match extra.min() {
        Some(name) => Err(FileError::Extra(name)),
        None => Ok(places_in_order),
    }
}

/// Tensors that some writers leave and that say nothing: rotary frequencies, and the output matrix
/// of a tied model.
fn is_redundant(name: &str, config: &ModelConfig) -> bool {
    name.ends_with(".self_attn.rotary_emb.inv_freq") || (config.tied && name == HEAD)
}

/// Where a tied model's files have an output matrix nevertheless, it must be the embedding.
fn check_output_matrix(
    config: &ModelConfig,
    shards: &[Shard],
    parameters: &[f32],
) -> Result<(), FileError> {
    let has_head = |shard: &&Shard| shard.names().iter().any(|name| name == HEAD);
    let Some(shard) = shards.iter().find(has_head).filter(|_| config.tied) else {
        return Ok(());
    };
    shard.check(&TensorInfo { name: HEAD.to_owned(), shape: vec![config.vocab, config.hidden] })?;
    let mut head = vec![0.0f32; config.vocab * config.hidden];
    shard.read(HEAD, &mut head)?;
    match head == parameters[config.arena().embedding] {
        true => Ok(()),
        false => {
            Err(shard.error("lm_head.weight is not the embedding, to which config.json ties it"))
        }
    }
}

/// How a model is written.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// Type of the values.
    pub values: ValueType,
    /// Bytes of tensors in a file, at most; a tensor is never cut.
    pub shard_bytes_max: u64,
    /// Longest context that `config.json` states. `None`: the model's `seq_len`.
    pub positions: Option<usize>,
    /// Content of `tokenizer.json`.
    pub tokenizer: Option<Vec<u8>>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The tokens that end a text.
    pub ends: Vec<u32>,
    /// What else goes with the model. Where it has the fields of a `config.json`, `bos` and `ends`
    /// are those.
    pub handed_on: HandedOn,
}

impl Default for ExportSettings {
    /// 32 bits, files of 5 GB as Hugging Face cuts them, no tokenizer.
    fn default() -> Self {
        Self {
            values: ValueType::F32,
            shard_bytes_max: 5_000_000_000,
            positions: None,
            tokenizer: None,
            bos: None,
            ends: Vec::new(),
            handed_on: HandedOn::default(),
        }
    }
}

impl ExportSettings {
    /// With the tokenizer and the special tokens of the Hugging Face folder `folder`, as far as it
    /// has them, and with whatever else it says that is not of the tensors.
    ///
    /// # Errors
    /// One of its files cannot be read.
    pub fn like_folder(mut self, folder: &Path) -> Result<Self, FileError> {
        let tokenizer = folder.join(TOKENIZER);
        if tokenizer.is_file() {
            self.tokenizer = Some(read_small(&tokenizer, 1 << 28)?);
        }
        self.handed_on = HandedOn::of_folder(folder)?;
        (self.bos, self.ends) =
            configuration::special_tokens_or_usual(&folder.join(CONFIG), &self.handed_on.config)?;
        Ok(self)
    }

    /// As [`ExportSettings::like_folder`] for a folder, and the same for a GGUF file, whose vocabulary
    /// is converted.
    ///
    /// # Errors
    /// A file cannot be read; [`FileError::Vocabulary`]: the vocabulary cannot be converted.
    pub fn like_model(self, path: &Path) -> Result<Self, FileError> {
        match is_gguf(path) {
            true => self.like_gguf(&Gguf::open(path)?),
            false => self.like_folder(path),
        }
    }

    /// As [`ExportSettings::like_model`] for a GGUF file that is open.
    ///
    /// # Errors
    /// [`FileError::Vocabulary`]: the vocabulary cannot be converted.
    pub fn like_gguf(mut self, gguf: &Gguf) -> Result<Self, FileError> {
        self.tokenizer = gguf.tokenizer()?;
        (self.bos, self.ends) = (gguf.bos()?, gguf.ends()?);
        self.handed_on = gguf.handed_on()?;
        Ok(self)
    }

    /// With another tokenizer, so that nothing of the one before is handed on.
    #[must_use]
    pub fn with_tokenizer(mut self, json: Vec<u8>) -> Self {
        self.tokenizer = Some(json);
        self.handed_on = self.handed_on.without_tokenizer();
        self
    }
}

/// The tokens that begin and end a text by the `config.json` of the Hugging Face folder `folder`.
///
/// # Errors
/// It cannot be read.
pub fn special_tokens(folder: &Path) -> Result<(Option<u32>, Vec<u32>), FileError> {
    let path = folder.join(CONFIG);
    configuration::special_tokens(&path, &configuration::fields(&path)?)
}

/// What an export wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exported {
    /// Files of tensors.
    pub shards: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// Writes `model` as a Hugging Face folder that transformers loads as `LlamaForCausalLM`.
///
/// The folder appears as a whole or not at all: it is written beside, flushed to the disk and
/// renamed. `folder` must not exist or be empty.
///
/// # Errors
/// `folder` is not empty, the disk fails, or a value does not fit into the type.
pub fn export(
    model: &Model,
    folder: &Path,
    settings: &ExportSettings,
) -> Result<Exported, FileError> {
    let name = check_free(folder)?;
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let unfinished = format!(".{}.{}.unfinished", name.display(), std::process::id());
    let unfinished = parent.join(unfinished);
    fs::create_dir_all(&unfinished).map_err(FileError::io(&unfinished))?;
    let written = write_all(model, &unfinished, settings).and_then(|exported| {
        sync_folder(&unfinished)?;
        fs::rename(&unfinished, folder).map_err(FileError::io(folder))?;
        sync_folder(parent)?;
        Ok(exported)
    });
    if written.is_err() {
        // The error is what matters; what cannot be removed stays as a hidden folder.
        let _ = fs::remove_dir_all(&unfinished);
    }
    written
}

/// Says beforehand whether [`export`] would refuse `folder`; its name otherwise.
///
/// # Errors
/// [`FileError::Exists`].
pub fn check_free(folder: &Path) -> Result<&OsStr, FileError> {
    let is_taken = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => folder.exists(),
    };
    match folder.file_name() {
        Some(name) if !is_taken => Ok(name),
        _ => Err(FileError::Exists(folder.to_owned())),
    }
}

fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(FileError::io(folder))
}

fn write_all(
    model: &Model,
    folder: &Path,
    settings: &ExportSettings,
) -> Result<Exported, FileError> {
    let exported = write_tensors(model, folder, settings)?;
    let mut config = model.config().clone();
    config.seq_len = settings.positions.unwrap_or(config.seq_len);
    let special = (settings.bos, settings.ends.as_slice());
    let json = |name: &str, text: serde_json::Result<String>| {
        let path = folder.join(name);
        let text = text.map_err(|error| FileError::format(&path, error))?;
        write_file(&path, (text + "\n").as_bytes())
    };
    let handed_on = &settings.handed_on;
    json(CONFIG, configuration::write(&config, settings.values, special, &handed_on.config))?;
    let mut generation = serde_json::Map::new();
    generation.extend(special.0.map(|token| ("bos_token_id".to_owned(), json!(token))));
    let ends = Tokens::new(special.1);
    generation.extend(ends.map(|tokens| ("eos_token_id".to_owned(), json!(tokens))));
    json(GENERATION_CONFIG, serde_json::to_string_pretty(&generation))?;
    if let Some(tokenizer) = &settings.tokenizer {
        write_file(&folder.join(TOKENIZER), tokenizer)?;
        // Says to transformers that the file alone is the tokenizer.
        let class = json!({ "tokenizer_class": "PreTrainedTokenizerFast" });
        json(TOKENIZER_CONFIG, serde_json::to_string_pretty(&class))?;
    }
    for (name, bytes) in &handed_on.files {
        let path = folder.join(name);
        if let Some(inside) = path.parent() {
            fs::create_dir_all(inside).map_err(FileError::io(inside))?;
        }
        write_file(&path, bytes)?;
    }
    Ok(exported)
}

fn write_tensors(
    model: &Model,
    folder: &Path,
    settings: &ExportSettings,
) -> Result<Exported, FileError> {
    let bytes = |tensor: &TensorInfo| (tensor.len() * settings.values.bytes()) as u64;
    let mut shards: Vec<Vec<usize>> = vec![Vec::new()];
    let mut filled = 0;
    for (number, tensor) in model.tensors().iter().enumerate() {
        if filled > 0 && filled + bytes(tensor) > settings.shard_bytes_max {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes(tensor);
        if let Some(last) = shards.last_mut() {
            last.push(number);
        }
    }
    let total: u64 = model.tensors().iter().map(bytes).sum();
    let mut map = BTreeMap::new();
    for (number, tensors) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => SINGLE.to_owned(),
            count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        let tensors: Vec<_> = tensors
            .iter()
            .map(|&tensor| (&model.tensors()[tensor], model.tensor(tensor)))
            .collect();
        safetensors::write(&folder.join(&name), &tensors, settings.values)?;
        map.extend(tensors.iter().map(|(tensor, _)| (tensor.name.clone(), name.clone())));
    }
    if shards.len() > 1 {
        let path = folder.join(INDEX);
        let index = Index { metadata: json!({ "total_size": total }), weight_map: map };
        let text = serde_json::to_string_pretty(&index)
            .map_err(|error| FileError::format(&path, error))?;
        write_file(&path, text.as_bytes())?;
    }
    Ok(Exported { shards: shards.len(), bytes: total })
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    fs::write(path, bytes).and_then(|()| File::open(path)?.sync_all()).map_err(FileError::io(path))
}
