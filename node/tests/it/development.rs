//! A development chain: one node that seals on a timer.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use crate::process::Node;

#[test]
fn best_blocks_are_replaced_and_who_follows_has_the_final_ones() {
    let (first, second) = (folder(), folder());
    let pace = ["--dev", "--block-millis", "300", "--finality-lag", "2"];
    let author = Node::start(first.path(), &[&pace[..], &["--fork-every", "3"]].concat());
    let (mut best, mut replaced, mut last) = (BTreeMap::new(), 0, 0u64);
    let started = Instant::now();
    loop {
        // What is final by now is as it will be.
        let is_over = author.finalized_number() >= 12 && replaced > 1;
        let number = author.best_number();
        // From the last one that was seen, as this machine may be busy.
        for number in last.min(number).saturating_sub(2)..=number {
            let hash = author.block_hash(number);
            let before = best.insert(number, hash.clone());
            replaced += u32::from(before.is_some_and(|before| before != hash));
        }
        if is_over {
            break;
        }
        last = number;
        assert!(started.elapsed() < Duration::from_secs(120), "{best:?}");
        thread::sleep(Duration::from_millis(20));
    }
    let address = author.address();
    let mut follower =
        Node::start(second.path(), &[&pace[..], &["--follow", "--bootnodes", &address]].concat());
    follower.wait_for_finalized(14);
    for number in 1..=12 {
        let hash = author.block_hash(number);
        assert_eq!(best.get(&number).unwrap_or(&hash), &hash, "{number}");
        assert_eq!(follower.block_hash(number), hash, "{number}");
    }
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
