//! Data sets of tokens: the same bytes whatever happens on the way, and nothing lost or invented.

use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataset::{build_tokens, BuildEvent, BuildOptions, BuildSettings, Format, SourceSettings};
use dataset::{DataError, Dataset, SampleSource, Tokenizer};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::tokenizers::fixture;

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_file(&fixture("bytes.json")).unwrap())
}

/// Documents of 20 to 400 bytes that all differ.
fn texts(count: usize, seed: u64) -> Vec<String> {
    let mut state = seed;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let words = ["The", " miner", " ", "commits", "\n", "naïve", " window 7", "🦀", "ing", ","];
    let text = |index: usize, random: &mut dyn FnMut(u64) -> u64| {
        let mut text = format!("document {seed}/{index}");
        for _ in 0..5 + random(60) {
            text += words[random(words.len() as u64) as usize];
        }
        text
    };
    (0..count).map(|index| text(index, &mut random)).collect()
}

fn source(name: &str, path: &Path) -> SourceSettings {
    SourceSettings {
        name: name.to_owned(),
        paths: vec![path.display().to_string()],
        ..SourceSettings::default()
    }
}

fn settings(sources: Vec<SourceSettings>) -> BuildSettings {
    BuildSettings {
        sample_len: 32,
        shard_bytes: 1 << 16,
        held_out: 0.05,
        sources,
        ..BuildSettings::default()
    }
}

fn build(settings: &BuildSettings, folder: &Path) -> Result<Dataset, DataError> {
    build_with(settings, folder, 2, &mut |_| ControlFlow::Continue(()))
}

fn build_with(
    settings: &BuildSettings,
    folder: &Path,
    threads: usize,
    observe: &mut dyn FnMut(&BuildEvent) -> ControlFlow<()>,
) -> Result<Dataset, DataError> {
    let options = BuildOptions { threads, ..BuildOptions::default() };
    build_tokens(settings, &tokenizer(), folder, options, observe)
}

fn write_jsonl(path: &Path, texts: &[String]) {
    let mut file = File::create(path).unwrap();
    for text in texts {
        let line = serde_json::json!({ "id": 7, "meta": { "text": "no" }, "text": text });
        writeln!(file, "{line}").unwrap();
    }
}

/// All files of a data set with their content.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// The tokens of all samples, and the last target.
fn stream(samples: &dyn SampleSource) -> Vec<u32> {
    let mut tokens: Vec<u32> = Vec::new();
    for id in 0..samples.sample_count() {
        let sample = samples.sample(id).unwrap();
        assert_eq!(sample.len(), samples.sample_len() + 1);
        if let Some(last) = tokens.pop() {
            assert_eq!(sample.get(0), Some(last), "sample {id} goes on where the last ended");
        }
        tokens.extend(sample.iter());
    }
    assert!(samples.sample(samples.sample_count()).is_none());
    tokens
}

/// The documents of a split, the last one perhaps cut.
fn documents(samples: &dyn SampleSource) -> Vec<String> {
    let end = samples.end_of_document().unwrap();
    let tokens = stream(samples);
    let documents = tokens.split(|token| *token == end);
    documents.map(|tokens| tokenizer().decode(tokens).unwrap()).collect()
}

#[test]
fn documents_come_back_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let texts = texts(2_000, 1);
    write_jsonl(&folder.path().join("a.jsonl"), &texts);
    let settings = settings(vec![source("a", folder.path())]);
    let dataset = build(&settings, &folder.path().join("out")).unwrap();
    dataset.verify().unwrap();
    assert!(dataset.manifest().train.shards.len() >= 3);
    let mut found = documents(dataset.train());
    let cut = found.pop().unwrap();
    let mut held_out = documents(dataset.held_out());
    let held_out_cut = held_out.pop().unwrap();
    // In order, each in one split, and nothing but what was written.
    let mut train = found.iter();
    let mut held = held_out.iter();
    let (mut next_train, mut next_held) = (train.next(), held.next());
    let mut rest = Vec::new();
    for text in &texts {
        if next_train == Some(text) {
            next_train = train.next();
        } else if next_held == Some(text) {
            next_held = held.next();
        } else {
            rest.push(text);
        }
    }
    assert_eq!((next_train, next_held), (None, None));
    // The end of each split is dropped where it is no whole sample.
    assert!(rest.len() <= 4, "{rest:?}");
    assert!(rest.iter().any(|text| text.starts_with(&cut)) || cut.is_empty());
    assert!(rest.iter().any(|text| text.starts_with(&held_out_cut)) || held_out_cut.is_empty());
    let share = held_out.len() as f64 / texts.len() as f64;
    assert!((0.03..0.07).contains(&share), "{share} is held out");
}

#[test]
fn threads_and_folder_order_do_not_change_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["a.jsonl", "b.txt", "c/d.jsonl", "c.jsonl"];
    let write = |to: &str, order: &[usize]| {
        let root = folder.path().join(to);
        fs::create_dir_all(root.join("c")).unwrap();
        for &index in order {
            let texts = texts(400, index as u64);
            match names[index] {
                "b.txt" => fs::write(root.join("b.txt"), texts.join("\n")).unwrap(),
                name => write_jsonl(&root.join(name), &texts),
            }
        }
        root
    };
    let one = write("one", &[0, 1, 2, 3]);
    let two = write("two", &[3, 1, 0, 2]);
    let mut all = Vec::new();
    for (index, (input, threads)) in [(&one, 1), (&one, 2), (&two, 4)].into_iter().enumerate() {
        let out = folder.path().join(format!("out{index}"));
        let settings = settings(vec![source("all", input)]);
        build_with(&settings, &out, threads, &mut |_| ControlFlow::Continue(())).unwrap();
        all.push(content(&out));
    }
    assert!(all[0].len() > 3);
    assert!(all[0] == all[1] && all[1] == all[2]);
}

/// Stops behind so many documents of this process.
fn stop_after(count: u64) -> impl FnMut(&BuildEvent) -> ControlFlow<()> {
    let mut left = count;
    move |event| {
        left -= u64::from(matches!(event, BuildEvent::Document(_)));
        match left {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

#[test]
fn a_stopped_build_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a.jsonl", "b.jsonl"].map(|name| folder.path().join(name));
    write_jsonl(&paths[0], &texts(1_500, 1));
    write_jsonl(&paths[1], &texts(600, 2));
    let weighted = |name, path: &PathBuf, weight, repeat| SourceSettings {
        weight: Some(weight),
        repeat,
        ..source(name, path)
    };
    let settings =
        settings(vec![weighted("a", &paths[0], 0.5, 1), weighted("b", &paths[1], 0.5, 3)]);
    let whole = folder.path().join("whole");
    build(&settings, &whole).unwrap();
    let cut = folder.path().join("cut");
    let mut stops = 0;
    for count in [1, 300, 1, 700, 450, 1_000_000] {
        match build_with(&settings, &cut, 2, &mut stop_after(count)) {
            Err(DataError::Stopped(_)) => stops += 1,
            built => {
                built.unwrap();
                break;
            }
        }
        // A kill leaves what was not marked: half a line, and tokens behind the mark.
        let mut journal = File::options().append(true).open(cut.join("journal.jsonl"));
        journal.as_mut().unwrap().write_all(b"{\"mark\":{\"tra").unwrap();
        for (name, _) in content(&cut).iter().filter(|(name, _)| name.ends_with(".part")) {
            let mut part = File::options().append(true).open(cut.join(name)).unwrap();
            part.write_all(&[7; 999]).unwrap();
        }
    }
    assert_eq!(stops, 5);
    assert!(content(&whole) == content(&cut));
    assert!(whole.join("train-0001.bin").exists());
    assert!(!cut.join("journal.jsonl").exists());
}

#[test]
fn what_a_build_would_destroy_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.jsonl");
    write_jsonl(&input, &texts(900, 1));
    let out = folder.path().join("out");
    let ours = settings(vec![source("a", &input)]);
    let stopped = build_with(&ours, &out, 2, &mut stop_after(600));
    assert!(matches!(stopped, Err(DataError::Stopped(_))));
    let other = BuildSettings { sample_len: 64, ..ours.clone() };
    let refused = build(&other, &out).unwrap_err();
    assert!(matches!(&refused, DataError::Journal { .. }), "{refused}");
    // A file that is not what the journal says is found before anything is added to it.
    let part = content(&out).iter().map(|(name, _)| out.join(name)).find(|path| {
        path.to_string_lossy().contains("train-") && path.extension().is_some_and(|e| e == "part")
    });
    let part = part.unwrap();
    let mut bytes = fs::read(&part).unwrap();
    bytes[5] ^= 1;
    fs::write(&part, &bytes).unwrap();
    let refused = build(&ours, &out).unwrap_err();
    assert!(matches!(&refused, DataError::Journal { path, .. } if *path == part), "{refused}");
    bytes[5] ^= 1;
    fs::write(&part, &bytes).unwrap();
    build(&ours, &out).unwrap();
    let again = build(&ours, &out).unwrap_err();
    assert!(matches!(again, DataError::Occupied { .. }));
    let options = BuildOptions { start_over: true, ..BuildOptions::default() };
    let mut go_on = |_: &BuildEvent| ControlFlow::Continue(());
    let dataset = build_tokens(&other, &tokenizer(), &out, options, &mut go_on).unwrap();
    assert_eq!(dataset.sample_len(), 64);
}

/// Writes a Parquet file of two columns in row groups of 100.
pub(crate) fn write_parquet(
    path: &Path,
    texts: &[String],
    compression: Compression,
    optional: bool,
) {
    let kind = if optional { "optional" } else { "required" };
    let schema =
        format!("message m {{ required binary other (UTF8); {kind} binary text (UTF8); }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for rows in texts.chunks(100) {
        let mut group = writer.next_row_group().unwrap();
        let values: Vec<ByteArray> = rows.iter().map(|text| text.as_str().into()).collect();
        let others: Vec<ByteArray> = rows.iter().map(|_| "other".into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        let writer_of = column.typed::<ByteArrayType>();
        writer_of.write_batch(&others, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let levels = vec![1i16; values.len()];
        let levels = optional.then_some(&levels[..]);
        let writer_of = column.typed::<ByteArrayType>();
        writer_of.write_batch(&values, levels, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// Bytes, hashes and root of version 2 are for ever, too.
#[test]
fn the_root_of_a_small_mixture_is_the_one_it_always_was() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.jsonl");
    write_jsonl(&input, &texts(300, 3));
    let out = folder.path().join("out");
    let dataset = build(&settings(vec![source("a", &input)]), &out).unwrap();
    let hex = |hash: blake3::Hash| hash.to_hex().to_string();
    let manifest = fs::read(out.join("manifest.json")).unwrap();
    let found = [hex(dataset.root().into()), hex(blake3::hash(&manifest))];
    assert_eq!(
        found,
        [
            "b48b9e00cb39998009a7d3ff008fc8e0663a66b5194418a385077a4d2173c92b",
            "b9b8dbbe65d70d97241688a8780ff5c93c08e522fd864e9771df08752ebe100b"
        ]
    );
}

#[test]
fn every_format_gives_the_same_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let texts: Vec<String> = texts(700, 5).iter().map(|text| text.replace('\n', " ")).collect();
    write_jsonl(&at("a.jsonl"), &texts);
    let jsonl = fs::read(at("a.jsonl")).unwrap();
    fs::write(at("b.jsonl.zst"), zstd::encode_all(&jsonl[..], 3).unwrap()).unwrap();
    // Two members, as `cat a.gz b.gz` makes them.
    let mut gzip = Vec::new();
    for half in [&jsonl[..5_000], &jsonl[5_000..]] {
        let mut encoder = flate2::write::GzEncoder::new(gzip, flate2::Compression::fast());
        encoder.write_all(half).unwrap();
        gzip = encoder.finish().unwrap();
    }
    fs::write(at("c.jsonl.gz"), gzip).unwrap();
    let zstandard = Compression::ZSTD(ZstdLevel::default());
    write_parquet(&at("d.parquet"), &texts, Compression::SNAPPY, true);
    write_parquet(&at("e.parquet"), &texts, zstandard, false);
    write_parquet(&at("f.parquet"), &texts, Compression::UNCOMPRESSED, true);
    fs::write(at("g.lines"), texts.join("\r\n")).unwrap();
    let mut roots = Vec::new();
    for name in
        ["a.jsonl", "b.jsonl.zst", "c.jsonl.gz", "d.parquet", "e.parquet", "f.parquet", "g.lines"]
    {
        let source = SourceSettings {
            format: name.ends_with(".lines").then_some(Format::Lines),
            ..source("same", &at(name))
        };
        let dataset = build(&settings(vec![source]), &at(&format!("out-{name}"))).unwrap();
        roots.push(dataset.root());
    }
    assert!(roots.iter().all(|root| *root == roots[0]));
    let missing =
        SourceSettings { field: "content".to_owned(), ..source("same", &at("d.parquet")) };
    let error = build(&settings(vec![missing]), &at("out")).unwrap_err();
    assert!(error.to_string().contains("there are other, text"), "{error}");
}

#[test]
fn mixture_holds_to_within_a_document() {
    let folder = tempfile::tempdir().unwrap();
    let mut sources = Vec::new();
    for (index, (weight, repeat)) in [(0.6, 2), (0.3, 1), (0.1, 1)].into_iter().enumerate() {
        let path = folder.path().join(format!("{index}.jsonl"));
        write_jsonl(&path, &texts(1_000, index as u64 + 10));
        sources.push(SourceSettings {
            weight: Some(weight),
            repeat,
            ..source(&index.to_string(), &path)
        });
    }
    let mut settings = settings(sources);
    let dataset = build(&settings, &folder.path().join("out")).unwrap();
    let check = |dataset: &Dataset| {
        let sources = &dataset.manifest().tokens.as_ref().unwrap().sources;
        let total: u64 = sources.iter().map(|source| source.token_count).sum();
        for source in sources {
            let share = total as f64 * source.weight_ppm as f64 / 1e6;
            let away = (source.token_count as f64 - share).abs();
            assert!(away <= 400.0, "{}: {away} tokens away", source.name);
        }
        total
    };
    let total = check(&dataset);
    // The first source ended the mixture, in its second round; its held-out documents came once.
    let first = &dataset.manifest().tokens.as_ref().unwrap().sources[0];
    assert!(first.document_count > 1_800);
    let mut held_out = documents(dataset.held_out());
    held_out.pop();
    let count = held_out.len();
    held_out.sort();
    held_out.dedup();
    assert_eq!(held_out.len(), count);
    settings.tokens_max = Some(total / 3);
    let third = build(&settings, &folder.path().join("third")).unwrap();
    assert!((total / 3..total / 3 + 400).contains(&check(&third)));
}

#[test]
fn bad_lines_are_named_counted_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.jsonl");
    let mut lines: Vec<String> =
        texts(600, 3).iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
    lines[99] = "{\"text\": \"cut".to_owned();
    lines[199] = "{\"other\": 1}".to_owned();
    lines[299] = format!("{{\"text\": \"{}\"}}", "long ".repeat(500));
    fs::write(&input, lines.join("\n")).unwrap();
    let mut settings = settings(vec![source("a", &input)]);
    settings.line_bytes_max = 2_000;
    let mut bad = Vec::new();
    let mut observe = |event: &BuildEvent| {
        if let BuildEvent::BadLine(line) = event {
            bad.push(line.clone());
        }
        ControlFlow::Continue(())
    };
    let dataset = build_with(&settings, &folder.path().join("out"), 2, &mut observe).unwrap();
    assert_eq!(bad.len(), 3, "{bad:?}");
    assert!(bad[0].starts_with("a.jsonl:100: EOF"), "{bad:?}");
    assert!(bad[1].starts_with("a.jsonl:200: no field"), "{bad:?}");
    assert!(bad[2].starts_with("a.jsonl:300: longer than"), "{bad:?}");
    let tokens = dataset.manifest().tokens.as_ref().unwrap();
    assert_eq!(tokens.sources[0].bad_line_count, 3);
    settings.bad_lines_max = 2;
    let error = build(&settings, &folder.path().join("out2")).unwrap_err();
    assert!(
        matches!(&error, DataError::BadLines { count: 3, max: 2, last } if last.starts_with("a.jsonl:300")),
        "{error}"
    );
}

#[test]
fn long_documents_are_split_and_a_single_text_is_cut_into_sections() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("book.txt");
    let line = |number| format!("line {number} of a long text without end\n");
    let book: String = (0..4_000).map(line).collect();
    fs::write(&input, &book).unwrap();
    let mut settings = settings(vec![source("book", &input)]);
    let dataset = build(&settings, &folder.path().join("sections")).unwrap();
    let sections = documents(dataset.train());
    assert!(sections.len() > 100);
    for section in &sections[..sections.len() - 1] {
        assert!(section.starts_with("line ") && section.ends_with("end\n"));
        assert!(book.contains(section.as_str()));
    }
    settings.sources[0].section_bytes = Some(usize::MAX);
    settings.document_bytes_max = 4_096;
    settings.held_out = 0.0;
    let dataset = build(&settings, &folder.path().join("split")).unwrap();
    let parts = documents(dataset.train());
    assert!(parts.iter().all(|part| part.len() <= 4_096));
    let (last, whole) = parts.split_last().unwrap();
    assert!(whole.iter().all(|part| part.len() > 4_000));
    assert!(book.starts_with(&whole.concat()) && !last.is_empty());
    assert_eq!(dataset.held_out().sample_count(), 0);
}

#[test]
fn tokens_take_the_bytes_that_the_vocabulary_needs() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.jsonl");
    write_jsonl(&input, &texts(300, 3));
    let settings = settings(vec![source("a", &input)]);
    let words = |count: usize| {
        let names = (0..count - 2).map(|id| (format!("w{id}"), id.into()));
        let mut vocab: serde_json::Map<String, serde_json::Value> = names.collect();
        vocab.insert("<unk>".to_owned(), (count - 2).into());
        vocab.insert("</s>".to_owned(), (count - 1).into());
        let json = serde_json::json!({
            "version": "1.0", "added_tokens": [], "pre_tokenizer": { "type": "Whitespace" },
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
        });
        Arc::new(Tokenizer::from_json(json.to_string().as_bytes()).unwrap())
    };
    let cases = [
        (Arc::new(Tokenizer::bytes()), 1, 0),
        (tokenizer(), 2, 0),
        (words(65_536), 2, 65_535),
        (words(65_537), 4, 65_536),
    ];
    for (index, (tokenizer, token_bytes, end)) in cases.into_iter().enumerate() {
        let out = folder.path().join(index.to_string());
        let mut go_on = |_: &BuildEvent| ControlFlow::Continue(());
        let options = BuildOptions::default();
        let dataset = build_tokens(&settings, &tokenizer, &out, options, &mut go_on).unwrap();
        dataset.verify().unwrap();
        assert_eq!(dataset.manifest().token_bytes(), token_bytes);
        assert_eq!(dataset.train().end_of_document(), Some(end));
        let tokens = stream(dataset.train());
        let ends = tokens.iter().filter(|token| **token == end).count();
        assert!(ends.abs_diff(dataset.manifest().train.document_count as usize) <= 2);
        let len = fs::metadata(out.join("train-0000.bin")).unwrap().len();
        assert_eq!(len, dataset.manifest().train.shards[0].token_count * token_bytes as u64);
    }
}

#[test]
fn a_flipped_bit_is_named_by_file_and_piece() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.jsonl");
    write_jsonl(&input, &texts(15_000, 3));
    let mut settings = settings(vec![source("a", &input)]);
    settings.shard_bytes = 1 << 24;
    let out = folder.path().join("out");
    let dataset = build(&settings, &out).unwrap();
    let root = dataset.root();
    drop(dataset);
    let path = out.join("train-0000.bin");
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[1_048_577] ^= 4;
    fs::write(&path, &flipped).unwrap();
    let dataset = Dataset::open(&out).unwrap();
    assert_eq!(dataset.root(), root);
    let error = dataset.verify().unwrap_err();
    assert!(
        matches!(&error, DataError::Corrupt { path: found, offset: 0x10_0000 } if *found == path),
        "{error}"
    );
    drop(dataset);
    fs::write(&path, &whole).unwrap();
    let other = Dataset::open_with_sample_len(&out, 48).unwrap();
    other.verify().unwrap();
    assert_eq!(other.train().sample(1).unwrap().len(), 49);
    let tokens = stream(Dataset::open(&out).unwrap().train());
    assert_eq!(stream(other.train()), tokens[..other.train().sample_count() as usize * 48 + 1]);
}

#[test]
fn settings_without_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.jsonl");
    write_jsonl(&input, &texts(10, 3));
    let good = settings(vec![source("a", &input)]);
    let refused = |change: &dyn Fn(&mut BuildSettings)| {
        let mut settings = good.clone();
        change(&mut settings);
        build(&settings, &folder.path().join("out")).unwrap_err().to_string()
    };
    assert!(refused(&|s| s.sources.clear()).contains("no source"));
    assert!(refused(&|s| s.held_out = f64::NAN).contains("held_out"));
    assert!(refused(&|s| s.sources[0].weight = Some(-1.0)).contains("weight"));
    assert!(refused(&|s| s.sources[0].repeat = 0).contains("repeat"));
    assert!(refused(&|s| s.sources.push(s.sources[0].clone())).contains("two sources"));
    assert!(refused(&|s| s.sources[0].paths[0] += "x").contains("a.jsonlx"));
    assert!(refused(&|s| s.sample_len = 100_000).contains("to train on"));
    // One document in a thousand millions is held out: none of these ten.
    assert!(refused(&|s| s.held_out = 1e-9).contains("held out"));
}

#[test]
fn a_kill_while_the_last_files_are_ended_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.jsonl");
    write_jsonl(&input, &texts(1_000, 1));
    let settings = settings(vec![source("a", &input)]);
    let whole = folder.path().join("whole");
    build(&settings, &whole).unwrap();
    let expected = content(&whole);
    // 0: nothing is ended yet; 1: the last file is cut; 2: it has its name; 3: the manifest is there.
    for done in 0..4 {
        let out = folder.path().join(done.to_string());
        let stopped = build_with(&settings, &out, 2, &mut stop_after(1_000));
        assert!(matches!(stopped, Err(DataError::Stopped(_))));
        let journal = File::options().append(true).open(out.join("journal.jsonl"));
        journal.unwrap().write_all(b"\"end\"\n").unwrap();
        let parts = content(&out);
        let parts = parts.iter().filter(|(name, _)| name.ends_with(".part"));
        for (name, _) in parts {
            let (part, full) = (out.join(name), out.join(name.trim_end_matches(".part")));
            let bytes = fs::read(whole.join(full.file_name().unwrap())).unwrap();
            match done {
                0 => {}
                1 => fs::write(&part, bytes).unwrap(),
                _ => {
                    fs::remove_file(&part).unwrap();
                    fs::write(&full, bytes).unwrap();
                }
            }
        }
        if done == 3 {
            fs::copy(whole.join("manifest.json"), out.join("manifest.json")).unwrap();
        }
        build(&settings, &out).unwrap();
        assert!(content(&out) == expected, "after {done}");
    }
}
