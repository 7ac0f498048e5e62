//! A window's work by keys that own nothing: admitted, free, once, before every tip; junk is refused before the pool.

use codec::Encode;
use frame_support::{
    assert_noop, assert_ok, assert_storage_noop,
    dispatch::{DispatchClass, GetDispatchInfo},
    traits::{Get, Hooks},
};
use protocol::{settings::SCORE_VERSION, window::Phase, Uid, Window};
use sp_runtime::{
    traits::TransactionExtension,
    transaction_validity::{InvalidTransaction, TransactionValidityError},
    DispatchError,
};

use crate::{
    extension::{work_of, CheckWindowWork, WorkKind, ORDINARY_PRIORITY_MAX, WORK_PRIORITY},
    mock::*,
    tests::registration::peer,
    *,
};

/// How the chain refuses a transaction for one of the pallet's errors.
fn refused(error: Error<Test>) -> TransactionValidityError {
    let DispatchError::Module(module) = DispatchError::from(error) else {
        panic!("the pallet's errors are a module's");
    };
    InvalidTransaction::Custom(module.error[0]).into()
}

fn commit_call(window: Window, number: u8) -> Call<Test> {
    let hash = protocol::commitment::commitment_hash(
        &Gauntlet::genesis_hash(),
        0,
        window,
        &account_bytes(&miner_hot(number)),
        &opening(number, GENESIS_ROOT),
    );
    Call::commit_update { run: 0, window, hash }
}

fn reveal_call(window: Window, number: u8) -> Call<Test> {
    let chunks = shown(window, Uid::from(number), number);
    Call::reveal_update { run: 0, window, opening: opening(number, GENESIS_ROOT), chunks }
}

/// The calls with which validator 0 commits to an attestation and reveals it.
fn attest_calls(window: Window) -> [Call<Test>; 2] {
    let opening = attestation(0, &[0], GENESIS_ROOT);
    let hash = attestation_hash(window, 0, &opening);
    let (state_root, salt) = (opening.state_root, opening.salt);
    let bitmap = Bitmap::truncate_from(opening.bitmap);
    [
        Call::commit_attestation { run: 0, window, hash },
        Call::reveal_attestation { run: 0, window, bitmap, state_root, salt },
    ]
}

/// The calls with which validator 0 commits to scores and reveals them.
fn score_calls(window: Window) -> [Call<Test>; 2] {
    let (scores, salt) = (evaluations(1), [7; 32]);
    let hash = score_hash(window, 0, &scores, salt);
    let evaluations = scores.try_into().unwrap();
    [
        Call::commit_scores { run: 0, window, hash, version: SCORE_VERSION },
        Call::reveal_scores { run: 0, window, evaluations, salt, version: SCORE_VERSION },
    ]
}

fn announce_call(hot: &AccountId) -> Call<Test> {
    let (peer_id, proof) = peer(7, 0, hot);
    Call::announce { run: 0, peer_id, addresses: Default::default(), proof }
}

#[test]
fn keys_that_own_nothing_do_all_the_work_of_a_window() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        let (miner, validator) = (miner_hot(0), validator_hot(0));
        assert_eq!(include(&miner, announce_call(&miner)), Ok(Ok(())));
        assert_eq!(include(&validator, announce_call(&validator)), Ok(Ok(())));
        roll_to_window(0);
        assert_eq!(include(&miner, commit_call(0, 0)), Ok(Ok(())));
        roll_to_phase(0, Phase::Reveal);
        assert_eq!(include(&miner, reveal_call(0, 0)), Ok(Ok(())));
        roll_to_phase(0, Phase::AttestCommit);
        let [commit, reveal] = attest_calls(0);
        assert_eq!(include(&validator, commit), Ok(Ok(())));
        roll_to_phase(0, Phase::AttestReveal);
        assert_eq!(include(&validator, reveal), Ok(Ok(())));
        let [commit, reveal] = score_calls(0);
        roll_to_window(1);
        assert_eq!(include(&validator, commit), Ok(Ok(())));
        roll_to(System::block_number() + run().schedule.score_commit_end);
        assert_eq!(include(&validator, reveal), Ok(Ok(())));
        for hot in [miner, validator] {
            assert_eq!(Balances::free_balance(&hot), 0);
            assert!(System::account_nonce(&hot) >= 3);
        }
        roll_to_settlement(0);
        assert!(claimable(&miner_cold(0)) > 0 && claimable(&validator_cold(0)) > 0);
    });
}

#[test]
fn work_comes_before_every_tip_and_lives_for_its_phase() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        roll_to(START + 3);
        let valid = validity(&miner_hot(0), 0, commit_call(0, 0)).unwrap();
        assert_eq!(valid.priority, WORK_PRIORITY);
        assert_eq!(valid.longevity, 7);
        let other =
            validity(&miner_hot(0), 0, Call::commit_update { run: 0, window: 0, hash: [9; 32] });
        let nonce_tag = (miner_hot(0), 0u32).encode();
        let tags: Vec<_> = valid.provides.iter().filter(|tag| **tag != nonce_tag).collect();
        assert_eq!(tags.len(), 1);
        assert!(other.unwrap().provides.contains(tags[0]), "a pool holds one of them");

        let transfer =
            pallet_balances::Call::<Test>::transfer_allow_death { dest: account(2), value: UNIT };
        let tipped = validity(&account(1), u64::MAX, transfer).unwrap();
        assert_eq!(tipped.priority, ORDINARY_PRIORITY_MAX);
    });
}

#[test]
fn junk_of_each_kind_is_refused_before_the_pool_by_the_pallets_errors() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        let (miner, validator, stranger) = (miner_hot(0), validator_hot(0), account(250));
        System::inc_sufficients(&stranger);
        let junk = |who: &AccountId, call: Call<Test>, error| {
            let error = refused(error);
            assert_storage_noop!(assert_eq!(validity(who, 0, call.clone()), Err(error)));
            assert_storage_noop!(assert_eq!(include(who, call), Err(error)));
        };
        use Error as E;
        junk(&miner, commit_call(0, 0), E::RunNotStarted);
        junk(&stranger, announce_call(&stranger), E::HotKeyUnknown);
        roll_to_window(0);
        let unknown = Call::commit_update { run: 9, window: 0, hash: [0; 32] };
        junk(&miner, unknown, E::RunUnknown);
        junk(&miner, commit_call(1, 0), E::WrongWindow);
        junk(&stranger, commit_call(0, 0), E::MinerUnknown);
        junk(&validator, commit_call(0, 0), E::MinerUnknown);
        junk(&miner, attest_calls(0)[0].clone(), E::WrongPhase);
        assert_eq!(include(&miner, commit_call(0, 0)), Ok(Ok(())));
        junk(&miner, commit_call(0, 0), E::AlreadyCommitted);
        roll_to(START + run().schedule.commit_end);
        junk(&miner_hot(1), commit_call(0, 1), E::WrongPhase);
        let early = Call::reveal_update {
            run: 0,
            window: 0,
            opening: opening(0, GENESIS_ROOT),
            chunks: Default::default(),
        };
        junk(&miner, early, E::ChallengeNotDrawn);
        roll_to_phase(0, Phase::Reveal);
        junk(&miner_hot(1), reveal_call(0, 1), E::NotCommitted);
        let Call::reveal_update { opening: right, chunks, .. } = reveal_call(0, 0) else {
            unreachable!();
        };
        let mut forged = chunks.clone();
        forged[0].proof[0] = [0; 32];
        let call = |opening, chunks| Call::reveal_update { run: 0, window: 0, opening, chunks };
        junk(&miner, call(opening(1, GENESIS_ROOT), chunks.clone()), E::OpeningMismatch);
        junk(&miner, call(right.clone(), Default::default()), E::ChunksNotChallenged);
        junk(&miner, call(right, forged), E::ProofInvalid);
        assert_eq!(include(&miner, reveal_call(0, 0)), Ok(Ok(())));
        junk(&miner, reveal_call(0, 0), E::AlreadyRevealed);
        roll_to_phase(0, Phase::AttestCommit);
        let [commit, reveal] = attest_calls(0);
        junk(&miner, commit.clone(), E::ValidatorUnknown);
        junk(&validator, reveal.clone(), E::WrongPhase);
        assert_eq!(include(&validator, commit.clone()), Ok(Ok(())));
        junk(&validator, commit, E::AlreadyCommitted);
        roll_to_phase(0, Phase::AttestReveal);
        let Call::reveal_attestation { bitmap, state_root, .. } = reveal.clone() else {
            unreachable!()
        };
        let salt = [9; 32];
        let salted = Call::reveal_attestation { run: 0, window: 0, bitmap, state_root, salt };
        junk(&validator, salted, E::OpeningMismatch);
        assert_eq!(include(&validator, reveal.clone()), Ok(Ok(())));
        junk(&validator, reveal, E::AlreadyRevealed);
        let [commit, reveal] = score_calls(0);
        roll_to_window(1);
        junk(&validator, reveal.clone(), E::WrongPhase);
        assert_eq!(include(&validator, commit.clone()), Ok(Ok(())));
        junk(&validator, commit, E::AlreadyCommitted);
        roll_to(System::block_number() + run().schedule.score_commit_end);
        let Call::reveal_scores { evaluations, .. } = reveal.clone() else { unreachable!() };
        let (salt, version) = ([8; 32], SCORE_VERSION);
        let salted = Call::reveal_scores { run: 0, window: 0, evaluations, salt, version };
        junk(&validator, salted, E::OpeningMismatch);
        assert_eq!(include(&validator, reveal.clone()), Ok(Ok(())));
        junk(&validator, reveal, E::AlreadyRevealed);
    });
}

#[test]
fn an_announcement_is_free_now_and_then_and_paid_otherwise() {
    ExtBuilder::default().participants(1, 0).build_and_execute(|| {
        let hot = miner_hot(0);
        assert_eq!(include(&hot, announce_call(&hot)), Ok(Ok(())));
        assert_eq!(validity(&hot, 0, announce_call(&hot)), Err(InvalidTransaction::Payment.into()));
        Balances::force_set_balance(RuntimeOrigin::root(), hot.clone(), 5 * UNIT).unwrap();
        assert_eq!(include(&hot, announce_call(&hot)), Ok(Ok(())));
        assert_eq!(Balances::free_balance(&hot), 4 * UNIT);
        roll_to(1 + crate::extension::FREE_ANNOUNCEMENT_BLOCKS);
        assert_eq!(include(&hot, announce_call(&hot)), Ok(Ok(())));
        assert_eq!(Balances::free_balance(&hot), 4 * UNIT);
    });
}

#[test]
fn free_work_leaves_half_of_a_blocks_bytes_to_others() {
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        roll_to_window(0);
        let room: u32 = <Test as Config>::WorkBytesMax::get();
        WorkBytes::<Test>::put(room - 200);
        assert_eq!(include(&miner_hot(0), commit_call(0, 0)), Ok(Ok(())));
        let full = include(&miner_hot(1), commit_call(0, 1));
        assert_eq!(full, Err(InvalidTransaction::ExhaustsResources.into()));
        // What a block does not hold is valid still.
        assert_ok!(validity(&miner_hot(1), 0, commit_call(0, 1)));
        Gauntlet::on_finalize(System::block_number());
        assert_eq!(include(&miner_hot(1), commit_call(0, 1)), Ok(Ok(())));
    });
}

#[test]
fn work_is_a_class_of_its_own_and_weighs_its_rehearsal() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        roll_to_window(0);
        let [commit, reveal] = score_calls(0);
        let [attest, tell] = attest_calls(0);
        let announce = announce_call(&miner_hot(0));
        let work = [announce, commit_call(0, 0), attest, tell, commit, reveal];
        for call in work {
            assert!(work_of(&call).is_some());
            let info = call.get_dispatch_info();
            assert_eq!(info.class, DispatchClass::Operational);
            let extension = CheckWindowWork::<Test, Fee>::new(Fee { tip: 0 });
            assert_eq!(extension.weight(&call.into()), info.call_weight + FEE_WEIGHT);
        }
        let claim = Call::<Test>::claim { run: 0, account: owner() };
        assert_eq!(claim.get_dispatch_info().class, DispatchClass::Normal);
        assert_eq!(work_of(&claim), None);
        let kinds = attest_calls(3).map(|call| work_of(&call).map(|work| (work.window, work.kind)));
        let expected = [WorkKind::CommitAttestation, WorkKind::RevealAttestation];
        assert_eq!(kinds, expected.map(|kind| Some((3, kind))));
    });
}

#[test]
fn a_call_without_signer_is_left_to_the_wrapped_extension() {
    ExtBuilder::default().participants(1, 0).build_and_execute(|| {
        roll_to_window(0);
        assert_noop!(
            Gauntlet::commit_update(RuntimeOrigin::none(), 0, 0, [0; 32]),
            DispatchError::BadOrigin
        );
    });
}
