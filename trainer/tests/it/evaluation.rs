//! Evaluations: an honest update lowers the loss, noise does not, and nothing of the model changes.

use dataset::SampleSource;
use trainer::{
    loss_from_q824, Cpu, EvaluationRates, Evaluator, Model, Threads, TrainError, UpdateToEvaluate,
};

use crate::learning::{config, go_on, steps, trainer};
use crate::samples::MemorySamples;

const RATES: EvaluationRates =
    EvaluationRates { keep: 64, outer_rate_ppm: 1_000_000, evaluation_rate_ppm: 500_000 };

#[test]
fn honest_update_helps_and_its_opposite_hurts() {
    let samples = MemorySamples::words(32, 64, 2);
    let mut trainer = trainer(1);
    trainer.train_window(&samples, &steps(&samples, 20, 0), &|_| 3e-3, &mut go_on).unwrap();
    let honest = trainer.make_update(64, 950_000).unwrap();

    let model = Model::init(&config(), 1).unwrap();
    let root = model.state_root(&Threads::single());
    let mut evaluator = Evaluator::new(&config(), &Cpu::new(Threads::single()), 4).unwrap();
    let own_ids: Vec<u64> = (0..6).collect();
    let random_ids: Vec<u64> = (40..46).collect();
    let update = UpdateToEvaluate { uid: 9, payload: &honest, own_ids: &own_ids };
    let measured = evaluator.evaluate_update(&model, update, &random_ids, &samples, RATES).unwrap();
    assert_eq!(measured.uid, 9);
    assert!(measured.own_after < measured.own_before);
    assert!(measured.random_after < measured.random_before);
    let loss = evaluator.loss(&model, &samples, &random_ids).unwrap();
    assert!((loss_from_q824(measured.random_before) - loss).abs() < 1e-6);
    assert_eq!(model.state_root(&Threads::single()), root);

    // The same in place, of a model that nobody shares: the same losses, and not a bit of it is another afterwards.
    for threads in [1, 2] {
        let threads = Threads::new(threads).unwrap();
        let mut own = model.clone();
        let (stamp, at) = (own.stamp(), own.parameters().as_ptr());
        let mut in_place = Evaluator::new(&config(), &Cpu::new(threads.clone()), 4).unwrap();
        let mut measure = |payload, own: &mut Model| {
            let update = UpdateToEvaluate { uid: 9, payload, own_ids: &own_ids };
            in_place.evaluate_update_in_place(own, update, &random_ids, &samples, RATES)
        };
        assert_eq!(measure(&honest, &mut own).unwrap(), measured);
        assert!(measure(&honest[1..], &mut own).is_err());
        let update = UpdateToEvaluate { uid: 9, payload: &honest, own_ids: &own_ids };
        let missing = &[1u64 << 40];
        let error = in_place.evaluate_update_in_place(&mut own, update, missing, &samples, RATES);
        assert!(error.is_err());
        assert_eq!(own.state_root(&threads), root);
        assert_eq!((own.stamp(), own.parameters().as_ptr()), (stamp, at));
    }

    // A second evaluator with other batches measures the same up to rounding.
    let mut other = Evaluator::new(&config(), &Cpu::new(Threads::new(2).unwrap()), 3).unwrap();
    let again = other.evaluate_update(&model, update, &random_ids, &samples, RATES).unwrap();
    for (a, b) in [
        (measured.own_after, again.own_after),
        (measured.random_before, again.random_before),
        (measured.random_after, again.random_after),
    ] {
        assert!((loss_from_q824(a) - loss_from_q824(b)).abs() < 1e-6);
    }

    // The same update seen from the other side of the step.
    let mut stepped = model.clone();
    stepped.apply_single(&honest, 64, 1.0).unwrap();
    let after = evaluator.loss(&stepped, &samples, &random_ids).unwrap();
    assert!(after < loss);
    stepped.apply_single(&honest, 64, -2.0).unwrap();
    let opposite = evaluator.loss(&stepped, &samples, &random_ids).unwrap();
    assert!(opposite > after);
}

#[test]
fn malformed_updates_and_missing_samples_are_errors() {
    let samples = MemorySamples::words(32, 64, 2);
    let model = Model::init(&config(), 1).unwrap();
    let mut evaluator = Evaluator::new(&config(), &Cpu::new(Threads::single()), 4).unwrap();
    let update = UpdateToEvaluate { uid: 0, payload: &[1, 2, 3], own_ids: &[0] };
    let malformed = evaluator.evaluate_update(&model, update, &[1], &samples, RATES);
    assert!(matches!(malformed, Err(TrainError::Update(_))));
    assert!(matches!(evaluator.loss(&model, &samples, &[]), Err(TrainError::NoSamples)));
    let beyond = samples.sample_count();
    assert!(matches!(evaluator.loss(&model, &samples, &[beyond]), Err(TrainError::Batch(_))));
}
