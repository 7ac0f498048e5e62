//! `gauntlet data` as a person runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::localnet::gauntlet;

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
    let args = [
        "build",
        "--input",
        &input,
        "--tokenizer=bytes",
        "--sample-len=64",
        "--out",
        &out,
    ];
    let built = data(&args).output().unwrap();
    assert!(built.status.success(), "{}", text(&built));
    let shown = data(&["show", &out, "--json"]).output().unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let root = manifest["root"].as_str().unwrap().to_owned();
    assert!(text(&built).contains(&root));
    assert_eq!(manifest["tokens"]["sources"][0]["name"], "a.jsonl");
    let sample = data(&["show", &out, "--sample=0", "--tokenizer=bytes"])
        .output()
        .unwrap();
    assert!(text(&sample).contains("document 0"), "{}", text(&sample));
    let verified = data(&["verify", &out]).output().unwrap();
    assert!(verified.status.success() && text(&verified).contains(&root));
    let again = data(&args).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again).contains("a finished data set"),
        "{}",
        text(&again)
    );

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
        .join("../trainer/tests/fixtures/tokenizers/bytes.json");
    let build = |out: &str| {
        let mut command = data(&[
            "build",
            "--input",
            &input,
            "--sample-len=256",
            "--shard-mib=1",
            "--threads=1",
        ]);
        command
            .arg("--tokenizer")
            .arg(&tokenizer)
            .args(["--out", out]);
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
        assert!(
            child.try_wait().unwrap().is_none(),
            "the build ended without a file"
        );
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        manifest(&killed).is_err(),
        "the build was over before it was killed"
    );
    assert!(build(&killed).status().unwrap().success());
    assert_eq!(manifest(&killed).unwrap(), manifest(&whole).unwrap());
    for name in ["train-0000.bin", "train-0001.bin", "held-out-0000.bin"] {
        let files = [&killed, &whole].map(|out| fs::read(Path::new(out).join(name)).unwrap());
        assert!(files[0] == files[1], "{name}");
    }
    assert!(!Path::new(&killed).join("journal.jsonl").exists());
}
