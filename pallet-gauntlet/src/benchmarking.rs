//! Measures every call and every step of a hook, at its worst within the bounds of the types.
//!
//! A step that walks all rows of a run, which lie side by side in the state, is charged the proof that was recorded:
//! `Gauntlet: Ignored` adds nothing for each row. Everything else is charged each row by its greatest length, as if it lay
//! alone in a map of a million.

use alloc::{boxed::Box, vec, vec::Vec};

use frame_benchmarking::v2::*;
use frame_support::{
    traits::{fungible::Mutate, EnsureOrigin, Get},
    weights::WeightMeter,
    BoundedVec,
};
use frame_system::RawOrigin;
use protocol::{
    accept::bitmap_of,
    boundary::Boundary,
    commitment::{
        attestation_commitment_hash, challenged_chunks, commitment_hash, score_commitment_hash,
        AttestationOpening, Opening,
    },
    consensus::{yuma, Evaluation, Standing},
    consent::{hot_key_consent, peer_consent, Role},
    entry::Seat,
    fault::{copy_places, ProvenFault},
    fixed::Q32,
    layout::{Layout, CHUNK_LEN},
    merkle,
    pool::Pool,
    rating::{PlackettLuce, Rating},
    settings::{Settings, StandingKind, YumaSettings, PLACKETT_LUCE_UID_MAX, SCORE_VERSION},
    strikes::STRIKE_WINDOWS,
    update::{encode_chunk, Chunk},
    Hash, Planck, RunId, Uid, ValidatorIndex, Window,
};
use sp_runtime::{AccountId32, MultiSignature};

use crate::{work::Step, *};

/// Proofs of hot keys that consent to work for a cold key, as benchmarks make them.
pub trait BenchmarkProof<AccountId> {
    /// The hot key of a number.
    fn hot_key(number: u32) -> AccountId;
    /// Its signature over `message`.
    fn prove(hot: &AccountId, message: &[u8]) -> Self;
}

/// Signs with sr25519 keys of the node's keystore, where accounts are public keys.
impl BenchmarkProof<AccountId32> for MultiSignature {
    fn hot_key(number: u32) -> AccountId32 {
        let seed = alloc::format!("//hot{number}").into_bytes();
        sp_io::crypto::sr25519_generate(HOT_KEY_TYPE, Some(seed)).0.into()
    }

    fn prove(hot: &AccountId32, message: &[u8]) -> Self {
        let public = sp_core::sr25519::Public::from_raw(hot.clone().into());
        sp_io::crypto::sr25519_sign(HOT_KEY_TYPE, &public, message)
            .expect("the key was generated; qed")
            .into()
    }
}

/// The keystore's name for hot keys of benchmarks.
const HOT_KEY_TYPE: sp_core::crypto::KeyTypeId = sp_core::crypto::KeyTypeId(*b"ghot");

/// Enough for every bond and stake.
const RICH: Planck = 1_000_000_000_000_000_000_000;
const STAKE: Planck = 1_000_000_000_000_000;
/// What a settlement owes to each.
const PAY: Planck = 1_000_000;
/// Miners that are enough to measure what one costs; a run may have four times as many.
const MINERS: u32 = 1_024;
/// Most miners of a match, whose cost grows with the square of their number: a line from none to these lies above it.
const PLAYERS: u32 = PLACKETT_LUCE_UID_MAX as u32;
/// The most values of a chunk that may be kept for its positions to tell anything.
const COPY_KEEP: u16 = CHUNK_LEN as u16 / 2;
/// First block of window 0 in [`settings`].
const START: u32 = 5;

/// The example with as many slots as there may be.
fn settings() -> Settings {
    let mut settings = Settings::example();
    settings.incentive.uid_max = UIDS_MAX as u16;
    settings.incentive.evaluators_per_miner = 4;
    settings.incentive.evaluations_per_validator = EVALUATIONS_MAX as u16;
    settings.incentive.claim_delay_windows = 0;
    settings
}

fn funded<T: Config>(name: &'static str, number: u32) -> T::AccountId {
    let who: T::AccountId = account(name, number, 0);
    T::Currency::set_balance(&who, RICH);
    who
}

fn tensors(count: u32) -> LayoutVec {
    LayoutVec::truncate_from(vec![u64::from(CHUNK_LEN); count as usize])
}

/// The owner of the runs that [`create`] makes.
fn owner<T: Config>() -> T::AccountId {
    account("owner", 0, 0)
}

/// A run that starts in block [`START`], seen from block 1.
fn create<T: Config>(settings: Settings) -> RunId {
    frame_system::Pallet::<T>::set_block_number(1u32.into());
    let owner = funded::<T>("owner", 0);
    Pallet::<T>::do_create_run(owner, settings, tensors(1_024)).expect("valid settings; qed")
}

/// The cold and the hot key of miner `number`.
fn miner_keys<T: Config>(number: u32) -> (T::AccountId, T::AccountId) {
    (account("miner cold", number, 0), account("miner hot", number, 0))
}

/// Miner `number`, registered: its cold and its hot key.
fn miner<T: Config>(run: RunId, number: u32) -> (T::AccountId, T::AccountId) {
    let (_, hot) = miner_keys::<T>(number);
    let cold = funded::<T>("miner cold", number);
    Pallet::<T>::do_register_miner(cold.clone(), run, T::AccountId::clone(&hot), Planck::MAX)
        .expect("there is room; qed");
    (cold, hot)
}

/// Validator `number`: its cold and its hot key.
fn validator<T: Config>(run: RunId, number: u32) -> (T::AccountId, T::AccountId) {
    let (cold, hot) = (funded::<T>("validator cold", number), account("validator hot", number, 0));
    Pallet::<T>::do_register_validator(cold.clone(), run, T::AccountId::clone(&hot), STAKE)
        .expect("there is room; qed");
    (cold, hot)
}

/// Gives a run so many sponsors of [`STAKE`] each.
fn sponsored<T: Config>(run: RunId, count: u32) {
    for number in 0..count {
        let sponsor = funded::<T>("sponsor", number);
        Pallet::<T>::do_fund_run(sponsor, run, STAKE, 1).expect("there is room; qed");
    }
}

/// Hot key `number`, which consents to work in `role` for `cold`.
fn consenting<T: Config>(
    run: RunId,
    role: Role,
    cold: &T::AccountId,
    number: u32,
) -> (T::AccountId, T::HotKeyProof)
where
    T::HotKeyProof: BenchmarkProof<T::AccountId>,
{
    let hot = T::HotKeyProof::hot_key(number);
    let message = hot_key_consent(&Pallet::<T>::genesis_hash(), run, role, &account_bytes(cold));
    let proof = T::HotKeyProof::prove(&hot, &message);
    (hot, proof)
}

/// A run of which every slot is taken by a miner that is no longer immune, and the first block of such a window.
fn full<T: Config>(miners: u32) -> RunId {
    let mut settings = settings();
    settings.incentive.uid_max = miners as u16;
    settings.entry.immunity_windows = 0;
    let run = create::<T>(settings);
    for number in 0..miners {
        miner::<T>(run, number);
    }
    go_to::<T>(START);
    run
}

/// Goes to a block of window 0 or 1 and does what its boundary asks for.
fn go_to<T: Config>(block: u32) {
    frame_system::Pallet::<T>::set_block_number(block.into());
    let _ = Pallet::<T>::do_boundaries();
}

/// As [`go_to`], block by block, so that no boundary is late.
fn walk_to<T: Config>(block: u32) {
    for block in Pallet::<T>::now()..=block {
        go_to::<T>(block);
    }
}

fn chunk() -> Vec<u8> {
    let chunk = Chunk { scale_bf16: 0x3c00, indices: (0..64).collect(), codes: vec![1; 64] };
    encode_chunk(&chunk, CHUNK_LEN, 64).expect("a valid chunk; qed")
}

/// The leaves of a payload of 1024 chunks that keep [`COPY_KEEP`] values each, and one of them.
fn longest_payload() -> (Vec<Hash>, Vec<u8>) {
    let codes = vec![1; COPY_KEEP.into()];
    let chunk = Chunk { scale_bf16: 0x3c00, indices: (0..COPY_KEEP).collect(), codes };
    let chunk = encode_chunk(&chunk, CHUNK_LEN, COPY_KEEP).expect("a valid chunk; qed");
    ((0..1_024).map(|index| merkle::leaf_hash(index, &chunk)).collect(), chunk)
}

/// Hashes of the leaves of a payload of 1024 chunks, and its opening.
fn payload() -> (Vec<Hash>, Opening) {
    let chunk = chunk();
    let leaves: Vec<Hash> = (0..1_024).map(|index| merkle::leaf_hash(index, &chunk)).collect();
    let opening = Opening {
        payload_root: merkle::root_of_leaf_hashes(&leaves).expect("there are leaves; qed"),
        chunk_count: 1_024,
        byte_len: 1,
        base_state_root: [0; 32],
        salt: [0; 32],
    };
    (leaves, opening)
}

fn commit<T: Config>(run: RunId, hot: &T::AccountId, opening: &Opening) {
    let hash = commitment_hash(&Pallet::<T>::genesis_hash(), run, 0, &account_bytes(hot), opening);
    Pallet::<T>::do_commit_update(hot.clone(), run, 0, hash).expect("the commit phase; qed");
}

/// The chunks that miner `uid` must show.
fn shown<T: Config>(run: RunId, uid: Uid, leaves: &[Hash], count: u8) -> RevealedChunks {
    let record = Windows::<T>::get(run, 0).expect("window 0 is open; qed");
    let seed = record.challenge_seed.expect("the reveal phase; qed");
    let chunks = challenged_chunks(&seed, run, 0, uid, 1_024, count).into_iter().map(|index| {
        RevealedChunk {
            index,
            chunk: BoundedVec::truncate_from(chunk()),
            proof: BoundedVec::truncate_from(merkle::proof(leaves, index).expect("a leaf; qed")),
        }
    });
    RevealedChunks::truncate_from(chunks.collect())
}

/// The hot key of the validator with the last of all permits.
fn permitted<T: Config>(run: RunId) -> T::AccountId {
    let (_, hot) = validator::<T>(run, 0);
    for number in 1..VALIDATORS_MAX {
        validator::<T>(run, number);
    }
    hot
}

fn evaluations(count: u32) -> Evaluations {
    let evaluations = (0..count).map(|uid| Evaluation {
        uid: uid as Uid,
        own_before: 1_000_000,
        own_after: 900_000 - uid,
        random_before: 1_000_000,
        random_after: 950_000 + uid,
    });
    Evaluations::truncate_from(evaluations.collect())
}

/// Makes `window` the last that a run has opened; nobody has worked in those between it and window 0.
fn skip_to<T: Config>(run: RunId, window: Window) {
    let record = Windows::<T>::get(run, 0).expect("window 0 is open; qed");
    let permits = Permits::<T>::get(run, 0);
    for opened in 1..=window {
        Windows::<T>::insert(run, opened, record.clone());
        Permits::<T>::insert(run, opened, permits.clone());
    }
    Runs::<T>::mutate(run, |run| {
        if let Some(run) = run {
            run.window = Some(window);
        }
    });
    frame_system::Pallet::<T>::set_block_number(start_of(window).into());
}

/// First block of a window in [`settings`].
fn start_of(window: Window) -> u32 {
    START + window as u32 * settings().schedule.window_blocks
}

/// Makes one boundary of a run the only one in the schedule, and due in this block. The chain made no blocks in the phase
/// before, so that whoever was to act in it is excused.
fn make_due<T: Config>(run: RunId, window: Window, boundary: Boundary) {
    let next = settings().schedule.crossing(window, boundary).expect("a run is long; qed");
    frame_system::Pallet::<T>::set_block_number(next.block.into());
    let since = Mark { clock: 0, ..Pallet::<T>::mark() };
    RunSchedule::<T>::put(BoundedVec::truncate_from(vec![Due { run, next, since }]));
    WorkQueue::<T>::kill();
}

/// `miners` and `validators` after everybody's work in window 0.
fn worked_window<T: Config>(miners: u32, validators: u32) -> RunId {
    worked_in::<T>(0, miners, validators)
}

/// `miners` and `validators` after everybody's work in `window`.
fn worked_in<T: Config>(window: Window, miners: u32, validators: u32) -> RunId {
    let run = create::<T>(settings());
    for number in 0..miners {
        miner::<T>(run, number);
    }
    for number in 0..validators {
        validator::<T>(run, number);
    }
    go_to::<T>(START);
    skip_to::<T>(run, window);
    let uids: Vec<Uid> = (0..miners as Uid).collect();
    for uid in &uids {
        let opening = opening_of(*uid);
        let order = u32::from(*uid);
        Commitments::<T>::insert(
            (run, window, *uid),
            Commitment { hash: [1; 32], block: START, order },
        );
        PayloadOwners::<T>::insert((run, window, opening.payload_root), *uid);
        Reveals::<T>::insert(
            (run, window, *uid),
            Reveal { opening, committed_block: START, order },
        );
    }
    CommitCounts::<T>::insert(run, window, miners);
    for index in 0..validators as ValidatorIndex {
        // No two rows are equal: the same value would be in a proof once. The last uids have no miner.
        let fetched: Vec<Uid> = uids.iter().copied().chain([UIDS_MAX as Uid - 1 - index]).collect();
        let bitmap = Bitmap::truncate_from(bitmap_of(&fetched));
        AttestationCommitments::<T>::insert((run, window, index), [0; 32]);
        Attestations::<T>::insert(
            (run, window, index),
            Attestation { bitmap, state_root: [0; 32] },
        );
        let reveal =
            ScoreReveal { evaluations: evaluations(EVALUATIONS_MAX), salt: [index as u8; 32] };
        ScoreCommitments::<T>::insert((run, window, index), [0; 32]);
        ScoreReveals::<T>::insert((run, window, index), reveal);
        Validators::<T>::mutate(run, index, |validator| {
            if let Some(validator) = validator {
                validator.attested_window = Some(window);
            }
        });
    }
    run
}

/// An opening that differs for each miner, without its chunks.
fn opening_of(uid: Uid) -> Opening {
    let mut payload_root = [0; 32];
    payload_root[..2].copy_from_slice(&uid.to_le_bytes());
    Opening {
        payload_root,
        chunk_count: 1_024,
        byte_len: 1,
        base_state_root: [0; 32],
        salt: [0; 32],
    }
}

/// Gives a seat all that can hang on it: both its hot keys announced, one of which waits, and an offer of its cold key.
fn load_seat<T: Config>(run: RunId, seat: Seat, (cold, hot): (T::AccountId, T::AccountId)) {
    let next = match seat {
        Seat::Miner(uid) => account("next miner hot", uid.into(), 0),
        Seat::Validator(index) => account("next validator hot", index.into(), 0),
    };
    Pallet::<T>::do_rotate_hot_key(cold.clone(), run, seat, T::AccountId::clone(&next))
        .expect("its cold key; qed");
    for key in [hot, next] {
        Pallet::<T>::do_announce(key, run, Default::default(), Default::default())
            .expect("registered; qed");
    }
    Pallet::<T>::do_offer_cold(cold.clone(), run, seat, cold).expect("its cold key; qed");
}

/// Validator 0 with a nominator, all that can hang on its seat, and bonds in every miner.
fn laden_validator<T: Config>(run: RunId) -> (T::AccountId, T::AccountId) {
    let keys = validator::<T>(run, 0);
    nominate::<T>(run, &funded::<T>("nominator", 0));
    load_seat::<T>(run, Seat::Validator(0), keys.clone());
    Bonds::<T>::insert(run, 0, bond_row(0));
    keys
}

/// Fills the lists of changes from that of window `first` on, all but the last one in which there may be room.
fn fill_changes<T: Config>(run: RunId, first: Window) {
    // Nobody whose own change would be found there.
    let full = ChangeList::truncate_from(vec![Change::Leave(Uid::MAX); CHANGES_MAX as usize]);
    for list in 0..Window::from(CHANGE_LISTS_MAX - 1) {
        Changes::<T>::insert(run, first + list, full.clone());
    }
}

/// Bonds in as many miners as a run may have, as of a window.
fn bond_row(window: Window) -> BondRow {
    let entries = (0..UIDS_MAX).map(|uid| (uid as Uid, 1 + uid as u16)).collect();
    BondRow { window, entries: BoundedVec::truncate_from(entries) }
}

/// Has a part of what is in pool 0, of the validator's own and of what is delegated, leave it in each of `windows`
/// windows from window 0 on.
fn unbond<T: Config>(run: RunId, windows: Window) {
    let part = STAKE / 128;
    let delegated = Pool { shares: part, amount: part };
    for window in 0..windows {
        let unbonding = Unbonding { due: Window::MAX, own: part, delegated };
        Unbondings::<T>::insert((run, 0, window), unbonding);
    }
    let left = STAKE - part * Planck::from(windows);
    Pools::<T>::mutate(run, 0, |pool| {
        if let Some(pool) = pool {
            pool.own = left;
            pool.delegated = Pool { shares: left, amount: left };
            pool.unbonding = BoundedVec::truncate_from((0..windows).collect());
        }
    });
}

/// As many claims as an account may have: the first is due in window 0, each other one a window later.
fn claims() -> ClaimList {
    let claim = |due| Claim { due, amount: 1_000_000_000 };
    ClaimList::truncate_from((0..u64::from(CLAIMS_MAX)).map(claim).collect())
}

/// Has a run owe [`claims`] to an account.
fn owe<T: Config>(run: RunId, who: &T::AccountId) {
    let claims = claims();
    let claimable = claims.iter().map(|earned| earned.amount).sum();
    Claims::<T>::insert(run, who, claims);
    T::Currency::set_balance(&Pallet::<T>::run_account(run), RICH);
    Ledgers::<T>::insert(run, Ledger { minted: claimable, claimable, ..Default::default() });
}

/// Delegates [`STAKE`] of `who` to validator 0.
fn nominate<T: Config>(run: RunId, who: &T::AccountId) {
    Pallet::<T>::do_delegate(who.clone(), run, 0, STAKE).expect("enough money; qed");
}

/// Money that waits to be shared in pool 0: on its account, and to be claimed.
fn pay_pool<T: Config>(run: RunId) {
    let account = Pallet::<T>::pool_account(run, 0);
    T::Currency::mint_into(&account, STAKE).expect("no overflow; qed");
    owe::<T>(run, &account);
}

/// Puts the reveal of a payload root on chain, as the commit and reveal phases would.
fn reveal_root<T: Config>(run: RunId, uid: Uid, payload_root: Hash) {
    let opening = Opening { payload_root, ..opening_of(uid) };
    let order = u32::from(uid);
    Reveals::<T>::insert((run, 0, uid), Reveal { opening, committed_block: START, order });
}

/// Window 0 with the same payload under two miners; and its leaves.
fn revealed_twice<T: Config>() -> (RunId, Vec<Hash>) {
    let run = create::<T>(settings());
    let (leaves, opening) = payload();
    for uid in 0..2 {
        miner::<T>(run, u32::from(uid));
        reveal_root::<T>(run, uid, opening.payload_root);
    }
    go_to::<T>(START);
    (run, leaves)
}

/// A settlement of window 0 that has credited nobody yet of as many miners as there can be, `uid` where it is found last.
fn paid_pages<T: Config>(run: RunId, uid: Uid) {
    let cold: T::AccountId = account("miner cold", 0, 0);
    let pay = |uid| MinerPay {
        uid,
        cold: cold.clone(),
        own: Some(Default::default()),
        random: Some(Default::default()),
        standing: Standing::default(),
        value: Default::default(),
        share: Default::default(),
        amount: PAY,
    };
    let rows: Vec<_> = (0..UIDS_MAX as Uid).filter(|other| *other != uid).map(pay).collect();
    let pages = rows.chunks(PAGE_LEN as usize);
    let stage = Stage::Miners { page: 0, page_count: pages.len() as u32 };
    let validators = Default::default();
    let settlement = Settlement { window: 0, stage, due: 1, paid: Pots::default(), validators };
    Settlements::<T>::insert(run, settlement);
    for (page, rows) in (0..).zip(pages) {
        SettlementPages::<T>::insert(run, page, BoundedVec::truncate_from(rows.to_vec()));
    }
    // Pages are walked in the order of their keys' hashes.
    let (last, mut rows) = SettlementPages::<T>::iter_prefix(run).last().expect("pages; qed");
    rows.pop();
    rows.try_push(pay(uid)).expect("one has gone; qed");
    SettlementPages::<T>::insert(run, last, rows);
}

/// A payload that miner 0 revealed and was paid for, and its first chunk, which does not decode.
fn malformed<T: Config>() -> (RunId, ShownChunk) {
    let run = create::<T>(settings());
    let bytes = vec![255; SHOWN_BYTES_MAX as usize];
    let leaves: Vec<Hash> = (0..1_024).map(|index| merkle::leaf_hash(index, &bytes)).collect();
    miner::<T>(run, 0);
    paid_pages::<T>(run, 0);
    go_to::<T>(START);
    reveal_root::<T>(run, 0, merkle::root_of_leaf_hashes(&leaves).expect("leaves; qed"));
    (run, ShownChunk { bytes: BoundedVec::truncate_from(bytes), ..shown_chunk(&leaves) })
}

/// Chunk 0 of [`payload`] with its proof.
fn shown_chunk(leaves: &[Hash]) -> ShownChunk {
    ShownChunk {
        bytes: BoundedVec::truncate_from(chunk()),
        proof: BoundedVec::truncate_from(merkle::proof(leaves, 0).expect("a leaf; qed")),
    }
}

/// A run of as many validators as there may be, in which one's evaluation of miner 0 is disputed.
fn disputed<T: Config>() -> (RunId, EvaluationName) {
    let run = worked_window::<T>(1, VALIDATORS_MAX);
    let name = (0, 0, 0);
    let challenger = funded::<T>("challenger", 0);
    Pallet::<T>::do_dispute_evaluation(challenger, run, name).expect("it was revealed; qed");
    (run, name)
}

/// Has every juror of a dispute measure `evaluation`.
fn measure<T: Config>(
    (run, window, index, uid): (RunId, Window, ValidatorIndex, Uid),
    evaluation: &Evaluation,
) {
    EvaluationDisputes::<T>::mutate((run, window, index, uid), |dispute| {
        if let Some(dispute) = dispute {
            for juror in dispute.jury.iter_mut() {
                juror.measured = Some(evaluation.clone());
            }
        }
    });
}

/// Jurors of a dispute, at most: all but the accused.
const JURY_MAX: u32 = VALIDATORS_MAX - 1;

/// Has the first `count` of those who may judge commit; answers the hot key of the next one, or of the last.
fn commit_verdicts<T: Config>(run: RunId, name: EvaluationName, count: u32) -> T::AccountId {
    let hot = |number| account("validator hot", number, 0);
    for number in 1..=count {
        Pallet::<T>::do_commit_verdict(hot(number), run, name, [1; 32]).expect("on the bench; qed");
    }
    hot(count.saturating_add(1).min(JURY_MAX))
}

#[benchmarks(where T::HotKeyProof: BenchmarkProof<T::AccountId>)]
mod benchmarks {
    use super::*;

    #[benchmark]
    fn create_run(t: Linear<1, 1_024>) -> Result<(), BenchmarkError> {
        frame_system::Pallet::<T>::set_block_number(1u32.into());
        let origin =
            T::CreateOrigin::try_successful_origin().map_err(|_| BenchmarkError::Weightless)?;
        let owner = T::CreateOrigin::ensure_origin(origin.clone())
            .map_err(|_| BenchmarkError::Weightless)?;
        T::Currency::set_balance(&owner, RICH);
        let run = NextRunId::<T>::get();

        #[extrinsic_call]
        _(origin as T::RuntimeOrigin, Box::new(settings()), tensors(t));

        assert!(Runs::<T>::contains_key(run));
        Ok(())
    }

    #[benchmark(pov_mode = MaxEncodedLen { Gauntlet: Ignored })]
    fn register_miner(m: Linear<1, MINERS>) {
        let run = full::<T>(m);
        load_seat::<T>(run, Seat::Miner(0), miner_keys::<T>(0));
        let cold = funded::<T>("cold", 0);
        let (hot, proof) = consenting::<T>(run, Role::Miner, &cold, 1);

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, hot.clone(), proof, Planck::MAX);

        assert_eq!(MinerUids::<T>::get(run, hot), Some(0));
    }

    #[benchmark]
    fn leave_miner() {
        let run = create::<T>(settings());
        let (cold, _) = miner::<T>(run, 0);
        go_to::<T>(START);
        fill_changes::<T>(run, 2);

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, 0);

        assert_eq!(Miners::<T>::get(run, 0).and_then(|miner| miner.last_window), Some(0));
    }

    #[benchmark]
    fn evict() {
        let mut settings = settings();
        // As many windows are looked at as are kept.
        let idle = T::HistoryWindows::get() as u32;
        settings.entry.idle_windows = idle;
        let later = START + idle * settings.schedule.window_blocks;
        let run = create::<T>(settings);
        let keys = miner::<T>(run, 0);
        load_seat::<T>(run, Seat::Miner(0), keys);
        walk_to::<T>(later);
        let caller = funded::<T>("caller", 0);

        #[extrinsic_call]
        _(RawOrigin::Signed(caller), run, 0);

        assert!(!Miners::<T>::contains_key(run, 0));
    }

    #[benchmark]
    fn withdraw_bond() {
        let mut settings = settings();
        settings.entry.idle_windows = 2;
        let blocks = settings.schedule.window_blocks;
        let later = 2 + settings.staking.unbonding_windows;
        let run = create::<T>(settings);
        miner::<T>(run, 0);
        walk_to::<T>(START + 2 * blocks);
        Pallet::<T>::do_evict(run, 0).expect("it is idle; qed");
        go_to::<T>(START + later * blocks);
        let caller = funded::<T>("caller", 0);

        #[extrinsic_call]
        _(RawOrigin::Signed(caller), run, 0, 0);

        assert!(!Departures::<T>::contains_key(run, (0, 0)));
    }

    #[benchmark]
    fn rotate_hot_key() {
        let run = create::<T>(settings());
        let (cold, _) = miner::<T>(run, 0);
        go_to::<T>(START);
        fill_changes::<T>(run, 1);
        let (hot, proof) = consenting::<T>(run, Role::Miner, &cold, 1);

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, Seat::Miner(0), hot.clone(), proof);

        assert_eq!(MinerUids::<T>::get(run, hot), Some(0));
    }

    #[benchmark]
    fn offer_cold() {
        let run = create::<T>(settings());
        let (cold, _) = miner::<T>(run, 0);
        let to = funded::<T>("to", 0);

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, Seat::Miner(0), to);

        assert!(ColdOffers::<T>::contains_key(run, Seat::Miner(0)));
    }

    #[benchmark]
    fn cancel_cold() {
        let run = create::<T>(settings());
        let (cold, _) = miner::<T>(run, 0);
        Pallet::<T>::do_offer_cold(cold.clone(), run, Seat::Miner(0), funded::<T>("to", 0))
            .expect("its cold key; qed");

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, Seat::Miner(0));

        assert!(!ColdOffers::<T>::contains_key(run, Seat::Miner(0)));
    }

    #[benchmark]
    fn accept_cold() {
        let later = start_of(settings().entry.hand_over_windows.into());
        let run = create::<T>(settings());
        let (cold, _) = validator::<T>(run, 0);
        nominate::<T>(run, &cold);
        unbond::<T>(run, Window::from(UNBONDINGS_MAX) - 1);
        let to = funded::<T>("to", 0);
        Pallet::<T>::do_offer_cold(cold, run, Seat::Validator(0), to.clone())
            .expect("its cold key; qed");
        go_to::<T>(later);

        #[extrinsic_call]
        _(RawOrigin::Signed(to.clone()), run, Seat::Validator(0));

        assert_eq!(Validators::<T>::get(run, 0).map(|validator| validator.cold), Some(to));
    }

    /// All leave, but for the last one, whose last window is not settled yet: it is put off to the last list with room.
    #[benchmark]
    fn make_changes(c: Linear<1, CHANGES_PAGE>) {
        let run = create::<T>(settings());
        for number in 0..c {
            miner::<T>(run, number);
        }
        go_to::<T>(START);
        for number in 0..c {
            let keys = miner_keys::<T>(number);
            load_seat::<T>(run, Seat::Miner(number as Uid), keys.clone());
            Pallet::<T>::do_leave_miner(keys.0, run, number as Uid).expect("its cold key; qed");
        }
        Runs::<T>::mutate(run, |run| run.as_mut().map(|run| run.next_settlement = 1));
        Miners::<T>::mutate(run, c as Uid - 1, |miner| {
            miner.as_mut().map(|miner| miner.last_window = Some(1))
        });
        fill_changes::<T>(run, 4);

        #[block]
        {
            Pallet::<T>::make_changes(run, 2, 3);
        }

        assert_eq!(Departures::<T>::iter_prefix(run).count() as u32, c - 1);
        assert_eq!(Changes::<T>::get(run, 3 + Window::from(CHANGE_LISTS_MAX)).len(), 1);
    }

    #[benchmark(pov_mode = MaxEncodedLen { Gauntlet: Ignored })]
    fn register_validator() {
        let run = create::<T>(settings());
        // All slots are taken: the lowest stake is looked for, and its validator leaves.
        for number in 0..VALIDATORS_MAX {
            let keys = validator::<T>(run, number);
            load_seat::<T>(run, Seat::Validator(number as ValidatorIndex), keys);
        }
        let cold = funded::<T>("cold", 0);
        let (hot, proof) = consenting::<T>(run, Role::Validator, &cold, VALIDATORS_MAX + 1);

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, hot.clone(), proof, STAKE + 1);

        assert!(ValidatorIndices::<T>::contains_key(run, hot));
    }

    #[benchmark]
    fn add_stake() {
        let run = create::<T>(settings());
        let (cold, _) = validator::<T>(run, 0);

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, 0, STAKE);

        assert_eq!(Validators::<T>::get(run, 0).map(|validator| validator.stake), Some(2 * STAKE));
    }

    #[benchmark]
    fn deregister_validator() {
        let run = create::<T>(settings());
        let (cold, _) = laden_validator::<T>(run);

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, 0);

        assert!(!Validators::<T>::contains_key(run, 0));
    }

    #[benchmark]
    fn unstake() {
        let run = create::<T>(settings());
        let (cold, _) = validator::<T>(run, 0);

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, 0, 1);

        assert!(Unbondings::<T>::contains_key((run, 0, 0)));
    }

    #[benchmark]
    fn withdraw_unbonded(u: Linear<1, { 2 * UNBONDINGS_MAX - 1 }>) {
        let run = create::<T>(settings());
        let (cold, _) = validator::<T>(run, 0);
        nominate::<T>(run, &cold);
        let own = Window::from((u / 2).min(UNBONDINGS_MAX - 1));
        let windows = Window::from(u);
        let part = STAKE / 128;
        // The parts of the validator's own stake left in other windows than what it delegated.
        for window in 0..windows {
            let (own, shared) = if window < own { (part, 0) } else { (0, part) };
            let delegated = Pool { shares: shared, amount: shared };
            Unbondings::<T>::insert((run, 0, window), Unbonding { due: 0, own, delegated });
        }
        let left = STAKE - part * Planck::from(windows - own);
        Pools::<T>::mutate(run, 0, |pool| {
            if let Some(pool) = pool {
                pool.own -= part * Planck::from(own);
                pool.unbonding = BoundedVec::truncate_from((0..own).collect());
                pool.delegated = Pool { shares: left, amount: left };
            }
        });
        Delegations::<T>::mutate((run, 0, &cold), |delegation| {
            delegation.shares = left;
            let windows = (own..windows).map(|window| (window, part)).collect();
            delegation.unbonding = BoundedVec::truncate_from(windows);
        });

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, 0);

        assert_eq!(Unbondings::<T>::iter_prefix((run, 0)).count(), 0);
    }

    #[benchmark]
    fn delegate() {
        let run = create::<T>(settings());
        validator::<T>(run, 0);
        pay_pool::<T>(run);
        let nominator = funded::<T>("nominator", 0);

        #[extrinsic_call]
        _(RawOrigin::Signed(nominator.clone()), run, 0, STAKE);

        assert!(Delegations::<T>::contains_key((run, 0, nominator)));
    }

    #[benchmark]
    fn undelegate() {
        let run = create::<T>(settings());
        validator::<T>(run, 0);
        let nominator = funded::<T>("nominator", 0);
        nominate::<T>(run, &nominator);
        pay_pool::<T>(run);

        #[extrinsic_call]
        _(RawOrigin::Signed(nominator), run, 0, STAKE);

        assert!(Unbondings::<T>::contains_key((run, 0, 0)));
    }

    #[benchmark]
    fn set_take() {
        let run = create::<T>(settings());
        let (cold, _) = validator::<T>(run, 0);

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, 0, 0);

        assert_eq!(Pools::<T>::get(run, 0).map(|pool| pool.take.ppm), Some(0));
    }

    #[benchmark]
    fn compound() {
        let run = create::<T>(settings());
        let (cold, _) = validator::<T>(run, 0);
        nominate::<T>(run, &cold);
        pay_pool::<T>(run);

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, 0);

        assert!(Pools::<T>::get(run, 0).is_some_and(|pool| pool.delegated.amount > STAKE));
    }

    #[benchmark]
    fn cancel_slash() -> Result<(), BenchmarkError> {
        let run = create::<T>(settings());
        Pallet::<T>::defer_slash(run, Offender::Pool(0), 0, 1, None);
        let origin =
            T::AdminOrigin::try_successful_origin().map_err(|_| BenchmarkError::Weightless)?;

        #[extrinsic_call]
        _(origin as T::RuntimeOrigin, run, 0);

        assert!(!UnappliedSlashes::<T>::contains_key(run, 0));
        Ok(())
    }

    /// All that is behind a validator, also what left in every window that still answers, so that it loses its slot.
    #[benchmark]
    fn apply_slash() {
        let run = create::<T>(settings());
        laden_validator::<T>(run);
        Pallet::<T>::defer_slash(
            run,
            Offender::Pool(0),
            0,
            2 * STAKE,
            Some(account("reporter", 0, 0)),
        );
        let now = T::DisputeWindows::get();
        unbond::<T>(run, now + 1);
        frame_system::Pallet::<T>::set_block_number(start_of(now).into());

        #[block]
        {
            Pallet::<T>::slash_step(run, &mut WeightMeter::new());
        }

        assert!(!Validators::<T>::contains_key(run, 0));
        let taken = |found: Unbonding| found.own == 0 && found.delegated.amount == 0;
        assert!(Unbondings::<T>::iter_prefix_values((run, 0)).all(taken));
    }

    /// Of a model of as many tensors as there may be, and of chunks as long as they tell anything.
    #[benchmark]
    fn report_copy() {
        let run = create::<T>(settings());
        RunSettings::<T>::mutate(run, 0, |settings| {
            if let Some(settings) = settings {
                settings.training.keep = COPY_KEEP;
            }
        });
        let (leaves, chunk) = longest_payload();
        let payload_root = merkle::root_of_leaf_hashes(&leaves).expect("leaves; qed");
        for uid in 0..2 {
            miner::<T>(run, u32::from(uid));
            reveal_root::<T>(run, uid, payload_root);
        }
        paid_pages::<T>(run, 1);
        go_to::<T>(START);
        let seed = [7; 32];
        Pallet::<T>::change_record(run, 0, |record| record.challenge_seed = Some(seed));
        let layout = Layout(tensors(1_024).into_inner());
        let shown = copy_places(&seed, &layout, COPY_KEEP).into_iter().map(|place| {
            let proof = merkle::proof(&leaves, place.index).expect("a leaf; qed");
            let proof = BoundedVec::truncate_from(proof);
            let shown = ShownChunk { bytes: BoundedVec::truncate_from(chunk.clone()), proof };
            [shown.clone(), shown]
        });
        let chunks = CopyProof::truncate_from(shown.collect());
        let names = [0, 1].map(|uid| CommitmentName { window: 0, uid, registered_window: 0 });
        let reporter = funded::<T>("reporter", 0);

        #[extrinsic_call]
        _(RawOrigin::Signed(reporter), run, names, chunks);

        assert!(ProvenFaults::<T>::contains_key((run, 0, 1)));
    }

    #[benchmark]
    fn report_malformed() {
        let (run, chunk) = malformed::<T>();
        let reporter = funded::<T>("reporter", 0);
        let name = CommitmentName { window: 0, uid: 0, registered_window: 0 };

        #[extrinsic_call]
        _(RawOrigin::Signed(reporter), run, name, 0, Box::new(chunk));

        assert!(ProvenFaults::<T>::contains_key((run, 0, 0)));
    }

    #[benchmark]
    fn challenge_data() {
        let (run, _) = revealed_twice::<T>();
        let challenger = funded::<T>("challenger", 0);
        let name = CommitmentName { window: 0, uid: 0, registered_window: 0 };
        for index in 1..CHALLENGES_PER_MINER_MAX {
            let other = funded::<T>("other challenger", index);
            Pallet::<T>::do_challenge_data(other, run, name, index).expect("a chunk; qed");
        }

        #[extrinsic_call]
        _(RawOrigin::Signed(challenger), run, name, 0);

        let open = OpenChallenges::<T>::get((run, 0, 0));
        assert_eq!(open.len() as u32, CHALLENGES_PER_MINER_MAX);
    }

    /// The answer is the proof of a fault.
    #[benchmark]
    fn answer_data() {
        let (run, chunk) = malformed::<T>();
        let name = CommitmentName { window: 0, uid: 0, registered_window: 0 };
        let challenger = funded::<T>("challenger", 0);
        Pallet::<T>::do_challenge_data(challenger, run, name, 0).expect("a chunk; qed");
        let cold = account("miner cold", 0, 0);

        #[extrinsic_call]
        _(RawOrigin::Signed(cold), run, name, 0, Box::new(chunk));

        assert!(!OpenChallenges::<T>::contains_key((run, 0, 0)));
        assert!(ProvenFaults::<T>::contains_key((run, 0, 0)));
    }

    #[benchmark]
    fn time_out() {
        let (run, _) = revealed_twice::<T>();
        paid_pages::<T>(run, 0);
        // The time to answer has as many windows as are looked at.
        let windows = T::HistoryWindows::get();
        let answer_blocks = windows as u32 * settings().schedule.window_blocks - 1;
        RunSettings::<T>::mutate(run, 0, |settings| {
            if let Some(settings) = settings {
                settings.disputes.answer_blocks = answer_blocks;
            }
        });
        let name = CommitmentName { window: 0, uid: 0, registered_window: 0 };
        let challenger = funded::<T>("challenger", 0);
        Pallet::<T>::do_challenge_data(challenger.clone(), run, name, 0).expect("a chunk; qed");
        skip_to::<T>(run, windows);
        // It is as late as it can be, and that window is accepted.
        Pallet::<T>::change_record(run, windows - 1, |record| {
            record.status = WindowStatus::Accepted;
        });
        let late = START + answer_blocks + 1;
        frame_system::Pallet::<T>::set_block_number(late.into());

        #[extrinsic_call]
        _(RawOrigin::Signed(challenger), run, name, 0);

        assert!(ProvenFaults::<T>::contains_key((run, 0, 0)));
    }

    #[benchmark]
    fn dispute_evaluation() {
        let run = worked_window::<T>(1, 1);
        let challenger = funded::<T>("challenger", 0);
        // The last of the evaluations is found last.
        let name = (0, 0, EVALUATIONS_MAX as Uid - 1);

        #[extrinsic_call]
        _(RawOrigin::Signed(challenger), run, name);

        assert!(EvaluationDisputes::<T>::contains_key((run, 0, 0, name.2)));
    }

    #[benchmark]
    fn commit_verdict() {
        let (run, name) = disputed::<T>();
        go_to::<T>(START + settings().schedule.window_blocks);
        // All the others are in the list.
        let hot = commit_verdicts::<T>(run, name, JURY_MAX - 1);

        #[extrinsic_call]
        _(RawOrigin::Signed(hot), run, name, [1; 32]);

        let dispute = EvaluationDisputes::<T>::get((run, 0, 0, 0)).expect("a dispute; qed");
        assert_eq!(dispute.jury.len() as u32, JURY_MAX);
    }

    #[benchmark]
    fn reveal_verdict() {
        let (run, name) = disputed::<T>();
        let schedule = settings().schedule;
        go_to::<T>(START + schedule.window_blocks);
        let hot = commit_verdicts::<T>(run, name, JURY_MAX);
        let seat = JURY_MAX as usize - 1;
        let measured = evaluations(1)[0].clone();
        let hash = protocol::fault::verdict_commitment_hash(
            &Pallet::<T>::genesis_hash(),
            run,
            0,
            0,
            &account_bytes(&hot),
            &measured,
            &[0; 32],
        );
        EvaluationDisputes::<T>::mutate((run, 0, 0, 0), |dispute| {
            if let Some(dispute) = dispute {
                dispute.jury[seat].commitment = Some(hash);
            }
        });
        frame_system::Pallet::<T>::set_block_number((START + 2 * schedule.window_blocks).into());

        #[extrinsic_call]
        _(RawOrigin::Signed(hot), run, name, measured, [0; 32]);

        let dispute = EvaluationDisputes::<T>::get((run, 0, 0, 0)).expect("a dispute; qed");
        assert!(dispute.jury[seat].measured.is_some());
    }

    /// Closes two disputes, which costs more than either: one whose jurors all confirm and are paid, and one whose jurors all
    /// deny, which looks at what has left the pool in every window that still answers.
    #[benchmark]
    fn close_dispute() {
        let (run, name) = disputed::<T>();
        let denied = (0, 0, 1);
        let challenger = funded::<T>("another challenger", 0);
        Pallet::<T>::do_dispute_evaluation(challenger, run, denied).expect("it was revealed; qed");
        go_to::<T>(start_of(1));
        for name in [name, denied] {
            commit_verdicts::<T>(run, name, JURY_MAX);
            // Everybody measures what is right of the first evaluation.
            measure::<T>((run, name.0, name.1, name.2), &evaluations(1)[0]);
        }
        let now = T::DisputeWindows::get();
        unbond::<T>(run, now + 1);
        frame_system::Pallet::<T>::set_block_number(start_of(now).into());

        #[block]
        {
            for name in [name, denied] {
                Pallet::<T>::do_close_dispute(run, name).expect("it is old; qed");
            }
        }

        assert_eq!(EvaluationDisputes::<T>::iter().count(), 0);
        assert_eq!(SlashQueues::<T>::get(run).end, 1);
    }

    #[benchmark]
    fn announce() {
        let run = create::<T>(settings());
        let (_, hot) = validator::<T>(run, 0);
        let key = sp_io::crypto::ed25519_generate(HOT_KEY_TYPE, Some(b"//peer".to_vec()));
        let prefix: [u8; 6] = [0, 36, 8, 1, 18, 32];
        let peer_id = PeerId::truncate_from([&prefix[..], &key.0[..]].concat());
        let message = peer_consent(&Pallet::<T>::genesis_hash(), run, &account_bytes(&hot));
        let proof = sp_io::crypto::ed25519_sign(HOT_KEY_TYPE, &key, &message)
            .expect("the key was generated; qed")
            .0;
        let address = BoundedVec::truncate_from(vec![1; ADDRESS_BYTES_MAX as usize]);
        let addresses = Addresses::truncate_from(vec![address; ADDRESSES_MAX as usize]);

        #[extrinsic_call]
        _(RawOrigin::Signed(hot.clone()), run, peer_id, addresses, proof);

        assert!(Announcements::<T>::contains_key(run, hot));
    }

    #[benchmark]
    fn commit_update() {
        let run = create::<T>(settings());
        let (_, hot) = miner::<T>(run, 0);
        go_to::<T>(START);

        #[extrinsic_call]
        _(RawOrigin::Signed(hot), run, 0, [1; 32]);

        assert!(Commitments::<T>::contains_key((run, 0, 0)));
    }

    #[benchmark]
    fn reveal_update(c: Linear<1, CHUNKS_MAX>) {
        let mut settings = settings();
        settings.incentive.challenge_chunks = c as u8;
        // A run of more miners asks each for less, or its reveals would not fit their phase.
        settings.incentive.uid_max = 4;
        let challenge = START + settings.schedule.challenge_offset();
        let run = create::<T>(settings);
        let (_, hot) = miner::<T>(run, 0);
        let (_, copier) = miner::<T>(run, 1);
        let (leaves, opening) = payload();
        go_to::<T>(START);
        commit::<T>(run, &hot, &opening);
        commit::<T>(run, &copier, &opening);
        go_to::<T>(challenge);
        // A copy that was revealed first is removed.
        let copied = shown::<T>(run, 1, &leaves, c as u8);
        Pallet::<T>::do_reveal_update(copier, run, 0, opening.clone(), copied)
            .expect("a valid reveal; qed");
        let chunks = shown::<T>(run, 0, &leaves, c as u8);

        #[extrinsic_call]
        _(RawOrigin::Signed(hot), run, 0, opening, chunks);

        assert!(Reveals::<T>::contains_key((run, 0, 0)));
        assert!(!Reveals::<T>::contains_key((run, 0, 1)));
    }

    #[benchmark]
    fn commit_attestation() {
        let run = create::<T>(settings());
        let hot = permitted::<T>(run);
        go_to::<T>(START);
        go_to::<T>(START + settings().schedule.reveal_end);

        #[extrinsic_call]
        _(RawOrigin::Signed(hot), run, 0, [0; 32]);

        assert!(AttestationCommitments::<T>::contains_key((run, 0, 0)));
    }

    #[benchmark]
    fn reveal_attestation() {
        let run = create::<T>(settings());
        let hot = permitted::<T>(run);
        let bitmap = Bitmap::truncate_from(vec![0xff; BITMAP_BYTES_MAX as usize]);
        let opening =
            AttestationOpening { bitmap: bitmap.to_vec(), state_root: [0; 32], salt: [0; 32] };
        let (genesis, key) = (Pallet::<T>::genesis_hash(), account_bytes(&hot));
        let hash = attestation_commitment_hash(&genesis, run, 0, &key, &opening);
        go_to::<T>(START);
        go_to::<T>(START + settings().schedule.reveal_end);
        Pallet::<T>::do_commit_attestation(hot.clone(), run, 0, hash)
            .expect("the commit phase; qed");
        go_to::<T>(START + settings().schedule.attest_commit_end);

        #[extrinsic_call]
        _(RawOrigin::Signed(hot), run, 0, bitmap, [0; 32], [0; 32]);

        assert!(Attestations::<T>::contains_key((run, 0, 0)));
    }

    #[benchmark]
    fn commit_scores() {
        let run = create::<T>(settings());
        let hot = permitted::<T>(run);
        go_to::<T>(START);
        go_to::<T>(START + settings().schedule.window_blocks);

        #[extrinsic_call]
        _(RawOrigin::Signed(hot), run, 0, [0; 32], SCORE_VERSION);

        assert!(ScoreCommitments::<T>::contains_key((run, 0, 0)));
    }

    #[benchmark]
    fn reveal_scores(e: Linear<0, EVALUATIONS_MAX>) {
        let run = create::<T>(settings());
        let hot = permitted::<T>(run);
        let scores = evaluations(e);
        let genesis = Pallet::<T>::genesis_hash();
        let hash = score_commitment_hash(
            &genesis,
            run,
            0,
            &account_bytes(&hot),
            &scores,
            SCORE_VERSION,
            &[0; 32],
        );
        let schedule = settings().schedule;
        go_to::<T>(START);
        go_to::<T>(START + schedule.window_blocks);
        Pallet::<T>::do_commit_scores(hot.clone(), run, 0, hash, SCORE_VERSION)
            .expect("the commit phase; qed");
        go_to::<T>(START + schedule.window_blocks + schedule.score_commit_end);

        #[extrinsic_call]
        _(RawOrigin::Signed(hot), run, 0, scores, [0; 32], SCORE_VERSION);

        assert!(ScoreReveals::<T>::contains_key((run, 0, 0)));
    }

    #[benchmark]
    fn claim() {
        let run = create::<T>(settings());
        let who = funded::<T>("claimant", 0);
        owe::<T>(run, &who);
        go_to::<T>(START + settings().schedule.window_blocks * (CLAIMS_MAX + 2));

        #[extrinsic_call]
        _(RawOrigin::Signed(who.clone()), run, who.clone());

        assert!(!Claims::<T>::contains_key(run, who));
    }

    #[benchmark]
    fn set_run_weight() -> Result<(), BenchmarkError> {
        let run = create::<T>(settings());
        let origin =
            T::AdminOrigin::try_successful_origin().map_err(|_| BenchmarkError::Weightless)?;

        #[extrinsic_call]
        _(origin as T::RuntimeOrigin, run, u16::MAX);

        assert_eq!(RunWeights::<T>::get(run).next, u16::MAX);
        Ok(())
    }

    /// A sponsor that takes the place of another.
    #[benchmark]
    fn fund_run() {
        let run = create::<T>(settings());
        sponsored::<T>(run, SPONSORS_MAX);
        let sponsor = funded::<T>("another sponsor", 0);

        #[extrinsic_call]
        _(RawOrigin::Signed(sponsor.clone()), run, 2 * STAKE, 1);

        assert!(Sponsors::<T>::get(run).iter().any(|own| own.sponsor == sponsor));
    }

    #[benchmark]
    fn set_params() {
        let run = create::<T>(settings());
        let owner: T::AccountId = account("owner", 0, 0);

        #[extrinsic_call]
        _(RawOrigin::Signed(owner), run, Box::new(settings()));

        assert!(PendingSettings::<T>::contains_key(run));
    }

    /// By the governance, in a window after one that is not settled.
    #[benchmark]
    fn pause_run() -> Result<(), BenchmarkError> {
        let run = create::<T>(settings());
        go_to::<T>(START);
        skip_to::<T>(run, 1);
        let origin =
            T::AdminOrigin::try_successful_origin().map_err(|_| BenchmarkError::Weightless)?;

        #[extrinsic_call]
        _(origin as T::RuntimeOrigin, run);

        assert!((0..2).all(|at| Windows::<T>::get(run, at).is_some_and(|record| record.excused)));
        Ok(())
    }

    #[benchmark]
    fn resume_run() {
        let run = create::<T>(settings());
        Runs::<T>::mutate(run, |run| {
            if let Some(run) = run {
                run.status = RunStatus::Paused { by_admin: false };
            }
        });

        #[extrinsic_call]
        _(RawOrigin::Signed(owner::<T>()), run);

        assert!(Runs::<T>::get(run).is_some_and(|run| run.status == RunStatus::Waiting));
    }

    #[benchmark]
    fn close_run() {
        let run = create::<T>(settings());
        let waiting = ScheduledSettings { window: 0, settings: settings(), by_admin: false };
        PendingSettings::<T>::insert(run, waiting);

        #[extrinsic_call]
        _(RawOrigin::Signed(owner::<T>()), run);

        assert!(Runs::<T>::get(run).is_some_and(|run| run.status == RunStatus::Closed));
    }

    /// Miners are the dearest rows. The sponsors' claims are rows too, and the run itself goes with the last of them.
    #[benchmark]
    fn reap_run(r: Linear<SPONSORS_MAX, { REAP_ROWS_MAX - 1 }>) {
        let run = create::<T>(settings());
        sponsored::<T>(run, SPONSORS_MAX);
        for number in 0..r - SPONSORS_MAX {
            let keys = miner::<T>(run, number);
            load_seat::<T>(run, Seat::Miner(number as Uid), keys);
        }
        let _ = Changes::<T>::clear_prefix(run, u32::MAX, None);
        Pallet::<T>::do_set_run_weight(run, 1).expect("the run exists; qed");
        for version in 1..=T::HistoryWindows::get() as SettingsVersion {
            RunSettings::<T>::insert(run, version, settings());
        }
        Runs::<T>::mutate(run, |run| {
            if let Some(run) = run {
                run.status = RunStatus::Closed;
            }
        });

        #[extrinsic_call]
        _(RawOrigin::Signed(owner::<T>()), run, r + 1);

        assert!(!Runs::<T>::contains_key(run));
    }

    #[benchmark]
    fn offer_run() {
        let run = create::<T>(settings());
        let heir = funded::<T>("heir", 0);

        #[extrinsic_call]
        _(RawOrigin::Signed(owner::<T>()), run, Some(heir));

        assert!(RunOffers::<T>::contains_key(run));
    }

    #[benchmark]
    fn accept_run() {
        let run = create::<T>(settings());
        let heir = funded::<T>("heir", 0);
        RunOffers::<T>::insert(run, Offer { to: heir.clone(), window: 0 });

        #[extrinsic_call]
        _(RawOrigin::Signed(heir.clone()), run);

        assert!(Runs::<T>::get(run).is_some_and(|run| run.owner == heir));
    }

    #[benchmark]
    fn cancel_params() {
        let run = create::<T>(settings());
        PendingSettings::<T>::insert(
            run,
            ScheduledSettings { window: 0, settings: settings(), by_admin: false },
        );

        #[extrinsic_call]
        _(RawOrigin::Signed(owner::<T>()), run);

        assert!(!PendingSettings::<T>::contains_key(run));
    }

    #[benchmark]
    fn look_at_schedule(r: Linear<1, { T::RunsMax::get() }>) {
        let run = create::<T>(settings());
        let due = RunSchedule::<T>::get().first().copied().expect("it is scheduled; qed");
        let agenda = (0..r).map(|number| Due { run: run + number, ..due }).collect();
        RunSchedule::<T>::put(BoundedVec::truncate_from(agenda));

        #[block]
        {
            Pallet::<T>::do_boundaries();
        }

        assert_eq!(RunSchedule::<T>::get().len(), r as usize);
    }

    #[benchmark]
    fn look_at_queue(r: Linear<1, { T::RunsMax::get() }>) {
        let queue = (0..r).collect();
        WorkQueue::<T>::put(BoundedVec::truncate_from(queue));

        #[block]
        {
            WorkQueue::<T>::mutate(|queue| queue.truncate(r as usize / 2));
        }

        assert_eq!(WorkQueue::<T>::get().len(), r as usize / 2);
    }

    /// Looks in vain at all lists of changes, and then at a settlement that is due and does not fit.
    #[benchmark(pov_mode = MaxEncodedLen { Gauntlet: Ignored })]
    fn look_at_run() {
        let mut settings = settings();
        settings.incentive.standing = StandingKind::PlackettLuce;
        settings.incentive.uid_max = PLACKETT_LUCE_UID_MAX;
        let run = create::<T>(settings);
        go_to::<T>(START);
        skip_to::<T>(run, 2);
        fill_changes::<T>(run, 3);
        Pallet::<T>::change_record(run, 0, |record| {
            record.accepted = AcceptedSet::truncate_from(vec![0; ACCEPTED_MAX as usize]);
            record.unavailable = Bitmap::truncate_from(vec![0xff; BITMAP_BYTES_MAX as usize]);
        });
        let look = || WeightMeter::with_limit(T::WeightInfo::look_at_run());

        #[block]
        {
            assert!(Pallet::<T>::change_step(run, &mut look()) == Step::Nothing);
            assert!(Pallet::<T>::settle_step(run, &mut look()) == Step::NoRoom);
        }

        assert_eq!(Runs::<T>::get(run).map(|run| run.next_settlement), Some(0));
    }

    /// The boundary behind the last window of a run that has a weight: it ends the budget of that window.
    #[benchmark]
    fn enqueue() {
        let run = create::<T>(settings());
        go_to::<T>(START);
        Pallet::<T>::do_set_run_weight(run, 1).expect("the run exists; qed");
        Runs::<T>::mutate(run, |run| {
            if let Some(run) = run {
                run.last_window = Some(0);
            }
        });
        make_due::<T>(run, 1, Boundary::Open);

        #[block]
        {
            Pallet::<T>::do_boundaries();
        }

        assert_eq!(WorkQueue::<T>::get().to_vec(), vec![run]);
    }

    /// Window 1 of a run with all its validators, settings that wait and a weight, after a window that is not settled.
    #[benchmark(pov_mode = MaxEncodedLen { Gauntlet: Ignored })]
    fn open_window() {
        let run = create::<T>(settings());
        for number in 0..VALIDATORS_MAX {
            validator::<T>(run, number);
        }
        go_to::<T>(START);
        let waiting = ScheduledSettings { window: 1, settings: settings(), by_admin: false };
        PendingSettings::<T>::insert(run, waiting);
        Pallet::<T>::do_set_run_weight(run, 1).expect("the run exists; qed");
        make_due::<T>(run, 1, Boundary::Open);

        #[block]
        {
            Pallet::<T>::do_boundaries();
        }

        assert_eq!(Permits::<T>::get(run, 1).len() as u32, VALIDATORS_MAX);
        assert_eq!(Windows::<T>::get(run, 1).map(|record| record.settings_version), Some(1));
    }

    /// In window 1, whose commit phase the chain cut short, after a window that is not settled.
    #[benchmark]
    fn draw_challenge() {
        let mut settings = settings();
        settings.training.overlap = true;
        let run = create::<T>(settings);
        go_to::<T>(START);
        skip_to::<T>(run, 1);
        make_due::<T>(run, 1, Boundary::Reveal);

        #[block]
        {
            Pallet::<T>::do_boundaries();
        }

        let record = Windows::<T>::get(run, 1).expect("window 1 is open; qed");
        assert!(record.challenge_seed.is_some() && record.next_seed.is_some() && record.excused);
    }

    /// In window 1, whose reveal phase the chain cut short, after a window that is not settled.
    #[benchmark(pov_mode = MaxEncodedLen { Gauntlet: Ignored })]
    fn accept(m: Linear<0, MINERS>, v: Linear<0, VALIDATORS_MAX>) {
        let run = worked_in::<T>(1, m, v);
        make_due::<T>(run, 1, Boundary::Accept);

        #[block]
        {
            Pallet::<T>::do_boundaries();
        }

        let record = Windows::<T>::get(run, 1).expect("window 1 is open; qed");
        assert_eq!(record.status, WindowStatus::Accepted);
    }

    /// A window before which every validator scored, with bonds that a settlement by Yuma consensus left.
    #[benchmark(pov_mode = MaxEncodedLen { Gauntlet: Ignored })]
    fn settle_begin(m: Linear<0, MINERS>, v: Linear<0, VALIDATORS_MAX>) {
        let window = STRIKE_WINDOWS - 1;
        let run = worked_in::<T>(window, m, v);
        let owner = account("owner", 0, 0);
        sponsored::<T>(run, SPONSORS_MAX);
        let record = Windows::<T>::get(run, window).expect("it is open; qed");
        Windows::<T>::insert(run, window + 1, record);
        Pallet::<T>::change_record(run, window, |record| {
            record.budget = STAKE;
            record.state_root = Some([0; 32]);
        });
        // As many faults as miners, of slots whose holders have left: who is convicted is scored by nobody.
        for number in 0..m {
            let uid = (MINERS + number) as Uid;
            ProvenFaults::<T>::insert((run, window, uid), ProvenFault::Copy);
        }
        for index in 0..v as ValidatorIndex {
            Bonds::<T>::insert(run, index, bond_row(index.into()));
            for before in 0..window {
                let reveal = ScoreReveals::<T>::get((run, window, index)).expect("it scored; qed");
                ScoreCommitments::<T>::insert((run, before, index), [0; 32]);
                ScoreReveals::<T>::insert((run, before, index), reveal);
            }
        }

        #[block]
        {
            Pallet::<T>::compute(run, &owner, window);
        }

        assert!(Settlements::<T>::contains_key(run));
        assert_eq!(Bonds::<T>::iter_prefix(run).count(), 0);
    }

    #[benchmark]
    fn settle_match(p: Linear<0, PLAYERS>) {
        let players = vec![Rating::default(); p as usize];
        let ranks: Vec<u32> = (0..p).collect();

        #[block]
        {
            PlackettLuce::default().play(&players, &ranks).expect("a match of newcomers; qed");
        }
    }

    /// Its rows are in the proof already, as `settle_begin` reads them.
    #[benchmark(pov_mode = Ignored)]
    fn settle_yuma(m: Linear<1, MINERS>, v: Linear<1, VALIDATORS_MAX>) {
        let row: Vec<(Uid, Q32)> = (0..m).map(|uid| (uid as Uid, Q32(1 << 20))).collect();
        let bonds: Vec<(Uid, u16)> = (0..m).map(|uid| (uid as Uid, 1 + uid as u16)).collect();
        let entries = BoundedVec::truncate_from(bonds.clone());
        for index in 0..v {
            let bonds = BondRow { window: 0, entries: entries.clone() };
            Bonds::<T>::insert(0, index as ValidatorIndex, bonds);
        }
        let stakes = yuma::normalised(vec![Q32::ONE; v as usize]);
        let weights = vec![row; v as usize];

        #[block]
        {
            let read: Vec<Vec<(Uid, u16)>> = (0..v)
                .filter_map(|index| Bonds::<T>::get(0, index as ValidatorIndex))
                .map(|row| row.entries.into_inner())
                .collect();
            let settings = YumaSettings::UPSTREAM;
            let judged = yuma::judge(m as usize, &stakes, &weights, &read, &settings);
            for (index, bonds) in judged.bonds.into_iter().enumerate() {
                let entries = BoundedVec::truncate_from(bonds);
                let row = BondRow { window: 1, entries };
                Bonds::<T>::insert(0, index as ValidatorIndex, row);
            }
        }

        assert_eq!(Bonds::<T>::iter_prefix(0).count(), v as usize);
    }

    #[benchmark]
    fn settle_page(m: Linear<1, PAGE_LEN>) {
        let run = worked_window::<T>(m, 0);
        let pay = |uid: u32| MinerPay {
            uid: uid as Uid,
            cold: account::<T::AccountId>("miner cold", uid, 0),
            own: None,
            random: None,
            standing: Standing::default(),
            value: Default::default(),
            share: Default::default(),
            amount: PAY,
        };
        for number in 0..m {
            Claims::<T>::insert(run, miner_keys::<T>(number).0, claims());
        }
        let page = (0..m).map(pay).collect();
        SettlementPages::<T>::insert(run, 0, BoundedVec::truncate_from(page));
        Ledgers::<T>::insert(
            run,
            Ledger { minted: RICH, carried_miners: RICH, ..Default::default() },
        );
        let settlement = settlement::<T>(Stage::Miners { page: 0, page_count: 1 }, 0);

        #[block]
        {
            Pallet::<T>::pay_page(run, settlement, 0, 1);
        }

        assert_eq!(Ledgers::<T>::get(run).claimable, PAY * Planck::from(m));
    }

    #[benchmark]
    fn settle_close(v: Linear<0, VALIDATORS_MAX>) {
        let run = worked_window::<T>(0, v);
        for number in 0..v {
            Pools::<T>::mutate(run, number, |pool| {
                if let Some(pool) = pool {
                    pool.delegated = Pool { shares: STAKE, amount: STAKE };
                }
            });
            let cold: T::AccountId = account("validator cold", number, 0);
            Claims::<T>::insert(run, cold, claims());
            Claims::<T>::insert(run, Pallet::<T>::pool_account(run, number), claims());
        }
        Ledgers::<T>::insert(
            run,
            Ledger { minted: RICH, carried_validators: RICH, ..Default::default() },
        );
        let settlement = settlement::<T>(Stage::Validators, v);

        #[block]
        {
            Pallet::<T>::close(run, settlement);
        }

        assert_eq!(Ledgers::<T>::get(run).claimable, PAY * Planck::from(v));
    }

    /// The last rows of a window, whose record goes with them, and so do the settings that were in force only in it.
    #[benchmark(pov_mode = MaxEncodedLen { Gauntlet: Ignored })]
    fn prune(r: Linear<0, { work::PRUNE_ROWS }>) {
        // A miner that worked has three rows.
        let miners = r.div_ceil(3);
        let run_id = worked_in::<T>(1, miners, 0);
        Windows::<T>::mutate(run_id, 1, |record| {
            record.as_mut().map(|record| record.settings_version = 0)
        });
        Windows::<T>::insert(
            run_id,
            2,
            WindowRecord {
                settings_version: 1,
                ..Windows::<T>::get(run_id, 1).expect("it is open; qed")
            },
        );
        let run = Runs::<T>::get(run_id).expect("it was created; qed");

        #[block]
        {
            Pallet::<T>::prune(run_id, run, 1, 3 * miners + 1);
        }

        assert!(!Windows::<T>::contains_key(run_id, 1));
    }

    /// A settlement of window 0 that owes [`PAY`] to each of `validators`.
    fn settlement<T: Config>(stage: Stage, validators: u32) -> Settlement<T::AccountId> {
        let pay = |index: u32| ValidatorPay {
            index: index as ValidatorIndex,
            cold: account("validator cold", index, 0),
            agreement: Default::default(),
            share: Default::default(),
            amount: PAY,
        };
        Settlement {
            window: 0,
            stage,
            due: 1,
            paid: Pots::default(),
            validators: BoundedVec::truncate_from((0..validators).map(pay).collect()),
        }
    }

    impl_benchmark_test_suite!(Pallet, crate::mock::new_test_ext(), crate::mock::Test);
}
