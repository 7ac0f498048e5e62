//! Keeps what is known of peers over restarts, in a small file.
//!
//! The file: magic, the number of peers (`u32`), for each the length of its id (`u8`), the id, how often it failed
//! (`u32`), whether it lied (`u8`), the milliseconds a MiB of it took (`u64`) and when that was noted (`u64`,
//! milliseconds since 1970), and BLAKE3 of all before it; numbers are little endian. It is written whole or not at all.
//! One that is damaged, or of another version, is as good as none: what is in it saves some time and nothing else.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use libp2p::PeerId;

use super::standing::{Record, Standing, PEERS_MAX};
use crate::clock::Clock;

/// How often the file is written, if anything has changed; and at the end.
const SAVE_INTERVAL: Duration = Duration::from_secs(600);

const MAGIC: [u8; 8] = *b"GXPEERS\x01";
const HASH_LEN: usize = 32;

/// Bytes of the longest peer id, and of one record.
const ID_LEN_MAX: usize = 64;
const RECORD_LEN_MAX: usize = 1 + ID_LEN_MAX + 4 + 1 + 8 + 8;

/// Bytes of the longest file.
const FILE_LEN_MAX: u64 = (MAGIC.len() + 4 + PEERS_MAX * RECORD_LEN_MAX + HASH_LEN) as u64;

/// What is known of peers, and the file that keeps it. Dropping it saves.
pub(super) struct Scores {
    standing: Arc<Standing>,
    path: PathBuf,
    /// What the file has, as far as this process knows.
    saved: Mutex<Vec<u8>>,
}

impl Scores {
    /// Recalls what the file has.
    pub(super) fn open(path: PathBuf, standing: Arc<Standing>) -> Self {
        let mut saved = Vec::new();
        match read(&path) {
            Ok(bytes) => match decode(&bytes) {
                Some(known) => {
                    standing.recall(known);
                    saved = bytes;
                }
                None => {
                    let path = path.display();
                    tracing::warn!(%path, "what is known of peers is damaged on disk: it is forgotten");
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read scores of peers")
            }
        }
        Self { standing, path, saved: Mutex::new(saved) }
    }

    /// Writes the file if there is something new. Blocks.
    pub(super) fn save(&self) {
        let bytes = encode(&self.standing.known());
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if *saved == bytes {
            return;
        }
        match self.write(&bytes) {
            Ok(()) => *saved = bytes,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot save scores of peers")
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let folder = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map(drop).map_err(|error| error.error)
    }
}

impl Drop for Scores {
    fn drop(&mut self) {
        self.save();
    }
}

/// Saves now and then as long as somebody has the scores.
pub(super) async fn save_often(scores: Weak<Scores>, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep(SAVE_INTERVAL).await;
        let Some(scores) = scores.upgrade() else { return };
        let saved = tokio::task::spawn_blocking(move || scores.save()).await;
        if saved.is_err() {
            return;
        }
    }
}

/// # Errors
/// The disk failed, or the file is longer than any that is written.
fn read(path: &std::path::Path) -> io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.len() > FILE_LEN_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    std::fs::read(path)
}

fn encode(known: &[(PeerId, Record)]) -> Vec<u8> {
    let ids = known.iter().map(|(peer, record)| (peer.to_bytes(), record));
    let fitting: Vec<_> = ids.filter(|(id, _)| id.len() <= ID_LEN_MAX).take(PEERS_MAX).collect();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(fitting.len() as u32).to_le_bytes());
    for (id, record) in fitting {
        bytes.push(id.len() as u8);
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(&record.failures.to_le_bytes());
        bytes.push(u8::from(record.lied));
        bytes.extend_from_slice(&record.mib_millis.to_le_bytes());
        bytes.extend_from_slice(&record.noted_at.to_le_bytes());
    }
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

/// What a file says; `None` of one that was not written by [`encode`].
fn decode(bytes: &[u8]) -> Option<Vec<(PeerId, Record)>> {
    let (content, hash) = bytes.split_last_chunk::<HASH_LEN>()?;
    if blake3::hash(content) != *hash {
        return None;
    }
    let mut left = content.strip_prefix(&MAGIC)?;
    let count = u32::from_le_bytes(take(&mut left)?);
    let mut known = Vec::new();
    for _ in 0..count {
        let [len] = take(&mut left)?;
        let (id, rest) = left.split_at_checked(len.into())?;
        left = rest;
        let failures = u32::from_le_bytes(take(&mut left)?);
        let lied = take(&mut left)? != [0];
        let mib_millis = u64::from_le_bytes(take(&mut left)?);
        let noted_at = u64::from_le_bytes(take(&mut left)?);
        known.push((
            PeerId::from_bytes(id).ok()?,
            Record::new(failures, lied, mib_millis, noted_at),
        ));
    }
    left.is_empty().then_some(known)
}

fn take<const N: usize>(left: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = left.split_first_chunk()?;
    *left = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn standing(clock: &ManualClock) -> Arc<Standing> {
        Arc::new(Standing::new(Arc::new(clock.clone())))
    }

    #[test]
    fn what_is_known_outlives_the_process_and_a_damaged_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("peer-scores"), ManualClock::new(7));
        let [failed, liar, fast] = [(); 3].map(|()| PeerId::random());
        let known = {
            let standing = standing(&clock);
            let scores = Scores::open(path.clone(), standing.clone());
            standing.failed(failed);
            standing.lied(liar);
            standing.delivered_piece(&fast, 1 << 20, 250, false);
            drop(scores);
            standing.known()
        };
        assert_eq!(known.len(), 3);
        let again = standing(&clock);
        let scores = Scores::open(path.clone(), again.clone());
        assert_eq!(again.known(), known);
        // Nothing new, nothing written.
        std::fs::remove_file(&path).unwrap();
        scores.save();
        assert!(!path.exists());
        again.failed(failed);
        scores.save();
        drop(scores);

        let whole = std::fs::read(&path).unwrap();
        for at in [0, 9, 30, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            let none = standing(&clock);
            drop(Scores::open(path.clone(), none.clone()));
            assert!(none.known().is_empty(), "{at}");
            // What is written in its place is whole.
            assert!(decode(&std::fs::read(&path).unwrap()).is_some());
        }
    }

    #[test]
    fn a_file_has_a_longest_length() {
        let record = Record::new(u32::MAX, true, u64::MAX, u64::MAX);
        let known: Vec<_> = (0..PEERS_MAX + 10).map(|_| (PeerId::random(), record)).collect();
        let bytes = encode(&known);
        assert_eq!(decode(&bytes).unwrap().len(), PEERS_MAX);
        assert!(bytes.len() as u64 <= FILE_LEN_MAX);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        std::fs::File::create(&path).unwrap().set_len(FILE_LEN_MAX + 1).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
