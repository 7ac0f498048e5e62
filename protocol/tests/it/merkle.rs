//! Every leaf of every small tree can be proved, and nothing else can.

use proptest::prelude::*;
use protocol::merkle::{
    blake2_256, leaf_hash, proof, root, root_of_leaf_hashes, verify, MERKLE_PROOF_MAX,
};

fn leaves(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| vec![i as u8; i % 5]).collect()
}

fn root_of(leaves: &[Vec<u8>]) -> [u8; 32] {
    root(leaves.iter().map(Vec::as_slice)).unwrap()
}

#[test]
fn blake2_256_is_the_chains_hash() {
    // `python3 -c "import hashlib; print(hashlib.blake2b(b'abc', digest_size=32).hexdigest())"`
    let expected = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319";
    assert_eq!(hex::encode(blake2_256(&[b"a", b"bc"])), expected);
}

#[test]
fn every_leaf_of_every_small_tree_is_proved() {
    for count in 1..70usize {
        let leaves = leaves(count);
        let hashes: Vec<_> = (0u32..).zip(&leaves).map(|(i, leaf)| leaf_hash(i, leaf)).collect();
        let root = root_of(&leaves);
        assert_eq!(root_of_leaf_hashes(&hashes), Some(root));
        for (index, leaf) in (0u32..).zip(&leaves) {
            let path = proof(&hashes, index).unwrap();
            assert!(path.len() <= MERKLE_PROOF_MAX as usize);
            assert!(verify(&root, count as u32, index, leaf, &path));
            assert!(!verify(&root, count as u32 + 1, index, leaf, &path));
            assert!(!verify(&root, count as u32, index + 1, leaf, &path));
            assert!(!verify(&root, count as u32, index, b"another leaf", &path));
            let mut longer = path.clone();
            longer.push([0; 32]);
            assert!(!verify(&root, count as u32, index, leaf, &longer));
            if let Some((_, shorter)) = path.split_last() {
                assert!(!verify(&root, count as u32, index, leaf, shorter));
            }
        }
        assert_eq!(proof(&hashes, count as u32), None);
    }
}

#[test]
fn no_leaves_have_no_root() {
    assert_eq!(root(std::iter::empty()), None);
    assert_eq!(root_of_leaf_hashes(&[]), None);
    assert_eq!(proof(&[], 0), None);
    assert!(!verify(&[0; 32], 0, 0, b"", &[]));
}

#[test]
fn a_node_is_no_leaf_and_a_prefix_no_tree() {
    let two = leaves(2);
    let hashes: Vec<_> = (0u32..).zip(&two).map(|(i, leaf)| leaf_hash(i, leaf)).collect();
    let joined = [hashes[0].as_slice(), hashes[1].as_slice()].concat();
    assert!(!verify(&root_of(&two), 1, 0, &joined, &[]));
    assert_ne!(root_of(&leaves(3)), root_of(&leaves(4)));
    assert_ne!(root_of(&[vec![1], vec![2]]), root_of(&[vec![2], vec![1]]));
    assert_ne!(root_of(&[vec![]]), root_of(&[vec![], vec![]]));
}

#[test]
fn golden_root() {
    // import hashlib, struct
    // h = lambda b: hashlib.blake2b(b, digest_size=32).digest()
    // a, b, c = (h(b"\0" + struct.pack("<I", i) + x) for i, x in enumerate([b"a", b"b", b"c"]))
    // h(b"\2" + struct.pack("<I", 3) + h(b"\1" + h(b"\1" + a + b) + c)).hex()
    assert_eq!(hex::encode(root_of(&[b"a".to_vec(), b"b".to_vec(), b"c".to_vec()])), GOLDEN);
}

/// Root over the leaves "a", "b", "c".
const GOLDEN: &str = "7e1865088582ebb731f215ad7f7a097ef11e22c4640305378227ce9d9b028e69";

proptest! {
    #[test]
    fn a_flipped_bit_anywhere_is_refused(
        count in 1usize..40,
        pick in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
    ) {
        let leaves = leaves(count);
        let hashes: Vec<_> = (0u32..).zip(&leaves).map(|(i, leaf)| leaf_hash(i, leaf)).collect();
        let index = pick.index(count);
        let mut path = proof(&hashes, index as u32).unwrap();
        prop_assume!(!path.is_empty());
        let bit = bit.index(path.len() * 256);
        path[bit / 256][bit % 256 / 8] ^= 1 << (bit % 8);
        prop_assert!(!verify(&root_of(&leaves), count as u32, index as u32, &leaves[index], &path));
    }

    #[test]
    fn any_input_is_answered(
        count in any::<u32>(),
        index in any::<u32>(),
        bytes in prop::collection::vec(any::<u8>(), 0..99),
        path in prop::collection::vec(any::<[u8; 32]>(), 0..40),
    ) {
        prop_assert!(!verify(&[7; 32], count, index, &bytes, &path));
    }
}
