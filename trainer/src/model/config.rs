//! Describes a model: its size, the names of its tensors and their places in memory.
//!
//! The names and shapes are Hugging Face's for LLaMA. Canonical order (of the layout on chain, of
//! the state root and of updates) is ascending order of the names. In memory the tensors lie in
//! another order, in one arena, such that q|k|v and gate|up are each one matrix: see [`Arena`].

mod presets;
mod rotary;

use std::ops::Range;

use protocol::layout::Layout;
use serde::{Deserialize, Serialize};

pub use rotary::RopeScaling;

/// Largest value of any dimension: keeps every product of two of them inside a `usize`.
const DIMENSION_MAX: usize = 1 << 24;

/// The names of the presets, smallest first.
pub const PRESETS: [&str; 10] =
    ["nano", "1M", "7M", "25M", "135M", "360M", "1B", "8B", "70B", "covenant-72b"];

/// Why a configuration cannot be used.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// No preset of this name.
    #[error("no preset `{0}`; there are {all}", all = PRESETS.join(", "))]
    Preset(String),
    /// A dimension is 0 or above 2^24.
    #[error("{name} is {value}, not 1 to 16777216")]
    Dimension {
        /// The field.
        name: &'static str,
        /// Its value.
        value: usize,
    },
    /// `hidden` must be a multiple of twice `heads`: RoPE turns pairs.
    #[error("hidden {hidden} is not a multiple of 2 · heads {heads}")]
    Heads {
        /// Width of the residual stream.
        hidden: usize,
        /// Query heads.
        heads: usize,
    },
    /// `heads` must be a multiple of `kv_heads`.
    #[error("heads {heads} is not a multiple of kv_heads {kv_heads}")]
    KvHeads {
        /// Query heads.
        heads: usize,
        /// Key and value heads.
        kv_heads: usize,
    },
    /// A model knows at least the 256 bytes.
    #[error("vocab is {0}, less than the 256 bytes")]
    Vocab(usize),
    /// `rope_theta` must be finite and above 1, `norm_epsilon` finite and above 0.
    #[error("rope_theta {rope_theta} is not above 1, or norm_epsilon (rms_norm_eps) {norm_epsilon} not above 0")]
    Float {
        /// The base of the rotary frequencies.
        rope_theta: f64,
        /// What a norm adds to the mean square.
        norm_epsilon: f64,
    },
    /// A number of `rope_scaling` is out of its range.
    #[error("rope_scaling is out of range: {0:?}")]
    RopeScaling(RopeScaling),
    /// More tensors than a layout on chain can have.
    #[error("{0} layers are more tensors than the chain's 1024")]
    Tensors(usize),
    /// More values than a layout on chain can number.
    #[error("the model has more values than the chain can number")]
    Values,
}

/// The shape of a LLaMA model: RMSNorm before attention and before the SwiGLU network, rotary
/// positions, grouped key and value heads.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Tokens that the model knows, at least 256.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Query heads; `hidden / heads` is a head's width.
    pub heads: usize,
    /// Key and value heads, each shared by `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of the SwiGLU network.
    pub ffn: usize,
    /// Tokens of a sample.
    pub seq_len: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// How the positions were stretched; not at all in most models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Added to the mean square in RMSNorm.
    pub norm_epsilon: f32,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
}

/// One tensor: Hugging Face's name and its shape, row-major.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// Hugging Face's name.
    pub name: String,
    /// Rows and columns of a matrix, or the length of a vector.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Values of the tensor.
    #[allow(clippy::len_without_is_empty, reason = "no tensor is empty")]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

impl ModelConfig {
    /// Radians that each pair of a head's columns turns from one position to the next:
    /// (head_dim / 2), for columns i and i + head_dim / 2.
    pub fn rotary_frequencies(&self) -> Vec<f64> {
        let half = self.head_dim() / 2;
        let theta = f64::from(self.rope_theta);
        let plain = (0..half).map(|pair| theta.powf(-(pair as f64) / half as f64));
        match self.rope_scaling {
            None => plain.collect(),
            Some(scaling) => plain.map(|frequency| scaling.stretch(frequency)).collect(),
        }
    }

    /// Whether the numbers fit together.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let dimensions = [
            ("vocab", self.vocab),
            ("hidden", self.hidden),
            ("layers", self.layers),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("ffn", self.ffn),
            ("seq_len", self.seq_len),
        ];
        for (name, value) in dimensions {
            if value == 0 || value > DIMENSION_MAX {
                return Err(ConfigError::Dimension { name, value });
            }
        }
        if self.vocab < 256 {
            return Err(ConfigError::Vocab(self.vocab));
        }
        if !self.hidden.is_multiple_of(2 * self.heads) {
            return Err(ConfigError::Heads { hidden: self.hidden, heads: self.heads });
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(ConfigError::KvHeads { heads: self.heads, kv_heads: self.kv_heads });
        }
        let theta_fits = self.rope_theta.is_finite() && self.rope_theta > 1.0;
        let epsilon_fits = self.norm_epsilon.is_finite() && self.norm_epsilon > 0.0;
        if !theta_fits || !epsilon_fits {
            return Err(ConfigError::Float {
                rope_theta: self.rope_theta.into(),
                norm_epsilon: self.norm_epsilon.into(),
            });
        }
        if let Some(scaling) = self.rope_scaling.filter(|scaling| !scaling.is_valid()) {
            return Err(ConfigError::RopeScaling(scaling));
        }
        if self.layers * 9 + 3 > protocol::layout::LAYOUT_TENSORS_MAX as usize {
            return Err(ConfigError::Tensors(self.layers));
        }
        if !self.layout().is_valid() {
            return Err(ConfigError::Values);
        }
        Ok(())
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Columns of the keys, and of the values.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim()
    }

    /// Columns of q|k|v.
    pub fn qkv_dim(&self) -> usize {
        self.hidden + 2 * self.kv_dim()
    }

    /// Parameters of the model.
    pub fn parameter_count(&self) -> u64 {
        self.arena().len as u64
    }

    /// The tensors in canonical order, which is that of their names.
    pub fn tensors(&self) -> Vec<TensorInfo> {
        let arena = self.arena();
        arena.canonical.iter().map(|&index| arena.tensors[index].info.clone()).collect()
    }

    /// The tensors' lengths in canonical order, as the chain stores them.
    pub fn layout(&self) -> Layout {
        Layout(self.tensors().iter().map(|tensor| tensor.len() as u64).collect())
    }

    /// Where the tensors lie in memory.
    pub fn arena(&self) -> Arena {
        Arena::new(self)
    }
}

/// A tensor and its place in the arena.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Name and shape.
    pub info: TensorInfo,
    /// Its values in the arena.
    pub range: Range<usize>,
}

/// The places of one layer's matrices; the fused ones cover several tensors.
#[derive(Clone, Debug)]
pub struct LayerPlaces {
    /// RMSNorm before attention: (hidden).
    pub attention_norm: Range<usize>,
    /// q, k and v one below the other: (qkv_dim, hidden).
    pub qkv: Range<usize>,
    /// Attention's output: (hidden, hidden).
    pub output: Range<usize>,
    /// RMSNorm before SwiGLU: (hidden).
    pub ffn_norm: Range<usize>,
    /// gate above up: (2 · ffn, hidden).
    pub gate_up: Range<usize>,
    /// (hidden, ffn).
    pub down: Range<usize>,
}

/// How a model's tensors lie in one `[f32]`: embedding, layers from the first to the last, final
/// norm, output matrix. Inside a layer: norm, q, k, v, o, norm, gate, up, down.
#[derive(Clone, Debug)]
pub struct Arena {
    /// All tensors, in the order of the arena.
    pub tensors: Vec<Placed>,
    /// Canonical order: indices into `tensors`.
    pub canonical: Vec<usize>,
    /// The embedding: (vocab, hidden).
    pub embedding: Range<usize>,
    /// The layers.
    pub layers: Vec<LayerPlaces>,
    /// The last RMSNorm: (hidden).
    pub final_norm: Range<usize>,
    /// The output matrix (vocab, hidden); the embedding where they are tied.
    pub head: Range<usize>,
    /// Values in all.
    pub len: usize,
}

impl Arena {
    fn new(config: &ModelConfig) -> Self {
        let (hidden, kv_dim, ffn) = (config.hidden, config.kv_dim(), config.ffn);
        let mut tensors: Vec<Placed> = Vec::new();
        let mut place = |name: String, shape: &[usize]| {
            let start = tensors.last().map_or(0, |last| last.range.end);
            let info = TensorInfo { name, shape: shape.to_vec() };
            let range = start..start + info.len();
            tensors.push(Placed { info, range: range.clone() });
            range
        };
        let embedding = place("model.embed_tokens.weight".into(), &[config.vocab, hidden]);
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let mut part = |name: &str, shape: &[usize]| {
                place(format!("model.layers.{layer}.{name}.weight"), shape)
            };
            let attention_norm = part("input_layernorm", &[hidden]);
            let q = part("self_attn.q_proj", &[hidden, hidden]);
            part("self_attn.k_proj", &[kv_dim, hidden]);
            let v = part("self_attn.v_proj", &[kv_dim, hidden]);
            let output = part("self_attn.o_proj", &[hidden, hidden]);
            let ffn_norm = part("post_attention_layernorm", &[hidden]);
            let gate = part("mlp.gate_proj", &[ffn, hidden]);
            let up = part("mlp.up_proj", &[ffn, hidden]);
            let down = part("mlp.down_proj", &[hidden, ffn]);
            layers.push(LayerPlaces {
                attention_norm,
                qkv: q.start..v.end,
                output,
                ffn_norm,
                gate_up: gate.start..up.end,
                down,
            });
        }
        let final_norm = place("model.norm.weight".into(), &[hidden]);
        let head = match config.tied {
            true => embedding.clone(),
            false => place("lm_head.weight".into(), &[config.vocab, hidden]),
        };
        let len = tensors.last().map_or(0, |last| last.range.end);
        let mut canonical: Vec<usize> = (0..tensors.len()).collect();
        canonical.sort_by(|&a, &b| tensors[a].info.name.cmp(&tensors[b].info.name));
        Self { tensors, canonical, embedding, layers, final_norm, head, len }
    }

    /// Whether tensor `tensor` is a matrix of a layer: neither a norm nor embedding or output matrix.
    pub fn is_layer_matrix(&self, tensor: usize) -> bool {
        self.tensors.get(tensor).is_some_and(|placed| {
            let outside = placed.range == self.embedding || placed.range == self.head;
            placed.info.shape.len() > 1 && !outside
        })
    }

    /// Whether weight decay makes the tensor smaller: every matrix, but not an embedding that is not the output matrix. Of
    /// that a token trains its own row alone, and a row that nobody trains must stay as it is: decay would move it by the
    /// same for every miner, whose updates would have those chunks in common as if copied.
    pub fn decays(&self, tensor: usize) -> bool {
        self.tensors.get(tensor).is_some_and(|placed| {
            let is_lookup = placed.range == self.embedding && self.embedding != self.head;
            placed.info.shape.len() > 1 && !is_lookup
        })
    }

    /// The layers' matrices, with their numbers among [`Arena::tensors`].
    pub fn layer_matrices(&self) -> impl Iterator<Item = (usize, &Placed)> {
        self.tensors.iter().enumerate().filter(|(tensor, _)| self.is_layer_matrix(*tensor))
    }

    /// Parameters of the layers' matrices.
    pub fn layer_matrix_len(&self) -> usize {
        self.layer_matrices().map(|(_, placed)| placed.range.len()).sum()
    }

    /// The tensors in canonical order, with their places.
    pub fn canonical_tensors(&self) -> impl Iterator<Item = &Placed> {
        self.canonical.iter().map(|&index| &self.tensors[index])
    }

    /// The tensors of `arena`, in canonical order.
    pub fn views<'a>(&self, arena: &'a [f32]) -> Vec<&'a [f32]> {
        self.canonical_tensors().map(|tensor| &arena[tensor.range.clone()]).collect()
    }

    /// The tensors of `arena` to be changed, in canonical order.
    pub fn views_mut<'a>(&self, arena: &'a mut [f32]) -> Vec<&'a mut [f32]> {
        let mut rest = arena;
        let mut parts: Vec<Option<&'a mut [f32]>> = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            let (part, after) = rest.split_at_mut(tensor.range.len());
            parts.push(Some(part));
            rest = after;
        }
        // `canonical` names each tensor once.
        self.canonical.iter().filter_map(|&index| parts[index].take()).collect()
    }
}
