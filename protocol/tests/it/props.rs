//! Properties of the settlement under arbitrary input.

use proptest::{collection::vec, prelude::*};
use protocol::{
    consensus::{pay, Evaluation, Fault, Medians, MinerInput, Standing, ValidatorInput},
    emission::split_emission,
    fixed::Q32,
    rating::Rating,
    settings::{ConsensusKind, Incentive, Settings, StandingKind, YumaSettings},
};

use crate::consensus::{evaluation, incentive, miner, q, settle, validator, window};

fn any_evaluation() -> impl Strategy<Value = Evaluation> {
    let loss = || prop_oneof![Just(0u32), Just(u32::MAX), 1u32..1 << 27];
    (0u16..14, loss(), loss(), loss(), loss()).prop_map(
        |(uid, own_before, own_after, random_before, random_after)| Evaluation {
            uid,
            own_before,
            own_after,
            random_before,
            random_after,
        },
    )
}

fn any_fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![
        4 => Just(None),
        1 => Just(Some(Fault::MissedCommit)),
        1 => Just(Some(Fault::MissedReveal)),
        1 => Just(Some(Fault::Unavailable)),
        1 => Just(Some(Fault::Proven)),
    ]
}

/// Standings that [`settle`] could have made.
fn sane_standing() -> impl Strategy<Value = Standing> {
    let numbers = (0u32..100, -1.0..1.0f64, -1.0..2.0f64, 0.0..50.0f64, 0.5..8.4f64, 0.0..1.0f64);
    (numbers, -0.5..0.5f64, -0.5..0.5f64).prop_map(
        |((scored_windows, proof, gain, mu, sigma, penalty), own, random)| Standing {
            scored_windows,
            proof: q(proof),
            gain: q(gain),
            rating: Rating { mu: q(mu), sigma: q(sigma) },
            penalty: q(penalty),
            medians: Medians { own: q(own), random: q(random) },
        },
    )
}

/// Any bytes that decode to a standing.
fn absurd_standing() -> impl Strategy<Value = Standing> {
    (any::<u32>(), any::<[i64; 7]>()).prop_map(
        |(scored_windows, [proof, gain, mu, sigma, penalty, own, random])| Standing {
            scored_windows,
            proof: Q32(proof),
            gain: Q32(gain),
            rating: Rating { mu: Q32(mu), sigma: Q32(sigma) },
            penalty: Q32(penalty),
            medians: Medians { own: Q32(own), random: Q32(random) },
        },
    )
}

fn any_miners(standing: impl Strategy<Value = Standing>) -> impl Strategy<Value = Vec<MinerInput>> {
    let one = (standing, prop::bool::weighted(0.2), prop::bool::weighted(0.8), any_fault());
    vec(one, 0..12).prop_map(|miners| {
        (0u16..)
            .zip(miners)
            .map(|(uid, (standing, on_probation, revealed, fault))| MinerInput {
                uid,
                standing,
                on_probation,
                revealed,
                fault,
            })
            .collect()
    })
}

fn any_validators() -> impl Strategy<Value = Vec<ValidatorInput>> {
    let stake = prop_oneof![Just(0u64), Just(u64::MAX), 1u64..1_000_000];
    let drawn = prop_oneof![
        3 => Just((0..14).collect()),
        1 => prop::collection::btree_set(0u16..14, 0..14),
    ];
    let one = (stake, prop::bool::weighted(0.8), vec(any_evaluation(), 0..16), drawn, 0.0..=1.0f64);
    vec(one, 0..8).prop_map(|validators| {
        (0u16..)
            .zip(validators)
            .map(|(index, (stake, present, evaluations, drawn, attested))| ValidatorInput {
                index,
                stake,
                present,
                attested: q(attested),
                drawn: drawn.into_iter().collect(),
                evaluations,
                bonds: vec![(0, 65_535), (index, 7)],
            })
            .collect()
    })
}

fn any_rules() -> impl Strategy<Value = Incentive> {
    let any_kind = prop_oneof![
        2 => Just(ConsensusKind::Gauntlet),
        1 => (1u16.., any::<u16>(), 0u32..1_000_000).prop_map(
            |(kappa, bonds_penalty, bonds_moving_average_ppm)| {
                let yuma = YumaSettings { kappa, bonds_penalty, bonds_moving_average_ppm };
                ConsensusKind::Yuma(yuma)
            }
        ),
    ];
    (any::<bool>(), 0u8..=8, 1u32..=1_000_000, any_kind).prop_map(
        |(gain, power, evaluation_quorum_ppm, consensus)| {
            let standing = if gain { StandingKind::Gain } else { StandingKind::PlackettLuce };
            Incentive { standing, power, evaluation_quorum_ppm, consensus, ..incentive() }
        },
    )
}

fn sum(shares: impl Iterator<Item = Q32>) -> i128 {
    shares.map(|share| i128::from(share.0)).sum()
}

proptest! {
    #[test]
    fn shares_are_never_negative_and_never_above_one(
        miners in any_miners(sane_standing()),
        validators in any_validators(),
        rules in any_rules(),
    ) {
        let outcome = settle(&miners, &validators, &rules).unwrap();
        let one = i128::from(Q32::ONE.0);
        let by_standing = rules.consensus == ConsensusKind::Gauntlet;
        let has_result = window(&miners, &validators).has_result();
        for shares in [
            outcome.miners.iter().map(|miner| miner.share).collect::<Vec<_>>(),
            outcome.validators.iter().map(|validator| validator.share).collect(),
        ] {
            prop_assert!(shares.iter().all(|share| *share >= Q32::ZERO));
            let total = sum(shares.iter().copied());
            // Rounded down: at most one unit is lost for each share.
            prop_assert!(total <= one);
            // What is left is carried; nobody is paid in a window without result.
            prop_assert!(has_result || total == 0);
            let (amounts, rest) = pay(1_000_000_007, &shares).unwrap();
            prop_assert_eq!(amounts.iter().sum::<u128>() + rest, 1_000_000_007);
        }
        for (input, outcome) in miners.iter().zip(&outcome.miners) {
            prop_assert_eq!(input.uid, outcome.uid);
            prop_assert!(outcome.value >= Q32::ZERO);
            let is_paid = input.revealed && input.fault.is_none() && !input.on_probation;
            prop_assert!(is_paid || outcome.share == Q32::ZERO);
            prop_assert!(!by_standing || outcome.own.is_some() || outcome.share == Q32::ZERO);
            if outcome.random.is_some_and(|gain| gain <= Q32::ZERO) {
                prop_assert!(outcome.standing.gain <= input.standing.gain);
            }
            prop_assert!((Q32::ZERO..=Q32::ONE).contains(&outcome.standing.penalty));
            prop_assert!(outcome.standing.gain <= Q32::from_int(2));
        }
        for (input, outcome) in validators.iter().zip(&outcome.validators) {
            prop_assert!((Q32::ZERO..=Q32::ONE).contains(&outcome.agreement));
            prop_assert!(input.present || outcome.share == Q32::ZERO);
        }
        // Somebody measured a scored miner: somebody is paid for it.
        if by_standing && outcome.miners.iter().any(|miner| miner.own.is_some()) {
            let total = sum(outcome.validators.iter().map(|v| v.share));
            // Rounded down: at most one unit is lost for each share.
            prop_assert!(total > one - 1 - validators.len() as i128);
        }
    }

    #[test]
    fn no_order_matters(
        miners in any_miners(sane_standing()),
        validators in any_validators(),
        rules in any_rules(),
        seed: u64,
    ) {
        let outcome = settle(&miners, &validators, &rules).unwrap();
        let key = |n: u64| n.wrapping_add(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17);
        let (mut shuffled_miners, mut shuffled_validators) = (miners, validators);
        shuffled_miners.sort_by_key(|miner| key(miner.uid.into()));
        shuffled_validators.sort_by_key(|validator| key(validator.index.into()));
        for validator in &mut shuffled_validators {
            validator.evaluations.sort_by_key(|e| key(u64::from(e.uid) ^ u64::from(e.own_after) << 8));
        }
        let mut shuffled = settle(&shuffled_miners, &shuffled_validators, &rules).unwrap();
        shuffled.miners.sort_by_key(|miner| miner.uid);
        shuffled.validators.sort_by_key(|validator| validator.index);
        prop_assert_eq!(outcome, shuffled);
    }

    #[test]
    fn a_minority_stays_within_what_the_others_measured(
        honest in vec(vec((-0.5..0.5f64, -0.5..0.5f64), 5), 3),
        lies in vec((-1.0..1.0f64, -1.0..1.0f64), 5),
    ) {
        let row = |measured: &[(f64, f64)]| -> Vec<Evaluation> {
            (0u16..).zip(measured).map(|(uid, m)| evaluation(uid, m.0, m.1)).collect()
        };
        let miners: Vec<MinerInput> = (0..5).map(miner).collect();
        let mut validators: Vec<ValidatorInput> =
            (0u16..).zip(&honest).map(|(index, measured)| validator(index, 100, row(measured))).collect();
        validators.push(validator(3, 299, row(&lies)));
        let outcome = settle(&miners, &validators, &incentive()).unwrap();
        for (uid, miner) in outcome.miners.iter().enumerate() {
            // Losses are whole numbers of 2^-24 nats out of 4.
            let within = |median: Q32, of: fn(&(f64, f64)) -> f64| {
                let seen: Vec<f64> = honest.iter().map(|measured| of(&measured[uid])).collect();
                let low = seen.iter().copied().fold(f64::MAX, f64::min) - 1e-7;
                let high = seen.iter().copied().fold(f64::MIN, f64::max) + 1e-7;
                (low..=high).contains(&median.to_f64())
            };
            prop_assert!(within(miner.own.unwrap(), |m| m.0));
            prop_assert!(within(miner.random.unwrap(), |m| m.1));
        }
    }

    #[test]
    fn no_input_panics(
        miners in any_miners(absurd_standing()),
        validators in any_validators(),
        rules in any_rules(),
        numbers in any::<[u32; 12]>(),
    ) {
        let _ = settle(&miners, &validators, &rules);
        let [proof_rate_ppm, gain_rate_min_ppm, proof_gate_ppm, proof_prior_windows, missed_penalty_ppm, evaluation_quorum_ppm, power, proof_prior_ppm, proof_full_ppm, knee_ppm, knee_spread_ppm, trust_windows] = numbers;
        let power = power as u8;
        let rules = Incentive { proof_rate_ppm, gain_rate_min_ppm, proof_gate_ppm, proof_prior_windows, missed_penalty_ppm, evaluation_quorum_ppm, power, proof_prior_ppm, proof_full_ppm, knee_ppm, knee_spread_ppm, trust_windows, ..rules };
        let _ = settle(&miners, &validators, &rules);
    }

    #[test]
    fn money_is_neither_made_nor_lost(
        pot: u128,
        shares in vec(any::<i64>(), 0..6),
        parts in any::<[u32; 3]>(),
    ) {
        let shares: Vec<Q32> = shares.into_iter().map(Q32).collect();
        if let Ok((amounts, rest)) = pay(pot, &shares) {
            prop_assert_eq!(amounts.iter().sum::<u128>() + rest, pot);
        }
        let mut emission = Settings::example().emission;
        [emission.owner_ppm, emission.miners_ppm, emission.validators_ppm] = parts;
        if let Ok(split) = split_emission(&emission, pot) {
            prop_assert_eq!(split.owner + split.miners + split.validators, pot);
        }
    }
}
