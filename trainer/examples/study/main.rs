//! The quality study: one small model, eight simulated peers, equal tokens, many ways to train.
//!
//! ```text
//! cargo xtask study [--quick] [--out DIR] [--seeds N] [--seed S] [--only NAME] [--threads N]
//! ```
//!
//! Writes a row to `runs.csv` and a curve to `curves.csv` after each run and starts again where it
//! was stopped; then `table.md`, `curves.svg` and `results.svg` from all rows. `--threads` is how
//! many runs go on at once, each on one thread, so that the results do not depend on it. `--quick`
//! is a twelfth of the tokens with one seed, into a folder of its own.

mod arms;
mod codec;
mod plot;
mod report;
mod simulate;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use dataset::{build, default_corpus, CorpusLimits, SampleSource};
use trainer::Threads;

use crate::arms::Arm;
use crate::report::{Row, Rows};

/// Steps of every peer: a multiple of each H.
const STEPS: usize = 3600;
const QUICK_STEPS: usize = 300;

struct Options {
    quick: bool,
    out: PathBuf,
    seeds: u64,
    first_seed: u64,
    only: Option<String>,
    threads: usize,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/study");
    let mut options =
        Options { quick: false, out: docs, seeds: 2, first_seed: 1, only: None, threads: 1 };
    let mut out = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--quick" {
            options.quick = true;
            options.seeds = 1;
            options.out = std::env::temp_dir().join("gauntlet-study");
            continue;
        }
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--out" => out = Some(PathBuf::from(value)),
            "--seeds" => options.seeds = value.parse()?,
            "--seed" => options.first_seed = value.parse()?,
            "--only" => options.only = Some(value),
            "--threads" => options.threads = value.parse()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    options.out = out.unwrap_or(options.out);
    Ok(options)
}

/// The runs that are not in `rows` yet: the first seed of all arms, the pilots, the other seeds.
fn missing(options: &Options, rows: &Rows) -> Vec<(Arm, u64)> {
    let mut runs = Vec::new();
    for seed in options.first_seed..options.first_seed + options.seeds {
        for arm in arms::all() {
            let wanted = match &options.only {
                Some(part) => arm.name.contains(part.as_str()),
                None => !arm.pilot || seed == options.first_seed,
            };
            if wanted && !rows.has(&arm.name, seed) {
                runs.push((arm, seed));
            }
        }
    }
    runs
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let steps = if options.quick { QUICK_STEPS } else { STEPS };
    let rows = Rows::open(&options.out)?;
    let runs = missing(&options, &rows);
    if !runs.is_empty() {
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        let documents = default_corpus(&lock, &CorpusLimits::default())?;
        let folder = std::env::temp_dir().join(format!("gauntlet-study-{}", std::process::id()));
        let dataset = build(documents, simulate::SEQ_LEN, &folder)?;
        println!("{} samples", dataset.train().sample_count());
        let rows = Mutex::new(rows);
        let threads = Threads::new(options.threads)?;
        let results = threads.map(runs.len(), |index| {
            let (arm, seed) = &runs[index];
            let start = Instant::now();
            let outcome = simulate::run(arm, *seed, steps, &dataset).map_err(|e| e.to_string())?;
            let row = Row::new(arm, *seed, steps, &outcome, start.elapsed().as_secs_f64());
            println!("{row}");
            let mut rows = rows.lock().map_err(|_| "a run panicked".to_owned())?;
            rows.append(row, &outcome.curve).map_err(|e| e.to_string())
        });
        std::fs::remove_dir_all(&folder)?;
        results.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    let rows = Rows::open(&options.out)?;
    rows.write_table()?;
    plot::write(&options.out, &rows)?;
    println!("{}", options.out.display());
    Ok(())
}
