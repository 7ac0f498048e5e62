//! Serves only as long as there is progress: who does not read what it asked for does not keep others from being
//! served.
//!
//! Nobody knows how fast a reader could read, but all who are served share one line. So a reader is slow when others
//! wait for its place and it takes both less than 64 kB/s and less than half of what is usual now: where our own line
//! is the slow one nobody is.

use std::{
    io,
    pin::{pin, Pin},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc,
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncWrite, AsyncWriteExt};

use super::codec::{self, RangeResponse};
use crate::clock::Clock;

/// How often it is looked at what a reader took.
const PERIOD: Duration = Duration::from_secs(5);

/// What a reader takes in a [`PERIOD`] that nobody calls slow: 64 kB/s.
const QUICK_BYTES: u64 = 64_000 * PERIOD.as_secs();

/// What all readers take.
pub(super) struct Pace {
    clock: Arc<dyn Clock>,
    /// Bytes taken by all so far, and how many are taking.
    taken: AtomicU64,
    readers: AtomicU64,
    others_wait: AtomicBool,
}

impl Pace {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let (taken, readers) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { clock, taken, readers, others_wait: AtomicBool::new(false) })
    }

    /// Says whether anybody waits for the place of those who are served.
    pub(super) fn set_others_wait(&self, others_wait: bool) {
        self.others_wait.store(others_wait, Ordering::Relaxed);
    }

    /// Writes an answer to a reader, as long as it takes it.
    ///
    /// # Errors
    /// It has stopped to take it, takes it too slowly while others wait, or the stream broke.
    pub(super) async fn write(
        &self,
        io: &mut (impl AsyncWrite + Unpin + Send),
        response: RangeResponse,
    ) -> io::Result<()> {
        let _reader = Reader::new(self);
        let own = AtomicU64::new(0);
        let mut io = Counted { io, own: &own, all: &self.taken };
        let mut write = pin!(async {
            codec::write_response(&mut io, response).await?;
            io.flush().await
        });
        loop {
            let before = [&own, &self.taken, &self.readers].map(read);
            tokio::select! {
                biased;
                written = &mut write => return written,
                () = self.clock.sleep(PERIOD) => {}
            }
            let now = [&own, &self.taken, &self.readers].map(read);
            // Those who have finished in the meantime took their part, too.
            let usual = now[1].saturating_sub(before[1]) / now[2].max(before[2]).max(1);
            let others_wait = self.others_wait.load(Ordering::Relaxed);
            if now[0].saturating_sub(before[0]) < least(usual, others_wait) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

fn read(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

/// The fewest bytes that a reader takes in a [`PERIOD`] without losing its place, where `usual` bytes are.
fn least(usual: u64, others_wait: bool) -> u64 {
    if others_wait {
        QUICK_BYTES.min(usual / 2).max(1)
    } else {
        1
    }
}

/// Counts what goes through it.
struct Counted<'a, T> {
    io: &'a mut T,
    own: &'a AtomicU64,
    all: &'a AtomicU64,
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<'_, T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.io).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.own.fetch_add(count as u64, Ordering::Relaxed);
            self.all.fetch_add(count as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_close(context)
    }
}

/// One who is being written to, until it is dropped.
struct Reader<'a>(&'a Pace);

impl<'a> Reader<'a> {
    fn new(pace: &'a Pace) -> Self {
        pace.readers.fetch_add(1, Ordering::Relaxed);
        Self(pace)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::ManualClock;

    /// Takes `rate` bytes in each second of the clock, and nothing more.
    struct Slow {
        clock: ManualClock,
        rate: u64,
        taken: u64,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let room = self.rate * self.clock.now_millis() / 1_000 - self.taken;
            let count = bytes.len().min(room as usize);
            self.taken += count as u64;
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            // Asked again whenever something else happens; time is what does.
            context.waker().wake_by_ref();
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// How readers of these bytes a second end, and after how many seconds, when all begin at once.
    async fn served<const N: usize>(rates: [u64; N], others_wait: bool) -> [(bool, u64); N] {
        let clock = ManualClock::default();
        let pace = Pace::new(Arc::new(clock.clone()));
        pace.set_others_wait(others_wait);
        let readers = rates.map(|rate| {
            let (pace, clock) = (pace.clone(), clock.clone());
            async move {
                let bytes = Bytes::from(vec![0; 1_000_000]);
                let response = RangeResponse::Found { total_len: 1_000_000, bytes };
                let mut io = Slow { clock: clock.clone(), rate, taken: 0 };
                let written = pace.write(&mut io, response).await;
                (written.is_ok(), clock.now_millis() / 1_000)
            }
        });
        let time = async {
            loop {
                // Every reader is looked at before the next moment.
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                clock.advance(Duration::from_millis(100));
            }
        };
        tokio::select! {
            ends = futures::future::join_all(readers) => ends.try_into().unwrap(),
            () = time => unreachable!("time passes for ever"),
        }
    }

    #[tokio::test]
    async fn who_reads_nothing_loses_its_place_and_who_reads_slowly_if_others_wait() {
        // A second more for the last look.
        let [mute, slow, quick] = served([0, 20_000, 300_000], true).await;
        assert!(!mute.0 && (5..=6).contains(&mute.1), "{mute:?}");
        assert!(!slow.0 && (5..=6).contains(&slow.1), "{slow:?}");
        assert!(quick.0, "{quick:?}");
        let [mute, slow, quick] = served([0, 20_000, 300_000], false).await;
        assert!(!mute.0 && slow.0 && quick.0);
        assert!((49..=51).contains(&slow.1), "{slow:?}");
    }

    #[tokio::test]
    async fn where_all_are_slow_nobody_loses_its_place() {
        let ends = served([20_000, 21_000, 22_000, 19_000], true).await;
        assert!(ends.iter().all(|(is_ok, _)| *is_ok), "{ends:?}");
    }
}
