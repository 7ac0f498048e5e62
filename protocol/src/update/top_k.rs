//! Selects the positions of the largest magnitudes, exactly: equal magnitudes in favour of the
//! lower position, and −0 equal to 0.
//!
//! A magnitude is compared as the bits of its `f32` without the sign, which order as the numbers
//! do. A full chunk is first reduced to 256 maxima of 16 values each. A bound that `count` or a few
//! more of these reach is one that at least `count` values reach, and few more (about 80 for 64 of
//! 4096 alike values); bisection finds it. Only groups whose maximum reaches it are searched, or
//! with AVX-512 all values, 16 at once. The answer never depends on how good the bound is.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a hot kernel over arrays of fixed length; an index is a loop counter or reduced to it"
)]

use super::ChunkError;
use crate::layout::CHUNK_LEN;
use crate::variant::Variant;

/// Columns of a block and values of a group.
const SIDE: usize = 16;
const BLOCK: usize = SIDE * SIDE;
const GROUPS: usize = CHUNK_LEN as usize / SIDE;
/// Words with a bit for each value.
const WORDS: usize = CHUNK_LEN as usize / 64;

/// The bits of positive infinity: a magnitude from here on is not a finite number.
const INFINITE: i32 = 0x7F80_0000;

/// The positions of the `count` largest magnitudes of `values`, ascending; equal magnitudes in
/// favour of the lower position. All positions if `count` is `values.len()` or more.
///
/// Works for any number of values below 2^32 and reads them at most 32 times.
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
    /// Magnitudes to choose from, and where they are.
    candidates: alloc::vec::Vec<i32>,
    places: alloc::vec::Vec<u32>,
}

/// The bits of a number's magnitude. As i32: they are not negative, and a signed maximum is one
/// instruction on more machines.
#[inline(always)]
fn magnitude(value: f32) -> i32 {
    (value.to_bits() & 0x7FFF_FFFF) as i32
}

impl Selection {
    /// Fills `positions` with those of the `count` largest magnitudes of a chunk; refuses NaN and
    /// infinity wherever they are.
    #[inline(always)]
    pub(super) fn select(
        &mut self,
        variant: Variant,
        chunk: &[f32],
        count: usize,
    ) -> Result<(), ChunkError> {
        match <&[f32; CHUNK_LEN as usize]>::try_from(chunk) {
            // With more, the bound lets too many through to be of use.
            Ok(full) if count > 0 && count <= GROUPS * 3 / 4 => {
                self.select_full(variant, full, count)
            }
            _ => self.select_any(chunk, count),
        }
    }

    #[inline(always)]
    fn select_any(&mut self, values: &[f32], count: usize) -> Result<(), ChunkError> {
        self.candidates.clear();
        self.candidates.extend(values.iter().map(|value| magnitude(*value)));
        if self.candidates.iter().any(|bits| *bits >= INFINITE) {
            return Err(ChunkError::NotFinite);
        }
        self.places.clear();
        self.places.extend((0u32..).take(values.len()));
        self.choose(count);
        Ok(())
    }

    #[inline(always)]
    fn select_full(
        &mut self,
        variant: Variant,
        chunk: &[f32; CHUNK_LEN as usize],
        count: usize,
    ) -> Result<(), ChunkError> {
        // Group b · 16 + c holds column c of block b.
        let mut maxima = [0i32; GROUPS];
        for (block, columns) in chunk.chunks_exact(BLOCK).zip(maxima.chunks_exact_mut(SIDE)) {
            let mut best = [0i32; SIDE];
            for row in block.chunks_exact(SIDE) {
                for (best, value) in best.iter_mut().zip(row) {
                    *best = (*best).max(magnitude(*value));
                }
            }
            columns.copy_from_slice(&best);
        }
        let most = maxima.iter().fold(0, |most, maximum| most.max(*maximum));
        if most >= INFINITE {
            return Err(ChunkError::NotFinite);
        }
        let bound = bound(&maxima, count, most, count / 8);
        let mut reached = [0u64; WORDS];
        #[cfg(target_arch = "x86_64")]
        if variant.is_avx512() {
            // SAFETY: this variant is only given out where the processor has it.
            unsafe { mark_avx512(chunk, bound.at, &mut reached) };
        } else {
            mark(chunk, &maxima, bound.at, &mut reached);
        }
        #[cfg(not(target_arch = "x86_64"))]
        mark(chunk, &maxima, bound.at, &mut reached);

        self.places.clear();
        let marked = reached.iter().map(|word| word.count_ones()).sum::<u32>();
        self.places.resize(marked as usize, 0);
        let mut places = self.places.iter_mut();
        for (word, mut bits) in (0u32..).zip(reached) {
            while bits != 0 {
                if let Some(place) = places.next() {
                    *place = word << 6 | bits.trailing_zeros();
                }
                bits &= bits.wrapping_sub(1);
            }
        }
        self.candidates.clear();
        let candidate = |place: &u32| magnitude(chunk[(*place % CHUNK_LEN) as usize]);
        self.candidates.extend(self.places.iter().map(candidate));
        self.choose(count);
        Ok(())
    }

    /// Fills `positions` from `candidates` and their `places`, which are ascending.
    #[inline(always)]
    fn choose(&mut self, count: usize) {
        self.positions.clear();
        if self.candidates.len() <= count {
            self.positions.extend_from_slice(&self.places);
            return;
        }
        if count == 0 {
            return;
        }
        let most = self.candidates.iter().fold(0, |most, bits| most.max(*bits));
        let bound = bound(&self.candidates, count, most, 0);
        // Of those that are equal to the smallest the lowest positions are kept.
        let (smallest, mut equal_left) = match bound.reached == count {
            true => (bound.at, count),
            false => (bound.at, count - reach(&self.candidates, bound.at + 1)),
        };
        // One more than is kept, for a place is written before it is known whether it is kept.
        self.positions.resize(count + 1, 0);
        let mut kept = 0usize;
        for (bits, place) in self.candidates.iter().zip(&self.places) {
            let equal = (*bits == smallest) & (equal_left > 0);
            equal_left = equal_left.wrapping_sub(usize::from(equal));
            self.positions[kept.min(count)] = *place;
            kept = kept.wrapping_add(usize::from((*bits > smallest) | equal));
        }
        self.positions.truncate(count);
    }
}

/// A magnitude, and how many values reach it.
struct Bound {
    at: i32,
    reached: usize,
}

/// How many of `values` are at least `bound`.
#[inline(always)]
fn reach(values: &[i32], bound: i32) -> usize {
    let count =
        values.iter().fold(0u32, |count, value| count.wrapping_add(u32::from(*value >= bound)));
    count as usize
}

/// The largest bound that at least `count` of `values` reach, or a smaller one that at most `slack`
/// more do. `values` are not negative, `most` is the largest, and there are at least `count`, which
/// is not 0.
#[inline(always)]
fn bound(values: &[i32], count: usize, most: i32, slack: usize) -> Bound {
    // Reached by `count` or more, and by fewer.
    let mut low = Bound { at: 0, reached: values.len() };
    let mut high = most.saturating_add(1);
    // Most of the time the bound is within a factor of 16 of the largest.
    let mut middle = most.saturating_sub(4 << 23).max(1);
    while low.reached > count + slack && high - low.at > 1 {
        if middle <= low.at || middle >= high {
            middle = low.at + (high - low.at) / 2;
        }
        let reached = reach(values, middle);
        if reached >= count {
            low = Bound { at: middle, reached };
        } else {
            high = middle;
        }
        middle = low.at + (high - low.at) / 2;
    }
    low
}

/// Sets the bit of every value that reaches the bound, group by group.
#[inline(always)]
fn mark(
    chunk: &[f32; CHUNK_LEN as usize],
    maxima: &[i32; GROUPS],
    bound: i32,
    reached: &mut [u64; WORDS],
) {
    let mut groups = [0u8; GROUPS];
    let mut group_count = 0usize;
    for (group, maximum) in maxima.iter().enumerate() {
        groups[group_count % GROUPS] = group as u8;
        group_count = group_count.wrapping_add(usize::from(*maximum >= bound));
    }
    for group in &groups[..group_count] {
        let first = usize::from(*group) / SIDE * BLOCK + usize::from(*group) % SIDE;
        for row in 0..SIDE {
            let position = (first + row * SIDE) % CHUNK_LEN as usize;
            let reaches = u64::from(magnitude(chunk[position]) >= bound);
            reached[position / 64] |= reaches << (position % 64);
        }
    }
}

/// [`mark`], of all values.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn mark_avx512(chunk: &[f32; CHUNK_LEN as usize], bound: i32, reached: &mut [u64; WORDS]) {
    use core::arch::x86_64::{
        _mm512_and_si512, _mm512_cmpge_epi32_mask, _mm512_loadu_si512, _mm512_set1_epi32,
    };
    let (bound, sign) = (_mm512_set1_epi32(bound), _mm512_set1_epi32(i32::MAX));
    for (word, values) in reached.iter_mut().zip(chunk.as_chunks::<64>().0) {
        let sixteens = values.as_chunks::<16>().0;
        *word = sixteens.iter().rev().fold(0, |word, values| {
            // SAFETY: 64 bytes of an array of 16 values.
            let bits = unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
            let mask = _mm512_cmpge_epi32_mask(_mm512_and_si512(bits, sign), bound);
            word << 16 | u64::from(mask)
        });
    }
}
