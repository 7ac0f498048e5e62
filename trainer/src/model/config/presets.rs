//! The models that have a name.
//!
//! The four small ones are for tests and for measuring the engine. The others have the shapes of
//! published models, so that their checkpoints load: SmolLM2-135M and 360M, Llama-3.2-1B,
//! Llama-3.1-8B, Llama-3-70B and Covenant-72B. Their `seq_len` is that of pre-training, not the
//! longest context that the published model can read.

use super::{ConfigError, ModelConfig, RopeScaling};

/// Llama 3.1's and 3.2's stretched positions.
fn llama3(factor: f32) -> RopeScaling {
    RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    }
}

impl ModelConfig {
    /// The preset of this name, one of [`PRESETS`](super::PRESETS).
    ///
    /// `nano` is for many processes on two cores; 1M, 7M and 25M are the shapes that the engine is
    /// measured with; the others have the shapes of published models.
    ///
    /// `covenant-72b` is tied, as its paper and its settings say: 70.6 billion parameters. The paper's
    /// 72,747,327,488 count the embedding twice.
    pub fn preset(name: &str) -> Result<Self, ConfigError> {
        // (vocab, hidden, layers, heads, kv_heads, ffn, seq_len, tied), (theta, scaling)
        let (shape, (rope_theta, rope_scaling)) = match name {
            "nano" => ((256, 128, 2, 4, 2, 320, 128, true), (1e4, None)),
            "1M" => ((512, 128, 4, 4, 4, 352, 128, false), (1e4, None)),
            "7M" => ((4096, 256, 6, 8, 8, 704, 256, false), (1e4, None)),
            "25M" => ((8192, 512, 7, 8, 4, 1408, 512, true), (1e4, None)),
            "135M" => ((49_152, 576, 30, 9, 3, 1536, 2048, true), (1e5, None)),
            "360M" => ((49_152, 960, 32, 15, 5, 2560, 2048, true), (1e5, None)),
            "1B" => ((128_256, 2048, 16, 32, 8, 8192, 4096, true), (5e5, Some(llama3(32.0)))),
            "8B" => ((128_256, 4096, 32, 32, 8, 14_336, 4096, false), (5e5, Some(llama3(8.0)))),
            "70B" => ((128_256, 8192, 80, 64, 8, 28_672, 4096, false), (5e5, None)),
            "covenant-72b" => ((262_144, 8192, 80, 64, 8, 28_672, 2048, true), (5e5, None)),
            _ => return Err(ConfigError::Preset(name.to_owned())),
        };
        let (vocab, hidden, layers, heads, kv_heads, ffn, seq_len, tied) = shape;
        Ok(Self {
            vocab,
            hidden,
            layers,
            heads,
            kv_heads,
            ffn,
            seq_len,
            rope_theta,
            rope_scaling,
            norm_epsilon: 1e-5,
            tied,
        })
    }
}
