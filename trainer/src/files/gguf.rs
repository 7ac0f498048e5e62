//! GGUF, the files of llama.cpp: read, dequantised to `f32`, never written.
//!
//! candle reads the header and dequantises. What is done here: llama.cpp's names become Hugging
//! Face's; the rows of q and k, which llama.cpp orders for another way of turning pairs, go back
//! to where they were; and Llama 3.1's RoPE scaling, which is in the file only as one factor for each
//! pair, is recognised again.

use std::collections::HashMap;
use std::fs::File;
use std::io::Cursor;
use std::panic::catch_unwind;
use std::path::Path;

use candle_core::quantized::gguf_file::{Content, TensorInfo as StoredInfo, Value};
use candle_core::Device;
use memmap2::Mmap;

use super::{vocabulary, FileError};
use crate::config::{ModelConfig, RopeScaling};
use crate::model::Model;

/// Factors of the rotary frequencies, one for each pair.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// What a GGUF file holds.
#[derive(Debug)]
pub struct GgufModel {
    /// The model, dequantised.
    pub model: Model,
    /// The file's vocabulary as a `tokenizer.json`, or why there is none.
    pub tokenizer: Result<Vec<u8>, String>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
}

/// Reads a GGUF file of the architecture `llama`, in any type that candle dequantises.
///
/// # Errors
/// As for [`super::open`].
pub fn open_gguf(path: &Path) -> Result<GgufModel, FileError> {
    let file = File::open(path).map_err(FileError::io(path))?;
    // SAFETY: the map is only read, as bytes; see `Shard::open`.
    let map = unsafe { Mmap::map(&file) }.map_err(FileError::io(path))?;
    // candle divides by the alignment that the file states, which may be 0.
    let content = catch_unwind(|| Content::read(&mut Cursor::new(&map[..])))
        .map_err(|_| FileError::format(path, "not GGUF: its header makes no sense"))?
        .map_err(|error| FileError::format(path, format!("not GGUF: {error}")))?;
    let gguf = Gguf { path, map, content };
    let config = gguf.config()?;
    gguf.check_tensors(&config)?;
    let model = gguf.model(&config)?;
    let metadata = Metadata(&gguf.content.metadata);
    Ok(GgufModel {
        model,
        tokenizer: vocabulary::tokenizer_json(&metadata),
        bos: metadata.token("tokenizer.ggml.bos_token_id"),
        eos: metadata.token("tokenizer.ggml.eos_token_id"),
    })
}

/// A file's key-value pairs.
pub(super) struct Metadata<'a>(&'a HashMap<String, Value>);

impl<'a> Metadata<'a> {
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        Some(self.0.get(key)?.to_string().ok()?.as_str())
    }

    pub(super) fn list(&self, key: &str) -> Option<&'a [Value]> {
        Some(self.0.get(key)?.to_vec().ok()?.as_slice())
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.0.get(key)?.to_bool().ok()
    }

    pub(super) fn token(&self, key: &str) -> Option<u32> {
        u32::try_from(self.0.get(key)?.to_u64().ok()?).ok()
    }

    fn float(&self, key: &str) -> Option<f32> {
        self.0.get(key)?.to_f32().ok()
    }
}

struct Gguf<'a> {
    path: &'a Path,
    map: Mmap,
    content: Content,
}

impl Gguf<'_> {
    fn number(&self, key: &str) -> Result<Option<usize>, FileError> {
        let Some(value) = self.content.metadata.get(&format!("llama.{key}")) else {
            return Ok(None);
        };
        let number = value
            .to_u64()
            .ok()
            .and_then(|number| number.try_into().ok());
        let wrong = || FileError::format(self.path, format!("llama.{key} is no number"));
        number.map(Some).ok_or_else(wrong)
    }

    fn needed(&self, key: &str) -> Result<usize, FileError> {
        let missing = || FileError::format(self.path, format!("no llama.{key}"));
        self.number(key)?.ok_or_else(missing)
    }

    fn config(&self) -> Result<ModelConfig, FileError> {
        let metadata = Metadata(&self.content.metadata);
        let unsupported = |what: String| FileError::unsupported(self.path, what);
        let architecture = metadata.text("general.architecture").unwrap_or_default();
        if architecture != "llama" {
            return Err(unsupported(format!("architecture {architecture:?}")));
        }
        if self.number("expert_count")?.is_some_and(|count| count > 0) {
            return Err(unsupported("a mixture of experts".to_owned()));
        }
        let parts = self.content.metadata.get("split.count");
        if parts.is_some_and(|count| count.to_u64().is_ok_and(|count| count > 1)) {
            return Err(unsupported("a file that is cut into several".to_owned()));
        }
        let embedding = self.content.tensor_infos.get("token_embd.weight");
        let vocab = embedding.and_then(|info| info.shape.dims().first());
        let heads = self.needed("attention.head_count")?;
        let epsilon = metadata.float("llama.attention.layer_norm_rms_epsilon");
        let mut config = ModelConfig {
            vocab: *vocab.ok_or_else(|| missing("model.embed_tokens.weight"))?,
            hidden: self.needed("embedding_length")?,
            layers: self.needed("block_count")?,
            heads,
            kv_heads: self.number("attention.head_count_kv")?.unwrap_or(heads),
            ffn: self.needed("feed_forward_length")?,
            seq_len: self.needed("context_length")?,
            rope_theta: metadata.float("llama.rope.freq_base").unwrap_or(10_000.0),
            rope_scaling: None,
            norm_epsilon: epsilon.unwrap_or(1e-5),
            tied: !self.content.tensor_infos.contains_key("output.weight"),
        };
        config.validate()?;
        for key in [
            "rope.dimension_count",
            "attention.key_length",
            "attention.value_length",
        ] {
            let width = self.number(key)?.unwrap_or(config.head_dim());
            if width != config.head_dim() {
                return Err(unsupported(format!("{key} {width}, not a head's width")));
            }
        }
        config.rope_scaling = self.scaling(&config)?;
        config.validate()?;
        Ok(config)
    }

    fn scaling(&self, config: &ModelConfig) -> Result<Option<RopeScaling>, FileError> {
        let metadata = Metadata(&self.content.metadata);
        if let Some(info) = self.content.tensor_infos.get(ROPE_FACTORS) {
            if info.shape.dims() != [config.head_dim() / 2] {
                let what = format!("{ROPE_FACTORS} of shape {:?}", info.shape);
                return Err(FileError::unsupported(self.path, what));
            }
            let factors = self.read(ROPE_FACTORS, info)?;
            let unknown = || FileError::unsupported(self.path, "this stretching of positions");
            return llama3_scaling(config, &factors)
                .map(Some)
                .ok_or_else(unknown);
        }
        let factor = metadata.float("llama.rope.scaling.factor");
        match metadata.text("llama.rope.scaling.type").unwrap_or("none") {
            "none" => Ok(None),
            "linear" => Ok(Some(RopeScaling::Linear {
                factor: factor.unwrap_or(1.0),
            })),
            other => {
                let what = format!("RoPE scaling {other:?}");
                Err(FileError::unsupported(self.path, what))
            }
        }
    }

    /// Checks that all tensors and no others are there, in their shapes, within the file.
    fn check_tensors(&self, config: &ModelConfig) -> Result<(), FileError> {
        let stored = &self.content.tensor_infos;
        let tensors = config.tensors();
        let absent = |name: &str| !stored.contains_key(&stored_name(name));
        let mut bytes = 0u64;
        for tensor in &tensors {
            let Some(info) = stored.get(&stored_name(&tensor.name)) else {
                let count = tensors.iter().filter(|tensor| absent(&tensor.name)).count();
                let first = tensor.name.clone();
                return Err(FileError::Missing { first, count });
            };
            if info.shape.dims() != tensor.shape {
                return Err(FileError::Shape {
                    name: tensor.name.clone(),
                    found: info.shape.dims().to_vec(),
                    expected: tensor.shape.clone(),
                });
            }
            let kind = info.ggml_dtype;
            bytes += (tensor.len() / kind.block_size() * kind.type_size()) as u64;
        }
        if bytes > self.map.len() as u64 {
            return Err(FileError::format(self.path, "shorter than its tensors"));
        }
        let known: Vec<String> = tensors.iter().map(|t| stored_name(&t.name)).collect();
        let extra = stored
            .keys()
            .filter(|name| *name != ROPE_FACTORS && !known.contains(name));
        match extra.min() {
            Some(name) => Err(FileError::Extra(name.clone())),
            None => Ok(()),
        }
    }

    fn model(&self, config: &ModelConfig) -> Result<Model, FileError> {
        let arena = config.arena();
        let mut parameters = vec![0.0f32; arena.len];
        let width = config.head_dim() * config.hidden;
        for (tensor, view) in config
            .tensors()
            .iter()
            .zip(arena.views_mut(&mut parameters))
        {
            let Some(info) = self.content.tensor_infos.get(&stored_name(&tensor.name)) else {
                return Err(missing(&tensor.name));
            };
            let values = self.read(&tensor.name, info)?;
            let is_turned = ["q_proj.weight", "k_proj.weight"]
                .iter()
                .any(|end| tensor.name.ends_with(end));
            match is_turned {
                false => view.copy_from_slice(&values),
                true => view
                    .chunks_mut(width)
                    .zip(values.chunks(width))
                    .for_each(|(head, stored)| restore_rows(head, stored, config.hidden)),
            }
            if !view.iter().all(|value| value.is_finite()) {
                return Err(FileError::NotFinite(tensor.name.clone()));
            }
        }
        Ok(Model::with_parameters(config, parameters))
    }

    /// The values of a tensor whose shape has been checked.
    fn read(&self, name: &str, info: &StoredInfo) -> Result<Vec<f32>, FileError> {
        let mut reader = Cursor::new(&self.map[..]);
        info.read(&mut reader, self.content.tensor_data_offset, &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1())
            .map_err(|error| FileError::format(self.path, format!("{name}: {error}")))
    }
}

fn missing(name: &str) -> FileError {
    FileError::Missing {
        first: name.to_owned(),
        count: 1,
    }
}

/// Rows of one head from llama.cpp's order, where row 2i + j turns with its neighbour, to Hugging
/// Face's, where row i turns with row i + half. Both: (head_dim, columns).
fn restore_rows(head: &mut [f32], stored: &[f32], columns: usize) {
    let half = head.len() / columns / 2;
    for (row, values) in head.chunks_mut(columns).enumerate() {
        let from = (row % half) * 2 + row / half;
        values.copy_from_slice(&stored[from * columns..][..columns]);
    }
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
    let stretched = ModelConfig {
        rope_scaling: Some(scaling),
        ..config.clone()
    };
    let expected = plain.iter().zip(stretched.rotary_frequencies());
    let fits = expected.zip(factors).all(|((plain, stretched), &factor)| {
        (plain / stretched / f64::from(factor) - 1.0).abs() < 1e-3
    });
    fits.then_some(scaling)
}
