//! Slashes: whom they reach, who gets them, and who can stop them.

use frame_support::{assert_noop, assert_ok};
use sp_runtime::DispatchError;

use crate::{mock::*, *};

fn reporter() -> AccountId {
    account(90)
}

fn nominator() -> AccountId {
    account(80)
}

fn defer(offender: Offender, window: protocol::Window, amount: protocol::Planck) {
    Gauntlet::defer_slash(0, offender, window, amount, Some(reporter()));
}

#[test]
fn a_slash_takes_in_proportion_and_half_goes_to_the_reporter() {
    ExtBuilder::default().participants(0, 1).build_and_execute(|| {
        assert_ok!(Gauntlet::delegate(RuntimeOrigin::signed(nominator()), 0, 0, 3_000 * UNIT));
        let before = issuance();
        assert_eq!(Gauntlet::slash_pool(0, 0, 0, 400 * UNIT, Some(&reporter())), 400 * UNIT);
        assert_eq!(total_balance(&validator_cold(0)), ENDOWMENT - 100 * UNIT);
        assert_eq!(pool(0).delegated.amount, 2_700 * UNIT);
        assert_eq!(Validators::<Test>::get(0, 0).unwrap().stake, 3_600 * UNIT);
        assert_eq!(total_balance(&reporter()), ENDOWMENT + 200 * UNIT);
        assert_eq!(issuance(), before - 200 * UNIT);
        // The nominator's shares are the same and worth less.
        let shares = Delegations::<Test>::get((0, 0, nominator())).shares;
        assert_eq!(shares, 3_000 * UNIT);
        assert_eq!(pool(0).delegated.value_of(shares), Some(2_700 * UNIT));
    });
}

#[test]
fn a_slash_takes_no_more_than_there_is() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        let before = issuance();
        assert_eq!(Gauntlet::slash_miner(0, (0, 0), u128::MAX, None), 10 * UNIT);
        assert_eq!(Gauntlet::slash_miner(0, (0, 0), u128::MAX, None), 0);
        assert_eq!(Gauntlet::slash_pool(0, 0, 0, u128::MAX, None), 1_000 * UNIT);
        assert_eq!(issuance(), before - 1_010 * UNIT, "without reporter all of it is burned");
        assert!(!Validators::<Test>::contains_key(0, 0), "below the least stake the slot is lost");
        assert_eq!(Gauntlet::slash_pool(0, 0, 0, u128::MAX, None), 0);
        assert_eq!(Gauntlet::slash_miner(0, (7, 0), u128::MAX, None), 0);
    });
}

#[test]
fn what_left_before_the_fault_is_free_and_what_left_after_is_not() {
    ExtBuilder::default().participants(0, 1).build_and_execute(|| {
        let cold = validator_cold(0);
        let unstake = |amount| Gauntlet::unstake(RuntimeOrigin::signed(cold.clone()), 0, 0, amount);
        assert_ok!(Gauntlet::delegate(RuntimeOrigin::signed(nominator()), 0, 0, 200 * UNIT));
        roll_to_window(1);
        assert_ok!(unstake(400 * UNIT));
        roll_to_window(3);
        assert_ok!(unstake(200 * UNIT));
        let leave = Gauntlet::undelegate(RuntimeOrigin::signed(nominator()), 0, 0, 100 * UNIT);
        assert_ok!(leave);
        // A fault of window 2: 400 + 200 of the validator's own answer, and 100 + 100 of its nominator's.
        assert_eq!(Gauntlet::slash_pool(0, 0, 2, 80 * UNIT, None), 80 * UNIT);
        let unbonding = |began| Unbondings::<Test>::get((0, 0, began)).unwrap();
        assert_eq!(unbonding(1).own, 400 * UNIT);
        assert_eq!(unbonding(3).own, 180 * UNIT);
        assert_eq!(unbonding(3).delegated.amount, 90 * UNIT);
        assert_eq!((pool(0).own, pool(0).delegated.amount), (360 * UNIT, 90 * UNIT));
        roll_to_window(19);
        assert_ok!(Gauntlet::withdraw_unbonded(RuntimeOrigin::signed(nominator()), 0, 0));
        assert_eq!(Balances::free_balance(nominator()), ENDOWMENT - 110 * UNIT);
        assert_ok!(Gauntlet::withdraw_unbonded(RuntimeOrigin::signed(cold.clone()), 0, 0));
        assert_eq!(total_balance(&cold), ENDOWMENT - 60 * UNIT);
    });
}

#[test]
fn a_slash_waits_and_can_be_cancelled() {
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        roll_to_window(1);
        let miner = |uid| Offender::Miner { uid, registered_window: 0 };
        defer(miner(0), 1, 4 * UNIT);
        defer(miner(1), 1, 4 * UNIT);
        assert_noop!(
            Gauntlet::cancel_slash(RuntimeOrigin::signed(owner()), 0, 0),
            DispatchError::BadOrigin
        );
        assert_ok!(Gauntlet::cancel_slash(RuntimeOrigin::root(), 0, 0));
        assert_noop!(
            Gauntlet::cancel_slash(RuntimeOrigin::root(), 0, 0),
            Error::<Test>::SlashUnknown
        );
        let last = run().schedule.window_start(3).unwrap() - 1;
        roll_to(last);
        assert_eq!(Miners::<Test>::get(0, 1).unwrap().bond, 10 * UNIT);
        roll_to_window(3);
        assert!(events().contains(&Event::Slashed {
            run: 0,
            slash: 1,
            offender: miner(1),
            amount: 4 * UNIT,
            reporter: Some(reporter()),
        }));
        assert_eq!(Miners::<Test>::get(0, 0).unwrap().bond, 10 * UNIT);
        assert_eq!(Miners::<Test>::get(0, 1).unwrap().bond, 6 * UNIT);
        assert_eq!(SlashQueues::<Test>::get(0), SlashQueue { next: 2, end: 2 });
    });
}

#[test]
fn the_bond_of_who_left_answers_and_not_that_of_who_came_into_the_slot() {
    ExtBuilder::default().participants(1, 0).build_and_execute(|| {
        roll_to_window(0);
        defer(Offender::Miner { uid: 0, registered_window: 0 }, 2, 4 * UNIT);
        assert_ok!(Gauntlet::leave_miner(RuntimeOrigin::signed(miner_cold(0)), 0, 0));
        while Miners::<Test>::contains_key(0, 0) {
            roll_to(System::block_number() + 1);
        }
        assert_eq!(register_miner(miner_cold(1), miner_hot(1)), Ok(0));
        roll_to_window(5);
        assert_eq!(Miners::<Test>::get(0, 0).unwrap().bond, 10 * UNIT);
        assert_eq!(Departures::<Test>::get(0, (0, 0)).unwrap().bond, 6 * UNIT);
    });
}

#[test]
fn who_has_too_little_bond_left_for_a_fault_leaves() {
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        roll_to_window(1);
        let miner = |uid| Offender::Miner { uid, registered_window: 0 };
        // A half of its bond is what a fault costs: one has just enough left for another one, the other has not.
        defer(miner(0), 1, 5 * UNIT);
        defer(miner(1), 1, 5 * UNIT + 1);
        roll_to_window(3);
        assert_eq!(Miners::<Test>::get(0, 0).unwrap().last_window, None);
        assert_eq!(Miners::<Test>::get(0, 1).unwrap().last_window, Some(3));
        assert!(events().contains(&Event::MinerLeaving { run: 0, uid: 1, last_window: 3 }));
        roll_to_window(6);
        assert!(Miners::<Test>::contains_key(0, 0) && !Miners::<Test>::contains_key(0, 1));
        // What is left of its bond waits as anybody's.
        let departure = Departures::<Test>::get(0, (1, 0)).unwrap();
        assert_eq!((departure.bond, departure.last), (5 * UNIT - 1, 3));
    });
}

/// A pool of which nothing is left goes at once; one of which nominators have worthless shares goes with the last of them.
#[test]
fn a_pool_that_is_slashed_to_nothing_goes() {
    ExtBuilder::default().participants(0, 2).build_and_execute(|| {
        assert_ok!(Gauntlet::delegate(RuntimeOrigin::signed(nominator()), 0, 1, 500 * UNIT));
        assert_ok!(Gauntlet::delegate(RuntimeOrigin::signed(reporter()), 0, 1, 500 * UNIT));
        roll_to_window(1);
        let leave = |who| Gauntlet::undelegate(RuntimeOrigin::signed(who), 0, 1, 500 * UNIT);
        assert_ok!(leave(nominator()));
        for pool in [0, 1] {
            assert!(Gauntlet::slash_pool(0, pool, 0, u128::MAX, None) >= 1_000 * UNIT);
        }
        assert_eq!(Pools::<Test>::get(0, 0), None);
        assert_ok!(leave(reporter()));
        roll_to_window(40);
        assert!(Pools::<Test>::contains_key(0, 1));
        assert_ok!(Gauntlet::withdraw_unbonded(RuntimeOrigin::signed(nominator()), 0, 1));
        assert_eq!(Pools::<Test>::get(0, 1), None);
        assert_eq!(Unbondings::<Test>::iter().count(), 0);
        assert_eq!(Delegations::<Test>::iter().count(), 0);
    });
}
