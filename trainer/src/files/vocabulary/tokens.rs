//! Reads the tokens of a GGUF file and writes those that a tokenizer treats apart.

use serde_json::{json, Map, Value};

use crate::files::gguf::header::Metadata;

/// llama.cpp's kinds of tokens.
pub(super) mod kinds {
    pub(crate) const NORMAL: i64 = 1;
    pub(crate) const UNKNOWN: i64 = 2;
    pub(crate) const CONTROL: i64 = 3;
    pub(crate) const USER_DEFINED: i64 = 4;
    pub(crate) const UNUSED: i64 = 5;
    pub(crate) const BYTE: i64 = 6;
}

/// The token that begins (`bos`) or ends (`eos`) a text.
pub(crate) fn special_token(metadata: &Metadata<'_>, which: &str) -> Option<u32> {
    let id = metadata.token(&format!("tokenizer.ggml.{which}_token_id"));
    // SentencePiece's numbers, where a file does not say.
    id.or(match (metadata.text("tokenizer.ggml.model")?, which) {
        ("llama", "bos") => Some(1),
        ("llama", "eos") => Some(2),
        _ => None,
    })
}

/// The same with its name, if it is put at texts: where the file does not say, if that `is_usual`.
pub(super) fn put_token<'a>(
    metadata: &Metadata<'_>,
    tokens: &[&'a str],
    which: &str,
    is_usual: bool,
) -> Option<(u32, &'a str)> {
    let is_put = metadata.flag(&format!("tokenizer.ggml.add_{which}_token"));
    let id = special_token(metadata, which).filter(|_| is_put.unwrap_or(is_usual))?;
    Some((id, tokens.get(id as usize)?))
}

pub(super) fn texts<'a>(metadata: &Metadata<'a>, key: &str) -> Result<Vec<&'a str>, String> {
    let wrong = || format!("it has no list of texts {key}");
    metadata.texts(key).ok_or_else(wrong)
}

/// Whether tokens of this kind are never made by merging: special ones and those that users added.
pub(super) fn is_added(kind: i64) -> bool {
    matches!(kind, kinds::UNKNOWN | kinds::CONTROL | kinds::USER_DEFINED)
}

pub(super) fn added_token(id: usize, content: &str, kind: i64) -> Value {
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
pub(super) fn post_processor(first: Option<(u32, &str)>, last: Option<(u32, &str)>) -> Value {
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
