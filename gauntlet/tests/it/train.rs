//! `gauntlet train` as a process: killed at any point it goes on, and ends with the bits of one that was not.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const STEPS: usize = 60;

/// A text that differs from line to line.
fn text(folder: &Path) -> PathBuf {
    let path = folder.join("text.txt");
    let lines: String = (0..2_000u64)
        .map(|line| {
            format!(
                "{line} squared is {}, and its half {}.\n",
                line * line,
                line / 2
            )
        })
        .collect();
    std::fs::write(&path, lines).unwrap();
    path
}

fn command(text: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    command
        .arg("train")
        .arg("--data")
        .arg(text)
        .arg("--out")
        .arg(out)
        .args([
            "--steps=60",
            "--batch-size=2",
            "--seq-len=64",
            "--threads=1",
        ])
        .args([
            "--checkpoint-steps=4",
            "--held-out-samples=4",
            "--evaluate-steps=20",
        ])
        .args(["--peak-gflops=100", "--memory=1"])
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
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "it makes no progress"
        );
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
    kill_when(start(), || {
        lines(&killed) > before + 2 && unfinished.exists()
    });
    let output = command(&text, &killed, &[]).output().unwrap();
    assert_eq!(state_root(&output), expected);

    for out in [&whole, &killed] {
        let log = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let lines = log
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let (losses, evaluations): (Vec<_>, Vec<_>) =
            lines.partition(|line| line.get("loss").is_some());
        let steps: Vec<u64> = losses
            .iter()
            .map(|line| line["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, (1..=STEPS as u64).collect::<Vec<_>>());
        assert_eq!(evaluations.len(), 3, "{evaluations:?}");
    }
}

#[test]
fn what_cannot_go_on_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (text, out) = (text(folder.path()), folder.path().join("run"));
    let first = command(&text, &out, &["--export"])
        .arg(folder.path().join("model"))
        .output();
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
    let said = refused(&["--fresh", "--warm-up-steps=61"]);
    assert!(said.contains("61 steps of warm-up"), "{said}");
    let said = refused(&["--fresh", "--micro-batch=3"]);
    assert!(said.contains("micro-batches of 3"), "{said}");
    let config = folder.path().join("train.toml");
    std::fs::write(&config, "learning_rate = 1.0\n").unwrap();
    let said = refused(&["--config", config.to_str().unwrap()]);
    assert!(said.contains("unknown field `learning_rate`"), "{said}");
}
