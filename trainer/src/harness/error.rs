//! Reads the files of tasks, and says why a task cannot be asked.

use std::path::{Path, PathBuf};

/// Largest file of questions or of text that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Why a task cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is larger than a set of questions can be.
    #[error("{path} has {found} bytes; at most {FILE_BYTES_MAX} are read")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
    },
    /// A place in a file is not what its format says.
    #[error("{path}, row {row}: {problem}")]
    Row {
        /// The file.
        path: PathBuf,
        /// The row, counted from 1.
        row: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The file of labels is missing from the task.
    #[error("{0}: this format needs a file of labels")]
    Labels(PathBuf),
    /// A folder where one file is needed has none or several that may be it.
    #[error("{folder}: a folder of {} files *{ending}, where one is asked{}", names.len(), listed(names))]
    OneFile {
        /// The folder.
        folder: PathBuf,
        /// How the file's name must end.
        ending: String,
        /// The names of those that are there.
        names: Vec<String>,
    },
    /// There is nothing to ask.
    #[error("{0}: no questions, or no text")]
    Empty(PathBuf),
    /// A template names a field that does not exist.
    #[error("task {task}: {problem}")]
    Template {
        /// The task.
        task: String,
        /// What is wrong.
        problem: String,
    },
    /// Examples are wanted and there are not as many.
    #[error("task {task}: {wanted} examples wanted, {found} found")]
    Shots {
        /// The task.
        task: String,
        /// Examples before each question.
        wanted: usize,
        /// Examples there are.
        found: usize,
    },
}

impl TaskError {
    pub(super) fn line(path: &Path, row: usize, problem: String) -> Self {
        Self::Row { path: path.to_owned(), row, problem }
    }
}

/// Some of the names, behind what says how many there are.
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!(": {}", names[..names.len().min(8)].join(", ")),
    }
}

/// The whole of a text file, without a byte order mark. What is not UTF-8 becomes U+FFFD, and is said.
pub(super) fn read_text(path: &Path) -> Result<String, TaskError> {
    let at = |source| TaskError::Io { path: path.to_owned(), source };
    let found = std::fs::metadata(path).map_err(at)?.len();
    if found > FILE_BYTES_MAX {
        return Err(TaskError::TooLarge { path: path.to_owned(), found });
    }
    let text = dataset::text_of(&std::fs::read(path).map_err(at)?);
    let (text, damage) = text.map_err(|problem| TaskError::line(path, 1, problem))?;
    if let Some(damage) = damage {
        tracing::warn!("{}: {damage}", path.display());
    }
    Ok(text)
}
