//! The disk store: whole objects or none, within the bound, through restarts.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use node_client::store::{Content, Cut, Found, Range, Span, Store, StoreError};
use protocol::Hash;
use tempfile::TempDir;

const A: Hash = [1; 32];
const B: Hash = [2; 32];
const C: Hash = [3; 32];

fn store(folder: &TempDir, bytes_max: u64) -> Store {
    Store::open(folder.path(), bytes_max).unwrap()
}

#[test]
fn what_was_put_is_there_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let first = store(&folder, 100);
    first.put(A, b"alpha").unwrap();
    first.put(B, b"").unwrap();
    drop(first);
    let second = store(&folder, 100);
    assert_eq!(second.get(&A).unwrap().unwrap(), &b"alpha"[..]);
    assert_eq!(second.get_checked(&B).unwrap().unwrap(), &b""[..]);
    assert_eq!(second.get(&C).unwrap(), None);
    assert_eq!(second.bytes(), 5);
}

#[test]
fn an_object_put_again_is_replaced_and_counted_once() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder, 10);
    store.put(A, b"12345678").unwrap();
    store.put(A, b"123456789").unwrap();
    assert_eq!(store.bytes(), 9);
    assert_eq!(store.get_checked(&A).unwrap().unwrap(), &b"123456789"[..]);
}

/// Content that is made as it is read.
struct Made {
    len: u64,
    /// It ends here all the same.
    end: u64,
}

impl Content for Made {
    fn byte_len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let count = self.end.saturating_sub(offset).min(into.len() as u64) as usize;
        for (at, byte) in (offset..).zip(&mut into[..count]) {
            *byte = (at % 251) as u8;
        }
        count
    }
}

#[test]
fn what_is_put_piece_by_piece_is_what_is_put_at_once() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder, 1 << 30);
    for len in [0, 1, 1 << 20, (1 << 20) + 1, (5 << 20) + 77] {
        let whole: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        store.put(A, &whole).unwrap();
        store.put_content(B, &Made { len, end: len }).unwrap();
        // Header, with the hash, and content.
        let files = [A, B].map(|id| fs::read(store.object_path(&id)).unwrap());
        assert!(files[0] == files[1], "{len}");
        assert_eq!(files[0][16..48], *blake3::hash(&whole).as_bytes());
        assert!(store.get_checked(&B).unwrap().unwrap() == whole);
    }
    let short = store.put_content(C, &Made { len: 5 << 20, end: 4 << 20 });
    assert!(matches!(short, Err(StoreError::Io { .. })));
    assert!(!store.contains(&C));
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_range_ends_with_the_object() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder, 100);
    store.put(A, b"0123456789").unwrap();
    let range = |offset, len| store.read_range(&A, offset, len).unwrap().unwrap();
    let expected = |bytes: &'static [u8]| Range { total_len: 10, bytes: bytes.into() };
    assert_eq!(range(2, 3), expected(b"234"));
    assert_eq!(range(8, 100), expected(b"89"));
    assert_eq!(range(10, 1), expected(b""));
    assert_eq!(range(u64::MAX, u32::MAX), expected(b""));
    assert_eq!(store.read_range(&B, 0, 1).unwrap(), None);
}

#[test]
fn the_oldest_unpinned_object_makes_room() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder, 10);
    store.put(A, b"aaaa").unwrap();
    store.put(B, b"bbbb").unwrap();
    store.pin(&A).unwrap();
    store.put(C, b"cccc").unwrap();
    assert_eq!(store.ids(), [A, C]);
    assert_eq!(store.bytes(), 8);
    assert_eq!(store.pinned_ids(), [A]);
}

#[test]
fn a_put_that_cannot_fit_is_refused_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder, 10);
    store.put(A, b"aaaa").unwrap();
    store.put(B, b"bbbb").unwrap();
    store.pin(&A).unwrap();
    let error = store.put(C, b"ccccccc").unwrap_err();
    assert!(matches!(error, StoreError::Full { needed: 7, pinned: 4, bytes_max: 10 }));
    assert_eq!(store.ids(), [A, B]);
}

#[test]
fn a_pin_survives_a_restart_until_unpinned() {
    let folder = TempDir::new().unwrap();
    let first = store(&folder, 8);
    first.pin(&A).unwrap();
    first.put(A, b"aaaa").unwrap();
    drop(first);
    let second = store(&folder, 8);
    second.put(B, b"bbbb").unwrap();
    second.put(C, b"cccc").unwrap();
    assert_eq!(second.ids(), [A, C]);
    second.unpin(&A).unwrap();
    second.put(B, b"bbbb").unwrap();
    assert_eq!(second.ids(), [C, B]);
}

#[test]
fn what_an_interrupted_put_left_is_cleared_away() {
    let folder = TempDir::new().unwrap();
    drop(store(&folder, 100));
    let torn = folder.path().join("tmp").join(".tmpABCDEF");
    fs::write(&torn, b"half an obj").unwrap();
    let store = store(&folder, 100);
    assert!(!torn.exists());
    assert!(store.ids().is_empty());
}

#[test]
fn a_flipped_bit_on_disk_is_found() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder, 100);
    store.put(A, b"alpha").unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(store.object_path(&A)).unwrap();
    file.seek(SeekFrom::End(-1)).unwrap();
    file.write_all(b"b").unwrap();
    assert!(matches!(store.get_checked(&A), Err(StoreError::Damaged { id: A })));
    assert_eq!(store.get(&A).unwrap().unwrap(), &b"alphb"[..]);
}

/// Flips a bit of a file, counted from its first byte.
pub(crate) fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

/// Bytes before an object's content.
pub(crate) const HEADER_BYTES: u64 = 48;

#[test]
fn no_range_has_a_bit_in_it_that_the_disk_flipped() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder, 1 << 30);
    let len = (2 << 20) + 77;
    let whole: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    store.put_content(A, &Made { len, end: len }).unwrap();
    // In the second MiB, and in the last few bytes.
    let flipped = [(1 << 20) + 5, len - 1];
    let before = |range: &std::ops::Range<u64>| {
        let read = store.read_range(&A, range.start, (range.end - range.start) as u32);
        read.map(|read| read.unwrap().bytes)
    };
    let ranges = [0..1 << 20, 4..(1 << 20) + 6, (1 << 20) + 5..(1 << 20) + 6, len - 3..len];
    let others = [0..3, 0..1 << 20, 17..(1 << 20) - 1, (1 << 20) + (16 << 10)..2 << 20];
    for range in ranges.iter().chain(&others) {
        assert_eq!(before(range).unwrap(), whole[range.start as usize..range.end as usize]);
    }
    for at in flipped {
        flip(&store.object_path(&A), HEADER_BYTES + at);
    }
    for range in &ranges[1..] {
        assert!(matches!(before(range), Err(StoreError::Damaged { id: A })), "{range:?}");
    }
    for range in &others {
        assert_eq!(before(range).unwrap(), whole[range.start as usize..range.end as usize]);
    }
    // A copy of it elsewhere would not be made.
    let store = Arc::new(store);
    let stored = store.stored(&A).unwrap();
    let mut bytes = vec![0; 1 << 20];
    assert_eq!(stored.read(0, &mut bytes), 1 << 20);
    assert_eq!(bytes, whole[..1 << 20]);
    assert_eq!(stored.read(1 << 20, &mut bytes), 0);
}

#[test]
fn no_piece_is_looked_for_where_a_flipped_bit_says() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder, 100);
    let span = |offset, len| Span { offset, len };
    let cut = Cut(vec![[span(0, 2), span(4, 1)], [span(2, 2), span(5, 0)]]);
    store.put_cut(A, &b"alpha"[..], &cut).unwrap();
    let piece = |index| store.read_piece(&A, index, 0, 10);
    assert_eq!(piece(1).unwrap(), Found::Range(Range { total_len: 2, bytes: "ph".into() }));
    assert_eq!(piece(2).unwrap(), Found::Nothing);
    flip(&folder.path().join("cuts").join(hex::encode(A)), 24);
    assert!(matches!(piece(1), Err(StoreError::Damaged { id: A })));
    assert!(matches!(store.cut(&A), Err(StoreError::Damaged { id: A })));
}

#[test]
fn what_an_earlier_process_put_is_intact_when_all_of_it_was_read() {
    let folder = TempDir::new().unwrap();
    let cut = Cut(vec![[Span { offset: 0, len: 5 }, Span { offset: 5, len: 0 }]]);
    let put = || {
        let first = store(&folder, 100);
        first.put_cut(A, &b"alpha"[..], &cut).unwrap();
        assert!(first.is_intact(&A) && !first.is_intact(&B));
    };
    put();
    assert!(store(&folder, 100).is_intact(&A));
    let name = hex::encode(A);
    let object = store(&folder, 100).object_path(&A);
    for file in [folder.path().join("sums").join(&name), object] {
        put();
        flip(&file, fs::metadata(&file).unwrap().len() - 1);
        assert!(!store(&folder, 100).is_intact(&A), "{}", file.display());
    }
    // The cut is for its reader.
    for file in [format!("cuts/{name}"), format!("sums/{name}.cut")] {
        put();
        flip(&folder.path().join(file), 9);
        assert!(matches!(store(&folder, 100).cut(&A), Err(StoreError::Damaged { id: A })));
    }
    // Without sums the whole tells.
    put();
    fs::remove_dir_all(folder.path().join("sums")).unwrap();
    assert!(store(&folder, 100).is_intact(&A));
    flip(&store(&folder, 100).object_path(&A), HEADER_BYTES + 2);
    assert!(!store(&folder, 100).is_intact(&A));
}

#[test]
fn a_folder_of_before_there_were_sums_is_served() {
    let folder = TempDir::new().unwrap();
    let first = store(&folder, 100);
    let cut = Cut(vec![[Span { offset: 0, len: 5 }, Span { offset: 5, len: 0 }]]);
    first.put_cut(A, &b"alpha"[..], &cut).unwrap();
    drop(first);
    fs::remove_dir_all(folder.path().join("sums")).unwrap();
    let second = store(&folder, 100);
    assert_eq!(second.read_range(&A, 1, 2).unwrap().unwrap().bytes, "lp");
    let piece = second.read_piece(&A, 0, 0, 10).unwrap();
    assert_eq!(piece, Found::Range(Range { total_len: 5, bytes: "alpha".into() }));
    // What it puts from now on has them, and takes them with it.
    second.put_cut(A, &b"alpha"[..], &cut).unwrap();
    let sums = || fs::read_dir(folder.path().join("sums")).unwrap().count();
    assert_eq!(sums(), 2);
    second.remove(&A).unwrap();
    assert_eq!(sums(), 0);
}

#[test]
fn a_truncated_object_is_damage_not_a_panic() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder, 100);
    store.put(A, b"alpha").unwrap();
    fs::write(store.object_path(&A), b"GX").unwrap();
    assert!(matches!(store.get(&A), Err(StoreError::Damaged { .. })));
    assert!(matches!(store.read_range(&A, 0, 5), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_second_process_is_refused() {
    let folder = TempDir::new().unwrap();
    let first = store(&folder, 100);
    // A lock belongs to the open file, so a second one of this process is refused like another process's.
    let error = Store::open(folder.path(), 100).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }));
    drop(first);
    store(&folder, 100);
}

#[test]
fn removing_drops_an_object_and_its_pin() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder, 100);
    store.put(A, b"alpha").unwrap();
    store.pin(&A).unwrap();
    assert!(store.remove(&A).unwrap());
    assert!(!store.remove(&A).unwrap());
    assert_eq!(store.bytes(), 0);
    store.put(A, b"alpha").unwrap();
    assert!(store.pinned_ids().is_empty());
}
