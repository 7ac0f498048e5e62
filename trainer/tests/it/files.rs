//! Models in files: the same logits as transformers, whole round trips, and damage that is an error.
//!
//! The models in `fixtures/huggingface` and their logits are from transformers 5.23;
//! `checks/huggingface.py` makes them, and does the other direction.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use trainer::files::{self, ExportSettings, FileError, ValueType};
use trainer::{Engine, Model, ModelConfig, RopeScaling, SampleSource, Threads, Tokenizer, Tokens};

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
        let expected: Vec<f32> = bytes
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
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
            eos: Some(2),
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
        assert_eq!((like.bos, like.eos), (None, Some(2)));
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
    let settings = |values| ExportSettings {
        values,
        ..ExportSettings::default()
    };
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
        (
            "\"attention_bias\": false",
            "\"attention_bias\": true",
            "attention_bias",
        ),
        ("\"mlp_bias\": false", "\"mlp_bias\": true", "mlp_bias"),
        ("\"silu\"", "\"gelu\"", "gelu"),
        ("\"llama\"", "\"mistral\"", "mistral"),
        ("\"llama3\"", "\"yarn\"", "yarn"),
        ("\"head_dim\": 8", "\"head_dim\": 16", "head_dim 16"),
        ("\"factor\": 8.0,", "", "lacks a number"),
        (
            "\"factor\": 8.0",
            "\"factor\": 0.1",
            "rope_scaling is out of range",
        ),
        (
            "\"pretraining_tp\": 1",
            "\"quantization_config\": {}",
            "quantization_config",
        ),
        (
            "\"vocab_size\": 256",
            "\"vocab_size\": 320",
            "embed_tokens.weight has shape",
        ),
        (
            "\"hidden_size\": 16",
            "\"hidden_size\": 16000000000",
            "hidden is",
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            "9 tensors are missing",
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 1",
            "model.layers.1.",
        ),
        (
            "\"tie_word_embeddings\": true",
            "\"tie_word_embeddings\": false",
            "lm_head.weight",
        ),
        ("{", "", "config.json"),
    ];
    for (from, to, expected) in cases {
        let folder = copied("grouped");
        edit(folder.path(), "config.json", |text| {
            text.replacen(from, to, 1)
        });
        let error = error(folder.path());
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn an_output_matrix_beside_tied_embeddings_must_be_the_embedding() {
    let folder = tempfile::tempdir().unwrap();
    let (tied, _) = files::open(&fixture("grouped")).unwrap();
    let config = ModelConfig {
        tied: false,
        ..tied.config().clone()
    };
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
            text.replace(
                "\"tie_word_embeddings\": false",
                "\"tie_word_embeddings\": true",
            )
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

/// A model that has whole blocks of 32 values in every row.
fn large_rows() -> Model {
    let config = ModelConfig {
        vocab: 261,
        hidden: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        ffn: 96,
        seq_len: 64,
        rope_theta: 10_000.0,
        rope_scaling: None,
        norm_epsilon: 1e-5,
        tied: false,
    };
    Model::init(&config, 9).unwrap()
}

/// A byte-level vocabulary of a GGUF file: 256 bytes, three merged tokens, two special ones.
fn vocabulary() -> Vec<(&'static str, Value)> {
    // GPT-2's characters of the bytes: printable ones stand for themselves, the others follow at 256.
    let mut others = 256u32..;
    let mut tokens: Vec<String> = (0..=255u32)
        .map(|byte| match byte {
            33..=126 | 161..=172 | 174..=255 => char::from_u32(byte).unwrap().to_string(),
            _ => char::from_u32(others.next().unwrap()).unwrap().to_string(),
        })
        .collect();
    let merged = ["\u{120}t", "\u{120}th", "\u{10a}\u{10a}"];
    tokens.extend(merged.map(str::to_owned));
    tokens.extend(["<|begin|>", "<|end|>"].map(str::to_owned));
    let texts = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
    let kinds = (0..261).map(|id| Value::I32(if id < 259 { 1 } else { 3 }));
    let merges = ["\u{120} t", "\u{120}t h", "\u{10a} \u{10a}"];
    let merges = merges.map(str::to_owned).to_vec();
    vec![
        ("tokenizer.ggml.model", Value::String("gpt2".to_owned())),
        ("tokenizer.ggml.pre", Value::String("smollm".to_owned())),
        ("tokenizer.ggml.tokens", texts(tokens)),
        ("tokenizer.ggml.token_type", Value::Array(kinds.collect())),
        ("tokenizer.ggml.merges", texts(merges)),
        ("tokenizer.ggml.bos_token_id", Value::U32(259)),
        ("tokenizer.ggml.eos_token_id", Value::U32(260)),
    ]
}

/// The bytes of a GGUF file of `model`, as llama.cpp's converter orders it, with `extra` pairs.
fn gguf(model: &Model, kind: GgmlDType, extra: &[(&'static str, Value)]) -> Vec<u8> {
    let config = model.config();
    let number = |number: usize| Value::U32(number as u32);
    let mut pairs = HashMap::from([
        ("general.architecture", Value::String("llama".to_owned())),
        ("llama.block_count", number(config.layers)),
        ("llama.context_length", number(config.seq_len)),
        ("llama.embedding_length", number(config.hidden)),
        ("llama.feed_forward_length", number(config.ffn)),
        ("llama.attention.head_count", number(config.heads)),
        ("llama.attention.head_count_kv", number(config.kv_heads)),
        ("llama.rope.freq_base", Value::F32(config.rope_theta)),
        (
            "llama.attention.layer_norm_rms_epsilon",
            Value::F32(config.norm_epsilon),
        ),
    ]);
    pairs.extend(extra.iter().cloned());
    let names = [
        ("model.layers.", "blk."),
        ("model.embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("model.norm", "output_norm"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let mut tensors = Vec::new();
    for (index, info) in model.tensors().iter().enumerate() {
        let shape = info.shape.as_slice();
        let mut tensor = Tensor::from_slice(model.tensor(index), shape, &Device::Cpu).unwrap();
        let is_turned = info.name.contains("q_proj") || info.name.contains("k_proj");
        if is_turned {
            // convert_hf_to_gguf.py: reshape(heads, 2, half, columns).swapaxes(1, 2).
            let half = config.head_dim() / 2;
            let split = tensor.reshape((shape[0] / half / 2, 2, half, shape[1]));
            let turned = split.unwrap().transpose(1, 2).unwrap().contiguous();
            tensor = turned.unwrap().reshape(shape).unwrap();
        }
        let kind = if shape.len() == 1 {
            GgmlDType::F32
        } else {
            kind
        };
        let name = names
            .iter()
            .fold(info.name.clone(), |name, (from, to)| name.replace(from, to));
        tensors.push((name, QTensor::quantize(&tensor, kind).unwrap()));
    }
    if config.rope_scaling.is_some() {
        let plain = ModelConfig {
            rope_scaling: None,
            ..config.clone()
        };
        let pairs = plain.rotary_frequencies().into_iter();
        let factors = pairs.zip(config.rotary_frequencies());
        let factors: Vec<f32> = factors.map(|(plain, slow)| (plain / slow) as f32).collect();
        let factors = Tensor::from_slice(&factors, factors.len(), &Device::Cpu).unwrap();
        let factors = QTensor::quantize(&factors, GgmlDType::F32).unwrap();
        tensors.push(("rope_freqs.weight".to_owned(), factors));
    }
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| (*key, value)).collect();
    let mut bytes = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut bytes, &pairs, &tensors).unwrap();
    bytes.into_inner()
}

/// Opens the bytes as a file.
fn open_gguf(bytes: &[u8]) -> Result<files::GgufModel, FileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    files::open_gguf(&path)
}

#[test]
fn gguf_gives_back_the_model_and_its_tokenizer() {
    let model = large_rows();
    let gguf_model = open_gguf(&gguf(&model, GgmlDType::F32, &vocabulary())).unwrap();
    assert_eq!(gguf_model.model.config(), model.config());
    assert_eq!(gguf_model.model.parameters(), model.parameters());
    assert_eq!((gguf_model.bos, gguf_model.eos), (Some(259), Some(260)));
    let tokenizer = Tokenizer::from_json(&gguf_model.tokenizer.unwrap()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 261);
    let ids = tokenizer.encode_prompt("at the 12<|end|>").unwrap();
    let texts = [97, 116].into_iter().chain([257, 101, 32, 49, 50, 260]);
    assert_eq!(ids, texts.collect::<Vec<u32>>());
}

/// Two ends of a line before a digit are one token only where digits are cut out first: elsewhere the
/// second goes with what follows. Of 282 MMLU questions this decides the scores of one.
#[test]
fn text_is_cut_as_the_gguf_file_says() {
    let ids = |name: &str| {
        let mut vocabulary = vocabulary();
        vocabulary.push(("tokenizer.ggml.pre", Value::String(name.to_owned())));
        let file = gguf(&large_rows(), GgmlDType::F32, &vocabulary);
        let json = open_gguf(&file).unwrap().tokenizer.unwrap();
        let tokenizer = Tokenizer::from_json(&json).unwrap();
        tokenizer.encode_prompt("x.\n\n3 the").unwrap()
    };
    assert_eq!(ids("smollm"), [120, 46, 258, 51, 257, 101]);
    assert_eq!(ids("gpt-2"), [120, 46, 10, 10, 51, 257, 101]);
}

#[test]
fn stretched_positions_are_recognised_in_gguf() {
    let stretched = |original_max_position_embeddings| {
        let config = ModelConfig {
            rope_scaling: Some(RopeScaling::Llama3 {
                factor: 32.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings,
            }),
            ..large_rows().config().clone()
        };
        Model::init(&config, 1).unwrap()
    };
    let model = stretched(8192);
    let read = open_gguf(&gguf(&model, GgmlDType::F32, &[])).unwrap();
    assert_eq!(read.model.config(), model.config());
    let refused = open_gguf(&gguf(&stretched(1000), GgmlDType::F32, &[])).unwrap_err();
    assert!(refused.to_string().contains("stretching"), "{refused}");
    let linear = [
        (
            "llama.rope.scaling.type",
            Value::String("linear".to_owned()),
        ),
        ("llama.rope.scaling.factor", Value::F32(4.0)),
    ];
    let read = open_gguf(&gguf(&large_rows(), GgmlDType::F32, &linear)).unwrap();
    let scaling = read.model.config().rope_scaling;
    assert_eq!(scaling, Some(RopeScaling::Linear { factor: 4.0 }));
}

#[test]
fn quantised_gguf_is_near_the_model() {
    let model = large_rows();
    let kinds = [
        (GgmlDType::F16, 1e-3),
        (GgmlDType::Q8_0, 0.01),
        (GgmlDType::Q5_1, 0.05),
        (GgmlDType::Q4_0, 0.15),
        (GgmlDType::Q4_1, 0.12),
    ];
    for (kind, precision) in kinds {
        let read = open_gguf(&gguf(&model, kind, &[])).unwrap();
        assert!(read.tokenizer.unwrap_err().contains("no vocabulary"));
        let (mut distance, mut length) = (0.0, 0.0);
        for (read, exact) in read.model.parameters().iter().zip(model.parameters()) {
            // The norms, which are 1, are not quantised.
            if *exact != 1.0 {
                distance += f64::from(read - exact).powi(2);
                length += f64::from(*exact).powi(2);
            }
        }
        let relative = (distance / length).sqrt();
        assert!(relative < precision, "{kind:?}: {relative}");
    }
}

#[test]
fn gguf_that_is_damaged_or_not_supported_is_an_error() {
    let model = large_rows();
    let whole = gguf(&model, GgmlDType::Q8_0, &vocabulary());
    for len in (0..whole.len()).step_by(1013).chain([1, 4, 8, 16, 24]) {
        assert!(open_gguf(&whole[..len]).is_err(), "{len} bytes");
    }
    let text = |text: &str| Value::String(text.to_owned());
    let cases = [
        ("general.architecture", text("mamba"), "mamba"),
        ("general.alignment", Value::U32(0), "makes no sense"),
        ("llama.block_count", Value::U32(3), "9 tensors are missing"),
        ("llama.block_count", Value::U32(1), "blk.1."),
        ("llama.block_count", text("two"), "is no number"),
        (
            "llama.feed_forward_length",
            Value::U32(128),
            "not [64, 128]",
        ),
        ("llama.embedding_length", Value::U32(1 << 31), "hidden is"),
        ("llama.attention.key_length", Value::U32(32), "key_length"),
        ("llama.expert_count", Value::U32(8), "experts"),
        ("llama.rope.scaling.type", text("yarn"), "yarn"),
        ("split.count", Value::U32(2), "cut into several"),
    ];
    for (key, value, expected) in cases {
        let error = open_gguf(&gguf(&model, GgmlDType::F32, &[(key, value)])).unwrap_err();
        assert!(error.to_string().contains(expected), "{key}: {error}");
    }
    let mut spoiled = model;
    spoiled.parameters_mut()[100] = f32::INFINITY;
    let error = open_gguf(&gguf(&spoiled, GgmlDType::F32, &[])).unwrap_err();
    assert!(matches!(error, FileError::NotFinite(_)), "{error}");
    let unknown = [vocabulary(), vec![("tokenizer.ggml.pre", text("klingon"))]].concat();
    let read = open_gguf(&gguf(&large_rows(), GgmlDType::F32, &unknown)).unwrap();
    assert!(read.tokenizer.unwrap_err().contains("klingon"));
}
