//! Data sets and text in an S3-compatible store, which fails now and then, and lies once.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::shelf::{serve, Shelf};
use crate::token_data::write_parquet;
use parquet::basic::Compression;
use trainer::data::{
    build_tokens, BuildOptions, BuildSettings, RemoteDataset, SourceSettings, Split, Store,
    StoreOptions,
};
use trainer::{DataError, Dataset, SampleSource, Tokenizer};

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
    build_tokens(&settings, &tokenizer, folder, options, &mut |_| {
        ControlFlow::Continue(())
    })
}

fn jsonl() -> String {
    let line = |number: u32| {
        let text = format!("document {number} ").repeat(20 + number as usize % 50);
        format!("{{\"text\": \"{text}\"}}\n")
    };
    (0..8_000).map(line).collect()
}

#[test]
fn samples_are_fetched_checked_and_cached_within_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.jsonl");
    fs::write(&input, jsonl()).unwrap();
    let built = folder.path().join("built");
    let local = data_set(&built, &input.display().to_string()).unwrap();
    assert!(local.manifest().train.shards.len() >= 2);
    let shelf = Arc::new(Shelf::default());
    for entry in fs::read_dir(&built).unwrap() {
        let entry = entry.unwrap();
        let name = format!("bucket/some/where/{}", entry.file_name().to_str().unwrap());
        let content = fs::read(entry.path()).unwrap();
        shelf.objects.lock().unwrap().insert(name, content);
    }
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
    let copy = remote
        .download(&folder.path().join("copy"), &mut |_| {})
        .unwrap();
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
    assert!(
        error
            .to_string()
            .contains("s3://bucket/nowhere/manifest.json"),
        "{error}"
    );
}

#[test]
fn text_in_a_store_gives_the_data_set_of_the_same_files_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts");
    fs::create_dir_all(texts.join("b")).unwrap();
    fs::write(texts.join("a.jsonl"), jsonl()).unwrap();
    let packed = zstd::encode_all(jsonl().replace("document", "page").as_bytes(), 1).unwrap();
    fs::write(texts.join("b/c.jsonl.zst"), packed).unwrap();
    let rows: Vec<String> = (0..900)
        .map(|row| format!("row {row} of the table").repeat(9))
        .collect();
    write_parquet(&texts.join("d.parquet"), &rows, Compression::SNAPPY, true);
    let disk = data_set(&folder.path().join("disk"), &texts.display().to_string()).unwrap();
    let url = format!("file://{}", texts.display());
    let store = data_set(&folder.path().join("store"), &url).unwrap();
    assert_eq!(disk.manifest(), store.manifest());
    let one = data_set(&folder.path().join("one"), &format!("{url}/none"));
    assert!(one.is_err());
}
