//! Cases from practice: files that users of other programs met, with what is right of each. The inputs
//! are in `fixtures/practice`; docs/CASES.md says why each is right.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::GgmlDType;
use dataset::Tokenizer;
use serde_json::{json, Value as Json};
use trainer::files::{self, ExportSettings, FileError, Gguf};
use trainer::harness::{
    Harness, HarnessSettings, Sample, Task, TaskFile, TaskReport, Vocabulary, KNOWN_TASKS,
};
use trainer::{Cpu, Model, ModelConfig, RopeScaling, Threads};

use crate::gguf::{gguf, large_rows, vocabulary};

fn input(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/practice").join(name)
}

fn read_json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The configuration in a `config.json` of a small LLaMA with these fields, too.
fn configured(more: &str) -> Result<ModelConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let small = r#""model_type":"llama","vocab_size":320,"hidden_size":32,"intermediate_size":64,
        "num_hidden_layers":1,"num_attention_heads":4"#;
    let more = if more.is_empty() { String::new() } else { format!(",{more}") };
    fs::write(&path, format!("{{{small}{more}}}")).unwrap();
    files::configuration(&path).map_err(|error| error.to_string())
}

#[test]
fn case_20_two_names_of_one_fact_are_two_fields() {
    let linear = Some(RopeScaling::Linear { factor: 4.0 });
    let config = files::configuration(&input("20-both-rope-names.json")).unwrap();
    assert_eq!((config.rope_scaling, config.rope_theta), (linear, 10_000.0));
    let both = r#""rope_scaling":{"type":"linear","rope_type":"linear","factor":4.0}"#;
    assert_eq!(configured(both).unwrap().rope_scaling, linear);
    // The new name goes before the old one, and of a name that is there twice the last one counts.
    let differ = r#""rope_scaling":{"type":"yarn","rope_type":"linear","factor":4.0}"#;
    assert_eq!(configured(differ).unwrap().rope_scaling, linear);
    let twice = r#""rope_theta":5.0,"rope_theta":7.0,"hidden_size":64"#;
    let config = configured(twice).unwrap();
    assert_eq!((config.rope_theta, config.hidden), (7.0, 64));
}

/// The defaults of `LlamaConfig` of transformers 5.24, and its precedence of the rotary fields.
#[test]
fn case_27_what_a_configuration_leaves_out_is_what_transformers_takes() {
    let config = configured("").unwrap();
    let expected = ModelConfig {
        vocab: 320,
        hidden: 32,
        layers: 1,
        heads: 4,
        kv_heads: 4,
        ffn: 64,
        seq_len: 2048,
        rope_theta: 10_000.0,
        rope_scaling: None,
        norm_epsilon: 1e-6,
        tied: false,
    };
    assert_eq!(config, expected);
    let nulls = r#""num_key_value_heads":null,"head_dim":null,"rope_scaling":null,
        "rope_parameters":null,"attention_bias":null,"sliding_window":null,"hidden_act":"swish""#;
    assert_eq!(configured(nulls).unwrap(), expected);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    fs::write(&path, r#"{"model_type":"llama"}"#).unwrap();
    let config = files::configuration(&path).unwrap();
    let sizes = (config.vocab, config.hidden, config.layers, config.heads, config.ffn);
    assert_eq!(sizes, (32_000, 4096, 32, 32, 11_008));

    let theta = |more: &str| configured(more).unwrap().rope_theta;
    assert_eq!(theta(r#""rope_theta":5,"rope_parameters":{"rope_theta":9}"#), 9.0);
    assert_eq!(theta(r#""rope_theta":5,"rope_parameters":{"rope_type":"default"}"#), 5.0);
    assert_eq!(
        theta(r#""rope_scaling":{"type":"linear","factor":2},"rope_parameters":{"rope_theta":9}"#),
        10_000.0
    );
    assert_eq!(theta(r#""rope_scaling":{},"rope_parameters":{"rope_theta":9}"#), 9.0);
    let llama3 = r#""rope_type":"llama3","factor":2,"low_freq_factor":1,"high_freq_factor":4"#;
    let original = |more: &str| match configured(more).unwrap().rope_scaling.unwrap() {
        RopeScaling::Llama3 { original_max_position_embeddings, .. } => {
            original_max_position_embeddings
        }
        other => panic!("{other:?}"),
    };
    let inside = |more: &str| format!("\"rope_scaling\":{{{llama3}{more}}}");
    assert_eq!(original(&inside("")), 2048);
    assert_eq!(original(&inside(r#","original_max_position_embeddings":64.0"#)), 64);
    let outside = r#","original_max_position_embeddings":128"#;
    assert_eq!(original(&(inside("") + outside)), 128);
    let both = inside(r#","original_max_position_embeddings":64"#) + outside;
    assert!(configured(&both).unwrap_err().contains("original_max_position_embeddings 64 and 128"));
}

#[test]
fn case_29_a_field_of_another_type_is_refused_by_its_name() {
    let wrong = [
        ("vocab_size", r#""320""#),
        ("vocab_size", "null"),
        ("hidden_size", "32.5"),
        ("intermediate_size", "true"),
        ("num_hidden_layers", "-1"),
        ("num_attention_heads", "[4]"),
        ("num_key_value_heads", r#""4""#),
        ("head_dim", r#""8""#),
        ("max_position_embeddings", "null"),
        ("rms_norm_eps", r#""1e-5""#),
        ("rms_norm_eps", "null"),
        ("rope_theta", r#""500000""#),
        ("rope_theta", "null"),
        ("rope_scaling", r#""linear""#),
        ("rope_parameters", "[]"),
        ("rope_type", "null"),
        ("factor", r#""4""#),
        ("tie_word_embeddings", r#""true""#),
        ("attention_bias", "0"),
        ("mlp_bias", "{}"),
        ("hidden_act", "null"),
        ("model_type", "5"),
        ("partial_rotary_factor", r#""1""#),
        ("partial_rotary_factor", "0.5"),
        ("sliding_window", "4096"),
        ("compression_config", r#"{"format":"x"}"#),
        ("per_layer_config", r#"{"0":{"hidden_act":"gelu"}}"#),
    ];
    for (name, value) in wrong {
        let field = match name {
            "rope_type" | "factor" => {
                format!(r#""rope_scaling":{{"type":"linear","factor":4,"{name}":{value}}}"#)
            }
            _ => format!("\"{name}\":{value}"),
        };
        let error = configured(&field).unwrap_err();
        assert!(error.contains(name), "{field}: {error}");
    }
    // Whole numbers with a point, and floats without one.
    let config = configured(r#""vocab_size":320.0,"rope_theta":500000,"rms_norm_eps":1"#).unwrap();
    assert_eq!((config.vocab, config.rope_theta, config.norm_epsilon), (320, 500_000.0, 1.0));
}

/// Opens a GGUF file of [`large_rows`] with these pairs, too.
fn opened(extra: &[(&'static str, Value)]) -> Result<Gguf, FileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, gguf(&large_rows(), GgmlDType::F32, extra)).unwrap();
    Gguf::open(&path)
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// Cuts of `rain fell on 1234 reeds` and of more, by llama.cpp's four expressions with Python's `regex`:
/// `[\p{P}\$\+<=>\^~\|]+`, GPT-2's without its last part, `\p{N}+` and `[0-9][0-9][0-9]`.
#[test]
fn case_27_a_vocabulary_without_a_pre_tokenizer_is_cut_as_by_llama_cpp() {
    let cuts = |pre: Option<&str>, text: &str| -> Vec<String> {
        let mut pairs = vocabulary();
        pairs.retain(|(key, _)| *key != "tokenizer.ggml.pre");
        pairs.extend(pre.map(|name| ("tokenizer.ggml.pre", self::text(name))));
        let json = opened(&pairs).unwrap().tokenizer().unwrap().unwrap();
        let tokenizer = tokenizers::Tokenizer::from_bytes(&json).unwrap();
        let mut pieces = tokenizers::PreTokenizedString::from(text);
        let cutter = tokenizer.get_pre_tokenizer().unwrap();
        tokenizers::PreTokenizer::pre_tokenize(cutter, &mut pieces).unwrap();
        let pieces = pieces
            .get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        pieces.into_iter().map(|(_, (start, end), _)| text[start..end].to_owned()).collect()
    };
    for pre in [None, Some("default"), Some("")] {
        assert_eq!(
            cuts(pre, "rain fell on 1234 reeds"),
            ["rain", " fell", " on", " ", "123", "4", " reeds"]
        );
        assert_eq!(
            cuts(pre, "It's $5, a<b  x\n"),
            ["It", "'", "s", " ", "$", "5", ",", " a", "<", "b", " ", " x", "\n"]
        );
        assert_eq!(cuts(pre, "²12345½"), ["²", "123", "45½"]);
    }
    assert_eq!(cuts(Some("gpt-2"), "on 1234 reeds"), ["on", " 1234", " reeds"]);
    assert_eq!(cuts(Some("falcon"), "on 1234` x"), ["on", " ", "123", "4", "`", " x"]);
}

#[test]
fn case_27_a_gguf_file_without_a_number_has_the_one_of_llama_cpp() {
    let config = |extra: &[_]| opened(extra).map(|gguf| gguf.config().clone());
    let plain = config(&[]).unwrap();
    let linear = |factor| Some(RopeScaling::Linear { factor });
    // A factor without a type is linear; it had another name once; none of it counts beside "none".
    let factor = ("llama.rope.scaling.factor", Value::F32(4.0));
    assert_eq!(config(std::slice::from_ref(&factor)).unwrap().rope_scaling, linear(4.0));
    let old = ("llama.rope.scale_linear", Value::F32(2.0));
    assert_eq!(config(std::slice::from_ref(&old)).unwrap().rope_scaling, linear(2.0));
    assert_eq!(config(&[factor.clone(), old]).unwrap().rope_scaling, linear(4.0));
    let none = ("llama.rope.scaling.type", text("none"));
    assert_eq!(config(&[factor, none]).unwrap(), plain);
    let lists = [
        ("llama.attention.head_count_kv", Value::Array(vec![Value::U32(2), Value::U32(2)])),
        ("llama.feed_forward_length", Value::Array(vec![Value::I32(96), Value::I32(96)])),
    ];
    assert_eq!(config(&lists).unwrap(), plain);
    let others = [
        ("llama.attention.sliding_window", Value::U32(512)),
        ("llama.attention.causal", Value::Bool(false)),
        ("llama.logit_scale", Value::F32(0.5)),
        ("llama.final_logit_softcapping", Value::F32(30.0)),
        ("llama.rope.scaling.attn_factor", Value::F32(1.2)),
        ("llama.feed_forward_length", Value::Array(vec![Value::U32(96), Value::U32(64)])),
    ];
    for (key, value) in others {
        let error = config(&[(key, value)]).unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn case_27_a_gguf_file_without_an_epsilon_is_refused_as_by_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut pairs = crate::gguf::pairs(large_rows().config());
    pairs.remove("llama.attention.layer_norm_rms_epsilon");
    let tensors = crate::gguf::tensors(&large_rows(), GgmlDType::F32);
    fs::write(&path, crate::gguf::bytes(&pairs, &tensors)).unwrap();
    let error = Gguf::open(&path).unwrap_err().to_string();
    assert!(error.contains("llama.attention.layer_norm_rms_epsilon"), "{error}");
}

/// Every pair that is read, in every type: it is the same model, or refused by the name of the pair.
#[test]
fn case_29_a_pair_of_another_type_is_never_taken_for_absent() {
    let base = [("llama.rope.freq_base", Value::U32(500_000))];
    assert_eq!(opened(&base).unwrap().config().rope_theta, 500_000.0);
    let values = |number: u8| {
        let float = f32::from(number);
        [
            Value::U8(number),
            Value::I8(number as i8),
            Value::U16(number.into()),
            Value::I16(number.into()),
            Value::U32(number.into()),
            Value::I32(number.into()),
            Value::U64(number.into()),
            Value::I64(number.into()),
            Value::F32(float),
            Value::F64(float.into()),
            Value::Bool(true),
            Value::String(number.to_string()),
            Value::Array(vec![Value::String(number.to_string())]),
        ]
    };
    let is_integer = |value: &Value| !matches!(value, Value::F32(_) | Value::F64(_));
    let is_number =
        |value: &Value| !matches!(value, Value::Bool(_) | Value::String(_) | Value::Array(_));
    let whole = ["llama.block_count", "llama.embedding_length", "llama.feed_forward_length"];
    let config = large_rows().config().clone();
    let sizes = [config.layers, config.hidden, config.ffn];
    let more = [
        ("llama.attention.head_count", 4),
        ("llama.attention.head_count_kv", 2),
        ("llama.context_length", 64),
        ("llama.rope.dimension_count", 16),
        ("llama.attention.key_length", 16),
        ("llama.attention.value_length", 16),
        ("llama.expert_count", 0),
        ("split.count", 1),
        ("general.alignment", 32),
    ];
    for (key, number) in whole.into_iter().zip(sizes).chain(more) {
        for value in values(number as u8) {
            let expected = is_integer(&value) && is_number(&value);
            check(key, value, expected.then_some(&config));
        }
    }
    for (key, at) in [("llama.rope.freq_base", 9), ("llama.attention.layer_norm_rms_epsilon", 3)] {
        let expected = match at {
            9 => ModelConfig { rope_theta: 9.0, ..config.clone() },
            _ => ModelConfig { norm_epsilon: 3.0, ..config.clone() },
        };
        for value in values(at) {
            let is_read = is_number(&value);
            check(key, value, is_read.then_some(&expected));
        }
    }
    for key in ["llama.rope.scaling.factor", "llama.rope.scale_linear"] {
        let scaled = ModelConfig {
            rope_scaling: Some(RopeScaling::Linear { factor: 3.0 }),
            ..config.clone()
        };
        for value in values(3) {
            let is_read = is_number(&value);
            check(key, value, is_read.then_some(&scaled));
        }
    }
    for key in ["general.architecture", "llama.rope.scaling.type"] {
        for value in values(3) {
            // A text of another content is refused by that.
            if !matches!(value, Value::String(_)) {
                check(key, value, None);
            }
        }
    }
}

fn check(key: &'static str, value: Value, expected: Option<&ModelConfig>) {
    let found = opened(&[(key, value.clone())]);
    match (found, expected) {
        (Ok(gguf), Some(expected)) => assert_eq!(gguf.config(), expected, "{key} {value:?}"),
        (Err(error), None) => {
            assert!(error.to_string().contains(key), "{key} {value:?}: {error}");
        }
        (found, _) => panic!("{key} {value:?}: {found:?}"),
    }
}

/// The same of the vocabulary's pairs.
#[test]
fn case_29_a_vocabulary_of_other_types_is_never_taken_for_absent() {
    let with = |key: &'static str, value: Value| {
        let mut pairs = vocabulary();
        pairs.retain(|(name, _)| *name != key);
        pairs.push((key, value));
        let gguf = opened(&pairs).unwrap();
        gguf.tokenizer()?;
        gguf.handed_on()?;
        Ok::<_, FileError>((gguf.bos()?, gguf.ends()?))
    };
    for value in [Value::U8(200), Value::I64(200), Value::U16(200)] {
        assert_eq!(with("tokenizer.ggml.bos_token_id", value).unwrap(), (Some(200), vec![260]));
    }
    let kinds = |value: Value| Value::Array((0..261).map(|_| value.clone()).collect());
    with("tokenizer.ggml.token_type", kinds(Value::U8(1))).unwrap();
    let wrong = [
        ("tokenizer.ggml.model", Value::U32(1)),
        ("tokenizer.ggml.pre", Value::Bool(true)),
        ("tokenizer.ggml.tokens", text("a")),
        ("tokenizer.ggml.tokens", Value::Array(vec![Value::U8(1)])),
        ("tokenizer.ggml.merges", Value::Array(vec![Value::U8(1)])),
        ("tokenizer.ggml.token_type", kinds(Value::F32(1.0))),
        ("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1)])),
        ("tokenizer.ggml.bos_token_id", text("259")),
        ("tokenizer.ggml.bos_token_id", Value::I32(-1)),
        ("tokenizer.ggml.eos_token_id", Value::F32(260.0)),
        ("tokenizer.ggml.eot_token_id", Value::Bool(true)),
        ("tokenizer.ggml.padding_token_id", text("")),
        ("tokenizer.ggml.add_bos_token", Value::U8(1)),
        ("tokenizer.ggml.add_eos_token", text("true")),
        ("tokenizer.ggml.add_sep_token", Value::U8(1)),
        ("tokenizer.chat_template", Value::U8(1)),
    ];
    for (key, value) in wrong {
        let error = with(key, value).unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
    // As in llama.cpp, a number beyond the vocabulary is as if the file did not say.
    let beyond = with("tokenizer.ggml.bos_token_id", Value::U32(u32::MAX)).unwrap();
    assert_eq!(beyond, (None, vec![260]));
    let mut pairs = vocabulary();
    pairs.retain(|(name, _)| *name != "tokenizer.ggml.model");
    let error = opened(&pairs).unwrap().tokenizer().unwrap_err().to_string();
    assert!(error.contains("no tokenizer.ggml.model"), "{error}");
}

fn task(name: &str, data: &Path) -> Task {
    let (_, toml) = KNOWN_TASKS.iter().find(|(known, _)| *known == name).unwrap();
    let file: TaskFile = toml::from_str(toml).unwrap();
    let file = file.with_data(data.to_owned()).unwrap();
    Task::load(file, Path::new("/nowhere")).unwrap()
}

fn asked(model: &Model, vocabulary: Vocabulary<'_>, task: &Task) -> (TaskReport, Vec<Sample>) {
    let device = Cpu::new(Threads::single());
    let settings = HarnessSettings {
        length_max: 512,
        length_that_fits: 512,
        batch_tokens: 512,
        seed: 0,
        limit: None,
    };
    let harness = Harness::new(model, vocabulary, &device, settings);
    harness.run(task, None, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn check_scores(found: &[f64], expected: &Json) {
    for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
        let expected = expected.as_f64().unwrap();
        assert!((found - expected).abs() < 1e-3, "{found}, not {expected}");
    }
}

#[test]
fn case_40_capitals_are_those_of_python() {
    let task = task("hellaswag", &input("40-hellaswag/hellaswag_val.jsonl"));
    let expected = read_json(&input("40-hellaswag/expected.json"));
    let expected = expected.as_array().unwrap();
    let questions = &task.subjects[0].questions;
    assert_eq!(questions.len(), expected.len());
    for (question, expected) in questions.iter().zip(expected) {
        assert_eq!(json!(question.prompts), json!([expected["prompt"]]));
        assert_eq!(json!(question.endings), expected["ends"]);
        assert_eq!(json!(question.answer), expected["answer"]);
        let hash = blake3::hash(question.prompts[0].as_bytes()).to_string();
        assert_eq!(json!(hash), expected["prompt_hash"]);
    }
    let (model, _) = files::open(&input("41-prefix-twice/model")).unwrap();
    let tokenizer = Tokenizer::bytes();
    let samples = asked(&model, Vocabulary::new(&tokenizer, 0, false), &task).1;
    for (sample, expected) in samples.iter().zip(expected) {
        // One ending is empty: its log-likelihood for each of no characters is the smallest.
        let winners = json!(sample.winners);
        let found = [&winners["plain"], &winners["by_characters"], &winners["by_bytes"]];
        assert_eq!(found, [&expected["plain"], &expected["chars"], &expected["bytes"]]);
        check_scores(&sample.log_likelihoods, &expected["ll"]);
    }
    let folder = self::task("hellaswag", &input("40-hellaswag"));
    assert_eq!(folder.subjects, task.subjects);
}

#[test]
fn case_41_a_text_begins_once() {
    let folder = input("41-prefix-twice");
    let (model, tokenizer) = files::open(&folder.join("model")).unwrap();
    let tokenizer = Tokenizer::from_file(&tokenizer.unwrap()).unwrap();
    // The tokenizer puts <s> first, so that it stands before every text.
    let vocabulary = || Vocabulary::new(&tokenizer, 256, true);
    let text = task("perplexity", &folder.join("t.txt"));
    let (report, _) = asked(&model, vocabulary(), &text);
    let expected = read_json(&folder.join("expected.json"));
    for name in ["token_perplexity", "byte_perplexity"] {
        let expected = expected["begins once"][name].as_f64().unwrap();
        let found = report.subjects[0].metrics[name].value;
        assert!((found / expected - 1.0).abs() < 1e-4, "{name}: {found}, not {expected}");
    }

    let file: TaskFile =
        toml::from_str(&fs::read_to_string(folder.join("t.toml")).unwrap()).unwrap();
    let choices = Task::load(file, &folder).unwrap();
    let (_, samples) = asked(&model, vocabulary(), &choices);
    let expected = read_json(&folder.join("choices.json"));
    for (sample, expected) in samples.iter().zip(expected.as_array().unwrap()) {
        check_scores(&sample.log_likelihoods, expected);
    }
}

#[test]
fn case_54_a_file_is_asked_as_a_folder_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let row = "Which bird wades?,Heron,Tern,Wren,Owl,A\n";
    fs::create_dir_all(path("test")).unwrap();
    fs::create_dir_all(path("dev")).unwrap();
    fs::write(path("test/wading_birds_test.csv"), row).unwrap();
    fs::write(path("dev/wading_birds_dev.csv"), row).unwrap();
    let file = task("mmlu", &path("test/wading_birds_test.csv"));
    assert_eq!(file.subjects, task("mmlu", &path("test")).subjects);
    assert_eq!(file.subjects[0].name, "wading_birds");
    let about =
        "The following are multiple choice questions (with answers) about wading birds.\n\n";
    assert_eq!(file.subjects[0].description, about);

    let shown = |data: &str, shots: &str| {
        let json = json!({ "name": "t", "format": "mmlu", "data": data, "shots_data": shots,
            "shots": 1, "description": "{subject}" });
        let file: TaskFile = serde_json::from_value(json).unwrap();
        Task::load(file, folder.path()).unwrap().subjects
    };
    let of_folders = shown("test", "dev");
    assert_eq!(of_folders[0].pool.as_ref().unwrap().len(), 1);
    for data in ["test", "test/wading_birds_test.csv"] {
        for shots in ["dev", "dev/wading_birds_dev.csv"] {
            assert_eq!(shown(data, shots), of_folders, "{data} {shots}");
        }
    }
}

/// Every other format: a folder of one file is that file, and of several none is taken at random.
#[test]
fn case_54_a_folder_of_one_file_is_that_file() {
    let rows = [
        (
            "arc_easy",
            r#"{"question":{"stem":"q","choices":[{"text":"x","label":"A"},{"text":"y","label":"B"}]},"answerKey":"B"}"#,
        ),
        (
            "openbookqa",
            r#"{"question":{"stem":"q","choices":[{"text":"x","label":"A"},{"text":"y","label":"B"}]},"answerKey":"B"}"#,
        ),
        ("winogrande", r#"{"sentence":"a _ b","option1":"x","option2":"y","answer":"2"}"#),
        ("piqa", r#"{"goal":"g","sol1":"x","sol2":"y"}"#),
    ];
    for (name, row) in rows {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("valid.jsonl");
        fs::write(&file, row).unwrap();
        fs::write(folder.path().join("valid-labels.lst"), "1\n").unwrap();
        let expected = task(name, &file).subjects;
        assert_eq!(expected[0].questions[0].answer, 1);
        assert_eq!(task(name, folder.path()).subjects, expected, "{name}");
        fs::write(folder.path().join("train.jsonl"), row).unwrap();
        let (_, toml) = KNOWN_TASKS.iter().find(|(known, _)| *known == name).unwrap();
        let task: TaskFile = toml::from_str(toml).unwrap();
        let error = task
            .with_data(folder.path().to_owned())
            .and_then(|task| Task::load(task, Path::new("/nowhere")));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("train.jsonl, valid.jsonl"), "{error}");
    }
}

/// Of a single file and an index of several transformers takes the single one.
#[test]
fn of_several_weights_in_a_folder_the_single_file_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let config = ModelConfig::preset("nano").unwrap();
    let (single, sharded) = (Model::init(&config, 1).unwrap(), Model::init(&config, 2).unwrap());
    let shards = ExportSettings { shard_bytes_max: 100_000, ..ExportSettings::default() };
    files::export(&sharded, &path("model"), &shards).unwrap();
    let read = || files::open(&path("model")).map(|(model, _)| model.parameters().to_vec());
    assert_eq!(read().unwrap(), sharded.parameters());
    files::export(&single, &path("single"), &ExportSettings::default()).unwrap();
    fs::copy(path("single/model.safetensors"), path("model/model.safetensors")).unwrap();
    assert_eq!(read().unwrap(), single.parameters());
    // An adapter's base is elsewhere: transformers would read that one.
    fs::write(path("model/adapter_config.json"), "{}").unwrap();
    assert!(read().unwrap_err().to_string().contains("adapter_config.json"));
}

/// What nothing here understands goes with the model.
#[test]
fn a_conversion_hands_on_what_it_does_not_understand() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let model = Model::init(&ModelConfig::preset("nano").unwrap(), 1).unwrap();
    files::export(&model, &path("first"), &ExportSettings::default()).unwrap();
    let mut config = read_json(&path("first/config.json"));
    config["eos_token_id"] = json!([3, 7, 5]);
    config["custom"] = json!({ "a": [1, null] });
    config["attention_dropout"] = json!(0.5);
    config["rope_parameters"] = json!({ "rope_type": "default", "rope_theta": 10000.0 });
    config.as_object_mut().unwrap().remove("bos_token_id");
    fs::write(path("first/config.json"), config.to_string()).unwrap();
    let others = [
        ("generation_config.json", r#"{"eos_token_id": [3, 7, 5], "top_p": 0.9}"#),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", r#"{"bos_token": "<b>", "chat_template": "{{x}}"}"#),
        ("special_tokens_map.json", r#"{"pad_token": "<p>"}"#),
        ("chat_template.jinja", "{% for m in messages %}"),
        ("additional_chat_templates/tool.jinja", "{{tool}}"),
    ];
    fs::create_dir(path("first/additional_chat_templates")).unwrap();
    for (name, content) in others {
        fs::write(path("first").join(name), content).unwrap();
    }
    let settings = ExportSettings::default().like_model(&path("first")).unwrap();
    files::export(&model, &path("second"), &settings).unwrap();
    for (name, content) in others {
        assert_eq!(fs::read_to_string(path("second").join(name)).unwrap(), content, "{name}");
    }
    let second = read_json(&path("second/config.json"));
    for name in ["eos_token_id", "custom", "attention_dropout"] {
        assert_eq!(second[name], config[name], "{name}");
    }
    assert!(second.get("bos_token_id").is_none() && second.get("rope_parameters").is_none());
    assert_eq!(files::open(&path("second")).unwrap().0.config(), model.config());

    // Another tokenizer's names of tokens would be wrong.
    let settings = settings.with_tokenizer(b"{\"other\":1}".to_vec());
    files::export(&model, &path("third"), &settings).unwrap();
    assert!(!path("third/chat_template.jinja").exists());
    let class = json!({ "tokenizer_class": "PreTrainedTokenizerFast" });
    assert_eq!(read_json(&path("third/tokenizer_config.json")), class);
    assert_eq!(read_json(&path("third/generation_config.json"))["top_p"], json!(0.9));
}

#[test]
fn a_gguf_file_hands_on_its_end_tokens_names_and_chat_templates() {
    let mut pairs = vocabulary();
    pairs.extend([
        ("tokenizer.ggml.eot_token_id", Value::U32(258)),
        ("tokenizer.ggml.eom_token_id", Value::U32(260)),
        ("tokenizer.ggml.padding_token_id", Value::U32(257)),
        ("tokenizer.chat_template", text("{{a}}")),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let exported = |pairs: &[(&'static str, Value)], name: &str| {
        fs::write(path("model.gguf"), gguf(&large_rows(), GgmlDType::F32, pairs)).unwrap();
        let settings = ExportSettings::default().like_model(&path("model.gguf")).unwrap();
        files::export(&large_rows(), &path(name), &settings).unwrap();
        read_json(&path(name).join("tokenizer_config.json"))
    };
    let tokenizer = exported(&pairs, "one");
    let expected = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "pad_token": "\u{120}th",
        "chat_template": "{{a}}",
    });
    assert_eq!(tokenizer, expected);
    for file in ["config.json", "generation_config.json"] {
        let config = read_json(&path("one").join(file));
        assert_eq!(
            (&config["bos_token_id"], &config["eos_token_id"]),
            (&json!(259), &json!([260, 258]))
        );
    }
    pairs.push(("tokenizer.chat_template.tool", text("{{t}}")));
    let templates = json!([
        { "name": "default", "template": "{{a}}" },
        { "name": "tool", "template": "{{t}}" },
    ]);
    assert_eq!(exported(&pairs, "two")["chat_template"], templates);
}

/// What Python's readers take in a file of questions, and what other systems lay beside it.
#[test]
fn questions_are_read_as_they_lie_about() {
    let row = r#"{"goal":"g","sol1":"x","sol2":"y"}"#;
    let more =
        r#"{"goal":"g","sol1":"x","sol2":"y","id":18446744073709551616,"score":NaN,"sol2":"y"}"#;
    let subjects = |files: &[(&str, &[u8])]| {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        fs::write(folder.path().join("valid-labels.lst"), "1\n").unwrap();
        task("piqa", folder.path()).subjects
    };
    let expected = subjects(&[("valid.jsonl", row.as_bytes())]);
    let marked = format!("\u{feff}{more}\r\n\r\n");
    for found in [
        subjects(&[("valid.jsonl", marked.as_bytes())]),
        subjects(&[("valid.JSONL", row.as_bytes())]),
        subjects(&[("valid.jsonl", row.as_bytes()), ("._valid.jsonl", b"\0\x05\x16\x07")]),
        subjects(&[("valid.json", row.as_bytes())]),
    ] {
        assert_eq!(found, expected);
    }
    let choices = r#"{"context":"c","choices":["a","b"],"answer":0,"id":1180591620717411303424}"#;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("q.jsonl"), choices).unwrap();
    let json = json!({ "name": "t", "format": "choices", "data": "q.jsonl" });
    let file: TaskFile = serde_json::from_value(json).unwrap();
    assert_eq!(Task::load(file, folder.path()).unwrap().subjects[0].questions.len(), 1);

    let bad = subjects(&[("valid.jsonl", b"{\"goal\":\"g\xff\",\"sol1\":\"x\",\"sol2\":\"y\"}")]);
    assert!(format!("{bad:?}").contains("g\u{fffd}"), "{bad:?}");
}

#[test]
fn case_54_a_subject_is_named_alike_whatever_the_case_of_its_ending() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("birds_test.CSV");
    fs::write(&file, "Which wades?,Heron,Tern,Wren,Owl,A\n").unwrap();
    fs::write(folder.path().join("._birds_test.CSV"), "\0").unwrap();
    let subjects = task("mmlu", &file).subjects;
    assert_eq!(subjects[0].name, "birds");
    assert_eq!(task("mmlu", folder.path()).subjects, subjects);
}

/// The first and last tokens in a `config.json`: case 29's kind.
#[test]
fn case_29_a_token_of_another_type_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let special = |fields: Json| {
        fs::write(folder.path().join("config.json"), fields.to_string()).unwrap();
        files::special_tokens(folder.path()).map_err(|error| error.to_string())
    };
    assert_eq!(special(json!({})), Ok((None, Vec::new())));
    assert_eq!(
        special(json!({ "bos_token_id": null, "eos_token_id": [3, 4] })),
        Ok((None, vec![3, 4]))
    );
    assert_eq!(
        special(json!({ "bos_token_id": 256.0, "eos_token_id": 3 })),
        Ok((Some(256), vec![3]))
    );
    for wrong in [json!("256"), json!(true), json!(-1), json!(0.5), json!(["</s>", 65])] {
        for name in ["bos_token_id", "eos_token_id"] {
            let error = special(json!({ name: wrong })).unwrap_err();
            assert!(error.contains(name) && error.contains("not the number of a token"), "{error}");
        }
    }
}
