//! The evaluation of a model by questions with answers to choose from, and by perplexity.
//!
//! A task asks a question, and the model's answer is the choice that it finds most likely as the
//! question's continuation. Nothing is generated. Prompts, tokenisation and figures are those of
//! lm-evaluation-harness, so that results may be compared with published ones; the code is not.
//!
//! The way of a question: [`task`] reads it ([`question`] knows the formats), examples are put
//! before it, [`request`] turns it into tokens, [`score`] into log-likelihoods ([`cache`] keeps
//! them), [`metrics`] into figures. What is left out: generated answers, chat templates, and
//! contamination checks.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::compute::threads::Threads;
use crate::engine::device::Device;
use crate::model::Model;
use dataset::tokenizer::TokenizerError;

pub mod error;
pub mod question;
pub mod task;

mod csv;
mod shots;
mod text;

pub mod request;

pub mod cache;
pub mod score;

pub mod metrics;

pub use cache::Cache;
pub use error::TaskError;
pub use metrics::{Metric, Winners};
pub use question::{Format, Question};
pub use request::{RequestError, Score, ScoreRequest, Vocabulary};
pub use score::{rung_shape, OnProgress, Progress, ScoreError, Scorer, Scores};
pub use task::{ShotOrder, Subject, Task, TaskFile, KNOWN_TASKS};

use shots::{Chooser, PythonRandom};

/// Between the examples, and before the question.
const SEPARATOR: &str = "\n\n";

/// Why an evaluation ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A task cannot be asked.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A question cannot be turned into tokens.
    #[error("{subject}, question {question}: {source}")]
    ScoreRequest {
        /// The subject.
        subject: String,
        /// The question, counted from 0.
        question: usize,
        /// Why not.
        source: RequestError,
    },
    /// A text cannot be turned into tokens.
    #[error("{text}: {source}")]
    Text {
        /// The text's name.
        text: String,
        /// Why not.
        source: TokenizerError,
    },
    /// The model could not score the requests.
    #[error(transparent)]
    Score(#[from] ScoreError),
}

/// How tasks are run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HarnessSettings {
    /// Tokens that the model reads at most.
    pub length_max: usize,
    /// Tokens that there is memory to read at once; a longer request is an error.
    pub length_that_fits: usize,
    /// Tokens of a batch, about.
    pub batch_tokens: usize,
    /// Seed of random examples.
    pub seed: u32,
    /// Questions of each subject, if not all.
    pub limit: Option<usize>,
}

/// The figures of one subject, one group of subjects or one text.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SubjectResult {
    /// Its name.
    pub name: String,
    /// Questions asked, or texts read.
    pub questions: usize,
    /// Requests that were too long and lost tokens at their start.
    pub truncated: usize,
    /// `acc`, `acc_norm` (by characters), `acc_bytes`; or perplexities.
    pub metrics: BTreeMap<&'static str, Metric>,
}

/// The figures of a task.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TaskReport {
    /// The task.
    pub task: String,
    /// Examples before each question.
    pub shots: usize,
    /// Requests that were scored.
    pub requests: usize,
    /// Tokens that the model has read for it; what a cache knew is not read again.
    pub tokens: u64,
    /// One for each subject or text.
    pub subjects: Vec<SubjectResult>,
    /// Subjects summed up: the task's own groups, and all of them under the task's name. Empty
    /// where there is only one subject.
    pub groups: Vec<SubjectResult>,
}

/// What the model said to one question.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sample {
    /// The subject.
    pub subject: String,
    /// The question, counted from 0.
    pub question: usize,
    /// The right choice.
    pub answer: usize,
    /// The choices that win.
    pub winners: Winners,
    /// Log-likelihood of each choice, in nats.
    pub log_likelihoods: Vec<f64>,
    /// Whether the model would have written the choice by itself.
    pub greedy: Vec<bool>,
    /// BLAKE3 of the prompts as text, to compare two evaluations.
    pub prompt_hash: String,
}

/// A question as it is put to the model.
struct Asked<'a> {
    subject: usize,
    index: usize,
    question: &'a Question,
    /// One for all choices, or one for each.
    prompts: Vec<String>,
}

/// Runs tasks on one model.
pub struct Harness<'a> {
    vocabulary: Vocabulary<'a>,
    scorer: Scorer<'a>,
    threads: Threads,
    settings: HarnessSettings,
}

impl<'a> Harness<'a> {
    /// A harness for `model`, whose tokens `vocabulary` makes.
    pub fn new(
        model: &'a Model,
        vocabulary: Vocabulary<'a>,
        device: &'a dyn Device,
        settings: HarnessSettings,
    ) -> Self {
        let (length_max, batch_tokens) = (settings.length_max, settings.batch_tokens);
        let scorer = Scorer::new(model, device, length_max, batch_tokens);
        Self {
            vocabulary,
            scorer: scorer.with_length_that_fits(settings.length_that_fits),
            threads: device.threads().clone(),
            settings,
        }
    }

    /// Asks all questions of a task.
    ///
    /// # Errors
    /// There are not enough examples, a question has no tokens, or `progress` said to end.
    pub fn run(
        &self,
        task: &Task,
        cache: Option<&mut Cache>,
        progress: OnProgress<'_>,
    ) -> Result<(TaskReport, Vec<Sample>), HarnessError> {
        if task.file.format == Format::Text {
            return Ok((self.read_texts(task, cache, progress)?, Vec::new()));
        }
        let mut asked = Vec::new();
        for (index, subject) in task.subjects.iter().enumerate() {
            asked.extend(self.ask(&task.file, index, subject)?);
        }
        let requests = self.requests(task, &asked)?;
        let counts: Vec<usize> = requests.iter().map(Vec::len).collect();
        let requests: Vec<ScoreRequest> = requests.into_iter().flatten().collect();
        let scores = self.scorer.score(&requests, cache, progress)?;
        let samples = samples(task, &asked, &counts, &scores);
        let subjects = outcomes(task, &samples, &asked, &counts, &scores);
        let report = TaskReport {
            task: task.file.name.clone(),
            shots: task.file.shots,
            requests: requests.len(),
            tokens: scores.tokens,
            groups: groups(&task.file, &subjects),
            subjects,
        };
        Ok((report, samples))
    }

    /// Puts description and examples before each question of a subject.
    fn ask<'t>(
        &self,
        file: &TaskFile,
        subject_index: usize,
        subject: &'t Subject,
    ) -> Result<Vec<Asked<'t>>, TaskError> {
        let mut chooser = match file.shots_order {
            ShotOrder::First => Chooser::First,
            ShotOrder::Random => Chooser::Random(Box::new(PythonRandom::new(self.settings.seed))),
        };
        let limit = self.settings.limit.unwrap_or(usize::MAX);
        let mut asked = Vec::new();
        for (index, question) in subject.questions.iter().take(limit).enumerate() {
            let shots = match &subject.pool {
                Some(pool) => chooser.choose(pool, None, file.shots),
                None => chooser.choose(&subject.questions, Some(question), file.shots),
            };
            if shots.len() < file.shots {
                return Err(TaskError::Shots {
                    task: subject.name.clone(),
                    wanted: file.shots,
                    found: shots.len(),
                });
            }
            let mut before = subject.description.clone();
            for shot in shots {
                let (prompt, ending) = shot.choice(shot.answer);
                before.extend([prompt, &file.delimiter, ending, SEPARATOR]);
            }
            let prompts = question.prompts.iter();
            asked.push(Asked {
                subject: subject_index,
                index,
                question,
                prompts: prompts.map(|prompt| format!("{before}{prompt}")).collect(),
            });
        }
        Ok(asked)
    }

    /// The requests of each question, one for each choice.
    fn requests(
        &self,
        task: &Task,
        asked: &[Asked<'_>],
    ) -> Result<Vec<Vec<ScoreRequest>>, HarnessError> {
        let delimiter = &task.file.delimiter;
        let made = self.threads.map(asked.len(), |which| {
            let asked = &asked[which];
            let endings = asked.question.endings.iter();
            let endings: Vec<String> = endings.map(|e| format!("{delimiter}{e}")).collect();
            let mut requests = Vec::new();
            for prompt in &asked.prompts {
                let made = self.vocabulary.requests(prompt, &endings);
                requests.extend(made.map_err(|source| HarnessError::ScoreRequest {
                    subject: task.subjects[asked.subject].name.clone(),
                    question: asked.index,
                    source,
                })?);
            }
            Ok(requests)
        });
        made.into_iter().collect()
    }

    /// The perplexities of texts.
    fn read_texts(
        &self,
        task: &Task,
        cache: Option<&mut Cache>,
        progress: OnProgress<'_>,
    ) -> Result<TaskReport, HarnessError> {
        let mut requests = Vec::new();
        let mut counts = Vec::new();
        for (name, text) in &task.texts {
            let windows = self.vocabulary.windows(text, self.settings.length_max);
            let (windows, tokens) =
                windows.map_err(|source| HarnessError::Text { text: name.clone(), source })?;
            let counted =
                Counts { tokens, words: text::word_count(text), bytes: text.len() as u64 };
            counts.push((windows.len(), counted));
            requests.extend(windows);
        }
        let scores = self.scorer.score(&requests, cache, progress)?;
        let mut rest = scores.scores.as_slice();
        let mut sums = Vec::new();
        for (windows, counted) in counts {
            let (part, after) = rest.split_at(windows);
            rest = after;
            let sum: f64 = part.iter().map(|score| score.log_likelihood).sum();
            sums.push((sum, counted));
        }
        let outcome = |name: &str, parts: &[(f64, Counts)]| SubjectResult {
            name: name.to_owned(),
            questions: parts.len(),
            truncated: 0,
            metrics: perplexities(parts),
        };
        let texts = task.texts.iter().zip(&sums);
        let subjects: Vec<_> =
            texts.map(|((name, _), sum)| outcome(name, std::slice::from_ref(sum))).collect();
        let groups = match subjects.len() {
            1 => Vec::new(),
            _ => vec![outcome(&task.file.name, &sums)],
        };
        Ok(TaskReport {
            task: task.file.name.clone(),
            shots: 0,
            requests: requests.len(),
            tokens: scores.tokens,
            subjects,
            groups,
        })
    }
}

/// By what a text's log-likelihood is divided.
#[derive(Clone, Copy)]
struct Counts {
    tokens: u64,
    words: u64,
    bytes: u64,
}

/// The perplexities of texts together: of each unit, the mean over all texts.
fn perplexities(texts: &[(f64, Counts)]) -> BTreeMap<&'static str, Metric> {
    let sum: f64 = texts.iter().map(|(sum, _)| sum).sum();
    let mean = |count: &dyn Fn(&Counts) -> u64| {
        let units: u64 = texts.iter().map(|(_, counts)| count(counts)).sum();
        -sum / units as f64
    };
    let values = [
        ("token_perplexity", mean(&|counts| counts.tokens).exp()),
        ("word_perplexity", mean(&|counts| counts.words).exp()),
        ("byte_perplexity", mean(&|counts| counts.bytes).exp()),
        ("bits_per_byte", mean(&|counts| counts.bytes) / std::f64::consts::LN_2),
    ];
    let metric = |value| Metric { value, stderr: None };
    values.map(|(name, value)| (name, metric(value))).into()
}

/// What was said to each question.
fn samples(task: &Task, asked: &[Asked<'_>], counts: &[usize], scores: &Scores) -> Vec<Sample> {
    let mut rest = scores.scores.as_slice();
    let mut samples = Vec::with_capacity(asked.len());
    for (asked, &count) in asked.iter().zip(counts) {
        let (own, after) = rest.split_at(count);
        rest = after;
        let mut hasher = blake3::Hasher::new();
        for prompt in &asked.prompts {
            hasher.update(prompt.as_bytes());
        }
        samples.push(Sample {
            subject: task.subjects[asked.subject].name.clone(),
            question: asked.index,
            answer: asked.question.answer,
            winners: Winners::new(asked.question, own),
            log_likelihoods: own.iter().map(|score| score.log_likelihood).collect(),
            greedy: own.iter().map(|score| score.greedy).collect(),
            prompt_hash: hasher.finalize().to_string(),
        });
    }
    samples
}

/// The figures of each subject.
fn outcomes(
    task: &Task,
    samples: &[Sample],
    asked: &[Asked<'_>],
    counts: &[usize],
    scores: &Scores,
) -> Vec<SubjectResult> {
    let mut truncated = vec![0; task.subjects.len()];
    let mut rest = scores.truncated.as_slice();
    for (asked, &count) in asked.iter().zip(counts) {
        let (own, after) = rest.split_at(count);
        rest = after;
        truncated[asked.subject] += own.iter().filter(|cut| **cut).count();
    }
    let mut outcomes = Vec::with_capacity(task.subjects.len());
    for (index, subject) in task.subjects.iter().enumerate() {
        let own = samples.iter().zip(asked);
        let own: Vec<&Sample> =
            own.filter(|(_, asked)| asked.subject == index).map(|(sample, _)| sample).collect();
        if own.is_empty() {
            continue;
        }
        let share = |winner: &dyn Fn(&Winners) -> usize| {
            let right = own.iter().map(|s| winner(&s.winners) == s.answer);
            metrics::accuracy(&right.collect::<Vec<_>>())
        };
        let mut figures = BTreeMap::from([("acc", share(&|winners| winners.plain))]);
        if task.file.format.has_length_metrics() {
            figures.insert("acc_norm", share(&|winners| winners.by_characters));
            figures.insert("acc_bytes", share(&|winners| winners.by_bytes));
        }
        outcomes.push(SubjectResult {
            name: subject.name.clone(),
            questions: own.len(),
            truncated: truncated[index],
            metrics: figures,
        });
    }
    outcomes
}

/// The task's groups, and the whole of it, where there are several subjects.
fn groups(file: &TaskFile, subjects: &[SubjectResult]) -> Vec<SubjectResult> {
    if subjects.len() < 2 {
        return Vec::new();
    }
    let summed = |name: String, parts: Vec<&SubjectResult>| {
        let first = parts.first()?;
        let metrics = first.metrics.keys().map(|metric| {
            let parts = parts.iter();
            let parts = parts.filter_map(|part| Some((*part.metrics.get(metric)?, part.questions)));
            (*metric, metrics::pooled(&parts.collect::<Vec<_>>()))
        });
        Some(SubjectResult {
            name,
            questions: parts.iter().map(|part| part.questions).sum(),
            truncated: parts.iter().map(|part| part.truncated).sum(),
            metrics: metrics.collect(),
        })
    };
    let named = file.groups.iter().filter_map(|(name, members)| {
        let parts = subjects.iter().filter(|s| members.contains(&s.name));
        summed(format!("{}: {name}", file.name), parts.collect())
    });
    let whole = summed(file.name.clone(), subjects.iter().collect());
    named.chain(whole).collect()
}
