//! Reads a chunk fast: every value's position from its own bits and two running sums.
//!
//! Value j's quotient ends at the j-th one of the quotients' bits. With `p` the place of that one,
//! the quotients up to j sum to `p − j`, so the position is
//! `(p − j) · 2^a + Σ (remainder + 1) − 1`, without reading one number after the other.
//! [`super::chunk`] has the slow reader that defines what is refused and why; this one answers only
//! whether it can vouch for the bytes.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a hot kernel: a chunk has at most 1538 bytes, so that no number here reaches 2^28, and \
              indices are reduced to an array's length"
)]

use super::form::Form;
#[cfg(feature = "std")]
use super::quantise::{code_value, LEVEL_HIGH};
#[cfg(feature = "std")]
use crate::layout::CHUNK_LEN;

/// Reads chunks of one form that have been checked: those of a [`super::Payload`]. Of other bytes
/// it makes nonsense, but no panic.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkReader {
    form: Form,
}

#[cfg(feature = "std")]
impl ChunkReader {
    /// A reader of chunks of `len` values under `keep`.
    pub(crate) const fn new(len: u32, keep: u16) -> Self {
        Self { form: Form::new(len, keep) }
    }

    /// The sum of the values' squares, exactly.
    #[inline(always)]
    pub(crate) fn squares(&self, bytes: &[u8]) -> f64 {
        let high = high_count(bytes, self.form.kept);
        let low = self.form.kept.saturating_sub(high);
        let scale = f64::from(code_value(scale(bytes), 0));
        let level = f64::from(LEVEL_HIGH);
        scale * scale * (f64::from(low) + level * level * f64::from(high))
    }

    /// Adds `factor · value` for each of the chunk's values to `sums`, and calls `sent` with its position. A
    /// chunk of scale 0 sends nothing: the positions of its only form are nobody's choice.
    #[inline(always)]
    pub(crate) fn add_scaled(
        &self,
        bytes: &[u8],
        factor: f32,
        sums: &mut [f32; CHUNK_LEN as usize],
        mut sent: impl FnMut(usize),
    ) {
        let scale = scale(bytes);
        if scale == 0 {
            // Adding zeros to sums that started at 0 changes nothing.
            return;
        }
        let table = [0, 1, 2, 3].map(|code| factor * code_value(scale, code));
        let _ = values(bytes, self.form, |position, code| {
            // A checked chunk's positions are below its length.
            let position = (position % CHUNK_LEN) as usize;
            sums[position] += table[usize::from(code & 3)];
            sent(position);
        });
    }
}

/// The eight bytes from `at` on as a number, with zeros for those past the end.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(word) = rest.first_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    match bytes.last_chunk::<8>() {
        // Fewer than eight are left: the last eight without those before `at`.
        Some(word) if !rest.is_empty() => u64::from_le_bytes(*word) >> (64 - 8 * rest.len()),
        _ => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// The scale's bf16 bits.
#[inline(always)]
pub(super) fn scale(bytes: &[u8]) -> u16 {
    word(bytes, 0) as u16
}

/// How many of the first `kept` codes have the larger magnitude.
#[cfg(feature = "std")]
#[inline(always)]
fn high_count(bytes: &[u8], kept: u32) -> u32 {
    let mut count = 0;
    let mut left = 2 * kept;
    let mut at = 2;
    while left > 0 {
        let taken = left.min(64);
        let codes = word(bytes, at) & (u64::MAX >> (64 - taken));
        count += (codes & 0x5555_5555_5555_5555).count_ones();
        left -= taken;
        at += 8;
    }
    count
}

/// Calls `each(position, code)` for the values of a chunk in order. Answers the last position if
/// there are as many values as kept and nothing after them but the padding of a byte.
///
/// Where it answers `None`, or a position past the chunk's end, what has been given to `each` means
/// nothing; it may be more than the chunk has.
#[inline(always)]
pub(super) fn values(bytes: &[u8], form: Form, mut each: impl FnMut(u32, u8)) -> Option<u32> {
    let Form { kept, parameter } = form;
    let mask = (1u64 << parameter) - 1;
    // Remainders that one word holds wherever it starts in a byte, and whose codes fill bytes.
    let group = if parameter <= 7 { 8 } else { 4 };
    let mut remainder_bit = 16 + 2 * kept;
    let quotients = 16 + (2 + parameter) * kept;
    let mut at = (quotients / 8) as usize;
    // The place of the word's bit 0, counted from the first quotient's first bit.
    let mut first = 0u32.wrapping_sub(quotients % 8);
    let mut ones = word(bytes, at) & (u64::MAX << (quotients % 8));
    let mut count = 0u32;
    // Σ (remainder + 1), less one.
    let mut sum = u32::MAX;
    let mut position = 0u32;
    while count < kept {
        let mut remainders = word(bytes, (remainder_bit / 8) as usize) >> (remainder_bit % 8);
        let mut codes = word(bytes, 2 + (count / 4) as usize);
        let end = kept.min(count.wrapping_add(group));
        remainder_bit = remainder_bit.wrapping_add(parameter.wrapping_mul(group));
        while count < end {
            while ones == 0 {
                at = at.wrapping_add(8);
                if at >= bytes.len() {
                    return None;
                }
                first = first.wrapping_add(64);
                ones = word(bytes, at);
            }
            let place = first.wrapping_add(ones.trailing_zeros());
            ones &= ones.wrapping_sub(1);
            let remainder = (remainders & mask) as u32;
            remainders >>= parameter;
            sum = sum.wrapping_add(remainder).wrapping_add(1);
            let quotient_sum = place.wrapping_sub(count);
            position = quotient_sum.wrapping_shl(parameter).wrapping_add(sum);
            each(position, (codes & 3) as u8);
            codes >>= 2;
            count = count.wrapping_add(1);
        }
    }
    // Nothing after the last one, which is in the last byte. Were there bits of remainders alone in
    // that byte, a one would have been missing.
    let last = ones == 0 && at.wrapping_add(8) >= bytes.len();
    (last && bytes.last().is_some_and(|last| *last != 0)).then_some(position)
}
