//! A miner's and a validator's window on emulated GPUs: the update's bytes are the CPU encoder's for the same local
//! parameters, every replica has the same roots, and an update is measured without a second θ.

use std::io::Cursor;
use std::ops::ControlFlow;

use protocol::update::{ChunkError, EncodedChunks, UpdateError};
use protocol::{aggregate::OuterRule, settings::PPM, Hash};
use trainer::compress::{TensorPart, UpdateStream};
use trainer::cuda::device::CudaSettings;
use trainer::learner::TensorToEncode;
use trainer::{
    loss_from_q824, Cpu, Device, EvaluationRates, Evaluator, Model, MuonSettings, OwnPart, Threads,
    Trainer, TrainerSettings, UpdateToEvaluate,
};

use crate::emulators::{Emulators, Fault};
use crate::models::{config, learner_settings, model, samples};

const KEEP: u16 = 64;
const DECAY_PPM: u32 = 950_000;

fn trainer(device: &dyn Device, muon: Option<MuonSettings>) -> Trainer {
    let settings =
        TrainerSettings { batch_size: 4, micro_batch: 1, muon, ..TrainerSettings::default() };
    Trainer::new(model(&shape()), settings, device).unwrap()
}

/// Tensors of several chunks, and of less than one.
fn shape() -> trainer::ModelConfig {
    config((128, 2, 1), 40, false)
}

fn train(trainer: &mut Trainer, window: u64) {
    let ids = |step: u64| (0..4).map(|sample| (window * 20 + step * 4 + sample) * 7 % 64).collect();
    let steps: Vec<Vec<u64>> = (0..3).map(ids).collect();
    let mut go_on = |_: &_| ControlFlow::Continue(());
    trainer.train_window(&samples(&shape()), &steps, &|_| 3e-3, &mut go_on).unwrap();
}

/// What the CPU's encoder makes of the same parameters and the same error feedback, which it changes.
fn encoded_on_the_host(start: &Model, local: &Model, feedback: &mut [f32]) -> Vec<u8> {
    let sink = Cursor::new(Vec::new());
    let decay = (f64::from(DECAY_PPM) / 1e6) as f32;
    let mut stream =
        UpdateStream::new(&Threads::single(), sink, start.layout(), KEEP, decay).unwrap();
    let arena = start.arena();
    for (index, feedback) in arena.views_mut(feedback).into_iter().enumerate() {
        let (start, local) = (start.tensor(index), local.tensor(index));
        stream.encode([TensorPart { feedback, start, local }]).unwrap();
    }
    stream.finish().unwrap().into_inner()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Three windows of a miner: the updates and the roots.
fn mine(device: &dyn Device, muon: Option<MuonSettings>) -> (Vec<Vec<u8>>, Vec<Hash>) {
    let (mut miner, mut updates, mut roots) = (trainer(device, muon), Vec::new(), Vec::new());
    let mut replica = model(&shape());
    for window in 0..3 {
        train(&mut miner, window);
        let local = miner.local_model().unwrap();
        let mut feedback = miner.feedback().to_vec();
        let expected = encoded_on_the_host(miner.model(), &local, &mut feedback);
        let update = miner.make_update(KEEP, DECAY_PPM).unwrap();
        assert!(update == expected, "window {window}: the bytes differ");
        assert_eq!(bits(miner.feedback()), bits(&feedback), "window {window}: the feedback");
        let rule = OuterRule::new(700_000, PPM);
        let root = miner.apply_outer(&[(4, &update)], KEEP, rule).unwrap();
        // Another replica, on a CPU.
        replica.apply_outer(&Threads::single(), &[(4, &update)], KEEP, rule).unwrap();
        assert_eq!(root, replica.state_root(&Threads::single()));
        updates.push(update);
        roots.push(root);
    }
    (updates, roots)
}

#[test]
fn a_miners_windows_have_the_same_bytes_on_any_number_of_gpus() {
    for muon in [None, Some(MuonSettings::default())] {
        let emulators = Emulators::new(1);
        let alone = mine(&emulators.device(CudaSettings::default()), muon);
        assert!(emulators.launched("encode_chunks") > 0, "the host encoded");
        for world in [2, 4, 8] {
            let several = mine(&Emulators::new(world).device(CudaSettings::default()), muon);
            assert!(several == alone, "{world} GPUs");
        }
    }
}

/// Updates of several miners, of any trainings.
fn several_updates() -> Vec<Vec<u8>> {
    let update = |window| {
        let mut miner = trainer(&Cpu::new(Threads::single()), None);
        train(&mut miner, window);
        miner.make_update(KEEP, DECAY_PPM).unwrap()
    };
    (0..3).map(update).collect()
}

#[test]
fn outer_steps_are_taken_on_the_cards_and_every_replica_has_the_same_root() {
    let updates = several_updates();
    let accepted: Vec<(u16, &[u8])> =
        (0u16..).zip(updates.iter().map(|bytes| &bytes[..])).collect();
    for rule in [OuterRule::new(700_000, PPM), OuterRule::new(900_000, 300_000)] {
        let step = |device: &dyn Device| {
            let mut theta = model(&shape());
            device.apply_outer(&mut theta, &accepted, KEEP, rule).unwrap();
            device.apply_outer(&mut theta, &accepted[1..], KEEP, rule).unwrap();
            theta.state_root(&Threads::single())
        };
        let expected = step(&Cpu::new(Threads::single()));
        for world in [1, 2, 4] {
            let emulators = Emulators::new(world);
            assert_eq!(step(&emulators.device(CudaSettings::default())), expected, "{world} cards");
            assert!(emulators.launched("outer_step") > 0, "the host took it");
            assert_eq!(emulators.damaged(), 0);
        }
        // Without room, and where a card falls off the bus in the middle, the host takes it, or the rest of it.
        let small = Emulators::new(1).with_memory(1 << 20);
        assert_eq!(step(&small.device(CudaSettings::default())), expected);
        assert_eq!(small.launched("outer_step"), 0);
        for after in [3, 8, 13, 40] {
            let failing = Emulators::new(2).failing(Fault { rank: 1, after });
            let root = step(&failing.device(CudaSettings::default()));
            assert_eq!(root, expected, "lost after {after} operations");
        }
    }
}

#[test]
fn updates_of_another_layout_change_nothing() {
    let device = Emulators::new(1).device(CudaSettings::default());
    let (mut theta, rule) = (model(&shape()), OuterRule::new(700_000, PPM));
    let before = theta.state_root(&Threads::single());
    assert!(device.apply_outer(&mut theta, &[(1, &[1, 2, 3])], KEEP, rule).is_err());
    assert_eq!(theta.state_root(&Threads::single()), before);
}

/// A window that is trained before its θ is known, and corrected after a step: the update, and the local parameters.
fn mine_ahead(device: &dyn Device) -> (Vec<u8>, Model) {
    let mut miner = trainer(device, Some(MuonSettings::default()));
    let (before, rule) = (miner.shared_model(), OuterRule::new(700_000, PPM));
    let mut made = |window| {
        train(&mut miner, window);
        miner.make_update(KEEP, DECAY_PPM).unwrap()
    };
    let updates = [made(0), made(1)];
    let accepted: Vec<_> = (0..).zip(updates.iter().map(Vec::as_slice)).collect();
    let own = OwnPart { payload: &updates[0], keep: KEEP, rate: rule.rate / 2.0 };
    let mut after = Model::clone(&before);
    after.apply_outer(&Threads::single(), &accepted, KEEP, rule).unwrap();

    let samples = samples(&shape());
    let source = &mut &samples as &mut dyn dataset::BatchSource;
    let steps = [[1, 2, 3, 4].to_vec(), [5, 6, 7, 8].to_vec()];
    let mut stop = |_: &_| ControlFlow::Break(());
    miner.begin_ahead(&before, own).unwrap();
    miner.train_ahead(source, &steps, &|_| 3e-3, &mut stop).unwrap();
    miner.arrive(after.into(), &accepted, rule, own).unwrap();
    miner.train_ahead(source, &steps, &|_| 3e-3, &mut stop).unwrap();
    assert_eq!(miner.end_ahead(2).unwrap().steps, 2);
    let local = miner.local_model().unwrap();
    (miner.make_update(KEEP, DECAY_PPM).unwrap(), local)
}

#[test]
fn a_window_that_is_corrected_on_its_way_is_the_cpus_and_that_of_any_number_of_gpus() {
    let run = |world| mine_ahead(&Emulators::new(world).device(CudaSettings::default()));
    let (update, local) = run(1);
    assert!(run(2).0 == update, "2 GPUs");
    let (_, expected) = mine_ahead(&Cpu::new(Threads::single()));
    let distance = |one: &Model, other: &Model| {
        let pairs = one.parameters().iter().zip(other.parameters());
        pairs.map(|(one, other)| f64::from((one - other).abs())).sum::<f64>()
    };
    // A card computes with bf16.
    let (apart, way) = (distance(&local, &expected), distance(&model(&shape()), &expected));
    assert!(apart < 0.25 * way, "{apart} of {way}");
}

#[test]
fn what_cannot_be_encoded_is_the_same_error_as_on_the_cpu() {
    // An infinite value in the third chunk of a tensor that has others before it; and a keep that nobody can have.
    let refused = |device: &dyn Device| {
        let made_for = learner_settings(1, false);
        let mut learner = device.learner(&shape(), &made_for).unwrap();
        let theta = model(&shape());
        let (tensor, place) = theta.arena().tensors.iter().enumerate().next_back().unwrap();
        let mut start = theta.parameters()[place.range.clone()].to_vec();
        learner.load(&mut &theta).unwrap();
        start[2 * 4096 + 70] = f32::INFINITY;
        let mut feedback = vec![0.0; start.len()];
        let mut encode = |keep| {
            let start = &start;
            let part = TensorToEncode { tensor, feedback: &mut feedback, start, keep, decay: 1.0 };
            learner.encode(part, &mut EncodedChunks::default())
        };
        [encode(KEEP), encode(0)]
    };
    assert_eq!(refused(&Cpu::new(Threads::single())), [Ok(false), Ok(false)]);
    let error = UpdateError::Chunk { index: 2, error: ChunkError::NotFinite };
    let expected = [Err(error.into()), Err(UpdateError::Keep(0).into())];
    for world in [1, 2, 4] {
        let device = Emulators::new(world).device(CudaSettings::default());
        assert_eq!(refused(&device), expected, "{world} GPUs");
    }
}

#[test]
fn a_validator_measures_many_updates_and_loads_the_model_once() {
    let rates =
        EvaluationRates { keep: KEEP, outer_rate_ppm: 1_000_000, evaluation_rate_ppm: 500_000 };
    let theta = model(&shape());
    let updates: Vec<Vec<u8>> = (0..4)
        .map(|window| {
            let mut miner = trainer(&Cpu::new(Threads::single()), None);
            train(&mut miner, window);
            miner.make_update(KEEP, DECAY_PPM).unwrap()
        })
        .collect();
    let source = samples(&shape());
    let measure = |device: &dyn Device, after_each: &mut dyn FnMut()| {
        let mut evaluator = Evaluator::new(&shape(), device, 2).unwrap();
        let mut theta = theta.clone();
        let random = [40, 41, 42];
        let mut measured = Vec::new();
        for (uid, payload) in (0..).zip(&updates) {
            let own = [uid as u64, uid as u64 + 8];
            let update = UpdateToEvaluate { uid, payload, own_ids: &own };
            // As a validator does it, and as who shares θ does.
            let one = match uid % 2 {
                0 => {
                    evaluator.evaluate_update_in_place(&mut theta, update, &random, &source, rates)
                }
                _ => evaluator.evaluate_update(&theta, update, &random, &source, rates),
            };
            let one = one.unwrap();
            measured.push([one.own_before, one.own_after, one.random_before, one.random_after]);
            after_each();
        }
        // θ is what it was.
        let again = evaluator.loss(&theta, &source, &random).unwrap();
        measured.push([trainer::loss_to_q824(again); 4]);
        measured
    };
    let cpu = measure(&Cpu::new(Threads::single()), &mut || ());
    let parameters = shape().parameter_count();
    let mut first = None;
    for world in [1, 2, 4] {
        let emulators = Emulators::new(world);
        let mut uploaded = Vec::new();
        let device = emulators.device(CudaSettings::default());
        let gpu = measure(&device, &mut || uploaded.push(emulators.uploaded()));
        // θ crosses once, in two bytes a parameter at least; then updates only.
        assert!(uploaded[0] >= 2 * parameters, "{uploaded:?}");
        for pair in uploaded.windows(2) {
            assert!(pair[1] - pair[0] < parameters / 2, "{uploaded:?}");
        }
        assert!(emulators.launched("apply_update") > 0 && emulators.launched("undo_update") > 0);
        assert_eq!(gpu[3][2], gpu[4][0], "θ after all is not θ before");
        for (gpu, cpu) in gpu.iter().flatten().zip(cpu.iter().flatten()) {
            let (gpu, cpu) = (loss_from_q824(*gpu), loss_from_q824(*cpu));
            assert!((gpu / cpu - 1.0).abs() < 1e-2, "{gpu} {cpu}");
        }
        for [own_before, own_after, ..] in &gpu[..4] {
            assert!(own_after < own_before, "{gpu:?}");
        }
        let first = first.get_or_insert_with(|| gpu.clone());
        assert_eq!(*first, gpu, "{world} GPUs");
    }
}
