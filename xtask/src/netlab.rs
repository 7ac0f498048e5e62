//! Measures peers on bad links: namespaces of this machine, with slow, lossy and far links, NATs, and rogues.
//!
//! - `lab`: a network of namespaces, and the peers in it;
//! - `scenarios`: what is measured, each with its aim; `window` the one of 72 B, `attacks` peers that misbehave,
//!   `failures` what ends on the way, `crowd` many peers; `answers`: what peers are asked for and say;
//! - `chaos`: a whole localnet in which processes and links fail;
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

mod chaos;

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use figures::Figure;

use crate::{
    build,
    command::{output, quiet},
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

/// The name of what is no scenario of peers: a localnet.
const CHAOS: &str = "chaos";

/// Measures the scenarios that `args` name, or all; `--json FILE` writes what came out.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    match args {
        [flag, inner @ ..] if flag == INSIDE => return inside(inner),
        [name, options @ ..] if name == CHAOS => return chaos(options),
        _ => {}
    }
    let (names, json) = arguments(args)?;
    if let Some(reason) = refusal() {
        return Err(reason);
    }
    let mut steps = Steps::new(3);
    let setup = build::ready(&mut steps)?;
    steps.take("build", build::ABOUT, || build::example(&setup, PEER))?;
    let figures =
        steps.take("netlab", "some minutes; leave the machine alone", || all(&setup, &names))?;
    show(&figures, json)
}

/// Runs a localnet in which a seed draws what fails: `--minutes N`, `--faults N`, `--seed N`, `--json FILE`.
fn chaos(options: &[String]) -> Result<(), Failure> {
    let (mut order, mut json) = (["30", "62", "1"].map(str::to_owned), None);
    let names = ["--minutes", "--faults", "--seed"];
    for pair in options.chunks(2) {
        let [name, value] = pair else {
            return Err(format!("{pair:?} wants a value"));
        };
        match names.iter().position(|known| known == name) {
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
    let about = "twice the minutes; leave the machine alone";
    let program = setup.program("gauntlet");
    let figures = steps.take("netlab", about, || apart(CHAOS, &program, &order))?;
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
    let figures = all(setup, &[scenarios::SHORT])?;
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
        // They differ in how they tell their version; to be found in the path is enough.
        if !quiet(Command::new("sh").args(["-c", &format!("command -v {tool}")])) {
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

fn all(setup: &Setup, names: &[&str]) -> Result<Vec<Figure>, Failure> {
    let peer = setup.release_folder().join("examples").join(PEER);
    let mut figures = Vec::new();
    for name in names {
        eprintln!("netlab: {name}");
        figures.extend(apart(name, &peer, &[])?);
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
        chaos::measure(program, order(more)?)?
    } else {
        let scenario = scenarios::ALL.iter().find(|scenario| scenario.name == name);
        let scenario = scenario.ok_or_else(|| format!("there is no scenario `{name}`"))?;
        (scenario.run)(&mut lab)?
    };
    print!("{}", figures::json(&figures));
    Ok(())
}

/// Reads what chaos is asked to be.
fn order(words: &[String]) -> Result<chaos::Order, Failure> {
    let numbers: Result<Vec<u64>, _> = words.iter().map(|word| word.parse::<u64>()).collect();
    match numbers.as_deref() {
        Ok([minutes, faults, seed]) if *minutes >= 2 => Ok(chaos::Order {
            minutes: *minutes,
            faults: usize::try_from(*faults).unwrap_or(usize::MAX),
            seed: *seed,
        }),
        _ => Err("chaos wants --minutes from 2 on, --faults and --seed".to_owned()),
    }
}
