//! Two implementations of the device's door, our engine and candle's autograd, must agree: the same
//! loss and close parameters after a few steps, the same evaluation of an update, the same scores.

use std::ops::ControlFlow;

use dataset::SampleSource;
use trainer::devices::{self, DeviceKind};
use trainer::guard::GuardSettings;
use trainer::harness::{ScoreRequest, Scorer};
use trainer::{
    pretrain, AdamWSettings, Candle, Checkpoints, Cpu, Device, DeviceError, EvaluationRates,
    Evaluator, Model, ModelConfig, Precision, PretrainError, PretrainEvent, PretrainSettings,
    Pretrainer, RateSchedule, Shape, Threads, TrainError, Trainer, TrainerSettings,
    UpdateToEvaluate,
};

use crate::learning::{config, go_on, steps};
use crate::samples::MemorySamples;

fn both() -> [Box<dyn Device>; 2] {
    [Box::new(Cpu::new(Threads::single())), Box::new(Candle::new(Threads::single()))]
}

fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance * a.abs().max(1e-3), "{a} {b}");
}

/// The norm of the difference over the norm of the first.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut a.iter().map(|a| f64::from(*a)))
}

#[test]
fn a_window_of_training_is_the_same_on_both() {
    let samples = MemorySamples::words(32, 64, 1);
    let runs = both().map(|device| {
        let model = Model::init(&config(), 1).unwrap();
        let settings =
            TrainerSettings { batch_size: 4, micro_batch: 2, ..TrainerSettings::default() };
        let mut trainer = Trainer::new(model, settings, &*device).unwrap();
        let summary =
            trainer.train_window(&samples, &steps(&samples, 6, 0), &|_| 1e-3, &mut go_on).unwrap();
        let trained = trainer.local_model().unwrap();
        let update = trainer.make_update(64, 950_000).unwrap();
        (summary, trained, trainer.feedback().to_vec(), update)
    });
    let [ours, reference] = &runs;
    assert_eq!((ours.0.steps, ours.0.tokens), (reference.0.steps, reference.0.tokens));
    close(ours.0.first.into(), reference.0.first.into(), 1e-5);
    close(ours.0.last.into(), reference.0.last.into(), 1e-4);
    assert_ne!(ours.1.parameters(), Model::init(&config(), 1).unwrap().parameters());
    assert!(distance(ours.1.parameters(), reference.1.parameters()) < 1e-3);
    assert!(distance(&ours.2, &reference.2) < 0.1);

    // Both evaluate the same update alike.
    let model = Model::init(&config(), 1).unwrap();
    let rates =
        EvaluationRates { keep: 64, outer_rate_ppm: 1_000_000, evaluation_rate_ppm: 500_000 };
    let update = UpdateToEvaluate { uid: 1, payload: &ours.3, own_ids: &[0, 1, 2, 3, 4] };
    let [ours, reference] = both().map(|device| {
        let mut evaluator = Evaluator::new(&config(), &*device, 2).unwrap();
        evaluator.evaluate_update(&model, update, &[40, 41, 42], &samples, rates).unwrap()
    });
    assert!(ours.own_after < ours.own_before);
    for (a, b) in [
        (ours.own_before, reference.own_before),
        (ours.own_after, reference.own_after),
        (ours.random_before, reference.random_before),
        (ours.random_after, reference.random_after),
    ] {
        close(a.into(), b.into(), 1e-5);
    }
}

fn settings(precision: Precision) -> PretrainSettings {
    PretrainSettings {
        steps: 6,
        batch_size: 4,
        micro_batch: 2,
        precision,
        schedule: RateSchedule {
            peak_rate: 3e-3,
            floor: 0.1,
            warm_up_steps: 2,
            shape: Shape::Cosine,
        },
        adamw: AdamWSettings::default(),
        muon: None,
        clip_norm: 1.0,
        seed: 7,
        guard: GuardSettings::default(),
    }
}

fn pretrainer(device: &dyn Device, samples: &MemorySamples) -> Pretrainer {
    let model = Model::init(&config(), 3).unwrap();
    let count = samples.sample_count();
    Pretrainer::new(model, settings(Precision::F32), count, &[9; 32], device).unwrap()
}

/// Trains up to the step `stop`.
fn run(trainer: &mut Pretrainer, samples: &MemorySamples, at: &Checkpoints, stop: u64) -> f32 {
    let mut last = 0.0;
    pretrain(trainer, samples, at, 0, &mut |trainer, event| {
        if let PretrainEvent::Step(step) = event {
            last = step.loss;
        }
        match trainer.steps_taken() >= stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
    .unwrap();
    last
}

#[test]
fn a_training_goes_on_on_the_other_device() {
    let samples = MemorySamples::words(32, 40, 1);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| Checkpoints::open(&folder.path().join(name)).unwrap();
    let [cpu, candle] = both();
    let mut ours = pretrainer(&*cpu, &samples);
    let loss = run(&mut ours, &samples, &at("cpu"), 6);
    let mut reference = pretrainer(&*candle, &samples);
    close(loss.into(), run(&mut reference, &samples, &at("candle"), 6).into(), 1e-4);

    // Half on the one and half on the other, over a checkpoint.
    run(&mut pretrainer(&*candle, &samples), &samples, &at("half"), 3);
    let mut half = pretrainer(&*cpu, &samples);
    assert!(half.resume(&at("half")).unwrap());
    assert_eq!(half.steps_taken(), 3);
    run(&mut half, &samples, &at("half"), 6);

    let held_out = [30, 31, 32];
    let mut evaluator = Evaluator::new(&config(), &*candle, 2).unwrap();
    let by_reference = evaluator.loss(ours.weights(), &samples, &held_out).unwrap();
    let mut evaluator = Evaluator::new(&config(), &*cpu, 2).unwrap();
    close(evaluator.loss(ours.weights(), &samples, &held_out).unwrap(), by_reference, 1e-5);
    // Parameters that lie in candle cross tensor by tensor.
    let there = evaluator.loss(reference.weights(), &samples, &held_out).unwrap();
    let copied = reference.model().unwrap();
    assert_eq!(evaluator.loss(&copied, &samples, &held_out).unwrap(), there);

    let ours = ours.into_model().unwrap();
    for other in [copied, reference.into_model().unwrap(), half.into_model().unwrap()] {
        assert!(distance(ours.parameters(), other.parameters()) < 1e-3);
    }
}

#[test]
fn both_score_requests_alike() {
    let model = Model::init(&config(), 5).unwrap();
    let request = |length: u32| ScoreRequest {
        context: (65..65 + length).collect(),
        continuation: vec![66, 67],
    };
    let requests: Vec<ScoreRequest> = [3, 9, 21].map(request).into();
    let [ours, reference] = both().map(|device| {
        let scorer = Scorer::new(&model, &*device, 32, 64);
        scorer.score(&requests, None, &mut |_| ControlFlow::Continue(())).unwrap()
    });
    assert_eq!(ours.tokens, reference.tokens);
    for (a, b) in ours.scores.iter().zip(&reference.scores) {
        close(a.log_likelihood, b.log_likelihood, 1e-5);
        assert_eq!(a.greedy, b.greedy);
    }
}

#[test]
fn what_a_device_cannot_do_it_refuses() {
    let device = devices::open(DeviceKind::Candle, Threads::single()).unwrap();
    assert_eq!(device.name(), "candle");
    let model = Model::init(&config(), 1).unwrap();
    let refused = Pretrainer::new(model, settings(Precision::Bf16), 40, &[9; 32], &*device).err();
    let Some(PretrainError::Train(TrainError::Device(DeviceError::Refused { device, reason }))) =
        refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!((device, reason.as_str()), ("candle", "only f32 is supported"));

    // A model of another shape is noticed by both.
    let wider = Model::init(&ModelConfig { ffn: 128, ..config() }, 1).unwrap();
    let samples = MemorySamples::words(32, 40, 1);
    for device in both() {
        let mut evaluator = Evaluator::new(&config(), &*device, 2).unwrap();
        let refused = evaluator.loss(&wider, &samples, &[0]);
        assert!(matches!(refused, Err(TrainError::Batch(_))), "{refused:?}");
    }
}
