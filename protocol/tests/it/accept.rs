//! Final roots and accepted sets.

use proptest::prelude::*;
use protocol::{
    accept::{
        accepted_set, attestation_worth, bitmap_contains, bitmap_of, decided, final_root,
        is_available, is_proven_unavailable, on_probation, AttestationInput, Candidate,
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
        is_scored: true,
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
    // Two of three equal validators are two thirds, exactly.
    assert_eq!(final_root(&votes(200, 100), 300), Some(ROOT));
    assert_eq!(final_root(&votes(199, 101), 300), None);
    assert_eq!(final_root(&votes(100, 200), 300), Some(OTHER));
    // Stake that did not attest counts in the total.
    assert_eq!(final_root(&votes(201, 0), 400), None);
    assert_eq!(final_root(&[], 300), None);
    assert_eq!(final_root(&[], 0), None);
    let most = [attestation(u64::MAX, ROOT, &[]); 3];
    assert_eq!(final_root(&most, 3 * u128::from(u64::MAX)), Some(ROOT));
}

#[test]
fn the_best_available_candidates_are_accepted() {
    let all = bitmap_of(&[1, 2, 3, 4, 5, 6]);
    let few = bitmap_of(&[1, 2]);
    let attestations = [attestation(700, ROOT, &all), attestation(300, ROOT, &few)];
    let accept = |candidates: &[Candidate]| {
        accepted_set(9, candidates, &attestations, 1_000, Some(ROOT), &incentive())
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

/// p06: known garbage is not accepted, however much room there is, and strangers are few.
#[test]
fn who_is_known_to_do_harm_is_not_accepted_and_strangers_are_few() {
    let bitmap = [0xff; 2];
    let attestations = [attestation(1, ROOT, &bitmap)];
    let rules = Incentive { accepted_max: 8, unscored_max: 2, ..incentive() };
    let set = |window, candidates: &[Candidate]| {
        accepted_set(window, candidates, &attestations, 1, Some(ROOT), &rules)
    };
    let unscored = |uid, registered_window| Candidate {
        is_scored: false,
        registered_window,
        ..candidate(uid, 0)
    };
    // Garbage of standing 0, one miner that is known to be good, and three strangers.
    let candidates = [
        candidate(0, 0),
        candidate(1, -5),
        candidate(2, 1),
        unscored(3, 9),
        unscored(4, 8),
        unscored(5, 9),
    ];
    // Strangers by their time, then their uid.
    assert_eq!(set(rules.bootstrap_windows.into(), &candidates), [2, 3, 4]);
    assert_eq!(set(1_000, &candidates), [2, 3, 4]);
    // In the first windows nobody is known.
    assert_eq!(set(u64::from(rules.bootstrap_windows) - 1, &candidates), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn nothing_is_accepted_without_a_final_root() {
    let bitmap = [0xff];
    let attestations = [attestation(1, ROOT, &bitmap)];
    let candidates = [candidate(1, 1)];
    let rules = incentive();
    assert!(accepted_set(9, &candidates, &attestations, 1, None, &rules).is_empty());
    assert!(accepted_set(9, &candidates, &attestations, 0, Some(ROOT), &rules).is_empty());
}

#[test]
fn a_minority_decides_nothing() {
    let (all, none) = (bitmap_of(&[1, 2]), bitmap_of(&[]));
    // 300 of 1000 refuse to see the miners and name another root.
    let attestations = [attestation(700, ROOT, &all), attestation(300, OTHER, &none)];
    assert_eq!(final_root(&attestations, 1_000), Some(ROOT));
    assert!(is_available(&attestations, 1_000, 1));
    // 300 of 1000 praise one that the others could not fetch: it is not there, and that is proven.
    let ghost = bitmap_of(&[7]);
    let attestations = [attestation(700, ROOT, &all), attestation(300, ROOT, &ghost)];
    assert!(!is_available(&attestations, 1_000, 7));
    assert!(is_proven_unavailable(&attestations, 1_000, 7));
}

/// e11, p05: one of three equal validators convicts nobody, nor do two while the rest is silent.
#[test]
fn a_fault_needs_two_thirds_against() {
    let (all, other, none) = (bitmap_of(&[1, 2]), bitmap_of(&[2]), bitmap_of(&[]));
    let for_it = attestation(100, ROOT, &all);
    let against = attestation(100, ROOT, &other);
    let nothing = attestation(100, ROOT, &none);
    let is_guilty = |rows: &[AttestationInput<'_>], total| is_proven_unavailable(rows, total, 1);
    assert!(!is_guilty(&[for_it, for_it, against], 300));
    assert!(!is_available(&[for_it, against], 300, 1), "and it is not available either");
    assert!(is_guilty(&[for_it, against, against], 300));
    // A silent validator speaks against nobody.
    assert!(!is_guilty(&[against, against], 400));
    assert!(!is_guilty(&[against], 300));
    assert!(!is_guilty(&[], 0));
    // Nor does one that could fetch nothing at all.
    assert!(!is_guilty(&[nothing, nothing, nothing], 300));
    assert!(!is_guilty(&[nothing, nothing, against], 300));
}

/// e23, H14: what an attestation is worth follows from what was decided.
#[test]
fn an_attestation_is_worth_what_it_says_rightly() {
    let (all, some) = (bitmap_of(&[1, 2, 3]), bitmap_of(&[1]));
    let attestations =
        [attestation(700, ROOT, &all), attestation(200, ROOT, &some), attestation(100, OTHER, &[])];
    let decided = decided(&attestations, 1_000, [1, 2, 3, 4].into_iter());
    assert_eq!(decided, [(1, true), (2, true), (3, true), (4, false)]);
    let worth = |root, bitmap: &[u8]| attestation_worth(&root, bitmap, Some(ROOT), &decided);
    assert_eq!(worth(ROOT, &all), Q32::ONE);
    assert_eq!(worth(ROOT, &some), Q32::from_ppm(500_000));
    assert_eq!(worth(ROOT, &[]), Q32::from_ppm(250_000));
    assert_eq!(worth(OTHER, &all), Q32::ZERO);
    assert_eq!(attestation_worth(&ROOT, &all, None, &decided), Q32::ZERO);
    assert_eq!(attestation_worth(&ROOT, &[], Some(ROOT), &[]), Q32::ONE);
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
        let before = accepted_set(9, &candidates, &attestations, total, Some(ROOT), &rules);
        candidates.reverse();
        attestations.reverse();
        prop_assert_eq!(&before, &accepted_set(9, &candidates, &attestations, total, Some(ROOT), &rules));
        prop_assert!(before.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(before.len() <= usize::from(rules.accepted_max));
        for uid in before {
            prop_assert!(is_available(&attestations, total, uid));
        }
    }
}
