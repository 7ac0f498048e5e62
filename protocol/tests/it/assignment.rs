//! Samples and evaluations are dealt without overlap, evenly, and to the same hands for everybody.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::{
    assignment::{assigned_sample, own_samples, random_sample, Draw, Permutation},
    seed::{challenge_seed, mix_salt, window_seed},
};

const SEED: [u8; 32] = [7; 32];

#[test]
fn every_size_is_permuted() {
    for count in (1..70).chain([99, 100, 101, 1_000, 1_024, 4_095]) {
        let permutation = Permutation::new(SEED, count).unwrap();
        let image: BTreeSet<u64> = (0..count).map(|i| permutation.apply(i).unwrap()).collect();
        assert_eq!(image, (0..count).collect(), "count {count}");
        assert_eq!(permutation.apply(count), None);
    }
}

#[test]
fn sizes_without_a_permutation_are_refused() {
    assert!(Permutation::new(SEED, 0).is_none());
    assert!(Permutation::new(SEED, (1 << 63) + 1).is_none());
    let largest = Permutation::new(SEED, 1 << 63).unwrap();
    assert!(largest.apply((1 << 63) - 1).unwrap() < 1 << 63);
}

#[test]
fn no_sample_is_dealt_twice() {
    // 12 miners of 32 samples take 384 of 400.
    let mut dealt = BTreeSet::new();
    for uid in 0..12 {
        for position in 0..32 {
            assert!(dealt.insert(assigned_sample(&SEED, uid, position, 32, 400).unwrap()));
        }
    }
    assert!(dealt.iter().all(|sample| *sample < 400));
    assert_eq!(assigned_sample(&SEED, 0, 32, 32, 400), None);
    assert_eq!(assigned_sample(&SEED, 12, 16, 32, 400), None);
    assert_eq!(assigned_sample(&SEED, u16::MAX, 1, u64::MAX, 400), None);
    assert_eq!(assigned_sample(&SEED, 0, 0, 32, 0), None);
}

#[test]
fn drawing_many_is_drawing_each() {
    let permutation = own_samples(&SEED, 1_000).unwrap();
    for position in 0..10 {
        let one = assigned_sample(&SEED, 3, position, 10, 1_000);
        assert_eq!(one, permutation.apply(30 + position));
    }
}

#[test]
fn seeds_salts_and_purposes_give_different_samples() {
    let draw = |seed: &[u8; 32]| -> Vec<_> {
        (0..8).map(|p| assigned_sample(seed, 0, p, 8, 1 << 40).unwrap()).collect()
    };
    let random = |salt: &[u8]| -> Vec<_> {
        (0..8).map(|p| random_sample(&SEED, salt, p, 1 << 40).unwrap()).collect()
    };
    assert_ne!(draw(&SEED), draw(&[8; 32]));
    assert_ne!(draw(&SEED), random(b""));
    assert_ne!(random(b"a"), random(b"b"));
    assert_eq!(random_sample(&SEED, b"a", 5, 5), None);
}

#[test]
fn samples_are_spread_evenly() {
    // 16 bins of 65536 samples, 4096 draws: 256 each, standard deviation below 16.
    let permutation = own_samples(&SEED, 65_536).unwrap();
    let mut bins = [0i32; 16];
    for index in 0..4_096 {
        bins[usize::try_from(permutation.apply(index).unwrap() >> 12).unwrap()] += 1;
    }
    assert!(bins.iter().all(|bin| (bin - 256).abs() < 80), "{bins:?}");
}

#[test]
fn every_input_of_a_seed_counts() {
    let seed = window_seed(&[1; 32], 2, 3, &[4; 32]);
    assert_ne!(seed, window_seed(&[0; 32], 2, 3, &[4; 32]));
    assert_ne!(seed, window_seed(&[1; 32], 0, 3, &[4; 32]));
    assert_ne!(seed, window_seed(&[1; 32], 2, 0, &[4; 32]));
    assert_ne!(seed, window_seed(&[1; 32], 2, 3, &[0; 32]));
    let mix = mix_salt(&[1; 32], 5, 6, &[2; 32]);
    assert_ne!(mix, mix_salt(&[0; 32], 5, 6, &[2; 32]));
    assert_ne!(mix, mix_salt(&[1; 32], 4, 6, &[2; 32]));
    assert_ne!(mix, mix_salt(&[1; 32], 5, 7, &[2; 32]));
    assert_ne!(mix, mix_salt(&[1; 32], 5, 6, &[3; 32]));
}

#[test]
fn the_challenge_seed_has_its_own_golden_value() {
    let seed = challenge_seed(&[1; 32], &[2; 32]);
    let golden = "1d65c937d19bf278c632dfbf54210473b81493d39f52f26783ba63be2cb8ccb2";
    assert_eq!(hex::encode(seed), golden);
    assert_ne!(seed, mix_salt(&[1; 32], 0, 0, &[2; 32]));
}

/// How often each miner is drawn, after checking that each validator's draw is sorted and without repetition.
fn drawn(draw: &Draw, permits: &[(u16, u64)]) -> BTreeMap<u16, u32> {
    let mut seen = BTreeMap::new();
    for (index, _) in permits {
        let uids = draw.of(*index);
        assert!(uids.windows(2).all(|pair| pair[0] < pair[1]));
        for uid in uids {
            *seen.entry(uid).or_default() += 1;
        }
    }
    seen
}

/// H9, p01: exactly r evaluators a miner, whatever the stakes, also where nobody can evaluate everybody.
#[test]
fn every_miner_has_exactly_as_many_evaluators_as_the_run_asks_for() {
    // Validators, miners, evaluators a miner, evaluations a validator at most.
    for (validators, miners, evaluators, most) in [
        (10, 20, 3, 64),
        (20, 64, 8, 64),
        (64, 256, 16, 64),
        (64, 1_024, 16, 256),
        (64, 4_096, 4, 256),
    ] {
        let permits: Vec<(u16, u64)> =
            (0..validators).map(|n| (n * 3, 100 + u64::from(n) * 9)).collect();
        let uids: Vec<u16> = (0..miners).collect();
        let draw = Draw::new(&SEED, &permits, &uids, evaluators, most);
        let seen = drawn(&draw, &permits);
        assert_eq!(seen.len(), usize::from(miners));
        assert!(seen.values().all(|count| *count == u32::from(evaluators)));
        assert!(permits
            .iter()
            .all(|(index, _)| (1..=usize::from(most)).contains(&draw.of(*index).len())));
        // Another window, other draws.
        let other = Draw::new(&[8; 32], &permits, &uids, evaluators, most);
        assert!(permits.iter().any(|(index, _)| draw.of(*index) != other.of(*index)));
    }
}

#[test]
fn who_has_more_stake_evaluates_more() {
    let permits = [(0, 100), (1, 200), (2, 300), (3, 600)];
    let uids: Vec<u16> = (0..120).collect();
    let draw = Draw::new(&SEED, &permits, &uids, 1, 256);
    let lens = [0, 1, 2, 3].map(|index| draw.of(index).len() as i64);
    for (len, expected) in lens.into_iter().zip([10, 20, 30, 60]) {
        assert!((len - expected).abs() <= 2, "{lens:?}");
    }
    // Nobody evaluates a miner twice: what a whale cannot do the others do.
    let permits = [(0, 1), (1, 1), (2, 1), (3, u64::MAX)];
    let draw = Draw::new(&SEED, &permits, &uids, 2, 256);
    assert_eq!(draw.of(3).len(), 120);
    assert!(drawn(&draw, &permits).values().all(|count| *count == 2));
    // Where there is not room for all, every miner has what there is room for.
    let draw = Draw::new(&SEED, &permits, &uids, 4, 50);
    let seen = drawn(&draw, &permits);
    assert!(seen.len() == 120 && seen.values().all(|count| (1..=2).contains(count)));
}

#[test]
fn few_validators_evaluate_everybody() {
    let permits = [(5, 10), (9, 1)];
    let draw = Draw::new(&SEED, &permits, &[4, 2, 9, 2], 3, 256);
    assert_eq!((draw.of(5), draw.of(9)), (vec![2, 4, 9], vec![2, 4, 9]));
    assert!(draw.of(0).is_empty(), "it has no permit");
    assert!(Draw::new(&SEED, &permits, &[], 3, 256).of(5).is_empty());
    assert!(Draw::new(&SEED, &[], &[1, 2], 3, 256).of(5).is_empty());
    assert!(Draw::new(&SEED, &permits, &[1, 2], 3, 0).of(5).is_empty());
}

proptest! {
    #[test]
    fn permutations_are_one_to_one(key: [u8; 32], count in 1u64..3_000) {
        let permutation = Permutation::new(key, count).unwrap();
        let image: BTreeSet<u64> = (0..count).map(|i| permutation.apply(i).unwrap()).collect();
        prop_assert_eq!(image.len() as u64, count);
        prop_assert!(image.last().is_none_or(|last| *last < count));
    }

    #[test]
    fn nothing_panics(seed: [u8; 32], uid: u16, position: u64, per_uid: u64, count: u64) {
        if let Some(sample) = assigned_sample(&seed, uid, position, per_uid, count) {
            prop_assert!(sample < count);
        }
        if let Some(sample) = random_sample(&seed, &[1], position, count) {
            prop_assert!(sample < count);
        }
    }

    #[test]
    fn draws_are_even_and_ignore_the_order(
        stakes in proptest::collection::vec(any::<u64>(), 0..20),
        mut uids in proptest::collection::btree_set(any::<u16>(), 0..60),
        evaluators in 0u16..8,
        most in 0u16..80,
    ) {
        let mut permits: Vec<(u16, u64)> = (0..).zip(stakes).collect();
        let mut list: Vec<u16> = uids.iter().copied().collect();
        let draw = Draw::new(&SEED, &permits, &list, evaluators, most);
        let seen = drawn(&draw, &permits);
        let rounds = u64::from(evaluators).min(permits.len() as u64);
        let room = u64::from(most).min(list.len() as u64) * permits.len() as u64;
        let total = (rounds * list.len() as u64).min(room);
        prop_assert_eq!(seen.values().map(|count| u64::from(*count)).sum::<u64>(), total);
        if let Some(floor) = total.checked_div(list.len() as u64) {
            uids.retain(|uid| !seen.contains_key(uid));
            prop_assert!(floor == 0 || uids.is_empty());
            prop_assert!(seen.values().all(|count| (floor..=floor + 1).contains(&u64::from(*count))));
        }
        permits.reverse();
        list.reverse();
        prop_assert_eq!(draw, Draw::new(&SEED, &permits, &list, evaluators, most));
    }
}
