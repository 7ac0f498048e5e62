//! The attacks of docs/study/attacks.md that need whole participants: real miners and validators, and what the chain
//! says of them.

#[path = "../../../../protocol/tests/it/attacks/tally.rs"]
mod tally;

use std::{iter::zip, sync::Arc};

use node_client::chain::{Chain, RunInfo};
use protocol::{
    accept::bitmap_contains,
    fault::{copy_places, judge_copy, Committed, NoFault, Place, Shown},
    update::Payload,
    BlockNumber, Hash, Uid, Window,
};
use tally::{tell, Rate};
use trainer::ModelConfig;

use super::{
    faults::{Fault, FaultKind},
    participants::Member,
    proofs::{is_at, now},
    story::{model_config, schedule, Plan, Summary, START_BLOCK, WINDOW_BLOCKS},
    tell as tell_story,
    world::{World, BLOCK_MS},
};

const RUN: u32 = 0;

/// When a window opens, in milliseconds since the beginning.
fn opens(window: Window) -> u64 {
    (u64::from(START_BLOCK) + window * u64::from(WINDOW_BLOCKS)) * BLOCK_MS
}

/// Notes in each window how many of its miners the attestations convict.
fn note_convicted(world: &Arc<World>, _: &[Member], number: BlockNumber) {
    let Some(window) = (0..20).find(|window| is_at(number, *window, schedule().attest_end)) else {
        return;
    };
    let unavailable = now(world.chain.window(RUN, window, None)).unwrap().unavailable;
    let miners = now(world.chain.miners(RUN, None));
    let convicted = miners.iter().filter(|miner| bitmap_contains(&unavailable, miner.uid)).count();
    world.note(format!("{convicted} of {}", miners.len()));
}

/// What was noted as "so many of so many", in all.
fn sum<'a>(notes: impl IntoIterator<Item = &'a str>) -> Rate {
    let mut rate = Rate::default();
    for note in notes {
        let (found, of) = note.split_once(" of ").unwrap();
        let [found, of] = [found, of].map(|count| count.parse::<u64>().unwrap());
        (0..of).for_each(|one| rate.note(one < found));
    }
    rate
}

/// How many honest miners the attestations of all windows convict.
fn convicted(summary: &Summary) -> Rate {
    sum(summary.notes.iter().map(String::as_str))
}

/// A miner that no other miner reaches, in any window: it is attested by validators, from whom the others have its
/// updates.
#[test]
fn a9_a_miner_that_serves_validators_alone_stops_no_replica() {
    let cut =
        |other| Fault { kind: FaultKind::CutOff, whom: vec![2, other], from: 0, until: opens(20) };
    let faults = vec![cut(0), cut(1)];
    let plan = Plan { faults, script: Some(note_convicted), ..Plan::calm(21, 4) };
    let summary = tell_story(plan);
    println!("A9 accepted {} of {}", summary.accepted, summary.accepted_max);
    assert_eq!(summary.accepted, summary.accepted_max);
    tell("A9 a miner that serves validators alone", Rate { found: 0, of: 4 }, convicted(&summary));
    assert!(convicted(&summary).none() && summary.proofs.is_empty(), "{summary:?}");
}

/// For two windows no validator reaches a peer, or is reached, while the chain goes on: what they could not fetch is
/// nobody's fault.
#[test]
fn a12_validators_that_reach_no_peer_convict_no_miner() {
    let (miners, validators) = (3, 8);
    let cut = Fault {
        kind: FaultKind::Offline,
        whom: (miners..miners + validators).collect(),
        from: opens(2),
        until: opens(4),
    };
    let plan = Plan {
        miners,
        validators,
        faults: vec![cut],
        script: Some(note_convicted),
        ..Plan::calm(22, 7)
    };
    let summary = tell_story(plan);
    tell("A12 8 of 8 validators cut off for two windows", Rate::default(), convicted(&summary));
    assert_eq!(convicted(&summary), Rate { found: 0, of: 3 * 7 }, "{summary:?}");
    // Every state is final, and nothing is lost but what those windows would have added.
    assert_eq!((summary.finals, summary.accepted), (7, 5 * miners), "{summary:?}");
}

/// A model whose tensors of a layer each have chunks that can tell who made them: eight of them.
fn telling_model() -> ModelConfig {
    ModelConfig { hidden: 64, ffn: 192, ..model_config() }
}

/// The least that a run may ask a copy's chunks to have in common.
const OVERLAP_LEAST: u32 = 900_000;

/// The last window of which updates are compared.
const LAST: Window = 5;

/// Whom the chunks that `seed` draws convict.
fn judge(
    info: &RunInfo,
    seed: &Hash,
    (first, second): (&Committed, &Committed),
    payloads: [&Payload<'_>; 2],
) -> Result<Uid, NoFault> {
    let places = copy_places(seed, &info.layout, info.settings.training.keep);
    assert_eq!(places.len(), 8);
    let proofs = payloads.map(|payload| {
        let leaves = payload.leaf_hashes();
        let proof = |place: &Place| payload.chunk_proof(&leaves, place.index).unwrap();
        places.iter().map(proof).collect::<Vec<_>>()
    });
    let shown: Vec<_> = zip(&proofs[0], &proofs[1])
        .map(|(one, other)| [one, other].map(|it| Shown { bytes: &it.chunk, proof: &it.proof }))
        .collect();
    judge_copy((first, second), &shown, &places, OVERLAP_LEAST)
}

/// Accuses every honest update of all windows of being a copy of every other one, and a copy of each of being one.
fn accuse_everybody(world: &Arc<World>, _: &[Member], number: BlockNumber) {
    if !is_at(number, LAST, schedule().attest_end) {
        return;
    }
    let info = now(world.chain.run(RUN, None)).unwrap();
    let mut sent = Vec::new();
    for window in 0..=LAST {
        let seed = now(world.chain.window(RUN, window, None)).unwrap().challenge_seed.unwrap();
        for reveal in now(world.chain.reveals(RUN, window, None)) {
            let payload_root = reveal.opening.payload_root;
            let committed =
                Committed { window, order: reveal.order, uid: reveal.uid, payload_root };
            sent.push((committed, seed, world.content(&payload_root).unwrap()));
        }
    }
    let keep = info.settings.training.keep;
    let payloads: Vec<Payload<'_>> = sent
        .iter()
        .map(|(_, _, bytes)| Payload::parse(bytes, &info.layout, keep).unwrap())
        .collect();
    let (mut noticed, mut blamed) = (0, 0);
    let mut pairs = 0;
    for (at, (committed, seed, _)) in sent.iter().enumerate() {
        for other in 0..at {
            let pair = (&sent[other].0, committed);
            let verdict = judge(&info, seed, pair, [&payloads[other], &payloads[at]]);
            pairs += 1;
            blamed += u32::from(verdict.is_ok());
        }
        // As an accomplice commits to it, after all others.
        let copier = Committed { order: 99, uid: 99, ..*committed };
        let verdict = judge(&info, seed, (committed, &copier), [&payloads[at]; 2]);
        noticed += u32::from(verdict == Ok(99));
    }
    world.note(format!("{noticed} of {}", sent.len()));
    world.note(format!("{blamed} of {pairs}"));
}

/// Trained updates of four honest miners, with Muon and with AdamW: no two of them, of one window or of two, are a copy
/// by the loosest rule that a run may have; and each of them, said again, is.
#[test]
fn a1_trained_updates_are_no_copies_of_one_another_and_copies_are() {
    let (mut copies, mut pairs) = (Vec::new(), Vec::new());
    for seed in [31, 32] {
        let script: Option<super::story::Script> = Some(accuse_everybody);
        let plan = Plan { miners: 4, model: telling_model(), script, ..Plan::calm(seed, LAST + 1) };
        let [of_copies, of_pairs] = tell_story(plan).notes.try_into().unwrap();
        copies.push(of_copies);
        pairs.push(of_pairs);
    }
    let [noticed, blamed] = [copies, pairs].map(|notes| sum(notes.iter().map(String::as_str)));
    tell("A1 copies of trained updates, and honest pairs of them", noticed, blamed);
    assert!(noticed.all() && blamed.none());
    assert_eq!((noticed.of, blamed.of), (2 * 24, 2 * 276));
}
