//! Updates: what protocol's encoder and outer step say, spread over threads.

use std::io::Cursor;

use protocol::aggregate::{outer_step, OuterRule};
use protocol::layout::Layout;
use protocol::settings::PPM;
use protocol::update::{assemble, EncodedChunks, Encoder, Payload};
use trainer::compress::{TensorPart, UpdateStream};
use trainer::{Model, Threads};

use crate::learning::{config, go_on, steps, trainer};
use crate::samples::MemorySamples;

fn updates(count: u16) -> Vec<(u16, Vec<u8>)> {
    let samples = MemorySamples::words(32, 64, 2);
    let make = |uid: u16| {
        let mut trainer = trainer(1);
        let steps = steps(&samples, 4, u64::from(uid) * 5);
        trainer.train_window(&samples, &steps, &|_| 3e-3, &mut go_on).unwrap();
        (uid, trainer.make_update(64, 950_000).unwrap())
    };
    (0..count).map(make).collect()
}

#[test]
fn update_is_the_encoders_and_error_is_its_residual() {
    let samples = MemorySamples::words(32, 64, 2);
    for threads in [1, 2] {
        let mut trainer = trainer(threads);
        trainer.train_window(&samples, &steps(&samples, 4, 0), &|_| 3e-3, &mut go_on).unwrap();
        let local = trainer.local_model().unwrap().parameters().to_vec();
        let mut u: Vec<f32> =
            trainer.model().parameters().iter().zip(&local).map(|(a, b)| a - b).collect();
        let update = trainer.make_update(64, 950_000).unwrap();

        let arena = trainer.model().arena().clone();
        let layout = trainer.model().layout().clone();
        let expected = Encoder::new().encode(&mut arena.views_mut(&mut u), &layout, 64).unwrap();
        assert_eq!(update, expected);
        assert_eq!(trainer.feedback(), u);
        Payload::parse(&update, &layout, 64).unwrap();
    }
}

#[test]
fn an_update_that_reached_nobody_is_error_feedback_again() {
    let samples = MemorySamples::words(32, 64, 2);
    for threads in [1, 2] {
        let mut trainer = trainer(threads);
        trainer.train_window(&samples, &steps(&samples, 4, 0), &|_| 3e-3, &mut go_on).unwrap();
        let local = trainer.local_model().unwrap().parameters().to_vec();
        let all: Vec<f32> =
            trainer.model().parameters().iter().zip(&local).map(|(a, b)| a - b).collect();
        let update = trainer.make_update(64, 950_000).unwrap();
        let left = trainer.feedback().to_vec();

        // θ is another's by then.
        trainer.release_model();
        assert!(trainer.take_back(&update[1..], 64).is_err());
        assert_eq!(trainer.feedback(), left);
        trainer.take_back(&update, 64).unwrap();
        let largest = all.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let same = |(found, expected): (&f32, &f32)| (found - expected).abs() <= 1e-6 * largest;
        assert!(trainer.feedback().iter().zip(&all).all(same), "{threads} threads");
        assert_ne!(trainer.feedback(), left);
    }
}

#[test]
fn error_feedback_decays_and_comes_back() {
    let samples = MemorySamples::words(32, 64, 2);
    let mut trainer = trainer(1);
    trainer.train_window(&samples, &steps(&samples, 4, 0), &|_| 3e-3, &mut go_on).unwrap();
    trainer.make_update(64, 950_000).unwrap();
    let before: f32 = trainer.feedback().iter().map(|e| e * e).sum();
    assert!(before > 0.0);
    // A window that moves nothing sends a part of what was left out.
    trainer.train_window(&samples, &steps(&samples, 1, 0), &|_| 0.0, &mut go_on).unwrap();
    trainer.make_update(64, 950_000).unwrap();
    let after: f32 = trainer.feedback().iter().map(|e| e * e).sum();
    assert!(after < 0.95 * 0.95 * before, "{before} to {after}");
}

#[test]
fn outer_step_is_protocols_bit_for_bit() {
    let updates = updates(5);
    let model = Model::init(&config(), 1).unwrap();
    let layout = model.layout().clone();
    let arena = model.arena().clone();
    let payloads: Vec<_> = updates
        .iter()
        .map(|(uid, bytes)| (*uid, Payload::parse(bytes, &layout, 64).unwrap()))
        .collect();
    let mut accepted: Vec<(u16, &[u8])> =
        updates.iter().map(|(uid, bytes)| (*uid, bytes.as_slice())).collect();
    accepted.reverse();
    for senders_min_ppm in [PPM, 250_000, 0] {
        let rule = OuterRule::new(800_000, senders_min_ppm);
        let mut expected = model.parameters().to_vec();
        outer_step(&mut arena.views_mut(&mut expected), &layout, &payloads, rule).unwrap();
        for threads in [1, 3] {
            let threads = Threads::new(threads).unwrap();
            let mut stepped = model.clone();
            stepped.apply_outer(&threads, &accepted, 64, rule).unwrap();
            assert!(stepped
                .parameters()
                .iter()
                .zip(&expected)
                .all(|(a, b)| a.to_bits() == b.to_bits()));
            assert_ne!(stepped.parameters(), model.parameters());
        }
        let mut untouched = model.clone();
        untouched.apply_outer(&Threads::single(), &[], 64, rule).unwrap();
        assert_eq!(untouched.parameters(), model.parameters());
    }
}

#[test]
fn one_malformed_update_changes_nothing() {
    let mut updates = updates(2);
    let last = updates[1].1.len() - 1;
    updates[1].1.truncate(last);
    let accepted: Vec<(u16, &[u8])> =
        updates.iter().map(|(uid, bytes)| (*uid, bytes.as_slice())).collect();
    let model = Model::init(&config(), 1).unwrap();
    let mut stepped = model.clone();
    assert!(stepped
        .apply_outer(&Threads::single(), &accepted, 64, OuterRule::new(800_000, PPM))
        .is_err());
    assert_eq!(stepped.parameters(), model.parameters());
}

/// Deterministic values with long tails.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let unit = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
            unit * unit * unit * 1e-2
        })
        .collect()
}

#[test]
fn a_stream_gives_the_same_update_from_any_portions_and_threads() {
    // More than a wave of one thread, with short chunks and a tensor of one value.
    let layout = Layout(vec![700 * 4096 + 17, 1, 3 * 4096, 64]);
    let tensors: Vec<[Vec<f32>; 3]> = (0u64..)
        .zip(&layout.0)
        .map(|(seed, len)| [0, 1, 2].map(|part| noise(*len as usize, seed * 3 + part)))
        .collect();
    let mut errors: Vec<Vec<f32>> = Vec::new();
    let mut chunks = EncodedChunks::default();
    for [error, start, local] in &tensors {
        let mut error = error.clone();
        Encoder::new().encode_difference(&mut error, start, local, 0.95, 64, &mut chunks).unwrap();
        errors.push(error);
    }
    let expected = assemble(&[chunks], &layout, 64).unwrap();

    for (threads, portion) in [(1, usize::MAX), (2, 4096), (3, 40 * 4096)] {
        let threads = Threads::new(threads).unwrap();
        let sink = Cursor::new(Vec::new());
        let mut stream = UpdateStream::new(&threads, sink, &layout, 64, 0.95).unwrap();
        for ([error, start, local], residual) in tensors.iter().zip(&errors) {
            let mut error = error.clone();
            let parameters = start.chunks(portion).zip(local.chunks(portion));
            for (error, (start, local)) in error.chunks_mut(portion).zip(parameters) {
                let part = TensorPart { feedback: error, start, local };
                stream.encode([part]).unwrap();
            }
            assert_eq!(&error, residual);
        }
        let bytes = stream.finish().unwrap().into_inner();
        assert!(bytes == expected, "{threads:?}");
    }
}

#[test]
fn a_stream_names_the_chunk_that_is_not_finite() {
    let layout = Layout(vec![4096, 40 * 4096]);
    let threads = Threads::new(2).unwrap();
    let mut stream =
        UpdateStream::new(&threads, Cursor::new(Vec::new()), &layout, 64, 0.95).unwrap();
    let zeros = vec![0.0; 40 * 4096];
    let mut errors = [vec![0.0; 4096], zeros.clone()];
    errors[1][35 * 4096 + 9] = f32::NAN;
    let result = stream.encode(errors.iter_mut().map(|error| TensorPart {
        start: &zeros[..error.len()],
        local: &zeros[..error.len()],
        feedback: error,
    }));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("chunk 36"), "{error}");
}
