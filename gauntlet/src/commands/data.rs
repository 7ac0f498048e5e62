//! `gauntlet data`: makes files of tokens from text, and checks, shows and copies them.

mod args;
mod build;
mod describe;
mod show;

use anyhow::Result;
use clap::Subcommand;

pub use self::args::{DataBuildArgs, DataFetchArgs, DataShowArgs, DataVerifyArgs, FormatArg};
use crate::signals;

/// Commands on data sets.
#[derive(Subcommand, Debug)]
pub enum DataCommand {
    /// Make a data set from text: JSONL, Parquet or plain files, tokenised, mixed and hashed. The same command
    /// resumes where it was killed.
    Build(Box<DataBuildArgs>),
    /// Read a data set and check every byte against the hashes of its manifest.
    Verify(DataVerifyArgs),
    /// Show what a data set consists of, and samples of it.
    Show(DataShowArgs),
    /// Copy a data set from an S3-compatible store, checking every byte; the same command resumes.
    Fetch(DataFetchArgs),
}

/// Runs a command on data sets.
///
/// # Errors
/// The command failed; the text is for a person.
pub async fn run(command: DataCommand) -> Result<u8> {
    match command {
        DataCommand::Build(args) => build::run(*args).await,
        DataCommand::Verify(args) => signals::blocking(move || show::verify(&args)).await,
        DataCommand::Fetch(args) => signals::blocking(move || show::fetch(&args)).await,
        DataCommand::Show(args) => show::show(&args),
    }
}
