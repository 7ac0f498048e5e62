//! The service files of `packaging/` start what there is, with options that it has.

use std::{path::Path, process::Command};

use clap::Parser;
use gauntlet::cli::{Cli, Command as Asked};

use crate::walk::node;

/// The command that a service file runs.
fn started(service: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(service);
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
    assert_eq!(lines.len(), 1, "{service}");
    lines[0].split_whitespace().map(str::to_owned).collect()
}

#[test]
fn each_service_file_has_a_command_line_of_its_program() {
    for service in ["gauntlet-miner.service", "gauntlet-validator.service"] {
        let command = started(service);
        let parsed = Cli::try_parse_from(&command).unwrap().command;
        assert!(matches!(parsed, Asked::Miner(_) | Asked::Validator(_)), "{service}");
    }
    let help = Command::new(node()).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for option in started("gauntlet-node.service").iter().filter(|word| word.starts_with("--")) {
        assert!(help.contains(option.as_str()), "{option}");
    }
}
