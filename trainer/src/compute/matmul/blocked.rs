//! The loops around a product's innermost one, the same for every kind of unit: they cut the operands such that
//! what is used again stays in a cache (Goto and van de Geijn 2008).
//!
//! The inner dimension is cut into depths. Of each, a group of the left matrix's rows is packed into blocks and a
//! chunk of the right one's columns into panels, which fit the second cache together; a block stays in
//! the first cache while the chunk's panels go by. A right matrix that is used often is packed as a whole
//! beforehand ([`pack_panel`]).

use super::view::{Target, View};

/// Bytes of a group of the left matrix.
const LEFT_BYTES: usize = 384 * 1024;

/// Bytes of a chunk of the right matrix.
const RIGHT_BYTES: usize = 768 * 1024;

/// Where everything that is packed starts: at a line of the cache.
const ALIGNMENT: usize = 64;

/// What multiplies a block by a panel, and how it wants them packed. Every function needs the instructions
/// that it belongs to, operands of the size it is told, and that nobody else touches what it writes to.
pub(super) trait Micro {
    /// Rows of a block at most.
    const ROWS: usize;

    /// Columns of a panel.
    const COLUMNS: usize;

    /// Inner values at once at most.
    const DEPTH: usize;

    /// Cuts of the inner dimension are at multiples of this.
    const STEP: usize;

    /// Bytes of scratch that [`Micro::block`] needs.
    const SPARE: usize;

    /// Bytes of a packed block of the left matrix.
    fn left_bytes(depth: usize) -> usize;

    /// Bytes of a packed panel of the right matrix; those of parts that are cut at multiples of
    /// [`Micro::STEP`] add up.
    fn right_bytes(depth: usize) -> usize;

    /// The first row of a block of `rows` rows in all, or the end of the last block.
    fn first_row(rows: usize, block: usize) -> usize;

    /// Whether a left matrix is used where it lies, for `n` columns of the right one.
    fn in_place(left: View<*const f32>, n: usize) -> bool;

    /// Packs `rows` rows of a group, block by block.
    unsafe fn pack_left(from: View<*const f32>, rows: usize, depth: usize, scale: f32, to: *mut u8);

    /// Packs a panel, with zeros for columns that it lacks.
    unsafe fn pack_right(from: View<*const f32>, columns: usize, depth: usize, to: *mut u8);

    /// Multiplies a block by a panel over `depth`.
    unsafe fn block(
        shape: (usize, usize),
        target: Target,
        left: Left,
        right: *const u8,
        depth: usize,
        spare: *mut u8,
    );

    /// What has to be done before and after the blocks of a product.
    unsafe fn start() {}
    unsafe fn end() {}
}

/// A block of the left matrix: packed, or where it lies.
#[derive(Clone, Copy)]
pub(super) enum Left {
    Packed(*const u8),
    InPlace(View<*const f32>),
}

/// Where a right matrix is: in its place, or packed.
#[derive(Clone, Copy)]
pub(super) enum Operand {
    View(View<*const f32>),
    /// Of a packed matrix with `k` rows that starts at `start`, the rows and columns from `place` on: multiples of
    /// [`Micro::STEP`] and of [`Micro::COLUMNS`].
    Packed {
        start: *const f32,
        k: usize,
        place: (usize, usize),
    },
}

/// Values of scratch that [`product`] needs on each thread.
pub(super) const fn scratch<M: Micro>() -> usize {
    (LEFT_BYTES + RIGHT_BYTES + M::SPARE + ALIGNMENT) / 4
}

/// Panels of a matrix with `n` columns.
pub(super) fn panels<M: Micro>(n: usize) -> usize {
    n.div_ceil(M::COLUMNS)
}

/// Values that a packed right matrix (k, n) takes.
pub(super) fn packed_len<M: Micro>(k: usize, n: usize) -> usize {
    panels::<M>(n) * M::right_bytes(k) / 4
}

/// Packs one panel of `b` (k, n) to its place in `packed`, which starts at a line of the cache and holds
/// [`packed_len`].
///
/// # Safety
/// As [`product`]; nobody else may touch that place.
#[inline(always)]
pub(super) unsafe fn pack_panel<M: Micro>(
    (k, n): (usize, usize),
    b: View<*const f32>,
    panel: usize,
    packed: *mut f32,
) {
    let column = panel * M::COLUMNS;
    // SAFETY: by the caller's promise.
    unsafe {
        let to = packed.cast::<u8>().add(panel * M::right_bytes(k));
        M::pack_right(b.offset(0, column), M::COLUMNS.min(n - column), k, to);
    }
}

/// Part `index` of `parts` equal ones of `len`, in whole multiples of `step`: where it starts.
fn cut(len: usize, step: usize, index: usize, parts: usize) -> usize {
    (len.div_ceil(step) * index / parts * step).min(len)
}

/// c (m, n) ← [c +] scale · a (m, k) · b (k, n) on this thread; the columns of `c` lie side by side, and
/// rows or columns of `a` and `b` do.
///
/// # Safety
/// The processor has the unit; the views lie inside live memory, a packed operand is that of a (k, n) matrix, and
/// nobody else touches what `c` covers.
#[inline(always)]
pub(super) unsafe fn product<M: Micro>(
    (m, n, k): (usize, usize, usize),
    target: Target,
    a: View<*const f32>,
    b: Operand,
    scratch: &mut [f32],
) {
    let gaps = |view: View<*const f32>| view.column_stride != 1 && view.row_stride != 1;
    assert!(target.c.column_stride == 1 && !gaps(a), "a matrix with gaps");
    assert!(k > 0, "a product over nothing");
    assert!(scratch.len() >= self::scratch::<M>(), "no room to pack matrices");
    if m == 0 || n == 0 {
        return;
    }
    let start = scratch.as_mut_ptr().cast::<u8>();
    let right = start.wrapping_add(start.align_offset(ALIGNMENT));
    let (left, spare) =
        (right.wrapping_add(RIGHT_BYTES), right.wrapping_add(RIGHT_BYTES + LEFT_BYTES));
    let in_place = M::in_place(a, n);
    let depths = k.div_ceil(M::DEPTH);
    // SAFETY: by the caller's promise; the steps keep to the scratch.
    unsafe {
        M::start();
        for turn in 0..depths {
            let inner = cut(k, M::STEP, turn, depths);
            let depth = cut(k, M::STEP, turn + 1, depths) - inner;
            let chunk = RIGHT_BYTES / M::right_bytes(depth) * M::COLUMNS;
            let group = match in_place {
                true => m,
                false => LEFT_BYTES / M::left_bytes(depth) * M::ROWS,
            };
            let part = Target { accumulate: target.accumulate || turn > 0, ..target };
            let packed_at_once = match b {
                Operand::Packed { .. } => n,
                Operand::View(_) => chunk,
            };
            let mut outer = 0;
            while outer < n {
                let outer_end = n.min(outer + packed_at_once);
                let (panels, panel_step) = match b {
                    Operand::Packed { start, k, place } => {
                        let panel = place.1 / M::COLUMNS * M::right_bytes(k);
                        let skipped = panel + M::right_bytes(place.0 + inner);
                        (start.cast::<u8>().add(skipped), M::right_bytes(k))
                    }
                    Operand::View(b) => {
                        assert!(!gaps(b), "a matrix with gaps");
                        for (index, column) in (outer..outer_end).step_by(M::COLUMNS).enumerate() {
                            let from = b.offset(inner, column);
                            let columns = M::COLUMNS.min(outer_end - column);
                            let to = right.add(index * M::right_bytes(depth));
                            M::pack_right(from, columns, depth, to);
                        }
                        (right.cast_const(), M::right_bytes(depth))
                    }
                };
                for top in (0..m).step_by(group) {
                    let rows = group.min(m - top);
                    if !in_place {
                        M::pack_left(a.offset(top, inner), rows, depth, target.scale, left);
                    }
                    for first in (outer..outer_end).step_by(chunk) {
                        let end = outer_end.min(first + chunk);
                        for block in 0..rows.div_ceil(M::ROWS) {
                            let row = M::first_row(rows, block);
                            let block_rows = M::first_row(rows, block + 1) - row;
                            let left = match in_place {
                                true => Left::InPlace(a.offset(top + row, inner)),
                                false => Left::Packed(left.add(block * M::left_bytes(depth))),
                            };
                            for column in (first..end).step_by(M::COLUMNS) {
                                let columns = M::COLUMNS.min(end - column);
                                let target = Target { c: part.c.offset(top + row, column), ..part };
                                let panel = (column - outer) / M::COLUMNS * panel_step;
                                let right = panels.add(panel);
                                M::block((block_rows, columns), target, left, right, depth, spare);
                            }
                        }
                    }
                }
                outer = outer_end;
            }
        }
        M::end();
    }
}
