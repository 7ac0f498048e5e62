//! Data sets and text in an S3-compatible store, which fails now and then, and lies once.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::samples::MemorySamples;
use crate::shelf::{serve, Shelf};
use crate::token_data::write_parquet;
use parquet::basic::Compression;
use trainer::data::{
    build_tokens, BatchSource, BuildOptions, BuildSettings, RemoteDataset, SourceSettings, Split,
    Store, StoreOptions, StreamedBatches,
};
use trainer::{
    pretrain, Checkpoints, Cpu, DataError, Dataset, Evaluator, Model, ModelConfig, Precision,
    PretrainEnd, PretrainError, PretrainSettings, Pretrainer, SampleSource, Schedule, Shape,
    Threads, Tokenizer, TrainError, Trainer, TrainerSettings,
};

fn options(endpoint: &str) -> StoreOptions {
    StoreOptions {
        endpoint: Some(endpoint.to_owned()),
        region: Some("here".to_owned()),
        credentials: Some(("key".to_owned(), "secret".to_owned())),
    }
}

/// A data set of some pieces, built from JSONL.
fn data_set(folder: &Path, input: &str) -> Result<Dataset, DataError> {
    let settings = BuildSettings {
        sample_len: 100,
        shard_bytes: 3 << 20,
        held_out: 0.02,
        sources: vec![SourceSettings {
            name: "a".to_owned(),
            paths: vec![input.to_owned()],
            ..SourceSettings::default()
        }],
        ..BuildSettings::default()
    };
    let tokenizer = Arc::new(Tokenizer::bytes());
    let options = BuildOptions::default();
    build_tokens(&settings, &tokenizer, folder, options, &mut |_| ControlFlow::Continue(()))
}

fn jsonl() -> String {
    let line = |number: u32| {
        let text = format!("document {number} ").repeat(20 + number as usize % 50);
        format!("{{\"text\": \"{text}\"}}\n")
    };
    (0..8_000).map(line).collect()
}

/// A store that has the files of a folder.
fn shelf_of(folder: &Path, at: &str) -> Arc<Shelf> {
    let shelf = Arc::new(Shelf::default());
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{at}/{}", entry.file_name().to_str().unwrap());
        if let Ok(content) = fs::read(entry.path()) {
            shelf.objects.lock().unwrap().insert(name, content);
        }
    }
    shelf
}

#[test]
fn samples_are_fetched_checked_and_cached_within_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.jsonl");
    fs::write(&input, jsonl()).unwrap();
    let built = folder.path().join("built");
    let local = data_set(&built, &input.display().to_string()).unwrap();
    assert!(local.manifest().train.shards.len() >= 2);
    let shelf = shelf_of(&built, "bucket/some/where");
    let endpoint = serve(&shelf);
    let store = || Store::open("s3://bucket/some/where", &options(&endpoint)).unwrap();
    let cache = folder.path().join("cache");
    shelf.failures.store(1, Ordering::SeqCst);
    let remote = RemoteDataset::open(store(), &cache, 3 << 20).unwrap();
    assert_eq!(remote.root(), local.root());

    let count = local.train().sample_count();
    let ids: Vec<u64> = (0..200).map(|index| index * 7_919 % count).collect();
    // One server error and one wrong byte: both are asked for again.
    shelf.failures.store(1, Ordering::SeqCst);
    shelf.lies.store(1, Ordering::SeqCst);
    let fetched = remote.fetch(Split::Train, &ids).unwrap();
    assert_eq!(fetched.sample_count(), count);
    assert_eq!(fetched.end_of_document(), Some(0));
    for &id in &ids {
        assert_eq!(fetched.sample(id), local.train().sample(id), "sample {id}");
    }
    let absent = (0..count).find(|id| !ids.contains(id)).unwrap();
    assert!(fetched.sample(absent).is_none());
    assert!(remote.cached_bytes() <= 3 << 20);
    assert!(remote.fetch(Split::Train, &[count]).is_err());
    let held_out = remote.fetch(Split::HeldOut, &[0]).unwrap();
    assert_eq!(held_out.sample(0), local.held_out().sample(0));

    // What is cached is not asked for again, and a damaged file of the cache is.
    let asked = || shelf.requests.load(Ordering::SeqCst);
    let before = asked();
    remote.fetch(Split::HeldOut, &[0]).unwrap();
    assert_eq!(asked(), before);
    let root = cache.join(&local.manifest().root);
    let piece = root.join("held-out-0000.bin.000000");
    let mut bytes = fs::read(&piece).unwrap();
    bytes[3] ^= 1;
    fs::write(&piece, bytes).unwrap();
    let again = remote.fetch(Split::HeldOut, &[0]).unwrap();
    assert_eq!(again.sample(0), local.held_out().sample(0));
    assert_eq!(asked(), before + 1);

    // A copy is a data set; damage in the store is named.
    remote.verify(&mut |_| {}).unwrap();
    let copy = remote.download(&folder.path().join("copy"), &mut |_| {}).unwrap();
    copy.verify().unwrap();
    assert_eq!(copy.manifest(), local.manifest());
    let name = "bucket/some/where/train-0001.bin";
    shelf.objects.lock().unwrap().get_mut(name).unwrap()[1_048_600] ^= 1;
    let error = remote.verify(&mut |_| {}).unwrap_err();
    assert!(
        matches!(&error, DataError::Corrupt { path, offset: 0x10_0000 } if path.ends_with("train-0001.bin")),
        "{error}"
    );
    let missing = Store::open("s3://bucket/nowhere", &options(&endpoint)).unwrap();
    let error = RemoteDataset::open(missing, &cache, 0).unwrap_err();
    assert!(error.to_string().contains("s3://bucket/nowhere/manifest.json"), "{error}");
}

#[test]
fn streamed_batches_are_those_of_the_folder_whatever_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.jsonl");
    fs::write(&input, jsonl()).unwrap();
    let built = folder.path().join("built");
    data_set(&built, &input.display().to_string()).unwrap();
    // Samples of another length than the data set was built for, from a web server.
    let local = Dataset::open_with_sample_len(&built, 333).unwrap();
    let shelf = shelf_of(&built, "public/set");
    let store = Store::open(&format!("{}/public/set/", serve(&shelf)), &options("")).unwrap();
    let cache = folder.path().join("cache");
    let remote = RemoteDataset::open(store, &cache, 1 << 30).unwrap();
    let remote = remote.with_sample_len(333).unwrap();
    let count = local.train().sample_count();
    assert_eq!(remote.sample_count(Split::Train), count);
    let held_out = remote.sample_count(Split::HeldOut);
    assert_eq!(held_out, local.held_out().sample_count());
    assert_eq!(remote.root(), local.root());

    let mut batches = StreamedBatches::new(remote).unwrap();
    let id = |position: u64| (position * 7_919 + 5) % count;
    let end = 60;
    let mut check = |first: u64| {
        let ids: Vec<u64> = (first..first + 6).map(id).collect();
        let mut upcoming = |n| (first + n < end).then(|| id(first + n));
        let samples = batches.batch(&ids, &mut upcoming)?;
        for id in ids {
            assert_eq!(samples.sample_len(), 333);
            assert_eq!(samples.sample(id), local.train().sample(id), "sample {id}");
        }
        Ok::<(), DataError>(())
    };
    // Three batches, back to the second, and on to the last.
    for first in [0, 6, 12, 6, 12, 18, 24, 30, 36, 42, 48, 54] {
        check(first).unwrap();
    }
    // All is cached, and then one file is gone: an error, and what comes back is used again.
    let gone = shelf.objects.lock().unwrap().remove("public/set/train-0000.bin");
    fs::remove_dir_all(&cache).unwrap();
    fs::create_dir_all(cache.join(&local.manifest().root)).unwrap();
    let error = (0..end - 6).step_by(6).find_map(|first| check(first).err());
    assert!(error.unwrap().to_string().contains("train-0000.bin"));
    let mut objects = shelf.objects.lock().unwrap();
    objects.insert("public/set/train-0000.bin".to_owned(), gone.unwrap());
    drop(objects);
    check(0).unwrap();
}

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
    let store = Store::open(&format!("{}/public/set", serve(&shelf)), &options("")).unwrap();
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

#[test]
fn text_in_a_store_gives_the_data_set_of_the_same_files_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts");
    fs::create_dir_all(texts.join("b")).unwrap();
    fs::write(texts.join("a.jsonl"), jsonl()).unwrap();
    let packed = zstd::encode_all(jsonl().replace("document", "page").as_bytes(), 1).unwrap();
    fs::write(texts.join("b/c.jsonl.zst"), packed).unwrap();
    let rows: Vec<String> =
        (0..900).map(|row| format!("row {row} of the table").repeat(9)).collect();
    write_parquet(&texts.join("d.parquet"), &rows, Compression::SNAPPY, true);
    let disk = data_set(&folder.path().join("disk"), &texts.display().to_string()).unwrap();
    let url = format!("file://{}", texts.display());
    let store = data_set(&folder.path().join("store"), &url).unwrap();
    assert_eq!(disk.manifest(), store.manifest());
    let one = data_set(&folder.path().join("one"), &format!("{url}/none"));
    assert!(one.is_err());

    // A web server lists nothing, but a file can be named.
    let file = texts.join("a.jsonl");
    let alone = data_set(&folder.path().join("alone"), &file.display().to_string()).unwrap();
    let endpoint = serve(&shelf_of(&texts, "public/some texts"));
    let url = format!("{endpoint}/public/some%20texts");
    let web = data_set(&folder.path().join("web"), &format!("{url}/a.jsonl")).unwrap();
    assert_eq!(alone.manifest(), web.manifest());
    assert!(data_set(&folder.path().join("two"), &url).is_err());
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
        schedule: Schedule { peak_rate: 3e-3, floor: 0.1, warm_up_steps: 2, shape: Shape::Cosine },
        adamw: trainer::AdamWSettings::default(),
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
