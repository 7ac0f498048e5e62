//! The gate of the GPU's kernels: each compiles for every architecture, and fits.

use std::process::Command;

use crate::{
    build, command::run as run_command, failure::Failure, nvrtc, setup::Setup, steps::Steps,
};

/// What the gate takes.
pub(crate) const ABOUT: &str = "each for every architecture; a minute, where a kernel changed";

/// Builds the program and passes the gate, as a command.
pub(crate) fn run() -> Result<(), Failure> {
    let mut steps = Steps::new(3);
    let setup = build::ready(&mut steps)?;
    steps.take("build", build::ABOUT, || build::programs(&setup, &[]))?;
    steps.take("kernels", ABOUT, || gate(&setup))
}

/// Compiles all kernels by the program, which prints what each takes and fails where one does not fit.
pub(crate) fn gate(setup: &Setup) -> Result<(), Failure> {
    let libraries = nvrtc::ensure(setup.cache_dir())?;
    run_command(
        Command::new(setup.program("gauntlet"))
            .args(["doctor", "--kernels"])
            .env(nvrtc::VARIABLE, libraries),
    )
}
