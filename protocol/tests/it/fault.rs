//! Proofs of faults: what evidence shows and what it does not.

use protocol::{
    consensus::Evaluation,
    fault::{
        copy_places, is_telling, judge_answer, judge_copy, judge_evaluation, judge_malformed,
        judge_of, juror_fee, may_judge, verdict_commitment_hash, Committed, Judge, NoFault, Place,
        ProvenFault, Shown, Verdict, COPY_CHUNKS,
    },
    layout::Layout,
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

/// A payload of whole chunks and all their proofs.
struct Sent {
    chunks: Vec<Vec<u8>>,
    leaves: Vec<Hash>,
}

impl Sent {
    fn new(chunks: Vec<Vec<u8>>) -> Self {
        let leaves = (0..).zip(&chunks).map(|(at, bytes)| merkle::leaf_hash(at, bytes)).collect();
        Sent { chunks, leaves }
    }

    /// Eight chunks whose positions begin where `firsts` says.
    fn of(firsts: [u16; 8], code: u8) -> Self {
        Self::new(firsts.map(|first| chunk(first, code)).to_vec())
    }

    fn root(&self) -> Hash {
        merkle::root_of_leaf_hashes(&self.leaves).unwrap()
    }

    fn proof(&self, index: u32) -> Vec<Hash> {
        merkle::proof(&self.leaves, index).unwrap()
    }
}

fn eight() -> Vec<Place> {
    (0..8).map(|index| Place { index, chunk_count: 8, len: LEN, keep: KEEP }).collect()
}

/// Judges the first places of two payloads, whose commitments are the given ones but for their roots.
fn judge(
    (first, second): (&Sent, &Sent),
    committed: [Committed; 2],
    places: &[Place],
    overlap_ppm: u32,
) -> Result<u16, NoFault> {
    let [mut a, mut b] = committed;
    (a.payload_root, b.payload_root) = (first.root(), second.root());
    let proofs: Vec<_> =
        places.iter().map(|at| [first, second].map(|sent| sent.proof(at.index))).collect();
    let chunks: Vec<[Shown<'_>; 2]> = places
        .iter()
        .zip(&proofs)
        .map(|(at, [one, other])| {
            let at = at.index as usize;
            let first = Shown { bytes: &first.chunks[at], proof: one };
            [first, Shown { bytes: &second.chunks[at], proof: other }]
        })
        .collect();
    let forth = judge_copy((&a, &b), &chunks, places, overlap_ppm);
    let turned: Vec<_> = chunks.iter().map(|[one, other]| [*other, *one]).collect();
    assert_eq!(judge_copy((&b, &a), &turned, places, overlap_ppm), forth);
    forth
}

fn names(windows: [u64; 2], orders: [u32; 2], uids: [u16; 2]) -> [Committed; 2] {
    [0, 1].map(|at| committed(windows[at], orders[at], uids[at], [0; 32]))
}

#[test]
fn the_later_of_two_equal_payloads_is_the_copy_in_any_window() {
    let sent = Sent::of([0; 8], 1);
    let judge = |names| judge((&sent, &sent), names, &eight(), ALL);
    assert_eq!(judge(names([4, 4], [0, 9], [1, 2])), Ok(2));
    assert_eq!(judge(names([5, 4], [0, 9], [1, 2])), Ok(1));
    // An old payload of one's own is no work either.
    assert_eq!(judge(names([5, 3], [0, 0], [1, 1])), Ok(1));
    assert_eq!(judge(names([5, 5], [0, 0], [1, 1])), Err(NoFault::Same));
}

#[test]
fn a_copy_has_more_than_half_of_the_drawn_chunks() {
    let original = Sent::of([1, 2, 3, 4, 5, 6, 7, 8], 1);
    let of = |copy: &Sent| judge((&original, copy), names([0, 0], [0, 1], [1, 2]), &eight(), ALL);
    // Whatever the values. What honest miners have in common is an embedding and a head.
    assert_eq!(of(&Sent::of([1, 2, 3, 4, 5, 90, 91, 92], 2)), Ok(2));
    assert_eq!(of(&Sent::of([1, 2, 3, 4, 80, 90, 91, 92], 1)), Err(NoFault::Different));
    assert_eq!(of(&Sent::of([1, 2, 70, 71, 80, 90, 91, 92], 1)), Err(NoFault::Different));
    // All that were drawn are shown, and what is shown was committed to.
    let names = names([0, 0], [0, 1], [1, 2]);
    let shown = |places: &[Place]| {
        let proofs: Vec<_> = (0..8).map(|at| original.proof(at)).collect();
        let chunks: Vec<_> = original.chunks.iter().zip(&proofs).take(7).collect();
        let chunks = chunks.iter().map(|(bytes, proof)| [Shown { bytes, proof }; 2]);
        let chunks: Vec<_> = chunks.collect();
        let [mut a, mut b] = names;
        (a.payload_root, b.payload_root) = (original.root(), original.root());
        let fair = judge_copy((&a, &b), &chunks, places, ALL);
        b.payload_root = [9; 32];
        assert_eq!(judge_copy((&a, &b), &chunks, places, ALL), Err(NoFault::Proof));
        fair
    };
    assert_eq!(shown(&eight()), Err(NoFault::Proof));
    assert_eq!(shown(&eight()[..7]), Ok(2));
    // Another order is another place.
    let turned: Vec<Place> = eight()[..7].iter().rev().copied().collect();
    assert_eq!(shown(&turned), Err(NoFault::Proof));
}

#[test]
fn a_near_copy_has_as_many_positions_in_common_as_the_run_says() {
    // 62 of 64 positions are the same, and every code is another.
    let (original, near) = (Sent::of([0; 8], 1), Sent::of([6; 8], 2));
    let judge =
        |overlap| judge((&original, &near), names([0, 2], [0, 0], [1, 2]), &eight(), overlap);
    assert_eq!(judge(62 * ALL / 64), Ok(2));
    assert_eq!(judge(62 * ALL / 64 + 1), Err(NoFault::Different));
    assert_eq!(judge(ALL), Err(NoFault::Different));
}

/// An embedding row that nobody trained is zero for everybody, and a chunk of few values is soon equal by chance.
#[test]
fn what_is_equal_by_chance_is_no_copy() {
    let zero = Chunk { scale_bf16: 0, indices: (0..KEEP).collect(), codes: vec![0; 64] };
    let zero = encode_chunk(&zero, LEN, KEEP).unwrap();
    let names = || names([0, 0], [0, 1], [1, 2]);
    let with_zeros = |count: usize| {
        let mut sent = Sent::of([1, 2, 3, 4, 5, 6, 7, 8], 1);
        sent.chunks[..count].fill(zero.clone());
        Sent::new(sent.chunks)
    };
    let of = |count| judge((&with_zeros(count), &with_zeros(count)), names(), &eight(), ALL);
    assert_eq!(of(3), Ok(2));
    assert_eq!(of(4), Err(NoFault::TooCommon));
    // A zero in one of them is as good.
    let one = judge((&with_zeros(0), &with_zeros(4)), names(), &eight(), ALL);
    assert_eq!(one, Err(NoFault::TooCommon));

    let few = Chunk { scale_bf16: 0x3c00, indices: (0..15).collect(), codes: vec![0; 15] };
    let few = Sent::new(vec![encode_chunk(&few, LEN, 15).unwrap()]);
    let place = Place { index: 0, chunk_count: 1, len: LEN, keep: 15 };
    assert_eq!(judge((&few, &few), names(), &[place], ALL), Err(NoFault::TooCommon));
    assert_eq!(judge((&few, &few), names(), &[], ALL), Err(NoFault::TooCommon));
    let bad = Sent::new(vec![vec![1, 2, 3]]);
    let place = Place { keep: KEEP, ..place };
    assert_eq!(judge((&bad, &bad), names(), &[place], ALL), Err(NoFault::Malformed));
}

/// Two miners that keep everything have all positions in common.
#[test]
fn who_keeps_most_proves_nothing() {
    assert!(is_telling(4_096, 16) && !is_telling(4_096, 15));
    assert!(is_telling(4_096, 2_048) && !is_telling(4_096, 2_049));
    assert!(is_telling(32, 2_048) && !is_telling(30, 2_048) && !is_telling(0, 2_048));
    assert_eq!(copy_places(&[0; 32], &Layout(vec![8 * 4_096]), 4_096), []);
}

/// Where each of `places` lies: its tensor.
fn tensors(layout: &Layout, places: &[Place]) -> Vec<u32> {
    places.iter().map(|place| layout.place(place.index).unwrap().tensor).collect()
}

#[test]
fn a_proof_shows_chunks_of_as_many_tensors_as_there_are() {
    // An embedding of 1000 chunks, ten matrices of four and a short end, eleven norms.
    let mut sizes = vec![1_000 * 4_096];
    sizes.extend([4 * 4_096 + 100; 10]);
    sizes.extend([64; 11]);
    let layout = Layout(sizes);
    let mut counts = [0u32; 22];
    for seed in 0..200u8 {
        let places = copy_places(&[seed; 32], &layout, KEEP);
        let mut of = tensors(&layout, &places);
        of.iter().for_each(|tensor| counts[*tensor as usize] += 1);
        of.sort_unstable();
        of.dedup();
        assert_eq!(of.len(), COPY_CHUNKS, "each of another tensor");
        assert!(places.iter().all(|place| place.len == LEN && place.chunk_count == 1_061));
        assert!(places.iter().all(|place| Some(place.len) == layout.chunk_len(place.index)));
        assert_eq!(places, copy_places(&[seed; 32], &layout, KEEP));
    }
    // 200 · 8 draws of eleven tensors: 145 each. Norms say too little.
    assert!(counts[..11].iter().all(|count| (110..=180).contains(count)), "{counts:?}");
    assert_eq!(counts[11..], [0; 11]);
    assert_ne!(copy_places(&[1; 32], &layout, KEEP), copy_places(&[2; 32], &layout, KEEP));
}

#[test]
fn where_there_are_few_tensors_a_proof_shows_more_chunks_of_each() {
    let of = |sizes: &[u64]| {
        let layout = Layout(sizes.to_vec());
        let places = copy_places(&[5; 32], &layout, KEEP);
        let mut indices: Vec<u32> = places.iter().map(|place| place.index).collect();
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices.len(), places.len(), "no chunk twice");
        let mut of = tensors(&layout, &places);
        of.sort_unstable();
        of
    };
    let mut counts = [0, 1, 2]
        .map(|tensor| of(&[100 * 4_096; 3]).into_iter().filter(|found| *found == tensor).count());
    counts.sort_unstable();
    assert_eq!(counts, [2, 3, 3]);
    assert_eq!(of(&[9 * 4_096]), [0; 8]);
    // A last chunk of a quarter still keeps sixteen values.
    assert_eq!(of(&[4_096, 2 * 4_096 + 1_024, 4_096 + 900]), [0, 1, 1, 1, 2]);
    assert_eq!(of(&[100, 200]), [0; 0]);
    assert_eq!(of(&[]), [0; 0]);
    assert_eq!(of(&[4_096, 0]), [0; 0], "no layout");
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
