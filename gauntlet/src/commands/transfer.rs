//! `gauntlet import` and `gauntlet export`: read models of others, and write ours. Both write a Hugging Face folder,
//! which every command that takes a model reads.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::{Args, ValueEnum};
use trainer::files::{self, ExportSettings, ValueType};
use trainer::{Checkpoints, Model, ModelConfig};

use participant::memory;

use crate::exit;

/// Options of `import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// A LLaMA model: a GGUF file, any part of one that is cut into several, or a folder of either kind.
    #[arg(long, value_name = "FILE.gguf|DIR")]
    pub from: PathBuf,
    /// How it is written.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Options of `export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// A folder of checkpoints, or a participant's folder that has one.
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// How it is written.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How a Hugging Face folder is written.
#[derive(Args, Debug)]
pub struct OutputArgs {
    /// The folder to write, which must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Type of the values.
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE")]
    pub dtype: TypeArg,
    /// Largest file of tensors, in bytes; `MB` and `GB` are understood.
    #[arg(long, value_parser = parse_bytes, default_value = "5GB", value_name = "BYTES")]
    pub shard_size: u64,
    /// Longest context that config.json states. Default: the model's own, which for a checkpoint is the length of its
    /// training samples.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub positions: Option<u32>,
    /// The tokenizer.json to go with it. Default: what comes with the model.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
}

/// Types of values, by name.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeArg {
    /// 32 bits: nothing is lost.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl From<TypeArg> for ValueType {
    fn from(name: TypeArg) -> Self {
        match name {
            TypeArg::F32 => Self::F32,
            TypeArg::Bf16 => Self::Bf16,
            TypeArg::F16 => Self::F16,
        }
    }
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match (text.strip_suffix("GB"), text.strip_suffix("MB")) {
        (Some(digits), _) => (digits, 1_000_000_000),
        (_, Some(digits)) => (digits, 1_000_000),
        _ => (text, 1),
    };
    let number: Option<u64> = digits.trim().parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| format!("{text:?} is not a number of bytes"))
}

/// Runs `gauntlet import`.
///
/// # Errors
/// The model cannot be read, is not supported or does not fit the memory, or the folder cannot be written.
pub fn import(args: &ImportArgs) -> Result<u8> {
    let (from, mut settings) = (&args.from, settings(&args.output));
    check_memory("an import", &files::configuration(from)?)?;
    if !files::is_gguf(from) {
        settings = settings.like_folder(from)?;
        return write(&files::open(from)?.0, &args.output, settings);
    }
    let gguf = files::Gguf::open(from)?;
    if args.output.tokenizer.is_some() {
        // Of the file's own vocabulary only the numbers of two tokens count, where they can be read.
        let ends = gguf.bos().and_then(|bos| Ok((bos, gguf.ends()?)));
        match ends {
            Ok(found) => (settings.bos, settings.ends) = found,
            Err(error) => tracing::warn!("config.json names no first and last token: {error}"),
        }
    } else {
        let like = settings.like_gguf(&gguf);
        settings = like.context("name a tokenizer.json with --tokenizer FILE")?;
        if settings.tokenizer.is_none() {
            tracing::warn!("the file has no vocabulary, so that no tokenizer.json is written; --tokenizer names one");
        }
    }
    write(&gguf.model()?, &args.output, settings)
}

/// Runs `gauntlet export`.
///
/// # Errors
/// There is no whole checkpoint, the model does not fit the memory, or the folder cannot be written.
pub fn export(args: &ExportArgs) -> Result<u8> {
    let inside = args.from.join("checkpoints");
    let folder = if inside.is_dir() { &inside } else { &args.from };
    let model = newest_checkpoint(folder)?;
    write(&model, &args.output, settings(&args.output))
}

fn newest_checkpoint(folder: &Path) -> Result<Model> {
    if !folder.is_dir() {
        bail!("{} is not a folder of checkpoints", folder.display());
    }
    let checkpoints = Checkpoints::open(folder)?;
    let none = || format!("no checkpoint in {}", folder.display());
    let config = checkpoints.config()?.with_context(none)?;
    check_memory("an export", &config)?;
    checkpoints.load_model(&config)?.with_context(none)
}

/// Refuses a model whose parameters alone are more than the memory.
fn check_memory(who: &str, config: &ModelConfig) -> Result<()> {
    Ok(memory::check(who, config, None, |config| memory::copies(config, 1))?)
}

fn settings(output: &OutputArgs) -> ExportSettings {
    ExportSettings {
        values: output.dtype.into(),
        shard_bytes_max: output.shard_size,
        positions: output.positions.map(|positions| positions as usize),
        ..ExportSettings::default()
    }
}

fn write(model: &Model, output: &OutputArgs, mut settings: ExportSettings) -> Result<u8> {
    if let Some(path) = &output.tokenizer {
        let json =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        dataset::Tokenizer::from_json(&json).with_context(|| format!("in {}", path.display()))?;
        settings = settings.with_tokenizer(json);
    }
    let exported = files::export(model, &output.out, &settings)?;
    println!(
        "{}: {} parameters, {} bytes of {:?} in {} {}, {}",
        output.out.display(),
        model.config().parameter_count(),
        exported.bytes,
        settings.values,
        exported.shards,
        if exported.shards == 1 { "file" } else { "files" },
        match settings.tokenizer {
            Some(_) => "with tokenizer.json",
            None => "without a tokenizer",
        }
    );
    Ok(exit::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_a_unit() {
        assert_eq!(parse_bytes("5GB"), Ok(5_000_000_000));
        assert_eq!(parse_bytes("20 MB"), Ok(20_000_000));
        assert_eq!(parse_bytes("7"), Ok(7));
        for wrong in ["", "0", "GB", "-1", "1TB", "99999999999999GB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
