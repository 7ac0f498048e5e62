//! `gauntlet data` as a person runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::localnet::gauntlet;

/// The S3-compatible store of the trainer's tests.
#[path = "../../../dataset/tests/it/shelf.rs"]
pub(crate) mod shelf;

fn data(args: &[&str]) -> Command {
    let mut command = Command::new(gauntlet());
    command.arg("data").args(args);
    command
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

/// A JSONL file of so many documents.
fn write_jsonl(file: &str, count: usize) {
    let line = |number: usize| {
        let text = format!("document {number} ").repeat(1 + number % 60);
        format!("{{\"text\": \"{text}\"}}\n")
    };
    fs::write(file, (0..count).map(line).collect::<String>()).unwrap();
}

#[test]
fn a_data_set_is_built_verified_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (path(folder.path(), "a.jsonl"), path(folder.path(), "out"));
    write_jsonl(&input, 4_000);
    let args = ["build", "--input", &input, "--tokenizer=bytes", "--sample-len=64", "--out", &out];
    let built = data(&args).output().unwrap();
    assert!(built.status.success(), "{}", text(&built));
    let shown = data(&["show", &out, "--json"]).output().unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let root = manifest["root"].as_str().unwrap().to_owned();
    assert!(text(&built).contains(&root));
    assert_eq!(manifest["tokens"]["sources"][0]["name"], "a.jsonl");
    let sample = data(&["show", &out, "--sample=0", "--tokenizer=bytes"]).output().unwrap();
    assert!(text(&sample).contains("document 0"), "{}", text(&sample));
    let verified = data(&["verify", &out]).output().unwrap();
    assert!(verified.status.success() && text(&verified).contains(&root));
    let again = data(&args).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again).contains("a finished data set"), "{}", text(&again));

    let file = path(folder.path(), "out/train-0000.bin");
    let mut bytes = fs::read(&file).unwrap();
    bytes[1_100_000] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let verified = data(&["verify", &out]).output().unwrap();
    assert_eq!(verified.status.code(), Some(1));
    let message = text(&verified);
    assert!(
        message.contains("train-0000.bin is damaged in the 1048576 bytes from 1048576"),
        "{message}"
    );
}

#[test]
fn a_killed_build_goes_on_to_the_same_root() {
    let folder = tempfile::tempdir().unwrap();
    let input = path(folder.path(), "a.jsonl");
    write_jsonl(&input, 30_000);
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../dataset/tests/fixtures/tokenizers/bytes.json");
    let build = |out: &str| {
        let mut command =
            data(&["build", "--input", &input, "--sample-len=256", "--shard-mib=1", "--threads=1"]);
        command.arg("--tokenizer").arg(&tokenizer).args(["--out", out]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let manifest = |out: &str| fs::read(Path::new(out).join("manifest.json"));
    let whole = path(folder.path(), "whole");
    assert!(build(&whole).status().unwrap().success());
    let killed = path(folder.path(), "killed");
    let mut child = build(&killed).spawn().unwrap();
    // Kill -9 as soon as a file is full.
    while !Path::new(&killed).join("train-0000.bin").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the build ended without a file");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(manifest(&killed).is_err(), "the build was over before it was killed");
    assert!(build(&killed).status().unwrap().success());
    assert_eq!(manifest(&killed).unwrap(), manifest(&whole).unwrap());
    for name in ["train-0000.bin", "train-0001.bin", "held-out-0000.bin"] {
        let files = [&killed, &whole].map(|out| fs::read(Path::new(out).join(name)).unwrap());
        assert!(files[0] == files[1], "{name}");
    }
    assert!(!Path::new(&killed).join("journal.jsonl").exists());
}

#[test]
fn a_store_holds_text_and_data_sets() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = std::sync::Arc::new(shelf::Shelf::default());
    let endpoint = shelf::serve(&shelf);
    let in_store = |args: &[&str]| {
        let mut command = data(args);
        command.envs([
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "here"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ]);
        let output = command.output().unwrap();
        (output.status.code(), text(&output))
    };
    let put = |name: &str, content: Vec<u8>| {
        shelf.objects.lock().unwrap().insert(format!("bucket/{name}"), content);
    };
    // The same text on disk and in the store gives the same data set.
    let texts = folder.path().join("texts");
    fs::create_dir_all(texts.join("b")).unwrap();
    for name in ["a.jsonl", "b/c.jsonl"] {
        let file = texts.join(name);
        write_jsonl(file.to_str().unwrap(), 1_500);
        put(&format!("texts/{name}"), fs::read(file).unwrap());
    }
    put("texts/readme.bin", vec![0; 9]);
    put("other/a.jsonl", b"{}".to_vec());
    let texts = texts.to_str().unwrap();
    let mut roots = Vec::new();
    for (name, input) in [("disk", texts), ("store", "s3://bucket/texts")] {
        let out = path(folder.path(), name);
        let args =
            ["build", "--input", input, "--tokenizer=bytes", "--sample-len=64", "--out", &out];
        let (code, text) = in_store(&args);
        assert_eq!(code, Some(0), "{text}");
        roots.push(text.lines().find(|line| line.starts_with("root")).unwrap().to_owned());
    }
    assert_eq!(roots[0], roots[1]);
    let built = folder.path().join("disk");
    for entry in fs::read_dir(&built).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        put(&format!("sets/one/{name}"), fs::read(entry.path()).unwrap());
    }
    let (code, text) = in_store(&["verify", "s3://bucket/sets/one"]);
    assert!(code == Some(0) && text.contains(&roots[0]), "{text}");
    let copy = path(folder.path(), "copy");
    let (code, text) = in_store(&["fetch", "s3://bucket/sets/one", &copy]);
    assert!(code == Some(0) && text.contains(&roots[0]), "{text}");
    let manifest = |folder: &Path| fs::read(folder.join("manifest.json")).unwrap();
    assert_eq!(manifest(Path::new(&copy)), manifest(&built));
    shelf.objects.lock().unwrap().get_mut("bucket/sets/one/train-0000.bin").unwrap()[77] ^= 1;
    let (code, text) = in_store(&["verify", "s3://bucket/sets/one"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("s3://bucket/sets/one/train-0000.bin is damaged"), "{text}");
}
