//! Remembers over a restart where others reach this peer.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use libp2p::Multiaddr;

/// Addresses that are remembered, and the most bytes of the file that has them, one a line.
const ADDRESSES_MAX: usize = 8;
const FILE_BYTES_MAX: u64 = 4 << 10;

/// What was reached last, and the file that has it.
pub(super) struct Remembered {
    path: Option<PathBuf>,
    addresses: Vec<Multiaddr>,
}

impl Remembered {
    /// Reads the file, if there is one. What is no address is passed over: it is found out again.
    pub(super) fn open(path: Option<PathBuf>) -> Self {
        let text = path.as_deref().and_then(read).unwrap_or_default();
        let addresses = text.lines().filter_map(|line| line.parse().ok());
        // An empty line is the address of nothing.
        let addresses = addresses.filter(|address: &Multiaddr| !address.is_empty());
        Self { addresses: addresses.take(ADDRESSES_MAX).collect(), path }
    }

    /// What was reached.
    pub(super) fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// Notes what is reached now, if anything is. It is written by a thread that may block.
    pub(super) fn note(&mut self, mut reached: Vec<Multiaddr>) {
        reached.truncate(ADDRESSES_MAX);
        if reached.is_empty() || reached == self.addresses {
            return;
        }
        self.addresses = reached;
        let Some(path) = self.path.clone() else { return };
        let text: String = self.addresses.iter().map(|address| format!("{address}\n")).collect();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = write(&path, &text) {
                tracing::warn!(path = %path.display(), %error, "cannot remember where others reach this peer");
            }
        });
    }
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Writes the whole file or leaves the one before.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_reached_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reached");
        let reached = |ports: std::ops::Range<u16>| -> Vec<Multiaddr> {
            ports.map(|port| format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()).collect()
        };
        let mut first = Remembered::open(Some(path.clone()));
        assert!(first.addresses().is_empty());
        first.note(reached(1..20));
        // That nothing is reached now is no news of what will be.
        first.note(Vec::new());
        while Remembered::open(Some(path.clone())).addresses() != reached(1..9) {
            tokio::task::yield_now().await;
        }
        std::fs::write(&path, "nowhere\n/ip4/192.0.2.1/tcp/1\n\n").unwrap();
        assert_eq!(Remembered::open(Some(path)).addresses(), reached(1..2));
        let mut nowhere = Remembered::open(None);
        nowhere.note(reached(1..2));
        assert_eq!(nowhere.addresses(), reached(1..2));
    }
}
