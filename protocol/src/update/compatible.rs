//! Encodes with the four levels of SparseLoCo's reference implementation of 2025, for comparison
//! and for readers of its updates; not part of format 1.
//!
//! It shifts the selected values of a whole tensor by their mean, cuts the range from −3σ to 3σ
//! into four and sends the mean of each quarter, from a table of four numbers. The table makes the
//! code asymmetric, and the two outer quarters (beyond 1.5σ) are nearly empty after a selection.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "floating point, and a table of four indexed by a number masked to two bits"
)]

/// The selected values of a tensor in four levels.
#[derive(Clone, PartialEq, Debug)]
pub struct CompatibleCode {
    /// Mean of the selected values.
    pub shift: f32,
    /// Width of a quarter: 1.5 standard deviations.
    pub scale: f32,
    /// The quarter of each value, 0 to 3.
    pub codes: Vec<u8>,
    /// Mean of the shifted values of each quarter, 0 for an empty one.
    pub centroids: [f32; 4],
}

impl CompatibleCode {
    /// Codes `values`, all selected values of one tensor in order. The sums are in `f64`.
    ///
    /// With fewer than two values, or all equal, the scale is 0 and every code 2.
    pub fn quantise(values: &[f32]) -> Self {
        let count = values.len() as f64;
        let shift = if values.is_empty() {
            0.0
        } else {
            values.iter().map(|value| f64::from(*value)).sum::<f64>() / count
        };
        let squares: f64 = values.iter().map(|value| (f64::from(*value) - shift).powi(2)).sum();
        let sigma = if values.len() < 2 { 0.0 } else { squares.sqrt() / (count - 1.0).sqrt() };
        let scale = 1.5 * sigma;
        let code = |value: &f32| {
            if scale > 0.0 {
                let quarter = (f64::from(*value) - shift) / scale + 2.0;
                quarter.round_ties_even().clamp(0.0, 3.0) as u8
            } else {
                2
            }
        };
        let codes: Vec<u8> = values.iter().map(code).collect();
        let mut sums = [0.0f64; 4];
        let mut counts = [0.0f64; 4];
        for (value, code) in values.iter().zip(&codes) {
            sums[usize::from(*code & 3)] += f64::from(*value) - shift;
            counts[usize::from(*code & 3)] += 1.0;
        }
        let mut centroids = [0.0f32; 4];
        for ((centroid, sum), count) in centroids.iter_mut().zip(sums).zip(counts) {
            *centroid = if count > 0.0 { (sum / count) as f32 } else { 0.0 };
        }
        Self { shift: shift as f32, scale: scale as f32, codes, centroids }
    }

    /// The values that are sent, in the order of the codes.
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        self.codes.iter().map(|code| self.centroids[usize::from(*code & 3)] + self.shift)
    }
}
