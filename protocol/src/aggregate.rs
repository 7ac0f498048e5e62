//! Takes the outer step, bit for bit: the accepted updates of a window become one change of the
//! parameters, the same bytes on every machine and with any number of threads.
//!
//! For each tensor, with the accepted updates r = 1 … R in the order of their uids and `v_r` the
//! dequantised values of update r in this tensor:
//!
//! ```text
//! norm_r   = sqrt(Σ over chunks in order of (Σ over ascending positions of v_r²))    f64
//! factor_r = min(1, median / (norm_r + 1e-8))                                        f64, then f32
//!            with median = the lower median of the norms
//! divisor  = max(senders, c · R, 1)                          c · R in f64, then f32; f32
//! delta    = (Σ over r in order of factor_r · v_r) / divisor                         f32
//! θ        ← θ − α · delta                                                           f32
//! ```
//!
//! `senders` is the number of updates that send the coordinate: whose `v_r` is not 0 there, whatever
//! its factor. With c = 1 the divisor is R for all coordinates, the mean over the accepted updates, and
//! nothing is counted; with c = 0 it is the mean over those that send. What nobody sends stays as
//! it is.
//!
//! Each `f32` operation is rounded by itself: a product, then a sum, never fused. A chunk of θ
//! depends on no other, so chunks and tensors may be worked on in any order and at once.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "floating point, and positions that the decoder has checked against the chunk's length"
)]

use crate::ids::Uid;
use crate::layout::{Layout, CHUNK_LEN};
use crate::update::{chunk_values, Chunk, ChunkReader, Payload, UpdateError};
use crate::variant::{Variant, Work};

mod rule;

pub use rule::{rate, step, step_by_senders, OuterRule};

/// Added to a norm before the median is divided by it, so that an update of zeros divides by
/// something.
pub const NORM_EPSILON: f64 = 1e-8;

/// The lower median of `norms`: element `(n − 1) / 2` of them sorted; 0 for none.
pub fn lower_median(norms: &[f64]) -> f64 {
    let mut sorted = norms.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// The factor of each update: `min(1, median / (norm + 1e-8))` with the lower median of `norms`.
pub fn median_norm_factors(norms: &[f64]) -> Vec<f64> {
    let median = lower_median(norms);
    norms.iter().map(|norm| (median / (norm + NORM_EPSILON)).min(1.0)).collect()
}

/// How much a replica that is `steps_behind` outer steps behind is worth: `(1 − min(x, 3)/3)^2.5`,
/// from 1 down to 0. Templar's sync score; state roots make it needless here, so it only serves
/// comparison.
pub fn sync_score(steps_behind: f64) -> f64 {
    let left = 1.0 - steps_behind.clamp(0.0, 3.0) / 3.0;
    left * left * left.sqrt()
}

/// One accepted update's part in one tensor.
#[derive(Clone, Copy, Debug)]
pub struct TensorUpdate<'a> {
    payload: &'a Payload<'a>,
    /// The tensor's first chunk in the payload.
    first_chunk: u32,
    /// Values of the tensor.
    len: u64,
}

impl<'a> TensorUpdate<'a> {
    /// The part of `payload`, which was parsed with `layout`, in tensor `tensor`; `None` past the
    /// last.
    pub fn new(payload: &'a Payload<'a>, layout: &Layout, tensor: u32) -> Option<Self> {
        let (first_chunk, chunks) = layout.tensor_chunks(tensor)?;
        if first_chunk.checked_add(chunks)? > payload.chunk_count() {
            return None;
        }
        let len = *layout.0.get(tensor as usize)?;
        Some(Self { payload, first_chunk, len })
    }

    /// The bytes of the tensor's chunk `index`.
    #[inline]
    fn chunk(&self, index: u32) -> Result<&'a [u8], UpdateError> {
        let count = self.payload.chunk_count();
        self.first_chunk
            .checked_add(index)
            .and_then(|index| self.payload.chunk(index))
            .ok_or(UpdateError::ChunkCount(count))
    }

    /// The norm of the dequantised values. A chunk's sum of squares is exact (its values are few
    /// multiples of a bf16 scale), so only the order of the chunks matters.
    pub fn norm(&self) -> Result<f64, UpdateError> {
        Variant::best().run(Norm(*self))
    }
}

/// [`TensorUpdate::norm`]. A chunk's squares sum to `scale² · (low + h² · high)` with the counts of
/// the two magnitudes: all of it exact in `f64`, like the sum value by value.
struct Norm<'a>(TensorUpdate<'a>);

impl Work for Norm<'_> {
    type Output = Result<f64, UpdateError>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let update = self.0;
        let full = ChunkReader::new(CHUNK_LEN, update.payload.keep());
        let mut squares = 0.0f64;
        let mut left = update.len;
        for index in 0..update.len.div_ceil(u64::from(CHUNK_LEN)) as u32 {
            let len = left.min(u64::from(CHUNK_LEN)) as u32;
            left -= u64::from(len);
            let reader = match len {
                CHUNK_LEN => full,
                _ => ChunkReader::new(len, update.payload.keep()),
            };
            squares += reader.squares(update.chunk(index)?);
        }
        Ok(squares.sqrt())
    }
}

/// Takes one outer step of one tensor: `theta` are its parameters, `updates` the accepted ones in
/// the order of their uids, `rule` what their sum does. Nothing happens without updates.
///
/// An error means that an update was parsed with another layout; the tensor may then have changed
/// in part.
pub fn aggregate_tensor(
    theta: &mut [f32],
    updates: &[TensorUpdate<'_>],
    rule: OuterRule,
) -> Result<(), UpdateError> {
    let factors = tensor_factors(updates)?;
    aggregate_chunks(theta, updates, &factors, 0, rule)
}

/// The factors of a tensor's updates, in their order, rounded to `f32`.
pub fn tensor_factors(updates: &[TensorUpdate<'_>]) -> Result<Vec<f32>, UpdateError> {
    let norms = updates.iter().map(TensorUpdate::norm).collect::<Result<Vec<f64>, _>>()?;
    Ok(median_norm_factors(&norms).into_iter().map(|factor| factor as f32).collect())
}

/// Takes one outer step of chunk `index` of a tensor: `theta` are the chunk's parameters. For callers
/// that spread the chunks of a large tensor over threads; [`aggregate_tensor`] is all of them.
pub fn aggregate_chunk(
    theta: &mut [f32],
    updates: &[TensorUpdate<'_>],
    factors: &[f32],
    index: u32,
    rule: OuterRule,
) -> Result<(), UpdateError> {
    let chunk_len = theta.len().min(CHUNK_LEN as usize);
    aggregate_chunks(&mut theta[..chunk_len], updates, factors, index, rule)
}

/// Takes one outer step of the chunks `first..` of a tensor, of which `theta` are the parameters: as
/// [`aggregate_chunk`] one after the other, in one go.
pub fn aggregate_chunks(
    theta: &mut [f32],
    updates: &[TensorUpdate<'_>],
    factors: &[f32],
    first: u32,
    rule: OuterRule,
) -> Result<(), UpdateError> {
    aggregate_chunks_with(Variant::best(), theta, updates, factors, first, rule)
}

/// [`aggregate_chunks`] with given instructions, for measurements and comparison.
pub fn aggregate_chunks_with(
    variant: Variant,
    theta: &mut [f32],
    updates: &[TensorUpdate<'_>],
    factors: &[f32],
    first: u32,
    rule: OuterRule,
) -> Result<(), UpdateError> {
    if updates.is_empty() {
        return Ok(());
    }
    match rule.counts_senders() {
        true => variant.run(Aggregate::<true> { theta, updates, factors, first, rule }),
        false => variant.run(Aggregate::<false> { theta, updates, factors, first, rule }),
    }
}

/// The outer step of consecutive chunks of a tensor, by the senders of each coordinate or by all
/// accepted updates.
struct Aggregate<'a, 'b, const BY_SENDERS: bool> {
    theta: &'a mut [f32],
    updates: &'a [TensorUpdate<'b>],
    factors: &'a [f32],
    first: u32,
    rule: OuterRule,
}

impl<const BY_SENDERS: bool> Work for Aggregate<'_, '_, BY_SENDERS> {
    type Output = Result<(), UpdateError>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let mut sums = [0.0f32; CHUNK_LEN as usize];
        // An accepted update has a uid of its own, of which there are fewer than a u16 counts.
        let mut senders = [0u16; CHUNK_LEN as usize];
        let accepted = self.updates.len();
        let chunks = self.theta.chunks_mut(CHUNK_LEN as usize);
        for (index, theta) in (self.first..).zip(chunks) {
            sums.fill(0.0);
            if BY_SENDERS {
                senders.fill(0);
            }
            for (update, factor) in self.updates.iter().zip(self.factors) {
                // Most chunks are full, of which the compiler knows all but `keep`.
                let reader = ChunkReader::new(theta.len() as u32, update.payload.keep());
                reader.add_scaled(update.chunk(index)?, *factor, &mut sums, |position| {
                    if BY_SENDERS {
                        senders[position] = senders[position].wrapping_add(1);
                    }
                });
            }
            match BY_SENDERS {
                true => step_by_senders(theta, &sums, &senders, accepted, self.rule),
                false => step(theta, &sums, accepted, self.rule.rate),
            }
        }
        Ok(())
    }
}

/// Adds `factor · value` at each position. Positions past the end have no effect.
pub fn add_scaled(sums: &mut [f32], factor: f32, values: impl Iterator<Item = (usize, f32)>) {
    for (position, value) in values {
        if let Some(sum) = sums.get_mut(position) {
            *sum += factor * value;
        }
    }
}

/// Takes one outer step of the whole model: `params` are the layout's tensors in its order,
/// `payloads` the accepted updates, in any order and with different uids. On one thread; the same
/// bytes come from [`aggregate_tensor`] over the tensors in any order.
pub fn outer_step(
    params: &mut [&mut [f32]],
    layout: &Layout,
    payloads: &[(Uid, Payload<'_>)],
    rule: OuterRule,
) -> Result<(), UpdateError> {
    check_tensors(params, layout)?;
    let mut ordered: Vec<&(Uid, Payload<'_>)> = payloads.iter().collect();
    ordered.sort_by_key(|(uid, _)| *uid);
    for (tensor, theta) in (0u32..).zip(params) {
        let updates = ordered
            .iter()
            .map(|(_, payload)| TensorUpdate::new(payload, layout, tensor))
            .collect::<Option<Vec<_>>>()
            .ok_or(UpdateError::Tensors)?;
        aggregate_tensor(theta, &updates, rule)?;
    }
    Ok(())
}

/// Applies one update alone, for an evaluation: `θ ← θ − rate · v`, without clipping, for there is
/// nothing to compare its norm with. `params` are the layout's tensors in its order.
///
/// `rate` is `evaluation_rate` times [`crate::settings::OuterStep::rate_ppm`], the outer rate between
/// warm-up and decay, in every window: with a window's own rate, which may be next to nothing, an
/// evaluation would measure the noise of its samples.
pub fn apply_single(
    params: &mut [&mut [f32]],
    layout: &Layout,
    payload: &Payload<'_>,
    rate: f32,
) -> Result<(), UpdateError> {
    check_tensors(params, layout)?;
    let mut chunk = Chunk::default();
    for (index, place) in (0u32..).zip(layout.chunks()) {
        payload.decode_into(index, place.len, &mut chunk)?;
        let theta = params.get_mut(place.tensor as usize).ok_or(UpdateError::Tensors)?;
        let theta = theta.get_mut(place.offset as usize..).ok_or(UpdateError::Tensors)?;
        for (position, value) in chunk_values(&chunk) {
            if let Some(theta) = theta.get_mut(usize::from(position)) {
                *theta -= rate * value;
            }
        }
    }
    Ok(())
}

/// Whether the tensors are as many and as long as the layout says.
fn check_tensors(params: &[&mut [f32]], layout: &Layout) -> Result<(), UpdateError> {
    if !layout.is_valid() {
        return Err(UpdateError::Layout);
    }
    if !params.iter().map(|tensor| tensor.len() as u64).eq(layout.0.iter().copied()) {
        return Err(UpdateError::Tensors);
    }
    Ok(())
}
