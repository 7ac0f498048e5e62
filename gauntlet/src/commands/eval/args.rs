//! The options of `gauntlet eval`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    engine::{DeviceArg, EngineArg},
    limits,
};

/// Options of `eval`.
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// A model: a Hugging Face folder or a .gguf file.
    #[arg(long, value_name = "DIR|FILE")]
    pub model: PathBuf,
    /// Its tokenizer.json, or `bytes`. Default: the one in the folder or the file.
    #[arg(long, value_name = "FILE", value_parser = limits::text)]
    pub tokenizer: Option<String>,
    /// The token before a text that has nothing before it. Default: the one in the model's files.
    #[arg(long, value_name = "TOKEN", value_parser = limits::text)]
    pub bos: Option<String>,
    /// Names of known tasks or task files (.toml, .json), separated by commas; without it, the known ones are listed.
    #[arg(long, value_delimiter = ',', value_name = "TASK,…", value_parser = limits::text)]
    pub tasks: Vec<String>,
    /// Folder with the data of known tasks; a task file's data lies beside it.
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub task_dir: PathBuf,
    /// The data of the one task, instead of the data its file names.
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Solved examples before each question. Default: the task's own number, which is 0 for known tasks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub shots: Option<u16>,
    /// Seed of random examples.
    #[arg(long, default_value_t = 1234)]
    pub seed: u32,
    /// Number of questions of each subject, from the first on. Default: all.
    #[arg(long, value_name = "N", value_parser = limits::count::<usize>(limits::SOME))]
    pub limit: Option<usize>,
    /// Tokens that the model reads at most. Default: the model's context, up to 4096.
    #[arg(long, value_name = "N", value_parser = limits::count::<usize>(limits::SAMPLE_TOKENS))]
    pub max_length: Option<usize>,
    /// Approximate number of tokens of a batch.
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = limits::count::<usize>(limits::SAMPLE_TOKENS))]
    pub batch_tokens: usize,
    /// Where the model is computed: auto, cpu, cuda or cuda:NUMBER,….
    #[arg(long, default_value_t, value_name = "DEVICE")]
    pub device: DeviceArg,
    /// The processor's engine that computes. Default: cpu.
    #[arg(long, value_enum)]
    pub engine: Option<EngineArg>,
    /// Threads that compute. Default: one for each core.
    #[arg(long, value_name = "N", value_parser = limits::count::<usize>(limits::THREADS))]
    pub threads: Option<usize>,
    /// File to write the report to (JSON).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// File to write the model's answer to each question to (JSONL).
    #[arg(long, value_name = "FILE")]
    pub samples: Option<PathBuf>,
    /// File that keeps scores, so that the same command resumes an interrupted evaluation.
    #[arg(long, value_name = "FILE")]
    pub cache: Option<PathBuf>,
}
