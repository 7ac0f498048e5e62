//! Adds up bytes by kind of memory, and seconds by part of a step.

use serde::Serialize;

use super::error::BudgetError;
use super::quantity;
use super::request::{Recompute, Sharding};

/// Something that takes bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MemoryItem {
    /// What it is.
    pub name: &'static str,
    /// How many bytes.
    pub bytes: u64,
}

/// The bytes of one kind of memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MemoryAccount {
    /// Which memory.
    pub name: &'static str,
    /// What lies in it.
    pub lines: Vec<MemoryItem>,
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes that there are, if that is known.
    pub capacity: Option<u64>,
}

impl MemoryAccount {
    /// An account of these items; those of no bytes are left out.
    pub(crate) fn new(
        name: &'static str,
        lines: impl IntoIterator<Item = (&'static str, u64)>,
        capacity: Option<u64>,
    ) -> Result<Self, BudgetError> {
        let lines = lines.into_iter().filter(|(_, bytes)| *bytes > 0);
        let lines: Vec<MemoryItem> =
            lines.map(|(name, bytes)| MemoryItem { name, bytes }).collect();
        let bytes = quantity::sum(name, lines.iter().map(|line| line.bytes))?;
        Ok(Self { name, lines, bytes, capacity })
    }

    /// Whether there is as much as is needed; `true` where it is not known.
    pub fn fits(&self) -> bool {
        self.capacity.is_none_or(|capacity| self.bytes <= capacity)
    }

    /// The bytes of the line of this name; 0 without one.
    pub fn bytes_of(&self, name: &str) -> u64 {
        let line = self.lines.iter().find(|line| line.name == name);
        line.map_or(0, |line| line.bytes)
    }
}

/// Something that takes time.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Duration {
    /// What it is.
    pub name: &'static str,
    /// How long.
    pub seconds: f64,
}

/// One inner step of a peer.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StepEstimate {
    /// Samples at once on a device.
    pub micro_batch: u64,
    /// Micro-batches of a device one after the other.
    pub accumulations: u64,
    /// What is computed again.
    pub recompute: Recompute,
    /// What is spread.
    pub sharding: Sharding,
    /// Where the time goes.
    pub times: Vec<Duration>,
    /// All of it.
    pub seconds: f64,
    /// Tokens of all devices.
    pub tokens: u64,
    /// Tokens a second of all devices.
    pub tokens_per_second: f64,
    /// 6 · parameters of matrix products + causal attention, as a part of the devices' peak.
    pub mfu: f64,
}

/// A way to compute a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Way {
    pub(crate) micro_batch: u64,
    pub(crate) recompute: Recompute,
    pub(crate) sharding: Sharding,
}
