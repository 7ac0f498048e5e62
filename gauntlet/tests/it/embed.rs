//! `participant/examples/embed.rs`: a miner inside another program takes part in a run.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::localnet::{gauntlet, Localnet};

/// The example, which a build of the workspace's tests puts beside the programs.
fn embed() -> PathBuf {
    Path::new(gauntlet()).parent().unwrap().join("examples/embed")
}

#[test]
fn a_miner_inside_another_program_trains_commits_and_reveals() {
    let mut localnet = Localnet::start(&["--miners=1", "--validators=1", "--windows=12"]);
    localnet.wait_for("miner-0", |_| true);
    let config = std::fs::read_to_string(localnet.run().join("miner-0/config.toml")).unwrap();
    let (_, url) = config.split_once("\"ws://").unwrap();
    let (address, _) = url.split_once('"').unwrap();

    let output = Command::new(embed())
        .arg(format!("ws://{address}"))
        .arg(localnet.run().join("data"))
        .arg(localnet.run().join("embedded"))
        .args(["//Dave", "//Eve"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    for event in ["Trained {", "Committed {", "Revealed {"] {
        assert!(said.contains(event), "{said}\n{errors}");
    }
}
