//! A node that is flooded, with as many of 1,000 transactions a second as the machine can sign and take: tipped transfers
//! that fill its blocks, and junk that looks like work. The work of a window comes into its phases, from keys that own nothing.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use codec::{Decode, Encode};
use pallet_gauntlet::{
    account_bytes, Bitmap, Call, Commitments, LayoutVec, RevealedChunk, RevealedChunks,
    WindowRecord, WindowStatus, Windows,
};
use protocol::{
    accept::bitmap_of,
    commitment::{
        attestation_commitment_hash, challenged_chunks, commitment_hash, score_commitment_hash,
        AttestationOpening, Opening,
    },
    consensus::Evaluation,
    consent::{hot_key_consent, Role},
    layout::kept,
    merkle,
    settings::{Settings, SCORE_VERSION},
    update::{encode_chunk, Chunk},
    window::{Phase, Schedule, ScorePhase},
    Hash, RunId, Uid, Window,
};
use runtime::{
    transactions::sign, AccountId, Balance, Runtime, RuntimeCall, UncheckedExtrinsic, UNIT,
};
use serde_json::{json, Value};
use sp_core::{sr25519, Pair, H256};
use sp_keyring::Sr25519Keyring;
use sp_runtime::{MultiAddress, MultiSignature};

use crate::process::Node;

const RUN: RunId = 0;
const MINERS: u16 = 8;
const VALIDATORS: u16 = 3;
const BLOCK_MILLIS: &str = "1000";
/// Blocks between the run's creation and its first window.
const LEAD_BLOCKS: u32 = 14;
/// Values of the model, one chunk.
const VALUES: u32 = 8;
/// Who sends transactions of each kind, how many in a batch, and the pause between two: 1,000 a second of both kinds.
const SENDERS: usize = 10;
const BATCH: usize = 5;
const BATCH_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a tipped transfer's address: 250 of them fill a block, of which there is one a second.
const ADDRESS_BYTES: usize = 16_000;
/// Bytes from which on a block is full but for a last transfer.
const FULL_BYTES: usize = 3_900_000;

fn schedule(start_block: u32) -> Schedule {
    Schedule {
        start_block,
        window_blocks: 26,
        commit_end: 6,
        reveal_end: 11,
        attest_commit_end: 16,
        attest_end: 21,
        score_commit_end: 5,
        score_reveal_end: 10,
    }
}

fn settings(start_block: u32) -> Settings {
    let mut settings = Settings::example();
    settings.schedule = schedule(start_block);
    settings
}

fn chunk() -> Vec<u8> {
    let keep = Settings::example().training.keep;
    let count = kept(VALUES, keep);
    let codes = vec![1; usize::from(count)];
    let chunk = Chunk { scale_bf16: 0x3c00, indices: (0..count).collect(), codes };
    encode_chunk(&chunk, VALUES, keep).expect("the chunk is valid")
}

/// A key that no money ever comes to.
fn hot(role: &str, number: u16) -> sr25519::Pair {
    sr25519::Pair::from_seed(&sp_io::hashing::blake2_256(format!("{role} {number}").as_bytes()))
}

fn account(pair: &sr25519::Pair) -> AccountId {
    pair.public().into()
}

fn text(extrinsic: &UncheckedExtrinsic) -> String {
    sp_core::bytes::to_hex(&extrinsic.encode(), false)
}

/// Signs for one chain, with each signer's next nonce.
struct Signers {
    genesis: H256,
    nonces: HashMap<AccountId, u32>,
}

impl Signers {
    fn sign(
        &mut self,
        signer: &sr25519::Pair,
        tip: Balance,
        call: impl Into<RuntimeCall>,
    ) -> String {
        let nonce = self.nonces.entry(account(signer)).or_default();
        let signed = sign(signer, *nonce, tip, self.genesis, call);
        *nonce += 1;
        text(&signed)
    }

    /// The signer's last transaction was refused: its nonce is free.
    fn take_back(&mut self, signer: &sr25519::Pair) {
        self.nonces.entry(account(signer)).and_modify(|nonce| *nonce -= 1);
    }
}

/// Every miner's opening of its update, which differ by their salts and states alone: nobody's is a copy.
fn opening(uid: Uid) -> Opening {
    let leaf = merkle::leaf_hash(0, &chunk_of(uid));
    Opening {
        payload_root: merkle::root_of_leaf_hashes(&[leaf]).expect("there is a leaf"),
        chunk_count: 1,
        byte_len: 8,
        base_state_root: [0; 32],
        salt: [uid as u8; 32],
    }
}

/// The miner's only chunk: its own scale makes it another one than everybody's.
fn chunk_of(uid: Uid) -> Vec<u8> {
    let mut bytes = chunk();
    bytes[0] = uid as u8;
    bytes
}

fn commit_call(genesis: &Hash, window: Window, uid: Uid) -> Call<Runtime> {
    let key = account_bytes(&account(&hot("miner", uid)));
    let hash = commitment_hash(genesis, RUN, window, &key, &opening(uid));
    Call::commit_update { run: RUN, window, hash }
}

fn reveal_call(seed: &Hash, window: Window, uid: Uid) -> Call<Runtime> {
    let asked = challenged_chunks(seed, RUN, window, uid, 1, 2);
    let chunks = asked.into_iter().map(|index| RevealedChunk {
        index,
        chunk: chunk_of(uid).try_into().expect("a chunk fits"),
        proof: Default::default(),
    });
    let chunks = RevealedChunks::truncate_from(chunks.collect());
    Call::reveal_update { run: RUN, window, opening: opening(uid), chunks }
}

/// The calls with which a validator commits to an attestation and reveals it.
fn attest_calls(genesis: &Hash, window: Window, index: u16) -> [Call<Runtime>; 2] {
    let uids: Vec<Uid> = (0..MINERS).collect();
    let (state_root, salt) = ([0; 32], [index as u8; 32]);
    let opening = AttestationOpening { bitmap: bitmap_of(&uids), state_root, salt };
    let key = account_bytes(&account(&hot("validator", index)));
    let hash = attestation_commitment_hash(genesis, RUN, window, &key, &opening);
    let bitmap = Bitmap::truncate_from(opening.bitmap);
    [
        Call::commit_attestation { run: RUN, window, hash },
        Call::reveal_attestation { run: RUN, window, bitmap, state_root, salt },
    ]
}

/// The calls with which a validator commits to scores and reveals them.
fn score_calls(genesis: &Hash, window: Window, index: u16) -> [Call<Runtime>; 2] {
    let before = 4 << 24;
    let evaluations: Vec<Evaluation> = (0..MINERS)
        .map(|uid| Evaluation {
            uid,
            own_before: before,
            own_after: before - 1_000_000,
            random_before: before,
            random_after: before - 500_000,
        })
        .collect();
    let (key, salt) = (account_bytes(&account(&hot("validator", index))), [index as u8; 32]);
    let hash =
        score_commitment_hash(genesis, RUN, window, &key, &evaluations, SCORE_VERSION, &salt);
    let evaluations = evaluations.try_into().expect("the evaluations fit");
    [
        Call::commit_scores { run: RUN, window, hash, version: SCORE_VERSION },
        Call::reveal_scores { run: RUN, window, evaluations, salt, version: SCORE_VERSION },
    ]
}

fn record(node: &Node, window: Window) -> Option<WindowRecord> {
    storage(node, &Windows::<Runtime>::hashed_key_for(RUN, window))
}

fn storage<T: Decode>(node: &Node, key: &[u8]) -> Option<T> {
    let key = sp_core::bytes::to_hex(key, false);
    let value = node.call("state_getStorage", json!([key]));
    let bytes = sp_core::bytes::from_hex(value.as_str()?).expect("storage is hexadecimal");
    Some(T::decode(&mut &bytes[..]).expect("the record is the runtime's"))
}

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
    let mut signers = Signers { genesis, nonces: HashMap::new() };
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

/// Creates the run and registers everybody with Alice's money.
fn register(node: &Node, signers: &mut Signers) -> Schedule {
    let start_block = node.best_number() as u32 + LEAD_BLOCKS;
    let mut calls = vec![Call::create_run {
        settings: Box::new(settings(start_block)),
        layout: LayoutVec::truncate_from(vec![u64::from(VALUES)]),
    }];
    let alice = Sr25519Keyring::Alice.pair();
    let (genesis, cold) = (signers.genesis.into(), account_bytes(&account(&alice)));
    let consent = |role, hot: &sr25519::Pair| {
        MultiSignature::Sr25519(hot.sign(&hot_key_consent(&genesis, RUN, role, &cold)))
    };
    calls.extend((0..MINERS).map(|uid| {
        let hot = hot("miner", uid);
        let proof = consent(Role::Miner, &hot);
        Call::register_miner { run: RUN, hot: account(&hot), proof, max_price: Balance::MAX }
    }));
    calls.extend((0..VALIDATORS).map(|index| {
        let hot = hot("validator", index);
        let proof = consent(Role::Validator, &hot);
        Call::register_validator { run: RUN, hot: account(&hot), proof, stake: 1_000 * UNIT }
    }));
    for call in calls {
        let bytes = signers.sign(&alice, 0, call);
        node.call("author_submitExtrinsic", json!([bytes]));
    }
    schedule(start_block)
}

/// The work that was handed over, with the blocks in which it is in time: from the block after the head of then to the
/// phase's end.
struct Due {
    name: String,
    /// Signed once, or again for the same nonce: a block has one of them.
    tries: Vec<String>,
    handed: u64,
    end: u32,
}

/// Hands work over. A pool that is flooded may look at a block behind the head and refuse what is too early there, and
/// include it all the same: then the work is signed for the same nonce and handed over again.
fn hand_over(
    node: &Node,
    signers: &mut Signers,
    end: Option<u32>,
    calls: impl Iterator<Item = (String, sr25519::Pair, Call<Runtime>)>,
) -> Vec<Due> {
    let end = end.expect("the window is near");
    calls
        .map(|(name, signer, call)| {
            let handed = node.best_number();
            let mut tries = Vec::new();
            loop {
                tries.push(signers.sign(&signer, 0, call.clone()));
                let answer = node.batch("author_submitExtrinsic", vec![json!([tries.last()])]);
                let is_included = answer[0]["error"]["data"] == "Transaction is outdated";
                if is_included || answer[0].get("result").is_some() {
                    break Due { name, tries, handed, end };
                }
                assert!(node.best_number() + 1 < end.into(), "{name}: {answer:?}");
                signers.take_back(&signer);
            }
        })
        .collect()
}

/// The blocks in which the transactions are, and the bytes of each block.
fn look(node: &Node, blocks: std::ops::Range<u32>) -> (HashMap<String, u32>, HashMap<u32, usize>) {
    let (mut places, mut sizes) = (HashMap::new(), HashMap::new());
    for number in blocks {
        let block = node.call("chain_getBlock", json!([node.block_hash(number.into())]));
        let Some(Value::Array(extrinsics)) = block["block"].get("extrinsics").cloned() else {
            panic!("block {number} has no extrinsics");
        };
        let mut size = 0;
        for extrinsic in extrinsics {
            let Value::String(bytes) = extrinsic else { panic!("an extrinsic is text") };
            size += bytes.len() / 2;
            places.insert(bytes, number);
        }
        sizes.insert(number, size);
    }
    (places, sizes)
}

#[test]
fn no_work_is_late_on_a_flooded_node() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut node = Node::start(folder.path(), &["--dev", "--block-millis", BLOCK_MILLIS]);
    node.wait_for_finalized(1);
    let genesis: H256 = node.block_hash(0).parse().expect("a hash");
    let genesis_bytes: Hash = genesis.into();
    let mut signers = Signers { genesis, nonces: HashMap::new() };
    let schedule = register(&node, &mut signers);
    let block = |offset: u32| u64::from(schedule.start_block + offset);
    node.wait_for_best(block(0) - 4);

    let is_over = AtomicBool::new(false);
    let (tips, junk) = (Sent::default(), Sent::default());
    let started = Instant::now();
    let miners = |call: &dyn Fn(Uid) -> Call<Runtime>| {
        (0..MINERS)
            .map(|uid| (format!("miner {uid}"), hot("miner", uid), call(uid)))
            .collect::<Vec<_>>()
            .into_iter()
    };
    let validators = |call: &dyn Fn(u16) -> Call<Runtime>| {
        (0..VALIDATORS)
            .map(|index| (format!("validator {index}"), hot("validator", index), call(index)))
            .collect::<Vec<_>>()
            .into_iter()
    };
    let due = thread::scope(|scope| {
        let (node, is_over, tips, junk) = (&node, &is_over, &tips, &junk);
        for sender in 0..SENDERS {
            scope.spawn(move || flood_with_tips(node, genesis, sender, is_over, tips));
            scope.spawn(move || flood_with_junk(node, genesis, sender, is_over, junk));
        }
        // Whatever fails below ends the flood.
        let work = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut due = Vec::new();
            node.wait_for_best(block(0));
            let end = schedule.phase_end_block(0, Phase::Commit);
            let commits = miners(&|uid| commit_call(&genesis_bytes, 0, uid));
            due.extend(hand_over(node, &mut signers, end, commits));

            node.wait_for_best(block(schedule.challenge_offset()));
            let seed = record(node, 0).and_then(|record| record.challenge_seed);
            let seed = seed.expect("the challenge is drawn");
            let end = schedule.phase_end_block(0, Phase::Reveal);
            let reveals = miners(&|uid| reveal_call(&seed, 0, uid));
            due.extend(hand_over(node, &mut signers, end, reveals));

            node.wait_for_best(block(schedule.reveal_end));
            let attest =
                |index, which: usize| attest_calls(&genesis_bytes, 0, index)[which].clone();
            let end = schedule.phase_end_block(0, Phase::AttestCommit);
            let commits = validators(&|index| attest(index, 0));
            due.extend(hand_over(node, &mut signers, end, commits));
            node.wait_for_best(block(schedule.attest_commit_end));
            let end = schedule.phase_end_block(0, Phase::AttestReveal);
            let reveals = validators(&|index| attest(index, 1));
            due.extend(hand_over(node, &mut signers, end, reveals));

            let score = |index, which: usize| score_calls(&genesis_bytes, 0, index)[which].clone();
            node.wait_for_best(block(schedule.window_blocks));
            let end = schedule.score_phase_end_block(0, ScorePhase::Commit);
            let commits = validators(&|index| score(index, 0));
            due.extend(hand_over(node, &mut signers, end, commits));
            node.wait_for_best(block(schedule.window_blocks + schedule.score_commit_end));
            let end = schedule.score_phase_end_block(0, ScorePhase::Reveal);
            let reveals = validators(&|index| score(index, 1));
            due.extend(hand_over(node, &mut signers, end, reveals));
            node.wait_for_best(block(schedule.window_blocks + schedule.score_reveal_end + 2));
            due
        }));
        is_over.store(true, Ordering::Relaxed);
        work.unwrap_or_else(|failure| std::panic::resume_unwind(failure))
    });
    let seconds = started.elapsed().as_secs_f64();

    let end = schedule.start_block + schedule.window_blocks + schedule.score_reveal_end;
    let (places, sizes) = look(&node, schedule.start_block..end);
    let mut latest = 0;
    for Due { name, tries, handed, end } in &due {
        let place = tries.iter().find_map(|bytes| places.get(bytes));
        let place = place.unwrap_or_else(|| panic!("the work of {name} is nowhere"));
        assert!(place < end, "the work of {name} is late");
        latest = latest.max(u64::from(*place).saturating_sub(*handed));
    }
    assert_eq!(due.len(), usize::from(2 * MINERS + 4 * VALIDATORS));
    let full = sizes.values().filter(|size| **size >= FULL_BYTES).count();
    let ((tips_sent, tips_taken), (junk_sent, junk_taken)) = (tips.counts(), junk.counts());
    let retried: usize = due.iter().map(|due| due.tries.len() - 1).sum();
    println!(
        "{seconds:.0} s: {:.0} transactions a second; of {tips_sent} tipped transfers the pool took {tips_taken}, of \
         {junk_sent} of junk {junk_taken}; {full} of {} blocks full; {} of work, {retried} times \
         handed over again, the latest {latest} blocks after it was first handed over",
        (tips_sent + junk_sent) as f64 / seconds,
        sizes.len(),
        due.len(),
    );
    assert_eq!(junk_taken, 0, "junk is refused before the pool");
    assert!(full * 2 >= sizes.len(), "{full} of {} blocks were full", sizes.len());
    // What was included did what it should: the window was agreed on, and settled.
    let record = record(&node, 0).expect("the window is kept");
    assert_eq!(record.state_root, Some([0; 32]));
    assert_eq!(record.accepted.len(), usize::from(MINERS));
    assert_eq!(record.status, WindowStatus::Settled);
    for uid in 0..MINERS {
        let key = Commitments::<Runtime>::hashed_key_for((RUN, 0, uid));
        assert!(storage::<pallet_gauntlet::Commitment>(&node, &key).is_some());
    }
}
