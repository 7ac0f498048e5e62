//! Commit, reveal, attest and score: every error, and who owns a payload.

use frame_support::{assert_noop, assert_ok};
use protocol::window::Phase;

use crate::{mock::*, *};

/// One miner and one validator in the first block of `phase` of window 0; the miner has committed
/// if its phase is over.
fn at_phase(phase: Phase, test: impl FnOnce()) {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        roll_to_window(0);
        if phase != Phase::Commit {
            commit(0, 0, 0, GENESIS_ROOT);
        }
        roll_to_phase(0, phase);
        test();
    });
}

#[test]
fn commitment_is_refused_outside_of_its_place() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        let commit = |hot, run, window| Gauntlet::do_commit_update(hot, run, window, [1; 32]);
        assert_noop!(commit(miner_hot(0), 0, 0), Error::<Test>::RunNotStarted);
        roll_to_window(0);
        register_miner(miner_cold(1), miner_hot(1)).unwrap();
        assert_noop!(commit(miner_hot(0), 1, 0), Error::<Test>::RunUnknown);
        assert_noop!(commit(miner_hot(0), 0, 1), Error::<Test>::WrongWindow);
        assert_noop!(commit(validator_hot(0), 0, 0), Error::<Test>::MinerUnknown);
        assert_noop!(commit(miner_hot(1), 0, 0), Error::<Test>::NotYetActive);
        assert_ok!(commit(miner_hot(0), 0, 0));
        assert_noop!(commit(miner_hot(0), 0, 0), Error::<Test>::AlreadyCommitted);
        roll_to_phase(0, Phase::Reveal);
        assert_noop!(commit(miner_hot(1), 0, 0), Error::<Test>::WrongPhase);
    });
}

#[test]
fn the_last_block_of_the_commit_phase_is_the_one_before_commit_end() {
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        roll_to(START + 9);
        assert_ok!(Gauntlet::do_commit_update(miner_hot(0), 0, 0, [1; 32]));
        roll_to(START + 10);
        assert_noop!(
            Gauntlet::do_commit_update(miner_hot(1), 0, 0, [1; 32]),
            Error::<Test>::WrongPhase
        );
    });
}

#[test]
fn reveal_stores_the_opening() {
    at_phase(Phase::Reveal, || {
        assert_ok!(reveal(0, 0, 0, GENESIS_ROOT));
        let stored = Reveals::<Test>::get((0, 0, 0)).unwrap();
        assert_eq!(stored.opening, opening(0, GENESIS_ROOT));
        assert_eq!(stored.committed_block, START);
        assert_eq!(PayloadOwners::<Test>::get((0, 0, stored.opening.payload_root)), Some(0));
        assert_noop!(reveal(0, 0, 0, GENESIS_ROOT), Error::<Test>::AlreadyRevealed);
    });
}

#[test]
fn reveal_is_refused_outside_of_its_place() {
    at_phase(Phase::Commit, || {
        roll_to(START + 9);
        let reveal = |number: u8, window| {
            Gauntlet::do_reveal_update(
                miner_hot(number),
                0,
                window,
                opening(0, GENESIS_ROOT),
                Default::default(),
            )
        };
        assert_noop!(reveal(0, 0), Error::<Test>::WrongPhase);
        roll_to_phase(0, Phase::Reveal);
        assert_noop!(reveal(0, 1), Error::<Test>::WrongWindow);
        assert_noop!(reveal(5, 0), Error::<Test>::MinerUnknown);
        assert_noop!(reveal(1, 0), Error::<Test>::NotCommitted);
        roll_to_phase(0, Phase::Attest);
        assert_noop!(reveal(1, 0), Error::<Test>::WrongPhase);
    });
}

#[test]
fn reveal_must_open_the_commitment() {
    at_phase(Phase::Reveal, || {
        let reveal =
            |opening| Gauntlet::do_reveal_update(miner_hot(0), 0, 0, opening, shown(0, 0, 0));
        let mut other_salt = opening(0, GENESIS_ROOT);
        other_salt.salt = [9; 32];
        assert_noop!(reveal(other_salt), Error::<Test>::OpeningMismatch);
        // Another's payload does not open one's own commitment.
        assert_noop!(reveal(opening(1, GENESIS_ROOT)), Error::<Test>::OpeningMismatch);
    });
}

#[test]
fn reveal_must_fit_the_layout() {
    ExtBuilder::default().participants(3, 0).build_and_execute(|| {
        roll_to_window(0);
        let mut openings = [(); 3].map(|_| opening(0, GENESIS_ROOT));
        openings[0].chunk_count = 2;
        openings[1].byte_len = 0;
        openings[2].byte_len = run().payload_bytes_max + 1;
        for (number, opening) in (0..).zip(&openings) {
            let hot = miner_hot(number);
            let hash = protocol::commitment::commitment_hash(
                &Gauntlet::genesis_hash(),
                0,
                0,
                &account_bytes(&hot),
                opening,
            );
            assert_ok!(Gauntlet::do_commit_update(hot, 0, 0, hash));
        }
        roll_to_phase(0, Phase::Reveal);
        let errors = [
            Error::<Test>::ChunkCountWrong,
            Error::<Test>::ByteLenOutOfRange,
            Error::<Test>::ByteLenOutOfRange,
        ];
        for ((number, opening), error) in (0..).zip(openings).zip(errors) {
            let chunks = shown(0, number.into(), 0);
            assert_noop!(
                Gauntlet::do_reveal_update(miner_hot(number), 0, 0, opening, chunks),
                error
            );
        }
    });
}

#[test]
fn reveal_must_show_the_chunks_that_were_drawn() {
    at_phase(Phase::Reveal, || {
        let reveal = |chunks| {
            Gauntlet::do_reveal_update(miner_hot(0), 0, 0, opening(0, GENESIS_ROOT), chunks)
        };
        assert_noop!(reveal(Default::default()), Error::<Test>::ChunksNotChallenged);
        let mut swapped = shown(0, 0, 0).into_inner();
        swapped.reverse();
        assert_noop!(reveal(swapped.try_into().unwrap()), Error::<Test>::ChunksNotChallenged);
        let mut repeated = shown(0, 0, 0).into_inner();
        repeated.push(repeated[0].clone());
        assert_noop!(reveal(repeated.try_into().unwrap()), Error::<Test>::ChunksNotChallenged);
        let mut short_proof = shown(0, 0, 0);
        short_proof[0].proof.pop();
        assert_noop!(reveal(short_proof), Error::<Test>::ProofInvalid);
        assert_noop!(reveal(shown(0, 0, 1)), Error::<Test>::ProofInvalid);
    });
}

#[test]
fn a_chunk_that_does_not_decode_is_refused() {
    ExtBuilder::default().participants(1, 0).build_and_execute(|| {
        roll_to_window(0);
        let chunks = [vec![0xff; 20], vec![0xff; 20], vec![0xff; 20]];
        let mut opening = opening(0, GENESIS_ROOT);
        opening.payload_root = protocol::merkle::root(chunks.iter().map(Vec::as_slice)).unwrap();
        let hot = miner_hot(0);
        let hash = protocol::commitment::commitment_hash(
            &Gauntlet::genesis_hash(),
            0,
            0,
            &account_bytes(&hot),
            &opening,
        );
        assert_ok!(Gauntlet::do_commit_update(hot.clone(), 0, 0, hash));
        roll_to_phase(0, Phase::Reveal);
        let leaves: Vec<_> = (0..)
            .zip(&chunks)
            .map(|(index, chunk)| protocol::merkle::leaf_hash(index, chunk))
            .collect();
        let mut shown = shown(0, 0, 0);
        for chunk in shown.iter_mut() {
            chunk.chunk = chunks[0].clone().try_into().unwrap();
            chunk.proof =
                protocol::merkle::proof(&leaves, chunk.index).unwrap().try_into().unwrap();
        }
        assert_noop!(
            Gauntlet::do_reveal_update(hot, 0, 0, opening, shown),
            Error::<Test>::ChunkMalformed
        );
    });
}

/// Miner 0 commits first, then miner 1, to one payload, and a third miner in between.
fn with_a_copy(test: impl FnOnce()) {
    ExtBuilder::default().participants(3, 1).build_and_execute(|| {
        roll_to_window(0);
        commit(0, 0, 0, GENESIS_ROOT);
        commit(0, 2, 2, GENESIS_ROOT);
        commit(0, 1, 0, GENESIS_ROOT);
        roll_to_phase(0, Phase::Reveal);
        test();
    });
}

#[test]
fn a_copy_revealed_after_the_original_is_refused() {
    with_a_copy(|| {
        assert_ok!(reveal(0, 0, 0, GENESIS_ROOT));
        assert_noop!(reveal(0, 1, 0, GENESIS_ROOT), Error::<Test>::CopiedPayload);
    });
}

#[test]
fn a_copy_revealed_before_the_original_is_removed() {
    with_a_copy(|| {
        assert_ok!(reveal(0, 1, 0, GENESIS_ROOT));
        assert_ok!(reveal(0, 0, 0, GENESIS_ROOT));
        assert!(events().contains(&Event::CopyRefused { run: 0, window: 0, uid: 1, original: 0 }));
        assert!(!Reveals::<Test>::contains_key((0, 0, 1)));
        // It cannot come back.
        assert_noop!(reveal(0, 1, 0, GENESIS_ROOT), Error::<Test>::CopiedPayload);
        roll_to_phase(0, Phase::Attest);
        attest(0, 0, &[0, 1], GENESIS_ROOT);
        roll_to_phase(0, Phase::Apply);
        assert_eq!(record(0).accepted.to_vec(), [0]);
    });
}

#[test]
fn attestation_is_refused_outside_of_its_place() {
    at_phase(Phase::Reveal, || {
        let attest = |hot, window, bytes: usize| {
            Gauntlet::do_attest(hot, 0, window, Bitmap::truncate_from(vec![0; bytes]), GENESIS_ROOT)
        };
        assert_noop!(attest(validator_hot(0), 0, 1), Error::<Test>::WrongPhase);
        roll_to_phase(0, Phase::Attest);
        Gauntlet::do_register_validator(validator_cold(1), 0, validator_hot(1), 100 * UNIT)
            .unwrap();
        assert_noop!(attest(validator_hot(0), 1, 1), Error::<Test>::WrongWindow);
        assert_noop!(attest(miner_hot(0), 0, 1), Error::<Test>::ValidatorUnknown);
        assert_noop!(attest(validator_hot(1), 0, 1), Error::<Test>::NotYetActive);
        assert_noop!(attest(validator_hot(0), 0, 9), Error::<Test>::BitmapTooLong);
        assert_ok!(attest(validator_hot(0), 0, 8));
        assert_noop!(attest(validator_hot(0), 0, 8), Error::<Test>::AlreadyAttested);
    });
}

#[test]
fn scores_are_refused_outside_of_their_place() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        play_window(0, 1, 1);
        let commit = |hot, window| Gauntlet::do_commit_scores(hot, 0, window, [1; 32]);
        let reveal = |hot, window, salt| {
            Gauntlet::do_reveal_scores(hot, 0, window, evaluations(1).try_into().unwrap(), salt)
        };
        assert_noop!(commit(validator_hot(0), 0), Error::<Test>::WrongWindow);
        roll_to_window(1);
        assert_noop!(commit(validator_hot(0), 1), Error::<Test>::WrongWindow);
        assert_noop!(commit(miner_hot(0), 0), Error::<Test>::ValidatorUnknown);
        // Who registers in window 1 does not score window 0.
        Gauntlet::do_register_validator(validator_cold(1), 0, validator_hot(1), 100 * UNIT)
            .unwrap();
        assert_noop!(commit(validator_hot(1), 0), Error::<Test>::NotYetActive);
        assert_noop!(reveal(validator_hot(0), 0, [0; 32]), Error::<Test>::WrongPhase);
        commit_scores(0, 0, &evaluations(1));
        assert_noop!(commit(validator_hot(0), 0), Error::<Test>::AlreadyCommitted);
        roll_to(System::block_number() + 8);
        assert_noop!(commit(validator_hot(0), 0), Error::<Test>::WrongPhase);
        assert_noop!(reveal(validator_hot(0), 0, [9; 32]), Error::<Test>::OpeningMismatch);
        assert_ok!(reveal(validator_hot(0), 0, [0; 32]));
        assert_noop!(reveal(validator_hot(0), 0, [0; 32]), Error::<Test>::AlreadyRevealed);
        roll_to_settlement(0);
        assert_noop!(reveal(validator_hot(0), 0, [0; 32]), Error::<Test>::WrongPhase);
        roll_to_window(2);
        roll_to(System::block_number() + 8);
        assert_noop!(reveal(validator_hot(0), 1, [0; 32]), Error::<Test>::NotCommitted);
    });
}
