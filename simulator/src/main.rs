//! Plays every scenario and writes what came out: `cargo xtask simulate`.

use std::{
    env,
    path::PathBuf,
    process::ExitCode,
    sync::Mutex,
    thread::{self, available_parallelism},
    time::Instant,
};

use simulator::{
    plot, report,
    scenario::{Rule, Scenario},
    statistics::{fairness, rows, Fairness, Row},
    world::play,
};

const USAGE: &str = "\
Usage: cargo xtask simulate [OPTIONS]

  --seed N        What all draws come from (1).
  --out FOLDER    Where the tables and figures go (docs/study).
  --quick         The example's rule alone, thirty windows; into the folder for temporary files.
  --only NAME     One scenario, under every rule; nothing is written.
  --largest M W   One run of M miners, 64 validators and W windows under the example's rule; nothing is written.";

/// What was asked for.
struct Arguments {
    seed: u64,
    out: Option<PathBuf>,
    quick: bool,
    only: Option<String>,
    largest: Option<(usize, u64)>,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments { seed: 1, out: None, quick: false, only: None, largest: None };
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("`{arg}` needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("no number: `{text}`"));
        match arg.as_str() {
            "--seed" => found.seed = number(value()?)?,
            "--out" => found.out = Some(value()?.into()),
            "--quick" => found.quick = true,
            "--only" => found.only = Some(value()?),
            "--largest" => found.largest = Some((number(value()?)? as usize, number(value()?)?)),
            _ => return Err(format!("unknown argument `{arg}`\n\n{USAGE}")),
        }
    }
    Ok(found)
}

fn scenarios(asked: &Arguments) -> Vec<Scenario> {
    if let Some((miners, windows)) = asked.largest {
        return vec![Scenario::largest(miners, windows)];
    }
    let rules: &[Rule] = if asked.quick { &[Rule::EXAMPLE] } else { &Rule::ALL };
    let mut scenarios: Vec<Scenario> = rules.iter().copied().flat_map(Scenario::all).collect();
    if let Some(only) = &asked.only {
        scenarios.retain(|scenario| scenario.name == only);
    }
    for scenario in scenarios.iter_mut().filter(|_| asked.quick) {
        scenario.windows = 30;
    }
    scenarios
}

/// Plays scenarios on all cores, and returns what came out in their order.
fn play_all(scenarios: &[Scenario], seed: u64) -> Vec<(Vec<Row>, Fairness)> {
    let next = Mutex::new(0..scenarios.len());
    let found = Mutex::new(Vec::new());
    let cores = available_parallelism().map_or(1, usize::from).min(scenarios.len());
    let work = || loop {
        let place = next.lock().ok().and_then(|mut next| next.next());
        let Some((place, scenario)) = place.and_then(|at| Some((at, scenarios.get(at)?))) else {
            return;
        };
        let start = Instant::now();
        let history = play(scenario, seed);
        let result = (rows(scenario, &history), fairness(scenario, &history));
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("{} under {}: {seconds:.1} s", scenario.name, scenario.rule.name());
        if let Ok(mut found) = found.lock() {
            found.push((place, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_default();
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, result)| result).collect()
}

fn run() -> Result<(), String> {
    let asked = arguments()?;
    let scenarios = scenarios(&asked);
    if scenarios.is_empty() {
        let all = Scenario::all(Rule::EXAMPLE);
        let names: Vec<&str> = all.iter().map(|scenario| scenario.name).collect();
        return Err(format!("there is no such scenario; there are {}", names.join(", ")));
    }
    let results = play_all(&scenarios, asked.seed);
    let (rows, fairness): (Vec<Vec<Row>>, Vec<Fairness>) = results.into_iter().unzip();
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    println!("{}", report::page(&rows, &fairness));
    if asked.only.is_some() || asked.largest.is_some() {
        return Ok(());
    }
    let quick = || env::temp_dir().join("gauntlet-incentive");
    let usual = || if asked.quick { quick() } else { PathBuf::from("docs/study") };
    let out = asked.out.clone().unwrap_or_else(usual);
    report::write(&out, &rows, &fairness)
        .and_then(|()| plot::write(&out, &rows, &fairness))
        .map_err(|error| format!("{}: {error}", out.display()))?;
    eprintln!("written into {}", out.display());
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
