//! Samples and evaluations are dealt without overlap, evenly, and to the same hands for everybody.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::{
    assignment::{assigned_evaluations, assigned_sample, own_samples, random_sample, Permutation},
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

#[test]
fn evaluations_cover_all_miners_evenly() {
    let uids: Vec<u16> = (0..20).map(|i| i * 3).collect();
    let mut seen: BTreeMap<u16, u32> = BTreeMap::new();
    for index in 0..10 {
        let assigned = assigned_evaluations(&SEED, index, &uids, 6);
        assert_eq!(assigned.len(), 6);
        assert!(assigned.windows(2).all(|pair| pair[0] < pair[1]));
        for uid in assigned {
            *seen.entry(uid).or_default() += 1;
        }
    }
    // 10 validators · 6 evaluations over 20 miners.
    assert_eq!(seen.len(), 20);
    assert!(seen.values().all(|count| *count == 3), "{seen:?}");
}

#[test]
fn enough_evaluations_mean_all_miners() {
    assert_eq!(assigned_evaluations(&SEED, 5, &[4, 2, 9, 2], 3), [2, 4, 9]);
    assert_eq!(assigned_evaluations(&SEED, 5, &[], 3), Vec::<u16>::new());
    assert_eq!(assigned_evaluations(&SEED, 5, &[1, 2], 0), Vec::<u16>::new());
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
    fn evaluations_ignore_the_order_of_uids(index: u16, mut uids: Vec<u16>, count in 0u16..300) {
        let before = assigned_evaluations(&SEED, index, &uids, count);
        uids.reverse();
        prop_assert_eq!(before, assigned_evaluations(&SEED, index, &uids, count));
    }
}
