//! The journal: one commitment per window, whatever happens.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::PathBuf};

use node_client::journal::{Journal, JournalError, JournalKind, Recorded, SECRET_LEN_MAX};
use protocol::Hash;
use tempfile::TempDir;

const A: Hash = [1; 32];
const B: Hash = [2; 32];
const UPDATE: JournalKind = JournalKind::UpdateCommitment;
const SCORE: JournalKind = JournalKind::ScoreCommitment;

fn folder() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal");
    (folder, path)
}

fn append(path: &PathBuf, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn the_same_is_recorded_once_and_another_is_refused() {
    let (_folder, path) = folder();
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.record(UPDATE, 0, 7, A).unwrap(), Recorded::New);
    assert_eq!(journal.record(UPDATE, 0, 7, A).unwrap(), Recorded::Same);
    let error = journal.record(UPDATE, 0, 7, B).unwrap_err();
    assert!(matches!(error, JournalError::Conflict { window: 7, recorded: A, refused: B, .. }));
    // Another kind, window or run is another commitment.
    assert_eq!(journal.record(SCORE, 0, 7, B).unwrap(), Recorded::New);
    assert_eq!(journal.record(UPDATE, 0, 8, B).unwrap(), Recorded::New);
    assert_eq!(journal.record(UPDATE, 1, 7, B).unwrap(), Recorded::New);
}

#[test]
fn a_restart_remembers_hash_and_secret() {
    let (_folder, path) = folder();
    let journal = Journal::open(&path).unwrap();
    journal.record_with(UPDATE, 0, 7, A, b"salt").unwrap();
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    let entry = journal.lookup(UPDATE, 0, 7).unwrap();
    assert_eq!((entry.hash, &entry.secret[..]), (A, &b"salt"[..]));
    assert_eq!(journal.record_with(UPDATE, 0, 7, A, b"other").unwrap(), Recorded::Same);
    assert_eq!(journal.lookup(UPDATE, 0, 7).unwrap().secret, b"salt");
    assert!(journal.record(UPDATE, 0, 7, B).is_err());
    assert_eq!(journal.lookup(SCORE, 0, 7), None);
}

#[test]
fn every_torn_last_line_is_cut_off_and_the_rest_kept() {
    let (_folder, path) = folder();
    let journal = Journal::open(&path).unwrap();
    journal.record(UPDATE, 0, 1, A).unwrap();
    let kept = fs::read(&path).unwrap();
    journal.record(UPDATE, 0, 2, B).unwrap();
    drop(journal);
    let whole = fs::read(&path).unwrap();
    for len in kept.len()..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.lookup(UPDATE, 0, 1).unwrap().hash, A);
        assert_eq!(journal.lookup(UPDATE, 0, 2), None);
        assert_eq!(journal.record(UPDATE, 0, 2, B).unwrap(), Recorded::New);
        drop(journal);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn zeros_left_by_a_power_cut_are_cut_off() {
    let (_folder, path) = folder();
    drop(Journal::open(&path).unwrap());
    append(&path, b"\0\0\0\0\n");
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.record(UPDATE, 0, 1, A).unwrap(), Recorded::New);
}

#[test]
fn damage_that_is_no_torn_write_is_an_error() {
    let (_folder, path) = folder();
    let journal = Journal::open(&path).unwrap();
    journal.record(UPDATE, 0, 1, A).unwrap();
    journal.record(UPDATE, 0, 2, B).unwrap();
    drop(journal);
    let whole = fs::read(&path).unwrap();
    let first_len = whole.iter().position(|byte| *byte == b'\n').unwrap();
    for (position, line) in [(0, 1), (first_len - 3, 1), (first_len + 20, 2)] {
        let mut damaged = whole.clone();
        damaged[position] ^= 1;
        fs::write(&path, damaged).unwrap();
        match Journal::open(&path) {
            Err(JournalError::Damaged { line: found, .. }) => assert_eq!(found, line),
            other => panic!("damage at {position} gave {other:?}"),
        }
    }
}

#[test]
fn a_second_process_is_refused() {
    let (_folder, path) = folder();
    let first = Journal::open(&path).unwrap();
    assert!(matches!(Journal::open(&path), Err(JournalError::InUse { .. })));
    drop(first);
    Journal::open(&path).unwrap();
}

#[test]
fn a_pruned_window_is_forgotten_and_never_recorded_again() {
    let (_folder, path) = folder();
    let journal = Journal::open(&path).unwrap();
    for window in 0..4 {
        journal.record(UPDATE, 0, window, A).unwrap();
        journal.record(UPDATE, 1, window, A).unwrap();
    }
    let before = fs::metadata(&path).unwrap().len();
    journal.prune(0, 3).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < before);
    journal.record(UPDATE, 0, 4, B).unwrap();
    for journal in [journal, {
        // The second turn reads the file again.
        let copy = path.with_extension("copy");
        fs::copy(&path, &copy).unwrap();
        Journal::open(copy).unwrap()
    }] {
        assert_eq!(journal.lookup(UPDATE, 0, 2), None);
        assert_eq!(journal.lookup(UPDATE, 1, 2).unwrap().hash, A);
        assert_eq!(journal.lookup(UPDATE, 0, 3).unwrap().hash, A);
        assert_eq!(journal.lookup(UPDATE, 0, 4).unwrap().hash, B);
        let error = journal.record(UPDATE, 0, 2, A).unwrap_err();
        assert!(matches!(error, JournalError::Pruned { first: 3, .. }));
    }
}

#[test]
fn a_secret_has_a_bound_and_stays_out_of_sight() {
    let (_folder, path) = folder();
    let journal = Journal::open(&path).unwrap();
    let secret = vec![0xab; SECRET_LEN_MAX];
    journal.record_with(SCORE, 0, 0, A, &secret).unwrap();
    let long = vec![0xab; SECRET_LEN_MAX + 1];
    assert!(matches!(
        journal.record_with(SCORE, 0, 1, A, &long),
        Err(JournalError::SecretTooLong { .. })
    ));
    let entry = journal.lookup(SCORE, 0, 0).unwrap();
    assert!(!format!("{entry:?}").contains("ab, ab"));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
