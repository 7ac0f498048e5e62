//! Tokens that users added to a vocabulary and that are not special: they are found in the text as
//! it is, before anything else, and what is between them is tokenised by itself.

use std::collections::HashMap;

use serde_json::Value;

/// Added tokens, by how they begin.
pub(super) struct Added {
    /// Their tokens; `None` for special ones, which are text in documents but hide what lies in them.
    of_content: HashMap<Box<[u8]>, Option<u32>>,
    /// The lengths of those that begin with a byte, longest first.
    lengths: Box<[Vec<usize>; 256]>,
}

/// A piece of a text.
pub(super) enum Section<'a> {
    /// What is between added tokens; not empty.
    Text(&'a str),
    /// An added token.
    Token(u32),
}

impl Added {
    /// Those of a `tokenizer.json`, of which `id_of` says the numbers; none where all are special.
    ///
    /// # Errors
    /// One asks for something that is not done here.
    pub(super) fn new(
        json: &Value,
        id_of: impl Fn(&str) -> Option<u32>,
    ) -> Result<Option<Self>, ()> {
        let tokens = json["added_tokens"].as_array();
        let tokens = tokens.map(Vec::as_slice).unwrap_or_default();
        let is_special = |token: &Value| token["special"] == true;
        if tokens.iter().all(is_special) {
            return Ok(None);
        }
        let mut added = Self {
            of_content: HashMap::new(),
            lengths: Box::new(std::array::from_fn(|_| Vec::new())),
        };
        for token in tokens {
            // Those that are sought in normalised text only matter if they are not special.
            if is_special(token) && token["normalized"] != false {
                continue;
            }
            let is_plain = ["normalized", "single_word", "lstrip", "rstrip"]
                .iter()
                .all(|key| token[*key] == false);
            let content = token["content"].as_str().filter(|_| is_plain).ok_or(())?;
            let Some(first) = content.bytes().next() else {
                continue;
            };
            let id = match is_special(token) {
                true => None,
                false => Some(id_of(content).ok_or(())?),
            };
            added.of_content.insert(content.as_bytes().into(), id);
            added.lengths[usize::from(first)].push(content.len());
        }
        for lengths in added.lengths.iter_mut() {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        Ok(Some(added))
    }

    /// Calls `take` with each section of `text`, in order: the leftmost added token first, the
    /// longest where several begin.
    pub(super) fn each<'a>(&self, text: &'a str, take: &mut dyn FnMut(Section<'a>)) {
        let bytes = text.as_bytes();
        let (mut start, mut at) = (0, 0);
        while at < bytes.len() {
            let Some((len, token)) = self.at(&bytes[at..]) else {
                at += 1;
                continue;
            };
            if let Some(token) = token {
                if start < at {
                    take(Section::Text(&text[start..at]));
                }
                take(Section::Token(token));
                start = at + len;
            }
            at += len;
        }
        if start < text.len() {
            take(Section::Text(&text[start..]));
        }
    }

    /// Length and number of the longest token that `rest` begins with.
    fn at(&self, rest: &[u8]) -> Option<(usize, Option<u32>)> {
        let lengths = self.lengths[usize::from(*rest.first()?)].iter();
        let mut found = lengths.filter_map(|len| {
            let token = self.of_content.get(rest.get(..*len)?)?;
            Some((*len, *token))
        });
        found.next()
    }
}
