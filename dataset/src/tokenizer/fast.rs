//! A tokenizer of our own for the two forms that language models use: byte-level BPE (GPT-2,
//! SmolLM, Llama 3, Qwen 2) and BPE with byte fallback (LLaMA 2, Mistral, what is imported from a
//! BPE of SentencePiece). It gives the tokens that
//! the general one gives, several times as fast; what it does not know in every detail it leaves
//! to that one ([`Fast::new`] gives `None`).
//!
//! Why it is faster: no regular expressions, no positions in the text, no strings for tokens, and
//! every word is merged once and remembered. In the second form a whole document is one word to
//! the general tokenizer. As no token has a space behind something else, no merge crosses the start
//! of a run of spaces, and the parts between can be merged alone.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::added::{Added, Section};
use super::merges::{Merges, WordCache};
use super::words::{Pattern, Words};

/// What stands for a space in the second form.
const SPACE: char = '▁';

/// A tokenizer of a known form.
pub(super) struct Fast {
    form: Form,
    /// What users added.
    added: Option<Added>,
    merges: Merges,
    /// Caches that no thread is using.
    caches: Mutex<Vec<WordCache>>,
    seed: u64,
}

enum Form {
    /// Words are bytes. Those that are no token vanish (some vocabularies have learned from text
    /// without control characters). Whole words that are tokens may be taken unmerged.
    Bytes { words: Words, of_byte: Box<[Option<u32>; 256]>, whole: Option<HashMap<Box<[u8]>, u32>> },
    /// Words are characters, of which those that are no token become the tokens of their bytes.
    Characters {
        of_char: HashMap<char, u32>,
        of_byte: Box<[u32; 256]>,
        /// Put before a text.
        first: Option<char>,
    },
}

impl Fast {
    /// The tokenizer of a `tokenizer.json`, if it is of a form that is known; `id_of` says the numbers
    /// of added tokens.
    pub(super) fn new(json: &[u8], id_of: impl Fn(&str) -> Option<u32>) -> Option<Self> {
        let json: Value = serde_json::from_slice(json).ok()?;
        let model = &json["model"];
        let added = Added::new(&json, id_of).ok()?;
        let is_plain = model["type"] == "BPE"
            && is_none(&model["dropout"])
            && is_none(&model["continuing_subword_prefix"])
            && is_none(&model["end_of_word_suffix"]);
        if !is_plain {
            return None;
        }
        let vocab = vocab(model)?;
        let merges = merges(model, &vocab)?;
        let ignores_merges = model["ignore_merges"] == true;
        let has_unknown = !model["unk_token"].is_null();
        let form = match bytes_pattern(&json) {
            Some(pattern) => bytes_form(pattern, &vocab, ignores_merges, has_unknown)?,
            None if ignores_merges => return None,
            None => characters_form(&vocab, &merges, characters_start(&json)?)?,
        };
        let hash = blake3::hash(format!("{:?}", std::time::SystemTime::now()).as_bytes());
        let seed = hash.as_bytes().first_chunk().copied();
        Some(Self {
            form,
            added,
            merges: Merges::new(merges.into_iter()),
            caches: Mutex::new(Vec::new()),
            seed: u64::from_le_bytes(seed.unwrap_or_default()),
        })
    }

    /// The tokens of a document, names of special tokens being text.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(text.len() / 3 + 4);
        let mut cache = self.take_cache();
        match &self.added {
            None => self.encode_section(text, &mut cache, &mut tokens),
            Some(added) => added.each(text, &mut |section| match section {
                Section::Token(token) => tokens.push(token),
                Section::Text(text) => self.encode_section(text, &mut cache, &mut tokens),
            }),
        }
        self.lock().push(cache);
        tokens
    }

    fn encode_section(&self, text: &str, cache: &mut WordCache, tokens: &mut Vec<u32>) {
        match &self.form {
            Form::Bytes { words, of_byte, whole } => words.each(text, &mut |word| {
                cache.add(word.as_bytes(), tokens, |tokens| {
                    match whole.as_ref().and_then(|whole| whole.get(word.as_bytes())) {
                        Some(token) => tokens.push(*token),
                        None => {
                            let symbols = word.bytes().filter_map(|byte| of_byte[byte as usize]);
                            self.merge(symbols.collect(), tokens);
                        }
                    }
                });
            }),
            Form::Characters { of_char, of_byte, first } => {
                let symbols = |word: &str, first: Option<char>| {
                    let mut symbols = Vec::with_capacity(word.len() + 3);
                    for char in first.into_iter().chain(word.chars()) {
                        let char = if char == ' ' { SPACE } else { char };
                        match of_char.get(&char) {
                            Some(token) => symbols.push(*token),
                            None => {
                                let mut bytes = [0; 4];
                                let bytes = char.encode_utf8(&mut bytes).bytes();
                                symbols.extend(bytes.map(|byte| of_byte[byte as usize]));
                            }
                        }
                    }
                    symbols
                };
                let mut first = *first;
                each_run(text, &mut |word| {
                    if let Some(first) = first.take() {
                        return self.merge(symbols(word, Some(first)), tokens);
                    }
                    cache.add(word.as_bytes(), tokens, |tokens| {
                        self.merge(symbols(word, None), tokens);
                    });
                });
            }
        }
    }

    fn merge(&self, mut symbols: Vec<u32>, tokens: &mut Vec<u32>) {
        self.merges.apply(&mut symbols);
        tokens.extend_from_slice(&symbols);
    }

    fn take_cache(&self) -> WordCache {
        let cache = self.lock().pop();
        cache.unwrap_or_else(|| WordCache::new(self.seed))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<WordCache>> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts a text before every run of spaces (and of what stands for them) but the first.
fn each_run(text: &str, take: &mut dyn FnMut(&str)) {
    let is_space = |char: char| char == ' ' || char == SPACE;
    let mut rest = text;
    while !rest.is_empty() {
        let spaces = rest.find(|char| !is_space(char)).unwrap_or(rest.len());
        let len = rest[spaces..].find(is_space).unwrap_or(rest.len() - spaces);
        let (word, after) = rest.split_at(spaces + len);
        take(word);
        rest = after;
    }
}

fn is_none(value: &Value) -> bool {
    value.is_null() || *value == 0.0 || *value == ""
}

fn vocab(model: &Value) -> Option<HashMap<&str, u32>> {
    let entries = model["vocab"].as_object()?.iter();
    let vocab = entries.map(|(name, id)| Some((&**name, u32::try_from(id.as_u64()?).ok()?)));
    vocab.collect()
}

/// Left, right and merged token of each merge, in order. Written as `"a b"` or as `["a", "b"]`.
fn merges(model: &Value, vocab: &HashMap<&str, u32>) -> Option<Vec<(u32, u32, u32)>> {
    let merges = model["merges"].as_array()?.iter();
    let merges = merges.map(|merge| {
        let (left, right) = match merge {
            Value::String(pair) => pair.split_once(' ')?,
            pair => (pair[0].as_str()?, pair[1].as_str()?),
        };
        let merged = vocab.get(&*format!("{left}{right}"))?;
        Some((*vocab.get(left)?, *vocab.get(right)?, *merged))
    });
    merges.collect()
}

/// The pattern of a byte-level tokenizer.
fn bytes_pattern(json: &Value) -> Option<Pattern> {
    if !json["normalizer"].is_null() {
        return None;
    }
    let byte_level = |step: &Value, use_regex: bool| {
        step["type"] == "ByteLevel"
            && step["add_prefix_space"] == false
            && step["use_regex"].as_bool().unwrap_or(true) == use_regex
    };
    let steps = &json["pre_tokenizer"];
    if byte_level(steps, true) {
        return Some(Pattern::Gpt2);
    }
    let [first, second] = &steps["pretokenizers"].as_array()?[..] else {
        return None;
    };
    if steps["type"] != "Sequence" {
        return None;
    }
    if first["type"] == "Digits" && first["individual_digits"] == true && byte_level(second, true) {
        return Some(Pattern::Gpt2Digits);
    }
    let is_split = first["type"] == "Split"
        && first["behavior"] == "Isolated"
        && first["invert"] == false
        && byte_level(second, false);
    match is_split {
        true => Pattern::of_expression(first["pattern"]["Regex"].as_str()?),
        false => None,
    }
}

fn bytes_form(
    pattern: Pattern,
    vocab: &HashMap<&str, u32>,
    with_whole: bool,
    has_unknown: bool,
) -> Option<Form> {
    let byte_of: HashMap<char, u8> = (0..=255).map(|byte| (char_of(byte), byte)).collect();
    let mut of_byte = Box::new([None; 256]);
    for byte in 0..=255u8 {
        let name = char_of(byte).to_string();
        of_byte[byte as usize] = vocab.get(&*name).copied();
    }
    if of_byte.contains(&None) && has_unknown {
        return None;
    }
    let whole = with_whole.then(|| {
        let words = vocab.iter().filter_map(|(name, id)| {
            let bytes: Option<Box<[u8]>> = name.chars().map(|c| byte_of.get(&c).copied()).collect();
            Some((bytes?, *id))
        });
        words.collect()
    });
    Some(Form::Bytes { words: Words::new(pattern)?, of_byte, whole })
}

/// The character that byte-level vocabularies write for a byte: itself where it can be seen, and
/// otherwise one behind the first 256, in order.
fn char_of(byte: u8) -> char {
    let is_seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match is_seen(byte) {
        true => char::from(byte),
        false => {
            let hidden = (0..byte).filter(|byte| !is_seen(*byte)).count() as u32;
            char::from_u32(256 + hidden).unwrap_or_default()
        }
    }
}

/// What is put before a text, if spaces become [`SPACE`], nothing else is changed, and bytes are a
/// fallback.
fn characters_start(json: &Value) -> Option<Option<char>> {
    let replace = serde_json::json!(
        { "type": "Replace", "pattern": { "String": " " }, "content": "▁" }
    );
    let prepend = serde_json::json!({ "type": "Prepend", "prepend": "▁" });
    let normalizer = &json["normalizer"];
    if json["model"]["byte_fallback"] != true || !json["pre_tokenizer"].is_null() {
        return None;
    }
    if *normalizer == replace {
        return Some(None);
    }
    let steps = serde_json::json!([prepend, replace]);
    let is_prefixed = normalizer["type"] == "Sequence" && normalizer["normalizers"] == steps;
    is_prefixed.then_some(Some(SPACE))
}

/// `None` if a merge makes a token with a space behind something else, or a byte is no token.
fn characters_form(
    vocab: &HashMap<&str, u32>,
    merges: &[(u32, u32, u32)],
    first: Option<char>,
) -> Option<Form> {
    let merged: HashSet<u32> = merges.iter().map(|(_, _, merged)| *merged).collect();
    let is_cut_safe = |(name, id): (&&str, &u32)| {
        !merged.contains(id) || !name.trim_start_matches(SPACE).contains(SPACE)
    };
    if !vocab.iter().all(is_cut_safe) {
        return None;
    }
    let mut of_byte = Box::new([0; 256]);
    for byte in 0..=255u8 {
        of_byte[byte as usize] = *vocab.get(&*format!("<0x{byte:02X}>"))?;
    }
    let of_char = vocab.iter().filter_map(|(name, id)| {
        let mut chars = name.chars();
        let char = chars.next()?;
        chars.next().is_none().then_some((char, *id))
    });
    Some(Form::Characters { of_char: of_char.collect(), of_byte, first })
}
