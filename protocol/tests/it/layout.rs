//! Chunks tile every tensor, and every way to ask about them agrees.

use proptest::prelude::*;
use protocol::layout::{kept, Layout, CHUNK_LEN, LAYOUT_TENSORS_MAX};

#[test]
fn layouts_that_are_not_valid_have_no_chunks() {
    for layout in [
        Layout(vec![]),
        Layout(vec![5, 0]),
        Layout(vec![1; LAYOUT_TENSORS_MAX as usize + 1]),
        Layout(vec![u64::MAX]),
        Layout(vec![1 << 43, 1 << 43]),
    ] {
        assert!(!layout.is_valid());
        assert_eq!(layout.chunk_count(), None);
        assert_eq!(layout.chunk_len(0), None);
        assert_eq!(layout.chunks().count(), 0);
    }
    assert_eq!(Layout(vec![1; LAYOUT_TENSORS_MAX as usize]).chunk_count(), Some(1024));
    assert_eq!(Layout(vec![u64::from(u32::MAX) * 4096]).chunk_count(), Some(u32::MAX));
}

#[test]
fn kept_rounds_up_and_stays_in_range() {
    assert_eq!(kept(4096, 64), 64);
    assert_eq!(kept(4095, 64), 64);
    assert_eq!(kept(4032, 64), 63);
    assert_eq!(kept(64, 64), 1);
    assert_eq!(kept(65, 64), 2);
    assert_eq!(kept(1, 1), 1);
    for keep in [1, 2, 63, 64, 65, 4095, 4096] {
        for len in 1..=CHUNK_LEN {
            let count = u32::from(kept(len, keep));
            assert!((1..=len).contains(&count));
            assert_eq!(count, (u32::from(keep) * len).div_ceil(4096));
        }
    }
}

proptest! {
    #[test]
    fn chunks_tile_the_tensors(tensors in prop::collection::vec(1u64..40_000, 1..12)) {
        let layout = Layout(tensors.clone());
        let places: Vec<_> = layout.chunks().collect();
        prop_assert_eq!(layout.chunk_count(), Some(places.len() as u32));
        let mut covered = vec![0u64; tensors.len()];
        for (index, place) in (0u32..).zip(&places) {
            prop_assert_eq!(layout.place(index), Some(*place));
            prop_assert_eq!(layout.chunk_len(index), Some(place.len));
            prop_assert_eq!(covered[place.tensor as usize], place.offset);
            covered[place.tensor as usize] += u64::from(place.len);
        }
        prop_assert_eq!(&covered, &tensors);
        prop_assert_eq!(layout.place(places.len() as u32), None);
        for tensor in 0..tensors.len() as u32 {
            let (first, count) = layout.tensor_chunks(tensor).unwrap();
            prop_assert_eq!(places[first as usize].tensor, tensor);
            prop_assert_eq!(places[first as usize].offset, 0);
            prop_assert_eq!(places.iter().filter(|p| p.tensor == tensor).count() as u32, count);
        }
    }
}
