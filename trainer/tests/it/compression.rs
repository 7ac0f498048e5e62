//! Updates: what protocol's encoder and outer step say, spread over threads.

use protocol::aggregate::outer_step;
use protocol::update::{Encoder, Payload};
use trainer::{Model, Threads};

use crate::learning::{config, go_on, steps, trainer};
use crate::samples::MemorySamples;

fn updates(count: u16) -> Vec<(u16, Vec<u8>)> {
    let samples = MemorySamples::words(32, 64, 2);
    let make = |uid: u16| {
        let mut trainer = trainer(1);
        let steps = steps(&samples, 4, u64::from(uid) * 5);
        trainer
            .train_window(&samples, &steps, &|_| 3e-3, &mut go_on)
            .unwrap();
        (uid, trainer.make_update(64, 950_000).unwrap())
    };
    (0..count).map(make).collect()
}

#[test]
fn update_is_the_encoders_and_error_is_its_residual() {
    let samples = MemorySamples::words(32, 64, 2);
    for threads in [1, 2] {
        let mut trainer = trainer(threads);
        trainer
            .train_window(&samples, &steps(&samples, 4, 0), &|_| 3e-3, &mut go_on)
            .unwrap();
        let local = trainer.local_parameters().to_vec();
        let mut u: Vec<f32> = trainer
            .model()
            .parameters()
            .iter()
            .zip(&local)
            .map(|(a, b)| a - b)
            .collect();
        let update = trainer.make_update(64, 950_000).unwrap();

        let arena = trainer.model().arena().clone();
        let layout = trainer.model().layout().clone();
        let expected = Encoder::new()
            .encode(&mut arena.views_mut(&mut u), &layout, 64)
            .unwrap();
        assert_eq!(update, expected);
        assert_eq!(trainer.error_feedback(), u);
        Payload::parse(&update, &layout, 64).unwrap();
    }
}

#[test]
fn error_feedback_decays_and_comes_back() {
    let samples = MemorySamples::words(32, 64, 2);
    let mut trainer = trainer(1);
    trainer
        .train_window(&samples, &steps(&samples, 4, 0), &|_| 3e-3, &mut go_on)
        .unwrap();
    trainer.make_update(64, 950_000).unwrap();
    let before: f32 = trainer.error_feedback().iter().map(|e| e * e).sum();
    assert!(before > 0.0);
    // A window that moves nothing sends a part of what was left out.
    trainer
        .train_window(&samples, &steps(&samples, 1, 0), &|_| 0.0, &mut go_on)
        .unwrap();
    trainer.make_update(64, 950_000).unwrap();
    let after: f32 = trainer.error_feedback().iter().map(|e| e * e).sum();
    assert!(after < 0.95 * 0.95 * before, "{before} to {after}");
}

#[test]
fn outer_step_is_protocols_bit_for_bit() {
    let updates = updates(5);
    let model = Model::init(&config(), 1).unwrap();
    let layout = model.layout().clone();
    let arena = model.arena().clone();
    let mut expected = model.parameters().to_vec();
    let payloads: Vec<_> = updates
        .iter()
        .map(|(uid, bytes)| (*uid, Payload::parse(bytes, &layout, 64).unwrap()))
        .collect();
    outer_step(
        &mut arena.views_mut(&mut expected),
        &layout,
        &payloads,
        800_000,
    )
    .unwrap();

    let mut accepted: Vec<(u16, &[u8])> = updates
        .iter()
        .map(|(uid, bytes)| (*uid, bytes.as_slice()))
        .collect();
    accepted.reverse();
    for threads in [1, 3] {
        let threads = Threads::new(threads).unwrap();
        let mut stepped = model.clone();
        stepped
            .apply_outer(&threads, &accepted, 64, 800_000)
            .unwrap();
        assert!(stepped
            .parameters()
            .iter()
            .zip(&expected)
            .all(|(a, b)| a.to_bits() == b.to_bits()));
        assert_ne!(stepped.parameters(), model.parameters());
    }
    let mut untouched = model.clone();
    untouched
        .apply_outer(&Threads::single(), &[], 64, 800_000)
        .unwrap();
    assert_eq!(untouched.parameters(), model.parameters());
}

#[test]
fn one_malformed_update_changes_nothing() {
    let mut updates = updates(2);
    let last = updates[1].1.len() - 1;
    updates[1].1.truncate(last);
    let accepted: Vec<(u16, &[u8])> = updates
        .iter()
        .map(|(uid, bytes)| (*uid, bytes.as_slice()))
        .collect();
    let model = Model::init(&config(), 1).unwrap();
    let mut stepped = model.clone();
    assert!(stepped
        .apply_outer(&Threads::single(), &accepted, 64, 800_000)
        .is_err());
    assert_eq!(stepped.parameters(), model.parameters());
}
