//! Products of `f32` matrices on the matrix unit of recent Intel processors (AMX), which multiplies
//! bf16 only but is 18 times as fast as the vector unit.
//!
//! A value of 24 significant bits is the exact sum of three bf16 values of 8 bits each, cut off one
//! after the other: x = x₁ + x₂ + x₃ with |x₂| ≤ 2⁻⁷ |x| and |x₃| ≤ 2⁻¹⁵ |x|. Of the nine products of
//! parts, six are computed; the three left out, x₂ y₃, x₃ y₂ and x₃ y₃, are below 2⁻²¹ |x y| and
//! typically 2⁻²⁴, the rounding error of `f32` itself. The unit sums in `f32`. So the
//! result is as exact as a plain `f32` product, which the tests check against `f64`; it differs from it
//! for values below 2⁻¹¹⁰, whose last parts are denormal and taken for zero, and for infinities,
//! which become NaN.
//!
//! A tile is 16 rows of 64 bytes. The left matrix's are 16 rows of 32 values along the inner dimension;
//! the right one's 16 pairs along the inner dimension of 16 columns. Both are packed in blocks of 32
//! rows or columns, as `[inner tile][part][tile of two]`.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use super::View;

/// Rows of a tile, and columns of results and of the right matrix.
const TILE: usize = 16;

/// Values of a tile along the inner dimension.
const TILE_INNER: usize = 32;

/// bf16 values that a value is split into.
const PARTS: usize = 3;

/// Bytes of a tile.
const TILE_BYTES: usize = 1024;

/// Rows and columns of the result that are computed at once: 2 by 2 tiles.
const BLOCK: usize = 2 * TILE;

/// Bytes of one inner tile of a packed block: its parts of two tiles.
const STEP_BYTES: usize = PARTS * 2 * TILE_BYTES;

/// Values of the left matrix that are packed at once: 384 KiB, which leaves most of the second cache to
/// the right one and the result.
const LEFT: usize = 256 * 256;

/// Values of the right matrix that are packed at once, where it is not packed beforehand.
const RIGHT: usize = 512 * 256;

/// Columns of the right matrix that are packed at once, at most where the inner dimension is long.
const COLUMNS: usize = 256;

/// Rows of the left matrix that are packed for a right one that is packed already.
const ROWS: usize = 256;

const PART_BYTES: usize = 2;
const LEFT_BYTES: usize = LEFT * PARTS * PART_BYTES;
const RIGHT_BYTES: usize = RIGHT * PARTS * PART_BYTES;
const RESULT_BYTES: usize = BLOCK * BLOCK * 4;
const ALIGNMENT: usize = 64;

/// Values of scratch that [`product`] and [`packed_product`] need on each thread.
pub(super) const SCRATCH: usize = (LEFT_BYTES + RIGHT_BYTES + RESULT_BYTES + ALIGNMENT) / 4;

/// Values of four bytes that a packed right matrix (k, n) takes.
pub(super) fn packed_len(k: usize, n: usize) -> usize {
    n.div_ceil(BLOCK) * column_bytes(k) / 4
}

/// Bytes of one packed block of columns over the whole inner dimension.
fn column_bytes(k: usize) -> usize {
    k.div_ceil(TILE_INNER) * STEP_BYTES
}

/// Whether this processor has the unit and the operating system lets this process use it, which it is
/// asked for once.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        vectors && in_processor() && permitted()
    })
}

/// Whether the processor lists AMX-TILE and AMX-BF16 (CPUID leaf 7, Intel SDM volume 2A).
fn in_processor() -> bool {
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & (BF16 | TILES) == BF16 | TILES
}

/// Asks Linux for the tiles' registers, which it saves only for processes that have asked.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        ) == 0
    }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The operand of `ldtilecfg`: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfig([u8; 64]);

const TILES: TileConfig = {
    let mut config = [0u8; 64];
    config[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        config[16 + 2 * tile] = 64;
        config[48 + tile] = TILE as u8;
        tile += 1;
    }
    TileConfig(config)
};

/// The scratch's three regions: packed left matrix, packed right matrix, one block of the result.
struct Scratch {
    left: *mut u8,
    right: *mut u8,
    result: *mut f32,
}

impl Scratch {
    fn new(scratch: &mut [f32]) -> Self {
        assert!(scratch.len() >= SCRATCH, "no room to pack matrices");
        let start = scratch.as_mut_ptr().cast::<u8>();
        let left = start.wrapping_add(start.align_offset(ALIGNMENT));
        let right = left.wrapping_add(LEFT_BYTES);
        Self {
            left,
            right,
            result: right.wrapping_add(RIGHT_BYTES).cast(),
        }
    }
}

/// c (m, n) ← [c +] scale · a (m, k) · b (k, n) on this thread; the columns of `c` lie side by side, and
/// rows or columns of `a` and `b` do.
///
/// # Safety
/// [`available`] must have said so; the views must lie inside live memory, and nobody else may touch
/// what `c` covers.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn product(
    (m, n, k): (usize, usize, usize),
    c: View<*mut f32>,
    a: View<*const f32>,
    b: View<*const f32>,
    scale: f32,
    accumulate: bool,
    scratch: &mut [f32],
) {
    assert!(c.column_stride == 1, "a result whose columns lie apart");
    let scratch = Scratch::new(scratch);
    if n == 0 {
        return;
    }
    let width = n.next_multiple_of(BLOCK);
    let inner_step = (RIGHT / COLUMNS.min(width)).min(LEFT / BLOCK);
    let inner_step = (inner_step / TILE_INNER * TILE_INNER).min(k.next_multiple_of(TILE_INNER));
    let column_step = (RIGHT / inner_step.max(1) / BLOCK * BLOCK).min(width);
    // SAFETY: by the caller's promise; the steps keep to the scratch.
    unsafe {
        configure();
        for column in (0..n).step_by(column_step) {
            let columns = column_step.min(n - column);
            for inner in (0..k).step_by(inner_step) {
                let depth = inner_step.min(k - inner);
                for block in (0..columns).step_by(BLOCK) {
                    let from = b.offset(inner, column + block).transposed();
                    let to = scratch.right.add(block / BLOCK * column_bytes(depth));
                    pack::<false>(from, BLOCK.min(columns - block), depth, 1.0, to);
                }
                for row in (0..m).step_by(BLOCK) {
                    let rows = BLOCK.min(m - row);
                    pack::<true>(a.offset(row, inner), rows, depth, scale, scratch.left);
                    for block in (0..columns).step_by(BLOCK) {
                        let shape = (rows, BLOCK.min(columns - block));
                        let c = c.offset(row, column + block);
                        let right = scratch.right.add(block / BLOCK * column_bytes(depth));
                        let add = accumulate || inner > 0;
                        let steps = depth.div_ceil(TILE_INNER);
                        block_product(shape, c, scratch.left, right, steps, add, scratch.result);
                    }
                }
            }
        }
        release();
    }
}

/// Packs block `block` of the columns of `b` (k, n) to its place in `packed`, which starts at a multiple
/// of 64 bytes and holds [`packed_len`].
///
/// # Safety
/// As [`product`]; nobody else may touch that place.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn pack_columns(
    (k, n): (usize, usize),
    b: View<*const f32>,
    block: usize,
    packed: *mut f32,
) {
    let column = block * BLOCK;
    let columns = BLOCK.min(n - column);
    // SAFETY: by the caller's promise.
    unsafe {
        let to = packed.cast::<u8>().add(block * column_bytes(k));
        pack::<false>(b.offset(0, column).transposed(), columns, k, 1.0, to);
    }
}

/// Blocks of columns that [`pack_columns`] packs.
pub(super) fn blocks(n: usize) -> usize {
    n.div_ceil(BLOCK)
}

/// [`product`] with a right matrix that is packed already.
///
/// # Safety
/// As [`product`]; `packed` holds all blocks of a (k, n) matrix.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn packed_product(
    (m, n, k): (usize, usize, usize),
    c: View<*mut f32>,
    a: View<*const f32>,
    packed: *const f32,
    accumulate: bool,
    scratch: &mut [f32],
) {
    assert!(c.column_stride == 1, "a result whose columns lie apart");
    let scratch = Scratch::new(scratch);
    const INNER: usize = LEFT / ROWS;
    // SAFETY: by the caller's promise; the steps keep to the scratch.
    unsafe {
        configure();
        for top in (0..m).step_by(ROWS) {
            let band = ROWS.min(m - top);
            for inner in (0..k).step_by(INNER) {
                let depth = INNER.min(k - inner);
                let steps = depth.div_ceil(TILE_INNER);
                for row in (0..band).step_by(BLOCK) {
                    let to = scratch.left.add(row / BLOCK * steps * STEP_BYTES);
                    let from = a.offset(top + row, inner);
                    pack::<true>(from, BLOCK.min(band - row), depth, 1.0, to);
                }
                for row in (0..band).step_by(BLOCK) {
                    for column in (0..n).step_by(BLOCK) {
                        let right = packed.cast::<u8>().add(
                            column / BLOCK * column_bytes(k) + inner / TILE_INNER * STEP_BYTES,
                        );
                        let shape = (BLOCK.min(band - row), BLOCK.min(n - column));
                        let c = c.offset(top + row, column);
                        let left = scratch.left.add(row / BLOCK * steps * STEP_BYTES);
                        let add = accumulate || inner > 0;
                        block_product(shape, c, left, right, steps, add, scratch.result);
                    }
                }
            }
        }
        release();
    }
}

/// Configures the tiles of this thread.
///
/// # Safety
/// [`available`] must have said so.
#[inline(always)]
unsafe fn configure() {
    // SAFETY: the operand is a configuration of 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &TILES, options(nostack, readonly)) }
}

/// Gives the tiles back, so that a change of threads need not save them.
///
/// # Safety
/// As [`configure`].
#[inline(always)]
unsafe fn release() {
    // SAFETY: no tile is in use any more.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// One block of the result; one that is not whole goes through `spare`.
///
/// # Safety
/// As [`product`]; `left` and `right` are packed, `spare` holds a whole block.
#[inline(always)]
unsafe fn block_product(
    (rows, columns): (usize, usize),
    c: View<*mut f32>,
    left: *const u8,
    right: *const u8,
    steps: usize,
    add: bool,
    spare: *mut f32,
) {
    // SAFETY: by the caller's promise; only `rows` by `columns` of `c` are touched.
    unsafe {
        if (rows, columns) == (BLOCK, BLOCK) {
            return tiles_product(c.start, c.row_stride * 4, left, right, steps, add);
        }
        // The way through `spare` changes no bit: what is there is added in the same order.
        let row_of_c = |row: usize| c.start.add(row * c.row_stride);
        if add {
            for row in 0..rows {
                let to = std::slice::from_raw_parts_mut(spare.add(row * BLOCK), columns);
                to.copy_from_slice(std::slice::from_raw_parts(row_of_c(row), columns));
            }
        }
        tiles_product(spare, BLOCK * 4, left, right, steps, add);
        for row in 0..rows {
            let to = std::slice::from_raw_parts_mut(row_of_c(row), columns);
            to.copy_from_slice(std::slice::from_raw_parts(spare.add(row * BLOCK), columns));
        }
    }
}

/// A whole block of the result in four tiles, over `steps` inner tiles.
///
/// # Safety
/// As [`block_product`], and the tiles are configured.
#[inline(always)]
unsafe fn tiles_product(
    c: *mut f32,
    stride: usize,
    left: *const u8,
    right: *const u8,
    steps: usize,
    add: bool,
) {
    // SAFETY: by the caller's promise; no tile is used by the compiler.
    unsafe {
        let below = c.byte_add(TILE * stride);
        if add {
            asm!(
                "tileloadd tmm0, [{c} + {s}]",
                "tileloadd tmm1, [{c} + {s} + 64]",
                "tileloadd tmm2, [{below} + {s}]",
                "tileloadd tmm3, [{below} + {s} + 64]",
                c = in(reg) c, below = in(reg) below, s = in(reg) stride,
                options(nostack, readonly),
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, nomem),
            );
        }
        // Left parts in tmm4 and tmm5, right ones in tmm6 and tmm7; a step's parts of a tile lie
        // 2048 bytes apart.
        asm!(
            "2:",
            "tileloadd tmm4, [{a} + {s}]",
            "tileloadd tmm6, [{b} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {s} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{a} + {s} + 4096]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {s} + 5120]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{a} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {s} + 3072]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm6, [{b} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{a} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {s} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm6, [{b} + {s} + 4096]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 5120]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, {step}",
            "add {b}, {step}",
            "dec {steps}",
            "jnz 2b",
            a = inout(reg) left => _, b = inout(reg) right => _, s = in(reg) TILE_BYTES / TILE,
            steps = inout(reg) steps => _, step = const STEP_BYTES,
            options(nostack, readonly),
        );
        asm!(
            "tilestored [{c} + {s}], tmm0",
            "tilestored [{c} + {s} + 64], tmm1",
            "tilestored [{below} + {s}], tmm2",
            "tilestored [{below} + {s} + 64], tmm3",
            c = in(reg) c, below = in(reg) below, s = in(reg) stride,
            options(nostack),
        );
    }
}

/// Packs `rows` rows of `from` over `depth` of the inner dimension, which its columns are, with zeros
/// up to whole tiles. `LEFT` rows stay rows of a tile; else they become its columns.
///
/// # Safety
/// The view must cover that many rows and columns; `to` has room for them.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack<const LEFT: bool>(
    from: View<*const f32>,
    rows: usize,
    depth: usize,
    scale: f32,
    to: *mut u8,
) {
    let along = from.column_stride == 1;
    assert!(along || from.row_stride == 1, "a matrix with gaps");
    for inner in (0..depth).step_by(TILE_INNER) {
        for tile in 0..2 {
            let row = (tile * TILE).min(rows);
            let (count, depth) = (TILE.min(rows - row), TILE_INNER.min(depth - inner));
            // SAFETY: by the caller's promise.
            unsafe {
                let from = from.offset(row, inner);
                let to = to.add(inner / TILE_INNER * STEP_BYTES + tile * TILE_BYTES);
                if along {
                    split_along(from.start, from.row_stride, count, depth, scale, to);
                } else {
                    split_across(from.start, from.column_stride, count, depth, scale, to);
                }
                if along != LEFT {
                    for part in 0..PARTS {
                        transpose(to.add(part * 2 * TILE_BYTES));
                    }
                }
            }
        }
    }
}

/// The mask of the first `count` of 16 lanes.
fn first_lanes(count: usize) -> __mmask16 {
    ((1u32 << count.min(16)) - 1) as __mmask16
}

/// The three parts of each value, as bf16 in the upper halves; the lower ones are zero, also where the last
/// part is denormal and had more bits.
#[target_feature(enable = "avx512f,avx512bw")]
fn parts(x: __m512) -> [__m512i; PARTS] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let cut = |x: __m512| _mm512_and_si512(_mm512_castps_si512(x), upper);
    let first = cut(x);
    let rest = _mm512_sub_ps(x, _mm512_castsi512_ps(first));
    let second = cut(rest);
    let third = _mm512_sub_ps(rest, _mm512_castsi512_ps(second));
    [first, second, cut(third)]
}

/// Splits `rows` rows of `depth` values that lie side by side, `stride` from row to row: pairs of
/// neighbours become words of a tile's row.
///
/// # Safety
/// The source has those values; `to` has room for a tile in each part.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn split_along(
    from: *const f32,
    stride: usize,
    rows: usize,
    depth: usize,
    scale: f32,
    to: *mut u8,
) {
    const UPPER_HALVES: [u16; 32] = {
        let mut places = [0; 32];
        let mut index = 0;
        while index < 32 {
            places[index] = 2 * index as u16 + 1;
            index += 1;
        }
        places
    };
    let masks = [first_lanes(depth), first_lanes(depth.saturating_sub(16))];
    let scale = _mm512_set1_ps(scale);
    // SAFETY: masked lanes are not read; the rest by the caller's promise.
    unsafe {
        let halves = _mm512_loadu_si512(UPPER_HALVES.as_ptr().cast());
        for row in 0..TILE {
            let to = to.add(row * 64);
            let mut split = [_mm512_setzero_si512(); PARTS];
            if row < rows {
                let from = from.add(row * stride);
                let low = _mm512_maskz_loadu_ps(masks[0], from);
                let high = _mm512_maskz_loadu_ps(masks[1], from.wrapping_add(16));
                let low = parts(_mm512_mul_ps(low, scale));
                let high = parts(_mm512_mul_ps(high, scale));
                for part in 0..PARTS {
                    split[part] = _mm512_permutex2var_epi16(low[part], halves, high[part]);
                }
            }
            for (part, split) in split.into_iter().enumerate() {
                _mm512_store_si512(to.add(part * 2 * TILE_BYTES).cast(), split);
            }
        }
    }
}

/// Splits `depth` rows of `columns` values that lie side by side, `stride` from row to row: values of
/// two rows, one below the other, become the words of a tile's row.
///
/// # Safety
/// As [`split_along`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn split_across(
    from: *const f32,
    stride: usize,
    columns: usize,
    depth: usize,
    scale: f32,
    to: *mut u8,
) {
    let mask = first_lanes(columns);
    let scale = _mm512_set1_ps(scale);
    // SAFETY: masked lanes are not read; the rest by the caller's promise.
    unsafe {
        let load = |row: usize| match row < depth {
            true => _mm512_maskz_loadu_ps(mask, from.add(row * stride)),
            false => _mm512_setzero_ps(),
        };
        for pair in 0..TILE {
            let upper = parts(_mm512_mul_ps(load(2 * pair), scale));
            let lower = parts(_mm512_mul_ps(load(2 * pair + 1), scale));
            for part in 0..PARTS {
                let words = _mm512_or_si512(_mm512_srli_epi32::<16>(upper[part]), lower[part]);
                let to = to.add(part * 2 * TILE_BYTES + pair * 64);
                _mm512_store_si512(to.cast(), words);
            }
        }
    }
}

/// Transposes a tile of 16 by 16 pairs of words in place.
///
/// # Safety
/// `tile` has room for a tile, at a multiple of 64.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn transpose(tile: *mut u8) {
    let place = |row: usize| tile.wrapping_add(row * 64).cast::<__m512i>();
    // SAFETY: by the caller's promise.
    let load = |row: usize| unsafe { _mm512_load_si512(place(row).cast_const()) };
    let mut rows = [_mm512_setzero_si512(); TILE];
    // Within each group of four rows, 4 by 4 pairs are transposed in each quarter of a row.
    for group in (0..TILE).step_by(4) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|row| load(group + row));
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        rows[group] = _mm512_unpacklo_epi64(ab_low, cd_low);
        rows[group + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
        rows[group + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
        rows[group + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
    // Then the quarters themselves: row 4 q + i of the result is quarter q of row i of each group.
    for i in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|group| rows[group + i]);
        let (ab_low, ab_high) = (
            _mm512_shuffle_i32x4::<0x44>(a, b),
            _mm512_shuffle_i32x4::<0xee>(a, b),
        );
        let (cd_low, cd_high) = (
            _mm512_shuffle_i32x4::<0x44>(c, d),
            _mm512_shuffle_i32x4::<0xee>(c, d),
        );
        let quarters = [
            _mm512_shuffle_i32x4::<0x88>(ab_low, cd_low),
            _mm512_shuffle_i32x4::<0xdd>(ab_low, cd_low),
            _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
            _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high),
        ];
        for (quarter, row) in quarters.into_iter().enumerate() {
            // SAFETY: by the caller's promise.
            unsafe { _mm512_store_si512(place(4 * quarter + i), row) };
        }
    }
}
