//! What the ranks of one process do together: a rank is a thread with a GPU.
//!
//! All ranks call the same operations in the same order. Sums are taken in the order of the ranks, so that
//! over memory the bits do not depend on how many there are; NCCL's own order is its own.

use super::gpu::{Address, Gpu, GpuError, Stream};

/// One rank's end of what joins the ranks.
pub trait Collective: Send {
    /// This rank's number, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn world(&self) -> usize;

    /// Puts every rank's `bytes` at `part` into `whole`, in the order of the ranks.
    fn gather(
        &self,
        gpu: &dyn Gpu,
        stream: Stream,
        part: Address,
        whole: Address,
        bytes: u64,
    ) -> Result<(), GpuError>;

    /// Adds to the f32 values at `part` what the first `active` ranks have at `whole` for this rank, rank
    /// after rank: `values` a rank, this rank's starting at value rank · `values`. `scratch` has room
    /// for `values` f32.
    #[allow(clippy::too_many_arguments, reason = "one operation of MPI's kind")]
    fn reduce_scatter(
        &self,
        gpu: &dyn Gpu,
        stream: Stream,
        whole: Address,
        part: Address,
        scratch: Address,
        values: u64,
        active: usize,
    ) -> Result<(), GpuError>;

    /// Sends `bytes` at `from` of rank `root` to `to` of every rank.
    fn broadcast(
        &self,
        gpu: &dyn Gpu,
        stream: Stream,
        root: usize,
        from: Address,
        to: Address,
        bytes: u64,
    ) -> Result<(), GpuError>;

    /// Every rank's host values, in the order of the ranks. Waits for all.
    fn share(&self, values: Vec<f64>) -> Result<Vec<Vec<f64>>, GpuError>;

    /// Waits until all ranks are here.
    fn barrier(&self) -> Result<(), GpuError>;

    /// Tells the others that this rank failed: their waits end with [`GpuError::Rank`].
    fn abort(&self, error: &GpuError);
}
