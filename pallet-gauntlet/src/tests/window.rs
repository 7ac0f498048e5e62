//! The boundaries of windows: seeds, the final state root, the accepted set, what is removed.

use protocol::{settings::Settings, window::Phase};

use crate::{mock::*, *};

#[test]
fn every_window_has_its_own_seeds() {
    ExtBuilder::default().build_and_execute(|| {
        roll_to_window(1);
        assert_ne!(record(0).seed, record(1).seed);
        assert_eq!(record(1).challenge_seed, None);
        roll_to_phase(1, Phase::Reveal);
        assert!(record(1).challenge_seed.is_some());
        assert_ne!(record(1).challenge_seed, record(0).challenge_seed);
    });
}

#[test]
fn boundaries_are_exact() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        roll_to(START - 1);
        assert!(Windows::<Test>::get(0, 0).is_none());
        roll_to(START);
        assert_eq!(record(0).status, WindowStatus::Open);
        roll_to(START + 10);
        assert_eq!(record(0).challenge_seed, None);
        roll_to(START + 11);
        assert!(record(0).challenge_seed.is_some());
        roll_to(START + 15);
        assert_eq!(record(0).status, WindowStatus::Open);
        roll_to(START + 16);
        assert_eq!(record(0).status, WindowStatus::Accepted);
        roll_to(START + 19);
        assert!(Windows::<Test>::get(0, 1).is_none());
        roll_to(START + 20);
        assert!(Windows::<Test>::get(0, 1).is_some());
        roll_to(START + 31);
        assert_eq!(record(0).status, WindowStatus::Accepted);
        roll_to(START + 32);
        assert_eq!(record(0).status, WindowStatus::Settled);
    });
}

#[test]
fn accepted_are_those_that_two_thirds_attest() {
    ExtBuilder::default().participants(3, 3).build_and_execute(|| {
        roll_to_window(0);
        for number in 0..3 {
            commit(0, number, number, GENESIS_ROOT);
        }
        roll_to_phase(0, Phase::Reveal);
        for number in 0..3 {
            reveal(0, number, number, GENESIS_ROOT).unwrap();
        }
        roll_to_phase(0, Phase::Attest);
        attest(0, 0, &[0, 1], GENESIS_ROOT);
        attest(0, 1, &[0, 1], GENESIS_ROOT);
        attest(0, 2, &[0], GENESIS_ROOT);
        roll_to_phase(0, Phase::Apply);
        assert_eq!(record(0).state_root, Some(GENESIS_ROOT));
        assert_eq!(record(0).accepted.to_vec(), [0]);
        // More than a third spoke against both others.
        assert_eq!(record(0).unavailable.to_vec(), [0b110]);
        let accepted = Event::WindowAccepted {
            run: 0,
            window: 0,
            state_root: Some(GENESIS_ROOT),
            accepted: vec![0],
        };
        assert!(events().contains(&accepted));
    });
}

#[test]
fn without_agreement_on_the_state_nobody_is_accepted() {
    ExtBuilder::default().participants(1, 2).build_and_execute(|| {
        roll_to_window(0);
        commit(0, 0, 0, GENESIS_ROOT);
        roll_to_phase(0, Phase::Reveal);
        reveal(0, 0, 0, GENESIS_ROOT).unwrap();
        roll_to_phase(0, Phase::Attest);
        attest(0, 0, &[0], GENESIS_ROOT);
        attest(0, 1, &[0], [8; 32]);
        roll_to_phase(0, Phase::Apply);
        assert_eq!((record(0).state_root, record(0).accepted.len()), (None, 0));
    });
}

#[test]
fn window_0_starts_from_the_genesis_state() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        roll_to_window(0);
        commit(0, 0, 0, [8; 32]);
        roll_to_phase(0, Phase::Reveal);
        reveal(0, 0, 0, [8; 32]).unwrap();
        roll_to_phase(0, Phase::Attest);
        attest(0, 0, &[0], [8; 32]);
        roll_to_phase(0, Phase::Apply);
        assert_eq!((record(0).state_root, record(0).accepted.len()), (None, 0));
    });
}

#[test]
fn an_update_of_another_state_is_not_accepted() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        roll_to_window(0);
        commit(0, 0, 0, GENESIS_ROOT);
        commit(0, 1, 1, [8; 32]);
        roll_to_phase(0, Phase::Reveal);
        reveal(0, 0, 0, GENESIS_ROOT).unwrap();
        reveal(0, 1, 1, [8; 32]).unwrap();
        roll_to_phase(0, Phase::Attest);
        attest(0, 0, &[0, 1], GENESIS_ROOT);
        roll_to_phase(0, Phase::Apply);
        assert_eq!(record(0).accepted.to_vec(), [0]);
    });
}

#[test]
fn stake_absent_for_two_windows_no_longer_counts() {
    ExtBuilder::default().participants(1, 2).build_and_execute(|| {
        play_window(0, 1, 2);
        assert_eq!(record(0).accepted.len(), 1);
        // Validator 1 was active in window 0 and counts in window 1, in which it is silent.
        play_window(1, 1, 1);
        assert_eq!((record(1).state_root, record(1).accepted.len()), (None, 0));
        play_window(2, 1, 1);
        assert_eq!(record(2).accepted.to_vec(), [0]);
    });
}

#[test]
fn newcomers_are_on_probation_after_the_waiver() {
    let mut strict: Settings = settings();
    strict.incentive.waiver_windows = 1;
    ExtBuilder::default().settings(strict).participants(1, 1).build_and_execute(|| {
        play_window(0, 1, 1);
        register_miner(miner_cold(1), miner_hot(1)).unwrap();
        play_window(1, 2, 1);
        assert_eq!(record(1).accepted.to_vec(), [0]);
        play_window(2, 2, 1);
        assert_eq!(record(2).accepted.to_vec(), [0]);
        play_window(3, 2, 1);
        assert_eq!(record(3).accepted.to_vec(), [0, 1]);
    });
}

#[test]
fn rows_are_removed_when_their_window_is_old() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        play_window(0, 2, 1);
        score_window(0, 2, 1);
        roll_to_window(8);
        assert!(Windows::<Test>::contains_key(0, 0));
        assert!(ScoreReveals::<Test>::contains_key((0, 0, 0)));
        roll_to(System::block_number() + 20);
        assert!(!Windows::<Test>::contains_key(0, 0));
        assert!(!Commitments::<Test>::contains_key((0, 0, 0)));
        assert!(!Reveals::<Test>::contains_key((0, 0, 1)));
        assert!(!ScoreReveals::<Test>::contains_key((0, 0, 0)));
        assert_eq!(PayloadOwners::<Test>::iter().count(), 0);
        assert_eq!(CommitCounts::<Test>::iter().count(), 0);
        assert!(Windows::<Test>::contains_key(0, 1));
        assert_eq!(run().next_pruning, 1);
    });
}
