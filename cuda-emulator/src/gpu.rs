//! An emulated GPU: memory of the host, and streams that run only when somebody waits for them, in random order
//! where no event forbids it.
//!
//! So a missing event shows: in some order a kernel reads what is not there yet. Fresh device memory is NaN, guards
//! lie around each allocation, and every copy, product and clearing is checked against what was allocated. What kernels
//! read is not checked; where they write outside, the guards show it.
//!
//! An operation that has to meet other ranks never holds up its GPU: whatever else is ready runs meanwhile, and
//! who waits runs the other ranks' streams, as theirs would run on GPUs. A GPU by itself runs the same order
//! each time; with several, who comes first depends on their threads.

use std::alloc::{alloc, dealloc, handle_alloc_error, Layout};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use trainer::cuda::gpu::{Meeting, ProductForm, ProductResult};
use trainer::cuda::{Address, Argument, Event, Gpu, GpuError, Launch, Product, Stream};

use crate::library::{Function, Kernels};
use crate::product::multiply;
use crate::settings::Settings;

/// Bytes before and behind each allocation that nobody may write.
const GUARD: usize = 4096;
const GUARD_BYTE: u8 = 0xA5;
/// Fresh device memory: NaN in every format.
const FRESH_BYTE: u8 = 0xFF;
/// Fresh pinned memory.
const FRESH_PINNED_BYTE: u8 = 0x7F;
/// What CUDA aligns device memory to, and no more.
const ALIGNMENT: usize = 256;

/// What goes wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// From this operation on, counted from 0 as they are started, everything fails.
    Lost(u64),
    /// This operation, counted the same, fails as it runs: whoever waits next is told, and everything fails from then on.
    Fails(u64),
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
    /// Whether a stream goes on at a wait for an event, as it would where the engine forgot to wait.
    pub forgets_waits: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        let (kernels, fault) = (Settings::default(), Fault::None);
        Self { seed: 1, kernels, memory: 1 << 32, fault, forgets_waits: false }
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
    Kernel {
        function: Function,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        cells: Vec<u64>,
    },
    Product(Product),
    Clear {
        to: u64,
        bytes: u64,
    },
    Copy {
        to: u64,
        from: u64,
        bytes: u64,
    },
    Write {
        to: u64,
        bytes: Vec<u8>,
    },
    Call(Box<dyn FnOnce() + Send>),
    Meet(Box<dyn Meeting>),
    Record(u64),
    Wait(u64),
    /// In the place of an operation that fails.
    Fail(u64),
}

impl Operation {
    /// Tells the other ranks that it will not run.
    fn cancel(self, error: &GpuError) {
        if let Self::Meet(mut meeting) = self {
            meeting.cancel(error);
        }
    }
}

/// Device or pinned memory between guards.
struct Allocation {
    /// Of all, guards included.
    memory: *mut u8,
    layout: Layout,
    /// Where the usable bytes begin.
    offset: usize,
    bytes: usize,
    pinned: bool,
}

// SAFETY: it owns its memory, and is used under the GPU's lock.
unsafe impl Send for Allocation {}

impl Allocation {
    fn new(bytes: u64, pinned: bool) -> Option<Self> {
        let bytes = usize::try_from(bytes).ok()?;
        // Device memory lies on no better boundary than is promised.
        let offset = if pinned { GUARD } else { GUARD + ALIGNMENT };
        let size = offset.checked_add(bytes)?.checked_add(GUARD)?;
        let layout = Layout::from_size_align(size, GUARD).ok()?;
        // SAFETY: the size is not 0.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        let fill = if pinned { FRESH_PINNED_BYTE } else { FRESH_BYTE };
        // SAFETY: all of it was just allocated.
        unsafe {
            memory.write_bytes(GUARD_BYTE, size);
            memory.add(offset).write_bytes(fill, bytes);
        }
        Some(Self { memory, layout, offset, bytes, pinned })
    }

    fn address(&self) -> u64 {
        self.memory.expose_provenance() as u64 + self.offset as u64
    }

    fn end(&self) -> u64 {
        self.address() + self.bytes as u64
    }

    fn has(&self, from: u64, bytes: u64) -> bool {
        from >= self.address() && from.checked_add(bytes).is_some_and(|end| end <= self.end())
    }

    fn guards_are_whole(&self) -> bool {
        let behind = self.offset + self.bytes;
        // SAFETY: both lie in what was allocated, and nothing runs under the GPU's lock.
        let guards = unsafe {
            [
                slice::from_raw_parts(self.memory, self.offset),
                slice::from_raw_parts(self.memory.add(behind), self.layout.size() - behind),
            ]
        };
        guards.iter().all(|guard| guard.iter().all(|byte| *byte == GUARD_BYTE))
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout.
        unsafe { dealloc(self.memory, self.layout) }
    }
}

struct State {
    queues: [VecDeque<Operation>; Stream::ALL.len()],
    happened: HashSet<u64>,
    /// Events recorded by now, on a queue or happened.
    events: u64,
    /// Operations that were started.
    started: u64,
    random: u64,
    allocations: Vec<Allocation>,
    broken: Option<GpuError>,
}

/// What one try to run an operation came to.
enum Turn {
    /// One ran.
    Ran,
    /// There is none, or all wait for events that no queue can bring.
    Nothing,
    /// Those that are left wait for other ranks.
    Others(Box<dyn FnOnce() + Send>),
}

/// What the GPU's own thread and the other ranks' share.
struct Inner {
    behaviour: Behaviour,
    log: Arc<Log>,
    state: Mutex<State>,
}

/// An emulated GPU.
pub struct Emulated {
    inner: Arc<Inner>,
}

fn failed(call: &str, reason: impl Display) -> GpuError {
    GpuError::Failed { call: call.to_owned(), reason: reason.to_string() }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an operation on a stream's queue.
    fn start(&self, stream: Stream, operation: Operation) -> Result<(), GpuError> {
        let mut state = self.lock();
        if let Err(error) = state.check() {
            operation.cancel(&error);
            return Err(error);
        }
        let number = state.started;
        state.started += 1;
        let operation = match self.behaviour.fault {
            Fault::Lost(at) if number >= at => {
                let error = failed("the emulated GPU", "it fell off the bus");
                operation.cancel(&error);
                return Err(state.breaks(error));
            }
            Fault::Fails(at) if number == at => {
                operation.cancel(&failed("the emulated GPU", format!("operation {at} fails")));
                Operation::Fail(at)
            }
            _ => operation,
        };
        state.queue(stream).push_back(operation);
        Ok(())
    }

    /// Runs operations of any stream until one has none left.
    fn drain(&self, stream: Stream) -> Result<(), GpuError> {
        loop {
            let turn = {
                let mut state = self.lock();
                state.check()?;
                if state.queue(stream).is_empty() {
                    return Ok(());
                }
                state.turn()?
            };
            match turn {
                Turn::Ran => {}
                Turn::Others(wait) => wait(),
                Turn::Nothing => {
                    let error = failed("the emulated GPU", "all streams wait for each other");
                    return Err(self.lock().breaks(error));
                }
            }
        }
    }
}

impl State {
    fn check(&self) -> Result<(), GpuError> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn queue(&mut self, stream: Stream) -> &mut VecDeque<Operation> {
        let [compute, exchange, inward, outward] = &mut self.queues;
        match stream {
            Stream::Compute => compute,
            Stream::Exchange => exchange,
            Stream::Inward => inward,
            Stream::Outward => outward,
        }
    }

    /// Fails for good; nothing that is queued will run, and other ranks are told.
    fn breaks(&mut self, error: GpuError) -> GpuError {
        for operation in self.queues.iter_mut().flat_map(std::mem::take) {
            operation.cancel(&error);
        }
        self.broken = Some(error.clone());
        error
    }

    /// A number below `below`, by xorshift64.
    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as usize % below.max(1)
    }

    /// Runs the first operation of a random stream, one that need not wait.
    fn turn(&mut self) -> Result<Turn, GpuError> {
        let mut streams: Vec<usize> = (0..self.queues.len()).collect();
        let mut patience = None;
        while !streams.is_empty() {
            let chosen = self.draw(streams.len());
            let stream = streams.swap_remove(chosen);
            let happened = &self.happened;
            let Some(queue) = self.queues.get_mut(stream) else { continue };
            let ready = match queue.front_mut() {
                None => continue,
                Some(Operation::Wait(event)) => Ok(happened.contains(event)),
                Some(Operation::Meet(meeting)) => {
                    let ended = meeting.attend();
                    if matches!(ended, Ok(false)) {
                        patience = Some(meeting.patience());
                    }
                    ended
                }
                Some(_) => Ok(true),
            };
            let ran = match ready {
                Ok(false) => continue,
                Ok(true) => queue.pop_front().map_or(Ok(()), |operation| self.run(operation)),
                Err(error) => Err(error),
            };
            return match ran {
                Ok(()) => Ok(Turn::Ran),
                Err(error) => Err(self.breaks(error)),
            };
        }
        Ok(patience.map_or(Turn::Nothing, Turn::Others))
    }

    /// The same for another rank's thread, or for nobody who waits: whether one ran. An error comes up as this
    /// GPU's own thread uses it next.
    fn drive(&mut self) -> bool {
        self.broken.is_none() && matches!(self.turn(), Ok(Turn::Ran))
    }

    fn run(&mut self, operation: Operation) -> Result<(), GpuError> {
        match operation {
            Operation::Kernel { function, grid, threads, shared, mut cells } => {
                // SAFETY: the typed functions give each kernel its own parameters; what they point to is the engine's
                // memory, as on a GPU.
                let run = unsafe { function.run(grid, [threads, 1, 1], shared, &mut cells) };
                run.map(|_| ()).map_err(|error| failed("a kernel", error))?;
            }
            // SAFETY: it was checked as it was started; so is all below.
            Operation::Product(product) => unsafe { multiply(&product) },
            // SAFETY: as above.
            Operation::Clear { to, bytes } => unsafe { place(to).write_bytes(0, bytes as usize) },
            // SAFETY: as above.
            Operation::Copy { to, from, bytes } => unsafe {
                std::ptr::copy(place(from), place(to), bytes as usize);
            },
            // SAFETY: as above.
            Operation::Write { to, bytes } => unsafe {
                std::ptr::copy(bytes.as_ptr(), place(to), bytes.len());
            },
            Operation::Call(call) => call(),
            Operation::Record(event) => {
                self.happened.insert(event);
            }
            Operation::Wait(_) | Operation::Meet(_) => {}
            Operation::Fail(number) => {
                return Err(failed("the emulated GPU", format!("operation {number} fails")));
            }
        }
        Ok(())
    }

    /// Whether bytes lie in an allocation.
    fn inside(&self, call: &str, from: u64, bytes: u64) -> Result<(), GpuError> {
        if bytes == 0 || self.allocations.iter().any(|known| known.has(from, bytes)) {
            return Ok(());
        }
        let begins = |known: &&Allocation| from >= known.address() && from < known.end();
        let range = format!("{bytes} bytes at {from:#x}");
        Err(match self.allocations.iter().find(begins) {
            Some(known) => {
                let kind = if known.pinned { "pinned" } else { "device" };
                let (at, of) = (from - known.address(), known.bytes);
                let place = format!("byte {at} of an allocation of {of} bytes of {kind} memory");
                failed(call, format!("{range} begin at {place} and go beyond it"))
            }
            None => failed(call, format!("{range} are not allocated")),
        })
    }
}

/// Where an address is; allocations have exposed theirs.
fn place(at: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(at as usize)
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
        Self { inner: Arc::new(Inner { behaviour, log, state: Mutex::new(state) }) }
    }

    /// Whether nothing has written outside what was allocated.
    pub fn guards_are_whole(&self) -> bool {
        self.broken_guards().is_empty()
    }

    /// Which allocations something has written around, numbered in the order in which they were made.
    pub fn broken_guards(&self) -> Vec<usize> {
        let state = self.inner.lock();
        let broken = |(_, known): &(usize, &Allocation)| !known.guards_are_whole();
        state.allocations.iter().enumerate().filter(broken).map(|(number, _)| number).collect()
    }

    fn allocate_as(&self, bytes: u64, pinned: bool) -> Result<Address, GpuError> {
        let mut state = self.inner.lock();
        state.check()?;
        let allocation = Allocation::new(bytes, pinned)
            .ok_or_else(|| failed("an allocation", format!("{bytes} bytes")))?;
        let address = allocation.address();
        match pinned {
            true => self.inner.log.lock().pinned.push(bytes),
            false => self.inner.log.lock().allocated.push(bytes),
        }
        state.allocations.push(allocation);
        Ok(Address(address))
    }

    /// Whether places lie in allocations.
    fn inside(&self, call: &str, places: &[(Address, u64)]) -> Result<(), GpuError> {
        let state = self.inner.lock();
        state.check()?;
        places.iter().try_for_each(|(at, bytes)| state.inside(call, at.0, *bytes))
    }
}

/// The places of a product's matrices, each from its first to its last value.
fn matrices(product: &Product) -> Result<[(Address, u64); 3], GpuError> {
    let (m, n, k) = (product.m, product.n, product.k);
    let (a, b) = match product.form {
        ProductForm::Nt => ((m, k), (n, k)),
        ProductForm::Nn => ((m, k), (k, n)),
        ProductForm::Tn => ((k, m), (k, n)),
    };
    let result = if product.result == ProductResult::F32 { 4 } else { 2 };
    let span = |name, (at, stride): (Address, u32), (rows, columns): (u32, u32), size: u64| {
        if stride < columns {
            let reason = format!("rows of {name} are {columns} values, and {stride} apart");
            return Err(failed("a product", reason));
        }
        if !at.0.is_multiple_of(size) {
            return Err(failed("a product", format!("{name} is not on a boundary of its values")));
        }
        let values = match (rows, columns) {
            (0, _) | (_, 0) => 0,
            _ => u64::from(rows - 1) * u64::from(stride) + u64::from(columns),
        };
        Ok((at, values * size))
    };
    Ok([
        span("a", product.a, a, 2)?,
        span("b", product.b, b, 2)?,
        span("d", product.d, (m, n), result)?,
    ])
}

impl Gpu for Emulated {
    fn name(&self) -> String {
        "emulated".to_owned()
    }

    fn memory(&self) -> Result<(u64, u64), GpuError> {
        let (state, all) = (self.inner.lock(), self.inner.behaviour.memory);
        state.check()?;
        let device = state.allocations.iter().filter(|allocation| !allocation.pinned);
        let used: u64 = device.map(|allocation| allocation.bytes as u64).sum();
        Ok((all.saturating_sub(used), all))
    }

    fn allocate(&self, bytes: u64) -> Result<Address, GpuError> {
        let (free, _) = self.memory()?;
        match bytes <= free {
            true => self.allocate_as(bytes, false),
            false => Err(GpuError::OutOfMemory { wanted: bytes, free }),
        }
    }

    fn allocate_pinned(&self, bytes: u64) -> Result<Address, GpuError> {
        self.allocate_as(bytes, true)
    }

    fn host_reaches_memory(&self) -> bool {
        true
    }

    fn launch(&self, stream: Stream, launch: Launch<'_>) -> Result<(), GpuError> {
        if launch.shared > launch.kernel.shared_max {
            return Err(failed(launch.kernel.name, "more shared memory than was said"));
        }
        let function = Kernels::open(launch.kernel, &self.inner.behaviour.kernels)
            .map_err(|error| failed(launch.kernel.name, error))?;
        let cells = launch.arguments.iter().map(|argument| match *argument {
            Argument::Address(address) => address.0,
            Argument::U32(value) => value.into(),
            Argument::U64(value) => value,
            Argument::F32(value) => value.to_bits().into(),
        });
        if launch.grid.contains(&0) {
            return Ok(());
        }
        *self.inner.log.lock().launches.entry(launch.kernel.name).or_default() += 1;
        let (grid, threads, shared) = (launch.grid, launch.kernel.threads, launch.shared);
        let cells = cells.collect();
        self.inner.start(stream, Operation::Kernel { function, grid, threads, shared, cells })
    }

    fn product(&self, stream: Stream, product: &Product) -> Result<(), GpuError> {
        self.inside("a product", &matrices(product)?)?;
        self.inner.start(stream, Operation::Product(*product))
    }

    fn clear(&self, stream: Stream, to: Address, bytes: u64) -> Result<(), GpuError> {
        self.inside("clear", &[(to, bytes)])?;
        self.inner.start(stream, Operation::Clear { to: to.0, bytes })
    }

    fn copy(&self, stream: Stream, to: Address, from: Address, bytes: u64) -> Result<(), GpuError> {
        self.inside("copy to", &[(to, bytes)])?;
        self.inside("copy from", &[(from, bytes)])?;
        self.inner.start(stream, Operation::Copy { to: to.0, from: from.0, bytes })
    }

    fn upload(&self, stream: Stream, to: Address, from: &[u8]) -> Result<(), GpuError> {
        self.inside("upload", &[(to, from.len() as u64)])?;
        self.inner.log.lock().uploaded += from.len() as u64;
        self.inner.start(stream, Operation::Write { to: to.0, bytes: from.to_vec() })
    }

    fn download(&self, stream: Stream, from: Address, into: &mut [u8]) -> Result<(), GpuError> {
        self.inside("download", &[(from, into.len() as u64)])?;
        self.inner.drain(stream)?;
        let _rests = self.inner.lock();
        // SAFETY: checked, and nothing runs under the lock.
        unsafe { std::ptr::copy(place(from.0), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn call(&self, stream: Stream, call: Box<dyn FnOnce() + Send>) -> Result<(), GpuError> {
        self.inner.start(stream, Operation::Call(call))
    }

    fn meet(&self, stream: Stream, mut meeting: Box<dyn Meeting>) -> Result<(), GpuError> {
        if let Err(error) = self.inside("a collective operation", &meeting.places()) {
            meeting.cancel(&error);
            return Err(error);
        }
        let inner: Weak<Inner> = Arc::downgrade(&self.inner);
        meeting.driven_by(Arc::new(move || {
            let inner = inner.upgrade();
            inner.is_some_and(|inner| inner.lock().drive())
        }));
        self.inner.start(stream, Operation::Meet(meeting))
    }

    fn record(&self, stream: Stream) -> Result<Event, GpuError> {
        let event = {
            let mut state = self.inner.lock();
            state.events += 1;
            state.events
        };
        self.inner.start(stream, Operation::Record(event))?;
        Ok(Event(event))
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<(), GpuError> {
        if !(1..=self.inner.lock().events).contains(&event.0) {
            return Err(failed("wait", format!("there is no event {}", event.0)));
        }
        if self.inner.behaviour.forgets_waits {
            return Ok(());
        }
        self.inner.start(stream, Operation::Wait(event.0))
    }

    fn synchronise(&self, stream: Stream) -> Result<(), GpuError> {
        self.inner.drain(stream)
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        // What is queued still happens, but for what would have to wait for others.
        while !thread::panicking() && state.drive() {}
        if state.broken.is_none() {
            let _ = state.breaks(failed("the emulated GPU", "it was dropped with work to do"));
        }
        let broken = state.allocations.iter().filter(|known| !known.guards_are_whole()).count();
        self.inner.log.lock().broken_guards += broken;
    }
}
