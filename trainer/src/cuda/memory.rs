//! Ranks joined by the memory of one process: for GPUs whose memory the host reaches, which are the emulated ones.
//!
//! An operation is a meeting on each rank's stream ([`Meeting`]). A rank that comes to it leaves a copy of what it
//! has for the others, and goes on once all have come; so nobody reads the memory of a rank that is gone, and a rank that
//! waits holds nothing that others need. Sums are taken in the order of the ranks.
//!
//! Operations are numbered as the ranks' threads start them, so that what one rank does on its stream can never
//! meet what another does elsewhere. Nobody waits for a rank that will not come: one that aborted, whose GPU failed, or
//! whose thread dropped its end before it started the operation. A rank that ends after its last operation
//! fails nobody.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::collective::Collective;
use super::gpu::{Address, Driver, Gpu, GpuError, Meeting, Stream};

/// What the ranks do together; all say the same at the same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Gather { bytes: u64 },
    ReduceScatter { values: u64, active: usize },
    Broadcast { root: usize, bytes: u64 },
    Share,
    Barrier,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gather { bytes } => write!(f, "gathers {bytes} bytes"),
            Self::ReduceScatter { values, active } => {
                write!(f, "adds {values} values of {active} ranks")
            }
            Self::Broadcast { root, bytes } => write!(f, "broadcasts {bytes} bytes of rank {root}"),
            Self::Share => write!(f, "shares values"),
            Self::Barrier => write!(f, "waits for all"),
        }
    }
}

/// What the ranks have left at one operation, in their order.
type Parts = Vec<Arc<Vec<u8>>>;

/// One operation.
struct Table {
    /// What the first to come said it is, and who that was.
    act: (Act, usize),
    parts: Vec<Option<Arc<Vec<u8>>>>,
    /// Ranks that have taken what they need.
    served: usize,
}

#[derive(Default)]
struct State {
    tables: BTreeMap<u64, Table>,
    /// Operations that each rank's thread has started.
    started: Vec<u64>,
    /// Whose threads have dropped their end.
    left: Vec<bool>,
    /// Who failed first, and why.
    failed: Option<(usize, String)>,
    drivers: Vec<Option<Driver>>,
    /// Counts whatever somebody may wait for.
    version: u64,
}

/// Where the ranks meet.
struct Hall {
    world: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// One rank's end.
pub struct Memory {
    hall: Arc<Hall>,
    rank: usize,
    /// Operations started.
    started: Cell<u64>,
}

/// So many ranks, the ends in their order.
pub fn join(world: usize) -> Vec<Memory> {
    let state = State {
        started: vec![0; world],
        left: vec![false; world],
        drivers: vec![None; world],
        ..State::default()
    };
    let hall = Arc::new(Hall { world, state: Mutex::new(state), changed: Condvar::new() });
    (0..world).map(|rank| Memory { hall: hall.clone(), rank, started: Cell::new(0) }).collect()
}

impl Hall {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notices a change, so that whoever waits looks again.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        state.version += 1;
        self.changed.notify_all();
        result
    }

    fn wait_beyond(&self, version: u64) {
        let mut state = self.lock();
        while state.version == version {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn fail(&self, rank: usize, reason: &str) {
        self.change(|state| state.fail(rank, reason.to_owned()));
    }

    /// Leaves what a rank has for an operation.
    fn come(&self, number: u64, rank: usize, act: Act, part: Vec<u8>) -> Result<(), GpuError> {
        let world = self.world;
        self.change(|state| {
            let table = state.tables.entry(number).or_insert_with(|| Table {
                act: (act, rank),
                parts: vec![None; world],
                served: 0,
            });
            let (first, by) = table.act;
            if first != act {
                state.fail(rank, format!("it {act} where rank {by} {first}"));
            }
            state.check()?;
            if let Some(place) =
                state.tables.get_mut(&number).and_then(|table| table.parts.get_mut(rank))
            {
                *place = Some(Arc::new(part));
            }
            Ok(())
        })
    }

    /// What all ranks have left at an operation; else the version of which that is true.
    fn all(&self, number: u64) -> Result<Result<Parts, u64>, GpuError> {
        let mut state = self.lock();
        let parts = state.tables.get(&number).map(|table| table.parts.as_slice()).unwrap_or(&[]);
        if let Some(parts) = parts.iter().cloned().collect::<Option<Parts>>() {
            if !parts.is_empty() {
                return Ok(Ok(parts));
            }
        }
        // Who has not come and has left without having started this will never come.
        let gone = (0..self.world).find(|rank| {
            let came = parts.get(*rank).is_some_and(Option::is_some);
            let left = state.left.get(*rank).copied().unwrap_or(false);
            let started = state.started.get(*rank).copied().unwrap_or(0);
            !came && left && started <= number
        });
        if let Some(gone) = gone {
            state.fail(gone, "it has ended".to_owned());
            self.changed.notify_all();
        }
        state.check()?;
        Ok(Err(state.version))
    }

    /// A rank has taken what it needs of an operation.
    fn served(&self, number: u64) {
        let mut state = self.lock();
        if let Some(table) = state.tables.get_mut(&number) {
            table.served += 1;
            if table.served == self.world {
                state.tables.remove(&number);
            }
        }
    }
}

impl State {
    fn fail(&mut self, rank: usize, reason: String) {
        if self.failed.is_none() {
            self.failed = Some((rank, reason));
            self.version += 1;
        }
    }

    fn check(&self) -> Result<(), GpuError> {
        match &self.failed {
            Some((rank, reason)) => Err(GpuError::Rank { rank: *rank, reason: reason.clone() }),
            None => Ok(()),
        }
    }
}

/// Bytes of memory that the host reaches.
///
/// # Safety
/// They are allocated, and nobody changes them while they are borrowed.
unsafe fn read<'a>(at: Address, bytes: u64) -> &'a [u8] {
    if bytes == 0 {
        return &[];
    }
    // SAFETY: by the caller's promise.
    unsafe { std::slice::from_raw_parts(at.0 as *const u8, bytes as usize) }
}

/// The same to write.
///
/// # Safety
/// They are allocated, and nobody else touches them while they are borrowed.
unsafe fn write<'a>(at: Address, bytes: u64) -> &'a mut [u8] {
    if bytes == 0 {
        return &mut [];
    }
    // SAFETY: by the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(at.0 as *mut u8, bytes as usize) }
}

/// sum ← sum + more, f32.
fn add(sum: &mut [u8], more: &[u8]) {
    for (sum, more) in sum.as_chunks_mut::<4>().0.iter_mut().zip(more.as_chunks::<4>().0) {
        *sum = (f32::from_ne_bytes(*sum) + f32::from_ne_bytes(*more)).to_ne_bytes();
    }
}

/// One rank's part of an operation on a stream.
struct Attendance {
    hall: Arc<Hall>,
    rank: usize,
    number: u64,
    act: Act,
    /// What this rank leaves; nothing for some ranks of some operations.
    from: (Address, u64),
    /// What it writes.
    to: (Address, u64),
    /// Where NCCL's sum would lie.
    scratch: (Address, u64),
    came: bool,
    ended: bool,
    /// What the hall was when this had to wait.
    version: u64,
}

impl Attendance {
    /// Takes what is needed of what all have left.
    fn take(&self, parts: &[Arc<Vec<u8>>]) {
        // SAFETY: the GPU has checked that this is allocated, attends in the stream's place, and runs nothing meanwhile.
        let to = unsafe { write(self.to.0, self.to.1) };
        match self.act {
            Act::Gather { bytes } => {
                for (to, part) in to.chunks_exact_mut((bytes as usize).max(1)).zip(parts) {
                    to.copy_from_slice(part);
                }
            }
            Act::Broadcast { root, .. } => {
                if let Some(part) = parts.get(root) {
                    to.copy_from_slice(part);
                }
            }
            Act::ReduceScatter { active, .. } => {
                // What a sum over a network leaves there is nothing to rely on.
                // SAFETY: as above.
                unsafe { write(self.scratch.0, self.scratch.1) }.fill(0xFF);
                let own = self.rank * to.len();
                for whole in parts.iter().take(active) {
                    add(to, whole.get(own..).unwrap_or(&[]));
                }
            }
            Act::Share | Act::Barrier => {}
        }
    }
}

impl Meeting for Attendance {
    fn places(&self) -> Vec<(Address, u64)> {
        vec![self.from, self.to, self.scratch]
    }

    fn attend(&mut self) -> Result<bool, GpuError> {
        if !self.came {
            // SAFETY: as in `take`.
            let part = unsafe { read(self.from.0, self.from.1) }.to_vec();
            self.came = true;
            self.hall.come(self.number, self.rank, self.act, part)?;
        }
        match self.hall.all(self.number)? {
            Ok(parts) => {
                self.take(&parts);
                self.hall.served(self.number);
                self.ended = true;
            }
            Err(version) => self.version = version,
        }
        Ok(self.ended)
    }

    fn wait(&self) {
        self.hall.wait_beyond(self.version);
    }

    fn patience(&self) -> Box<dyn FnOnce() + Send> {
        let (hall, rank, version) = (self.hall.clone(), self.rank, self.version);
        Box::new(move || {
            let drivers = hall.lock().drivers.clone();
            for (other, driver) in drivers.into_iter().enumerate() {
                if other != rank && driver.is_some_and(|driver| driver()) {
                    return;
                }
            }
            hall.wait_beyond(version);
        })
    }

    fn cancel(&mut self, error: &GpuError) {
        if !self.came {
            self.came = true;
            self.hall.fail(self.rank, &error.to_string());
        }
    }

    fn driven_by(&self, driver: Driver) {
        if let Some(place) = self.hall.lock().drivers.get_mut(self.rank) {
            *place = Some(driver);
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        if !self.came {
            self.hall.fail(self.rank, "its GPU was dropped with work to do");
        }
    }
}

impl Memory {
    /// The next operation's number.
    fn number(&self) -> Result<u64, GpuError> {
        let number = self.started.get();
        self.hall.change(|state| {
            state.check()?;
            self.started.set(number + 1);
            if let Some(started) = state.started.get_mut(self.rank) {
                *started = number + 1;
            }
            Ok(number)
        })
    }

    /// Puts an operation on a stream.
    fn start(
        &self,
        gpu: &dyn Gpu,
        stream: Stream,
        act: Act,
        [from, to, scratch]: [(Address, u64); 3],
    ) -> Result<(), GpuError> {
        if !gpu.host_reaches_memory() {
            let reason = "the host cannot read this GPU's memory".to_owned();
            return Err(GpuError::Failed { call: "a collective over memory".to_owned(), reason });
        }
        let attendance = Attendance {
            hall: self.hall.clone(),
            rank: self.rank,
            number: self.number()?,
            act,
            from,
            to,
            scratch,
            came: false,
            ended: false,
            version: 0,
        };
        gpu.meet(stream, Box::new(attendance))?;
        // Whoever waits may now drive this rank's GPU to it.
        self.hall.change(|_| {});
        Ok(())
    }

    /// Does an operation of the hosts.
    fn meet(&self, act: Act, part: Vec<u8>) -> Result<Parts, GpuError> {
        let number = self.number()?;
        self.hall.come(number, self.rank, act, part)?;
        loop {
            match self.hall.all(number)? {
                Ok(parts) => {
                    self.hall.served(number);
                    return Ok(parts);
                }
                Err(version) => self.hall.wait_beyond(version),
            }
        }
    }

    /// Who failed first, where anybody did.
    ///
    /// # Errors
    /// [`GpuError::Rank`] of that.
    pub(super) fn check(&self) -> Result<(), GpuError> {
        self.hall.lock().check()
    }
}

/// Nothing is read or written.
const NOWHERE: (Address, u64) = (Address(0), 0);

impl Collective for Memory {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.hall.world
    }

    fn gather(
        &self,
        gpu: &dyn Gpu,
        stream: Stream,
        part: Address,
        whole: Address,
        bytes: u64,
    ) -> Result<(), GpuError> {
        let places = [(part, bytes), (whole, bytes * self.hall.world as u64), NOWHERE];
        self.start(gpu, stream, Act::Gather { bytes }, places)
    }

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
        let bytes = values * 4;
        let given =
            if self.rank < active { (whole, bytes * self.hall.world as u64) } else { NOWHERE };
        let places = [given, (part, bytes), (scratch, bytes)];
        self.start(gpu, stream, Act::ReduceScatter { values, active }, places)
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
        let given = if self.rank == root { (from, bytes) } else { NOWHERE };
        self.start(gpu, stream, Act::Broadcast { root, bytes }, [given, (to, bytes), NOWHERE])
    }

    fn share(&self, values: Vec<f64>) -> Result<Vec<Vec<f64>>, GpuError> {
        let parts = self.meet(Act::Share, bytemuck::cast_slice(&values).to_vec())?;
        let values = |part: &Arc<Vec<u8>>| -> Vec<f64> {
            part.as_chunks().0.iter().map(|value| f64::from_ne_bytes(*value)).collect()
        };
        Ok(parts.iter().map(values).collect())
    }

    fn barrier(&self) -> Result<(), GpuError> {
        self.meet(Act::Barrier, Vec::new()).map(drop)
    }

    fn abort(&self, error: &GpuError) {
        self.hall.fail(self.rank, &error.to_string());
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.hall.change(|state| {
            if let Some(left) = state.left.get_mut(self.rank) {
                *left = true;
            }
        });
    }
}
