//! The signals that ask a process to end.

use std::process;

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

/// For a command that ends behind a step, which may take minutes: says that it will, and ends the process at once when it
/// is asked a second time. Nothing is lost by that which a kill would not lose.
pub fn end_at_once_when_asked_again() {
    exit::tell("ends after the step at hand; Ctrl-C again ends at once");
    tokio::spawn(async {
        end_requested().await;
        process::exit(exit::INTERRUPTED.into());
    });
}
