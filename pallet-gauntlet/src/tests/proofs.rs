//! Proofs of miners' faults, from the work on chain to the reporter's reward.

use frame_support::{assert_noop, assert_ok, pallet_prelude::Pays, BoundedVec};
use protocol::{fault::ProvenFault, fixed::Q32, window::Phase, Uid, Window};

use crate::{mock::*, *};

/// Half of a bond of 10 UNIT is slashed, and half of that rewarded.
const REWARD: protocol::Planck = 5 * UNIT / 2;

fn reporter() -> AccountId {
    account(90)
}

fn origin(who: AccountId) -> RuntimeOrigin {
    RuntimeOrigin::signed(who)
}

fn name(window: Window, uid: Uid) -> CommitmentName {
    CommitmentName { window, uid, registered_window: 0 }
}

/// Miner n commits to and reveals the n-th payload.
fn work(window: Window, payloads: &[Vec<Vec<u8>>]) {
    roll_to_window(window);
    for (number, payload) in (0..).zip(payloads) {
        commit_payload(window, number, payload);
    }
    roll_to_phase(window, Phase::Reveal);
    for (number, payload) in (0..).zip(payloads) {
        assert_ok!(reveal_payload(window, number, payload));
    }
}

fn report_copy(
    names: [CommitmentName; 2],
    payloads: [&[Vec<u8>]; 2],
) -> sp_runtime::DispatchResult {
    let chunks = copy_proof(names[0].window.max(names[1].window), payloads);
    Gauntlet::report_copy(origin(reporter()), 0, names, chunks)
        .map(|_| ())
        .map_err(|refused| refused.error)
}

/// Two miners, two validators: window 0 from the commitments to its pay, miner 1 being a copier. It is reported `before` its
/// settlement or after it.
fn settle_a_copy(before: bool) {
    let (original, copy) = (payload_from([1, 2, 3]), payload_from([1, 2, 8]));
    work(0, &[original.clone(), copy.clone()]);
    let report = || report_copy([name(0, 0), name(0, 1)], [&original, &copy]);
    roll_to_phase(0, Phase::AttestCommit);
    for number in 0..2 {
        attest(0, number, &[0, 1], GENESIS_ROOT);
    }
    roll_to_phase(0, Phase::Apply);
    if before {
        assert_ok!(report());
    }
    score_window(0, 2, 2);
    if !before {
        assert_ok!(report());
    }
}

/// A window's pay was worth more than what a proven copy of it cost, so that it paid to be convicted.
#[test]
fn who_is_convicted_before_the_settlement_has_nothing_of_the_window() {
    ExtBuilder::default().participants(2, 2).build_and_execute(|| {
        settle_a_copy(true);
        assert_eq!(record(0).status, WindowStatus::Settled);
        let [honest, copier] = [0, 1].map(|uid| Miners::<Test>::get(0, uid).unwrap());
        assert!(claimable(&miner_cold(0)) > 0);
        assert_eq!(claimable(&miner_cold(1)), 0);
        assert_eq!((copier.standing.scored_windows, copier.value), (0, Q32::ZERO));
        assert!(copier.standing.penalty < Q32::ONE && honest.standing.penalty == Q32::ONE);
        // The fault costs its part of the bond and no more.
        roll_to_window(4);
        assert_eq!(Miners::<Test>::get(0, 1).unwrap().bond, 5 * UNIT);
    });
}

/// What was credited is taken of the bond, and none of that is the reporter's, who would wait for it.
#[test]
fn who_is_convicted_after_the_settlement_pays_the_windows_pay_back() {
    let mut settings = settings();
    settings.incentive.miner_bond = 200 * UNIT;
    ExtBuilder::default().settings(settings).participants(2, 2).build_and_execute(|| {
        settle_a_copy(false);
        let paid = claimable(&miner_cold(1));
        assert!(paid > 10 * UNIT, "{paid}");
        let waiting: Vec<_> = UnappliedSlashes::<Test>::iter_prefix_values(0)
            .map(|slash| (slash.amount, slash.reporter))
            .collect();
        assert!(
            waiting.contains(&(100 * UNIT, Some(reporter()))) && waiting.contains(&(paid, None))
        );
        roll_to_window(4);
        assert_eq!(Miners::<Test>::get(0, 1).unwrap().bond, 100 * UNIT - paid);
        assert_eq!(Balances::free_balance(reporter()), ENDOWMENT + 50 * UNIT);
    });
}

/// The settlement is computed, and its pages are still being written.
#[test]
fn pay_that_is_being_written_is_known() {
    ExtBuilder::default().participants(2, 2).build_and_execute(|| {
        let amount = 7 * UNIT;
        let pay = MinerPay {
            uid: 1,
            cold: miner_cold(1),
            own: None,
            random: None,
            standing: Default::default(),
            value: Q32::ZERO,
            share: Q32::ZERO,
            amount,
        };
        SettlementPages::<Test>::insert(0, 3, BoundedVec::truncate_from(vec![pay]));
        let settlement = Settlement {
            window: 0,
            stage: Stage::Miners { page: 3, page_count: 4 },
            due: 1,
            paid: Default::default(),
            validators: Default::default(),
        };
        Settlements::<Test>::insert(0, settlement);
        assert_eq!([0, 1].map(|uid| Gauntlet::pay_of(0, 0, uid)), [0, amount]);
        assert_eq!(Gauntlet::pay_of(0, 1, 1), 0, "of another window");
        Settlements::<Test>::remove(0);
        SettlementPages::<Test>::remove(0, 3);
    });
}

#[test]
fn a_copy_costs_the_later_committer_and_pays_the_reporter() {
    ExtBuilder::default().participants(3, 0).build_and_execute(|| {
        let (original, copy) = (payload_from([1, 2, 3]), payload_from([1, 2, 8]));
        // One chunk of the two that can tell anything is what honest miners may have in common: half is not more than half.
        let honest = payload_from([1, 9, 3]);
        work(0, &[original.clone(), copy.clone(), honest.clone()]);
        let names = [name(0, 0), name(0, 1)];
        let payloads = [&original[..], &copy[..]];
        assert_noop!(
            report_copy([name(0, 0), name(0, 2)], [&original, &honest]),
            Error::<Test>::NotACopy
        );
        let report = |chunks| Gauntlet::report_copy(origin(reporter()), 0, names, chunks);
        // All that is drawn is shown, in its order. The short last chunk is never drawn: it keeps two values.
        let drawn = copy_proof(0, payloads);
        assert_eq!(drawn.len(), 2);
        let less = CopyProof::truncate_from(vec![drawn[0].clone()]);
        assert_noop!(report(less), Error::<Test>::ProofInvalid);
        let turned = CopyProof::truncate_from(vec![drawn[1].clone(), drawn[0].clone()]);
        assert_noop!(report(turned), Error::<Test>::ProofInvalid);
        let last = payloads.map(|payload| shown_chunk(payload, 2));
        let chosen = CopyProof::truncate_from(vec![last.clone(), last]);
        assert_noop!(report(chosen), Error::<Test>::ProofInvalid);
        let before = issuance();
        assert_ok!(report_copy(names, payloads));
        assert!(events().contains(&Event::FaultProven {
            run: 0,
            window: 0,
            uid: 1,
            fault: ProvenFault::Copy,
            reporter: reporter(),
        }));
        // Whoever reports it again, and in whatever order, comes too late.
        assert_noop!(report_copy(names, payloads), Error::<Test>::FaultKnown);
        roll_to_window(2);
        assert_eq!(Miners::<Test>::get(0, 0).unwrap().bond, 10 * UNIT);
        assert_eq!(Miners::<Test>::get(0, 1).unwrap().bond, 5 * UNIT);
        assert_eq!(Balances::free_balance(reporter()), ENDOWMENT + REWARD);
        assert!(issuance() <= before + run_balance(0) - REWARD, "the other half is burned");
    });
}

/// A validator's hot key, which owns nothing, reports for nothing, and its cold key is paid.
#[test]
fn a_participant_reports_free_and_its_cold_key_is_paid() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        let (original, copy) = (payload_from([1, 2, 3]), payload_from([1, 2, 8]));
        work(0, &[original.clone(), copy.clone()]);
        let names = [name(0, 0), name(0, 1)];
        let chunks = copy_proof(0, [&original, &copy]);
        let done = Gauntlet::report_copy(origin(validator_hot(0)), 0, names, chunks);
        assert_eq!(done.unwrap().pays_fee, Pays::No);
        let before = total_balance(&validator_cold(0));
        roll_to_window(2);
        assert_eq!(total_balance(&validator_cold(0)), before + REWARD);
        assert_eq!(total_balance(&validator_hot(0)), 0);
    });
}

#[test]
fn an_old_payload_is_a_copy_in_a_later_window() {
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        let old = payload_from([1, 2, 3]);
        work(0, &[old.clone(), payload_from([4, 5, 6])]);
        // Miner 1 sends what miner 0 sent two windows ago, miner 0 its own again.
        let copy = payload_from([1, 2, 8]);
        work(2, &[old.clone(), copy.clone()]);
        assert_ok!(report_copy([name(2, 1), name(0, 0)], [&copy, &old]));
        assert_ok!(report_copy([name(0, 0), name(2, 0)], [&old, &old]));
        assert_eq!(ProvenFaults::<Test>::get((0, 2, 1)), Some(ProvenFault::Copy));
        assert_eq!(ProvenFaults::<Test>::get((0, 2, 0)), Some(ProvenFault::Copy));
        assert_eq!(ProvenFaults::<Test>::get((0, 0, 0)), None);
    });
}

#[test]
fn a_fault_can_be_reported_while_its_window_is_kept() {
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        let (original, copy) = (payload_from([1, 2, 3]), payload_from([1, 2, 8]));
        work(0, &[original.clone(), copy.clone()]);
        let chunks = copy_proof(0, [&original, &copy]);
        let report = |window| {
            let names = [name(window, 0), name(0, 1)];
            Gauntlet::report_copy(origin(reporter()), 0, names, chunks.clone())
        };
        assert_noop!(report(7), Error::<Test>::FaultTooOld);
        roll_to_window(9);
        assert_noop!(report(0), Error::<Test>::FaultTooOld);
    });
}

/// Its bond waits, and answers.
#[test]
fn a_miner_that_is_gone_can_still_be_convicted() {
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        let (original, copy) = (payload_from([1, 2, 3]), payload_from([1, 2, 8]));
        work(0, &[original.clone(), copy.clone()]);
        assert_ok!(Gauntlet::leave_miner(origin(miner_cold(1)), 0, 1));
        roll_to_window(5);
        assert!(!Miners::<Test>::contains_key(0, 1));
        let before = total_balance(&miner_cold(1));
        // Nobody is taken for somebody else that has, or had, the slot.
        let other = CommitmentName { registered_window: 1, ..name(0, 1) };
        let unknown = report_copy([name(0, 0), other], [&original, &copy]);
        assert_eq!(unknown, Err(Error::<Test>::MinerUnknown.into()));
        assert_ok!(report_copy([name(0, 0), name(0, 1)], [&original, &copy]));
        roll_to_window(7);
        assert_eq!(total_balance(&miner_cold(1)), before - 5 * UNIT);
        assert_eq!(Departures::<Test>::get(0, (1, 0)).unwrap().bond, 5 * UNIT);
    });
}

#[test]
fn who_never_revealed_cannot_be_accused() {
    ExtBuilder::default().participants(3, 0).build_and_execute(|| {
        let (original, copy) = (payload_from([1, 2, 3]), payload_from([1, 2, 8]));
        work(0, &[original.clone(), copy.clone()]);
        assert_noop!(
            report_copy([name(0, 0), name(0, 2)], [&original, &copy]),
            Error::<Test>::NotRevealed
        );
    });
}

#[test]
fn a_malformed_chunk_is_proven_by_itself() {
    let mut settings = settings();
    settings.incentive.challenge_chunks = 1;
    ExtBuilder::default().settings(settings).participants(8, 0).build_and_execute(|| {
        let payloads: Vec<Vec<Vec<u8>>> = (0..8u16)
            .map(|number| {
                let mut payload = payload_from([number, number, 3]);
                payload[1] = vec![1, 2, 3];
                payload
            })
            .collect();
        roll_to_window(0);
        for (number, payload) in (0..).zip(&payloads) {
            commit_payload(0, number, payload);
        }
        roll_to_phase(0, Phase::Reveal);
        let lucky: Vec<u8> = (0..)
            .zip(&payloads)
            .filter(|(number, payload)| reveal_payload(0, *number, payload).is_ok())
            .map(|(number, _)| number)
            .collect();
        assert!(
            !lucky.is_empty() && lucky.len() < 8,
            "some were asked for the bad chunk: {lucky:?}"
        );
        let (uid, payload) = (Uid::from(lucky[0]), &payloads[usize::from(lucky[0])]);
        let report = |index, chunk: ShownChunk| {
            Gauntlet::report_malformed(origin(reporter()), 0, name(0, uid), index, chunk.into())
        };
        assert_noop!(report(0, shown_chunk(payload, 0)), Error::<Test>::ChunkWellFormed);
        assert_noop!(report(0, shown_chunk(payload, 1)), Error::<Test>::ProofInvalid);
        assert_ok!(report(1, shown_chunk(payload, 1)));
        roll_to_window(2);
        assert_eq!(Miners::<Test>::get(0, uid).unwrap().bond, 5 * UNIT);
        assert_eq!(Balances::free_balance(reporter()), ENDOWMENT + REWARD);
    });
}

fn challenge(who: AccountId, window: Window, uid: Uid, index: u32) -> sp_runtime::DispatchResult {
    Gauntlet::challenge_data(origin(who), 0, name(window, uid), index)
}

#[test]
fn a_chunk_that_is_shown_costs_the_challenger_its_bond() {
    ExtBuilder::default().participants(1, 0).build_and_execute(|| {
        let payload = payload_from([1, 2, 3]);
        work(0, std::slice::from_ref(&payload));
        assert_ok!(challenge(reporter(), 0, 0, 1));
        assert_eq!(Gauntlet::held(HoldReason::DisputeBond, &reporter()), UNIT);
        let answer = |who, index, chunk: ShownChunk| {
            Gauntlet::answer_data(origin(who), 0, name(0, 0), index, chunk.into())
        };
        let chunk = shown_chunk(&payload, 1);
        assert_noop!(answer(reporter(), 1, chunk.clone()), Error::<Test>::NotColdKey);
        assert_noop!(
            answer(miner_hot(0), 0, shown_chunk(&payload, 0)),
            Error::<Test>::ChallengeUnknown
        );
        assert_noop!(
            answer(miner_hot(0), 1, shown_chunk(&payload, 0)),
            Error::<Test>::ProofInvalid
        );
        assert_noop!(
            Gauntlet::time_out(origin(reporter()), 0, name(0, 0), 1),
            Error::<Test>::TooEarly
        );
        let cold = Balances::free_balance(miner_cold(0));
        assert_eq!(answer(miner_hot(0), 1, chunk.clone()).unwrap().pays_fee, Pays::No);
        assert_eq!(Balances::free_balance(miner_cold(0)), cold + UNIT);
        assert_eq!(total_balance(&reporter()), ENDOWMENT - UNIT);
        assert_noop!(answer(miner_hot(0), 1, chunk), Error::<Test>::ChallengeUnknown);
        assert_eq!(ChallengeCounts::<Test>::get(0, reporter()), 0);
    });
}

#[test]
fn a_chunk_that_is_not_shown_in_time_costs_the_miner() {
    ExtBuilder::default().participants(1, 0).build_and_execute(|| {
        let payload = payload_from([1, 2, 3]);
        work(0, std::slice::from_ref(&payload));
        assert_ok!(challenge(reporter(), 0, 0, 1));
        assert_ok!(challenge(reporter(), 0, 0, 2));
        let deadline = System::block_number() + 20;
        roll_to(deadline + 1);
        assert_noop!(
            Gauntlet::answer_data(
                origin(miner_hot(0)),
                0,
                name(0, 0),
                1,
                shown_chunk(&payload, 1).into()
            ),
            Error::<Test>::TooLate
        );
        let time_out = |index| Gauntlet::time_out(origin(owner()), 0, name(0, 0), index);
        assert_noop!(time_out(1), Error::<Test>::TooEarly);
        roll_to_phase(1, Phase::Apply);
        for index in [1, 2] {
            assert_ok!(time_out(index));
        }
        assert_eq!(Gauntlet::held(HoldReason::DisputeBond, &reporter()), 0);
        assert_eq!(ProvenFaults::<Test>::get((0, 0, 0)), Some(ProvenFault::Withheld));
        roll_to_window(4);
        assert_eq!(Miners::<Test>::get(0, 0).unwrap().bond, 5 * UNIT, "one fault, one slash");
        assert_eq!(total_balance(&reporter()), ENDOWMENT + REWARD);
    });
}

/// Griefing is bounded: per payload, per challenger, per chunk, and each costs its bond.
#[test]
fn challenges_are_bounded() {
    let mut settings = settings();
    settings.training.keep = 64;
    ExtBuilder::default().settings(settings).participants(7, 0).build_and_execute(|| {
        let payloads: Vec<_> = (0..7u16).map(|number| payload_from([number, 9, 3])).collect();
        work(0, &payloads);
        assert_noop!(challenge(reporter(), 0, 0, 3), Error::<Test>::ChunkUnknown);
        assert_noop!(challenge(reporter(), 1, 0, 0), Error::<Test>::FaultTooOld);
        assert_ok!(challenge(reporter(), 0, 0, 0));
        assert_noop!(challenge(account(91), 0, 0, 0), Error::<Test>::AlreadyChallenged);
        assert_noop!(challenge(account(222), 0, 0, 1), sp_runtime::TokenError::FundsUnavailable);
        let mut made = 1;
        for uid in 1..7 {
            for index in 0..3 {
                if made < CHALLENGES_PER_ACCOUNT_MAX {
                    assert_ok!(challenge(reporter(), 0, uid, index));
                    made += 1;
                }
            }
        }
        assert_noop!(challenge(reporter(), 0, 6, 2), Error::<Test>::TooManyChallenges);
        // Too late to be decided before the window's rows go.
        roll_to_window(7);
        assert_noop!(challenge(account(91), 0, 6, 2), Error::<Test>::FaultTooOld);
    });
}

/// What is called a copy from some window on was none in the windows before.
#[test]
fn a_copy_is_judged_by_the_settings_of_its_window() {
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        // Of two chunks of three all positions but one are in common.
        let near = [payload_from([1, 1, 3]), payload_from([2, 2, 8])];
        let later = [payload_from([5, 5, 3]), payload_from([6, 6, 8])];
        work(0, &near);
        let mut strict = settings();
        strict.disputes.copy_overlap_ppm = 900_000;
        assert_ok!(Gauntlet::force_params(RuntimeOrigin::root(), 0, Box::new(strict)));
        work(1, &later);
        let report = |window, [first, second]: &[Vec<Vec<u8>>; 2]| {
            report_copy([name(window, 0), name(window, 1)], [first, second])
        };
        assert_noop!(report(0, &near), Error::<Test>::NotACopy);
        assert_ok!(report(1, &later));
    });
}
