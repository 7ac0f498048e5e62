//! Emulated GPUs that are watched: what is allocated, uploaded and launched, and whether anybody wrote where nothing
//! was allocated.

use std::sync::{Arc, Mutex};

use cuda_emulator::{Behaviour, Emulated, Fault as Lost};
use trainer::cuda::device::{Cuda, CudaSettings, Gpus, Seat};
use trainer::cuda::{memory, Address, Event, Gpu, GpuError, Launch, Product, Stream};
use trainer::Threads;

/// A GPU that is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Whose.
    pub(crate) rank: usize,
    /// At which operation that it is given, from 0.
    pub(crate) after: u64,
}

/// What the GPUs have seen, over all learners and predictors.
#[derive(Default)]
struct Seen {
    /// Bytes of each allocation of each rank.
    allocated: Vec<Vec<u64>>,
    pinned: Vec<Vec<u64>>,
    /// Bytes from the host.
    uploaded: u64,
    launched: Vec<&'static str>,
    /// GPUs whose guards were overwritten.
    damaged: usize,
    fault: Option<Fault>,
}

type Shared = Arc<Mutex<Seen>>;

/// So many emulated GPUs.
#[derive(Clone)]
pub(crate) struct Emulators {
    world: usize,
    behaviour: Behaviour,
    seen: Shared,
}

impl Emulators {
    pub(crate) fn new(world: usize) -> Self {
        let nothing = vec![Vec::new(); world];
        let (allocated, pinned) = (nothing.clone(), nothing);
        let seen = Arc::new(Mutex::new(Seen { allocated, pinned, ..Seen::default() }));
        Self { world, behaviour: Behaviour::default(), seen }
    }

    /// With another order of streams.
    pub(crate) fn seeded(mut self, seed: u64) -> Self {
        self.behaviour.seed = seed + 1;
        self
    }

    /// With so many bytes of memory each.
    pub(crate) fn with_memory(mut self, bytes: u64) -> Self {
        self.behaviour.memory = bytes;
        self
    }

    /// With one that is lost; in every learner and predictor until [`Emulators::repair`].
    pub(crate) fn failing(self, fault: Fault) -> Self {
        self.seen.lock().unwrap().fault = Some(fault);
        self
    }

    pub(crate) fn repair(&self) {
        self.seen.lock().unwrap().fault = None;
    }

    pub(crate) fn device(&self, settings: CudaSettings) -> Cuda {
        Cuda::new(Arc::new(self.clone()), Threads::single(), settings)
    }

    pub(crate) fn allocated(&self) -> Vec<Vec<u64>> {
        self.seen.lock().unwrap().allocated.clone()
    }

    pub(crate) fn pinned(&self) -> Vec<Vec<u64>> {
        self.seen.lock().unwrap().pinned.clone()
    }

    pub(crate) fn uploaded(&self) -> u64 {
        self.seen.lock().unwrap().uploaded
    }

    /// How often a kernel was launched.
    pub(crate) fn launched(&self, kernel: &str) -> usize {
        self.seen.lock().unwrap().launched.iter().filter(|name| **name == kernel).count()
    }

    pub(crate) fn damaged(&self) -> usize {
        self.seen.lock().unwrap().damaged
    }
}

impl Gpus for Emulators {
    fn name(&self) -> String {
        format!("{} emulated", self.world)
    }

    fn open(&self) -> Result<Vec<Seat>, GpuError> {
        let fault = self.seen.lock().unwrap().fault;
        let seats = memory::join(self.world).into_iter().enumerate().map(|(rank, collective)| {
            let fault = fault.filter(|fault| fault.rank == rank);
            let behaviour = Behaviour {
                seed: self.behaviour.seed * 31 + rank as u64,
                fault: fault.map_or(Lost::None, |fault| Lost::Lost(fault.after)),
                ..self.behaviour
            };
            let gpu = Watched { gpu: Emulated::new(behaviour), rank, seen: self.seen.clone() };
            Seat { gpu: Box::new(gpu), collective: Box::new(collective) }
        });
        Ok(seats.collect())
    }
}

/// One of them.
struct Watched {
    gpu: Emulated,
    rank: usize,
    seen: Shared,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.gpu.guards_are_whole() {
            self.seen.lock().unwrap().damaged += 1;
        }
    }
}

impl Gpu for Watched {
    fn name(&self) -> String {
        self.gpu.name()
    }

    fn memory(&self) -> Result<(u64, u64), GpuError> {
        self.gpu.memory()
    }

    fn allocate(&self, bytes: u64) -> Result<Address, GpuError> {
        self.seen.lock().unwrap().allocated[self.rank].push(bytes);
        self.gpu.allocate(bytes)
    }

    fn allocate_pinned(&self, bytes: u64) -> Result<Address, GpuError> {
        self.seen.lock().unwrap().pinned[self.rank].push(bytes);
        self.gpu.allocate_pinned(bytes)
    }

    fn host_reaches_memory(&self) -> bool {
        self.gpu.host_reaches_memory()
    }

    fn launch(&self, stream: Stream, launch: Launch<'_>) -> Result<(), GpuError> {
        self.seen.lock().unwrap().launched.push(launch.kernel.name);
        self.gpu.launch(stream, launch)
    }

    fn product(&self, stream: Stream, product: &Product) -> Result<(), GpuError> {
        self.gpu.product(stream, product)
    }

    fn clear(&self, stream: Stream, to: Address, bytes: u64) -> Result<(), GpuError> {
        self.gpu.clear(stream, to, bytes)
    }

    fn copy(&self, stream: Stream, to: Address, from: Address, bytes: u64) -> Result<(), GpuError> {
        self.gpu.copy(stream, to, from, bytes)
    }

    fn upload(&self, stream: Stream, to: Address, from: &[u8]) -> Result<(), GpuError> {
        self.seen.lock().unwrap().uploaded += from.len() as u64;
        self.gpu.upload(stream, to, from)
    }

    fn download(&self, stream: Stream, from: Address, into: &mut [u8]) -> Result<(), GpuError> {
        self.gpu.download(stream, from, into)
    }

    fn call(&self, stream: Stream, call: Box<dyn FnOnce() + Send>) -> Result<(), GpuError> {
        self.gpu.call(stream, call)
    }

    fn record(&self, stream: Stream) -> Result<Event, GpuError> {
        self.gpu.record(stream)
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<(), GpuError> {
        self.gpu.wait(stream, event)
    }

    fn synchronise(&self, stream: Stream) -> Result<(), GpuError> {
        self.gpu.synchronise(stream)
    }
}
