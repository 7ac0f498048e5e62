//! Counts what the network sends, receives and refuses.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the network has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes of content sent to peers.
    pub bytes_sent: u64,
    /// Bytes of content received from peers, good or bad.
    pub bytes_received: u64,
    /// Bytes of content received from the mirror, good or bad.
    pub bytes_mirrored: u64,
    /// Ranges refused because of a limit.
    pub refused: u64,
    /// Ranges that are being served now.
    pub serving: u64,
    /// Ranges that wait for their turn now.
    pub waiting: u64,
}

/// The counters that the event loop moves while clients read them. Each is right by itself; together they may be of
/// slightly different moments.
#[derive(Debug, Default)]
pub(super) struct CounterCells {
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    bytes_mirrored: AtomicU64,
    refused: AtomicU64,
    serving: AtomicU64,
    waiting: AtomicU64,
}

impl CounterCells {
    pub(super) fn add_sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_mirrored(&self, bytes: usize) {
        self.bytes_mirrored.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_serving(&self, serving: usize, waiting: usize) {
        self.serving.store(serving as u64, Ordering::Relaxed);
        self.waiting.store(waiting as u64, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counters {
        Counters {
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
            bytes_mirrored: self.bytes_mirrored.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            serving: self.serving.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }
}
