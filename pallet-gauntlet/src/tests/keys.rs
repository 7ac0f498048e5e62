//! Hot keys rotate, seats go from one cold key to another.

use frame_support::{assert_noop, assert_ok};
use protocol::{consent::Role, entry::Seat, settings::SCORE_VERSION, window::Phase};

use crate::{mock::*, *};

fn origin(who: AccountId) -> RuntimeOrigin {
    RuntimeOrigin::signed(who)
}

fn rotate(cold: AccountId, seat: Seat, hot: AccountId) -> sp_runtime::DispatchResult {
    let proof = consent(seat.role(), &cold, &hot);
    Gauntlet::rotate_hot_key(origin(cold), 0, seat, hot, proof)
}

#[test]
fn a_rotated_hot_key_signs_from_the_next_window_on_and_the_old_one_finishes_the_open_one() {
    let seat = Seat::Miner(0);
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        roll_to_window(0);
        commit(0, 0, 0, GENESIS_ROOT);
        assert_ok!(Gauntlet::do_announce(miner_hot(0), 0, Default::default(), Default::default()));
        assert_ok!(rotate(miner_cold(0), seat, miner_hot(7)));
        System::assert_last_event(
            Event::HotKeyRotating { run: 0, seat, hot: miner_hot(7), window: 1 }.into(),
        );
        // The new key can sign nothing yet, but may say how it will be reached.
        assert_noop!(
            Gauntlet::do_commit_update(miner_hot(7), 0, 0, [1; 32]),
            Error::<Test>::NotYetActive
        );
        assert_ok!(Gauntlet::do_announce(miner_hot(7), 0, Default::default(), Default::default()));
        roll_to_phase(0, Phase::Reveal);
        assert_ok!(reveal(0, 0, 0, GENESIS_ROOT));
        roll_to_phase(0, Phase::AttestCommit);
        attest(0, 0, &[0], GENESIS_ROOT);

        roll_to_window(1);
        assert!(events().contains(&Event::HotKeyRotated { run: 0, seat, hot: miner_hot(7) }));
        let miner = Miners::<Test>::get(0, 0).unwrap();
        assert_eq!((miner.hot, miner.registered_window), (miner_hot(7), 0));
        assert_noop!(
            Gauntlet::do_commit_update(miner_hot(0), 0, 1, [1; 32]),
            Error::<Test>::MinerUnknown
        );
        assert!(!Announcements::<Test>::contains_key(0, miner_hot(0)));
        assert!(Announcements::<Test>::contains_key(0, miner_hot(7)));
        commit(1, 7, 7, GENESIS_ROOT);
        // Standing and pay are the slot's.
        score_window(0, 1, 1);
        assert!(claimable(&miner_cold(0)) > 0);
        assert!(Miners::<Test>::get(0, 0).unwrap().standing.scored_windows > 0);
        // The old key is free.
        assert_eq!(System::sufficients(&miner_hot(0)), 0);
        assert_eq!(register_miner(miner_cold(3), miner_hot(0)), Ok(2));
    });
}

#[test]
fn a_validator_s_hot_key_rotates_between_two_windows() {
    let seat = Seat::Validator(0);
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        play_window(0, 1, 1);
        assert_ok!(rotate(validator_cold(0), seat, validator_hot(9)));
        roll_to_window(1);
        let hash = score_hash(0, 9, &evaluations(1), [9; 32]);
        assert_noop!(
            Gauntlet::do_commit_scores(validator_hot(0), 0, 0, hash, SCORE_VERSION),
            Error::<Test>::ValidatorUnknown
        );
        assert_ok!(Gauntlet::do_commit_scores(validator_hot(9), 0, 0, hash, SCORE_VERSION));
        roll_to(System::block_number() + 8);
        reveal_scores(0, 9, &evaluations(1));
        roll_to_settlement(0);
        assert!(claimable(&validator_cold(0)) > 0);
    });
}

#[test]
fn a_later_rotation_replaces_the_one_that_waits() {
    let seat = Seat::Miner(0);
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        assert_ok!(rotate(miner_cold(0), seat, miner_hot(7)));
        assert_noop!(rotate(miner_cold(0), seat, miner_hot(1)), Error::<Test>::HotKeyTaken);
        assert_noop!(rotate(miner_cold(1), seat, miner_hot(8)), Error::<Test>::NotColdKey);
        assert_noop!(register_miner(miner_cold(3), miner_hot(7)), Error::<Test>::HotKeyTaken);
        let not_its_own = consent(Role::Miner, &miner_cold(0), &miner_hot(7));
        assert_noop!(
            Gauntlet::rotate_hot_key(origin(miner_cold(0)), 0, seat, miner_hot(8), not_its_own),
            Error::<Test>::HotKeyProofInvalid
        );
        assert_ok!(rotate(miner_cold(0), seat, miner_hot(8)));
        assert_eq!(System::sufficients(&miner_hot(7)), 0);
        roll_to_window(0);
        assert_eq!(Miners::<Test>::get(0, 0).unwrap().hot, miner_hot(8));
        assert_eq!(register_miner(miner_cold(3), miner_hot(7)), Ok(2));
    });
}

#[test]
fn a_rotation_that_waits_goes_with_its_miner() {
    ExtBuilder::default().participants(1, 0).build_and_execute(|| {
        assert_ok!(rotate(miner_cold(0), Seat::Miner(0), miner_hot(7)));
        assert_ok!(Gauntlet::do_leave_miner(miner_cold(0), 0, 0));
        assert_eq!(register_miner(miner_cold(1), miner_hot(7)), Ok(0));
        roll_to_window(1);
        let miner = Miners::<Test>::get(0, 0).unwrap();
        assert_eq!((miner.hot, miner.cold), (miner_hot(7), miner_cold(1)));
    });
}

#[test]
fn a_seat_goes_to_another_cold_key_after_a_delay_with_what_is_held_for_it() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        for (seat, old, reason, held) in [
            (Seat::Miner(0), miner_cold(0), HoldReason::MinerBond, 10 * UNIT),
            (Seat::Validator(0), validator_cold(0), HoldReason::ValidatorStake, 1_000 * UNIT),
        ] {
            let new = account(70);
            let accept = |who| Gauntlet::accept_cold(origin(who), 0, seat);
            let window = Gauntlet::metagraph(0, 0).unwrap().window.unwrap_or(0);
            assert_noop!(
                Gauntlet::offer_cold(origin(new.clone()), 0, seat, new.clone()),
                Error::<Test>::NotColdKey
            );
            assert_noop!(accept(new.clone()), Error::<Test>::NotOffered);
            assert_ok!(Gauntlet::offer_cold(origin(old.clone()), 0, seat, new.clone()));
            System::assert_last_event(
                Event::ColdOffered { run: 0, seat, to: new.clone(), window: window + 2 }.into(),
            );
            assert_noop!(accept(new.clone()), Error::<Test>::OfferNotDue);
            roll_to_window(window + 2);
            assert_noop!(accept(owner()), Error::<Test>::NotOffered);
            assert_ok!(accept(new.clone()));
            assert_eq!(Gauntlet::held(reason, &old), 0);
            assert_eq!(Gauntlet::held(reason, &new), held);
            assert_noop!(accept(new), Error::<Test>::NotOffered);
        }
        assert_eq!(Miners::<Test>::get(0, 0).unwrap().cold, account(70));
        assert_eq!(Validators::<Test>::get(0, 0).unwrap().cold, account(70));
        assert_noop!(Gauntlet::do_leave_miner(miner_cold(0), 0, 0), Error::<Test>::NotColdKey);
    });
}

#[test]
fn what_unbonds_of_a_stake_goes_with_its_seat() {
    let seat = Seat::Validator(0);
    ExtBuilder::default().participants(0, 1).build_and_execute(|| {
        let (old, new, nominator) = (validator_cold(0), account(70), account(80));
        assert_ok!(Gauntlet::delegate(origin(nominator.clone()), 0, 0, 500 * UNIT));
        for window in 0..2 {
            roll_to_window(window);
            assert_ok!(Gauntlet::unstake(origin(old.clone()), 0, 0, 100 * UNIT));
        }
        roll_to_window(2);
        assert_ok!(Gauntlet::undelegate(origin(nominator), 0, 0, 500 * UNIT));
        assert_ok!(Gauntlet::do_offer_cold(old.clone(), 0, seat, new.clone()));
        roll_to_window(4);
        assert_ok!(Gauntlet::do_accept_cold(new.clone(), 0, seat));
        assert_eq!(Gauntlet::held(HoldReason::ValidatorStake, &old), 0);
        assert_eq!(Gauntlet::held(HoldReason::ValidatorStake, &new), 1_000 * UNIT);
    });
}

#[test]
fn the_old_cold_key_takes_an_offer_back() {
    let seat = Seat::Miner(0);
    ExtBuilder::default().participants(1, 0).build_and_execute(|| {
        let cancel = |who| Gauntlet::cancel_cold(origin(who), 0, seat);
        assert_noop!(cancel(miner_cold(0)), Error::<Test>::NotOffered);
        assert_ok!(Gauntlet::do_offer_cold(miner_cold(0), 0, seat, account(70)));
        assert_noop!(cancel(account(70)), Error::<Test>::NotColdKey);
        assert_ok!(cancel(miner_cold(0)));
        roll_to_window(5);
        assert_noop!(Gauntlet::do_accept_cold(account(70), 0, seat), Error::<Test>::NotOffered);
    });
}
