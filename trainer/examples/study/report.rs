//! Writes the results as files: a row for each run, a curve for each run, and a table.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::arms::{Arm, Rates};
use crate::simulate::{self, Outcome};

const RUNS_HEADER: &str = "name,seed,purpose,size,method,inner,h,k,shape,quantiser,senders_min,churn,adversaries,\
matrix_rate,rest_rate,outer_rate,outer_schedule,decay,steps,tokens,loss,bytes_per_peer,updates_per_peer,cpu_seconds";
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
    /// Of the processor.
    pub(crate) seconds: f64,
    line: String,
}

impl Row {
    pub(crate) fn new(arm: &Arm, seed: u64, steps: usize, outcome: &Outcome) -> Self {
        let tokens = outcome.curve.last().map_or(0, |(tokens, _)| *tokens);
        let line = format!(
            "{},{seed},{:?},{:?},{:?},{:?},{},{},{:?},{:?},{},{:?},{:?},{},{},{},{:?},{},{steps},{tokens},{:.5},{},{},{:.1}",
            arm.name,
            arm.purpose,
            arm.size,
            arm.method,
            arm.inner,
            arm.steps,
            arm.keep,
            arm.shape,
            arm.quantiser,
            arm.senders_min,
            arm.churn,
            arm.adversaries,
            arm.rates.matrices,
            arm.rates.rest,
            arm.rates.outer,
            arm.outer_schedule,
            arm.decay,
            outcome.loss,
            outcome.bytes_per_peer,
            outcome.updates_per_peer,
            outcome.seconds,
        );
        Self {
            name: arm.name.clone(),
            seed,
            loss: outcome.loss,
            bytes_per_peer: outcome.bytes_per_peer,
            updates_per_peer: outcome.updates_per_peer,
            seconds: outcome.seconds,
            line,
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(',').collect();
        Some(Self {
            name: (*fields.first()?).to_owned(),
            seed: fields.get(1)?.parse().ok()?,
            loss: fields.get(20)?.parse().ok()?,
            bytes_per_peer: fields.get(21)?.parse().ok()?,
            updates_per_peer: fields.get(22)?.parse().ok()?,
            seconds: fields.get(23)?.parse().ok()?,
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

    /// Writes `table.md`: the mean loss of each arm with its standard error over the seeds, the traffic and the
    /// processor's time of a run.
    pub(crate) fn write_table(&self) -> io::Result<()> {
        let mut text = String::from(
            "| arm | rates: matrices, rest, outer | loss | seeds | bytes an update | under f32 | under data parallel | s |\n\
             |---|---|---|---|---|---|---|---|",
        );
        for (arm, rows) in self.by_name() {
            let of_rows = |value: fn(&Row) -> f64| {
                mean(&rows.iter().map(|row| value(row)).collect::<Vec<_>>())
            };
            let losses: Vec<f64> = rows.iter().map(|row| row.loss).collect();
            let loss = match standard_error(&losses) {
                Some(error) => format!("{:.3} ± {error:.3}", mean(&losses)),
                None => format!("{:.3}", mean(&losses)),
            };
            let bytes = of_rows(|row| row.bytes_per_peer as f64);
            let per_update = bytes / of_rows(|row| row.updates_per_peer).max(1.0);
            let config = simulate::config(arm.size);
            let dense = 4.0 * config.map_or(0, |config| config.parameter_count()) as f64;
            let Rates { matrices, rest, outer } = arm.rates;
            text += &format!(
                "\n| {} | {matrices}, {rest}, {outer} | {loss} | {} | {per_update:.0} | {:.0}× | {:.0}× | {:.0} |",
                arm.name,
                rows.len(),
                dense / per_update,
                dense * arm.size.steps() as f64 / bytes.max(1.0),
                of_rows(|row| row.seconds),
            );
        }
        text.push('\n');
        fs::write(self.folder.join("table.md"), text)
    }
}

/// The standard error of the mean of some numbers, if there are two at least.
pub(crate) fn standard_error(values: &[f64]) -> Option<f64> {
    let (count, mean) = (values.len() as f64, mean(values));
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt())
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
