//! Where what blocks is done: computing, and writing to disk.

use std::sync::Arc;

use crate::error::Result;
use futures::future::BoxFuture;

/// Makes a future that is over when a simulated computation may begin or has ended.
type Pause = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Runs what blocks; clones do it in the same place.
#[derive(Clone)]
pub struct Work {
    pause: Option<Pause>,
}

impl Work {
    /// On tokio's threads for that.
    pub fn on_threads() -> Self {
        Self { pause: None }
    }

    /// On the caller's own thread, between two of `pause`'s futures: on one thread with paused time, work then happens
    /// in an order that the pauses decide, and can be killed before and after, not within.
    pub fn inline(pause: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self { pause: Some(Arc::new(pause)) }
    }

    /// Runs `work` and returns its result. Cancel-safe in that the result is lost; on threads, `work` goes on.
    ///
    /// # Errors
    /// It panicked on its thread.
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
