//! Ranks joined by the memory of one process: for GPUs whose memory the host reads, which are the emulated ones.
//!
//! An operation is a call on each rank's stream. In it the ranks meet, say where their values lie, copy, and meet again
//! before anybody goes on and changes them. Sums are taken in the order of the ranks.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::collective::Collective;
use super::gpu::{Address, Gpu, GpuError, Stream};

/// Which rank failed first, and why.
type Failure = Option<(usize, String)>;

#[derive(Default)]
struct State {
    arrived: usize,
    meeting: u64,
    places: Vec<u64>,
    values: Vec<Vec<f64>>,
    failed: Failure,
}

struct Hall {
    world: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// One rank's end.
pub struct Memory {
    hall: Arc<Hall>,
    rank: usize,
}

/// So many ranks, the ends in their order.
pub fn join(world: usize) -> Vec<Memory> {
    let state =
        State { places: vec![0; world], values: vec![Vec::new(); world], ..State::default() };
    let hall = Arc::new(Hall { world, state: Mutex::new(state), changed: Condvar::new() });
    (0..world).map(|rank| Memory { hall: hall.clone(), rank }).collect()
}

impl Hall {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every rank is here, after `say` has said something; what `hear` makes of what all said.
    fn meet<T>(
        &self,
        say: impl FnOnce(&mut State),
        hear: impl FnOnce(&State) -> T,
    ) -> Result<T, GpuError> {
        let mut state = self.lock();
        check(&state)?;
        say(&mut state);
        state.arrived += 1;
        let meeting = state.meeting;
        if state.arrived == self.world {
            state.arrived = 0;
            state.meeting += 1;
            self.changed.notify_all();
        }
        while state.meeting == meeting {
            check(&state)?;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(hear(&state))
    }

    fn fail(&self, rank: usize, reason: &str) {
        let mut state = self.lock();
        if state.failed.is_none() {
            state.failed = Some((rank, reason.to_owned()));
        }
        self.changed.notify_all();
    }

    /// Where each rank's values lie.
    fn exchange_places(&self, rank: usize, place: Address) -> Result<Vec<u64>, GpuError> {
        let say = |state: &mut State| {
            if let Some(own) = state.places.get_mut(rank) {
                *own = place.0;
            }
        };
        self.meet(say, |state| state.places.clone())
    }

    fn leave(&self) -> Result<(), GpuError> {
        self.meet(|_| {}, |_| ())
    }
}

fn check(state: &State) -> Result<(), GpuError> {
    match &state.failed {
        Some((rank, reason)) => Err(GpuError::Rank { rank: *rank, reason: reason.clone() }),
        None => Ok(()),
    }
}

/// Copies bytes from one place that the host reaches to another.
///
/// # Safety
/// Both are that long, allocated, and changed by nobody meanwhile; they may be the same place.
unsafe fn copy(from: u64, to: u64, bytes: u64) {
    // SAFETY: by the caller's promise.
    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes as usize) }
}

impl Memory {
    /// Puts an operation on a stream; it may assume that the host reaches the GPU's memory.
    fn start(
        &self,
        gpu: &dyn Gpu,
        stream: Stream,
        operation: impl FnOnce(&Hall, usize) -> Result<(), GpuError> + Send + 'static,
    ) -> Result<(), GpuError> {
        check(&self.hall.lock())?;
        if !gpu.host_reaches_memory() {
            let reason = "the host cannot read this GPU's memory".to_owned();
            return Err(GpuError::Failed { call: "a collective over memory".into(), reason });
        }
        let (hall, rank) = (self.hall.clone(), self.rank);
        // Where it ends with an error, somebody else has failed, and says so.
        gpu.call(stream, Box::new(move || drop(operation(&hall, rank))))
    }
}

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
        self.start(gpu, stream, move |hall, rank| {
            let parts = hall.exchange_places(rank, part)?;
            for (index, part) in (0u64..).zip(parts) {
                // SAFETY: the callers' parts and this rank's whole, which nobody changes until all have left.
                unsafe { copy(part, whole.0 + index * bytes, bytes) }
            }
            hall.leave()
        })
    }

    fn reduce_scatter(
        &self,
        gpu: &dyn Gpu,
        stream: Stream,
        whole: Address,
        part: Address,
        _scratch: Address,
        values: u64,
        active: usize,
    ) -> Result<(), GpuError> {
        self.start(gpu, stream, move |hall, rank| {
            let wholes = hall.exchange_places(rank, whole)?;
            for whole in wholes.into_iter().take(active) {
                let from = whole + rank as u64 * values * 4;
                // SAFETY: as above; both are f32 and so aligned.
                let (sum, more) = unsafe {
                    (
                        std::slice::from_raw_parts_mut(part.0 as *mut f32, values as usize),
                        std::slice::from_raw_parts(from as *const f32, values as usize),
                    )
                };
                for (sum, more) in sum.iter_mut().zip(more) {
                    *sum += *more;
                }
            }
            hall.leave()
        })
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
        self.start(gpu, stream, move |hall, rank| {
            let places = hall.exchange_places(rank, from)?;
            if let Some(from) = places.get(root).filter(|from| **from != to.0) {
                // SAFETY: as above.
                unsafe { copy(*from, to.0, bytes) }
            }
            hall.leave()
        })
    }

    fn share(&self, values: Vec<f64>) -> Result<Vec<Vec<f64>>, GpuError> {
        let rank = self.rank;
        let say = |state: &mut State| {
            if let Some(own) = state.values.get_mut(rank) {
                *own = values;
            }
        };
        let all = self.hall.meet(say, |state| state.values.clone())?;
        self.hall.leave()?;
        Ok(all)
    }

    fn barrier(&self) -> Result<(), GpuError> {
        self.hall.leave()
    }

    fn abort(&self, error: &GpuError) {
        self.hall.fail(self.rank, &error.to_string());
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.hall.fail(self.rank, "it has ended");
    }
}
