//! `config.json` of Hugging Face's LLaMA, and what of it this project can do.
//!
//! Where a field is missing, the value is the one that `LlamaConfig` of transformers takes; where it
//! is `null`, too, if `LlamaConfig` allows that, and otherwise it is refused, as is a field of another
//! type: each by its name. Of a field that is there twice the last one counts, as in Python.
//!
//! The base of the rotary frequencies is `rope_theta` until transformers 4, inside `rope_parameters`
//! from 5 on, and `rope_scaling` of either holds the rest. Read are both, with the precedence of
//! transformers 5; what both versions read is written.

mod fields;

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use self::fields::Fields;
use super::error::{read_small, FileError};
use super::safetensors::ValueType;
use crate::model::config::{ModelConfig, RopeScaling};

/// Name of the file in a folder of Hugging Face.
pub(super) const CONFIG: &str = "config.json";

/// Largest `config.json`.
const BYTES_MAX: u64 = 1 << 20;

/// The configuration in the `config.json` at `path`.
///
/// # Errors
/// There is no such file, or it is not of a LLaMA model that we know.
pub(super) fn read(path: &Path) -> Result<ModelConfig, FileError> {
    let object = fields(path)?;
    let fields = Fields::new(path, &object);
    refuse_others(path, &fields)?;
    let number = |name, usual| Ok::<_, FileError>(fields.number(name)?.unwrap_or(usual));
    let heads = number("num_attention_heads", 32)?;
    let rope = Rope::read(path, &fields)?;
    let seq_len = number("max_position_embeddings", 2048)?;
    let config = ModelConfig {
        vocab: number("vocab_size", 32_000)?,
        hidden: number("hidden_size", 4096)?,
        layers: number("num_hidden_layers", 32)?,
        heads,
        kv_heads: fields.number_or_null("num_key_value_heads")?.unwrap_or(heads),
        ffn: number("intermediate_size", 11_008)?,
        seq_len,
        rope_theta: rope.theta as f32,
        rope_scaling: rope.scaling(path, seq_len)?,
        norm_epsilon: fields.float("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        tied: fields.flag("tie_word_embeddings")?.unwrap_or(false),
    };
    config.validate()?;
    let width = fields.number_or_null("head_dim")?;
    if let Some(width) = width.filter(|&width| width != config.head_dim()) {
        let what = format!("head_dim {width}, not hidden_size / num_attention_heads");
        return Err(FileError::unsupported(path, what));
    }
    Ok(config)
}

/// All fields of the `config.json` at `path`.
pub(super) fn fields(path: &Path) -> Result<Map<String, Value>, FileError> {
    let bytes = read_small(path, BYTES_MAX)?;
    let fields = dataset::json::value(&bytes).and_then(serde_json::from_value);
    fields.map_err(|error| FileError::format(path, error))
}

/// An error for whatever would make another model of the same tensors.
fn refuse_others(path: &Path, fields: &Fields<'_>) -> Result<(), FileError> {
    let refuse = |what: String| Err(FileError::unsupported(path, what));
    match fields.text("model_type")? {
        Some("llama") => {}
        Some(other) => return refuse(format!("model_type {other:?}")),
        None => return Err(FileError::format(path, "no model_type")),
    }
    // Two names of one function.
    if let Some(other) = fields.text("hidden_act")?.filter(|name| !["silu", "swish"].contains(name))
    {
        return refuse(format!("hidden_act {other:?}"));
    }
    for name in ["attention_bias", "mlp_bias"] {
        if fields.flag(name)? == Some(true) {
            return refuse(name.to_owned());
        }
    }
    let others = [
        "sliding_window",
        "quantization_config",
        "compression_config",
        // Layers that differ, and files of tensors with names of their own.
        "per_layer_config",
        "transformers_weights",
    ];
    match others.into_iter().find(|name| fields.is_set(name)) {
        Some(name) => refuse(name.to_owned()),
        None => Ok(()),
    }
}

/// The rotary positions, wherever they stand.
struct Rope<'a> {
    theta: f64,
    kind: &'a str,
    /// The numbers of `kind`.
    inside: Fields<'a>,
    /// `original_max_position_embeddings` beside them.
    original_outside: Option<usize>,
}

impl<'a> Rope<'a> {
    fn read(path: &'a Path, outside: &Fields<'a>) -> Result<Self, FileError> {
        // An empty object counts as none.
        let given =
            |name| Ok::<_, FileError>(outside.object(name)?.filter(|rope| !rope.is_empty()));
        let (scaling, parameters) = (given("rope_scaling")?, given("rope_parameters")?);
        let inside = scaling.or(parameters).unwrap_or(Fields::none(path));
        let theta = match inside.float("rope_theta")? {
            Some(theta) => theta,
            None => outside.float("rope_theta")?.unwrap_or(10_000.0),
        };
        for fields in [outside, &inside] {
            let part = fields.float_or_null("partial_rotary_factor")?;
            if let Some(part) = part.filter(|&part| part != 1.0) {
                return Err(FileError::unsupported(path, format!("partial_rotary_factor {part}")));
            }
        }
        // The new name of the kind goes before the old one.
        let kind = match inside.text("rope_type")? {
            Some(kind) => Some(kind),
            None => inside.text("type")?,
        };
        let original_outside = outside.number_or_null(ORIGINAL)?;
        Ok(Self { theta, kind: kind.unwrap_or("default"), inside, original_outside })
    }

    fn scaling(&self, path: &Path, seq_len: usize) -> Result<Option<RopeScaling>, FileError> {
        let kind = self.kind;
        let number = |name| {
            let missing =
                || FileError::format(path, format!("RoPE scaling {kind:?} lacks a number: {name}"));
            Ok::<_, FileError>(self.inside.float(name)?.ok_or_else(missing)? as f32)
        };
        match kind {
            "default" => Ok(None),
            "linear" => Ok(Some(RopeScaling::Linear { factor: number("factor")? })),
            "llama3" => Ok(Some(RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position_embeddings: self.original(path, seq_len)?,
            })),
            other => Err(FileError::unsupported(path, format!("RoPE scaling {other:?}"))),
        }
    }

    /// The context before stretching: transformers takes that of the model where none is given, and
    /// its versions differ where two are.
    fn original(&self, path: &Path, seq_len: usize) -> Result<u32, FileError> {
        let original = match (self.inside.number(ORIGINAL)?, self.original_outside) {
            (Some(inside), Some(outside)) if inside != outside => {
                let what = format!("{ORIGINAL} {inside} and {outside}");
                return Err(FileError::unsupported(path, what));
            }
            (inside, outside) => inside.or(outside).unwrap_or(seq_len),
        };
        let too_large = || FileError::format(path, format!("{ORIGINAL} is {original}"));
        original.try_into().map_err(|_| too_large())
    }
}

const ORIGINAL: &str = "original_max_position_embeddings";

/// What is written.
#[derive(Serialize)]
struct Written<'a> {
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
    mlp_bias: bool,
    tie_word_embeddings: bool,
    torch_dtype: &'static str,
}

/// What is written unless the model came with something else.
#[derive(Serialize)]
struct Usual<'a> {
    architectures: [&'static str; 1],
    attention_dropout: f32,
    use_cache: bool,
    bos_token_id: Option<u32>,
    eos_token_id: Option<Tokens<'a>>,
}

/// One token as a number, several as a list.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Tokens<'a> {
    One(u32),
    Several(&'a [u32]),
}

impl<'a> Tokens<'a> {
    pub(super) fn new(tokens: &'a [u32]) -> Option<Self> {
        match tokens {
            [] => None,
            [token] => Some(Self::One(*token)),
            several => Some(Self::Several(several)),
        }
    }
}

/// Fields of a model's first `config.json` that say otherwise what is written anyway.
const REPLACED: [&str; 4] = ["rope_parameters", "dtype", "partial_rotary_factor", ORIGINAL];

/// `config.json` of a model whose tensors are written as `values`, with the tokens that begin and
/// end a text, and with the other fields of the `config.json` that it came with, if any.
pub(super) fn write(
    config: &ModelConfig,
    values: ValueType,
    (bos, ends): (Option<u32>, &[u32]),
    handed_on: &Map<String, Value>,
) -> serde_json::Result<String> {
    let usual = Usual {
        architectures: ["LlamaForCausalLM"],
        attention_dropout: 0.0,
        use_cache: true,
        bos_token_id: bos,
        eos_token_id: Tokens::new(ends),
    };
    let written = Written {
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
        mlp_bias: false,
        tie_word_embeddings: config.tied,
        torch_dtype: values.torch_name(),
    };
    let mut fields = match handed_on.is_empty() {
        true => object(&usual)?,
        false => handed_on.clone(),
    };
    fields.retain(|name, _| !REPLACED.contains(&name.as_str()));
    fields.extend(object(&written)?);
    serde_json::to_string_pretty(&fields)
}

/// The fields of a struct. By way of text, so that a float of 32 bits keeps its few digits.
fn object(fields: &impl Serialize) -> serde_json::Result<Map<String, Value>> {
    serde_json::from_str(&serde_json::to_string(fields)?)
}

/// The tokens that begin and end a text by the fields of the `config.json` at `path`.
///
/// # Errors
/// A field is neither a token's number, nor a list of such, nor null.
pub(super) fn special_tokens(
    path: &Path,
    fields: &Map<String, Value>,
) -> Result<(Option<u32>, Vec<u32>), FileError> {
    let fields = Fields::new(path, fields);
    Ok((fields.tokens("bos_token_id")?.first().copied(), fields.tokens("eos_token_id")?))
}

/// The same with `LlamaConfig`'s tokens where a file does not say.
///
/// # Errors
/// As for [`special_tokens`].
pub(super) fn special_tokens_or_usual(
    path: &Path,
    fields: &Map<String, Value>,
) -> Result<(Option<u32>, Vec<u32>), FileError> {
    let (bos, ends) = special_tokens(path, fields)?;
    let bos = if fields.contains_key("bos_token_id") { bos } else { Some(1) };
    let ends = if fields.contains_key("eos_token_id") { ends } else { vec![2] };
    Ok((bos, ends))
}
