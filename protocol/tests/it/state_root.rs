//! The state root does not depend on the order of arrival, and each piece can be checked alone.

use codec::Encode;
use protocol::state_root::{state_root, StateManifest, TensorManifest, PIECE_VALUES};

fn tensors() -> Vec<(&'static str, Vec<f32>)> {
    let ramp = |len: usize, slope: f32| (0..len).map(|i| i as f32 * slope).collect::<Vec<f32>>();
    vec![("a.bias", ramp(3, 0.5)), ("a", ramp(PIECE_VALUES + 5, 1e-3)), ("b", ramp(1, 1.0))]
}

fn root_of(tensors: &[(&str, Vec<f32>)]) -> [u8; 32] {
    state_root(tensors.iter().map(|(name, values)| (*name, values.as_slice())))
}

#[test]
fn order_of_arrival_does_not_matter_and_every_bit_does() {
    let base = tensors();
    let root = root_of(&base);
    let mut reversed = base.clone();
    reversed.reverse();
    assert_eq!(root_of(&reversed), root);

    let mut changed = base.clone();
    changed[2].1[0] = f32::from_bits(changed[2].1[0].to_bits() ^ 1);
    assert_ne!(root_of(&changed), root);
    let mut renamed = base.clone();
    renamed[0].0 = "a.bia";
    assert_ne!(root_of(&renamed), root);
    let mut negative_zero = base.clone();
    negative_zero[0].1[0] = -0.0;
    assert_ne!(root_of(&negative_zero), root);
}

#[test]
fn the_root_is_blake3_of_the_documented_bytes() {
    let values = [1.0f32, -2.5];
    let mut bytes = b"gauntlet/state/1".to_vec();
    bytes.push(1 << 2); // one tensor, SCALE compact
    bytes.push(4 << 2);
    bytes.extend_from_slice(b"name");
    bytes.extend_from_slice(&2u64.to_le_bytes());
    bytes.push(1 << 2); // one piece
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    bytes.extend_from_slice(blake3::hash(&data).as_bytes());
    let expected = *blake3::hash(&bytes).as_bytes();
    assert_eq!(state_root([("name", values.as_slice())].into_iter()), expected);
}

#[test]
fn a_manifest_is_checked_against_its_root_and_pieces_against_it() {
    let tensors = tensors();
    let manifest = StateManifest::new(
        tensors.iter().map(|(name, values)| TensorManifest::new(name, values)).collect(),
    );
    let root = root_of(&tensors);
    assert_eq!(manifest.root(), root);
    let bytes = manifest.encode();
    let parsed = StateManifest::parse(&bytes, &root).unwrap();
    assert_eq!(parsed.tensors()[0].name, "a");
    assert_eq!(parsed.tensors()[0].pieces.len(), 2);
    let values = &tensors[1].1;
    assert!(parsed.tensors()[0].verify_piece(0, &values[..PIECE_VALUES]));
    assert!(parsed.tensors()[0].verify_piece(1, &values[PIECE_VALUES..]));
    assert!(!parsed.tensors()[0].verify_piece(1, &values[..5]));
    assert!(!parsed.tensors()[0].verify_piece(2, &[]));

    let mut longer = bytes.clone();
    longer.push(0);
    assert!(StateManifest::parse(&longer, &root).is_none());
    for byte in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[byte] ^= 0x40;
        assert!(StateManifest::parse(&changed, &root).is_none(), "byte {byte}");
        assert!(StateManifest::parse(&bytes[..byte], &root).is_none());
    }
}
