//! Asks for a plan: of a model, a machine, a window, and what may not be chosen freely.

use serde::Serialize;

use super::error::BudgetError;
use super::hardware::Machine;
use super::quantity;
pub use crate::cuda::plan::Recompute;
use crate::engine::optimiser::{newton_schulz_flops, Symmetric};
use crate::model::config::ModelConfig;

/// What every GPU holds a copy of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharding {
    /// Everything (plain data parallelism).
    None,
    /// Parameters and gradient; the optimiser's state is spread (ZeRO-1).
    Optimiser,
    /// Nothing: all is spread and layers are gathered when they are needed (ZeRO-3).
    Full,
}

impl Sharding {
    /// All of them, the one with the least traffic first.
    pub const ALL: [Self; 3] = [Self::None, Self::Optimiser, Self::Full];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Optimiser => "optimiser",
            Self::Full => "full",
        }
    }
}

/// Formats of parameters, gradient and optimiser, by their bytes a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateFormat {
    /// bf16 parameters beside an f32 master, f32 moments and gradient.
    Bytes18,
    /// The master split into its bf16 half and the rest; f32 moments and gradient.
    Bytes16,
    /// As `Bytes16` with bf16 moments, rounded stochastically: what the CUDA engine has.
    Bytes12,
    /// As `Bytes12` with a bf16 gradient.
    Bytes10,
    /// As `Bytes10` with 8-bit moments and an f32 scale for each 256 of them.
    Bytes8,
    /// `Bytes12` with the master's rest and the moments in pinned host memory.
    Bytes6,
}

impl StateFormat {
    /// All of them, the largest first.
    pub const ALL: [Self; 6] =
        [Self::Bytes18, Self::Bytes16, Self::Bytes12, Self::Bytes10, Self::Bytes8, Self::Bytes6];

    /// The bytes of GPU memory a parameter that it is called by.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bytes18 => 18,
            Self::Bytes16 => 16,
            Self::Bytes12 => 12,
            Self::Bytes10 => 10,
            Self::Bytes8 => 8,
            Self::Bytes6 => 6,
        }
    }

    /// Whether it is the CUDA engine's own, of which the engine's plan knows every byte.
    pub(super) fn is_the_engines(self) -> bool {
        matches!(self, Self::Bytes12 | Self::Bytes6)
    }

    /// Whether the master's rest and the moments lie in the host's memory.
    pub(super) fn is_offloaded(self) -> bool {
        self == Self::Bytes6
    }

    /// Bytes of a moment's value.
    pub(super) fn moment_bytes(self) -> u64 {
        match self {
            Self::Bytes18 | Self::Bytes16 => 4,
            Self::Bytes12 | Self::Bytes10 | Self::Bytes6 => 2,
            Self::Bytes8 => 1,
        }
    }
}

/// What a window of a run is.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WindowShape {
    /// Samples of an inner step of one peer.
    pub batch: u64,
    /// Inner steps of a window (H).
    pub inner_steps: u64,
    /// Peers whose updates are accepted, this one among them.
    pub peers: u64,
    /// k of 4096.
    pub keep: u16,
    /// Times that a peer sends its own update: 1 to a mirror or where peers pass it on.
    pub copies: u64,
    /// Samples of each of the two losses, own and random, by which a validator measures an update.
    pub evaluation_samples: u64,
    /// Updates that a validator measures in a window.
    pub evaluations: u64,
    /// Windows whose updates are kept on disk.
    pub windows_kept: u64,
    /// Tokens of the data set on disk; 0 where samples are streamed.
    pub data_tokens: u64,
}

impl Default for WindowShape {
    /// Covenant-72B's window, with the evaluation of this project.
    fn default() -> Self {
        Self {
            batch: 192,
            inner_steps: 30,
            peers: 20,
            keep: 64,
            copies: 1,
            evaluation_samples: 8,
            evaluations: 20,
            windows_kept: 8,
            data_tokens: 0,
        }
    }
}

/// What the planner may not choose by itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// Samples at once on a device.
    pub micro_batch: Option<u64>,
    /// What is computed again; GPUs only.
    pub recompute: Option<Recompute>,
    /// What is spread over the GPUs.
    pub sharding: Option<Sharding>,
    /// Bytes a parameter of parameters, gradient and optimiser; GPUs only.
    pub state: StateFormat,
    /// Muon instead of AdamW on the layers' matrices: it keeps one moment of them, and takes products.
    pub muon: bool,
    /// Error feedback in bf16 instead of f32; GPUs only.
    pub feedback_bf16: bool,
    /// The part of the devices' peak that a step is known to reach, instead of what is expected.
    pub mfu: Option<f64>,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            micro_batch: None,
            recompute: None,
            sharding: None,
            state: StateFormat::Bytes12,
            muon: false,
            feedback_bf16: false,
            mfu: None,
        }
    }
}

/// A model, a machine, a window, and what is fixed.
#[derive(Clone, PartialEq, Debug)]
pub struct PlanRequest {
    /// The model; its `seq_len` is the tokens of a sample.
    pub model: ModelConfig,
    /// The machine of one peer.
    pub machine: Machine,
    /// The window.
    pub window: WindowShape,
    /// What is fixed.
    pub choice: Choice,
}

/// Largest values that are planned for: far beyond any machine, and small enough that the times
/// stay sensible.
const LIMITS: [(&str, u64); 6] = [
    ("batch", 1 << 24),
    ("inner steps", 1 << 20),
    ("peers", 4_096),
    ("copies", 4_096),
    ("evaluation samples", 1 << 16),
    ("evaluations", 4_096),
];

impl PlanRequest {
    /// Parameters of which the average of squared gradients is kept, too: not the layers' matrices where Muon trains them.
    pub(super) fn squares(&self, parameters: u64) -> u64 {
        match self.choice.muon {
            true => parameters.saturating_sub(self.model.arena().layer_matrix_len() as u64),
            false => parameters,
        }
    }

    /// Operations of a step's products that make matrices orthonormal; 0 without Muon.
    pub(super) fn orthogonal_flops(&self, symmetric: Symmetric) -> f64 {
        match self.choice.muon {
            true => newton_schulz_flops(&self.model.arena(), symmetric),
            false => 0.0,
        }
    }

    /// That every number is one that can be planned for.
    pub(super) fn check(&self) -> Result<(), BudgetError> {
        self.model.validate()?;
        let window = &self.window;
        let values = [
            window.batch,
            window.inner_steps,
            window.peers,
            window.copies,
            window.evaluation_samples,
            window.evaluations,
        ];
        for ((name, max), value) in LIMITS.into_iter().zip(values) {
            quantity::in_range(name, value, max)?;
        }
        quantity::in_range("k", window.keep.into(), 4_096)?;
        quantity::in_range("windows kept", window.windows_kept, 1 << 20)?;
        let mfu = self.choice.mfu;
        if let Some(mfu) = mfu.filter(|mfu| !(0.001..=1.0).contains(mfu)) {
            return Err(BudgetError::Text {
                text: mfu.to_string(),
                expected: "an MFU of 0.001 to 1",
            });
        }
        self.machine.check()
    }
}
