//! What the command line says and how it exits.

use std::process::Command;

use crate::localnet::{gauntlet, Localnet};

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let output = Command::new(gauntlet())
        .args(["localnet", "--miners", "0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_fails_says_why_in_one_line() {
    let output = Command::new(gauntlet())
        .args(["audit", "/nonexistent"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("is not a run folder"), "{text}");
}

#[test]
fn a_wallet_is_made_once_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.json");
    let run = |args: &[&str]| {
        let output = Command::new(gauntlet())
            .args(args)
            .env("GAUNTLET_PASSWORD", "a password")
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let path = file.to_str().unwrap();
    let (made, text) = run(&["wallet", "new", "--file", path]);
    assert!(made, "{text}");
    let address = text.split_whitespace().nth(1).unwrap().to_owned();
    let (shown, text) = run(&["wallet", "show", "--key-file", path]);
    assert!(shown && text.contains(&address), "{text}");
    assert!(
        !run(&["wallet", "new", "--file", path]).0,
        "it must not be overwritten"
    );
}

#[test]
fn a_flipped_byte_in_a_kept_payload_is_found_by_window_and_uid() {
    let localnet = Localnet::start(&["--miners=2", "--validators=2", "--windows=2"]);
    let (status, report, localnet) = localnet.finish();
    assert!(status.success() && report.ok, "{:#?}", report.problems);
    let (code, text) = localnet.audit();
    assert_eq!(code, Some(0), "{text}");

    let path = gauntlet::payloads::archive_path(&localnet.run().join("payloads"), 1, 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (code, text) = localnet.audit();
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("window 1, uid 1: payload"), "{text}");
}

#[test]
fn a_checkpoint_is_exported_and_imported_as_the_same_model() {
    use trainer::{files, Checkpoints, Model, ModelConfig, Position};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let run = |command: &str, from: &str, out: &str, more: &[&str]| {
        let output = Command::new(gauntlet())
            .arg(command)
            .args(["--from".as_ref(), path(from).as_os_str()])
            .args(["--out".as_ref(), path(out).as_os_str()])
            .args(more)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text + &error)
    };
    let model = Model::init(&ModelConfig::preset("nano").unwrap(), 3).unwrap();
    let checkpoints = Checkpoints::open(&path("miner/checkpoints")).unwrap();
    checkpoints
        .save_model(&model, &Position::default())
        .unwrap();

    let (code, text) = run("export", "miner", "exported", &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("377472 parameters"), "{text}");
    let small = ["--shard-size=1MB", "--dtype=bf16", "--positions=256"];
    let (code, text) = run("import", "exported", "imported", &small);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        files::open(&path("exported")).unwrap().0.parameters(),
        model.parameters()
    );
    let imported = files::open(&path("imported")).unwrap().0;
    assert_eq!(imported.config().seq_len, 256);
    assert_eq!(imported.layout(), model.layout());

    let (code, text) = run("export", "miner", "exported", &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("is not an empty folder"), "{text}");
    let (code, text) = run("export", "exported", "other", &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("no checkpoint in"), "{text}");
}
