//! The outer step against a slow dense oracle, bit for bit, and its golden root.

use proptest::prelude::*;
use protocol::{
    aggregate::{
        aggregate_chunk, aggregate_chunks_with, apply_single, lower_median, median_norm_factors,
        outer_step, rate, tensor_factors, OuterRule, TensorUpdate,
    },
    layout::Layout,
    settings::PPM,
    state_root::state_root,
    update::{chunk_values, decode_chunk, Encoder, Payload, UpdateError},
    variant::Variant,
    Uid,
};

/// Numbers of few bits, the same on every machine.
fn ramp(len: u64, step: u64, seed: u64) -> Vec<f32> {
    (0..len).map(|i| ((i * step + seed) % 2003) as f32 / 256.0 - 3.9).collect()
}

pub(crate) fn layout() -> Layout {
    Layout(vec![9000, 4096, 5])
}

/// The bytes of the update of miner `uid`.
pub(crate) fn update(uid: Uid) -> Vec<u8> {
    let mut tensors: Vec<Vec<f32>> = layout()
        .0
        .iter()
        .map(|len| {
            let gain = f32::from(uid) * 0.5 + 0.25;
            ramp(*len, 7919 + u64::from(uid), u64::from(uid) * 31)
                .iter()
                .map(|v| v * gain)
                .collect()
        })
        .collect();
    let mut slices: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
    Encoder::new().encode(&mut slices, &layout(), 64).unwrap()
}

pub(crate) fn parameters() -> Vec<Vec<f32>> {
    layout().0.iter().map(|len| ramp(*len, 101, 5)).collect()
}

pub(crate) fn slices(tensors: &mut [Vec<f32>]) -> Vec<&mut [f32]> {
    tensors.iter_mut().map(Vec::as_mut_slice).collect()
}

/// An update as one dense vector a tensor.
pub(crate) fn dense(bytes: &[u8]) -> Vec<Vec<f32>> {
    let payload = Payload::parse(bytes, &layout(), 64).unwrap();
    let mut tensors: Vec<Vec<f32>> =
        layout().0.iter().map(|len| vec![0.0; *len as usize]).collect();
    for (index, place) in (0u32..).zip(layout().chunks()) {
        let chunk = decode_chunk(payload.chunk(index).unwrap(), place.len, 64).unwrap();
        for (at, value) in chunk_values(&chunk) {
            tensors[place.tensor as usize][place.offset as usize + usize::from(at)] = value;
        }
    }
    tensors
}

/// The mean over the accepted updates.
fn mean(rate_ppm: u32) -> OuterRule {
    OuterRule::new(rate_ppm, PPM)
}

/// The rule written out over dense vectors: `divisor` gives what a sum is divided by, from the number
/// of updates that send the coordinate.
pub(crate) fn oracle(
    theta: &mut [Vec<f32>],
    updates: &[Vec<Vec<f32>>],
    alpha: f32,
    divisor: impl Fn(usize) -> f32,
) {
    for (tensor, theta) in theta.iter_mut().enumerate() {
        let norms: Vec<f64> = updates
            .iter()
            .map(|update| {
                let chunks = update[tensor].chunks(4096);
                let square = |v: &f32| f64::from(*v) * f64::from(*v);
                chunks.map(|c| c.iter().map(square).sum::<f64>()).sum::<f64>().sqrt()
            })
            .collect();
        let mut sorted = norms.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[(sorted.len() - 1) / 2];
        for (at, theta) in theta.iter_mut().enumerate() {
            let (mut sum, mut senders) = (0.0f32, 0);
            for (update, norm) in updates.iter().zip(&norms) {
                let factor = (median / (norm + 1e-8)).min(1.0) as f32;
                // A coordinate that is not kept adds nothing.
                if update[tensor][at] != 0.0 {
                    let product = factor * update[tensor][at];
                    sum += product;
                    senders += 1;
                }
            }
            if senders > 0 {
                let delta = sum / divisor(senders);
                let change = alpha * delta;
                *theta -= change;
            }
        }
    }
}

pub(crate) fn bits(tensors: &[Vec<f32>]) -> Vec<Vec<u32>> {
    tensors.iter().map(|t| t.iter().map(|v| v.to_bits()).collect()).collect()
}

#[test]
fn the_outer_step_is_the_dense_rule_bit_for_bit() {
    for uids in [vec![3], vec![0, 1], vec![7, 2, 5], vec![4, 3, 2, 1, 0, 9, 8]] {
        let bytes: Vec<Vec<u8>> = uids.iter().map(|uid| update(*uid)).collect();
        let payloads: Vec<(Uid, Payload)> = uids
            .iter()
            .zip(&bytes)
            .map(|(uid, bytes)| (*uid, Payload::parse(bytes, &layout(), 64).unwrap()))
            .collect();
        let mut theta = parameters();
        outer_step(&mut slices(&mut theta), &layout(), &payloads, mean(650_000)).unwrap();

        let mut ordered = uids.clone();
        ordered.sort_unstable();
        let updates: Vec<_> = ordered.iter().map(|uid| dense(&update(*uid))).collect();
        let mut expected = parameters();
        let accepted = updates.len() as f32;
        oracle(&mut expected, &updates, 0.65, |_| accepted);
        assert_eq!(bits(&theta), bits(&expected), "{uids:?}");
        assert_ne!(bits(&theta), bits(&parameters()));
    }
}

#[test]
fn chunks_may_be_done_in_any_order() {
    let bytes: Vec<Vec<u8>> = (0..5).map(update).collect();
    let payloads: Vec<(Uid, Payload)> = (0..)
        .zip(&bytes)
        .map(|(uid, bytes)| (uid, Payload::parse(bytes, &layout(), 64).unwrap()))
        .collect();
    let mut expected = parameters();
    outer_step(&mut slices(&mut expected), &layout(), &payloads, mean(1_000_000)).unwrap();

    let mut theta = parameters();
    for tensor in [2u32, 0, 1] {
        let updates: Vec<TensorUpdate> = payloads
            .iter()
            .map(|(_, payload)| TensorUpdate::new(payload, &layout(), tensor).unwrap())
            .collect();
        let factors = tensor_factors(&updates).unwrap();
        let chunks: Vec<_> = (0u32..).zip(theta[tensor as usize].chunks_mut(4096)).collect();
        for (index, chunk) in chunks.into_iter().rev() {
            aggregate_chunk(chunk, &updates, &factors, index, mean(1_000_000)).unwrap();
        }
    }
    assert_eq!(bits(&theta), bits(&expected));
}

#[test]
fn golden_state_root_after_an_outer_step() {
    let bytes: Vec<Vec<u8>> = (0..4).map(update).collect();
    let payloads: Vec<(Uid, Payload)> = (0..)
        .zip(&bytes)
        .map(|(uid, bytes)| (uid, Payload::parse(bytes, &layout(), 64).unwrap()))
        .collect();
    let mut theta = parameters();
    outer_step(&mut slices(&mut theta), &layout(), &payloads, mean(650_000)).unwrap();
    let named = ["a", "b", "c"].into_iter().zip(theta.iter().map(Vec::as_slice));
    assert_eq!(hex::encode(state_root(named)), GOLDEN_ROOT);
}

/// The same on every machine; a change of it is a change of the protocol.
const GOLDEN_ROOT: &str = "e3f8cb0a71baac2aefb0c15e0bcae843e7a4d99a607359828f7b0c4f1d638b19";

#[test]
fn one_update_alone_is_taken_off_unclipped() {
    let bytes = update(6);
    let payload = Payload::parse(&bytes, &layout(), 64).unwrap();
    let mut theta = parameters();
    apply_single(&mut slices(&mut theta), &layout(), &payload, 0.25).unwrap();
    let mut expected = parameters();
    for (theta, update) in expected.iter_mut().zip(dense(&bytes)) {
        for (theta, value) in theta.iter_mut().zip(update) {
            *theta -= 0.25 * value;
        }
    }
    assert_eq!(bits(&theta), bits(&expected));
}

#[test]
fn nothing_accepted_changes_nothing_and_wrong_shapes_are_refused() {
    let mut theta = parameters();
    outer_step(&mut slices(&mut theta), &layout(), &[], mean(1_000_000)).unwrap();
    assert_eq!(bits(&theta), bits(&parameters()));
    let bytes = update(1);
    let payload = Payload::parse(&bytes, &layout(), 64).unwrap();
    let payloads = [(1, payload)];
    let mut short = vec![vec![0.0; 9000]];
    assert_eq!(
        outer_step(&mut slices(&mut short), &layout(), &payloads, mean(1)),
        Err(UpdateError::Tensors)
    );
    assert_eq!(
        apply_single(&mut slices(&mut short), &layout(), &payloads[0].1, 1.0),
        Err(UpdateError::Tensors)
    );
    // Parsed with one layout, applied with another.
    let mut other = vec![vec![0.0; 9000]];
    assert!(outer_step(&mut slices(&mut other), &Layout(vec![9000]), &payloads, mean(1)).is_ok());
    let mut other = vec![vec![0.0; 40_000]];
    assert_eq!(
        outer_step(&mut slices(&mut other), &Layout(vec![40_000]), &payloads, mean(1)),
        Err(UpdateError::Tensors)
    );
}

#[test]
fn rates_and_medians() {
    assert_eq!(rate(1_000_000), 1.0);
    assert_eq!(rate(650_000), 0.65);
    assert_eq!(rate(0), 0.0);
    assert_eq!(lower_median(&[]), 0.0);
    assert_eq!(lower_median(&[4.0, 1.0]), 1.0);
    assert_eq!(median_norm_factors(&[0.0, 0.0]), [0.0, 0.0]);
    assert_eq!(median_norm_factors(&[]), [0.0f64; 0]);
}

proptest! {
    #[test]
    fn factors_clip_to_the_median_and_never_raise(
        norms in prop::collection::vec(0.0f64..1e20, 1..40),
    ) {
        let median = lower_median(&norms);
        for (norm, factor) in norms.iter().zip(median_norm_factors(&norms)) {
            prop_assert!((0.0..=1.0).contains(&factor));
            prop_assert!(factor * norm <= median.max(*norm) * (1.0 + 1e-12));
            if *norm > median {
                prop_assert!(factor * norm <= median * (1.0 + 1e-12));
            }
        }
    }
}

#[test]
fn all_variants_step_to_the_same_bits() {
    let bytes: Vec<Vec<u8>> = (0..20).map(update).collect();
    let layout = layout();
    let payloads: Vec<Payload<'_>> =
        bytes.iter().map(|bytes| Payload::parse(bytes, &layout, 64).unwrap()).collect();
    let step = |variant, senders_min_ppm| {
        let rule = OuterRule::new(700_000, senders_min_ppm);
        let mut tensors = parameters();
        for (tensor, theta) in (0u32..).zip(&mut tensors) {
            let updates: Vec<_> = payloads
                .iter()
                .map(|payload| TensorUpdate::new(payload, &layout, tensor).unwrap())
                .collect();
            let factors = tensor_factors(&updates).unwrap();
            aggregate_chunks_with(variant, theta, &updates, &factors, 0, rule).unwrap();
        }
        bits(&tensors)
    };
    for senders_min_ppm in [PPM, 250_000, 0] {
        let expected = step(Variant::PORTABLE, senders_min_ppm);
        assert_ne!(expected, bits(&parameters()));
        for variant in Variant::available() {
            assert_eq!(step(variant, senders_min_ppm), expected, "{variant:?}");
        }
    }
}
