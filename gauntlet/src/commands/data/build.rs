//! `gauntlet data build`: makes a data set from text.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    time::Instant,
};

use anyhow::{bail, Context, Result};
use dataset::{
    build_tokens, BuildEvent, BuildOptions, BuildProgress, BuildSettings, Dataset, SourceSettings,
    Tokenizer,
};

use super::{args::DataBuildArgs, describe};
use crate::{exit, signals, terminal::ByteBar, text_file};

/// Bad lines that are shown one by one; the others are counted.
const BAD_LINES_SHOWN: u64 = 20;

/// The options of a build, from file and flags together.
struct BuildOrder {
    settings: BuildSettings,
    tokenizer: Arc<Tokenizer>,
}

/// Builds a data set. Ctrl-C stops it so that the same command can resume it.
///
/// # Errors
/// Settings make no sense, inputs cannot be read, or the disk is full.
pub(super) async fn run(args: DataBuildArgs) -> Result<u8> {
    let order = order(&args)?;
    let json = args.json;
    let started = Instant::now();
    let work = move |end: &AtomicBool| build(&args, &order, end);
    let (dataset, progress) = signals::blocking_until_asked_to_end(work).await?;
    if json {
        println!("{}", describe::json(&dataset)?);
    } else {
        describe::describe(&dataset);
        let seconds = started.elapsed().as_secs_f64();
        let megabytes = progress.text_bytes as f64 / 1e6;
        let rate = megabytes / seconds;
        println!("built     {megabytes:.1} MB of text in {seconds:.1} s, {rate:.1} MB/s");
    }
    Ok(exit::SUCCESS)
}

fn build(
    args: &DataBuildArgs,
    order: &BuildOrder,
    end: &AtomicBool,
) -> Result<(Dataset, BuildProgress)> {
    let options =
        BuildOptions { threads: args.threads.map_or(0, usize::from), start_over: args.start_over };
    let mut bar: Option<ByteBar> = None;
    let mut last = BuildProgress::default();
    let mut resumed_bytes = 0;
    let mut observe = |event: &BuildEvent| {
        match event {
            BuildEvent::Resumed(progress) => {
                resumed_bytes = progress.text_bytes;
                let tokens = progress.train_tokens + progress.held_out_tokens;
                tracing::info!("resumes after {tokens} tokens of an earlier build");
            }
            BuildEvent::Document(progress) => {
                last = *progress;
                let bar = bar.get_or_insert_with(|| ByteBar::new(progress.input_bytes));
                bar.update(progress.bytes_read, || line(progress));
            }
            BuildEvent::BadLine(line) => {
                last.bad_line_count += 1;
                match &bar {
                    _ if last.bad_line_count > BAD_LINES_SHOWN => {}
                    Some(bar) => bar.warn(&format!("bad line {line}")),
                    None => tracing::warn!("bad line {line}"),
                }
            }
        }
        match end.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let (settings, tokenizer) = (&order.settings, &order.tokenizer);
    let built = build_tokens(settings, tokenizer, &args.out, options, &mut observe);
    if let Some(bar) = bar {
        bar.end();
    }
    last.text_bytes -= resumed_bytes.min(last.text_bytes);
    Ok((built?, last))
}

fn line(progress: &BuildProgress) -> String {
    let tokens = (progress.train_tokens + progress.held_out_tokens) as f64 / 1e6;
    let mut line = format!("{tokens:.1} M tokens, {} documents", progress.document_count);
    if progress.bad_line_count > 0 {
        line += &format!(", {} bad lines", progress.bad_line_count);
    }
    line
}

fn order(args: &DataBuildArgs) -> Result<BuildOrder> {
    let mut names = (args.tokenizer.clone(), args.end_of_document.clone());
    let mut settings = BuildSettings::default();
    if let Some(path) = &args.config {
        let file = read_config(path)?;
        settings = file.0;
        names = (names.0.or(file.1), names.1.or(file.2));
    }
    for input in &args.inputs {
        let source = source(input, args, &settings.sources)?;
        settings.sources.push(source);
    }
    settings.sample_len = args.sample_len.unwrap_or(settings.sample_len);
    settings.held_out = args.held_out.unwrap_or(settings.held_out);
    settings.bad_lines_max = args.bad_lines_max.unwrap_or(settings.bad_lines_max);
    settings.tokens_max = args.tokens_max.or(settings.tokens_max);
    let shard_bytes = args.shard_mib.map(|mib| mib << 20);
    settings.shard_bytes = shard_bytes.unwrap_or(settings.shard_bytes);
    settings.check()?;
    let Some(name) = names.0 else {
        bail!("name a tokenizer: --tokenizer FILE, or --tokenizer bytes");
    };
    let mut tokenizer = tokenizer(&name)?;
    if let Some(end) = names.1 {
        tokenizer = tokenizer.with_end_of_document(&end)?;
    }
    Ok(BuildOrder { settings, tokenizer: Arc::new(tokenizer) })
}

/// The tokenizer of a name on the command line.
pub(super) fn tokenizer(name: &str) -> Result<Tokenizer> {
    match name {
        "bytes" => Ok(Tokenizer::bytes()),
        path => Tokenizer::from_file(Path::new(path)).with_context(|| format!("in {path}")),
    }
}

/// The settings of a file, and the names of tokenizer and end of document in it. Paths in it are
/// relative to its folder.
fn read_config(path: &Path) -> Result<(BuildSettings, Option<String>, Option<String>)> {
    let text = text_file::read(path)?;
    parse_config(&text, path.parent().unwrap_or(Path::new("")))
        .with_context(|| format!("in {}", path.display()))
}

fn parse_config(
    text: &str,
    folder: &Path,
) -> Result<(BuildSettings, Option<String>, Option<String>)> {
    let mut table: toml::Table = toml::from_str(text)?;
    let mut take = |name: &str| match table.remove(name) {
        None => Ok(None),
        Some(toml::Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(anyhow::anyhow!("{name} is not a string")),
    };
    let (tokenizer, end) = (take("tokenizer")?, take("end_of_document")?);
    let mut settings: BuildSettings = table.try_into()?;
    let resolve = |name: &mut String| {
        // An empty one would become the folder; it is refused later.
        if !name.is_empty() && !name.contains("://") {
            *name = folder.join(&*name).display().to_string();
        }
    };
    for source in &mut settings.sources {
        source.paths.iter_mut().for_each(resolve);
    }
    let tokenizer = tokenizer.map(|mut name| {
        if name != "bytes" {
            resolve(&mut name);
        }
        name
    });
    Ok((settings, tokenizer, end))
}

/// A source from `PATH[=WEIGHT]`, named after its file.
fn source(input: &str, args: &DataBuildArgs, others: &[SourceSettings]) -> Result<SourceSettings> {
    let (path, weight) = match input.rsplit_once('=') {
        Some((path, weight)) if !Path::new(input).exists() => {
            let weight = weight.parse();
            (path, Some(weight.with_context(|| format!("the weight of {input}"))?))
        }
        _ => (input, None),
    };
    let file = Path::new(path).file_name();
    let stem = file.map_or(path.into(), |name| name.to_string_lossy());
    let is_free = |name: &str| others.iter().all(|source| source.name != name);
    let numbered = (2..).map(|number| format!("{stem}-{number}"));
    let mut names = std::iter::once(stem.to_string()).chain(numbered);
    let defaults = SourceSettings::default();
    Ok(SourceSettings {
        name: names.find(|name| is_free(name)).unwrap_or_default(),
        paths: vec![path.to_owned()],
        format: args.format.map(Into::into),
        field: args.field.clone().unwrap_or(defaults.field),
        weight,
        repeat: args.repeat.unwrap_or(defaults.repeat),
        section_bytes: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_of_the_documentation_is_one() {
        let text = include_str!("../../../../docs/DATA.md");
        let start = text.find("```toml\n").unwrap() + 8;
        let toml = &text[start..start + text[start..].find("```").unwrap()];
        let (settings, tokenizer, _) = parse_config(toml, Path::new("/mix")).unwrap();
        settings.check().unwrap();
        assert_eq!(tokenizer.as_deref(), Some("/mix/tokenizer.json"));
        assert!(settings.sources.len() >= 2);
        assert!(settings.sources[0].paths[0].starts_with("/mix/"));
        let wrong = toml.replace("weight", "wieght");
        assert!(parse_config(&wrong, Path::new("")).is_err());
    }
}
