//! Opens the model that is evaluated, and reads from its files how a text begins.

use std::path::Path;

use anyhow::{anyhow, bail, Context, Result};
use dataset::Tokenizer;
use serde_json::Value;
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
    /// The token that begins a text, or else the one that ends one.
    prefix: Option<Prefix>,
}

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
    let prefix = args.bos.clone().or(opening).map(Prefix::Name);
    let prefix = match prefix.or(found.prefix) {
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
    Ok(ModelFiles {
        model: gguf.model()?,
        tokenizer: tokenizer.and_then(|json| json.context("the file has no vocabulary")),
        prefix: gguf.bos().or(gguf.eos()).map(Prefix::Id),
    })
}

fn folder(path: &Path) -> Result<ModelFiles> {
    let (model, tokenizer) = files::open(path)?;
    let tokenizer = match tokenizer {
        Some(path) => std::fs::read(&path).with_context(|| path.display().to_string()),
        None => Err(anyhow!("{} has no tokenizer.json", path.display())),
    };
    let config = std::fs::read(path.join("tokenizer_config.json")).ok();
    let config: Option<Value> = config.and_then(|json| serde_json::from_slice(&json).ok());
    let named = |key: &str| {
        let token = config.as_ref()?.get(key)?;
        let name = token.as_str().or_else(|| token.get("content")?.as_str());
        name.map(str::to_owned)
    };
    Ok(ModelFiles {
        model,
        tokenizer,
        prefix: named("bos_token").or_else(|| named("eos_token")).map(Prefix::Name),
    })
}

/// The token that a `tokenizer.json` puts before every text, if it does.
fn opening(json: &[u8]) -> Option<String> {
    let tokenizer: Value = serde_json::from_slice(json).ok()?;
    let processor = tokenizer.get("post_processor")?;
    let list = processor.get("processors").and_then(Value::as_array);
    let mut processors = list.map_or(std::slice::from_ref(processor), Vec::as_slice).iter();
    processors.find_map(|processor| {
        let first = processor.get("single")?.get(0)?;
        let name = first.get("SpecialToken")?.get("id")?.as_str()?;
        Some(name.to_owned())
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
        for json in [alone, sequence] {
            assert_eq!(opening(json.as_bytes()).as_deref(), Some("<s>"));
        }
        for json in
            ["{}", r#"{"post_processor":null}"#, r#"{"post_processor":{"type":"ByteLevel"}}"#]
        {
            assert_eq!(opening(json.as_bytes()), None);
        }
    }
}
