//! How full a run of 256 miners and 64 validators makes the blocks of the node, with everybody's work of a window and the scores
//! of the one before.
//!
//! Without nextest's capture of output it prints the table of docs/COST.md. Its times are the node's own, of the Wasm runtime
//! on its database.

use codec::Compact;
use pallet_gauntlet::{PaidWindow, PaidWindows, WindowStatus};
use protocol::settings::PPM;
use runtime::{limits::RuntimeBlockWeights, Runtime};
use sp_io::hashing::twox_128;

use crate::{
    process::Node,
    work::{record, settings, storage, storage_at, Crowd, RUN},
};

const MINERS: u16 = 256;
const VALIDATORS: u16 = 64;
/// Blocks between the run's creation and its first window, in which all register.
const LEAD_BLOCKS: u32 = 24;

/// What a class of transactions used of a block: time in ps, and bytes of proof.
type Used = (Compact<u64>, Compact<u64>);

/// What ordinary transactions, work and hooks used of a block's time, in thousandths.
fn used(node: &Node, block: u64) -> [u64; 3] {
    let key = [twox_128(b"System"), twox_128(b"BlockWeight")].concat();
    let used: [Used; 3] =
        storage_at(node, &key, &node.block_hash(block)).expect("a block has a weight");
    let max = RuntimeBlockWeights::get().max_block.ref_time();
    used.map(|(time, _)| time.0 * 1_000 / max)
}

/// The milliseconds in which the node says that it made a block.
fn milliseconds(log: &str, block: u64) -> u64 {
    let made = format!("Prepared block for proposing at {block} (");
    let (_, rest) = log.split_once(&made).expect("the node made the block");
    let (number, _) = rest.split_once(" ms").expect("it says in what time");
    number.parse().expect("it is a number")
}

#[test]
fn a_window_of_256_miners_and_64_validators_leaves_room_in_every_block_of_the_node() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut node = Node::start(folder.path(), &["--dev", "--block-millis", "1000"]);
    node.wait_for_finalized(1);
    let node = &node;
    let mut settings = settings();
    settings.incentive.uid_max = MINERS;
    settings.entry.price_rise_ppm = PPM;
    let mut crowd = Crowd::register(node, settings, LEAD_BLOCKS, (MINERS, VALIDATORS));
    crowd.commit(0);
    crowd.reveal(0);
    crowd.attest(0);
    crowd.commit_scores(0);
    crowd.commit(1);
    crowd.reveal_scores(0);
    crowd.reveal(1);
    crowd.attest(1);
    let blocks = crowd.block(1, 0)..crowd.block(2, 0);
    node.wait_for_best(blocks.end);

    let (latest, sizes) = crowd.check_in_time(crowd.block(0, 0)..blocks.end);
    let log = node.log();
    println!("| block | bytes | ordinary, ‰ | work, ‰ | hooks, ‰ | ms |");
    println!("|---|---|---|---|---|---|");
    let mut hooks_of = Vec::new();
    for block in blocks.clone() {
        let [ordinary, work, hooks] = used(node, block);
        let (offset, took) = (block - blocks.start, milliseconds(&log, block));
        println!("| {offset} | {} | {ordinary} | {work} | {hooks} | {took} |", sizes[&block]);
        let sum = ordinary + work + hooks;
        assert!(sum < 500, "{sum} thousandths of block {offset} are used");
        hooks_of.push(hooks);
    }
    println!("the latest work {latest} blocks after it was handed over");
    // The settlement of window 0 is done in the block in which it is due, and pays everybody.
    let due = crowd.schedule().score_reveal_end as usize;
    assert!(hooks_of[due] > 10 * hooks_of[due + 1], "the settlement goes on");
    let paid = storage::<PaidWindow>(node, &PaidWindows::<Runtime>::hashed_key_for(RUN, 0));
    let paid = paid.expect("the window is settled");
    assert_eq!(paid.validators.len(), usize::from(VALIDATORS));
    let status = |window| record(node, window).expect("the window is kept").status;
    assert_eq!(status(0), WindowStatus::Settled);
    assert_eq!(status(1), WindowStatus::Accepted);
    let accepted = record(node, 1).expect("the window is kept").accepted;
    assert!(!accepted.is_empty(), "updates are accepted");
}
