//! Models in files: the same logits as transformers, whole round trips, and damage that is an error.
//!
//! The models in `fixtures/huggingface` and their logits are from transformers 5.23;
//! `checks/huggingface.py` makes them, and does the other direction.

use std::fs;
use std::path::{Path, PathBuf};

use dataset::{SampleSource, Tokens};
use trainer::files::{self, ExportSettings, FileError, ValueType};
use trainer::{Engine, Model, ModelConfig, Threads};

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/huggingface");
    folder.join(name)
}

/// A copy of a fixture that can be changed.
fn copied(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn edit(folder: &Path, file: &str, change: impl Fn(String) -> String) {
    let path = folder.join(file);
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(text.clone());
    assert_ne!(changed, text, "nothing changed in {file}");
    fs::write(path, changed).unwrap();
}

fn error(path: &Path) -> String {
    files::open(path).map(|_| ()).unwrap_err().to_string()
}

/// One text of eight tokens, as the fixtures' logits are for.
struct Eight;

impl SampleSource for Eight {
    fn sample_len(&self) -> usize {
        8
    }

    fn sample_count(&self) -> u64 {
        1
    }

    fn sample(&self, _: u64) -> Option<Tokens<'_>> {
        Some(Tokens::U8(&[11, 48, 85, 122, 159, 196, 233, 14, 0]))
    }
}

fn logits(model: Model) -> Vec<f32> {
    let model = model.with_seq_len(8).unwrap();
    let mut engine = Engine::new(model.config(), 1, false, Threads::single()).unwrap();
    let logits = engine.logits(model.parameters(), &Eight, &[0]).unwrap();
    logits.to_vec()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

#[test]
fn logits_equal_those_of_transformers() {
    for name in ["grouped", "sharded"] {
        let (model, tokenizer) = files::open(&fixture(name)).unwrap();
        assert!(tokenizer.is_none());
        assert_eq!(model.config().seq_len, 128);
        let bytes = fs::read(fixture(name).join("logits.f32")).unwrap();
        let expected: Vec<f32> =
            bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let difference = largest_difference(&logits(model), &expected);
        assert!(difference < 1e-4, "{name}: {difference:e}");
    }
}

#[test]
fn configurations_of_transformers_4_are_the_same_model() {
    let folder = copied("grouped");
    let (new, _) = files::open(folder.path()).unwrap();
    edit(folder.path(), "config.json", |text| {
        text.replace("rope_parameters", "rope_scaling")
            .replace("    \"rope_theta\": 10000.0,\n", "")
            .replace("rope_type", "type")
            .replace("\"use_cache\"", "\"rope_theta\": 10000.0,\n  \"use_cache\"")
    });
    let (old, _) = files::open(folder.path()).unwrap();
    assert!(new.config().rope_scaling.is_some());
    assert_eq!(old.config(), new.config());
}

#[test]
fn what_is_exported_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let vocabulary = b"{\"any\": \"bytes\"}".to_vec();
    for (name, shard_bytes_max, shards) in [("grouped", 1 << 20, 1), ("sharded", 20_000, 4)] {
        let (model, _) = files::open(&fixture(name)).unwrap();
        let out = folder.path().join(name);
        let settings = ExportSettings {
            shard_bytes_max,
            tokenizer: Some(vocabulary.clone()),
            ends: vec![2],
            ..ExportSettings::default()
        };
        let exported = files::export(&model, &out, &settings).unwrap();
        assert_eq!(exported.shards, shards);
        assert_eq!(exported.bytes, model.config().parameter_count() * 4);
        let (again, tokenizer) = files::open(&out).unwrap();
        assert_eq!(again.config(), model.config());
        assert_eq!(again.parameters(), model.parameters());
        assert_eq!(fs::read(tokenizer.unwrap()).unwrap(), vocabulary);
        let like = ExportSettings::default().like_folder(&out).unwrap();
        assert_eq!((like.bos, like.ends.clone()), (None, vec![2]));
        assert_eq!(like.tokenizer, Some(vocabulary.clone()));
        let refused = files::export(&model, &out, &settings);
        assert!(matches!(refused, Err(FileError::Exists(_))));
    }
    // Nothing unfinished is left.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn sixteen_bits_round_and_refuse_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, _) = files::open(&fixture("grouped")).unwrap();
    let settings = |values| ExportSettings { values, ..ExportSettings::default() };
    for (values, precision) in [(ValueType::Bf16, 2.0f32.powi(-8)), (ValueType::F16, 1e-3)] {
        let out = folder.path().join(format!("{values:?}"));
        files::export(&model, &out, &settings(values)).unwrap();
        let (rounded, _) = files::open(&out).unwrap();
        for (rounded, exact) in rounded.parameters().iter().zip(model.parameters()) {
            assert!((rounded - exact).abs() <= exact.abs() * precision + 1e-7);
        }
    }
    model.parameters_mut()[5] = 70_000.0;
    let out = folder.path().join("large");
    let refused = files::export(&model, &out, &settings(ValueType::F16));
    assert!(matches!(refused, Err(FileError::NotFinite(name)) if name.contains("embed_tokens")));
    assert!(!out.exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn models_that_would_compute_something_else_are_refused_by_name() {
    let cases = [
        ("\"attention_bias\": false", "\"attention_bias\": true", "attention_bias"),
        ("\"mlp_bias\": false", "\"mlp_bias\": true", "mlp_bias"),
        ("\"silu\"", "\"gelu\"", "gelu"),
        ("\"llama\"", "\"mistral\"", "mistral"),
        ("\"llama3\"", "\"yarn\"", "yarn"),
        ("\"head_dim\": 8", "\"head_dim\": 16", "head_dim 16"),
        ("\"factor\": 8.0,", "", "lacks a number"),
        ("\"factor\": 8.0", "\"factor\": 0.1", "rope_scaling is out of range"),
        ("\"pretraining_tp\": 1", "\"quantization_config\": {}", "quantization_config"),
        ("\"vocab_size\": 256", "\"vocab_size\": 320", "embed_tokens.weight has shape"),
        ("\"hidden_size\": 16", "\"hidden_size\": 16000000000", "hidden is"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "9 tensors are missing"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", "model.layers.1."),
        ("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", "lm_head.weight"),
        ("{", "", "config.json"),
    ];
    for (from, to, expected) in cases {
        let folder = copied("grouped");
        edit(folder.path(), "config.json", |text| text.replacen(from, to, 1));
        let error = error(folder.path());
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn an_output_matrix_beside_tied_embeddings_must_be_the_embedding() {
    let folder = tempfile::tempdir().unwrap();
    let (tied, _) = files::open(&fixture("grouped")).unwrap();
    let config = ModelConfig { tied: false, ..tied.config().clone() };
    let mut untied = Model::init(&config, 0).unwrap();
    let embedding = tied.arena().embedding.clone();
    untied.parameters_mut()[..tied.parameters().len()].copy_from_slice(tied.parameters());
    let head = untied.arena().head.clone();
    untied.parameters_mut()[head].copy_from_slice(&tied.parameters()[embedding]);
    for (name, spoil) in [("same", 0.0), ("other", 1.0)] {
        *untied.parameters_mut().last_mut().unwrap() += spoil;
        let out = folder.path().join(name);
        files::export(&untied, &out, &ExportSettings::default()).unwrap();
        edit(&out, "config.json", |text| {
            text.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true")
        });
    }
    let (same, _) = files::open(&folder.path().join("same")).unwrap();
    assert_eq!(same.parameters(), tied.parameters());
    assert!(error(&folder.path().join("other")).contains("is not the embedding"));
}

#[test]
fn damaged_tensors_are_errors() {
    let whole = fs::read(fixture("grouped").join("model.safetensors")).unwrap();
    let folder = copied("grouped");
    let path = folder.path().join("model.safetensors");
    let spoil = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        error(folder.path())
    };
    for len in (0..whole.len()).step_by(997).chain([1, 7, 8, 9]) {
        spoil(&whole[..len]);
    }
    for header_len in [0, 1, 1 << 23, 1 << 25, u64::MAX] {
        let mut bytes = whole.clone();
        bytes[..8].copy_from_slice(&header_len.to_le_bytes());
        spoil(&bytes);
    }
    let mut bytes = whole.clone();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(spoil(&bytes).contains("NaN"));
    let position = whole.windows(5).position(|bytes| bytes == b"\"F32\"");
    let position = position.unwrap();
    let mut bytes = whole;
    bytes[position..position + 5].copy_from_slice(b"\"I32\"");
    assert!(spoil(&bytes).contains("type I32"));
}

#[test]
fn indices_do_not_lead_out_of_their_folder() {
    let index = "model.safetensors.index.json";
    let shard = "model-00002-of-00003.safetensors";
    for elsewhere in ["../elsewhere.safetensors", "/etc/passwd", "..", ""] {
        let folder = copied("sharded");
        edit(folder.path(), index, |text| text.replace(shard, elsewhere));
        assert!(error(folder.path()).contains("is no file's name"));
    }
    let folder = copied("sharded");
    fs::remove_file(folder.path().join(shard)).unwrap();
    assert!(error(folder.path()).contains(shard));
    let folder = copied("sharded");
    edit(folder.path(), index, |_| "{\"weight_map\": {}}".to_owned());
    assert!(error(folder.path()).contains("0 shards"));
}
