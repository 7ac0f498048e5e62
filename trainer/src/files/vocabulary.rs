//! The vocabulary of a GGUF file as Hugging Face's `tokenizer.json`.
//!
//! Of a byte-level BPE, GGUF has the tokens, the merges and the name of a pre-tokenizer, which stands
//! for a pattern in llama.cpp's source. The names whose pattern is known here are those of models of
//! LLaMA's shape. Of a BPE of SentencePiece it has the tokens and their scores ([`sentencepiece`]).
//! For any other vocabulary the tokenizer must come from elsewhere.

mod tokens;

mod sentencepiece;

pub(super) use tokens::{end_tokens, special_token, tokenizer_config};

use serde_json::{json, Map, Value};

use self::tokens::{
    added_token, is_added, needed_texts, post_processor, put_token, texts, token_kinds,
};
use super::gguf::header::Metadata;
use dataset::tokenizer::Tokenizer;

/// How Llama 3 cuts text before merging.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How Qwen 2 does.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How GPT-2 does, but that spaces at the end of a line are what is left.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

/// How llama.cpp cuts where a file names no pre-tokenizer, or `default`: punctuation first, digits
/// by three.
const DEFAULT: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"];

/// How Falcon does, by llama.cpp.
const FALCON: [&str; 3] = [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"];

/// The `tokenizer.json` of a file with these key-value pairs, `None` if it has no vocabulary, or why
/// it cannot be written as one.
pub(super) fn tokenizer_json(metadata: &Metadata<'_>) -> Result<Option<Vec<u8>>, String> {
    let tokenizer = match metadata.text("tokenizer.ggml.model")? {
        Some("gpt2") => byte_level_json(metadata)?,
        Some("llama") => sentencepiece::json(metadata)?,
        None if metadata.has("tokenizer.ggml.tokens") => {
            return Err("it has tokens, but no tokenizer.ggml.model".to_owned());
        }
        Some("none" | "no_vocab") | None => return Ok(None),
        Some(other) => {
            let what = match other {
                "t5" => "unigram of SentencePiece",
                "bert" => "WordPiece",
                _ => "unknown",
            };
            return Err(format!(
                "it is of the kind {other:?} ({what}); gpt2 (byte-level BPE) and llama \
                 (BPE of SentencePiece) are converted"
            ));
        }
    };
    let bytes = serde_json::to_vec(&tokenizer).map_err(|error| error.to_string())?;
    Tokenizer::from_json(&bytes).map_err(|error| error.to_string())?;
    Ok(Some(bytes))
}

fn byte_level_json(metadata: &Metadata<'_>) -> Result<Value, String> {
    let tokens = texts(metadata)?;
    let merges = needed_texts(metadata, "tokenizer.ggml.merges")?;
    // llama.cpp takes an empty name for none.
    let name = metadata.text("tokenizer.ggml.pre")?.filter(|name| !name.is_empty());
    let name = name.unwrap_or("default");
    let (normalizer, pre_tokenizer) = pre_tokenizer(name)?;
    let is_llama3 = is_llama3(name);
    if metadata.flag("tokenizer.ggml.add_sep_token")? == Some(true) {
        return Err("it puts a separator behind texts (add_sep_token)".to_owned());
    }
    let vocab: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let kinds = token_kinds(metadata, tokens.len())?.unwrap_or_default();
    let added = tokens.iter().zip(kinds).enumerate();
    let added = added.filter(|(_, (_, kind))| is_added(*kind));
    let added: Vec<Value> = added.map(|(id, (token, kind))| added_token(id, token, kind)).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor(
            put_token(metadata, &tokens, "bos", is_llama3)?,
            put_token(metadata, &tokens, "eos", false)?,
        ),
        "decoder": byte_level(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": is_llama3,
            "vocab": vocab,
            "merges": merges,
        },
    }))
}

/// Whether whole words that are tokens are taken unmerged, and texts begin with the first token.
fn is_llama3(name: &str) -> bool {
    let names = ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0"];
    names.contains(&name) || name == "lfm2"
}

/// Normaliser and pre-tokenizer by llama.cpp's name. What llama.cpp cuts otherwise than these is
/// refused, so that no name is taken for another.
fn pre_tokenizer(name: &str) -> Result<(Value, Value), String> {
    match name {
        "default" => Ok((Value::Null, split(&DEFAULT))),
        "gpt-2" | "gpt2" | "phi-2" | "jina-es" | "jina-de" | "jina-v2-es" | "jina-v2-de"
        | "gigachat" | "a.x-4.0" | "mellum" | "modern-bert" | "exaone4" | "mpt" | "olmo"
        | "jais" | "trillion" | "granite-docling" => Ok((Value::Null, byte_level(true))),
        // GPT-2's pattern, but each digit alone.
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
            let digits = json!({ "type": "Digits", "individual_digits": true });
            let pair = [digits, byte_level(true)];
            Ok((Value::Null, json!({ "type": "Sequence", "pretokenizers": pair })))
        }
        "falcon" => Ok((Value::Null, split(&FALCON))),
        "qwen2" | "deepseek-r1-qwen" | "megrez" => Ok((json!({ "type": "NFC" }), split(&[QWEN2]))),
        "stablelm2" | "hunyuan" => Ok((Value::Null, split(&[QWEN2]))),
        "dbrx" | "smaug-bpe" | "glm4" | "chatglm-bpe" => Ok((Value::Null, split(&[LLAMA3]))),
        name if is_llama3(name) => Ok((Value::Null, split(&[LLAMA3]))),
        other => Err(format!("the pre-tokenizer {other:?} is not known")),
    }
}

/// Cuts a text by each of the patterns in turn: what one matches and what is between are cut by the
/// next one.
fn split(patterns: &[&str]) -> Value {
    let split = |pattern: &&str| {
        json!({
            "type": "Split",
            "pattern": { "Regex": pattern },
            "behavior": "Isolated",
            "invert": false,
        })
    };
    let steps = patterns.iter().map(split).chain([byte_level(false)]);
    json!({ "type": "Sequence", "pretokenizers": steps.collect::<Vec<_>>() })
}

/// GPT-2's mapping of bytes to characters, with or without its pattern.
fn byte_level(use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex })
}
