//! Every check, cheap ones first.

use std::{env, fs, process::Command, time::Instant};

use crate::{
    build,
    command::{quiet, run as run_command},
    failure::Failure,
    setup::Setup,
    tidy,
};

/// A check and its name.
type Step<'a> = (&'a str, &'a dyn Fn() -> Result<(), Failure>);

/// Runs every check and says how long each took; the first that fails ends it.
///
/// With `timings`, cargo writes its account of the build under `cargo-timings` in the target folder.
pub(crate) fn run(setup: &Setup, timings: bool) -> Result<(), Failure> {
    let steps: [Step<'_>; 8] = [
        ("format", &|| format(setup)),
        ("tidy", &|| tidy::run(setup)),
        ("licences", &|| licences(setup)),
        ("build", &|| build::programs(setup, if timings { &["--timings"] } else { &[] })),
        ("lints", &|| lint(setup)),
        ("tests", &|| build::tests(setup)),
        ("documentation", &|| build::documentation(setup)),
        ("localnet", &|| short_localnet(setup)),
    ];

    let started = Instant::now();
    let mut account = String::new();
    for (name, step) in steps {
        eprintln!("── {name}");
        let step_started = Instant::now();
        let outcome = step();
        let seconds = step_started.elapsed().as_secs();
        account.push_str(&format!("{seconds:>6} s  {name}\n"));
        if let Err(failure) = outcome {
            eprint!("{account}");
            return Err(format!("{name}: {failure}"));
        }
    }
    println!("{account}{:>6} s  everything passed", started.elapsed().as_secs());
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
