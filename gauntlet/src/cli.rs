//! What the command line offers, as clap parses it.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand};
use protocol::RunId;

use crate::{
    commands::{
        bench::BenchCommand,
        data::DataCommand,
        eval::EvalArgs,
        plan::PlanArgs,
        train::TrainArgs,
        transfer::{ExportArgs, ImportArgs},
    },
    config::AdversaryKind,
    env,
};

/// Where commands look for the chain when they are told nothing else: the node's default port.
pub const DEFAULT_URL: &str = "ws://127.0.0.1:9944";

/// Strangers train one language model together; a chain keeps the books and the rules.
///
/// Exit codes: 0 fine, 1 failed, 2 wrong command line, 3 an audit found a difference, 130 interrupted.
#[derive(Parser, Debug)]
#[command(name = "gauntlet", version, max_term_width = 110)]
pub struct Cli {
    /// What is logged to stderr, in tracing's filter syntax.
    #[arg(long, global = true, env = env::LOG, default_value = "warn,gauntlet=info", value_name = "FILTER")]
    pub log: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start a chain, miners and validators on this machine, and train a model with them.
    Localnet(LocalnetArgs),
    /// Train for a run and earn (until Ctrl-C).
    Miner(ServiceArgs),
    /// Measure the miners of a run and earn (until Ctrl-C).
    Validator(ServiceArgs),
    /// Recompute a run from chain and payloads, and say where they part.
    Audit(AuditArgs),
    /// Create and show runs.
    #[command(subcommand)]
    Run(RunCommand),
    /// Show where a run stands: window, phase, miners, validators, money.
    Status(StatusArgs),
    /// Make and show keys.
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Train a model on this machine alone, without a chain. Goes on where it stood when it was killed.
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
    /// Say what training a model takes on a machine: memory, disk, time; and what would fit if it does not.
    Plan(Box<PlanArgs>),
}

/// Options of `localnet`.
#[derive(Args, Debug, Clone)]
pub struct LocalnetArgs {
    /// Honest miners.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub miners: u16,
    /// Validators.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub validators: u16,
    /// Windows to train; the command ends when the last one is settled.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub windows: u64,
    /// Milliseconds from block to block.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub block_ms: u64,
    /// Blocks of a window. Default: enough for the training on this machine.
    #[arg(long, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    pub window_blocks: Option<u32>,
    /// Seed of the initial parameters.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A text file, or a folder of them. Default: sources and Markdown of the dependencies that Cargo.lock pins.
    #[arg(long, value_name = "FILE|DIR")]
    pub data: Option<PathBuf>,
    /// Cargo.lock whose dependencies are the default corpus. Default: the one in the current folder or above.
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
    /// Adversaries beside the honest miners: garbage, copier or lazy; may be repeated.
    #[arg(long = "adversary", value_name = "KIND:COUNT")]
    pub adversaries: Vec<Adversaries>,
    /// The model: nano, 1M, 7M, 25M, 135M, 360M, 1B, 8B, 70B or covenant-72b.
    #[arg(long, default_value = "nano", value_name = "PRESET")]
    pub model: String,
    /// Local steps of a window (H). Default: what this machine can do in a window.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub inner_steps: Option<u32>,
    /// Samples of a step.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub batch_size: u32,
    /// Folder for the run, which must not exist or be empty. Default: a new one in the user's cache folder.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Where to write the report (JSON); it is in the run folder anyway.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The chain's binary. Default: `gauntlet-node` beside this program.
    #[arg(long, env = env::NODE, value_name = "FILE")]
    pub node: Option<PathBuf>,
    /// Start metrics of the participants at this port (one port each).
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<u16>,
}

/// So many adversaries of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adversaries {
    /// What they do.
    pub kind: AdversaryKind,
    /// How many.
    pub count: u16,
}

/// The most adversaries of one kind.
const ADVERSARIES_MAX: u16 = 64;

impl FromStr for Adversaries {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, count) = text.split_once(':').unwrap_or((text, "1"));
        let count: u16 =
            count.parse().map_err(|_| format!("{count:?} is not a number of adversaries"))?;
        if count == 0 || count > ADVERSARIES_MAX {
            return Err(format!("{count} is not from 1 to {ADVERSARIES_MAX}"));
        }
        Ok(Self { kind: kind.parse()?, count })
    }
}

/// Options of `miner` and `validator`.
#[derive(Args, Debug)]
pub struct ServiceArgs {
    /// The participant's configuration (TOML); docs/OPERATING.md explains it.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Options of `audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// A folder that `localnet` left. The chain in it is started and read; nothing in it is changed.
    #[arg(value_name = "RUN_FOLDER")]
    pub folder: PathBuf,
    /// Ask this chain instead of starting the one in the folder.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The chain's binary. Default: `gauntlet-node` beside this program.
    #[arg(long, env = env::NODE, value_name = "FILE")]
    pub node: Option<PathBuf>,
    /// Windows to audit, counted from 0. Default: all that are settled.
    #[arg(long)]
    pub windows: Option<u64>,
}

/// Commands on runs.
#[derive(Subcommand, Debug)]
pub enum RunCommand {
    /// Create a run.
    Create(RunCreateArgs),
    /// Show a run's settings.
    Show(RunShowArgs),
}

/// Options of `run create`.
#[derive(Args, Debug)]
pub struct RunCreateArgs {
    /// WebSocket address of the chain.
    #[arg(long, env = env::URL, default_value = DEFAULT_URL)]
    pub url: String,
    /// Settings of the run (JSON, as `run show` prints it); their roots are filled in from model and data.
    #[arg(long, value_name = "FILE")]
    pub settings: PathBuf,
    /// The model: nano, 1M, 7M, 25M, 135M, 360M, 1B, 8B, 70B or covenant-72b.
    #[arg(long, default_value = "nano", value_name = "PRESET")]
    pub model: String,
    /// The data set's folder, or its address in a store (`s3://bucket/folder`, `https://host/folder`).
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Who owns the run.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// Options of `run show`.
#[derive(Args, Debug)]
pub struct RunShowArgs {
    /// WebSocket address of the chain.
    #[arg(long, env = env::URL, default_value = DEFAULT_URL)]
    pub url: String,
    /// The run.
    #[arg(default_value_t = 0)]
    pub run: RunId,
}

/// Options of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// WebSocket address of the chain.
    #[arg(long, env = env::URL, default_value = DEFAULT_URL)]
    pub url: String,
    /// The run.
    #[arg(default_value_t = 0)]
    pub run: RunId,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// Commands on keys.
#[derive(Subcommand, Debug)]
pub enum WalletCommand {
    /// Make a key and keep it in a file, encrypted with GAUNTLET_PASSWORD; its phrase is printed once.
    New(WalletNewArgs),
    /// Show the address of a key.
    Show(KeyArgs),
}

/// Options of `wallet new`.
#[derive(Args, Debug)]
pub struct WalletNewArgs {
    /// The file to write, which must not exist.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

/// Names a key.
#[derive(Args, Debug, Clone)]
#[group(required = true, multiple = false)]
pub struct KeyArgs {
    /// An encrypted key file; its password is in GAUNTLET_PASSWORD.
    #[arg(long = "key-file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A secret URI, for development: `//Alice`.
    #[arg(long = "key-uri", value_name = "URI")]
    pub uri: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn adversaries_are_a_kind_and_a_count() {
        let lazy = Adversaries { kind: AdversaryKind::Lazy, count: 2 };
        assert_eq!("lazy:2".parse(), Ok(lazy));
        assert_eq!("lazy".parse::<Adversaries>().map(|a| a.count), Ok(1));
        assert!("lazy:0".parse::<Adversaries>().is_err());
        assert!("kind:1".parse::<Adversaries>().is_err());
    }
}
