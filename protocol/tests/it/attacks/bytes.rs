//! A2, A5 and A11: other bytes than those that were committed to, bytes that have two readings, and bytes that nobody
//! wrote.

use codec::{Decode, Encode};
use protocol::{
    commitment::{commitment_hash, Opening},
    layout::{kept, Layout},
    state_root::{StateManifest, TensorManifest},
    update::{
        decode_chunk, encode_chunk, Chunk, ChunkError, Encoder, Frame, Payload, PieceForm,
        PieceList,
    },
};

use super::{
    below,
    mutated::mutated,
    tally::{tell, Rate},
};
use crate::incentive::Random;

const KEEP: u16 = 64;

/// A tensor of two chunks, one that ends in the middle, and a norm.
fn layout() -> Layout {
    Layout(vec![2 * 4096, 5_000, 64])
}

/// A well-formed payload of values that nobody else drew.
fn payload(random: &mut Random) -> Vec<u8> {
    let lens = layout().0;
    let tensors = lens.iter().map(|len| (0..*len).map(|_| random.normal() as f32).collect());
    let mut tensors: Vec<Vec<f32>> = tensors.collect();
    let mut slices: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
    Encoder::new().encode(&mut slices, &layout(), KEEP).unwrap()
}

fn opening(bytes: &[u8]) -> Opening {
    let frame = Frame::cut(bytes, &layout(), KEEP).unwrap();
    Opening {
        payload_root: frame.root(),
        chunk_count: frame.chunk_count(),
        byte_len: bytes.len() as u64,
        base_state_root: [3; 32],
        salt: [4; 32],
    }
}

/// Every bit of an opening and of the payload that it names: what differs in any of them is another commitment.
#[test]
fn a2_no_second_content_fits_a_commitment() {
    let bytes = payload(&mut Random(1));
    let honest = opening(&bytes);
    let hash = |opening: &Opening| commitment_hash(&[1; 32], 7, 9, &[2; 32], opening);
    let (committed, encoded) = (hash(&honest), honest.encode());
    let mut noticed = Rate::default();
    for bit in 0..encoded.len() * 8 {
        let mut other = encoded.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let other = Opening::decode(&mut &other[..]).unwrap();
        noticed.note(hash(&other) != committed);
    }
    for bit in 0..bytes.len() * 8 {
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let root = Frame::cut(&other, &layout(), KEEP).map(|frame| frame.root());
        noticed.note(root != Ok(honest.payload_root));
    }
    let mut blamed = Rate::default();
    blamed.note(hash(&opening(&bytes)) != committed);
    tell("A2 another opening or payload under a commitment", noticed, blamed);
    assert!(noticed.all() && blamed.none());
}

/// All byte strings of a chunk, under a scale: each decodes to positions that increase, or not at all, and no two to
/// the same.
fn every_chunk(len: u32, keep: u16, chunks: u64) -> Rate {
    let (mut refused, mut twice) = (Rate::default(), 0);
    for tail in 0..=u16::MAX {
        let [a, b] = tail.to_le_bytes();
        let bytes = [0x80, 0x3F, a, b];
        let decoded = decode_chunk(&bytes, len, keep);
        refused.note(decoded.is_err());
        if let Ok(chunk) = decoded {
            twice += u64::from(chunk.indices.windows(2).any(|pair| pair[0] >= pair[1]));
            assert_eq!(encode_chunk(&chunk, len, keep).as_deref(), Ok(&bytes[..]));
        }
    }
    assert_eq!(twice, 0);
    assert_eq!(
        refused.of - refused.found,
        chunks,
        "one string for each choice of positions and codes"
    );
    refused
}

#[test]
fn a5_no_chunk_names_a_position_twice() {
    // 3 of 8 positions, 2 of 16: so many ways to choose them, and four codes each.
    let forms = [(8, 1_536, 3, 56 * 64), (16, 512, 2, 120 * 16)];
    for (len, keep, count, chunks) in forms {
        assert_eq!(kept(len, keep), count);
        let refused = every_chunk(len, keep, chunks);
        println!("A5 all strings of a chunk of {count} of {len}: refused {refused}");
    }
    // The writer refuses it at each place of a payload.
    let bytes = payload(&mut Random(2));
    let read = Payload::parse(&bytes, &layout(), KEEP).unwrap();
    let mut noticed = Rate::default();
    let mut blamed = Rate::default();
    for (place, chunk) in layout().chunks().zip(read.chunks()) {
        let honest = decode_chunk(chunk, place.len, KEEP).unwrap();
        blamed.note(encode_chunk(&honest, place.len, KEEP).as_deref() != Ok(chunk));
        for at in 1..honest.indices.len() {
            let mut indices = honest.indices.clone();
            indices[at] = indices[at - 1];
            let twice = Chunk { indices, ..honest.clone() };
            noticed.note(encode_chunk(&twice, place.len, KEEP) == Err(ChunkError::Index));
        }
    }
    tell("A5 a position twice, at each place of a payload", noticed, blamed);
    assert!(noticed.all() && blamed.none());
}

/// Every reader that a peer can hand bytes to. A panic ends the test; what each answers is refused or has another root.
#[test]
fn a11_bytes_that_nobody_wrote_are_refused_or_have_another_root() {
    let mut random = Random(3);
    let (mut by_form, mut noticed, mut blamed) =
        (Rate::default(), Rate::default(), Rate::default());
    let values = [1.0f32; 300];
    for _ in 0..200 {
        let bytes = payload(&mut random);
        let (layout, root) = (layout(), opening(&bytes).payload_root);
        let form = PieceForm::new(layout.clone(), KEEP).unwrap();
        let list = PieceList::new(&Frame::cut(&bytes, &layout, KEEP).unwrap().leaf_hashes());
        let manifest = StateManifest::new(vec![TensorManifest::new("body", &values)]);
        let (encoded, state) = (manifest.encode(), manifest.root());
        blamed.note(Payload::parse(&bytes, &layout, KEEP).map(|read| read.root()) != Ok(root));
        blamed.note(PieceList::parse(&list.to_bytes(), &form, &root) != Some(list.clone()));
        blamed.note(StateManifest::parse(&encoded, &state).is_none());
        for _ in 0..100 {
            let other = mutated(|end| below(&mut random, end), &bytes);
            if other == bytes {
                continue;
            }
            let read = Payload::parse(&other, &layout, KEEP);
            by_form.note(read.is_err());
            noticed.note(read.map(|read| read.root()) != Ok(root));
            let cut = Frame::cut(&other, &layout, KEEP).map(|frame| frame.root());
            noticed.note(cut != Ok(root));
            noticed.note(!list.verify(&form, 0, &other));
        }
        for _ in 0..20 {
            let other = mutated(|end| below(&mut random, end), &encoded);
            noticed.note(other == encoded || StateManifest::parse(&other, &state).is_none());
            let other = mutated(|end| below(&mut random, end), &list.to_bytes());
            let parsed = PieceList::parse(&other, &form, &root);
            noticed.note(other == list.to_bytes() || parsed.is_none());
        }
    }
    println!("A11 of the payloads, by their form alone: {by_form}");
    tell("A11 mutated payloads, piece lists and manifests", noticed, blamed);
    assert!(noticed.all() && blamed.none());
}
