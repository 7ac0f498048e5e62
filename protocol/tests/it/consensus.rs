//! The settlement as a story with adversaries, and against an `f64` oracle.

use protocol::{
    consensus::{
        lower_median, pay, power_shares, relative_improvement, settle, standing_value,
        weighted_median, ConsensusError, Evaluation, Fault, MinerInput, Outcome, Standing,
        ValidatorInput,
    },
    fixed::Q32,
    settings::{Incentive, Settings, StandingKind},
    Uid,
};

const ONE_NAT: u32 = 1 << 24;

pub(crate) fn q(value: f64) -> Q32 {
    Q32((value * 4_294_967_296.0).round() as i64)
}

pub(crate) fn incentive() -> Incentive {
    Settings::example().incentive
}

pub(crate) fn miner(uid: Uid) -> MinerInput {
    MinerInput { uid, standing: Standing::default(), accepted: true, revealed: true, fault: None }
}

/// Losses that fell from 4 nats by the given relative improvements.
pub(crate) fn evaluation(uid: Uid, own: f64, random: f64) -> Evaluation {
    let before = 4 * ONE_NAT;
    let after = |improvement: f64| (f64::from(before) * (1.0 - improvement)).round() as u32;
    Evaluation {
        uid,
        own_before: before,
        own_after: after(own),
        random_before: before,
        random_after: after(random),
    }
}

pub(crate) fn validator(index: u16, stake: u64, evaluations: Vec<Evaluation>) -> ValidatorInput {
    ValidatorInput { index, stake, present: true, evaluations, bonds: Vec::new() }
}

/// Three equal validators that all measure the same (own, random) of miners 0, 1, ….
fn agreed(measured: &[(f64, f64)]) -> Vec<ValidatorInput> {
    let evaluations: Vec<Evaluation> =
        (0u16..).zip(measured).map(|(uid, &(own, random))| evaluation(uid, own, random)).collect();
    (0..3).map(|index| validator(index, 100, evaluations.clone())).collect()
}

fn miners(count: u16) -> Vec<MinerInput> {
    (0..count).map(miner).collect()
}

fn shares(outcome: &Outcome) -> Vec<f64> {
    outcome.miners.iter().map(|miner| miner.share.to_f64()).collect()
}

/// A loss is a multiple of 2^-24 nats: an improvement of 1 % of 4 nats is exact to 2·10^-6 of itself.
fn assert_close(value: Q32, expected: f64) {
    assert!((value.to_f64() - expected).abs() < 1e-5, "{} is not {expected}", value.to_f64());
}

#[test]
fn improvements_are_relative_and_bounded() {
    assert_eq!(relative_improvement(400, 300), Some(q(0.25)));
    assert_eq!(relative_improvement(400, 500), Some(q(-0.25)));
    assert_eq!(relative_improvement(1, u32::MAX), Some(q(-1.0)));
    assert_eq!(relative_improvement(u32::MAX, 0), Some(Q32::ONE));
    assert_eq!(relative_improvement(0, 5), None);
}

#[test]
fn medians_take_the_lower_of_two() {
    let value = |n: i32, stake| (Q32::from_int(n), stake);
    assert_eq!(weighted_median(&[value(1, 1), value(2, 1)]), Some(Q32::from_int(1)));
    assert_eq!(weighted_median(&[value(1, 1), value(2, 2)]), Some(Q32::from_int(2)));
    assert_eq!(weighted_median(&[value(9, 1), value(1, 1), value(5, 1)]), Some(Q32::from_int(5)));
    assert_eq!(weighted_median(&[value(1, u64::MAX); 4]), Some(Q32::from_int(1)));
    assert_eq!(weighted_median(&[value(1, 0)]), None);
    assert_eq!(weighted_median(&[]), None);
    assert_eq!(lower_median([4, 1, 3, 2].map(Q32::from_int).into_iter()), Some(Q32::from_int(2)));
    assert_eq!(lower_median([].into_iter()), None);
}

#[test]
fn equal_miners_are_paid_equally_and_garbage_nothing() {
    let measured = [(0.02, 0.01), (0.02, 0.01), (0.02, 0.01), (-0.01, -0.02)];
    let outcome = settle(&miners(4), &agreed(&measured), &incentive()).unwrap();
    for miner in &outcome.miners[..3] {
        assert_close(miner.value, 1.0);
        assert_close(miner.share, 1.0 / 3.0);
        assert_close(miner.standing.proof, 0.05);
        assert_eq!(miner.standing.scored_windows, 1);
    }
    assert_eq!(outcome.miners[3].share, Q32::ZERO);
    assert_close(outcome.miners[3].standing.gain, -1.0);
    for validator in &outcome.validators {
        assert_eq!(validator.agreement, Q32::ONE);
        assert_close(validator.share, 1.0 / 3.0);
    }
}

#[test]
fn shares_grow_with_the_power() {
    let measured = [(0.03, 0.01), (0.03, 0.02), (0.03, 0.01)];
    let outcome = settle(&miners(3), &agreed(&measured), &incentive()).unwrap();
    // Gains 1, 2, 1 to the third power.
    for (share, expected) in shares(&outcome).into_iter().zip([0.1, 0.8, 0.1]) {
        assert!((share - expected).abs() < 1e-5);
    }
}

#[test]
fn the_typical_gain_is_that_of_the_accepted_set() {
    let measured = [(0.03, 0.01), (0.03, 0.02), (0.03, 0.04)];
    let mut inputs = miners(3);
    inputs[0].accepted = false;
    inputs[1].accepted = false;
    let outcome = settle(&inputs, &agreed(&measured), &incentive()).unwrap();
    assert_close(outcome.miners[0].standing.gain, 0.25);
    assert_close(outcome.miners[2].standing.gain, 1.0);
    // Without an accepted miner, of all scored ones.
    inputs[2].accepted = false;
    let outcome = settle(&inputs, &agreed(&measured), &incentive()).unwrap();
    assert_close(outcome.miners[0].standing.gain, 0.5);
    // The accepted one was not scored.
    inputs[2].accepted = true;
    let mut validators = agreed(&measured);
    for validator in &mut validators {
        validator.evaluations.pop();
    }
    let outcome = settle(&inputs, &validators, &incentive()).unwrap();
    assert_close(outcome.miners[1].standing.gain, 2.0);
    assert_eq!(outcome.miners[2].standing, Standing::default());
}

#[test]
fn a_window_without_typical_gain_moves_no_gain() {
    let measured = [(0.01, -0.01), (0.01, -0.02), (0.05, 0.04)];
    let mut inputs = miners(3);
    for input in &mut inputs {
        input.standing.gain = Q32::ONE;
        input.standing.scored_windows = 4;
    }
    let outcome = settle(&inputs, &agreed(&measured), &incentive()).unwrap();
    for miner in &outcome.miners {
        assert_eq!(miner.standing.gain, Q32::ONE);
        assert_eq!(miner.standing.scored_windows, 4);
        assert_close(miner.standing.proof, 0.05);
        assert_close(miner.share, 1.0 / 3.0);
    }
}

#[test]
fn a_minority_cannot_move_the_medians() {
    let honest = [(0.02, 0.01), (0.02, 0.01)];
    let mut validators = agreed(&honest);
    let expected = settle(&miners(2), &validators, &incentive()).unwrap();
    // 299 of 599 stake: miner 0 is praised, miner 1 is slandered.
    let lies = vec![evaluation(0, 1.0, 1.0), evaluation(1, -1.0, -1.0)];
    validators.push(validator(3, 299, lies));
    let outcome = settle(&miners(2), &validators, &incentive()).unwrap();
    assert_eq!(outcome.miners, expected.miners);
    assert_eq!(outcome.validators[3].agreement, Q32::ZERO);
    assert_eq!(outcome.validators[3].share, Q32::ZERO);
    assert_close(outcome.validators[0].share, 1.0 / 3.0);
}

#[test]
fn an_absent_validator_costs_nobody_but_itself() {
    let measured = [(0.02, 0.01), (0.02, 0.01)];
    let mut validators = agreed(&measured);
    validators[2].present = false;
    validators[2].evaluations = vec![evaluation(0, -1.0, -1.0)];
    let outcome = settle(&miners(2), &validators, &incentive()).unwrap();
    assert_close(outcome.miners[0].share, 0.5);
    assert_eq!(outcome.validators[2].share, Q32::ZERO);
    assert_close(outcome.validators[0].share, 0.5);
    // All absent: nobody is scored, standings pay the miners.
    for validator in &mut validators {
        validator.present = false;
    }
    let mut inputs = miners(2);
    inputs[0].standing.gain = Q32::ONE;
    let outcome = settle(&inputs, &validators, &incentive()).unwrap();
    assert_eq!(outcome.miners[0].share, Q32::ONE);
    assert_eq!(outcome.miners[0].own, None);
    assert!(outcome.validators.iter().all(|validator| validator.share == Q32::ZERO));
}

#[test]
fn without_a_quorum_a_miner_keeps_its_standing() {
    let measured = [(0.02, 0.01), (0.02, 0.01)];
    let mut validators = agreed(&measured);
    // One third of the present stake evaluates miner 1; the quorum is one half.
    validators[0].evaluations.pop();
    validators[1].evaluations.pop();
    let outcome = settle(&miners(2), &validators, &incentive()).unwrap();
    assert_eq!(outcome.miners[1].random, None);
    assert_eq!(outcome.miners[1].standing, Standing::default());
    assert_close(outcome.miners[0].share, 1.0);
}

#[test]
fn unusable_evaluations_are_ignored() {
    let measured = [(0.02, 0.01)];
    let mut validators = agreed(&measured);
    let expected = settle(&miners(1), &validators, &incentive()).unwrap();
    let mut zero = evaluation(0, 0.5, 0.5);
    zero.random_before = 0;
    // Unknown uid; loss of zero before; named twice.
    validators.push(validator(3, 10, vec![evaluation(7, 0.5, 0.5)]));
    validators.push(validator(4, 10, vec![zero]));
    validators.push(validator(5, 10, vec![evaluation(0, 0.5, 0.5), evaluation(0, 0.6, 0.6)]));
    validators.push(validator(6, 0, vec![evaluation(0, 0.5, 0.5)]));
    let outcome = settle(&miners(1), &validators, &incentive()).unwrap();
    assert_eq!(outcome.miners, expected.miners);
    assert!(outcome.validators[3..].iter().all(|validator| validator.share == Q32::ZERO));
}

#[test]
fn who_revealed_nothing_is_not_paid_but_keeps_its_standing() {
    let measured = [(0.02, 0.01), (0.02, 0.01)];
    let mut inputs = miners(2);
    inputs[0].standing.gain = Q32::ONE;
    inputs[0].revealed = false;
    let outcome = settle(&inputs, &agreed(&measured), &incentive()).unwrap();
    assert_eq!(outcome.miners[0].share, Q32::ZERO);
    assert_eq!(outcome.miners[0].value, Q32::ONE);
    assert_eq!(outcome.miners[0].standing, inputs[0].standing);
    assert_eq!(outcome.miners[1].share, Q32::ONE);
}

#[test]
fn a_fault_is_felt_for_some_windows() {
    let measured = [(0.02, 0.01), (0.02, 0.01)];
    let mut inputs = miners(2);
    inputs[0].fault = Some(Fault::MissedReveal);
    inputs[0].revealed = false;
    let outcome = settle(&inputs, &agreed(&measured), &incentive()).unwrap();
    assert_eq!(outcome.miners[0].standing.penalty, q(0.75));
    assert_eq!(outcome.miners[0].share, Q32::ZERO);

    // Absence alone, without a fault, makes nothing good.
    inputs[0] = MinerInput { standing: outcome.miners[0].standing.clone(), ..miner(0) };
    inputs[0].revealed = false;
    let outcome = settle(&inputs, &agreed(&measured), &incentive()).unwrap();
    assert_eq!(outcome.miners[0].standing.penalty, q(0.75));

    inputs[0].revealed = true;
    let mut windows = 0;
    while inputs[0].standing.penalty < Q32::ONE {
        let outcome = settle(&inputs, &agreed(&measured), &incentive()).unwrap();
        assert!(outcome.miners[0].standing.penalty > inputs[0].standing.penalty);
        inputs[0].standing = outcome.miners[0].standing.clone();
        windows += 1;
        if windows == 1 {
            assert_eq!(inputs[0].standing.penalty, q(0.8125));
        }
    }
    assert!(windows < 100);
    assert_eq!(inputs[0].standing.penalty, Q32::ONE);
}

#[test]
fn a_miner_without_proof_is_closed_out_after_the_gate_windows() {
    // The lazy miner sends an update that helps as much on random samples as on its own.
    let measured = [(0.02, 0.01), (0.01, 0.01)];
    let mut inputs = miners(2);
    for window in 1..=15 {
        let outcome = settle(&inputs, &agreed(&measured), &incentive()).unwrap();
        if window <= 10 {
            assert_close(outcome.miners[1].share, 0.5);
        } else {
            assert_eq!(outcome.miners[1].value, Q32::ZERO, "window {window}");
            assert_eq!(outcome.miners[0].share, Q32::ONE);
        }
        for (input, outcome) in inputs.iter_mut().zip(outcome.miners) {
            input.standing = outcome.standing;
        }
    }
}

#[test]
fn plackett_luce_orders_miners_by_gain() {
    let mut rules = incentive();
    rules.standing = StandingKind::PlackettLuce;
    let measured = [(0.02, 0.01), (0.04, 0.03), (0.03, 0.02), (0.001, -0.05)];
    let mut inputs = miners(4);
    let mut last = Vec::new();
    for _ in 0..20 {
        let outcome = settle(&inputs, &agreed(&measured), &rules).unwrap();
        last = shares(&outcome);
        for (input, outcome) in inputs.iter_mut().zip(outcome.miners) {
            input.standing = outcome.standing;
        }
    }
    let mu: Vec<Q32> = inputs.iter().map(|input| input.standing.rating.mu).collect();
    assert!(mu[1] > mu[2] && mu[2] > mu[0] && mu[0] > mu[3], "{mu:?}");
    // The rule's price: a miner that is good but not the best starves (docs/PROTOCOL.md, section 8).
    assert!(last[1] > last[2] && last[2] > last[0], "{last:?}");
    assert_eq!(last[3], 0.0);
    assert_eq!(inputs[0].standing.gain, Q32::ZERO);
    assert_eq!(inputs[0].standing.scored_windows, 20);
}

#[test]
fn measuring_one_easy_miner_does_not_pay_like_measuring_all() {
    let measured = [(0.02, 0.01); 10];
    let mut validators = agreed(&measured);
    validators[2].evaluations.truncate(1);
    let outcome = settle(&miners(10), &validators, &incentive()).unwrap();
    assert_eq!(outcome.validators[2].agreement, Q32::ONE);
    assert_close(outcome.validators[2].share, 0.1 / 2.1);
}

#[test]
fn noise_is_not_disagreement() {
    // Everybody measures with noise far above the gain: all are paid, and the outlier less.
    let noisy = |own: f64, random: f64| vec![evaluation(0, own, random)];
    let validators = [
        validator(0, 100, noisy(0.10, -0.10)),
        validator(1, 100, noisy(-0.05, 0.05)),
        validator(2, 100, noisy(0.001, 0.001)),
        validator(3, 100, noisy(0.9, -0.9)),
    ];
    let outcome = settle(&miners(1), &validators, &incentive()).unwrap();
    assert!(outcome.validators[..3].iter().all(|validator| validator.share > q(0.2)));
    assert_eq!(outcome.validators[3].share, Q32::ZERO);
}

#[test]
fn nothing_to_settle_is_settled() {
    let outcome = settle(&[], &[], &incentive()).unwrap();
    assert_eq!(outcome, Outcome { miners: vec![], validators: vec![] });
    let outcome = settle(&miners(2), &agreed(&[(-0.1, -0.1), (-0.1, -0.1)]), &incentive()).unwrap();
    assert!(outcome.miners.iter().all(|miner| miner.share == Q32::ZERO));
}

#[test]
fn inputs_that_contradict_themselves_are_errors() {
    let twice = [miner(3), miner(3)];
    assert_eq!(settle(&twice, &[], &incentive()), Err(ConsensusError::DuplicateMiner(3)));
    let twice = [validator(1, 5, vec![]), validator(1, 6, vec![])];
    assert_eq!(settle(&[], &twice, &incentive()), Err(ConsensusError::DuplicateValidator(1)));
    let mut absurd = miner(0);
    absurd.standing.proof = Q32::MIN;
    let error = ConsensusError::Overflow("proof of computation");
    assert_eq!(settle(&[absurd], &agreed(&[(0.1, 0.1)]), &incentive()), Err(error));
}

#[test]
fn pay_leaves_the_dust() {
    let third = Q32::from_ratio(1, 3).unwrap();
    assert_eq!(pay(100, &[third, third, third]), Ok((vec![33, 33, 33], 1)));
    assert_eq!(pay(u128::MAX, &[Q32::ONE]), Ok((vec![u128::MAX], 0)));
    assert_eq!(pay(7, &[]), Ok((vec![], 7)));
    assert_eq!(pay(7, &[Q32(-1)]), Err(ConsensusError::Shares));
    assert_eq!(pay(7, &[Q32::ONE, Q32(1)]), Err(ConsensusError::Shares));
    assert_eq!(pay(7, &[Q32::MAX, Q32::MAX]), Err(ConsensusError::Shares));
}

#[test]
fn shares_follow_powers_in_f64() {
    let values = [0.0, 0.1, 0.5, 1.3, 2.0, 700.0];
    for power in 1..=8u8 {
        let shares = power_shares(&values.map(q), power).unwrap();
        let sum: f64 = values.iter().map(|value| value.powi(power.into())).sum();
        for (share, value) in shares.iter().zip(values) {
            // Floors: at most one unit of the last bit low, and the base is exact to 2^-60.
            let exact = value.powi(power.into()) / sum;
            assert!(share.to_f64() <= exact + 1e-12 && share.to_f64() >= exact - 1e-9);
        }
    }
}

/// The rules of `Gain` in `f64`, one validator's view at a time, without any shortcut.
fn oracle(inputs: &[MinerInput], validators: &[ValidatorInput], rules: &Incentive) -> Vec<f64> {
    let relative = |before: u32, after: u32| {
        ((f64::from(before) - f64::from(after)) / f64::from(before)).max(-1.0)
    };
    let median = |mut values: Vec<(f64, u64)>| {
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: u64 = values.iter().map(|v| v.1).sum();
        let mut reached = 0;
        values.into_iter().find(|v| {
            reached += v.1;
            2 * reached >= total
        })
    };
    let mut measured = Vec::new();
    for input in inputs {
        let seen: Vec<(u64, &Evaluation)> = validators
            .iter()
            .flat_map(|v| v.evaluations.iter().map(move |e| (v.stake, e)))
            .filter(|(_, e)| e.uid == input.uid)
            .collect();
        let own = seen.iter().map(|(s, e)| (relative(e.own_before, e.own_after), *s)).collect();
        let random =
            seen.iter().map(|(s, e)| (relative(e.random_before, e.random_after), *s)).collect();
        measured.push((median(own).unwrap().0, median(random).unwrap().0));
    }
    let mut gains: Vec<f64> = measured.iter().map(|m| m.1).collect();
    gains.sort_by(f64::total_cmp);
    let typical = gains[(gains.len() - 1) / 2];
    let values: Vec<f64> = inputs
        .iter()
        .zip(&measured)
        .map(|(input, (own, random))| {
            let standing = &input.standing;
            let sign = if own > random {
                1.0
            } else if own < random {
                -1.0
            } else {
                0.0
            };
            let proof = standing.proof.to_f64();
            let proof = proof + 0.05 * (sign - proof);
            let (mut gain, mut n) = (standing.gain.to_f64(), standing.scored_windows);
            if typical > 0.0 {
                let rate = (1.0 / (f64::from(n) + 1.0)).max(0.05);
                gain += rate * ((random / typical).clamp(-1.0, 2.0) - gain);
                n += 1;
            }
            let penalty = standing.penalty.to_f64();
            let penalty = penalty + (1.0 - penalty) / 4.0;
            let open = n <= rules.proof_gate_windows || proof > 0.1;
            gain.max(0.0) * f64::from(u8::from(open)) * penalty
        })
        .collect();
    let sum: f64 = values.iter().map(|value| value.powi(rules.power.into())).sum();
    values.iter().map(|v| if sum > 0.0 { v.powi(rules.power.into()) / sum } else { 0.0 }).collect()
}

#[test]
fn settlements_follow_the_oracle() {
    use proptest::{prelude::*, test_runner::TestRunner};
    let measured = proptest::collection::vec((-0.02..0.06f64, -0.02..0.06f64), 12 * 4);
    let standings =
        proptest::collection::vec((0u32..40, -0.9..0.9f64, -1.0..2.0f64, 0.3..1.0f64), 12);
    let stakes = proptest::array::uniform4(1u64..1_000);
    let rules = incentive();
    TestRunner::default()
        .run(&(measured, standings, stakes), |(measured, standings, stakes)| {
            let mut inputs = miners(12);
            for (input, (n, proof, gain, penalty)) in inputs.iter_mut().zip(standings) {
                input.standing.scored_windows = n;
                input.standing.proof = q(proof);
                input.standing.gain = q(gain);
                input.standing.penalty = q(penalty);
            }
            let validators: Vec<ValidatorInput> = (0u16..)
                .zip(stakes)
                .zip(measured.chunks(12))
                .map(|((index, stake), row)| {
                    let row = (0u16..).zip(row).map(|(uid, m)| evaluation(uid, m.0, m.1)).collect();
                    validator(index, stake, row)
                })
                .collect();
            let outcome = settle(&inputs, &validators, &rules).unwrap();
            for (share, exact) in
                shares(&outcome).into_iter().zip(oracle(&inputs, &validators, &rules))
            {
                // A typical gain near zero magnifies the rounding of the gains; cut at 2^-17.
                prop_assert!((share - exact).abs() < 1e-4, "{} {}", share, exact);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn twelve_windows_pay_honest_work() {
    // SCENE: 6 honest miners with noise, one garbage, one lazy, five validators of which one lies.
    let mut inputs = miners(8);
    let mut noise = 12_345u64;
    let mut random = move || {
        // A linear congruential generator is enough for noise.
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (noise >> 33) as f64 / f64::from(1u32 << 31) - 0.5
    };
    let mut paid = [0.0; 8];
    for _ in 0..40 {
        let truth: Vec<(f64, f64)> = (0..8)
            .map(|uid| {
                let gain = match uid {
                    6 => -0.01,
                    7 => 0.005,
                    _ => 0.01 + 0.004 * random(),
                };
                let own = if uid < 6 { gain + 0.004 } else { gain };
                (own + 0.004 * random(), gain)
            })
            .collect();
        let validators: Vec<ValidatorInput> = (0..5u16)
            .map(|index| {
                let seen = (0u16..).zip(&truth).map(|(uid, t)| match index {
                    4 => evaluation(uid, 0.9, if uid == 6 { 0.9 } else { -0.9 }),
                    _ => evaluation(uid, t.0 + 0.001 * random(), t.1 + 0.001 * random()),
                });
                let seen = seen.collect();
                validator(index, 100, seen)
            })
            .collect();
        let outcome = settle(&inputs, &validators, &incentive()).unwrap();
        assert_eq!(outcome.validators[4].share, Q32::ZERO);
        for ((input, miner), paid) in inputs.iter_mut().zip(&outcome.miners).zip(&mut paid) {
            input.standing = miner.standing.clone();
            *paid += miner.share.to_f64();
        }
    }
    let honest = &paid[..6];
    let most = honest.iter().copied().fold(0.0, f64::max);
    let least = honest.iter().copied().fold(f64::MAX, f64::min);
    assert!(most / least < 2.0, "{paid:?}");
    assert_eq!(paid[6], 0.0);
    assert!(paid[7] < 0.2 * least, "{paid:?}");
}

#[test]
fn standings_survive_their_encoding() {
    use codec::{Decode, Encode, MaxEncodedLen};
    let standing = Standing::default();
    let bytes = standing.encode();
    assert_eq!(bytes.len(), Standing::max_encoded_len());
    assert_eq!(Standing::decode(&mut bytes.as_slice()), Ok(standing.clone()));
    let evaluation = evaluation(0x0102, 0.5, 0.25);
    let expected = [2, 1, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 3];
    assert_eq!(evaluation.encode(), expected);
    assert_eq!(standing_value(&standing, &incentive()), Some(Q32::ZERO));
}
