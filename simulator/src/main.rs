//! Plays every scenario and writes what came out: `cargo xtask simulate`.

use std::{
    env,
    ops::Range,
    path::PathBuf,
    process::ExitCode,
    sync::Mutex,
    thread::{self, available_parallelism},
    time::Instant,
};

use simulator::{
    plot, report,
    scenario::{Rule, Scenario},
    statistics::{fairness, mean_fairness, mean_rows, rows, Fairness, Row},
    world::play,
};

const USAGE: &str = "\
Usage: cargo xtask simulate [OPTIONS]

  --seed N        What all draws come from (1).
  --seeds N       The example's rule with so many seeds from that one on (3; with --only, --quick and --largest 1).
  --out FOLDER    Where the tables and figures go (docs/study).
  --quick         The example's rule alone, thirty windows; into the folder for temporary files.
  --only NAME     One scenario, under every rule; nothing is written.
  --largest M W   One run of M miners, 64 validators and W windows under the example's rule; nothing is written.";

/// What was asked for.
struct Arguments {
    seed: u64,
    seeds: Option<u64>,
    out: Option<PathBuf>,
    quick: bool,
    only: Option<String>,
    largest: Option<(usize, u64)>,
}

fn arguments() -> Result<Arguments, String> {
    let mut found =
        Arguments { seed: 1, seeds: None, out: None, quick: false, only: None, largest: None };
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("`{arg}` needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("no number: `{text}`"));
        match arg.as_str() {
            "--seed" => found.seed = number(value()?)?,
            "--seeds" => found.seeds = Some(number(value()?)?.max(1)),
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

/// Plays scenarios on all cores, and returns what came out in their order: the means over the seeds, under other rules
/// than the first from the first seed alone.
fn play_all(scenarios: &[Scenario], seeds: &Range<u64>) -> Vec<(Vec<Row>, Fairness)> {
    let plays: Vec<(&Scenario, u64)> = scenarios
        .iter()
        .flat_map(|scenario| seeds_of(scenario, seeds).map(move |seed| (scenario, seed)))
        .collect();
    let mut results = play_each(&plays).into_iter();
    let of_scenario = |scenario: &Scenario| {
        let count = seeds_of(scenario, seeds).count();
        let (rows, fairness): (Vec<Vec<Row>>, Vec<Fairness>) = results.by_ref().take(count).unzip();
        Some((mean_rows(&rows), mean_fairness(&fairness)?))
    };
    scenarios.iter().filter_map(of_scenario).collect()
}

fn seeds_of(scenario: &Scenario, seeds: &Range<u64>) -> Range<u64> {
    match scenario.rule {
        Rule::EXAMPLE => seeds.clone(),
        _ => seeds.start..seeds.start + 1,
    }
}

/// Plays on all cores, and returns what came out in the order of the plays.
fn play_each(plays: &[(&Scenario, u64)]) -> Vec<(Vec<Row>, Fairness)> {
    let next = Mutex::new(0..plays.len());
    let found = Mutex::new(Vec::new());
    let cores = available_parallelism().map_or(1, usize::from).min(plays.len());
    let work = || loop {
        let place = next.lock().ok().and_then(|mut next| next.next());
        let play_of = place.and_then(|at| Some((at, *plays.get(at)?)));
        let Some((place, (scenario, seed))) = play_of else {
            return;
        };
        let start = Instant::now();
        let history = play(scenario, seed);
        let result = (rows(scenario, &history), fairness(scenario, &history));
        let (name, rule) = (scenario.name, scenario.rule.name());
        eprintln!("{name} under {rule}, seed {seed}: {:.1} s", start.elapsed().as_secs_f64());
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
    let is_part = asked.only.is_some() || asked.quick || asked.largest.is_some();
    let count = asked.seeds.unwrap_or(if is_part { 1 } else { 3 });
    let seeds = asked.seed..asked.seed + count;
    let results = play_all(&scenarios, &seeds);
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
