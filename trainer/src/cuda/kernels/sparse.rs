//! Starts SparseLoCo's kernels: updates and outer steps with the bytes that [`protocol`] makes on a CPU.
//!
//! Each works on one tensor, or on a part of one that starts at a chunk's start, where a block takes a chunk. What a
//! card does not do:
//!
//! - put the chunks behind each other: each goes to a slot that is a few bytes longer at most, and [`compact`]
//!   closes the gaps on the host, on the way into an [`UpdateWriter`](protocol::update::UpdateWriter);
//! - check a stranger's bytes: a [`Payload`] is parsed on the host, once, and [`Staged`] takes the bytes of a
//!   tensor's chunks from it;
//! - the factors of a tensor's updates: [`protocol::aggregate::tensor_factors`] reads no more than scales and codes, less
//!   than the parsing before it.

use std::ops::Range;

use protocol::aggregate::OuterRule;
use protocol::layout::CHUNK_LEN;
use protocol::update::{
    chunk_bytes_max, chunk_bytes_min, ChunkError, EncodedChunks, Payload, UpdateError,
};

use crate::cuda::gpu::{Address, Argument, Gpu, GpuError, Launch, Stream};
use crate::cuda::kernel::Kernel;

const fn kernel(name: &'static str, blocks: u32) -> Kernel {
    Kernel { name, file: "sparse", defines: &[], threads: 256, blocks, shared_max: 0 }
}

const ENCODE_CHUNKS: Kernel = kernel("encode_chunks", 3);
const OUTER_STEP: Kernel = kernel("outer_step", 4);
const APPLY_UPDATE: Kernel = kernel("apply_update", 4);
const UNDO_UPDATE: Kernel = kernel("undo_update", 4);

/// The kernels of this file.
pub const KERNELS: &[Kernel] = &[ENCODE_CHUNKS, OUTER_STEP, APPLY_UPDATE, UNDO_UPDATE];

/// Where parameters are, beginning at multiples of 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Values {
    /// f32.
    Whole(Address),
    /// The two halves of f32: [`twin::split`](crate::cuda::twin::split).
    Halves {
        /// bf16, ties up.
        hi: Address,
        /// The lower 16 bits.
        lo: Address,
    },
}

impl Values {
    /// The addresses of the whole and of the halves; null is what there is not.
    fn addresses(self) -> [Address; 3] {
        let null = Address(0);
        match self {
            Self::Whole(whole) => [whole, null, null],
            Self::Halves { hi, lo } => [null, hi, lo],
        }
    }

    fn arguments(self) -> [Argument; 3] {
        self.addresses().map(Argument::Address)
    }
}

/// Starts a kernel with a block for each chunk of `len` values.
fn start(
    gpu: &dyn Gpu,
    stream: Stream,
    kernel: &Kernel,
    len: u64,
    values: &[Values],
    arguments: &[Argument],
) -> Result<(), GpuError> {
    let misplaced = values.iter().flat_map(|values| values.addresses()).any(|at| at.0 % 16 != 0);
    let chunks = len.div_ceil(u64::from(CHUNK_LEN));
    let blocks = u32::try_from(chunks).ok().filter(|blocks| *blocks >> 31 == 0);
    let (false, Some(blocks)) = (misplaced, blocks) else {
        let reason = "an address is not a multiple of 16 bytes, or there are too many values";
        return Err(GpuError::Failed { call: kernel.name.to_owned(), reason: reason.to_owned() });
    };
    if blocks == 0 {
        return Ok(());
    }
    gpu.launch(stream, Launch { kernel, grid: [blocks, 1, 1], shared: 0, arguments })
}

/// What [`encode_chunks`] works on, and how.
#[derive(Clone, Copy, Debug)]
pub struct Encode {
    /// Error feedback, f32, at a multiple of 16 bytes.
    pub feedback: Address,
    /// The parameters with which the window began.
    pub start: Values,
    /// The parameters with which it ended.
    pub local: Values,
    /// [`slot_bytes`] for each chunk.
    pub slots: Address,
    /// A `u32` for each chunk.
    pub lengths: Address,
    /// Values.
    pub len: u64,
    /// Values kept of a full chunk, 1 to 4096.
    pub keep: u16,
    /// Decay of the error feedback.
    pub decay: f32,
}

/// Bytes of a chunk's slot: those of the longest chunk, in whole words.
pub const fn slot_bytes(keep: u16) -> u32 {
    chunk_bytes_max(CHUNK_LEN, keep).next_multiple_of(4)
}

/// [`Encoder::encode_difference`](protocol::update::Encoder::encode_difference): feedback ← decay · feedback +
/// (start − local), chunk by chunk into bytes, and what they stand for off the feedback. The bytes are for [`compact`].
///
/// A chunk with a value that is not finite has length 0, and its feedback stays as it was.
///
/// # Errors
/// `keep` or an address is not as it must be, or the launch fails.
pub fn encode_chunks(gpu: &dyn Gpu, stream: Stream, a: &Encode) -> Result<(), GpuError> {
    check_keep(&ENCODE_CHUNKS, a.keep)?;
    let ([start0, start1, start2], [local0, local1, local2]) =
        (a.start.arguments(), a.local.arguments());
    let arguments = [
        Argument::Address(a.feedback),
        start0,
        start1,
        start2,
        local0,
        local1,
        local2,
        Argument::Address(a.slots),
        Argument::Address(a.lengths),
        Argument::U64(a.len),
        Argument::U32(slot_bytes(a.keep) / 4),
        Argument::U32(u32::from(a.keep)),
        Argument::F32(a.decay),
    ];
    let values = [Values::Whole(a.feedback), a.start, a.local];
    start(gpu, stream, &ENCODE_CHUNKS, a.len, &values, &arguments)
}

/// A kernel has room for what 4096 values need, and a chunk that keeps none has no form.
fn check_keep(kernel: &Kernel, keep: u16) -> Result<(), GpuError> {
    if keep == 0 || u32::from(keep) > CHUNK_LEN {
        let reason = UpdateError::Keep(keep).to_string();
        return Err(GpuError::Failed { call: kernel.name.to_owned(), reason });
    }
    Ok(())
}

/// The chunks of `len` values from their `slots` and `lengths`, one behind the other at the end of `out`.
///
/// # Errors
/// A chunk has a value that is not finite, or slots or lengths are not those of `len` values under `keep`; `out` then
/// has the chunks before.
pub fn compact(
    slots: &[u8],
    lengths: &[u32],
    len: u64,
    keep: u16,
    out: &mut EncodedChunks,
) -> Result<(), UpdateError> {
    let chunks = len.div_ceil(u64::from(CHUNK_LEN));
    if lengths.len() as u64 != chunks {
        return Err(UpdateError::Tensors);
    }
    let slots = slots.chunks_exact(slot_bytes(keep) as usize);
    let firsts = (0..len).step_by(CHUNK_LEN as usize);
    for (index, ((slot, length), first)) in (0u32..).zip(slots.zip(lengths).zip(firsts)) {
        let values = (len - first).min(u64::from(CHUNK_LEN)) as u32;
        if *length == 0 {
            return Err(UpdateError::Chunk { index, error: ChunkError::NotFinite });
        }
        let bytes = slot.get(..*length as usize).ok_or(UpdateError::ByteLen(*length as usize))?;
        if *length < chunk_bytes_min(values, keep) || *length > chunk_bytes_max(values, keep) {
            return Err(UpdateError::ByteLen(bytes.len()));
        }
        out.lens.push(*length as u16);
        out.bytes.extend_from_slice(bytes);
    }
    Ok(())
}

/// The bytes of the same chunks of some updates, as the kernels want them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staged {
    /// The chunks of the first update, of the second, …
    pub bytes: Vec<u8>,
    /// Where each chunk begins in `bytes`, and where the last of an update ends: one more than chunks for each update.
    pub offsets: Vec<u32>,
}

impl Staged {
    /// Takes chunks `chunks` of the whole model from updates that were parsed.
    ///
    /// # Errors
    /// An update does not have these chunks, or they are 4 GiB or more together: take fewer.
    pub fn new(updates: &[&Payload<'_>], chunks: Range<u32>) -> Result<Self, UpdateError> {
        let mut staged = Self {
            bytes: Vec::new(),
            offsets: Vec::with_capacity(updates.len() * (chunks.len() + 1)),
        };
        for update in updates {
            staged.offsets.push(staged.end()?);
            for index in chunks.clone() {
                let chunk = update.chunk(index);
                let chunk = chunk.ok_or(UpdateError::ChunkCount(update.chunk_count()))?;
                staged.bytes.extend_from_slice(chunk);
                staged.offsets.push(staged.end()?);
            }
        }
        Ok(staged)
    }

    fn end(&self) -> Result<u32, UpdateError> {
        u32::try_from(self.bytes.len()).map_err(|_| UpdateError::ByteLen(self.bytes.len()))
    }
}

/// What [`outer_step`] works on, and how.
#[derive(Clone, Copy, Debug)]
pub struct OuterStep {
    /// The parameters.
    pub theta: Values,
    /// [`Staged::bytes`] of the accepted updates in the order of their uids.
    pub bytes: Address,
    /// [`Staged::offsets`].
    pub offsets: Address,
    /// f32: [`tensor_factors`](protocol::aggregate::tensor_factors) of the whole tensor.
    pub factors: Address,
    /// Values.
    pub len: u64,
    /// How many updates are accepted; with none nothing happens.
    pub updates: u32,
    /// Values that they keep of a full chunk.
    pub keep: u16,
    /// What their sum does.
    pub rule: OuterRule,
}

/// [`aggregate_chunks`](protocol::aggregate::aggregate_chunks): the outer step of these parameters, for any that are not
/// NaN.
///
/// # Errors
/// `keep` or an address is not as it must be, or the launch fails.
pub fn outer_step(gpu: &dyn Gpu, stream: Stream, a: &OuterStep) -> Result<(), GpuError> {
    check_keep(&OUTER_STEP, a.keep)?;
    if a.updates == 0 {
        return Ok(());
    }
    let by_senders = a.rule.counts_senders();
    let divisor =
        if by_senders { a.rule.divisor_min(a.updates as usize) } else { a.updates as f32 };
    let [theta0, theta1, theta2] = a.theta.arguments();
    let arguments = [
        theta0,
        theta1,
        theta2,
        Argument::Address(a.bytes),
        Argument::Address(a.offsets),
        Argument::Address(a.factors),
        Argument::U64(a.len),
        Argument::U32(a.updates),
        Argument::U32(u32::from(a.keep)),
        Argument::F32(a.rule.rate),
        Argument::F32(divisor),
        Argument::U32(u32::from(by_senders)),
    ];
    start(gpu, stream, &OUTER_STEP, a.len, &[a.theta], &arguments)
}

/// What [`apply_update`] and [`undo_update`] work on.
#[derive(Clone, Copy, Debug)]
pub struct Apply {
    /// The parameters.
    pub theta: Values,
    /// [`Staged::bytes`] of the one update.
    pub bytes: Address,
    /// [`Staged::offsets`].
    pub offsets: Address,
    /// What was there before: `keep` words of 4 bytes a chunk, whose content is these two functions' affair.
    pub saved: Address,
    /// Values.
    pub len: u64,
    /// Values that the update keeps of a full chunk.
    pub keep: u16,
}

impl Apply {
    fn arguments(&self) -> [Argument; 8] {
        let [theta0, theta1, theta2] = self.theta.arguments();
        [
            theta0,
            theta1,
            theta2,
            Argument::Address(self.bytes),
            Argument::Address(self.offsets),
            Argument::Address(self.saved),
            Argument::U64(self.len),
            Argument::U32(u32::from(self.keep)),
        ]
    }
}

/// [`apply_single`](protocol::aggregate::apply_single): θ ← θ − rate · value, of an update's own coordinates; keeps what was
/// there.
///
/// # Errors
/// `keep` or an address is not as it must be, or the launch fails.
pub fn apply_update(gpu: &dyn Gpu, stream: Stream, a: &Apply, rate: f32) -> Result<(), GpuError> {
    check_keep(&APPLY_UPDATE, a.keep)?;
    let [a0, a1, a2, a3, a4, a5, a6, a7] = a.arguments();
    let arguments = [a0, a1, a2, a3, a4, a5, a6, a7, Argument::F32(rate)];
    start(gpu, stream, &APPLY_UPDATE, a.len, &[a.theta], &arguments)
}

/// Takes [`apply_update`] of the same arguments back, bit for bit.
///
/// # Errors
/// `keep` or an address is not as it must be, or the launch fails.
pub fn undo_update(gpu: &dyn Gpu, stream: Stream, a: &Apply) -> Result<(), GpuError> {
    check_keep(&UNDO_UPDATE, a.keep)?;
    start(gpu, stream, &UNDO_UPDATE, a.len, &[a.theta], &a.arguments())
}
