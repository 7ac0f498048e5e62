//! Data sets and text in an S3-compatible store: a small server on loopback speaks the requests
//! that are needed, fails now and then, and lies once.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::token_data::write_parquet;
use parquet::basic::Compression;
use trainer::data::{
    build_tokens, BuildOptions, BuildSettings, RemoteDataset, SourceSettings, Split, Store,
    StoreOptions,
};
use trainer::{DataError, Dataset, SampleSource, Tokenizer};

/// Objects by bucket and name, and what is to go wrong.
#[derive(Default)]
struct Shelf {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    requests: AtomicUsize,
    /// Requests that are answered with 503.
    failures: AtomicUsize,
    /// Answers of which the first byte is flipped.
    lies: AtomicUsize,
}

/// Takes one from a counter that is not zero.
fn take(counter: &AtomicUsize) -> bool {
    let taken = counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    taken.is_ok()
}

/// Serves until the process ends.
fn serve(shelf: &Arc<Shelf>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shelf = Arc::clone(shelf);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let shelf = Arc::clone(&shelf);
            std::thread::spawn(move || while answer(stream.as_ref().unwrap(), &shelf).is_some() {});
        }
    });
    format!("http://{address}")
}

/// Answers one request of a connection; `None` at its end.
fn answer(mut stream: &TcpStream, shelf: &Shelf) -> Option<()> {
    let mut input = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    shelf.requests.fetch_add(1, Ordering::SeqCst);
    let mut request = lines.first()?.split(' ');
    let (method, target) = (request.next()?, request.next()?);
    let is_signed = lines
        .iter()
        .any(|l| l.to_lowercase().starts_with("authorization: aws4-hmac"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let objects = shelf.objects.lock().unwrap();
    let name = path.trim_start_matches('/').replace("%3D", "=");
    let mut status = "200 OK";
    let mut headers = String::new();
    let body = if take(&shelf.failures) || !is_signed {
        status = "503 Slow Down";
        Vec::new()
    } else if query.contains("list-type=2") {
        let prefix = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("prefix="));
        let prefix = prefix.unwrap_or("").replace("%2F", "/");
        list(&objects, &name, &prefix).into_bytes()
    } else if let Some(object) = objects.get(&name) {
        let range = lines.iter().find_map(|line| {
            let (header, value) = line.split_once(": ")?;
            let range = value.strip_prefix("bytes=")?.split_once('-')?;
            header.eq_ignore_ascii_case("range").then(|| {
                let end: usize = range.1.parse().unwrap();
                range.0.parse::<usize>().unwrap()..object.len().min(end + 1)
            })
        });
        let mut body = object.clone();
        if let Some(range) = range {
            status = "206 Partial Content";
            let (start, last) = (range.start, range.end - 1);
            headers += &format!("Content-Range: bytes {start}-{last}/{}\r\n", object.len());
            body = object[range].to_vec();
        }
        if method == "GET" && body.len() > 1 && take(&shelf.lies) {
            body[0] ^= 1;
        }
        body
    } else {
        status = "404 Not Found";
        Vec::new()
    };
    drop(objects);
    headers += &format!("Content-Length: {}\r\nETag: \"x\"\r\n", body.len());
    headers += "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n";
    let body = if method == "HEAD" { &[][..] } else { &body[..] };
    write!(stream, "HTTP/1.1 {status}\r\n{headers}\r\n").ok()?;
    stream.write_all(body).ok()
}

fn list(objects: &BTreeMap<String, Vec<u8>>, bucket: &str, prefix: &str) -> String {
    let contents = objects.iter().filter_map(|(name, object)| {
        let key = name.strip_prefix(bucket)?.strip_prefix('/')?;
        let size = object.len();
        key.starts_with(prefix).then(|| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified>\
                 <ETag>x</ETag><Size>{size}</Size></Contents>"
            )
        })
    });
    let contents: String = contents.collect();
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
}

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
