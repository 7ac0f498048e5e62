//! Tasks as data: what to ask, where it lies and how it is asked.
//!
//! A [`TaskFile`] is what a person writes; [`Task`] has read the questions. The files of the tasks
//! that everybody knows are in [`KNOWN_TASKS`]; `docs/EVALUATION.md` explains every field.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{read_text, TaskError};
use super::question::{self, Format, Question};
use super::text;

/// Names and task files (TOML) of the tasks that need no file of one's own.
pub const KNOWN_TASKS: [(&str, &str); 9] = [
    ("mmlu", include_str!("tasks/mmlu.toml")),
    ("mmlu_dev", include_str!("tasks/mmlu_dev.toml")),
    ("arc_easy", include_str!("tasks/arc_easy.toml")),
    ("arc_challenge", include_str!("tasks/arc_challenge.toml")),
    ("hellaswag", include_str!("tasks/hellaswag.toml")),
    ("piqa", include_str!("tasks/piqa.toml")),
    ("openbookqa", include_str!("tasks/openbookqa.toml")),
    ("winogrande", include_str!("tasks/winogrande.toml")),
    ("perplexity", include_str!("tasks/perplexity.toml")),
];

/// How examples are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShotOrder {
    /// The first ones.
    First,
    /// Random ones for each question, drawn from the seed.
    #[default]
    Random,
}

/// A task as a person describes it. Paths are relative to the folder of the data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskFile {
    /// The name in the report.
    pub name: String,
    /// How the questions are written down.
    pub format: Format,
    /// The questions: a file, or a folder of files where the format is of several.
    pub data: PathBuf,
    /// Labels of the questions, where they are in a file of their own.
    #[serde(default)]
    pub labels: Option<PathBuf>,
    /// Solved questions to show as examples. Without them, the other questions are shown.
    #[serde(default)]
    pub shots_data: Option<PathBuf>,
    /// Their labels.
    #[serde(default)]
    pub shots_labels: Option<PathBuf>,
    /// Examples before each question.
    #[serde(default)]
    pub shots: usize,
    /// Which examples.
    #[serde(default)]
    pub shots_order: ShotOrder,
    /// Stands before the examples; `{subject}` is the subject with spaces.
    #[serde(default)]
    pub description: String,
    /// The prompt of a question of [`Format::Choices`], with its fields in braces.
    #[serde(default = "context")]
    pub prompt: String,
    /// Between prompt and ending.
    #[serde(default = "space")]
    pub delimiter: String,
    /// Subjects that are summed up together: name → subjects.
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<String>>,
}

impl TaskFile {
    /// The same task of other questions. Their labels, if the format has them in a file of their own,
    /// are beside them under their name (`valid.jsonl`, `valid-labels.lst`) where there is such a file.
    ///
    /// # Errors
    /// `data` is a folder of several files where one is needed, or cannot be read.
    pub fn with_data(mut self, data: PathBuf) -> Result<Self, TaskError> {
        if self.labels.is_some() {
            let file = only_file(&data, ".jsonl")?;
            let stem = name_of(&file.with_extension(""));
            let beside = file.with_file_name(format!("{stem}-labels.lst"));
            self.labels = Some(beside).filter(|labels| labels.is_file()).or(self.labels);
        }
        self.data = data;
        Ok(self)
    }
}

fn context() -> String {
    "{context}".to_owned()
}

fn space() -> String {
    " ".to_owned()
}

/// The questions of one subject; a task without subjects has one, of its own name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// Stands before examples and question.
    pub description: String,
    /// What is asked.
    pub questions: Vec<Question>,
    /// Examples; `None` where the questions themselves are.
    pub pool: Option<Vec<Question>>,
}

/// A task with its questions, or with its texts.
#[derive(Clone, Debug)]
pub struct Task {
    /// As it was written.
    pub file: TaskFile,
    /// The subjects, in order of their names.
    pub subjects: Vec<Subject>,
    /// The texts of [`Format::Text`]: name and content.
    pub texts: Vec<(String, String)>,
}

impl Task {
    /// Reads the questions of a task, whose paths are relative to `folder`.
    ///
    /// # Errors
    /// A file cannot be read, or a row is not what the format says.
    pub fn load(file: TaskFile, folder: &Path) -> Result<Self, TaskError> {
        let data = folder.join(&file.data);
        let mut texts = Vec::new();
        let subjects = match file.format {
            Format::Text => {
                texts = read_texts(&data)?;
                Vec::new()
            }
            Format::MmluPrompts => solved_subjects(&file, &only_file(&data, ".json")?)?,
            Format::Mmlu => csv_subjects(&file, folder, &data)?,
            _ => vec![one_subject(&file, folder, &data)?],
        };
        let task = Self { file, subjects, texts };
        let questions = task.subjects.iter().map(|subject| subject.questions.len());
        match questions.sum::<usize>() + task.texts.len() {
            0 => Err(TaskError::Empty(data)),
            _ => Ok(task),
        }
    }
}

/// The files of a folder whose names end in `ending`, in small letters or large ones, in order of their names; hidden
/// files are passed over.
fn files_of(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, TaskError> {
    let at = |source| TaskError::Io { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at)? {
        let path = entry.map_err(at)?.path();
        let name = name_of(&path);
        let is_asked = name.to_ascii_lowercase().ends_with(ending) && !name.starts_with('.');
        if path.is_file() && is_asked {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn read_texts(data: &Path) -> Result<Vec<(String, String)>, TaskError> {
    let files = match data.is_dir() {
        true => files_of(data, "")?,
        false => vec![data.to_owned()],
    };
    let mut texts = Vec::with_capacity(files.len().min(1 << 16));
    for path in &files {
        let text = read_text(path)?;
        // Nothing has no perplexity.
        if !text.trim().is_empty() {
            texts.push((name_of(path), text));
        }
    }
    Ok(texts)
}

fn subject(
    file: &TaskFile,
    name: &str,
    questions: Vec<Question>,
    pool: Option<Vec<Question>>,
) -> Result<Subject, TaskError> {
    let spoken = name.replace('_', " ");
    let description =
        text::fill(&file.description, |field| (field == "subject").then(|| spoken.clone()));
    let description =
        description.map_err(|problem| TaskError::Template { task: file.name.clone(), problem })?;
    Ok(Subject { name: name.to_owned(), description, questions, pool })
}

/// A file, or the only file of a folder whose name ends in `ending`: a folder of one file is asked
/// as that file is.
fn only_file(data: &Path, ending: &str) -> Result<PathBuf, TaskError> {
    if !data.is_dir() {
        return Ok(data.to_owned());
    }
    let mut files = files_of(data, ending)?;
    if files.is_empty() {
        files = files_of(data, ".json")?;
    }
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (last, _) => {
            files.extend(last);
            let names: Vec<String> = files.iter().map(|file| name_of(file)).collect();
            Err(TaskError::OneFile { folder: data.to_owned(), ending: ending.to_owned(), names })
        }
    }
}

fn one_subject(file: &TaskFile, folder: &Path, data: &Path) -> Result<Subject, TaskError> {
    let read = |path: &Path, labels: &Option<PathBuf>| {
        let path = only_file(path, ".jsonl")?;
        let labels = labels.as_ref().map(|labels| folder.join(labels));
        question::read(file.format, &path, labels.as_deref(), &file.prompt)
    };
    let questions = read(data, &file.labels)?;
    // Examples may be missing from the disk as long as nobody wants any.
    let pool = match &file.shots_data {
        Some(path) if file.shots > 0 => Some(read(&folder.join(path), &file.shots_labels)?),
        _ => None,
    };
    subject(file, &file.name, questions, pool)
}

/// MMLU's files, `<subject>_<split>.csv` in a folder of that split, or one of them.
fn csv_subjects(file: &TaskFile, folder: &Path, data: &Path) -> Result<Vec<Subject>, TaskError> {
    let read = |path: &Path| question::read(file.format, path, None, &file.prompt);
    let files = |path: &Path| match path.is_dir() {
        true => files_of(path, ".csv"),
        false => Ok(vec![path.to_owned()]),
    };
    let shots = match &file.shots_data {
        Some(shots) if file.shots > 0 => files(&folder.join(shots))?,
        _ => Vec::new(),
    };
    let mut subjects = Vec::new();
    for path in files(data)? {
        let name = subject_name(&path);
        // One file of examples for one file of questions needs no name.
        let is_pair = shots.len() == 1 && !data.is_dir();
        let pool = shots.iter().find(|shots| is_pair || subject_name(shots) == name);
        let pool = match (pool, &file.shots_data) {
            (Some(shots), _) => Some(read(shots)?),
            (None, Some(_)) => Some(Vec::new()),
            (None, None) => None,
        };
        subjects.push(subject(file, &name, read(&path)?, pool)?);
    }
    Ok(subjects)
}

/// The subject in a file's name.
fn subject_name(path: &Path) -> String {
    let name = name_of(path);
    let stem = match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() && !ending.contains(' ') => stem,
        _ => &name,
    };
    let splits = ["_test", "_val", "_dev"];
    let split = splits.iter().find_map(|split| stem.strip_suffix(split));
    split.unwrap_or(stem).to_owned()
}

fn solved_subjects(file: &TaskFile, data: &Path) -> Result<Vec<Subject>, TaskError> {
    let content = read_text(data)?;
    let all = dataset::json::value(content.as_bytes()).and_then(serde_json::from_value);
    let all: BTreeMap<String, String> =
        all.map_err(|error| TaskError::line(data, error.line(), error.to_string()))?;
    let subjects = all.iter().map(|(name, solved)| {
        let questions = question::from_solved(solved).map_err(|index| {
            let problem = format!("{name}: no question with choices and answer");
            TaskError::line(data, index + 1, problem)
        })?;
        subject(file, name, questions, None)
    });
    subjects.collect()
}
