//! The threads that the trainer computes on: a team of a fixed size, or the caller's thread alone.
//!
//! Also the one unsafe idea of the trainer, `Shared`: a slice of which every task writes a part
//! of its own.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::compute::team::Team;

/// Why no threads could be started.
#[derive(Debug, thiserror::Error)]
pub enum ThreadsError {
    /// At least one thread is needed.
    #[error("the number of threads is 0")]
    Zero,
    /// The operating system refused a thread.
    #[error("cannot start {count} threads: {source}")]
    Start {
        /// Threads asked for.
        count: usize,
        /// What the operating system says.
        source: io::Error,
    },
}

/// A fixed number of threads, the caller's among them. With one, nothing is started. Cloning shares them; callers
/// that come at the same time take turns.
#[derive(Clone, Debug)]
pub struct Threads {
    count: usize,
    team: Option<Arc<Team>>,
}

impl Threads {
    /// `count` threads, at least 1.
    ///
    /// # Errors
    /// `count` is 0, or the operating system refused a thread.
    pub fn new(count: usize) -> Result<Self, ThreadsError> {
        match count {
            0 => Err(ThreadsError::Zero),
            1 => Ok(Self::single()),
            _ => match Team::start(count) {
                Ok(team) => Ok(Self { count, team: Some(Arc::new(team)) }),
                Err(source) => Err(ThreadsError::Start { count, source }),
            },
        }
    }

    /// The caller's thread alone.
    pub fn single() -> Self {
        Self { count: 1, team: None }
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Calls `task` for each of `0..count`, in no particular order and at once where there are several threads.
    /// Each thread has a part of them that follows from `count` alone, and helps out where another is late. Does
    /// not allocate.
    pub fn for_each(&self, count: usize, task: impl Fn(usize) + Sync) {
        self.for_each_on(count, |_, index| task(index));
    }

    /// Calls `task(thread, index)` for each index of `0..count`, as [`Threads::for_each`] does; no two calls
    /// at the same time have the same `thread`, which is below [`Threads::count`].
    pub(crate) fn for_each_on(&self, count: usize, task: impl Fn(usize, usize) + Sync) {
        match &self.team {
            Some(team) if count > 1 => team.turn(count, &task),
            _ => (0..count).for_each(|index| task(0, index)),
        }
    }

    /// The results of `task` for `0..count`, in order.
    pub fn map<R: Send>(&self, count: usize, task: impl Fn(usize) -> R + Sync) -> Vec<R> {
        let mut results: Vec<Option<R>> = (0..count).map(|_| None).collect();
        let places = Shared::new(&mut results);
        self.for_each(count, |index| {
            // SAFETY: each task has its own place.
            let place = unsafe { places.part(index, index + 1) };
            place[0] = Some(task(index));
        });
        results.into_iter().flatten().collect()
    }

    /// Calls `task(first, end)` for blocks of `block` of `0..count`. The blocks do not depend on
    /// the number of threads, so that sums within a block are the same with any number.
    pub(crate) fn blocks(&self, count: usize, block: usize, task: impl Fn(usize, usize) + Sync) {
        self.for_each(count.div_ceil(block), |index| {
            task(index * block, ((index + 1) * block).min(count));
        });
    }
}

/// A slice that several tasks write to, each to places of its own.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

// SAFETY: it stands for a `&mut [T]` that is handed out in parts; `part` demands that they are
// disjoint.
unsafe impl<T: Send> Send for Shared<'_, T> {}
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Takes the slice for as long as the tasks run.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// The values from `start` up to `end`.
    ///
    /// # Safety
    /// No two parts that overlap may be alive at the same time.
    ///
    /// # Panics
    /// If the range is not inside the slice.
    #[allow(clippy::mut_from_ref, reason = "the caller promises that parts are disjoint")]
    pub(crate) unsafe fn part(&self, start: usize, end: usize) -> &'a mut [T] {
        assert!(start <= end && end <= self.len, "a part outside its slice");
        // SAFETY: inside the slice, and disjoint from other parts by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), end - start) }
    }

    /// The values after the first `count`.
    pub(crate) fn skip(&self, count: usize) -> Self {
        Self { start: self.at(count), len: self.len - count, borrow: PhantomData }
    }

    /// The address of value `index`, which may be one past the end.
    pub(crate) fn at(&self, index: usize) -> *mut T {
        assert!(index <= self.len, "a place outside its slice");
        // SAFETY: inside the slice or one past its end.
        unsafe { self.start.add(index) }
    }
}

/// Rows that several tasks write to, each to its own.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    values: Shared<'a, f32>,
    width: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `width` values.
    pub(crate) fn new(values: &'a mut [f32], width: usize) -> Self {
        Self { values: Shared::new(values), width }
    }

    /// The rows from row `count` on.
    pub(crate) fn skip(&self, count: usize) -> Self {
        Self { values: self.values.skip(count * self.width), width: self.width }
    }

    /// The rows from `first` up to `end`, one after the other.
    ///
    /// # Safety
    /// No two parts that overlap may be alive at the same time, unless nobody writes to them.
    #[allow(clippy::mut_from_ref, reason = "the caller promises that parts are disjoint")]
    pub(crate) unsafe fn get(&self, first: usize, end: usize) -> &'a mut [f32] {
        // SAFETY: by the caller's promise.
        unsafe { self.values.part(first * self.width, end * self.width) }
    }
}
