//! Writes the result of `gauntlet eval` as JSON and as a table.

use serde::Serialize;
use trainer::{
    harness::{HarnessSettings, Sample, SubjectResult, TaskReport},
    Model,
};

use super::args::EvalArgs;
use crate::terminal::aligned;

/// Subjects that a table lists; of more, only their groups are shown.
const SUBJECTS_SHOWN: usize = 8;

/// Everything that is needed to read the figures, and to make them again.
#[derive(Serialize, Debug)]
pub(super) struct EvaluationReport {
    /// As named on the command line.
    model: String,
    parameters: u64,
    vocabulary: usize,
    /// Stands before a text that has nothing before it.
    prefix_token: u32,
    max_length: usize,
    seed: u32,
    limit: Option<usize>,
    /// From reading the model to the last score.
    pub(super) seconds: f64,
    pub(super) tasks: Vec<TaskReport>,
}

/// One line of the samples' file: the model's answer to one question.
#[derive(Serialize)]
pub(super) struct SampleRecord<'a> {
    pub(super) task: &'a str,
    #[serde(flatten)]
    pub(super) sample: &'a Sample,
}

impl EvaluationReport {
    pub(super) fn new(
        args: &EvalArgs,
        model: &Model,
        settings: &HarnessSettings,
        prefix: u32,
    ) -> Self {
        Self {
            model: args.model.display().to_string(),
            parameters: model.config().parameter_count(),
            vocabulary: model.config().vocab,
            prefix_token: prefix,
            max_length: settings.length_max,
            seed: settings.seed,
            limit: settings.limit,
            seconds: 0.0,
            tasks: Vec::new(),
        }
    }

    /// A row for each figure.
    pub(super) fn table(&self) -> String {
        let mut rows = vec![["task", "shots", "questions", "metric", "value", "± stderr"]
            .map(str::to_owned)
            .to_vec()];
        let mut truncated = 0;
        for task in &self.tasks {
            let listed = task.groups.is_empty() || task.subjects.len() <= SUBJECTS_SHOWN;
            let subjects = task.subjects.iter().filter(|_| listed);
            for outcome in subjects.chain(&task.groups) {
                rows.extend(figures(task, outcome));
            }
            truncated += task.subjects.iter().map(|s| s.truncated).sum::<usize>();
        }
        let mut table = aligned(&rows);
        if truncated > 0 {
            let max = self.max_length;
            table +=
                &format!("\n{truncated} requests lost their beginning: longer than {max} tokens");
        }
        table
    }
}

fn figures(task: &TaskReport, outcome: &SubjectResult) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (name, metric) in &outcome.metrics {
        let about = match rows.is_empty() {
            true => [outcome.name.clone(), task.shots.to_string(), outcome.questions.to_string()],
            false => [const { String::new() }; 3],
        };
        let stderr = metric.stderr.map(|stderr| format!("± {stderr:.4}"));
        let mut row = about.to_vec();
        row.push((*name).to_owned());
        row.push(format!("{:.4}", metric.value));
        row.push(stderr.unwrap_or_default());
        rows.push(row);
    }
    rows
}
