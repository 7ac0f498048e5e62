//! A commitment binds everything, and a challenge draws distinct chunks evenly.

use proptest::prelude::*;
use protocol::{
    commitment::{challenged_chunks, commitment_hash, score_commitment_hash, Opening},
    consensus::Evaluation,
};

fn opening() -> Opening {
    Opening {
        payload_root: [1; 32],
        chunk_count: 7,
        byte_len: 1234,
        base_state_root: [2; 32],
        salt: [3; 32],
    }
}

#[test]
fn an_opening_is_its_golden_bytes() {
    use codec::Encode;
    let expected = [
        "01".repeat(32),
        "07000000".into(),
        "d204000000000000".into(),
        "02".repeat(32),
        "03".repeat(32),
    ];
    assert_eq!(hex::encode(opening().encode()), expected.concat());
}

#[test]
fn every_field_is_bound() {
    let base = commitment_hash(&[9; 32], 1, 2, &[4; 32], &opening());
    let mut others = vec![
        commitment_hash(&[8; 32], 1, 2, &[4; 32], &opening()),
        commitment_hash(&[9; 32], 2, 2, &[4; 32], &opening()),
        commitment_hash(&[9; 32], 1, 3, &[4; 32], &opening()),
        commitment_hash(&[9; 32], 1, 2, &[5; 32], &opening()),
    ];
    let changes: [fn(&mut Opening); 5] = [
        |o| o.payload_root[31] ^= 1,
        |o| o.chunk_count += 1,
        |o| o.byte_len += 1,
        |o| o.base_state_root[0] ^= 1,
        |o| o.salt[5] ^= 1,
    ];
    for change in changes {
        let mut changed = opening();
        change(&mut changed);
        others.push(commitment_hash(&[9; 32], 1, 2, &[4; 32], &changed));
    }
    others.push(base);
    let count = others.len();
    others.sort_unstable();
    others.dedup();
    assert_eq!(others.len(), count);
}

#[test]
fn evaluations_are_bound_with_their_order_and_salt() {
    let evaluation =
        |uid| Evaluation { uid, own_before: 5, own_after: 4, random_before: 3, random_after: 2 };
    let hash = |evaluations: &[Evaluation], salt| {
        score_commitment_hash(&[9; 32], 1, 2, &[4; 32], evaluations, 1, &[salt; 32])
    };
    let base = hash(&[evaluation(1), evaluation(2)], 0);
    assert_eq!(base, hash(&[evaluation(1), evaluation(2)], 0));
    assert_ne!(base, hash(&[evaluation(2), evaluation(1)], 0));
    assert_ne!(base, hash(&[evaluation(1)], 0));
    assert_ne!(base, hash(&[evaluation(1), evaluation(2)], 1));
}

#[test]
fn challenges_are_spread_evenly() {
    let mut counts = [0u32; 10];
    for uid in 0..3000 {
        for index in challenged_chunks(&[5; 32], 0, 1, uid, 10, 2) {
            counts[index as usize] += 1;
        }
    }
    // 600 expected each, standard deviation 22.
    assert!(counts.iter().all(|count| (500..700).contains(count)), "{counts:?}");
}

proptest! {
    #[test]
    fn challenged_chunks_are_distinct_and_exist(
        seed in any::<[u8; 32]>(), window in any::<u64>(), uid in any::<u16>(),
        chunk_count in prop_oneof![0u32..12, any::<u32>()], count in 0u8..12,
    ) {
        let chunks = challenged_chunks(&seed, 3, window, uid, chunk_count, count);
        prop_assert_eq!(chunks.len(), usize::from(count).min(chunk_count as usize));
        prop_assert!(chunks.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(chunks.iter().all(|index| *index < chunk_count));
        prop_assert_eq!(&chunks, &challenged_chunks(&seed, 3, window, uid, chunk_count, count));
    }
}
