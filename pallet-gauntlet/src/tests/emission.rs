//! The ledger, claims and the emission sources.

use frame_support::{assert_noop, assert_ok};

use crate::{
    emission::{EmissionSource, Mint, Pot},
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
fn everything_can_be_claimed_and_the_foundation_stays() {
    settled(|| {
        roll_to_window(2);
        let accounts = [owner(), miner_cold(0), miner_cold(1), validator_cold(0)];
        for account in accounts {
            assert_ok!(claim(account));
        }
        assert_eq!(ledger().claimable, 0);
        assert_eq!(run_balance(0), EXISTENTIAL_DEPOSIT + ledger().carried);
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
        assert_eq!(claims.iter().map(|(window, _)| *window).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(Gauntlet::do_claim(0, miner_cold(0)), Ok(claims[0].1));
        assert_eq!(Claims::<Test>::get(0, miner_cold(0)).to_vec(), [claims[1]]);
    });
}

#[test]
fn a_full_list_of_claims_joins_the_oldest_and_loses_nothing() {
    let mut unpaid = settings();
    unpaid.emission.owner_ppm = 1_000_000;
    unpaid.emission.miners_ppm = 0;
    unpaid.emission.validators_ppm = 0;
    unpaid.incentive.claim_delay_windows = 1_000;
    ExtBuilder::default().settings(unpaid).build().execute_with(|| {
        for window in 0..CLAIMS_MAX + 5 {
            roll_to_settlement(window.into());
        }
        let claims = Claims::<Test>::get(0, owner());
        assert_eq!(claims.len() as u32, CLAIMS_MAX);
        assert_eq!(claims[0], (5, 600 * UNIT));
        assert_eq!(ledger().claimable, 6_900 * UNIT);
        check_state();
    });
}

#[test]
fn emission_halves() {
    let mut halving = settings();
    halving.emission.halving_windows = 2;
    ExtBuilder::default().settings(halving).build_and_execute(|| {
        let minted: Vec<_> = (0..5)
            .map(|window| {
                roll_to_settlement(window);
                record(window).minted / UNIT
            })
            .collect();
        assert_eq!(minted, [100, 100, 50, 50, 25]);
    });
}

#[test]
fn a_window_beyond_what_can_be_counted_mints_nothing() {
    let mut absurd = settings();
    absurd.emission.per_window = u128::MAX;
    ExtBuilder::default().settings(absurd).participants(1, 1).build_and_execute(|| {
        roll_to_settlement(0);
        assert_eq!(record(0).minted, 0);
        assert_eq!(record(0).status, WindowStatus::Settled);
    });
}

frame_support::parameter_types! {
    pub Sponsor: AccountId = account(90);
}

#[test]
fn sources_give_what_they_have() {
    new_test_ext().execute_with(|| {
        let to = account(91);
        let before = Balances::free_balance(&to);
        assert_eq!(<() as EmissionSource<AccountId>>::issue(0, 0, &to, UNIT), 0);
        assert_eq!(Mint::<Balances>::issue(0, 0, &to, UNIT), UNIT);
        assert_eq!(Pot::<Balances, Sponsor>::issue(0, 0, &to, UNIT), UNIT);
        let all = Balances::free_balance(account(90)) - EXISTENTIAL_DEPOSIT;
        assert_eq!(Pot::<Balances, Sponsor>::issue(0, 0, &to, u128::MAX), all);
        assert_eq!(Pot::<Balances, Sponsor>::issue(0, 0, &to, UNIT), 0);
        assert_eq!(Balances::free_balance(&to), before + 2 * UNIT + all);
    });
}
