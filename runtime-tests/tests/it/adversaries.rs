//! Tests that cheating earns nothing, and by which name it is refused.

use frame_system::CheckNonce;
use pallet_gauntlet::{Call, Error, Event, Miners, Reveals, Validators};
use protocol::{consensus::Evaluation, fixed::Q32, window::Phase, Uid};
use runtime::{AccountId, Balances, Runtime, RuntimeCall, RuntimeOrigin, EXISTENTIAL_DEPOSIT};
use sp_runtime::traits::Dispatchable;

use crate::network::*;

/// What honest validators measure of so many miners.
fn honest(miners: Uid) -> Vec<Evaluation> {
    (0..miners).map(|uid| evaluation(uid, 20 + i64::from(uid), 10 + i64::from(uid))).collect()
}

/// Updates of miners 0, 1, … in a window of the genesis state.
fn updates(miners: u8) -> Vec<Update> {
    let root = Model::genesis().root();
    (0..miners).map(|flavour| Update::new(flavour, root)).collect()
}

#[test]
fn garbage_that_makes_the_model_worse_earns_nothing() {
    ExtBuilder::default().participants(3, 3).execute(|| {
        play_window(0, &updates(3), 3, Model::genesis().root());
        let mut measured = honest(2);
        measured.push(evaluation(2, -30, -40));
        let scored = score_window(0, &[measured.clone(), measured.clone(), measured]);
        assert!(scored[&0].2 > 0 && scored[&1].2 > 0, "{scored:?}");
        let (own, random, paid) = scored[&2];
        assert!(own < Some(0.0) && random < Some(0.0), "{scored:?}");
        assert_eq!((paid, claimable(&miner_cold(2))), (0, 0));
        let garbage = Miners::<Runtime>::get(RUN, 2).expect("it is still registered");
        assert_eq!((garbage.value, garbage.share), (Q32::ZERO, Q32::ZERO));
    });
}

#[test]
fn a_copied_commitment_cannot_be_opened() {
    ExtBuilder::default().participants(2, 1).execute(|| {
        let (author, copier) = (miner_hot(0), miner_hot(1));
        let update = &updates(1)[0];
        roll_to_phase(0, Phase::Commit);
        let commit = update.commit_call(0, &author);
        assert_eq!(call(&author, commit.clone()), Ok(()));
        assert_eq!(call(&copier, commit), Ok(()));
        roll_to_phase(0, Phase::Reveal);
        assert_eq!(call(&author, update.reveal_call(0, &author)), Ok(()));
        assert_eq!(
            call(&copier, update.reveal_call(0, &copier)),
            Err(Error::<Runtime>::OpeningMismatch.into())
        );
    });
}

#[test]
fn a_copied_payload_is_refused_whoever_reveals_first() {
    for copier_is_first in [false, true] {
        ExtBuilder::default().participants(2, 3).execute(|| {
            let (author, copier) = (miner_hot(0), miner_hot(1));
            let update = &updates(1)[0];
            let copy = update.copied();
            roll_to_phase(0, Phase::Commit);
            assert_eq!(call(&author, update.commit_call(0, &author)), Ok(()));
            assert_eq!(call(&copier, copy.commit_call(0, &copier)), Ok(()));
            roll_to_phase(0, Phase::Reveal);
            let reveal_copy = copy.reveal_call(0, &copier);
            if copier_is_first {
                assert_eq!(call(&copier, reveal_copy), Ok(()));
                assert_eq!(call(&author, update.reveal_call(0, &author)), Ok(()));
                assert!(events().contains(&Event::CopyRefused {
                    run: RUN,
                    window: 0,
                    uid: 1,
                    original: 0,
                }));
            } else {
                assert_eq!(call(&author, update.reveal_call(0, &author)), Ok(()));
                assert_eq!(call(&copier, reveal_copy), Err(Error::<Runtime>::CopiedPayload.into()));
            }
            assert!(Reveals::<Runtime>::contains_key((RUN, 0, 0)));
            assert!(!Reveals::<Runtime>::contains_key((RUN, 0, 1)));

            // Even validators that take the copy's part cannot have it accepted or paid.
            roll_to_phase(0, Phase::Attest);
            for number in 0..3 {
                let attest = attest_call(0, &[0, 1], Model::genesis().root());
                assert_eq!(call(&validator_hot(number), attest), Ok(()));
            }
            roll_to_phase(0, Phase::Apply);
            assert_eq!(record(0).accepted.to_vec(), [0]);
            let scored = score_window(0, &[honest(2), honest(2), honest(2)]);
            assert!(scored[&0].2 > 0);
            assert_eq!(scored[&1].2, 0);
        });
    }
}

#[test]
fn a_minority_of_validators_with_absurd_scores_moves_no_median() {
    let absurd = |uid: Uid, after: u32| Evaluation {
        uid,
        own_before: u32::MAX,
        own_after: after,
        random_before: 1,
        random_after: after,
    };
    // It favours miner 0 and slanders the others.
    let lies: Vec<_> = [absurd(0, 0), absurd(1, u32::MAX), absurd(2, u32::MAX)].into();
    let settle = |last: Vec<Evaluation>| {
        let mut outcome = None;
        ExtBuilder::default().participants(3, 4).execute(|| {
            play_window(0, &updates(3), 4, Model::genesis().root());
            let scored = score_window(0, &[honest(3), honest(3), honest(3), last]);
            let liar = Validators::<Runtime>::get(RUN, 3).expect("it is still registered");
            outcome = Some((scored, liar.agreement, claimable(&validator_cold(3))));
        });
        outcome.expect("the scenario ran")
    };
    let (with_honest, agreement, pay) = settle(honest(3));
    let (with_liar, liar_agreement, liar_pay) = settle(lies);
    assert_eq!(with_liar, with_honest);
    assert!(agreement > Q32::ZERO && pay > 0);
    assert!(liar_agreement < agreement);
    assert!(liar_pay < pay, "{liar_pay} of {pay}");
}

#[test]
fn a_state_that_a_minority_attests_is_not_the_network_s() {
    ExtBuilder::default().participants(1, 4).execute(|| {
        let root = Model::genesis().root();
        let (hot, update) = (miner_hot(0), &updates(1)[0]);
        roll_to_phase(0, Phase::Commit);
        assert_eq!(call(&hot, update.commit_call(0, &hot)), Ok(()));
        roll_to_phase(0, Phase::Reveal);
        assert_eq!(call(&hot, update.reveal_call(0, &hot)), Ok(()));
        roll_to_phase(0, Phase::Attest);
        for (number, root) in [root, root, root, [9; 32]].into_iter().enumerate() {
            let attest = attest_call(0, &[0], root);
            assert_eq!(call(&validator_hot(number as u8), attest), Ok(()));
        }
        roll_to_phase(0, Phase::Apply);
        assert_eq!(record(0).state_root, Some(root));
        assert_eq!(record(0).accepted.to_vec(), [0]);
        // Who leaves while work is open is paid for it; the bond stays at risk.
        let leave = Call::leave_miner { run: RUN, uid: 0 };
        assert_eq!(call(&miner_cold(0), leave), Ok(()));
        assert!(Miners::<Runtime>::contains_key(RUN, 0));
    });
}

/// r02: a hot key owned nothing and so could sign nothing, and a thief's hold on its account kept the cold key's bond.
#[test]
fn a_hot_key_that_owns_nothing_exists_and_what_it_holds_locks_nobody_s_bond() {
    ExtBuilder::default().participants(1, 0).execute(|| {
        let (hot, cold) = (miner_hot(0), miner_cold(0));
        assert_eq!(Balances::free_balance(&hot), 0);
        assert!(CheckNonce::<Runtime>::validate_nonce_for_account(&hot, 0).is_ok());
        let stranger = AccountId::new([9; 32]);
        assert!(CheckNonce::<Runtime>::validate_nonce_for_account(&stranger, 0).is_err());

        // The thief of the hot key stakes with it: the account has a hold, and nothing free.
        let give = pallet_balances::Call::transfer_allow_death {
            dest: hot.clone().into(),
            value: STAKE + EXISTENTIAL_DEPOSIT,
        };
        let given = RuntimeCall::from(give).dispatch(RuntimeOrigin::signed(owner()));
        assert!(given.is_ok());
        let stake = register_validator(&validator_key(0), RUN, &hot, STAKE);
        assert_eq!(call(&hot, stake), Ok(()));
        roll_to_phase(0, Phase::Commit);
        assert_eq!(call(&hot, updates(1)[0].commit_call(0, &hot)), Ok(()));
        assert_eq!(call(&cold, Call::leave_miner { run: RUN, uid: 0 }), Ok(()));
        roll_to_phase(2, Phase::Commit);
        assert!(!Miners::<Runtime>::contains_key(RUN, 0));
        roll_to_phase(settings().staking.unbonding_windows.into(), Phase::Commit);
        let before = Balances::free_balance(&cold);
        let withdraw = Call::withdraw_bond { run: RUN, uid: 0, registered_window: 0 };
        assert_eq!(call(&owner(), withdraw), Ok(()));
        assert_eq!(Balances::free_balance(&cold), before + settings().incentive.miner_bond);
    });
}
