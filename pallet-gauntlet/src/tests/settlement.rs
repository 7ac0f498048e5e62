//! Tests what a window pays, to whom, in which steps.

use frame_support::weights::{Weight, WeightMeter};
use protocol::{
    fixed::Q32,
    settings::{ConsensusKind, YumaSettings},
    window::Phase,
    Uid,
};

use crate::{mock::*, *};

/// What calls and steps weigh here.
type Weights = <Test as Config>::WeightInfo;

#[test]
fn a_full_window_pays_everybody_and_conserves_the_emission() {
    ExtBuilder::default().participants(3, 2).build_and_execute(|| {
        play_window(0, 3, 2);
        assert_eq!(record(0).accepted.to_vec(), [0, 1, 2]);
        score_window(0, 3, 2);
        assert_eq!(record(0).status, WindowStatus::Settled);
        assert_eq!(record(0).minted, 100 * UNIT);

        let paid: Vec<_> = (0..3).map(|number| claimable(&miner_cold(number))).collect();
        assert!(0 < paid[0] && paid[0] < paid[1] && paid[1] < paid[2], "{paid:?}");
        let miners: u128 = paid.iter().sum();
        let validators = claimable(&validator_cold(0)) + claimable(&validator_cold(1));
        assert_eq!(claimable(&validator_cold(0)), claimable(&validator_cold(1)));
        assert_eq!(claimable(&owner()), 10 * UNIT);
        // Roundings are carried: a share is a multiple of 2^-32.
        assert!(60 * UNIT - miners < UNIT / 1_000_000, "{miners}");
        assert!(30 * UNIT - validators < UNIT / 1_000_000, "{validators}");
        assert_eq!(ledger().claimable, miners + validators + 10 * UNIT);
        assert_eq!(ledger().minted, ledger().claimable + carried());
        assert_eq!(run_balance(0), EXISTENTIAL_DEPOSIT + ledger().minted);

        let settled = Event::WindowSettled {
            run: 0,
            window: 0,
            minted: 100 * UNIT,
            funded: 0,
            paid: Pots { owner: 10 * UNIT, miners, validators },
            carried: ledger().carried(),
        };
        assert!(events().contains(&settled));
        let scored =
            events().into_iter().filter(|event| matches!(event, Event::MinerScored { .. })).count();
        assert_eq!(scored, 3);
        let miner = Miners::<Test>::get(0, 2).unwrap();
        assert_eq!(miner.standing.scored_windows, 1);
        assert!(miner.value > Q32::ZERO && miner.share > Q32::ZERO);
        assert!(Validators::<Test>::get(0, 0).unwrap().agreement > Q32::ZERO);
    });
}

#[test]
fn windows_follow_one_another_and_conserve_the_emission() {
    ExtBuilder::default().participants(3, 2).build_and_execute(|| {
        for window in 0..6 {
            play_window(window, 3, 2);
        }
        assert_eq!(run().next_settlement, 5);
        assert_eq!(ledger().minted, 500 * UNIT);
        assert_eq!(Miners::<Test>::get(0, 0).unwrap().standing.scored_windows, 5);
    });
}

#[test]
fn without_scores_each_pot_is_carried_for_itself() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        play_window(0, 2, 1);
        roll_to_settlement(0);
        assert_eq!(claimable(&miner_cold(0)), 0);
        assert_eq!(claimable(&owner()), 10 * UNIT);
        let carried = Pots { owner: 0, miners: 60 * UNIT, validators: 30 * UNIT };
        assert_eq!(ledger().carried(), carried);
        // Nobody's standing moved, and absent validators cost no miner a penalty.
        assert_eq!(Miners::<Test>::get(0, 0).unwrap().standing, Default::default());
    });
}

#[test]
fn a_missed_commit_and_a_missed_reveal_cost_a_penalty() {
    ExtBuilder::default().participants(3, 1).build_and_execute(|| {
        roll_to_window(0);
        commit(0, 0, 0, GENESIS_ROOT);
        commit(0, 1, 1, GENESIS_ROOT);
        roll_to_phase(0, Phase::Reveal);
        reveal(0, 0, 0, GENESIS_ROOT).unwrap();
        roll_to_phase(0, Phase::AttestCommit);
        attest(0, 0, &[0], GENESIS_ROOT);
        score_window(0, 1, 1);
        let penalty = |uid: Uid| Miners::<Test>::get(0, uid).unwrap().standing.penalty;
        assert_eq!(penalty(0), Q32::ONE);
        assert_eq!(penalty(1), Q32::from_ppm(750_000));
        assert_eq!(penalty(2), Q32::from_ppm(750_000));
        assert_eq!((claimable(&miner_cold(1)), claimable(&miner_cold(2))), (0, 0));
        assert!(claimable(&miner_cold(0)) > 0);
    });
}

#[test]
fn a_payload_that_cannot_be_had_costs_a_penalty_only_by_quorum() {
    let penalty_if_attested = |attestations: &[(u8, &[Uid])]| {
        let mut penalty = Q32::ZERO;
        ExtBuilder::default().participants(2, 4).build_and_execute(|| {
            play_window(0, 2, 4);
            roll_to_window(1);
            for uid in 0..2 {
                commit(1, uid, uid, GENESIS_ROOT);
            }
            roll_to_phase(1, Phase::Reveal);
            for uid in 0..2 {
                reveal(1, uid, uid, GENESIS_ROOT).unwrap();
            }
            roll_to_phase(1, Phase::AttestCommit);
            for (number, uids) in attestations {
                attest(1, *number, uids, GENESIS_ROOT);
            }
            roll_to_settlement(1);
            penalty = Miners::<Test>::get(0, 0).unwrap().standing.penalty;
        });
        penalty
    };
    assert_eq!(penalty_if_attested(&[]), Q32::ONE);
    assert_eq!(penalty_if_attested(&[(0, &[1]), (1, &[1])]), Q32::ONE);
    // One of the three present says no: with the absent one it would have been available.
    assert_eq!(penalty_if_attested(&[(0, &[0, 1]), (1, &[0, 1]), (2, &[1])]), Q32::ONE);
    // Two of four are a veto and no verdict.
    assert_eq!(penalty_if_attested(&[(0, &[0, 1]), (1, &[1]), (2, &[1])]), Q32::ONE);
    assert_eq!(penalty_if_attested(&[(0, &[1]), (1, &[1]), (2, &[1])]), Q32::from_ppm(750_000));
    // Who could fetch nothing speaks of the state alone.
    assert_eq!(penalty_if_attested(&[(0, &[]), (1, &[]), (2, &[]), (3, &[])]), Q32::ONE);
    assert_eq!(penalty_if_attested(&[(0, &[1]), (1, &[1]), (2, &[])]), Q32::ONE);
}

#[test]
fn a_slot_s_new_holder_inherits_nothing() {
    let mut full = settings();
    full.incentive.uid_max = 2;
    full.entry.immunity_windows = 0;
    ExtBuilder::default().settings(full).participants(2, 1).build_and_execute(|| {
        play_window(0, 2, 1);
        roll_to_window(1);
        // Before the first settlement all are equal, and the lowest uid makes room.
        assert_eq!(register_miner(miner_cold(5), miner_hot(5)), Ok(0));
        score_window(0, 2, 1);
        // Window 0 pays neither who left nor who came.
        assert_eq!((claimable(&miner_cold(0)), claimable(&miner_cold(5))), (0, 0));
        assert!(claimable(&miner_cold(1)) > 0);
        let newcomer = Miners::<Test>::get(0, 0).unwrap();
        assert_eq!(newcomer.standing, Default::default());
        assert_eq!(newcomer.registered_window, 2);
        // It has no duties in window 1 and is not blamed for it.
        attest_nothing(1);
        roll_to_settlement(1);
        assert_eq!(Miners::<Test>::get(0, 0).unwrap().standing.penalty, Q32::ONE);
        assert!(Miners::<Test>::get(0, 1).unwrap().standing.penalty < Q32::ONE);
    });
}

#[test]
fn a_validator_that_commits_and_does_not_reveal_is_absent() {
    ExtBuilder::default().participants(1, 2).build_and_execute(|| {
        play_window(0, 1, 2);
        roll_to_window(1);
        commit_scores(0, 0, &evaluations(1));
        commit_scores(0, 1, &evaluations(1));
        roll_to(System::block_number() + 8);
        reveal_scores(0, 0, &evaluations(1));
        roll_to_settlement(0);
        assert!(claimable(&validator_cold(0)) > 0);
        assert_eq!(claimable(&validator_cold(1)), 0);
    });
}

#[test]
fn settlement_goes_step_by_step_under_a_meter() {
    ExtBuilder::default().participants(3, 2).build_and_execute(|| {
        play_window(0, 3, 2);
        score_window(0, 3, 2);
        // Window 1 has no work; its settlement is driven by hand.
        let before = ledger();
        roll_to(run().schedule.window_start(2).unwrap() + 11);
        System::set_block_number(System::block_number() + 1);
        Gauntlet::do_boundaries();
        let looked = Weights::look_at_queue(4).saturating_add(Weights::look_at_run() * 2);
        let mut meter = WeightMeter::with_limit(looked);
        Gauntlet::do_poll(&mut meter);
        assert_eq!(run().next_settlement, 1, "no weight, no step");

        let weights = Weights::settle_begin(3, 2).saturating_add(looked);
        Gauntlet::do_idle(weights);
        let settlement = Settlements::<Test>::get(0).unwrap();
        assert_eq!(settlement.stage, Stage::Miners { page: 0, page_count: 1 });
        assert_eq!(ledger().claimable, before.claimable + settlement.paid.owner);
        check_state();

        Gauntlet::do_idle(looked.saturating_add(Weights::settle_page(PAGE_LEN)));
        assert_eq!(Settlements::<Test>::get(0).unwrap().stage, Stage::Validators);
        check_state();

        Gauntlet::do_idle(Weight::MAX);
        assert_eq!(Settlements::<Test>::get(0), None);
        assert_eq!(run().next_settlement, 2);
    });
}

#[test]
fn many_miners_are_paid_in_pages() {
    let mut large = settings();
    large.incentive.uid_max = 150;
    ExtBuilder::default().settings(large).build_and_execute(|| {
        for number in 0..150u8 {
            let hot = AccountId::new([number; 32]);
            let hot = AccountId::new(sp_io::hashing::blake2_256(hot.as_ref()));
            register_miner(miner_cold(number % 30), hot).unwrap();
        }
        roll_to_settlement(0);
        let scored =
            events().into_iter().filter(|event| matches!(event, Event::MinerScored { .. })).count();
        assert_eq!(scored, 150);
        assert_eq!(SettlementPages::<Test>::iter().count(), 0);
    });
}

#[test]
fn backlog_is_settled_in_order() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        roll_to_window(0);
        // Blocks without room for anything but the boundaries.
        let end = run().schedule.window_start(4).unwrap();
        for number in START + 1..=end {
            System::initialize(&number, &Default::default(), &Default::default());
            <Gauntlet as frame_support::traits::Hooks<u32>>::on_initialize(number);
        }
        assert_eq!(run().next_settlement, 0);
        Gauntlet::do_idle(Weight::MAX);
        assert_eq!(run().next_settlement, 3);
        assert_eq!(ledger().minted, 300 * UNIT);
    });
}

#[test]
fn a_settlement_that_fails_makes_the_window_void_and_carries_its_pot() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        play_window(0, 1, 1);
        let broken = |penalty| {
            Miners::<Test>::mutate(0, 0, |miner| miner.as_mut().unwrap().standing.penalty = penalty)
        };
        broken(Q32::MIN);
        score_window(0, 1, 1);
        assert!(events().contains(&Event::WindowVoid {
            run: 0,
            window: 0,
            error: VoidReason::Overflow,
            minted: 100 * UNIT,
            funded: 0,
        }));
        assert_eq!(record(0).status, WindowStatus::Void);
        let whole = Pots { owner: 10 * UNIT, miners: 60 * UNIT, validators: 30 * UNIT };
        assert_eq!(ledger().carried(), whole);
        assert_eq!(ledger().claimable, 0);
        broken(Q32::ONE);
        // Nobody worked in the next window, which has no final root.
        roll_to_settlement(1);
        assert_eq!((carried(), ledger().claimable), (200 * UNIT, 0));
        // The one after pays its own part, and a hundredth of what is carried.
        play_window(3, 1, 1);
        roll_to_settlement(3);
        assert_eq!(claimable(&owner()), 10 * UNIT + 30 * UNIT / 100);
    });
}

fn yuma_settings() -> protocol::settings::Settings {
    let mut settings = settings();
    settings.incentive.consensus = ConsensusKind::Yuma(YumaSettings::UPSTREAM);
    settings
}

#[test]
fn a_run_under_yuma_settles_pays_and_keeps_its_bonds() {
    let builder = ExtBuilder::default().settings(yuma_settings()).participants(3, 2);
    builder.build_and_execute(|| {
        for window in 0..3 {
            play_window(window, 3, 2);
        }
        assert_eq!(run().next_settlement, 2);
        let paid: Vec<_> = (0..3).map(|number| claimable(&miner_cold(number))).collect();
        assert!(0 < paid[0] && paid[0] < paid[1] && paid[1] < paid[2], "{paid:?}");
        assert_eq!(claimable(&validator_cold(0)), claimable(&validator_cold(1)));
        assert!(claimable(&validator_cold(0)) > 29 * UNIT);
        let row = Bonds::<Test>::get(0, 1).unwrap();
        assert_eq!(row.window, 1);
        assert_eq!(row.entries.to_vec(), [(0, 65_535), (1, 65_535), (2, 65_535)]);
        assert_eq!(ledger().minted, 200 * UNIT);
    });
}

#[test]
fn who_comes_into_a_slot_inherits_no_bonds() {
    let builder = ExtBuilder::default().settings(yuma_settings()).participants(3, 3);
    builder.build_and_execute(|| {
        play_window(0, 3, 2);
        score_window(0, 3, 2);
        assert!(Bonds::<Test>::contains_key(0, 1));
        roll_to_window(2);
        assert!(Gauntlet::do_deregister_validator(validator_cold(1), 0, 1).is_ok());
        assert!(!Bonds::<Test>::contains_key(0, 1));
        assert!(Gauntlet::do_leave_miner(miner_cold(2), 0, 2).is_ok());
        while Miners::<Test>::contains_key(0, 2) {
            roll_to(System::block_number() + 1);
        }
        assert_eq!(register_miner(miner_cold(9), miner_hot(9)), Ok(2));
        // Only the first two are measured in the windows that the newcomer takes part in.
        let window = Miners::<Test>::get(0, 2).unwrap().registered_window;
        play_window(window, 2, 1);
        score_window(window, 2, 1);
        let row = Bonds::<Test>::get(0, 0).unwrap();
        let uids: Vec<Uid> = row.entries.iter().map(|(uid, _)| *uid).collect();
        assert_eq!((row.window, uids), (window, vec![0, 1]));
    });
}

#[test]
fn bonds_go_when_the_run_leaves_yuma() {
    let builder = ExtBuilder::default().settings(yuma_settings()).participants(2, 2);
    builder.build_and_execute(|| {
        play_window(0, 2, 2);
        assert!(Gauntlet::do_set_params(owner(), 0, settings()).is_ok());
        for window in 1..5 {
            play_window(window, 2, 2);
        }
        assert_eq!(Bonds::<Test>::iter_prefix(0).count(), 0);
        assert!(claimable(&miner_cold(1)) > 0);
    });
}
