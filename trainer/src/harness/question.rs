//! Questions with answers to choose from, and the formats in which they are published.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::csv;
use super::error::{read_text, TaskError};
use super::text;

/// A question with several answers, one of them right.
///
/// Either the answers differ in their ending and share one prompt, or (WinoGrande) they differ in
/// the prompt and share one ending. Only endings are scored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// One for all choices, or one for each.
    pub prompts: Vec<String>,
    /// One for each choice, or one for all.
    pub endings: Vec<String>,
    /// The right choice.
    pub answer: usize,
}

impl Question {
    fn new(prompt: String, endings: Vec<String>, answer: usize) -> Self {
        Self { prompts: vec![prompt], endings, answer }
    }

    /// How many choices there are.
    pub fn choice_count(&self) -> usize {
        self.prompts.len().max(self.endings.len())
    }

    /// Prompt and ending of a choice.
    pub fn choice(&self, index: usize) -> (&str, &str) {
        let of = |texts: &'_ [String]| index.min(texts.len().saturating_sub(1));
        let (prompt, ending) = (of(&self.prompts), of(&self.endings));
        (&self.prompts[prompt], &self.endings[ending])
    }

    fn is_valid(&self) -> bool {
        let (prompts, endings) = (self.prompts.len(), self.endings.len());
        prompts.min(endings) == 1 && prompts.max(endings) > 1 && self.answer < self.choice_count()
    }
}

/// How the questions of a task are written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// MMLU: a folder of `<subject>_<split>.csv` (or one file): question, A, B, C, D, letter.
    Mmlu,
    /// MMLU's development questions as lm-evaluation-harness ships them (`_cot_prompts.json`):
    /// an object of subject → five solved questions as one text. The reasoning is left out.
    MmluPrompts,
    /// ARC: JSONL of `question.stem`, `question.choices[].{text,label}`, `answerKey`.
    Arc,
    /// OpenBookQA: as ARC, asked without the word "Question".
    Openbookqa,
    /// HellaSwag: JSONL of `activity_label`, `ctx_a`, `ctx_b`, `endings`, `label`.
    Hellaswag,
    /// PIQA: JSONL of `goal`, `sol1`, `sol2`, and a file with a label a line.
    Piqa,
    /// WinoGrande: JSONL of `sentence` with a `_`, `option1`, `option2`, `answer`.
    Winogrande,
    /// JSONL of `context`, `choices` and `answer` (counted from 0), and any other text fields that
    /// the task's prompt names.
    Choices,
    /// Text files, of which the perplexity is measured.
    Text,
}

impl Format {
    /// What is reported besides `acc`. Where all endings have one length, and where they are the
    /// same, lengths change nothing.
    pub fn has_length_metrics(self) -> bool {
        !matches!(self, Self::Mmlu | Self::MmluPrompts | Self::Winogrande)
    }
}

/// Reads the questions of a file that is not a folder's.
pub(super) fn read(
    format: Format,
    path: &Path,
    labels: Option<&Path>,
    prompt: &str,
) -> Result<Vec<Question>, TaskError> {
    let content = read_text(path)?;
    let questions = match format {
        Format::Mmlu => mmlu(path, &content)?,
        Format::Arc => json_lines(path, &content, |row: Choice| row.ask(true))?,
        Format::Openbookqa => json_lines(path, &content, |row: Choice| row.ask(false))?,
        Format::Hellaswag => json_lines(path, &content, HellaSwag::ask)?,
        Format::Winogrande => json_lines(path, &content, WinoGrande::ask)?,
        Format::Choices => json_lines(path, &content, |row: Generic| row.ask(prompt))?,
        Format::Piqa => piqa(path, &content, labels)?,
        Format::MmluPrompts | Format::Text => Vec::new(),
    };
    Ok(questions)
}

/// A question for each line that is not empty.
fn json_lines<Row: DeserializeOwned>(
    path: &Path,
    content: &str,
    ask: impl Fn(Row) -> Result<Question, String>,
) -> Result<Vec<Question>, TaskError> {
    let mut questions = Vec::new();
    for (index, line) in content.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        // As Python reads it: `NaN` somewhere, a field that is there twice.
        let row = dataset::json::value(line.as_bytes());
        let row = row.and_then(|row| serde_json::from_value::<Row>(usual_numbers(row)));
        let row = row.map_err(|error| error.to_string());
        let question = row.and_then(&ask).and_then(check);
        questions.push(question.map_err(|problem| TaskError::line(path, index + 1, problem))?);
    }
    Ok(questions)
}

/// The value with numbers of 64 bits: rows that are read in several ways know no larger ones.
fn usual_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) if !number.is_i64() && !number.is_u64() => {
            number.as_f64().and_then(Number::from_f64).map_or(Value::Null, Value::Number)
        }
        Value::Array(list) => list.into_iter().map(usual_numbers).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, usual_numbers(value))).collect()
        }
        other => other,
    }
}

fn check(question: Question) -> Result<Question, String> {
    match question.is_valid() {
        true => Ok(question),
        false => Err(format!(
            "{} choices of which number {} is right",
            question.choice_count(),
            question.answer
        )),
    }
}

/// A number or a string of one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Label {
    Number(u64),
    Text(String),
}

impl Label {
    fn number(&self) -> Result<usize, String> {
        match self {
            Self::Number(number) => Ok(*number as usize),
            Self::Text(text) => text::strip(text)
                .parse()
                .map_err(|_| format!("the label {text:?} is not a number (a test set's?)")),
        }
    }
}

/// ARC's and OpenBookQA's rows, as published, and as data hubs flatten them.
#[derive(Deserialize)]
struct Choice {
    question: Option<Stem>,
    question_stem: Option<String>,
    choices: Option<Columns>,
    #[serde(rename = "answerKey")]
    answer_key: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stem {
    Published { stem: String, choices: Vec<Cell> },
    Flat(String),
}

#[derive(Deserialize)]
struct Cell {
    text: String,
    label: String,
}

#[derive(Deserialize)]
struct Columns {
    text: Vec<String>,
    label: Vec<String>,
}

impl Choice {
    fn ask(self, with_words: bool) -> Result<Question, String> {
        let (stem, columns) = match (self.question, self.question_stem, self.choices) {
            (Some(Stem::Published { stem, choices }), ..) => {
                let (text, label) = choices.into_iter().map(|c| (c.text, c.label)).unzip();
                (stem, Columns { text, label })
            }
            (Some(Stem::Flat(stem)), _, Some(columns)) | (_, Some(stem), Some(columns)) => {
                (stem, columns)
            }
            _ => return Err("no question with choices".into()),
        };
        let key = text::strip(&self.answer_key);
        let answer = columns.label.iter().position(|label| label == key);
        let answer = answer.ok_or_else(|| format!("no choice has the label {key:?}"))?;
        let prompt = match with_words {
            true => format!("Question: {stem}\nAnswer:"),
            false => stem,
        };
        Ok(Question::new(prompt, columns.text, answer))
    }
}

#[derive(Deserialize)]
struct HellaSwag {
    activity_label: String,
    ctx_a: String,
    ctx_b: String,
    endings: Vec<String>,
    label: Option<Label>,
}

impl HellaSwag {
    fn ask(self) -> Result<Question, String> {
        let label = self.label.ok_or("no label (a test set's?)")?;
        let scene =
            format!("{}: {} {}", self.activity_label, self.ctx_a, text::capitalize(&self.ctx_b));
        let endings = self.endings.iter().map(|ending| cleaned(ending)).collect();
        Ok(Question::new(cleaned(&scene), endings, label.number()?))
    }
}

/// HellaSwag's text without the marks that WikiHow's pages left in it.
fn cleaned(text: &str) -> String {
    let titles = text::strip(text).replace(" [title]", ". ");
    text::without_brackets(&titles).replace("  ", " ")
}

#[derive(Deserialize)]
struct WinoGrande {
    sentence: String,
    option1: String,
    option2: String,
    answer: Label,
}

impl WinoGrande {
    fn ask(self) -> Result<Question, String> {
        let answer = match self.answer.number()? {
            number @ 1..=2 => number - 1,
            other => return Err(format!("the answer is {other}, not 1 or 2")),
        };
        let gap = self.sentence.split_once('_');
        let (before, after) = gap.ok_or("the sentence has no gap (_)")?;
        let options = [self.option1, self.option2];
        Ok(Question {
            prompts: options.map(|option| format!("{before}{option}")).to_vec(),
            endings: vec![text::strip(after).to_owned()],
            answer,
        })
    }
}

#[derive(Deserialize)]
struct Generic {
    choices: Vec<String>,
    answer: Label,
    #[serde(flatten)]
    fields: std::collections::BTreeMap<String, serde_json::Value>,
}

impl Generic {
    fn ask(self, prompt: &str) -> Result<Question, String> {
        let field = |name: &str| Some(self.fields.get(name)?.as_str()?.to_owned());
        let prompt = text::fill(prompt, field)?;
        Ok(Question::new(prompt, self.choices, self.answer.number()?))
    }
}

#[derive(Deserialize)]
struct Piqa {
    goal: String,
    sol1: String,
    sol2: String,
}

fn piqa(path: &Path, content: &str, labels: Option<&Path>) -> Result<Vec<Question>, TaskError> {
    let labels = labels.ok_or_else(|| TaskError::Labels(path.to_owned()))?;
    let labels_text = read_text(labels)?;
    let answers = labels_text.split_whitespace().enumerate();
    let answers = answers.map(|(index, label)| match label {
        "0" => Ok(0),
        "1" => Ok(1),
        other => {
            let problem = format!("the label is {other:?}, not 0 or 1");
            Err(TaskError::line(labels, index + 1, problem))
        }
    });
    let answers = answers.collect::<Result<Vec<usize>, _>>()?;
    let mut questions = json_lines(path, content, |row: Piqa| {
        let prompt = format!("Question: {}\nAnswer:", row.goal);
        Ok(Question::new(prompt, vec![row.sol1, row.sol2], 0))
    })?;
    if questions.len() != answers.len() {
        let problem = format!("{} labels for {} rows", answers.len(), questions.len());
        return Err(TaskError::line(labels, answers.len(), problem));
    }
    for (question, answer) in questions.iter_mut().zip(answers) {
        question.answer = answer;
    }
    Ok(questions)
}

/// Names of choices.
const LETTERS: [&str; 6] = ["A", "B", "C", "D", "E", "F"];

/// MMLU's way to ask; the endings are the letters.
fn lettered(question: &str, choices: &[&str], answer: usize) -> Question {
    let mut prompt = text::strip(question).to_owned();
    for (letter, choice) in LETTERS.iter().zip(choices) {
        prompt.extend(["\n", letter, ". ", choice]);
    }
    prompt += "\nAnswer:";
    let letters = LETTERS.iter().take(choices.len());
    let letters = letters.map(|letter| (*letter).to_owned()).collect();
    Question::new(prompt, letters, answer)
}

fn letter(text: &str) -> Option<usize> {
    LETTERS.iter().position(|known| *known == text)
}

fn mmlu(path: &Path, content: &str) -> Result<Vec<Question>, TaskError> {
    let problem = |line, problem: &str| TaskError::line(path, line, problem.to_owned());
    let records = csv::records(content).map_err(|line| problem(line, "an unbalanced quote"))?;
    let rows = records.iter().enumerate().map(|(index, record)| {
        let [question, a, b, c, d, answer] = record.as_slice() else {
            return Err(problem(index + 1, "not six columns"));
        };
        let answer = letter(text::strip(answer));
        let answer = answer.filter(|answer| *answer < 4);
        let answer = answer.ok_or_else(|| problem(index + 1, "the answer is not A to D"))?;
        Ok(lettered(question, &[a, b, c, d], answer))
    });
    rows.collect()
}

/// The questions of one subject of [`Format::MmluPrompts`]; an error is the question that cannot be
/// read, counted from 0.
pub(super) fn from_solved(solved: &str) -> Result<Vec<Question>, usize> {
    let blocks = solved.split("\n\nQ: ").skip(1).enumerate();
    blocks.map(|(index, block)| solved_question(block).ok_or(index)).collect()
}

/// `question\n(A) a (B) b …\nA: reasoning. The answer is (X).` One of the questions has five choices.
fn solved_question(block: &str) -> Option<Question> {
    let (asked, reasoning) = block.split_once("\nA: ")?;
    let (_, after) = reasoning.rsplit_once("The answer is (")?;
    let answer = letter(after.get(..1)?)?;
    let (question, mut rest) = asked.rsplit_once("\n(A) ")?;
    let mut choices = Vec::new();
    for next in &LETTERS[1..] {
        let Some((choice, after)) = rest.split_once(&format!("({next}) ")) else {
            break;
        };
        choices.push(text::strip(choice));
        rest = after;
    }
    choices.push(text::strip(rest));
    (answer < choices.len()).then(|| lettered(question, &choices, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Python {
        capitalize: Vec<(String, String)>,
        preprocess: Vec<(String, String)>,
        words: Vec<(String, String, String, u64)>,
    }

    /// `checks/python_text.py` made the file.
    #[test]
    fn texts_are_treated_as_by_python() {
        let json = include_str!("../../tests/fixtures/practice/40-python.json");
        let python: Python = serde_json::from_str(json).unwrap();
        assert!(python.capitalize.len() > 2000 && python.preprocess.len() > 500);
        for (text, expected) in &python.capitalize {
            assert_eq!(&text::capitalize(text), expected, "{text:?}");
        }
        for (text, expected) in &python.preprocess {
            assert_eq!(&cleaned(text), expected, "{text:?}");
        }
        for (text, stripped, left, words) in &python.words {
            assert_eq!(text::strip(text), stripped, "{text:?}");
            assert_eq!(text::split_trailing_space(text).0, left, "{text:?}");
            assert_eq!(text::word_count(text), *words, "{text:?}");
        }
    }
}
