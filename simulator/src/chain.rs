//! Speaks to the real runtime: the only file that knows its calls, records and events.
//!
//! Calls are dispatched without a signature, an extension or a fee; a block has as many as are wanted. Everything else is a
//! node's: hooks, the timestamp, the weight that settlement may take, and a commit to the backend after each block.

use codec::Encode;
use frame_support::{
    traits::fungible::{Inspect, Mutate},
    BoundedVec,
};
use pallet_gauntlet::{
    account_bytes, Bitmap, Call, CommitmentName, Evaluations, Event, LayoutVec, MinerUids, Miners,
    Offender, Permits, RevealedChunk, RevealedChunks, ShownChunk, ValidatorIndices, Windows,
};
use protocol::{
    accept::bitmap_of,
    books::draw,
    commitment::{
        attestation_commitment_hash, challenged_chunks, commitment_hash, score_commitment_hash,
        AttestationOpening, Opening,
    },
    consensus::Evaluation,
    consent::{hot_key_consent, Role},
    layout::CHUNK_LEN,
    merkle,
    settings::{Settings, SCORE_VERSION},
    update::{decode_chunk, encode_chunk, Chunk},
    Hash, Planck, RunId, Uid, ValidatorIndex, Window,
};
use runtime::{
    AccountId, Balances, Executive, Header, Runtime, RuntimeCall, RuntimeGenesisConfig,
    RuntimeOrigin, System, UncheckedExtrinsic, SLOT_MILLIS, UNIT,
};
use sp_core::{sr25519, Pair, H256};
use sp_io::{hashing::blake2_256, TestExternalities};
use sp_runtime::{
    traits::{Dispatchable, Header as _},
    BuildStorage, Digest, DigestItem, MultiSignature,
};

use crate::random::Random;

/// The run of every scenario.
const RUN: RunId = 0;
/// The block of window 0.
const START: u32 = 3;
/// Blocks of a window: one for each phase, and one in which the challenge is drawn.
pub const WINDOW_BLOCKS: u32 = 6;
/// Blocks of a window as it is paid: twenty minutes, which a run with a large model takes.
pub const PAID_BLOCKS: f64 = 600.0;
/// Values of a chunk that an update keeps: enough that a copy of it can be proven.
pub const KEEP: u16 = 16;
/// What every cold key starts with.
const ENDOWMENT: Planck = 10_000_000 * UNIT;

/// The two accounts of a participant.
#[derive(Clone)]
pub struct Keys {
    pair: sr25519::Pair,
    hot: AccountId,
    cold: AccountId,
}

impl Keys {
    /// What a cold key has after [`Calls::endow`], in units.
    pub const ENDOWMENT_UNITS: f64 = (ENDOWMENT / UNIT) as f64;

    /// Those of participant `number`.
    pub fn new(number: u64) -> Keys {
        let seed = |role: &[u8]| blake2_256(&[role, &number.to_le_bytes()].concat());
        let pair = sr25519::Pair::from_seed(&seed(b"hot"));
        Keys { hot: pair.public().into(), pair, cold: AccountId::new(seed(b"cold")) }
    }

    /// The hot key's consent to work for the cold one.
    fn consent(&self, role: Role) -> MultiSignature {
        let message = hot_key_consent(&genesis_hash(), RUN, role, &account_bytes(&self.cold));
        self.pair.sign(&message).into()
    }
}

/// A payload of one chunk, and the salt under which it is committed.
#[derive(Clone, Debug)]
pub struct Update {
    chunk: Vec<u8>,
    salt: Hash,
}

impl Update {
    /// One that nobody has sent before.
    pub fn new(random: &mut Random) -> Update {
        let hash = random.hash();
        let mut indices: Vec<u16> = Vec::with_capacity(usize::from(KEEP));
        let part = CHUNK_LEN as u16 / KEEP;
        for (place, pair) in (0..KEEP).zip(hash.chunks(2)) {
            let within = u16::from_le_bytes([pair[0], pair[1]]) % part;
            indices.push(place * part + within);
        }
        let codes = hash.iter().take(usize::from(KEEP)).map(|byte| byte >> 6).collect();
        let scale_bf16 = 0x3c00 | u16::from(hash[0]);
        let chunk = Chunk { scale_bf16, indices, codes };
        let chunk = encode_chunk(&chunk, CHUNK_LEN, KEEP).expect("the chunk is of the format");
        Update { chunk, salt: random.hash() }
    }

    /// Another payload, of which the first `common` positions are those of this one.
    pub fn near(&self, common: u8, random: &mut Random) -> Update {
        let read = decode_chunk(&self.chunk, CHUNK_LEN, KEEP).expect("the chunk is of the format");
        let hash = random.hash();
        let part = CHUNK_LEN as u16 / KEEP;
        let next = |(place, index): (usize, &u16)| {
            let moved = place >= usize::from(common);
            let step = if moved { 1 + u16::from(hash[place]) % (part - 1) } else { 0 };
            index - index % part + (index + step) % part
        };
        let indices = read.indices.iter().enumerate().map(next).collect();
        let codes = hash.iter().take(usize::from(KEEP)).map(|byte| byte >> 6).collect();
        let chunk = Chunk { scale_bf16: 0x3c00 | u16::from(hash[0]), indices, codes };
        let chunk = encode_chunk(&chunk, CHUNK_LEN, KEEP).expect("the chunk is of the format");
        Update { chunk, salt: random.hash() }
    }

    /// The same payload under another salt.
    pub fn copied(&self, random: &mut Random) -> Update {
        Update { chunk: self.chunk.clone(), salt: random.hash() }
    }

    fn opening(&self, base: Hash) -> Opening {
        Opening {
            payload_root: merkle::root([self.chunk.as_slice()].into_iter())
                .expect("there is a chunk"),
            chunk_count: 1,
            byte_len: self.chunk.len() as u64,
            base_state_root: base,
            salt: self.salt,
        }
    }

    fn shown_chunk(&self) -> ShownChunk {
        ShownChunk {
            bytes: self.chunk.clone().try_into().expect("a chunk fits"),
            proof: Default::default(),
        }
    }

    fn shown(&self, asked: Vec<u32>) -> RevealedChunks {
        let leaves = [merkle::leaf_hash(0, &self.chunk)];
        let shown = asked.into_iter().map(|index| RevealedChunk {
            index,
            chunk: self.chunk.clone().try_into().expect("a chunk fits"),
            proof: merkle::proof(&leaves, index)
                .expect("the chunk exists")
                .try_into()
                .expect("a proof fits"),
        });
        RevealedChunks::truncate_from(shown.collect())
    }
}

/// What the chain says has happened, as far as a scenario needs it.
#[derive(Clone, Debug)]
pub enum Happened {
    /// A settlement moved and paid a miner.
    Miner {
        /// The window.
        window: Window,
        /// Its slot.
        uid: Uid,
        /// The medians of its improvements, own and random.
        medians: Option<(f64, f64)>,
        /// Its standing as one number.
        value: f64,
        /// Its pay in units, as all pay of a window of [`PAID_BLOCKS`].
        paid: f64,
    },
    /// A settlement paid a validator.
    Validator {
        /// The window.
        window: Window,
        /// Its slot.
        index: ValidatorIndex,
        /// Its pay in units.
        paid: f64,
    },
    /// A miner's bond was cut for a proven fault.
    Slashed {
        /// Its slot.
        uid: Uid,
        /// How much, in units.
        amount: f64,
    },
    /// A window was settled, having minted so many units.
    Settled {
        /// The window.
        window: Window,
        /// What it minted, in units.
        minted: f64,
    },
    /// A window was void.
    Void {
        /// The window.
        window: Window,
    },
}

fn units(amount: Planck) -> f64 {
    amount as f64 / UNIT as f64
}

/// What is earned in a window of [`PAID_BLOCKS`], in units, if this is earned in one of [`WINDOW_BLOCKS`]: emission
/// goes by blocks, and what a slot and a fault cost does not.
fn earned(amount: Planck) -> f64 {
    units(amount) * PAID_BLOCKS / f64::from(WINDOW_BLOCKS)
}

fn happened(event: Event<Runtime>) -> Option<Happened> {
    Some(match event {
        Event::MinerScored { window, uid, own, random, standing_value, paid, .. } => {
            let medians = own.zip(random).map(|(own, random)| (own.to_f64(), random.to_f64()));
            let (value, paid) = (standing_value.to_f64(), earned(paid));
            Happened::Miner { window, uid, medians, value, paid }
        }
        Event::ValidatorPaid { window, index, paid, .. } => {
            Happened::Validator { window, index, paid: earned(paid) }
        }
        Event::WindowSettled { window, minted, .. } => {
            Happened::Settled { window, minted: earned(minted) }
        }
        Event::Slashed { offender: Offender::Miner { uid, .. }, amount, .. } => {
            Happened::Slashed { uid, amount: units(amount) }
        }
        Event::WindowVoid { window, .. } => Happened::Void { window },
        _ => return None,
    })
}

/// The settings of a run whose windows have six blocks, with room for so many miners.
pub fn settings(uids: usize) -> Settings {
    let mut settings = Settings::example();
    let schedule = &mut settings.schedule;
    (schedule.start_block, schedule.window_blocks) = (START, WINDOW_BLOCKS);
    (schedule.commit_end, schedule.reveal_end) = (1, 3);
    (schedule.attest_commit_end, schedule.attest_end) = (4, 5);
    (schedule.score_commit_end, schedule.score_reveal_end) = (1, 2);
    settings.training.keep = KEEP;
    settings.incentive.uid_max = uids as u16;
    // The reveals of 4,096 miners are in one block.
    settings.incentive.challenge_chunks = 1;
    // Thousands join in the first block: the price stays where it begins.
    settings.entry.price_rise_ppm = protocol::settings::PPM;
    settings
}

/// The root of the state at the beginning of a window.
fn state_root(window: Window) -> Hash {
    if window == 0 {
        [0; 32]
    } else {
        blake2_256(&window.to_le_bytes())
    }
}

/// A chain that is built block by block.
pub struct Chain {
    ext: TestExternalities,
    number: u32,
    parent: H256,
}

impl Chain {
    /// The first block: the run exists, and `work` is done in it.
    pub fn begin(settings: Settings, work: impl FnOnce(&Calls)) -> Chain {
        let storage = RuntimeGenesisConfig::default().build_storage().expect("the genesis builds");
        let mut ext = TestExternalities::from(storage);
        // The genesis names no authors and no accounts: money is made where it is needed.
        ext.commit_all().expect("the genesis can be committed");
        let mut chain = Chain { ext, number: 0, parent: H256::repeat_byte(7) };
        chain.block(|calls| {
            let owner = Keys::new(u64::MAX);
            calls.endow(&owner);
            let layout = LayoutVec::truncate_from(vec![u64::from(CHUNK_LEN)]);
            let create = Call::create_run { settings: Box::new(settings), layout };
            assert!(calls.call(&owner.cold, create), "the run can be created");
            calls.weigh_run();
            work(calls);
        });
        while chain.number + 1 < START {
            chain.block(|_| ());
        }
        chain
    }

    /// The next block: its hooks, the calls of `work`, and what happened in it.
    pub fn block<R>(&mut self, work: impl FnOnce(&Calls) -> R) -> (R, Vec<Happened>) {
        self.number += 1;
        let (number, parent) = (self.number, self.parent);
        let (result, events, hash) = self.ext.execute_with(|| {
            open_block(number, parent);
            let result = work(&Calls(()));
            let header = Executive::finalize_block();
            let events: Vec<Event<Runtime>> = System::read_events_for_pallet();
            (result, events.into_iter().filter_map(happened).collect(), header.hash())
        });
        self.parent = hash;
        self.ext.commit_all().expect("a block can be committed");
        // A trie in memory keeps what nothing leads to any more.
        self.ext.backend.backend_storage_mut().purge();
        (result, events)
    }
}

/// Hooks and inherents of a block up to its transactions, in the slot of its number.
fn open_block(number: u32, parent: H256) {
    let slot = u64::from(number);
    let digest = Digest { logs: vec![DigestItem::PreRuntime(*b"aura", slot.encode())] };
    let header = Header::new(number, Default::default(), Default::default(), parent, digest);
    Executive::initialize_block(&header);
    let now = slot * SLOT_MILLIS;
    let inherent = UncheckedExtrinsic::new_bare(pallet_timestamp::Call::set { now }.into());
    let applied = Executive::apply_extrinsic(inherent).expect("the inherent is valid");
    applied.expect("the inherent succeeds");
    Executive::inherents_applied();
}

/// The calls that participants make, within a block. Each says whether the chain took it.
pub struct Calls(());

impl Calls {
    /// Gives the one run all of the chain's emission, as governance does.
    fn weigh_run(&self) {
        let weigh = RuntimeCall::from(Call::set_run_weight { run: RUN, weight: 1 });
        weigh.dispatch(RuntimeOrigin::root()).expect("the run exists");
    }
}

impl Calls {
    fn call(&self, who: &AccountId, call: Call<Runtime>) -> bool {
        let call = RuntimeCall::from(call);
        call.dispatch(RuntimeOrigin::signed(who.clone())).is_ok()
    }

    /// Gives a participant money to begin with.
    pub fn endow(&self, keys: &Keys) {
        for account in [&keys.cold, &keys.hot] {
            Balances::set_balance(account, ENDOWMENT);
        }
    }

    /// Registers a miner and returns its slot.
    pub fn register_miner(&self, keys: &Keys) -> Option<Uid> {
        let (hot, proof) = (keys.hot.clone(), keys.consent(Role::Miner));
        let register = Call::register_miner { run: RUN, hot, proof, max_price: Planck::MAX };
        self.call(&keys.cold, register).then(|| MinerUids::<Runtime>::get(RUN, &keys.hot))?
    }

    /// Asks for a miner to leave the run at the end of the window.
    pub fn leave(&self, keys: &Keys, uid: Uid) -> bool {
        self.call(&keys.cold, Call::leave_miner { run: RUN, uid })
    }

    /// Registers a validator with so many units of stake and returns its slot.
    pub fn register_validator(&self, keys: &Keys, stake: u32) -> Option<ValidatorIndex> {
        let stake = Planck::from(stake) * UNIT;
        let (hot, proof) = (keys.hot.clone(), keys.consent(Role::Validator));
        let register = Call::register_validator { run: RUN, hot, proof, stake };
        self.call(&keys.cold, register).then(|| ValidatorIndices::<Runtime>::get(RUN, &keys.hot))?
    }

    /// The first window in which a miner takes part.
    pub fn first_window(&self, uid: Uid) -> Window {
        Miners::<Runtime>::get(RUN, uid).map_or(0, |miner| miner.registered_window)
    }

    /// Commits to an update.
    pub fn commit(&self, keys: &Keys, window: Window, update: &Update) -> bool {
        let opening = update.opening(state_root(window));
        let genesis = genesis_hash();
        let hash = commitment_hash(&genesis, RUN, window, &account_bytes(&keys.hot), &opening);
        self.call(&keys.hot, Call::commit_update { run: RUN, window, hash })
    }

    /// The seed of the chunks that a window's reveals must show.
    pub fn challenge(&self, window: Window) -> Option<(Hash, u8)> {
        let record = Windows::<Runtime>::get(RUN, window)?;
        let settings = pallet_gauntlet::Pallet::<Runtime>::settings_of(RUN, window)?;
        Some((record.challenge_seed?, settings.incentive.challenge_chunks))
    }

    /// Reveals an update; `challenge` is that of the window.
    pub fn reveal(
        &self,
        keys: &Keys,
        uid: Uid,
        window: Window,
        update: &Update,
        challenge: (Hash, u8),
    ) -> bool {
        let (seed, count) = challenge;
        let asked = challenged_chunks(&seed, RUN, window, uid, 1, count);
        let opening = update.opening(state_root(window));
        let chunks = update.shown(asked.into_iter().collect());
        self.call(&keys.hot, Call::reveal_update { run: RUN, window, opening, chunks })
    }

    /// Commits to an attestation of the payloads of `uids`.
    pub fn commit_attestation(&self, keys: &Keys, window: Window, uids: &[Uid]) -> bool {
        let hot = account_bytes(&keys.hot);
        let opening = attestation(keys, window, uids);
        let hash = attestation_commitment_hash(&genesis_hash(), RUN, window, &hot, &opening);
        self.call(&keys.hot, Call::commit_attestation { run: RUN, window, hash })
    }

    /// Reveals the attestation that was committed to.
    pub fn reveal_attestation(&self, keys: &Keys, window: Window, uids: &[Uid]) -> bool {
        let AttestationOpening { bitmap, state_root, salt } = attestation(keys, window, uids);
        let bitmap = Bitmap::truncate_from(bitmap);
        self.call(
            &keys.hot,
            Call::reveal_attestation { run: RUN, window, bitmap, state_root, salt },
        )
    }

    /// The commitment that the miner in a slot made in a window.
    fn name(&self, window: Window, uid: Uid) -> CommitmentName {
        CommitmentName { window, uid, registered_window: self.first_window(uid) }
    }

    /// Proves by their only chunks that one of two revealed updates, each of a window and a slot, is a copy of the
    /// other.
    pub fn report_copy(&self, reporter: &Keys, revealed: [(Window, Uid, &Update); 2]) -> bool {
        let commitments = revealed.map(|(window, uid, _)| self.name(window, uid));
        let chunks = vec![revealed.map(|(_, _, update)| update.shown_chunk())];
        let chunks = BoundedVec::truncate_from(chunks);
        self.call(&reporter.hot, Call::report_copy { run: RUN, commitments, chunks })
    }

    /// Asks a miner for the chunk of an update that it revealed.
    pub fn challenge_data(&self, challenger: &Keys, window: Window, uid: Uid) -> bool {
        let commitment = self.name(window, uid);
        self.call(&challenger.cold, Call::challenge_data { run: RUN, commitment, index: 0 })
    }

    /// Shows the chunk that was asked for.
    pub fn answer_data(&self, keys: &Keys, window: Window, uid: Uid, update: &Update) -> bool {
        let commitment = self.name(window, uid);
        let chunk = Box::new(update.shown_chunk());
        self.call(&keys.hot, Call::answer_data { run: RUN, commitment, index: 0, chunk })
    }

    /// What a participant's cold key owns, in units, held or not.
    pub fn wealth(&self, keys: &Keys) -> f64 {
        units(<Balances as Inspect<AccountId>>::total_balance(&keys.cold))
    }

    /// Those of the miners that revealed in a window which a validator has to evaluate.
    pub fn assigned(&self, window: Window, index: ValidatorIndex, revealed: &[Uid]) -> Vec<Uid> {
        // The draw is of the window in which they are evaluated.
        let settings = pallet_gauntlet::Pallet::<Runtime>::settings_of(RUN, window + 1);
        let Some((record, settings)) = Windows::<Runtime>::get(RUN, window + 1).zip(settings)
        else {
            return Vec::new();
        };
        let permits = Permits::<Runtime>::get(RUN, window);
        draw(&record.scoring_seed, &permits, revealed, &settings.incentive).of(index)
    }

    /// Commits to evaluations.
    pub fn commit_scores(
        &self,
        keys: &Keys,
        window: Window,
        evaluations: &[Evaluation],
        salt: Hash,
    ) -> bool {
        let hot = account_bytes(&keys.hot);
        let (genesis, version) = (genesis_hash(), SCORE_VERSION);
        let hash = score_commitment_hash(&genesis, RUN, window, &hot, evaluations, version, &salt);
        self.call(&keys.hot, Call::commit_scores { run: RUN, window, hash, version })
    }

    /// Reveals evaluations.
    pub fn reveal_scores(
        &self,
        keys: &Keys,
        window: Window,
        evaluations: Vec<Evaluation>,
        salt: Hash,
    ) -> bool {
        let evaluations = Evaluations::truncate_from(evaluations);
        self.call(
            &keys.hot,
            Call::reveal_scores { run: RUN, window, evaluations, salt, version: SCORE_VERSION },
        )
    }
}

/// What a validator says of the payloads of `uids`; its salt is of its key.
fn attestation(keys: &Keys, window: Window, uids: &[Uid]) -> AttestationOpening {
    let salt = account_bytes(&keys.hot);
    AttestationOpening { bitmap: bitmap_of(uids), state_root: state_root(window), salt }
}

fn genesis_hash() -> Hash {
    System::block_hash(0).into()
}
