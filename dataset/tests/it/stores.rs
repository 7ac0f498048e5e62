//! Data sets and text in an S3-compatible store, which fails now and then, and lies once.

use std::fs;
use std::sync::atomic::Ordering;

use dataset::{
    BatchSource, DataError, Dataset, RemoteDataset, RemoteStore, SampleSource, Split,
    StreamedBatches,
};
use parquet::basic::Compression;

use crate::shelf::serve;
use crate::shelved::{data_set, jsonl, options, shelf_of};
use crate::token_data::write_parquet;

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
    let store = || RemoteStore::open("s3://bucket/some/where", &options(&endpoint)).unwrap();
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
    let missing = RemoteStore::open("s3://bucket/nowhere", &options(&endpoint)).unwrap();
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
    let store = RemoteStore::open(&format!("{}/public/set/", serve(&shelf)), &options("")).unwrap();
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

#[test]
fn a_server_that_answers_ranges_with_whole_files_serves_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.jsonl");
    fs::write(&input, jsonl()).unwrap();
    let built = folder.path().join("built");
    let local = data_set(&built, &input.display().to_string()).unwrap();
    let shelf = shelf_of(&built, "public/set");
    shelf.gives_whole.store(true, Ordering::SeqCst);
    // A text of several blocks.
    let long = jsonl().repeat(9_000_000 / jsonl().len() + 1);
    fs::write(&input, &long).unwrap();
    shelf.objects.lock().unwrap().insert("public/a.jsonl".to_owned(), long.into_bytes());
    let endpoint = serve(&shelf);

    let store = RemoteStore::open(&format!("{endpoint}/public/set"), &options("")).unwrap();
    let remote = RemoteDataset::open(store, &folder.path().join("cache"), 1 << 30).unwrap();
    let last = local.train().sample_count() - 1;
    let fetched = remote.fetch(Split::Train, &[last, 0]).unwrap();
    assert_eq!(fetched.sample(last), local.train().sample(last));
    assert_eq!(fetched.sample(0), local.train().sample(0));
    let requests = shelf.requests.load(Ordering::SeqCst);
    let copy = remote.download(&folder.path().join("copy"), &mut |_| {}).unwrap();
    copy.verify().unwrap();
    // Each file once, whatever the number of its pieces.
    let manifest = local.manifest();
    let files = manifest.train.shards.len() + manifest.held_out.shards.len();
    assert_eq!(shelf.requests.load(Ordering::SeqCst), requests + files);

    let requests = shelf.requests.load(Ordering::SeqCst);
    let web = data_set(&folder.path().join("web"), &format!("{endpoint}/public/a.jsonl")).unwrap();
    let disk = data_set(&folder.path().join("disk"), &input.display().to_string()).unwrap();
    assert_eq!(web.manifest(), disk.manifest());
    // It is asked for its length, for a range, and once for the whole.
    assert!(shelf.requests.load(Ordering::SeqCst) <= requests + 6);
}
