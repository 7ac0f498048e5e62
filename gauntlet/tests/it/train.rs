//! `gauntlet train` as a process: killed at any point it resumes, and ends with the bits of one that was not.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{atomic::Ordering, Arc},
    thread,
    time::{Duration, Instant},
};

use crate::data::shelf::{serve, Shelf};

const STEPS: usize = 60;

/// A text that differs from line to line.
fn text(folder: &Path) -> PathBuf {
    let path = folder.join("text.txt");
    let lines: String = (0..2_000u64)
        .map(|line| format!("{line} squared is {}, and its half {}.\n", line * line, line / 2))
        .collect();
    std::fs::write(&path, lines).unwrap();
    path
}

fn command(text: &Path, out: &Path, more: &[&str]) -> Command {
    let is_said = more.iter().any(|option| option.starts_with("--checkpoint-steps"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    command
        .arg("train")
        .arg("--data")
        .arg(text)
        .arg("--out")
        .arg(out)
        .args(["--steps=60", "--batch-size=2", "--seq-len=64", "--threads=1"])
        .args(["--held-out-samples=4", "--evaluate-steps=20"])
        .args(["--peak-gflops=100", "--memory=1"])
        .args((!is_said).then_some("--checkpoint-steps=4"))
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn state_root(output: &Output) -> String {
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let (_, root) = shown.split_once("state root ").unwrap();
    root.split_whitespace().next().unwrap().to_owned()
}

fn lines(out: &Path) -> usize {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
    text.lines().count()
}

/// Waits until `is_time` or the process has ended, and kills it.
fn kill_when(mut child: Child, is_time: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_time() && child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "it makes no progress");
        thread::sleep(Duration::from_micros(200));
    }
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn a_training_killed_at_any_point_ends_with_the_bits_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let text = text(folder.path());
    let whole = folder.path().join("whole");
    let expected = state_root(&command(&text, &whole, &[]).output().unwrap());

    let killed = folder.path().join("killed");
    let start = || command(&text, &killed, &[]).spawn().unwrap();
    for target in [0, 2, 11, 30] {
        kill_when(start(), || lines(&killed) >= target);
    }
    // While a checkpoint is being written.
    let before = lines(&killed);
    let unfinished = killed.join("checkpoints/unfinished");
    kill_when(start(), || lines(&killed) > before + 2 && unfinished.exists());
    let output = command(&text, &killed, &[]).output().unwrap();
    assert_eq!(state_root(&output), expected);

    for out in [&whole, &killed] {
        let log = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let lines =
            log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let (losses, evaluations): (Vec<_>, Vec<_>) =
            lines.partition(|line| line.get("loss").is_some());
        let steps: Vec<u64> = losses.iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, (1..=STEPS as u64).collect::<Vec<_>>());
        assert_eq!(evaluations.len(), 3, "{evaluations:?}");
    }
}

#[test]
fn muon_trains_as_flags_or_a_file_say_and_resumes_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let text = text(folder.path());
    let flags = ["--optimiser=muon", "--rate=0.002", "--matrix-rate=0.004", "--momentum=0.9"];
    let train = |name: &str, more: &[&str]| {
        command(&text, &folder.path().join(name), more).output().unwrap()
    };
    let whole = train("whole", &flags);
    let shown = String::from_utf8_lossy(&whole.stdout).into_owned();
    let said = "Muon for the layers' matrices at 2 times the rate, AdamW for the rest";
    assert!(shown.contains(said), "{shown}");
    let expected = state_root(&whole);

    let killed = folder.path().join("killed");
    for target in [2, 20] {
        let child = command(&text, &killed, &flags).spawn().unwrap();
        kill_when(child, || lines(&killed) >= target);
    }
    assert_eq!(state_root(&train("killed", &flags)), expected);

    let file = folder.path().join("train.toml");
    let toml = "optimiser = \"muon\"\nrate = 0.002\nmatrix_rate = 0.004\nmomentum = 0.9\n";
    std::fs::write(&file, toml).unwrap();
    let config = format!("--config={}", file.display());
    assert_eq!(state_root(&train("file", &[&config])), expected);

    // At AdamW's rate, unless that of the matrices is given.
    let plain = train("plain", &["--optimiser=muon", "--rate=0.002", "--momentum=0.9"]);
    let shown = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(shown.contains("Muon for the layers' matrices, AdamW for the rest"), "{shown}");
    let same = ["--optimiser=muon", "--rate=0.002", "--momentum=0.9", "--matrix-rate=0.002"];
    assert_eq!(state_root(&train("same", &same)), state_root(&plain));
    assert_ne!(state_root(&plain), expected);
    let adamw = train("adamw", &["--optimiser=adamw", "--rate=0.002"]);
    assert_ne!(state_root(&adamw), state_root(&plain));
    assert_eq!(state_root(&train("default", &["--rate=0.002"])), state_root(&adamw));

    let refused = |name: &str, more: &[&str], part: &str| {
        let output = train(name, more);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(part), "{said}");
    };
    refused("adamw", &["--optimiser=muon", "--rate=0.002"], "optimiser = AdamW, not Muon");
    refused("plain", &["--rate=0.002"], "optimiser = Muon, not AdamW");
    let faster = [flags[0], flags[1], "--matrix-rate=0.002", flags[3]];
    refused("whole", &faster, "matrix_rate over rate = 2.0, not 1.0");
    for flag in ["--matrix-rate=0.004", "--momentum=0.9"] {
        refused("new", &[flag], "they need --optimiser muon");
        refused("new", &[flag, "--optimiser=adamw"], "they need --optimiser muon");
    }
    for (flag, said) in [
        ("--momentum=1", "momentum must be from 0 to below 1, not 1"),
        ("--momentum=-0.1", "momentum must be from 0 to below 1"),
        ("--momentum=NaN", "momentum must be from 0 to below 1"),
        ("--matrix-rate=0", "matrix_rate is 0, not a number above 0"),
        ("--matrix-rate=NaN", "matrix_rate is NaN, not a number above 0"),
        ("--matrix-rate=1e38", "matrix_rate and rate are too far apart"),
        ("--engine=candle", "candle: only AdamW is supported"),
    ] {
        refused("new", &[flag, "--optimiser=muon"], said);
    }
    assert_eq!(lines(&folder.path().join("new")), 0);
}

#[test]
fn a_data_set_in_a_store_trains_the_model_that_its_copy_does() {
    let folder = tempfile::tempdir().unwrap();
    let (text, set) = (text(folder.path()), folder.path().join("set"));
    let build = ["--tokenizer=bytes", "--sample-len=48", "--held-out=0.05"];
    let built = Command::new(env!("CARGO_BIN_EXE_gauntlet"))
        .args(["data", "build", "--input"])
        .arg(&text)
        .arg("--out")
        .arg(&set)
        .args(build)
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let shelf = Arc::new(Shelf::default());
    for entry in std::fs::read_dir(&set).unwrap() {
        let path = entry.unwrap().path();
        let content = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut objects = shelf.objects.lock().unwrap();
        objects.insert(format!("bucket/sets/{name}"), content.clone());
        objects.insert(format!("public/{name}"), content);
    }
    let endpoint = serve(&shelf);
    let train = |data: &str, out: &str, more: &[&str]| {
        let mut command = command(Path::new(data), &folder.path().join(out), more);
        command.envs([
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "here"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ]);
        command.output().unwrap()
    };
    let expected = state_root(&train(set.to_str().unwrap(), "local", &[]));
    let web = format!("{endpoint}/public");
    assert_eq!(state_root(&train("s3://bucket/sets", "s3", &[])), expected);
    let cache = folder.path().join("s3/data-cache");
    let cache = format!("--data-cache={}", cache.display());
    let asked = shelf.requests.load(Ordering::SeqCst);
    assert_eq!(state_root(&train(&web, "web", &[&cache])), expected);
    let asked = shelf.requests.load(Ordering::SeqCst) - asked;
    assert_eq!(asked, 2, "length and content of the manifest; the rest is kept");
    let losses = |out: &str| {
        let log = std::fs::read_to_string(folder.path().join(out).join("metrics.jsonl")).unwrap();
        let lines = log.lines().map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("seconds");
            line
        });
        lines.collect::<Vec<_>>()
    };
    assert_eq!(losses("local").len(), STEPS + 3);
    assert_eq!(losses("local"), losses("s3"));
    // It resumes with a copy, and the other way round.
    assert_eq!(state_root(&train(set.to_str().unwrap(), "s3", &[])), expected);

    let said = train(&format!("{web}/nowhere"), "none", &[]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("no data set of `gauntlet data build` at http"), "{said}");
}

#[test]
fn what_cannot_go_on_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (text, out) = (text(folder.path()), folder.path().join("run"));
    let first = command(&text, &out, &["--export"]).arg(folder.path().join("model")).output();
    state_root(&first.unwrap());
    assert!(folder.path().join("model/config.json").is_file());
    // Complete: nothing is left to do, and the export is refused rather than overwritten.
    state_root(&command(&text, &out, &[]).output().unwrap());

    let refused = |more: &[&str]| {
        let output = command(&text, &out, more).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&["--rate=0.01"]);
    assert!(said.contains("schedule.peak_rate"), "{said}");
    let said = refused(&["--seed=2"]);
    assert!(said.contains("seed = 1, not 2"), "{said}");
    let said = refused(&["--model=1M"]);
    assert!(said.contains("model."), "{said}");
    let kept = lines(&out);
    let said = refused(&["--fresh", "--warm-up-steps=61"]);
    assert!(said.contains("61 steps of warm-up"), "{said}");
    let said = refused(&["--fresh", "--micro-batch=3"]);
    assert!(said.contains("micro-batches of 3"), "{said}");
    let config = folder.path().join("train.toml");
    std::fs::write(&config, "learning_rate = 1.0\n").unwrap();
    let said = refused(&["--config", config.to_str().unwrap()]);
    assert!(said.contains("unknown field `learning_rate`"), "{said}");
    // What `--fresh` would remove is still there after it was refused.
    assert!(kept > 0 && lines(&out) == kept);
    state_root(&command(&text, &out, &[]).output().unwrap());

    // An export that cannot be written is noticed before the first step.
    let other = folder.path().join("other");
    let mut export = command(&text, &other, &[]);
    let output = export.arg("--export").arg(folder.path().join("model"));
    let output = output.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("not an empty folder"), "{said}");
    assert_eq!(lines(&other), 0);
}

#[test]
fn a_training_is_never_resumed_with_another_text() {
    let folder = tempfile::tempdir().unwrap();
    let (text, out) = (text(folder.path()), folder.path().join("run"));
    let root = state_root(&command(&text, &out, &[]).output().unwrap());
    let mut longer = std::fs::read_to_string(&text).unwrap();
    // In front, so that every sample is another one.
    longer.insert_str(0, "Another line.\n");
    std::fs::write(&text, longer).unwrap();
    let output = command(&text, &out, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("started with another text"), "{said}");
    let again = command(&out.join("data"), &out, &[]).output().unwrap();
    assert_eq!(state_root(&again), root);
    let other = command(&text, &out, &["--fresh"]).output().unwrap();
    assert_ne!(state_root(&other), root);

    // The folder of a training is no place for its text.
    let inside = out.join("data/notes.txt");
    std::fs::copy(&text, &inside).unwrap();
    let output = command(&inside, &out, &["--fresh"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("choose another --out"), "{said}");
    assert!(inside.exists());
}

#[test]
fn jsonl_is_trained_on_by_its_documents() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, out) = (text(folder.path()), folder.path().join("run"));
    let text = std::fs::read_to_string(plain).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let objects = lines.chunks(20).map(|lines| {
        let document = serde_json::json!({ "id": 7, "text": lines.join("\n") });
        format!("{document}\n")
    });
    let path = folder.path().join("text.jsonl");
    std::fs::write(&path, objects.collect::<String>()).unwrap();
    state_root(&command(&path, &out, &[]).output().unwrap());
    let dataset = dataset::Dataset::open(&out.join("data")).unwrap();
    let manifest = dataset.manifest();
    let documents = manifest.train.document_count + manifest.held_out.document_count;
    assert_eq!(documents, 100);
    let tokens = manifest.train.token_count + manifest.held_out.token_count;
    // A byte of text each, but for what is left of a sample at the end of each split; no JSON.
    let left = text.len() as u64 - tokens;
    assert!(left < 2 * 64, "{tokens} tokens of {}", text.len());
}

#[test]
fn a_model_can_have_any_shape_and_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let text = text(folder.path());
    let shape = folder.path().join("shape.json");
    let json = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 300, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true}"#;
    std::fs::write(&shape, json).unwrap();
    let model = format!("--model={}", shape.display());
    let train = |name: &str, more: &[&str]| {
        let more = [&[model.as_str(), "--fresh"], more].concat();
        let mut command = without_steps(command(&text, &folder.path().join(name), &more));
        let output = command.arg("--steps=2").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.success(), said)
    };
    let (ended_well, said) = train("file", &[]);
    assert!(ended_well && said.contains("vocabulary 300,"), "{said}");
    let (ended_well, said) = train("wider", &["--vocab=512"]);
    assert!(ended_well && said.contains("vocabulary 512,"), "{said}");
    let (ended_well, said) = train("narrow", &["--vocab=100"]);
    assert!(!ended_well && said.contains("100"), "{said}");
}

#[test]
fn ctrl_c_writes_a_checkpoint_and_the_same_command_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (text, out) = (text(folder.path()), folder.path().join("run"));
    let whole = folder.path().join("whole");
    let rare = ["--checkpoint-steps=1000"];
    let expected = state_root(&command(&text, &whole, &rare).output().unwrap());

    let mut child = command(&text, &out, &rare).spawn().unwrap();
    let started = Instant::now();
    while lines(&out) < 3 && child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_micros(200));
    }
    let id = i32::try_from(child.id()).unwrap();
    // SAFETY: a signal to a child that has not been waited for.
    unsafe { libc::kill(id, libc::SIGINT) };
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("stopped after step"), "{said}");
    // No step is done twice: the checkpoint is of the step at which it stopped.
    let done = lines(&out);
    let output = command(&text, &out, &rare).output().unwrap();
    assert_eq!(state_root(&output), expected);
    assert!(done >= 3 && lines(&out) == lines(&whole));
}

#[test]
fn a_disk_that_takes_no_more_is_an_error_and_the_checkpoint_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (text, out) = (text(folder.path()), folder.path().join("run"));
    let half = command(&text, &out, &["--schedule=flat", "--warm-up-steps=2", "--steps=8"]);
    let mut half = without_steps(half);
    state_root(&half.output().unwrap());
    let names = || {
        let entries = std::fs::read_dir(out.join("checkpoints")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();

    // A limit on the size of files stands for a full disk: the write fails in the middle.
    let longer = without_steps(command(
        &text,
        &out,
        &["--schedule=flat", "--warm-up-steps=2", "--steps=16"],
    ));
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 200; exec \"$@\"", "sh"])
        .arg(longer.get_program())
        .args(longer.get_args());
    let output = limited.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("checkpoints"), "{said}");
    assert_eq!(names(), before);

    let mut longer = without_steps(command(
        &text,
        &out,
        &["--schedule=flat", "--warm-up-steps=2", "--steps=16"],
    ));
    state_root(&longer.output().unwrap());
}

/// The command without its own number of steps, which a test gives.
fn without_steps(command: Command) -> Command {
    let mut other = Command::new(command.get_program());
    other.args(command.get_args().filter(|arg| *arg != "--steps=60"));
    other.stdin(Stdio::null());
    other
}
