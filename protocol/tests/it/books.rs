//! Decisions from the rows of a window.

use protocol::{
    accept::bitmap_of,
    books::{
        accept, due, fetch_order, permit_of, permits, settlement_input, stakes_u64, takes_part,
        Attested, Bonds, Facts, MinerRow, Revealed, Staked, ValidatorRow, Voter,
    },
    consensus::{Fault, Standing},
    fixed::Q32,
    settings::{Incentive, Settings},
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

fn voter(index: u16, stake: u64, attestation: Option<Attested<'_>>) -> Voter<'_> {
    Voter { index, stake, attestation }
}

fn revealed(uid: u16, base_state_root: [u8; 32]) -> Revealed {
    Revealed { uid, base_state_root, value: Q32::ONE, is_scored: true, registered_window: 0 }
}

/// C3 and H5: the permits are the highest stakes of the window's first block.
#[test]
fn permits_are_the_highest_stakes_of_who_takes_part() {
    let staked = |index, stake, registered_window| Staked { index, stake, registered_window };
    let rows = [
        staked(7, 5, 0),
        staked(1, 9, 0),
        staked(2, 5, 4),
        staked(3, 100, 5),
        staked(4, 0, 0),
        staked(5, 1, 0),
    ];
    assert_eq!(permits(4, &rows, 3), [(1, 9), (2, 5), (7, 5)]);
    assert_eq!(permits(4, &rows, 2), [(1, 9), (2, 5)], "ties go to the lower index");
    assert_eq!(permits(5, &rows, 64), [(1, 9), (2, 5), (3, 100), (5, 1), (7, 5)]);
    let found = permits(5, &rows, 2);
    assert_eq!((permit_of(&found, 3), permit_of(&found, 2)), (Some(100), None));
    assert!(permits(9, &[], 3).is_empty());
    // Beyond 2^64 planck in proportion.
    let whales = [staked(0, u128::MAX, 0), staked(1, 1 << 127, 0)];
    assert_eq!(permits(0, &whales, 2), [(0, u64::MAX), (1, 1 << 63)]);
}

#[test]
fn only_the_genesis_root_is_final_in_the_first_window() {
    let incentive = Settings::example().incentive;
    let rows = [revealed(0, OTHER)];
    let votes = [voter(0, 10, Some(Attested { state_root: OTHER, bitmap: &[1] }))];
    let first = accept(0, &votes, &rows, &incentive, &GENESIS);
    assert_eq!((first.state_root, first.accepted), (None, Vec::new()));
    let second = accept(1, &votes, &rows, &incentive, &GENESIS);
    assert_eq!((second.state_root, second.accepted), (Some(OTHER), vec![0]));
    let first = accept(0, &votes, &rows, &incentive, &OTHER);
    assert_eq!((first.state_root, first.accepted), (Some(OTHER), vec![0]));
}

/// C4, e08: who is silent still counts in the whole, so that those who are left decide nothing alone.
#[test]
fn shares_are_of_all_permitted_stake() {
    let incentive = Settings::example().incentive;
    let rows = [revealed(0, OTHER), revealed(9, OTHER)];
    let says = Some(Attested { state_root: OTHER, bitmap: &[1] });
    let found = accept(5, &[voter(0, 10, says), voter(1, 5, None)], &rows, &incentive, &GENESIS);
    assert_eq!(found.state_root, Some(OTHER));
    assert_eq!((found.accepted, found.unavailable), (vec![0], vec![9]));
    let found = accept(5, &[voter(0, 10, says), voter(1, 6, None)], &rows, &incentive, &GENESIS);
    assert_eq!((found.state_root, found.accepted, found.unavailable), (None, vec![], vec![]));
}

#[test]
fn a_window_is_silent_if_less_than_half_of_its_stake_attests() {
    let incentive = Settings::example().incentive;
    let rows = [revealed(0, OTHER)];
    let is_silent = |voters: &[_]| accept(5, voters, &rows, &incentive, &GENESIS).is_silent;
    assert!(is_silent(&[voter(0, 10, None), voter(1, 5, None)]));
    // A small one among them says nothing for the others.
    let says = Some(Attested { state_root: OTHER, bitmap: &[] });
    assert!(is_silent(&[voter(0, 10, None), voter(1, 9, says)]));
    assert!(!is_silent(&[voter(0, 10, None), voter(1, 10, says)]));
    assert!(!is_silent(&[voter(0, 10, says), voter(1, 5, None)]));
    assert!(is_silent(&[voter(0, u64::MAX, None), voter(1, u64::MAX - 1, says)]));
    assert!(!is_silent(&[]));
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
        evaluations,
        bonds: None,
    };
    let validators = vec![
        validator(2, 5, None),
        validator(1, 0, Some(Vec::new())),
        validator(0, 6, None),
        validator(8, 0, Some(Vec::new())),
    ];
    let says = Some(Attested { state_root: OTHER, bitmap: &[0b1000] });
    // Slot 0 changed hands since the permits were drawn up, 8 has none, and the holder of 5 has left.
    let voters = [voter(0, 1, None), voter(1, 10, says), voter(2, 20, None), voter(5, 4, says)];
    let facts = Facts {
        state_root: Some(OTHER),
        voters: &voters,
        revealed: &[1, 3, 9],
        unavailable: &bitmap_of(&[9]),
        convicted: &[],
        excused: false,
        scoring_seed: Some([7; 32]),
    };
    let incentive = Incentive { waiver_windows: 0, ..Settings::example().incentive };
    let input = settlement_input(5, miners.clone(), validators.clone(), facts, &incentive);
    let found: Vec<_> =
        input.miners.iter().map(|m| (m.uid, m.on_probation, m.revealed, m.fault)).collect();
    assert_eq!(
        found,
        [
            (2, false, false, Some(Fault::MissedReveal)),
            (3, true, true, None),
            (9, false, true, Some(Fault::Unavailable)),
        ]
    );
    let found: Vec<_> =
        input.validators.iter().map(|v| (v.index, v.stake, v.present, v.attested)).collect();
    assert_eq!(found, [(1, 10, true, Q32::ONE), (2, 20, false, Q32::ZERO)]);
    assert_eq!((input.permitted_stake, input.is_final), (35, true));
    // All evaluate all that revealed, also who has left since: the draw does not depend on that.
    assert!(input.validators.iter().all(|validator| validator.drawn == [1, 3, 9]));
    // Nobody is blamed for what is missing in a window that the chain itself lost.
    let facts = Facts { excused: true, state_root: None, ..facts };
    let input = settlement_input(5, miners.clone(), validators.clone(), facts, &incentive);
    assert!(input.miners.iter().all(|miner| miner.fault.is_none()));
    assert!(!input.is_final);
    // What evidence shows is a fault there too.
    let facts = Facts { convicted: &bitmap_of(&[3]), ..facts };
    let input = settlement_input(5, miners, validators, facts, &incentive);
    let found: Vec<_> = input.miners.iter().map(|miner| (miner.uid, miner.fault)).collect();
    assert_eq!(found, [(2, None), (3, Some(Fault::Proven)), (9, None)]);
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
        evaluations: None,
        bonds: Some(stored.clone()),
    };
    // Miner 1 left and another came in window 5; miner 3 left, and nobody came.
    let miners = vec![miner(2, 0), miner(1, 5), miner(0, 4)];
    let validators = vec![validator(0, 4), validator(1, 5)];
    let voters = [voter(0, 1, None), voter(1, 1, None)];
    let facts = Facts {
        state_root: None,
        voters: &voters,
        revealed: &[0, 1, 2],
        unavailable: &[],
        convicted: &[],
        excused: false,
        scoring_seed: None,
    };
    let incentive = Settings::example().incentive;
    let input = settlement_input(5, miners, validators, facts, &incentive);
    assert_eq!(input.validators[0].bonds, [(0, 10), (2, 30)]);
    assert_eq!(input.validators[1].bonds, []);
}

/// What is fetched first is what is accepted if all is attested, whatever the order of the rows.
#[test]
fn what_is_accepted_is_fetched_first() {
    let incentive = Incentive { accepted_max: 3, unscored_max: 1, ..Settings::example().incentive };
    let window = u64::from(incentive.bootstrap_windows) + 9;
    let row = |uid, value| Revealed {
        value: Q32::from_int(value),
        is_scored: value != 0,
        registered_window: 0,
        ..revealed(uid, OTHER)
    };
    let rows = [
        row(9, 1),
        row(8, 0),
        row(7, 0),
        row(6, -1),
        row(5, 4),
        row(4, 2),
        Revealed { base_state_root: GENESIS, ..row(3, 9) },
        Revealed { registered_window: window, ..row(2, 9) },
    ];
    let order = fetch_order(window, &rows, &OTHER, &incentive);
    assert_eq!(order.expected, [5, 4, 9]);
    assert_eq!(order.others, [2, 3, 6, 7, 8]);
    let order = fetch_order(window, &rows[1..3], &OTHER, &incentive);
    assert_eq!((order.expected, order.others), (vec![7], vec![8]));

    let bitmap = bitmap_of(&(0..16).collect::<Vec<_>>());
    let voters = [voter(0, 1, Some(Attested { state_root: OTHER, bitmap: &bitmap }))];
    let mut expected = fetch_order(window, &rows, &OTHER, &incentive).expected;
    expected.sort_unstable();
    assert_eq!(accept(window, &voters, &rows, &incentive, &GENESIS).accepted, expected);
}
