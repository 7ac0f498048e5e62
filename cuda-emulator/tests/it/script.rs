//! `scripts/gpu_check.sh`, the one call for a machine with GPUs, with a program in the place of `gauntlet` that says
//! what that says: each step is in the table, and one that fails costs no other. What the steps do is tried on emulated
//! GPUs by `expected.rs` and `measured.rs` here, and by the trainer's `curves.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Stands in for the program; a first argument that is in the file `fails` beside it fails.
const STAND_IN: &str = r#"#!/bin/sh
grep -qs "^$1$" "$(dirname "$0")/fails" && { echo "it is broken" >&2; exit 1; }
case "$1" in
doctor) echo "card 0   512.0 TFLOP/s  1.000 ms  product" ;;
bench)
    echo "a line for people" >&2
    echo '{"tokens_per_second": {"median": 12345.5}, "mfu": 0.5, "planned_bytes": 7, "allocated_bytes": 8, "used_bytes": 9}'
    ;;
train)
    mkdir -p "$3"
    echo '{"step": 1, "loss": 4.0}' >"$3/metrics.jsonl"
    case "$5" in cpu) echo '{"step": 2, "loss": 2.0}' ;; *) cat "$(dirname "$0")/loss" ;; esac >>"$3/metrics.jsonl"
    ;;
*) exit 9 ;;
esac
"#;

/// The script's exit code and its table, with a card's second loss, where these steps fail.
fn run(loss: &str, fails: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs::write(&program, STAND_IN).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("loss"), format!("{{\"step\": 2, \"loss\": {loss}}}\n")).unwrap();
    fs::write(folder.path().join("fails"), fails).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/gpu_check.sh");
    let out = folder.path().join("out");
    let mut command = Command::new("bash");
    // What shortens it.
    for name in ["QUICK", "MODEL", "DATA"] {
        command.env_remove(name);
    }
    let output = command.arg(script).arg(&program).arg(&out).output().unwrap();
    let table = fs::read_to_string(out.join("table.md")).unwrap();
    println!("{table}");
    (output.status.code(), table)
}

#[test]
fn one_call_fills_the_table_from_the_first_step_to_the_last() {
    let (code, table) = run("2.01", "");
    assert_eq!(code, Some(0), "{table}");
    for row in [
        "| E0-E1 | libraries, cards, every kernel against what the emulator computed | ok |",
        "| E3-E8 | products, attention, what memory bounds, copies | ok |",
        "| E5 | steps of 8B --batch 12 --steps 10 | ok |",
        "| E5 | tokens a second | 12345.5 |",
        "| E5 | MFU | 0.5 |",
        "| E5 | bytes planned, allocated, used | 7, 8, 9 |",
        "| E5-1B | steps of 1B --batch 64 --steps 10 | ok |",
        "| E10-cpu | 200 steps of 1M on the processor | ok |",
        "| E10 | largest relative distance of a loss, of 0.01 at most | 0.0050 |",
    ] {
        assert!(table.contains(row), "{row}\n{table}");
    }
    // Done or said to be left out, whatever this machine has.
    assert!(table.contains("| E2") && table.contains("| E9 |"), "{table}");
}

#[test]
fn what_fails_is_in_the_table_and_in_the_exit_code() {
    let (code, table) = run("2.1", "");
    assert_eq!(code, Some(1), "{table}");
    assert!(table.contains("of 0.01 at most | 0.0500 |"), "{table}");

    let (code, table) = run("2.0", "bench\n");
    assert_eq!(code, Some(1), "{table}");
    assert!(
        table.contains("| E5 | steps of 8B --batch 12 --steps 10 | FAILED: it is broken |"),
        "{table}"
    );
    assert!(table.contains("| E10 | largest relative distance"), "{table}");

    // Without right kernels nothing else is worth its time.
    let (code, table) = run("2.0", "doctor\n");
    assert_eq!(code, Some(1), "{table}");
    assert!(table.contains("| E0-E1 |") && !table.contains("| E5 |"), "{table}");
}
