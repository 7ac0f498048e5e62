//! A run on a development chain, and the work of its windows as transactions: from keys that own nothing, with updates of one
//! chunk.

use std::collections::HashMap;

use codec::{Decode, Encode};
use pallet_gauntlet::{
    account_bytes, Bitmap, Call, LayoutVec, Permits, RevealedChunk, RevealedChunks, WindowRecord,
    Windows,
};
use protocol::{
    accept::bitmap_of,
    books::{draw, Permit},
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
use sp_runtime::MultiSignature;

use crate::process::Node;

pub(crate) const RUN: RunId = 0;
/// Values of the model, one chunk.
const VALUES: u32 = 8;
/// The root of all parameters, in every window.
pub(crate) const STATE_ROOT: Hash = [0; 32];

/// The example's settings for a run of short windows.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::example();
    settings.schedule = Schedule {
        start_block: 0,
        window_blocks: 26,
        commit_end: 6,
        reveal_end: 11,
        attest_commit_end: 16,
        attest_end: 21,
        score_commit_end: 5,
        score_reveal_end: 10,
    };
    settings
}

/// A key that no money ever comes to.
pub(crate) fn hot(role: &str, number: u16) -> sr25519::Pair {
    sr25519::Pair::from_seed(&sp_io::hashing::blake2_256(format!("{role} {number}").as_bytes()))
}

pub(crate) fn account(pair: &sr25519::Pair) -> AccountId {
    pair.public().into()
}

pub(crate) fn text(extrinsic: &UncheckedExtrinsic) -> String {
    sp_core::bytes::to_hex(&extrinsic.encode(), false)
}

/// Signs for one chain, with each signer's next nonce.
pub(crate) struct Signers {
    pub(crate) genesis: H256,
    pub(crate) nonces: HashMap<AccountId, u32>,
}

impl Signers {
    pub(crate) fn new(genesis: H256) -> Self {
        Self { genesis, nonces: HashMap::new() }
    }

    pub(crate) fn sign(
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

/// The miner's only chunk: its own scale makes it another one than everybody's.
fn chunk_of(uid: Uid) -> Vec<u8> {
    let keep = Settings::example().training.keep;
    let count = kept(VALUES, keep);
    let codes = vec![1; usize::from(count)];
    let chunk = Chunk { scale_bf16: 0x3c00 + uid, indices: (0..count).collect(), codes };
    encode_chunk(&chunk, VALUES, keep).expect("the chunk is valid")
}

/// Every miner's opening of its update, which differ by their salts and states alone: nobody's is a copy.
fn opening(uid: Uid) -> Opening {
    let leaf = merkle::leaf_hash(0, &chunk_of(uid));
    Opening {
        payload_root: merkle::root_of_leaf_hashes(&[leaf]).expect("there is a leaf"),
        chunk_count: 1,
        byte_len: 8,
        base_state_root: STATE_ROOT,
        salt: [uid as u8; 32],
    }
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

/// The calls with which a validator commits to an attestation that `uids` delivered, and reveals it.
fn attest_calls(genesis: &Hash, window: Window, index: u16, uids: &[Uid]) -> [Call<Runtime>; 2] {
    let (state_root, salt) = (STATE_ROOT, [index as u8; 32]);
    let opening = AttestationOpening { bitmap: bitmap_of(uids), state_root, salt };
    let key = account_bytes(&account(&hot("validator", index)));
    let hash = attestation_commitment_hash(genesis, RUN, window, &key, &opening);
    let bitmap = Bitmap::truncate_from(opening.bitmap);
    [
        Call::commit_attestation { run: RUN, window, hash },
        Call::reveal_attestation { run: RUN, window, bitmap, state_root, salt },
    ]
}

/// The calls with which a validator commits to scores of `uids` and reveals them.
fn score_calls(genesis: &Hash, window: Window, index: u16, uids: &[Uid]) -> [Call<Runtime>; 2] {
    let before = 4 << 24;
    let measure = |uid: &Uid| Evaluation {
        uid: *uid,
        own_before: before,
        own_after: before - 1_000_000,
        random_before: before,
        random_after: before - 500_000,
    };
    let evaluations: Vec<Evaluation> = uids.iter().map(measure).collect();
    let (key, salt) = (account_bytes(&account(&hot("validator", index))), [index as u8; 32]);
    let hash =
        score_commitment_hash(genesis, RUN, window, &key, &evaluations, SCORE_VERSION, &salt);
    let evaluations = evaluations.try_into().expect("the evaluations fit");
    [
        Call::commit_scores { run: RUN, window, hash, version: SCORE_VERSION },
        Call::reveal_scores { run: RUN, window, evaluations, salt, version: SCORE_VERSION },
    ]
}

pub(crate) fn record(node: &Node, window: Window) -> Option<WindowRecord> {
    storage(node, &Windows::<Runtime>::hashed_key_for(RUN, window))
}

/// What is stored under a key after the best block.
pub(crate) fn storage<T: Decode>(node: &Node, key: &[u8]) -> Option<T> {
    decode(node.call("state_getStorage", json!([sp_core::bytes::to_hex(key, false)])))
}

/// What was stored under a key after the block with a hash.
pub(crate) fn storage_at<T: Decode>(node: &Node, key: &[u8], block: &str) -> Option<T> {
    decode(node.call("state_getStorage", json!([sp_core::bytes::to_hex(key, false), block])))
}

fn decode<T: Decode>(value: Value) -> Option<T> {
    let bytes = sp_core::bytes::from_hex(value.as_str()?).expect("storage is hexadecimal");
    Some(T::decode(&mut &bytes[..]).expect("the value is the runtime's"))
}

/// The work that was handed over, with the blocks in which it is in time: from the block after the head of then to the
/// phase's end.
pub(crate) struct Due {
    pub(crate) name: String,
    /// Signed once, or again for the same nonce: a block has one of them.
    pub(crate) tries: Vec<String>,
    pub(crate) handed: u64,
    pub(crate) end: u32,
}

/// A run whose miners and validators all work: what they hand over is told.
pub(crate) struct Crowd<'a> {
    node: &'a Node,
    pub(crate) signers: Signers,
    settings: Settings,
    miners: u16,
    validators: u16,
    pub(crate) due: Vec<Due>,
}

impl<'a> Crowd<'a> {
    /// Creates and funds the run, of which window 0 begins `lead` blocks later, and registers everybody with Alice's money.
    pub(crate) fn register(
        node: &'a Node,
        mut settings: Settings,
        lead: u32,
        (miners, validators): (u16, u16),
    ) -> Self {
        settings.schedule.start_block = node.best_number() as u32 + lead;
        let genesis: H256 = node.block_hash(0).parse().expect("a hash");
        let signers = Signers::new(genesis);
        let due = Vec::new();
        let mut crowd = Self { node, signers, settings, miners, validators, due };
        let alice = Sr25519Keyring::Alice.pair();
        let calls: Vec<String> = crowd
            .registrations(account_bytes(&account(&alice)))
            .into_iter()
            .map(|call| crowd.signers.sign(&alice, 0, call))
            .collect();
        for bytes in calls {
            node.call("author_submitExtrinsic", json!([bytes]));
        }
        crowd
    }

    fn registrations(&self, cold: Hash) -> Vec<Call<Runtime>> {
        let genesis = self.genesis();
        let consent = |role, hot: &sr25519::Pair| {
            MultiSignature::Sr25519(hot.sign(&hot_key_consent(&genesis, RUN, role, &cold)))
        };
        let create = Call::create_run {
            settings: Box::new(self.settings.clone()),
            layout: LayoutVec::truncate_from(vec![u64::from(VALUES)]),
        };
        let fund = Call::fund_run { run: RUN, amount: 1_000 * UNIT, per_window: 100 * UNIT };
        let mut calls = vec![create, fund];
        calls.extend((0..self.miners).map(|uid| {
            let hot = hot("miner", uid);
            let proof = consent(Role::Miner, &hot);
            Call::register_miner { run: RUN, hot: account(&hot), proof, max_price: Balance::MAX }
        }));
        calls.extend((0..self.validators).map(|index| {
            let hot = hot("validator", index);
            let proof = consent(Role::Validator, &hot);
            Call::register_validator { run: RUN, hot: account(&hot), proof, stake: 1_000 * UNIT }
        }));
        calls
    }

    fn genesis(&self) -> Hash {
        self.signers.genesis.into()
    }

    pub(crate) fn schedule(&self) -> &Schedule {
        &self.settings.schedule
    }

    /// The block at an offset of a window.
    pub(crate) fn block(&self, window: Window, offset: u32) -> u64 {
        let start = self.schedule().window_start(window).expect("the window is near");
        u64::from(start + offset)
    }

    fn uids(&self) -> Vec<Uid> {
        (0..self.miners).collect()
    }

    /// Commits to everybody's update of a window.
    pub(crate) fn commit(&mut self, window: Window) {
        self.node.wait_for_best(self.block(window, 0));
        let genesis = self.genesis();
        let end = self.schedule().phase_end_block(window, Phase::Commit);
        self.of_miners(end, |uid| commit_call(&genesis, window, uid));
    }

    /// Reveals them, as soon as the chunks to be shown are drawn.
    pub(crate) fn reveal(&mut self, window: Window) {
        self.node.wait_for_best(self.block(window, self.schedule().challenge_offset()));
        let seed = record(self.node, window).and_then(|record| record.challenge_seed);
        let seed = seed.expect("the challenge is drawn");
        let end = self.schedule().phase_end_block(window, Phase::Reveal);
        self.of_miners(end, |uid| reveal_call(&seed, window, uid));
    }

    /// Commits to everybody's attestation of a window, and reveals it.
    pub(crate) fn attest(&mut self, window: Window) {
        let (genesis, uids) = (self.genesis(), self.uids());
        let Schedule { reveal_end, attest_commit_end, .. } = *self.schedule();
        let steps =
            [(0, reveal_end, Phase::AttestCommit), (1, attest_commit_end, Phase::AttestReveal)];
        for (step, offset, phase) in steps {
            self.node.wait_for_best(self.block(window, offset));
            let end = self.schedule().phase_end_block(window, phase);
            self.of_validators(end, |index| {
                let [commit, reveal] = attest_calls(&genesis, window, index, &uids);
                if step == 0 {
                    commit
                } else {
                    reveal
                }
            });
        }
    }

    /// Commits to everybody's scores of a window, in the next one.
    pub(crate) fn commit_scores(&mut self, window: Window) {
        self.node.wait_for_best(self.block(window + 1, 0));
        let end = self.schedule().score_phase_end_block(window, ScorePhase::Commit);
        self.of_scores(window, end, |[commit, _]| commit);
    }

    /// Reveals them.
    pub(crate) fn reveal_scores(&mut self, window: Window) {
        self.node.wait_for_best(self.block(window + 1, self.schedule().score_commit_end));
        let end = self.schedule().score_phase_end_block(window, ScorePhase::Reveal);
        self.of_scores(window, end, |[_, reveal]| reveal);
    }

    fn of_scores(
        &mut self,
        window: Window,
        end: Option<u32>,
        which: impl Fn([Call<Runtime>; 2]) -> Call<Runtime>,
    ) {
        let genesis = self.genesis();
        let seed = record(self.node, window + 1).expect("the next window is open").seed;
        let permits = Permits::<Runtime>::hashed_key_for(RUN, window);
        let permits: Vec<Permit> = storage(self.node, &permits).expect("the window had some");
        let drawn = draw(&seed, &permits, &self.uids(), &self.settings.incentive);
        self.of_validators(end, |index| {
            which(score_calls(&genesis, window, index, &drawn.of(index)))
        });
    }

    fn of_miners(&mut self, end: Option<u32>, call: impl Fn(Uid) -> Call<Runtime>) {
        for uid in self.uids() {
            self.hand_over(format!("miner {uid}"), &hot("miner", uid), end, call(uid));
        }
    }

    fn of_validators(&mut self, end: Option<u32>, call: impl Fn(u16) -> Call<Runtime>) {
        for index in 0..self.validators {
            self.hand_over(
                format!("validator {index}"),
                &hot("validator", index),
                end,
                call(index),
            );
        }
    }

    /// Hands work over. A pool that is flooded may look at a block behind the head and refuse what is too early there, and
    /// include it all the same: then the work is signed for the same nonce and handed over again.
    fn hand_over(
        &mut self,
        name: String,
        signer: &sr25519::Pair,
        end: Option<u32>,
        call: Call<Runtime>,
    ) {
        let end = end.expect("the window is near");
        let handed = self.node.best_number();
        let mut tries = Vec::new();
        loop {
            tries.push(self.signers.sign(signer, 0, call.clone()));
            let answer = self.node.batch("author_submitExtrinsic", vec![json!([tries.last()])]);
            let is_included = answer[0]["error"]["data"] == "Transaction is outdated";
            if is_included || answer[0].get("result").is_some() {
                break self.due.push(Due { name, tries, handed, end });
            }
            assert!(self.node.best_number() + 1 < end.into(), "{name}: {answer:?}");
            self.signers.take_back(signer);
        }
    }

    /// Checks that all that was handed over is in a block before its phase's end; returns the most blocks that anything waited,
    /// and how many bytes of transactions each block has.
    pub(crate) fn check_in_time(&self, blocks: std::ops::Range<u64>) -> (u64, HashMap<u64, usize>) {
        let (places, sizes) = look(self.node, blocks);
        let mut latest = 0;
        for Due { name, tries, handed, end } in &self.due {
            let place = tries.iter().find_map(|bytes| places.get(bytes));
            let place = place.unwrap_or_else(|| panic!("the work of {name} is nowhere"));
            assert!(*place < u64::from(*end), "the work of {name} is late");
            latest = latest.max(place.saturating_sub(*handed));
        }
        (latest, sizes)
    }
}

/// The blocks in which the transactions are, and the bytes of each block.
fn look(node: &Node, blocks: std::ops::Range<u64>) -> (HashMap<String, u64>, HashMap<u64, usize>) {
    let (mut places, mut sizes) = (HashMap::new(), HashMap::new());
    for number in blocks {
        let block = node.call("chain_getBlock", json!([node.block_hash(number)]));
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
