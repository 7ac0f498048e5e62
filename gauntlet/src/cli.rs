//! Parses the command line and hands each command its own arguments. These stand beside the command, in [`crate::commands`].

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    commands::{
        audit::{self, AuditArgs},
        bench::{self, BenchCommand},
        data::{self, DataCommand},
        doctor::{self, DoctorArgs},
        eval::{self, EvalArgs},
        localnet::{self, LocalnetArgs},
        miner::{self, MinerArgs},
        plan::{self, PlanArgs},
        run::{self, RunCommand},
        status::{self, StatusArgs},
        train::{self, TrainArgs},
        transfer::{self, ExportArgs, ImportArgs},
        validator::{self, ValidatorArgs},
        wallet::{self, WalletCommand},
    },
    env, signals, telemetry,
};

/// Strangers train one language model together; a chain keeps the books and the rules.
///
/// Exit codes: 0 fine, 1 failed, 2 wrong command line, 3 an audit found a difference, 130 interrupted.
#[derive(Parser, Debug)]
#[command(name = "gauntlet", version, max_term_width = 110)]
pub struct Cli {
    /// Filter of the log on stderr, in tracing's syntax.
    #[arg(long, global = true, env = env::LOG, default_value = "warn,gauntlet=info,participant=info", value_name = "FILTER",
        value_parser = telemetry::parse_filter)]
    pub log: String,
    /// The command to run, with its arguments.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands, in the order in which the help lists them.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start a chain, miners and validators on this machine, and train a model with them.
    Localnet(LocalnetArgs),
    /// Train for a run and earn (until Ctrl-C).
    Miner(MinerArgs),
    /// Measure the miners of a run and earn (until Ctrl-C).
    Validator(ValidatorArgs),
    /// Recompute a run from the payloads, and print where the chain differs.
    Audit(AuditArgs),
    /// Create and show runs.
    #[command(subcommand)]
    Run(RunCommand),
    /// Show where a run stands: window, phase, miners, validators, money.
    Status(StatusArgs),
    /// Make and show keys, and send money.
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Train a model on this machine alone, without a chain. The same command resumes where it was killed.
    Train(Box<TrainArgs>),
    /// Build, verify and show data sets.
    #[command(subcommand)]
    Data(DataCommand),
    /// Measure how fast this machine trains.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Turn a GGUF file or a Hugging Face folder into a Hugging Face folder of ours.
    Import(ImportArgs),
    /// Write the newest checkpoint as a Hugging Face folder, which transformers loads.
    Export(ExportArgs),
    /// Ask a model published questions (MMLU, ARC, HellaSwag, …), or how well it predicts a text.
    Eval(EvalArgs),
    /// Print the memory, disk and time that training a model takes on a machine, and what would make it fit.
    Plan(Box<PlanArgs>),
    /// Look for what training on GPUs needs, and check it.
    Doctor(DoctorArgs),
}

impl Command {
    /// Runs the command to its end and returns the exit code.
    ///
    /// # Errors
    /// The command failed; the text is for a person, and [`crate::exit`] makes an exit code of it.
    pub async fn run(self) -> Result<u8> {
        if self.only_prints() {
            signals::end_with_reader();
        }
        match self {
            Self::Localnet(args) => localnet::run(args).await,
            Self::Miner(args) => miner::run(args).await,
            Self::Validator(args) => validator::run(args).await,
            Self::Audit(args) => audit::run(args).await,
            Self::Run(command) => run::run(command).await,
            Self::Status(args) => status::run(args).await,
            Self::Wallet(command) => wallet::run(command).await,
            Self::Train(args) => train::run(*args).await,
            Self::Data(command) => data::run(command).await,
            Self::Bench(command) => bench::run(command),
            Self::Import(args) => transfer::import(&args),
            Self::Export(args) => transfer::export(&args),
            Self::Eval(args) => eval::run(args).await,
            Self::Plan(args) => plan::run(&args),
            Self::Doctor(args) => doctor::run(&args),
        }
    }

    /// Whether the command does nothing but print, so that it may end when nobody reads its output any more.
    fn only_prints(&self) -> bool {
        matches!(
            self,
            Self::Run(_)
                | Self::Status(_)
                | Self::Wallet(_)
                | Self::Plan(_)
                | Self::Data(DataCommand::Show(_))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
