//! An emulated GPU: memory of the host, and streams that run only when somebody waits for them, in random order
//! where no event forbids it.
//!
//! So a missing event shows: in some order a kernel reads what is not there yet. Fresh device memory is NaN, guards
//! lie between allocations, and every copy, product and clearing is checked against what was allocated.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trainer::cuda::{Address, Argument, Event, Gpu, GpuError, Launch, Product, Stream};

use crate::library::{Function, Kernels, Settings};
use crate::product::multiply;

/// Bytes before and behind each allocation that nobody may write.
const GUARD: usize = 4096;
const GUARD_BYTE: u8 = 0xA5;
const FRESH_BYTE: u8 = 0xFF;

/// What goes wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// From this operation on, counted from 0 as they are started, everything fails.
    Lost(u64),
}

/// How an emulated GPU behaves.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// Of the order in which streams run.
    pub seed: u64,
    /// How kernels are run.
    pub kernels: Settings,
    /// Bytes of device memory.
    pub memory: u64,
    /// What goes wrong.
    pub fault: Fault,
}

impl Default for Behaviour {
    fn default() -> Self {
        let (kernels, fault) = (Settings::default(), Fault::None);
        Self { seed: 1, kernels, memory: 1 << 32, fault }
    }
}

/// What an emulated GPU did, for whoever made it to read.
#[derive(Default, Debug)]
pub struct Log(Mutex<Counts>);

/// What is counted.
#[derive(Default, Debug, Clone)]
pub struct Counts {
    /// Bytes of each allocation of device memory.
    pub allocated: Vec<u64>,
    /// Bytes of each allocation of pinned memory.
    pub pinned: Vec<u64>,
    /// Bytes uploaded.
    pub uploaded: u64,
    /// Launches of each kernel.
    pub launches: HashMap<&'static str, u64>,
    /// Allocations whose guards were found broken as the GPU was dropped.
    pub broken_guards: usize,
}

impl Log {
    /// What was counted by now.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Operation {
    Kernel { function: Function, grid: [u32; 3], threads: u32, shared: u32, cells: Vec<u64> },
    Product(Product),
    Clear { to: u64, bytes: u64 },
    Copy { to: u64, from: u64, bytes: u64 },
    Write { to: u64, bytes: Vec<u8> },
    Call(Box<dyn FnOnce() + Send>),
    Record(u64),
    Wait(u64),
}

struct Allocation {
    /// With the guards.
    memory: Vec<u64>,
    bytes: usize,
    pinned: bool,
}

impl Allocation {
    fn new(bytes: u64, fill: u8, pinned: bool) -> Self {
        let bytes = bytes as usize;
        let words = (bytes + 2 * GUARD).div_ceil(8) + GUARD / 8;
        let mut allocation = Self { memory: vec![0; words], bytes, pinned };
        let start = allocation.offset();
        let all: &mut [u8] = bytemuck::cast_slice_mut(&mut allocation.memory);
        all.fill(GUARD_BYTE);
        all[start..start + bytes].fill(fill);
        allocation
    }

    /// Where the usable bytes begin, aligned to a page.
    fn offset(&self) -> usize {
        let base = self.memory.as_ptr() as usize;
        (base + GUARD).next_multiple_of(GUARD) - base
    }

    fn address(&self) -> u64 {
        (self.memory.as_ptr() as usize + self.offset()) as u64
    }

    fn has(&self, from: u64, bytes: u64) -> bool {
        let start = self.address();
        from >= start && from.saturating_add(bytes) <= start + self.bytes as u64
    }

    fn guards_are_whole(&self) -> bool {
        let (all, start) = (bytemuck::cast_slice::<u64, u8>(&self.memory), self.offset());
        let behind = &all[start + self.bytes..];
        all[..start].iter().chain(behind).all(|byte| *byte == GUARD_BYTE)
    }
}

struct State {
    queues: [VecDeque<Operation>; 4],
    happened: HashSet<u64>,
    events: u64,
    started: u64,
    random: u64,
    allocations: Vec<Allocation>,
    broken: Option<GpuError>,
}

/// An emulated GPU.
pub struct Emulated {
    behaviour: Behaviour,
    log: Arc<Log>,
    state: RefCell<State>,
}

fn failed(call: &str, reason: impl Into<String>) -> GpuError {
    GpuError::Failed { call: call.to_owned(), reason: reason.into() }
}

impl Emulated {
    /// A GPU that behaves like this.
    pub fn new(behaviour: Behaviour) -> Self {
        Self::with_log(behaviour, Arc::default())
    }

    /// One whose doings are counted.
    pub fn with_log(behaviour: Behaviour, log: Arc<Log>) -> Self {
        let state = State {
            queues: Default::default(),
            happened: HashSet::new(),
            events: 0,
            started: 0,
            random: behaviour.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            allocations: Vec::new(),
            broken: None,
        };
        Self { behaviour, log, state: RefCell::new(state) }
    }

    /// Whether nothing has written outside what was allocated.
    pub fn guards_are_whole(&self) -> bool {
        self.state.borrow().allocations.iter().all(Allocation::guards_are_whole)
    }

    fn start(&self, stream: Stream, operation: Operation) -> Result<(), GpuError> {
        let mut state = self.state.borrow_mut();
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        if matches!(self.behaviour.fault, Fault::Lost(at) if state.started >= at) {
            let error = failed("the emulated GPU", "it fell off the bus");
            state.broken = Some(error.clone());
            return Err(error);
        }
        state.started += 1;
        state.queues[stream as usize].push_back(operation);
        Ok(())
    }

    fn allocate_as(&self, bytes: u64, pinned: bool) -> Address {
        let fill = if pinned { 0x7F } else { FRESH_BYTE };
        let allocation = Allocation::new(bytes, fill, pinned);
        let address = allocation.address();
        match pinned {
            true => self.log.lock().pinned.push(bytes),
            false => self.log.lock().allocated.push(bytes),
        }
        self.state.borrow_mut().allocations.push(allocation);
        Address(address)
    }

    /// Runs operations of any stream until one has none left.
    fn drain(&self, stream: Stream) -> Result<(), GpuError> {
        loop {
            let operation = {
                let mut state = self.state.borrow_mut();
                if let Some(error) = &state.broken {
                    return Err(error.clone());
                }
                if state.queues[stream as usize].is_empty() {
                    return Ok(());
                }
                state.next()?
            };
            if let Err(error) = self.run(operation) {
                self.state.borrow_mut().broken = Some(error.clone());
                return Err(error);
            }
        }
    }

    fn run(&self, operation: Operation) -> Result<(), GpuError> {
        match operation {
            Operation::Kernel { function, grid, threads, shared, mut cells } => {
                // SAFETY: the typed functions give each kernel its own parameters; what they point to is the engine's
                // memory, as on a GPU.
                let run = unsafe { function.run(grid, [threads, 1, 1], shared, &mut cells) };
                run.map(|_| ()).map_err(|error| failed("a kernel", error.to_string()))
            }
            Operation::Product(product) => {
                self.check_product(&product)?;
                // SAFETY: checked.
                unsafe { multiply(&product) };
                Ok(())
            }
            Operation::Clear { to, bytes } => {
                self.check("clear", to, bytes)?;
                // SAFETY: checked.
                unsafe { std::ptr::write_bytes(to as *mut u8, 0, bytes as usize) };
                Ok(())
            }
            Operation::Copy { to, from, bytes } => {
                self.check("copy to", to, bytes)?;
                self.check("copy from", from, bytes)?;
                // SAFETY: checked.
                unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes as usize) };
                Ok(())
            }
            Operation::Write { to, bytes } => {
                self.check("upload", to, bytes.len() as u64)?;
                // SAFETY: checked.
                unsafe { std::ptr::copy(bytes.as_ptr(), to as *mut u8, bytes.len()) };
                Ok(())
            }
            Operation::Call(call) => {
                call();
                Ok(())
            }
            Operation::Record(event) => {
                self.state.borrow_mut().happened.insert(event);
                Ok(())
            }
            Operation::Wait(_) => Ok(()),
        }
    }

    fn check(&self, call: &str, from: u64, bytes: u64) -> Result<(), GpuError> {
        let state = self.state.borrow();
        match bytes == 0 || state.allocations.iter().any(|known| known.has(from, bytes)) {
            true => Ok(()),
            false => Err(failed(call, format!("{bytes} bytes at {from:#x} are not allocated"))),
        }
    }

    fn check_product(&self, product: &Product) -> Result<(), GpuError> {
        use trainer::cuda::gpu::{ProductForm, ProductResult};
        let (m, n, k) = (product.m, product.n, product.k);
        let (a, b) = match product.form {
            ProductForm::Nt => ((m, k), (n, k)),
            ProductForm::Nn => ((m, k), (k, n)),
            ProductForm::Tn => ((k, m), (k, n)),
        };
        let size = if product.result == ProductResult::F32 { 4 } else { 2 };
        for ((address, width), (rows, columns), size) in
            [(product.a, a, 2), (product.b, b, 2), (product.d, (m, n), size)]
        {
            if width < columns {
                return Err(failed("a product", "rows overlap"));
            }
            let last = u64::from(rows.saturating_sub(1)) * u64::from(width) + u64::from(columns);
            if rows > 0 {
                self.check("a product", address.0, last * size)?;
            }
        }
        Ok(())
    }
}

impl State {
    /// The next operation: of a random stream whose first one need not wait.
    fn next(&mut self) -> Result<Operation, GpuError> {
        let ready = |queue: &VecDeque<Operation>| match queue.front() {
            Some(Operation::Wait(event)) => self.happened.contains(event),
            Some(_) => true,
            None => false,
        };
        let streams: Vec<usize> =
            (0..self.queues.len()).filter(|at| ready(&self.queues[*at])).collect();
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let chosen = streams.get((self.random >> 33) as usize % streams.len().max(1));
        chosen
            .and_then(|stream| self.queues[*stream].pop_front())
            .ok_or_else(|| failed("the emulated GPU", "all streams wait for each other"))
    }
}

impl Gpu for Emulated {
    fn name(&self) -> String {
        "emulated".to_owned()
    }

    fn memory(&self) -> Result<(u64, u64), GpuError> {
        let state = self.state.borrow();
        let device = state.allocations.iter().filter(|allocation| !allocation.pinned);
        let used: u64 = device.map(|allocation| allocation.bytes as u64).sum();
        Ok((self.behaviour.memory.saturating_sub(used), self.behaviour.memory))
    }

    fn allocate(&self, bytes: u64) -> Result<Address, GpuError> {
        let (free, _) = self.memory()?;
        match bytes <= free {
            true => Ok(self.allocate_as(bytes, false)),
            false => Err(GpuError::OutOfMemory { wanted: bytes, free }),
        }
    }

    fn allocate_pinned(&self, bytes: u64) -> Result<Address, GpuError> {
        Ok(self.allocate_as(bytes, true))
    }

    fn host_reaches_memory(&self) -> bool {
        true
    }

    fn launch(&self, stream: Stream, launch: Launch<'_>) -> Result<(), GpuError> {
        if launch.shared > launch.kernel.shared_max {
            return Err(failed(launch.kernel.name, "more shared memory than was said"));
        }
        let function = Kernels::open(launch.kernel, &self.behaviour.kernels)
            .map_err(|error| failed(launch.kernel.name, error.to_string()))?;
        let cells = launch.arguments.iter().map(|argument| match *argument {
            Argument::Address(address) => address.0,
            Argument::U32(value) => value.into(),
            Argument::U64(value) => value,
            Argument::F32(value) => value.to_bits().into(),
        });
        if launch.grid.contains(&0) {
            return Ok(());
        }
        *self.log.lock().launches.entry(launch.kernel.name).or_default() += 1;
        let (grid, threads, shared) = (launch.grid, launch.kernel.threads, launch.shared);
        let cells = cells.collect();
        self.start(stream, Operation::Kernel { function, grid, threads, shared, cells })
    }

    fn product(&self, stream: Stream, product: &Product) -> Result<(), GpuError> {
        self.start(stream, Operation::Product(*product))
    }

    fn clear(&self, stream: Stream, to: Address, bytes: u64) -> Result<(), GpuError> {
        self.start(stream, Operation::Clear { to: to.0, bytes })
    }

    fn copy(&self, stream: Stream, to: Address, from: Address, bytes: u64) -> Result<(), GpuError> {
        self.start(stream, Operation::Copy { to: to.0, from: from.0, bytes })
    }

    fn upload(&self, stream: Stream, to: Address, from: &[u8]) -> Result<(), GpuError> {
        self.log.lock().uploaded += from.len() as u64;
        self.start(stream, Operation::Write { to: to.0, bytes: from.to_vec() })
    }

    fn download(&self, stream: Stream, from: Address, into: &mut [u8]) -> Result<(), GpuError> {
        self.drain(stream)?;
        self.check("download", from.0, into.len() as u64)?;
        // SAFETY: checked; the streams rest.
        unsafe { std::ptr::copy(from.0 as *const u8, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn call(&self, stream: Stream, call: Box<dyn FnOnce() + Send>) -> Result<(), GpuError> {
        self.start(stream, Operation::Call(call))
    }

    fn record(&self, stream: Stream) -> Result<Event, GpuError> {
        let event = {
            let mut state = self.state.borrow_mut();
            state.events += 1;
            state.events
        };
        self.start(stream, Operation::Record(event))?;
        Ok(Event(event))
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<(), GpuError> {
        self.start(stream, Operation::Wait(event.0))
    }

    fn synchronise(&self, stream: Stream) -> Result<(), GpuError> {
        self.drain(stream)
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        let allocations = &self.state.get_mut().allocations;
        let broken = allocations.iter().filter(|known| !known.guards_are_whole()).count();
        self.log.lock().broken_guards += broken;
    }
}
