//! The calls of cargo, all with one profile and one feature set.
//!
//! Another selection of packages or targets would choose other features for shared dependencies and compile them again:
//! so every call names the whole workspace, and includes the examples, as it is with them that cargo counts what only
//! tests depend on.

use std::process::{Command, Stdio};

use crate::{
    command::{quiet, run},
    failure::Failure,
    setup::Setup,
};

/// What every call that compiles has in common.
const SELECTION: [&str; 5] = [
    "--release",
    "--workspace",
    "--locked",
    "--features",
    "pallet-gauntlet/runtime-benchmarks,pallet-gauntlet/try-runtime",
];

/// The targets of calls that would otherwise leave tests and examples out.
const TARGETS: [&str; 3] = ["--lib", "--bins", "--examples"];

/// Builds every program of the workspace.
pub(crate) fn programs(setup: &Setup, extra: &[&str]) -> Result<(), Failure> {
    run(setup.cargo().arg("build").args(SELECTION).args(TARGETS).args(extra))
}

/// Lints our own crates with their tests; any warning is a failure.
pub(crate) fn lint(setup: &Setup) -> Result<(), Failure> {
    run(setup
        .cargo()
        .args(["clippy", "--all-targets"])
        .args(SELECTION)
        .args(["--", "--deny", "warnings"]))
}

/// Runs all tests, by nextest where that is installed.
pub(crate) fn tests(setup: &Setup) -> Result<(), Failure> {
    if quiet(setup.cargo().args(["nextest", "--version"])) {
        run(setup.cargo().args(["nextest", "run"]).args(SELECTION))?;
        return run(setup.cargo().args(["test", "--doc"]).args(SELECTION));
    }
    run(setup.cargo().arg("test").args(SELECTION))
}

/// Builds the documentation of our own crates, private items too; any warning is a failure.
///
/// The program `gauntlet` is left out, as its pages would have the file names of its library.
pub(crate) fn documentation(setup: &Setup) -> Result<(), Failure> {
    run(setup
        .cargo()
        .args(["doc", "--no-deps", "--document-private-items"])
        .args(SELECTION)
        .args(["--lib", "--examples"])
        .args(["--bin", "gauntlet-node", "--bin", "xtask"])
        .env("RUSTDOCFLAGS", "--deny warnings --allow rustdoc::private_intra_doc_links"))
}

/// Writes the metadata of the runtime to where `node-client` generates its code from.
///
/// A test of `runtime-tests` writes it when it finds it out of date. The crates above `node-client` need not build for
/// that: out of date, they may not be able to.
pub(crate) fn write_metadata(setup: &Setup) -> Result<(), Failure> {
    let built = setup
        .cargo()
        .args(["build", "--tests", "--keep-going"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(SELECTION)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let messages = String::from_utf8_lossy(&built.stdout);
    let tests = messages
        .lines()
        .filter(|line| line.contains("/runtime-tests#"))
        .find_map(|line| {
            let (_, rest) = line.split_once("\"executable\":\"")?;
            rest.split('"').next()
        })
        .ok_or("the tests of the runtime do not build")?;

    // The first run fails when it had to write.
    if quiet(Command::new(tests).arg("metadata")) {
        println!("the metadata was up to date");
        return Ok(());
    }
    run(Command::new(tests).arg("metadata"))?;
    println!("the metadata is new; the next build generates the client's code from it");
    Ok(())
}
