//! Runs, settings, miners, validators, announcements.

use frame_support::{assert_noop, assert_ok};
use protocol::{
    consent::{peer_consent, Role},
    settings::{InnerOptimiser, Settings},
    window::Phase,
    Planck, RunId, Window,
};
use sp_core::{ed25519, Pair};
use sp_runtime::{DispatchError, DispatchResult, TokenError};

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

/// The window in which the bond of a miner whose last window is 0 can be had.
const UNBONDED: Window = 16;

/// Registers a miner by the call, with its key's consent.
fn register(cold: AccountId, run: RunId, hot: AccountId, max_price: Planck) -> DispatchResult {
    let proof = consent(Role::Miner, &cold, &hot);
    Gauntlet::register_miner(origin(cold), run, hot, proof, max_price)
        .map(|_| ())
        .map_err(|error| error.error)
}

#[test]
fn miner_gets_the_lowest_slot_burns_the_price_and_its_bond_is_held() {
    ExtBuilder::default().build_and_execute(|| {
        let issued = Balances::total_issuance();
        let price = Gauntlet::next_price(0).unwrap();
        assert_eq!(price, settings().entry.price_min);
        assert_noop!(
            register(miner_cold(0), 0, miner_hot(0), price - 1),
            Error::<Test>::PriceTooHigh
        );
        assert_ok!(register(miner_cold(0), 0, miner_hot(0), price));
        let (hot, cold) = (miner_hot(0), miner_cold(0));
        System::assert_last_event(
            Event::MinerRegistered { run: 0, uid: 0, hot, cold, price }.into(),
        );
        assert_eq!(Balances::total_issuance(), issued - price);
        assert_eq!(Gauntlet::held(HoldReason::MinerBond, &miner_cold(0)), 10 * UNIT);
        assert_eq!(Balances::free_balance(miner_cold(0)), ENDOWMENT - 10 * UNIT - price);
        assert_eq!(Miners::<Test>::get(0, 0).unwrap().registered_window, 0);
        assert_eq!(Gauntlet::next_price(0), Some(price * 126 / 100));
        roll_to(START);
        assert_eq!(register_miner(miner_cold(1), miner_hot(1)), Ok(1));
        assert_eq!(Miners::<Test>::get(0, 1).unwrap().registered_window, 1);
        assert_eq!(Gauntlet::next_price(1), None);
    });
}

#[test]
fn registration_is_refused_without_slot_key_or_money() {
    let mut small = settings();
    small.incentive.uid_max = 1;
    ExtBuilder::default().settings(small).participants(1, 0).build_and_execute(|| {
        let register = |cold, run, hot| register(cold, run, hot, Planck::MAX);
        assert_noop!(register(miner_cold(1), 0, miner_hot(0)), Error::<Test>::HotKeyTaken);
        // Whoever holds the only slot is immune still.
        assert_noop!(register(miner_cold(1), 0, miner_hot(1)), Error::<Test>::NoFreeSlot);
        let proof = consent(Role::Miner, &miner_cold(1), &miner_hot(1));
        assert_noop!(
            Gauntlet::register_miner(RuntimeOrigin::none(), 0, miner_hot(1), proof, Planck::MAX),
            DispatchError::BadOrigin
        );
        assert_noop!(
            Gauntlet::do_register_miner(owner(), 9, miner_hot(1), Planck::MAX),
            Error::<Test>::RunUnknown
        );
    });
    ExtBuilder::default().build_and_execute(|| {
        assert_noop!(
            register(account(222), 0, miner_hot(1), Planck::MAX),
            TokenError::FundsUnavailable
        );
    });
}

#[test]
fn leaving_is_a_request_that_takes_effect_when_the_open_window_is_settled() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        let leave = |cold, uid| Gauntlet::leave_miner(origin(cold), 0, uid);
        roll_to_window(0);
        assert_ok!(Gauntlet::do_announce(miner_hot(0), 0, Default::default(), Default::default()));
        assert_noop!(leave(miner_cold(1), 0), Error::<Test>::NotColdKey);
        assert_noop!(leave(miner_cold(1), 7), Error::<Test>::MinerUnknown);
        commit(0, 0, 0, GENESIS_ROOT);
        assert_ok!(leave(miner_cold(0), 0));
        System::assert_last_event(Event::MinerLeaving { run: 0, uid: 0, last_window: 0 }.into());
        assert_noop!(leave(miner_cold(0), 0), Error::<Test>::LeavingAlready);
        // It finishes its work and is paid for it.
        roll_to_phase(0, Phase::Reveal);
        assert_ok!(reveal(0, 0, 0, GENESIS_ROOT));
        roll_to_phase(0, Phase::AttestCommit);
        attest(0, 0, &[0], GENESIS_ROOT);
        roll_to_window(1);
        assert_noop!(
            Gauntlet::do_commit_update(miner_hot(0), 0, 1, [1; 32]),
            Error::<Test>::LeavingAlready
        );
        score_window(0, 1, 1);
        assert!(claimable(&miner_cold(0)) > 0);
        assert!(Miners::<Test>::contains_key(0, 0));

        roll_to_window(2);
        assert!(events().contains(&Event::MinerLeft {
            run: 0,
            uid: 0,
            registered_window: 0,
            due: Some(UNBONDED)
        }));
        assert!(!Miners::<Test>::contains_key(0, 0));
        assert!(!Announcements::<Test>::contains_key(0, miner_hot(0)));
        assert_eq!(System::sufficients(&miner_hot(0)), 0);
        assert_eq!(register_miner(miner_cold(3), miner_hot(3)), Ok(0));
    });
}

#[test]
fn a_bond_stays_at_risk_and_then_goes_back_to_the_cold_key() {
    ExtBuilder::default().participants(1, 0).build_and_execute(|| {
        roll_to_window(0);
        let free = Balances::free_balance(miner_cold(0));
        let withdraw = || Gauntlet::withdraw_bond(origin(owner()), 0, 0, 0);
        assert_noop!(withdraw(), Error::<Test>::NoBond);
        assert_ok!(Gauntlet::do_leave_miner(miner_cold(0), 0, 0));
        roll_to_window(2);
        let departure = Gauntlet::departure(0, 0, 0).unwrap();
        assert_eq!((departure.bond, departure.due), (10 * UNIT, UNBONDED));
        roll_to_window(UNBONDED - 1);
        assert_noop!(withdraw(), Error::<Test>::BondNotDue);
        assert_eq!(Gauntlet::held(HoldReason::MinerBond, &miner_cold(0)), 10 * UNIT);
        roll_to_window(UNBONDED);
        assert_ok!(withdraw());
        assert_eq!(Gauntlet::held(HoldReason::MinerBond, &miner_cold(0)), 0);
        assert_eq!(Balances::free_balance(miner_cold(0)), free + 10 * UNIT);
        assert_noop!(withdraw(), Error::<Test>::NoBond);
    });
}

#[test]
fn who_has_not_begun_leaves_at_once() {
    ExtBuilder::default().participants(1, 0).build_and_execute(|| {
        assert_ok!(Gauntlet::do_leave_miner(miner_cold(0), 0, 0));
        assert!(events().contains(&Event::MinerLeft {
            run: 0,
            uid: 0,
            registered_window: 0,
            due: None
        }));
        roll_to_window(3);
        assert_eq!(register_miner(miner_cold(0), miner_hot(0)), Ok(0));
        assert_ok!(Gauntlet::do_leave_miner(miner_cold(0), 0, 0));
        assert_eq!(Gauntlet::held(HoldReason::MinerBond, &miner_cold(0)), 0);
    });
}

#[test]
fn a_full_list_of_changes_passes_on_to_the_next_window() {
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        roll_to_window(0);
        let full = vec![Change::Leave(50); CHANGES_MAX as usize];
        Changes::<Test>::insert(0, 2, ChangeList::truncate_from(full));
        assert_ok!(Gauntlet::do_leave_miner(miner_cold(0), 0, 0));
        assert_eq!(Changes::<Test>::get(0, 3).to_vec(), [Change::Leave(0)]);
        roll_to_window(2);
        assert!(Miners::<Test>::contains_key(0, 0));
        roll_to_window(3);
        assert!(!Miners::<Test>::contains_key(0, 0));
        assert_eq!(Changes::<Test>::iter().count(), 0);
    });
}

/// A peer, and its consent to be announced as that of `hot`.
pub(super) fn peer(number: u8, run: RunId, hot: &AccountId) -> (PeerId, PeerProof) {
    let key = ed25519::Pair::from_seed(&[number; 32]);
    let peer_id = [&[0, 36, 8, 1, 18, 32], &key.public().0[..]].concat();
    let message = peer_consent(&Gauntlet::genesis_hash(), run, &account_bytes(hot));
    (PeerId::truncate_from(peer_id), key.sign(&message).0)
}

#[test]
fn nobody_announces_another_s_peer() {
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        let (peer_id, proof) = peer(1, 0, &miner_hot(0));
        let announce = |hot, peer_id: &PeerId, proof| {
            Gauntlet::announce(origin(hot), 0, peer_id.clone(), Default::default(), proof)
        };
        // By who heard the proof, without it, under another form of peer id.
        let invalid = Error::<Test>::PeerProofInvalid;
        assert_noop!(announce(miner_hot(1), &peer_id, proof), invalid);
        assert_noop!(announce(miner_hot(0), &peer_id, [0; 64]), Error::<Test>::PeerProofInvalid);
        let other = PeerId::truncate_from(vec![1, 2]);
        assert_noop!(announce(miner_hot(0), &other, proof), Error::<Test>::PeerProofInvalid);
        assert_ok!(announce(miner_hot(0), &peer_id, proof));
    });
}

#[test]
fn only_participants_announce() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        let announce = |hot: AccountId, run| {
            let (peer_id, proof) = peer(1, run, &hot);
            Gauntlet::announce(origin(hot), run, peer_id, Default::default(), proof)
        };
        assert_noop!(announce(miner_cold(0), 0), Error::<Test>::HotKeyUnknown);
        assert_noop!(announce(miner_hot(0), 1), Error::<Test>::RunUnknown);
        assert_ok!(announce(miner_hot(0), 0));
        assert_ok!(announce(validator_hot(0), 0));
        let announced = Announcements::<Test>::get(0, miner_hot(0)).unwrap();
        assert_eq!(announced.peer_id, peer(1, 0, &miner_hot(0)).0);
    });
}

#[test]
fn settings_change_at_a_boundary_after_the_delay() {
    ExtBuilder::default().build_and_execute(|| {
        roll_to_phase(0, Phase::Reveal);
        let mut changed = settings();
        changed.incentive.accepted_max = 12;
        (changed.emission.owner_ppm, changed.emission.miners_ppm) = (0, 700_000);
        assert_noop!(
            Gauntlet::set_params(origin(miner_cold(0)), 0, changed.clone().into()),
            Error::<Test>::NotOwner
        );
        assert_ok!(Gauntlet::set_params(origin(owner()), 0, changed.clone().into()));
        System::assert_last_event(Event::SettingsScheduled { run: 0, window: 2 }.into());
        roll_to_phase(1, Phase::Apply);
        assert_eq!(settings_now(), settings());
        roll_to_window(2);
        assert!(events().contains(&Event::SettingsApplied { run: 0, window: 2 }));
        assert_eq!(settings_now(), changed);
        assert_eq!(settings_of(1), settings());
        assert_eq!(settings_of(2), changed);
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
        invalid.incentive.knee_ppm = 1;
        assert_noop!(
            Gauntlet::set_params(origin(owner()), 0, invalid.into()),
            Error::<Test>::SettingOutOfRange
        );
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
