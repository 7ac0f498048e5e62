//! A node that is flooded, with as many of 1,000 transactions a second as the machine can sign and take: tipped transfers
//! that fill its blocks, and junk that looks like work. The work of a window comes into its phases, from keys that own nothing.

use std::{
    panic::{catch_unwind, resume_unwind, AssertUnwindSafe},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use pallet_gauntlet::{Call, Commitment, Commitments, WindowStatus};
use protocol::Uid;
use runtime::{transactions::sign, Balance, Runtime, UNIT};
use serde_json::json;
use sp_core::H256;
use sp_keyring::Sr25519Keyring;
use sp_runtime::MultiAddress;

use crate::{
    process::Node,
    work::{account, hot, record, settings, storage, text, Crowd, Signers, RUN, STATE_ROOT},
};

const MINERS: u16 = 8;
const VALIDATORS: u16 = 3;
const BLOCK_MILLIS: &str = "1000";
/// Blocks between the run's creation and its first window.
const LEAD_BLOCKS: u32 = 14;
/// Who sends transactions of each kind, how many in a batch, and the pause between two: 1,000 a second of both kinds.
const SENDERS: usize = 10;
const BATCH: usize = 5;
const BATCH_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a tipped transfer's address: 250 of them fill a block, of which there is one a second.
const ADDRESS_BYTES: usize = 16_000;
/// Bytes from which on a block is full but for a last transfer.
const FULL_BYTES: usize = 3_900_000;

/// How many transactions the node was sent, and took.
#[derive(Default)]
struct Sent {
    sent: AtomicU64,
    taken: AtomicU64,
}

impl Sent {
    fn send(&self, node: &Node, transactions: Vec<String>) {
        let answers = node.batch(
            "author_submitExtrinsic",
            transactions.into_iter().map(|bytes| json!([bytes])).collect(),
        );
        let taken = answers.iter().filter(|answer| answer.get("result").is_some()).count();
        self.sent.fetch_add(answers.len() as u64, Ordering::Relaxed);
        self.taken.fetch_add(taken as u64, Ordering::Relaxed);
    }

    fn counts(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.taken.load(Ordering::Relaxed))
    }
}

/// Calls `send` at the rate of a batch a pause until the flood is over.
fn at_rate(is_over: &AtomicBool, mut send: impl FnMut(u32)) {
    let started = Instant::now();
    let mut round = 0u32;
    while !is_over.load(Ordering::Relaxed) {
        send(round);
        round += 1;
        let due = BATCH_PAUSE * round;
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
}

/// Tipped transfers that are long, from somebody who has money and is not Alice.
fn flood_with_tips(node: &Node, genesis: H256, sender: usize, is_over: &AtomicBool, sent: &Sent) {
    let payer = Sr25519Keyring::iter().nth(1 + sender).expect("there are as many keys").pair();
    let mut signers = Signers::new(genesis);
    at_rate(is_over, |round| {
        let next = node.call("system_accountNextIndex", json!([account(&payer)]));
        let next = next.as_u64().expect("a nonce is a number") as u32;
        signers.nonces.insert(account(&payer), next);
        let transfers = (0..BATCH).map(|number| {
            let call = pallet_balances::Call::<Runtime>::transfer_keep_alive {
                dest: MultiAddress::Raw(vec![round as u8; ADDRESS_BYTES]),
                value: 1,
            };
            signers.sign(&payer, UNIT + number as Balance, call)
        });
        sent.send(node, transfers.collect());
    });
}

/// What looks like work: of strangers, of somebody with money, and of miners for another window.
fn flood_with_junk(node: &Node, genesis: H256, sender: usize, is_over: &AtomicBool, sent: &Sent) {
    let rich = Sr25519Keyring::Alice.pair();
    at_rate(is_over, |round| {
        let junk = (0..BATCH).map(|number| {
            let number = sender * BATCH + number;
            let hash = H256::from_low_u64_be(u64::from(round) << 16 | number as u64);
            let (signer, nonce, window) = match number % 3 {
                0 => (&hot("stranger", number as u16), 0, 0),
                1 => (&rich, 1_000_000, 0),
                _ => (&hot("miner", number as u16 % MINERS), round % 4, 9),
            };
            let call = Call::<Runtime>::commit_update { run: RUN, window, hash: hash.into() };
            text(&sign(signer, nonce, 100 * UNIT, genesis, call))
        });
        sent.send(node, junk.collect());
    });
}

#[test]
fn no_work_is_late_on_a_flooded_node() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut node = Node::start(folder.path(), &["--dev", "--block-millis", BLOCK_MILLIS]);
    node.wait_for_finalized(1);
    let node = &node;
    let mut crowd = Crowd::register(node, settings(), LEAD_BLOCKS, (MINERS, VALIDATORS));
    let genesis = crowd.signers.genesis;
    node.wait_for_best(crowd.block(0, 0) - 4);

    let is_over = &AtomicBool::new(false);
    let (tips, junk) = (&Sent::default(), &Sent::default());
    let started = Instant::now();
    let settled = crowd.block(1, crowd.schedule().score_reveal_end);
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            scope.spawn(move || flood_with_tips(node, genesis, sender, is_over, tips));
            scope.spawn(move || flood_with_junk(node, genesis, sender, is_over, junk));
        }
        // Whatever fails below ends the flood.
        let work = catch_unwind(AssertUnwindSafe(|| {
            crowd.commit(0);
            crowd.reveal(0);
            crowd.attest(0);
            crowd.commit_scores(0);
            crowd.reveal_scores(0);
            node.wait_for_best(settled + 2);
        }));
        is_over.store(true, Ordering::Relaxed);
        work.unwrap_or_else(|failure| resume_unwind(failure));
    });
    let seconds = started.elapsed().as_secs_f64();

    let (latest, sizes) = crowd.check_in_time(crowd.block(0, 0)..settled);
    assert_eq!(crowd.due.len(), usize::from(2 * MINERS + 4 * VALIDATORS));
    let full = sizes.values().filter(|size| **size >= FULL_BYTES).count();
    let ((tips_sent, tips_taken), (junk_sent, junk_taken)) = (tips.counts(), junk.counts());
    let retried: usize = crowd.due.iter().map(|due| due.tries.len() - 1).sum();
    println!(
        "{seconds:.0} s: {:.0} transactions a second; of {tips_sent} tipped transfers the pool took {tips_taken}, of \
         {junk_sent} of junk {junk_taken}; {full} of {} blocks full; {} of work, {retried} times \
         handed over again, the latest {latest} blocks after it was first handed over",
        (tips_sent + junk_sent) as f64 / seconds,
        sizes.len(),
        crowd.due.len(),
    );
    assert_eq!(junk_taken, 0, "junk is refused before the pool");
    assert!(full * 2 >= sizes.len(), "{full} of {} blocks were full", sizes.len());
    // What was included did what it should: the window was agreed on, and settled.
    let record = record(node, 0).expect("the window is kept");
    assert_eq!(record.state_root, Some(STATE_ROOT));
    assert_eq!(record.accepted.len(), usize::from(MINERS));
    assert_eq!(record.status, WindowStatus::Settled);
    for uid in 0..MINERS as Uid {
        let key = Commitments::<Runtime>::hashed_key_for((RUN, 0, uid));
        assert!(storage::<Commitment>(node, &key).is_some());
    }
}
