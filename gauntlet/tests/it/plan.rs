//! `gauntlet plan`, and the refusal of what does not fit this machine.

use std::process::{Command, Output};

use serde_json::Value;

fn gauntlet(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    command.args(arguments.split_whitespace()).output().unwrap()
}

/// Exit code, and what is on stdout or stderr.
fn text(arguments: &str) -> (Option<i32>, String) {
    let output = gauntlet(arguments);
    let text = match output.stdout.is_empty() {
        true => output.stderr,
        false => output.stdout,
    };
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn json(arguments: &str) -> Value {
    let output = gauntlet(&format!("plan --json {arguments}"));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn covenant_on_eight_h200_is_shown_with_its_regions_steps_and_phases() {
    let (code, text) = text("plan --preset covenant-72b --gpus 8xH200");
    assert_eq!(code, Some(0), "{text}");
    let parts = [
        "70,599,843,840 parameters on 8xH200",
        "memory of each GPU: ",
        "  gradient                                      35.3 GB",
        "memory of each host: ",
        "  error feedback                                 282 GB",
        "disk: ",
        "step of 192 samples x 2048 tokens: ",
        "all spread (ZeRO-3)",
        "window of 30 steps, 20 peers: ",
        "  send the own update                            99.5 s",
        "update: 1.37 GB (k 64 of 4096, 9.93 bits a value, 1/206 of f32",
        "It fits.",
        "Less waiting in a window:",
    ];
    contains_all(&text, &parts);
}

#[test]
fn json_says_the_same_in_bytes_and_seconds() {
    let arguments = "--preset covenant-72b --gpus 8xB200 --mfu 0.23 --up 110MB/s --down 500MB/s";
    let report = json(arguments);
    assert_eq!(report["machine"], "8xB200");
    assert_eq!(report["window"]["inner_steps"], 30);
    let budget = &report["budget"];
    assert_eq!(budget["fits"], true);
    assert_eq!(budget["model"]["parameters"], 70_599_843_840u64);
    for ledger in budget["ledgers"].as_array().unwrap() {
        let lines = ledger["lines"].as_array().unwrap();
        let sum: u64 = lines.iter().map(|line| line["bytes"].as_u64().unwrap()).sum();
        assert_eq!(ledger["bytes"], sum, "{ledger}");
    }
    // Covenant-72B: 20 minutes of training, 70 seconds of exchange, 94.5 %.
    let phases = budget["phases"].as_array().unwrap();
    let train = phases[0]["seconds"].as_f64().unwrap();
    let all = budget["window_seconds"].as_f64().unwrap();
    assert!((19.0..21.0).contains(&(train / 60.0)), "{train}");
    assert!((60.0..80.0).contains(&(all - train)), "{}", all - train);
    assert!(report["what_would_fit"].as_array().unwrap().is_empty());
}

#[test]
fn muon_takes_less_memory_and_more_time() {
    for machine in ["--gpus 8xH200", "--cpu 2 --memory 100GB"] {
        let arguments =
            format!("--preset 1B --micro-batch 1 --recompute none --sharding optimiser {machine}");
        let [adamw, muon] = ["adamw", "muon"].map(|optimiser| {
            let report = json(&format!("{arguments} --optimiser {optimiser}"));
            assert_eq!(report["optimiser"], optimiser);
            let number = |value: &Value| value.as_f64().unwrap();
            (
                number(&report["budget"]["ledgers"][0]["bytes"]),
                number(&report["budget"]["step"]["seconds"]),
            )
        });
        assert!(muon.0 < adamw.0 && muon.1 > adamw.1, "{machine}: {muon:?} {adamw:?}");
        let (code, shown) = text(&format!("plan {arguments} --optimiser muon"));
        assert_eq!(code, Some(0), "{shown}");
        contains_all(&shown, &["matrices that Muon works on", ", Muon)"]);
    }
}

#[test]
fn what_does_not_fit_is_exit_code_1_and_what_would_fits() {
    let (code, shown) = text("plan --preset 8B --gpus RTX4090");
    assert_eq!(code, Some(1), "{shown}");
    let parts = [
        "of 25.8 GB: DOES NOT FIT",
        "It does not fit. Each of these would:",
        "  - 1xH200 with 250 GB in each host: ",
    ];
    contains_all(&shown, &parts);
    let as_told = "plan --preset 8B --gpus 1xH200 --host-memory 250GB";
    assert_eq!(text(as_told).0, Some(0));

    let (code, shown) = text("plan --preset 25M --cpu 2 --memory 700MB --batch 8");
    assert_eq!(code, Some(1), "{shown}");
    contains_all(&shown, &["memory: ", "of 700 MB: DOES NOT FIT"]);
    contains_all(&shown, &["  - memory of ", "  - the model 7M: "]);
    let report = json("--preset 25M --cpu 2 --memory 700MB --batch 8");
    let needed = report["what_would_fit"][0]["memory"].as_u64().unwrap();
    for (bytes, expected) in [(needed, 0), (needed - 1, 1)] {
        let exactly = format!("plan --preset 25M --cpu 2 --memory {bytes} --batch 8");
        assert_eq!(text(&exactly).0, Some(expected), "{bytes}");
    }
}

#[test]
fn what_makes_no_sense_says_why() {
    let cases = [
        ("", 2, "--preset"),
        ("--preset 9B", 1, "no preset `9B`; there are nano, 1M"),
        ("--preset 8B --gpus 8xH300", 2, "is not GPUs like 8xH200"),
        ("--preset 8B --gpus 0xH200", 2, "is not GPUs like 8xH200"),
        ("--preset 8B --memory much", 2, "is not a size like 24GB"),
        ("--preset 8B --up 10", 2, "is not a rate like 500Mbps"),
        ("--preset 8B --gpus H200 --cpu 4", 2, "cannot be used with"),
        ("--preset 8B --peers 0", 1, "peers is 0, not 1 to 4096"),
        ("--preset 8B --k 5000", 1, "k is 5000, not 1 to 4096"),
        ("--preset 8B --seq 99999999", 1, "seq_len"),
        ("--preset 8B --gpus H200 --mfu 2", 1, "is not an MFU"),
        ("--preset 8B --gpus H200 --micro-batch 5", 1, "does not divide"),
        ("--config /nonexistent/config.json", 1, "/nonexistent"),
    ];
    for (arguments, expected, part) in cases {
        let (code, text) = text(&format!("plan {arguments}"));
        assert_eq!(code, Some(expected), "{arguments}: {text}");
        assert!(text.contains(part), "{arguments}: {text}");
    }
}

#[test]
fn a_model_that_this_machine_cannot_hold_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let made_text = made.display();
    let commands = [
        format!("localnet --model 70B --keep {made_text}"),
        format!("train --model 70B --out {made_text}"),
    ];
    for command in commands {
        let (code, text) = text(&command);
        assert_eq!(code, Some(1), "{text}");
        let parts = ["of the model 70B", " TB of memory", "the largest preset that fits"];
        contains_all(&text, &parts);
        assert!(!made.exists(), "{command}");
    }
    let asked = "--model 25M --memory 1.2 --batch-size 64 --micro-batch 64";
    let (code, text) = text(&format!("train --out {made_text} {asked}"));
    assert_eq!(code, Some(1), "{text}");
    contains_all(&text, &["64 samples at once do not fit the memory; "]);
}
