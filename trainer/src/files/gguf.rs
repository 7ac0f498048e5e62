//! GGUF, the files of llama.cpp: read, dequantised to `f32`, never written.
//!
//! Beside reading ([`header`], [`parts`], [`values`]), what is done here: llama.cpp's names become
//! Hugging Face's; the rows of q and k, which llama.cpp orders for another way of turning pairs, go
//! back to where they were; and Llama 3.1's RoPE scaling, which is in the file only as one factor
//! for each pair, is recognised again.

pub(super) mod header;
mod parts;
mod values;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use candle_core::quantized::GgmlDType;
use rayon::prelude::*;

use header::{Found, Metadata, Stored};
use parts::{gguf_files, is_named_gguf, Part};
use values::READ as READ_TYPES;

use super::error::FileError;
use super::handed_on::HandedOn;
use super::vocabulary;
use crate::model::config::{ModelConfig, RopeScaling, TensorInfo};
use crate::model::Model;

/// Factors of the rotary frequencies, one for each pair.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Numbers that change what a model computes, with the value that does not (beside 0, which stands
/// for "not at all" in llama.cpp). Other architectures have them; a LLaMA that does is not one.
const NEUTRAL: &[(&str, f32)] = &[
    ("attention.sliding_window", 0.0),
    ("attention.scale", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attn_logit_softcapping", 0.0),
    ("final_logit_softcapping", 0.0),
    ("logit_scale", 1.0),
    ("residual_scale", 1.0),
    ("embedding_scale", 1.0),
    ("rope.scaling.attn_factor", 1.0),
];

/// A GGUF model of the architecture `llama`, of which the headers are read and checked, and nothing
/// else yet.
///
/// The values may be F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 or Q2_K to Q6_K.
pub struct Gguf {
    /// The part with all key-value pairs.
    first: Part,
    others: Vec<Part>,
    /// The number of the part that has a tensor, and where it lies there.
    places: HashMap<String, (usize, Stored)>,
    config: ModelConfig,
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf")
            .field("path", &self.path())
            .field("parts", &(self.others.len() + 1))
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Gguf {
    /// Opens a model: a file, any part of one that is cut into several, or a folder that has either.
    /// The files must not be changed while this lives.
    ///
    /// # Errors
    /// As for [`super::open`]; parts are missing, there twice or of another model.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut parts = parts::open(path)?;
        let mut places = HashMap::new();
        for (number, part) in parts.iter().enumerate() {
            for (name, stored) in part.tensors() {
                let place = (number, stored.clone());
                if places.insert(name.clone(), place).is_some() {
                    let reason = format!("{name} is in another part of the model, too");
                    return Err(FileError::format(&part.path, reason));
                }
            }
        }
        let first = parts.remove(0);
        let mut gguf = Self { first, others: parts, places, config: ModelConfig::preset("nano")? };
        gguf.config = gguf.read_config()?;
        gguf.check_tensors()?;
        Ok(gguf)
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The vocabulary as a `tokenizer.json` that gives the same tokens, or `None` if there is none.
    ///
    /// # Errors
    /// [`FileError::Vocabulary`]: it is of a kind, or has something, that cannot be converted.
    pub fn tokenizer(&self) -> Result<Option<Vec<u8>>, FileError> {
        self.vocabulary(vocabulary::tokenizer_json(&self.metadata()))
    }

    /// The token that begins a text.
    ///
    /// # Errors
    /// [`FileError::Vocabulary`]: the file names something that is no token.
    pub fn bos(&self) -> Result<Option<u32>, FileError> {
        self.vocabulary(vocabulary::special_token(&self.metadata(), "bos"))
    }

    /// The tokens that end a text, an answer or a message, in this order; each once.
    ///
    /// # Errors
    /// As for [`Gguf::bos`].
    pub fn ends(&self) -> Result<Vec<u32>, FileError> {
        self.vocabulary(vocabulary::end_tokens(&self.metadata()))
    }

    /// What the file says of its tokenizer beside the vocabulary: names of special tokens and chat
    /// templates.
    ///
    /// # Errors
    /// As for [`Gguf::bos`].
    pub fn handed_on(&self) -> Result<HandedOn, FileError> {
        let config = vocabulary::tokenizer_config(&self.metadata());
        self.vocabulary(config).map(HandedOn::of_tokenizer_config)
    }

    fn vocabulary<T>(&self, found: Result<T, String>) -> Result<T, FileError> {
        let path = || self.path().to_owned();
        found.map_err(|reason| FileError::Vocabulary { path: path(), reason })
    }

    /// Reads the model, dequantised to 4 bytes for each parameter. Beside it, a row of a tensor for
    /// each thread is in memory.
    ///
    /// # Errors
    /// A value is not finite.
    pub fn model(&self) -> Result<Model, FileError> {
        let config = &self.config;
        let arena = config.arena();
        let mut parameters = vec![0.0f32; arena.len];
        let views = arena.views_mut(&mut parameters);
        for (tensor, view) in config.tensors().iter().zip(views) {
            let rows = self.rows(&stored_name(&tensor.name), tensor)?;
            let turned = ["q_proj.weight", "k_proj.weight"];
            match turned.iter().any(|end| tensor.name.ends_with(end)) {
                false => rows.read(|row| row, view)?,
                true => rows.read(|row| stored_row(row, config.head_dim()), view)?,
            }
        }
        Ok(Model::with_parameters(config, parameters))
    }

    fn metadata(&self) -> Metadata<'_> {
        self.first.metadata()
    }

    fn path(&self) -> &Path {
        &self.first.path
    }

    /// A pair of the architecture; an error of `found` names this file.
    fn found<T>(&self, found: Found<T>) -> Result<Option<T>, FileError> {
        found.map_err(|reason| FileError::format(self.path(), reason))
    }

    fn number(&self, key: &str) -> Result<Option<usize>, FileError> {
        let key = format!("llama.{key}");
        let number = self.found(self.metadata().number_of_layers(&key))?;
        let wrong = || FileError::format(self.path(), format!("{key} is too large"));
        number.map(|number| number.try_into().map_err(|_| wrong())).transpose()
    }

    fn float(&self, key: &str) -> Result<Option<f32>, FileError> {
        self.found(self.metadata().float(&format!("llama.{key}")))
    }

    fn needed<T>(&self, key: &str, found: Option<T>) -> Result<T, FileError> {
        found.ok_or_else(|| FileError::format(self.path(), format!("no llama.{key}")))
    }

    fn needed_number(&self, key: &str) -> Result<usize, FileError> {
        self.needed(key, self.number(key)?)
    }

    fn read_config(&self) -> Result<ModelConfig, FileError> {
        self.refuse_others()?;
        const EPSILON: &str = "attention.layer_norm_rms_epsilon";
        let embedding = self.places.get("token_embd.weight");
        let vocab = embedding.and_then(|(_, stored)| stored.shape.first());
        let heads = self.needed_number("attention.head_count")?;
        let mut config = ModelConfig {
            vocab: *vocab.ok_or_else(|| missing("model.embed_tokens.weight"))?,
            hidden: self.needed_number("embedding_length")?,
            layers: self.needed_number("block_count")?,
            heads,
            kv_heads: self.number("attention.head_count_kv")?.unwrap_or(heads),
            ffn: self.needed_number("feed_forward_length")?,
            seq_len: self.needed_number("context_length")?,
            rope_theta: self.float("rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling: None,
            norm_epsilon: self.needed(EPSILON, self.float(EPSILON)?)?,
            tied: !self.places.contains_key("output.weight"),
        };
        config.validate()?;
        if config.layers > self.places.len() {
            let (layers, tensors) = (config.layers, self.places.len());
            let reason = format!("{tensors} tensors cannot be {layers} layers");
            return Err(FileError::format(self.path(), reason));
        }
        for key in ["rope.dimension_count", "attention.key_length", "attention.value_length"] {
            let width = self.number(key)?.unwrap_or(config.head_dim());
            if width != config.head_dim() {
                let what = format!("{key} {width}, not a head's width");
                return Err(FileError::unsupported(self.path(), what));
            }
        }
        config.rope_scaling = self.scaling(&config)?;
        config.validate()?;
        Ok(config)
    }

    /// An error for whatever would make another model of the same tensors.
    fn refuse_others(&self) -> Result<(), FileError> {
        let metadata = self.metadata();
        let refuse = |what: String| Err(FileError::unsupported(self.path(), what));
        let architecture = self.found(metadata.text("general.architecture"))?.unwrap_or_default();
        if architecture != "llama" {
            return refuse(format!("architecture {architecture:?}"));
        }
        if self.number("expert_count")?.is_some_and(|count| count > 0) {
            return refuse("a mixture of experts (llama.expert_count)".to_owned());
        }
        for (key, neutral) in NEUTRAL {
            let value = self.float(key)?.filter(|value| value != neutral && *value != 0.0);
            if let Some(value) = value {
                return refuse(format!("llama.{key} {value}"));
            }
        }
        for (key, neutral) in [("attention.causal", true), ("use_parallel_residual", false)] {
            let flag = self.found(metadata.flag(&format!("llama.{key}")))?;
            if flag.is_some_and(|flag| flag != neutral) {
                return refuse(format!("llama.{key} {}", !neutral));
            }
        }
        Ok(())
    }

    /// How the positions are stretched. A factor without a type is that of `linear`, and it had
    /// another name once, both as in llama.cpp, where 0 stands for none.
    fn scaling(&self, config: &ModelConfig) -> Result<Option<RopeScaling>, FileError> {
        let refuse = |what: String| Err(FileError::unsupported(self.path(), what));
        let kind = self.found(self.metadata().text("llama.rope.scaling.type"))?;
        let factor = match self.float("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.float("rope.scale_linear")?,
        };
        let linear = match (kind.unwrap_or("linear"), factor) {
            ("none", _) | ("linear", None | Some(0.0 | 1.0)) => None,
            ("linear", Some(factor)) => Some(RopeScaling::Linear { factor }),
            (other, _) => return refuse(format!("RoPE scaling {other:?}")),
        };
        if !self.places.contains_key(ROPE_FACTORS) {
            return Ok(linear);
        }
        let factors =
            TensorInfo { name: ROPE_FACTORS.to_owned(), shape: vec![config.head_dim() / 2] };
        let mut values = vec![0.0; config.head_dim() / 2];
        self.rows(ROPE_FACTORS, &factors)?.read(|row| row, &mut values)?;
        match (llama3_scaling(config, &values), linear) {
            (Some(scaling), None) => Ok(Some(scaling)),
            (Some(_), Some(_)) => refuse(format!("{ROPE_FACTORS} beside RoPE scaling")),
            (None, _) => refuse("this stretching of positions".to_owned()),
        }
    }

    /// Checks that all tensors and no others are there, in their shapes, in types that are read,
    /// within their files.
    fn check_tensors(&self) -> Result<(), FileError> {
        let tensors = self.config.tensors();
        let names: Vec<String> = tensors.iter().map(|t| stored_name(&t.name)).collect();
        let absent = |name: &&String| !self.places.contains_key(*name);
        let count = names.iter().filter(absent).count();
        for (tensor, name) in tensors.iter().zip(&names) {
            if absent(&name) {
                let first = tensor.name.clone();
                return Err(FileError::Missing { first, count });
            }
            self.rows(name, tensor)?;
        }
        let known: HashSet<&String> = names.iter().collect();
        let stored = self.places.keys();
        let extra = stored.filter(|name| *name != ROPE_FACTORS && !known.contains(name));
        match extra.min() {
            Some(name) => Err(FileError::Extra(name.clone())),
            None => Ok(()),
        }
    }

    /// A stored tensor, which must be as `expected`.
    fn rows(&self, name: &str, expected: &TensorInfo) -> Result<Rows<'_>, FileError> {
        let (part, stored) = self.places.get(name).ok_or_else(|| missing(name))?;
        let part = match part.checked_sub(1) {
            None => &self.first,
            Some(other) => &self.others[other],
        };
        if stored.shape != expected.shape {
            return Err(FileError::Shape {
                name: expected.name.clone(),
                found: stored.shape.clone(),
                expected: expected.shape.clone(),
            });
        }
        let kind = values::value_type(stored.kind).map_err(|kind| {
            let what = format!("the type {kind} of tensor {name} ({READ_TYPES})");
            FileError::unsupported(&part.path, what)
        })?;
        let columns = expected.shape.last().copied().unwrap_or(1);
        let row_bytes = values::bytes_of(kind, columns).ok_or_else(|| {
            let reason = format!("{name} has rows of {columns}, which are no whole blocks");
            FileError::format(&part.path, reason)
        })?;
        let len = row_bytes.checked_mul(expected.len() / columns.max(1));
        let bytes = len.and_then(|len| part.bytes(stored.start, len));
        let bytes = bytes
            .ok_or_else(|| FileError::format(&part.path, format!("ends within tensor {name}")))?;
        Ok(Rows { path: &part.path, name: expected.name.clone(), kind, columns, row_bytes, bytes })
    }
}

/// A stored tensor, row by row.
struct Rows<'a> {
    path: &'a Path,
    name: String,
    kind: GgmlDType,
    columns: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

impl Rows<'_> {
    /// Fills `view`, (rows, columns), where row i is the stored row `place(i)`.
    fn read(
        &self,
        place: impl Fn(usize) -> usize + Sync,
        view: &mut [f32],
    ) -> Result<(), FileError> {
        let rows = view.par_chunks_mut(self.columns).enumerate();
        rows.try_for_each(|(row, values)| {
            let bytes = &self.bytes[place(row) * self.row_bytes..][..self.row_bytes];
            values::read(self.kind, bytes, values)
                .map_err(|error| FileError::format(self.path, format!("{}: {error}", self.name)))?;
            match values.iter().all(|value| value.is_finite()) {
                true => Ok(()),
                false => Err(FileError::NotFinite(self.name.clone())),
            }
        })
    }
}

fn missing(name: &str) -> FileError {
    FileError::Missing { first: name.to_owned(), count: 1 }
}

/// Which stored row is row `row` of q or k: in llama.cpp's order row 2i + j of a head turns with its
/// neighbour, in Hugging Face's row i with row i + half.
fn stored_row(row: usize, head_dim: usize) -> usize {
    let (head, row, half) = (row / head_dim, row % head_dim, head_dim / 2);
    head * head_dim + (row % half) * 2 + row / half
}

/// llama.cpp's name of one of Hugging Face's tensors.
fn stored_name(name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => "token_embd.weight".to_owned(),
        "model.norm.weight" => "output_norm.weight".to_owned(),
        "lm_head.weight" => "output.weight".to_owned(),
        _ => {
            let rest = name.strip_prefix("model.layers.").unwrap_or(name);
            let (layer, part) = rest.split_once('.').unwrap_or((rest, ""));
            let part = match part.trim_end_matches(".weight") {
                "input_layernorm" => "attn_norm",
                "post_attention_layernorm" => "ffn_norm",
                "self_attn.q_proj" => "attn_q",
                "self_attn.k_proj" => "attn_k",
                "self_attn.v_proj" => "attn_v",
                "self_attn.o_proj" => "attn_output",
                "mlp.gate_proj" => "ffn_gate",
                "mlp.up_proj" => "ffn_up",
                "mlp.down_proj" => "ffn_down",
                other => other,
            };
            format!("blk.{layer}.{part}.weight")
        }
    }
}

/// The scaling that gives these factors, if it is Llama 3.1's or 3.2's: only the largest factor
/// differs between their models, and the rest is checked to follow from it.
fn llama3_scaling(config: &ModelConfig, factors: &[f32]) -> Option<RopeScaling> {
    let scaling = RopeScaling::Llama3 {
        factor: factors.iter().copied().fold(1.0, f32::max),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let plain = config.rotary_frequencies();
    let stretched = ModelConfig { rope_scaling: Some(scaling), ..config.clone() };
    let expected = plain.iter().zip(stretched.rotary_frequencies());
    let fits = expected.zip(factors).all(|((plain, stretched), &factor)| {
        (plain / stretched / f64::from(factor) - 1.0).abs() < 1e-3
    });
    fits.then_some(scaling)
}

/// Whether the model at `path` is one of GGUF: a file of that name, or a folder with such files and
/// without a `config.json`.
pub fn is_gguf(path: &Path) -> bool {
    let has_gguf = || gguf_files(path).is_ok_and(|files| !files.is_empty());
    match path.is_dir() {
        true => !path.join(super::configuration::CONFIG).exists() && has_gguf(),
        false => is_named_gguf(path),
    }
}
