//! Yuma consensus against a dense `f64` oracle, and as the rule of a run: who is paid what.

use protocol::{
    consensus::{
        settle,
        yuma::{epoch, judge, normalised, EpochInput, Judgement, Neuron, Row},
        Fault, Outcome, ValidatorInput,
    },
    fixed::Q32,
    settings::{ConsensusKind, Incentive, YumaSettings},
};

use crate::consensus::{evaluation, incentive, miner, q, validator};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// A judgement in `f64`.
struct Oracle {
    consensus: Vec<f64>,
    incentive: Vec<f64>,
    dividends: Vec<f64>,
    bonds: Vec<Vec<f64>>,
}

fn norm(values: &mut [f64]) {
    let sum: f64 = values.iter().sum();
    if sum > 0.0 {
        values.iter_mut().for_each(|value| *value /= sum);
    }
}

fn norm_columns(rows: &mut [Vec<f64>], columns: usize) {
    for column in 0..columns {
        let sum: f64 = rows.iter().map(|row| row[column]).sum();
        if sum > 0.0 {
            rows.iter_mut().for_each(|row| row[column] /= sum);
        }
    }
}

fn dense<T: Copy>(rows: &[Row<T>], columns: usize, number: impl Fn(T) -> f64) -> Vec<Vec<f64>> {
    let row = |row: &Row<T>| {
        let mut dense = vec![0.0; columns];
        row.iter().for_each(|(uid, value)| dense[usize::from(*uid)] = number(*value));
        dense
    };
    rows.iter().map(row).collect()
}

/// Every step on dense matrices, as section 8 of docs/PROTOCOL.md writes them.
fn oracle(
    columns: usize,
    stake: &[Q32],
    weights: &[Row<Q32>],
    bonds: &[Row<u16>],
    settings: &YumaSettings,
) -> Oracle {
    let kappa = f64::from(settings.kappa) / 65_535.0;
    let beta = f64::from(settings.bonds_penalty) / 65_535.0;
    let kept = f64::from(settings.bonds_moving_average_ppm) / 1e6;
    let stake: Vec<f64> = stake.iter().map(|part| part.to_f64()).collect();
    let weights = dense(weights, columns, Q32::to_f64);
    let mut old = dense(bonds, columns, f64::from);
    let total: f64 = stake.iter().sum();
    let consensus: Vec<f64> = (0..columns)
        .map(|column| {
            let mut votes: Vec<(f64, f64)> = weights
                .iter()
                .zip(&stake)
                .filter(|(_, stake)| **stake > 0.0)
                .map(|(row, stake)| (row[column], *stake))
                .collect();
            votes.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut reached = 0.0;
            for (weight, stake) in votes {
                reached += stake;
                if reached > total - kappa {
                    return weight;
                }
            }
            0.0
        })
        .collect();
    let clipped: Vec<Vec<f64>> = weights
        .iter()
        .map(|row| row.iter().zip(&consensus).map(|(weight, most)| weight.min(*most)).collect())
        .collect();
    let mut incentive: Vec<f64> = (0..columns)
        .map(|column| clipped.iter().zip(&stake).map(|(row, stake)| stake * row[column]).sum())
        .collect();
    norm(&mut incentive);
    let mut new: Vec<Vec<f64>> = (0..weights.len())
        .map(|i| {
            (0..columns)
                .map(|j| stake[i] * (weights[i][j] + beta * (clipped[i][j] - weights[i][j])))
                .collect()
        })
        .collect();
    norm_columns(&mut new, columns);
    norm_columns(&mut old, columns);
    let mut averaged: Vec<Vec<f64>> = new
        .iter()
        .zip(&old)
        .map(|(new, old)| {
            new.iter().zip(old).map(|(new, old)| (1.0 - kept) * new + kept * old).collect()
        })
        .collect();
    norm_columns(&mut averaged, columns);
    let mut dividends: Vec<f64> = averaged
        .iter()
        .map(|row| row.iter().zip(&incentive).map(|(bond, part)| bond * part).sum())
        .collect();
    norm(&mut dividends);
    for column in 0..columns {
        let largest = averaged.iter().map(|row| row[column]).fold(0.0, f64::max);
        if largest > 0.0 {
            averaged.iter_mut().for_each(|row| row[column] /= largest);
        }
    }
    Oracle { consensus, incentive, dividends, bonds: averaged }
}

fn assert_near(found: &[Q32], expected: &[f64], what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        let off = (found.to_f64() - expected).abs();
        assert!(off < 1e-6, "{what}: {} is not {expected}", found.to_f64());
    }
}

/// A sparse graph: rows of random weights with entries of 0 and without, bonds likewise.
fn graph(random: &mut Random, validators: usize, columns: usize) -> (Vec<Row<Q32>>, Vec<Row<u16>>) {
    let mut weights = Vec::new();
    let mut bonds = Vec::new();
    for _ in 0..validators {
        let mut row: Row<Q32> = Row::new();
        let mut old: Row<u16> = Row::new();
        for uid in 0..columns as u16 {
            match random.below(4) {
                0 => {}
                1 => row.push((uid, Q32::ZERO)),
                _ => row.push((uid, Q32::from_int(random.below(65_536) as i32))),
            }
            if random.below(3) > 0 {
                old.push((uid, random.below(65_536) as u16));
            }
        }
        let values = normalised(row.iter().map(|(_, value)| *value).collect());
        weights.push(row.iter().map(|(uid, _)| *uid).zip(values).collect());
        bonds.push(old);
    }
    (weights, bonds)
}

#[test]
fn random_graphs_are_judged_as_the_dense_oracle_judges_them() {
    let mut random = Random(7);
    for round in 0..200 {
        let validators = 1 + random.below(12) as usize;
        let columns = 1 + random.below(30) as usize;
        let stake: Vec<Q32> =
            (0..validators).map(|_| Q32::from_int(random.below(5) as i32)).collect();
        let stake = normalised(stake);
        let (weights, bonds) = graph(&mut random, validators, columns);
        let settings = YumaSettings {
            // Not where a rounding of 2^-32 decides which weight more than κ of the stake endorses.
            kappa: 20_001 + random.below(20_000) as u16,
            bonds_penalty: [0, u16::MAX, random.below(65_536) as u16][random.below(3) as usize],
            bonds_moving_average_ppm: random.below(1_000_000) as u32,
        };
        let found = judge(columns, &stake, &weights, &bonds, &settings);
        let expected = oracle(columns, &stake, &weights, &bonds, &settings);
        assert_near(&found.consensus, &expected.consensus, &format!("consensus {round}"));
        assert_near(&found.incentive, &expected.incentive, &format!("incentive {round}"));
        assert_near(&found.dividends, &expected.dividends, &format!("dividends {round}"));
        let bonds = dense(&found.bonds, columns, f64::from);
        for (found, expected) in bonds.iter().flatten().zip(expected.bonds.iter().flatten()) {
            assert!((found / 65_535.0 - expected).abs() < 3e-5, "bonds {round}");
        }
    }
}

fn neuron(stake: u64, weights: Row<u16>) -> Neuron {
    Neuron { stake, permit: stake > 0, last_update: 9, registered_at: 0, weights, bonds: vec![] }
}

fn input(neurons: Vec<Neuron>) -> EpochInput {
    let (block, last_step, tempo, activity_cutoff) = (10, 5, 1, 3);
    EpochInput { neurons, block, last_step, tempo, activity_cutoff, validators_max: 2 }
}

#[test]
fn a_validator_past_the_cutoff_has_no_voice_and_keeps_its_permit() {
    let mut neurons = vec![
        neuron(60, vec![(2, 1)]),
        neuron(40, vec![(3, 1)]),
        neuron(0, vec![]),
        neuron(0, vec![]),
    ];
    neurons[0].last_update = 6;
    let outcome = epoch(&input(neurons), &YumaSettings::UPSTREAM);
    assert_eq!(outcome.active_stake, [Q32::ZERO, Q32::ONE, Q32::ZERO, Q32::ZERO]);
    assert_eq!(outcome.judgement.incentive[3], Q32::ONE);
    assert_eq!(outcome.permits, [true, true, false, false]);
}

#[test]
fn a_uid_that_changed_hands_has_neither_weights_nor_bonds() {
    let mut neurons = vec![neuron(1, vec![(1, 1), (2, 1)]), neuron(0, vec![]), neuron(0, vec![])];
    neurons[0].bonds = vec![(1, 65_535), (2, 65_535)];
    // In the block of the weights, and after the last epoch.
    neurons[1].registered_at = 9;
    let outcome = epoch(&input(neurons), &YumaSettings::UPSTREAM);
    assert_eq!(outcome.weights[0], [(2, Q32::ONE)]);
    assert_eq!(outcome.judgement.bonds[0], [(2, 65_535)]);
}

#[test]
fn a_lost_permit_takes_the_bonds_and_of_equals_the_lower_uid_loses() {
    let mut neurons: Vec<Neuron> = (0..4).map(|_| neuron(5, vec![])).collect();
    for neuron in &mut neurons {
        neuron.bonds = vec![(0, 7)];
    }
    neurons[1].permit = false;
    neurons[3].stake = 0;
    let outcome = epoch(&input(neurons), &YumaSettings::UPSTREAM);
    assert_eq!(outcome.permits, [false, true, true, false]);
    let bonds = &outcome.judgement.bonds;
    assert_eq!(bonds[0], [], "it had a permit and lost it");
    assert_eq!(bonds[3], [], "it had a permit and lost it");
    assert_eq!(bonds[1], [(0, 65_535)], "it has a permit now");
}

fn rules() -> Incentive {
    Incentive { consensus: ConsensusKind::Yuma(YumaSettings::UPSTREAM), power: 1, ..incentive() }
}

/// `stakes.len()` validators that measure the same gains.
fn agreed(stakes: &[u64], gains: &[f64]) -> Vec<ValidatorInput> {
    let row = || (0u16..).zip(gains).map(|(uid, gain)| evaluation(uid, *gain + 0.01, *gain));
    (0u16..).zip(stakes).map(|(index, stake)| validator(index, *stake, row().collect())).collect()
}

fn settled(validators: &[ValidatorInput], count: u16) -> Outcome {
    let miners: Vec<_> = (0..count).map(miner).collect();
    settle(&miners, validators, &rules()).unwrap()
}

fn assert_share(found: Q32, expected: f64) {
    assert!((found.to_f64() - expected).abs() < 1e-4, "{} is not {expected}", found.to_f64());
}

#[test]
fn agreeing_validators_pay_miners_by_gain_and_themselves_by_stake() {
    let outcome = settled(&agreed(&[100, 300], &[0.1, 0.3, -0.2]), 3);
    assert_share(outcome.miners[0].share, 0.25);
    assert_share(outcome.miners[1].share, 0.75);
    assert_eq!(outcome.miners[2].share, Q32::ZERO);
    assert_share(outcome.validators[0].share, 0.25);
    assert_share(outcome.validators[1].share, 0.75);
    assert_eq!(outcome.validators[1].bonds, [(0, 65_535), (1, 65_535)]);
}

#[test]
fn a_minority_that_votes_for_its_own_is_clipped() {
    let mut validators = agreed(&[100, 100, 100], &[0.1, 0.1]);
    validators[2].evaluations = vec![evaluation(2, 0.9, 0.9)];
    let outcome = settled(&validators, 3);
    assert_share(outcome.miners[0].share, 0.5);
    assert_eq!(outcome.miners[2].share, Q32::ZERO);
    assert_eq!(outcome.validators[2].share, Q32::ZERO);
    assert_eq!(outcome.validators[2].agreement, Q32::ZERO);
}

#[test]
fn bonds_are_carried_and_an_absent_validator_is_paid_nothing() {
    let first = settled(&agreed(&[100, 100], &[0.1, 0.3]), 2);
    let mut validators = agreed(&[100, 100], &[0.1, 0.3]);
    for (validator, outcome) in validators.iter_mut().zip(&first.validators) {
        validator.bonds = outcome.bonds.clone();
    }
    validators[1].present = false;
    validators[1].evaluations.clear();
    let second = settled(&validators, 2);
    // Nine tenths of an even start are kept: 0.55 to 0.45.
    assert_share(second.validators[0].share, 0.55);
    assert_eq!(second.validators[1].share, Q32::ZERO);
    assert_eq!(second.validators[1].bonds, [(0, 53_619), (1, 53_619)]);
}

#[test]
fn penalties_and_faults_count_and_a_window_without_a_vote_pays_nobody() {
    let validators = agreed(&[100], &[0.1, 0.1]);
    let mut miners = vec![miner(0), miner(1)];
    miners[0].standing.penalty = q(0.5);
    miners[1].fault = Some(Fault::Unavailable);
    let outcome = settle(&miners, &validators, &rules()).unwrap();
    assert_share(outcome.miners[0].share, 0.625);
    assert_eq!(outcome.miners[1].share, Q32::ZERO);
    let silent = settled(&[validator(0, 100, vec![])], 1);
    assert_eq!((silent.miners[0].share, silent.validators[0].share), (Q32::ZERO, Q32::ZERO));
}

#[test]
fn nothing_of_nobody_is_nothing() {
    let none = judge(0, &[], &[], &[], &YumaSettings::UPSTREAM);
    let empty = Judgement {
        consensus: vec![],
        trust: vec![],
        incentive: vec![],
        dividends: vec![],
        bonds: vec![],
    };
    assert_eq!(none, empty);
    let stray =
        judge(1, &[Q32::ONE], &[vec![(7, Q32::ONE)]], &[vec![(9, 1)]], &YumaSettings::UPSTREAM);
    assert_eq!((stray.incentive, stray.bonds), (vec![Q32::ZERO], vec![vec![]]));
}
