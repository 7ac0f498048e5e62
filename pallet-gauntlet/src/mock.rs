//! A runtime with this pallet and balances only, and the steps that tests are made of.

use std::cell::RefCell;

use codec::{Decode, DecodeWithMemTracking, Encode};
use frame_support::{
    derive_impl,
    dispatch::{DispatchInfo, GetDispatchInfo},
    parameter_types,
    traits::{
        fungible::Mutate,
        tokens::{Fortitude, Precision, Preservation},
        Hooks, LinearStoragePrice,
    },
    weights::{
        constants::{RocksDbWeight, WEIGHT_REF_TIME_PER_SECOND},
        Weight, WeightMeter,
    },
};
use frame_system::{limits, CheckNonce, EnsureRoot, EnsureSigned};
use protocol::{
    commitment::{
        attestation_commitment_hash, commitment_hash, score_commitment_hash, AttestationOpening,
        Opening,
    },
    consensus::Evaluation,
    consent::{hot_key_consent, Role},
    emission::Halving,
    fault::copy_places,
    layout::{kept, Layout, CHUNK_LEN},
    merkle,
    settings::{Settings, SCORE_VERSION},
    update::{encode_chunk, Chunk},
    window::Phase,
    Hash, Planck, RunId, Uid, ValidatorIndex, Window,
};
use scale_info::TypeInfo;
use sp_core::H256;
use sp_keystore::{testing::MemoryKeystore, KeystoreExt};
use sp_runtime::{
    traits::{
        BlockNumberProvider, DispatchTransaction, IdentifyAccount, IdentityLookup, Implication,
        Lazy, TransactionExtension, ValidateResult, Verify,
    },
    transaction_validity::{
        InvalidTransaction, TransactionSource, TransactionValidityError, ValidTransaction,
    },
    AccountId32, BuildStorage, DispatchError, Perbill,
};

use crate::{
    self as pallet_gauntlet,
    emission_schedule::{EmissionSchedule, HalvingMint, Pot},
    extension::CheckWindowWork,
    *,
};

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
    type BlockWeights = BlockWeights;
    type DbWeight = RocksDbWeight;
}

parameter_types! {
    /// Blocks of two seconds, as the runtime's.
    pub BlockWeights: limits::BlockWeights = limits::BlockWeights::with_sensible_defaults(
        Weight::from_parts(2 * WEIGHT_REF_TIME_PER_SECOND, u64::MAX),
        Perbill::from_percent(75),
    );
    pub const ExistentialDeposit: Planck = EXISTENTIAL_DEPOSIT;
    pub const RunDepositBase: Planck = 100 * UNIT;
    pub const RunDepositByte: Planck = UNIT / 10;
    /// How far the clock is ahead of the blocks.
    pub static ClockSkew: u32 = 0;
    /// Numbers of the clock for each block.
    pub static ClockRate: u32 = 1;
    /// Windows after which anybody may close a run.
    pub static Idle: Window = 6;
}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Test {
    type Balance = Planck;
    type ExistentialDeposit = ExistentialDeposit;
    type AccountStore = System;
    type RuntimeHoldReason = RuntimeHoldReason;
}

/// Where the emission of a test comes from.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    /// [`Schedule`] mints.
    Mint,
    /// [`sponsor`] gives [`PER_BLOCK`] a block.
    Pot,
    /// Nothing.
    Nothing,
}

/// What a block gives, so that a window of the example gives 100 UNIT.
pub(crate) const PER_BLOCK: Planck = 5 * UNIT;

parameter_types! {
    pub(crate) static EmissionOf: Source = Source::Mint;
    pub(crate) static Schedule: Halving =
        Halving { start_block: 0, per_block: PER_BLOCK, halving_blocks: 0, cap: 10_000_000 * UNIT };
    pub PotAccount: AccountId = account(90);
    pub const PotPerBlock: Planck = PER_BLOCK;
}

type Mint = HalvingMint<Balances, Schedule>;
type TestPot = Pot<Balances, PotAccount, PotPerBlock>;

/// The source that [`EmissionOf`] names.
pub struct TestEmission;

impl EmissionSchedule<AccountId> for TestEmission {
    fn through(block: u32) -> Planck {
        match EmissionOf::get() {
            Source::Mint => <Mint as EmissionSchedule<AccountId>>::through(block),
            Source::Pot => <TestPot as EmissionSchedule<AccountId>>::through(block),
            Source::Nothing => <() as EmissionSchedule<AccountId>>::through(block),
        }
    }

    fn draw(to: &AccountId, amount: Planck) -> Planck {
        match EmissionOf::get() {
            Source::Mint => Mint::draw(to, amount),
            Source::Pot => TestPot::draw(to, amount),
            Source::Nothing => <() as EmissionSchedule<AccountId>>::draw(to, amount),
        }
    }

    fn give_back(from: &AccountId, amount: Planck) -> Planck {
        match EmissionOf::get() {
            Source::Mint => Mint::give_back(from, amount),
            Source::Pot => TestPot::give_back(from, amount),
            Source::Nothing => <() as EmissionSchedule<AccountId>>::give_back(from, amount),
        }
    }
}

/// A clock of `ClockRate` numbers a block, ahead of the blocks by `ClockSkew`.
pub struct Clock;

impl BlockNumberProvider for Clock {
    type BlockNumber = u32;

    fn current_block_number() -> u32 {
        System::block_number() * ClockRate::get() + ClockSkew::get()
    }
}

/// Lets the clock jump.
pub(crate) fn roll_clock(numbers: u32) {
    ClockSkew::set(ClockSkew::get() + numbers);
}

/// A hot key's consent in tests, where keys are numbers: whose it is, and to what.
#[derive(
    codec::Encode,
    codec::Decode,
    codec::DecodeWithMemTracking,
    scale_info::TypeInfo,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct TestProof {
    hot: AccountId,
    message: Vec<u8>,
}

impl Verify for TestProof {
    type Signer = TestSigner;

    fn verify<L: Lazy<[u8]>>(&self, mut message: L, signer: &AccountId) -> bool {
        self.hot == *signer && self.message == message.get()
    }
}

/// Who made a [`TestProof`].
pub struct TestSigner(AccountId);

impl IdentifyAccount for TestSigner {
    type AccountId = AccountId;

    fn into_account(self) -> AccountId {
        self.0
    }
}

/// The consent of `hot` to work in run 0.
pub(crate) fn consent(role: Role, cold: &AccountId, hot: &AccountId) -> TestProof {
    let message = hot_key_consent(&Gauntlet::genesis_hash(), 0, role, &account_bytes(cold));
    TestProof { hot: hot.clone(), message: message.to_vec() }
}

#[cfg(feature = "runtime-benchmarks")]
impl BenchmarkProof<AccountId> for TestProof {
    fn hot_key(number: u32) -> AccountId {
        AccountId::new(sp_io::hashing::blake2_256(&number.to_le_bytes()))
    }

    fn prove(hot: &AccountId, message: &[u8]) -> Self {
        Self { hot: hot.clone(), message: message.to_vec() }
    }
}

#[derive_impl(pallet_gauntlet::config_preludes::TestDefaultConfig)]
impl Config for Test {
    type BlockNumberProvider = Clock;
    type ClockPerBlock = ClockRate;
    type IdleWindows = Idle;
    type Currency = Balances;
    type CreateOrigin = EnsureSigned<AccountId>;
    type AdminOrigin = EnsureRoot<AccountId>;
    type HotKeyProof = TestProof;
    type Emission = TestEmission;
    type RunDeposit = LinearStoragePrice<RunDepositBase, RunDepositByte, Planck>;
    type Randomness = randomness::InsecureParentHash<Test>;
    type WeightInfo = weights::SubstrateWeight<Test>;
}

/// Charges a fee that nobody pays who owns nothing; its priority is the tip.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub(crate) struct Fee {
    pub(crate) tip: u64,
}

/// What [`Fee`] weighs.
pub(crate) const FEE_WEIGHT: Weight = Weight::from_parts(1_234, 0);

impl TransactionExtension<RuntimeCall> for Fee {
    const IDENTIFIER: &'static str = "Fee";
    type Implicit = ();
    type Val = AccountId;
    type Pre = ();

    fn weight(&self, _call: &RuntimeCall) -> Weight {
        FEE_WEIGHT
    }

    fn validate(
        &self,
        origin: RuntimeOrigin,
        _call: &RuntimeCall,
        _info: &DispatchInfo,
        _len: usize,
        _self_implicit: (),
        _inherited_implication: &impl Implication,
        _source: TransactionSource,
    ) -> ValidateResult<AccountId, RuntimeCall> {
        let signer = frame_system::ensure_signed(origin.clone());
        let signer = signer.map_err(|_| InvalidTransaction::BadSigner)?;
        if Balances::free_balance(&signer) < UNIT {
            return Err(InvalidTransaction::Payment.into());
        }
        let validity = ValidTransaction { priority: self.tip, ..Default::default() };
        Ok((validity, signer, origin))
    }

    fn prepare(
        self,
        signer: AccountId,
        _origin: &RuntimeOrigin,
        _call: &RuntimeCall,
        _info: &DispatchInfo,
        _len: usize,
    ) -> Result<(), TransactionValidityError> {
        let burned = Balances::burn_from(
            &signer,
            UNIT,
            Preservation::Expendable,
            Precision::Exact,
            Fortitude::Polite,
        );
        burned.map(|_| ()).map_err(|_| InvalidTransaction::Payment.into())
    }
}

/// The extensions of a transaction.
pub(crate) type TxExtension = (CheckNonce<Test>, CheckWindowWork<Test, Fee>);

/// The extensions of a transaction with a nonce and a tip.
pub(crate) fn extension(nonce: u32, tip: u64) -> TxExtension {
    (CheckNonce::from(nonce), CheckWindowWork::new(Fee { tip }))
}

/// The bytes that a transaction with this call has, about.
fn byte_len(call: &RuntimeCall) -> usize {
    call.encoded_size() + 100
}

/// What the pool is told of a transaction with the signer's next nonce.
pub(crate) fn validity(
    signer: &AccountId,
    tip: u64,
    call: impl Into<RuntimeCall>,
) -> Result<ValidTransaction, TransactionValidityError> {
    let (call, nonce) = (call.into(), System::account_nonce(signer));
    let (info, len) = (call.get_dispatch_info(), byte_len(&call));
    let origin = RuntimeOrigin::signed(signer.clone());
    let validated = extension(nonce, tip).validate_only(
        origin,
        &call,
        &info,
        len,
        TransactionSource::External,
        0,
    );
    validated.map(|(validity, ..)| validity)
}

/// Puts a transaction with the signer's next nonce into the block.
pub(crate) fn include(
    signer: &AccountId,
    call: impl Into<RuntimeCall>,
) -> Result<Result<(), DispatchError>, TransactionValidityError> {
    let (call, nonce) = (call.into(), System::account_nonce(signer));
    let (mut info, len) = (call.get_dispatch_info(), byte_len(&call));
    let extension = extension(nonce, 0);
    info.extension_weight = extension.weight(&call);
    let origin = RuntimeOrigin::signed(signer.clone());
    let included = extension.dispatch_transaction(origin, call, &info, len, 0)?;
    Ok(included.map(|_| ()).map_err(|error| error.error))
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
    // Pay is whole from the first window on.
    settings.incentive.trust_windows = 0;
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
    weight: u16,
}

impl Default for ExtBuilder {
    fn default() -> Self {
        ExtBuilder { settings: settings(), miners: 0, validators: 0, weight: 1 }
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

    /// Changes run 0's weight; 1 if it is not called.
    pub(crate) fn weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    /// Externalities in block 1, with run 0 created and money for everybody.
    pub(crate) fn build(self) -> sp_io::TestExternalities {
        let mut ext = new_test_ext();
        ext.execute_with(|| {
            assert_eq!(Gauntlet::do_create_run(owner(), self.settings, layout()), Ok(0));
            assert_eq!(Gauntlet::do_set_run_weight(0, self.weight), Ok(()));
            for number in 0..self.miners {
                let uid = register_miner(miner_cold(number), miner_hot(number));
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
        let mut ext = self.build();
        ext.execute_with(test);
        // As between blocks: from the database, with nothing in an overlay.
        ext.commit_all().unwrap();
        ext.execute_with(check_state);
    }
}

/// Registers a miner of run 0 for whatever joining costs.
pub(crate) fn register_miner(cold: AccountId, hot: AccountId) -> Result<Uid, DispatchError> {
    Gauntlet::do_register_miner(cold, 0, hot, Planck::MAX)
}

/// Externalities in block 1 without a run.
pub(crate) fn new_test_ext() -> sp_io::TestExternalities {
    let balances = (1..=99).map(|number| (account(number), ENDOWMENT)).collect();
    let balances = BalancesConfig { balances, ..Default::default() };
    let genesis = RuntimeGenesisConfig { balances, ..Default::default() };
    let storage = genesis.build_storage().unwrap();
    let mut ext = sp_io::TestExternalities::from(storage);
    PLEDGED.take();
    // Benchmarks sign with keys of the node's keystore.
    ext.register_extension(KeystoreExt::new(MemoryKeystore::new()));
    ext.execute_with(|| start_block(1));
    ext
}

/// What the three groups of run 0 carry together.
pub(crate) fn carried() -> Planck {
    ledger().carried().checked_sum().unwrap()
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

/// Runs to the block at which the clock shows `number`, checking the invariants between any two blocks.
pub(crate) fn roll_to(number: u32) {
    while Gauntlet::now() < number {
        let block = System::block_number();
        Gauntlet::on_idle(block, Weight::MAX);
        check_state();
        start_block(block + 1);
        reveal_pledged();
    }
}

/// Runs to the first block of window `window`.
pub(crate) fn roll_to_window(window: Window) {
    roll_to(run().schedule.window_start(window).unwrap());
}

/// Runs to the first block in which the work of `phase` of window `window` can be done.
pub(crate) fn roll_to_phase(window: Window, phase: Phase) {
    let schedule = run().schedule;
    let offset = match phase {
        Phase::Commit => 0,
        // Nobody can reveal before the challenge is drawn.
        Phase::Reveal => schedule.challenge_offset(),
        Phase::AttestCommit => schedule.reveal_end,
        Phase::AttestReveal => schedule.attest_commit_end,
        Phase::Apply => schedule.attest_end,
    };
    roll_to(schedule.window_start(window).unwrap() + offset);
}

/// Runs to the block in which the settlement of `window` begins.
pub(crate) fn roll_to_settlement(window: Window) {
    let schedule = run().schedule;
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
    let count = settings_now().incentive.challenge_chunks;
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

/// What validator `number` says of the payloads of `uids`.
pub(crate) fn attestation(number: u8, uids: &[Uid], state_root: Hash) -> AttestationOpening {
    let bitmap = protocol::accept::bitmap_of(uids);
    AttestationOpening { bitmap, state_root, salt: [number; 32] }
}

/// The hash of an attestation by validator `number`.
pub(crate) fn attestation_hash(window: Window, number: u8, opening: &AttestationOpening) -> Hash {
    let hot = account_bytes(&validator_hot(number));
    attestation_commitment_hash(&Gauntlet::genesis_hash(), 0, window, &hot, opening)
}

/// Reveals an attestation.
pub(crate) fn reveal_attestation(
    window: Window,
    number: u8,
    opening: AttestationOpening,
) -> sp_runtime::DispatchResult {
    let AttestationOpening { bitmap, state_root, salt } = opening;
    let bitmap = Bitmap::truncate_from(bitmap);
    Gauntlet::do_reveal_attestation(validator_hot(number), 0, window, bitmap, state_root, salt)
}

thread_local! {
    /// Attestations that are committed to and wait for the phase in which they are revealed.
    static PLEDGED: RefCell<Vec<(Window, u8, AttestationOpening)>> = const { RefCell::new(Vec::new()) };
}

/// Commits to an attestation of the payloads of `uids`, and reveals it as soon as [`roll_to`] comes to that phase.
pub(crate) fn attest(window: Window, number: u8, uids: &[Uid], root: Hash) {
    let opening = attestation(number, uids, root);
    let hash = attestation_hash(window, number, &opening);
    Gauntlet::do_commit_attestation(validator_hot(number), 0, window, hash).unwrap();
    PLEDGED.with_borrow_mut(|pledged| pledged.push((window, number, opening)));
}

/// All validators attest that they have nothing of `window`: they are there, and so is the chain.
pub(crate) fn attest_nothing(window: Window) {
    roll_to_phase(window, Phase::AttestCommit);
    for (index, _) in Permits::<Test>::get(0, window) {
        attest(window, index as u8, &[], GENESIS_ROOT);
    }
}

/// Reveals what was pledged, if it is time.
fn reveal_pledged() {
    let Some(run) = Runs::<Test>::get(0) else { return };
    let moment = protocol::window::phase_at(&run.schedule, Gauntlet::now());
    if moment.is_some_and(|moment| moment.phase == Phase::AttestReveal) {
        for (window, number, opening) in PLEDGED.take() {
            reveal_attestation(window, number, opening).unwrap();
        }
    }
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
    let genesis = Gauntlet::genesis_hash();
    score_commitment_hash(&genesis, 0, window, &hot, evaluations, SCORE_VERSION, &salt)
}

pub(crate) fn commit_scores(window: Window, number: u8, evaluations: &[Evaluation]) {
    let hash = score_hash(window, number, evaluations, [number; 32]);
    Gauntlet::do_commit_scores(validator_hot(number), 0, window, hash, SCORE_VERSION).unwrap();
}

pub(crate) fn reveal_scores(window: Window, number: u8, evaluations: &[Evaluation]) {
    let evaluations = evaluations.to_vec().try_into().unwrap();
    let (hot, salt) = (validator_hot(number), [number; 32]);
    Gauntlet::do_reveal_scores(hot, 0, window, evaluations, salt, SCORE_VERSION).unwrap();
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
    roll_to(System::block_number() + run().schedule.score_commit_end);
    for number in (0..validators).filter(|_| has_scores) {
        reveal_scores(window - 1, number, &evaluations(miners));
    }
    roll_to_phase(window, Phase::Reveal);
    for number in 0..miners {
        reveal(window, number, number, GENESIS_ROOT).unwrap();
    }
    roll_to_phase(window, Phase::AttestCommit);
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
    roll_to(System::block_number() + run().schedule.score_commit_end);
    for number in 0..validators {
        reveal_scores(window, number, &evaluations(miners));
    }
    roll_to_settlement(window);
}

/// The settings of run 0 in force.
pub(crate) fn settings_now() -> Settings {
    RunSettings::<Test>::get(0, run().settings_version).unwrap()
}

/// The settings under which a window of run 0 is settled.
pub(crate) fn settings_of(window: Window) -> Settings {
    Gauntlet::settings_of(0, window).unwrap()
}

/// The pool of validator `index`.
pub(crate) fn pool(index: ValidatorIndex) -> StakePoolOf<Test> {
    Pools::<Test>::get(0, Validators::<Test>::get(0, index).unwrap().pool).unwrap()
}

/// The money that anybody has, free or held.
pub(crate) fn total_balance(who: &AccountId) -> Planck {
    use frame_support::traits::fungible::Inspect;
    <Balances as Inspect<AccountId>>::total_balance(who)
}

/// All money that there is.
pub(crate) fn issuance() -> Planck {
    Balances::total_issuance()
}

/// The ledger of run 0.
pub(crate) fn ledger() -> Ledger {
    Ledgers::<Test>::get(0)
}

/// What an account may claim in all.
pub(crate) fn claimable(account: &AccountId) -> Planck {
    Claims::<Test>::get(0, account).iter().map(|claim| claim.amount).sum()
}

/// What the run's account holds.
pub(crate) fn run_balance(run_id: RunId) -> Planck {
    Balances::free_balance(Gauntlet::run_account(run_id))
}

/// A well-formed chunk of the test's layout whose positions begin at `first`.
pub(crate) fn chunk_from(index: u32, first: u16) -> Vec<u8> {
    let keep = settings().training.keep;
    let len = Layout(layout().into_inner()).chunk_len(index).unwrap();
    let count = kept(len, keep);
    let chunk = Chunk {
        scale_bf16: 0x3c00,
        indices: (0..count).map(|at| first + at).collect(),
        codes: vec![1; usize::from(count)],
    };
    encode_chunk(&chunk, len, keep).unwrap()
}

/// A payload of three chunks whose positions begin where `firsts` says.
pub(crate) fn payload_from(firsts: [u16; 3]) -> Vec<Vec<u8>> {
    (0..).zip(firsts).map(|(index, first)| chunk_from(index, first)).collect()
}

fn leaves(payload: &[Vec<u8>]) -> Vec<Hash> {
    (0..).zip(payload).map(|(index, chunk)| merkle::leaf_hash(index, chunk)).collect()
}

fn opening_of(payload: &[Vec<u8>]) -> Opening {
    let payload_root = merkle::root_of_leaf_hashes(&leaves(payload)).unwrap();
    Opening { payload_root, ..opening(0, GENESIS_ROOT) }
}

/// Commits miner `number` to a payload.
pub(crate) fn commit_payload(window: Window, number: u8, payload: &[Vec<u8>]) {
    let hot = miner_hot(number);
    let genesis = Gauntlet::genesis_hash();
    let hash = commitment_hash(&genesis, 0, window, &account_bytes(&hot), &opening_of(payload));
    Gauntlet::do_commit_update(hot, 0, window, hash).unwrap();
}

/// Reveals what [`commit_payload`] committed to.
pub(crate) fn reveal_payload(
    window: Window,
    number: u8,
    payload: &[Vec<u8>],
) -> sp_runtime::DispatchResult {
    let hot = miner_hot(number);
    let uid = MinerUids::<Test>::get(0, &hot).unwrap();
    let seed = record(window).challenge_seed.unwrap();
    let count = settings_now().incentive.challenge_chunks;
    let asked = protocol::commitment::challenged_chunks(&seed, 0, window, uid, 3, count);
    let shown = asked.into_iter().map(|index| RevealedChunk {
        index,
        chunk: payload[index as usize].clone().try_into().unwrap(),
        proof: merkle::proof(&leaves(payload), index).unwrap().try_into().unwrap(),
    });
    let shown = RevealedChunks::truncate_from(shown.collect());
    Gauntlet::do_reveal_update(hot, 0, window, opening_of(payload), shown)
}

/// What a report of a copy shows of two payloads, in `window` or an earlier one, at the places that `window` draws.
pub(crate) fn copy_proof(window: Window, payloads: [&[Vec<u8>]; 2]) -> CopyProof {
    let seed = record(window).challenge_seed.unwrap();
    let layout = Layout(layout().into_inner());
    let places = copy_places(&seed, &layout, settings_now().training.keep);
    let shown = places.iter().map(|at| payloads.map(|payload| shown_chunk(payload, at.index)));
    CopyProof::truncate_from(shown.collect())
}

/// Chunk `index` of a payload with its proof.
pub(crate) fn shown_chunk(payload: &[Vec<u8>], index: u32) -> ShownChunk {
    ShownChunk {
        bytes: payload[index as usize].clone().try_into().unwrap(),
        proof: merkle::proof(&leaves(payload), index).unwrap().try_into().unwrap(),
    }
}
