//! Disputes of evaluations before whoever had a permit with the accused.

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
    assert_eq!(jury, [1, 2, 3, 4, 5, 6]);
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
        let fee = 5 * UNIT / 6;
        for number in jury {
            assert_eq!(total_balance(&validator_cold(number)), ENDOWMENT + fee);
        }
        assert_eq!(issuance(), before + minted - (10 * UNIT - 6 * fee));
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

/// Validator 0 reveals what is false and leaves; its own money answers, not that of the innocent that took over the slot.
#[test]
fn who_took_over_a_slot_does_not_answer_for_the_one_before() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        play_window(0, 2, 7);
        score_window(0, 2, 7);
        assert_ok!(Gauntlet::deregister_validator(origin(validator_cold(0)), 0, 0));
        let successor = Gauntlet::do_register_validator(account(70), 0, account(71), 1_000 * UNIT);
        assert_eq!(successor, Ok(0));
        assert_ok!(Gauntlet::dispute_evaluation(origin(challenger()), 0, NAME));
        roll_to_window(2);
        let lie = evaluation(1, 500, 500);
        let innocent = Gauntlet::commit_verdict(origin(account(71)), 0, NAME, [0; 32]);
        assert_eq!(innocent, Err(Error::<Test>::NotAJuror.into()));
        for number in 1..5 {
            assert_ok!(commit(number, &lie));
        }
        roll_to_window(3);
        for number in 1..5 {
            assert_ok!(reveal(number, &lie));
        }
        roll_to_window(4);
        assert_ok!(close());
        roll_to_window(6);
        assert_eq!(pool(0).own, 1_000 * UNIT);
        let left: Vec<_> =
            Unbondings::<Test>::iter_prefix_values((0, 0)).map(|found| found.own).collect();
        assert_eq!(left, [950 * UNIT]);
    });
}

/// Nobody closes it until the window's rows are gone: the bench is there until then, and goes with it.
#[test]
fn a_dispute_that_is_closed_late_is_decided_as_in_time() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        disputed();
        jury_measures(&evaluations(2)[1]);
        roll_to_window(12);
        assert_eq!(Windows::<Test>::get(0, 0), None);
        assert!(Benches::<Test>::contains_key(0, 0));
        assert_ok!(close());
        assert_eq!(total_balance(&challenger()), ENDOWMENT - 10 * UNIT);
        assert!(!Benches::<Test>::contains_key(0, 0));
    });
}

/// Stakes are those of the disputed window's first block: what is moved when somebody is accused decides nothing.
#[test]
fn stake_that_comes_after_the_window_convicts_nobody() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        disputed();
        assert_ok!(Gauntlet::add_stake(origin(validator_cold(1)), 0, 1, 900_000 * UNIT));
        let lie = evaluation(1, 500, 500);
        roll_to_window(2);
        for number in 1..4 {
            assert_ok!(commit(number, &lie));
        }
        roll_to_window(3);
        for number in 1..4 {
            assert_ok!(reveal(number, &lie));
        }
        roll_to_window(4);
        assert_ok!(close());
        System::assert_last_event(
            Event::DisputeClosed { run: 0, window: 0, index: 0, uid: 1, verdict: Verdict::Open }
                .into(),
        );
    });
}

/// A tenth of the stake sits on the bench alone, as the accused does not judge itself.
#[test]
fn a_minority_convicts_nobody() {
    ExtBuilder::default().participants(2, 2).build_and_execute(|| {
        assert_ok!(Gauntlet::add_stake(origin(validator_cold(0)), 0, 0, 9_000 * UNIT));
        play_window(0, 2, 2);
        score_window(0, 2, 2);
        assert_ok!(Gauntlet::dispute_evaluation(origin(challenger()), 0, NAME));
        let lie = evaluation(1, 500, 500);
        roll_to_window(2);
        assert_ok!(commit(1, &lie));
        roll_to_window(3);
        assert_ok!(reveal(1, &lie));
        roll_to_window(4);
        assert_ok!(close());
        roll_to_window(6);
        assert_eq!(pool(0).own, 10_000 * UNIT);
    });
}

/// Six thousand confirm its lie, and are less than a half of fifteen: the challenger loses nothing.
#[test]
fn a_minority_takes_no_challenger_s_bond() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        assert_ok!(Gauntlet::add_stake(origin(validator_cold(0)), 0, 0, 8_000 * UNIT));
        disputed();
        roll_to_window(2);
        let protected = evaluations(2)[1].clone();
        let jury: Vec<u8> = (1..7).filter(|number| commit(*number, &protected).is_ok()).collect();
        roll_to_window(3);
        for number in jury {
            assert_ok!(reveal(number, &protected));
        }
        roll_to_window(4);
        assert_ok!(close());
        assert_eq!(total_balance(&challenger()), ENDOWMENT);
    });
}

/// No window opens after the last one, so that there is neither a seed nor permits of a later one.
#[test]
fn evaluations_of_a_run_s_last_window_are_judged() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        play_window(0, 2, 7);
        assert_ok!(Gauntlet::close_run(RuntimeOrigin::root(), 0));
        score_window(0, 2, 7);
        assert_ok!(Gauntlet::dispute_evaluation(origin(challenger()), 0, NAME));
        let lie = evaluation(1, 500, 500);
        roll_to_window(2);
        let jury: Vec<u8> = (1..7).filter(|number| commit(*number, &lie).is_ok()).collect();
        assert_ne!(jury, Vec::<u8>::new());
        roll_to_window(3);
        for number in jury {
            assert_ok!(reveal(number, &lie));
        }
        roll_to_window(4);
        assert_ok!(close());
        assert_eq!(UnappliedSlashes::<Test>::get(0, 0).map(|slash| slash.amount), Some(50 * UNIT));
        roll_to_window(6);
        assert_eq!(pool(0).own, 950 * UNIT);
    });
}

/// Its stake unbonds for longer than a dispute takes, and answers all the time.
#[test]
fn who_leaves_after_its_evaluation_answers_for_it() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        play_window(0, 2, 7);
        score_window(0, 2, 7);
        assert_ok!(Gauntlet::deregister_validator(origin(validator_cold(0)), 0, 0));
        assert_ok!(Gauntlet::dispute_evaluation(origin(challenger()), 0, NAME));
        jury_measures(&evaluation(1, 500, 500));
        assert_ok!(close());
        roll_to_window(6);
        let left: Vec<_> =
            Unbondings::<Test>::iter_prefix_values((0, 0)).map(|found| found.own).collect();
        assert_eq!(left, [950 * UNIT]);
        assert_eq!(total_balance(&challenger()), ENDOWMENT + 25 * UNIT);
    });
}

/// The bench is that of the window's first block: who hands its cold key over, or leaves, changes who else judges by nothing.
#[test]
fn handing_over_a_cold_key_gives_no_vote_and_takes_none() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        let seat = protocol::entry::Seat::Validator(1);
        assert_ok!(Gauntlet::offer_cold(origin(validator_cold(1)), 0, seat, challenger()));
        play_window(0, 2, 7);
        play_window(1, 2, 7);
        play_window(2, 2, 7);
        score_window(2, 2, 7);
        let name = (2, 0, 1);
        assert_ok!(Gauntlet::dispute_evaluation(origin(validator_cold(2)), 0, name));
        assert_ok!(Gauntlet::accept_cold(origin(challenger()), 0, seat));
        assert_ok!(Gauntlet::deregister_validator(origin(validator_cold(3)), 0, 3));
        roll_to_window(4);
        let votes = |number: u8| {
            let hot = origin(validator_hot(number));
            Gauntlet::commit_verdict(hot, 0, name, [number; 32])
        };
        assert_ok!(votes(1));
        // The challenger's own, and who is no validator any more.
        assert_noop!(votes(2), Error::<Test>::NotAJuror);
        assert_noop!(votes(3), Error::<Test>::NotAJuror);
        for number in 4..7 {
            assert_ok!(votes(number));
        }
    });
}

/// What a juror must be near to is what the settings said when the accused measured.
#[test]
fn an_evaluation_is_judged_by_the_settings_of_its_window() {
    ExtBuilder::default().participants(2, 7).build_and_execute(|| {
        play_window(0, 2, 7);
        score_window(0, 2, 7);
        assert_ok!(Gauntlet::dispute_evaluation(origin(challenger()), 0, NAME));
        let mut strict = settings();
        strict.disputes.evaluation_tolerance_ppm = 0;
        assert_ok!(Gauntlet::force_params(RuntimeOrigin::root(), 0, Box::new(strict)));
        // Within a hundredth.
        let mut near = evaluations(2)[1].clone();
        near.own_before += near.own_before / 200;
        jury_measures(&near);
        assert_ok!(close());
        System::assert_last_event(
            Event::DisputeClosed { run: 0, window: 0, index: 0, uid: 1, verdict: Verdict::True }
                .into(),
        );
    });
}
