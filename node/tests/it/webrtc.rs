//! A transport that the node is built without.

use std::process::Command;

#[test]
fn webrtc_is_refused_with_the_reason() {
    let address = "/ip4/127.0.0.1/udp/30333/webrtc-direct";
    for args in
        [&["--listen-addr", address][..], &["--public-addr", address], &["--force-enable-webrtc"]]
    {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ended = Command::new(env!("CARGO_BIN_EXE_gauntlet-node"))
            .args(["--chain", "local", "--base-path"])
            .arg(folder.path())
            .args(args)
            .output()
            .expect("the node starts");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success());
        assert!(said.contains("needs WebRTC, which this node is built without"), "{said}");
    }
}
