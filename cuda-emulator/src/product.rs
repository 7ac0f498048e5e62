//! Products of bf16 matrices with f32 sums, each sum's terms in one order whatever the shapes are.

use trainer::cuda::gpu::{Product, ProductForm, ProductResult};

fn bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Does the product: the terms of each sum are added in ascending order of k, then beta · d once.
///
/// # Safety
/// The matrices lie where the product says, and nobody else touches them.
pub(crate) unsafe fn multiply(product: &Product) {
    let Product { form, m, n, k, alpha, beta, .. } = *product;
    let (m, n, k) = (m as usize, n as usize, k as usize);
    let [(a, a_width), (b, b_width), (d, d_width)] =
        [product.a, product.b, product.d].map(|(at, width)| (at.0, width as usize));
    // SAFETY: by the caller's promise.
    let at = |matrix: u64, width: usize, row: usize, column: usize| unsafe {
        bf16(*(matrix as *const u16).add(row * width + column))
    };
    // The right matrix as (k, n), in f32.
    let mut right = vec![0.0f32; k * n];
    for row in 0..k {
        for column in 0..n {
            right[row * n + column] = match form {
                ProductForm::Nt => at(b, b_width, column, row),
                ProductForm::Nn | ProductForm::Tn => at(b, b_width, row, column),
            };
        }
    }
    let mut sums = vec![0.0f32; n];
    for row in 0..m {
        sums.fill(0.0);
        for term in 0..k {
            let left = match form {
                ProductForm::Nt | ProductForm::Nn => at(a, a_width, row, term),
                ProductForm::Tn => at(a, a_width, term, row),
            };
            let right = &right[term * n..(term + 1) * n];
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum += left * right;
            }
        }
        for (column, sum) in sums.iter().enumerate() {
            let index = row * d_width + column;
            // SAFETY: by the caller's promise.
            unsafe {
                match product.result {
                    ProductResult::F32 => {
                        let place = (d as *mut f32).add(index);
                        let before = if beta == 0.0 { 0.0 } else { beta * *place };
                        *place = alpha * sum + before;
                    }
                    ProductResult::Bf16 => {
                        let place = (d as *mut u16).add(index);
                        let before = if beta == 0.0 { 0.0 } else { beta * bf16(*place) };
                        *place = half::bf16::from_f32(alpha * sum + before).to_bits();
                    }
                }
            }
        }
    }
}
