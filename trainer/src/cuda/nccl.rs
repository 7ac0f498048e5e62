//! Ranks joined by NCCL: GPUs of one process that copy to each other.
//!
//! NCCL's thirteen functions are bound here and looked up in `libnccl.so.2`, which is found as the machine has it;
//! nothing of NCCL is needed to build or to start. A rank's communicator is made with its first operation, on its own
//! thread. All ranks are at a barrier before and after each operation is put on their streams: a rank that is
//! ahead may otherwise fill its card's queue with what waits for one that cannot start anything any more.
//!
//! No call of NCCL waits by itself: each is asked whether it has ended, until another rank has failed or [`PATIENCE`]
//! is over. A rank that dies before it has joined would otherwise hold the others for ever.
//!
//! What a sum's order is, is NCCL's own: the same in every run on the same cards, another than that over memory.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::collective::Collective;
use super::gpu::{Address, Gpu, GpuError, Stream};
use super::kernels::values;
use super::memory::{self, Memory};
use config::Config;

mod config;
mod patience;

/// The library's file name.
pub const FILE: &str = "libnccl.so.2";

/// What brings the library.
const CURE: &str = "pip install nvidia-nccl-cu13";

/// How long communicators may take to end in good order before they are left to themselves.
const END_MAX: Duration = Duration::from_secs(10);

/// How long a call may take before its ranks are given up: the first of a group connects them all, in seconds.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What makes a communicator.
const INIT: &str = "ncclCommInitRankConfig";

/// `ncclSuccess`.
const SUCCESS: c_int = 0;
/// `ncclInProgress`.
const IN_PROGRESS: c_int = 7;
/// `ncclUint8`.
const U8: c_int = 1;
/// `ncclFloat32`.
const F32: c_int = 7;
/// `ncclSum`.
const SUM: c_int = 0;

/// `ncclUniqueId`: what tells one group of ranks from another. NCCL takes it by value.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([c_char; 128]);

/// `ncclComm_t`.
type Communicator = *mut c_void;
/// `cudaStream_t`, which is the driver's `CUstream`.
type RawStream = *mut c_void;

/// NCCL's functions, with the parameters of its header `nccl.h`.
pub struct Functions {
    version: unsafe extern "C" fn(*mut c_int) -> c_int,
    unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    init_rank:
        unsafe extern "C" fn(*mut Communicator, c_int, UniqueId, c_int, *mut Config) -> c_int,
    async_error: unsafe extern "C" fn(Communicator, *mut c_int) -> c_int,
    all_gather: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        Communicator,
        RawStream,
    ) -> c_int,
    reduce_scatter: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        Communicator,
        RawStream,
    ) -> c_int,
    broadcast: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        Communicator,
        RawStream,
    ) -> c_int,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    finalise: unsafe extern "C" fn(Communicator) -> c_int,
    destroy: unsafe extern "C" fn(Communicator) -> c_int,
    abort: unsafe extern "C" fn(Communicator) -> c_int,
    error_text: unsafe extern "C" fn(c_int) -> *const c_char,
    /// Keeps the functions where they are.
    _library: Library,
}

impl Functions {
    /// Looks for the library in these folders, then where the loader looks.
    ///
    /// # Errors
    /// [`GpuError::Missing`] where it is nowhere, or is older than 2.14 and lacks a function.
    pub fn open(folders: &[PathBuf]) -> Result<Arc<Self>, GpuError> {
        let paths = folders.iter().map(|folder| folder.join(FILE)).filter(|path| path.exists());
        let mut reason = None;
        for path in paths.chain([PathBuf::from(FILE)]) {
            // SAFETY: NCCL does nothing as it loads that anybody here relies on.
            let opened = unsafe {
                Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL)
                    .and_then(|library| Self::bind(library))
            };
            match opened {
                Ok(functions) => return Ok(Arc::new(functions)),
                Err(error) if path.is_absolute() => reason = Some(error.to_string()),
                Err(_) => {}
            }
        }
        let cure = match reason {
            Some(reason) => format!("{CURE}; what is there: {reason}"),
            None => CURE.to_owned(),
        };
        Err(GpuError::Missing { library: FILE.to_owned(), cure })
    }

    /// # Safety
    /// The library's functions of these names have the types that NCCL's have.
    unsafe fn bind(library: Library) -> Result<Self, libloading::Error> {
        // SAFETY: by the caller's promise; the pointers are used while the library is kept.
        unsafe {
            Ok(Self {
                version: *library.get(b"ncclGetVersion")?,
                unique_id: *library.get(b"ncclGetUniqueId")?,
                init_rank: *library.get(b"ncclCommInitRankConfig")?,
                async_error: *library.get(b"ncclCommGetAsyncError")?,
                all_gather: *library.get(b"ncclAllGather")?,
                reduce_scatter: *library.get(b"ncclReduceScatter")?,
                broadcast: *library.get(b"ncclBroadcast")?,
                group_start: *library.get(b"ncclGroupStart")?,
                group_end: *library.get(b"ncclGroupEnd")?,
                finalise: *library.get(b"ncclCommFinalize")?,
                destroy: *library.get(b"ncclCommDestroy")?,
                abort: *library.get(b"ncclCommAbort")?,
                error_text: *library.get(b"ncclGetErrorString")?,
                _library: library,
            })
        }
    }

    /// The library's version, as 22809 for 2.28.9.
    ///
    /// # Errors
    /// NCCL fails.
    pub fn version(&self) -> Result<u32, GpuError> {
        let mut version = 0;
        // SAFETY: it writes one int.
        self.check("ncclGetVersion", unsafe { (self.version)(&raw mut version) })?;
        Ok(u32::try_from(version).unwrap_or_default())
    }

    fn check(&self, call: &str, result: c_int) -> Result<(), GpuError> {
        if result == SUCCESS {
            return Ok(());
        }
        // SAFETY: it gives a text that lives as long as the library, or none.
        let text = unsafe {
            let text = (self.error_text)(result);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        };
        let reason = text.unwrap_or_else(|| format!("error {result}"));
        Err(GpuError::Failed { call: call.to_owned(), reason })
    }
}

/// A rank's communicator.
#[derive(Clone, Copy)]
struct Handle(Communicator);

// SAFETY: NCCL lets any thread use a communicator, one at a time, and any abort it.
unsafe impl Send for Handle {}

/// What the ranks of one group share.
struct Group {
    functions: Arc<Functions>,
    id: UniqueId,
    /// Each rank's, from its first operation until they end.
    communicators: Mutex<Vec<Option<Handle>>>,
    /// How long a call may take.
    patience: Duration,
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, Vec<Option<Handle>>> {
        self.communicators.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what communicators there are, so that each is ended once.
    fn take(&self) -> Vec<Handle> {
        self.lock().iter_mut().filter_map(Option::take).collect()
    }

    /// What has become of the last call on a rank's communicator: `None` while it goes on. The communicator is not
    /// ended meanwhile.
    fn outcome(&self, rank: usize, call: &str) -> Option<Result<(), GpuError>> {
        let communicators = self.lock();
        let Some(Some(Handle(communicator))) = communicators.get(rank) else {
            let reason = "another rank has ended the group".to_owned();
            return Some(Err(GpuError::Failed { call: call.to_owned(), reason }));
        };
        let mut state = SUCCESS;
        // SAFETY: it writes one int, and whoever ends the communicator takes it from under the lock first.
        let asked = unsafe { (self.functions.async_error)(*communicator, &raw mut state) };
        let result = if asked == SUCCESS { state } else { asked };
        (result != IN_PROGRESS).then(|| self.functions.check(call, result))
    }

    /// Ends all communicators at once; what waits on a card for a rank that does not come is let go.
    fn abort(&self) {
        for Handle(communicator) in self.take() {
            // SAFETY: it was made, nobody has ended it, and nobody finds it any more.
            let _ = unsafe { (self.functions.abort)(communicator) };
        }
    }
}

impl Drop for Group {
    /// Ends the communicators in good order: each on a thread of its own, as they wait for each other.
    fn drop(&mut self) {
        let (ended, ends) = mpsc::sync_channel(self.lock().len());
        let handles = self.take();
        let count = handles.len();
        for handle in handles {
            let (functions, ended) = (self.functions.clone(), ended.clone());
            thread::spawn(move || {
                let Handle(communicator) = { handle };
                // SAFETY: as in `abort`.
                unsafe {
                    (functions.finalise)(communicator);
                    let is_done = || {
                        let mut state = SUCCESS;
                        (functions.async_error)(communicator, &raw mut state);
                        (state != IN_PROGRESS).then_some(())
                    };
                    if patience::ask(END_MAX, is_done).is_some() {
                        (functions.destroy)(communicator);
                    }
                }
                let _ = ended.send(());
            });
        }
        let until = Instant::now() + END_MAX;
        for _ in 0..count {
            if ends.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
                tracing::warn!("NCCL does not end; it is left to itself");
                return;
            }
        }
    }
}

/// One rank's end, over NCCL.
pub struct Nccl {
    /// Where the ranks' threads meet.
    host: Memory,
    group: Arc<Group>,
    communicator: Cell<Option<Handle>>,
}

/// So many ranks, the ends in their order; each is to be used on its GPU's own thread.
///
/// # Errors
/// NCCL fails.
pub fn join(functions: Arc<Functions>, world: usize) -> Result<Vec<Nccl>, GpuError> {
    join_within(functions, world, PATIENCE)
}

/// [`join`] where no call may take longer than `patience`.
///
/// # Errors
/// NCCL fails.
pub fn join_within(
    functions: Arc<Functions>,
    world: usize,
    patience: Duration,
) -> Result<Vec<Nccl>, GpuError> {
    let mut id = UniqueId([0; 128]);
    // SAFETY: it writes one id.
    functions.check("ncclGetUniqueId", unsafe { (functions.unique_id)(&raw mut id) })?;
    let communicators = Mutex::new(vec![None; world]);
    let group = Arc::new(Group { functions, id, communicators, patience });
    let end = |host| Nccl { host, group: group.clone(), communicator: Cell::new(None) };
    Ok(memory::join(world).into_iter().map(end).collect())
}

impl Nccl {
    /// This rank's communicator, made with all other ranks at its first use. The card's context is this thread's.
    fn communicator(&self) -> Result<Handle, GpuError> {
        if let Some(handle) = self.communicator.get() {
            return Ok(handle);
        }
        let number = |value: usize| {
            c_int::try_from(value).map_err(|_| GpuError::Failed {
                call: INIT.to_owned(),
                reason: format!("{value} ranks"),
            })
        };
        let (world, rank) = (number(self.world())?, number(self.rank())?);
        let mut communicator = std::ptr::null_mut();
        let mut config = Config::not_blocking();
        let (functions, id) = (&self.group.functions, self.group.id);
        // SAFETY: it reads the configuration and writes one communicator, and returns before the other ranks are there.
        let made = unsafe {
            (functions.init_rank)(&raw mut communicator, world, id, rank, &raw mut config)
        };
        if made != IN_PROGRESS {
            functions.check(INIT, made)?;
        }
        let handle = Handle(communicator);
        if let Some(place) = self.group.lock().get_mut(self.rank()) {
            *place = Some(handle);
        }
        self.settle(INIT)?;
        self.communicator.set(Some(handle));
        Ok(handle)
    }

    /// Waits until the last call has ended on the host.
    ///
    /// # Errors
    /// It failed, another rank did, or [`PATIENCE`] is over.
    fn settle(&self, call: &str) -> Result<(), GpuError> {
        let longest = self.group.patience;
        let question = || match self.host.check() {
            Err(error) => Some(Err(error)),
            Ok(()) => self.group.outcome(self.rank(), call),
        };
        patience::ask(longest, question).unwrap_or_else(|| {
            let reason = format!(
                "not all {} ranks came within {} s; is a card or its driver stuck? (`nvidia-smi`, `dmesg`)",
                self.world(),
                longest.as_secs_f32()
            );
            Err(GpuError::Failed { call: call.to_owned(), reason })
        })
    }

    /// Puts an operation on every rank's stream, all at the same time.
    fn start(
        &self,
        gpu: &dyn Gpu,
        stream: Stream,
        call: &str,
        operation: impl FnOnce(&Functions, Communicator, RawStream) -> c_int,
    ) -> Result<(), GpuError> {
        let raw = gpu.raw_stream(stream).ok_or_else(|| GpuError::Failed {
            call: call.to_owned(),
            reason: "this GPU has no streams of the driver's".to_owned(),
        })?;
        self.host.barrier()?;
        let done = self.communicator().and_then(|Handle(communicator)| {
            // Aborted meanwhile, it is gone.
            self.host.check()?;
            let functions = &self.group.functions;
            // SAFETY: a group has a start and an end.
            functions.check("ncclGroupStart", unsafe { (functions.group_start)() })?;
            let raw = std::ptr::with_exposed_provenance_mut(raw as usize);
            let started = match operation(functions, communicator, raw) {
                IN_PROGRESS => Ok(()),
                started => functions.check(call, started),
            };
            // SAFETY: as above.
            let ended = match unsafe { (functions.group_end)() } {
                IN_PROGRESS => Ok(()),
                ended => functions.check("ncclGroupEnd", ended),
            };
            started.and(ended).and_then(|()| self.settle(call))
        });
        if let Err(error) = done {
            self.abort(&error);
            return Err(error);
        }
        self.host.barrier()
    }
}

fn source(at: Address) -> *const c_void {
    std::ptr::with_exposed_provenance(at.0 as usize)
}

fn target(at: Address) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(at.0 as usize)
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.host.rank()
    }

    fn world(&self) -> usize {
        self.host.world()
    }

    fn gather(
        &self,
        gpu: &dyn Gpu,
        stream: Stream,
        part: Address,
        whole: Address,
        bytes: u64,
    ) -> Result<(), GpuError> {
        self.start(gpu, stream, "ncclAllGather", |functions, communicator, raw| {
            let (from, to) = (source(part), target(whole));
            // SAFETY: the caller's memory, as on any stream.
            unsafe { (functions.all_gather)(from, to, bytes as usize, U8, communicator, raw) }
        })
    }

    /// All ranks' values are added into `scratch`, then that to `part`. What a rank that is not active has at `whole`
    /// is cleared, so that it adds nothing.
    fn reduce_scatter(
        &self,
        gpu: &dyn Gpu,
        stream: Stream,
        whole: Address,
        part: Address,
        scratch: Address,
        values: u64,
        active: usize,
    ) -> Result<(), GpuError> {
        if self.rank() >= active {
            gpu.clear(stream, whole, values * 4 * self.world() as u64)?;
        }
        self.start(gpu, stream, "ncclReduceScatter", |functions, communicator, raw| {
            let (from, to, count) = (source(whole), target(scratch), values as usize);
            // SAFETY: as above.
            unsafe { (functions.reduce_scatter)(from, to, count, F32, SUM, communicator, raw) }
        })?;
        values::add_f32(gpu, stream, part, scratch, values)
    }

    fn broadcast(
        &self,
        gpu: &dyn Gpu,
        stream: Stream,
        root: usize,
        from: Address,
        to: Address,
        bytes: u64,
    ) -> Result<(), GpuError> {
        self.start(gpu, stream, "ncclBroadcast", |functions, communicator, raw| {
            // NCCL reads only the root's.
            let from = source(if self.rank() == root { from } else { to });
            let (to, count, root) = (target(to), bytes as usize, root as c_int);
            // SAFETY: as above.
            unsafe { (functions.broadcast)(from, to, count, U8, root, communicator, raw) }
        })
    }

    fn share(&self, values: Vec<f64>) -> Result<Vec<Vec<f64>>, GpuError> {
        self.host.share(values)
    }

    fn barrier(&self) -> Result<(), GpuError> {
        self.host.barrier()
    }

    /// Ends every rank's communicator too, so that no card waits for this one.
    fn abort(&self, error: &GpuError) {
        self.host.abort(error);
        self.group.abort();
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if thread::panicking() {
            let reason = "it panicked".to_owned();
            self.abort(&GpuError::Failed { call: "a rank's thread".to_owned(), reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_by_value_is_as_long_as_in_nccl() {
        assert_eq!(size_of::<UniqueId>(), 128);
        assert_eq!(align_of::<UniqueId>(), 1);
    }
}
