//! The command line: parse, build, run. Everything else is in the library of the same name.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use gauntlet::{cli::Cli, exit, telemetry};

fn main() -> ExitCode {
    exit::code(run(Cli::parse()))
}

fn run(cli: Cli) -> Result<u8> {
    telemetry::log_to_stderr(&cli.log)?;
    dataset::choose_tls();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start")?;
    // The command runs on the main thread: children of `localnet` are told to end with the thread that started them.
    let result = runtime.block_on(cli.command.run());
    // What still runs on other threads is at most a computation whose result nobody waits for.
    runtime.shutdown_background();
    result
}
