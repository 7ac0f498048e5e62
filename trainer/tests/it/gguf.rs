//! GGUF files: the same model and the same tokens, in one file or in several, and what is refused.
//!
//! `checks/gguf_files.py` compares with the Python packages that write and read such files.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use dataset::Tokenizer;
use serde_json::json;
use trainer::files::{self, FileError, Gguf};
use trainer::{Model, ModelConfig, RopeScaling};

/// A model that has whole blocks of 32 values in every row.
pub(crate) fn large_rows() -> Model {
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
pub(crate) fn vocabulary() -> Vec<(&'static str, Value)> {
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
pub(crate) fn gguf(model: &Model, kind: GgmlDType, extra: &[(&'static str, Value)]) -> Vec<u8> {
    let mut pairs = pairs(model.config());
    pairs.extend(extra.iter().cloned());
    bytes(&pairs, &tensors(model, kind))
}

/// The same in files of so many tensors each.
fn gguf_in_parts(model: &Model, tensors_at_once: usize) -> Vec<Vec<u8>> {
    let tensors = tensors(model, GgmlDType::F32);
    let parts = tensors.chunks(tensors_at_once);
    let count = parts.len();
    let part = |(no, part)| {
        let mut pairs = match no {
            0 => pairs(model.config()),
            _ => HashMap::new(),
        };
        pairs.extend([
            ("split.no", Value::U16(no as u16)),
            ("split.count", Value::U16(count as u16)),
            ("split.tensors.count", Value::I32(tensors.len() as i32)),
        ]);
        bytes(&pairs, part)
    };
    parts.enumerate().map(part).collect()
}

pub(crate) fn pairs(config: &ModelConfig) -> HashMap<&'static str, Value> {
    let number = |number: usize| Value::U32(number as u32);
    HashMap::from([
        ("general.architecture", Value::String("llama".to_owned())),
        ("llama.block_count", number(config.layers)),
        ("llama.context_length", number(config.seq_len)),
        ("llama.embedding_length", number(config.hidden)),
        ("llama.feed_forward_length", number(config.ffn)),
        ("llama.attention.head_count", number(config.heads)),
        ("llama.attention.head_count_kv", number(config.kv_heads)),
        ("llama.rope.freq_base", Value::F32(config.rope_theta)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.norm_epsilon)),
    ])
}

/// The tensors of `model` by llama.cpp's names.
pub(crate) fn tensors(model: &Model, kind: GgmlDType) -> Vec<(String, QTensor)> {
    let config = model.config();
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
        let kind = if shape.len() == 1 { GgmlDType::F32 } else { kind };
        let name = names.iter().fold(info.name.clone(), |name, (from, to)| name.replace(from, to));
        tensors.push((name, QTensor::quantize(&tensor, kind).unwrap()));
    }
    if config.rope_scaling.is_some() {
        let plain = ModelConfig { rope_scaling: None, ..config.clone() };
        let pairs = plain.rotary_frequencies().into_iter();
        let factors = pairs.zip(config.rotary_frequencies());
        let factors: Vec<f32> = factors.map(|(plain, slow)| (plain / slow) as f32).collect();
        let factors = Tensor::from_slice(&factors, factors.len(), &Device::Cpu).unwrap();
        let factors = QTensor::quantize(&factors, GgmlDType::F32).unwrap();
        tensors.push(("rope_freqs.weight".to_owned(), factors));
    }
    tensors
}

pub(crate) fn bytes(
    pairs: &HashMap<&'static str, Value>,
    tensors: &[(String, QTensor)],
) -> Vec<u8> {
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| (*key, value)).collect();
    let mut bytes = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut bytes, &pairs, &tensors).unwrap();
    bytes.into_inner()
}

/// What a GGUF file holds.
#[derive(Debug)]
struct Held {
    model: Model,
    tokenizer: Result<Option<Vec<u8>>, FileError>,
    bos: Option<u32>,
    ends: Vec<u32>,
}

fn open(path: &Path) -> Result<Held, FileError> {
    let gguf = Gguf::open(path)?;
    let model = gguf.model()?;
    assert_eq!(gguf.config(), model.config());
    Ok(Held { model, tokenizer: gguf.tokenizer(), bos: gguf.bos()?, ends: gguf.ends()? })
}

/// Opens the bytes as a file.
fn open_gguf(bytes: &[u8]) -> Result<Held, FileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    open(&path)
}

#[test]
fn gguf_gives_back_the_model_and_its_tokenizer() {
    let model = large_rows();
    let gguf_model = open_gguf(&gguf(&model, GgmlDType::F32, &vocabulary())).unwrap();
    assert_eq!(gguf_model.model.config(), model.config());
    assert_eq!(gguf_model.model.parameters(), model.parameters());
    assert_eq!((gguf_model.bos, gguf_model.ends), (Some(259), vec![260]));
    let tokenizer = Tokenizer::from_json(&gguf_model.tokenizer.unwrap().unwrap()).unwrap();
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
        let json = open_gguf(&file).unwrap().tokenizer.unwrap().unwrap();
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
        ("llama.rope.scaling.type", Value::String("linear".to_owned())),
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
        assert!(read.tokenizer.unwrap().is_none());
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
        ("llama.block_count", text("two"), "llama.block_count is a text of 3 bytes"),
        ("llama.feed_forward_length", Value::U32(128), "not [64, 128]"),
        ("llama.embedding_length", Value::U32(1 << 31), "hidden is"),
        ("llama.attention.key_length", Value::U32(32), "key_length"),
        ("llama.expert_count", Value::U32(8), "experts"),
        ("llama.rope.scaling.type", text("yarn"), "yarn"),
        ("split.count", Value::U32(2), "not named as one"),
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
    let error = read.tokenizer.unwrap_err().to_string();
    assert!(error.contains("klingon"), "{error}");
}

/// Values of a type that is not read, in a whole file otherwise.
#[test]
fn types_that_are_not_read_are_refused_by_name() {
    let mut bytes = gguf(&large_rows(), GgmlDType::F32, &[]);
    let name = b"blk.1.attn_v.weight";
    let mut windows = bytes.windows(name.len());
    // Name, number of dimensions, two dimensions, type.
    let place = windows.position(|window| window == name).unwrap() + name.len() + 4 + 16;
    for (kind, expected) in [(23u32, "type IQ4_XS"), (39, "type MXFP4"), (99, "number 99")] {
        bytes[place..place + 4].copy_from_slice(&kind.to_le_bytes());
        let error = open_gguf(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("blk.1.attn_v.weight"), "{error}");
    }
}

#[test]
fn a_model_in_parts_is_read_from_any_of_them_or_their_folder() {
    let model = large_rows();
    let parts = gguf_in_parts(&model, 8);
    assert_eq!(parts.len(), 3);
    let folder = tempfile::tempdir().unwrap();
    let path = |no: usize| folder.path().join(format!("a-b-{no:05}-of-00003.gguf"));
    for (part, no) in parts.iter().zip(1..) {
        fs::write(path(no), part).unwrap();
    }
    for place in [folder.path().to_owned(), path(1), path(2), path(3)] {
        assert!(files::is_gguf(&place));
        let (read, _) = files::open(&place).unwrap();
        assert_eq!(read.parameters(), model.parameters());
        assert_eq!(&files::configuration(&place).unwrap(), model.config());
    }

    let refused = |place: &Path, expected: &str| {
        let error = open(place).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    // Of another model: with other tensors, in another number of files, and with the same tensors.
    let longer = ModelConfig { layers: 3, ..model.config().clone() };
    let longer = gguf_in_parts(&Model::init(&longer, 1).unwrap(), 11);
    fs::write(path(2), &longer[1]).unwrap();
    refused(&path(1), "of another model: one of 30 tensors");
    fs::write(path(2), &gguf_in_parts(&model, 11)[1]).unwrap();
    refused(&path(1), "part of a model in 2 files, not in 3");
    fs::write(path(2), gguf(&model, GgmlDType::F32, &[])).unwrap();
    refused(&path(1), "part of a model in 1 files, not in 3");
    fs::write(path(2), &parts[0]).unwrap();
    refused(&path(1), "by its content part 1, by its name 2");
    let mut again = parts[0].clone();
    let key = b"split.no";
    let place = again.windows(8).position(|window| window == key).unwrap() + 8 + 4;
    again[place] = 1;
    fs::write(path(2), &again).unwrap();
    refused(&path(1), "is in another part of the model, too");
    fs::remove_file(path(2)).unwrap();
    refused(&path(3), "1 of its 3 parts are missing, the first is a-b-00002-of-00003.gguf");
    refused(folder.path(), "1 of its 3 parts are missing");
    fs::write(path(2), &parts[1]).unwrap();
    fs::write(folder.path().join("other.gguf"), &parts[0]).unwrap();
    refused(folder.path(), "several models are in this folder");
    refused(&folder.path().join("other.gguf"), "not named as one");
}

/// A file of `tests/fixtures/gguf`, which trainer/checks/gguf_files.py writes.
fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf");
    folder.join(name)
}

/// Texts with the tokens that SentencePiece itself makes of them.
fn sentencepiece_cases() -> Vec<(String, Vec<u32>)> {
    let cases = fs::read_to_string(fixture("sentencepiece.jsonl")).unwrap();
    let case = |line: &str| {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let tokens = serde_json::from_value(case["tokens"].clone()).unwrap();
        (case["text"].as_str().unwrap().to_owned(), tokens)
    };
    cases.lines().map(case).collect()
}

#[test]
fn tokens_are_those_of_sentencepiece() {
    let held = open(&fixture("sentencepiece.gguf")).unwrap();
    assert_eq!((held.bos, held.ends), (Some(1), vec![2]));
    let tokenizer = Tokenizer::from_json(&held.tokenizer.unwrap().unwrap()).unwrap();
    assert!(tokenizer.is_fast());
    assert_eq!(tokenizer.vocab_size(), 640);
    let cases = sentencepiece_cases();
    assert!(cases.len() > 50);
    for (text, tokens) in &cases {
        assert_eq!(&tokenizer.encode(text).unwrap(), tokens, "{text:?}");
        assert_eq!(&tokenizer.encode_general(text).unwrap(), tokens, "{text:?}");
        let decoded = tokenizer.decode(tokens).unwrap();
        assert_eq!(decoded, text.replace('▁', " "));
    }
    // A token that users added, which every text has, and a special one, which only prompts have: what
    // is between them is a text of its own.
    let turn = tokenizer.token_id("<|turn|>").unwrap();
    let [(first, first_tokens), (second, second_tokens)] = &cases[..2] else {
        panic!("two cases");
    };
    let text = format!("{first}<|turn|>{second}<|turn|><|turn|>");
    let expected = [first_tokens, &[turn][..], second_tokens, &[turn, turn]].concat();
    assert_eq!(tokenizer.encode(&text).unwrap(), expected);
    assert_eq!(tokenizer.encode_general(&text).unwrap(), expected);
    let prompt = format!("{first}</s>{second}");
    let expected = [first_tokens, &[2][..], second_tokens].concat();
    assert_eq!(tokenizer.encode_prompt(&prompt).unwrap(), expected);
    assert_ne!(tokenizer.encode(&prompt).unwrap(), expected);
}

/// A vocabulary of SentencePiece: three special tokens, all bytes, and pieces with scores.
fn pieces(pieces: &[(&str, f32, i32)], extra: &[(&'static str, Value)]) -> Result<Vec<u8>, String> {
    let bytes = (0..256).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6));
    let special = [("<unk>", 2), ("<s>", 3), ("</s>", 3)];
    let special = special.map(|(name, kind)| (name.to_owned(), 0.0, kind));
    let pieces = pieces.iter().map(|(name, score, kind)| ((*name).to_owned(), *score, *kind));
    let all: Vec<_> = special.into_iter().chain(bytes).chain(pieces).collect();
    let list = |value: &dyn Fn(&(String, f32, i32)) -> Value| {
        Value::Array(all.iter().map(value).collect())
    };
    let mut pairs = vec![
        ("tokenizer.ggml.model", Value::String("llama".to_owned())),
        ("tokenizer.ggml.tokens", list(&|token| Value::String(token.0.clone()))),
        ("tokenizer.ggml.scores", list(&|token| Value::F32(token.1))),
        ("tokenizer.ggml.token_type", list(&|token| Value::I32(token.2))),
    ];
    pairs.extend(extra.iter().cloned());
    let held = open_gguf(&gguf(&large_rows(), GgmlDType::F32, &pairs)).unwrap();
    let tokenizer = held.tokenizer.map_err(|error| error.to_string())?;
    Ok(tokenizer.unwrap())
}

#[test]
fn scores_decide_what_is_merged_and_flags_what_is_put_around_it() {
    let all = [("a", -9.0, 1), ("b", -9.0, 1), ("ab", -1.0, 1), ("bb", 0.0, 1), ("abb", -2.0, 1)];
    let flags = [
        ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.ggml.add_eos_token", Value::Bool(true)),
    ];
    let tokenizer = |flags: &[_]| {
        let json = pieces(&all, flags).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        (Tokenizer::from_json(&json).unwrap(), value)
    };
    let (plain, json) = tokenizer(&flags);
    assert!(plain.is_fast());
    let merges = json!([["b", "b"], ["a", "b"], ["ab", "b"], ["a", "bb"]]);
    assert_eq!(json["model"]["merges"], merges);
    let [a, ab, abb] = [259, 261, 263];
    assert_eq!(plain.encode("abb").unwrap(), [abb]);
    assert_eq!(plain.encode("abbb").unwrap(), [abb, 260]);
    assert_eq!(plain.encode("aab").unwrap(), [a, ab]);
    let single = &json["post_processor"]["single"];
    assert_eq!(single[1]["SpecialToken"]["id"], "</s>");
    let (usual, json) = tokenizer(&[]);
    // A space is three bytes, as it is no token.
    let space = [3 + 0xe2, 3 + 0x96, 3 + 0x81];
    assert_eq!(usual.encode("ab").unwrap(), [&space[..], &[ab]].concat());
    assert_eq!(json["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
    assert_eq!(json["post_processor"]["single"][2], json!(null));
}

#[test]
fn vocabularies_without_an_equal_tokenizer_are_refused() {
    let text = |text: &str| Value::String(text.to_owned());
    let flag = |name| [(name, Value::Bool(true))];
    let parts = [("a", -5.0, 1), ("b", -6.0, 1)];
    let with = |more: &[(&'static str, f32, i32)]| [&parts[..], more].concat();
    let cases = [
        (with(&[("ab", -1.0, 1), ("ba", -1.0, 1)]), vec![], "the same score -1"),
        (with(&[("ab", f32::NAN, 1)]), vec![], "NaN"),
        (with(&[("ab", -1.0, 5)]), vec![], "unused but can be merged"),
        (with(&[("a", -1.0, 1)]), vec![], "there twice"),
        (with(&[("<0x100>", 0.0, 6)]), flag("x").to_vec(), ""),
        (with(&[]), flag("tokenizer.ggml.remove_extra_whitespaces").to_vec(), "removes spaces"),
        (
            with(&[]),
            vec![("tokenizer.ggml.precompiled_charsmap", Value::Array(vec![Value::U8(1)]))],
            "normalises",
        ),
        (with(&[]), vec![("tokenizer.ggml.model", text("t5"))], "unigram of SentencePiece"),
        (with(&[]), vec![("tokenizer.ggml.model", text("bert"))], "WordPiece"),
        (
            with(&[]),
            vec![("tokenizer.ggml.scores", text("none"))],
            "tokenizer.ggml.scores is a text of 4 bytes",
        ),
        (with(&[]), vec![("tokenizer.ggml.unknown_token_id", Value::U32(999))], "999 is no token"),
    ];
    for (tokens, extra, expected) in cases {
        match (pieces(&tokens, &extra), expected) {
            // Not a byte, and not in the way of the 256 that are.
            (Ok(_), "") => {}
            (found, _) => {
                let error = found.unwrap_err();
                assert!(!expected.is_empty() && error.contains(expected), "{error}");
            }
        }
    }
}
