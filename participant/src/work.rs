//! Runs blocking work (training, disk writes) off the async threads.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::error::Result;

/// Makes a future that is over when a simulated computation may begin or has ended.
type Pause = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Runs blocking work; clones run it in the same place.
#[derive(Clone)]
pub struct Work {
    pause: Option<Pause>,
}

impl Work {
    /// Runs it on tokio's threads for blocking work.
    pub fn on_threads() -> Self {
        Self { pause: None }
    }

    /// Runs it on the caller's own thread, between two of `pause`'s futures: on one thread with paused time, work then happens
    /// in an order that the pauses decide, and can be killed before and after, not within.
    pub fn inline(pause: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self { pause: Some(Arc::new(pause)) }
    }

    /// [`Work::run`] of what takes too long for an async thread and no time in a simulation: hashing, a copy.
    ///
    /// # Errors
    /// As there.
    pub async fn run_short<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R> {
        match &self.pause {
            None => self.run(work).await,
            Some(_) => Ok(work()),
        }
    }

    /// Runs `work` and returns its result. Cancel-safe in that the result is lost; on threads, `work` runs to its end.
    ///
    /// # Errors
    /// `work` panicked on its thread.
    pub async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R> {
        let Some(pause) = &self.pause else {
            return Ok(tokio::task::spawn_blocking(work).await?);
        };
        pause().await;
        let result = work();
        pause().await;
        Ok(result)
    }
}
