//! Writes the bits of a chunk and reads a stranger's strictly; both least significant bit first.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "a hot kernel: at most 64 bits are held and widths are at most 32"
)]

use alloc::vec::Vec;

/// Words that the longest chunk takes, 1538 bytes.
const WORDS: usize = 193;

/// Gathers the bits of one chunk. Bits past the longest chunk are dropped.
pub(super) struct BitWriter {
    words: [u64; WORDS],
    /// Words that are full.
    full: usize,
    /// The bits after them; those above `held` are 0.
    pending: u64,
    /// Bits in `pending`, below 64.
    held: u32,
}

impl BitWriter {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { words: [0; WORDS], full: 0, pending: 0, held: 0 }
    }

    /// Puts the pending word behind the full ones.
    #[inline(always)]
    fn store(&mut self) {
        if let Some(word) = self.words.get_mut(self.full) {
            *word = self.pending;
        }
        self.full = self.full.wrapping_add(1);
    }

    /// Appends the lowest `width` bits of `value`, which has no others; `width` is at most 32.
    #[inline(always)]
    pub(super) fn push(&mut self, value: u32, width: u32) {
        let value = u64::from(value);
        self.pending |= value.wrapping_shl(self.held);
        let held = self.held.wrapping_add(width);
        if held >= 64 {
            self.store();
            // Then 32 bits or more were held.
            self.pending = value.wrapping_shr(64u32.wrapping_sub(self.held));
            self.held = held.wrapping_sub(64);
        } else {
            self.held = held;
        }
    }

    /// Appends `zeros` zeros and a one.
    #[inline(always)]
    pub(super) fn push_unary(&mut self, zeros: u32) {
        let mut held = self.held.wrapping_add(zeros);
        while held >= 64 {
            self.store();
            self.pending = 0;
            held = held.wrapping_sub(64);
        }
        self.pending |= 1u64.wrapping_shl(held);
        held = held.wrapping_add(1);
        if held == 64 {
            self.store();
            self.pending = 0;
            held = 0;
        }
        self.held = held;
    }

    /// Appends the bits to `out`, the last byte filled with zeros.
    #[inline(always)]
    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        let bytes = self.full.wrapping_mul(8);
        let bytes = bytes.wrapping_add(self.held.div_ceil(8) as usize);
        self.store();
        let mut left = bytes;
        for word in self.words.iter().take(self.full) {
            let taken = left.min(8);
            out.extend_from_slice(word.to_le_bytes().get(..taken).unwrap_or_default());
            left = left.wrapping_sub(taken);
        }
    }
}

/// Reads numbers from bytes; every read answers `None` past the end.
pub(super) struct BitReader<'a> {
    rest: &'a [u8],
    /// Bits read from `rest` and not handed out yet; those above `held` are 0.
    pending: u64,
    /// Bits in `pending`.
    held: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, pending: 0, held: 0 }
    }

    /// Takes more bytes while at least 32 more bits fit; at the end of the bytes fewer.
    #[inline(always)]
    fn refill(&mut self) {
        if let Some((word, rest)) = self.rest.split_first_chunk::<4>() {
            self.pending |= u64::from(u32::from_le_bytes(*word)) << self.held;
            self.held += 32;
            self.rest = rest;
        } else {
            while let Some((byte, rest)) = self.rest.split_first() {
                self.pending |= u64::from(*byte) << self.held;
                self.held += 8;
                self.rest = rest;
            }
        }
    }

    /// The next `width` bits as a number; `width` is at most 16.
    #[inline(always)]
    pub(super) fn read(&mut self, width: u32) -> Option<u32> {
        debug_assert!(width <= 16);
        if self.held < width {
            self.refill();
            if self.held < width {
                return None;
            }
        }
        let value = (self.pending & ((1 << width) - 1)) as u32;
        self.pending >>= width;
        self.held -= width;
        Some(value)
    }

    /// The number of zeros before the next one, which is taken too.
    #[inline(always)]
    pub(super) fn read_unary(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.pending == 0 {
            // At most eight times the bytes there are.
            zeros += self.held;
            self.held = 0;
            self.refill();
            if self.held == 0 {
                return None;
            }
        }
        let more = self.pending.trailing_zeros();
        // In two steps, for `more` may be 63.
        self.pending >>= more;
        self.pending >>= 1;
        self.held -= more + 1;
        Some(zeros + more)
    }

    /// Whether nothing is left but fewer than eight bits, all zero.
    pub(super) fn is_finished(&self) -> bool {
        self.rest.is_empty() && self.held < 8 && self.pending == 0
    }
}
