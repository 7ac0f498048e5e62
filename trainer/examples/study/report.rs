//! What has been measured, as files: a row for each run, a curve for each run, and a table.

use std::collections::BTreeMap;
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
        self.runs
            .iter()
            .any(|row| row.name == name && row.seed == seed)
    }

    /// Adds a run; its row comes last, so that a run without one is run again.
    pub(crate) fn append(&mut self, row: Row, curve: &[(u64, f64)]) -> io::Result<()> {
        let lines: Vec<String> = curve
            .iter()
            .map(|(tokens, loss)| format!("{},{},{tokens},{loss:.5}", row.name, row.seed))
            .collect();
        append(&self.folder.join("curves.csv"), CURVES_HEADER, &lines)?;
        append(
            &self.folder.join("runs.csv"),
            RUNS_HEADER,
            std::slice::from_ref(&row.line),
        )?;
        self.runs.push(row);
        Ok(())
    }

    /// The names in the order of their arms, with the losses of their seeds in order.
    pub(crate) fn by_name(&self) -> Vec<(Arm, Vec<&Row>)> {
        let rows = |arm: &Arm| {
            self.runs
                .iter()
                .filter(|row| row.name == arm.name)
                .collect()
        };
        crate::arms::all()
            .into_iter()
            .map(|arm| (arm.clone(), rows(&arm)))
            .filter(|(_, rows): &(Arm, Vec<&Row>)| !rows.is_empty())
            .collect()
    }

    /// Writes `table.md`: mean loss over the seeds, their spread, traffic.
    pub(crate) fn write_table(&self) -> io::Result<()> {
        let mut text = String::from(
            "| arm | rates (inner, outer) | held-out loss | spread | seeds | bytes an update | under f32 | under data parallel |\n|---|---|---|---|---|---|---|---|\n",
        );
        let parameters = simulate::config().map_or(0, |config| config.parameter_count());
        let dense = self.runs.iter().find(|row| row.name == "data parallel");
        for (arm, rows) in self.by_name() {
            let losses: Vec<f64> = rows.iter().map(|row| row.loss).collect();
            let (mean, spread) = mean_and_spread(&losses);
            let bytes = rows
                .iter()
                .map(|row| row.bytes_per_peer as f64)
                .sum::<f64>();
            let updates = rows.iter().map(|row| row.updates_per_peer).sum::<f64>();
            let per_update = bytes / updates.max(1.0);
            let less = dense.map_or(0.0, |dense| {
                dense.bytes_per_peer as f64 * rows.len() as f64 / bytes.max(1.0)
            });
            text += &format!(
                "| {} | {}, {} | {mean:.4} | {spread:.4} | {} | {per_update:.0} | {:.0}× | {less:.0}× |\n",
                arm.name,
                arm.inner_rate,
                arm.outer_rate,
                rows.len(),
                4.0 * parameters as f64 / per_update,
            );
        }
        fs::write(self.folder.join("table.md"), text)
    }
}

/// The mean, and the largest less the smallest.
pub(crate) fn mean_and_spread(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    (mean, (most - least).max(0.0))
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
