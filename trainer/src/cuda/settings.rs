//! What may be chosen about the engine.

use super::plan::Recompute;

/// How the engine uses the memory it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CudaSettings {
    /// What is computed again in the backward pass.
    pub recompute: Recompute,
    /// Whether the masters' lower halves and the averages lie in the host's memory.
    pub offload: bool,
}

impl Default for CudaSettings {
    fn default() -> Self {
        Self { recompute: Recompute::NormSwiglu, offload: false }
    }
}
