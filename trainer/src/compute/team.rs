//! Threads that take turns of parallel work together, each with a part of its own.
//!
//! A turn calls a task for every index of a range. The range is cut into one part for each thread, always the same
//! way: what a thread wrote in one turn it finds in its own caches in the next one, if both turns cut the same rows.
//! A thread that is done takes over indices from the end of another's part, so that one that was kept waiting by the
//! operating system does not keep the others waiting. Between turns the threads look out for the next one for some
//! microseconds before they sleep: a training step has a hundred turns, and waking a thread takes as long as a
//! short turn does. A turn allocates nothing.

use std::{
    any::Any,
    cell::{Cell, UnsafeCell},
    io,
    panic::{catch_unwind, resume_unwind, AssertUnwindSafe},
    sync::{
        atomic::{fence, AtomicBool, AtomicU64, AtomicUsize, Ordering},
        Arc, Mutex, MutexGuard, PoisonError,
    },
    thread::{self, JoinHandle, Thread},
};

/// How often a thread looks for what it waits for before it sleeps: about 50 µs.
const LOOKS: u32 = 2_000;

/// What is called for each index, on the thread of that number.
type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

thread_local! {
    /// Whether this thread is taking part in a turn.
    static IN_TURN: Cell<bool> = const { Cell::new(false) };
}

/// A fixed number of threads, of which the first is the caller's.
pub(super) struct Team {
    board: Arc<Board>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose turn it is.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team({})", self.board.members.len())
    }
}

/// What the threads of a team share.
struct Board {
    /// Counts turns; a new number is the signal to start.
    turn: AtomicU64,
    /// The task of the turn, while it lasts.
    task: UnsafeCell<Option<*const Task<'static>>>,
    /// Workers that have not ended the turn yet.
    busy: AtomicUsize,
    /// One for each thread.
    members: Vec<Member>,
    /// What the first task that panicked said.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    ending: AtomicBool,
}

// SAFETY: the task is written by the caller alone, while no worker is busy, and read by workers that are.
unsafe impl Send for Board {}
unsafe impl Sync for Board {}

/// One thread's part of a turn and its bed.
#[repr(align(128))]
struct Member {
    /// The indices that are left of its part: the first in the lower half, the end in the upper one.
    left: AtomicU64,
    bed: Bed,
}

/// Where a thread sleeps until a condition holds.
#[derive(Default)]
struct Bed {
    asleep: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

impl Bed {
    /// Waits until `ready`: looks for some time, then sleeps.
    fn wait(&self, ready: impl Fn() -> bool) {
        for _ in 0..LOOKS {
            if ready() {
                return;
            }
            std::hint::spin_loop();
        }
        *lock(&self.thread) = Some(thread::current());
        loop {
            self.asleep.store(true, Ordering::Relaxed);
            // Either this sees what the other thread did, or the other thread sees that this one sleeps.
            fence(Ordering::SeqCst);
            if ready() {
                return self.asleep.store(false, Ordering::Relaxed);
            }
            thread::park();
        }
    }

    /// Wakes the thread if it sleeps; called after the condition has come true.
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::Relaxed) {
            if let Some(thread) = &*lock(&self.thread) {
                thread.unpark();
            }
        }
    }
}

/// The lock, also after a panic: nothing that these locks guard is ever half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Member {
    /// Gives it a part.
    fn set(&self, first: usize, end: usize) {
        self.left.store(first as u64 | (end as u64) << 32, Ordering::Relaxed);
    }

    /// Takes an index: the first that is left, or the last one.
    fn take(&self, from_front: bool) -> Option<usize> {
        let (mut first, mut end) = (0, 0);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            (first, end) = (left & 0xffff_ffff, left >> 32);
            match from_front {
                _ if first >= end => None,
                true => Some((first + 1) | end << 32),
                false => Some(first | (end - 1) << 32),
            }
        });
        taken.ok()?;
        Some(if from_front { first } else { end - 1 } as usize)
    }
}

impl Team {
    /// Starts `count` threads less one.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let members =
            (0..count).map(|_| Member { left: AtomicU64::new(0), bed: Bed::default() }).collect();
        let board = Arc::new(Board {
            turn: AtomicU64::new(0),
            task: UnsafeCell::new(None),
            busy: AtomicUsize::new(0),
            members,
            panic: Mutex::new(None),
            ending: AtomicBool::new(false),
        });
        let mut team = Self { board, workers: Vec::with_capacity(count - 1), turn: Mutex::new(()) };
        for index in 1..count {
            let board = team.board.clone();
            let worker = thread::Builder::new()
                .name(format!("trainer-{index}"))
                .spawn(move || board.work(index))?;
            team.workers.push(worker);
        }
        Ok(team)
    }

    /// Calls `task(thread, index)` for each index of `0..count`; no two calls at the same time have the same
    /// `thread`. Within a turn of any team it calls them one after the other, as thread 0.
    ///
    /// # Panics
    /// If a task does: after all others have ended.
    pub(super) fn turn(&self, count: usize, task: &Task<'_>) {
        if IN_TURN.get() {
            return (0..count).for_each(|index| task(0, index));
        }
        assert!(u32::try_from(count).is_ok(), "more tasks than a turn can count");
        let _turn = lock(&self.turn);
        let board = &*self.board;
        let threads = board.members.len();
        for (index, member) in board.members.iter().enumerate() {
            member.set(count * index / threads, count * (index + 1) / threads);
        }
        // SAFETY: no worker is busy. The task outlives the turn, at whose end nobody has it any more: only the
        // lifetime is taken from its type.
        unsafe {
            let task = std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task);
            *board.task.get() = Some(task);
        }
        board.busy.store(threads - 1, Ordering::Relaxed);
        board.turn.fetch_add(1, Ordering::Release);
        for member in &board.members[1..] {
            member.bed.wake();
        }
        board.take_part(0, task);
        board.members[0].bed.wait(|| board.busy.load(Ordering::Acquire) == 0);
        if let Some(panic) = lock(&board.panic).take() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.board.ending.store(true, Ordering::Release);
        self.board.turn.fetch_add(1, Ordering::Release);
        for member in &self.board.members {
            member.bed.wake();
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks.
            let _ = worker.join();
        }
    }
}

impl Board {
    /// What worker `thread` does all its life.
    fn work(&self, thread: usize) {
        let mut seen = 0;
        loop {
            let bed = &self.members[thread].bed;
            bed.wait(|| self.turn.load(Ordering::Acquire) != seen);
            seen += 1;
            if self.ending.load(Ordering::Acquire) {
                return;
            }
            // SAFETY: written before the turn began; the caller waits for this worker before it ends.
            if let Some(task) = unsafe { *self.task.get() } {
                // SAFETY: likewise.
                self.take_part(thread, unsafe { &*task });
            }
            if self.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.members[0].bed.wake();
            }
        }
    }

    /// Calls the task for this thread's part of the turn, then for what others have not begun.
    fn take_part(&self, thread: usize, task: &Task<'_>) {
        IN_TURN.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            while let Some(index) = self.members[thread].take(true) {
                task(thread, index);
            }
            let count = self.members.len();
            for other in (1..count).map(|step| (thread + step) % count) {
                while let Some(index) = self.members[other].take(false) {
                    task(thread, index);
                }
            }
        }));
        IN_TURN.set(false);
        if let Err(panic) = result {
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_called_once_by_a_thread_that_is_not_called_meanwhile() {
        for threads in [1, 2, 3, 7] {
            let team = Team::start(threads).unwrap();
            for count in [0, 1, 2, 5, 64, 1000] {
                let calls: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                let running: Vec<AtomicBool> =
                    (0..threads).map(|_| AtomicBool::new(false)).collect();
                team.turn(count, &|thread, index| {
                    assert!(!running[thread].swap(true, Ordering::SeqCst));
                    calls[index].fetch_add(1, Ordering::SeqCst);
                    assert!(running[thread].swap(false, Ordering::SeqCst));
                });
                assert!(calls.iter().all(|calls| calls.load(Ordering::SeqCst) == 1));
            }
        }
    }

    #[test]
    fn a_thread_keeps_its_part_and_takes_over_what_another_leaves() {
        let team = Team::start(2).unwrap();
        let barrier = std::sync::Barrier::new(2);
        let by: Vec<AtomicUsize> = (0..8).map(|_| AtomicUsize::new(9)).collect();
        team.turn(8, &|thread, index| {
            // Both are in the first index of their part at once.
            if index == 0 || index == 4 {
                barrier.wait();
            }
            // Thread 0 does not come back before the last index has been taken.
            while index == 0 && by[1..].iter().any(|by| by.load(Ordering::SeqCst) == 9) {
                thread::yield_now();
            }
            by[index].store(thread, Ordering::SeqCst);
        });
        let by: Vec<usize> = by.iter().map(|by| by.load(Ordering::SeqCst)).collect();
        assert_eq!((by[0], &by[4..]), (0, &[1; 4][..]));
        assert_eq!(&by[1..4], &[1; 3], "taken over");
    }

    #[test]
    fn turns_within_turns_and_of_several_callers_end() {
        let team = Team::start(3).unwrap();
        let sum = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        team.turn(5, &|_, _| {
                            team.turn(3, &|thread, index| {
                                assert_eq!(thread, 0);
                                sum.fetch_add(index, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.load(Ordering::Relaxed), 4 * 200 * 5 * 3);
    }

    #[test]
    fn threads_that_slept_wake_up() {
        let team = Team::start(2).unwrap();
        for _ in 0..20 {
            thread::sleep(std::time::Duration::from_millis(2));
            let calls = AtomicUsize::new(0);
            team.turn(2, &|_, _| {
                calls.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(calls.load(Ordering::Relaxed), 2);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::start(3).unwrap();
        for bad in 0..6 {
            let turn = AssertUnwindSafe(|| {
                team.turn(6, &|_, index| assert_ne!(index, bad, "the bad one"));
            });
            assert!(catch_unwind(turn).is_err());
            let calls = AtomicUsize::new(0);
            team.turn(6, &|_, _| {
                calls.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(calls.load(Ordering::Relaxed), 6);
        }
    }
}
