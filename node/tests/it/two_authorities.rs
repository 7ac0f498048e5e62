//! A chain with two authorities, which need each other to finalise.

use crate::process::Node;

#[test]
fn two_authorities_finalise_the_same_chain() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    let [alice_key, bob_key] = ["01", "02"].map(|byte| byte.repeat(32));

    let alice_args = ["--chain", "local", "--alice", "--node-key", &alice_key];
    let mut alice = Node::start(folders[0].path(), &alice_args);
    let bootnode = alice.address();
    let bob_args = ["--chain", "local", "--bob", "--node-key", &bob_key, "--bootnodes", &bootnode];
    let mut bob = Node::start(folders[1].path(), &bob_args);

    alice.wait_for_finalized(3);
    bob.wait_for_finalized(3);
    assert_eq!(alice.block_hash(3), bob.block_hash(3));
}
