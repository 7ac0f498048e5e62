//! The harness: scores are those of transformers, and batches, caches and interruptions change
//! none of them.

use std::ops::ControlFlow;

use dataset::Tokenizer;
use serde::Deserialize;
use trainer::harness::{
    Cache, Format, Harness, HarnessError, HarnessSettings, Progress, ScoreError, ScoreRequest,
    Scorer, Scores, ShotOrder, Subject, Task, TaskFile, Vocabulary,
};
use trainer::harness::{Question, Sample, TaskReport};
use trainer::{Cpu, Model, ModelConfig, Threads};

/// Sums of 30 float32 log-probabilities of about 5 each differ by less between two machines.
const TOLERANCE: f64 = 1e-3;

/// Of `trainer/checks/harness_fixture.py`, which made the file.
fn config() -> ModelConfig {
    ModelConfig {
        vocab: 256,
        hidden: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        ffn: 48,
        seq_len: 128,
        tied: false,
        ..ModelConfig::preset("nano").unwrap()
    }
}

/// The parameters of `trainer/checks/harness_fixture.py`.
pub(crate) fn model() -> Model {
    let mut bytes = Vec::new();
    for (tensor, info) in config().tensors().iter().enumerate() {
        let matrix = info.shape.len() == 2;
        for index in 0..info.len() as u32 {
            let place = tensor as u32 * 97_531 + 12_345;
            let mut mixed = index.wrapping_mul(2_654_435_761).wrapping_add(place);
            mixed ^= mixed >> 15;
            mixed = mixed.wrapping_mul(739_982_445);
            mixed ^= mixed >> 12;
            let fraction = (mixed >> 8) as f32 / (1u32 << 24) as f32;
            let value = (fraction - 0.5) * 0.2;
            let value = if matrix { value * 8.0 } else { value + 1.0 };
            bytes.extend(value.to_le_bytes());
        }
    }
    Model::from_bytes(&config(), &bytes).unwrap()
}

#[derive(Deserialize)]
struct Expected {
    context: String,
    continuation: String,
    log_likelihood: f64,
    greedy: bool,
}

fn expected() -> Vec<Expected> {
    serde_json::from_str(include_str!("../fixtures/harness.json")).unwrap()
}

fn requests(vocabulary: &Vocabulary<'_>) -> Vec<ScoreRequest> {
    let expected = expected();
    let request = expected.iter().flat_map(|row| {
        let endings = std::slice::from_ref(&row.continuation);
        vocabulary.requests(&row.context, endings).unwrap()
    });
    request.collect()
}

fn scores(model: &Model, length_max: usize, batch_tokens: usize, threads: usize) -> Scores {
    let tokenizer = Tokenizer::bytes();
    let requests = requests(&Vocabulary::new(&tokenizer, 0, false));
    let device = Cpu::new(Threads::new(threads).unwrap());
    let scorer = Scorer::new(model, &device, length_max, batch_tokens);
    scorer.score(&requests, None, &mut go_on).unwrap()
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn scores_are_those_of_transformers() {
    let scores = scores(&model(), 128, 512, 2);
    let mut truncated = 0;
    for ((row, score), cut) in expected().iter().zip(&scores.scores).zip(&scores.truncated) {
        let difference = (row.log_likelihood - score.log_likelihood).abs();
        assert!(difference < TOLERANCE, "{:?}: {difference}", row.continuation);
        assert_eq!(row.greedy, score.greedy);
        truncated += usize::from(*cut);
    }
    assert_eq!(truncated, 1, "the last context does not fit");
}

#[test]
fn batches_and_threads_do_not_change_scores() {
    let model = model();
    let reference = scores(&model, 128, 1, 1);
    for (batch_tokens, threads) in [(100, 1), (4096, 1), (4096, 2)] {
        let other = scores(&model, 128, batch_tokens, threads);
        assert_eq!(reference.truncated, other.truncated);
        assert_eq!(reference.tokens, other.tokens);
        for (a, b) in reference.scores.iter().zip(&other.scores) {
            assert!((a.log_likelihood - b.log_likelihood).abs() < 1e-4);
        }
    }
}

#[test]
fn choices_of_one_token_cost_one_pass() {
    let model = model();
    let tokenizer = Tokenizer::bytes();
    let vocabulary = Vocabulary::new(&tokenizer, 0, false);
    let letters = ["A", "B", "C", "D"].map(str::to_owned);
    let requests = vocabulary.requests("Which one?\nAnswer:", &letters).unwrap();
    let device = Cpu::new(Threads::single());
    let scorer = Scorer::new(&model, &device, 128, 512);
    let scores = scorer.score(&requests, None, &mut go_on).unwrap();
    assert_eq!(scores.tokens, "Which one?\nAnswer:".len() as u64);
    let probabilities = scores.scores.iter().map(|score| score.log_likelihood.exp());
    assert!(probabilities.sum::<f64>() < 1.0);
}

#[test]
fn exactly_one_of_all_tokens_is_greedy() {
    let model = model();
    let token = |token| ScoreRequest { context: vec![65, 66], continuation: vec![token] };
    let requests: Vec<ScoreRequest> = (0..256).map(token).collect();
    let device = Cpu::new(Threads::single());
    let scorer = Scorer::new(&model, &device, 128, 512);
    let scores = scorer.score(&requests, None, &mut go_on).unwrap().scores;
    let sum: f64 = scores.iter().map(|score| score.log_likelihood.exp()).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    let best = scores.iter().max_by(|a, b| a.log_likelihood.total_cmp(&b.log_likelihood));
    assert!(best.unwrap().greedy);
    assert_eq!(scores.iter().filter(|score| score.greedy).count(), 1);
}

#[test]
fn what_cannot_be_scored_is_an_error() {
    let model = model();
    let device = Cpu::new(Threads::single());
    let scorer = Scorer::new(&model, &device, 4, 512);
    let request = |continuation: Vec<u32>| ScoreRequest { context: vec![65], continuation };
    let long = scorer.score(&[request(vec![65; 5])], None, &mut go_on);
    assert!(matches!(long, Err(ScoreError::TooLong { tokens: 5, max: 4 })));
    let small = Scorer::new(&model, &device, 128, 512).with_length_that_fits(16);
    assert!(small.score(&[request(vec![65; 16])], None, &mut go_on).is_ok());
    let long = small.score(&[request(vec![65; 17])], None, &mut go_on);
    assert!(matches!(long, Err(ScoreError::Memory { tokens: 17, max: 16 })));
    for tokens in [vec![256], vec![256, 65]] {
        let unknown = scorer.score(&[request(tokens)], None, &mut go_on);
        assert!(matches!(unknown, Err(ScoreError::Batch(_))), "{unknown:?}");
    }
}

/// Questions of different lengths, each an example for the others.
fn task(shots: usize) -> Task {
    let question = |index: usize| Question {
        prompts: vec![format!("Question: {}?\nAnswer:", "why ".repeat(index + 1))],
        endings: ["because", "no", "it is so"].map(str::to_owned).to_vec(),
        answer: index % 3,
    };
    let file = TaskFile {
        name: "why".into(),
        format: Format::Choices,
        data: "unread".into(),
        labels: None,
        shots_data: None,
        shots_labels: None,
        shots,
        shots_order: ShotOrder::Random,
        description: String::new(),
        prompt: String::new(),
        delimiter: " ".into(),
        groups: Default::default(),
    };
    let subject = Subject {
        name: "why".into(),
        description: "Answer.\n\n".into(),
        questions: (0..9).map(question).collect(),
        pool: None,
    };
    Task { file, subjects: vec![subject], texts: Vec::new() }
}

fn run(
    model: &Model,
    task: &Task,
    cache: Option<&mut Cache>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(TaskReport, Vec<Sample>), HarnessError> {
    let tokenizer = Tokenizer::bytes();
    let settings = HarnessSettings {
        length_max: 128,
        length_that_fits: usize::MAX,
        batch_tokens: 200,
        seed: 1234,
        limit: None,
    };
    let vocabulary = Vocabulary::new(&tokenizer, 0, false);
    let device = Cpu::new(Threads::single());
    let harness = Harness::new(model, vocabulary, &device, settings);
    harness.run(task, cache, progress)
}

#[test]
fn interrupted_evaluations_go_on_where_they_stopped() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let path = folder.path().join("cache");
    let reference = run(&model, &task(0), None, &mut go_on).unwrap();

    let mut cache = Cache::open(&path, &model, "cpu").unwrap();
    let mut batches = 0;
    let ended = run(&model, &task(0), Some(&mut cache), &mut |_| {
        batches += 1;
        match batches {
            4 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    let interrupted = |error| matches!(error, HarnessError::Score(ScoreError::Interrupted));
    assert!(ended.is_err_and(interrupted));
    drop(cache);

    // A line that a crash cut off.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 9);
    std::fs::write(&path, bytes).unwrap();

    let mut cache = Cache::open(&path, &model, "cpu").unwrap();
    let resumed = run(&model, &task(0), Some(&mut cache), &mut go_on).unwrap();
    assert!(resumed.0.tokens < reference.0.tokens);
    assert_eq!(resumed.0.subjects, reference.0.subjects);
    drop(cache);

    let mut cache = Cache::open(&path, &model, "cpu").unwrap();
    let known = run(&model, &task(0), Some(&mut cache), &mut go_on).unwrap();
    assert_eq!(known.0.tokens, 0);
    for (a, b) in known.1.iter().zip(&reference.1) {
        for (a, b) in a.log_likelihoods.iter().zip(&b.log_likelihoods) {
            assert!((a - b).abs() < 1e-4);
        }
    }
}

#[test]
fn another_model_or_device_finds_nothing_in_the_cache() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let path = folder.path().join("cache");
    let mut cache = Cache::open(&path, &model, "cpu").unwrap();
    let first = run(&model, &task(0), Some(&mut cache), &mut go_on).unwrap();
    drop(cache);
    let other = Model::init(model.config(), 3).unwrap();
    let mut cache = Cache::open(&path, &other, "cpu").unwrap();
    let second = run(&other, &task(0), Some(&mut cache), &mut go_on).unwrap();
    assert_eq!(first.0.tokens, second.0.tokens);
    drop(cache);
    let mut cache = Cache::open(&path, &model, "candle").unwrap();
    let third = run(&model, &task(0), Some(&mut cache), &mut go_on).unwrap();
    assert_eq!(first.0.tokens, third.0.tokens);
}

#[test]
fn contexts_that_do_not_fit_are_counted() {
    let model = model();
    let (none, _) = run(&model, &task(0), None, &mut go_on).unwrap();
    assert_eq!(none.subjects[0].truncated, 0);
    let (all, samples) = run(&model, &task(6), None, &mut go_on).unwrap();
    assert_eq!(all.subjects[0].truncated, 27);
    assert_eq!(samples.len(), 9);
    assert_eq!(samples, run(&model, &task(6), None, &mut go_on).unwrap().1);
}

#[test]
fn too_few_examples_are_an_error() {
    let ended = run(&model(), &task(9), None, &mut go_on);
    assert!(matches!(ended, Err(HarnessError::Task(_))));
}

#[test]
fn perplexity_is_that_of_the_windows() {
    let model = model();
    let text = "It was a dark and stormy night. ".repeat(12);
    let mut task = task(0);
    task.file.format = Format::Text;
    task.subjects.clear();
    task.texts = vec![("a".into(), text.clone()), ("b".into(), "Rain.".into())];
    let (report, _) = run(&model, &task, None, &mut go_on).unwrap();

    let tokenizer = Tokenizer::bytes();
    let vocabulary = Vocabulary::new(&tokenizer, 0, false);
    let (windows, tokens) = vocabulary.windows(&text, 128).unwrap();
    let device = Cpu::new(Threads::single());
    let scorer = Scorer::new(&model, &device, 128, 128);
    let scores = scorer.score(&windows, None, &mut go_on).unwrap().scores;
    let sum: f64 = scores.iter().map(|score| score.log_likelihood).sum();
    let perplexity = (-sum / tokens as f64).exp();
    let reported = report.subjects[0].metrics["token_perplexity"].value;
    assert!((perplexity / reported - 1.0).abs() < 1e-6);
    assert_eq!(tokens, text.len() as u64);
    assert_eq!(report.groups[0].questions, 2);
}
