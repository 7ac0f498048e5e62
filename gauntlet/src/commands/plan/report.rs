//! The result of `gauntlet plan`.

use serde::Serialize;
use trainer::budget::{advice::Advice, Budget, CpuRates, WindowShape};

use crate::engine::OptimiserArg;

/// The JSON that `plan --json` prints.
#[derive(Serialize, Debug)]
pub struct PlanReport {
    /// The machine, in words.
    pub machine: String,
    /// A CPU's rates; none for GPUs.
    pub rates: Option<CpuRates>,
    /// The window that was assumed.
    pub window: WindowShape,
    /// The optimiser of its inner steps.
    pub optimiser: OptimiserArg,
    /// Memory, disk and time, item by item.
    pub budget: Budget,
    /// Changes that would make it fit; empty if it does.
    pub what_would_fit: Vec<Advice>,
    /// Changes that would let it train in more of a window; empty if it trains in most of it.
    pub what_would_wait_less: Vec<Advice>,
}
