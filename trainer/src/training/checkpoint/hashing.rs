//! Writes a file and hashes it on the way, some pieces of a MiB at a time.

use std::fs::File;
use std::io::{self, Write};

use protocol::content_hash::{content_hash, PieceHash, PIECE_BYTES};

use crate::compute::threads::Threads;

/// Bytes that are hashed at a time, a piece on each thread.
pub const BUFFER: usize = 16 * PIECE_BYTES;

/// Hashes what it is given, some pieces at a time on several threads.
pub(super) struct Pieces {
    threads: Threads,
    hashes: Vec<PieceHash>,
    len: u64,
}

impl Pieces {
    pub(super) fn new(threads: Threads) -> Self {
        Self { threads, hashes: Vec::new(), len: 0 }
    }

    /// The next bytes: whole pieces, but for the last time.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let first = self.hashes.len();
        let pieces = self.threads.map(bytes.len().div_ceil(PIECE_BYTES), |index| {
            let start = index * PIECE_BYTES;
            let end = bytes.len().min(start + PIECE_BYTES);
            PieceHash::new((first + index) as u64, &bytes[start..end])
        });
        self.hashes.extend(pieces);
        self.len += bytes.len() as u64;
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// BLAKE3 of all bytes.
    pub(super) fn finish(&self) -> io::Result<[u8; 32]> {
        content_hash(&self.hashes, self.len).ok_or_else(|| io::Error::other("pieces are missing"))
    }
}

/// A file that is written and hashed.
pub(super) struct Hashing {
    file: File,
    buffer: Vec<u8>,
    pieces: Pieces,
}

impl Hashing {
    /// Holds `bytes` of the file at most, a multiple of a MiB.
    pub(super) fn new(file: File, threads: Threads, bytes: usize) -> Self {
        Self { file, buffer: Vec::with_capacity(bytes), pieces: Pieces::new(threads) }
    }

    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.buffer.capacity() / PIECE_BYTES * PIECE_BYTES - self.buffer.len();
            let (part, rest) = bytes.split_at(bytes.len().min(room));
            self.buffer.extend_from_slice(part);
            bytes = rest;
            if part.len() == room {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pieces.add(&self.buffer);
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Brings everything to the disk; how many bytes it is, and their hash.
    pub(super) fn finish(mut self) -> io::Result<(u64, [u8; 32])> {
        if !self.buffer.is_empty() {
            self.flush()?;
        }
        self.file.sync_all()?;
        Ok((self.pieces.len(), self.pieces.finish()?))
    }
}
