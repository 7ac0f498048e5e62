//! Text as it lies about: padded, packed in other ways, with a byte that is wrong.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataset::{
    build_tokens, BuildEvent, BuildOptions, BuildSettings, DataError, Dataset, SampleSource,
    SourceSettings, Tokenizer,
};

/// A data set of bytes in samples of one token, and what was said of bad lines.
fn build(input: &Path, out: &Path) -> Result<(Dataset, Vec<String>), DataError> {
    let source = SourceSettings {
        name: "a".to_owned(),
        paths: vec![input.display().to_string()],
        ..SourceSettings::default()
    };
    let settings = BuildSettings {
        sample_len: 1,
        held_out: 0.0,
        sources: vec![source],
        ..BuildSettings::default()
    };
    let mut bad = Vec::new();
    let mut observe = |event: &BuildEvent| {
        if let BuildEvent::BadLine(line) = event {
            bad.push(line.clone());
        }
        ControlFlow::Continue(())
    };
    let options = BuildOptions { threads: 1, ..BuildOptions::default() };
    let tokenizer = Arc::new(Tokenizer::bytes());
    let built = build_tokens(&settings, &tokenizer, out, options, &mut observe)?;
    Ok((built, bad))
}

fn documents(dataset: &Dataset) -> u64 {
    let tokens = dataset.manifest().tokens.as_ref().unwrap();
    tokens.sources.iter().map(|source| source.document_count).sum()
}

/// Writes files into a folder and builds a data set of it.
fn build_of(files: &[(&str, &[u8])]) -> Result<(Dataset, Vec<String>), DataError> {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts");
    fs::create_dir(&texts).unwrap();
    for (name, content) in files {
        fs::write(texts.join(name), content).unwrap();
    }
    build(&texts, &folder.path().join("out"))
}

#[test]
fn zeros_behind_gzip_are_padding() {
    let folder = tempfile::tempdir().unwrap();
    let input = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/practice/07-zeros-after-gzip.jsonl.gz");
    let (dataset, bad) = build(&input, &folder.path().join("out")).unwrap();
    assert_eq!((documents(&dataset), bad.len()), (12, 0));
}

#[test]
fn one_bad_byte_costs_one_character_in_every_format() {
    let text = "a line of a text\n".repeat(6_118);
    let mut bytes = text.clone().into_bytes();
    bytes[49_020] = 0xff;
    let (dataset, bad) = build_of(&[("a.txt", &bytes)]).unwrap();
    // The character that stands for it has three bytes; and each document has its end.
    let tokens = dataset.train().sample_count() + 1;
    assert_eq!(tokens, text.len() as u64 + 2 + documents(&dataset));
    let said = "a.txt:2884: 1 byte that is not UTF-8, at byte 49020, read as U+FFFD";
    assert_eq!(bad, [said]);

    let lines =
        b"{\"text\": \"one\"}\n{\"text\": \"t\xffo\"}\n{\"b\": \"\xff\", \"text\": \"three\"}\n";
    let (dataset, bad) = build_of(&[("a.jsonl", lines)]).unwrap();
    assert_eq!(documents(&dataset), 3);
    assert_eq!(bad, ["a.jsonl:2: 1 byte that is not UTF-8, at byte 27, read as U+FFFD"]);
}

#[test]
fn a_byte_order_mark_and_blank_lines_change_nothing() {
    let line = |text: &str| format!("{{\"text\": \"{text}\"}}\r\n");
    let plain = format!("{}{}", line("one"), line("two"));
    let marked = format!("\u{feff}\r\n{}\r\n \r\n\u{feff}{}\r\n", line("one"), line("two"));
    let files = [("a.jsonl", &plain, &marked), ("a.txt", &"one".into(), &"\u{feff}one".into())];
    for (name, plain, marked) in files {
        let plain = build_of(&[(name, plain.as_bytes())]).unwrap().0;
        let marked = build_of(&[(name, marked.as_bytes())]).unwrap().0;
        assert_eq!(plain.manifest().root, marked.manifest().root, "{name}");
    }
}

#[test]
fn python_s_nan_in_another_field_costs_nothing() {
    let lines = b"{\"text\": \"a\", \"score\": NaN}\n{\"text\": \"\\ud800b\"}\n";
    let (dataset, bad) = build_of(&[("a.jsonl", lines)]).unwrap();
    assert_eq!(documents(&dataset), 2);
    assert_eq!(bad, ["a.jsonl:2: half of a surrogate pair read as U+FFFD"]);
}

#[test]
fn files_that_are_packed_otherwise_are_named_and_not_left_out() {
    let good: (&str, &[u8]) = ("a.txt", b"a text");
    for (name, content, expected) in [
        ("b.jsonl.xz", &b"\xfd7zXZ\0"[..], "b.jsonl.xz: xz is not read"),
        ("b.txt.br", b"x", "b.txt.br: Brotli is not read"),
        ("b.txt", b"BZh91AY&SY", "b.txt: bzip2 is not read"),
        ("b.md", b"\xff\xfea\0b\0", "b.md: the text is UTF-16"),
        ("b.jsonl.gz", b"{\"text\": \"a\"}", "b.jsonl.gz: it is named as gzip"),
    ] {
        let error = build_of(&[good, (name, content)]).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // What is no text is left out and said. A kind that would not be taken anyway is no reason to refuse the folder.
    let (dataset, bad) = build_of(&[good, ("film.ts", b"G\xff\0\0\xfe\x80")]).unwrap();
    assert_eq!((documents(&dataset), bad.len()), (1, 1));
    assert!(bad[0].starts_with("film.ts:1: no text in UTF-8"), "{bad:?}");
    build_of(&[good, ("photos.zip", b"PK\x03\x04")]).unwrap();
}

#[test]
fn the_kind_of_a_file_is_in_its_ending_however_that_is_written() {
    let line = b"{\"text\": \"a\"}\n";
    let (expected, _) = build_of(&[("a.jsonl", line), ("b.txt", b"b")]).unwrap();
    let (found, bad) =
        build_of(&[("a.JSONL", line), ("b.TXT", b"b"), ("c.unknown", b"c")]).unwrap();
    assert_eq!((documents(&found), bad), (documents(&expected), Vec::new()));
    let error = build_of(&[("a.txt", b"a"), ("b.txt.GZ", b"")]).map(drop).unwrap_err().to_string();
    assert!(error.contains("b.txt.GZ") && error.contains("cut off"), "{error}");
}
