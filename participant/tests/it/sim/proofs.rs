//! Stories in which somebody is accused: of each kind of proof one in which the guilty pays, and one in which the accuser does.

use std::sync::Arc;

use futures::FutureExt;
use node_client::{
    chain::{Call, Chain, GauntletEvent, Offender},
    keys,
};
use participant::miner::adversary_kind::AdversaryKind;
use protocol::{
    commitment::score_commitment_hash,
    consensus::Evaluation,
    consent::Role,
    fault::{copy_places, Place, ProvenFault, Verdict},
    settings::{Settings, SCORE_VERSION},
    update::Payload,
    window::{phase_at, Moment},
    BlockNumber, Hash, Planck, Uid, Window,
};

use super::{
    faults::{Fault, FaultKind},
    participants::Member,
    story::{moment as at, phantom, schedule, Accusing, Plan, Summary},
    tell,
    world::{World, BLOCK_MS},
};

const RUN: u32 = 0;

/// A story with a misbehaving miner, and its uid. After two slashes its bond is too small, and it has to leave.
fn with(adversary: AdversaryKind, accusing: Accusing) -> (Summary, Uid) {
    let plan = Plan { adversary: Some(adversary), accusing, ..Plan::calm(3, 8) };
    let honest = plan.miners;
    let summary = tell(plan);
    let bond = Settings::example().incentive.miner_bond;
    let whole = summary.miners.iter().filter(|miner| miner.bond == bond).count();
    assert_eq!(whole, honest, "the honest keep their bonds: {:?}", summary.miners);
    assert_eq!(summary.miners.len(), honest, "who paid twice is gone: {:?}", summary.miners);
    let guilty = summary.proofs.iter().find_map(|event| match event {
        GauntletEvent::FaultProven { uid, .. } => Some(*uid),
        _ => None,
    });
    (summary, guilty.expect("a fault was proven"))
}

/// The faults that were proven, and how many slashes were applied, each after it was deferred, and paid by half.
fn proven(summary: &Summary) -> (Vec<(Uid, ProvenFault)>, usize) {
    let mut proven = Vec::new();
    let (mut deferred, mut applied) = (Vec::new(), 0);
    for event in &summary.proofs {
        match event {
            GauntletEvent::FaultProven { uid, fault, .. } => proven.push((*uid, *fault)),
            GauntletEvent::SlashDeferred { slash, .. } => deferred.push(*slash),
            GauntletEvent::Slashed { slash, amount, reporter, .. } => {
                assert!(deferred.contains(slash) && reporter.is_some(), "{event:?}");
                // Two faults within the delay take all of the bond: a third one finds nothing.
                assert!(*amount > 0 || applied >= 2, "{event:?}");
                applied += 1;
            }
            _ => {}
        }
    }
    (proven, applied)
}

fn has(summary: &Summary, wanted: impl Fn(&GauntletEvent) -> bool) -> bool {
    summary.proofs.iter().any(wanted)
}

#[test]
fn a_malformed_chunk_is_reported_and_costs_its_miner() {
    let (summary, guilty) = with(AdversaryKind::Malformed, Accusing::default());
    let (proven, applied) = proven(&summary);
    assert!(proven.iter().all(|fault| *fault == (guilty, ProvenFault::Malformed)), "{proven:?}");
    assert!(!proven.is_empty() && applied >= 2, "{summary:?}");
}

#[test]
fn what_was_sent_before_is_a_copy_whoever_sent_it() {
    for adversary in [AdversaryKind::Lazy, AdversaryKind::Replayer] {
        let (summary, guilty) = with(adversary, Accusing::default());
        let (proven, applied) = proven(&summary);
        assert!(proven.iter().all(|fault| *fault == (guilty, ProvenFault::Copy)), "{proven:?}");
        // In all windows but the first, until it has to leave.
        assert!(proven.len() >= 3 && applied >= 2, "{adversary:?}: {proven:?}, {applied} applied");
    }
}

#[test]
fn who_shows_its_payload_to_nobody_is_challenged_and_pays() {
    let accusing = Accusing { challenges_per_window: 1, ..Accusing::default() };
    let (summary, guilty) = with(AdversaryKind::Withholder, accusing);
    let (proven, applied) = proven(&summary);
    assert!(proven.iter().all(|fault| *fault == (guilty, ProvenFault::Withheld)), "{proven:?}");
    assert!(proven.len() >= 3 && applied >= 2, "{proven:?}, {applied} applied");
    assert!(!has(&summary, |event| matches!(event, GauntletEvent::DataAnswered { .. })));
}

#[test]
fn nobody_is_challenged_if_the_settings_do_not_say_so() {
    let plan = Plan { adversary: Some(AdversaryKind::Withholder), ..Plan::calm(3, 4) };
    assert_eq!(tell(plan).proofs, []);
}

/// Where a block lies.
fn moment(number: BlockNumber) -> Option<Moment> {
    phase_at(&schedule(), number)
}

pub(super) fn is_at(number: BlockNumber, window: Window, offset: u32) -> bool {
    moment(number).is_some_and(|at| (at.window, at.offset) == (window, offset))
}

/// A read of the chain in memory, which has the answer at once.
pub(super) fn now<T, E: std::fmt::Debug>(
    read: impl std::future::Future<Output = Result<T, E>>,
) -> T {
    read.now_or_never().expect("the fake answers at once").unwrap()
}

/// Accuses every honest miner of window 2 of everything.
fn grief(world: &Arc<World>, members: &[Member], number: BlockNumber) {
    if !is_at(number, 2, 19) {
        return;
    }
    let griefer = &members.last().unwrap().cold;
    let reveals = now(world.chain.reveals(RUN, 2, None));
    assert_eq!(reveals.len(), 3);
    let info = now(world.chain.run(RUN, None)).unwrap();
    let proof = |root: &Hash, index| {
        let bytes = world.content(root).unwrap();
        let payload = Payload::parse(&bytes, &info.layout, info.settings.training.keep).unwrap();
        payload.chunk_proof(&payload.leaf_hashes(), index).unwrap()
    };
    for reveal in &reveals {
        let commitment = (2, reveal.uid, 0);
        world.send(griefer, Call::ChallengeData { run: RUN, commitment, index: 1 });
        let chunk = proof(&reveal.opening.payload_root, 0);
        world.send(griefer, Call::ReportMalformed { run: RUN, commitment, chunk });
    }
    let [first, second] = [&reveals[0], &reveals[1]];
    let commitments = [(2, first.uid, 0), (2, second.uid, 0)];
    let seed = now(world.chain.window(RUN, 2, None)).unwrap().challenge_seed.unwrap();
    let places = copy_places(&seed, &info.layout, info.settings.training.keep);
    let pair = |place: &Place| {
        [first, second].map(|reveal| proof(&reveal.opening.payload_root, place.index))
    };
    let chunks = places.iter().map(pair).collect();
    world.send(griefer, Call::ReportCopy { run: RUN, commitments, chunks });
}

/// Three are asked by [`grief`], three answer, and nobody loses a bond.
fn assert_all_answered(summary: &Summary) {
    let count = |wanted: fn(&GauntletEvent) -> bool| {
        summary.proofs.iter().filter(|event| wanted(event)).count()
    };
    assert_eq!(count(|event| matches!(event, GauntletEvent::DataChallenged { .. })), 3);
    assert_eq!(count(|event| matches!(event, GauntletEvent::DataAnswered { .. })), 3);
    let bond = Settings::example().incentive.miner_bond;
    assert!(summary.miners.iter().all(|miner| miner.bond == bond));
}

#[test]
fn an_honest_miner_answers_even_if_it_was_killed_and_has_the_bond() {
    let killed =
        Fault { kind: FaultKind::Killed, whom: vec![0], from: at(2, 19), until: at(2, 30) };
    let plan = Plan { faults: vec![killed], script: Some(grief), ..Plan::calm(5, 7) };
    let summary = tell(plan);
    assert_all_answered(&summary);
    // What was reported is refused. That nobody else paid is checked in every block.
    assert_eq!(summary.proofs.len(), 6, "{:?}", summary.proofs);
    let noted = |note: &str| summary.notes.iter().filter(|found| *found == note).count();
    assert_eq!(noted("challenge_data: done"), 3, "{:?}", summary.notes);
    assert_eq!(noted("report_malformed: ChunkWellFormed"), 3, "{:?}", summary.notes);
    assert_eq!(noted("report_copy: NotACopy"), 1, "{:?}", summary.notes);
}

/// Nothing becomes final from before the requests until after their deadline: they are answered all the same, which costs nobody a
/// bond when it goes on.
#[test]
fn an_honest_miner_answers_while_finality_stands_still() {
    let answer_blocks = u64::from(Settings::example().disputes.answer_blocks);
    let (from, until) = (at(2, 18), at(2, 19 + answer_blocks + 3));
    let stalled = Fault { kind: FaultKind::FinalityStalled, whom: Vec::new(), from, until };
    let plan = Plan { faults: vec![stalled], script: Some(grief), ..Plan::calm(5, 7) };
    let summary = tell(plan);
    assert_all_answered(&summary);
}

/// What the phantom says that it measured.
fn lies() -> Vec<Evaluation> {
    (0..4)
        .map(|uid| Evaluation {
            uid,
            own_before: 1 << 24,
            own_after: 1 << 20,
            random_before: 1 << 24,
            random_after: 1 << 23,
        })
        .collect()
}

/// A validator without a process that attests nothing and lies about window 0.
fn lie(world: &Arc<World>, _: &[Member], number: BlockNumber) {
    let phantom = phantom();
    let (run, window, salt) = (RUN, 0, [5; 32]);
    let genesis = now(world.chain.genesis_hash());
    if number == 3 {
        let account = keys::account(&phantom);
        let proof = keys::prove_hot_key(&phantom, &genesis, run, Role::Validator, &account);
        let stake = Settings::example().incentive.validator_stake_min * 11 / 10;
        world.send(&phantom, Call::RegisterValidator { run, hot: account, proof, stake });
    }
    let (hot, version) = (keys::account(&phantom), SCORE_VERSION);
    if is_at(number, 1, 1) {
        let evaluations = lies();
        let hash = score_commitment_hash(&genesis, run, window, &hot, &evaluations, version, &salt);
        world.send(&phantom, Call::CommitScores { run, window, hash, version });
    }
    if is_at(number, 1, 12) {
        let evaluations = lies();
        world.send(&phantom, Call::RevealScores { run, window, evaluations, salt, version });
    }
}

#[test]
fn a_lie_about_an_update_is_disputed_and_the_jury_says_so() {
    let accusing = Accusing { disputes_per_window: 1, ..Accusing::default() };
    let plan = Plan { validators: 4, accusing, script: Some(lie), ..Plan::calm(8, 8) };
    let summary = tell(plan);
    assert_eq!(summary.notes.iter().filter(|note| note.ends_with(": done")).count(), 3);
    let false_ones = summary.proofs.iter().filter(|event| {
        matches!(event, GauntletEvent::DisputeClosed { verdict: Verdict::False, .. })
    });
    assert!(false_ones.count() > 0, "{:?}", summary.proofs);
    let no_other = |event: &GauntletEvent| match event {
        GauntletEvent::DisputeClosed { verdict, .. } => *verdict != Verdict::False,
        _ => false,
    };
    assert!(!has(&summary, no_other), "{:?}", summary.proofs);
    // Deferred by two windows, applied, and half of it the accuser's: whose stake that is is checked in every block.
    let stake: Planck = Settings::example().incentive.validator_stake_min * 11 / 10;
    let slashed = |event: &GauntletEvent| match event {
        GauntletEvent::Slashed { offender: Offender::Pool(_), amount, reporter, .. } => {
            *amount == stake / 20 && reporter.is_some()
        }
        _ => false,
    };
    assert!(has(&summary, slashed), "{:?}", summary.proofs);
}

/// Disputes what an honest validator measured of an honest miner in window 1, and closes the dispute.
fn doubt(world: &Arc<World>, members: &[Member], number: BlockNumber) {
    // A miner's cold key, which sits in no jury.
    let griefer = &members[0].cold;
    if is_at(number, 2, 18) {
        let reveals = now(world.chain.score_reveals(RUN, 1, None));
        let evaluation = (1, reveals[0].index, reveals[0].evaluations[0].uid);
        world.send(griefer, Call::DisputeEvaluation { run: RUN, evaluation });
    }
    if is_at(number, 5, 2) {
        let disputes = now(world.chain.evaluation_disputes(RUN, None));
        let evaluation = disputes[0].name;
        assert!(disputes[0].jury.iter().all(|seat| seat.measured.is_some()), "{disputes:?}");
        world.send(griefer, Call::CloseDispute { run: RUN, evaluation });
    }
}

/// A juror is asked to end when it has committed to its verdict: [`doubt`] finds it revealed in the next window.
#[test]
fn a_juror_that_is_asked_to_end_reveals_its_verdict_first() {
    let plan = Plan { validators: 4, script: Some(doubt), ..Plan::calm(9, 8) };
    let kind = FaultKind::Leaves;
    let juror = vec![plan.miners + 1];
    let leaves =
        Fault { kind, whom: juror, from: at(4, 0) - 2 * BLOCK_MS, until: at(5, 0) - BLOCK_MS };
    let summary = tell(Plan { faults: vec![leaves], ..plan });
    assert_eq!(summary.notes, ["dispute_evaluation: done", "close_dispute: done"]);
}

#[test]
fn a_false_dispute_costs_its_bond_and_pays_the_jury() {
    let plan = Plan { validators: 4, script: Some(doubt), ..Plan::calm(9, 8) };
    let summary = tell(plan);
    assert_eq!(summary.notes, ["dispute_evaluation: done", "close_dispute: done"]);
    let confirmed = |event: &GauntletEvent| {
        matches!(event, GauntletEvent::DisputeClosed { verdict: Verdict::True, .. })
    };
    // Nobody is slashed; that half of the bond is the jury's and the rest gone is checked in every block.
    assert!(has(&summary, confirmed), "{:?}", summary.proofs);
    assert_eq!(summary.proofs.len(), 2, "{:?}", summary.proofs);
}
