//! Sums over the blocks of a file, by which who reads a part of it finds what the disk has changed since it was written.
//!
//! A block is 16 KiB, the last of a file what is left. Its sum is its CRC-32, four bytes, little endian; they follow a magic in the
//! order of the blocks, in a file of their own. They find accidents: who may write to the folder may write sums, too.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

use bytes::Bytes;

pub(super) const BLOCK_BYTES: u64 = 16 << 10;

const MAGIC: [u8; 8] = *b"GXSUM\0\0\x01";

const SUM_BYTES: u64 = 4;

/// Writes the sums of the blocks of `bytes`, which lie at `offset`, a multiple of a block's length, of what is summed.
pub(super) fn write(sums: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut found = Vec::new();
    for block in bytes.chunks(BLOCK_BYTES as usize) {
        found.extend_from_slice(&crc32fast::hash(block).to_le_bytes());
    }
    if offset == 0 {
        sums.write_all_at(&MAGIC, 0)?;
    }
    sums.write_all_at(&found, place(offset / BLOCK_BYTES))
}

/// Reads a range of what lies in `file` from byte `base` on; `None` if it is not what was written. Without sums nothing is
/// known of it. Reads up to a block more at each end.
pub(super) fn read(
    file: &File,
    base: u64,
    sums: Option<&File>,
    range: Range<u64>,
) -> io::Result<Option<Bytes>> {
    let len = file.metadata()?.len().saturating_sub(base);
    if range.end > len {
        return Ok(None);
    }
    let first = range.start / BLOCK_BYTES;
    let start = first.saturating_mul(BLOCK_BYTES);
    let end = range.end.next_multiple_of(BLOCK_BYTES).min(len);
    let mut bytes = vec![0; length(end.saturating_sub(start))];
    file.read_exact_at(&mut bytes, base.saturating_add(start))?;
    if let Some(sums) = sums {
        let blocks = bytes.chunks(BLOCK_BYTES as usize);
        let mut expected = vec![0; blocks.len().saturating_mul(SUM_BYTES as usize)];
        let mut magic = [0; MAGIC.len()];
        let is_read = sums.read_exact_at(&mut magic, 0).is_ok()
            && sums.read_exact_at(&mut expected, place(first)).is_ok();
        let expected = expected.as_chunks().0.iter().copied().map(u32::from_le_bytes);
        if !is_read || magic != MAGIC || !blocks.map(crc32fast::hash).eq(expected) {
            return Ok(None);
        }
    }
    let bytes = Bytes::from(bytes);
    let within = |at: u64| length(at.saturating_sub(start));
    Ok(Some(bytes.slice(within(range.start)..within(range.end))))
}

/// Where the sum of a block lies.
fn place(block: u64) -> u64 {
    block.saturating_mul(SUM_BYTES).saturating_add(MAGIC.len() as u64)
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
