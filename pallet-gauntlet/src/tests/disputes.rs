//! Disputes of evaluations before a drawn jury.

use frame_support::{assert_noop, assert_ok};
use protocol::{
    consensus::Evaluation,
    fault::{verdict_commitment_hash, Verdict},
};

use crate::{mock::*, *};

const NAME: EvaluationName = (0, 0, 1);

fn challenger() -> AccountId {
    account(90)
}

fn origin(who: AccountId) -> RuntimeOrigin {
    RuntimeOrigin::signed(who)
}

/// Window 0 with two miners and seven validators, scored in window 1; validator 0's evaluation of miner 1 is disputed there.
fn disputed() {
    play_window(0, 2, 7);
    score_window(0, 2, 7);
    assert_ok!(Gauntlet::dispute_evaluation(origin(challenger()), 0, NAME));
    assert_noop!(
        Gauntlet::dispute_evaluation(origin(challenger()), 0, NAME),
        Error::<Test>::AlreadyDisputed
    );
    assert_eq!(Gauntlet::held(HoldReason::DisputeBond, &challenger()), 10 * UNIT);
}

fn hash(number: u8, measured: &Evaluation) -> protocol::Hash {
    let hot = account_bytes(&validator_hot(number));
    verdict_commitment_hash(&Gauntlet::genesis_hash(), 0, 0, 0, &hot, measured, &[number; 32])
}

fn commit(number: u8, measured: &Evaluation) -> sp_runtime::DispatchResult {
    Gauntlet::commit_verdict(origin(validator_hot(number)), 0, NAME, hash(number, measured))
}

fn reveal(number: u8, measured: &Evaluation) -> sp_runtime::DispatchResult {
    let (hot, salt) = (validator_hot(number), [number; 32]);
    Gauntlet::reveal_verdict(origin(hot), 0, NAME, measured.clone(), salt)
}

fn close() -> sp_runtime::DispatchResult {
    Gauntlet::close_dispute(origin(owner()), 0, NAME)
}

/// All jurors measure `measured`; returns the jury.
fn jury_measures(measured: &Evaluation) -> Vec<u8> {
    assert_noop!(commit(1, measured), Error::<Test>::WrongWindow);
    roll_to_window(2);
    assert_noop!(commit(0, measured), Error::<Test>::NotAJuror);
    let jury: Vec<u8> = (1..7).filter(|number| commit(*number, measured).is_ok()).collect();
    assert_eq!(jury.len(), 5);
    assert_noop!(commit(jury[0], measured), Error::<Test>::AlreadyCommitted);
    assert_noop!(reveal(jury[0], measured), Error::<Test>::WrongWindow);
    roll_to_window(3);
    for number in &jury {
        assert_ok!(reveal(*number, measured));
    }
    assert_noop!(reveal(jury[0], measured), Error::<Test>::AlreadyRevealed);
    assert_noop!(close(), Error::<Test>::TooEarly);
    roll_to_window(4);
    jury
}

#[test]
fn a_false_evaluation_costs_the_validator_and_its_nominators() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        assert_ok!(Gauntlet::delegate(origin(account(80)), 0, 0, 1_000 * UNIT));
        disputed();
        jury_measures(&evaluation(1, 500, 500));
        assert_ok!(close());
        System::assert_last_event(
            Event::DisputeClosed { run: 0, window: 0, index: 0, uid: 1, verdict: Verdict::False }
                .into(),
        );
        roll_to_window(6);
        // A twentieth of 2,000 UNIT and what was earned meanwhile.
        assert_eq!(pool(0).own, 950 * UNIT);
        assert_eq!(pool(0).delegated.amount, 950 * UNIT);
        assert_eq!(total_balance(&challenger()), ENDOWMENT + 50 * UNIT);
    });
}

#[test]
fn what_left_since_answers_for_a_false_evaluation() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        disputed();
        assert_ok!(Gauntlet::unstake(origin(validator_cold(0)), 0, 0, 500 * UNIT));
        jury_measures(&evaluation(1, 500, 500));
        assert_ok!(close());
        roll_to_window(6);
        // A twentieth of 1,000 UNIT, half of it of each.
        assert_eq!(pool(0).own, 475 * UNIT);
        let left: Vec<_> =
            Unbondings::<Test>::iter_prefix_values((0, 0)).map(|found| found.own).collect();
        assert_eq!(left, [475 * UNIT]);
    });
}

#[test]
fn a_false_accusation_costs_its_bond_and_pays_the_jury() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        disputed();
        let before = issuance();
        let measured = evaluations(2)[1].clone();
        let jury = jury_measures(&measured);
        let minted = issuance() - before;
        assert_ok!(close());
        assert_eq!(total_balance(&challenger()), ENDOWMENT - 10 * UNIT);
        for number in jury {
            assert_eq!(total_balance(&validator_cold(number)), ENDOWMENT + UNIT);
        }
        assert_eq!(issuance(), before + minted - 5 * UNIT);
        assert_eq!(pool(0).own, 1_000 * UNIT);
        assert_noop!(close(), Error::<Test>::DisputeUnknown);
    });
}

#[test]
fn a_silent_jury_decides_nothing() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        disputed();
        roll_to_window(4);
        assert_ok!(close());
        assert_eq!(total_balance(&challenger()), ENDOWMENT);
        assert_eq!(Gauntlet::held(HoldReason::DisputeBond, &challenger()), 0);
        assert_eq!(pool(0).own, 1_000 * UNIT);
    });
}

#[test]
fn only_what_was_revealed_can_be_disputed() {
    ExtBuilder::default().participants(2, 2).build_and_execute(|| {
        play_window(0, 2, 2);
        let dispute = |name| Gauntlet::dispute_evaluation(origin(challenger()), 0, name);
        assert_noop!(dispute(NAME), Error::<Test>::NotRevealed);
        score_window(0, 2, 2);
        assert_noop!(dispute((0, 0, 7)), Error::<Test>::NotRevealed);
        assert_noop!(dispute((0, 9, 1)), Error::<Test>::NotRevealed);
        assert_noop!(dispute((9, 0, 1)), Error::<Test>::FaultTooOld);
        assert_noop!(
            Gauntlet::dispute_evaluation(origin(account(222)), 0, NAME),
            sp_runtime::TokenError::FundsUnavailable
        );
        // A jury could not decide before the window's rows go.
        roll_to_window(6);
        assert_noop!(dispute(NAME), Error::<Test>::FaultTooOld);
    });
}

/// Validator 0 reveals what is false and leaves; its accomplice accuses the innocent that took over the slot.
#[test]
fn who_took_over_a_slot_does_not_answer_for_the_one_before() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        play_window(0, 2, 7);
        score_window(0, 2, 7);
        assert_ok!(Gauntlet::deregister_validator(origin(validator_cold(0)), 0, 0));
        let successor = Gauntlet::do_register_validator(account(70), 0, account(71), 1_000 * UNIT);
        assert_eq!(successor, Ok(0));
        assert_noop!(
            Gauntlet::dispute_evaluation(origin(challenger()), 0, NAME),
            Error::<Test>::NotRevealed
        );
    });
}

/// Who knows the seed moves stake until the draw falls on its own validators, and is the first to commit.
#[test]
fn stake_that_comes_after_the_seed_chooses_no_juror() {
    let mut few = settings();
    few.disputes.jurors = 3;
    ExtBuilder::default().settings(few).participants(2, 7).build_and_execute(|| {
        disputed();
        roll_to_window(2);
        let measured = evaluations(2)[1].clone();
        let jury = || {
            frame_support::storage::with_transaction(|| {
                let jury: Vec<u8> =
                    (1..7).filter(|number| commit(*number, &measured).is_ok()).collect();
                sp_runtime::TransactionOutcome::Rollback(Ok::<_, sp_runtime::DispatchError>(jury))
            })
            .unwrap()
        };
        let drawn = jury();
        assert_eq!(drawn.len(), 3);
        for number in (1..7u8).filter(|number| !drawn.contains(number)) {
            let cold = origin(validator_cold(number));
            assert_ok!(Gauntlet::add_stake(cold, 0, number.into(), 900_000 * UNIT));
        }
        assert_eq!(jury(), drawn);
    });
}
