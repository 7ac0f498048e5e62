//! Measures what the pallet's calls and steps weigh, and writes `pallet-gauntlet/src/weights/measured.rs`.

use std::{path::Path, process::Command};

use crate::{
    build,
    command::{quiet, run as run_command},
    failure::Failure,
    setup::Setup,
    steps::Steps,
};

/// The SDK's program that runs a runtime's benchmarks.
const BENCHER: &str = "frame-omni-bencher";

/// Where the template and what is written lie, below the root of the checkout.
const TEMPLATE: &str = "pallet-gauntlet/weights.hbs";
const MEASURED: &str = "pallet-gauntlet/src/weights/measured.rs";

/// How many values each parameter takes, and how often each is measured.
const STEPS: &str = "10";
const REPEAT: &str = "4";

/// Measures everything, as a command.
pub(crate) fn run() -> Result<(), Failure> {
    let mut steps = Steps::new(3);
    let setup = build::ready(&mut steps)?;
    if !quiet(Command::new(BENCHER).arg("--version")) {
        return Err(format!(
            "`{BENCHER}` is missing; `cargo install --locked {BENCHER}` gets it, with the variable PROTOC naming a protoc"
        ));
    }
    let blob =
        steps.take("build", "the runtime with its benchmarks, in a folder of its own", || {
            build::benchmarks(&setup)
        })?;
    steps.take("measure", "some ten minutes; leave the machine alone", || measure(&setup, &blob))
}

fn measure(setup: &Setup, blob: &Path) -> Result<(), Failure> {
    let written = setup.root().join(MEASURED);
    run_command(
        Command::new(BENCHER)
            .args(["v1", "benchmark", "pallet", "--pallet", "pallet_gauntlet", "--extrinsic", "*"])
            .args(["--steps", STEPS, "--repeat", REPEAT])
            .arg("--runtime")
            .arg(blob)
            .arg("--template")
            .arg(setup.root().join(TEMPLATE))
            .arg("--output")
            .arg(&written)
            .current_dir(setup.root()),
    )?;
    run_command(Command::new("rustfmt").args(["--edition", "2021"]).arg(&written))
}
