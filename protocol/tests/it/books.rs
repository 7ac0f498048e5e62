//! Decisions from the rows of a window.

use protocol::{
    accept::bitmap_of,
    books::{
        accept, due, is_active, settlement_inputs, stakes_u64, takes_part, Attested, Bonds,
        MinerRow, Revealed, ValidatorRow, Voter,
    },
    consensus::{Fault, Standing},
    fixed::Q32,
    settings::Settings,
    window::ScorePhase,
};

const GENESIS: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];

#[test]
fn a_window_is_due_from_the_block_that_closes_its_scores() {
    let schedule = Settings::example().schedule;
    for window in [0, 1, 7] {
        let end = schedule.score_phase_end_block(window, ScorePhase::Reveal).unwrap();
        assert_eq!(due(&schedule, end - 1, window), None);
        assert_eq!(due(&schedule, end, window), Some(window));
        assert_eq!(due(&schedule, end, window + 1), None);
        // One that is late waits for nothing more, and the windows are settled in order.
        let later = schedule.window_start(window + 3).unwrap();
        assert_eq!(due(&schedule, later, window), Some(window));
        assert_eq!(due(&schedule, later, window + 1), Some(window + 1));
        assert_eq!(due(&schedule, later, window + 2), None);
    }
}

#[test]
fn small_rules_hold_at_their_edges() {
    assert!(takes_part(3, 3) && !takes_part(4, 3));
    assert!(is_active(Some(4), 5) && is_active(Some(5), 5) && is_active(Some(u64::MAX), 5));
    assert!(!is_active(Some(3), 5) && !is_active(None, 0));
    assert_eq!(Fault::of(false, false, true), Some(Fault::MissedCommit));
    assert_eq!(Fault::of(true, false, true), Some(Fault::MissedReveal));
    assert_eq!(Fault::of(true, true, true), Some(Fault::Unavailable));
    assert_eq!(Fault::of(true, true, false), None);
}

#[test]
fn stakes_above_two_to_the_64_keep_their_proportion() {
    let largest = u128::from(u64::MAX);
    assert_eq!(stakes_u64(&[7, largest, 0]), [7, u64::MAX, 0], "a unit is a planck");
    // 10^9 tokens of 18 decimals against a third of it and against dust.
    let whale = 1_000_000_000 * 1_000_000_000_000_000_000;
    let counts = stakes_u64(&[whale, whale / 4, 1]);
    assert_eq!((counts[0] / counts[1], counts[2]), (4, 0));
    assert!(counts[0] >= 1 << 63);
    assert_eq!(stakes_u64(&[u128::MAX, 1 << 127]), [u64::MAX, 1 << 63]);
    assert!(stakes_u64(&[]).is_empty());
}

fn voter(stake: u128, attested: u64, attestation: Option<Attested<'_>>) -> Voter<'_> {
    Voter { stake, registered_window: 0, attested_window: Some(attested), attestation }
}

fn revealed(uid: u16, base_state_root: [u8; 32]) -> Revealed {
    Revealed { uid, base_state_root, value: Q32::ONE, registered_window: 0 }
}

#[test]
fn only_the_genesis_root_is_final_in_the_first_window() {
    let incentive = Settings::example().incentive;
    let rows = [revealed(0, OTHER)];
    let votes = |window| [voter(10, window, Some(Attested { state_root: OTHER, bitmap: &[1] }))];
    let first = accept(0, &votes(0), &rows, &incentive, &GENESIS);
    assert_eq!((first.state_root, first.accepted), (None, Vec::new()));
    let second = accept(1, &votes(1), &rows, &incentive, &GENESIS);
    assert_eq!((second.state_root, second.accepted), (Some(OTHER), vec![0]));
    let first = accept(0, &votes(0), &rows, &incentive, &OTHER);
    assert_eq!((first.state_root, first.accepted), (Some(OTHER), vec![0]));
}

#[test]
fn shares_are_of_the_active_stake_and_newcomers_do_not_vote() {
    let incentive = Settings::example().incentive;
    let rows = [revealed(0, OTHER), revealed(9, OTHER)];
    let says = Some(Attested { state_root: OTHER, bitmap: &[1] });
    // Who last attested two windows ago does not count in the whole.
    let votes = [voter(10, 5, says), voter(1_000, 3, None)];
    let found = accept(5, &votes, &rows, &incentive, &GENESIS);
    assert_eq!(found.state_root, Some(OTHER));
    assert_eq!((found.accepted, found.unavailable), (vec![0], vec![9]));
    // Who attested in the last window does.
    let votes = [voter(10, 5, says), voter(1_000, 4, None)];
    let found = accept(5, &votes, &rows, &incentive, &GENESIS);
    assert_eq!((found.state_root, found.accepted, found.unavailable), (None, vec![], vec![]));
    let newcomer = Voter { registered_window: 6, ..voter(10, 5, says) };
    assert_eq!(accept(5, &[newcomer], &rows, &incentive, &GENESIS).state_root, None);
}

#[test]
fn inputs_are_of_who_takes_part_in_order() {
    let miner = |uid, registered_window, committed, revealed| MinerRow {
        uid,
        registered_window,
        standing: Standing::default(),
        committed,
        revealed,
    };
    let miners = vec![
        miner(9, 0, true, true),
        miner(3, 5, true, true),
        miner(1, 6, true, true),
        miner(2, 0, true, false),
    ];
    let validator = |index, registered_window, evaluations| ValidatorRow {
        index,
        registered_window,
        stake: u128::MAX,
        evaluations,
        bonds: None,
    };
    let validators =
        vec![validator(2, 5, None), validator(1, 0, Some(Vec::new())), validator(0, 6, None)];
    let (miners, validators) = settlement_inputs(5, miners, validators, &[3], &bitmap_of(&[9]));
    let found: Vec<_> = miners.iter().map(|m| (m.uid, m.accepted, m.revealed, m.fault)).collect();
    assert_eq!(
        found,
        [
            (2, false, false, Some(Fault::MissedReveal)),
            (3, true, true, None),
            (9, false, true, Some(Fault::Unavailable)),
        ]
    );
    let found: Vec<_> = validators.iter().map(|v| (v.index, v.stake, v.present)).collect();
    assert_eq!(found, [(1, u64::MAX, true), (2, u64::MAX, false)]);
}

#[test]
fn a_reused_slot_inherits_no_bond() {
    let miner = |uid, registered_window| MinerRow {
        uid,
        registered_window,
        standing: Standing::default(),
        committed: true,
        revealed: true,
    };
    let stored = Bonds { window: 4, entries: vec![(0, 10), (1, 20), (2, 30), (3, 40)] };
    let validator = |index, registered_window| ValidatorRow {
        index,
        registered_window,
        stake: 1,
        evaluations: None,
        bonds: Some(stored.clone()),
    };
    // Miner 1 left and another came in window 5; miner 3 left, and nobody came.
    let miners = vec![miner(2, 0), miner(1, 5), miner(0, 4)];
    let validators = vec![validator(0, 4), validator(1, 5)];
    let (_, validators) = settlement_inputs(5, miners, validators, &[], &[]);
    assert_eq!(validators[0].bonds, [(0, 10), (2, 30)]);
    assert_eq!(validators[1].bonds, []);
}
