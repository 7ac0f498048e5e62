//! Proofs of faults: what evidence shows and what it does not.

use protocol::{
    consensus::Evaluation,
    fault::{
        judge_answer, judge_copy, judge_evaluation, judge_malformed, judge_of, juror_fee,
        may_judge, verdict_commitment_hash, Committed, Judge, NoFault, Place, ProvenFault, Shown,
        Verdict,
    },
    merkle,
    update::{encode_chunk, Chunk},
    Hash,
};

const LEN: u32 = 4_096;
const KEEP: u16 = 64;
const ALL: u32 = 1_000_000;

fn chunk(first: u16, code: u8) -> Vec<u8> {
    let chunk = Chunk {
        scale_bf16: 0x3c00,
        indices: (0..KEEP).map(|at| first + 3 * at).collect(),
        codes: vec![code; usize::from(KEEP)],
    };
    encode_chunk(&chunk, LEN, KEEP).unwrap()
}

/// A payload of three chunks of which the second is `chunk`: its root and that one's proof.
fn payload(chunk: &[u8], others: u8) -> (Hash, Vec<Hash>) {
    let leaves: Vec<Hash> = [&[others][..], chunk, &[others, 1][..]]
        .iter()
        .zip(0u32..)
        .map(|(bytes, index)| merkle::leaf_hash(index, bytes))
        .collect();
    (merkle::root_of_leaf_hashes(&leaves).unwrap(), merkle::proof(&leaves, 1).unwrap())
}

fn place() -> Place {
    Place { index: 1, chunk_count: 3, len: LEN, keep: KEEP }
}

fn committed(window: u64, order: u32, uid: u16, payload_root: Hash) -> Committed {
    Committed { window, order, uid, payload_root }
}

#[test]
fn the_later_of_two_equal_chunks_is_the_copy_in_any_window() {
    let bytes = chunk(0, 1);
    let (root, proof) = payload(&bytes, 7);
    let (other_root, other_proof) = payload(&bytes, 8);
    let shown = Shown { bytes: &bytes, proof: &proof };
    let other = Shown { bytes: &bytes, proof: &other_proof };
    let judge = |a: Committed, b: Committed| {
        let forth = judge_copy((&a, shown), (&b, other), &place(), ALL);
        let back = judge_copy((&b, other), (&a, shown), &place(), ALL);
        assert_eq!(forth, back);
        forth
    };
    assert_eq!(judge(committed(4, 0, 1, root), committed(4, 9, 2, other_root)), Ok(2));
    assert_eq!(judge(committed(5, 0, 1, root), committed(4, 9, 2, other_root)), Ok(1));
    // An old payload of one's own is no work either.
    assert_eq!(judge(committed(5, 0, 1, root), committed(3, 0, 1, other_root)), Ok(1));
    let same = judge(committed(5, 0, 1, root), committed(5, 0, 1, other_root));
    assert_eq!(same, Err(NoFault::Same));
    let foreign = judge(committed(5, 0, 1, other_root), committed(3, 0, 1, other_root));
    assert_eq!(foreign, Err(NoFault::Proof));
}

#[test]
fn a_near_copy_has_as_many_positions_in_common_as_the_run_says() {
    // 62 of 64 positions are the same, and every code is another.
    let (original, near) = (chunk(0, 1), chunk(6, 2));
    let (root, proof) = payload(&original, 7);
    let (near_root, near_proof) = payload(&near, 8);
    let judge = |overlap| {
        judge_copy(
            (&committed(0, 0, 1, root), Shown { bytes: &original, proof: &proof }),
            (&committed(2, 0, 2, near_root), Shown { bytes: &near, proof: &near_proof }),
            &place(),
            overlap,
        )
    };
    assert_eq!(judge(62 * ALL / 64), Ok(2));
    assert_eq!(judge(62 * ALL / 64 + 1), Err(NoFault::Different));
    assert_eq!(judge(ALL), Err(NoFault::Different));
}

/// An embedding row that nobody trained is zero for everybody, and a chunk of one value is soon equal by chance.
#[test]
fn what_is_equal_by_chance_is_no_copy() {
    let judge = |bytes: &[u8], len, keep| {
        let (root, proof) = payload(bytes, 7);
        let (other_root, other_proof) = payload(bytes, 8);
        judge_copy(
            (&committed(0, 0, 1, root), Shown { bytes, proof: &proof }),
            (&committed(0, 1, 2, other_root), Shown { bytes, proof: &other_proof }),
            &Place { len, keep, ..place() },
            ALL,
        )
    };
    let zero = Chunk { scale_bf16: 0, indices: (0..KEEP).collect(), codes: vec![0; 64] };
    let zero = encode_chunk(&zero, LEN, KEEP).unwrap();
    assert_eq!(judge(&zero, LEN, KEEP), Err(NoFault::TooCommon));
    let few = Chunk { scale_bf16: 0x3c00, indices: (0..15).collect(), codes: vec![0; 15] };
    let few = encode_chunk(&few, LEN, 15).unwrap();
    assert_eq!(judge(&few, LEN, 15), Err(NoFault::TooCommon));
    assert_eq!(judge(&[1, 2, 3], LEN, KEEP), Err(NoFault::Malformed));
}

#[test]
fn a_chunk_is_malformed_only_if_it_was_committed_to_and_does_not_decode() {
    let bad = [1, 2, 3];
    let (root, proof) = payload(&bad, 7);
    let shown = Shown { bytes: &bad, proof: &proof };
    assert_eq!(judge_malformed(&root, shown, &place()), Ok(()));
    assert_eq!(judge_answer(&root, shown, &place()), Ok(Some(ProvenFault::Malformed)));
    assert_eq!(judge_malformed(&[0; 32], shown, &place()), Err(NoFault::Proof));
    let elsewhere = Place { index: 2, ..place() };
    assert_eq!(judge_malformed(&root, shown, &elsewhere), Err(NoFault::Proof));

    let good = chunk(5, 3);
    let (root, proof) = payload(&good, 7);
    let shown = Shown { bytes: &good, proof: &proof };
    assert_eq!(judge_malformed(&root, shown, &place()), Err(NoFault::WellFormed));
    assert_eq!(judge_answer(&root, shown, &place()), Ok(None));
    assert_eq!(judge_answer(&[0; 32], shown, &place()), Err(NoFault::Proof));
}

fn evaluation(own_before: u32) -> Evaluation {
    Evaluation { uid: 3, own_before, own_after: 900, random_before: 1_000, random_after: 950 }
}

#[test]
fn more_than_half_of_all_stake_decides_and_silence_does_not() {
    let judge = |votes: &[(u64, u32)], total| {
        let measured: Vec<(u64, Evaluation)> =
            votes.iter().map(|(stake, own)| (*stake, evaluation(*own))).collect();
        let votes: Vec<(u64, &Evaluation)> =
            measured.iter().map(|(stake, measured)| (*stake, measured)).collect();
        judge_evaluation(&evaluation(1_000), &votes, total, 10_000)
    };
    assert_eq!(judge(&[(3, 1_000), (3, 1_010), (4, 990)], 10), Verdict::True);
    assert_eq!(judge(&[(6, 2_000), (4, 1_000)], 10), Verdict::False);
    assert_eq!(judge(&[(5, 2_000), (5, 1_000)], 10), Verdict::Open, "a half is no majority");
    assert_eq!(judge(&[(5, 2_000)], 10), Verdict::Open, "however silent the others are");
    assert_eq!(judge(&[(5, 1_000)], 10), Verdict::Open);
    assert_eq!(judge(&[], 10), Verdict::Open);
    assert_eq!(judge(&[], 0), Verdict::Open);
    let most = u64::MAX;
    assert_eq!(judge(&[(most, 2_000), (most, 2_000)], 3 * u128::from(most)), Verdict::False);
    let other = Evaluation { uid: 4, ..evaluation(1_000) };
    assert_eq!(judge_evaluation(&evaluation(1_000), &[(1, &other)], 1, ALL), Verdict::False);
}

/// The numbers of docs/decisions/0025: whatever the shares, one rule of arithmetic tells who decides.
#[test]
fn no_minority_convicts_and_none_is_protected_by_less_than_half() {
    let judge = |deniers: u64, confirmers: u64| {
        let (denied, confirmed) = (evaluation(2_000), evaluation(1_000));
        let votes = [(deniers, &denied), (confirmers, &confirmed)];
        judge_evaluation(&evaluation(1_000), &votes, 1_000, 10_000)
    };
    for minority in [100, 250, 333, 490, 500] {
        assert_eq!(judge(minority, 0), Verdict::Open, "everybody else is away");
        assert_eq!(judge(0, minority), Verdict::Open, "none burns a challenger's bond either");
    }
    for guilty in [50, 100, 250, 333] {
        let honest = 1_000 - guilty;
        assert_eq!(judge(honest, 0), Verdict::False);
        assert_eq!(judge(honest * 9 / 10, 0), Verdict::False, "a tenth of them is silent");
    }
}

#[test]
fn who_is_party_to_a_dispute_does_not_judge_it() {
    let seat = |index, pool, cold| Judge { index, pool, cold, stake: 1 };
    // Judge 5 has the cold key of seat 2, and the challenger that of seat 7.
    let bench = [seat(2, 0, 'a'), seat(4, 1, 'b'), seat(5, 2, 'a'), seat(7, 3, 'c')];
    let judges = |accused| {
        let seats = bench.iter().filter(|seat| may_judge(&bench, seat, accused, &'c'));
        seats.map(|seat| seat.index).collect::<Vec<_>>()
    };
    assert_eq!(judges(2), [4]);
    assert_eq!(judges(4), [2, 5]);
    assert_eq!(judges(3), [2, 4, 5], "who is not on the bench takes nobody with it");
    assert_eq!(judge_of(&bench, 4).map(|seat| seat.pool), Some(1));
    assert_eq!(judge_of(&bench, 3), None);
}

#[test]
fn a_lost_bond_pays_each_juror_no_more_than_its_part() {
    assert_eq!(juror_fee(1_001, 5, 5), 100);
    assert_eq!(juror_fee(1_000, 5, 1), 100, "one alone does not have the others' parts");
    assert_eq!(juror_fee(1_000, 5, 50), 10);
    assert_eq!(juror_fee(1_000, 0, 0), 0);
}

#[test]
fn a_verdict_is_bound_to_its_juror_and_dispute() {
    let hash = |run, window, accused, hot: u8| {
        verdict_commitment_hash(
            &[0; 32],
            run,
            window,
            accused,
            &[hot; 32],
            &evaluation(1),
            &[0; 32],
        )
    };
    let all =
        [hash(0, 0, 0, 0), hash(1, 0, 0, 0), hash(0, 1, 0, 0), hash(0, 0, 1, 0), hash(0, 0, 0, 1)];
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
}
