//! What can be chosen among by whoever withholds a salt or writes a block, counted and measured; the numbers of
//! docs/decisions/0020.

use std::collections::BTreeSet;

use protocol::{
    commitment::challenged_chunks,
    consensus::ValidatorOutcome,
    fixed::Q32,
    seed::{challenge_seed, mix_salt, window_seed},
    strikes::{is_struck, is_withheld, judged_windows, refuse_pay, STRIKE_WINDOWS},
    Hash, ValidatorIndex,
};

const WINDOW: u64 = 7;

/// A hash from a number.
fn hash(number: u64) -> Hash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    challenge_seed(&[0; 32], &bytes)
}

/// The mix of the salts of these validators, in this order.
fn mix(order: &[ValidatorIndex]) -> Hash {
    order
        .iter()
        .fold([0; 32], |mix, index| mix_salt(&mix, WINDOW, *index, &hash(u64::from(*index))))
}

/// All orders of a list.
fn orders(list: &[ValidatorIndex]) -> Vec<Vec<ValidatorIndex>> {
    if list.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (place, first) in list.iter().enumerate() {
        let mut rest = list.to_vec();
        rest.remove(place);
        all.extend(orders(&rest).into_iter().map(|order| [vec![*first], order].concat()));
    }
    all
}

#[test]
fn the_order_of_reveals_gives_no_choice_and_a_withheld_salt_gives_one_bit() {
    let validators: Vec<ValidatorIndex> = (0..6).collect();
    let by_order: BTreeSet<Hash> = orders(&validators).iter().map(|order| mix(order)).collect();
    assert_eq!(by_order.len(), 1, "720 orders, one seed");
    // Of six, k withhold or not: 2^k seeds, no more.
    for withholders in 0..=6usize {
        let seeds: BTreeSet<Hash> = (0..1u32 << withholders)
            .map(|choice| {
                let revealed: Vec<ValidatorIndex> = validators
                    .iter()
                    .copied()
                    .filter(|index| usize::from(*index) >= withholders || choice >> index & 1 == 1)
                    .collect();
                window_seed(&[1; 32], 0, WINDOW + 1, &mix(&revealed))
            })
            .collect();
        assert_eq!(seeds.len(), 1 << withholders);
    }
}

#[test]
fn equal_salts_do_not_cancel() {
    let salt = [5; 32];
    let once = mix_salt(&[0; 32], WINDOW, 0, &salt);
    let of_another = mix_salt(&once, WINDOW, 1, &salt);
    let of_another_window = mix_salt(&once, WINDOW + 1, 0, &salt);
    for mix in [of_another, of_another_window] {
        assert!(mix != [0; 32] && mix != once);
    }
}

/// M6: who writes the block that decides the challenge, and has a payload of which a share of chunks is valid, chooses
/// among so many challenges as it can compute. That a block later decides leaves it no commitment to choose.
#[test]
fn an_author_needs_one_try_for_each_share_of_valid_chunks() {
    let (chunk_count, shown) = (1_024, 2);
    for (valid, expected) in [(512, 4.0), (256, 16.0), (128, 64.0)] {
        let trials = 400;
        let tries: u64 = (0..trials)
            .map(|trial| {
                (1u64..)
                    .find(|attempt| {
                        let seed = challenge_seed(&hash(trial), &hash(1_000_000 * trial + attempt));
                        challenged_chunks(&seed, 0, WINDOW, 3, chunk_count, shown)
                            .iter()
                            .all(|chunk| *chunk < valid)
                    })
                    .unwrap()
            })
            .sum();
        let mean = tries as f64 / trials as f64;
        println!("{valid} of {chunk_count} chunks valid: {mean:.1} blocks to choose among");
        assert!((0.8..1.25).contains(&(mean / expected)), "{mean} against {expected}");
    }
}

/// What the best of some equally good draws is worth, in standard deviations of one: E[max of n normals].
fn best_of(choices: u32) -> f64 {
    // Sum over quantiles: the n-th power of the distribution is that of the largest.
    let steps = 200_000;
    let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let (low, high) = (-8.0, 8.0);
    let width = (high - low) / f64::from(steps);
    let (mut below, mut mean) = (0.0, 0.0);
    for step in 0..steps {
        let x = low + (f64::from(step) + 0.5) * width;
        let mass = density(x) * width;
        let middle: f64 = below + mass / 2.0;
        mean += x * f64::from(choices) * middle.powi(choices as i32 - 1) * mass;
        below += mass;
    }
    mean
}

/// M7: the cost of a bit against its worth, for the example's emission and 64 validators of equal stake. A choice moves
/// the pay of the withholder's own miners by what the draw of samples does: at most a tenth of it.
#[test]
fn a_withheld_salt_costs_more_than_the_better_of_two_draws_is_worth() {
    let (validators_pay, miners_pay, validators, noise) = (30.0, 60.0, 64.0, 0.1);
    let two = best_of(2);
    assert!((two - 0.564).abs() < 0.001, "{two}");
    let cost = STRIKE_WINDOWS as f64 * validators_pay / validators;
    // Its miners' part of the miners' pay at which a bit pays for itself.
    let break_even = cost / (two * noise * miners_pay);
    println!("a bit costs {cost:.2} UNIT; it is worth that to who earns {break_even:.2} of the miners' pay");
    assert!(break_even > 0.5, "{break_even}");
    // Each further bit costs as much and is worth less.
    let worth: Vec<f64> = (0..6).map(|bits| best_of(1 << bits)).collect();
    println!("best of 2^k draws, in standard deviations: {worth:.2?}");
    assert!(worth.windows(3).all(|three| three[2] - three[1] < three[1] - three[0] + 1e-9));
}

#[test]
fn a_strike_is_a_commitment_without_a_reveal_and_lasts_four_windows() {
    assert!(is_withheld(true, false, false));
    assert!(!is_withheld(true, true, false) && !is_withheld(false, false, false));
    assert!(!is_withheld(true, false, true), "nobody could reveal");
    let withheld_in_ten = |window| window == 10;
    let struck: Vec<u64> =
        (0..20).filter(|window| is_struck(*window, 0, withheld_in_ten)).collect();
    assert_eq!(struck, [10, 11, 12, 13]);
    // Who took over the slot since has no part in it.
    assert!(!is_struck(12, 11, withheld_in_ten));
    assert_eq!(judged_windows(1, 0), 0..=1);
}

#[test]
fn the_pay_of_who_is_struck_goes_to_nobody() {
    let outcome = |index| ValidatorOutcome {
        index,
        agreement: Q32::ONE,
        share: Q32::from_ratio(1, 4).unwrap(),
        bonds: Vec::new(),
    };
    let mut validators = [0, 3, 5].map(outcome);
    refuse_pay(&mut validators, &[3, 9]);
    let shares = validators.map(|validator| validator.share);
    assert_eq!(shares, [outcome(0).share, Q32::ZERO, outcome(5).share]);
}
