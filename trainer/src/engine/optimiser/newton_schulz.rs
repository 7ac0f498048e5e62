//! Brings a matrix near its closest one with orthonormal rows or columns, by products alone: Newton–Schulz
//! iteration with the quintic of Jordan et al. 2024 (Muon).
//!
//! ```text
//! X ← X / ‖X‖                                    Frobenius norm, so that no singular value is above 1
//! X ← (a I + b G + c G²) X,  G = X Xᵀ           five times, with (a, b, c) = (3.4445, −4.7750, 2.0315)
//! ```
//!
//! and X (a I + b G + c G²) with G = Xᵀ X for a matrix with more rows than columns, so that G has the shorter side
//! r. A singular value above about 0.002 of the norm ends between 0.68 and 1.14; that is all Muon needs, and it is
//! why each product may be rounded to bf16: errors of 2⁻⁸ move a singular value inside that band, and are not amplified
//! from one iteration to the next, as they would be if only G were iterated.
//!
//! G and its polynomial are symmetric: only what lies on and above the diagonal is multiplied, in bands of
//! [`BAND`] rows. With c the longer side that is 5 (3 r² c + r³) multiplications and additions, where whole products
//! take 5 (4 r² c + 2 r³); over a gradient's 6 r c a token, for T tokens, the latter are r (3.3 + 1.7 r / c) / T.

use crate::compute::matmul::{Matrix, MatrixUnit, Part, Right, CUT};
use crate::model::config::Arena;

/// Iterations.
pub(crate) const ITERATIONS: usize = 5;

/// Coefficients of the iteration's polynomial x (a + b x² + c x⁴).
pub(crate) const A: f32 = 3.4445;
pub(crate) const B: f32 = -4.7750;
pub(crate) const C: f32 = 2.0315;

/// Rows of a symmetric product that are multiplied at once.
const BAND: usize = 2 * CUT;

/// Rows and columns that are mirrored at once.
const MIRRORED: usize = 16;

/// How much of a product that is symmetric is multiplied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Symmetric {
    /// What lies on and above the diagonal: 5 (3 r² c + r³) operations a matrix, r ≤ c being its sides. As here.
    Half,
    /// All of it, as large matrix units like it: 5 (4 r² c + 2 r³) operations a matrix.
    Whole,
}

/// Floating-point operations, additions and multiplications each counted as one, of a step's products over all
/// the layers' matrices.
pub fn newton_schulz_flops(arena: &Arena, symmetric: Symmetric) -> f64 {
    let (longs, shorts) = match symmetric {
        Symmetric::Half => (3.0, 1.0),
        Symmetric::Whole => (4.0, 2.0),
    };
    let flops = |shape: &[usize]| {
        let short = shape.iter().copied().min().unwrap_or(0) as f64;
        let long = shape.iter().copied().max().unwrap_or(0) as f64;
        ITERATIONS as f64 * short * short * (longs * long + shorts * short)
    };
    arena.layer_matrices().map(|(_, placed)| flops(&placed.info.shape)).sum()
}

/// Values that one matrix needs while it is worked on, in the order of [`Buffers`].
#[derive(Clone, Copy, Default)]
pub(super) struct Needs {
    matrix: usize,
    square: usize,
    packed: usize,
}

impl Needs {
    pub(super) fn of(rows: usize, columns: usize, unit: MatrixUnit) -> Self {
        let short = rows.min(columns);
        let shapes = [(rows, columns), (columns, rows), (short, short)];
        let packed = shapes.map(|(k, n)| unit.packed(k, n));
        Self {
            matrix: line(rows * columns),
            square: line(short * short),
            packed: line(packed.into_iter().max().unwrap_or(0)),
        }
    }

    /// What suffices for both.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            matrix: self.matrix.max(other.matrix),
            square: self.square.max(other.square),
            packed: self.packed.max(other.packed),
        }
    }

    /// Values in all.
    pub(super) fn len(self) -> usize {
        2 * self.matrix + 2 * self.square + self.packed
    }
}

/// Rounds up to a line of the cache.
fn line(len: usize) -> usize {
    len.next_multiple_of(16)
}

/// The memory of one thread.
pub(super) struct Buffers<'a> {
    /// The matrix, row by row: what is given, and after [`orthogonalise`] the result.
    pub(super) matrix: &'a mut [f32],
    /// The next iteration's.
    next: &'a mut [f32],
    gram: &'a mut [f32],
    polynomial: &'a mut [f32],
    packed: &'a mut [f32],
}

impl<'a> Buffers<'a> {
    /// Cuts `values`, of which there are [`Needs::len`].
    pub(super) fn cut(needs: Needs, values: &'a mut [f32]) -> Self {
        let (matrix, rest) = values.split_at_mut(needs.matrix);
        let (next, rest) = rest.split_at_mut(needs.matrix);
        let (gram, rest) = rest.split_at_mut(needs.square);
        let (polynomial, packed) = rest.split_at_mut(needs.square);
        Self { matrix, next, gram, polynomial, packed }
    }
}

/// Makes `buffers.matrix` (rows, columns), whose norm is at most 1, nearly orthonormal along its shorter side.
pub(super) fn orthogonalise(
    part: &mut Part<'_>,
    buffers: &mut Buffers<'_>,
    (rows, columns): (usize, usize),
) {
    for _ in 0..ITERATIONS {
        let matrix = Matrix::part(buffers.matrix, (rows, columns), (columns, 1));
        let (short, long) = match rows <= columns {
            true => (matrix, matrix.transposed()),
            false => (matrix.transposed(), matrix),
        };
        let side = rows.min(columns);
        let right = part.pack(long, buffers.packed);
        symmetric(part, buffers.gram, short, &right, side, None);
        polynomial(part, buffers.gram, buffers.polynomial, buffers.packed, side);
        let polynomial = Matrix::part(buffers.polynomial, (side, side), (side, 1));
        let (left, right) = match rows <= columns {
            true => (polynomial, matrix),
            false => (matrix, polynomial),
        };
        let right = part.pack(right, buffers.packed);
        part.multiply(buffers.next, left, &right, 0..rows, 0, None);
        std::mem::swap(&mut buffers.matrix, &mut buffers.next);
    }
}

/// `to` ← a I + b G + c G².
fn polynomial(part: &mut Part<'_>, gram: &[f32], to: &mut [f32], packed: &mut [f32], side: usize) {
    let len = side * side;
    for (to, gram) in to[..len].iter_mut().zip(gram) {
        *to = B * gram;
    }
    to[..len].iter_mut().step_by(side + 1).for_each(|diagonal| *diagonal += A);
    let gram = Matrix::part(gram, (side, side), (side, 1));
    let right = part.pack(gram, packed);
    symmetric(part, to, gram, &right, side, Some(C));
}

/// c ← a · b, or c + scale · a · b, for a product that is symmetric; c is (side, side).
fn symmetric(
    part: &mut Part<'_>,
    c: &mut [f32],
    a: Matrix<'_>,
    b: &Right<'_>,
    side: usize,
    added: Option<f32>,
) {
    for first in (0..side).step_by(BAND) {
        let end = side.min(first + BAND);
        part.multiply(c, a, b, first..end, first, added);
        mirror(c, side, first, end);
    }
}

/// Copies rows `first..end` of what is right of column `end` to where it lies mirrored.
fn mirror(c: &mut [f32], side: usize, first: usize, end: usize) {
    let (above, below) = c.split_at_mut(end * side);
    for column in (end..side).step_by(MIRRORED) {
        let columns = column..side.min(column + MIRRORED);
        for row in (first..end).step_by(MIRRORED) {
            let rows = row..end.min(row + MIRRORED);
            for column in columns.clone() {
                let to = &mut below[(column - end) * side..][rows.clone()];
                for (to, row) in to.iter_mut().zip(rows.clone()) {
                    *to = above[row * side + column];
                }
            }
        }
    }
}
