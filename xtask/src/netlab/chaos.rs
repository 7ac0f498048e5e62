//! A localnet of three nodes in which processes are killed and stopped and links cut, at moments that a seed draws,
//! beside one without.
//!
//! ```text
//! kill      a participant ends without a word; the localnet starts it again
//! freeze    a participant stands still for 20 s
//! cut       nothing reaches or leaves a participant for 30 s, peers and chain alike
//! rpc       nobody reaches one of the nodes for 15 s
//! ```
//!
//! What is cut of a node is where it is asked. Its peers go on to reach it, so that a fault of one node is none of the
//! chain: the first makes all blocks, and cut off it would stop them for everybody.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    cut::{cut, Sockets},
    figures::Figure,
    localnet::{accepted, names, node_name, process_id, signal, windows, Localnet, Shape, MINERS},
};
use crate::failure::Failure;

/// How many nodes the chain has.
const NODES: usize = 3;

/// A window is so many times as long as each phase of its exchange.
const PHASES_OF_WINDOW: u32 = 6;

/// No faults so shortly after the first window's begin, and before the last one's end.
const QUIET: Duration = Duration::from_secs(30);

/// How often a process is killed at the most: the localnet starts each again five times.
const KILLS_MAX: usize = 5;

/// What the run is asked to be.
#[derive(Clone, Copy)]
pub(super) struct Order {
    pub(super) minutes: u64,
    /// How long the localnet without faults is; 0 for none, and then as if each miner's update were accepted in each
    /// window, which is the most.
    pub(super) calm_minutes: u64,
    pub(super) faults: usize,
    pub(super) seed: u64,
    /// How long a window is. By ten as long as three minutes in truth: a fault is a larger part of it.
    pub(super) window: Duration,
}

impl Order {
    fn shape(&self, minutes: u64) -> Shape {
        Shape {
            nodes: NODES,
            windows: (minutes * 60).div_ceil(self.window.as_secs().max(1)),
            window: self.window,
            phase: self.window / PHASES_OF_WINDOW,
        }
    }
}

/// Runs a localnet without faults and one with, and compares what they accept in a window.
pub(super) fn measure(program: &Path, order: Order) -> Result<Vec<Figure>, Failure> {
    let calm = match order.calm_minutes {
        0 => MINERS as f64,
        minutes => {
            accepted_a_window(&Localnet::start(program, order.shape(minutes), "calm")?.end()?)?
        }
    };
    let mut localnet = Localnet::start(program, order.shape(order.minutes), "chaos")?;
    let faults = draw(order);
    localnet.await_participants()?;
    let begin = Instant::now();
    let threads: Vec<_> = faults
        .into_iter()
        .enumerate()
        .map(|(number, fault)| {
            let folder = localnet.folder.clone();
            thread::spawn(move || {
                thread::sleep(fault.at.saturating_sub(begin.elapsed()));
                fault.make(&folder, number)
            })
        })
        .collect();
    let report = localnet.end()?;
    let mut made = 0.0;
    for ended in threads {
        match ended.join() {
            Ok(Ok(())) => made += 1.0,
            Ok(Err(failure)) => eprintln!("netlab: no fault: {failure}"),
            Err(_) => eprintln!("netlab: no fault"),
        }
    }
    compare(order, made, calm, &report)
}

/// The updates that were applied in a window, the mean.
fn accepted_a_window(report: &Value) -> Result<f64, Failure> {
    Ok(accepted(report)? / windows(report)?.len().max(1) as f64)
}

/// The figures of a run with faults; `calm` updates were accepted in a window without.
fn compare(order: Order, made: f64, calm: f64, report: &Value) -> Result<Vec<Figure>, Failure> {
    let kept = accepted_a_window(report)?;
    let problems = report.get("problems").and_then(Value::as_array).ok_or("no problems")?;
    for problem in problems {
        eprintln!("netlab: {problem}");
    }
    let roots = windows(report)?.iter().filter(|window| {
        window.get("state_root").and_then(Value::as_str).is_some_and(|root| !root.is_empty())
    });
    let name = |what: &str| format!("chaos, {} min, seed {}, {what}", order.minutes, order.seed);
    Ok(vec![
        Figure::at_least(name("faults"), made, "", order.faults as f64),
        Figure::beside(name("accepted in a window without faults"), calm, "updates"),
        Figure::beside(name("accepted"), accepted(report)?, "updates"),
        Figure::at_least(name("kept"), 100.0 * kept / calm, "%", 97.7),
        Figure::at_least(
            name("windows with a final root"),
            100.0 * roots.count() as f64 / windows(report)?.len() as f64,
            "%",
            100.0,
        ),
        Figure::at_most(name("problems"), problems.len() as f64, "", 0.0),
    ])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Freeze,
    Cut,
    Rpc,
}

const KINDS: [Kind; 4] = [Kind::Kill, Kind::Freeze, Kind::Cut, Kind::Rpc];

/// What happens to whom, and when after the start.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    at: Duration,
    kind: Kind,
    /// A participant, or a node.
    of: String,
}

/// The faults of a run, in the order of their moments, the same for the same seed.
fn draw(order: Order) -> Vec<Fault> {
    let mut state = order.seed;
    let mut next = |below: u64| {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)) % below.max(1)
    };
    let names: Vec<String> = names().collect();
    let mut kills = vec![0; names.len()];
    let quiet = 2 * QUIET.as_secs();
    let span = (order.minutes * 60).saturating_sub(quiet) * 1_000;
    let mut faults = Vec::new();
    for _ in 0..order.faults {
        let at = QUIET + Duration::from_millis(next(span));
        let mut kind = KINDS[next(KINDS.len() as u64) as usize];
        let index = next(names.len() as u64) as usize;
        if kind == Kind::Kill && kills[index] == KILLS_MAX {
            kind = Kind::Freeze;
        }
        kills[index] += usize::from(kind == Kind::Kill);
        let of = if kind == Kind::Rpc { node_name(index % NODES) } else { names[index].clone() };
        faults.push(Fault { at, kind, of });
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

impl Fault {
    /// Makes it, and unmakes it in the end.
    fn make(&self, folder: &Path, number: usize) -> Result<(), Failure> {
        eprintln!("netlab: after {:.0} s: {:?} {}", self.at.as_secs_f64(), self.kind, self.of);
        let process = process_id(folder, &self.of)?;
        match self.kind {
            Kind::Kill => signal("KILL", process),
            Kind::Freeze => {
                signal("STOP", process)?;
                thread::sleep(Duration::from_secs(20));
                signal("CONT", process)
            }
            Kind::Cut => cut(folder, &self.of, Sockets::All, Duration::from_secs(30), number),
            Kind::Rpc => cut(folder, &self.of, Sockets::Rpc, Duration::from_secs(15), number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_faults_each_time_and_all_kinds_of_them() {
        let window = Duration::from_secs(60);
        let order = Order { minutes: 30, calm_minutes: 30, faults: 62, seed: 7, window };
        let faults = draw(order);
        assert_eq!((faults.len(), &faults), (62, &draw(order)));
        assert_ne!(faults, draw(Order { seed: 8, ..order }));
        for kind in KINDS {
            assert!(faults.iter().any(|fault| fault.kind == kind), "{kind:?}");
        }
        for node in (0..NODES).map(node_name) {
            assert!(faults.iter().any(|fault| fault.kind == Kind::Rpc && fault.of == node));
        }
        let last = Duration::from_secs(30 * 60) - QUIET;
        assert!(faults.iter().all(|fault| (QUIET..last).contains(&fault.at)));
        assert!(faults.is_sorted_by_key(|fault| fault.at));
        for name in names() {
            let kills = faults.iter().filter(|fault| fault.kind == Kind::Kill && fault.of == name);
            assert!(kills.count() <= KILLS_MAX);
        }
    }

    #[test]
    fn what_was_kept_is_what_was_accepted_beside_a_calm_run() {
        let report = |accepted: &str, root: &str| -> Value {
            let windows = format!(r#"[{{"accepted": {accepted}, "state_root": "{root}"}}]"#);
            serde_json::from_str(&format!(r#"{{"windows": {windows}, "problems": []}}"#)).unwrap()
        };
        let window = Duration::from_secs(60);
        let order = Order { minutes: 1, calm_minutes: 1, faults: 2, seed: 0, window };
        let calm = accepted_a_window(&report("[0, 1, 2, 3]", "0x1")).unwrap();
        let figures = compare(order, 2.0, calm, &report("[0, 1, 2]", "0x2")).unwrap();
        assert_eq!((figures[3].value, figures[3].passes), (75.0, false));
        assert!(figures[4].passes);
        let figures = compare(order, 2.0, calm, &report("[0, 1, 2, 3]", "")).unwrap();
        assert_eq!((figures[3].passes, figures[4].passes), (true, false));
    }
}
