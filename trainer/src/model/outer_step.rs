//! Takes the outer step of one tensor over all cores, with `protocol`'s arithmetic and without a
//! second copy of anything.

use protocol::aggregate::{aggregate_chunks, median_norm_factors, OuterRule, TensorUpdate};
use protocol::layout::CHUNK_LEN;
use protocol::update::UpdateError;

use crate::compute::threads::{Shared, Threads};

/// Chunks that one task works on: half a MiB of parameters.
const SPAN: usize = 32;

const SPAN_LEN: usize = SPAN * CHUNK_LEN as usize;

/// The outer step of one tensor over all cores, bit for bit as `protocol::aggregate` does it:
/// `updates` are the accepted ones in the order of their uids. Chunk by chunk every update is read
/// once and nothing is held but a chunk's sums for each thread.
///
/// An error means that an update was parsed with another layout; the tensor may then have changed
/// in part.
pub fn aggregate_tensor(
    threads: &Threads,
    theta: &mut [f32],
    updates: &[TensorUpdate<'_>],
    rule: OuterRule,
) -> Result<(), UpdateError> {
    let norms = threads
        .map(updates.len(), |index| updates[index].norm())
        .into_iter()
        .collect::<Result<Vec<f64>, _>>()?;
    let factors: Vec<f32> =
        median_norm_factors(&norms).into_iter().map(|factor| factor as f32).collect();
    let len = theta.len();
    let theta = Shared::new(theta);
    let results = threads.map(len.div_ceil(SPAN_LEN), |span| {
        let first = span * SPAN_LEN;
        // SAFETY: spans are disjoint.
        let theta = unsafe { theta.part(first, len.min(first + SPAN_LEN)) };
        aggregate_chunks(theta, updates, &factors, (span * SPAN) as u32, rule)
    });
    results.into_iter().collect()
}
