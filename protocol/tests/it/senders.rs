//! The divisor max(senders, c · accepted): against the rule written out, and what a sender gains by it.

use proptest::prelude::*;
use protocol::{
    aggregate::{outer_step, OuterRule},
    layout::Layout,
    settings::PPM,
    update::{Encoder, Payload},
    Uid,
};

use crate::aggregate::{bits, dense, layout, oracle, parameters, slices, update};

/// The example's parameters after a step of miners `uids`.
fn stepped(uids: std::ops::Range<Uid>, rule: OuterRule) -> Vec<Vec<f32>> {
    let bytes: Vec<(Uid, Vec<u8>)> = uids.map(|uid| (uid, update(uid))).collect();
    let payloads: Vec<(Uid, Payload)> = bytes
        .iter()
        .map(|(uid, bytes)| (*uid, Payload::parse(bytes, &layout(), 64).unwrap()))
        .collect();
    let mut theta = parameters();
    outer_step(&mut slices(&mut theta), &layout(), &payloads, rule).unwrap();
    theta
}

/// The same by the rule written out.
fn expected(uids: std::ops::Range<Uid>, rate: f32, senders_min_ppm: u32) -> Vec<Vec<f32>> {
    let updates: Vec<_> = uids.map(|uid| dense(&update(uid))).collect();
    let least = (f64::from(senders_min_ppm) * updates.len() as f64 / 1e6) as f32;
    let mut theta = parameters();
    oracle(&mut theta, &updates, rate, |senders| (senders as f32).max(least));
    theta
}

fn check(uids: std::ops::Range<Uid>, senders_min_ppm: u32) {
    let found = stepped(uids.clone(), OuterRule::new(650_000, senders_min_ppm));
    let expected = expected(uids.clone(), 0.65, senders_min_ppm);
    assert_eq!(bits(&found), bits(&expected), "{uids:?}, c {senders_min_ppm} ppm");
}

#[test]
fn the_divisor_is_that_of_the_rule_written_out_bit_for_bit() {
    for count in [1, 2, 3, 4, 7, 20] {
        for senders_min_ppm in [0, 1, 50_000, 250_000, 333_333, 999_999, PPM] {
            check(0..count, senders_min_ppm);
        }
    }
}

#[test]
fn a_million_and_more_is_the_mean_over_the_accepted() {
    let mean = stepped(0..5, OuterRule::new(650_000, PPM));
    assert_eq!(bits(&mean), bits(&stepped(0..5, OuterRule::new(650_000, u32::MAX))));
    // The divisor that counts comes to the same where nobody's count is below it.
    let alone = stepped(0..1, OuterRule::new(650_000, PPM));
    assert_eq!(bits(&alone), bits(&stepped(0..1, OuterRule::new(650_000, 0))));
    assert_ne!(bits(&mean), bits(&stepped(0..5, OuterRule::new(650_000, 999_999))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_c_is_the_rule_written_out(senders_min_ppm in 0u32..=PPM, first in 0u16..9, count in 1u16..9) {
        check(first..first + count, senders_min_ppm);
    }
}

/// Chunks of the one tensor of the tests below.
const CHUNKS: usize = 16;
const LEN: usize = CHUNKS * 4096;
/// Accepted updates of the tests below.
const ACCEPTED: usize = 20;
/// What an honest update sends: a number that the code has exactly.
const VALUE: f32 = 0.125;
/// Where the colluders' places begin, in the first chunk: nobody else sends them.
const LONELY: usize = 3_000;

/// An update that sends `value` in 64 places of each chunk: those that `places` gives for the chunk.
fn sent(value: f32, places: impl Fn(usize) -> Option<[usize; 64]>) -> Vec<u8> {
    let mut tensor = vec![0.0f32; LEN];
    for (chunk, tensor) in tensor.chunks_mut(4096).enumerate() {
        for place in places(chunk).into_iter().flatten() {
            tensor[place] = value;
        }
    }
    Encoder::new().encode(&mut [&mut tensor], &Layout(vec![LEN as u64]), 64).unwrap()
}

/// The 64 places from `first` on.
fn from(first: usize) -> [usize; 64] {
    std::array::from_fn(|index| first + index)
}

/// An honest update: half of each chunk's places are the same for all, half its own.
fn honest(uid: usize) -> Vec<u8> {
    let places =
        std::array::from_fn(|index| if index < 32 { index } else { 100 + 32 * uid + index });
    sent(VALUE, |_| Some(places))
}

/// An update whose whole norm is in 64 places; it is as large as clipping makes it.
fn colluding() -> Vec<u8> {
    sent(1000.0 * VALUE, |chunk| (chunk == 0).then(|| from(LONELY)))
}

/// By how much each place moves in a step of rate 1 with `updates`.
fn moves(updates: &[Vec<u8>], senders_min_ppm: u32) -> Vec<f32> {
    let layout = Layout(vec![LEN as u64]);
    let payloads: Vec<(Uid, Payload)> = (0..)
        .zip(updates)
        .map(|(uid, bytes)| (uid, Payload::parse(bytes, &layout, 64).unwrap()))
        .collect();
    let mut theta = vec![0.0f32; LEN];
    let rule = OuterRule::new(PPM, senders_min_ppm);
    outer_step(&mut [&mut theta], &layout, &payloads, rule).unwrap();
    theta.iter().map(|value| -value).collect()
}

fn near(found: f32, expected: f64, what: &str) {
    let error = (f64::from(found) - expected).abs();
    assert!(error <= 1e-5 * expected.abs(), "{what}: {found}, expected {expected}");
}

#[test]
fn what_nobody_sends_stays_as_it_is_and_zeros_are_not_sent() {
    // Chunks of zeros have the form of the first 64 places with the value 0, which nobody chose.
    let zeros = sent(0.0, |_| None);
    let first = sent(VALUE, |_| Some(from(0)));
    let moved = moves(&[zeros.clone(), zeros.clone(), first.clone(), first], 0);
    assert_eq!(moved[0], 0.0, "the median norm is 0, and clips all that is sent");
    let first = || sent(VALUE, |_| Some(from(0)));
    let moved = moves(&[zeros.clone(), first(), first()], 0);
    assert_eq!((moved[0], moved[63], moved[64]), (VALUE, VALUE, 0.0));

    let layout = Layout(vec![LEN as u64]);
    let payloads = [0, 1].map(|uid| (uid, Payload::parse(&zeros, &layout, 64).unwrap()));
    let mut theta = vec![-0.0f32; LEN];
    theta[100] = 0.1;
    let before = bits(std::slice::from_ref(&theta));
    for senders_min_ppm in [0, 1, PPM] {
        let rule = OuterRule::new(PPM, senders_min_ppm);
        outer_step(&mut [&mut theta], &layout, &payloads, rule).unwrap();
        assert_eq!(bits(std::slice::from_ref(&theta)), before);
    }
}

/// The numbers of docs/decisions/0009: places that m of 20 accepted updates send and nobody else.
#[test]
fn colluders_move_their_places_at_most_one_over_c_times_as_far_as_under_the_mean() {
    // The colluders' places move as far as the norm of an honest update, which clipping leaves them.
    let clipped = f64::from(VALUE) * (CHUNKS as f64).sqrt();
    for colluders in [1usize, 2, 5, 10] {
        let mut updates: Vec<_> = (0..ACCEPTED - colluders).map(honest).collect();
        updates.extend((0..colluders).map(|_| colluding()));
        let mean = f64::from(moves(&updates, PPM)[LONELY]);
        near(mean as f32, clipped * colluders as f64 / ACCEPTED as f64, "the mean");
        for (senders_min_ppm, inverse) in [(500_000, 2), (250_000, 4), (100_000, 10), (0, 20)] {
            let moved = moves(&updates, senders_min_ppm);
            let gain = inverse.min(ACCEPTED / colluders);
            let what = format!("{colluders} colluders, c {senders_min_ppm} ppm");
            near(moved[LONELY], mean * gain as f64, &what);
            assert!(f64::from(moved[LONELY]) <= 1.000_01 * clipped, "{what}");
            // A place that one honest miner alone sends gains the same, one that all of them send
            // what the colluders left out.
            let alone = 4096 + 100 + 32;
            near(moved[alone], f64::from(VALUE) / 20.0 * inverse as f64, &what);
            near(moved[4096], f64::from(VALUE), &what);
        }
    }
}

/// The colluders' part of the whole step, by its squares, in per mille.
#[test]
fn the_part_of_a_step_that_is_the_colluders() {
    let part = |colluders: usize, senders_min_ppm| {
        let mut updates: Vec<_> = (0..ACCEPTED - colluders).map(honest).collect();
        updates.extend((0..colluders).map(|_| colluding()));
        let moved = moves(&updates, senders_min_ppm);
        let squares =
            |moved: &[f32]| moved.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        (1000.0 * squares(&moved[LONELY..][..64]) / squares(&moved)).round()
    };
    let rows = [1, 2, 5].map(|colluders| {
        [PPM, 500_000, 250_000, 0].map(|senders_min_ppm| part(colluders, senders_min_ppm))
    });
    assert_eq!(rows, PARTS);
}

/// Rows 1, 2 and 5 colluders of 20; columns c = 1, 1/2, 1/4 and 0.
const PARTS: [[f64; 4]; 3] =
    [[5.0, 17.0, 43.0, 91.0], [23.0, 63.0, 157.0, 95.0], [172.0, 303.0, 556.0, 111.0]];

/// Who sends next to nothing in a place makes its divisor larger, but never larger than the mean's.
#[test]
fn diluting_others_places_comes_to_no_less_than_the_mean() {
    // Five honest updates send places that nobody else does.
    let sending = || sent(VALUE, |_| Some(from(1_000)));
    let others = (0..).map(honest);
    let diluting = || sent(VALUE / 1024.0, |_| Some(from(1_000)));
    for colluders in [0usize, 1, 5] {
        let mut updates: Vec<_> = (0..5).map(|_| sending()).collect();
        updates.extend((0..colluders).map(|_| diluting()));
        updates.extend(others.clone().take(ACCEPTED - updates.len()));
        let sum = f64::from(VALUE) * (5.0 + colluders as f64 / 1024.0);
        let mean = moves(&updates, PPM)[1_000];
        near(mean, sum / ACCEPTED as f64, "the mean");
        for senders_min_ppm in [500_000, 250_000, 0] {
            let least = f64::from(senders_min_ppm) / 1e6 * ACCEPTED as f64;
            let divisor = least.max(5.0 + colluders as f64);
            let moved = moves(&updates, senders_min_ppm)[1_000];
            near(moved, sum / divisor, &format!("{colluders} diluting, c {senders_min_ppm} ppm"));
            assert!(moved >= mean);
        }
    }
}
