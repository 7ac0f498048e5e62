//! Products of bf16 matrices with f32 sums, each sum's terms in one order whatever the shapes are.
//!
//! Blocks of the result are kept in registers while their terms are added in ascending order; the operands are
//! widened to f32 first, ragged blocks filled up with zeros that only meet results which nobody keeps. Products and
//! sums round each by itself, so that a processor with wider registers gives the same bits.

use trainer::cuda::gpu::{Product, ProductForm, ProductResult};

/// Rows of a block of the result.
const ROWS: usize = 4;
/// Columns of a block of the result.
const COLUMNS: usize = 16;

fn bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// A bf16 matrix as it lies, or turned.
#[derive(Clone, Copy)]
struct Matrix {
    at: *const u16,
    row: usize,
    column: usize,
}

impl Matrix {
    fn new((at, stride): (trainer::cuda::Address, u32), turned: bool) -> Self {
        let at = std::ptr::with_exposed_provenance(at.0 as usize);
        let (row, column) = (stride as usize, 1);
        match turned {
            true => Self { at, row: column, column: row },
            false => Self { at, row, column },
        }
    }

    /// # Safety
    /// The value exists and nobody writes it.
    unsafe fn value(self, row: usize, column: usize) -> f32 {
        // SAFETY: by the caller's promise.
        bf16(unsafe { *self.at.add(row * self.row + column * self.column) })
    }
}

/// Adds the terms of a block: `left` has a term's ROWS values behind another's, `right` its COLUMNS values.
#[inline(always)]
fn sums(left: &[[f32; ROWS]], right: &[[f32; COLUMNS]]) -> [[f32; COLUMNS]; ROWS] {
    let mut sums = [[0.0; COLUMNS]; ROWS];
    for (left, right) in left.iter().zip(right) {
        for (sums, left) in sums.iter_mut().zip(left) {
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum += left * right;
            }
        }
    }
    sums
}

/// [`sums`] with registers of eight values.
///
/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn sums_wide(left: &[[f32; ROWS]], right: &[[f32; COLUMNS]]) -> [[f32; COLUMNS]; ROWS] {
    sums(left, right)
}

fn sums_here(left: &[[f32; ROWS]], right: &[[f32; COLUMNS]]) -> [[f32; COLUMNS]; ROWS] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: it has.
        return unsafe { sums_wide(left, right) };
    }
    sums(left, right)
}

/// Does the product: the terms of each sum are added in ascending order of k, then beta · d once.
///
/// # Safety
/// The matrices lie where the product says, and nobody else touches them.
pub(crate) unsafe fn multiply(product: &Product) {
    let Product { form, m, n, k, .. } = *product;
    let (m, n, k) = (m as usize, n as usize, k as usize);
    let a = Matrix::new(product.a, form == ProductForm::Tn);
    let b = Matrix::new(product.b, form == ProductForm::Nt);
    // Blocks of rows of the left matrix, term after term.
    let mut left = vec![[0.0; ROWS]; m.div_ceil(ROWS) * k];
    for row in 0..m {
        for term in 0..k {
            // SAFETY: by the caller's promise.
            left[row / ROWS * k + term][row % ROWS] = unsafe { a.value(row, term) };
        }
    }
    let mut right = vec![[0.0; COLUMNS]; k];
    for column in (0..n).step_by(COLUMNS) {
        let columns = COLUMNS.min(n - column);
        for (term, right) in right.iter_mut().enumerate() {
            right.fill(0.0);
            for (index, right) in right.iter_mut().enumerate().take(columns) {
                // SAFETY: by the caller's promise.
                *right = unsafe { b.value(term, column + index) };
            }
        }
        for row in (0..m).step_by(ROWS) {
            let block = row / ROWS;
            let sums = sums_here(&left[block * k..(block + 1) * k], &right);
            for (row, sums) in (row..m).zip(&sums) {
                for (column, sum) in (column..n).zip(sums) {
                    // SAFETY: by the caller's promise.
                    unsafe { keep(product, row, column, *sum) };
                }
            }
        }
    }
}

/// Puts one sum into the result.
///
/// # Safety
/// The value is the result's and nobody else touches it.
unsafe fn keep(product: &Product, row: usize, column: usize, sum: f32) {
    let (alpha, beta, (d, stride)) = (product.alpha, product.beta, product.d);
    let index = row * stride as usize + column;
    let with = |before: f32| if beta == 0.0 { alpha * sum } else { alpha * sum + beta * before };
    match product.result {
        // SAFETY: by the caller's promise.
        ProductResult::F32 => unsafe {
            let place = std::ptr::with_exposed_provenance_mut::<f32>(d.0 as usize).add(index);
            *place = with(*place);
        },
        // SAFETY: by the caller's promise.
        ProductResult::Bf16 => unsafe {
            let place = std::ptr::with_exposed_provenance_mut::<u16>(d.0 as usize).add(index);
            *place = half::bf16::from_f32(with(bf16(*place))).to_bits();
        },
    }
}
