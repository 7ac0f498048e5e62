//! The real runtime from its own genesis, block by block, with tiny updates in the real format.

use std::collections::HashMap;

use codec::Encode;
use frame_support::traits::Hooks;
use pallet_gauntlet::{
    account_bytes, Bitmap, Call, Claims, LayoutVec, Ledgers, MinerUids, RevealedChunk,
    RevealedChunks, Run, Runs, ShownChunk, WindowRecord, Windows,
};
use protocol::{
    accept::bitmap_of,
    aggregate::{outer_step, OuterRule},
    commitment::{
        attestation_commitment_hash, challenged_chunks, commitment_hash, score_commitment_hash,
        AttestationOpening, Opening,
    },
    consensus::Evaluation,
    consent::{hot_key_consent, peer_consent, Role},
    layout::{Layout, CHUNK_LEN},
    settings::Settings,
    state_root::state_root,
    update::{Encoder, Payload},
    window::Phase,
    Hash, Planck, RunId, Uid, Window,
};
use runtime::{
    AccountId, Balances, BlockNumber, Executive, Gauntlet, Header, Runtime, RuntimeCall,
    RuntimeGenesisConfig, RuntimeOrigin, System, UncheckedExtrinsic, SLOT_MILLIS, UNIT,
};
use serde_json::Value;
use sp_core::{ed25519, sr25519, Pair, H256};
use sp_io::{hashing::blake2_256, TestExternalities};
use sp_keyring::Sr25519Keyring;
use sp_runtime::{
    traits::{Dispatchable, Header as _},
    BuildStorage, Digest, DigestItem, DispatchError,
};

/// The run of every scenario.
pub(crate) const RUN: RunId = 0;
/// What each validator stakes.
pub(crate) const STAKE: Planck = 1_000 * UNIT;
/// The example's, spelled out: parameters that a chunk keeps of 4096.
pub(crate) const KEEP: u16 = 64;
/// The example's, spelled out: the version of what validators measure.
const SCORE_VERSION: u32 = 1;

/// Account `number` of those that the genesis endows.
pub(crate) fn endowed(number: usize) -> AccountId {
    Sr25519Keyring::iter()
        .nth(number)
        .expect("the test keyring has this many accounts")
        .to_account_id()
}

/// Alice, who owns the run.
pub(crate) fn owner() -> AccountId {
    endowed(0)
}

/// The key that signs for miner `number`; it owns nothing.
pub(crate) fn miner_hot(number: u8) -> AccountId {
    miner_key(number).public().into()
}

/// The pair of [`miner_hot`].
pub(crate) fn miner_key(number: u8) -> sr25519::Pair {
    sr25519::Pair::from_seed(&blake2_256(&[b'm', number]))
}

/// The key that owns the bond and pay of miner `number`, at most 5.
pub(crate) fn miner_cold(number: u8) -> AccountId {
    endowed(1 + usize::from(number))
}

/// The key that signs for validator `number`; it owns nothing.
pub(crate) fn validator_hot(number: u8) -> AccountId {
    validator_key(number).public().into()
}

/// The pair of [`validator_hot`].
pub(crate) fn validator_key(number: u8) -> sr25519::Pair {
    sr25519::Pair::from_seed(&blake2_256(&[b'v', number]))
}

/// The consent of a hot key to work for `cold`.
pub(crate) fn consent(
    hot: &sr25519::Pair,
    run: RunId,
    role: Role,
    cold: &AccountId,
) -> sr25519::Signature {
    hot.sign(&hot_key_consent(&genesis_hash(), run, role, &account_bytes(cold)))
}

/// The peer of a number, and its consent to be announced as that of `hot`.
pub(crate) fn peer(number: u8, run: RunId, hot: &AccountId) -> (Vec<u8>, [u8; 64]) {
    let key = ed25519::Pair::from_seed(&[number; 32]);
    let peer_id = [&[0, 36, 8, 1, 18, 32], &key.public().0[..]].concat();
    let message = peer_consent(&genesis_hash(), run, &account_bytes(hot));
    (peer_id, key.sign(&message).0)
}

/// The call with which `cold` registers a miner for whatever that costs.
pub(crate) fn register_miner(hot: &sr25519::Pair, run: RunId, cold: &AccountId) -> Call<Runtime> {
    let proof = consent(hot, run, Role::Miner, cold).into();
    Call::register_miner { run, hot: hot.public().into(), proof, max_price: Planck::MAX }
}

/// The call with which `cold` registers a validator.
pub(crate) fn register_validator(
    hot: &sr25519::Pair,
    run: RunId,
    cold: &AccountId,
    stake: Planck,
) -> Call<Runtime> {
    let proof = consent(hot, run, Role::Validator, cold).into();
    Call::register_validator { run, hot: hot.public().into(), proof, stake }
}

/// The key that owns the stake and pay of validator `number`, at most 6.
pub(crate) fn validator_cold(number: u8) -> AccountId {
    endowed(7 + usize::from(number))
}

/// The example's rules from the state of [`Model::genesis`]; pay can be claimed a window later.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::example();
    settings.training.genesis_state_root = Model::genesis().root();
    settings.training.keep = KEEP;
    settings.incentive.claim_delay_windows = 1;
    // Pay is whole from the first window on.
    settings.incentive.trust_windows = 0;
    settings
}

/// Two tensors in three chunks, the last of them short.
pub(crate) fn layout() -> Layout {
    Layout(vec![u64::from(CHUNK_LEN), u64::from(CHUNK_LEN) + 100])
}

/// A model of [`layout`], small enough to hash in every test.
#[derive(Clone)]
pub(crate) struct Model(Vec<Vec<f32>>);

impl Model {
    /// The parameters from which every miner starts.
    pub(crate) fn genesis() -> Self {
        let tensors = layout().0;
        Model(tensors.iter().map(|len| vec![0.5; *len as usize]).collect())
    }

    /// What validators attest.
    pub(crate) fn root(&self) -> Hash {
        let named = ["body", "head"].into_iter().zip(&self.0);
        state_root(named.map(|(name, values)| (name, values.as_slice())))
    }

    /// The outer step that everybody takes at the end of `window` with its accepted updates.
    pub(crate) fn step(&mut self, window: Window, accepted: &[(Uid, &Update)]) {
        let layout = layout();
        let payloads: Vec<_> =
            accepted.iter().map(|(uid, update)| (*uid, update.payload(&layout))).collect();
        let mut params: Vec<&mut [f32]> = self.0.iter_mut().map(Vec::as_mut_slice).collect();
        let rule = OuterRule::of_window(&settings().training.outer, window);
        outer_step(&mut params, &layout, &payloads, rule).expect("the payloads are of the layout");
    }
}

/// A miner's update and the state from which it was made.
#[derive(Clone)]
pub(crate) struct Update {
    bytes: Vec<u8>,
    base: Hash,
    salt: Hash,
}

impl Update {
    /// An update of its own for every `flavour`, from the state with root `base`.
    pub(crate) fn new(flavour: u8, base: Hash) -> Self {
        let layout = layout();
        let mut tensors: Vec<Vec<f32>> = layout
            .0
            .iter()
            .map(|len| {
                let value = |at: u64| (at * 7_919 + u64::from(flavour) * 97) % 1_009;
                (0..*len).map(|at| value(at) as f32 / 1e4).collect()
            })
            .collect();
        let mut tensors: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
        let bytes =
            Encoder::new().encode(&mut tensors, &layout, KEEP).expect("the values are finite");
        let salt = blake2_256(&[flavour]);
        Update { bytes, base, salt }
    }

    /// The update under another salt: what a copier commits to.
    pub(crate) fn copied(&self) -> Self {
        let salt = blake2_256(&self.salt);
        Update { salt, ..self.clone() }
    }

    fn payload(&self, layout: &Layout) -> Payload<'_> {
        Payload::parse(&self.bytes, layout, KEEP).expect("the encoder wrote these bytes")
    }

    /// What the miner opens its commitment with.
    pub(crate) fn opening(&self) -> Opening {
        let layout = layout();
        let payload = self.payload(&layout);
        Opening {
            payload_root: payload.root(),
            chunk_count: payload.chunk_count(),
            byte_len: self.bytes.len() as u64,
            base_state_root: self.base,
            salt: self.salt,
        }
    }

    /// The chunks that the chain asks of `uid`; none before it does.
    pub(crate) fn shown(&self, window: Window, uid: Uid) -> RevealedChunks {
        let layout = layout();
        let payload = self.payload(&layout);
        let leaves = payload.leaf_hashes();
        let seed = Windows::<Runtime>::get(RUN, window).and_then(|record| record.challenge_seed);
        let count = settings().incentive.challenge_chunks;
        let asked =
            seed.map(|seed| challenged_chunks(&seed, RUN, window, uid, leaves.len() as u32, count));
        let shown = asked.into_iter().flatten().map(|index| {
            let shown =
                payload.chunk_proof(&leaves, index).expect("the index is one of the payload's");
            RevealedChunk {
                index,
                chunk: shown.chunk.try_into().expect("a chunk fits"),
                proof: shown.proof.try_into().expect("a proof fits"),
            }
        });
        RevealedChunks::truncate_from(shown.collect())
    }

    /// A chunk as a proof shows it.
    pub(crate) fn shown_chunk(&self, index: u32) -> ShownChunk {
        let layout = layout();
        let payload = self.payload(&layout);
        let shown = payload.chunk_proof(&payload.leaf_hashes(), index);
        let shown = shown.expect("the index is one of the payload's");
        ShownChunk {
            bytes: shown.chunk.try_into().expect("a chunk fits"),
            proof: shown.proof.try_into().expect("a proof fits"),
        }
    }

    /// The call with which the owner of `hot` commits.
    pub(crate) fn commit_call(&self, window: Window, hot: &AccountId) -> Call<Runtime> {
        let hash =
            commitment_hash(&genesis_hash(), RUN, window, &account_bytes(hot), &self.opening());
        Call::commit_update { run: RUN, window, hash }
    }

    /// The call with which the owner of `hot` reveals.
    pub(crate) fn reveal_call(&self, window: Window, hot: &AccountId) -> Call<Runtime> {
        let uid = MinerUids::<Runtime>::get(RUN, hot).unwrap_or(Uid::MAX);
        Call::reveal_update {
            run: RUN,
            window,
            opening: self.opening(),
            chunks: self.shown(window, uid),
        }
    }
}

/// What a validator measures of a miner: an update lowers losses of 4 nats by so many parts per thousand.
pub(crate) fn evaluation(uid: Uid, own: i64, random: i64) -> Evaluation {
    let before: u32 = 4 << 24;
    let after = |parts: i64| (i64::from(before) / 1_000 * (1_000 - parts)) as u32;
    Evaluation {
        uid,
        own_before: before,
        own_after: after(own),
        random_before: before,
        random_after: after(random),
    }
}

/// The calls with which the owner of `hot` commits to evaluations, and reveals them.
pub(crate) fn score_calls(
    window: Window,
    hot: &AccountId,
    evaluations: Vec<Evaluation>,
) -> [Call<Runtime>; 2] {
    let salt = blake2_256(&account_bytes(hot));
    let hash = score_commitment_hash(
        &genesis_hash(),
        RUN,
        window,
        &account_bytes(hot),
        &evaluations,
        SCORE_VERSION,
        &salt,
    );
    let version = SCORE_VERSION;
    let commit = Call::commit_scores { run: RUN, window, hash, version };
    let reveal = Call::reveal_scores {
        run: RUN,
        window,
        evaluations: evaluations.try_into().expect("evaluations fit"),
        salt,
        version,
    };
    [commit, reveal]
}

/// The calls with which the owner of `hot` commits to an attestation, and reveals it.
pub(crate) fn attest_calls(
    window: Window,
    hot: &AccountId,
    uids: &[Uid],
    state_root: Hash,
) -> [Call<Runtime>; 2] {
    let key = account_bytes(hot);
    let opening =
        AttestationOpening { bitmap: bitmap_of(uids), state_root, salt: blake2_256(&key) };
    let hash = attestation_commitment_hash(&genesis_hash(), RUN, window, &key, &opening);
    let AttestationOpening { bitmap, state_root, salt } = opening;
    let bitmap = Bitmap::truncate_from(bitmap);
    let reveal = Call::reveal_attestation { run: RUN, window, bitmap, state_root, salt };
    [Call::commit_attestation { run: RUN, window, hash }, reveal]
}

/// Has each validator attest what is said of it, up to the block that fixes the accepted set.
pub(crate) fn attest(window: Window, said: &[(Vec<Uid>, Hash)]) {
    let calls: Vec<_> = (0..)
        .zip(said)
        .map(|(number, (uids, root))| {
            let hot = validator_hot(number);
            let calls = attest_calls(window, &hot, uids, *root);
            (hot, calls)
        })
        .collect();
    roll_to_phase(window, Phase::AttestCommit);
    for (hot, [commit, _]) in &calls {
        call(hot, commit.clone()).expect("commitments to attestations are open");
    }
    roll_to_phase(window, Phase::AttestReveal);
    for (hot, [_, reveal]) in &calls {
        call(hot, reveal.clone()).expect("attestations are open");
    }
    roll_to_phase(window, Phase::Apply);
}

/// Builds the chain of a scenario.
#[derive(Default)]
pub(crate) struct ExtBuilder {
    miners: u8,
    validators: u8,
}

impl ExtBuilder {
    /// So many miners (at most 6) and validators (at most 7), registered before the run starts.
    pub(crate) fn participants(self, miners: u8, validators: u8) -> Self {
        ExtBuilder { miners, validators }
    }

    /// Runs a scenario from block 1, in which run 0 was created by its owner.
    pub(crate) fn execute(self, scenario: impl FnOnce()) {
        self.build().execute_with(|| {
            scenario();
            roll_to(System::block_number() + 1);
        });
    }

    /// The chain in block 1, in which run 0 was created by its owner.
    pub(crate) fn build(self) -> TestExternalities {
        let mut chain = TestExternalities::from(genesis_storage());
        chain.execute_with(|| {
            open_block(1, H256::repeat_byte(7));
            let create = Call::create_run {
                settings: Box::new(settings()),
                layout: LayoutVec::truncate_from(layout().0),
            };
            call(&owner(), create).expect("the run is valid");
            fund_windows();
            for number in 0..self.miners {
                let cold = miner_cold(number);
                let register = register_miner(&miner_key(number), RUN, &cold);
                call(&cold, register).expect("there is a slot and money");
            }
            for number in 0..self.validators {
                let cold = validator_cold(number);
                let register = register_validator(&validator_key(number), RUN, &cold, STAKE);
                call(&cold, register).expect("there is a slot and money");
            }
        });
        chain
    }
}

/// Closes the block and commits it as a node does, checks the state that is committed, and opens the next block.
/// Returns the events of the pallet in the block.
pub(crate) fn commit_block(chain: &mut TestExternalities) -> Vec<pallet_gauntlet::Event<Runtime>> {
    let header = chain.execute_with(Executive::finalize_block);
    chain.commit_all().expect("no storage transaction is open");
    chain.execute_with(|| {
        check_state();
        let happened = events();
        open_block(header.number + 1, header.hash());
        happened
    })
}

/// What the chain's schedule gives in a window of run 0, which alone has a weight: 20 blocks of a quarter of a UNIT.
pub(crate) const MINTED: Planck = 5 * UNIT;
/// What run 0's sponsor gives in a window.
pub(crate) const SPONSORED: Planck = 95 * UNIT;

/// Gives run 0 all of the chain's schedule and a sponsor: 100 UNIT a window.
fn fund_windows() {
    let weigh = RuntimeCall::from(Call::set_run_weight { run: RUN, weight: 1 });
    weigh.dispatch(RuntimeOrigin::root()).expect("the run exists");
    let fund = Call::fund_run { run: RUN, amount: 100 * SPONSORED, per_window: SPONSORED };
    call(&owner(), fund).expect("the owner has the money");
}

/// The storage of the preset `development`, as a node builds it.
pub(crate) fn genesis_storage() -> sp_runtime::Storage {
    preset_storage("development")
}

/// The storage of a preset, as a node builds it.
pub(crate) fn preset_storage(name: &str) -> sp_runtime::Storage {
    let patch = runtime::genesis::preset(&name.into()).expect("the preset exists");
    built_storage(serde_json::from_slice(&patch).expect("a preset is JSON"))
}

/// The storage of a genesis, as a node builds it: its patch over the default.
pub(crate) fn built_storage(patch: Value) -> sp_runtime::Storage {
    let mut genesis =
        serde_json::to_value(RuntimeGenesisConfig::default()).expect("a genesis is JSON");
    merge(&mut genesis, patch);
    let genesis: RuntimeGenesisConfig =
        serde_json::from_value(genesis).expect("the preset is of the runtime's genesis");
    genesis.build_storage().expect("the genesis can be built")
}

fn merge(value: &mut Value, patch: Value) {
    match (value, patch) {
        (Value::Object(fields), Value::Object(patches)) => {
            for (name, patch) in patches {
                merge(fields.entry(name).or_insert(Value::Null), patch);
            }
        }
        (value, patch) => *value = patch,
    }
}

/// Hooks and inherents of block `number`, in the slot of the same number, up to its transactions.
pub(crate) fn open_block(number: BlockNumber, parent: H256) {
    let slot = u64::from(number);
    let digest = Digest { logs: vec![DigestItem::PreRuntime(*b"aura", slot.encode())] };
    let header = Header::new(number, Default::default(), Default::default(), parent, digest);
    Executive::initialize_block(&header);
    let now = slot * SLOT_MILLIS;
    let inherent = UncheckedExtrinsic::new_bare(pallet_timestamp::Call::set { now }.into());
    Executive::apply_extrinsic(inherent)
        .expect("the inherent is valid")
        .expect("the inherent succeeds");
    Executive::inherents_applied();
}

/// Closes blocks and opens the next until `number` is open, checking the state between any two.
pub(crate) fn roll_to(number: BlockNumber) {
    while System::block_number() < number {
        let header = Executive::finalize_block();
        check_state();
        open_block(header.number + 1, header.hash());
    }
}

/// Runs to a block of a window, by its offset.
pub(crate) fn roll_to_offset(window: Window, offset: u32) {
    let start = settings().schedule.window_start(window);
    roll_to(start.expect("the window is near") + offset);
}

/// Runs to the first block in which the work of a window's phase can be done.
pub(crate) fn roll_to_phase(window: Window, phase: Phase) {
    let schedule = settings().schedule;
    let offset = match phase {
        Phase::Commit => 0,
        // Nobody can reveal before the challenge is drawn.
        Phase::Reveal => schedule.challenge_offset(),
        Phase::AttestCommit => schedule.reveal_end,
        Phase::AttestReveal => schedule.attest_commit_end,
        Phase::Apply => schedule.attest_end,
    };
    roll_to_offset(window, offset);
}

/// Every invariant of the pallet, and the ledger against what accounts hold and may claim.
pub(crate) fn check_state() {
    let block = System::block_number();
    if let Err(error) = <Gauntlet as Hooks<BlockNumber>>::try_state(block) {
        panic!("block {block}: {error:?}");
    }
    for (run, Run { foundation, .. }) in Runs::<Runtime>::iter() {
        let ledger = Ledgers::<Runtime>::get(run);
        assert!(ledger.is_conserved(), "block {block}: {ledger:?}");
        let claims = Claims::<Runtime>::iter_prefix_values(run).flatten();
        let listed: Planck = claims.map(|claim| claim.amount).sum();
        assert_eq!(ledger.claimable, listed, "block {block}");
        let held = Balances::free_balance(Gauntlet::run_account(run));
        assert_eq!(Some(held - foundation), ledger.held(), "block {block}");
    }
}

/// Dispatches a call of the pallet, signed by `who`.
pub(crate) fn call(who: &AccountId, call: Call<Runtime>) -> Result<(), DispatchError> {
    RuntimeCall::from(call)
        .dispatch(RuntimeOrigin::signed(who.clone()))
        .map(|_| ())
        .map_err(|error| error.error)
}

/// The events of the pallet in this block.
pub(crate) fn events() -> Vec<pallet_gauntlet::Event<Runtime>> {
    System::read_events_for_pallet()
}

/// What the chain fixed in a window.
pub(crate) fn record(window: Window) -> WindowRecord {
    Windows::<Runtime>::get(RUN, window).expect("the window has begun")
}

/// What an account may claim now or later.
pub(crate) fn claimable(account: &AccountId) -> Planck {
    let claims = Claims::<Runtime>::get(RUN, account);
    claims.iter().map(|claim| claim.amount).sum()
}

/// The hash to which commitments are bound.
pub(crate) fn genesis_hash() -> Hash {
    System::block_hash(0).into()
}

/// Commits, reveals and attests the updates of miners 0, 1, … in a window, up to the block that fixes the accepted set.
pub(crate) fn play_window(window: Window, updates: &[Update], validators: u8, root: Hash) {
    roll_to_phase(window, Phase::Commit);
    for (number, update) in (0..).zip(updates) {
        let hot = miner_hot(number);
        call(&hot, update.commit_call(window, &hot)).expect("commits are open");
    }
    roll_to_phase(window, Phase::Reveal);
    for (number, update) in (0..).zip(updates) {
        let hot = miner_hot(number);
        call(&hot, update.reveal_call(window, &hot)).expect("reveals are open");
    }
    let uids: Vec<Uid> = (0..updates.len() as Uid).collect();
    attest(window, &vec![(uids, root); validators.into()]);
}

/// Scores a window in the next one, with what each validator measured, up to the block that settles it. Returns what it
/// meant for each miner: (own, random, paid).
pub(crate) fn score_window(
    window: Window,
    measured: &[Vec<Evaluation>],
) -> HashMap<Uid, (Option<f64>, Option<f64>, Planck)> {
    use pallet_gauntlet::Event::MinerScored;

    let schedule = settings().schedule;
    let next = window + 1;
    let calls: Vec<_> = (0..)
        .zip(measured)
        .map(|(number, evaluations)| {
            let hot = validator_hot(number);
            let calls = score_calls(window, &hot, evaluations.clone());
            (hot, calls)
        })
        .collect();
    roll_to_offset(next, 0);
    for (hot, [commit, _]) in &calls {
        call(hot, commit.clone()).expect("score commitments are open");
    }
    roll_to_offset(next, schedule.score_commit_end);
    for (hot, [_, reveal]) in &calls {
        call(hot, reveal.clone()).expect("score reveals are open");
    }
    roll_to_offset(next, schedule.score_reveal_end);
    let scored = events().into_iter().filter_map(|event| match event {
        MinerScored { uid, own, random, paid, .. } => {
            let [own, random] = [own, random].map(|value| value.map(|value| value.to_f64()));
            Some((uid, (own, random, paid)))
        }
        _ => None,
    });
    scored.collect()
}
