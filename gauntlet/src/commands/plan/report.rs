//! The result of `gauntlet plan`.

use serde::Serialize;
use trainer::budget::{advice::Advice, Budget, CpuRates, Window};

/// What `plan --json` prints.
#[derive(Serialize, Debug)]
pub struct PlanReport {
    /// The machine, in words.
    pub machine: String,
    /// A CPU's rates; none for GPUs.
    pub rates: Option<CpuRates>,
    /// What a window was taken to be.
    pub window: Window,
    /// The budget.
    pub budget: Budget,
    /// What would make it fit; empty if it does.
    pub what_would_fit: Vec<Advice>,
    /// What would let it train in more of a window; empty if that is most of it.
    pub what_would_wait_less: Vec<Advice>,
}
