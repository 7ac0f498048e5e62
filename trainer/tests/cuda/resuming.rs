//! What goes on from a checkpoint ends with the bits of what was never interrupted, on any number of GPUs; and what
//! reads a finished model reads the same one.

use std::ops::ControlFlow;
use std::path::Path;

use dataset::SampleSource;
use protocol::{aggregate::OuterRule, settings::PPM};
use trainer::cuda::device::CudaSettings;
use trainer::guard::GuardSettings;
use trainer::harness::{ScoreRequest, Scorer};
use trainer::{
    pretrain, AdamWSettings, Checkpoints, Cpu, Device, Evaluator, MuonSettings, Position,
    Precision, PretrainEvent, PretrainSettings, Pretrainer, RateSchedule, Shape, Threads, Trainer,
    TrainerSettings,
};

use crate::emulators::Emulators;
use crate::models::{distance, model, samples, small};
use crate::samples::MemorySamples;

fn device(world: usize) -> impl Device {
    Emulators::new(world).device(CudaSettings::default())
}

#[test]
fn a_restored_trainer_goes_on_bit_for_bit_on_other_gpus() {
    for muon in [None, Some(MuonSettings::default())] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        let source = samples(&small());
        let window = |trainer: &mut Trainer, number: u64| {
            let ids = |step: u64| (0..4).map(move |sample| (number * 20 + step * 4 + sample) % 64);
            let steps: Vec<Vec<u64>> = (0..3).map(|step| ids(step).collect()).collect();
            let mut go_on = |_: &_| ControlFlow::Continue(());
            trainer.train_window(&source, &steps, &|_| 3e-3, &mut go_on).unwrap();
            let update = trainer.make_update(64, 950_000).unwrap();
            trainer.apply_outer(&[(0, &update)], 64, OuterRule::new(900_000, PPM)).unwrap();
            update
        };
        let start = |world| {
            let settings = TrainerSettings {
                batch_size: 4,
                micro_batch: 1,
                muon,
                ..TrainerSettings::default()
            };
            Trainer::new(model(&small()), settings, &device(world)).unwrap()
        };
        let position = Position { run: 3, window: 1, trained: false, note: String::new() };
        let mut expected = None;
        for (saved_by, worlds) in [(1, &[4][..]), (4, &[1, 2])] {
            let mut first = start(saved_by);
            window(&mut first, 0);
            first.save(&checkpoints, &position).unwrap();
            assert_eq!(parts(folder.path()).len(), saved_by, "a part for each rank");
            let update = window(&mut first, 1);
            let expected = &*expected.get_or_insert(update.clone());
            assert_eq!(update, *expected);
            for &world in worlds {
                let mut second = start(world);
                let checkpoint = checkpoints.newest(&small()).unwrap().unwrap();
                assert_eq!(second.resume(checkpoint).unwrap(), position);
                assert_eq!(second.optimiser_step(), 3);
                assert_eq!(window(&mut second, 1), *expected, "{saved_by} to {world} GPUs");
                assert_eq!(second.state_root(), first.state_root());
            }
            checkpoints.remove_all().unwrap();
            assert!(parts(folder.path()).is_empty());
        }
    }
}

/// Bytes of the files that hold values.
fn parts(folder: &Path) -> Vec<u64> {
    let files = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let parts = files.filter(|file| file.path().extension().is_some());
    parts.map(|file| file.metadata().unwrap().len()).collect()
}

#[test]
fn ranks_write_twelve_bytes_a_parameter_each_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    let settings = TrainerSettings { batch_size: 4, micro_batch: 1, ..TrainerSettings::default() };
    let mut trainer = Trainer::new(model(&small()), settings, &device(4)).unwrap();
    trainer.save_and_release(&checkpoints, &Position::default()).unwrap();
    assert!(trainer.model().parameters().is_empty(), "θ is let go");
    // θ and the error feedback in f32, two averages in bf16.
    let written = parts(folder.path());
    assert_eq!(written.iter().sum::<u64>(), 12 * small().parameter_count());
    assert!(written.iter().all(|bytes| *bytes > 0), "{written:?}");
    // A processor goes on from it, too.
    let mut on_cpu = {
        let settings = TrainerSettings { batch_size: 4, ..TrainerSettings::default() };
        Trainer::new(model(&small()), settings, &Cpu::new(Threads::single())).unwrap()
    };
    on_cpu.resume(checkpoints.newest(&small()).unwrap().unwrap()).unwrap();
    assert_eq!(on_cpu.model().parameters(), model(&small()).parameters());
}

fn settings(steps: u64) -> PretrainSettings {
    PretrainSettings {
        steps,
        batch_size: 4,
        micro_batch: 2,
        precision: Precision::Bf16,
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

fn pretrainer(device: &dyn Device, source: &MemorySamples) -> Pretrainer {
    Pretrainer::new(model(&small()), settings(9), source.sample_count(), &[9; 32], device).unwrap()
}

fn run(trainer: &mut Pretrainer, source: &MemorySamples, at: &Checkpoints, stop: u64) -> Vec<f32> {
    let mut losses = Vec::new();
    pretrain(trainer, source, at, 2, &mut |trainer, event| {
        if let PretrainEvent::Step(step) = event {
            losses.push(step.loss);
        }
        match trainer.steps_taken() >= stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
    .unwrap();
    losses
}

#[test]
fn a_resumed_training_ends_with_the_bits_of_an_uninterrupted_one() {
    let source = samples(&small());
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [whole, parts] = folders.each_ref().map(|folder| Checkpoints::open(folder.path()).unwrap());
    let mut uninterrupted = pretrainer(&device(1), &source);
    let losses = run(&mut uninterrupted, &source, &whole, 9);
    let mut resumed = Vec::new();
    for (stop, world) in [(3, 1), (7, 2), (9, 1)] {
        let mut part = pretrainer(&device(world), &source);
        assert_eq!(part.resume(&parts).unwrap(), stop > 3);
        resumed.extend(run(&mut part, &source, &parts, stop));
        if stop == 9 {
            let copied = part.model().unwrap();
            assert_eq!(copied.parameters(), uninterrupted.model().unwrap().parameters());
            assert_eq!(copied.parameters(), part.into_model().unwrap().parameters());
        }
    }
    assert_eq!(resumed, losses);
    assert!(losses[8] < 0.95 * losses[0], "{losses:?}");
}

#[test]
fn a_finished_model_is_read_alike() {
    let source = samples(&small());
    let folder = tempfile::tempdir().unwrap();
    let at = Checkpoints::open(folder.path()).unwrap();
    let mut trainer = pretrainer(&device(1), &source);
    run(&mut trainer, &source, &at, 9);
    let held_out = [50, 51, 52];
    let loss = |device: &dyn Device, trainer: &mut Pretrainer| {
        let mut evaluator = Evaluator::new(&small(), device, 2).unwrap();
        let there = evaluator.loss(trainer.weights(), &source, &held_out).unwrap();
        let copied = trainer.model().unwrap();
        assert_eq!(evaluator.loss(&copied, &source, &held_out).unwrap(), there);
        there
    };
    let cpu = loss(&Cpu::new(Threads::single()), &mut trainer);
    for world in [1, 2] {
        let gpu = loss(&device(world), &mut trainer);
        assert!((gpu / cpu - 1.0).abs() < 1e-2, "{gpu} {cpu}");
    }
}

#[test]
fn requests_are_scored_as_on_the_cpu() {
    let model = model(&small());
    let request = |length: u32| ScoreRequest {
        context: (65..65 + length).collect(),
        continuation: vec![66, 67],
    };
    let requests: Vec<ScoreRequest> = [3, 9, 21].map(request).into();
    let score = |device: &dyn Device| {
        let scorer = Scorer::new(&model, device, 32, 64);
        scorer.score(&requests, None, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let cpu = score(&Cpu::new(Threads::single()));
    let gpu = score(&device(1));
    assert_eq!(cpu.tokens, gpu.tokens);
    for (a, b) in cpu.scores.iter().zip(&gpu.scores) {
        assert!((a.log_likelihood - b.log_likelihood).abs() < 0.1, "{a:?} {b:?}");
    }
}

#[test]
fn logits_are_the_cpus() {
    let (config, model) = (small(), model(&small()));
    let source = samples(&config);
    let logits = |device: &dyn Device| {
        let mut predictor = device.predictor(&config, 2, false).unwrap();
        predictor.logits(&mut &model, &source, &[4, 9]).unwrap().to_vec()
    };
    let cpu = logits(&Cpu::new(Threads::single()));
    assert_eq!(cpu.len(), 2 * config.seq_len * config.vocab);
    for world in [1, 2] {
        let relative = distance(&logits(&device(world)), &cpu);
        assert!(relative < 2e-2, "{relative}");
    }
}
