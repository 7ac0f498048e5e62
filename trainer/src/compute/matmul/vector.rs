//! Products of `f32` matrices on the vector unit of an x86-64 processor: AVX-512, or AVX2 with FMA.
//!
//! A block of the result, 14 rows of 32 columns (6 of 16 on AVX2), stays in registers while the inner
//! dimension goes by; each step of it takes one row of the right matrix's panel and one value from each row
//! of the left one, which is read where it lies if its rows are side by side.
//!
//! A value of the result is the sum over [`DEPTH`] inner values at most in their order, each added by one
//! fused operation, and then the sum of these sums. So it depends neither on the width of the vectors nor on
//! how the rows are cut into bands.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::blocked::{self, Left, Micro, Operand};
use super::view::{Target, View};

/// Inner values that are summed in registers before the result is touched.
const DEPTH: usize = 384;

/// Inner values of a group that are packed block after block.
const PACKED_AT_ONCE: usize = 16;

/// An instruction set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Level {
    Avx2,
    Avx512,
}

impl Level {
    /// The best one of this processor, if there is one.
    pub(super) fn best() -> Option<Self> {
        if is_x86_feature_detected!("avx512f") {
            return Some(Self::Avx512);
        }
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        avx2.then_some(Self::Avx2)
    }

    /// Values of scratch that [`Level::product`] needs on each thread.
    pub(super) fn scratch(self) -> usize {
        match self {
            Self::Avx2 => blocked::scratch::<Vectors<__m256>>(),
            Self::Avx512 => blocked::scratch::<Vectors<__m512>>(),
        }
    }

    /// Panels of a matrix with `n` columns.
    pub(super) fn panels(self, n: usize) -> usize {
        match self {
            Self::Avx2 => blocked::panels::<Vectors<__m256>>(n),
            Self::Avx512 => blocked::panels::<Vectors<__m512>>(n),
        }
    }

    /// Values that a packed right matrix (k, n) takes.
    pub(super) fn packed_len(self, k: usize, n: usize) -> usize {
        match self {
            Self::Avx2 => blocked::packed_len::<Vectors<__m256>>(k, n),
            Self::Avx512 => blocked::packed_len::<Vectors<__m512>>(k, n),
        }
    }

    /// [`blocked::pack_panel`].
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn pack_panel(
        self,
        shape: (usize, usize),
        b: View<*const f32>,
        panel: usize,
        packed: *mut f32,
    ) {
        // SAFETY: by the caller's promise.
        unsafe {
            match self {
                Self::Avx2 => pack_panel_avx2(shape, b, panel, packed),
                Self::Avx512 => pack_panel_avx512(shape, b, panel, packed),
            }
        }
    }

    /// [`blocked::product`].
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn product(
        self,
        shape: (usize, usize, usize),
        target: Target,
        a: View<*const f32>,
        b: Operand,
        scratch: &mut [f32],
    ) {
        // SAFETY: by the caller's promise.
        unsafe {
            match self {
                Self::Avx2 => product_avx2(shape, target, a, b, scratch),
                Self::Avx512 => product_avx512(shape, target, a, b, scratch),
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn product_avx2(
    shape: (usize, usize, usize),
    target: Target,
    a: View<*const f32>,
    b: Operand,
    scratch: &mut [f32],
) {
    // SAFETY: by the caller's promise.
    unsafe { blocked::product::<Vectors<__m256>>(shape, target, a, b, scratch) }
}

#[target_feature(enable = "avx512f")]
unsafe fn product_avx512(
    shape: (usize, usize, usize),
    target: Target,
    a: View<*const f32>,
    b: Operand,
    scratch: &mut [f32],
) {
    // SAFETY: by the caller's promise.
    unsafe { blocked::product::<Vectors<__m512>>(shape, target, a, b, scratch) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn pack_panel_avx2(
    shape: (usize, usize),
    b: View<*const f32>,
    panel: usize,
    packed: *mut f32,
) {
    // SAFETY: by the caller's promise.
    unsafe { blocked::pack_panel::<Vectors<__m256>>(shape, b, panel, packed) }
}

#[target_feature(enable = "avx512f")]
unsafe fn pack_panel_avx512(
    shape: (usize, usize),
    b: View<*const f32>,
    panel: usize,
    packed: *mut f32,
) {
    // SAFETY: by the caller's promise.
    unsafe { blocked::pack_panel::<Vectors<__m512>>(shape, b, panel, packed) }
}

/// Blocks in vectors of one kind.
struct Vectors<L>(PhantomData<L>);

impl<L: Lanes> Micro for Vectors<L> {
    const ROWS: usize = L::ROWS;
    const COLUMNS: usize = 2 * L::WIDTH;
    const DEPTH: usize = DEPTH;
    const STEP: usize = 1;
    const SPARE: usize = 0;

    /// With its rows side by side, or if packing it would hardly be used.
    fn in_place(left: View<*const f32>, n: usize) -> bool {
        left.column_stride == 1 || n <= 2 * Self::COLUMNS
    }

    fn left_bytes(depth: usize) -> usize {
        L::ROWS * depth * 4
    }

    fn right_bytes(depth: usize) -> usize {
        2 * L::WIDTH * depth * 4
    }

    /// Blocks that differ by one row at most, so that none is short.
    fn first_row(rows: usize, block: usize) -> usize {
        rows * block / rows.div_ceil(L::ROWS)
    }

    #[inline(always)]
    unsafe fn pack_left(from: View<*const f32>, rows: usize, depth: usize, _: f32, to: *mut u8) {
        let to = to.cast::<f32>();
        // SAFETY: by the caller's promise.
        unsafe {
            // Some inner values at a time, so that the order is nearly that of memory.
            for start in (0..depth).step_by(PACKED_AT_ONCE) {
                let end = depth.min(start + PACKED_AT_ONCE);
                for block in 0..rows.div_ceil(L::ROWS) {
                    let first = Self::first_row(rows, block);
                    let count = Self::first_row(rows, block + 1) - first;
                    let to = to.add(block * L::ROWS * depth);
                    for inner in start..end {
                        let from = from.offset(first, inner).start;
                        L::load_first(from, count).store_first(to.add(inner * count), count);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn pack_right(from: View<*const f32>, columns: usize, depth: usize, to: *mut u8) {
        // SAFETY: by the caller's promise.
        unsafe { pack_panel::<L>(from, columns, depth, to.cast()) }
    }

    #[inline(always)]
    unsafe fn block(
        (rows, columns): (usize, usize),
        target: Target,
        left: Left,
        right: *const u8,
        depth: usize,
        _: *mut u8,
    ) {
        let left = match left {
            Left::InPlace(left) => left,
            Left::Packed(left) => View::new(left.cast(), 1, rows),
        };
        let right = right.cast();
        macro_rules! choose {
            ($($rows:literal)*) => {
                match (rows, left.column_stride) {
                    $(($rows, 1) if $rows <= L::ROWS => {
                        block::<L, $rows, true>(depth, left, right, target, columns)
                    }
                    ($rows, _) if $rows <= L::ROWS => {
                        block::<L, $rows, false>(depth, left, right, target, columns)
                    })*
                    _ => unreachable!("blocks have at most ROWS rows"),
                }
            };
        }
        // SAFETY: by the caller's promise.
        unsafe { choose!(1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
    }
}

/// Adds up a block of `ROWS` rows over `depth`, in registers. The rows of the left matrix are side by side
/// (`BY_ROWS`), or its columns are. The block's place is asked for beforehand: it comes while the sums grow.
///
/// # Safety
/// The operands have that many rows and values, `right` a whole panel; nobody else touches the block.
#[inline(always)]
unsafe fn block<L: Lanes, const ROWS: usize, const BY_ROWS: bool>(
    depth: usize,
    left: View<*const f32>,
    mut right: *const f32,
    to: Target,
    columns: usize,
) {
    let (row_step, inner_step) = match BY_ROWS {
        true => (left.row_stride, 1),
        false => (1, left.column_stride),
    };
    let mut left = left.start;
    // SAFETY: by the caller's promise; an address that is only asked for may be any.
    unsafe {
        for row in 0..ROWS {
            let place = to.c.offset(row, 0).start;
            _mm_prefetch::<_MM_HINT_ET0>(place.cast());
            _mm_prefetch::<_MM_HINT_ET0>(place.wrapping_add(L::WIDTH).cast());
        }
        let mut sums = [[L::zero(); 2]; ROWS];
        for _ in 0..depth {
            let low = L::load(right);
            let high = L::load(right.add(L::WIDTH));
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = L::splat(left.add(row * row_step));
                sums[0] = value.mul_add(low, sums[0]);
                sums[1] = value.mul_add(high, sums[1]);
            }
            left = left.wrapping_add(inner_step);
            right = right.add(2 * L::WIDTH);
        }
        let scale = L::splat(&to.scale);
        for (row, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                let place = to.c.offset(row, half * L::WIDTH).start;
                let count = columns.saturating_sub(half * L::WIDTH);
                if count >= L::WIDTH {
                    let before = if to.accumulate { L::load(place) } else { L::zero() };
                    sum.mul_add(scale, before).store(place);
                } else if count > 0 {
                    let before =
                        if to.accumulate { L::load_first(place, count) } else { L::zero() };
                    sum.mul_add(scale, before).store_first(place, count);
                }
            }
        }
    }
}

/// Packs up to a panel's columns of a matrix over `depth` rows, with zeros for columns that it lacks.
///
/// # Safety
/// The view has those columns and rows; `to` has room for a panel.
#[inline(always)]
unsafe fn pack_panel<L: Lanes>(from: View<*const f32>, columns: usize, depth: usize, to: *mut f32) {
    let by_rows = from.column_stride == 1;
    assert!(by_rows || from.row_stride == 1, "a matrix with gaps");
    // SAFETY: by the caller's promise.
    unsafe {
        for half in 0..2 {
            let first = (half * L::WIDTH).min(columns);
            let (from, count) = (from.offset(0, first), L::WIDTH.min(columns - first));
            let to = to.add(half * L::WIDTH);
            if by_rows {
                for inner in 0..depth {
                    let from = from.start.wrapping_add(inner * from.row_stride);
                    L::load_first(from, count).store(to.add(inner * 2 * L::WIDTH));
                }
                continue;
            }
            for inner in (0..depth).step_by(L::WIDTH) {
                let (from, to) = (from.offset(inner, 0), to.add(inner * 2 * L::WIDTH));
                let size = (count, L::WIDTH.min(depth - inner));
                L::transpose(from.start, from.column_stride, size, to, 2 * L::WIDTH);
            }
        }
    }
}

/// Vectors of one kind. All functions need the instruction set they belong to, and valid addresses.
trait Lanes: Copy {
    /// Values of a vector.
    const WIDTH: usize;

    /// Rows of a block: twice as many vectors as these, and three more, are all registers there are.
    const ROWS: usize;

    unsafe fn zero() -> Self;

    /// The value at that address in all lanes.
    unsafe fn splat(from: *const f32) -> Self;

    unsafe fn load(from: *const f32) -> Self;

    unsafe fn store(self, to: *mut f32);

    /// The first `count` values (all, if that is more than there are), zeros after them; reads nothing else.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;

    /// Writes the first `count` values and nothing else.
    unsafe fn store_first(self, to: *mut f32, count: usize);

    /// self · b + c, rounded once.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;

    /// Row i and column j of `to` (depth rows of a vector each) become column i and row j of `from`, which has
    /// `size`: rows, and columns, the depth.
    unsafe fn transpose(
        from: *const f32,
        from_stride: usize,
        size: (usize, usize),
        to: *mut f32,
        to_stride: usize,
    );
}

// SAFETY of both: by the promise of each function's caller.
impl Lanes for __m512 {
    const WIDTH: usize = 16;
    const ROWS: usize = 14;

    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        unsafe { _mm512_set1_ps(*from) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        unsafe { _mm512_maskz_loadu_ps(first_lanes(count), from) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        unsafe { _mm512_mask_storeu_ps(to, first_lanes(count), self) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { _mm512_fmadd_ps(self, b, c) }
    }

    #[inline(always)]
    unsafe fn transpose(
        from: *const f32,
        from_stride: usize,
        (rows, depth): (usize, usize),
        to: *mut f32,
        to_stride: usize,
    ) {
        unsafe {
            let mut block = [_mm512_setzero_si512(); 16];
            for (row, values) in block.iter_mut().enumerate().take(rows) {
                let from = from.wrapping_add(row * from_stride);
                *values = _mm512_castps_si512(Self::load_first(from, depth));
            }
            let block = transpose(block);
            for (row, values) in block.into_iter().enumerate().take(depth) {
                _mm512_castsi512_ps(values).store(to.wrapping_add(row * to_stride));
            }
        }
    }
}

impl Lanes for __m256 {
    const WIDTH: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        unsafe { _mm256_broadcast_ss(&*from) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        unsafe { _mm256_maskload_ps(from, first_eight(count)) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        unsafe { _mm256_maskstore_ps(to, first_eight(count), self) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { _mm256_fmadd_ps(self, b, c) }
    }

    #[inline(always)]
    unsafe fn transpose(
        from: *const f32,
        from_stride: usize,
        (rows, depth): (usize, usize),
        to: *mut f32,
        to_stride: usize,
    ) {
        unsafe {
            let mut block = [_mm256_setzero_ps(); 8];
            for (row, values) in block.iter_mut().enumerate().take(rows) {
                *values = Self::load_first(from.wrapping_add(row * from_stride), depth);
            }
            // Pairs, then fours within each half, then the halves themselves.
            let mut fours = [_mm256_setzero_ps(); 8];
            for group in [0, 4] {
                let [a, b, c, d] = [0, 1, 2, 3].map(|row| block[group + row]);
                let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                fours[group] = _mm256_shuffle_ps::<0x44>(ab_low, cd_low);
                fours[group + 1] = _mm256_shuffle_ps::<0xee>(ab_low, cd_low);
                fours[group + 2] = _mm256_shuffle_ps::<0x44>(ab_high, cd_high);
                fours[group + 3] = _mm256_shuffle_ps::<0xee>(ab_high, cd_high);
            }
            for row in 0..4 {
                let (upper, lower) = (fours[row], fours[4 + row]);
                block[row] = _mm256_permute2f128_ps::<0x20>(upper, lower);
                block[4 + row] = _mm256_permute2f128_ps::<0x31>(upper, lower);
            }
            for (row, values) in block.into_iter().enumerate().take(depth) {
                values.store(to.wrapping_add(row * to_stride));
            }
        }
    }
}

/// The mask of the first `count` of 8 lanes.
#[inline(always)]
unsafe fn first_eight(count: usize) -> __m256i {
    // SAFETY: by the promise of the caller, who has AVX2.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), lanes)
    }
}

/// The mask of the first `count` of 16 lanes.
pub(super) fn first_lanes(count: usize) -> __mmask16 {
    ((1u32 << count.min(16)) - 1) as __mmask16
}

/// 16 by 16 words, transposed.
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(block: [__m512i; 16]) -> [__m512i; 16] {
    // Within each group of four rows, 4 by 4 words are transposed in each quarter of a row.
    let mut rows = block;
    for group in (0..16).step_by(4) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|row| block[group + row]);
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        rows[group] = _mm512_unpacklo_epi64(ab_low, cd_low);
        rows[group + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
        rows[group + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
        rows[group + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
    // Then the quarters themselves: row 4 q + i of the result is quarter q of row i of each group.
    let mut transposed = rows;
    for i in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|group| rows[group + i]);
        let (ab_low, ab_high) =
            (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
        let (cd_low, cd_high) =
            (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
        transposed[i] = _mm512_shuffle_i32x4::<0x88>(ab_low, cd_low);
        transposed[4 + i] = _mm512_shuffle_i32x4::<0xdd>(ab_low, cd_low);
        transposed[8 + i] = _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high);
        transposed[12 + i] = _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high);
    }
    transposed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::aligned::Aligned;

    /// Values without a pattern.
    fn noise(len: usize, mut state: u32) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// c ← c + 0.5 a · b, with the right matrix in its place and packed, which must agree.
    fn product(level: Level, shape: (usize, usize, usize), by_rows: (bool, bool)) -> Vec<f32> {
        let (m, n, k) = shape;
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let view = |values: &[f32], rows: usize, columns: usize, by_rows: bool| match by_rows {
            true => View::new(values.as_ptr(), columns, 1),
            false => View::new(values.as_ptr(), 1, rows),
        };
        let (a, b) = (view(&a, m, k, by_rows.0), view(&b, k, n, by_rows.1));
        let mut scratch = Aligned::zeros(level.scratch());
        let mut packed = Aligned::zeros(level.packed_len(k, n));
        for panel in 0..level.panels(n) {
            // SAFETY: there is room for all panels.
            unsafe { level.pack_panel((k, n), b, panel, packed.as_mut_ptr()) };
        }
        let (start, place) = (packed.as_ptr(), (0, 0));
        let operands = [Operand::View(b), Operand::Packed { start, k, place }];
        let [in_place, packed] = operands.map(|operand| {
            let mut c = noise(m * n, 3);
            let target =
                Target { c: View::new(c.as_mut_ptr(), n, 1), scale: 0.5, accumulate: true };
            // SAFETY: the views are those of the vectors, and the level is there.
            unsafe { level.product(shape, target, a, operand, &mut scratch) };
            c
        });
        assert_eq!(in_place, packed, "{level:?} {shape:?}");
        packed
    }

    #[test]
    fn the_width_of_the_vectors_changes_no_bit() {
        let Some(Level::Avx512) = Level::best() else {
            // A processor has the narrower ones only: nothing to compare.
            return;
        };
        for shape in [(1, 1, 1), (14, 32, 8), (29, 75, 400), (64, 33, 31), (40, 900, 17)] {
            for by_rows in [(true, true), (true, false), (false, true), (false, false)] {
                let wide = product(Level::Avx512, shape, by_rows);
                let narrow = product(Level::Avx2, shape, by_rows);
                assert_eq!(wide, narrow, "{shape:?} {by_rows:?}");
            }
        }
    }
}
