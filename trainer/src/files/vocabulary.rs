//! The vocabulary of a GGUF file as Hugging Face's `tokenizer.json`.
//!
//! GGUF has the tokens, the merges and the name of a pre-tokenizer, which stands for a pattern in
//! llama.cpp's source. The names whose pattern is known here are those of byte-level BPE models of
//! LLaMA's shape; for any other, and for SentencePiece, the tokenizer must come from elsewhere.

use candle_core::quantized::gguf_file::Value as Stored;
use serde_json::{json, Map, Value};

use super::gguf::Metadata;
use crate::tokenizer::Tokenizer;

/// How Llama 3 cuts text before merging.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How Qwen 2 does.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// llama.cpp's kinds of tokens.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The `tokenizer.json` of a file with these key-value pairs, or why there is none.
pub(super) fn tokenizer_json(metadata: &Metadata<'_>) -> Result<Vec<u8>, String> {
    match metadata.text("tokenizer.ggml.model") {
        Some("gpt2") => {}
        Some(other) => return Err(format!("vocabularies of kind {other:?} are not converted")),
        None => return Err("the file has no vocabulary".to_owned()),
    }
    let tokens = texts(metadata, "tokenizer.ggml.tokens")?;
    let merges = texts(metadata, "tokenizer.ggml.merges")?;
    let name = metadata.text("tokenizer.ggml.pre").unwrap_or("default");
    let (normalizer, pre_tokenizer) = pre_tokenizer(name)?;
    let is_llama3 = is_llama3(name);
    let vocab: Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), json!(id)))
        .collect();
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(metadata, &tokens),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor(metadata, &tokens, is_llama3),
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
    });
    let bytes = serde_json::to_vec(&tokenizer).map_err(|error| error.to_string())?;
    Tokenizer::from_json(&bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn texts<'a>(metadata: &Metadata<'a>, key: &str) -> Result<Vec<&'a str>, String> {
    let list = metadata.list(key).ok_or_else(|| format!("no list {key}"))?;
    let texts = list
        .iter()
        .map(|value| Some(value.to_string().ok()?.as_str()));
    let texts: Option<Vec<&str>> = texts.collect();
    texts.ok_or_else(|| format!("{key} is no list of texts"))
}

fn is_llama3(name: &str) -> bool {
    matches!(name, "llama-bpe" | "llama3" | "llama-v3")
}

/// Normaliser and pre-tokenizer by llama.cpp's name.
fn pre_tokenizer(name: &str) -> Result<(Value, Value), String> {
    let split = |pattern: &str| {
        json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
            byte_level(false),
        ] })
    };
    match name {
        "default" | "gpt-2" | "gpt2" | "mpt" | "olmo" => Ok((Value::Null, byte_level(true))),
        // GPT-2's pattern, but each digit alone.
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => {
            let digits = json!({ "type": "Digits", "individual_digits": true });
            let pair = [digits, byte_level(true)];
            Ok((
                Value::Null,
                json!({ "type": "Sequence", "pretokenizers": pair }),
            ))
        }
        "qwen2" => Ok((json!({ "type": "NFC" }), split(QWEN2))),
        name if is_llama3(name) => Ok((Value::Null, split(LLAMA3))),
        other => Err(format!("the pre-tokenizer {other:?} is not known")),
    }
}

/// GPT-2's mapping of bytes to characters, with or without its pattern.
fn byte_level(use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex })
}

/// The tokens that are never made by merging: special ones and those that users added.
fn added_tokens(metadata: &Metadata<'_>, tokens: &[&str]) -> Vec<Value> {
    let kinds = metadata
        .list("tokenizer.ggml.token_type")
        .unwrap_or_default();
    let added = tokens.iter().zip(kinds).enumerate();
    let added = added.filter_map(|(id, (token, kind))| {
        let kind = match kind {
            Stored::I32(kind) => i64::from(*kind),
            Stored::U32(kind) => i64::from(*kind),
            _ => return None,
        };
        matches!(kind, UNKNOWN | CONTROL | USER_DEFINED).then(|| {
            json!({
                "id": id,
                "content": token,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": kind != USER_DEFINED,
            })
        })
    });
    added.collect()
}

/// Puts the first token before a text where the file asks for it, as Llama 3 does unless told not to.
fn post_processor(metadata: &Metadata<'_>, tokens: &[&str], is_llama3: bool) -> Value {
    let adds_bos = metadata.flag("tokenizer.ggml.add_bos_token");
    let bos = metadata.token("tokenizer.ggml.bos_token_id");
    let content = bos.and_then(|id| tokens.get(id as usize));
    let (true, Some(id), Some(content)) = (adds_bos.unwrap_or(is_llama3), bos, content) else {
        return Value::Null;
    };
    let special = |kind: usize| json!({ "SpecialToken": { "id": content, "type_id": kind } });
    let text = |name: &str, kind: usize| json!({ "Sequence": { "id": name, "type_id": kind } });
    let mut named = Map::new();
    let token = json!({ "id": content, "ids": [id], "tokens": [content] });
    named.insert((*content).to_owned(), token);
    json!({
        "type": "TemplateProcessing",
        "single": [special(0), text("A", 0)],
        "pair": [special(0), text("A", 0), special(1), text("B", 1)],
        "special_tokens": named,
    })
}
