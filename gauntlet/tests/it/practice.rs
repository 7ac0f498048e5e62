//! Cases from practice on the command line; docs/CASES.md has all of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::localnet::gauntlet;

fn input(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/fixtures").join(name)
}

fn run(args: &[&str]) -> String {
    let output = Command::new(gauntlet()).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The report and the answers of an evaluation.
fn evaluated(model: &Path, more: &[&str]) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let [json, samples] = ["report.json", "samples.jsonl"].map(|name| folder.path().join(name));
    let files = ["--json", text(&json), "--samples", text(&samples), "--threads=1"];
    run(&[&["eval", "--model", text(model)], more, &files].concat());
    let report = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    (report, std::fs::read_to_string(samples).unwrap())
}

#[test]
fn case_41_a_text_begins_once_whoever_says_how() {
    let folder = input("practice/41-prefix-twice");
    let (data, model) = (folder.join("t.txt"), folder.join("model"));
    let perplexity = ["--tasks=perplexity", "--data", text(&data)];
    let (report, _) = evaluated(&model, &perplexity);
    let figure = report["tasks"][0]["subjects"][0]["metrics"]["token_perplexity"]["value"].as_f64();
    assert!((figure.unwrap() / 3014.2523 - 1.0).abs() < 1e-4, "{report}");
    // The token named on the command line, too.
    let named = [&perplexity[..], &["--bos=<s>"]].concat();
    assert_eq!(evaluated(&model, &named).0["tasks"], report["tasks"]);
}

#[test]
fn case_54_a_file_of_questions_is_asked_as_its_folder_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("birds_test.csv");
    std::fs::write(&file, "Which wades?,Heron,Tern,Wren,Owl,A\n").unwrap();
    let model = input("practice/41-prefix-twice/model");
    let asked = |data: &Path| evaluated(&model, &["--tasks=mmlu", "--data", text(data)]).1;
    let samples = asked(&file);
    assert_eq!(samples, asked(folder.path()));
    assert!(samples.contains("\"subject\":\"birds\""), "{samples}");
}

/// Two readers of one fact look in the same places.
#[test]
fn a_model_and_its_import_score_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let gguf = input("gguf/sentencepiece.gguf");
    let (once, twice) = (folder.path().join("once"), folder.path().join("twice"));
    run(&["import", "--from", text(&gguf), "--out", text(&once)]);
    run(&["import", "--from", text(&once), "--out", text(&twice)]);
    let data = folder.path().join("data.txt");
    std::fs::write(&data, "The heron stood in the reeds.").unwrap();
    let figures = |model: &Path, more: &[&str]| {
        let task = ["--tasks=perplexity", "--data", text(&data)];
        let (report, _) = evaluated(model, &[&task[..], more].concat());
        (report["prefix_token"].clone(), report["tasks"].clone())
    };
    let first = figures(&gguf, &[]);
    assert_eq!(figures(&once, &[]), first);
    assert_eq!(figures(&twice, &[]), first);
}

/// Marks that Windows programs put before JSON cost no token.
#[test]
fn a_byte_order_mark_in_a_tokenizer_changes_no_score() {
    let folder = tempfile::tempdir().unwrap();
    let from = input("practice/41-prefix-twice");
    for entry in std::fs::read_dir(from.join("model")).unwrap() {
        let path = entry.unwrap().path();
        let mut content = std::fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "json") {
            content.splice(..0, *b"\xef\xbb\xbf");
        }
        std::fs::write(folder.path().join(path.file_name().unwrap()), content).unwrap();
    }
    let config = "\u{feff}{\"bos_token\": \"<s>\", \"model_max_length\": Infinity}";
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    let data = from.join("t.txt");
    let scored = |model: &Path| {
        evaluated(model, &["--tasks=perplexity", "--data", text(&data)]).0["tasks"].clone()
    };
    assert_eq!(scored(folder.path()), scored(&from.join("model")));
}
