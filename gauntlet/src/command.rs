//! From a parsed command to the module that does it.

use anyhow::Result;

use crate::{
    auditor,
    cli::{Command, RunCommand, WalletCommand},
    commands::{
        bench,
        data::{self, DataCommand},
        eval, localnet, plan, run, status, train, transfer, wallet,
    },
    miner, signals, validator,
};

/// Runs one command to its end and returns the exit code.
///
/// # Errors
/// What a person should read; the exit code is then [`crate::exit::FAILURE`].
pub async fn run(command: Command) -> Result<u8> {
    if matches!(
        command,
        Command::Run(_)
            | Command::Status(_)
            | Command::Wallet(_)
            | Command::Plan(_)
            | Command::Data(DataCommand::Show(_))
    ) {
        signals::end_with_reader();
    }
    match command {
        Command::Localnet(args) => localnet::run(args).await,
        Command::Miner(args) => miner::run(&args.config).await,
        Command::Validator(args) => validator::run(&args.config).await,
        Command::Audit(args) => auditor::run(args).await,
        Command::Run(RunCommand::Create(args)) => run::create(args).await,
        Command::Run(RunCommand::Show(args)) => run::show(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Wallet(WalletCommand::New(args)) => wallet::new(args),
        Command::Wallet(WalletCommand::Show(args)) => wallet::show(args),
        Command::Train(args) => train::run(*args).await,
        Command::Data(command) => data::run(command).await,
        Command::Bench(command) => bench::run(command),
        Command::Import(args) => transfer::import(&args),
        Command::Export(args) => transfer::export(&args),
        Command::Eval(args) => eval::run(args).await,
        Command::Plan(args) => plan::run(&args),
    }
}
