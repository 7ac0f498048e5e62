//! Reads the tokens of a GGUF file and writes those that a tokenizer treats apart.

use std::collections::HashSet;

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

/// The token that begins (`bos`) or ends (`eos`) a text, or is special in another way. As in
/// llama.cpp, a number that is none of the vocabulary's is as if the file did not say.
pub(crate) fn special_token(metadata: &Metadata<'_>, which: &str) -> Result<Option<u32>, String> {
    let count = metadata.list_len("tokenizer.ggml.tokens")?;
    let is_token = |id: &u32| count.is_none_or(|count| (*id as usize) < count);
    let id = metadata.token(&format!("tokenizer.ggml.{which}_token_id"))?.filter(is_token);
    // SentencePiece's numbers, where a file does not say.
    let usual = match (metadata.text("tokenizer.ggml.model")?, which) {
        (Some("llama"), "bos") => Some(1),
        (Some("llama"), "eos") => Some(2),
        _ => None,
    };
    Ok(id.or(usual.filter(is_token)))
}

/// The tokens that end a text, an answer (`eot`) or a message (`eom`); each once.
pub(crate) fn end_tokens(metadata: &Metadata<'_>) -> Result<Vec<u32>, String> {
    let mut ends = Vec::new();
    for which in ["eos", "eot", "eom"] {
        let id = special_token(metadata, which)?;
        ends.extend(id.filter(|id| !ends.contains(id)));
    }
    Ok(ends)
}

/// The same with its name, if it is put at texts: where the file does not say, if that `is_usual`.
pub(super) fn put_token<'a>(
    metadata: &Metadata<'_>,
    tokens: &[&'a str],
    which: &str,
    is_usual: bool,
) -> Result<Option<(u32, &'a str)>, String> {
    let is_put = metadata.flag(&format!("tokenizer.ggml.add_{which}_token"))?;
    let id = special_token(metadata, which)?.filter(|_| is_put.unwrap_or(is_usual));
    Ok(id.and_then(|id| Some((id, *tokens.get(id as usize)?))))
}

/// The texts of the tokens, each once.
pub(super) fn texts<'a>(metadata: &Metadata<'a>) -> Result<Vec<&'a str>, String> {
    let texts = needed_texts(metadata, "tokenizer.ggml.tokens")?;
    let mut seen = HashSet::new();
    match texts.iter().find(|text| !seen.insert(**text)) {
        Some(twice) => Err(format!("the token {twice:?} is there twice")),
        None => Ok(texts),
    }
}

pub(super) fn needed_texts<'a>(metadata: &Metadata<'a>, key: &str) -> Result<Vec<&'a str>, String> {
    metadata.texts(key)?.ok_or_else(|| format!("it has no {key}"))
}

/// The kinds of so many tokens; `None` where the file has none, so that all are normal.
pub(super) fn token_kinds(
    metadata: &Metadata<'_>,
    count: usize,
) -> Result<Option<Vec<i64>>, String> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let kinds = metadata.integers(KEY)?;
    match kinds.as_ref().map_or(count, Vec::len) {
        found if found == count => Ok(kinds),
        found => Err(format!("{KEY} has {found} types for {count} tokens")),
    }
}

/// `tokenizer_config.json`: the names of the special tokens, and the chat templates.
pub(crate) fn tokenizer_config(metadata: &Metadata<'_>) -> Result<Map<String, Value>, String> {
    let mut config = Map::new();
    let tokens = metadata.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    let names = [
        ("bos", "bos_token"),
        ("eos", "eos_token"),
        ("unknown", "unk_token"),
        ("padding", "pad_token"),
        ("seperator", "sep_token"),
        ("cls", "cls_token"),
        ("mask", "mask_token"),
    ];
    for (which, name) in names {
        let id = special_token(metadata, which)?;
        let text = id.and_then(|id| tokens.get(id as usize));
        config.extend(text.map(|text| (name.to_owned(), json!(text))));
    }
    config
        .extend(chat_templates(metadata)?.map(|templates| ("chat_template".to_owned(), templates)));
    Ok(config)
}

/// One template as a text, several as a list of names and templates.
fn chat_templates(metadata: &Metadata<'_>) -> Result<Option<Value>, String> {
    const KEY: &str = "tokenizer.chat_template";
    let default = metadata.text(KEY)?;
    let start = format!("{KEY}.");
    let named = metadata.keys(&start);
    if named.is_empty() {
        return Ok(default.map(|template| json!(template)));
    }
    let mut list = Vec::new();
    list.extend(default.map(|template| json!({ "name": "default", "template": template })));
    for key in named {
        let template = metadata.text(key)?;
        list.push(json!({ "name": key.strip_prefix(&start), "template": template }));
    }
    Ok(Some(list.into()))
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
