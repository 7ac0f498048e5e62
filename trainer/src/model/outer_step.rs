//! Takes the outer step of one tensor over all cores, with `protocol`'s arithmetic and without a
//! second copy of anything.

use protocol::aggregate::{aggregate_chunks, median_norm_factors, OuterRule, TensorUpdate};
use protocol::layout::CHUNK_LEN;
use protocol::update::{Payload, UpdateError};

use crate::compute::threads::{Shared, Threads};

/// Chunks that one task works on: half a MiB of parameters.
const SPAN: usize = 32;

const SPAN_LEN: usize = SPAN * CHUNK_LEN as usize;

/// The outer step of one tensor, for whatever takes it.
#[derive(Debug)]
pub struct TensorStep<'a> {
    /// Its parameters.
    pub theta: &'a mut [f32],
    /// Number of its first chunk in the model.
    pub first_chunk: u32,
    /// The accepted updates in the order of their uids.
    pub payloads: &'a [Payload<'a>],
    /// The same, for this tensor.
    pub updates: &'a [TensorUpdate<'a>],
    /// What their sum does.
    pub rule: OuterRule,
    /// The host's threads.
    pub threads: &'a Threads,
}

impl TensorStep<'_> {
    /// What each update is multiplied with.
    ///
    /// # Errors
    /// An update was parsed with another layout.
    pub fn factors(&self) -> Result<Vec<f32>, UpdateError> {
        factors(self.threads, self.updates)
    }

    /// Takes the step on the host.
    ///
    /// # Errors
    /// As [`aggregate_tensor`].
    pub fn on_the_host(self) -> Result<(), UpdateError> {
        aggregate_tensor(self.threads, self.theta, self.updates, self.rule)
    }
}

/// [`tensor_factors`](protocol::aggregate::tensor_factors), an update on each thread.
fn factors(threads: &Threads, updates: &[TensorUpdate<'_>]) -> Result<Vec<f32>, UpdateError> {
    let norms = threads
        .map(updates.len(), |index| updates[index].norm())
        .into_iter()
        .collect::<Result<Vec<f64>, _>>()?;
    Ok(median_norm_factors(&norms).into_iter().map(|factor| factor as f32).collect())
}

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
    let factors = factors(threads, updates)?;
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
