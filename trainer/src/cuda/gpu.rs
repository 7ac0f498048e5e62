//! One GPU as the engine sees it: memory, streams, events, kernels, products.
//!
//! Nothing waits unless it says so. What is put on one stream happens in order; between streams only
//! events order anything. Addresses are plain numbers, as in CUDA's driver: device memory and pinned host
//! memory share one space.

use std::sync::Arc;

use super::kernel::Kernel;

/// Why a GPU did not do what it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GpuError {
    /// A library is not on this machine.
    #[error("{library} is not found: {cure}")]
    Missing {
        /// The library's file name.
        library: String,
        /// What brings it.
        cure: String,
    },
    /// There is no such GPU.
    #[error("no GPU {index}; this machine has {count}")]
    NoGpu {
        /// The number asked for.
        index: usize,
        /// GPUs found.
        count: usize,
    },
    /// The driver is older than what the kernels are compiled for.
    #[error("the driver supports CUDA {has}; {needs} is needed")]
    Driver {
        /// The newest CUDA that the driver supports.
        has: String,
        /// The oldest that will do.
        needs: String,
    },
    /// There is not enough memory.
    #[error("{wanted} bytes are wanted and {free} are free")]
    OutOfMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes that were free.
        free: u64,
    },
    /// A kernel does not compile.
    #[error("{kernel} does not compile: {log}")]
    Compile {
        /// The kernel's name.
        kernel: String,
        /// What the compiler says.
        log: String,
    },
    /// A call failed; the card's state is not known.
    #[error("{call}: {reason}")]
    Failed {
        /// What was being done.
        call: String,
        /// What the driver says.
        reason: String,
    },
    /// Another rank failed, so that this one cannot go on.
    #[error("rank {rank} failed: {reason}")]
    Rank {
        /// Which.
        rank: usize,
        /// Its error.
        reason: String,
    },
}

/// A place in device memory or in pinned host memory, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Address(pub u64);

impl Address {
    /// So many bytes further on.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

/// Queues of a GPU that run beside each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Kernels and products.
    Compute,
    /// Collective operations.
    Exchange,
    /// Copies from the host.
    Inward,
    /// Copies to the host.
    Outward,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Compute, Self::Exchange, Self::Inward, Self::Outward];
}

/// A point on a stream for others to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event(pub u64);

/// One argument of a kernel.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Argument {
    /// A pointer.
    Address(Address),
    /// `u32`.
    U32(u32),
    /// `u64`.
    U64(u64),
    /// `float`.
    F32(f32),
}

/// One launch of a kernel; the threads of a block are the kernel's own.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Which.
    pub kernel: &'a Kernel,
    /// Blocks; a launch of no block does nothing.
    pub grid: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// In the order of the kernel's parameters.
    pub arguments: &'a [Argument],
}

/// How the operands of a product lie; all matrices are row-major.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProductForm {
    /// d (m, n) = a (m, k) · b (n, k)ᵀ: what a layer computes.
    Nt,
    /// d (m, n) = a (m, k) · b (k, n): the gradient of a layer's input.
    Nn,
    /// d (m, n) = a (k, m)ᵀ · b (k, n): the gradient of a weight.
    Tn,
}

/// What a product's result is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProductResult {
    /// Rounded once at the end.
    Bf16,
    /// Sums are f32 inside anyway.
    F32,
}

/// d ← alpha · a · b + beta · d, with a and b in bf16 and sums in f32.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Product {
    /// How a and b lie.
    pub form: ProductForm,
    /// Rows of d.
    pub m: u32,
    /// Columns of d.
    pub n: u32,
    /// Terms of each sum.
    pub k: u32,
    /// a and the values from one of its rows to the next.
    pub a: (Address, u32),
    /// b and the values from one of its rows to the next.
    pub b: (Address, u32),
    /// d and the values from one of its rows to the next.
    pub d: (Address, u32),
    /// What d is.
    pub result: ProductResult,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of what d was; 0 does not read it.
    pub beta: f32,
}

/// Lets one more operation of a GPU happen, on whatever thread it is called; whether one did.
pub type Driver = Arc<dyn Fn() -> bool + Send + Sync>;

/// What a rank does on a stream together with others, on GPUs whose memory the host reaches. All that a GPU
/// ever attends is of one group of ranks.
pub trait Meeting: Send {
    /// Where it reads and writes, and how many bytes each.
    fn places(&self) -> Vec<(Address, u64)>;

    /// Goes on as far as it can without waiting for others; whether it has ended.
    ///
    /// # Errors
    /// [`GpuError::Rank`] where another rank will not come.
    fn attend(&mut self) -> Result<bool, GpuError>;

    /// Waits until [`Meeting::attend`] may go further than last time.
    fn wait(&self);

    /// The same for whoever has to let go of the GPU meanwhile, letting the others' GPUs go on.
    fn patience(&self) -> Box<dyn FnOnce() + Send>;

    /// It will not be attended: the GPU has failed.
    fn cancel(&mut self, error: &GpuError);

    /// How the others may let this rank's GPU go on while they wait for it.
    fn driven_by(&self, driver: Driver);
}

/// One GPU. Used by one thread at a time, the rank's.
pub trait Gpu: Send {
    /// What the card is called.
    fn name(&self) -> String;

    /// Bytes of device memory that are free now, and in all.
    fn memory(&self) -> Result<(u64, u64), GpuError>;

    /// Device memory, aligned to 256 bytes, until the GPU is dropped. The engine asks once, for its arena.
    fn allocate(&self, bytes: u64) -> Result<Address, GpuError>;

    /// Host memory that the card reaches by itself, aligned to 4096 bytes, until the GPU is dropped. The host may
    /// read and write it at this address while no copy is under way.
    fn allocate_pinned(&self, bytes: u64) -> Result<Address, GpuError>;

    /// Whether the host reads and writes device memory at the same addresses, as it does an emulated GPU's.
    fn host_reaches_memory(&self) -> bool {
        false
    }

    /// Starts a kernel.
    fn launch(&self, stream: Stream, launch: Launch<'_>) -> Result<(), GpuError>;

    /// Starts a product.
    fn product(&self, stream: Stream, product: &Product) -> Result<(), GpuError>;

    /// Sets bytes to zero.
    fn clear(&self, stream: Stream, to: Address, bytes: u64) -> Result<(), GpuError>;

    /// Copies between device and pinned memory, either way, and inside either.
    fn copy(&self, stream: Stream, to: Address, from: Address, bytes: u64) -> Result<(), GpuError>;

    /// Copies from any host memory; `from` may be changed as soon as this returns.
    fn upload(&self, stream: Stream, to: Address, from: &[u8]) -> Result<(), GpuError>;

    /// Waits for the stream and copies to any host memory.
    fn download(&self, stream: Stream, from: Address, into: &mut [u8]) -> Result<(), GpuError>;

    /// Calls the host from a stream, in order. The call must not use the GPU.
    fn call(&self, stream: Stream, call: Box<dyn FnOnce() + Send>) -> Result<(), GpuError>;

    /// Meets other ranks in a stream's place, where [`Gpu::host_reaches_memory`]. What does not know better calls the host,
    /// which waits there, and an error ends the meeting unseen.
    fn meet(&self, stream: Stream, mut meeting: Box<dyn Meeting>) -> Result<(), GpuError> {
        let attend = move || {
            while matches!(meeting.attend(), Ok(false)) {
                meeting.wait();
            }
        };
        self.call(stream, Box::new(attend))
    }

    /// The driver's handle of a stream, for libraries that take one, with the card's context made this thread's; none
    /// where there is no driver.
    fn raw_stream(&self, stream: Stream) -> Option<u64> {
        let _ = stream;
        None
    }

    /// Marks what is on the stream by now.
    fn record(&self, stream: Stream) -> Result<Event, GpuError>;

    /// Lets what follows on the stream wait for an event.
    fn wait(&self, stream: Stream, event: Event) -> Result<(), GpuError>;

    /// Waits until the stream is empty; errors of what was on it come up here.
    fn synchronise(&self, stream: Stream) -> Result<(), GpuError>;
}
