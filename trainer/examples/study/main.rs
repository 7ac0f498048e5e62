//! The quality study: small models, simulated peers, equal tokens, many ways to train.
//!
//! ```text
//! cargo xtask study [--quick] [--out DIR] [--only PART] [--threads N]
//! ```
//!
//! Writes a row to `runs.csv` and a curve to `curves.csv` after each run and starts again where it
//! was stopped; then `table.md`, `curves.svg` and `results.svg` from all rows. `--only` makes the runs of
//! the arms whose name contains it. `--threads` is how many runs go on at once (by default one a core), each on one
//! thread, so that the results do not depend on it. `--quick` is a sixtieth of the tokens with one seed and without the search for rates and
//! the larger model, into a folder of its own.

mod arms;
mod codec;
mod plot;
mod report;
mod simulate;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use dataset::{build, default_corpus, CorpusLimits, Dataset, SampleSource};

use crate::arms::{Arm, Purpose, Size};
use crate::report::{Row, Rows};

/// By what `--quick` divides the steps of the smallest runs.
const QUICK: usize = 60;

struct Options {
    quick: bool,
    out: PathBuf,
    only: Option<String>,
    threads: usize,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/study");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options { quick: false, out: docs, only: None, threads };
    let mut out = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--quick" {
            options.quick = true;
            options.out = std::env::temp_dir().join("gauntlet-study");
            continue;
        }
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--out" => out = Some(PathBuf::from(value)),
            "--only" => options.only = Some(value),
            "--threads" => options.threads = value.parse()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    options.out = out.unwrap_or(options.out);
    Ok(options)
}

/// A run: an arm, a seed and how many steps each peer takes.
type Run = (Arm, u64, usize);

/// The runs that are not in `rows` yet, in the order of the arms.
fn missing(options: &Options, rows: &Rows) -> Vec<Run> {
    let part = options.only.as_deref().unwrap_or_default();
    let arms = arms::all().into_iter().filter(|arm| arm.name.contains(part));
    let wanted = |arm: &Arm| {
        let small = !matches!(arm.size, Size::Large | Size::LargeShort);
        !options.quick || (small && arm.purpose != Purpose::Search)
    };
    let runs = arms.filter(wanted).flat_map(|arm| {
        let seeds = if options.quick { 1..=1 } else { arm.purpose.seeds() };
        let steps = if options.quick { Size::Small.steps() / QUICK } else { arm.size.steps() };
        seeds.map(move |seed| (arm.clone(), seed, steps))
    });
    runs.filter(|(arm, seed, _)| !rows.has(&arm.name, *seed)).collect()
}

/// Makes the runs, `threads` at once, each as soon as a thread is free.
fn make(
    runs: Vec<Run>,
    threads: usize,
    rows: Rows,
    data: &Dataset,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (rows, left) = (Mutex::new(rows), Mutex::new(runs.into_iter()));
    let work = || -> Result<(), Box<dyn Error + Send + Sync>> {
        loop {
            let next = left.lock().map_err(|_| "a run panicked")?.next();
            let Some((arm, seed, steps)) = next else { return Ok(()) };
            let outcome = simulate::run(&arm, seed, steps, data).map_err(|e| e.to_string())?;
            let row = Row::new(&arm, seed, steps, &outcome);
            println!("{row}");
            rows.lock().map_err(|_| "a run panicked")?.append(row, &outcome.curve)?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| {
            worker.join().unwrap_or_else(|_| Err("a run panicked".into()))
        };
        workers.into_iter().try_for_each(join)
    })
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let options = options().map_err(|error| error.to_string())?;
    let rows = Rows::open(&options.out)?;
    let runs = missing(&options, &rows);
    if !runs.is_empty() {
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        let documents = default_corpus(&lock, &CorpusLimits::default())?;
        let folder = std::env::temp_dir().join(format!("gauntlet-study-{}", std::process::id()));
        let dataset = build(documents, simulate::SEQ_LEN, &folder)?;
        println!("{} samples, {} runs", dataset.train().sample_count(), runs.len());
        let made = make(runs, options.threads, rows, &dataset);
        std::fs::remove_dir_all(&folder)?;
        made?;
    }
    let rows = Rows::open(&options.out)?;
    rows.write_table()?;
    plot::write(&options.out, &rows)?;
    println!("{}", options.out.display());
    Ok(())
}
