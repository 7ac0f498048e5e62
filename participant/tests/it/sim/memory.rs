//! What whole participants hold is what `gauntlet plan` says of them: runs of some windows in a process of their own, whose
//! allocations are counted.

use std::process::Command;

use participant::{memory, miner::adversary_kind::AdversaryKind};
use protocol::settings::InnerOptimiser;
use trainer::{budget::CpuCosts, ModelConfig};

use super::story::{model_config, Plan};
use crate::allocator::{live, peak};

/// Tells the child what to run: honest miners, validators, lazy miners.
const MEMBERS: &str = "PARTICIPANT_TEST_MEMBERS";

/// k of the runs.
const KEEP: u16 = 64;

/// Samples of a step.
const BATCH: usize = 4;

/// A miner and a validator: what other runs are compared with.
const PAIR: Members = Members { miners: 1, validators: 1, lazy: 0 };

/// A model whose θ, 3.3 MB, is more than all that a participant holds beside copies of it.
fn model() -> ModelConfig {
    ModelConfig { hidden: 256, ffn: 768, layers: 1, heads: 4, ..model_config() }
}

/// Who takes part in a run.
#[derive(Clone, Copy)]
struct Members {
    miners: usize,
    validators: usize,
    /// At most one.
    lazy: usize,
}

/// A run without faults on one thread; its seed is even, so that miners train with AdamW.
fn plan(Members { miners, validators, lazy }: Members) -> Plan {
    let adversary = (lazy > 0).then_some(AdversaryKind::Lazy);
    Plan { miners, validators, adversary, model: model(), ..Plan::calm(2, 4) }
}

/// The child: tells one story and says what it took. In a normal run of the tests it does nothing.
#[test]
fn child_counts_a_run() {
    let Ok(members) = std::env::var(MEMBERS) else {
        return;
    };
    let mut counts = members.split(' ').map(|count| count.parse().unwrap());
    let mut next = || counts.next().unwrap();
    let members = Members { miners: next(), validators: next(), lazy: next() };
    let before = live();
    let summary = super::tell(plan(members));
    assert_eq!(summary.accepted, summary.accepted_max, "{summary:?}");
    println!("\npeak {}", peak() - before);
}

/// Bytes that a run of these members takes.
fn measured(Members { miners, validators, lazy }: Members) -> f64 {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["sim::memory::child_counts_a_run", "--exact", "--nocapture"])
        .env(MEMBERS, format!("{miners} {validators} {lazy}"))
        .output()
        .unwrap();
    let said = String::from_utf8(child.stdout).unwrap();
    let peak = said.lines().find_map(|line| line.strip_prefix("peak "));
    let said = format!("{said}{}", String::from_utf8_lossy(&child.stderr));
    peak.unwrap_or_else(|| panic!("{said}")).parse().unwrap()
}

/// A miner holds 6 copies of θ and a validator up to 2, each with its engine, and nothing of that size beside: what one more of
/// them adds to a run is what is planned, within a quarter of a θ. The θ that a validator measures is there only while it does,
/// and on the one thread of a run two never measure at once: that one may be missing.
#[test]
fn a_run_holds_what_is_planned() {
    let config = model();
    let theta = config.parameter_count() as f64 * 4.0;
    let of = |costs: CpuCosts| (costs.engine + costs.arrays) as f64 / theta;
    let miner = of(memory::miner(&config, InnerOptimiser::AdamW, BATCH, 1).unwrap());
    let validator = of(memory::validator(&config, KEEP, 1).unwrap());
    let runs = [PAIR, Members { miners: 2, ..PAIR }, Members { validators: 2, ..PAIR }];
    let [one, miners, validators] = runs.map(|members| measured(members) / theta);
    let found = [miners - one, validators - one, one - miner - validator];
    println!(
        "in copies of θ of {theta} bytes: planned a miner {miner:.2}, a validator {validator:.2}"
    );
    println!(
        "found a miner {:.2}, a validator {:.2}, the simulation {:.2}",
        found[0], found[1], found[2]
    );
    assert!((found[0] - miner).abs() < 0.25, "a miner: {found:?}");
    let expected = validator - 1.25..validator + 0.25;
    assert!(expected.contains(&found[1]), "a validator: {found:?}");
}

/// A miner that trains once and never is kept lets go of θ all the same: it adds no more than an honest one.
#[test]
fn a_lazy_miner_holds_what_an_honest_one_does() {
    let config = model();
    let theta = config.parameter_count() as f64 * 4.0;
    let costs = memory::miner(&config, InnerOptimiser::AdamW, BATCH, 1).unwrap();
    let planned = (costs.engine + costs.arrays) as f64 / theta;
    let [one, lazy] = [PAIR, Members { lazy: 1, ..PAIR }].map(|run| measured(run) / theta);
    let found = lazy - one;
    println!("in copies of θ: planned {planned:.2}, found {found:.2}");
    assert!(found < planned + 0.25, "{found}");
}
