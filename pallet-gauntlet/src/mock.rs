//! A runtime with this pallet and balances only, and the steps that tests are made of.

use frame_support::{
    derive_impl, parameter_types,
    traits::{ConstU32, ConstU64, Hooks},
    weights::{Weight, WeightMeter},
    PalletId,
};
use frame_system::EnsureSigned;
use protocol::{
    commitment::{commitment_hash, score_commitment_hash, Opening},
    consensus::Evaluation,
    layout::{kept, Layout, CHUNK_LEN},
    merkle,
    settings::Settings,
    update::{encode_chunk, Chunk},
    window::Phase,
    Hash, Planck, RunId, Uid, ValidatorIndex, Window,
};
use sp_core::H256;
use sp_runtime::{traits::IdentityLookup, AccountId32, BuildStorage};

use crate::{self as pallet_gauntlet, *};

pub(crate) type AccountId = AccountId32;
type Block = frame_system::mocking::MockBlockU32<Test>;

pub(crate) const UNIT: Planck = 1_000_000_000_000;
pub(crate) const EXISTENTIAL_DEPOSIT: Planck = 1_000_000;
pub(crate) const ENDOWMENT: Planck = 1_000_000 * UNIT;
/// Windows of the example's schedule start at block 5 and take 20 blocks.
pub(crate) const START: u32 = 5;
pub(crate) const GENESIS_ROOT: Hash = [0; 32];

#[frame_support::runtime]
mod runtime {
    #[runtime::runtime]
    #[runtime::derive(
        RuntimeCall,
        RuntimeEvent,
        RuntimeError,
        RuntimeOrigin,
        RuntimeFreezeReason,
        RuntimeHoldReason,
        RuntimeSlashReason,
        RuntimeLockId,
        RuntimeTask,
        RuntimeViewFunction
    )]
    pub struct Test;

    #[runtime::pallet_index(0)]
    pub type System = frame_system;
    #[runtime::pallet_index(1)]
    pub type Balances = pallet_balances;
    #[runtime::pallet_index(8)]
    pub type Gauntlet = pallet_gauntlet;
}

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type Block = Block;
    type AccountId = AccountId;
    type Lookup = IdentityLookup<AccountId>;
    type AccountData = pallet_balances::AccountData<Planck>;
}

parameter_types! {
    pub const ExistentialDeposit: Planck = EXISTENTIAL_DEPOSIT;
    pub const GauntletPalletId: PalletId = PalletId(*b"gauntlet");
}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Test {
    type Balance = Planck;
    type ExistentialDeposit = ExistentialDeposit;
    type AccountStore = System;
    type RuntimeHoldReason = RuntimeHoldReason;
}

impl Config for Test {
    type Currency = Balances;
    type RuntimeHoldReason = RuntimeHoldReason;
    type CreateOrigin = EnsureSigned<AccountId>;
    type EmissionSource = emission::Mint<Balances>;
    type PalletId = GauntletPalletId;
    type RunsMax = ConstU32<4>;
    type HistoryWindows = ConstU64<{ protocol::limits::HISTORY_WINDOWS }>;
    type AdminDelayWindows = ConstU64<2>;
    type WeightInfo = weights::SubstrateWeight<Test>;
}

/// An account from a number.
pub(crate) fn account(number: u8) -> AccountId {
    AccountId::new([number; 32])
}

/// The owner of run 0.
pub(crate) fn owner() -> AccountId {
    account(1)
}

/// The hot key of the test's miner `number`, which gets uid `number` if all register in order.
pub(crate) fn miner_hot(number: u8) -> AccountId {
    account(100 + number)
}

/// The cold key of the test's miner `number`.
pub(crate) fn miner_cold(number: u8) -> AccountId {
    account(10 + number)
}

/// The hot key of the test's validator `number`.
pub(crate) fn validator_hot(number: u8) -> AccountId {
    account(200 + number)
}

/// The cold key of the test's validator `number`.
pub(crate) fn validator_cold(number: u8) -> AccountId {
    account(50 + number)
}

/// The example with a gate and delays that fit a test of a few windows.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::example();
    settings.training.genesis_state_root = GENESIS_ROOT;
    settings.incentive.claim_delay_windows = 1;
    settings
}

/// Two tensors, three chunks, the last one short.
pub(crate) fn layout() -> LayoutVec {
    LayoutVec::truncate_from(vec![u64::from(CHUNK_LEN), u64::from(CHUNK_LEN) + 100])
}

/// Builds the externalities of a test.
pub(crate) struct ExtBuilder {
    settings: Settings,
    miners: u8,
    validators: u8,
}

impl Default for ExtBuilder {
    fn default() -> Self {
        ExtBuilder { settings: settings(), miners: 0, validators: 0 }
    }
}

impl ExtBuilder {
    /// Changes the settings of run 0.
    pub(crate) fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// So many miners and validators (of 1000 UNIT each) registered before the start.
    pub(crate) fn participants(mut self, miners: u8, validators: u8) -> Self {
        self.miners = miners;
        self.validators = validators;
        self
    }

    /// Externalities in block 1, with run 0 created and money for everybody.
    pub(crate) fn build(self) -> sp_io::TestExternalities {
        let mut ext = new_test_ext();
        ext.execute_with(|| {
            assert_eq!(Gauntlet::do_create_run(owner(), self.settings, layout()), Ok(0));
            for number in 0..self.miners {
                let uid = Gauntlet::do_register_miner(miner_cold(number), 0, miner_hot(number));
                assert_eq!(uid, Ok(Uid::from(number)));
            }
            for number in 0..self.validators {
                let (cold, hot) = (validator_cold(number), validator_hot(number));
                let index = Gauntlet::do_register_validator(cold, 0, hot, 1_000 * UNIT);
                assert_eq!(index, Ok(ValidatorIndex::from(number)));
            }
        });
        ext
    }

    /// Runs a test and checks the invariants after it.
    pub(crate) fn build_and_execute(self, test: impl FnOnce()) {
        self.build().execute_with(|| {
            test();
            check_state();
        });
    }
}

/// Externalities in block 1 without a run.
pub(crate) fn new_test_ext() -> sp_io::TestExternalities {
    let mut storage = frame_system::GenesisConfig::<Test>::default().build_storage().unwrap();
    let balances = (1..=99).map(|number| (account(number), ENDOWMENT)).collect();
    pallet_balances::GenesisConfig::<Test> { balances, ..Default::default() }
        .assimilate_storage(&mut storage)
        .unwrap();
    let mut ext = sp_io::TestExternalities::from(storage);
    ext.execute_with(|| start_block(1));
    ext
}

/// Checks every invariant.
pub(crate) fn check_state() {
    if let Err(error) = Gauntlet::do_try_state() {
        panic!("block {}: {error:?}", System::block_number());
    }
}

fn start_block(number: u32) {
    let parent = H256::from(sp_io::hashing::blake2_256(&(number - 1).to_le_bytes()));
    System::reset_events();
    System::initialize(&number, &parent, &Default::default());
    Gauntlet::on_initialize(number);
    Gauntlet::on_poll(number, &mut WeightMeter::new());
}

/// Runs to the beginning of block `number`, checking the invariants between any two blocks.
pub(crate) fn roll_to(number: u32) {
    while System::block_number() < number {
        let block = System::block_number();
        Gauntlet::on_idle(block, Weight::MAX);
        check_state();
        start_block(block + 1);
    }
}

/// Runs to the first block of window `window`.
pub(crate) fn roll_to_window(window: Window) {
    roll_to(run().settings.schedule.window_start(window).unwrap());
}

/// Runs to the first block of `phase` of window `window`.
pub(crate) fn roll_to_phase(window: Window, phase: Phase) {
    let schedule = run().settings.schedule;
    let offset = match phase {
        Phase::Commit => 0,
        Phase::Reveal => schedule.commit_end,
        Phase::Attest => schedule.reveal_end,
        Phase::Apply => schedule.attest_end,
    };
    roll_to(schedule.window_start(window).unwrap() + offset);
}

/// Runs to the block in which the settlement of `window` begins.
pub(crate) fn roll_to_settlement(window: Window) {
    let schedule = run().settings.schedule;
    roll_to(schedule.window_start(window + 1).unwrap() + schedule.score_reveal_end);
}

pub(crate) fn run() -> Run<AccountId> {
    Runs::<Test>::get(0).unwrap()
}

pub(crate) fn record(window: Window) -> WindowRecord {
    Windows::<Test>::get(0, window).unwrap()
}

/// All events of the pallet in this block.
pub(crate) fn events() -> Vec<Event<Test>> {
    System::read_events_for_pallet::<Event<Test>>()
}

/// Well-formed chunks of the test's layout, different for each `flavour`.
pub(crate) fn chunks(flavour: u8) -> Vec<Vec<u8>> {
    let keep = settings().training.keep;
    Layout(layout().into_inner())
        .chunks()
        .map(|place| {
            let count = kept(place.len, keep);
            let chunk = Chunk {
                scale_bf16: 0x3c00,
                indices: (0..count).collect(),
                codes: (0..count).map(|at| ((at + u16::from(flavour)) & 3) as u8).collect(),
            };
            encode_chunk(&chunk, place.len, keep).unwrap()
        })
        .collect()
}

/// The opening of [`chunks`] of this flavour by a miner that started from `base`.
pub(crate) fn opening(flavour: u8, base: Hash) -> Opening {
    let chunks = chunks(flavour);
    Opening {
        payload_root: merkle::root(chunks.iter().map(Vec::as_slice)).unwrap(),
        chunk_count: chunks.len() as u32,
        byte_len: 100,
        base_state_root: base,
        salt: [flavour; 32],
    }
}

/// The chunks that miner `uid` must show, of this flavour.
pub(crate) fn shown(window: Window, uid: Uid, flavour: u8) -> RevealedChunks {
    let chunks = chunks(flavour);
    let leaves: Vec<Hash> =
        (0..).zip(&chunks).map(|(index, chunk)| merkle::leaf_hash(index, chunk)).collect();
    let seed = record(window).challenge_seed.unwrap();
    let count = run().settings.incentive.challenge_chunks;
    let asked =
        protocol::commitment::challenged_chunks(&seed, 0, window, uid, chunks.len() as u32, count);
    let shown = asked
        .into_iter()
        .map(|index| RevealedChunk {
            index,
            chunk: chunks[index as usize].clone().try_into().unwrap(),
            proof: merkle::proof(&leaves, index).unwrap().try_into().unwrap(),
        })
        .collect::<Vec<_>>();
    shown.try_into().unwrap()
}

/// Commits miner `number` to the payload of a flavour.
pub(crate) fn commit(window: Window, number: u8, flavour: u8, base: Hash) {
    let hot = miner_hot(number);
    let hash = commitment_hash(
        &Gauntlet::genesis_hash(),
        0,
        window,
        &account_bytes(&hot),
        &opening(flavour, base),
    );
    Gauntlet::do_commit_update(hot, 0, window, hash).unwrap();
}

/// Reveals what [`commit`] committed to.
pub(crate) fn reveal(
    window: Window,
    number: u8,
    flavour: u8,
    base: Hash,
) -> sp_runtime::DispatchResult {
    let hot = miner_hot(number);
    let uid = MinerUids::<Test>::get(0, &hot).unwrap();
    Gauntlet::do_reveal_update(hot, 0, window, opening(flavour, base), shown(window, uid, flavour))
}

/// Attests the payloads of `uids`.
pub(crate) fn attest(window: Window, number: u8, uids: &[Uid], root: Hash) {
    let bitmap = Bitmap::truncate_from(protocol::accept::bitmap_of(uids));
    Gauntlet::do_attest(validator_hot(number), 0, window, bitmap, root).unwrap();
}

/// An evaluation: losses of 4 nats that an update lowers by so many parts per thousand.
pub(crate) fn evaluation(uid: Uid, own: u32, random: u32) -> Evaluation {
    let before = 4 << 24;
    let after = |parts: u32| before - before / 1_000 * parts;
    Evaluation {
        uid,
        own_before: before,
        own_after: after(own),
        random_before: before,
        random_after: after(random),
    }
}

pub(crate) fn score_hash(
    window: Window,
    number: u8,
    evaluations: &[Evaluation],
    salt: Hash,
) -> Hash {
    let hot = account_bytes(&validator_hot(number));
    score_commitment_hash(&Gauntlet::genesis_hash(), 0, window, &hot, evaluations, &salt)
}

pub(crate) fn commit_scores(window: Window, number: u8, evaluations: &[Evaluation]) {
    let hash = score_hash(window, number, evaluations, [number; 32]);
    Gauntlet::do_commit_scores(validator_hot(number), 0, window, hash).unwrap();
}

pub(crate) fn reveal_scores(window: Window, number: u8, evaluations: &[Evaluation]) {
    let evaluations = evaluations.to_vec().try_into().unwrap();
    Gauntlet::do_reveal_scores(validator_hot(number), 0, window, evaluations, [number; 32])
        .unwrap();
}

/// What an honest validator measures of miners 0 to `miners`: miner n gains 10 + n parts per thousand.
pub(crate) fn evaluations(miners: u8) -> Vec<Evaluation> {
    (0..miners).map(|n| evaluation(Uid::from(n), 20 + u32::from(n), 10 + u32::from(n))).collect()
}

/// All blocks of a window, with honest participants: miners commit, reveal and are attested, and the
/// window before is scored and settled. Ends in the block that fixes the accepted set.
pub(crate) fn play_window(window: Window, miners: u8, validators: u8) {
    let has_scores =
        window > 0 && Attestations::<Test>::contains_key((0, window.saturating_sub(1), 0));
    roll_to_window(window);
    for number in 0..miners {
        commit(window, number, number, GENESIS_ROOT);
    }
    for number in (0..validators).filter(|_| has_scores) {
        commit_scores(window - 1, number, &evaluations(miners));
    }
    roll_to(System::block_number() + run().settings.schedule.score_commit_end);
    for number in (0..validators).filter(|_| has_scores) {
        reveal_scores(window - 1, number, &evaluations(miners));
    }
    roll_to_phase(window, Phase::Reveal);
    for number in 0..miners {
        reveal(window, number, number, GENESIS_ROOT).unwrap();
    }
    roll_to_phase(window, Phase::Attest);
    let uids: Vec<Uid> = (0..Uid::from(miners)).collect();
    for number in 0..validators {
        attest(window, number, &uids, GENESIS_ROOT);
    }
    roll_to_phase(window, Phase::Apply);
}

/// The window after [`play_window`]: everybody's scores, and no work. Ends in the block that settles.
pub(crate) fn score_window(window: Window, miners: u8, validators: u8) {
    roll_to_window(window + 1);
    for number in 0..validators {
        commit_scores(window, number, &evaluations(miners));
    }
    roll_to(System::block_number() + run().settings.schedule.score_commit_end);
    for number in 0..validators {
        reveal_scores(window, number, &evaluations(miners));
    }
    roll_to_settlement(window);
}

/// The ledger of run 0.
pub(crate) fn ledger() -> Ledger {
    Ledgers::<Test>::get(0)
}

/// What an account may claim in all.
pub(crate) fn claimable(account: &AccountId) -> Planck {
    Claims::<Test>::get(0, account).iter().map(|(_, amount)| amount).sum()
}

/// What the run's account holds.
pub(crate) fn run_balance(run_id: RunId) -> Planck {
    Balances::free_balance(Gauntlet::run_account(run_id))
}
