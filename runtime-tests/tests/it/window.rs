//! One window from registration to the money, told as a story.

use pallet_gauntlet::{Event, Ledgers, MinerUids, WindowStatus};
use protocol::{Planck, Uid};
use runtime::{AccountId, Balances, Gauntlet, Runtime, UNIT};

use crate::network::*;

#[test]
fn strangers_train_a_model_and_are_paid_for_it() {
    ExtBuilder::default().execute(|| {
        // SCENE 1: three miners bond, two validators stake, before the run's first block.
        for number in 0..3 {
            let before = Balances::free_balance(miner_cold(number));
            let price = Gauntlet::next_price(RUN).expect("the run exists");
            let register = register_miner(&miner_key(number), RUN, &miner_cold(number));
            assert_eq!(call(&miner_cold(number), register), Ok(()));
            let bond = settings().incentive.miner_bond;
            assert_eq!(Balances::free_balance(miner_cold(number)), before - bond - price);
            let uid = MinerUids::<Runtime>::get(RUN, miner_hot(number));
            assert_eq!(uid, Some(Uid::from(number)));
        }
        for number in 0..2 {
            let cold = validator_cold(number);
            let register = register_validator(&validator_key(number), RUN, &cold, STAKE);
            assert_eq!(call(&cold, register), Ok(()));
        }

        // SCENE 2: window 0. Each miner commits to an update of its own, reveals it with the chunks that the chain
        // draws, and the validators attest what they fetched and the state that they hold.
        let mut model = Model::genesis();
        let root = model.root();
        let updates: Vec<_> = (0..3).map(|flavour| Update::new(flavour, root)).collect();
        play_window(0, &updates, 2, root);

        // SCENE 3: the chain accepts all three and names the state on which the stake agreed.
        assert_eq!(record(0).accepted.to_vec(), [0, 1, 2]);
        assert_eq!(record(0).state_root, Some(root));
        assert_eq!(record(0).status, WindowStatus::Accepted);
        assert!(events().contains(&Event::WindowAccepted {
            run: RUN,
            window: 0,
            state_root: Some(root),
            accepted: vec![0, 1, 2],
        }));

        // SCENE 4: everybody takes the outer step and arrives at one new state.
        let accepted: Vec<_> = (0..).zip(&updates).collect();
        model.step(0, &accepted);
        let reversed: Vec<_> = accepted.iter().rev().copied().collect();
        let mut other = Model::genesis();
        other.step(0, &reversed);
        assert_eq!(model.root(), other.root());
        assert_ne!(model.root(), root);

        // SCENE 5: window 1. The validators commit to what they measured of window 0, reveal it, and it is settled.
        let issued = Balances::total_issuance();
        let measured: Vec<_> =
            (0..3).map(|uid| evaluation(uid, 20 + i64::from(uid), 10 + i64::from(uid))).collect();
        let scored = score_window(0, &[measured.clone(), measured]);
        assert_eq!(record(0).status, WindowStatus::Settled);
        let paid = [0, 1, 2].map(|uid| scored[&uid].2);
        assert!(0 < paid[0] && paid[0] < paid[1] && paid[1] < paid[2], "{paid:?}");

        // SCENE 6: the emission is where the ledger says, to the unit; roundings are carried.
        let ledger = Ledgers::<Runtime>::get(RUN);
        assert_eq!((ledger.minted, ledger.funded - ledger.unspent), (MINTED, SPONSORED));
        assert_eq!(Balances::total_issuance() - issued, ledger.minted);
        let miners: Planck = paid.iter().sum();
        let validators = claimable(&validator_cold(0)) + claimable(&validator_cold(1));
        assert_eq!(claimable(&owner()), 10 * UNIT);
        let carried = ledger.carried();
        assert_eq!(carried.owner, 0);
        assert_eq!(carried.miners, 60 * UNIT - miners);
        assert_eq!(carried.validators, 30 * UNIT - validators);
        assert!(carried.miners + carried.validators < UNIT / 1_000_000, "{ledger:?}");

        // SCENE 7: a window later everybody's pay is transferred, once.
        roll_to_offset(2, 0);
        let claim = |account: &AccountId| {
            let account = account.clone();
            call(&owner(), pallet_gauntlet::Call::claim { run: RUN, account })
        };
        let colds = [miner_cold(0), miner_cold(1), miner_cold(2)];
        let colds = colds.into_iter().chain([validator_cold(0), validator_cold(1), owner()]);
        for account in colds {
            let (owed, before) = (claimable(&account), Balances::free_balance(&account));
            assert_eq!(claim(&account), Ok(()));
            assert_eq!(Balances::free_balance(&account), before + owed);
            let refused = pallet_gauntlet::Error::<Runtime>::NothingClaimable;
            assert_eq!(claim(&account), Err(refused.into()));
        }
        let after = Ledgers::<Runtime>::get(RUN);
        assert_eq!(after.paid, ledger.claimable);
        assert_eq!(after.claimable, 0);
        assert!(after.is_conserved(), "{after:?}");
    });
}

#[test]
fn the_next_window_agrees_on_the_state_that_the_outer_step_gave() {
    ExtBuilder::default().participants(2, 3).execute(|| {
        let mut model = Model::genesis();
        for window in 0..3 {
            let root = model.root();
            let flavours = [0, 1].map(|number| 2 * window as u8 + number);
            let updates = flavours.map(|flavour| Update::new(flavour, root));
            play_window(window, &updates, 3, root);
            assert_eq!(record(window).state_root, Some(root));
            assert_eq!(record(window).accepted.to_vec(), [0, 1]);
            model.step(window, &[(0, &updates[0]), (1, &updates[1])]);
        }
    });
}

#[test]
fn an_update_from_another_state_is_not_accepted() {
    ExtBuilder::default().participants(2, 3).execute(|| {
        let root = Model::genesis().root();
        let updates = [Update::new(0, root), Update::new(1, [9; 32])];
        play_window(0, &updates, 3, root);
        assert_eq!(record(0).accepted.to_vec(), [0]);
    });
}
