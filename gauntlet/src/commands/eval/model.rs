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
    /// then by the model's.
    prefix: Vec<Prefix>,
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
    let opening = json.as_deref().and_then(opening);
    let begins = opening.is_some();
    let named = args.bos.clone().map(Prefix::Name);
    let prefix = named.or(opening).or(found.prefix.into_iter().next());
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
    let ids = gguf.bos()?.into_iter().chain(gguf.ends()?);
    Ok(ModelFiles {
        model: gguf.model()?,
        tokenizer: tokenizer.and_then(|json| json.context("the file has no vocabulary")),
        prefix: ids.map(Prefix::Id).collect(),
    })
}

fn folder(path: &Path) -> Result<ModelFiles> {
    let (model, tokenizer) = files::open(path)?;
    let tokenizer = match tokenizer {
        Some(path) => std::fs::read(&path).with_context(|| path.display().to_string()),
        None => Err(anyhow!("{} has no tokenizer.json", path.display())),
    };
    let mut prefix = named_tokens(path)?;
    // What is in the way of nothing else: an import of a GGUF file without names of tokens.
    let (bos, ends) = files::special_tokens(path)?;
    prefix.extend(bos.into_iter().chain(ends).map(Prefix::Id));
    Ok(ModelFiles { model, tokenizer, prefix })
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
        serde_json::from_slice(&json).with_context(|| path.display().to_string())
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

/// The token that a `tokenizer.json` puts before every text, if it does.
fn opening(json: &[u8]) -> Option<Prefix> {
    let tokenizer: Value = serde_json::from_slice(json).ok()?;
    let processor = tokenizer.get("post_processor")?;
    let list = processor.get("processors").and_then(Value::as_array);
    let mut processors = list.map_or(std::slice::from_ref(processor), Vec::as_slice).iter();
    processors.find_map(|processor| match processor.get("type")?.as_str()? {
        "TemplateProcessing" => {
            let first = processor.get("single")?.get(0)?;
            let name = first.get("SpecialToken")?.get("id")?.as_str()?;
            // The template has its own names; which token one stands for is beside it.
            let ids = processor.get("special_tokens").and_then(|named| named.get(name)?.get("ids"));
            let id = ids.and_then(|ids| ids.get(0)?.as_u64()?.try_into().ok());
            Some(id.map_or_else(|| Prefix::Name(name.to_owned()), Prefix::Id))
        }
        "BertProcessing" | "RobertaProcessing" => {
            let id = processor.get("cls")?.get(1)?.as_u64()?;
            Some(Prefix::Id(id.try_into().ok()?))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_may_begin_every_text() {
        let template = r#"{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}]}"#;
        let alone = format!(r#"{{"post_processor":{template}}}"#);
        let sequence = format!(
            r#"{{"post_processor":{{"type":"Sequence","processors":[{{"type":"ByteLevel"}},{template}]}}}}"#
        );
        for json in [&alone, &sequence] {
            assert_eq!(opening(json.as_bytes()), Some(Prefix::Name("<s>".to_owned())));
        }
        let with_ids = alone.replace(
            "}]}",
            r#"}],"special_tokens":{"<s>":{"id":"<s>","ids":[7],"tokens":["<b>"]}}}"#,
        );
        assert_eq!(opening(with_ids.as_bytes()), Some(Prefix::Id(7)), "{with_ids}");
        let roberta =
            r#"{"post_processor":{"type":"RobertaProcessing","sep":["</s>",2],"cls":["<s>",3]}}"#;
        assert_eq!(opening(roberta.as_bytes()), Some(Prefix::Id(3)));
        for json in
            ["{}", r#"{"post_processor":null}"#, r#"{"post_processor":{"type":"ByteLevel"}}"#]
        {
            assert_eq!(opening(json.as_bytes()), None);
        }
    }

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
