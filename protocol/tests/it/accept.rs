//! Final roots and accepted sets.

use proptest::prelude::*;
use protocol::{
    accept::{
        accepted_set, attested_stake, bitmap_contains, bitmap_of, final_root, is_available,
        on_probation, AttestationInput, Candidate,
    },
    fixed::Q32,
    settings::{Incentive, Settings},
    Uid,
};

const ROOT: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];

fn incentive() -> Incentive {
    Incentive { accepted_max: 3, ..Settings::example().incentive }
}

fn candidate(uid: Uid, value: i32) -> Candidate {
    Candidate {
        uid,
        base_state_root: ROOT,
        value: Q32::from_int(value),
        on_probation: false,
        registered_window: 0,
    }
}

fn attestation(stake: u64, state_root: [u8; 32], bitmap: &[u8]) -> AttestationInput<'_> {
    AttestationInput { stake, state_root, bitmap }
}

#[test]
fn bitmaps_count_from_the_lowest_bit() {
    let bitmap = bitmap_of(&[0, 9, 4_095]);
    assert_eq!(bitmap.len(), 512);
    assert_eq!(&bitmap[..2], [0b0000_0001, 0b0000_0010]);
    assert_eq!(bitmap[511], 0b1000_0000);
    assert!(bitmap_contains(&bitmap, 9) && !bitmap_contains(&bitmap, 1));
    assert!(!bitmap_contains(&[], 0) && !bitmap_contains(&bitmap, u16::MAX));
    assert!(bitmap_of(&[]).is_empty());
}

#[test]
fn a_root_needs_two_thirds_of_the_stake() {
    let votes = |a, b| [attestation(a, ROOT, &[]), attestation(b, OTHER, &[])];
    // 666667 ppm of 300 are 200.0001.
    assert_eq!(final_root(&votes(200, 100), 300, 666_667), None);
    assert_eq!(final_root(&votes(201, 99), 300, 666_667), Some(ROOT));
    assert_eq!(final_root(&votes(99, 201), 300, 666_667), Some(OTHER));
    // Stake that did not attest counts in the total.
    assert_eq!(final_root(&votes(201, 0), 400, 666_667), None);
    assert_eq!(final_root(&votes(100, 100), 200, 500_000), Some(ROOT));
    assert_eq!(final_root(&[], 300, 666_667), None);
    assert_eq!(final_root(&[], 0, 666_667), None);
    let most = [attestation(u64::MAX, ROOT, &[]); 3];
    assert_eq!(final_root(&most, 3 * u128::from(u64::MAX), 1_000_000), Some(ROOT));
}

#[test]
fn the_best_available_candidates_are_accepted() {
    let all = bitmap_of(&[1, 2, 3, 4, 5, 6]);
    let few = bitmap_of(&[1, 2]);
    let attestations = [attestation(700, ROOT, &all), attestation(300, ROOT, &few)];
    let accept = |candidates: &[Candidate]| {
        accepted_set(candidates, &attestations, 1_000, Some(ROOT), &incentive())
    };
    // Best three of five, ties to the lower uid, sorted by uid.
    let mut candidates: Vec<Candidate> =
        [(5, 9), (4, 2), (3, 2), (2, 2), (1, 7)].map(|(uid, value)| candidate(uid, value)).into();
    assert_eq!(accept(&candidates), [1, 2, 5]);
    // On probation, from another state, or not fetched by enough stake.
    candidates[0].on_probation = true;
    assert_eq!(accept(&candidates), [1, 2, 3]);
    candidates[4].base_state_root = OTHER;
    assert_eq!(accept(&candidates), [2, 3, 4]);
    candidates.push(candidate(9, 100));
    assert_eq!(accept(&candidates), [2, 3, 4]);
    assert_eq!(accept(&[]), Vec::<Uid>::new());
}

#[test]
fn without_standings_the_lowest_uids_are_accepted() {
    let bitmap = [0xff; 2];
    let attestations = [attestation(1, ROOT, &bitmap)];
    let candidates: Vec<Candidate> = (0..10).rev().map(|uid| candidate(uid, 0)).collect();
    let rules = incentive();
    assert_eq!(accepted_set(&candidates, &attestations, 1, Some(ROOT), &rules), [0, 1, 2]);
    // Below zero is zero.
    let candidates = [candidate(1, -5), candidate(2, 0), candidate(3, 0), candidate(4, 0)];
    assert_eq!(accepted_set(&candidates, &attestations, 1, Some(ROOT), &rules), [1, 2, 3]);
}

#[test]
fn nothing_is_accepted_without_a_final_root() {
    let bitmap = [0xff];
    let attestations = [attestation(1, ROOT, &bitmap)];
    let candidates = [candidate(1, 1)];
    let rules = incentive();
    assert!(accepted_set(&candidates, &attestations, 1, None, &rules).is_empty());
    assert!(accepted_set(&candidates, &attestations, 0, Some(ROOT), &rules).is_empty());
}

#[test]
fn a_minority_decides_nothing() {
    let (all, none) = (bitmap_of(&[1, 2]), bitmap_of(&[]));
    // 300 of 1000 refuse to see the miners and name another root.
    let attestations = [attestation(700, ROOT, &all), attestation(300, OTHER, &none)];
    assert_eq!(final_root(&attestations, 1_000, 666_667), Some(ROOT));
    assert!(is_available(&attestations, 1_000, 1, 666_667));
    assert_eq!(attested_stake(&attestations, 1), 700);
    // 300 of 1000 praise one that the others could not fetch.
    let ghost = bitmap_of(&[7]);
    let attestations = [attestation(700, ROOT, &all), attestation(300, ROOT, &ghost)];
    assert!(!is_available(&attestations, 1_000, 7, 666_667));
}

#[test]
fn newcomers_wait_unless_they_were_there_first() {
    let rules = incentive();
    // Probation of 2 windows, waived for who registered in windows 0 to 3.
    assert!(!on_probation(0, 0, &rules));
    assert!(!on_probation(3, 4, &rules));
    assert!(on_probation(4, 4, &rules));
    assert!(on_probation(4, 5, &rules));
    assert!(!on_probation(4, 6, &rules));
    assert!(!on_probation(u64::MAX, u64::MAX, &rules));
}

proptest! {
    #[test]
    fn accepted_sets_ignore_the_order(
        candidates in proptest::collection::btree_map(0u16..40, (-3i32..10, any::<bool>()), 0..30),
        bitmaps in proptest::collection::vec((1u64..100, proptest::array::uniform5(any::<u8>())), 1..6),
    ) {
        let mut candidates: Vec<Candidate> = candidates
            .into_iter()
            .map(|(uid, (value, on_probation))| Candidate { on_probation, ..candidate(uid, value) })
            .collect();
        let mut attestations: Vec<AttestationInput<'_>> =
            bitmaps.iter().map(|(stake, bitmap)| attestation(*stake, ROOT, bitmap)).collect();
        let total = attestations.iter().map(|a| u128::from(a.stake)).sum();
        let rules = Settings::example().incentive;
        let before = accepted_set(&candidates, &attestations, total, Some(ROOT), &rules);
        candidates.reverse();
        attestations.reverse();
        prop_assert_eq!(&before, &accepted_set(&candidates, &attestations, total, Some(ROOT), &rules));
        prop_assert!(before.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(before.len() <= usize::from(rules.accepted_max));
        for uid in before {
            prop_assert!(is_available(&attestations, total, uid, rules.finality_ppm));
        }
    }
}
