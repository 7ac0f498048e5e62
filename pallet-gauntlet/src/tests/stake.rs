//! The money of validators and their nominators: stake, delegation, take, unbonding.

use frame_support::{assert_noop, assert_ok};
use protocol::{consent::Role, pool::Pool};
use sp_runtime::TokenError;

use crate::{mock::*, *};

fn origin(who: AccountId) -> RuntimeOrigin {
    RuntimeOrigin::signed(who)
}

fn nominator(number: u8) -> AccountId {
    account(80 + number)
}

fn stake(index: u16) -> protocol::Planck {
    Validators::<Test>::get(0, index).unwrap().stake
}

fn delegate(number: u8, index: u16, amount: protocol::Planck) {
    assert_ok!(Gauntlet::delegate(origin(nominator(number)), 0, index, amount));
}

fn shares(number: u8, pool: PoolId) -> u128 {
    Delegations::<Test>::get((0, pool, nominator(number))).shares
}

#[test]
fn validator_stakes_at_least_the_least() {
    ExtBuilder::default().build_and_execute(|| {
        let register = |stake| {
            let (cold, hot) = (validator_cold(0), validator_hot(0));
            let proof = consent(Role::Validator, &cold, &hot);
            Gauntlet::register_validator(origin(cold), 0, hot, proof, stake)
        };
        assert_noop!(register(UNIT), Error::<Test>::StakeTooLow);
        assert_noop!(register(u128::MAX), TokenError::FundsUnavailable);
        assert_ok!(register(100 * UNIT));
        assert_noop!(register(100 * UNIT), Error::<Test>::HotKeyTaken);
        let add = |who, index, amount| Gauntlet::add_stake(origin(who), 0, index, amount);
        assert_noop!(add(owner(), 0, UNIT), Error::<Test>::NotColdKey);
        assert_noop!(add(validator_cold(0), 9, UNIT), Error::<Test>::ValidatorUnknown);
        assert_noop!(add(validator_cold(0), 0, u128::MAX), Error::<Test>::StakeTooHigh);
        assert_ok!(add(validator_cold(0), 0, UNIT));
        System::assert_last_event(Event::StakeAdded { run: 0, index: 0, stake: 101 * UNIT }.into());
        assert_eq!(Gauntlet::held(HoldReason::ValidatorStake, &validator_cold(0)), 101 * UNIT);
    });
}

#[test]
fn stake_leaves_in_parts_and_each_waits_for_its_own_window() {
    ExtBuilder::default().participants(0, 1).build_and_execute(|| {
        let cold = validator_cold(0);
        let unstake = |amount| Gauntlet::unstake(origin(cold.clone()), 0, 0, amount);
        let withdraw = || Gauntlet::withdraw_unbonded(origin(cold.clone()), 0, 0);
        let held = || Gauntlet::held(HoldReason::ValidatorStake, &cold);
        assert_noop!(unstake(0), Error::<Test>::NothingToUnbond);
        assert_noop!(unstake(901 * UNIT), Error::<Test>::StakeTooLow);
        assert_noop!(Gauntlet::unstake(origin(owner()), 0, 0, UNIT), Error::<Test>::NotColdKey);
        roll_to_window(0);
        assert_ok!(unstake(300 * UNIT));
        assert_ok!(unstake(100 * UNIT));
        roll_to_window(2);
        assert_ok!(unstake(500 * UNIT));
        assert_eq!((stake(0), held()), (100 * UNIT, 1_000 * UNIT));
        roll_to_window(15);
        assert_noop!(withdraw(), Error::<Test>::NothingUnbonded);
        roll_to_window(16);
        assert_ok!(withdraw());
        assert_eq!(held(), 600 * UNIT);
        assert_noop!(withdraw(), Error::<Test>::NothingUnbonded);
        roll_to_window(18);
        assert_ok!(withdraw());
        assert_eq!(held(), 100 * UNIT);
    });
}

/// A rule that changes later does not lock what left before.
#[test]
fn a_longer_unbonding_leaves_what_unbonds_alone() {
    ExtBuilder::default().participants(0, 1).build_and_execute(|| {
        roll_to_window(0);
        assert_ok!(Gauntlet::unstake(origin(validator_cold(0)), 0, 0, 300 * UNIT));
        let mut longer = settings();
        longer.staking.unbonding_windows *= 2;
        assert_ok!(Gauntlet::set_params(origin(owner()), 0, longer.into()));
        roll_to_window(16);
        assert_ok!(Gauntlet::withdraw_unbonded(origin(validator_cold(0)), 0, 0));
        assert_eq!(Gauntlet::held(HoldReason::ValidatorStake, &validator_cold(0)), 700 * UNIT);
    });
}

#[test]
fn stake_unbonds_for_the_dispute_period_at_least() {
    new_test_ext().execute_with(|| {
        let mut short = settings();
        short.staking.unbonding_windows = 11;
        assert_noop!(
            Gauntlet::create_run(origin(owner()), short.into(), layout()),
            Error::<Test>::UnbondingTooShort
        );
    });
}

#[test]
fn nominators_share_pay_by_what_they_put_in() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        let take = Gauntlet::set_take(origin(validator_cold(0)), 0, 0, 100_000);
        assert_ok!(take);
        delegate(0, 0, 3_000 * UNIT);
        delegate(1, 0, 1_000 * UNIT);
        assert_eq!(stake(0), 5_000 * UNIT);
        play_window(0, 2, 1);
        score_window(0, 2, 1);
        let pay = 30 * UNIT;
        let account = Gauntlet::pool_account(0, 0);
        let nominators = pay * 4 / 5 * 9 / 10;
        assert!(claimable(&account).abs_diff(nominators) <= 30, "{}", claimable(&account));
        assert!(claimable(&validator_cold(0)).abs_diff(pay - nominators) <= 30);
        let nominators = claimable(&account);

        assert_noop!(Gauntlet::compound(origin(owner()), 0, 0), Error::<Test>::NothingClaimable);
        roll_to_window(2);
        assert_ok!(Gauntlet::compound(origin(owner()), 0, 0));
        System::assert_last_event(Event::Compounded { run: 0, pool: 0, amount: nominators }.into());
        assert_eq!(stake(0), 5_000 * UNIT + nominators);
        let value = |number| pool(0).delegated.value_of(shares(number, 0)).unwrap();
        assert!(value(0).abs_diff(3 * value(1)) <= 3, "three quarters and one");
    });
}

#[test]
fn who_joins_late_has_no_part_of_what_was_due_before() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        delegate(0, 0, 1_000 * UNIT);
        play_window(0, 2, 1);
        score_window(0, 2, 1);
        roll_to_window(2);
        let due = claimable(&Gauntlet::pool_account(0, 0));
        delegate(1, 0, 9_000 * UNIT);
        let value = |number| pool(0).delegated.value_of(shares(number, 0)).unwrap();
        assert!(value(1) <= 9_000 * UNIT);
        assert!(value(0) >= 1_000 * UNIT + due - 1);
    });
}

#[test]
fn a_delegation_returns_after_it_has_unbonded() {
    ExtBuilder::default().participants(0, 1).build_and_execute(|| {
        let delegate_to =
            |index, amount| Gauntlet::delegate(origin(nominator(0)), 0, index, amount);
        assert_noop!(delegate_to(0, UNIT - 1), Error::<Test>::DelegationTooLow);
        assert_noop!(delegate_to(7, UNIT), Error::<Test>::ValidatorUnknown);
        assert_noop!(delegate_to(0, 2 * ENDOWMENT), TokenError::FundsUnavailable);
        roll_to_window(0);
        delegate(0, 0, 10 * UNIT);
        assert_eq!(Balances::free_balance(nominator(0)), ENDOWMENT - 10 * UNIT);
        let leave = |shares| Gauntlet::undelegate(origin(nominator(0)), 0, 0, shares);
        assert_noop!(leave(0), Error::<Test>::NothingToUnbond);
        assert_noop!(leave(10 * UNIT + 1), Error::<Test>::TooFewShares);
        assert_ok!(leave(4 * UNIT));
        assert_eq!(stake(0), 1_006 * UNIT);
        roll_to_window(1);
        assert_ok!(leave(6 * UNIT));
        assert_eq!(pool(0).delegated, Pool::default());
        roll_to_window(16);
        let withdraw = || Gauntlet::withdraw_unbonded(origin(nominator(0)), 0, 0);
        assert_ok!(withdraw());
        assert_eq!(Balances::free_balance(nominator(0)), ENDOWMENT - 6 * UNIT);
        roll_to_window(17);
        assert_ok!(withdraw());
        assert_eq!(Balances::free_balance(nominator(0)), ENDOWMENT);
        assert!(!Delegations::<Test>::contains_key((0, 0, nominator(0))));
    });
}

#[test]
fn nominators_of_a_validator_that_left_keep_their_money() {
    ExtBuilder::default().participants(0, 1).build_and_execute(|| {
        delegate(0, 0, 10 * UNIT);
        roll_to_window(0);
        assert_ok!(Gauntlet::deregister_validator(origin(validator_cold(0)), 0, 0));
        assert_noop!(
            Gauntlet::delegate(origin(nominator(1)), 0, 0, 10 * UNIT),
            Error::<Test>::ValidatorUnknown
        );
        // The next validator of the slot has another pool.
        let index =
            Gauntlet::do_register_validator(validator_cold(1), 0, validator_hot(1), 100 * UNIT);
        assert_eq!(index, Ok(0));
        assert_eq!(stake(0), 100 * UNIT);
        assert_ok!(Gauntlet::undelegate(origin(nominator(0)), 0, 0, 10 * UNIT));
        roll_to_window(16);
        assert_ok!(Gauntlet::withdraw_unbonded(origin(nominator(0)), 0, 0));
        assert_ok!(Gauntlet::withdraw_unbonded(origin(validator_cold(0)), 0, 0));
        assert_eq!(Balances::free_balance(nominator(0)), ENDOWMENT);
        assert_eq!(Balances::free_balance(validator_cold(0)), ENDOWMENT);
        // Nobody has anything in it: it is gone, with its account.
        assert!(!Pools::<Test>::contains_key(0, 0));
        assert_eq!(System::providers(&Gauntlet::pool_account(0, 0)), 0);
    });
}

#[test]
fn take_is_announced_before_it_rises() {
    ExtBuilder::default().participants(0, 1).build_and_execute(|| {
        let set = |ppm| Gauntlet::set_take(origin(validator_cold(0)), 0, 0, ppm);
        assert_noop!(Gauntlet::set_take(origin(nominator(0)), 0, 0, 0), Error::<Test>::NotColdKey);
        assert_noop!(set(180_001), Error::<Test>::TakeTooHigh);
        assert_ok!(set(50_000));
        assert_eq!(pool(0).take.at(0), 50_000);
        assert_noop!(set(60_001), Error::<Test>::TakeTooFast);
        assert_ok!(set(60_000));
        System::assert_last_event(
            Event::TakeSet { run: 0, pool: 0, ppm: 60_000, window: 16 }.into(),
        );
        assert_noop!(set(60_000), Error::<Test>::TakeWaiting);
        assert_eq!((pool(0).take.at(15), pool(0).take.at(16)), (50_000, 60_000));
    });
}
