//! Writes the results as files: a row for each run, a curve for each run, and a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::arms::Arm;
use crate::simulate::{self, Outcome};

const RUNS_HEADER: &str = "name,seed,method,h,k,shape,quantiser,mean,churn,inner_rate,outer_rate,\
decay,steps,tokens,loss,bytes_per_peer,updates_per_peer,seconds";
const CURVES_HEADER: &str = "name,seed,tokens,loss";

/// One run: the columns of `runs.csv`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) seed: u64,
    /// Held-out loss in nats a byte.
    pub(crate) loss: f64,
    pub(crate) bytes_per_peer: u64,
    pub(crate) updates_per_peer: f64,
    line: String,
}

impl Row {
    pub(crate) fn new(arm: &Arm, seed: u64, steps: usize, outcome: &Outcome, seconds: f64) -> Self {
        let tokens = outcome.curve.last().map_or(0, |(tokens, _)| *tokens);
        let line = format!(
            "{},{seed},{:?},{},{},{:?},{:?},{:?},{:?},{},{},{},{steps},{tokens},{:.5},{},{},{seconds:.1}",
            arm.name,
            arm.method,
            arm.steps,
            arm.keep,
            arm.shape,
            arm.quantiser,
            arm.mean,
            arm.churn,
            arm.inner_rate,
            arm.outer_rate,
            arm.decay,
            outcome.loss,
            outcome.bytes_per_peer,
            outcome.updates_per_peer,
        );
        Self {
            name: arm.name.clone(),
            seed,
            loss: outcome.loss,
            bytes_per_peer: outcome.bytes_per_peer,
            updates_per_peer: outcome.updates_per_peer,
            line,
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(',').collect();
        Some(Self {
            name: (*fields.first()?).to_owned(),
            seed: fields.get(1)?.parse().ok()?,
            loss: fields.get(14)?.parse().ok()?,
            bytes_per_peer: fields.get(15)?.parse().ok()?,
            updates_per_peer: fields.get(16)?.parse().ok()?,
            line: line.to_owned(),
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// All runs of a folder.
pub(crate) struct Rows {
    folder: PathBuf,
    pub(crate) runs: Vec<Row>,
    /// Tokens and loss, by name and seed.
    pub(crate) curves: BTreeMap<(String, u64), Vec<(u64, f64)>>,
}

impl Rows {
    /// Reads what is there; a line that was cut off is as if it were not.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let lines = |file: &str| match fs::read_to_string(folder.join(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => other,
        };
        let runs = lines("runs.csv")?;
        let mut curves: BTreeMap<(String, u64), Vec<(u64, f64)>> = BTreeMap::new();
        for line in lines("curves.csv")?.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            if let [name, seed, tokens, loss] = fields[..] {
                if let (Ok(seed), Ok(tokens), Ok(loss)) =
                    (seed.parse(), tokens.parse(), loss.parse())
                {
                    let curve = curves.entry((name.to_owned(), seed)).or_default();
                    curve.push((tokens, loss));
                }
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            runs: runs.lines().skip(1).filter_map(Row::parse).collect(),
            curves,
        })
    }

    pub(crate) fn has(&self, name: &str, seed: u64) -> bool {
        self.runs.iter().any(|row| row.name == name && row.seed == seed)
    }

    /// Adds a run; its row comes last, so that a run without one is run again.
    pub(crate) fn append(&mut self, row: Row, curve: &[(u64, f64)]) -> io::Result<()> {
        let lines: Vec<String> = curve
            .iter()
            .map(|(tokens, loss)| format!("{},{},{tokens},{loss:.5}", row.name, row.seed))
            .collect();
        append(&self.folder.join("curves.csv"), CURVES_HEADER, &lines)?;
        append(&self.folder.join("runs.csv"), RUNS_HEADER, std::slice::from_ref(&row.line))?;
        self.runs.push(row);
        Ok(())
    }

    /// The arms that have been run, with their rows, the first seed first.
    pub(crate) fn by_name(&self) -> Vec<(Arm, Vec<&Row>)> {
        let rows = |arm: &Arm| {
            let mut rows: Vec<&Row> = self.runs.iter().filter(|row| row.name == arm.name).collect();
            rows.sort_by_key(|row| row.seed);
            rows
        };
        crate::arms::all()
            .into_iter()
            .map(|arm| (arm.clone(), rows(&arm)))
            .filter(|(_, rows): &(Arm, Vec<&Row>)| !rows.is_empty())
            .collect()
    }

    /// Writes `table.md`: the loss with each seed, and the traffic of the first.
    pub(crate) fn write_table(&self) -> io::Result<()> {
        let seeds: BTreeSet<u64> = self.runs.iter().map(|row| row.seed).collect();
        let mut text = String::from("| arm | rates (inner, outer) |");
        for seed in &seeds {
            text += &format!(" loss, seed {seed} |");
        }
        text += " bytes an update | under f32 | under data parallel |\n|---|---|";
        text += &"---|".repeat(seeds.len() + 3);
        let parameters = simulate::config().map_or(0, |config| config.parameter_count());
        let dense = self.runs.iter().find(|row| row.name == "data parallel");
        for (arm, rows) in self.by_name() {
            text += &format!("\n| {} | {}, {} |", arm.name, arm.inner_rate, arm.outer_rate);
            for seed in &seeds {
                text += &match rows.iter().find(|row| row.seed == *seed) {
                    Some(row) => format!(" {:.3} |", row.loss),
                    None => " |".to_owned(),
                };
            }
            let bytes = rows[0].bytes_per_peer as f64;
            let per_update = bytes / rows[0].updates_per_peer.max(1.0);
            let less = dense.map_or(0.0, |dense| dense.bytes_per_peer as f64 / bytes.max(1.0));
            text += &format!(
                " {per_update:.0} | {:.0}× | {less:.0}× |",
                4.0 * parameters as f64 / per_update,
            );
        }
        text.push('\n');
        fs::write(self.folder.join("table.md"), text)
    }
}

/// The mean of some numbers.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn append(path: &Path, header: &str, lines: &[String]) -> io::Result<()> {
    let new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut text = String::new();
    if new {
        text += header;
        text.push('\n');
    }
    for line in lines {
        text += line;
        text.push('\n');
    }
    file.write_all(text.as_bytes())
}
