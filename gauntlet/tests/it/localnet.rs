//! A small localnet as a child process, and what its run folder says meanwhile.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use gauntlet::commands::localnet::report::LocalnetReport;
use participant::diary::{DiaryRecord, Reader};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(300);

/// Pause between two looks at the run folder.
const LOOK: Duration = Duration::from_millis(100);

/// The binary under test.
pub(crate) fn gauntlet() -> &'static str {
    env!("CARGO_BIN_EXE_gauntlet")
}

/// A running localnet; it and all its processes end with this.
pub(crate) struct Localnet {
    child: Child,
    folder: tempfile::TempDir,
}

impl Localnet {
    /// Starts one with a tiny text, few steps and these options.
    pub(crate) fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text.txt");
        let line = "A miner trains, a validator measures, and the chain keeps the books. ";
        let lines: Vec<String> = (0..6_000).map(|number| format!("{number}: {line}\n")).collect();
        std::fs::write(&text, lines.concat()).unwrap();
        let log = std::fs::File::create(folder.path().join("localnet.log")).unwrap();
        let child = Command::new(gauntlet())
            .arg("localnet")
            .args(["--block-ms", "250", "--inner-steps", "2", "--batch-size", "4"])
            .arg(format!("--data={}", text.display()))
            .arg(format!("--keep={}", folder.path().join("run").display()))
            .args(options)
            // The logs have what they have without.
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    /// The run folder.
    pub(crate) fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// What the command has printed, for failures.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("localnet.log")).unwrap_or_default()
    }

    /// What `process` has logged, for failures.
    pub(crate) fn log(&self, process: &str) -> String {
        let path = self.run().join("logs").join(format!("{process}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Waits until `member`'s diary has a line for which `is_it`.
    pub(crate) fn wait_for(&mut self, member: &str, is_it: impl Fn(&DiaryRecord) -> bool) {
        let mut reader = Reader::new(&self.run().join(member));
        let started = Instant::now();
        loop {
            if reader.read().unwrap().iter().any(&is_it) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("it ended ({status}) before {member} did that:\n{}", self.output());
            }
            assert!(started.elapsed() < PATIENCE, "{member} never did that:\n{}", self.output());
            std::thread::sleep(LOOK);
        }
    }

    /// The process id of `process` now.
    pub(crate) fn process_id(&self, process: &str) -> u32 {
        let path = self.run().join("logs").join(format!("{process}.pid"));
        std::fs::read_to_string(path).unwrap().parse().unwrap()
    }

    /// Sends `signal` (as kill's options name it) to `process`.
    pub(crate) fn signal(&self, process: &str, signal: &str) {
        let id = self.process_id(process).to_string();
        let status = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until it has ended by itself, and returns its report.
    pub(crate) fn finish(mut self) -> (ExitStatus, LocalnetReport, Self) {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end:\n{}", self.output());
            std::thread::sleep(LOOK);
        };
        let report = std::fs::read(self.run().join("report.json"))
            .unwrap_or_else(|error| panic!("no report ({error}):\n{}", self.output()));
        (status, serde_json::from_slice(&report).unwrap(), self)
    }

    /// Audits the run folder; returns the exit code and what was printed.
    pub(crate) fn audit(&self) -> (Option<i32>, String) {
        let output = Command::new(gauntlet()).arg("audit").arg(self.run()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    }
}

impl Drop for Localnet {
    fn drop(&mut self) {
        // Its children end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process with this id is there.
pub(crate) fn is_alive(id: u32) -> bool {
    Path::new("/proc").join(id.to_string()).exists()
}
