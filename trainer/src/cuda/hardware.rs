//! A real GPU: [`Gpu`] by NVIDIA's driver, through cudarc.
//!
//! A thin layer with no decision in it, as no test without a GPU reaches it: what it does is a call of
//! the driver's, and an error that names its cause. Everything above it runs on the emulator.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{c_int, c_void, CString};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdevice_attribute, CUevent, CUevent_flags, CUfunction,
    CUfunction_attribute_enum, CUmodule, CUresult, CUstream,
};

use super::compiler::{self, Architecture, Unit};
use super::cubins::Cubins;
use super::found::{self, Library};
use super::gate;
use super::gpu::{Address, Argument, Event, Gpu, GpuError, Launch, Product, Stream};
use super::kernel::Kernel;
use super::products::{Products, WORKSPACE};

/// Events that take turns. One that comes round again stands for something later than was asked for, which waits longer
/// and never less.
const EVENTS: u64 = 1_024;

/// Uploads that may be under way at once, and bytes of each; a larger one is waited for.
const STAGES: usize = 4;
const STAGE_BYTES: usize = 1 << 20;

/// The oldest compute capability with bf16, `cp.async` and `mma.sync` of m16n8k16.
const CAPABILITY_MIN: u32 = 80;

/// Threads that compile kernels at the first start.
const COMPILING: usize = 8;

/// A card of this machine, as the driver tells of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Card {
    /// Its number, from 0; `CUDA_VISIBLE_DEVICES` chooses and orders.
    pub index: usize,
    /// What it is called.
    pub name: String,
    /// Bytes of its memory.
    pub memory: u64,
    /// Compute capability: 10 · major + minor.
    pub capability: u32,
    /// Multiprocessors.
    pub multiprocessors: u32,
}

/// The newest CUDA that the driver supports: major and minor version.
///
/// # Errors
/// There is no driver.
pub fn driver_version() -> Result<(i32, i32), GpuError> {
    found::need(Library::Driver)?;
    let mut version: c_int = 0;
    // SAFETY: the library is there, and this is a place for a number; it needs no other call before it.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(|error| failed("cuDriverGetVersion", error))?;
    Ok((version / 1_000, version % 1_000 / 10))
}

/// The cards of this machine; none is an error.
///
/// # Errors
/// There is no driver, it does not work, or it sees no card.
pub fn cards() -> Result<Vec<Card>, GpuError> {
    found::need(Library::Driver)?;
    result::init().map_err(|error| failed("cuInit", error))?;
    let count = result::device::get_count().map_err(|error| failed("cuDeviceGetCount", error))?;
    let count = usize::try_from(count).unwrap_or(0);
    if count == 0 {
        return Err(GpuError::NoGpu { index: 0, count });
    }
    (0..count).map(card).collect()
}

fn card(index: usize) -> Result<Card, GpuError> {
    let device =
        result::device::get(index as c_int).map_err(|error| failed("cuDeviceGet", error))?;
    // SAFETY: the driver gave this device.
    let attribute = |attribute| unsafe {
        let value = result::device::get_attribute(device, attribute);
        value.map(|value| value as u32).map_err(|error| failed("cuDeviceGetAttribute", error))
    };
    let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(Card {
        index,
        name: result::device::get_name(device).map_err(|error| failed("cuDeviceGetName", error))?,
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device) }
            .map_err(|error| failed("cuDeviceTotalMem", error))? as u64,
        capability: 10 * major + minor,
        multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
    })
}

/// Bytes of a card's memory that are free now, and in all.
///
/// # Errors
/// There is no such card.
pub fn memory(index: usize) -> Result<(u64, u64), GpuError> {
    cards()?;
    let device =
        result::device::get(index as c_int).map_err(|error| failed("cuDeviceGet", error))?;
    // SAFETY: the driver gave this device; the context is released before the end.
    unsafe {
        let context = result::primary_ctx::retain(device)
            .map_err(|error| failed("cuDevicePrimaryCtxRetain", error))?;
        let free = result::ctx::set_current(context).and_then(|()| result::mem_get_info());
        let _ = result::primary_ctx::release(device);
        let (free, all) = free.map_err(|error| failed("cuMemGetInfo", error))?;
        Ok((free as u64, all as u64))
    }
}

/// What a call's failure means for whoever has the machine.
fn failed(call: &str, error: DriverError) -> GpuError {
    let of_result = error.0;
    let name = format!("{of_result:?}");
    let call = call.to_owned();
    match of_result {
        CUresult::CUDA_ERROR_NO_DEVICE => GpuError::NoGpu { index: 0, count: 0 },
        CUresult::CUDA_ERROR_INVALID_DEVICE => GpuError::Failed {
            call,
            reason: format!("{name}: there is no such card"),
        },
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU | CUresult::CUDA_ERROR_INVALID_IMAGE => {
            GpuError::Failed {
                call,
                reason: format!("{name}: the driver is too old for kernels of this compiler, or the card is of another kind"),
            }
        }
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => GpuError::Failed {
            call,
            reason: format!("{name}: libcuda and the kernel's module are of different drivers; restart the machine after an update"),
        },
        CUresult::CUDA_ERROR_SYSTEM_NOT_READY => GpuError::Failed {
            call,
            reason: format!("{name}: the fabric manager does not run (systemctl start nvidia-fabricmanager)"),
        },
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => {
            GpuError::Failed { call, reason: format!("{name}: another process has the card for itself") }
        }
        CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
        | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | CUresult::CUDA_ERROR_CONTAINED
        | CUresult::CUDA_ERROR_UNKNOWN
        | CUresult::CUDA_ERROR_NOT_INITIALIZED
        | CUresult::CUDA_ERROR_DEINITIALIZED => GpuError::Failed {
            call,
            reason: format!("{name}: the card is lost to this process; `nvidia-smi` and the Xid lines of `dmesg` say why"),
        },
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
        | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUresult::CUDA_ERROR_LAUNCH_FAILED
        | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT => GpuError::Failed {
            call,
            reason: format!("{name}: a kernel went wrong, and the card is lost to this process; `gauntlet doctor --cuda` says which kernels do not work here"),
        },
        _ => {
            let text = error.error_string().ok().map(|text| text.to_string_lossy().into_owned());
            GpuError::Failed { call, reason: format!("{name}: {}", text.unwrap_or_default()) }
        }
    }
}

/// One real GPU.
pub struct Hardware {
    card: Card,
    device: CUdevice,
    context: CUcontext,
    architecture: Architecture,
    cubins: Cubins,
    streams: Vec<CUstream>,
    modules: RefCell<HashMap<Unit, CUmodule>>,
    functions: RefCell<HashMap<(Unit, &'static str), CUfunction>>,
    events: RefCell<Vec<CUevent>>,
    recorded: Cell<u64>,
    device_memory: RefCell<Vec<u64>>,
    pinned: RefCell<Vec<*mut c_void>>,
    stages: RefCell<Vec<Stage>>,
    next_stage: Cell<usize>,
    products: RefCell<Option<Products>>,
    workspaces: RefCell<HashMap<usize, Address>>,
}

// SAFETY: the driver's handles may be used by any thread whose context this is, which `enter` sees to at each call; one thread at
// a time uses this, as it is not Sync.
unsafe impl Send for Hardware {}

/// A piece of pinned memory that uploads go through.
struct Stage {
    at: *mut c_void,
    /// Recorded behind the last copy out of it.
    copied: CUevent,
}

impl Hardware {
    /// Opens a card by its number, and compiles all kernels for it that are not kept yet.
    ///
    /// # Errors
    /// There is no such card, a library is missing, the driver is too old, the card has no bf16, or a kernel does not
    /// compile.
    pub fn open(index: usize, cubins: &Cubins) -> Result<Self, GpuError> {
        let cards = cards()?;
        let count = cards.len();
        let card = cards.into_iter().nth(index).ok_or(GpuError::NoGpu { index, count })?;
        let (driver, nvrtc) = (driver_version()?, compiler::version()?);
        if driver.0 < nvrtc.0 {
            return Err(GpuError::Driver {
                has: format!("{}.{}", driver.0, driver.1),
                needs: format!(
                    "{}.0, or NVRTC and cuBLASLt of the driver's CUDA (pip install nvidia-cuda-nvrtc-cu{} nvidia-cublas-cu{}),",
                    nvrtc.0, driver.0, driver.0
                ),
            });
        }
        if card.capability < CAPABILITY_MIN {
            return Err(GpuError::Failed {
                call: format!("{} has compute capability {}", card.name, shown(card.capability)),
                reason: format!("{} or newer is needed, for bf16", shown(CAPABILITY_MIN)),
            });
        }
        found::need(Library::CublasLt)?;
        let architecture = Architecture::of(card.capability);
        let compiled = gate::each(&Unit::all(), COMPILING, |unit| {
            cubins.compiled(unit, architecture).map(|_| ())
        });
        compiled.into_iter().collect::<Result<(), _>>()?;

        let device =
            result::device::get(index as c_int).map_err(|error| failed("cuDeviceGet", error))?;
        // SAFETY: the driver gave this device; it is released as this is dropped.
        let context = unsafe { result::primary_ctx::retain(device) }
            .map_err(|error| failed("cuDevicePrimaryCtxRetain", error))?;
        let mut hardware = Self {
            card,
            device,
            context,
            architecture,
            cubins: cubins.clone(),
            streams: Vec::new(),
            modules: RefCell::default(),
            functions: RefCell::default(),
            events: RefCell::default(),
            recorded: Cell::new(0),
            device_memory: RefCell::default(),
            pinned: RefCell::default(),
            stages: RefCell::default(),
            next_stage: Cell::new(0),
            products: RefCell::new(None),
            workspaces: RefCell::default(),
        };
        hardware.enter()?;
        for _ in Stream::ALL {
            let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
                .map_err(|error| failed("cuStreamCreate", error))?;
            hardware.streams.push(stream);
        }
        for _ in 0..STAGES {
            let at = hardware.host_memory(STAGE_BYTES as u64)?;
            let stage = Stage { at, copied: event()? };
            hardware.stages.borrow_mut().push(stage);
        }
        *hardware.products.borrow_mut() = Some(Products::open()?);
        hardware.workspace(Stream::Compute)?;
        Ok(hardware)
    }

    /// What the driver tells of the card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Seconds that each of cuBLASLt's ways takes for a product, the one that is used without being asked first; the best
    /// is used from now on. What the product's result was is lost.
    ///
    /// # Errors
    /// A call fails.
    pub fn compare_products(&self, product: &Product, repeats: u32) -> Result<Vec<f64>, GpuError> {
        self.enter()?;
        let workspace = self.workspace(Stream::Compute)?;
        let stream = self.stream(Stream::Compute)?;
        let mut products = self.products.borrow_mut();
        let products = products.as_mut().ok_or_else(|| Library::CublasLt.missing())?;
        let wait = || self.synchronise(Stream::Compute);
        products.compare(product, stream.cast(), workspace, repeats, &wait)
    }

    /// The driver's handle of a stream, for libraries that take one.
    pub fn raw_stream(&self, stream: Stream) -> Result<*mut c_void, GpuError> {
        Ok(self.stream(stream)?.cast())
    }

    /// Makes the card's context this thread's, for libraries that use it.
    ///
    /// # Errors
    /// The card is lost.
    pub fn enter(&self) -> Result<(), GpuError> {
        // SAFETY: the context is retained until this is dropped.
        unsafe { result::ctx::set_current(self.context) }
            .map_err(|error| failed("cuCtxSetCurrent", error))
    }

    fn stream(&self, stream: Stream) -> Result<CUstream, GpuError> {
        let at = Stream::ALL.iter().position(|each| *each == stream);
        let found = at.and_then(|at| self.streams.get(at)).copied();
        found.ok_or_else(|| GpuError::Failed {
            call: format!("{stream:?}"),
            reason: "there is no such stream".to_owned(),
        })
    }

    fn host_memory(&self, bytes: u64) -> Result<*mut c_void, GpuError> {
        // SAFETY: it is freed once, as this is dropped. Flags 0: cached on the host, which reads it too.
        let at = unsafe { result::malloc_host(bytes as usize, 0) };
        let at = at.map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => GpuError::Failed {
                call: format!("{bytes} bytes of pinned memory"),
                reason: "the host does not give so much (`ulimit -l`, the container's limit of memory, or free memory)".to_owned(),
            },
            _ => failed("cuMemHostAlloc", error),
        })?;
        self.pinned.borrow_mut().push(at);
        Ok(at)
    }

    fn workspace(&self, stream: Stream) -> Result<Address, GpuError> {
        let at = Stream::ALL.iter().position(|each| *each == stream).unwrap_or(0);
        if let Some(workspace) = self.workspaces.borrow().get(&at) {
            return Ok(*workspace);
        }
        let workspace = self.allocate(WORKSPACE)?;
        self.workspaces.borrow_mut().insert(at, workspace);
        Ok(workspace)
    }

    fn module(&self, unit: Unit) -> Result<CUmodule, GpuError> {
        if let Some(module) = self.modules.borrow().get(&unit) {
            return Ok(*module);
        }
        let compiled = self.cubins.compiled(&unit, self.architecture)?;
        // SAFETY: a cubin as NVRTC made it, whose length is in its own header.
        let module = unsafe { result::module::load_data(compiled.cubin.as_ptr().cast()) }
            .map_err(|error| failed(&format!("loading {unit}"), error))?;
        self.modules.borrow_mut().insert(unit, module);
        Ok(module)
    }

    fn function(&self, kernel: &Kernel) -> Result<CUfunction, GpuError> {
        let unit = Unit::of(kernel);
        if let Some(function) = self.functions.borrow().get(&(unit, kernel.name)) {
            return Ok(*function);
        }
        let module = self.module(unit)?;
        let name = CString::new(kernel.name).unwrap_or_default();
        // SAFETY: the module is loaded until this is dropped.
        let function = unsafe { result::module::get_function(module, name) }
            .map_err(|error| failed(&format!("{} of {unit}", kernel.name), error))?;
        if kernel.shared_max > 0 {
            let attribute =
                CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: as above.
            unsafe {
                result::function::set_function_attribute(
                    function,
                    attribute,
                    kernel.shared_max as i32,
                )
            }
            .map_err(|error| {
                failed(
                    &format!("{} bytes of shared memory for {}", kernel.shared_max, kernel.name),
                    error,
                )
            })?;
        }
        self.functions.borrow_mut().insert((unit, kernel.name), function);
        Ok(function)
    }

    /// Copies `from` through a stage that no copy reads any more.
    fn upload_staged(&self, stream: Stream, to: Address, from: &[u8]) -> Result<(), GpuError> {
        let stages = self.stages.borrow();
        let number = self.next_stage.get();
        self.next_stage.set((number + 1) % STAGES);
        let Some(stage) = stages.get(number) else { return Ok(()) };
        let stream = self.stream(stream)?;
        // SAFETY: the stage has STAGE_BYTES bytes, and the last copy out of it is waited for.
        unsafe {
            result::event::synchronize(stage.copied)
                .map_err(|error| failed("cuEventSynchronize", error))?;
            ptr::copy_nonoverlapping(from.as_ptr(), stage.at.cast::<u8>(), from.len());
            sys::cuMemcpyHtoDAsync_v2(to.0, stage.at, from.len(), stream)
                .result()
                .map_err(|error| failed("cuMemcpyHtoDAsync", error))?;
            result::event::record(stage.copied, stream)
                .map_err(|error| failed("cuEventRecord", error))
        }
    }
}

/// An event without a clock.
fn event() -> Result<CUevent, GpuError> {
    result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)
        .map_err(|error| failed("cuEventCreate", error))
}

/// A compute capability as NVIDIA writes it.
pub fn shown(capability: u32) -> String {
    format!("{}.{}", capability / 10, capability % 10)
}

/// What a stream calls on the host.
type Call = Box<dyn FnOnce() + Send>;

/// Calls the host's function that `data` is a box of.
unsafe extern "C" fn call_host(data: *mut c_void) {
    // SAFETY: `call` made this box for this one call.
    let call = unsafe { Box::from_raw(data.cast::<Call>()) };
    // A panic must not pass the driver's own frames.
    let _ = catch_unwind(AssertUnwindSafe(call));
}

impl Gpu for Hardware {
    fn name(&self) -> String {
        self.card.name.clone()
    }

    fn memory(&self) -> Result<(u64, u64), GpuError> {
        self.enter()?;
        let (free, all) = result::mem_get_info().map_err(|error| failed("cuMemGetInfo", error))?;
        Ok((free as u64, all as u64))
    }

    fn allocate(&self, bytes: u64) -> Result<Address, GpuError> {
        self.enter()?;
        // SAFETY: it is freed once, as this is dropped.
        let at = unsafe { result::malloc_sync(bytes.max(1) as usize) };
        let at = at.map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let free = self.memory().map_or(0, |(free, _)| free);
                GpuError::OutOfMemory { wanted: bytes, free }
            }
            _ => failed("cuMemAlloc", error),
        })?;
        self.device_memory.borrow_mut().push(at);
        Ok(Address(at))
    }

    fn allocate_pinned(&self, bytes: u64) -> Result<Address, GpuError> {
        self.enter()?;
        Ok(Address(self.host_memory(bytes.max(1))? as u64))
    }

    fn launch(&self, stream: Stream, launch: Launch<'_>) -> Result<(), GpuError> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        self.enter()?;
        let function = self.function(launch.kernel)?;
        // Each in 8 bytes of its own, of which the driver reads as many as the parameter has (little-endian).
        let mut values: Vec<u64> = launch
            .arguments
            .iter()
            .map(|argument| match *argument {
                Argument::Address(Address(at)) | Argument::U64(at) => at,
                Argument::U32(value) => value.into(),
                Argument::F32(value) => value.to_bits().into(),
            })
            .collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| ptr::from_mut(value).cast()).collect();
        let [x, y, z] = launch.grid;
        // SAFETY: the typed functions of `kernels` give the arguments that the kernel has, and their callers addresses with
        // enough room.
        unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (launch.kernel.threads, 1, 1),
                launch.shared,
                self.stream(stream)?,
                &mut pointers,
            )
        }
        .map_err(|error| failed(launch.kernel.name, error))
    }

    fn product(&self, stream: Stream, product: &Product) -> Result<(), GpuError> {
        if product.m == 0 || product.n == 0 {
            return Ok(());
        }
        self.enter()?;
        let workspace = self.workspace(stream)?;
        let mut products = self.products.borrow_mut();
        let products = products.as_mut().ok_or_else(|| Library::CublasLt.missing())?;
        products.start(product, self.stream(stream)?.cast(), workspace)
    }

    fn clear(&self, stream: Stream, to: Address, bytes: u64) -> Result<(), GpuError> {
        if bytes == 0 {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: that there is room is the caller's word.
        unsafe { result::memset_d8_async(to.0, 0, bytes as usize, self.stream(stream)?) }
            .map_err(|error| failed("cuMemsetD8Async", error))
    }

    fn copy(&self, stream: Stream, to: Address, from: Address, bytes: u64) -> Result<(), GpuError> {
        if bytes == 0 {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: as for `clear`; addresses of the device and pinned ones are in one space.
        unsafe { sys::cuMemcpyAsync(to.0, from.0, bytes as usize, self.stream(stream)?) }
            .result()
            .map_err(|error| failed("cuMemcpyAsync", error))
    }

    fn upload(&self, stream: Stream, to: Address, from: &[u8]) -> Result<(), GpuError> {
        self.enter()?;
        if from.len() <= STAGE_BYTES {
            return match from.is_empty() {
                true => Ok(()),
                false => self.upload_staged(stream, to, from),
            };
        }
        // SAFETY: as for `clear`; `from` is lent until the stream has been waited for.
        unsafe { result::memcpy_htod_async(to.0, from, self.stream(stream)?) }
            .map_err(|error| failed("cuMemcpyHtoDAsync", error))?;
        self.synchronise(stream)
    }

    fn download(&self, stream: Stream, from: Address, into: &mut [u8]) -> Result<(), GpuError> {
        if !into.is_empty() {
            self.enter()?;
            // SAFETY: as for `upload`.
            unsafe { result::memcpy_dtoh_async(into, from.0, self.stream(stream)?) }
                .map_err(|error| failed("cuMemcpyDtoHAsync", error))?;
        }
        self.synchronise(stream)
    }

    fn call(&self, stream: Stream, call: Call) -> Result<(), GpuError> {
        self.enter()?;
        let stream = self.stream(stream)?;
        let data: *mut c_void = Box::into_raw(Box::new(call)).cast();
        // SAFETY: the box is `call_host`'s, or comes back where the driver does not take it.
        unsafe {
            result::stream::launch_host_function(stream, call_host, data).map_err(|error| {
                drop(Box::from_raw(data.cast::<Call>()));
                failed("cuLaunchHostFunc", error)
            })
        }
    }

    fn record(&self, stream: Stream) -> Result<Event, GpuError> {
        self.enter()?;
        let number = self.recorded.get();
        let mut events = self.events.borrow_mut();
        let at = (number % EVENTS) as usize;
        let event = match events.get(at) {
            Some(event) => *event,
            None => {
                let event = event()?;
                events.push(event);
                event
            }
        };
        // SAFETY: event and stream live until this is dropped.
        unsafe { result::event::record(event, self.stream(stream)?) }
            .map_err(|error| failed("cuEventRecord", error))?;
        self.recorded.set(number + 1);
        Ok(Event(number))
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<(), GpuError> {
        self.enter()?;
        let events = self.events.borrow();
        let event = events.get((event.0 % EVENTS) as usize).ok_or_else(|| GpuError::Failed {
            call: format!("waiting for event {}", event.0),
            reason: "it was not recorded on this card".to_owned(),
        })?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: as for `record`.
        unsafe { result::stream::wait_event(self.stream(stream)?, *event, flags) }
            .map_err(|error| failed("cuStreamWaitEvent", error))
    }

    fn synchronise(&self, stream: Stream) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: the stream lives until this is dropped.
        unsafe { result::stream::synchronize(self.stream(stream)?) }
            .map_err(|error| failed("cuStreamSynchronize", error))
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        // What fails here has failed before: the process goes on, and the driver frees all at its end.
        // SAFETY: each was made once and is freed once, and nothing runs any more.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            for stream in &self.streams {
                let _ = result::stream::synchronize(*stream);
            }
            self.products.borrow_mut().take();
            for event in self.events.borrow_mut().drain(..) {
                let _ = result::event::destroy(event);
            }
            for stage in self.stages.borrow_mut().drain(..) {
                let _ = result::event::destroy(stage.copied);
            }
            for stream in self.streams.drain(..) {
                let _ = result::stream::destroy(stream);
            }
            for (_, module) in self.modules.borrow_mut().drain() {
                let _ = result::module::unload(module);
            }
            for at in self.device_memory.borrow_mut().drain(..) {
                let _ = result::free_sync(at);
            }
            for at in self.pinned.borrow_mut().drain(..) {
                let _ = result::free_host(at);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_driver_the_error_says_what_is_missing() {
        // Where there is a card, the other half of this is tested by `gauntlet doctor --cuda`.
        let Err(error) = Hardware::open(usize::MAX, &Cubins::of_user()) else {
            panic!("there are not so many cards");
        };
        let text = error.to_string();
        assert!(
            text.contains("libcuda") || text.contains("GPU") || text.contains("CUDA"),
            "{text}"
        );
    }
}
