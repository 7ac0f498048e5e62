//! A miner that joins a localnet in the middle of its run: with an empty folder, and killed once on its way in.
//!
//! It joins when the chain has forgotten the first windows, so that it has to fetch a state and to replay the windows
//! since. What comes to it is counted where it arrives, at the one port that it listens on and dials from; what it asks
//! the chain is not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    figures::Figure,
    localnet::{nft, windows, Localnet, Shape, MINERS},
};
use crate::{command::output, failure::Failure};

const NAME: &str = "joiner";

/// A development account that no participant of a localnet has; it pays for its registration by itself.
const COLD: &str = "//Bob";

/// The port at which it is met.
const PORT: u16 = 4_701;

/// Windows from the one in which it starts to the first in which it reveals an update, at most.
const PART_WINDOWS_MAX: f64 = 2.0;

/// Windows from the one in which it starts to the first in which its update is applied, at most: it registers for the
/// next, and is on probation in two.
const APPLIED_WINDOWS_MAX: f64 = 3.0;

/// How long a step of the story may take beside its windows.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the run is asked to be.
#[derive(Clone, Copy)]
pub(super) struct Order {
    pub(super) windows: u64,
    /// The window in which it starts.
    pub(super) after: u64,
    pub(super) window: Duration,
}

/// Runs a localnet which somebody joins.
pub(super) fn measure(program: &Path, order: Order) -> Result<Vec<Figure>, Failure> {
    let shape =
        Shape { nodes: 1, windows: order.windows, window: order.window, phase: Duration::ZERO };
    let mut localnet = Localnet::start(program, shape, NAME)?;
    localnet.await_participants()?;
    let veteran = Diary(localnet.folder.join("miner-0/diary.jsonl"));
    let patience = PATIENCE.saturating_add(order.window.saturating_mul(shape.windows as u32));
    wait_for(patience, "the window of the joiner", || veteran.window() >= Some(order.after))?;
    count()?;
    let folder = configure(&localnet.folder)?;
    let diary = Diary(folder.join("diary.jsonl"));
    let started = veteran.window().unwrap_or(order.after);
    let mut process = Process::start(program, &folder)?;
    // On its way in: it has chosen a state, or replays.
    let begun = || folder.join("arriving").exists() || diary.states() > 0;
    wait_for(patience, "the joiner's first piece", begun)?;
    process.kill()?;
    let before = came()?;
    eprintln!("netlab: the joiner is killed after {before:.0} bytes");
    let (again, states) = (Instant::now(), diary.states());
    process = Process::start(program, &folder)?;
    wait_for(patience, "the joiner's state", || diary.states() > states)?;
    let (seconds, after) = (again.elapsed().as_secs_f64(), came()? - before);
    let report = localnet.end()?;
    drop(process);
    let revealed = first_revealed(&diary.records());
    let revealed = revealed.ok_or("the joiner has revealed nothing")?;
    compare(&report, Joined { started, revealed, before, after, seconds })
}

/// What is known of a joiner.
#[derive(Clone, Copy)]
struct Joined {
    /// The windows in which it started, and in which it first revealed an update.
    started: u64,
    revealed: u64,
    /// Bytes that came until it was killed, and then until it had a state.
    before: f64,
    after: f64,
    /// Seconds from its second start until then.
    seconds: f64,
}

fn compare(report: &Value, joined: Joined) -> Result<Vec<Figure>, Failure> {
    let problems = report.get("problems").and_then(Value::as_array).ok_or("no problems")?;
    for problem in problems {
        eprintln!("netlab: {problem}");
    }
    let first = first_accepted(report)?.ok_or("the joiner's updates were never applied")?;
    let parameters = report.pointer("/model/parameters").and_then(Value::as_f64);
    let state = 4.0 * parameters.ok_or("a report without parameters")?;
    let name = |what: &str| format!("joiner, {what}");
    let until = |window: u64| window.saturating_sub(joined.started) as f64;
    Ok(vec![
        Figure::at_most(
            name("windows until it reveals an update"),
            until(joined.revealed),
            "",
            PART_WINDOWS_MAX,
        ),
        Figure::at_most(
            name("windows until its first update is applied"),
            until(first),
            "",
            APPLIED_WINDOWS_MAX,
        ),
        Figure::beside(name("a state"), state / 1e6, "MB"),
        Figure::beside(name("came until it was killed"), joined.before / 1e6, "MB"),
        Figure::beside(name("came then until it had a state"), joined.after / 1e6, "MB"),
        Figure::beside(name("from its second start until then"), joined.seconds, "s"),
        Figure::at_most(name("problems of the others"), problems.len() as f64, "", 0.0),
    ])
}

/// The first window in which an update was applied of somebody who was not there from the beginning.
fn first_accepted(report: &Value) -> Result<Option<u64>, Failure> {
    let is_new = |uid: &Value| uid.as_u64().is_some_and(|uid| uid >= MINERS as u64);
    let has_new = |window: &&Value| {
        let accepted = window.get("accepted").and_then(Value::as_array);
        accepted.is_some_and(|accepted| accepted.iter().any(is_new))
    };
    let first = windows(report)?.iter().find(has_new);
    Ok(first.and_then(|window| window.get("window")?.as_u64()))
}

/// Waits until something is so, looking often.
fn wait_for(patience: Duration, what: &str, is_so: impl Fn() -> bool) -> Result<(), Failure> {
    let begin = Instant::now();
    while !is_so() {
        if begin.elapsed() > patience {
            return Err(format!("waited {patience:?} in vain for {what}"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Writes the joiner's configuration, which is the last miner's but for who it is; returns its folder.
fn configure(localnet: &Path) -> Result<PathBuf, Failure> {
    let example = localnet.join(format!("miner-{}/config.toml", MINERS - 1));
    let read = fs::read_to_string(&example);
    let read = read.map_err(|error| format!("{}: {error}", example.display()))?;
    let folder = localnet.join(NAME);
    let write = |path: PathBuf, text: String| {
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    write(folder.join("config.toml"), configuration(&read)?)?;
    Ok(folder)
}

/// A participant's configuration made the joiner's.
fn configuration(example: &str) -> Result<String, Failure> {
    let listen =
        format!("listen = [\"/ip4/127.0.0.1/udp/{PORT}/quic-v1\", \"/ip4/127.0.0.1/tcp/{PORT}\"]");
    let others = [
        ("name = ", format!("name = \"{NAME}\"")),
        ("uri = ", format!("uri = \"{COLD}//hot\"")),
        ("listen = ", listen),
    ];
    let mut lines: Vec<String> = example.lines().map(str::to_owned).collect();
    for (begin, other) in others {
        let mut found = lines.iter_mut().filter(|line| line.starts_with(begin));
        let (Some(line), None) = (found.next(), found.next()) else {
            return Err(format!("a miner's configuration has not one line of `{begin}`"));
        };
        *line = other;
    }
    lines.push(format!("[keys.cold]\nuri = \"{COLD}\"\n"));
    Ok(lines.join("\n"))
}

/// Begins to count what comes to the joiner.
fn count() -> Result<(), Failure> {
    let mut rules = "add table inet joiner; add counter inet joiner came; \
                     add chain inet joiner in { type filter hook input priority 0; }"
        .to_owned();
    for kind in ["tcp", "udp"] {
        rules.push_str(&format!("; add rule inet joiner in {kind} dport {PORT} counter name came"));
    }
    nft(&rules)
}

/// The bytes that have come to it, with all headers.
fn came() -> Result<f64, Failure> {
    let list =
        output(Command::new("nft").args(["-j", "list", "counter", "inet", "joiner", "came"]));
    bytes_of(&list.unwrap_or_default()).ok_or_else(|| "nft counts nothing".to_owned())
}

fn bytes_of(list: &str) -> Option<f64> {
    let list: Value = serde_json::from_str(list).ok()?;
    let found = list.get("nftables")?.as_array()?.iter().find_map(|part| part.get("counter"))?;
    found.get("bytes")?.as_f64()
}

/// The process of the joiner, which ends with this.
struct Process(Child);

impl Process {
    fn start(program: &Path, folder: &Path) -> Result<Self, Failure> {
        let log = folder.join("log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = file.map_err(|error| format!("{}: {error}", log.display()))?;
        let child = Command::new(program)
            .arg("miner")
            .arg(format!("--config={}", folder.join("config.toml").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        Ok(Self(child))
    }

    /// Ends it without a word.
    fn kill(&mut self) -> Result<(), Failure> {
        self.0.kill().and_then(|()| self.0.wait()).map(drop).map_err(|error| error.to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended, or is ended.
        let _ = self.kill();
    }
}

/// A participant's diary, a record a line.
struct Diary(PathBuf);

impl Diary {
    /// The records, each with its kind; a line that is being written is left out.
    fn records(&self) -> Vec<(String, Value)> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let record = |line: &str| {
            let record: serde_json::Map<String, Value> = serde_json::from_str(line).ok()?;
            record.into_iter().next()
        };
        text.lines().filter_map(record).collect()
    }

    /// How often it has come to a window's parameters.
    fn states(&self) -> usize {
        self.records().iter().filter(|(found, _)| found == "state").count()
    }

    /// The newest window whose parameters it has held.
    fn window(&self) -> Option<u64> {
        let states = self.records().into_iter().filter(|(kind, _)| kind == "state");
        states.filter_map(|(_, state)| state.get("window")?.as_u64()).max()
    }
}

/// The first window in which somebody with such a diary revealed an update.
fn first_revealed(records: &[(String, Value)]) -> Option<u64> {
    let done = records.iter().filter(|(kind, _)| kind == "done");
    let reveals = done.filter(|(_, done)| done.get("duty").is_some_and(|duty| duty == "reveal"));
    reveals.filter_map(|(_, done)| done.get("window")?.as_u64()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_joiner_is_a_miner_of_its_own() {
        let example =
            "name = \"miner-3\"\nwindow_end = 9\n[keys.hot]\nuri = \"//localnet//miner-3//hot\"\n\
                       [network]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nexternal = []";
        let expected = "name = \"joiner\"\nwindow_end = 9\n[keys.hot]\nuri = \"//Bob//hot\"\n\
                        [network]\nlisten = [\"/ip4/127.0.0.1/udp/4701/quic-v1\", \"/ip4/127.0.0.1/tcp/4701\"]\n\
                        external = []\n[keys.cold]\nuri = \"//Bob\"\n";
        assert_eq!(configuration(example).unwrap(), expected);
        assert!(configuration("name = 1").is_err());
        assert!(configuration(&format!("{example}\nuri = 1")).is_err());
    }

    #[test]
    fn it_takes_part_when_its_update_is_applied() {
        let report = r#"{"problems": [], "model": {"parameters": 5}, "windows": [
            {"window": 9, "accepted": [0, 3]}, {"window": 11, "accepted": [0, 4]}, {"window": 12, "accepted": [4]}]}"#;
        let report: Value = serde_json::from_str(report).unwrap();
        let of = |started| Joined { started, revealed: 10, before: 1e6, after: 2e6, seconds: 1.0 };
        let passes = |started| {
            let figures = compare(&report, of(started)).unwrap();
            [figures[0].passes, figures[1].passes]
        };
        assert_eq!([passes(7), passes(8), passes(9)], [[false; 2], [true; 2], [true; 2]]);
        let none = r#"{"problems": [], "model": {"parameters": 5}, "windows": []}"#;
        assert!(compare(&serde_json::from_str(none).unwrap(), of(1)).is_err());
    }

    #[test]
    fn it_takes_part_from_its_first_reveal_on() {
        let record = |kind: &str, text: &str| {
            (kind.to_owned(), serde_json::from_str::<Value>(text).unwrap())
        };
        let records = [
            record("done", r#"{"window": 9, "duty": "apply"}"#),
            record("missed", r#"{"window": 9, "duty": "reveal"}"#),
            record("done", r#"{"window": 11, "duty": "reveal"}"#),
            record("done", r#"{"window": 10, "duty": "reveal"}"#),
        ];
        assert_eq!(first_revealed(&records), Some(10));
        assert_eq!(first_revealed(&records[..2]), None);
    }

    #[test]
    fn what_came_is_read_from_the_counter() {
        let list = r#"{"nftables": [{"metainfo": {}}, {"counter": {"name": "came", "packets": 1, "bytes": 34}}]}"#;
        assert_eq!(bytes_of(list), Some(34.0));
        assert_eq!(bytes_of("{}"), None);
    }
}
