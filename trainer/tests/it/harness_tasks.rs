//! Task files: published formats become the prompts of lm-evaluation-harness, and rows that are
//! wrong are named.

use std::path::Path;

use dataset::Tokenizer;
use trainer::harness::{Format, Harness, HarnessSettings, Task, TaskError, TaskFile, Vocabulary};
use trainer::{Cpu, Threads};

fn file(format: Format, shots: usize) -> TaskFile {
    let json = serde_json::json!({
        "name": "task",
        "format": format,
        "data": "data",
        "labels": "labels",
        "shots": shots,
    });
    serde_json::from_value(json).unwrap()
}

fn load(format: Format, rows: &str, labels: &str) -> Result<Task, TaskError> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "data", rows);
    write(folder.path(), "labels", labels);
    Task::load(file(format, 0), folder.path())
}

fn write(folder: &Path, name: &str, content: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// The prompts, endings and answer of the only question.
fn check(
    format: Format,
    rows: &str,
    labels: &str,
    prompts: &[&str],
    endings: &[&str],
    answer: usize,
) {
    let task = load(format, rows, labels).unwrap();
    let question = &task.subjects[0].questions[0];
    assert_eq!(question.prompts, prompts);
    assert_eq!(question.endings, endings);
    assert_eq!(question.answer, answer);
}

#[test]
fn mmlu_is_asked_by_letters() {
    check(
        Format::Mmlu,
        "\" Is \"\"x, y\"\" a pair?\n\",yes,no,\"a, b\",d,C\n",
        "",
        &["Is \"x, y\" a pair?\nA. yes\nB. no\nC. a, b\nD. d\nAnswer:"],
        &["A", "B", "C", "D"],
        2,
    );
}

#[test]
fn arc_and_openbookqa_have_labels_of_their_own() {
    let published = r#"{"id":"q","question":{"stem":"Why?","choices":[{"text":"so","label":"1"},{"text":"no","label":"2"}]},"answerKey":"2"}"#;
    let flat =
        r#"{"question":"Why?","choices":{"text":["so","no"],"label":["1","2"]},"answerKey":"2"}"#;
    let stem = r#"{"question_stem":"Why?","choices":{"text":["so","no"],"label":["1","2"]},"answerKey":" 2"}"#;
    for rows in [published, flat] {
        let prompt = "Question: Why?\nAnswer:";
        check(Format::Arc, rows, "", &[prompt], &["so", "no"], 1);
    }
    for rows in [published, stem] {
        check(Format::Openbookqa, rows, "", &["Why?"], &["so", "no"], 1);
    }
}

#[test]
fn hellaswag_is_cleaned() {
    check(
        Format::Hellaswag,
        r#"{"activity_label":"Baking","ctx_a":"A  man [header] How [title] Mix.","ctx_b":"the MAN","endings":["[substeps] stirs  it. ","eats."],"label":"1"}"#,
        "",
        &["Baking: A man How. Mix. The man"],
        &[" stirs it.", "eats."],
        1,
    );
}

#[test]
fn piqa_has_its_labels_elsewhere() {
    let rows = r#"{"goal":"Open a jar","sol1":"twist","sol2":"shout"}"#;
    let prompt = "Question: Open a jar\nAnswer:";
    check(Format::Piqa, rows, "1\n", &[prompt], &["twist", "shout"], 1);
    assert!(load(Format::Piqa, rows, "1\n0\n").is_err());
}

#[test]
fn winogrande_scores_what_follows_the_gap() {
    check(
        Format::Winogrande,
        r#"{"sentence":"The cup fell off the shelf and _ broke. ","option1":"the cup","option2":"the shelf","answer":"1"}"#,
        "",
        &["The cup fell off the shelf and the cup", "The cup fell off the shelf and the shelf"],
        &["broke."],
        0,
    );
}

#[test]
fn own_questions_have_templates() {
    let folder = tempfile::tempdir().unwrap();
    let rows = r#"{"context":"Rome","land":"Italy","choices":["yes","no"],"answer":0}"#;
    write(folder.path(), "data", rows);
    let mut own = file(Format::Choices, 0);
    let task = Task::load(own.clone(), folder.path()).unwrap();
    assert_eq!(task.subjects[0].questions[0].prompts, ["Rome"]);
    own.prompt = "Is {context} in {land}?".into();
    let task = Task::load(own.clone(), folder.path()).unwrap();
    assert_eq!(task.subjects[0].questions[0].prompts, ["Is Rome in Italy?"]);
    own.prompt = "{continent}".into();
    assert!(Task::load(own, folder.path()).is_err());
}

#[test]
fn solved_questions_lose_their_reasoning() {
    let solved = "The following are questions.\n\nQ: One?\nTwo?\n(A) a (B) b c (C) c (D) d\nA: Let's think. So it is. The answer is (B).\n\nQ: Three?\n(A) 1 (B) 2 (C) 3 (D) 4 (E) 5\nA: Let's think.\n\nThe answer is (E).\n\n";
    let rows = serde_json::json!({"some_subject": solved}).to_string();
    let task = load(Format::MmluPrompts, &rows, "").unwrap();
    let subject = &task.subjects[0];
    assert_eq!(subject.name, "some_subject");
    let prompt = "One?\nTwo?\nA. a\nB. b c\nC. c\nD. d\nAnswer:";
    assert_eq!(subject.questions[0].prompts, [prompt]);
    assert_eq!(subject.questions[0].answer, 1);
    assert_eq!(subject.questions[1].answer, 4);
    assert_eq!(subject.questions[1].endings.len(), 5);
}

#[test]
fn wrong_rows_are_named() {
    let cases = [
        (Format::Arc, "{}", 1),
        (Format::Arc, "\nno json", 2),
        (Format::Mmlu, "q,a,b,c,d,A\nq,a,b,c,A\n", 2),
        (Format::Mmlu, "q,a,b,c,d,E\n", 1),
        (
            Format::Hellaswag,
            r#"{"activity_label":"","ctx_a":"","ctx_b":"","endings":["a","b"],"label":""}"#,
            1,
        ),
        (Format::Winogrande, r#"{"sentence":"no gap","option1":"","option2":"","answer":"1"}"#, 1),
        (Format::Choices, r#"{"context":"","choices":["a","b"],"answer":2}"#, 1),
        (Format::Choices, r#"{"context":"","choices":["a"],"answer":0}"#, 1),
        (Format::MmluPrompts, r#"{"a":"\n\nQ: b\n(A) c\nA: d"}"#, 1),
    ];
    for (format, rows, expected) in cases {
        match load(format, rows, "") {
            Err(TaskError::Row { row, .. }) => assert_eq!(row, expected, "{rows}"),
            other => panic!("{rows}: {other:?}"),
        }
    }
    assert!(matches!(load(Format::Arc, "\n", ""), Err(TaskError::Empty(_))));
}

#[test]
fn a_text_without_words_is_nothing_to_read() {
    for text in ["", " \n\t\n"] {
        let loaded = load(Format::Text, text, "");
        assert!(matches!(loaded, Err(TaskError::Empty(_))), "{loaded:?}");
    }
    assert_eq!(load(Format::Text, "word", "").unwrap().texts.len(), 1);
}

#[test]
fn subjects_have_their_examples_and_are_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    for (subject, count) in [("dull_physics", 3), ("law", 5)] {
        let rows = |split: &str| format!("Is {subject} {split}?,yes,no,so,never,B\n").repeat(count);
        write(folder.path(), &format!("test/{subject}_test.csv"), &rows("asked"));
        write(folder.path(), &format!("dev/{subject}_dev.csv"), &rows("shown"));
    }
    let mut mmlu = file(Format::Mmlu, 2);
    mmlu.data = "test".into();
    mmlu.shots_data = Some("dev".into());
    mmlu.description = "About {subject}.\n\n".into();
    mmlu.groups = [("soft".to_owned(), vec!["law".to_owned()])].into();
    let task = Task::load(mmlu, folder.path()).unwrap();
    assert_eq!(task.subjects[0].description, "About dull physics.\n\n");

    let (model, tokenizer) = (crate::harness::model(), Tokenizer::bytes());
    let settings = HarnessSettings {
        length_max: 128,
        length_that_fits: usize::MAX,
        batch_tokens: 512,
        seed: 1,
        limit: Some(4),
    };
    let vocabulary = Vocabulary::new(&tokenizer, 0, false);
    let device = Cpu::new(Threads::single());
    let harness = Harness::new(&model, vocabulary, &device, settings);
    let go_on = &mut |_| std::ops::ControlFlow::Continue(());
    let (report, samples) = harness.run(&task, None, go_on).unwrap();
    let shown = "Is law shown?\nA. yes\nB. no\nC. so\nD. never\nAnswer: B\n\n".repeat(2);
    let prompt =
        format!("About law.\n\n{shown}Is law asked?\nA. yes\nB. no\nC. so\nD. never\nAnswer:");
    let hash = blake3::hash(prompt.as_bytes()).to_string();
    assert_eq!(samples.len(), 3 + 4);
    assert_eq!(samples[6].prompt_hash, hash);
    let names: Vec<_> = report.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["task: soft", "task"]);
    assert_eq!(report.groups[1].questions, 7);
    assert_eq!(report.groups[0].metrics["acc"], report.subjects[1].metrics["acc"]);
}
