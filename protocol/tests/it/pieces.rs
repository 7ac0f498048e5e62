//! A payload in pieces: each is right or wrong by itself, and those that are right make the payload.

use protocol::{
    layout::Layout,
    merkle::{leaf_hash, root_of_leaf_hashes, root_of_subtrees, subtree},
    update::{
        piece_list_id, Encoder, Frame, PieceForm, PieceList, PieceParts, HEADER_BYTES, PIECE_CHUNKS,
    },
    Hash,
};

const KEEP: u16 = 1;

/// Two pieces and a half, whose borders are inside of tensors; the last chunk is short.
fn layout() -> Layout {
    let chunks = u64::from(PIECE_CHUNKS);
    Layout(vec![4096 * (chunks - 3), 4096 * (chunks + 10) + 7, 5, 4096 * (chunks / 2) + 300])
}

fn payload(layout: &Layout) -> Vec<u8> {
    let mut tensors: Vec<Vec<f32>> = layout.0.iter().map(|len| vec![0.0; *len as usize]).collect();
    // A value in each chunk, at positions that differ, so that lengths do.
    for (tensor, values) in tensors.iter_mut().enumerate() {
        for (chunk, values) in values.chunks_mut(4096).enumerate() {
            let position = (chunk * 1_237 + tensor * 911) % values.len();
            values[position] = 1.0 + (chunk % 13) as f32;
        }
    }
    let mut slices: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
    Encoder::new().encode(&mut slices, layout, KEEP).unwrap()
}

fn piece(payload: &[u8], parts: &PieceParts) -> Vec<u8> {
    let part = |start: u64, len: u32| &payload[start as usize..][..len as usize];
    [part(parts.table_start, parts.table_len), part(parts.chunks_start, parts.chunks_len)].concat()
}

#[test]
fn aligned_subtrees_fold_to_the_root_of_their_leaves() {
    for count in 1..70u32 {
        let hashes: Vec<Hash> = (0..count).map(|index| leaf_hash(index, &[index as u8])).collect();
        let root = root_of_leaf_hashes(&hashes);
        for height in 0..8 {
            let nodes: Vec<Hash> = hashes.chunks(1 << height).filter_map(subtree).collect();
            assert_eq!(root_of_subtrees(count, &nodes), root, "{count} leaves, height {height}");
            assert_ne!(root_of_subtrees(count + 1, &nodes), root);
        }
    }
    assert_eq!(subtree(&[]), None);
    assert_eq!(root_of_subtrees(0, &[]), None);
}

#[test]
fn pieces_are_checked_one_by_one_and_make_the_payload() {
    let layout = layout();
    let bytes = payload(&layout);
    let frame = Frame::cut(&bytes, &layout, KEEP).unwrap();
    let (root, leaves) = (frame.root(), frame.leaf_hashes());
    let form = PieceForm::new(layout.clone(), KEEP).unwrap();
    let list = PieceList::new(&leaves);
    assert_eq!(form.count(), 3);
    assert_eq!(PieceList::parse(&list.to_bytes(), &form, &root), Some(list.clone()));

    let parts = form.parts_of(&frame).unwrap();
    let mut rebuilt = vec![0; bytes.len()];
    rebuilt[..HEADER_BYTES].copy_from_slice(&form.header());
    let mut lens = Vec::new();
    for (index, parts) in (0u32..).zip(&parts) {
        let piece = piece(&bytes, parts);
        assert!(list.verify(&form, index, &piece));
        let (least, most) = form.byte_lens(index).unwrap();
        assert!((least..=most).contains(&(piece.len() as u32)));
        // Its length is known from its part of the table alone.
        let begin = &piece[..parts.table_len as usize];
        assert_eq!(form.byte_len(index, begin), Some(piece.len() as u32));
        assert_eq!(form.byte_len(index, &begin[1..]), None);
        let (table, chunks) = piece.split_at(parts.table_len as usize);
        rebuilt[parts.table_start as usize..][..table.len()].copy_from_slice(table);
        rebuilt[parts.chunks_start as usize..][..chunks.len()].copy_from_slice(chunks);
        lens.push(piece.len() as u32);
    }
    assert_eq!(rebuilt, bytes);
    assert_eq!(form.parts(&lens), Some(parts));
    assert_eq!(form.parts(&lens[1..]), None);
    assert_eq!(form.byte_lens(3), None);
}

#[test]
fn a_wrong_piece_is_refused_wherever_the_wrong_bit_is() {
    let layout = layout();
    let bytes = payload(&layout);
    let frame = Frame::cut(&bytes, &layout, KEEP).unwrap();
    let form = PieceForm::new(layout.clone(), KEEP).unwrap();
    let list = PieceList::new(&frame.leaf_hashes());
    let parts = form.parts_of(&frame).unwrap();
    let right = piece(&bytes, &parts[2]);
    assert!(!list.verify(&form, 1, &right) && !list.verify(&form, 3, &right));
    for at in [0, parts[2].table_len as usize - 1, parts[2].table_len as usize, right.len() - 1] {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        assert!(!list.verify(&form, 2, &wrong), "byte {at}");
    }
    assert!(!list.verify(&form, 2, &right[..right.len() - 1]));
    assert!(!list.verify(&form, 2, &[right.as_slice(), &[0]].concat()));
    assert!(!list.verify(&form, 2, &[]));
}

#[test]
fn a_list_is_the_roots_or_refused() {
    let layout = layout();
    let bytes = payload(&layout);
    let frame = Frame::cut(&bytes, &layout, KEEP).unwrap();
    let form = PieceForm::new(layout.clone(), KEEP).unwrap();
    let list = PieceList::new(&frame.leaf_hashes()).to_bytes();
    let root = frame.root();
    let mut wrong = list.clone();
    wrong[40] ^= 1;
    let longer = [list.as_slice(), &[0; 32]].concat();
    for other in [&wrong[..], &longer, &list[..64], &list[1..], &[]] {
        assert_eq!(PieceList::parse(other, &form, &root), None);
    }
    assert_eq!(PieceList::parse(&list, &form, &[7; 32]), None);
    assert_ne!(piece_list_id(&root), root);
}

#[test]
fn a_small_payload_is_one_piece() {
    let layout = Layout(vec![5000, 1, 300]);
    let bytes = payload(&layout);
    let frame = Frame::cut(&bytes, &layout, KEEP).unwrap();
    let form = PieceForm::new(layout.clone(), KEEP).unwrap();
    assert_eq!(form.count(), 1);
    let parts = form.parts_of(&frame).unwrap();
    assert_eq!(piece(&bytes, &parts[0]), bytes[HEADER_BYTES..]);
    assert_eq!(PieceForm::new(layout, 0), None);
    assert_eq!(PieceForm::new(Layout(vec![]), 8), None);
}
