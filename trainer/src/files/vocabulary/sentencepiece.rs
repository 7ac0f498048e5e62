//! A BPE of SentencePiece, as LLaMA 1 and 2, Mistral and TinyLlama have it, as a `tokenizer.json`.
//!
//! SentencePiece has no list of merges: it joins the two neighbours whose joined text is the token of
//! the highest score, the leftmost among equals, until no joined text is a token. That is BPE whose
//! merges are all ways to cut a token into two tokens, in the order of scores.
//!
//! Spaces are `▁`, one is put before a text, and a character that is no token becomes its bytes. As
//! in llama.cpp and in LLaMA 2's own `tokenizer.json`, a space is put before each part between
//! special tokens and those that users added, too; SentencePiece knows no special tokens in a text,
//! and puts none behind what users added.
//!
//! Refused, because no `tokenizer.json` gives the same tokens: tokens with equal scores (their merges
//! have no order), and tokens that are marked unused but can be merged (SentencePiece takes them
//! apart again).

use std::collections::{HashMap, HashSet};

use serde_json::{json, Map, Value};

use super::tokens::{added_token, is_added, kinds, post_processor, put_token, texts, token_kinds};
use crate::files::gguf::header::Metadata;

/// What stands for a space.
const SPACE: char = '▁';

/// Longest token of which the merges are sought, in bytes; LLaMA 2's longest has 48.
const TOKEN_BYTES_MAX: usize = 1 << 10;

/// The `tokenizer.json` of a vocabulary.
///
/// # Errors
/// Why none is equal to it.
pub(super) fn json(metadata: &Metadata<'_>) -> Result<Value, String> {
    let pieces = Pieces::new(metadata)?;
    refuse_normalization(metadata)?;
    let has_prefix = metadata.flag("tokenizer.ggml.add_space_prefix")?;
    let has_prefix = has_prefix.unwrap_or(true);
    let bytes = pieces.has_bytes()?;
    let unknown = pieces.unknown(metadata)?;
    let merges: Vec<Value> =
        pieces.merges()?.into_iter().map(|(left, right)| json!([left, right])).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": pieces.added(),
        "normalizer": normalizer(has_prefix),
        "pre_tokenizer": null,
        "post_processor": post_processor(
            put_token(metadata, &pieces.texts, "bos", true)?,
            put_token(metadata, &pieces.texts, "eos", false)?,
        ),
        "decoder": decoder(has_prefix),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": bytes,
            "ignore_merges": false,
            "vocab": pieces.vocab(),
            "merges": merges,
        },
    }))
}

/// Normal forms and runs of spaces are not changed in any model of LLaMA's shape.
fn refuse_normalization(metadata: &Metadata<'_>) -> Result<(), String> {
    let charsmap = metadata.list_len("tokenizer.ggml.precompiled_charsmap")?;
    let removes = metadata.flag("tokenizer.ggml.remove_extra_whitespaces")?;
    match (charsmap.unwrap_or(0), removes.unwrap_or(false)) {
        (0, false) => Ok(()),
        (0, true) => Err("it removes spaces from texts".to_owned()),
        (_, _) => Err("it normalises texts (precompiled_charsmap)".to_owned()),
    }
}

fn normalizer(has_prefix: bool) -> Value {
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    match has_prefix {
        true => json!({
            "type": "Sequence",
            "normalizers": [{ "type": "Prepend", "prepend": SPACE }, replace],
        }),
        false => replace,
    }
}

fn decoder(has_prefix: bool) -> Value {
    let mut steps = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if has_prefix {
        steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": steps })
}

/// A vocabulary's tokens by number: text, score and kind.
struct Pieces<'a> {
    texts: Vec<&'a str>,
    scores: Vec<f32>,
    kinds: Vec<i64>,
}

impl<'a> Pieces<'a> {
    fn new(metadata: &Metadata<'a>) -> Result<Self, String> {
        let texts = texts(metadata)?;
        let scores = metadata.floats("tokenizer.ggml.scores")?;
        let kinds = token_kinds(metadata, texts.len())?;
        let (Some(scores), Some(kinds)) = (scores, kinds) else {
            return Err("its tokens have no scores or no types".to_owned());
        };
        if scores.len() != texts.len() {
            let counts = [texts.len(), scores.len()];
            return Err(format!("it has {counts:?} tokens and scores"));
        }
        Ok(Self { texts, scores, kinds })
    }

    fn of_kind(&self, kind: i64) -> impl Iterator<Item = usize> + '_ {
        let kinds = self.kinds.iter().enumerate();
        kinds.filter_map(move |(id, found)| (*found == kind).then_some(id))
    }

    /// Whether the token takes part in a text as an added one. One character that a user added is
    /// in the way of nothing: it is a token that is never merged.
    fn is_added(&self, id: usize) -> bool {
        let is_character = self.texts[id].chars().nth(1).is_none();
        let is_own = self.kinds[id] == kinds::USER_DEFINED && is_character;
        is_added(self.kinds[id]) && !is_own
    }

    /// The token as it stands in a `tokenizer.json`: what a user added is sought in the text as it
    /// is, with its spaces.
    fn name(&self, id: usize) -> String {
        match self.kinds[id] == kinds::USER_DEFINED && self.is_added(id) {
            true => self.texts[id].replace(SPACE, " "),
            false => self.texts[id].to_owned(),
        }
    }

    fn added(&self) -> Vec<Value> {
        let added = (0..self.texts.len()).filter(|id| self.is_added(*id));
        let added = added.map(|id| added_token(id, &self.name(id), self.kinds[id]));
        added.collect()
    }

    fn vocab(&self) -> Map<String, Value> {
        let ids = 0..self.texts.len();
        ids.map(|id| (self.name(id), json!(id))).collect()
    }

    /// Whether characters that are no token become bytes.
    fn has_bytes(&self) -> Result<bool, String> {
        let found: HashSet<&str> = self.of_kind(kinds::BYTE).map(|id| self.texts[id]).collect();
        let has = |byte: u8| found.contains(&*format!("<0x{byte:02X}>"));
        match (0..=255).filter(|byte| has(*byte)).count() {
            256 => Ok(true),
            0 if found.is_empty() => Ok(false),
            count => Err(format!("it has tokens for {count} bytes of 256")),
        }
    }

    /// The token of what is no token.
    fn unknown(&self, metadata: &Metadata<'_>) -> Result<Option<&'a str>, String> {
        const KEY: &str = "tokenizer.ggml.unknown_token_id";
        let id = metadata.token(KEY)?.map(|id| id as usize);
        match id.or_else(|| self.of_kind(kinds::UNKNOWN).next()) {
            None => Ok(None),
            Some(id) => match self.texts.get(id) {
                Some(text) => Ok(Some(text)),
                None => Err(format!("{KEY} {id} is no token")),
            },
        }
    }

    /// All ways to cut a token into two, in the order in which they are merged.
    fn merges(&self) -> Result<Vec<(&'a str, &'a str)>, String> {
        let is_part = |id: &usize| matches!(self.kinds[*id], kinds::NORMAL | kinds::UNUSED);
        let parts: HashSet<&str> =
            (0..self.texts.len()).filter(is_part).map(|id| self.texts[id]).collect();
        let mut merges = Vec::new();
        let mut of_score: HashMap<u32, &str> = HashMap::new();
        for id in (0..self.texts.len()).filter(is_part) {
            let (text, score) = (self.texts[id], self.scores[id]);
            let before = merges.len();
            for (left, right) in cuts(text)? {
                if parts.contains(left) && parts.contains(right) {
                    merges.push((score, left, right));
                }
            }
            if merges.len() == before {
                continue;
            }
            if self.kinds[id] == kinds::UNUSED {
                return Err(format!("the token {text:?} is unused but can be merged"));
            }
            // 0 and -0 are equal.
            if let Some(other) = of_score.insert((score + 0.0).to_bits(), text) {
                return Err(format!(
                    "the tokens {other:?} and {text:?} have the same score {score}, so that their \
                     merges have no order"
                ));
            }
            if score.is_nan() {
                return Err(format!("the score of the token {text:?} is NaN"));
            }
        }
        // Cuts of one token never compete: the order among them is that of transformers.
        merges.sort_by(|(a, left_a, _), (b, left_b, _)| {
            let lengths = || left_b.chars().count().cmp(&left_a.chars().count());
            b.total_cmp(a).then_with(lengths)
        });
        Ok(merges.into_iter().map(|(_, l, r)| (l, r)).collect())
    }
}

/// All ways to cut a token between two characters.
fn cuts(text: &str) -> Result<impl Iterator<Item = (&str, &str)>, String> {
    if text.len() > TOKEN_BYTES_MAX {
        return Err(format!("a token has {} bytes", text.len()));
    }
    let places = text.char_indices().skip(1);
    Ok(places.map(|(place, _)| text.split_at(place)))
}
