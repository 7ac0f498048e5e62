//! Opens the model that is evaluated, and reads from its files how a text begins.

use std::path::Path;

use anyhow::{anyhow, bail, Context, Result};
use dataset::Tokenizer;
use serde_json::{Map, Value};
use trainer::{files, Model};

use super::args::EvalArgs;

/// A model with the way to its tokens.
pub(super) struct EvaluatedModel {
    pub(super) model: Model,
    pub(super) tokenizer: Tokenizer,
    /// Stands before a text that has nothing before it.
    pub(super) prefix: u32,
    /// Whether it stands before every text.
    pub(super) begins: bool,
}

/// The tokenizer and first token in the files beside a model.
struct ModelFiles {
    model: Model,
    /// A `tokenizer.json`, or why there is none.
    tokenizer: Result<Vec<u8>>,
    /// The token that begins a text, or else the one that ends one, by the tokenizer's files and
    /// then by the model's; or why they cannot be read.
    prefix: Result<Vec<Prefix>>,
}

#[derive(Clone, PartialEq, Debug)]
enum Prefix {
    Name(String),
    Id(u32),
}

pub(super) fn open(args: &EvalArgs) -> Result<EvaluatedModel> {
    let found = match files::is_gguf(&args.model) {
        true => gguf(&args.model)?,
        false => folder(&args.model)?,
    };
    let json = match args.tokenizer.as_deref() {
        Some("bytes") => None,
        Some(path) => Some(std::fs::read(path).with_context(|| path.to_owned())?),
        None => Some(found.tokenizer.context("name one with --tokenizer FILE")?),
    };
    let tokenizer = match &json {
        None => Tokenizer::bytes(),
        Some(json) => Tokenizer::from_json(json)?,
    };
    let opening = tokenizer.opening()?;
    let named = args.bos.clone().map(Prefix::Name);
    if named.is_none() && opening.len() > 1 {
        bail!(
            "the tokenizer begins a text with the tokens {opening:?}; only one can stand there: name it with --bos TOKEN"
        );
    }
    let begins = !opening.is_empty();
    // What the model's files say is read only where it counts.
    let prefix = match named.or(opening.first().copied().map(Prefix::Id)) {
        Some(prefix) => Some(prefix),
        None => found.prefix?.into_iter().next(),
    };
    let prefix = match prefix {
        Some(Prefix::Id(id)) => Some(id),
        Some(Prefix::Name(name)) => {
            let id = tokenizer.token_id(&name);
            Some(id.ok_or_else(|| anyhow!("the tokenizer has no token {name:?}"))?)
        }
        None => tokenizer.end_of_document(),
    };
    let prefix = prefix.context("no token begins or ends a text; name one with --bos TOKEN")?;
    let vocab = found.model.config().vocab;
    if prefix as usize >= vocab {
        bail!("the token {prefix} before a text is not one of the model's {vocab}");
    }
    Ok(EvaluatedModel { model: found.model, tokenizer, prefix, begins })
}

fn gguf(path: &Path) -> Result<ModelFiles> {
    let gguf = files::Gguf::open(path)?;
    let tokenizer = gguf.tokenizer().map_err(anyhow::Error::from);
    let ids = gguf.bos().and_then(|bos| Ok(bos.into_iter().chain(gguf.ends()?)));
    Ok(ModelFiles {
        model: gguf.model()?,
        tokenizer: tokenizer.and_then(|json| json.context("the file has no vocabulary")),
        prefix: ids.map(|ids| ids.map(Prefix::Id).collect()).map_err(anyhow::Error::from),
    })
}

fn folder(path: &Path) -> Result<ModelFiles> {
    let (model, tokenizer) = files::open(path)?;
    let tokenizer = match tokenizer {
        Some(path) => std::fs::read(&path).with_context(|| path.display().to_string()),
        None => Err(anyhow!("{} has no tokenizer.json", path.display())),
    };
    Ok(ModelFiles { model, tokenizer, prefix: tokens_of(path) })
}

/// The tokens that begin and end a text by the files of a folder: by their names, then by their numbers.
fn tokens_of(folder: &Path) -> Result<Vec<Prefix>> {
    let mut tokens = named_tokens(folder)?;
    // What is in the way of nothing else: an import of a GGUF file without names of tokens.
    let (bos, ends) = files::special_tokens(folder)?;
    tokens.extend(bos.into_iter().chain(ends).map(Prefix::Id));
    Ok(tokens)
}

/// The names of the tokens that begin and end a text, where transformers looks for them: in
/// `tokenizer_config.json`, but `special_tokens_map.json` goes before it unless the former lists
/// the added tokens.
fn named_tokens(folder: &Path) -> Result<Vec<Prefix>> {
    let read = |name: &str| -> Result<Map<String, Value>> {
        let path = folder.join(name);
        if !path.is_file() {
            return Ok(Map::new());
        }
        let json = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let fields = dataset::json::value(&json).and_then(serde_json::from_value);
        fields.with_context(|| path.display().to_string())
    };
    let mut config = read("tokenizer_config.json")?;
    if !config.contains_key("added_tokens_decoder") {
        config.extend(read("special_tokens_map.json")?);
    }
    let mut names = Vec::new();
    for key in ["bos_token", "eos_token"] {
        let name = match config.get(key) {
            None | Some(Value::Null) => continue,
            Some(token) => token.as_str().or_else(|| token.get("content")?.as_str()),
        };
        let wrong = || anyhow!("{}: {key} is not the name of a token", folder.display());
        names.push(Prefix::Name(name.ok_or_else(wrong)?.to_owned()));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `special_tokens_map.json` goes before `tokenizer_config.json`, unless that has the whole list.
    #[test]
    fn names_of_tokens_are_where_transformers_looks_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, json: &str| std::fs::write(folder.path().join(name), json).unwrap();
        let names = || named_tokens(folder.path()).unwrap();
        let name = |name: &str| Prefix::Name(name.to_owned());
        assert_eq!(names(), []);
        write("tokenizer_config.json", r#"{"bos_token":{"content":"<a>"},"eos_token":"<b>"}"#);
        assert_eq!(names(), [name("<a>"), name("<b>")]);
        write("special_tokens_map.json", r#"{"bos_token":"<c>"}"#);
        assert_eq!(names(), [name("<c>"), name("<b>")]);
        write(
            "tokenizer_config.json",
            r#"{"added_tokens_decoder":{},"bos_token":null,"eos_token":"<b>"}"#,
        );
        assert_eq!(names(), [name("<b>")]);
        write("tokenizer_config.json", r#"{"bos_token":5}"#);
        std::fs::remove_file(folder.path().join("special_tokens_map.json")).unwrap();
        assert!(named_tokens(folder.path()).unwrap_err().to_string().contains("bos_token"));
    }
}
