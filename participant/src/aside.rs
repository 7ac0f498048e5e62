//! Does one piece of work at a time beside a service, and ends with it.

use std::future::Future;

use tokio::task::JoinHandle;

/// The work that is being done, if some is.
#[derive(Default)]
pub(crate) struct Aside(Option<JoinHandle<()>>);

impl Aside {
    /// Starts `work`. What was started before it is over, or goes on unheeded.
    pub(crate) fn start(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.0 = Some(tokio::spawn(work));
    }

    /// Whether it is still being done.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Waits until it is over. Cancel-safe.
    pub(crate) async fn end(&mut self) {
        if let Some(task) = &mut self.0 {
            // That it panicked is in the log.
            let _ = task.await;
            self.0 = None;
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
