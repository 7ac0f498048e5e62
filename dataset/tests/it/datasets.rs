//! Data sets: the same documents give the same root, held-out text is held out, damage is found.

use std::fs;

use dataset::{build, DataError, Dataset, Document, SampleSource};

/// Documents whose every line names the document it is in.
fn documents(count: usize, lines: usize) -> Vec<Document> {
    let line = |document: usize, line: usize| format!("doc{document:05} line {line}\n");
    (0..count)
        .map(|index| Document {
            name: format!("{index}.txt"),
            text: (0..lines).map(|number| line(index, number)).collect::<String>().into_bytes(),
        })
        .collect()
}

fn text(samples: &dyn SampleSource) -> Vec<u8> {
    let mut bytes = Vec::new();
    for id in 0..samples.sample_count() {
        let sample = samples.sample(id).unwrap();
        assert_eq!(sample.len(), samples.sample_len() + 1);
        let tokens = sample.iter().take(samples.sample_len());
        bytes.extend(tokens.map(|token| u8::try_from(token).unwrap()));
    }
    assert!(samples.sample(samples.sample_count()).is_none());
    assert!(samples.sample(u64::MAX).is_none());
    bytes
}

#[test]
fn same_documents_give_the_same_root() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let roots = folders.each_ref().map(|folder| {
        let dataset = build(documents(100, 40), 64, folder.path()).unwrap();
        dataset.verify().unwrap();
        let again = Dataset::open(folder.path()).unwrap();
        assert_eq!(again.root(), dataset.root());
        assert_eq!(again.manifest(), dataset.manifest());
        dataset.root()
    });
    assert_eq!(roots[0], roots[1]);
    let other = build(documents(101, 40), 64, folders[0].path()).unwrap();
    assert_ne!(other.root(), roots[0]);
}

/// Bytes, hashes and root of version 1 are for ever: runs on chain name data sets by them.
#[test]
fn the_root_of_a_small_text_is_the_one_it_always_was() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = build(documents(100, 40), 64, folder.path()).unwrap();
    let hex = |hash: blake3::Hash| hash.to_hex().to_string();
    let file = |name: &str| hex(blake3::hash(&fs::read(folder.path().join(name)).unwrap()));
    let found = [
        hex(dataset.root().into()),
        file("train-0000.bin"),
        file("held-out-0000.bin"),
        file("manifest.json"),
    ];
    assert_eq!(
        found,
        [
            "2a3c587aee7154692bce38386b44e86eed8041c3d1ea5bf7233b8711223c5eee",
            "0f7b4b130af916f1d569ad69e433b9aa1cd2ea5baa5c8c59fbb4678876e3d679",
            "4d009a2eddbe27fe5d10268941b0fe905f528c565824ad1af94722f606189746",
            "d38756198e9e850851b9c4f9e5136b4edb04335b421315e14a86923820b8aecd"
        ]
    );
}

#[test]
fn no_held_out_document_occurs_in_training() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = build(documents(200, 40), 64, folder.path()).unwrap();
    let train = String::from_utf8(text(dataset.train())).unwrap();
    let held_out = String::from_utf8(text(dataset.held_out())).unwrap();
    let share = held_out.len() as f64 / (train.len() + held_out.len()) as f64;
    assert!((0.015..0.05).contains(&share), "{share} is held out");
    for line in held_out.lines().filter(|line| line.starts_with("doc")) {
        let name = &line[..line.len().min(8)];
        assert!(name.len() < 8 || !train.contains(name), "{name} is in both");
    }
    let counts =
        (dataset.manifest().train.document_count, dataset.manifest().held_out.document_count);
    assert_eq!(counts.0 + counts.1, 200);
}

#[test]
fn one_file_is_cut_into_sections() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = build(documents(1, 20_000), 128, folder.path()).unwrap();
    assert!(dataset.held_out().sample_count() > 10);
    let held_out = String::from_utf8(text(dataset.held_out())).unwrap();
    let train = String::from_utf8(text(dataset.train())).unwrap();
    let lines: std::collections::HashSet<&str> = train.split(['\n', '\0']).collect();
    let whole = held_out.split(['\n', '\0']).filter(|line| line.starts_with("doc")).skip(1);
    let shared = whole.filter(|line| lines.contains(line)).count();
    // The last line is cut where the last sample ends, and may be the start of another.
    assert!(shared <= 1, "{shared} lines are in both");
}

#[test]
fn too_little_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(documents(1, 2), 128, folder.path());
    assert!(matches!(built, Err(DataError::TooSmall { .. })));
    assert!(matches!(build(documents(1, 2), 0, folder.path()), Err(DataError::SampleLen(0))));
    assert!(matches!(Dataset::open(folder.path()), Err(DataError::Io { .. })));
}

#[test]
fn damage_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let root = build(documents(100, 800), 64, folder.path()).unwrap().root();
    let shard = folder.path().join("train-0000.bin");
    let whole = fs::read(&shard).unwrap();

    let mut flipped = whole.clone();
    flipped[1_100_000] ^= 1;
    fs::write(&shard, &flipped).unwrap();
    let dataset = Dataset::open(folder.path()).unwrap();
    assert_eq!(dataset.root(), root);
    assert!(matches!(dataset.verify(), Err(DataError::Corrupt { offset: 0x10_0000, .. })));
    drop(dataset);

    fs::write(&shard, &whole[1..]).unwrap();
    assert!(matches!(Dataset::open(folder.path()), Err(DataError::FileLen { .. })));
    fs::write(&shard, &whole).unwrap();
    Dataset::open(folder.path()).unwrap().verify().unwrap();

    let path = folder.path().join("manifest.json");
    let manifest = fs::read_to_string(&path).unwrap();
    let check = |text: String, expected: fn(&DataError) -> bool| {
        fs::write(&path, text).unwrap();
        let error = Dataset::open(folder.path()).unwrap_err();
        assert!(expected(&error), "{error}");
    };
    check(manifest.replace("\"version\": 1", "\"version\": 2"), |error| {
        matches!(error, DataError::Version(2))
    });
    check(manifest.replace("\"sample_len\": 64", "\"sample_len\": 32"), |error| {
        matches!(error, DataError::Root(_))
    });
    check(manifest.replace("train-0000.bin", "../train-0000.bin"), |error| {
        matches!(error, DataError::Root(_))
    });
    check(manifest[..manifest.len() / 2].to_owned(), |error| {
        matches!(error, DataError::Manifest { .. })
    });
}
