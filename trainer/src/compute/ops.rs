//! The elementwise and row-wise operations of the model, forward and backward, on one thread.
//!
//! Each is a plain loop that the compiler vectorises, compiled three times (for any x86-64, for
//! AVX2 and for AVX-512) and chosen at run time. Rust never fuses a product with a sum, so all
//! three give the same bits. Sums over a row run over 16 partial sums, which fixes their
//! order whatever the width of the vectors.
//!
//! Matrices are row-major. `rows` is never a parameter: it follows from the lengths.

/// Partial sums of a reduction.
const LANES: usize = 16;

/// Values that one task takes of a pass over all parameters.
pub(crate) const BLOCK: usize = 16 * 1024;

/// Compiles a function for the instruction sets that matter and calls the best one there is.
macro_rules! multiversion {
    ($(#[$meta:meta])* pub fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?
     $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "buffers that a caller has laid out")]
        pub fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "as above")]
            fn body($($arg: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
                #[allow(clippy::too_many_arguments, reason = "as above")]
                fn with_avx512($($arg: $type),*) $(-> $result)? {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                #[allow(clippy::too_many_arguments, reason = "as above")]
                fn with_avx2($($arg: $type),*) $(-> $result)? {
                    body($($arg),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor has been asked.
                    return unsafe { with_avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has been asked.
                    return unsafe { with_avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// Σ f(i) over `0..len` in 16 partial sums.
#[inline(always)]
fn lane_sum(len: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let whole = len - len % LANES;
    let mut start = 0;
    while start < whole {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
        start += LANES;
    }
    for index in whole..len {
        sums[index - whole] += f(index);
    }
    fold(sums, |a, b| a + b)
}

/// Halves the lanes until one is left.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = f(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest of `values`, −∞ for none.
#[inline(always)]
fn lane_max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let whole = values.len() - values.len() % LANES;
    for part in values[..whole].chunks_exact(LANES) {
        for (lane, value) in lanes.iter_mut().zip(part) {
            *lane = larger(*lane, *value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(&values[whole..]) {
        *lane = larger(*lane, *value);
    }
    fold(lanes, larger)
}

/// e^x to about 2 units in the last place for −87 ≤ x ≤ 88, clamped outside, without a table or a
/// branch, so that loops over it vectorise.
///
/// x = n · ln 2 + r with |r| ≤ ln 2 / 2; ln 2 in two parts (Cody and Waite), e^r by the polynomial
/// of Cephes' `expf`, 2^n by adding to the exponent's bits.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// 1.5 · 2^23: adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > -87.0 { x } else { -87.0 };
    let x = if x < 88.0 { x } else { 88.0 };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    p = p * (r * r) + r + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

multiversion! {
/// RMSNorm: y = x · w / √(mean(x²) + ε), row by row; keeps `1 / √…` of each row in `inverse`.
///
/// `x`, `y`: (rows, w.len()); `inverse`: (rows).
pub fn rms_norm(x: &[f32], w: &[f32], epsilon: f32, y: &mut [f32], inverse: &mut [f32]) {
    let width = w.len();
    let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
    for ((x, y), inverse) in rows.zip(inverse) {
        let squares = lane_sum(width, |i| x[i] * x[i]);
        let scale = 1.0 / (squares / width as f32 + epsilon).sqrt();
        *inverse = scale;
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            *y = x * scale * w;
        }
    }
}
}

multiversion! {
/// RMSNorm again from what the forward pass kept: y = x · w · inverse.
pub fn rms_norm_again(x: &[f32], w: &[f32], inverse: &[f32], y: &mut [f32]) {
    let width = w.len();
    let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
    for ((x, y), scale) in rows.zip(inverse) {
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            *y = x * scale * w;
        }
    }
}
}

multiversion! {
/// RMSNorm backward: adds to `dx` (or, if `!accumulate`, writes) and adds to `dw`.
///
/// With s = inverse: dx = s · w · dy − x · s³ / width · Σ(dy · w · x); dw = Σ over rows of dy · x · s.
pub fn rms_norm_backward(
    x: &[f32],
    w: &[f32],
    inverse: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dw: &mut [f32],
    accumulate: bool,
) {
    let width = w.len();
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
    for (((x, dy), dx), scale) in rows.zip(inverse) {
        let (x, dy, dx) = (&x[..width], &dy[..width], &mut dx[..width]);
        let dw = &mut dw[..width];
        let w = &w[..width];
        let dot = lane_sum(width, |i| dy[i] * w[i] * x[i]);
        let along = dot * scale * scale * scale / width as f32;
        if !accumulate {
            dx.fill(0.0);
        }
        for i in 0..width {
            dx[i] += scale * w[i] * dy[i] - x[i] * along;
            dw[i] += dy[i] * x[i] * scale;
        }
    }
}
}

multiversion! {
/// Rotary positions on the first `heads` heads of each row, in place, the pairs being columns i
/// and i + head_dim / 2 as in Hugging Face's LLaMA. Row r of `x` has position
/// (first_row + r) mod seq_len.
///
/// `x`: (rows, width); `cos`, `sin`: (seq_len, head_dim / 2). With `sin` negated it turns back,
/// which is the backward pass: `direction` is 1 or −1.
pub fn rope(
    x: &mut [f32],
    width: usize,
    heads: usize,
    first_row: usize,
    cos: &[f32],
    sin: &[f32],
    half: usize,
    direction: f32,
) {
    let seq_len = cos.len() / half;
    for (row, x) in x.chunks_exact_mut(width).enumerate() {
        let position = (first_row + row) % seq_len;
        let cos = &cos[position * half..][..half];
        let sin = &sin[position * half..][..half];
        for head in x.chunks_exact_mut(2 * half).take(heads) {
            let (low, high) = head.split_at_mut(half);
            let high = &mut high[..half];
            for i in 0..half {
                let turned = sin[i] * direction;
                let (a, b) = (low[i], high[i]);
                low[i] = a * cos[i] - b * turned;
                high[i] = b * cos[i] + a * turned;
            }
        }
    }
}
}

/// The columns that row `row` of a block of scores sees: (first, end). The block's first column has
/// position `from` in the sample, its row 0 has position `first`.
#[inline(always)]
fn seen(starts: &[u32], row: usize, (from, first): (usize, usize)) -> (usize, usize) {
    (starts[row] as usize - from, first + row + 1 - from)
}

multiversion! {
/// Causal softmax of a block of scores, in place; a row sees the columns from the start of its
/// document up to itself, the others become 0. Keeps the logarithm of each row's sum of
/// exponentials.
///
/// `scores`: (rows, width); `starts` (where each row's document starts in the sample, ascending) and
/// `log_sums`: (rows). Of `place`, the first is column 0's position in the sample, `starts[0]` at most, and the
/// second row 0's.
pub fn causal_softmax(
    scores: &mut [f32],
    width: usize,
    starts: &[u32],
    place: (usize, usize),
    log_sums: &mut [f32],
) {
    for (row, (scores, log_sum)) in scores.chunks_exact_mut(width).zip(log_sums).enumerate() {
        let (from, end) = seen(starts, row, place);
        scores[end..].fill(0.0);
        scores[..from].fill(0.0);
        let seen = &mut scores[from..end];
        let max = lane_max(seen);
        for score in seen.iter_mut() {
            *score = exp(*score - max);
        }
        let sum = lane_sum(seen.len(), |i| seen[i]);
        let scale = 1.0 / sum;
        for score in seen.iter_mut() {
            *score *= scale;
        }
        *log_sum = max + sum.ln();
    }
}
}

multiversion! {
/// The probabilities of [`causal_softmax`] again, from the scores and the kept logarithms.
pub fn causal_softmax_again(
    scores: &mut [f32],
    width: usize,
    starts: &[u32],
    place: (usize, usize),
    log_sums: &[f32],
) {
    for (row, (scores, log_sum)) in scores.chunks_exact_mut(width).zip(log_sums).enumerate() {
        let (from, end) = seen(starts, row, place);
        scores[end..].fill(0.0);
        scores[..from].fill(0.0);
        for score in scores[from..end].iter_mut() {
            *score = exp(*score - log_sum);
        }
    }
}
}

multiversion! {
/// Softmax backward of a block: dp ← p · (dp − dot) · scale, with the row's Σ p · dp in `dots`.
pub fn softmax_backward(dp: &mut [f32], p: &[f32], width: usize, dots: &[f32], scale: f32) {
    let rows = dp.chunks_exact_mut(width).zip(p.chunks_exact(width));
    for ((dp, p), dot) in rows.zip(dots) {
        for (dp, p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - dot) * scale;
        }
    }
}
}

multiversion! {
/// Σ a · b of each row's first `width` columns; the rows of `a` and `b` start `stride` values apart.
///
/// `dots`: (rows).
pub fn row_dots(a: &[f32], b: &[f32], stride: usize, width: usize, dots: &mut [f32]) {
    for ((a, b), dot) in a.chunks(stride).zip(b.chunks(stride)).zip(dots) {
        let (a, b) = (&a[..width], &b[..width]);
        *dot = lane_sum(width, |i| a[i] * b[i]);
    }
}
}

multiversion! {
/// SwiGLU: h = silu(gate) · up. `gate_up`: (rows, 2 · ffn); `h`: (rows, ffn).
pub fn swiglu(gate_up: &[f32], h: &mut [f32], ffn: usize) {
    for (gate_up, h) in gate_up.chunks_exact(2 * ffn).zip(h.chunks_exact_mut(ffn)) {
        let (gate, up) = gate_up.split_at(ffn);
        for ((h, gate), up) in h.iter_mut().zip(gate).zip(up) {
            *h = gate / (1.0 + exp(-gate)) * up;
        }
    }
}
}

multiversion! {
/// SwiGLU backward; also computes h again, for the gradient of the matrix after it.
///
/// `gate_up`, `d_gate_up`: (rows, 2 · ffn); `h` and `dh`: (rows, ffn).
pub fn swiglu_backward(
    gate_up: &[f32],
    dh: &[f32],
    h: &mut [f32],
    d_gate_up: &mut [f32],
    ffn: usize,
) {
    let given = gate_up.chunks_exact(2 * ffn).zip(dh.chunks_exact(ffn));
    let made = h.chunks_exact_mut(ffn).zip(d_gate_up.chunks_exact_mut(2 * ffn));
    for ((gate_up, dh), (h, d_gate_up)) in given.zip(made) {
        let (gate, up) = (&gate_up[..ffn], &gate_up[ffn..2 * ffn]);
        let (d_gate, d_up) = d_gate_up.split_at_mut(ffn);
        let (d_up, dh, h) = (&mut d_up[..ffn], &dh[..ffn], &mut h[..ffn]);
        for i in 0..ffn {
            let sigmoid = 1.0 / (1.0 + exp(-gate[i]));
            let silu = gate[i] * sigmoid;
            h[i] = silu * up[i];
            d_up[i] = dh[i] * silu;
            d_gate[i] = dh[i] * up[i] * (sigmoid + silu * (1.0 - sigmoid));
        }
    }
}
}

multiversion! {
/// Cross entropy of each row against its target, in nats into `losses`; where `scale` is not 0 the
/// logits become its gradient times `scale`, else they are spoiled.
///
/// `logits`: (rows, vocab); `targets`: below vocab.
pub fn cross_entropy(
    logits: &mut [f32],
    targets: &[u32],
    vocab: usize,
    scale: f32,
    losses: &mut [f32],
) {
    let rows = logits.chunks_exact_mut(vocab).zip(targets).zip(losses);
    for ((logits, target), loss) in rows {
        let max = lane_max(logits);
        let target_logit = logits[*target as usize];
        for logit in logits.iter_mut() {
            *logit = exp(*logit - max);
        }
        let sum = lane_sum(vocab, |i| logits[i]);
        *loss = max + sum.ln() - target_logit;
        if scale != 0.0 {
            let factor = scale / sum;
            for logit in logits.iter_mut() {
                *logit *= factor;
            }
            logits[*target as usize] -= scale;
        }
    }
}
}

multiversion! {
/// The nearest bf16 to each value, ties to even, as an `f32`. Infinities stay, and values that round
/// past the largest bf16 become infinite; NaN stays NaN.
pub fn round_to_bf16(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
        // A NaN whose upper half is all that is left must not become an infinity.
        let nan = bits & 0xffff_0000 | 0x0040_0000;
        *y = f32::from_bits(if bits << 1 > 0xff00_0000 { nan } else { rounded });
    }
}
}

multiversion! {
/// y ← y + x.
pub fn add(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}
}

multiversion! {
/// Σ x² in 16 partial sums in `f32`.
pub fn sum_of_squares(x: &[f32]) -> f32 {
    lane_sum(x.len(), |i| x[i] * x[i])
}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three units in the last place, with half a unit of the reference's own rounding.
    const EXP_TOLERANCE: f64 = 2.0e-7;

    #[test]
    fn exp_agrees_with_f64() {
        let mut worst = 0.0f64;
        for step in -8600..8700 {
            let x = step as f32 / 100.0;
            let expected = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / expected - 1.0).abs());
        }
        assert!(worst < EXP_TOLERANCE, "relative error {worst:e}");
    }

    #[test]
    fn exp_is_clamped_and_finite() {
        assert!(exp(1e30).is_finite());
        assert!(exp(-1e30) > 0.0 && exp(-1e30) < 1e-37);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn softmax_rows_sum_to_one_and_hide_the_future() {
        let mut scores: Vec<f32> = (0..12).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut log_sums = [0.0; 3];
        let given = scores.clone();
        causal_softmax(&mut scores, 4, &[0; 3], (0, 1), &mut log_sums);
        for (row, probabilities) in scores.chunks(4).enumerate() {
            let sum: f32 = probabilities.iter().sum();
            assert!((sum - 1.0).abs() < 1e-6);
            assert!(probabilities[row + 2..].iter().all(|p| *p == 0.0));
        }
        let mut again = given;
        causal_softmax_again(&mut again, 4, &[0; 3], (0, 1), &log_sums);
        for (a, b) in again.iter().zip(&scores) {
            assert!((a - b).abs() < 1e-6);
        }
    }

    #[test]
    fn softmax_rows_see_their_own_document() {
        // Positions 3 to 5; a document from 2 to 3, the next one from 4.
        let mut scores = vec![1.0f32; 12];
        let mut log_sums = [0.0; 3];
        causal_softmax(&mut scores, 4, &[2, 4, 4], (2, 3), &mut log_sums);
        let expected = [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.5, 0.5]];
        assert_eq!(scores, expected.concat());
        let mut again = vec![1.0f32; 12];
        causal_softmax_again(&mut again, 4, &[2, 4, 4], (2, 3), &log_sums);
        for (a, b) in again.iter().zip(&scores) {
            assert!((a - b).abs() < 1e-6);
        }
    }

    #[test]
    fn rounding_to_bf16_is_that_of_the_half_crate() {
        let mut values = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.0, -0.0];
        // Every upper half with a lower half below, at and above the tie.
        for upper in 0..=u32::from(u16::MAX) {
            for lower in [0, 0x7fff, 0x8000, 0x8001] {
                values.push(f32::from_bits(upper << 16 | lower));
            }
        }
        let mut rounded = vec![0.0; values.len()];
        round_to_bf16(&values, &mut rounded);
        for (value, rounded) in values.iter().zip(&rounded) {
            let expected = half::bf16::from_f32(*value).to_f32();
            let same = expected.to_bits() == rounded.to_bits();
            assert!(same || expected.is_nan() && rounded.is_nan(), "{value:e}");
        }
    }
}
