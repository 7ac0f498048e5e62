//! Bit strings, least significant bit first: a writer that appends to a byte vector and a strict
//! reader of bytes that a stranger wrote.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "a hot kernel: below 64 bits are held and widths are at most 32"
)]

use alloc::vec::Vec;

/// Appends numbers of up to 32 bits to a byte vector.
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Bits not written yet; those above `held` are 0.
    pending: u64,
    /// Bits in `pending`, below 32 between calls.
    held: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            pending: 0,
            held: 0,
        }
    }

    /// Appends the lowest `width` bits of `value`, which has no others; `width` is at most 32.
    #[inline(always)]
    pub(super) fn push(&mut self, value: u32, width: u32) {
        debug_assert!(width <= 32 && (width == 32 || value < 1 << width));
        self.pending |= u64::from(value) << self.held;
        self.held += width;
        if self.held >= 32 {
            self.out
                .extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.held -= 32;
        }
    }

    /// Appends `zeros` zeros and a one.
    #[inline(always)]
    pub(super) fn push_unary(&mut self, mut zeros: u32) {
        while zeros >= 32 {
            self.push(0, 32);
            zeros -= 32;
        }
        self.push(1 << zeros, zeros + 1);
    }

    /// Fills the last byte with zeros.
    pub(super) fn finish(self) {
        let bytes = self.pending.to_le_bytes();
        let used = self.held.div_ceil(8) as usize;
        self.out.extend(bytes.iter().take(used));
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
        Self {
            rest: bytes,
            pending: 0,
            held: 0,
        }
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
