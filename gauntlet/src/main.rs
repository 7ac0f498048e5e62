//! The command line: parse, build, run. Everything else is in the library of the same name.

use clap::Parser;
use gauntlet::{cli::Cli, exit, telemetry};

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    if let Err(error) = telemetry::log_to_stderr(&cli.log) {
        exit::tell(&exit::line(&error));
        return exit::USAGE.into();
    }
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                exit::tell(&format!("cannot start: {error}"));
                return exit::FAILURE.into();
            }
        };
    // The command runs on the main thread: children of `localnet` are told to end with the thread that started them.
    let result = runtime.block_on(cli.command.run());
    // What still runs on other threads is at most a computation whose result nobody waits for.
    runtime.shutdown_background();
    match result {
        Ok(code) => code.into(),
        Err(error) => {
            exit::tell(&exit::line(&error));
            exit::FAILURE.into()
        }
    }
}
