//! The specification of a chain for strangers.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

/// What `new-chain` prints for a genesis, or why it refuses it.
fn new_chain(genesis: &Path) -> Result<Value, String> {
    let ended = Command::new(env!("CARGO_BIN_EXE_gauntlet-node"))
        .args(["new-chain", "--name", "A chain", "--id", "a-chain", "--genesis"])
        .arg(genesis)
        .output()
        .expect("the node starts");
    if !ended.status.success() {
        return Err(String::from_utf8_lossy(&ended.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&ended.stdout).expect("a specification is JSON"))
}

#[test]
fn the_documented_genesis_makes_a_live_chain_and_one_with_public_keys_none() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/genesis.example.json");
    let spec = new_chain(&example).expect("the example is a genesis");
    assert_eq!((&spec["name"], &spec["id"]), (&"A chain".into(), &"a-chain".into()));
    assert_eq!(spec["chainType"], "Live");
    assert!(spec["genesis"]["raw"]["top"]["0x3a636f6465"].is_string(), "it has a runtime");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let edited = folder.path().join("genesis.json");
    let alice = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    let text = fs::read_to_string(&example).expect("the example is here");
    let genesis: Value = serde_json::from_str(&text).expect("it is JSON");
    let member = genesis["council"]["members"][0].as_str().expect("it has a council");
    fs::write(&edited, text.replace(member, alice)).expect("the folder can be written");
    let refused = new_chain(&edited).expect_err("Alice's secret is public");
    assert!(refused.contains(alice) && refused.contains("test keyring"), "{refused}");
}
