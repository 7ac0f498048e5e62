//! The whole system on one paused tokio thread: real miners and validators on a fake chain, a network in memory and a
//! clock that the simulation moves, with faults drawn from one seed.
//!
//! A seed is one story: `GAUNTLET_SIM_SEED=n` tells that one again, `GAUNTLET_SIM_RUNS=n` tells n of them. A failure
//! prints its seed, its faults and where the participants' diaries are. What is checked is in [`checks`], what goes
//! wrong in [`faults`].
//!
//! **Why one seed gives one story.** Time stands still while anybody works, each participant acts on the world in
//! milliseconds of its own ([`world::World::pass`]), delays follow from what is done and not from the order in which
//! tasks wake, and a block takes its extrinsics in an order drawn from the seed.

mod attacks;
mod audit;
mod backup;
mod chain;
mod checkpoints;
mod checks;
mod faults;
mod feedback;
mod memory;
mod network;
mod overlap;
mod participants;
mod prefetch;
mod proofs;
mod story;
mod world;

use std::panic::{catch_unwind, AssertUnwindSafe};

use faults::{Fault, FaultKind};
use participant::miner::adversary_kind::AdversaryKind;
use protocol::fixed::Q32;
use story::{moment, Plan, Summary, WINDOW_BLOCKS};
use trainer::{Model, Threads};

/// The seeds that are told when nobody asks for others.
const SEEDS: std::ops::Range<u64> = 0..6;

/// Tells the story of `plan` on a runtime of its own; on a panic, says which it was and keeps its folder.
fn tell(plan: Plan) -> Summary {
    let told = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(story::tell(&plan))
    }));
    match told {
        Ok(summary) => summary,
        Err(panic) => {
            eprintln!("the simulation failed: GAUNTLET_SIM_SEED={}", plan.seed);
            eprintln!("{plan:#?}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn a_run_without_faults_goes_on_and_pays_everybody() {
    let summary = tell(Plan::calm(1, 3));
    assert_eq!(summary.accepted, summary.accepted_max, "{summary:?}");
}

#[test]
fn whoever_withholds_costs_nobody_else_anything_however_late_finality_is() {
    for finality_lag in 1..=6 {
        let adversary = Some(AdversaryKind::Withholder);
        let plan = Plan { adversary, finality_lag, ..Plan::calm(2, 4) };
        let (honest, windows) = (plan.miners, plan.windows as usize);
        let summary = tell(plan);
        assert_eq!((summary.finals, summary.accepted), (windows, honest * windows), "{summary:?}");
    }
}

#[test]
fn forks_and_a_node_that_is_behind_cost_no_window() {
    for (finality_lag, behind) in [(1, 0), (3, 1), (2, 2)] {
        let adversary = Some(AdversaryKind::Withholder);
        let validators = 3;
        let plan =
            Plan { adversary, finality_lag, behind, forks: true, validators, ..Plan::calm(3, 4) };
        let (honest, windows) = (plan.miners, plan.windows as usize);
        let Summary { finals, accepted, missed, .. } = tell(plan);
        let what = format!("{finality_lag} behind, {behind}: {missed:#?}");
        assert_eq!((finals, accepted), (windows, honest * windows), "{what}");
    }
}

/// Nothing becomes final from the middle of window 1 until window 5 has begun, so that nobody knows what to work on: nobody is
/// blamed for it, nobody can be removed, and all go on together.
#[test]
fn finality_that_stands_still_is_nobody_s_fault() {
    let (from, until) = (moment(1, 8), moment(5, 2));
    let stalled = Fault { kind: FaultKind::FinalityStalled, whom: Vec::new(), from, until };
    let summary = tell(Plan { faults: vec![stalled], ..Plan::calm(7, 9) });
    let mut penalties = summary.miners.iter().map(|miner| miner.standing.penalty);
    assert!(penalties.all(|penalty| penalty == Q32::ONE), "{summary:?}");
    // Window 0, and all from the one in which it ends.
    assert_eq!((summary.finals, summary.accepted), (5, 15), "{summary:?}");
}

/// Review C2 and M15: two of four miners answer nobody for three windows, of all who have what is asked for the first. It is them that it
/// costs, and no replica stands still.
#[test]
fn whoever_asks_those_who_are_mute_has_what_others_have() {
    let (from, until) = (moment(1, 0), moment(4, 0));
    let mute = Fault { kind: FaultKind::Mute, whom: vec![0, 1], from, until };
    let summary = tell(Plan { faults: vec![mute], miners: 4, ..Plan::calm(8, 7) });
    assert!(summary.synced.is_empty(), "{summary:?}");
    // Each of the two lacks the updates of three windows.
    assert_eq!((summary.finals, summary.accepted), (7, 7 * 4 - 2 * 3), "{summary:?}");
}

/// The newest state is final while the payloads of the window before are late: they are waited for, and no state is
/// fetched.
#[test]
fn payloads_that_are_late_make_nobody_fetch_a_state() {
    let (from, until) = (moment(1, 20), moment(3, 2));
    let late = Fault { kind: FaultKind::PayloadsLate, whom: vec![0], from, until };
    let summary = tell(Plan { faults: vec![late], ..Plan::calm(4, 6) });
    assert!(summary.synced.is_empty(), "{summary:?}");
    assert_eq!(summary.finals, 6, "{summary:?}");
}

/// A miner is asked to end when all have committed to their updates, a validator when all have committed to their
/// attestations: both are gone before the next window, and nothing of theirs is lost in this one.
#[test]
fn who_is_asked_to_end_opens_what_it_has_committed_to() {
    let leaves = |who, offset| Fault {
        kind: FaultKind::Leaves,
        whom: vec![who],
        from: moment(2, offset),
        until: moment(2, u64::from(WINDOW_BLOCKS) - 1),
    };
    let calm = Plan::calm(5, 6);
    let (miner, validator) = (leaves(0, 12), leaves(calm.miners, 23));
    let summary = tell(Plan { faults: vec![miner, validator], ..calm });
    assert_eq!(summary.finals, 6, "{summary:?}");
    assert_eq!(summary.accepted, summary.accepted_max, "{summary:?}");
}

/// A miner joins in window 10: the chain has forgotten the first one, and validators have the last snapshot, of
/// window 8. Killed when it has some pieces of that, it goes on with the others, although in window 13 there is a
/// newer one, and replays from there. The validators, started again meanwhile, serve it still.
#[test]
fn who_joins_fetches_one_snapshot_over_a_kill_and_replays_from_it() {
    let fault = |kind, who, from, until| Fault { kind, whom: vec![who], from, until };
    let faults = vec![
        fault(FaultKind::Killed, 2, 0, moment(10, 2)),
        fault(FaultKind::Starved, 2, 0, moment(12, 0)),
        fault(FaultKind::Killed, 2, moment(10, 12), moment(13, 2)),
        fault(FaultKind::Killed, 3, moment(12, 19), moment(12, 20)),
        fault(FaultKind::Killed, 4, moment(12, 21), moment(12, 22)),
    ];
    let plan = Plan { faults, ..Plan::calm(6, 17) };
    let model = Model::init(&plan.model, 0).unwrap();
    let manifest = model.state_manifest(&Threads::single());
    let pieces: usize = manifest.tensors().iter().map(|tensor| tensor.pieces.len()).sum();
    let summary = tell(plan);
    let [sync] = summary.synced[..] else { panic!("{summary:?}") };
    assert_eq!(sync.who, 2);
    assert!((1..pieces as u32).contains(&sync.had_before), "{sync:?}");
    assert_eq!(sync.had as usize, pieces, "{sync:?}");
    assert_eq!(summary.finals, 17, "{summary:?}");
}

#[test]
fn one_seed_is_one_story() {
    let plan = Plan::drawn(number("GAUNTLET_SIM_SEED").unwrap_or(11));
    assert_eq!(tell(plan.clone()).digest, tell(plan).digest);
}

#[test]
fn a_run_survives_the_faults_of_every_seed() {
    let seeds = match (number("GAUNTLET_SIM_SEED"), number("GAUNTLET_SIM_RUNS")) {
        (Some(seed), runs) => seed..seed + runs.unwrap_or(1),
        (None, Some(runs)) => 0..runs,
        (None, None) => SEEDS,
    };
    for seed in seeds {
        let summary = tell(Plan::drawn(seed));
        println!("seed {seed}: {summary:?}");
    }
}
