//! Supervises child processes: starts each with a log, watches it, starts it again when it ends too early, and stops it.
//!
//! No child outlives this process: the kernel ends it with the thread that started it (`PR_SET_PDEATHSIG`), which is the
//! main thread. Children are in process groups of their own, so that Ctrl-C reaches this process alone, which then stops
//! them in order.

use std::{
    fs::OpenOptions,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

/// How often a process that ended is started again.
const RESTARTS_MAX: u32 = 5;

/// Bytes of a log that an error shows.
const LOG_TAIL_BYTES: u64 = 2_000;

/// The command of a process, its log's name and its folder.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Its name for people and for its log.
    pub(crate) name: String,
    pub(crate) binary: PathBuf,
    pub(crate) args: Vec<String>,
    /// Folder for its log and for a file with its process id.
    pub(crate) logs: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Process {
    program: Program,
    child: Child,
    restarts: u32,
}

impl Program {
    /// Starts it. Call this on a thread that lives as long as the process should.
    pub(crate) fn start(self) -> Result<Process> {
        let child = self.spawn()?;
        Ok(Process { program: self, child, restarts: 0 })
    }

    /// Path of its log.
    pub(crate) fn log(&self) -> PathBuf {
        self.logs.join(format!("{}.log", self.name))
    }

    fn spawn(&self) -> Result<Child> {
        let path = self.log();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let mut command = Command::new(&self.binary);
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        let parent = std::process::id();
        // SAFETY: between fork and exec only async-signal-safe functions are called: prctl and getppid.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // The parent may have died before the line above.
                if libc::getppid() as u32 != parent {
                    return Err(std::io::Error::other("the parent has ended"));
                }
                Ok(())
            });
        }
        let child =
            command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))?;
        if let Some(id) = child.id() {
            let path = self.logs.join(format!("{}.pid", self.name));
            std::fs::write(&path, id.to_string())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(child)
    }
}

impl Process {
    /// Its name for people.
    pub(crate) fn name(&self) -> &str {
        &self.program.name
    }

    /// Looks whether it has ended, and starts it again if so. Returns how it had ended.
    ///
    /// # Errors
    /// It has ended too often, or cannot be started.
    pub(crate) fn keep_up(&mut self) -> Result<Option<ExitStatus>> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(None);
        };
        let name = &self.program.name;
        if self.restarts >= RESTARTS_MAX {
            anyhow::bail!("{name} ended again ({status}); {}", self.log_tail());
        }
        self.restarts += 1;
        self.child = self.program.spawn()?;
        Ok(Some(status))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) else {
            return;
        };
        // SAFETY: kill has no memory effects; the child has not been waited for, so that its id is still its own.
        if unsafe { libc::kill(id, libc::SIGTERM) } != 0 {
            tracing::debug!(name = self.program.name, "it has ended already");
        }
    }

    /// Waits until it ends, and kills it after `patience`. Not cancel-safe.
    pub(crate) async fn wait_or_kill(&mut self, patience: Duration) {
        if tokio::time::timeout(patience, self.child.wait()).await.is_err() {
            tracing::warn!(name = self.program.name, "does not end, killing it");
            if let Err(error) = self.child.kill().await {
                tracing::warn!(name = self.program.name, %error, "cannot kill it");
            }
        }
    }

    /// The end of its log, for an error message.
    pub(crate) fn log_tail(&self) -> String {
        let path = self.program.log();
        let tail = tail(&path).unwrap_or_default();
        format!("its log {} ends with:\n{tail}", path.display())
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Ends all `processes` together, politely first. Not cancel-safe.
pub(crate) async fn stop(processes: &mut [Process], patience: Duration) {
    for process in processes.iter() {
        process.terminate();
    }
    futures::future::join_all(processes.iter_mut().map(|process| process.wait_or_kill(patience)))
        .await;
}

/// A port of this machine that is free now.
pub(crate) fn free_port() -> Result<u16> {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no port is free")?;
    Ok(socket.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(logs: &Path) -> Program {
        Program {
            name: "sleeper".into(),
            binary: "/bin/sh".into(),
            args: vec!["-c".into(), "echo up; exec sleep 600".into()],
            logs: logs.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_process_is_stopped() {
        let logs = tempfile::tempdir().unwrap();
        let mut processes = vec![sleeper(logs.path()).start().unwrap()];
        assert!(processes[0].ended().unwrap().is_none());
        stop(&mut processes, Duration::from_secs(20)).await;
        assert!(processes[0].ended().unwrap().is_some());
    }

    #[tokio::test]
    async fn a_process_that_ended_is_started_again_but_not_for_ever() {
        let logs = tempfile::tempdir().unwrap();
        let program = Program {
            name: "brief".into(),
            binary: "/bin/sh".into(),
            args: vec!["-c".into(), "echo ended; exit 3".into()],
            logs: logs.path().to_owned(),
        };
        let mut process = program.start().unwrap();
        for _ in 0..RESTARTS_MAX {
            process.child.wait().await.unwrap();
            assert_eq!(process.keep_up().unwrap().and_then(|status| status.code()), Some(3));
        }
        process.child.wait().await.unwrap();
        let error = process.keep_up().unwrap_err().to_string();
        assert!(error.contains("ended again") && error.contains("ended\n"), "{error}");
    }
}
