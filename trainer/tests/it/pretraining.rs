//! Training without a chain: order, accumulation, guard, exact resume.

use std::ops::ControlFlow;

use dataset::SampleSource;
use trainer::guard::{GuardSettings, GuardState, Verdict};
use trainer::pretrain::Order;
use trainer::schedule::{RateSchedule, Shape};
use trainer::{
    pretrain, Checkpoints, Cpu, Model, ModelConfig, MuonSettings, Precision, PretrainEnd,
    PretrainError, PretrainEvent, PretrainSettings, Pretrainer, Threads,
};

use crate::samples::MemorySamples;

/// A model that takes a step in a millisecond or two.
fn config() -> ModelConfig {
    ModelConfig {
        hidden: 32,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        ffn: 64,
        seq_len: 32,
        ..ModelConfig::preset("nano").unwrap()
    }
}

fn settings(steps: u64) -> PretrainSettings {
    PretrainSettings {
        steps,
        batch_size: 4,
        micro_batch: 4,
        precision: Precision::F32,
        schedule: RateSchedule {
            peak_rate: 3e-3,
            floor: 0.1,
            warm_up_steps: 2,
            shape: Shape::Cosine,
        },
        adamw: trainer::AdamWSettings::default(),
        muon: None,
        clip_norm: 1.0,
        seed: 7,
        guard: GuardSettings::default(),
    }
}

fn trainer(settings: PretrainSettings, samples: &MemorySamples, threads: usize) -> Pretrainer {
    let model = Model::init(&config(), 3).unwrap();
    let device = Cpu::new(Threads::new(threads).unwrap());
    Pretrainer::new(model, settings, samples.sample_count(), &[9; 32], &device).unwrap()
}

/// Trains, and stops after the step `stop`.
fn run(trainer: &mut Pretrainer, samples: &MemorySamples, at: &Checkpoints, stop: u64) -> Vec<f32> {
    let mut losses = Vec::new();
    let ended = pretrain(trainer, samples, at, 5, &mut |trainer, event| {
        if let PretrainEvent::Step(step) = event {
            losses.push(step.loss);
        }
        match trainer.steps_taken() >= stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    let is_last = stop >= trainer.settings().steps;
    let expected = [PretrainEnd::Stopped, PretrainEnd::Complete][usize::from(is_last)];
    assert_eq!(ended.unwrap(), expected);
    losses
}

#[test]
fn every_epoch_has_every_sample_once_in_an_order_of_its_own() {
    let mut order = Order::new(5, 100);
    let epochs = [0, 1].map(|epoch| {
        (0..100).map(|at| order.sample(epoch * 100 + at).unwrap()).collect::<Vec<u64>>()
    });
    assert_ne!(epochs[0], epochs[1]);
    for mut epoch in epochs {
        epoch.sort_unstable();
        assert_eq!(epoch, (0..100).collect::<Vec<u64>>());
    }
    assert_ne!(order.sample(3), Order::new(6, 100).sample(3), "of other seeds");
    assert_eq!(Order::new(5, 0).sample(0), None);
}

#[test]
fn a_resumed_training_ends_with_the_bits_of_an_uninterrupted_one() {
    resumes_bit_for_bit(&settings(24));
    let muon = Some(MuonSettings { relative_rate: 2.0, ..MuonSettings::default() });
    resumes_bit_for_bit(&PretrainSettings { muon, ..settings(24) });
}

fn resumes_bit_for_bit(settings: &PretrainSettings) {
    let samples = MemorySamples::words(32, 40, 1);
    let whole = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(whole.path()).unwrap();
    let mut uninterrupted = trainer(settings.clone(), &samples, 1);
    let losses = run(&mut uninterrupted, &samples, &checkpoints, 24);
    assert!(losses[23] < 0.9 * losses[0], "{losses:?}");

    // Stopped after 7 steps and after 15, each time gone on by a new process' trainer, with other threads.
    let parts = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(parts.path()).unwrap();
    let mut resumed_losses = Vec::new();
    for (stop, threads) in [(7, 1), (15, 2), (24, 1)] {
        let mut part = trainer(settings.clone(), &samples, threads);
        assert_eq!(part.resume(&checkpoints).unwrap(), stop > 7);
        resumed_losses.extend(run(&mut part, &samples, &checkpoints, stop));
        if stop == 24 {
            assert_eq!(
                part.model().unwrap().parameters(),
                uninterrupted.model().unwrap().parameters()
            );
            assert_eq!(part.guard(), uninterrupted.guard());
        }
    }
    assert_eq!(resumed_losses, losses);
}

#[test]
fn a_lost_checkpoint_is_caught_up_from_the_one_before() {
    let samples = MemorySamples::words(32, 40, 1);
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    let mut first = trainer(settings(20), &samples, 1);
    run(&mut first, &samples, &checkpoints, 20);
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let newest = names.last().unwrap();
    let mut bytes = std::fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(newest, bytes).unwrap();

    let mut again = trainer(settings(20), &samples, 1);
    assert!(again.resume(&checkpoints).unwrap());
    assert_eq!(again.steps_taken(), 15);
    run(&mut again, &samples, &checkpoints, 20);
    assert_eq!(again.model().unwrap().parameters(), first.model().unwrap().parameters());
}

#[test]
fn micro_batches_add_up_to_the_batch() {
    let samples = MemorySamples::words(32, 40, 1);
    let runs = [4, 2, 1].map(|micro_batch| {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        let settings = PretrainSettings { micro_batch, ..settings(10) };
        let mut trainer = trainer(settings, &samples, 1);
        let losses = run(&mut trainer, &samples, &checkpoints, 10);
        (losses, trainer.learner().allocated_bytes())
    });
    let [(whole, _), (halves, _), (parts, _)] = &runs;
    assert_eq!((whole.len(), halves.len()), (10, 10));
    for (whole, parts) in whole.iter().zip(parts) {
        // The sums are the same but for their order.
        assert!((whole - parts).abs() < 1e-4 * whole, "{whole} {parts}");
    }
    assert!(runs[2].1 < runs[1].1 && runs[1].1 < runs[0].1, "micro-batches save no memory");
}

#[test]
fn parameters_rounded_to_bf16_learn_as_well() {
    let samples = MemorySamples::words(32, 40, 1);
    let losses = [Precision::F32, Precision::Bf16].map(|precision| {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        let settings = PretrainSettings { precision, ..settings(24) };
        run(&mut trainer(settings, &samples, 1), &samples, &checkpoints, 24)
    });
    assert_ne!(losses[0], losses[1], "rounding had no effect at all");
    let (exact, rounded) = (losses[0][23], losses[1][23]);
    assert!(rounded < 0.9 * losses[1][0], "{losses:?}");
    // bf16 keeps 8 bits of a parameter: the losses part by less than 2 %.
    assert!((rounded - exact).abs() < 0.02 * exact, "{exact} {rounded}");
}

#[test]
fn another_optimiser_is_refused_by_name_and_changes_nothing() {
    let samples = MemorySamples::words(32, 40, 1);
    let adamw = settings(10);
    let muon = PretrainSettings { muon: Some(MuonSettings::default()), ..settings(10) };
    for (saved, resumed, said) in [
        (&adamw, &muon, "optimiser = AdamW, not Muon"),
        (&muon, &adamw, "optimiser = Muon, not AdamW"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        run(&mut trainer(saved.clone(), &samples, 1), &samples, &checkpoints, 3);
        let mut other = trainer(resumed.clone(), &samples, 1);
        let refused = other.resume(&checkpoints).unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
        let apart = tempfile::tempdir().unwrap();
        let own = Checkpoints::open(apart.path()).unwrap();
        let losses = run(&mut other, &samples, &own, 3);
        let fresh = Checkpoints::open(&apart.path().join("fresh")).unwrap();
        let mut untouched = trainer(resumed.clone(), &samples, 1);
        assert_eq!(run(&mut untouched, &samples, &fresh, 3), losses);
        assert_eq!(other.model().unwrap().parameters(), untouched.model().unwrap().parameters());
    }
    // Another rate of Muon's is another setting.
    let faster = MuonSettings { relative_rate: 2.0, ..MuonSettings::default() };
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    run(&mut trainer(muon.clone(), &samples, 1), &samples, &checkpoints, 3);
    let other = PretrainSettings { muon: Some(faster), ..muon };
    let refused = trainer(other, &samples, 1).resume(&checkpoints).unwrap_err().to_string();
    assert!(refused.contains("matrix_rate over rate = 1.0, not 2.0"), "{refused}");
}

#[test]
fn loss_falls_with_muon_in_either_precision() {
    let samples = MemorySamples::words(32, 40, 1);
    for precision in [Precision::F32, Precision::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        let muon = Some(MuonSettings::default());
        let settings = PretrainSettings { precision, muon, ..settings(40) };
        let losses = run(&mut trainer(settings, &samples, 1), &samples, &checkpoints, 40);
        assert!(losses[39] < 0.8 * losses[0], "{precision:?}: {losses:?}");
    }
}

#[test]
fn other_settings_are_refused_by_name() {
    let samples = MemorySamples::words(32, 40, 1);
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    run(&mut trainer(settings(10), &samples, 1), &samples, &checkpoints, 5);

    let mut other = settings(10);
    other.schedule.peak_rate = 1e-3;
    let refused = trainer(other, &samples, 1).resume(&checkpoints);
    let Err(PretrainError::OtherSettings { name, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(name, "schedule.peak_rate");

    // A cosine of another length would have had other rates.
    let longer = trainer(settings(20), &samples, 1).resume(&checkpoints);
    assert!(matches!(longer, Err(PretrainError::OtherSettings { name, .. }) if name == "steps"));

    let refused = |model: Model| {
        let device = Cpu::new(Threads::single());
        let other = Pretrainer::new(model, settings(10), 40, &[9; 32], &device);
        match other.unwrap().resume(&checkpoints) {
            Err(PretrainError::OtherSettings { name, .. }) => name,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(Model::init(&config(), 4).unwrap()), "initial parameters");
    let wider = ModelConfig { ffn: 128, ..config() };
    assert_eq!(refused(Model::init(&wider, 3).unwrap()), "model.ffn");

    let model = Model::init(&config(), 3).unwrap();
    let other_data =
        Pretrainer::new(model, settings(10), 40, &[8; 32], &Cpu::new(Threads::single()));
    let refused = other_data.unwrap().resume(&checkpoints);
    assert!(
        matches!(refused, Err(PretrainError::OtherSettings { name, .. }) if name == "data root")
    );
}

#[test]
fn a_flat_training_can_be_made_longer() {
    let samples = MemorySamples::words(32, 40, 1);
    let flat = |steps| PretrainSettings {
        schedule: RateSchedule { shape: Shape::Flat, ..settings(steps).schedule },
        ..settings(steps)
    };
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    run(&mut trainer(flat(6), &samples, 1), &samples, &checkpoints, 6);
    let mut longer = trainer(flat(12), &samples, 1);
    assert!(longer.resume(&checkpoints).unwrap());
    run(&mut longer, &samples, &checkpoints, 12);

    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    let mut at_once = trainer(flat(12), &samples, 1);
    run(&mut at_once, &samples, &checkpoints, 12);
    assert_eq!(longer.model().unwrap().parameters(), at_once.model().unwrap().parameters());
}

#[test]
fn a_spike_is_skipped_and_many_go_back_with_half_the_rate_until_patience_ends() {
    let settings = GuardSettings { spike_deviations: 4.0, skips_max: 2, rollbacks_max: 1 };
    let mut guard = GuardState::default();
    for step in 0..100 {
        let loss = 3.0 + 0.05 * (step as f32).sin();
        assert_eq!(guard.judge(&settings, loss, 1.0), Verdict::Apply);
    }
    let saved = guard;
    assert_eq!(guard.judge(&settings, 9.0, 1.0), Verdict::Skip);
    assert_eq!(guard.judge(&settings, 3.0, 1.0), Verdict::Apply);
    assert_eq!(guard.judge(&settings, f32::NAN, 1.0), Verdict::Skip);
    assert_eq!(guard.judge(&settings, 3.0, f32::INFINITY), Verdict::Skip);
    assert_eq!(guard.judge(&settings, 9.0, 1.0), Verdict::RollBack);
    let mut guard = guard.rolled_back(&saved);
    assert_eq!(guard.rate_factor(), 0.5);
    assert_eq!(guard.skipped, 4);
    for _ in 0..2 {
        assert_eq!(guard.judge(&settings, 9.0, 1.0), Verdict::Skip);
    }
    assert_eq!(guard.judge(&settings, 9.0, 1.0), Verdict::Stop);
    // It comes back from text as it was.
    let text = serde_json::to_string(&guard).unwrap();
    assert_eq!(serde_json::from_str::<GuardState>(&text).unwrap(), guard);
}

#[test]
fn a_training_that_diverges_keeps_its_last_good_checkpoint() {
    let samples = MemorySamples::words(32, 40, 1);
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    let mut settings = settings(40);
    // Overflows within a step or two, and half of it too.
    settings.schedule.peak_rate = 1e30;
    settings.guard.rollbacks_max = 2;
    let mut trainer = trainer(settings, &samples, 1);
    let mut went_back = 0;
    let ended = pretrain(&mut trainer, &samples, &checkpoints, 1_000, &mut |_, event| {
        went_back += u32::from(matches!(event, PretrainEvent::RolledBack(_)));
        ControlFlow::Continue(())
    });
    assert!(
        matches!(ended, Err(PretrainError::Diverged { rollbacks: 2, kept_step: 0, .. })),
        "{ended:?}"
    );
    assert_eq!(went_back, 2);
    let kept = checkpoints.load(&config()).unwrap().unwrap();
    assert_eq!(kept.model().parameters(), Model::init(&config(), 3).unwrap().parameters());
}
