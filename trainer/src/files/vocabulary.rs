//! The vocabulary of a GGUF file as Hugging Face's `tokenizer.json`.
//!
//! Of a byte-level BPE, GGUF has the tokens, the merges and the name of a pre-tokenizer, which stands
//! for a pattern in llama.cpp's source. The names whose pattern is known here are those of models of
//! LLaMA's shape. Of a BPE of SentencePiece it has the tokens and their scores ([`sentencepiece`]).
//! For any other vocabulary the tokenizer must come from elsewhere.

mod sentencepiece;

use serde_json::{json, Map, Value};

use super::gguf::Metadata;
use dataset::tokenizer::Tokenizer;

/// How Llama 3 cuts text before merging.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How Qwen 2 does.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// llama.cpp's kinds of tokens.
mod kinds {
    pub(super) const NORMAL: i64 = 1;
    pub(super) const UNKNOWN: i64 = 2;
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
    pub(super) const UNUSED: i64 = 5;
    pub(super) const BYTE: i64 = 6;
}

/// The `tokenizer.json` of a file with these key-value pairs, `None` if it has no vocabulary, or why
/// it cannot be written as one.
pub(super) fn tokenizer_json(metadata: &Metadata<'_>) -> Result<Option<Vec<u8>>, String> {
    let tokenizer = match metadata.text("tokenizer.ggml.model") {
        Some("gpt2") => byte_level_json(metadata)?,
        Some("llama") => sentencepiece::json(metadata)?,
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

/// The token that begins (`bos`) or ends (`eos`) a text.
pub(super) fn special_token(metadata: &Metadata<'_>, which: &str) -> Option<u32> {
    let id = metadata.token(&format!("tokenizer.ggml.{which}_token_id"));
    // SentencePiece's numbers, where a file does not say.
    id.or(match (metadata.text("tokenizer.ggml.model")?, which) {
        ("llama", "bos") => Some(1),
        ("llama", "eos") => Some(2),
        _ => None,
    })
}

/// The same with its name, if it is put at texts: where the file does not say, if that `is_usual`.
fn put_token<'a>(
    metadata: &Metadata<'_>,
    tokens: &[&'a str],
    which: &str,
    is_usual: bool,
) -> Option<(u32, &'a str)> {
    let is_put = metadata.flag(&format!("tokenizer.ggml.add_{which}_token"));
    let id = special_token(metadata, which).filter(|_| is_put.unwrap_or(is_usual))?;
    Some((id, tokens.get(id as usize)?))
}

fn byte_level_json(metadata: &Metadata<'_>) -> Result<Value, String> {
    let tokens = texts(metadata, "tokenizer.ggml.tokens")?;
    let merges = texts(metadata, "tokenizer.ggml.merges")?;
    let name = metadata.text("tokenizer.ggml.pre").unwrap_or("default");
    let (normalizer, pre_tokenizer) = pre_tokenizer(name)?;
    let is_llama3 = is_llama3(name);
    let vocab: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let kinds = metadata.integers("tokenizer.ggml.token_type");
    let kinds = kinds.unwrap_or_default();
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
            put_token(metadata, &tokens, "bos", is_llama3),
            put_token(metadata, &tokens, "eos", false),
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

fn texts<'a>(metadata: &Metadata<'a>, key: &str) -> Result<Vec<&'a str>, String> {
    let wrong = || format!("it has no list of texts {key}");
    metadata.texts(key).ok_or_else(wrong)
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
            Ok((Value::Null, json!({ "type": "Sequence", "pretokenizers": pair })))
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

/// Whether tokens of this kind are never made by merging: special ones and those that users added.
fn is_added(kind: i64) -> bool {
    matches!(kind, kinds::UNKNOWN | kinds::CONTROL | kinds::USER_DEFINED)
}

fn added_token(id: usize, content: &str, kind: i64) -> Value {
    json!({
        "id": id,
        "content": content,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": kind != kinds::USER_DEFINED,
    })
}

/// Puts tokens before and behind a text.
fn post_processor(first: Option<(u32, &str)>, last: Option<(u32, &str)>) -> Value {
    if first.is_none() && last.is_none() {
        return Value::Null;
    }
    let steps = |name: &str, kind: usize| {
        let special = |token: Option<(u32, &str)>| {
            token.map(|(_, name)| json!({ "SpecialToken": { "id": name, "type_id": kind } }))
        };
        let text = json!({ "Sequence": { "id": name, "type_id": kind } });
        [special(first), Some(text), special(last)]
    };
    let list = |steps: &[Option<Value>]| steps.iter().flatten().cloned().collect::<Vec<_>>();
    let mut named = Map::new();
    for (id, name) in first.into_iter().chain(last) {
        let token = json!({ "id": name, "ids": [id], "tokens": [name] });
        named.insert(name.to_owned(), token);
    }
    json!({
        "type": "TemplateProcessing",
        "single": list(&steps("A", 0)),
        "pair": list(&[steps("A", 0), steps("B", 1)].concat()),
        "special_tokens": named,
    })
}
