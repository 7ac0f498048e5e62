//! Sums and normalises sparse matrices: a row a validator, its entries by uid.

use alloc::{vec, vec::Vec};

use super::number::place;
use crate::{fixed::Q32, Uid};

/// The entries of a validator, by uid, each uid once. One that is absent is not the same as one that is 0.
pub type Row<T> = Vec<(Uid, T)>;

/// The sum, in the order given.
pub(super) fn total(values: impl Iterator<Item = Q32>) -> Q32 {
    values.fold(Q32::ZERO, Q32::saturating_add)
}

/// Divides by the sum; leaves an all-zero vector alone.
pub(super) fn normalise(values: &mut [Q32]) {
    let sum = total(values.iter().copied());
    if sum == Q32::ZERO {
        return;
    }
    for value in values {
        *value = value.div_or_zero(sum);
    }
}

/// A vector divided by its sum; an all-zero one as it is.
pub fn normalised(mut values: Vec<Q32>) -> Vec<Q32> {
    normalise(&mut values);
    values
}

/// Divides a row by its sum; leaves an all-zero row alone.
pub(super) fn normalise_row(row: &mut Row<Q32>) {
    let sum = total(row.iter().map(|(_, value)| *value));
    if sum == Q32::ZERO {
        return;
    }
    for (_, value) in row {
        *value = value.div_or_zero(sum);
    }
}

/// Adds `part` of each entry of a row to its column's sum.
pub(super) fn accumulate_columns(sums: &mut [Q32], row: &Row<Q32>, part: impl Fn(Q32) -> Q32) {
    for (uid, value) in row {
        if let Some(sum) = sums.get_mut(place(*uid)) {
            *sum = sum.saturating_add(part(*value));
        }
    }
}

/// Divides every column by its sum; leaves an all-zero column alone.
pub(super) fn normalise_columns(rows: &mut [Row<Q32>], columns: usize) {
    let mut sums = vec![Q32::ZERO; columns];
    for row in rows.iter() {
        accumulate_columns(&mut sums, row, |value| value);
    }
    divide_columns(rows, &sums);
}

/// Divides every column by its largest entry; leaves an all-zero column alone.
pub(super) fn upscale_columns(rows: &mut [Row<Q32>], columns: usize) {
    let mut largest = vec![Q32::ZERO; columns];
    for (uid, value) in rows.iter().flatten() {
        if let Some(most) = largest.get_mut(place(*uid)) {
            *most = (*most).max(*value);
        }
    }
    divide_columns(rows, &largest);
}

fn divide_columns(rows: &mut [Row<Q32>], divisors: &[Q32]) {
    for (uid, value) in rows.iter_mut().flatten() {
        if let Some(divisor) = divisors.get(place(*uid)).filter(|divisor| **divisor != Q32::ZERO) {
            *value = value.div_or_zero(*divisor);
        }
    }
}
