//! What the typed functions of the kernels share: sizes that are checked, and a launch without shared memory of its
//! own.

use crate::cuda::gpu::{Argument, Gpu, GpuError, Launch, Stream};
use crate::cuda::kernel::Kernel;

/// Values of bf16 that a thread loads at once.
const AT_ONCE: u32 = 8;

/// Starts `kernel` on `grid` blocks with no dynamic shared memory.
pub(super) fn start(
    gpu: &dyn Gpu,
    stream: Stream,
    kernel: &Kernel,
    grid: [u32; 3],
    arguments: &[Argument],
) -> Result<(), GpuError> {
    gpu.launch(stream, Launch { kernel, grid, shared: 0, arguments })
}

/// An error where `width` is not a whole number of vectors: the kernel would leave out the last values.
pub(super) fn whole_vectors(kernel: &Kernel, width: u32) -> Result<(), GpuError> {
    if width.is_multiple_of(AT_ONCE) {
        return Ok(());
    }
    Err(refused(kernel, format!("a width of {width} is no multiple of {AT_ONCE}")))
}

/// Blocks for `len` values, `each` a block.
pub(super) fn blocks_for(kernel: &Kernel, len: u64, each: u64) -> Result<u32, GpuError> {
    u32::try_from(len.div_ceil(each))
        .map_err(|_| refused(kernel, format!("{len} values are too many for one launch")))
}

/// The error of a launch that cannot be.
pub(super) fn refused(kernel: &Kernel, reason: String) -> GpuError {
    GpuError::Failed { call: kernel.name.to_owned(), reason }
}
