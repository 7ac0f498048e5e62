//! The vocabulary of a GGUF file as Hugging Face's `tokenizer.json`.
//!
//! Of a byte-level BPE, GGUF has the tokens, the merges and the name of a pre-tokenizer, which stands
//! for a pattern in llama.cpp's source. The names whose pattern is known here are those of models of
//! LLaMA's shape. Of a BPE of SentencePiece it has the tokens and their scores ([`sentencepiece`]).
//! For any other vocabulary the tokenizer must come from elsewhere.

mod tokens;

mod sentencepiece;

pub(super) use tokens::special_token;

use serde_json::{json, Map, Value};

use self::tokens::{added_token, is_added, post_processor, put_token, texts};
use super::gguf::header::Metadata;
use dataset::tokenizer::Tokenizer;

/// How Llama 3 cuts text before merging.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How Qwen 2 does.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

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
