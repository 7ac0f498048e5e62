//! A window that is trained before its θ is known.

use std::ops::ControlFlow;
use std::sync::Arc;

use protocol::{aggregate::OuterRule, settings::PPM};
use trainer::{Model, MuonSettings, OwnPart, StepReport, TrainError, Trainer};

use crate::learning::{go_on, steps, trainer_with};
use crate::samples::MemorySamples;

const KEEP: u16 = 64;
const RULE: OuterRule = OuterRule { rate: 1.0, senders_min_ppm: PPM };

/// θ before and after an outer step, and the updates that it took.
struct Step {
    before: Arc<Model>,
    after: Arc<Model>,
    updates: Vec<Vec<u8>>,
}

impl Step {
    fn accepted(&self) -> Vec<(u16, &[u8])> {
        (0..).zip(self.updates.iter().map(Vec::as_slice)).collect()
    }

    /// What the first of them is assumed to do to θ.
    fn own(&self, expected: usize) -> OwnPart<'_> {
        OwnPart { payload: &self.updates[0], keep: KEEP, rate: RULE.rate / expected as f32 }
    }
}

/// An outer step with the updates of `miners` miners, the first of which is `trainer`.
fn step(trainer: &mut Trainer, samples: &MemorySamples, miners: u64) -> Step {
    let before = trainer.shared_model();
    let mut updates = Vec::new();
    for miner in (0..miners).rev() {
        trainer.set_model(before.clone()).unwrap();
        let steps = steps(samples, 4, miner * 100);
        trainer.train_window(samples, &steps, &|_| 5e-3, &mut go_on).unwrap();
        updates.insert(0, trainer.make_update(KEEP, 0).unwrap());
    }
    let mut after = Model::clone(&before);
    let step = Step { before, after: Arc::new(after.clone()), updates };
    after.apply_outer(trainer.threads(), &step.accepted(), KEEP, RULE).unwrap();
    Step { after: Arc::new(after), ..step }
}

/// The largest difference of two models' parameters.
fn distance(one: &Model, other: &Model) -> f32 {
    let pairs = one.parameters().iter().zip(other.parameters());
    pairs.map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

/// The cosine of the angle between the ways from `start` to `one` and to `other`.
fn cosine(start: &Model, one: &Model, other: &Model) -> f64 {
    let way = |to: &Model| -> Vec<f64> {
        let pairs = to.parameters().iter().zip(start.parameters());
        pairs.map(|(to, from)| f64::from(to - from)).collect()
    };
    let dot = |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
    let (one, other) = (way(one), way(other));
    dot(&one, &other) / (dot(&one, &one) * dot(&other, &other)).sqrt()
}

/// Ends the window after `count` steps.
fn stop_after(count: usize) -> impl FnMut(&StepReport) -> ControlFlow<()> {
    move |report| match report.step + 1 >= count {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

#[test]
fn what_arrives_moves_the_local_parameters_by_what_was_not_assumed() {
    let samples = MemorySamples::words(32, 64, 1);
    for muon in [None, Some(MuonSettings::default())] {
        let mut trainer = trainer_with(2, muon);
        let made = step(&mut trainer, &samples, 3);
        assert!(distance(&made.before, &made.after) > 1e-3);
        let upcoming = steps(&samples, 5, 1_000);

        trainer.begin_ahead(&made.before, made.own(3)).unwrap();
        let assumed = trainer.local_model().unwrap();
        let apart = distance(&made.before, &assumed);
        assert!(apart > 1e-4 && distance(&assumed, &made.after) > 1e-4, "{apart}");
        let source = &mut &samples as &mut dyn dataset::BatchSource;
        trainer.train_ahead(source, &upcoming, &|_| 5e-3, &mut stop_after(2)).unwrap();
        assert_eq!(trainer.ahead(), Some((2, false)));
        let local = trainer.local_model().unwrap();
        trainer.arrive(made.after.clone(), &made.accepted(), RULE, made.own(3)).unwrap();
        assert_eq!(trainer.ahead(), Some((2, true)));

        let mut expected = Model::clone(&made.after);
        for (to, (local, assumed)) in expected
            .parameters_mut()
            .iter_mut()
            .zip(local.parameters().iter().zip(assumed.parameters()))
        {
            *to += local - assumed;
        }
        let corrected = trainer.local_model().unwrap();
        let off = distance(&corrected, &expected);
        assert!(off < 1e-6, "{off}");

        trainer.train_ahead(source, &upcoming, &|_| 5e-3, &mut go_on).unwrap();
        let summary = trainer.end_ahead(upcoming.len()).unwrap();
        assert_eq!((summary.steps, summary.stopped), (5, false));
        assert_eq!(summary.tokens, 5 * 4 * 32);
        // The update is the difference to the θ that arrived: applied to it, it leads towards the local parameters,
        // as well as two bits a value can say.
        let end = trainer.local_model().unwrap();
        let update = trainer.make_update(4_096, 0).unwrap();
        let mut moved = Model::clone(&made.after);
        moved.apply_single(&update, 4_096, 1.0).unwrap();
        let along = cosine(&made.after, &moved, &end);
        assert!(along > 0.6, "{along}");
    }
}

#[test]
fn a_part_that_was_all_there_was_is_training_from_the_new_theta() {
    let samples = MemorySamples::words(32, 64, 1);
    let mut trainer = trainer_with(1, None);
    let made = step(&mut trainer, &samples, 1);
    let upcoming = steps(&samples, 6, 1_000);
    trainer.begin_ahead(&made.before, made.own(1)).unwrap();
    let source = &mut &samples as &mut dyn dataset::BatchSource;
    trainer.train_ahead(source, &upcoming, &|_| 1e-3, &mut stop_after(3)).unwrap();
    trainer.arrive(made.after.clone(), &made.accepted(), RULE, made.own(1)).unwrap();
    trainer.train_ahead(source, &upcoming, &|_| 1e-3, &mut go_on).unwrap();
    let ahead = trainer.end_ahead(6).unwrap();

    let mut other = trainer_with(1, None);
    let made = step(&mut other, &samples, 1);
    other.set_model(made.after.clone()).unwrap();
    let plain = other.train_window(&samples, &upcoming, &|_| 1e-3, &mut go_on).unwrap();
    assert!((ahead.mean - plain.mean).abs() < 1e-4, "{ahead:?}, {plain:?}");
    assert_eq!(ahead.steps, plain.steps);
}

#[test]
fn out_of_order_is_an_error_and_ends_nothing_else() {
    let samples = MemorySamples::words(32, 64, 1);
    let mut trainer = trainer_with(1, None);
    let made = step(&mut trainer, &samples, 2);
    let upcoming = steps(&samples, 2, 1_000);
    let source = &mut &samples as &mut dyn dataset::BatchSource;
    let is_refused = |result: Result<(), TrainError>| matches!(result, Err(TrainError::NotAhead));
    let arrive = |trainer: &mut Trainer| {
        trainer.arrive(made.after.clone(), &made.accepted(), RULE, made.own(2))
    };

    assert!(is_refused(arrive(&mut trainer)));
    assert!(is_refused(trainer.train_ahead(source, &upcoming, &|_| 1e-3, &mut go_on)));
    // Without θ there is nothing to send.
    trainer.begin_ahead(&made.before, made.own(2)).unwrap();
    trainer.train_ahead(source, &upcoming, &|_| 1e-3, &mut go_on).unwrap();
    assert!(is_refused(trainer.end_ahead(2).map(drop)));
    assert!(matches!(trainer.make_update(KEEP, 0), Err(TrainError::NotTrained)));
    // θ arrives once.
    trainer.begin_ahead(&made.before, made.own(2)).unwrap();
    arrive(&mut trainer).unwrap();
    assert!(is_refused(arrive(&mut trainer)));
    // Whatever sets other parameters ends it, and the window is trained as ever.
    trainer.begin_ahead(&made.before, made.own(2)).unwrap();
    trainer.set_model(made.after.clone()).unwrap();
    assert_eq!(trainer.ahead(), None);
    trainer.train_window(&samples, &upcoming, &|_| 1e-3, &mut go_on).unwrap();
    trainer.make_update(KEEP, 0).unwrap();
    // An update of another layout.
    let garbage = OwnPart { payload: &[1, 2, 3], ..made.own(2) };
    assert!(trainer.begin_ahead(&made.before, garbage).is_err());
    assert_eq!(trainer.ahead(), None);
}
