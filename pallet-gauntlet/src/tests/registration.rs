//! Runs, settings, miners, validators, announcements.

use frame_support::{assert_noop, assert_ok};
use protocol::{
    settings::{InnerOptimiser, Settings},
    window::Phase,
};
use sp_runtime::{DispatchError, TokenError};

use crate::{mock::*, *};

fn origin(who: AccountId) -> RuntimeOrigin {
    RuntimeOrigin::signed(who)
}

fn create(settings: Settings, layout: LayoutVec) -> sp_runtime::DispatchResult {
    Gauntlet::create_run(origin(owner()), settings.into(), layout)
}

#[test]
fn run_starts_waiting_and_opens_with_its_first_window() {
    ExtBuilder::default().build_and_execute(|| {
        assert_eq!(run().status, RunStatus::Waiting);
        assert_eq!(run().chunk_count, 3);
        assert_eq!(run_balance(0), EXISTENTIAL_DEPOSIT);
        roll_to(START);
        assert_eq!(run().status, RunStatus::Open);
        assert!(matches!(events()[..], [Event::WindowOpened { run: 0, window: 0, .. }]));
    });
}

#[test]
fn create_run_refuses_what_cannot_work() {
    new_test_ext().execute_with(|| {
        let with = |change: fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            settings
        };
        let cases: [(Settings, Error<Test>); 6] = [
            (with(|s| s.schedule.commit_end = 0), Error::ScheduleInvalid),
            (with(|s| s.training.keep = 0), Error::SettingOutOfRange),
            (with(|s| s.training.sample_count = 1), Error::TooFewSamples),
            (with(|s| s.emission.owner_ppm = 0), Error::EmissionSumWrong),
            (
                with(|s| {
                    s.training.outer.warm_up_windows = 1;
                    s.training.outer.decay_windows = 1;
                }),
                Error::DecayInWarmUp,
            ),
            (with(|s| s.schedule.start_block = 1), Error::StartsInThePast),
        ];
        for (settings, error) in cases {
            assert_noop!(create(settings, layout()), error);
        }
        assert_noop!(create(settings(), Default::default()), Error::<Test>::LayoutInvalid);
        assert_noop!(
            create(settings(), LayoutVec::truncate_from(vec![1, 0])),
            Error::<Test>::LayoutInvalid
        );
        assert_noop!(
            Gauntlet::create_run(RuntimeOrigin::none(), settings().into(), layout()),
            DispatchError::BadOrigin
        );
    });
}

#[test]
fn there_are_no_more_runs_than_every_block_can_look_at() {
    new_test_ext().execute_with(|| {
        for _ in 0..4 {
            assert_ok!(create(settings(), layout()));
        }
        assert_noop!(create(settings(), layout()), Error::<Test>::TooManyRuns);
        check_state();
    });
}

#[test]
fn miner_gets_the_lowest_slot_and_its_bond_is_held() {
    ExtBuilder::default().build_and_execute(|| {
        assert_ok!(Gauntlet::register_miner(origin(miner_cold(0)), 0, miner_hot(0)));
        System::assert_last_event(
            Event::MinerRegistered { run: 0, uid: 0, hot: miner_hot(0), cold: miner_cold(0) }
                .into(),
        );
        assert_eq!(Gauntlet::held(HoldReason::MinerBond, &miner_cold(0)), 10 * UNIT);
        assert_eq!(System::providers(&miner_hot(0)), 1);
        assert_eq!(Miners::<Test>::get(0, 0).unwrap().registered_window, 0);
        roll_to(START);
        assert_eq!(Gauntlet::do_register_miner(miner_cold(1), 0, miner_hot(1)), Ok(1));
        assert_eq!(Miners::<Test>::get(0, 1).unwrap().registered_window, 1);
    });
}

#[test]
fn registration_is_refused_without_slot_key_or_money() {
    let mut small = settings();
    small.incentive.uid_max = 1;
    ExtBuilder::default().settings(small).participants(1, 0).build_and_execute(|| {
        let register = |cold, hot| Gauntlet::register_miner(origin(cold), 0, hot);
        assert_noop!(register(miner_cold(1), miner_hot(0)), Error::<Test>::HotKeyTaken);
        assert_noop!(register(miner_cold(1), miner_hot(1)), Error::<Test>::NoFreeSlot);
        assert_noop!(
            Gauntlet::register_miner(origin(owner()), 9, miner_hot(1)),
            Error::<Test>::RunUnknown
        );
        assert_noop!(
            Gauntlet::register_miner(RuntimeOrigin::none(), 0, miner_hot(1)),
            DispatchError::BadOrigin
        );
    });
    ExtBuilder::default().build_and_execute(|| {
        assert_noop!(
            Gauntlet::register_miner(origin(account(222)), 0, miner_hot(1)),
            TokenError::FundsUnavailable
        );
    });
}

#[test]
fn leaving_returns_the_bond_and_frees_key_and_slot() {
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        assert_ok!(Gauntlet::announce(
            origin(miner_hot(0)),
            0,
            Default::default(),
            Default::default()
        ));
        assert_noop!(
            Gauntlet::deregister_miner(origin(miner_cold(1)), 0, 0),
            Error::<Test>::NotColdKey
        );
        assert_noop!(
            Gauntlet::deregister_miner(origin(miner_cold(1)), 0, 7),
            Error::<Test>::MinerUnknown
        );
        assert_ok!(Gauntlet::deregister_miner(origin(miner_cold(0)), 0, 0));
        System::assert_last_event(Event::MinerLeft { run: 0, uid: 0 }.into());
        assert_eq!(Gauntlet::held(HoldReason::MinerBond, &miner_cold(0)), 0);
        assert_eq!(System::providers(&miner_hot(0)), 0);
        assert!(!Announcements::<Test>::contains_key(0, miner_hot(0)));
        assert_eq!(Gauntlet::do_register_miner(miner_cold(3), 0, miner_hot(3)), Ok(0));
    });
}

#[test]
fn miner_with_a_commitment_of_the_window_cannot_leave() {
    ExtBuilder::default().participants(1, 0).build_and_execute(|| {
        roll_to(START);
        commit(0, 0, 0, GENESIS_ROOT);
        assert_noop!(
            Gauntlet::deregister_miner(origin(miner_cold(0)), 0, 0),
            Error::<Test>::WorkOpen
        );
        roll_to_window(1);
        assert_ok!(Gauntlet::deregister_miner(origin(miner_cold(0)), 0, 0));
    });
}

#[test]
fn only_participants_announce() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        let announce = |hot, run| {
            Gauntlet::announce(
                origin(hot),
                run,
                PeerId::truncate_from(vec![1, 2]),
                Default::default(),
            )
        };
        assert_noop!(announce(miner_cold(0), 0), Error::<Test>::HotKeyUnknown);
        assert_noop!(announce(miner_hot(0), 1), Error::<Test>::RunUnknown);
        assert_ok!(announce(miner_hot(0), 0));
        assert_ok!(announce(validator_hot(0), 0));
        assert_eq!(Announcements::<Test>::get(0, miner_hot(0)).unwrap().peer_id.to_vec(), [1, 2]);
    });
}

#[test]
fn settings_change_at_a_boundary_after_the_delay() {
    ExtBuilder::default().build_and_execute(|| {
        roll_to_phase(0, Phase::Reveal);
        let mut changed = settings();
        changed.incentive.accepted_max = 7;
        (changed.emission.owner_ppm, changed.emission.miners_ppm) = (0, 700_000);
        assert_noop!(
            Gauntlet::set_params(origin(miner_cold(0)), 0, changed.clone().into()),
            Error::<Test>::NotOwner
        );
        assert_ok!(Gauntlet::set_params(origin(owner()), 0, changed.clone().into()));
        System::assert_last_event(Event::SettingsScheduled { run: 0, window: 2 }.into());
        roll_to_phase(1, Phase::Apply);
        assert_eq!(run().settings, settings());
        roll_to_window(2);
        assert!(events().contains(&Event::SettingsApplied { run: 0, window: 2 }));
        assert_eq!(run().settings, changed);
        assert_eq!(record(1).settings, settings());
        assert_eq!(record(2).settings, changed);
        // Window 1 is settled in window 2, under its own settings.
        roll_to_settlement(1);
        assert_eq!(ledger().carried_owner, 20 * UNIT);
        roll_to_settlement(2);
        assert_eq!(ledger().carried_owner, 20 * UNIT);
        assert_eq!(record(2).minted, 100 * UNIT, "settings only split");
    });
}

#[test]
fn settings_that_bind_the_past_cannot_change() {
    ExtBuilder::default().build_and_execute(|| {
        let changes: [fn(&mut Settings); 6] = [
            |s| s.training.optimiser = InnerOptimiser::Muon { rate_ppb: 1_000_000 },
            |s| s.schedule.window_blocks = 50,
            |s| s.training.keep = 65,
            |s| s.training.model_seed = 9,
            |s| s.training.genesis_state_root = [9; 32],
            |s| s.incentive.uid_max = 63,
        ];
        for change in changes {
            let mut settings = settings();
            change(&mut settings);
            assert_noop!(
                Gauntlet::set_params(origin(owner()), 0, settings.into()),
                Error::<Test>::SettingImmutable
            );
        }
        let mut invalid = settings();
        invalid.incentive.finality_ppm = 1;
        assert_noop!(
            Gauntlet::set_params(origin(owner()), 0, invalid.into()),
            Error::<Test>::SettingOutOfRange
        );
    });
}

#[test]
fn views_answer_what_storage_holds() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        assert_eq!(Gauntlet::assignment_seed(0), None);
        play_window(0, 2, 1);
        let graph = Gauntlet::metagraph(0).unwrap();
        assert_eq!(graph.window, Some(0));
        assert_eq!(graph.miners.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(graph.validators.len(), 1);
        assert_eq!(Gauntlet::settings(0), Some(settings()));
        assert_eq!(Gauntlet::assignment_seed(0), Some((0, record(0).seed)));
        assert_eq!(Gauntlet::accepted_set(0, 0), Some(vec![0, 1]));
        assert_eq!(Gauntlet::window_info(0, 1), None);
        assert_eq!(Gauntlet::metagraph(1), None);
    });
}

#[test]
fn slots_are_given_out_from_the_lowest() {
    let mut slots = Slots::default();
    assert_eq!(
        (0..20).filter_map(|_| slots.take(17)).collect::<Vec<_>>(),
        (0..17).collect::<Vec<u16>>()
    );
    assert_eq!(slots.count(), 17);
    slots.release(9);
    slots.release(3);
    assert!(!slots.contains(3) && slots.contains(4));
    assert_eq!((slots.take(17), slots.take(17), slots.take(17)), (Some(3), Some(9), None));
    assert_eq!((0..5_000).filter_map(|_| slots.take(u32::MAX)).count(), 4_096 - 17);
}
