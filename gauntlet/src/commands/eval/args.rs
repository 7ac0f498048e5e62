//! The options of `gauntlet eval`.

use std::path::PathBuf;

use clap::Args;

use crate::engine::EngineArg;

/// Options of `eval`.
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// A model: a Hugging Face folder or a .gguf file.
    #[arg(long, value_name = "DIR|FILE")]
    pub model: PathBuf,
    /// Its tokenizer.json, or `bytes`. Default: the one in the folder or the file.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<String>,
    /// The token before a text that has nothing before it. Default: what the model's files say.
    #[arg(long, value_name = "TOKEN")]
    pub bos: Option<String>,
    /// Names of known tasks or task files (.toml, .json), separated by commas; without it, the known ones are listed.
    #[arg(long, value_delimiter = ',', value_name = "TASK,…")]
    pub tasks: Vec<String>,
    /// Where the data of known tasks lies; a task file's data lies beside it.
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub task_dir: PathBuf,
    /// The data of the one task, instead of what its file says.
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Solved examples before each question. Default: what the task says, which is none for those known.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub shots: Option<u16>,
    /// Seed of random examples.
    #[arg(long, default_value_t = 1234)]
    pub seed: u32,
    /// Only the first questions of each subject.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Tokens that the model reads at most. Default: the model's context, up to 4096.
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Tokens of a batch, about.
    #[arg(long, default_value_t = 1024, value_name = "N")]
    pub batch_tokens: usize,
    /// What computes.
    #[arg(long, value_enum, default_value = "cpu")]
    pub engine: EngineArg,
    /// Threads. Default: all cores.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Where to write the report.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where to write what the model said to each question (JSONL).
    #[arg(long, value_name = "FILE")]
    pub samples: Option<PathBuf>,
    /// Keeps scores, so that an evaluation that was interrupted goes on where it stopped.
    #[arg(long, value_name = "FILE")]
    pub cache: Option<PathBuf>,
}
