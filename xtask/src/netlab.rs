//! Measures peers on bad links: namespaces of this machine, with slow, lossy and far links, NATs, and rogues.
//!
//! - `lab`: a network of namespaces, and the peers in it;
//! - `scenarios`: what is measured, each with its aim; `window` the one of 72 B, `attacks` peers that misbehave,
//!   `failures` what ends on the way, `crowd` many peers; `answers`: what peers are asked for and say;
//! - `localnet`: a whole localnet of real participants; `chaos` one in which processes and links fail, which `cut`
//!   cuts, `joiner` one that somebody joins;
//! - `figures`: what came out, as a table and as JSON.
//!
//! Each scenario runs in a network, process and mount namespace of its own: this program calls itself there. So the
//! kernel removes all of it (devices, processes, folders) however this program ends, be it by Ctrl-C or by SIGKILL. The
//! links have no way out of the machine.

mod figures;

mod lab;

mod answers;

mod window;

mod attacks;

mod failures;

mod crowd;

mod scenarios;

mod localnet;

mod cut;

mod chaos;

mod joiner;

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use figures::Figure;

use crate::{
    build,
    command::{is_there, output, quiet},
    failure::Failure,
    setup::Setup,
    steps::Steps,
};

/// What the lab is made with, and the package of Debian that has it.
const TOOLS: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
];

/// The argument by which this program calls itself inside the namespaces.
const INSIDE: &str = "--inside";

/// The example of node-client that is every peer.
const PEER: &str = "netlab_peer";

/// The names of what are no scenarios of peers: localnets; each with its options, and their values unless asked
/// otherwise.
const CHAOS: &str = "chaos";
const CHAOS_OPTIONS: &[(&str, &str)] = &[
    ("--minutes", "30"),
    ("--calm-minutes", "30"),
    ("--faults", "62"),
    ("--seed", "1"),
    ("--window-seconds", "180"),
];
const JOINER: &str = "joiner";
const JOINER_OPTIONS: &[(&str, &str)] =
    &[("--windows", "14"), ("--after", "9"), ("--window-seconds", "60")];

/// Measures the scenarios that `args` name, or all; `--json FILE` writes what came out.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    match args {
        [flag, inner @ ..] if flag == INSIDE => return inside(inner),
        [name, options @ ..] if name == CHAOS => return localnet(CHAOS, CHAOS_OPTIONS, options),
        [name, options @ ..] if name == JOINER => return localnet(JOINER, JOINER_OPTIONS, options),
        _ => {}
    }
    let (names, json) = arguments(args)?;
    if let Some(reason) = refusal() {
        return Err(reason);
    }
    let mut steps = Steps::new(3);
    let setup = build::ready(&mut steps)?;
    // Two processors stand for those of thirty machines.
    let peer =
        steps.take("build", build::ABOUT_PRODUCTION, || build::production_example(&setup, PEER))?;
    let about = "some minutes; leave the machine alone";
    let figures = steps.take("netlab", about, || all(&peer, &names))?;
    show(&figures, json)
}

/// Runs a localnet, with its options or `--json FILE`.
fn localnet(scenario: &str, known: &[(&str, &str)], options: &[String]) -> Result<(), Failure> {
    let mut order: Vec<String> = known.iter().map(|(_, value)| (*value).to_owned()).collect();
    let mut json = None;
    for pair in options.chunks(2) {
        let [name, value] = pair else {
            return Err(format!("{pair:?} wants a value"));
        };
        match known.iter().position(|(known, _)| known == name) {
            Some(index) => order[index].clone_from(value),
            None if name == "--json" => json = Some(value.clone()),
            None => return Err(format!("unknown argument `{name}`")),
        }
    }
    if let Some(reason) = refusal() {
        return Err(reason);
    }
    let mut steps = Steps::new(3);
    let setup = build::ready(&mut steps)?;
    steps.take("build", build::ABOUT, || build::programs(&setup, &[]))?;
    let about = "as long as its windows; leave the machine alone";
    let program = setup.program("gauntlet");
    let figures = steps.take("netlab", about, || apart(scenario, &program, &order))?;
    show(&figures, json)
}

/// Prints figures, and writes them where they are wanted.
fn show(figures: &[Figure], json: Option<String>) -> Result<(), Failure> {
    print!("{}", figures::table(figures));
    if let Some(path) = json {
        fs::write(&path, figures::json(figures))
            .map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    Ok(())
}

/// The short form: that the lab and its peers work, in some seconds. Where the machine allows no lab, says why and
/// passes.
pub(crate) fn gate(setup: &Setup) -> Result<(), Failure> {
    if let Some(reason) = refusal() {
        eprintln!("skipped: {reason}");
        return Ok(());
    }
    build::example(setup, PEER)?;
    let peer = setup.release_folder().join("examples").join(PEER);
    let figures = all(&peer, &[scenarios::SHORT])?;
    print!("{}", figures::table(&figures));
    match figures.iter().find(|figure| !figure.passes) {
        Some(figure) => Err(format!("{}: {} {}", figure.name, figure.value, figure.unit)),
        None => Ok(()),
    }
}

/// The scenarios to run, and the file for what comes out.
fn arguments(args: &[String]) -> Result<(Vec<&'static str>, Option<String>), Failure> {
    let mut names = Vec::new();
    let mut json = None;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--json" {
            json = Some(rest.next().ok_or("--json wants a file")?.clone());
        } else {
            let known = scenarios::ALL.iter().find(|scenario| scenario.name == arg);
            let all: Vec<&str> = scenarios::ALL.iter().map(|scenario| scenario.name).collect();
            let known = known.ok_or_else(|| {
                format!("there is no scenario `{arg}`; there are {}", all.join(", "))
            })?;
            names.push(known.name);
        }
    }
    if names.is_empty() {
        names = scenarios::ALL.iter().map(|scenario| scenario.name).collect();
    }
    Ok((names, json))
}

/// Why this machine cannot have a lab; `None` if it can.
fn refusal() -> Option<Failure> {
    if output(Command::new("id").arg("-u")).as_deref() != Some("0") {
        return Some("netlab makes network namespaces, which only root may".to_owned());
    }
    for (tool, package) in TOOLS {
        if !is_there(tool) {
            return Some(format!("netlab needs `{tool}`; `apt-get install {package}` gets it"));
        }
    }
    if !quiet(Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "true"])) {
        return Some(
            "netlab makes network namespaces, which this machine does not allow".to_owned(),
        );
    }
    None
}

fn all(peer: &Path, names: &[&str]) -> Result<Vec<Figure>, Failure> {
    let mut figures = Vec::new();
    for name in names {
        eprintln!("netlab: {name}");
        figures.extend(apart(name, peer, &[])?);
    }
    Ok(figures)
}

/// Runs a scenario in namespaces of its own, and reads its figures.
fn apart(name: &str, program: &Path, more: &[String]) -> Result<Vec<Figure>, Failure> {
    let own = env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    // Each of the three dies with the one before it, whatever that dies of; the last is the first process of its
    // namespace, with which the kernel ends all others.
    let ran = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .args(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(own)
        .args(["netlab", INSIDE, name])
        .arg(program)
        .args(more)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run setpriv: {error}"))?;
    if !ran.status.success() {
        return Err(format!("{name} ended with {}", ran.status));
    }
    figures::read(&String::from_utf8_lossy(&ran.stdout))
}

/// Runs a scenario in the namespaces that it is in, and prints its figures in JSON.
fn inside(args: &[String]) -> Result<(), Failure> {
    let [name, program, more @ ..] = args else {
        return Err(format!("{INSIDE} wants a scenario and a program"));
    };
    let program = Path::new(program);
    let mut lab = lab::Lab::new(program)?;
    let figures = if name == CHAOS {
        chaos::measure(program, chaos_order(more)?)?
    } else if name == JOINER {
        joiner::measure(program, joiner_order(more)?)?
    } else {
        let scenario = scenarios::ALL.iter().find(|scenario| scenario.name == name);
        let scenario = scenario.ok_or_else(|| format!("there is no scenario `{name}`"))?;
        (scenario.run)(&mut lab)?
    };
    print!("{}", figures::json(&figures));
    Ok(())
}

fn numbers(words: &[String]) -> Option<Vec<u64>> {
    words.iter().map(|word| word.parse().ok()).collect()
}

/// Reads what chaos is asked to be.
fn chaos_order(words: &[String]) -> Result<chaos::Order, Failure> {
    match numbers(words).as_deref() {
        Some(&[minutes, calm_minutes, faults, seed, window]) if minutes >= 2 && window >= 21 => {
            Ok(chaos::Order {
                minutes,
                calm_minutes,
                faults: usize::try_from(faults).unwrap_or(usize::MAX),
                seed,
                window: Duration::from_secs(window),
            })
        }
        _ => Err(
            "chaos wants --minutes from 2 on, --calm-minutes, --faults, --seed, and --window-seconds from 21 on"
                .to_owned(),
        ),
    }
}

/// Reads what the joiner's run is asked to be.
fn joiner_order(words: &[String]) -> Result<joiner::Order, Failure> {
    match numbers(words).as_deref() {
        Some(&[windows, after, window]) if window >= 13 && after.saturating_add(4) <= windows => {
            Ok(joiner::Order { windows, after, window: Duration::from_secs(window) })
        }
        _ => Err("joiner wants --windows, --after four less at the most, and --window-seconds from 13 on".to_owned()),
    }
}
