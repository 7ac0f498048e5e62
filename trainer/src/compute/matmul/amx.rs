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

use super::blocked::{self, Left, Micro, Operand};
use super::vector::{first_lanes, transpose};
use super::view::{Target, View};

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

/// Inner values that are summed in tiles before the result is touched.
const DEPTH: usize = 128;

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
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
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

/// [`blocked::product`].
///
/// # Safety
/// As there; [`available`] must have said so.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn product(
    shape: (usize, usize, usize),
    target: Target,
    a: View<*const f32>,
    b: Operand,
    scratch: &mut [f32],
) {
    // SAFETY: by the caller's promise.
    unsafe { blocked::product::<Tiles>(shape, target, a, b, scratch) }
}

/// [`blocked::pack_panel`].
///
/// # Safety
/// As there; [`available`] must have said so.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn pack_panel(
    shape: (usize, usize),
    b: View<*const f32>,
    panel: usize,
    packed: *mut f32,
) {
    // SAFETY: by the caller's promise.
    unsafe { blocked::pack_panel::<Tiles>(shape, b, panel, packed) }
}

/// Blocks of 2 by 2 tiles.
pub(super) struct Tiles;

impl Micro for Tiles {
    const ROWS: usize = BLOCK;
    const COLUMNS: usize = BLOCK;
    const DEPTH: usize = DEPTH;
    const STEP: usize = TILE_INNER;
    const SPARE: usize = BLOCK * BLOCK * 4;

    fn in_place(_: View<*const f32>, _: usize) -> bool {
        false
    }

    fn left_bytes(depth: usize) -> usize {
        depth.div_ceil(TILE_INNER) * STEP_BYTES
    }

    fn right_bytes(depth: usize) -> usize {
        depth.div_ceil(TILE_INNER) * STEP_BYTES
    }

    fn first_row(rows: usize, block: usize) -> usize {
        rows.min(block * BLOCK)
    }

    #[inline(always)]
    unsafe fn pack_left(
        from: View<*const f32>,
        rows: usize,
        depth: usize,
        scale: f32,
        to: *mut u8,
    ) {
        // SAFETY: by the caller's promise.
        unsafe { pack::<true>(from, rows, depth, scale, to) }
    }

    #[inline(always)]
    unsafe fn pack_right(from: View<*const f32>, columns: usize, depth: usize, to: *mut u8) {
        // SAFETY: by the caller's promise.
        unsafe { pack::<false>(from.transposed(), columns, depth, 1.0, to) }
    }

    /// One block of the result; one that is not whole goes through `spare`.
    #[inline(always)]
    unsafe fn block(
        (rows, columns): (usize, usize),
        Target { c, accumulate, .. }: Target,
        left: Left,
        right: *const u8,
        depth: usize,
        spare: *mut u8,
    ) {
        let Left::Packed(left) = left else {
            unreachable!("tiles are packed");
        };
        let (steps, spare) = (depth.div_ceil(TILE_INNER), spare.cast::<f32>());
        // SAFETY: by the caller's promise; only `rows` by `columns` of `c` are touched.
        unsafe {
            if (rows, columns) == (BLOCK, BLOCK) {
                return tiles_product(c.start, c.row_stride * 4, left, right, steps, accumulate);
            }
            // The way through `spare` changes no bit: what is there is added in the same order.
            let row_of_c = |row: usize| c.start.add(row * c.row_stride);
            if accumulate {
                for row in 0..rows {
                    let to = std::slice::from_raw_parts_mut(spare.add(row * BLOCK), columns);
                    to.copy_from_slice(std::slice::from_raw_parts(row_of_c(row), columns));
                }
            }
            tiles_product(spare, BLOCK * 4, left, right, steps, accumulate);
            for row in 0..rows {
                let to = std::slice::from_raw_parts_mut(row_of_c(row), columns);
                to.copy_from_slice(std::slice::from_raw_parts(spare.add(row * BLOCK), columns));
            }
        }
    }

    #[inline(always)]
    unsafe fn start() {
        // SAFETY: by the caller's promise.
        unsafe { configure() }
    }

    #[inline(always)]
    unsafe fn end() {
        // SAFETY: by the caller's promise.
        unsafe { release() }
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

/// A whole block of the result in four tiles, over `steps` inner tiles.
///
/// # Safety
/// As [`Micro::block`], and the tiles are configured.
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

/// Packs `rows` rows of `from` over `depth` of the inner dimension, which its columns are, in blocks
/// with zeros up to whole ones. `LEFT` rows stay rows of a tile; else they become its columns.
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
    let block_bytes = depth.div_ceil(TILE_INNER) * STEP_BYTES;
    // In the order of memory, as far as there is one.
    for inner in (0..depth).step_by(TILE_INNER) {
        for tile in 0..rows.next_multiple_of(BLOCK) / TILE {
            let row = (tile * TILE).min(rows);
            let (count, depth) = (TILE.min(rows - row), TILE_INNER.min(depth - inner));
            let place = tile / 2 * block_bytes + inner / TILE_INNER * STEP_BYTES;
            // SAFETY: by the caller's promise.
            unsafe {
                let from = from.offset(row, inner);
                let to = to.add(place + tile % 2 * TILE_BYTES);
                if along {
                    split_along(from.start, from.row_stride, count, depth, scale, to);
                } else {
                    split_across(from.start, from.column_stride, count, depth, scale, to);
                }
                if along != LEFT {
                    for part in 0..PARTS {
                        transpose_tile(to.add(part * 2 * TILE_BYTES));
                    }
                }
            }
        }
    }
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
unsafe fn transpose_tile(tile: *mut u8) {
    let place = |row: usize| tile.wrapping_add(row * 64).cast::<__m512i>();
    // SAFETY: by the caller's promise.
    unsafe {
        let rows = std::array::from_fn(|row| _mm512_load_si512(place(row).cast_const()));
        for (row, values) in transpose(rows).into_iter().enumerate() {
            _mm512_store_si512(place(row), values);
        }
    }
}
