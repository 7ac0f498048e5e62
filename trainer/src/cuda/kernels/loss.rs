//! Cross entropy of rows of logits, and its gradient in their place.

use super::start::{start, whole_vectors};
use crate::cuda::gpu::{Address, Argument, Gpu, GpuError, Stream};
use crate::cuda::kernel::Kernel;

/// The kernels of `loss.cu`.
pub const KERNELS: &[Kernel] = &[CROSS_ENTROPY];
const CROSS_ENTROPY: Kernel = Kernel {
    name: "cross_entropy",
    file: "loss",
    defines: &[],
    threads: 256,
    blocks: 4,
    shared_max: 0,
};

/// Of [`cross_entropy`].
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy {
    /// (rows, vocab), bf16; with a `scale` they become their gradient.
    pub logits: Address,
    /// (rows), u32.
    pub targets: Address,
    /// (rows), f32, written, in nats.
    pub losses: Address,
    /// How many rows.
    pub rows: u32,
    /// Values of a row, a multiple of 8.
    pub vocab: u32,
    /// Factor of the gradient; none leaves the logits as they are.
    pub scale: Option<f32>,
}

/// losses ← log Σ e^logit − the logit of the target; logits ← (softmax − one at the target) · scale. The loss of a target that
/// is no column is NaN.
pub fn cross_entropy(gpu: &dyn Gpu, stream: Stream, of: &CrossEntropy) -> Result<(), GpuError> {
    whole_vectors(&CROSS_ENTROPY, of.vocab)?;
    let arguments = [
        Argument::Address(of.logits),
        Argument::Address(of.targets),
        Argument::Address(of.losses),
        Argument::U32(of.vocab),
        Argument::F32(of.scale.unwrap_or_default()),
        Argument::U32(u32::from(of.scale.is_some())),
    ];
    start(gpu, stream, &CROSS_ENTROPY, [of.rows, 1, 1], &arguments)
}
