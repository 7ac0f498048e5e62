//! The positions of the largest magnitudes, exactly: equal magnitudes in favour of the lower
//! position, and −0 equal to 0.
//!
//! A magnitude is compared as the bits of its `f32` without the sign, which order as the numbers
//! do. A full chunk is first reduced to 256 maxima of 16 values each: the `count`-th largest of
//! these is a bound that at least `count` values reach, and few more (about 74 for 64 of 4096 alike
//! values). Only groups whose maximum reaches it are searched. The answer never depends on how good
//! the bound is.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a hot kernel over arrays of fixed length; an index is a loop counter or reduced to it"
)]

use super::ChunkError;
use crate::layout::CHUNK_LEN;

/// Columns of a block and values of a group.
const SIDE: usize = 16;
const BLOCK: usize = SIDE * SIDE;
const GROUPS: usize = CHUNK_LEN as usize / SIDE;

/// The bits of positive infinity: a magnitude from here on is not a finite number.
const INFINITE: u32 = 0x7F80_0000;

/// The positions of the `count` largest magnitudes of `values`, ascending; equal magnitudes in
/// favour of the lower position. All positions if `count` is `values.len()` or more.
///
/// Works for any number of values below 2^32 and takes time in proportion to it.
pub fn top_k(values: &[f32], count: usize) -> Result<alloc::vec::Vec<u32>, ChunkError> {
    let mut selection = Selection::default();
    selection.select_any(values, count)?;
    Ok(selection.positions)
}

/// Selects, and keeps its memory for the next chunk.
#[derive(Default)]
pub(super) struct Selection {
    /// The answer, ascending.
    pub(super) positions: alloc::vec::Vec<u32>,
    /// Magnitudes to choose from, and a copy that selection reorders.
    candidates: alloc::vec::Vec<u32>,
    places: alloc::vec::Vec<u32>,
    scratch: alloc::vec::Vec<u32>,
}

/// The bits of a number's magnitude.
#[inline(always)]
fn magnitude(value: f32) -> u32 {
    value.to_bits() & 0x7FFF_FFFF
}

impl Selection {
    /// Fills `positions` with those of the `count` largest magnitudes of a chunk; refuses NaN and
    /// infinity wherever they are.
    pub(super) fn select(&mut self, chunk: &[f32], count: usize) -> Result<(), ChunkError> {
        match <&[f32; CHUNK_LEN as usize]>::try_from(chunk) {
            // With more, the bound lets too many through to be of use.
            Ok(full) if count > 0 && count <= GROUPS * 3 / 4 => self.select_full(full, count),
            _ => self.select_any(chunk, count),
        }
    }

    fn select_any(&mut self, values: &[f32], count: usize) -> Result<(), ChunkError> {
        self.candidates.clear();
        self.candidates
            .extend(values.iter().map(|value| magnitude(*value)));
        if self.candidates.iter().any(|bits| *bits >= INFINITE) {
            return Err(ChunkError::NotFinite);
        }
        self.places.clear();
        self.places.extend((0u32..).take(values.len()));
        self.choose(count);
        Ok(())
    }

    fn select_full(
        &mut self,
        chunk: &[f32; CHUNK_LEN as usize],
        count: usize,
    ) -> Result<(), ChunkError> {
        // Group b · 16 + c holds column c of block b. As i32: magnitudes are not negative, and a
        // signed maximum is one instruction on more machines.
        let mut maxima = [0i32; GROUPS];
        for (block, columns) in chunk.chunks_exact(BLOCK).zip(maxima.chunks_exact_mut(SIDE)) {
            let mut best = [0i32; SIDE];
            for row in block.chunks_exact(SIDE) {
                for (best, value) in best.iter_mut().zip(row) {
                    *best = (*best).max(magnitude(*value) as i32);
                }
            }
            columns.copy_from_slice(&best);
        }
        if maxima.iter().fold(0, |most, maximum| most.max(*maximum)) >= INFINITE as i32 {
            return Err(ChunkError::NotFinite);
        }
        let mut ordered = maxima;
        let (_, bound, _) = ordered.select_nth_unstable(GROUPS - count);
        let bound = *bound;

        // A bit for every value that reaches the bound, so that they come out in order.
        let mut groups = [0u8; GROUPS];
        let mut group_count = 0usize;
        for (group, maximum) in maxima.iter().enumerate() {
            groups[group_count % GROUPS] = group as u8;
            group_count += usize::from(*maximum >= bound);
        }
        let mut reached = [0u64; CHUNK_LEN as usize / 64];
        for group in &groups[..group_count] {
            let first = usize::from(*group) / SIDE * BLOCK + usize::from(*group) % SIDE;
            for row in 0..SIDE {
                let position = (first + row * SIDE) % CHUNK_LEN as usize;
                let reaches = u64::from(magnitude(chunk[position]) as i32 >= bound);
                reached[position / 64] |= reaches << (position % 64);
            }
        }
        self.candidates.clear();
        self.places.clear();
        for (word, mut bits) in reached.into_iter().enumerate() {
            while bits != 0 {
                let position = (word * 64 + bits.trailing_zeros() as usize) % CHUNK_LEN as usize;
                bits &= bits - 1;
                self.places.push(position as u32);
                self.candidates.push(magnitude(chunk[position]));
            }
        }
        self.choose(count);
        Ok(())
    }

    /// Fills `positions` from `candidates` and their `places`, which are ascending.
    fn choose(&mut self, count: usize) {
        self.positions.clear();
        let surplus = match self.candidates.len().checked_sub(count) {
            None | Some(0) => {
                self.positions.extend_from_slice(&self.places);
                return;
            }
            Some(surplus) => surplus,
        };
        if count == 0 {
            return;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.candidates);
        let (_, smallest, above) = self.scratch.select_nth_unstable(surplus);
        let smallest = *smallest;
        // `above` may hold more of the smallest; the lowest positions of them are kept.
        let larger = above.iter().filter(|bits| **bits > smallest).count();
        let mut equal_left = count - larger;
        for (bits, place) in self.candidates.iter().zip(&self.places) {
            if *bits > smallest {
                self.positions.push(*place);
            } else if *bits == smallest && equal_left > 0 {
                equal_left -= 1;
                self.positions.push(*place);
            }
        }
    }
}
