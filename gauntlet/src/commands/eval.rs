//! `gauntlet eval`: measures how well a model answers published questions, and predicts a text.
//!
//! [`trainer::harness`] does the work; this module has the files, the progress bar and the report. docs/EVALUATION.md
//! explains tasks and figures.

mod args;
mod model;
mod report;

use std::{
    fs::File,
    io::{BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use anyhow::{bail, Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use trainer::{
    budget::{BudgetError, CpuCosts},
    harness::{
        rung_shape, Cache, Harness, HarnessError, HarnessSettings, Progress, Sample, ScoreError,
        Task, TaskFile, TaskReport, Vocabulary, KNOWN_TASKS,
    },
    Device, DeviceError, Model, ModelConfig, OwnMemory, Threads,
};

use self::{model::EvaluatedModel, report::EvaluationReport};
use participant::memory;

use crate::{exit, signals, terminal::print, text_file};

pub use self::args::EvalArgs;

/// Tokens that a model reads at most unless told otherwise: its logits take 4 bytes for each of them and each token of
/// its vocabulary.
const LENGTH_DEFAULT: usize = 4096;

/// Tokens that a model reads at most whatever it is told.
const LENGTH_MAX: usize = 1 << 24;

/// Tokens of requests that there must be memory for.
const LENGTH_SHORT: usize = 256;

struct Evaluation {
    report: EvaluationReport,
    is_interrupted: bool,
}

/// Runs the tasks. Ctrl-C ends after the batch at hand, with the tasks that are finished.
///
/// # Errors
/// Model, tokenizer or questions cannot be read, or a file cannot be written.
pub async fn run(args: EvalArgs) -> Result<u8> {
    if args.tasks.is_empty() {
        let names = KNOWN_TASKS.map(|(name, _)| name);
        bail!("name --tasks: {}, or a task file", names.join(", "));
    }
    let outputs = [&args.json, &args.samples, &args.cache];
    let outputs: Vec<_> = outputs.into_iter().flatten().collect();
    if let Some(path) = outputs
        .iter()
        .enumerate()
        .find_map(|(index, path)| outputs[..index].contains(path).then_some(path))
    {
        bail!("{} is named for two outputs", path.display());
    }
    args.engine.unwrap_or_default().start_again_with_threads(threads(&args))?;
    let json = args.json.clone();
    let is_cached = args.cache.is_some();
    let done = signals::blocking_until_asked_to_end(move |end| evaluate(&args, end)).await?;
    if !done.report.tasks.is_empty() {
        print(&done.report.table());
    }
    if done.is_interrupted {
        match is_cached {
            true => exit::tell("interrupted; the same command resumes"),
            false => exit::tell("interrupted; with --cache FILE the same command could resume"),
        }
        return Ok(exit::INTERRUPTED);
    }
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&done.report)?;
        std::fs::write(&path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(exit::SUCCESS)
}

fn threads(args: &EvalArgs) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    args.threads.unwrap_or_else(cores)
}

fn evaluate(args: &EvalArgs, end: &AtomicBool) -> Result<Evaluation> {
    // Questions first: a wrong path is noticed before a large model is read.
    let tasks = tasks(args)?;
    if let Some(path) = &args.json {
        check_writable(path)?;
    }
    let started = Instant::now();
    let threads = Threads::new(threads(args))?;
    let device = args.device.open(args.engine, threads)?;
    let settings = settings(args, &*device)?;
    let EvaluatedModel { model, tokenizer, prefix, begins } = model::open(args)?;
    let mut report = EvaluationReport::new(args, &model, &settings, prefix);
    tracing::info!("model and questions read in {:.1} s", started.elapsed().as_secs_f64());

    let mut files = OutputFiles::open(args, &model, device.name())?;
    let vocabulary = Vocabulary::new(&tokenizer, prefix, begins);
    let harness = Harness::new(&model, vocabulary, &*device, settings);
    let mut is_interrupted = false;
    for task in &tasks {
        match run_task(&harness, task, files.cache.as_mut(), end) {
            Ok((outcome, samples)) => {
                files.write(&task.file.name, &samples)?;
                report.tasks.push(outcome);
            }
            Err(HarnessError::Score(ScoreError::Interrupted)) => {
                is_interrupted = true;
                break;
            }
            Err(error) => return Err(error).context(format!("task {}", task.file.name)),
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(Evaluation { report, is_interrupted })
}

/// How the tasks are run, by the header of the model's files: a batch is as large as asked for, or as the memory has
/// room for if that is less.
///
/// # Errors
/// The model does not fit the memory, not even with one short request at a time.
fn settings(args: &EvalArgs, device: &dyn Device) -> Result<HarnessSettings> {
    let config = trainer::files::configuration(&args.model)?;
    let length_max = args.max_length.unwrap_or(config.seq_len.min(LENGTH_DEFAULT));
    let length_max = length_max.clamp(1, LENGTH_MAX);
    let short = length_max.min(LENGTH_SHORT);
    let own = own_memory(device, &config, short, short)?;
    let costs = |config: &ModelConfig, length, batch_tokens| match own {
        Some(_) => CpuCosts::of_evaluator_beside_cards(config)?.bytes(),
        None => memory_of(config, length, batch_tokens, device.threads().count()),
    };
    memory::check("an evaluation", &config, None, |config| costs(config, short, short))?;
    let available = memory::available().unwrap_or(u64::MAX);
    let fits = |length, batch_tokens| {
        own_memory(device, &config, length, batch_tokens).is_ok()
            && costs(&config, length, batch_tokens).is_ok_and(|bytes| bytes <= available)
    };
    let mut batch_tokens = args.batch_tokens;
    while batch_tokens > short && !fits(short, batch_tokens) {
        batch_tokens /= 2;
    }
    let (mut length_that_fits, mut too_long) = (short, length_max + 1);
    while length_that_fits + 1 < too_long {
        let length = length_that_fits.midpoint(too_long);
        match fits(length, batch_tokens) {
            true => length_that_fits = length,
            false => too_long = length,
        }
    }
    Ok(HarnessSettings {
        length_max,
        length_that_fits,
        batch_tokens,
        seed: args.seed,
        limit: args.limit,
    })
}

/// What the device's own memory holds of an evaluation that asks a model requests of up to `length` tokens, in batches of
/// about so many tokens; an error if that does not fit.
fn own_memory(
    device: &dyn Device,
    config: &ModelConfig,
    length: usize,
    batch_tokens: usize,
) -> Result<Option<OwnMemory>, DeviceError> {
    let (samples, seq_len) = rung_shape(length, batch_tokens);
    device.prediction_fit(&ModelConfig { seq_len, ..config.clone() }, samples, false)
}

/// Bytes that the same evaluation takes of the host's memory where the host computes.
fn memory_of(
    config: &ModelConfig,
    length: usize,
    batch_tokens: usize,
    threads: usize,
) -> Result<u64, BudgetError> {
    let (samples, seq_len) = rung_shape(length, batch_tokens);
    let config = ModelConfig { seq_len, ..config.clone() };
    CpuCosts::of_evaluator(&config, samples, threads)?
        .and_parameters("parameters", &config, 1)?
        .bytes()
}

/// Finds out now that a report cannot be written, and not after hours of work. What an earlier one left there stays until
/// it is replaced.
fn check_writable(path: &Path) -> Result<()> {
    let is_new = !path.exists();
    let file = File::options().append(true).create(true).open(path);
    file.with_context(|| path.display().to_string())?;
    if is_new {
        std::fs::remove_file(path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Reads the questions of all tasks.
fn tasks(args: &EvalArgs) -> Result<Vec<Task>> {
    if args.data.is_some() && args.tasks.len() > 1 {
        bail!("--data is of one task; there are {}", args.tasks.len());
    }
    let read = |name: &String| {
        let (mut file, folder) = task_file(name, &args.task_dir)?;
        if let Some(data) = &args.data {
            // Not relative to the task's folder, where examples and labels still are.
            let data = std::path::absolute(data).with_context(|| data.display().to_string())?;
            file = file.with_data(data)?;
        }
        if let Some(shots) = args.shots {
            file.shots = usize::from(shots);
        }
        Task::load(file, &folder).with_context(|| format!("task {name}"))
    };
    args.tasks.iter().map(read).collect()
}

/// The task of a name or in a file, and the folder that its paths are relative to.
fn task_file(name: &str, task_dir: &Path) -> Result<(TaskFile, PathBuf)> {
    if let Some((_, toml)) = KNOWN_TASKS.iter().find(|(known, _)| *known == name) {
        let file = toml::from_str(toml).with_context(|| format!("task {name}"))?;
        return Ok((file, task_dir.to_owned()));
    }
    let path = Path::new(name);
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    if !is_json && path.extension().is_none_or(|extension| extension != "toml") {
        let names = KNOWN_TASKS.map(|(name, _)| name);
        bail!("no task {name:?}; there are {}, and files .toml and .json", names.join(", "));
    }
    let text = text_file::read(path)?;
    let file = match is_json {
        true => dataset::json::value(text.as_bytes())
            .and_then(serde_json::from_value)
            .with_context(|| format!("in {name}"))?,
        false => toml::from_str(&text).with_context(|| format!("in {name}"))?,
    };
    Ok((file, path.parent().unwrap_or(Path::new("")).to_owned()))
}

fn run_task(
    harness: &Harness<'_>,
    task: &Task,
    cache: Option<&mut Cache>,
    end: &AtomicBool,
) -> Result<(TaskReport, Vec<Sample>), HarnessError> {
    let bar = ProgressBar::no_length();
    let template = "{prefix} {wide_bar} {pos}/{len} {msg} {eta}";
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_prefix(task.file.name.clone());
    let started = Instant::now();
    let outcome = harness.run(task, cache, &mut |progress: Progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        let rate = progress.tokens as f64 / started.elapsed().as_secs_f64();
        bar.set_message(format!("{rate:.0} tokens/s"));
        match end.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    outcome
}

/// The files that are written while the tasks run.
struct OutputFiles {
    cache: Option<Cache>,
    samples: Option<(PathBuf, BufWriter<File>)>,
}

impl OutputFiles {
    fn open(args: &EvalArgs, model: &Model, device: &str) -> Result<Self> {
        let cache = args.cache.as_ref().map(|path| {
            let cache = Cache::open(path, model, device);
            cache.with_context(|| path.display().to_string())
        });
        let samples = args.samples.as_ref().map(|path| {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            anyhow::Ok((path.clone(), BufWriter::new(file)))
        });
        Ok(Self { cache: cache.transpose()?, samples: samples.transpose()? })
    }

    fn write(&mut self, task: &str, samples: &[Sample]) -> Result<()> {
        let Some((path, file)) = &mut self.samples else {
            return Ok(());
        };
        let mut write = || {
            for sample in samples {
                let line = report::SampleRecord { task, sample };
                serde_json::to_writer(&mut *file, &line)?;
                file.write_all(b"\n")?;
            }
            file.flush()
        };
        write().with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_tasks_are_named_as_their_files_say() {
        for (name, _) in KNOWN_TASKS {
            let (file, folder) = task_file(name, Path::new("/data")).unwrap();
            assert_eq!((file.name.as_str(), folder), (name, PathBuf::from("/data")));
        }
        assert!(task_file("mmluu", Path::new("")).is_err());
    }

    #[test]
    fn mmlu_has_each_of_its_57_subjects_in_one_group() {
        for name in ["mmlu", "mmlu_dev"] {
            let (file, _) = task_file(name, Path::new("")).unwrap();
            let mut subjects: Vec<_> = file.groups.values().flatten().collect();
            subjects.sort();
            subjects.dedup();
            assert_eq!(subjects.len(), 57);
            assert_eq!(file.groups.values().map(Vec::len).sum::<usize>(), 57);
        }
    }

    #[test]
    fn the_task_of_the_documentation_is_one() {
        let text = include_str!("../../../docs/EVALUATION.md");
        let start = text.find("```toml\n").unwrap() + 8;
        let toml = &text[start..start + text[start..].find("```").unwrap()];
        let file: TaskFile = toml::from_str(toml).unwrap();
        assert_eq!(file.shots, 3);
        assert!(toml::from_str::<TaskFile>(&toml.replace("shots", "shot")).is_err());
    }
}
