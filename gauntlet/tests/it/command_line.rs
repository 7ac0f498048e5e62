//! Tests what the command line says and how it exits.

use std::process::Command;

use node_client::keys::{self, HotKeyProof};
use protocol::consent::Role;

use crate::localnet::{gauntlet, Localnet};

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let output = Command::new(gauntlet()).args(["localnet", "--miners", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// Runs the program, which must fail, and say so.
fn refused(args: &[&str], expected: &str) {
    let output = Command::new(gauntlet()).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?}: {text}");
    assert!(text.contains(expected), "{args:?}: {text}");
}

#[test]
fn numbers_that_nobody_can_mean_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = format!("--out={}", folder.path().join("out").display());
    for (option, expected) in [
        ("--steps=18446744073709551615", "steps is 18446744073709551615, not from 1 to"),
        ("--steps=0", "steps is 0, not from 1"),
        ("--tokens=18446744073709551615", "tokens is 18446744073709551615"),
        ("--keep-checkpoints=0", "keep_checkpoints must be above 0"),
        ("--checkpoint-steps=0", "checkpoint_steps must be above 0"),
        ("--evaluate-steps=0", "evaluate_steps must be above 0"),
        ("--batch-size=0", "batch_size is 0"),
        ("--micro-batch=0", "micro_batch is 0"),
        ("--seq-len=0", "seq_len is 0"),
        ("--threads=0", "threads is 0"),
        ("--threads=1000000", "threads is 1000000, not from 1 to 4096"),
        ("--held-out-samples=18446744073709551615", "held_out_samples is"),
        ("--rate=NaN", "rate is NaN"),
        ("--rate=-1", "rate is -1"),
        ("--rate=0", "rate is 0"),
        ("--memory=inf", "memory is inf"),
        ("--data-cache-gib=-1", "data_cache_gib must be 0 or above"),
        ("--peak-gflops=0", "peak_gflops is 0"),
        ("--model=", "model is empty"),
        ("--data=", "--data"),
    ] {
        refused(&["train", &out, option], expected);
    }
    assert!(!folder.path().join("out").exists());
    let file = folder.path().join("train.toml");
    std::fs::write(&file, "\u{feff}keep_checkpoints = 0\r\n").unwrap();
    let config = format!("--config={}", file.display());
    refused(&["train", &out, &config], "keep_checkpoints must be above 0");

    for (option, expected) in [
        ("--max-length=0", "from 1 to 16777216"),
        ("--batch-tokens=0", "from 1 to 16777216"),
        ("--limit=0", "from 1 to"),
        ("--threads=0", "from 1 to 4096"),
    ] {
        refused(&["eval", "--model=x", "--tasks=arc_easy", option], expected);
    }
    for (option, expected) in [
        ("--cpu=0", "threads"),
        ("--peers=0", "peers"),
        ("--inner-steps=0", "inner steps"),
        ("--batch=18446744073709551615", "batch"),
        ("--copies=0", "copies"),
        ("--k=0", "k "),
        ("--seq=0", "seq"),
        ("--micro-batch=0", "micro"),
        ("--mfu=NaN", "MFU"),
        ("--up=0Mbps", "a rate like"),
        ("--memory=0", "a size like"),
        ("--data-tokens=18446744073709551615", "more than 2^63 bytes"),
    ] {
        refused(&["plan", "--preset=1M", option], expected);
    }
    for (option, expected) in [
        ("--held-out=NaN", "held_out is NaN"),
        ("--repeat=0", "repeat is 0"),
        ("--sample-len=0", "from 1 to 16777216"),
        ("--tokens-max=0", "from 1 to"),
        ("--input=", "is empty"),
        ("--field=", "is empty"),
    ] {
        let args = ["data", "build", &out, "--tokenizer=bytes", "--input=/x", option];
        refused(&args, expected);
    }
    refused(&["audit", "/x", "--windows=0"], "from 1 to");
    refused(&["localnet", "--metrics-port=65535"], "need ports to");
}

#[test]
fn an_empty_uri_is_no_key() {
    refused(&["wallet", "show", "--key-uri="], "it is empty");
    refused(&["wallet", "show", "--key-uri=///x"], "neither a phrase nor steps");
    let output = Command::new(gauntlet()).args(["wallet", "show", "--key-uri=//Alice"]).output();
    assert!(output.unwrap().status.success());
}

#[test]
fn what_fails_says_why_in_one_line() {
    let output = Command::new(gauntlet()).args(["audit", "/nonexistent"]).output().unwrap();
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
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let path = file.to_str().unwrap();
    let (made, text) = run(&["wallet", "new", "--file", path]);
    assert!(made, "{text}");
    let address = text.split_whitespace().nth(1).unwrap().to_owned();
    let (shown, text) = run(&["wallet", "show", "--key-file", path]);
    assert!(shown && text.contains(&address), "{text}");
    assert!(!run(&["wallet", "new", "--file", path]).0, "it must not be overwritten");
}

#[test]
fn a_hot_key_consents_to_work_for_a_cold_key() {
    let account = |uri| keys::account(&keys::keypair_from_uri(uri).unwrap());
    let (hot, cold) = (account("//Alice//hot"), account("//Alice"));
    let genesis = format!("0x{}", "07".repeat(32));
    let address = keys::address(&cold);
    let arguments = ["wallet", "consent", "--key-uri=//Alice//hot", "--run=3", "--role=miner"];
    let output = Command::new(gauntlet())
        .args(arguments)
        .args(["--genesis", &genesis, "--cold", &address])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix("sr25519  0x")).unwrap();
    let mut signature = [0; 64];
    hex::decode_to_slice(line, &mut signature).unwrap();
    let proof = HotKeyProof::Sr25519(signature);
    assert!(keys::is_consent_of(&hot, &proof, &[7; 32], 3, Role::Miner, &cold));
    assert!(!keys::is_consent_of(&hot, &proof, &[7; 32], 4, Role::Miner, &cold));
    let wrong = ["--genesis=0x07", "--cold", &address];
    let refusal = [arguments.as_slice(), wrong.as_slice()].concat();
    refused(&refusal, "--genesis");
}

#[test]
fn processes_log_what_they_do_and_a_flipped_byte_is_found_by_window_and_uid() {
    let localnet = Localnet::start(&["--miners=2", "--validators=2", "--windows=2"]);
    let (status, report, localnet) = localnet.finish();
    assert!(status.success() && report.ok, "{:#?}", report.problems);
    for (member, said) in [("miner-0", "trained"), ("validator-0", "attesting")] {
        let log = localnet.run().join("logs").join(format!("{member}.log"));
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains(said), "{member} says what it does: {log:?}");
    }
    let (code, text) = localnet.audit();
    assert_eq!(code, Some(0), "{text}");

    let path = participant::payloads::archive_path(&localnet.run().join("payloads"), 1, 1);
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
    checkpoints.save_model(&model, &Position::default()).unwrap();

    let (code, text) = run("export", "miner", "exported", &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("377472 parameters"), "{text}");
    let small = ["--shard-size=1MB", "--dtype=bf16", "--positions=256"];
    let (code, text) = run("import", "exported", "imported", &small);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(files::open(&path("exported")).unwrap().0.parameters(), model.parameters());
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

/// A model of 7·10^12 parameters, of which there are only headers.
#[test]
fn a_model_that_does_not_fit_is_refused_before_it_is_read() {
    use trainer::{Checkpoints, Model, ModelConfig, Position};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let refused = |args: &[&str], who: &str| {
        let output = Command::new(gauntlet()).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let expected = format!("{who} of a model of ");
        for part in [&expected, "TB of memory, and", "the largest preset that fits is"] {
            assert!(text.contains(part), "{text}");
        }
    };

    let huge = r#"{"model_type": "llama", "vocab_size": 1000, "hidden_size": 65536, "intermediate_size": 262144,
        "num_hidden_layers": 100, "num_attention_heads": 512, "max_position_embeddings": 64}"#;
    std::fs::create_dir(path("huge")).unwrap();
    std::fs::write(path("huge/config.json"), huge).unwrap();
    std::fs::write(path("text.txt"), "some text").unwrap();
    let (model, out) = (path("huge"), path("out"));
    refused(&["import", "--from", &model, "--out", &out], "an import");
    let tasks = ["--tasks=perplexity", "--data", &path("text.txt")];
    let eval = [&["eval", "--tokenizer=bytes", "--model", &model], &tasks[..]].concat();
    refused(&eval, "an evaluation");
    let steps = ["--steps=1", "--data", &path("text.txt")];
    let train = [&["train", "--init", &model, "--out", &out], &steps[..]].concat();
    refused(&train, "a training");

    let nano = Model::init(&ModelConfig::preset("nano").unwrap(), 0).unwrap();
    let checkpoints = Checkpoints::open(folder.path().join("checkpoints").as_path()).unwrap();
    checkpoints.save_model(&nano, &Position::default()).unwrap();
    // Magic, the header's length in four bytes, the header in JSON.
    let checkpoint = folder.path().join("checkpoints/checkpoint-000000000000");
    let bytes = std::fs::read(&checkpoint).unwrap();
    let len = u32::from_le_bytes(*bytes[8..].first_chunk().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[12..12 + len]).unwrap();
    for (key, value) in [("hidden", 65536), ("ffn", 262144), ("layers", 100)] {
        header["model"][key] = value.into();
    }
    let header = header.to_string();
    let len = (header.len() as u32).to_le_bytes();
    let changed = [&bytes[..8], &len, header.as_bytes()].concat();
    std::fs::write(&checkpoint, changed).unwrap();
    refused(&["export", "--from", &path("checkpoints"), "--out", &out], "an export");
    assert!(!folder.path().join("out/model").exists());
}

/// The program on a machine without CUDA, whatever is installed on this one: there is no driver where there are no cards.
fn without_cuda(args: &[&str]) -> (Option<i32>, String, String) {
    let nowhere = tempfile::tempdir().unwrap();
    let output = Command::new(gauntlet())
        .args(args)
        .env_remove("GAUNTLET_CUDA_LIBRARIES")
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("CUDA_HOME")
        .env_remove("VIRTUAL_ENV")
        .env("HOME", nowhere.path())
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_doctor_names_what_is_missing_and_never_panics() {
    let (code, out, err) = without_cuda(&["doctor", "--cuda"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(!err.contains("panicked"), "{err}");
    // Each library has its line, with its place or with what brings it.
    for file in ["libcuda", "libnvrtc", "libcublasLt", "libnccl"] {
        assert!(out.contains(file), "{out}");
    }
    for line in out.lines().filter(|line| line.starts_with("missing")) {
        assert!(line.contains("install"), "{line}");
    }
    let (code, _, err) = without_cuda(&["doctor"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("--cuda"), "{err}");
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_with_its_cure_and_auto_takes_the_processor() {
    let folder = tempfile::tempdir().unwrap();
    let out = format!("--out={}", folder.path().join("out").display());
    for args in [
        &["bench", "train", "--preset=nano", "--device=cuda"][..],
        &["train", &out, "--device=cuda:0"],
    ] {
        let (code, _, err) = without_cuda(args);
        assert_eq!(code, Some(1), "{args:?}: {err}");
        assert!(!err.contains("panicked"), "{err}");
        assert!(err.contains("libcuda") || err.contains("GPU"), "{args:?}: {err}");
    }
    assert!(!folder.path().join("out").exists());
    let auto = ["bench", "train", "--preset=nano", "--device=auto", "--steps=1", "--json"];
    let (code, out, err) = without_cuda(&auto);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("tokens_per_second"), "{out}");
    assert!(err.contains("device: cpu"), "{err}");

    refused(&["train", "--out=x", "--device=gpu"], "is not auto, cpu, cuda");
    refused(
        &["bench", "train", "--device=cuda", "--engine=vector"],
        "--device cuda and --engine vector exclude each other",
    );
}
