//! `config.json` of Hugging Face's LLaMA, and what of it this project can do.
//!
//! Where a field is missing, the value is the one that `LlamaConfig` of transformers takes. The base
//! of the rotary frequencies is `rope_theta` until transformers 4, inside `rope_parameters` from 5
//! on, and `rope_scaling` of either holds the rest; both are read, and what both read is written.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{read_small, FileError};
use super::safetensors::ValueType;
use crate::model::config::{ModelConfig, RopeScaling};

/// Largest `config.json`.
const BYTES_MAX: u64 = 1 << 20;

/// What is read. Fields that change what the model computes are all here.
#[derive(Deserialize)]
struct Read {
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    partial_rotary_factor: Option<f64>,
    sliding_window: Option<Value>,
    quantization_config: Option<Value>,
}

/// `rope_scaling` or `rope_parameters`.
#[derive(Deserialize, Default)]
struct Rope {
    /// `type` in old files.
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<u32>,
    partial_rotary_factor: Option<f64>,
}

/// The configuration in the `config.json` at `path`.
///
/// # Errors
/// There is no such file, or it is not of a LLaMA model that we know.
pub(super) fn read(path: &Path) -> Result<ModelConfig, FileError> {
    let bytes = read_small(path, BYTES_MAX)?;
    let read: Read =
        serde_json::from_slice(&bytes).map_err(|error| FileError::format(path, error))?;
    refuse_others(path, &read)?;
    let heads = read.num_attention_heads;
    let rope = read.rope_parameters.or(read.rope_scaling);
    let theta_inside = rope.as_ref().and_then(|rope| rope.rope_theta);
    let config = ModelConfig {
        vocab: read.vocab_size,
        hidden: read.hidden_size,
        layers: read.num_hidden_layers,
        heads,
        kv_heads: read.num_key_value_heads.unwrap_or(heads),
        ffn: read.intermediate_size,
        seq_len: read.max_position_embeddings.unwrap_or(2048),
        rope_theta: theta_inside.or(read.rope_theta).unwrap_or(10_000.0) as f32,
        rope_scaling: rope.map_or(Ok(None), |rope| scaling(path, &rope))?,
        norm_epsilon: read.rms_norm_eps.unwrap_or(1e-6) as f32,
        tied: read.tie_word_embeddings.unwrap_or(false),
    };
    config.validate()?;
    if let Some(width) = read.head_dim.filter(|&width| width != config.head_dim()) {
        let what = format!("head_dim {width}, not hidden_size / num_attention_heads");
        return Err(FileError::unsupported(path, what));
    }
    Ok(config)
}

/// An error for whatever would make another model of the same tensors.
fn refuse_others(path: &Path, read: &Read) -> Result<(), FileError> {
    let refuse = |what: String| Err(FileError::unsupported(path, what));
    match read.model_type.as_deref() {
        Some("llama") => {}
        Some(other) => return refuse(format!("model_type {other:?}")),
        None => return Err(FileError::format(path, "no model_type")),
    }
    if let Some(other) = read.hidden_act.as_deref().filter(|name| *name != "silu") {
        return refuse(format!("hidden_act {other:?}"));
    }
    let part = |rope: &Option<Rope>| rope.as_ref().and_then(|rope| rope.partial_rotary_factor);
    let parts = [read.partial_rotary_factor, part(&read.rope_scaling), part(&read.rope_parameters)];
    let present = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_null());
    let switches = [
        ("attention_bias", read.attention_bias == Some(true)),
        ("mlp_bias", read.mlp_bias == Some(true)),
        ("sliding_window", present(&read.sliding_window)),
        ("quantization_config", present(&read.quantization_config)),
        ("partial_rotary_factor", parts.iter().flatten().any(|&part| part != 1.0)),
    ];
    match switches.iter().find(|(_, is_on)| *is_on) {
        Some((name, _)) => refuse((*name).to_owned()),
        None => Ok(()),
    }
}

fn scaling(path: &Path, rope: &Rope) -> Result<Option<RopeScaling>, FileError> {
    let kind = rope.rope_type.as_deref().unwrap_or("default");
    let missing = || FileError::format(path, format!("RoPE scaling {kind:?} lacks a number"));
    match kind {
        "default" => Ok(None),
        "linear" => Ok(Some(RopeScaling::Linear { factor: rope.factor.ok_or_else(missing)? })),
        "llama3" => Ok(Some(RopeScaling::Llama3 {
            factor: rope.factor.ok_or_else(missing)?,
            low_freq_factor: rope.low_freq_factor.ok_or_else(missing)?,
            high_freq_factor: rope.high_freq_factor.ok_or_else(missing)?,
            original_max_position_embeddings: rope
                .original_max_position_embeddings
                .ok_or_else(missing)?,
        })),
        other => Err(FileError::unsupported(path, format!("RoPE scaling {other:?}"))),
    }
}

/// What is written.
#[derive(Serialize)]
struct Written<'a> {
    architectures: [&'static str; 1],
    model_type: &'static str,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    hidden_act: &'static str,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    rope_theta: f32,
    rope_scaling: Option<&'a RopeScaling>,
    attention_bias: bool,
    attention_dropout: f32,
    mlp_bias: bool,
    tie_word_embeddings: bool,
    torch_dtype: &'static str,
    bos_token_id: Option<u32>,
    eos_token_id: Option<u32>,
    use_cache: bool,
}

/// `config.json` of a model whose tensors are written as `values`, with the tokens that begin and
/// end a text.
pub(super) fn write(
    config: &ModelConfig,
    values: ValueType,
    (bos, eos): (Option<u32>, Option<u32>),
) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&Written {
        architectures: ["LlamaForCausalLM"],
        model_type: "llama",
        vocab_size: config.vocab,
        hidden_size: config.hidden,
        intermediate_size: config.ffn,
        num_hidden_layers: config.layers,
        num_attention_heads: config.heads,
        num_key_value_heads: config.kv_heads,
        head_dim: config.head_dim(),
        hidden_act: "silu",
        max_position_embeddings: config.seq_len,
        rms_norm_eps: config.norm_epsilon,
        rope_theta: config.rope_theta,
        rope_scaling: config.rope_scaling.as_ref(),
        attention_bias: false,
        attention_dropout: 0.0,
        mlp_bias: false,
        tie_word_embeddings: config.tied,
        torch_dtype: values.torch_name(),
        bos_token_id: bos,
        eos_token_id: eos,
        use_cache: true,
    })
}

/// The tokens that begin and end a text by the `config.json` at `path`; of several that end it, the
/// first. `None` where there is nothing readable: they are only passed on.
pub(super) fn special_tokens(path: &Path) -> (Option<u32>, Option<u32>) {
    let Ok(bytes) = read_small(path, BYTES_MAX) else {
        return (None, None);
    };
    let Ok(config) = serde_json::from_slice::<Value>(&bytes) else {
        return (None, None);
    };
    let token = |name: &str| {
        let value = config.get(name)?;
        let first = value.as_array().map_or(Some(value), |list| list.first())?;
        u32::try_from(first.as_u64()?).ok()
    };
    (token("bos_token_id"), token("eos_token_id"))
}
