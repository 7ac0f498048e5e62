//! Training: the loss falls, the same seed gives the same bytes, and mistakes are errors.

use std::ops::ControlFlow;

use dataset::SampleSource;
use protocol::{aggregate::OuterRule, settings::PPM};
use trainer::engine::BatchError;
use trainer::{
    rate_from_ppb, warm_up, Cpu, Model, ModelConfig, MuonSettings, StepReport, Threads, TrainError,
    Trainer, TrainerSettings,
};

use crate::samples::MemorySamples;

/// Small enough for an unoptimised build.
pub(crate) fn config() -> ModelConfig {
    ModelConfig {
        vocab: 256,
        hidden: 32,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        ffn: 64,
        seq_len: 32,
        rope_theta: 10_000.0,
        rope_scaling: None,
        norm_epsilon: 1e-5,
        tied: true,
    }
}

pub(crate) fn trainer(threads: usize) -> Trainer {
    trainer_with(threads, None)
}

pub(crate) fn trainer_with(threads: usize, muon: Option<MuonSettings>) -> Trainer {
    let model = Model::init(&config(), 1).unwrap();
    let settings = TrainerSettings { batch_size: 4, muon, ..TrainerSettings::default() };
    Trainer::new(model, settings, &Cpu::new(Threads::new(threads).unwrap())).unwrap()
}

/// `count` steps of four samples each.
pub(crate) fn steps(samples: &MemorySamples, count: u64, offset: u64) -> Vec<Vec<u64>> {
    let id = |index: u64| (offset + index * 7) % samples.sample_count();
    (0..count).map(|step| (0..4).map(|sample| id(step * 4 + sample)).collect()).collect()
}

pub(crate) fn go_on(_: &StepReport) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn loss_falls_on_a_tiny_set() {
    for muon in [None, Some(MuonSettings::default())] {
        loss_falls(muon);
    }
}

fn loss_falls(muon: Option<MuonSettings>) {
    let samples = MemorySamples::words(32, 64, 1);
    let mut trainer = trainer_with(1, muon);
    let rate = |step| warm_up(step, 5, 1e-2);
    let summary =
        trainer.train_window(&samples, &steps(&samples, 60, 0), &rate, &mut go_on).unwrap();
    assert!((summary.first - 256f32.ln()).abs() < 0.3, "starts at {}", summary.first);
    assert!(summary.last < 0.5 * summary.first, "ends at {}", summary.last);
    assert_eq!((summary.steps, summary.tokens, summary.stopped), (60, 60 * 4 * 32, false));
    assert_eq!(trainer.optimiser_step(), 60);
}

#[test]
fn windows_of_a_single_miner_lower_the_shared_loss() {
    let samples = MemorySamples::words(32, 64, 1);
    let mut trainer = trainer(1);
    let mut first = None;
    let mut last = 0.0;
    for window in 0..6 {
        let steps = steps(&samples, 10, window * 40);
        let summary = trainer.train_window(&samples, &steps, &|_| 5e-3, &mut go_on).unwrap();
        let update = trainer.make_update(64, 950_000).unwrap();
        let root =
            trainer.apply_outer(&[(0, &update)], 64, OuterRule::new(1_000_000, PPM)).unwrap();
        assert_eq!(root, trainer.state_root());
        first.get_or_insert(summary.first);
        last = summary.first;
    }
    assert!(last < 0.9 * first.unwrap(), "{first:?} to {last}");
}

/// Everything that a window leaves behind.
fn window_bytes(threads: usize, muon: Option<MuonSettings>) -> (Vec<u32>, Vec<u8>, [u8; 32]) {
    let samples = MemorySamples::words(32, 64, 2);
    let mut trainer = trainer_with(threads, muon);
    trainer.train_window(&samples, &steps(&samples, 12, 3), &|_| 3e-3, &mut go_on).unwrap();
    let local =
        trainer.local_model().unwrap().parameters().iter().map(|value| value.to_bits()).collect();
    let update = trainer.make_update(64, 900_000).unwrap();
    let root = trainer.apply_outer(&[(4, &update)], 64, OuterRule::new(700_000, PPM)).unwrap();
    (local, update, root)
}

#[test]
fn training_is_deterministic_with_any_number_of_threads() {
    let kinds = [None, Some(MuonSettings::default())];
    let [adamw, muon] = kinds.map(|muon| {
        let once = window_bytes(1, muon);
        for threads in [1, 2, 3] {
            assert_eq!(once, window_bytes(threads, muon), "{muon:?} on {threads} threads");
        }
        once
    });
    assert_ne!(adamw, muon);
}

#[test]
fn nano_is_deterministic_with_two_threads() {
    let run = |threads| {
        let config = ModelConfig::preset("nano").unwrap();
        let samples = MemorySamples::words(config.seq_len, 64, 2);
        let model = Model::init(&config, 1).unwrap();
        let settings = TrainerSettings { batch_size: 4, ..TrainerSettings::default() };
        let mut trainer =
            Trainer::new(model, settings, &Cpu::new(Threads::new(threads).unwrap())).unwrap();
        trainer.train_window(&samples, &steps(&samples, 3, 0), &|_| 1e-3, &mut go_on).unwrap();
        trainer
            .local_model()
            .unwrap()
            .parameters()
            .iter()
            .map(|value| value.to_bits())
            .collect::<Vec<_>>()
    };
    assert!(run(1) == run(2), "one and two threads differ");
}

#[test]
fn a_stopped_window_counts_what_was_trained() {
    let samples = MemorySamples::words(32, 64, 1);
    let mut trainer = trainer(1);
    let mut stop = |report: &StepReport| match report.step {
        2 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let summary =
        trainer.train_window(&samples, &steps(&samples, 8, 0), &|_| 1e-3, &mut stop).unwrap();
    assert_eq!((summary.steps, summary.stopped), (3, true));
    trainer.make_update(64, 0).unwrap();
}

#[test]
fn mistakes_are_errors_and_leave_the_model() {
    let samples = MemorySamples::words(32, 64, 1);
    let mut trainer = trainer(1);
    let root = trainer.state_root();
    let rate = |_| 1e-3;
    assert!(matches!(trainer.make_update(64, 0), Err(TrainError::NotTrained)));
    let mut train = |steps: &[Vec<u64>], samples: &MemorySamples| {
        trainer.train_window(samples, steps, &rate, &mut go_on)
    };
    let short = train(&[vec![1, 2, 3]], &samples);
    assert!(matches!(short, Err(TrainError::StepSamples { given: 3, expected: 4, .. })));
    let beyond = train(&[vec![0, 1, 2, 64]], &samples);
    assert!(matches!(beyond, Err(TrainError::Batch(BatchError::NoSample(64)))));
    let longer = MemorySamples::words(64, 8, 1);
    let other = train(&[vec![0, 1, 2, 3]], &longer);
    assert!(matches!(other, Err(TrainError::Batch(BatchError::SampleLen { .. }))));
    let diverged =
        trainer.train_window(&samples, &steps(&samples, 3, 0), &|_| f32::NAN, &mut go_on);
    assert!(matches!(diverged, Err(TrainError::Diverged { step: 1, .. })));
    assert!(matches!(trainer.make_update(64, 0), Err(TrainError::NotTrained)));
    assert!(trainer.apply_outer(&[(1, &[1, 2, 3])], 64, OuterRule::new(1_000_000, PPM)).is_err());
    assert_eq!(trainer.state_root(), root);
}

#[test]
fn rates_warm_up_and_convert() {
    assert_eq!(warm_up(1, 4, 1.0), 0.25);
    assert_eq!(warm_up(4, 4, 1.0), 1.0);
    assert_eq!(warm_up(9, 0, 0.5), 0.5);
    assert_eq!(rate_from_ppb(1_000_000), 1e-3);
}
