//! Ends a process when a signal asks for it, and lets blocking work notice that.

use std::{
    process,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
};

use anyhow::Result;
use tokio::signal::unix::{signal, SignalKind};

use crate::exit;

/// Ends this process silently when nobody reads its output any more (`gauntlet status | head`), as Unix tools do. For
/// commands that only print; a service must not end for that.
pub fn end_with_reader() {
    // SAFETY: sets a disposition that has no handler; no other thread depends on it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Resolves at Ctrl-C, SIGTERM or SIGHUP. Never resolves if signals cannot be caught. Cancel-safe.
pub async fn end_requested() {
    let mut pending = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        match signal(kind) {
            Ok(signal) => pending.push(signal),
            Err(error) => tracing::warn!(%error, "cannot catch a signal"),
        }
    }
    let waits = pending.iter_mut().map(|signal| Box::pin(signal.recv()));
    let waits: Vec<_> = waits.collect();
    if waits.is_empty() {
        std::future::pending::<()>().await;
    }
    futures::future::select_all(waits).await;
}

/// Runs work that blocks on a thread of its own.
///
/// # Errors
/// Those of the work, or it panicked.
pub async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R> + Send + 'static,
) -> Result<R> {
    tokio::task::spawn_blocking(work).await?
}

/// Runs work that blocks and looks at its flag from step to step. The first request to end sets the flag, and the work is
/// waited for; the second one ends the process at once.
///
/// # Errors
/// Those of the work, or it panicked.
pub async fn blocking_until_asked_to_end<R: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<R> + Send + 'static,
) -> Result<R> {
    let is_asked_to_end = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_asked_to_end);
    let mut working = std::pin::pin!(blocking(move || work(&flag)));
    tokio::select! {
        done = &mut working => done,
        () = end_requested() => {
            is_asked_to_end.store(true, Ordering::Relaxed);
            end_at_once_when_asked_again("ends after the step at hand");
            working.await
        }
    }
}

/// Resolves when a participant is asked to end. It ends when it has opened what it has committed to; asked a second
/// time, the process ends at once.
pub async fn leave_requested() {
    end_requested().await;
    end_at_once_when_asked_again(
        "ends when what it has committed to is opened, with the window at the latest",
    );
}

/// Says `how` the command ends, which may take minutes, and ends the process at once when it is asked a second time.
/// Nothing is lost by that which a kill would not lose.
fn end_at_once_when_asked_again(how: &str) {
    exit::tell(&format!("{how}; Ctrl-C again ends at once"));
    tokio::spawn(async {
        end_requested().await;
        process::exit(exit::INTERRUPTED.into());
    });
}
