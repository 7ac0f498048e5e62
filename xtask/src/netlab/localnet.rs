//! A localnet of real processes in the lab: three validators and four miners, and the nodes of the chain.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{command::run, failure::Failure};

pub(super) const MINERS: usize = 4;
const VALIDATORS: usize = 3;

const BLOCK_MILLIS: u64 = 500;

/// Local steps of a window: a third of it, or less, on two busy cores.
const INNER_STEPS: &str = "4";

/// How long the localnet may take beside its windows.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long a localnet runs.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) nodes: usize,
    pub(super) windows: u64,
    pub(super) window: Duration,
    /// How long each phase of an exchange is at least: reveals, attestations and their reveals, applying.
    pub(super) phase: Duration,
}

/// A localnet that runs.
pub(super) struct Localnet {
    child: Child,
    pub(super) folder: PathBuf,
    patience: Duration,
}

impl Localnet {
    pub(super) fn start(program: &Path, shape: Shape, name: &str) -> Result<Self, Failure> {
        let folder = PathBuf::from("/run/netlab").join(name);
        let Shape { nodes, windows, window, phase } = shape;
        let blocks = |time: Duration| (time.as_millis() as u64 / BLOCK_MILLIS).to_string();
        eprintln!("netlab: a localnet of {windows} windows, {name}");
        fs::create_dir_all("/run/netlab").map_err(|error| format!("/run/netlab: {error}"))?;
        let child = Command::new(program)
            .arg("localnet")
            .args(["--miners", &MINERS.to_string(), "--validators", &VALIDATORS.to_string()])
            .args(["--nodes", &nodes.to_string()])
            .args(["--windows", &windows.to_string(), "--window-blocks", &blocks(window)])
            .args(["--phase-blocks", &blocks(phase)])
            .args(["--block-ms", &BLOCK_MILLIS.to_string(), "--inner-steps", INNER_STEPS])
            .arg("--keep")
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let patience = Duration::from_secs(windows * window.as_secs()) + PATIENCE;
        Ok(Self { child, folder, patience })
    }

    /// Waits until all participants have been started.
    pub(super) fn await_participants(&mut self) -> Result<(), Failure> {
        let begin = Instant::now();
        while names().any(|name| process_id(&self.folder, &name).is_err()) {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || begin.elapsed() > PATIENCE {
                return Err("the participants do not start".to_owned());
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Waits for its end, and reads its report.
    pub(super) fn end(mut self) -> Result<Value, Failure> {
        let begin = Instant::now();
        while self.child.try_wait().map_err(|error| error.to_string())?.is_none() {
            if begin.elapsed() > self.patience {
                return Err(format!("the localnet has not ended after {:?}", self.patience));
            }
            thread::sleep(Duration::from_millis(200));
        }
        let path = self.folder.join("report.json");
        let report = fs::read_to_string(&path)
            .map_err(|error| format!("no report {}: {error}", path.display()))?;
        serde_json::from_str(&report).map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Drop for Localnet {
    fn drop(&mut self) {
        // It has ended, or is ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The participants.
pub(super) fn names() -> impl Iterator<Item = String> {
    let named = |kind: &'static str, count| (0..count).map(move |index| format!("{kind}-{index}"));
    named("miner", MINERS).chain(named("validator", VALIDATORS))
}

/// The name of a node, of which the first makes the chain's blocks.
pub(super) fn node_name(index: usize) -> String {
    match index {
        0 => "node".to_owned(),
        _ => format!("node-{index}"),
    }
}

/// The process that a participant, or a node, is now.
pub(super) fn process_id(folder: &Path, name: &str) -> Result<u32, Failure> {
    let path = folder.join("logs").join(format!("{name}.pid"));
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.trim().parse().map_err(|error| format!("{}: {error}", path.display()))
}

/// The windows of a report.
pub(super) fn windows(report: &Value) -> Result<&Vec<Value>, Failure> {
    let windows = report.get("windows").and_then(Value::as_array);
    windows.ok_or_else(|| "a report without windows".to_owned())
}

/// The updates that were applied in all windows.
pub(super) fn accepted(report: &Value) -> Result<f64, Failure> {
    let counts = windows(report)?
        .iter()
        .map(|window| window.get("accepted").and_then(Value::as_array).map_or(0, Vec::len));
    Ok(counts.sum::<usize>() as f64)
}

pub(super) fn signal(name: &str, process: u32) -> Result<(), Failure> {
    run(Command::new("kill").args(["-s", name, &process.to_string()]))
}

pub(super) fn nft(rules: &str) -> Result<(), Failure> {
    run(Command::new("nft").arg(rules))
}
