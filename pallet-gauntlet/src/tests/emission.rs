//! The ledger, claims, sponsors, weights and the emission schedules.

use frame_support::{assert_noop, assert_ok};
use protocol::{emission::Halving, Planck};
use sp_runtime::DispatchError;

use crate::{
    emission_schedule::{EmissionSchedule, HalvingMint, Pot},
    mock::*,
    *,
};

/// Window 0 of two miners and a validator, settled in window 1.
fn settled(test: impl FnOnce()) {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        play_window(0, 2, 1);
        score_window(0, 2, 1);
        test();
    });
}

fn claim(account: AccountId) -> sp_runtime::DispatchResult {
    Gauntlet::claim(RuntimeOrigin::signed(miner_cold(9)), 0, account)
}

#[test]
fn pay_is_claimed_after_the_delay() {
    settled(|| {
        let due = claimable(&miner_cold(1));
        assert_noop!(claim(miner_cold(1)), Error::<Test>::NothingClaimable);
        roll_to_window(2);
        let before = Balances::free_balance(miner_cold(1));
        assert_ok!(claim(miner_cold(1)));
        System::assert_last_event(
            Event::Claimed { run: 0, account: miner_cold(1), amount: due }.into(),
        );
        assert_eq!(Balances::free_balance(miner_cold(1)), before + due);
        assert_eq!(ledger().paid, due);
        assert_noop!(claim(miner_cold(1)), Error::<Test>::NothingClaimable);
        assert_noop!(
            Gauntlet::claim(RuntimeOrigin::signed(owner()), 3, owner()),
            Error::<Test>::RunUnknown
        );
    });
}

#[test]
fn one_call_claims_for_many_and_passes_over_who_may_not_yet() {
    settled(|| {
        let batch = |accounts: &[AccountId]| {
            let claims = accounts.iter().map(|account| (0, account.clone())).collect::<Vec<_>>();
            Gauntlet::claim_many(RuntimeOrigin::signed(owner()), claims.try_into().unwrap())
        };
        let everybody = [owner(), account(99), miner_cold(0), miner_cold(1), validator_cold(0)];
        assert_noop!(batch(&everybody), Error::<Test>::NothingClaimable);
        roll_to_window(2);
        let owed = ledger().claimable;
        assert_ok!(batch(&everybody));
        assert_eq!((ledger().claimable, ledger().paid), (0, owed));
        assert_noop!(batch(&everybody), Error::<Test>::NothingClaimable);
        assert_noop!(batch(&[]), Error::<Test>::NothingClaimable);
    });
}

#[test]
fn everything_can_be_claimed_and_the_foundation_stays() {
    settled(|| {
        roll_to_window(2);
        let accounts = [owner(), miner_cold(0), miner_cold(1), validator_cold(0)];
        for account in accounts {
            assert_ok!(claim(account));
        }
        assert_eq!(ledger().claimable, 0);
        assert_eq!(run_balance(0), EXISTENTIAL_DEPOSIT + carried());
        assert_eq!(Claims::<Test>::iter_prefix(0).count(), 0);
    });
}

#[test]
fn who_left_keeps_its_claims() {
    settled(|| {
        Gauntlet::do_leave_miner(miner_cold(0), 0, 0).unwrap();
        roll_to_window(2);
        assert_ok!(claim(miner_cold(0)));
    });
}

#[test]
fn only_what_is_due_is_paid() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        for window in 0..3 {
            play_window(window, 2, 1);
        }
        // Windows 0 and 1 are settled; only window 0 is due.
        let claims = Claims::<Test>::get(0, miner_cold(0));
        assert_eq!(claims.iter().map(|claim| claim.due).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(Gauntlet::do_claim(0, miner_cold(0)), Ok(claims[0].amount));
        assert_eq!(Claims::<Test>::get(0, miner_cold(0)).to_vec(), [claims[1]]);
    });
}

#[test]
fn without_a_final_root_nobody_is_paid_and_each_group_carries_its_part() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        for window in 0..3 {
            roll_to_settlement(window);
            assert_eq!(record(window).state_root, None);
            assert_eq!(record(window).status, WindowStatus::Settled);
        }
        assert_eq!(ledger().claimable, 0);
        let carried = Pots { owner: 30 * UNIT, miners: 180 * UNIT, validators: 90 * UNIT };
        assert_eq!(ledger().carried(), carried);
    });
}

#[test]
fn only_governance_sets_weights_and_a_change_counts_from_the_next_window() {
    ExtBuilder::default().weight(0).build_and_execute(|| {
        let weigh = |origin, run, weight| Gauntlet::set_run_weight(origin, run, weight);
        let signed = RuntimeOrigin::signed(owner());
        assert_noop!(weigh(signed, 0, 1), DispatchError::BadOrigin);
        assert_noop!(weigh(RuntimeOrigin::root(), 7, 1), Error::<Test>::RunUnknown);
        roll_to_window(1);
        assert_ok!(weigh(RuntimeOrigin::root(), 0, 1));
        System::assert_last_event(Event::RunWeightSet { run: 0, weight: 1 }.into());
        roll_to_window(3);
        assert_ok!(weigh(RuntimeOrigin::root(), 0, 0));
        roll_to_settlement(5);
        let budgets: Vec<_> = (0..6).map(|window| record(window).budget / UNIT).collect();
        assert_eq!(budgets, [0, 0, 100, 100, 0, 0]);
        let minted: Vec<_> = (0..6).map(|window| record(window).minted / UNIT).collect();
        assert_eq!(minted, budgets);
        assert_eq!(Emitted::<Test>::get(), 200 * UNIT);
    });
}

#[test]
fn runs_divide_the_schedule_whatever_their_windows() {
    ExtBuilder::default().build_and_execute(|| {
        let mut quick = settings();
        let schedule = &mut quick.schedule;
        (schedule.start_block, schedule.window_blocks) = (8, 7);
        (schedule.commit_end, schedule.reveal_end) = (2, 4);
        (schedule.attest_commit_end, schedule.attest_end) = (5, 6);
        (schedule.score_commit_end, schedule.score_reveal_end) = (2, 4);
        assert_eq!(Gauntlet::do_create_run(account(2), quick, layout()), Ok(1));
        assert_ok!(Gauntlet::do_set_run_weight(1, 3));
        roll_to(400);
        let (one, other) = (ledger().minted, Ledgers::<Test>::get(1).minted);
        assert_eq!(Emitted::<Test>::get(), one + other);
        // One window of each is not settled yet.
        let given = TestEmission::through(400);
        let open = (20 + 12) * PER_BLOCK / 4 + 2 * 7 * PER_BLOCK * 3 / 4 + 13 * PER_BLOCK;
        assert!(one + other <= given && one + other + open >= given, "{one} {other} {given}");
        assert!(other > 5 * one / 2, "{one} {other}");
    });
}

#[test]
fn a_mint_halves_and_ends_at_its_cap() {
    let schedule =
        Halving { start_block: 5, per_block: 4 * UNIT, halving_blocks: 40, cap: 250 * UNIT };
    ExtBuilder::default().build_and_execute(|| {
        Schedule::set(schedule);
        let before = Balances::total_issuance();
        let minted: Vec<_> = (0..6)
            .map(|window| {
                roll_to_settlement(window);
                record(window).minted / UNIT
            })
            .collect();
        assert_eq!(minted, [80, 80, 40, 40, 10, 0]);
        assert_eq!(Balances::total_issuance() - before, schedule.cap);
    });
}

#[test]
fn a_sponsor_feeds_a_run_window_by_window() {
    ExtBuilder::default().weight(0).participants(2, 1).build_and_execute(|| {
        let fund = |who: u8, amount, per_window| {
            Gauntlet::fund_run(RuntimeOrigin::signed(account(who)), 0, amount, per_window)
        };
        let too_small = || Error::<Test>::FundingTooSmall;
        assert_noop!(fund(91, EXISTENTIAL_DEPOSIT - 1, UNIT), too_small());
        assert_noop!(fund(91, UNIT, 0), too_small());
        let unknown = Gauntlet::fund_run(RuntimeOrigin::signed(account(91)), 9, UNIT, UNIT);
        assert_noop!(unknown, Error::<Test>::RunUnknown);
        let before = Balances::free_balance(account(91));
        assert_ok!(fund(91, 250 * UNIT, 100 * UNIT));
        assert_eq!(Balances::free_balance(account(91)), before - 250 * UNIT);
        assert_eq!(Gauntlet::unspent(0), 250 * UNIT);
        for window in 0..4 {
            play_window(window, 2, 1);
        }
        roll_to_settlement(3);
        let funded: Vec<_> = (0..4).map(|window| record(window).funded / UNIT).collect();
        assert_eq!(funded, [100, 100, 50, 0]);
        assert_eq!((ledger().minted, ledger().funded, ledger().unspent), (0, 250 * UNIT, 0));
        assert_eq!(claimable(&owner()), 25 * UNIT);
    });
}

#[test]
fn a_chain_without_emission_has_runs_that_live_on_their_sponsors() {
    EmissionOf::set(Source::Nothing);
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        assert_ok!(Gauntlet::do_fund_run(account(91), 0, 100 * UNIT, 40 * UNIT));
        let issued = Balances::total_issuance();
        for window in 0..4 {
            play_window(window, 2, 1);
        }
        assert_eq!((ledger().minted, ledger().funded), (0, 100 * UNIT));
        assert_eq!(claimable(&owner()), 10 * UNIT);
        assert_eq!(Balances::total_issuance(), issued);
    });
    EmissionOf::set(Source::Mint);
}

#[test]
fn a_full_list_of_sponsors_gives_the_least_of_them_its_money_back() {
    ExtBuilder::default().build_and_execute(|| {
        for who in 0..SPONSORS_MAX as u8 {
            let amount = if who == 4 { UNIT } else { 2 * UNIT };
            assert_ok!(Gauntlet::do_fund_run(account(30 + who), 0, amount, UNIT));
        }
        let full = Error::<Test>::TooManySponsors;
        assert_noop!(Gauntlet::do_fund_run(account(91), 0, UNIT, UNIT), full);
        assert_ok!(Gauntlet::do_fund_run(account(91), 0, 2 * UNIT, UNIT));
        assert_eq!(claimable(&account(34)), UNIT);
        assert_ok!(claim(account(34)));
        assert_eq!(Balances::free_balance(account(34)), ENDOWMENT);
    });
}

#[test]
fn a_paused_run_earns_nothing_and_the_last_window_of_a_closed_one_has_its_budget() {
    ExtBuilder::default().build_and_execute(|| {
        let root = RuntimeOrigin::root;
        roll_to_window(0);
        assert_ok!(Gauntlet::pause_run(root(), 0));
        // The window that was open when the pause began is the last one that earns.
        roll_to_window(3);
        assert_ok!(Gauntlet::resume_run(root(), 0));
        roll_to_window(5);
        assert_ok!(Gauntlet::close_run(root(), 0));
        roll_to_settlement(5);
        let budgets: Vec<_> = (0..6).map(|window| record(window).budget / UNIT).collect();
        assert_eq!(budgets, [100, 0, 0, 0, 100, 100]);
        assert_eq!(record(5).minted, 100 * UNIT);
        assert_eq!(ChainAccrual::<Test>::get().total_weight, 0);
        let closing = || Error::<Test>::RunClosing;
        assert_noop!(Gauntlet::set_run_weight(root(), 0, 5), closing());
        assert_noop!(Gauntlet::do_fund_run(account(91), 0, UNIT, UNIT), closing());
    });
}

#[test]
fn what_is_left_of_a_run_goes_back_to_where_it_came_from() {
    ExtBuilder::default().build_and_execute(|| {
        assert_ok!(Gauntlet::do_fund_run(account(91), 0, 1_000 * UNIT, 300 * UNIT));
        let issued = Balances::total_issuance();
        roll_to_settlement(0);
        // 100 UNIT of the mint and 300 of the sponsor are carried.
        assert_eq!((carried(), ledger().unspent), (400 * UNIT, 700 * UNIT));
        Gauntlet::sweep_run(0);
        System::assert_last_event(
            Event::RunSwept { run: 0, refunded: 1_000 * UNIT, given_back: 100 * UNIT }.into(),
        );
        assert_eq!(Balances::total_issuance(), issued);
        assert_ok!(claim(account(91)));
        assert_eq!(Balances::free_balance(account(91)), ENDOWMENT);
        assert_eq!((carried(), ledger().held(), ledger().burned), (0, Some(0), 100 * UNIT));
        assert_eq!(ChainAccrual::<Test>::get().total_weight, 0);
        roll_to_settlement(1);
        assert_eq!(record(1).minted, 0, "a run that was swept has no weight");
    });
}

frame_support::parameter_types! {
    pub PotSource: AccountId = account(90);
    pub const PerBlock: Planck = 3;
    pub Absurd: Halving = Halving {
        start_block: 0,
        per_block: Planck::MAX,
        halving_blocks: 0,
        cap: Planck::MAX,
    };
}

#[test]
fn schedules_give_what_they_have_and_take_back_what_is_left() {
    type OnePot = Pot<Balances, PotSource, PerBlock>;
    type Mint = HalvingMint<Balances, Absurd>;
    new_test_ext().execute_with(|| {
        let to = account(91);
        let before = Balances::free_balance(&to);
        type Nothing = ();
        assert_eq!(<Nothing as EmissionSchedule<AccountId>>::through(u32::MAX), 0);
        assert_eq!(<Nothing as EmissionSchedule<AccountId>>::draw(&to, UNIT), 0);
        assert_eq!(<Nothing as EmissionSchedule<AccountId>>::give_back(&to, UNIT), 0);

        assert_eq!(<Mint as EmissionSchedule<AccountId>>::through(9), Planck::MAX);
        assert_eq!(Mint::draw(&to, UNIT), UNIT);
        assert_eq!(Mint::draw(&to, Planck::MAX), 0, "more than can be counted");
        assert_eq!(Mint::give_back(&to, UNIT), UNIT);

        assert_eq!(<OnePot as EmissionSchedule<AccountId>>::through(9), 27);
        assert_eq!(OnePot::draw(&to, UNIT), UNIT);
        assert_eq!(OnePot::give_back(&to, UNIT), UNIT);
        let all = Balances::free_balance(account(90)) - EXISTENTIAL_DEPOSIT;
        assert_eq!(OnePot::draw(&to, u128::MAX), all);
        assert_eq!(OnePot::draw(&to, UNIT), 0);
        assert_eq!(Balances::free_balance(&to), before + all);
    });
}
