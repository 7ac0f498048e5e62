//! The calls of cargo, all with one profile and one feature set.
//!
//! Every call names the whole workspace, so that no dependency is compiled with two sets of features; what only tests need of
//! them is named in the crate `feature-set`. A program is built without the tests' own dependencies.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    command::{quiet, run},
    failure::Failure,
    setup::Setup,
    steps::Steps,
};

/// What every call that compiles has in common.
const SELECTION: [&str; 2] = ["--release", "--locked"];

/// The whole workspace with its features.
pub(crate) const FEATURES: [&str; 3] =
    ["--workspace", "--features", "pallet-gauntlet/runtime-benchmarks,pallet-gauntlet/try-runtime"];

/// The runtime that docs/INTEGRATING.md quotes, with what its other features add; nothing else compiles that.
const EXAMPLE_FEATURES: [&str; 4] = [
    "--package",
    "example-runtime",
    "--features",
    "example-runtime/runtime-benchmarks,example-runtime/try-runtime",
];

/// The names of the programs, and of the packages' targets that make them.
pub(crate) const PROGRAMS: [&str; 2] = ["gauntlet", "gauntlet-node"];

/// The crates that a runtime of somebody else's embeds.
const PACKAGES: [&str; 2] = ["gauntlet-protocol", "pallet-gauntlet"];

/// The profile that optimises all.
pub(crate) const PRODUCTION: &str = "production";

/// What building with it takes.
pub(crate) const ABOUT_PRODUCTION: &str =
    "all optimised: the first time half an hour with two slow cores";

/// What building the programs takes.
pub(crate) const ABOUT: &str =
    "the first time minutes with many cores and a quarter of an hour with two slow ones; afterwards what changed";

/// Makes the machine ready, as the first step of a command.
pub(crate) fn ready(steps: &mut Steps) -> Result<Setup, Failure> {
    steps.take("machine", "compilers; what is missing is fetched", Setup::ensure)
}

/// Builds the two programs, and nothing else.
pub(crate) fn programs(setup: &Setup, extra: &[&str]) -> Result<(), Failure> {
    let names = PROGRAMS.iter().flat_map(|name| ["--bin", name]);
    run(setup.cargo().arg("build").args(SELECTION).args(FEATURES).args(names).args(extra))
}

/// Builds the simulator, and nothing else.
pub(crate) fn simulator(setup: &Setup) -> Result<(), Failure> {
    run(setup.cargo().arg("build").args(SELECTION).args(FEATURES).args(["--bin", "simulator"]))
}

/// Builds the blob that a live chain is upgraded to, and says where it is.
pub(crate) fn next_runtime(setup: &Setup) -> Result<PathBuf, Failure> {
    run(setup.cargo().arg("build").args(SELECTION).args(["--package", "next-runtime"]))?;
    let blob = "wbuild/next-runtime/next_runtime.compact.compressed.wasm";
    let blob = setup.release_folder().join(blob);
    if !blob.is_file() {
        return Err(format!("{} is missing after the build", blob.display()));
    }
    Ok(blob)
}

/// Builds the runtime's Wasm with its benchmarks, and says where it is.
///
/// In a target folder of its own: the Wasm of both would lie in the same place.
pub(crate) fn benchmarks(setup: &Setup) -> Result<PathBuf, Failure> {
    let folder = setup.release_folder().join("benchmarks");
    run(setup.cargo().env("CARGO_TARGET_DIR", &folder).arg("build").args(SELECTION).args([
        "--package",
        "runtime",
        "--features",
        "runtime/runtime-benchmarks",
    ]))?;
    let blob = folder.join("release/wbuild/runtime/runtime.wasm");
    if !blob.is_file() {
        return Err(format!("{} is missing after the build", blob.display()));
    }
    Ok(blob)
}

/// Packs the crates that could be registered, as [`PACKAGES`] names them, and compiles nothing.
///
/// Cargo then resolves what it packed as a stranger would: without the workspace, each dependency by its version.
pub(crate) fn packages(setup: &Setup) -> Result<(), Failure> {
    let names = PACKAGES.iter().flat_map(|name| ["--package", name]);
    run(setup
        .cargo()
        .args(["package", "--no-verify", "--allow-dirty", "--locked", "--offline", "--quiet"])
        .args(names))
}

/// Builds one of the examples.
pub(crate) fn example(setup: &Setup, name: &str) -> Result<(), Failure> {
    run(setup.cargo().arg("build").args(SELECTION).args(FEATURES).args(["--example", name]))
}

/// Builds one of the examples all optimised, as [`PRODUCTION`], and says where it is.
pub(crate) fn production_example(setup: &Setup, name: &str) -> Result<PathBuf, Failure> {
    let profile = ["build", "--profile", PRODUCTION, "--locked"];
    run(setup.cargo().args(profile).args(FEATURES).args(["--example", name]))?;
    Ok(setup.folder_of(PRODUCTION).join("examples").join(name))
}

/// Calls cargo with arguments of the caller's.
pub(crate) fn any(setup: &Setup, arguments: &[String]) -> Result<(), Failure> {
    run(setup.cargo().args(arguments))
}

/// Lints our own crates with their tests; any warning is a failure.
pub(crate) fn lint(setup: &Setup) -> Result<(), Failure> {
    let lint = |selection: &[&str]| {
        run(setup
            .cargo()
            .args(["clippy", "--all-targets"])
            .args(SELECTION)
            .args(selection)
            .args(["--", "--deny", "warnings"]))
    };
    lint(&FEATURES)?;
    lint(&EXAMPLE_FEATURES)
}

/// Runs all tests, by nextest where that is installed.
pub(crate) fn tests(setup: &Setup) -> Result<(), Failure> {
    if quiet(setup.cargo().args(["nextest", "--version"])) {
        run(setup.cargo().args(["nextest", "run"]).args(SELECTION).args(FEATURES))?;
        return run(setup.cargo().args(["test", "--doc"]).args(SELECTION).args(FEATURES));
    }
    run(setup.cargo().arg("test").args(SELECTION).args(FEATURES))
}

/// Builds the documentation of our own crates, private items too; any warning is a failure.
///
/// The program `gauntlet` is left out, as its pages would have the file names of its library.
pub(crate) fn documentation(setup: &Setup) -> Result<(), Failure> {
    run(setup
        .cargo()
        .args(["doc", "--no-deps", "--document-private-items"])
        .args(SELECTION)
        .args(FEATURES)
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
        .args(FEATURES)
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
