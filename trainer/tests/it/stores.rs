//! Training and evaluation from an S3-compatible store, which fails now and then.

use std::fs;
use std::ops::ControlFlow;

use dataset::{
    BatchSource, DataError, Dataset, RemoteDataset, RemoteStore, SampleSource, Split,
    StreamedBatches,
};
use trainer::{
    pretrain, Checkpoints, Cpu, Evaluator, Model, ModelConfig, Precision, PretrainEnd,
    PretrainError, PretrainSettings, Pretrainer, RateSchedule, Shape, Threads, TrainError, Trainer,
    TrainerSettings,
};

use crate::samples::MemorySamples;
use crate::shelf::serve;
use crate::shelved::{data_set, jsonl, options, shelf_of};

#[test]
fn a_window_trained_from_a_store_gives_the_update_of_its_copy() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.jsonl");
    fs::write(&input, jsonl()).unwrap();
    let built = folder.path().join("built");
    data_set(&built, &input.display().to_string()).unwrap();
    let config = ModelConfig::preset("nano").unwrap();
    let local = Dataset::open_with_sample_len(&built, config.seq_len).unwrap();
    let shelf = shelf_of(&built, "public/set");
    let store = RemoteStore::open(&format!("{}/public/set", serve(&shelf)), &options("")).unwrap();
    let remote = RemoteDataset::open(store, &folder.path().join("cache"), 1 << 30).unwrap();
    let remote = remote.with_sample_len(config.seq_len).unwrap();

    let settings = TrainerSettings { batch_size: 2, micro_batch: 2, ..TrainerSettings::default() };
    let count = local.train().sample_count();
    let steps: Vec<Vec<u64>> =
        (0..6u64).map(|step| vec![step * 31 % count, step * 17 % count]).collect();
    let train = |source: &mut dyn BatchSource| {
        let model = Model::init(&config, 1).unwrap();
        let mut trainer =
            Trainer::new(model, settings.clone(), &Cpu::new(Threads::single())).unwrap();
        let go_on = &mut |_: &_| ControlFlow::Continue(());
        trainer.train_window_from(source, &steps, &|_| 1e-3, go_on)?;
        trainer.make_update(64, 950_000)
    };
    let expected = train(&mut local.train()).unwrap();
    let mut streamed = StreamedBatches::new(remote.clone()).unwrap();
    assert_eq!(train(&mut streamed).unwrap(), expected);

    // What a validator asks of it.
    let ids = [3, 1];
    let fetched = remote.fetch(Split::Train, &ids).unwrap();
    let mut evaluator = Evaluator::new(&config, &Cpu::new(Threads::single()), 2).unwrap();
    let model = Model::init(&config, 1).unwrap();
    let there = evaluator.loss(&model, &fetched, &ids).unwrap();
    assert_eq!(there, evaluator.loss(&model, local.train(), &ids).unwrap());

    // A store without its files costs the window and says which.
    shelf.objects.lock().unwrap().remove("public/set/train-0000.bin");
    fs::remove_dir_all(folder.path().join("cache")).unwrap();
    fs::create_dir_all(folder.path().join("cache").join(&local.manifest().root)).unwrap();
    let mut streamed = StreamedBatches::new(remote).unwrap();
    let error = train(&mut streamed).unwrap_err();
    assert!(matches!(&error, TrainError::Data(_)), "{error}");
}

/// Samples of a store that fails at the n-th batch.
struct Failing<'a> {
    samples: &'a MemorySamples,
    left: usize,
    foreseen: Vec<u64>,
}

impl BatchSource for Failing<'_> {
    fn batch(
        &mut self,
        ids: &[u64],
        upcoming: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Result<&dyn SampleSource, DataError> {
        assert!(self.foreseen.is_empty() || self.foreseen == ids);
        let next = ids.len() as u64;
        self.foreseen = (next..2 * next).map_while(upcoming).collect();
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Err(DataError::Settings("the store is closed".to_owned())),
        }
        Ok(self.samples)
    }
}

#[test]
fn a_store_that_fails_costs_no_step() {
    let samples = MemorySamples::words(32, 40, 1);
    let config = ModelConfig {
        hidden: 32,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        ffn: 64,
        seq_len: 32,
        ..ModelConfig::preset("nano").unwrap()
    };
    let settings = PretrainSettings {
        steps: 12,
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
        guard: trainer::guard::GuardSettings::default(),
    };
    let trainer = || {
        let model = Model::init(&config, 3).unwrap();
        let count = samples.sample_count();
        let device = Cpu::new(Threads::single());
        Pretrainer::new(model, settings.clone(), count, &[9; 32], &device).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| Checkpoints::open(&folder.path().join(name)).unwrap();
    let train = |trainer: &mut Pretrainer, samples: &mut dyn BatchSource, at: &Checkpoints| {
        let mut go_on = |_: &mut Pretrainer, _| ControlFlow::Continue(());
        pretrain(trainer, samples, at, 5, &mut go_on)
    };
    let mut whole = trainer();
    train(&mut whole, &mut &samples, &at("whole")).unwrap();

    let mut store = Failing { samples: &samples, left: 8, foreseen: Vec::new() };
    let ended = train(&mut trainer(), &mut store, &at("part"));
    assert!(matches!(ended, Err(PretrainError::Data(_))), "{ended:?}");
    let mut part = trainer();
    assert!(part.resume(&at("part")).unwrap());
    assert_eq!(part.steps_taken(), 8, "not 5, where a checkpoint was due");
    (store.left, store.foreseen) = (4, Vec::new());
    let ended = train(&mut part, &mut store, &at("part"));
    assert_eq!(ended.unwrap(), PretrainEnd::Complete);
    let foreseen = &store.foreseen;
    assert!(foreseen.is_empty(), "{foreseen:?} after the last step");
    assert_eq!(part.model().unwrap().parameters(), whole.model().unwrap().parameters());
}
