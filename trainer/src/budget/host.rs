//! Counts what the processes of a run hold in their host's memory: a replica of θ, and what a miner or a validator has beside it.
//!
//! In copies of θ (4 bytes a parameter): a replica 1; a miner on a CPU 6, of which θ is one, shared with its replica; a validator
//! 2, the agreed θ and the one of the window that it measures, to which it applies one update after another where it lies. What
//! is served, synchronised or saved goes by pieces. `participant/tests/it/sim/memory.rs` holds whole runs to it.

use super::account::MemoryAccount;
use super::cpu::CpuCosts;
use super::error::BudgetError;
use super::model::ModelCounts;
use super::quantity::{product, sum};
use crate::model::config::ModelConfig;
use crate::training::checkpoint::BUFFER;

/// Names the account of a process that only holds the state.
pub const REPLICA: &str = "memory of a replica alone";

/// Names what cards keep in their host's memory.
pub const PINNED: &str = "master and averages (pinned)";

/// Names the account of a validator's process, the engine of its evaluator not counted.
pub const VALIDATOR: &str = "memory of a validator, beside its engine";

/// Names a tensor of parameters between host and cards.
const STAGED: &str = "a tensor on its way to the cards";

/// Threads that write or take one state at most, a piece of a MiB each, and pieces that are on their way from a peer.
const PIECES: u64 = 8 + 8;

/// Bytes of what is known of a MiB of θ: its hash in the manifest, in the manifest as it is sent, and while it is written.
const PER_PIECE: u64 = 3 * 64;

/// Bytes that move θ: pieces on their way, their hashes, and a checkpoint's buffer.
pub fn transfer_bytes(config: &ModelConfig) -> Result<u64, BudgetError> {
    let pieces =
        sum("pieces", [config.parameter_count().div_ceil(1 << 18), config.tensors().len() as u64])?;
    let hashes = product("hashes", &[pieces, PER_PIECE])?;
    sum("pieces", [hashes, PIECES << 20, BUFFER as u64])
}

/// What training on cards leaves to their hosts.
pub(super) struct BesideCards {
    /// Hosts that share what is held once of a model.
    pub(super) hosts: u64,
    /// Bytes of the error feedback a parameter.
    pub(super) feedback: u64,
    /// Bytes of each host that its cards pin.
    pub(super) pinned: u64,
}

impl BesideCards {
    /// What each host holds: θ, the error feedback, what is pinned, and the largest tensor on its way.
    pub(super) fn costs(self, config: &ModelConfig) -> Result<CpuCosts, BudgetError> {
        let share = config.parameter_count().div_ceil(self.hosts.max(1));
        let feedback = product("error feedback", &[share, self.feedback])?;
        CpuCosts::default()
            .and_exactly("parameters (agreed)", product("parameters", &[share, 4])?)?
            .and_exactly("error feedback", feedback)?
            .and_bytes(PINNED, self.pinned)?
            .and_bytes(STAGED, largest_tensor(config))
    }
}

impl CpuCosts {
    /// What a [`crate::Trainer`] holds in the host's memory beside cards that compute, which pin `pinned` bytes of it: θ,
    /// the error feedback, and the largest tensor on its way.
    pub fn of_trainer_beside_cards(config: &ModelConfig, pinned: u64) -> Result<Self, BudgetError> {
        BesideCards { hosts: 1, feedback: 4, pinned }.costs(config)
    }

    /// The same and the tensor of a checkpoint that is read, or the pieces of one that is written.
    pub fn and_checkpoint(self, config: &ModelConfig) -> Result<Self, BudgetError> {
        self.and_bytes("a tensor of a checkpoint", largest_tensor(config).max(BUFFER as u64))
    }

    /// The same and what a replica holds whose θ is counted: pieces on their way, and `updates` bytes of accepted updates.
    pub fn and_replica(self, config: &ModelConfig, updates: u64) -> Result<Self, BudgetError> {
        let pieces = transfer_bytes(config)?;
        self.and_bytes("pieces of states and checkpoints", pieces)?
            .and_bytes("accepted updates", updates)
    }

    /// What a validator's process holds that measures `samples` samples at once: the evaluator, θ, and the θ that it measures
    /// with what an update of k = `keep` touched in it.
    pub fn of_validator(
        config: &ModelConfig,
        samples: usize,
        threads: usize,
        keep: u16,
        updates: u64,
    ) -> Result<Self, BudgetError> {
        let evaluator = Self::of_evaluator(config, samples, threads)?;
        with_states(evaluator, config, keep)?.and_replica(config, updates)
    }

    /// What an evaluation of a model's file holds in the host's memory beside cards that evaluate.
    pub fn of_evaluator_beside_cards(config: &ModelConfig) -> Result<Self, BudgetError> {
        Self::default()
            .and_parameters("parameters", config, 1)?
            .and_bytes(STAGED, largest_tensor(config))
    }

    /// What a validator's process holds in the host's memory beside cards that evaluate.
    pub fn of_validator_beside_cards(config: &ModelConfig, keep: u16) -> Result<Self, BudgetError> {
        let staged = Self::default().and_bytes(STAGED, largest_tensor(config))?;
        with_states(staged, config, keep)?.and_replica(config, 0)
    }
}

/// Bytes of the largest tensor in f32.
fn largest_tensor(config: &ModelConfig) -> u64 {
    let lens = config.tensors().into_iter().map(|tensor| tensor.len() as u64);
    lens.max().unwrap_or(0).saturating_mul(4)
}

/// θ, θ that is measured, and what undoes an update to it.
fn with_states(costs: CpuCosts, config: &ModelConfig, keep: u16) -> Result<CpuCosts, BudgetError> {
    let undo = product("undo", &[ModelCounts::new(config, keep)?.kept, 4])?;
    costs
        .and_parameters("parameters (agreed)", config, 1)?
        .and_parameters("parameters (measured)", config, 1)?
        .and_bytes("what an update changed in them", undo)
}

/// The accounts of a replica and of a validator, which need no device.
pub(super) fn accounts(
    config: &ModelConfig,
    keep: u16,
    updates: u64,
) -> Result<Vec<MemoryAccount>, BudgetError> {
    let replica = CpuCosts::default()
        .and_parameters("parameters (agreed)", config, 1)?
        .and_replica(config, updates)?;
    let validator = with_states(CpuCosts::default(), config, keep)?.and_replica(config, updates)?;
    [(REPLICA, replica), (VALIDATOR, validator)]
        .map(|(name, costs)| MemoryAccount::new(name, costs.lines(), None))
        .into_iter()
        .collect()
}
