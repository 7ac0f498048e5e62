//! The options of `gauntlet data`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dataset::Format;

use crate::limits;

/// Options of `data build`.
#[derive(Args, Debug)]
pub struct DataBuildArgs {
    /// Folder of the data set.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Sources, weights and bounds (TOML); docs/DATA.md explains it. Flags win over it.
    #[arg(long, value_name = "FILE", required_unless_present = "inputs")]
    pub config: Option<PathBuf>,
    /// A file or folder of text, with a weight if wanted (`web.jsonl.zst=0.7`); may be repeated.
    #[arg(long = "input", value_name = "PATH[=WEIGHT]", value_parser = limits::text)]
    pub inputs: Vec<String>,
    /// A Hugging Face tokenizer.json, or `bytes`.
    #[arg(long, value_name = "FILE|bytes", value_parser = limits::text)]
    pub tokenizer: Option<String>,
    /// Name of the token that ends a document. Default: `<|end_of_text|>`, `<|endoftext|>`, `</s>`, `<eos>` or `<|eos|>`.
    #[arg(long, value_name = "TOKEN", value_parser = limits::text)]
    pub end_of_document: Option<String>,
    /// Tokens of a sample. Default: 2048.
    #[arg(long, value_name = "TOKENS", value_parser = limits::count::<usize>(limits::SAMPLE_TOKENS))]
    pub sample_len: Option<usize>,
    /// Share of the documents that is held out, up to 0.5; 0 for none. Default: 0.01.
    #[arg(long, value_name = "SHARE")]
    pub held_out: Option<f64>,
    /// Kind of the inputs. Default: by their extensions.
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
    /// JSON field or Parquet column that has the text of the inputs. Default: text.
    #[arg(long, value_name = "NAME", value_parser = limits::text)]
    pub field: Option<String>,
    /// How often a document of the inputs may be used. Default: 1.
    #[arg(long, value_name = "TIMES")]
    pub repeat: Option<u32>,
    /// MiB of a file of tokens. Default: 256.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub shard_mib: Option<u64>,
    /// End with the document that reaches so many tokens. Default: take all.
    #[arg(long, value_name = "TOKENS", value_parser = limits::count::<u64>(limits::TOKENS))]
    pub tokens_max: Option<u64>,
    /// Bad lines to leave out before the build fails. Default: 100.
    #[arg(long, value_name = "LINES")]
    pub bad_lines_max: Option<u64>,
    /// Threads that tokenise. Default: one for each core.
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub threads: Option<u16>,
    /// Delete what is in the folder, finished or not, and start from nothing.
    #[arg(long)]
    pub start_over: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Kinds of files, on the command line.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum FormatArg {
    /// A file is a document.
    Text,
    /// A line is a document.
    Lines,
    /// A line is a JSON object with a document.
    Jsonl,
    /// A row has a column that is a document.
    Parquet,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Text => Self::Text,
            FormatArg::Lines => Self::Lines,
            FormatArg::Jsonl => Self::Jsonl,
            FormatArg::Parquet => Self::Parquet,
        }
    }
}

/// Options of `data verify`.
#[derive(Args, Debug)]
pub struct DataVerifyArgs {
    /// The data set's folder, or its address (`s3://bucket/prefix`; AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, … say
    /// how to reach it).
    #[arg(value_name = "DIR|URL", value_parser = limits::text)]
    pub place: String,
}

/// Options of `data fetch`.
#[derive(Args, Debug)]
pub struct DataFetchArgs {
    /// Address of the data set: `s3://bucket/prefix`.
    #[arg(value_name = "URL", value_parser = limits::text)]
    pub url: String,
    /// Folder for the copy.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// Options of `data show`.
#[derive(Args, Debug)]
pub struct DataShowArgs {
    /// The data set's folder.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Print the tokens of this sample; may be repeated.
    #[arg(long = "sample", value_name = "NUMBER")]
    pub samples: Vec<u64>,
    /// Take samples of the held-out split.
    #[arg(long)]
    pub held_out: bool,
    /// Print samples as text, with this tokenizer.json (or `bytes`).
    #[arg(long, value_name = "FILE|bytes", value_parser = limits::text)]
    pub tokenizer: Option<String>,
    /// Print the description as JSON.
    #[arg(long)]
    pub json: bool,
}
