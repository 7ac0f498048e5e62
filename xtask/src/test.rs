//! Every check, cheap ones first.

use std::{env, fs, process::Command};

use crate::{
    build,
    command::{quiet, run as run_command},
    failure::Failure,
    kernels, netlab,
    setup::Setup,
    steps::Steps,
    tidy,
};

/// A check: its name, what it does, and how.
type Check<'a> = (&'static str, &'a str, &'a dyn Fn() -> Result<(), Failure>);

/// Runs every check and says how long each took; the first that fails ends it.
///
/// With `timings`, cargo writes its account of the build under `cargo-timings` in the target folder.
pub(crate) fn run(timings: bool) -> Result<(), Failure> {
    let mut steps = Steps::new(12);
    let setup = &build::ready(&mut steps)?;
    let checks: [Check<'_>; 11] = [
        ("format", "seconds", &|| format(setup)),
        ("tidy", "seconds", &|| tidy::run(setup)),
        ("licences", "seconds", &|| licences(setup)),
        ("packages", "seconds", &|| build::packages(setup)),
        ("build", build::ABOUT, &|| {
            build::programs(setup, if timings { &["--timings"] } else { &[] })
        }),
        ("kernels", kernels::ABOUT, &|| kernels::gate(setup)),
        ("lints", "some minutes, the first time", &|| lint(setup)),
        ("tests", "compiled and run, some ten minutes", &|| build::tests(setup)),
        ("netlab", "seconds, as root", &|| netlab::gate(setup)),
        ("documentation", "a minute", &|| build::documentation(setup)),
        ("localnet", "two windows of real training", &|| short_localnet(setup)),
    ];
    for (name, about, check) in checks {
        if let Err(failure) = steps.take(name, about, check) {
            eprint!("{}", steps.account());
            return Err(failure);
        }
    }
    println!("{}everything passed", steps.account());
    Ok(())
}

fn format(setup: &Setup) -> Result<(), Failure> {
    ensure_component(setup, "fmt", "rustfmt")?;
    run_command(setup.cargo().args(["fmt", "--all", "--check"]))
}

/// Checks the dependencies against deny.toml, where cargo-deny is installed: it needs no network for these checks.
fn licences(setup: &Setup) -> Result<(), Failure> {
    if !quiet(setup.cargo().args(["deny", "--version"])) {
        eprintln!("skipped: cargo-deny is not installed (`cargo install cargo-deny` gets it)");
        return Ok(());
    }
    run_command(setup.cargo().args(["deny", "--offline", "check", "bans", "licenses", "sources"]))
}

fn lint(setup: &Setup) -> Result<(), Failure> {
    ensure_component(setup, "clippy", "clippy")?;
    build::lint(setup)
}

/// Two windows of real training against the real node.
fn short_localnet(setup: &Setup) -> Result<(), Failure> {
    let folder = env::temp_dir().join(format!("gauntlet-xtask-{}", std::process::id()));
    fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let outcome = run_command(
        Command::new(setup.program("gauntlet"))
            .args(["localnet", "--windows", "2", "--miners", "2", "--validators", "1"])
            .arg("--report")
            .arg(folder.join("report.json"))
            .current_dir(&folder),
    );
    // The folder holds nothing of worth once the run has passed; a failed run is kept to be looked at.
    match outcome {
        Ok(()) => fs::remove_dir_all(&folder)
            .map_err(|error| format!("cannot remove {}: {error}", folder.display())),
        Err(failure) => Err(format!("{failure}; see {}", folder.display())),
    }
}

/// Gets a cargo command that rustup offers as a component.
fn ensure_component(setup: &Setup, command: &str, component: &str) -> Result<(), Failure> {
    let present = || quiet(setup.cargo().args([command, "--version"]));
    if present() {
        return Ok(());
    }
    quiet(Command::new("rustup").args(["component", "add", component]));
    if present() {
        return Ok(());
    }
    Err(format!(
        "`cargo {command}` is missing; `rustup component add {component}`, or `apt-get install {component}` as root, \
         installs it"
    ))
}
