//! A development chain: one node that seals on a timer.

use crate::process::Node;

#[test]
fn who_follows_a_development_chain_has_its_final_blocks() {
    let (first, second) = (folder(), folder());
    let pace = ["--dev", "--block-millis", "200", "--finality-lag", "2"];
    let mut author = Node::start(first.path(), &pace);
    author.wait_for_finalized(3);
    let address = author.address();
    let follow = [&pace[..], &["--follow", "--bootnodes", &address]].concat();
    let mut follower = Node::start(second.path(), &follow);
    let reached = author.finalized_number();
    follower.wait_for_finalized(reached + 3);
    assert_eq!(follower.block_hash(reached + 3), author.block_hash(reached + 3));
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn a_development_chain_finalises_its_blocks_and_goes_on_after_kill_9() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let args = ["--dev", "--block-millis", "200"];

    let mut node = Node::start(folder.path(), &args);
    node.wait_for_finalized(3);
    let third = node.block_hash(3);
    let reached = node.finalized_number();
    drop(node);

    let mut node = Node::start(folder.path(), &args);
    node.wait_for_finalized(reached + 3);
    assert_eq!(node.block_hash(3), third, "it is the same chain");
    drop(node);

    let node = Node::start(folder.path(), &["--dev", "--block-millis", "0"]);
    assert_eq!(node.block_hash(3), third, "a kept chain can be read");
}
