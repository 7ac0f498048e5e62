//! Many peers on this machine: how long one takes to have a content known, and others to get it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    figures::Figure,
    lab::{Lab, Link, Process},
};
use crate::failure::Failure;

const PROCESSES: usize = 8;

/// Peers that have a content each, and that fetch one each.
const SAMPLES: usize = 64;

/// Peers in a smaller crowd, for Kademlia: each lookup makes dozens of connections, whose handshakes share this
/// machine's processors.
const FEW: usize = 32;

/// Bytes of the first content; each other one has one more.
const LEN: usize = 1_000;

/// What hivemind's benchmark of 1,024 peers says of its own table, in milliseconds.
const STORE: f64 = 14.9;
const GET: f64 = 6.6;

/// 1,024 peers, all of them announced on a chain that says whose a content is.
pub(super) fn announced(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    let mut crowd = Crowd::new(lab, 1_024, PROCESSES)?;
    let (store, get) = crowd.sample(Ways::Announced)?;
    figures("crowd of 1024, announced", store, get, SAMPLES)
}

/// Kademlia, among those that there are connections between.
pub(super) fn kademlia(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    let mut crowd = Crowd::new(lab, FEW, 1)?;
    crowd.meet()?;
    let (store, get) = crowd.sample(Ways::Kademlia)?;
    figures(&format!("crowd of {FEW}, Kademlia"), store, get, FEW / 2)
}

fn figures(
    name: &str,
    mut store: Vec<f64>,
    mut get: Vec<f64>,
    samples: usize,
) -> Result<Vec<Figure>, Failure> {
    let found = 100.0 * get.len() as f64 / samples as f64;
    Ok(vec![
        Figure::at_least(format!("{name}, found"), found, "%", 100.0),
        Figure::at_most(format!("{name}, store"), median(&mut store), "ms", STORE),
        Figure::at_most(format!("{name}, get"), median(&mut get), "ms", GET),
    ])
}

/// How contents are made known and found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ways {
    /// The chain says who has them.
    Announced,
    Kademlia,
}

struct Crowd {
    processes: Vec<Process>,
    /// The addresses, in the order of the processes and of the peers in each.
    peers: Vec<String>,
    each: usize,
}

impl Crowd {
    fn new(lab: &mut Lab, count: usize, processes: usize) -> Result<Self, Failure> {
        let each = count / processes;
        let node = lab.node(Link::default())?;
        let mut crowd = Self { processes: Vec::new(), peers: Vec::new(), each };
        for _ in 0..processes {
            let (mut process, _) = lab.start(&node, &["crowd", &each.to_string()])?;
            let answer = process.ask("addresses")?;
            let addresses = answer.get("addresses").and_then(Value::as_array);
            let addresses = addresses.ok_or("no addresses")?.iter().filter_map(Value::as_str);
            crowd.peers.extend(addresses.map(str::to_owned));
            crowd.processes.push(process);
        }
        Ok(crowd)
    }

    /// Each learns of some others, and has a while to connect to them.
    fn meet(&mut self) -> Result<(), Failure> {
        let file = "/run/netlab-crowd";
        fs::write(file, self.peers.join("\n"))
            .map_err(|error| format!("cannot write {file}: {error}"))?;
        let begin = Instant::now();
        for process in &mut self.processes {
            process.ask(&format!("know {file}"))?;
        }
        thread::sleep(Duration::from_secs(10));
        eprintln!("netlab: all have met after {:.0} s", begin.elapsed().as_secs_f64());
        Ok(())
    }

    /// Says a line of a peer's to its process: how many milliseconds it took, if it was done.
    fn ask(&mut self, peer: usize, word: &str, rest: &str) -> Result<Option<f64>, Failure> {
        let process = &mut self.processes[peer / self.each];
        let answer = process.ask(&format!("{word} {} {rest}", peer % self.each))?;
        let millis = answer.get("millis").and_then(Value::as_f64);
        let millis = millis.ok_or_else(|| format!("no time: {answer}"))?;
        Ok((answer.get("done") == Some(&Value::Bool(true))).then_some(millis))
    }

    /// Has contents stored by some and fetched by others: the times of both, where they were done.
    fn sample(&mut self, ways: Ways) -> Result<(Vec<f64>, Vec<f64>), Failure> {
        let (mut store, mut get) = (Vec::new(), Vec::new());
        let count = self.peers.len();
        let samples = SAMPLES.min(count / 2);
        for sample in 0..samples {
            let (owner, len) = (sample * count / samples, LEN + sample);
            let published = self.ask(owner, "publish", &len.to_string())?;
            let finder = (owner + count / 2) % count;
            if ways == Ways::Announced {
                store.extend(published);
                let rest = format!("{len} {}", self.peers[owner]);
                get.extend(self.ask(finder, "get", &rest)?);
            } else {
                store.extend(self.ask(owner, "announce", &len.to_string())?);
                get.extend(self.ask(finder, "find", &len.to_string())?);
            }
        }
        Ok((store, get))
    }
}

/// The middle of the times; 0 of none.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
