//! A window's work as transactions on the real runtime, through its executive: by keys that own nothing, in blocks that
//! others fill, at what others pay.

use frame_support::{
    dispatch::{DispatchClass, GetDispatchInfo},
    storage::with_transaction_unchecked,
    traits::{fungible::Inspect, PalletInfoAccess},
    weights::Weight,
    BoundedVec,
};
use pallet_gauntlet::{account_bytes, Call, CommitmentName, Error};
use protocol::{fault::verdict_commitment_hash, window::Phase, Window};
use runtime::{
    fees::BYTE_FEE, transactions::sign, AccountId, Balance, Balances, Executive, Gauntlet, Runtime,
    RuntimeCall, System, TransactionPayment, UncheckedExtrinsic, UNIT,
};
use sp_core::{sr25519, Pair, H256};
use sp_keyring::Sr25519Keyring;
use sp_runtime::{
    traits::One,
    transaction_validity::{
        InvalidTransaction, TransactionSource, TransactionValidity, TransactionValidityError,
    },
    ApplyExtrinsicResult, DispatchError, FixedU128, MultiAddress, TransactionOutcome,
};

use crate::{
    network::{
        attest_calls, call, check_state, evaluation, genesis_hash, miner_cold, play_window,
        register_miner, register_validator, roll_to, roll_to_offset, roll_to_phase, score_calls,
        score_window, settings, validator_cold, validator_hot, validator_key, ExtBuilder, Model,
        Update, RUN, STAKE,
    },
    payload::copied_places,
};

/// A key pair that no account was ever made for.
fn pair(name: &str) -> sr25519::Pair {
    sr25519::Pair::from_string(&format!("//{name}"), None).expect("a path is a key")
}

fn account(pair: &sr25519::Pair) -> AccountId {
    pair.public().into()
}

/// A transaction with the signer's next nonce.
fn signed(
    signer: &sr25519::Pair,
    tip: Balance,
    call: impl Into<RuntimeCall>,
) -> UncheckedExtrinsic {
    let nonce = System::account_nonce(account(signer));
    sign(signer, nonce, tip, System::block_hash(0), call)
}

/// What a pool is told of a transaction for the next block.
fn validity(transaction: UncheckedExtrinsic) -> TransactionValidity {
    with_transaction_unchecked(|| {
        let block = H256::zero();
        let validity =
            Executive::validate_transaction(TransactionSource::External, transaction, block);
        TransactionOutcome::Rollback(validity)
    })
}

fn apply(
    signer: &sr25519::Pair,
    tip: Balance,
    call: impl Into<RuntimeCall>,
) -> ApplyExtrinsicResult {
    Executive::apply_extrinsic(signed(signer, tip, call))
}

fn work(signer: &sr25519::Pair, call: Call<Runtime>) -> ApplyExtrinsicResult {
    apply(signer, 0, call)
}

fn refused(error: Error<Runtime>) -> TransactionValidityError {
    let DispatchError::Module(module) = error.into() else {
        panic!("the pallet's errors are a module's");
    };
    assert_eq!(usize::from(module.index), <Gauntlet as PalletInfoAccess>::index());
    InvalidTransaction::Custom(module.error[0]).into()
}

/// A chain on which a miner and a validator take part, whose hot keys own nothing.
fn with_participants(scenario: impl FnOnce(sr25519::Pair, sr25519::Pair)) {
    ExtBuilder::default().execute(|| {
        let (miner, validator) = (pair("penniless-miner"), pair("penniless-validator"));
        let register = register_miner(&miner, RUN, &miner_cold(0));
        call(&miner_cold(0), register).expect("there is a slot");
        let register = register_validator(&validator, RUN, &validator_cold(0), STAKE);
        call(&validator_cold(0), register).expect("there is a slot");
        scenario(miner, validator);
    });
}

/// A transfer of nothing to an address of so many bytes: what fills a block cheapest.
fn long_transfer(bytes: usize) -> RuntimeCall {
    let dest = MultiAddress::Raw(vec![0; bytes]);
    pallet_balances::Call::transfer_keep_alive { dest, value: 0 }.into()
}

/// The bytes of ordinary transactions that a block holds.
fn ordinary_bytes() -> u32 {
    *<Runtime as frame_system::Config>::BlockLength::get().max.get(DispatchClass::Normal)
}

/// Fills what a block has for ordinary transactions, in bytes, and returns what it cost.
fn fill_bytes(payer: &sr25519::Pair, tip: Balance) -> Balance {
    let before = Balances::free_balance(account(payer));
    let room = ordinary_bytes() - System::block_size();
    let filled = apply(payer, tip, long_transfer(room as usize - 300));
    // An address of bytes names nobody, so that the transfer fails; it is paid for and fills the block.
    assert_eq!(filled, Ok(Err(DispatchError::CannotLookup)));
    before - Balances::free_balance(account(payer))
}

/// r02: the hot keys of a run could not send one transaction before money came to them.
#[test]
fn keys_that_own_nothing_do_a_windows_work() {
    with_participants(|miner, validator| {
        let root = Model::genesis().root();
        let update = Update::new(0, root);
        let hot = account(&miner);
        roll_to_phase(0, Phase::Commit);
        assert_eq!(work(&miner, update.commit_call(0, &hot)), Ok(Ok(())));
        roll_to_phase(0, Phase::Reveal);
        let reveal = update.reveal_call(0, &hot);
        assert!(validity(signed(&miner, 0, reveal.clone())).is_ok());
        assert_eq!(work(&miner, reveal.clone()), Ok(Ok(())));
        assert_eq!(work(&miner, reveal), Err(refused(Error::AlreadyRevealed)));
        let [commit, reveal] = attest_calls(0, &account(&validator), &[0], root);
        roll_to_phase(0, Phase::AttestCommit);
        assert_eq!(work(&validator, commit), Ok(Ok(())));
        roll_to_phase(0, Phase::AttestReveal);
        assert_eq!(work(&validator, reveal), Ok(Ok(())));
        let measured = vec![evaluation(0, 30, 20)];
        let [commit, reveal] = score_calls(0, &account(&validator), measured);
        roll_to_offset(1, 0);
        assert_eq!(work(&validator, commit), Ok(Ok(())));
        roll_to_offset(1, settings().schedule.score_commit_end);
        assert_eq!(work(&validator, reveal), Ok(Ok(())));
        for hot in [&miner, &validator] {
            assert_eq!(Balances::free_balance(account(hot)), 0);
            assert!(System::account_nonce(account(hot)) > 0);
        }
        // A key without money is refused for everything else.
        let remark = frame_system::Call::remark { remark: vec![] };
        assert_eq!(apply(&miner, 0, remark), Err(InvalidTransaction::Payment.into()));
    });
}

#[test]
fn the_pool_is_told_why_work_is_refused() {
    with_participants(|miner, validator| {
        let update = Update::new(0, Model::genesis().root());
        let commit = |window| signed(&miner, 0, update.commit_call(window, &account(&miner)));
        assert_eq!(validity(commit(0)), Err(refused(Error::RunNotStarted)));
        // A pool asks for the next block, which is the first of the window.
        roll_to(settings().schedule.start_block - 1);
        let valid = validity(commit(0)).expect("the next block may have it");
        assert_eq!(valid.priority, u64::MAX);
        assert_eq!(valid.longevity, u64::from(settings().schedule.commit_end));
        assert_eq!(validity(commit(1)), Err(refused(Error::WrongWindow)));
        let other = update.commit_call(0, &account(&validator));
        let junk = signed(&validator, UNIT, other);
        assert_eq!(validity(junk), Err(refused(Error::MinerUnknown)));
        // A stranger without an account is no concern of the pallet.
        let stranger = pair("stranger");
        let junk = signed(&stranger, 0, update.commit_call(0, &account(&stranger)));
        assert_eq!(validity(junk), Err(InvalidTransaction::Payment.into()));
    });
}

/// C5, r01: a full block cost 0.64 milliUNIT, and a tip of 10⁵ planck came before all work.
#[test]
fn a_full_block_costs_39_units_and_fifty_in_a_row_thousands() {
    with_participants(|_, _| {
        let payer = Sr25519Keyring::Ferdie.pair();
        let full = u128::from(ordinary_bytes()) * BYTE_FEE;
        assert_eq!(full / UNIT, 39);
        let first = fill_bytes(&payer, 0);
        println!("the first full block costs {:.2} UNIT", first as f64 / UNIT as f64);
        assert!(first * 100 >= full * 99, "{first} of {full}");
        let mut total = first;
        for _ in 1..50 {
            roll_to(System::block_number() + 1);
            total += fill_bytes(&payer, 0);
        }
        let factor = TransactionPayment::next_fee_multiplier();
        println!(
            "fifty cost {:.0} UNIT, the next factor is {factor:?}",
            total as f64 / UNIT as f64
        );
        assert!(factor >= FixedU128::from_u32(50), "{factor:?}");
        assert!(total >= 10_000 * UNIT, "{total}");
        // Nobody is kept out for long: an hour of empty blocks makes up for it.
        roll_to(System::block_number() + 200);
        assert_eq!(TransactionPayment::next_fee_multiplier(), FixedU128::one());
    });
}

#[test]
fn computation_that_fills_a_block_raises_the_price_too() {
    with_participants(|_, _| {
        let payer = Sr25519Keyring::Ferdie.pair();
        let transfer = || pallet_balances::Call::transfer_keep_alive {
            dest: MultiAddress::Id(account(&payer)),
            value: 0,
        };
        let before = Balances::free_balance(account(&payer));
        let mut count = 0u32;
        while apply(&payer, 0, transfer()).is_ok() {
            count += 1;
        }
        let full = apply(&payer, 0, transfer());
        assert_eq!(full, Err(InvalidTransaction::ExhaustsResources.into()));
        let cost = before - Balances::free_balance(account(&payer));
        println!("{count} transfers fill a block and cost {:.2} UNIT", cost as f64 / UNIT as f64);
        assert!(cost >= 7 * UNIT, "{cost}");
        roll_to(System::block_number() + 1);
        assert!(TransactionPayment::next_fee_multiplier() > FixedU128::from_rational(109, 100));
    });
}

#[test]
fn tips_keep_no_work_out_of_a_full_block_and_work_leaves_room_for_others() {
    with_participants(|miner, _| {
        let payer = Sr25519Keyring::Ferdie.pair();
        let update = Update::new(0, Model::genesis().root());
        roll_to_phase(0, Phase::Commit);
        let tipped = signed(&payer, 10_000 * UNIT, long_transfer(1_000));
        let commit = update.commit_call(0, &account(&miner));
        let [work_priority, tip_priority] = [signed(&miner, 0, commit.clone()), tipped]
            .map(|transaction| validity(transaction).expect("both are valid").priority);
        assert!(work_priority > tip_priority);
        // Bytes are full, and the work still fits.
        fill_bytes(&payer, 1_000 * UNIT);
        let more = apply(&payer, UNIT, long_transfer(1_000));
        assert_eq!(more, Err(InvalidTransaction::ExhaustsResources.into()));
        assert_eq!(work(&miner, commit), Ok(Ok(())));

        // The work of a block is at most half of it, in computation as in bytes.
        let weights = <Runtime as frame_system::Config>::BlockWeights::get();
        let class = weights.get(DispatchClass::Operational);
        let seconds = |weight: Option<Weight>| weight.map(|weight| weight.ref_time());
        let block = weights.max_block.ref_time();
        assert_eq!(seconds(class.max_total), Some(block / 2));
        assert_eq!(seconds(class.reserved), Some(block / 4));
        let bytes: u32 = <Runtime as pallet_gauntlet::Config>::WorkBytesMax::get();
        assert!(bytes <= ordinary_bytes() * 2 / 3);
    });
}

#[test]
fn the_executive_takes_no_fee_of_work_and_books_it_as_operational() {
    with_participants(|miner, _| {
        let update = Update::new(0, Model::genesis().root());
        roll_to_phase(0, Phase::Commit);
        let commit: RuntimeCall = update.commit_call(0, &account(&miner)).into();
        let booked = || System::block_weight().get(DispatchClass::Operational).ref_time();
        let before = booked();
        let issuance = Balances::total_issuance();
        assert_eq!(apply(&miner, 0, commit.clone()), Ok(Ok(())));
        assert_eq!(Balances::total_issuance(), issuance);
        // The call and its rehearsal.
        assert!(booked() - before >= 2 * commit.get_dispatch_info().call_weight.ref_time());
        check_state();
    });
}

/// A commitment of the miner with slot 0, which is there from the first window on.
fn name(window: Window) -> CommitmentName {
    CommitmentName { window, uid: 0, registered_window: 0 }
}

/// The miner commits to and reveals an update in a window, up to its end.
fn send_update(miner: &sr25519::Pair, window: Window, update: &Update) {
    let hot = account(miner);
    roll_to_phase(window, Phase::Commit);
    assert_eq!(work(miner, update.commit_call(window, &hot)), Ok(Ok(())));
    roll_to_phase(window, Phase::Reveal);
    assert_eq!(work(miner, update.reveal_call(window, &hot)), Ok(Ok(())));
    roll_to_phase(window, Phase::Apply);
}

/// What the money is, and that the keys have none.
fn assert_penniless(keys: &[&sr25519::Pair]) {
    for key in keys {
        assert_eq!(Balances::total_balance(&account(key)), 0);
    }
}

#[test]
fn who_takes_part_reports_for_nothing_and_junk_comes_into_no_pool() {
    with_participants(|miner, validator| {
        let update = Update::new(0, Model::genesis().root());
        send_update(&miner, 0, &update);
        // The same again is a copy.
        send_update(&miner, 1, &update);
        let shown = |window| {
            let places = copied_places(RUN, window).into_iter();
            places.map(|index| [update.shown_chunk(index), update.shown_chunk(index)]).collect()
        };
        let report = |commitments, chunks| Call::report_copy {
            run: RUN,
            commitments,
            chunks: BoundedVec::truncate_from(chunks),
        };
        let copy = || report([name(0), name(1)], shown(1));
        let junk = [
            (report([name(0), name(0)], shown(0)), Error::NotACopy),
            (report([name(0), name(9)], shown(0)), Error::FaultTooOld),
            (report([name(0), name(1)], shown(1).split_off(1)), Error::ProofInvalid),
            (
                Call::report_malformed {
                    run: RUN,
                    commitment: name(0),
                    index: 0,
                    chunk: Box::new(update.shown_chunk(0)),
                },
                Error::ChunkWellFormed,
            ),
        ];
        for (junk, error) in junk {
            let error = Err(refused(error));
            assert_eq!(validity(signed(&validator, 0, junk.clone())).map(|_| ()), error);
            assert_eq!(work(&validator, junk.clone()).map(|_| ()), error);
            // Of somebody who takes no part it is an ordinary transaction that fails and is paid for.
            let payer = Sr25519Keyring::Ferdie.pair();
            let before = Balances::free_balance(account(&payer));
            assert!(matches!(work(&payer, junk), Ok(Err(DispatchError::Module(_)))));
            assert!(Balances::free_balance(account(&payer)) < before);
        }
        let stranger = signed(&pair("stranger"), 0, copy());
        assert_eq!(validity(stranger), Err(InvalidTransaction::Payment.into()));

        let valid = validity(signed(&validator, 0, copy())).expect("it is a copy");
        assert_eq!(valid.priority, u64::MAX);
        let issuance = Balances::total_issuance();
        assert_eq!(work(&validator, copy()), Ok(Ok(())));
        assert_eq!(Balances::total_issuance(), issuance);
        // Once is enough, for the miner itself too.
        for key in [&validator, &miner] {
            assert_eq!(work(key, copy()), Err(refused(Error::FaultKnown)));
        }
        assert_penniless(&[&miner, &validator]);
        // Half of the slash is the cold key's, two windows later.
        let before = Balances::total_balance(&validator_cold(0));
        let bond = settings().incentive.miner_bond;
        roll_to_offset(4, 0);
        assert_eq!(Balances::total_balance(&validator_cold(0)), before + bond / 4);
        check_state();
    });
}

#[test]
fn a_miner_without_money_answers_once_for_nothing_while_there_is_time() {
    with_participants(|miner, validator| {
        let update = Update::new(0, Model::genesis().root());
        send_update(&miner, 0, &update);
        let payer = Sr25519Keyring::Ferdie.pair();
        let challenge = |index| Call::challenge_data { run: RUN, commitment: name(0), index };
        for index in [0, 1] {
            let before = Balances::total_balance(&account(&payer));
            assert_eq!(apply(&payer, 0, challenge(index)), Ok(Ok(())));
            // A request is no work: it costs a fee, and of who has no money it is not taken.
            assert!(Balances::total_balance(&account(&payer)) < before);
        }
        let asked = signed(&validator, 0, challenge(2));
        assert_eq!(validity(asked), Err(InvalidTransaction::Payment.into()));

        let answer = |index, shown| Call::answer_data {
            run: RUN,
            commitment: name(0),
            index,
            chunk: Box::new(update.shown_chunk(shown)),
        };
        assert_eq!(work(&miner, answer(0, 1)), Err(refused(Error::ProofInvalid)));
        assert_eq!(work(&miner, answer(2, 2)), Err(refused(Error::ChallengeUnknown)));
        assert_eq!(work(&validator, answer(0, 0)), Err(refused(Error::NotColdKey)));
        let valid = validity(signed(&miner, 0, answer(0, 0))).expect("it is asked for");
        assert_eq!(valid.priority, u64::MAX);
        let (issuance, cold) = (Balances::total_issuance(), Balances::free_balance(miner_cold(0)));
        assert_eq!(work(&miner, answer(0, 0)), Ok(Ok(())));
        assert_eq!(work(&miner, answer(0, 0)), Err(refused(Error::ChallengeUnknown)));
        let bond = settings().disputes.challenge_bond;
        assert_eq!(Balances::free_balance(miner_cold(0)), cold + bond);
        assert_eq!(Balances::total_issuance(), issuance);
        // Too late for the other one.
        roll_to(System::block_number() + settings().disputes.answer_blocks + 1);
        assert_eq!(work(&miner, answer(1, 1)), Err(refused(Error::TooLate)));
        assert_penniless(&[&miner, &validator]);
        let time_out = Call::time_out { run: RUN, commitment: name(0), index: 1 };
        assert_eq!(apply(&payer, 0, time_out), Ok(Ok(())));
        check_state();
    });
}

/// A chunk can be asked for after its miner has left, as long as its bond waits; the account of its hot key may be gone by then.
#[test]
fn a_miner_that_has_left_answers_with_its_cold_key() {
    with_participants(|miner, _| {
        let update = Update::new(0, Model::genesis().root());
        send_update(&miner, 0, &update);
        call(&miner_cold(0), Call::leave_miner { run: RUN, uid: 0 }).expect("it may leave");
        roll_to_offset(3, 0);
        let payer = Sr25519Keyring::Ferdie.pair();
        for index in [0, 1] {
            let challenge = Call::challenge_data { run: RUN, commitment: name(0), index };
            assert_eq!(apply(&payer, 0, challenge), Ok(Ok(())));
        }
        let answer = |index| Call::answer_data {
            run: RUN,
            commitment: name(0),
            index,
            chunk: Box::new(update.shown_chunk(index)),
        };
        println!("by the hot key: {:?}", work(&miner, answer(0)));
        let cold = Sr25519Keyring::iter().find(|key| key.to_account_id() == miner_cold(0));
        let cold = cold.expect("it is of the keyring").pair();
        let before = Balances::free_balance(account(&cold));
        assert_eq!(work(&cold, answer(1)), Ok(Ok(())));
        assert_eq!(
            Balances::free_balance(account(&cold)),
            before + settings().disputes.challenge_bond
        );
        check_state();
    });
}

#[test]
fn jurors_without_money_vote_for_nothing() {
    ExtBuilder::default().participants(2, 4).execute(|| {
        let root = Model::genesis().root();
        let updates = [Update::new(0, root), Update::new(1, root)];
        play_window(0, &updates, 4, root);
        score_window(0, &vec![vec![evaluation(0, 30, 20), evaluation(1, 20, 10)]; 4]);
        let payer = Sr25519Keyring::Ferdie.pair();
        let name = (0, 0, 1);
        let dispute = Call::dispute_evaluation { run: RUN, evaluation: name };
        assert_eq!(apply(&payer, 0, dispute), Ok(Ok(())));

        let measured = evaluation(1, 20, 10);
        let hash = |number: u8| {
            let hot = account_bytes(&validator_hot(number));
            verdict_commitment_hash(&genesis_hash(), RUN, 0, 0, &hot, &measured, &[number; 32])
        };
        let commit =
            |number| Call::commit_verdict { run: RUN, evaluation: name, hash: hash(number) };
        let reveal = |number: u8| Call::reveal_verdict {
            run: RUN,
            evaluation: name,
            measured: measured.clone(),
            salt: [number; 32],
        };
        let work = |number: u8, call| work(&validator_key(number), call);
        assert_eq!(work(1, commit(1)), Err(refused(Error::WrongWindow)));
        roll_to_offset(2, 0);
        assert_eq!(work(0, commit(0)), Err(refused(Error::NotAJuror)));
        let valid = validity(signed(&validator_key(1), 0, commit(1))).expect("it is drawn");
        assert_eq!(valid.priority, u64::MAX);
        for number in 1..4 {
            assert_eq!(work(number, commit(number)), Ok(Ok(())));
            assert_eq!(work(number, commit(number)), Err(refused(Error::AlreadyCommitted)));
        }
        roll_to_offset(3, 0);
        for number in 1..4 {
            assert_eq!(work(number, reveal(number)), Ok(Ok(())));
            assert_eq!(work(number, reveal(number)), Err(refused(Error::AlreadyRevealed)));
            assert_penniless(&[&validator_key(number)]);
        }
        roll_to_offset(4, 0);
        let close = Call::close_dispute { run: RUN, evaluation: name };
        let before = Balances::total_balance(&account(&payer));
        assert_eq!(apply(&payer, 0, close), Ok(Ok(())));
        let lost = before - Balances::total_balance(&account(&payer));
        assert!(lost >= settings().disputes.dispute_bond, "the jury confirms: {lost}");
        check_state();
    });
}
