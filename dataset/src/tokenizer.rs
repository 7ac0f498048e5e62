//! Tokenizers: any Hugging Face `tokenizer.json`, or bytes as they are.
//!
//! The same text gives the same tokens as Hugging Face's own Python package gives without added
//! special tokens; only the way of getting there is ours. A `tokenizer.json` may ask for random
//! merges (dropout), which is refused, and for truncation and padding, which are ignored: both
//! would make a document's tokens depend on something else than the document.
//!
//! In a document the names of special tokens (`<|endoftext|>` typed into a web page) are text, so
//! that no page can end a document or forge a chat turn. Where they are meant, as in a prompt, use
//! [`Tokenizer::encode_prompt`].

mod added;
mod fast;
mod merges;
mod words;

use std::path::{Path, PathBuf};

use protocol::Hash;
use rayon::prelude::*;
use tokenizers::models::ModelWrapper;
use tokenizers::{Encoding, Token, Tokenizer as Inner};

use self::fast::Fast;
use crate::utf8::BYTE_ORDER_MARK;

/// Largest `tokenizer.json` that is read, in bytes; those in use have 1 to 40 MB.
const FILE_BYTES_MAX: u64 = 1 << 28;

/// Tokens of the byte-level vocabulary.
const BYTE_VOCABULARY: usize = 256;

/// Ends a document of bytes; no text has it.
const BYTE_END: u32 = 0;

/// Names under which the models in use know the token that ends a document, the first that a
/// vocabulary has is taken.
pub const END_OF_DOCUMENT_NAMES: [&str; 5] =
    ["<|end_of_text|>", "<|endoftext|>", "</s>", "<eos>", "<|eos|>"];

/// Why there is no tokenizer, or no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is larger than a tokenizer can be.
    #[error("{path} has {found} bytes; a tokenizer has at most {FILE_BYTES_MAX}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
    },
    /// The file is not a tokenizer.
    #[error("not a tokenizer.json: {0}")]
    Format(String),
    /// The tokenizer would give another result each time.
    #[error("the tokenizer drops merges at random (dropout): remove \"dropout\" from its model")]
    Dropout,
    /// The vocabulary has no token of that name.
    #[error("the vocabulary has no token {0:?}")]
    NoToken(String),
    /// The text could not be tokenised.
    #[error("cannot tokenise: {0}")]
    Encode(String),
    /// The tokens are no text of this tokenizer.
    #[error("cannot decode: {0}")]
    Decode(String),
}

/// Turns text into tokens and back.
pub struct Tokenizer {
    kind: Kind,
    vocab_size: usize,
    end_of_document: Option<u32>,
    hash: Hash,
}

enum Kind {
    Bytes,
    /// The same tokenizer twice: special tokens by name are text in documents, tokens in prompts.
    HuggingFace {
        documents: Box<Inner>,
        prompts: Box<Inner>,
        /// Our own, for documents, where the form is known.
        fast: Option<Box<Fast>>,
    },
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("is_bytes", &self.is_bytes())
            .field("vocab_size", &self.vocab_size)
            .field("end_of_document", &self.end_of_document)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Every byte is a token; zero bytes, which text does not contain, end documents.
    pub fn bytes() -> Self {
        Self {
            kind: Kind::Bytes,
            vocab_size: BYTE_VOCABULARY,
            end_of_document: Some(BYTE_END),
            hash: blake3::hash(b"gauntlet/tokenizer/bytes").into(),
        }
    }

    /// The tokenizer in a Hugging Face `tokenizer.json`. The token that ends a document is the first
    /// of [`END_OF_DOCUMENT_NAMES`] that it has; see [`Tokenizer::with_end_of_document`].
    ///
    /// # Errors
    /// The file cannot be read, or is no tokenizer of a known kind, or has dropout.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let at = |source| TokenizerError::Io { path: path.to_owned(), source };
        let found = std::fs::metadata(path).map_err(at)?.len();
        if found > FILE_BYTES_MAX {
            return Err(TokenizerError::TooLarge { path: path.to_owned(), found });
        }
        Self::from_json(&std::fs::read(path).map_err(at)?)
    }

    /// [`Tokenizer::from_file`] from the file's content.
    ///
    /// # Errors
    /// As there, but for reading.
    pub fn from_json(json: &[u8]) -> Result<Self, TokenizerError> {
        let wrong = |error: tokenizers::Error| TokenizerError::Format(error.to_string());
        let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
        let mut prompts = Inner::from_bytes(json).map_err(wrong)?;
        prompts.with_truncation(None).map_err(wrong)?;
        prompts.with_padding(None);
        if let ModelWrapper::BPE(model) = prompts.get_model() {
            if model.dropout.is_some_and(|dropout| dropout > 0.0) {
                return Err(TokenizerError::Dropout);
            }
        }
        let mut documents = prompts.clone();
        documents.set_encode_special_tokens(true);
        let ids = prompts.get_vocab(true);
        let vocab_size = ids.values().max().map_or(0, |&id| id as usize + 1);
        let end_of_document =
            END_OF_DOCUMENT_NAMES.iter().find_map(|name| prompts.token_to_id(name));
        let fast = Fast::new(json, |name| prompts.token_to_id(name)).map(Box::new);
        Ok(Self {
            kind: Kind::HuggingFace {
                documents: Box::new(documents),
                prompts: Box::new(prompts),
                fast,
            },
            vocab_size,
            end_of_document,
            hash: blake3::hash(json).into(),
        })
    }

    /// The same tokenizer with documents ended by the token of this name.
    ///
    /// # Errors
    /// There is no such token; bytes have none with a name.
    pub fn with_end_of_document(mut self, name: &str) -> Result<Self, TokenizerError> {
        let id = self.token_id(name);
        self.end_of_document = Some(id.ok_or_else(|| TokenizerError::NoToken(name.to_owned()))?);
        Ok(self)
    }

    /// One more than the largest token: what a model's vocabulary must have at least.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that ends a document, if there is one.
    pub fn end_of_document(&self) -> Option<u32> {
        self.end_of_document
    }

    /// Whether every byte is a token.
    pub fn is_bytes(&self) -> bool {
        matches!(self.kind, Kind::Bytes)
    }

    /// BLAKE3 of the `tokenizer.json`; another one, always the same, for bytes.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The token of this name, added and special ones included.
    pub fn token_id(&self, name: &str) -> Option<u32> {
        match &self.kind {
            Kind::Bytes => None,
            Kind::HuggingFace { prompts, .. } => prompts.token_to_id(name),
        }
    }

    /// The tokens of one document, without its end. Names of special tokens in it are text.
    ///
    /// # Errors
    /// The tokenizer cannot express the text (a vocabulary without an unknown token).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match &self.kind {
            Kind::Bytes => Ok(bytes_of(text)),
            Kind::HuggingFace { fast: Some(fast), .. } => Ok(fast.encode(text)),
            Kind::HuggingFace { documents, .. } => encode(documents, text),
        }
    }

    /// [`Tokenizer::encode`] by the general tokenizer even where our own knows the form: what ours
    /// is checked against.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_general(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match &self.kind {
            Kind::Bytes => Ok(bytes_of(text)),
            Kind::HuggingFace { documents, .. } => encode(documents, text),
        }
    }

    /// Whether our own tokenizer knows the form of this one.
    pub fn is_fast(&self) -> bool {
        match &self.kind {
            Kind::Bytes => true,
            Kind::HuggingFace { fast, .. } => fast.is_some(),
        }
    }

    /// The tokens that the tokenizer's post-processor puts before every text; most put none.
    ///
    /// # Errors
    /// It leaves the text out, or cannot be run.
    pub fn opening(&self) -> Result<Vec<u32>, TokenizerError> {
        /// Stands for a text, as no vocabulary has it.
        const TEXT: u32 = u32::MAX;
        let Kind::HuggingFace { prompts, .. } = &self.kind else {
            return Ok(Vec::new());
        };
        let text = Encoding::from_tokens(vec![Token::new(TEXT, "text".to_owned(), (0, 4))], 0);
        let processed = prompts
            .post_process(text, None, true)
            .map_err(|error| TokenizerError::Encode(error.to_string()))?;
        let ids = processed.get_ids();
        match ids.iter().position(|id| *id == TEXT) {
            Some(place) => Ok(ids[..place].to_vec()),
            None => Err(TokenizerError::Format("its post-processor leaves texts out".to_owned())),
        }
    }

    /// The tokens of a prompt: as [`Tokenizer::encode`], but names of special tokens are those
    /// tokens, as in Python's `encode(text, add_special_tokens=False)`.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match &self.kind {
            Kind::Bytes => Ok(bytes_of(text)),
            Kind::HuggingFace { prompts, .. } => encode(prompts, text),
        }
    }

    /// The tokens of many documents, each ended by [`Tokenizer::end_of_document`] where there is
    /// one, in the order of the documents, computed by the threads of the current rayon pool.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], for the first document that fails.
    pub fn encode_documents<T>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>, TokenizerError>
    where
        T: AsRef<str> + Sync,
    {
        let encoded: Vec<_> = texts
            .par_iter()
            .with_max_len(1)
            .map(|text| {
                let mut tokens = self.encode(text.as_ref())?;
                tokens.extend(self.end_of_document);
                Ok(tokens)
            })
            .collect();
        encoded.into_iter().collect()
    }

    /// The text of these tokens, special tokens included by name. Bytes that are not UTF-8 (a cut
    /// character) become replacement characters.
    ///
    /// # Errors
    /// A token of the byte vocabulary is not a byte, or the tokenizer's decoder fails. Tokens that
    /// a Hugging Face vocabulary does not have are left out, as Python does.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        match &self.kind {
            Kind::Bytes => {
                let bytes: Result<Vec<u8>, _> = tokens.iter().map(|&t| u8::try_from(t)).collect();
                let bytes = bytes.map_err(|error| TokenizerError::Decode(error.to_string()))?;
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Kind::HuggingFace { prompts, .. } => prompts
                .decode(tokens, false)
                .map_err(|error| TokenizerError::Decode(error.to_string())),
        }
    }
}

/// The bytes of a text but for those that end documents.
fn bytes_of(text: &str) -> Vec<u32> {
    let bytes = text.bytes().map(u32::from);
    bytes.filter(|byte| *byte != BYTE_END).collect()
}

fn encode(inner: &Inner, text: &str) -> Result<Vec<u32>, TokenizerError> {
    let encoding = inner
        .encode_fast(text, false)
        .map_err(|error| TokenizerError::Encode(error.to_string()))?;
    Ok(encoding.get_ids().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a tokenizer with this post-processor puts before a text.
    fn opening(post_processor: &str) -> Result<Vec<u32>, String> {
        let json = format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":null,"decoder":null,"post_processor":{post_processor},
            "model":{{"type":"WordLevel","vocab":{{"a":0,"<s>":1,"</s>":2}},"unk_token":"a"}}}}"#
        );
        let tokenizer = Tokenizer::from_json(json.as_bytes()).map_err(|error| error.to_string())?;
        tokenizer.opening().map_err(|error| error.to_string())
    }

    /// A template of these names and numbers of tokens, `A` being the text.
    fn template(parts: &[(&str, &[u32])]) -> String {
        let piece = |(name, _): &(&str, &[u32])| match *name {
            "A" => r#"{"Sequence":{"id":"A","type_id":0}}"#.to_owned(),
            name => format!(r#"{{"SpecialToken":{{"id":"{name}","type_id":0}}}}"#),
        };
        let token = |(name, ids): &(&str, &[u32])| {
            let tokens = vec![name; ids.len()];
            format!(r#""{name}":{{"id":"{name}","ids":{ids:?},"tokens":{tokens:?}}}"#)
        };
        let pieces: Vec<String> = parts.iter().map(piece).collect();
        let tokens: Vec<String> =
            parts.iter().filter(|(name, _)| *name != "A").map(token).collect();
        let (pieces, tokens) = (pieces.join(","), tokens.join(","));
        // A template behind another one takes what that put there for the first text of a pair.
        let second = r#"{"Sequence":{"id":"B","type_id":1}}"#;
        format!(
            r#"{{"type":"TemplateProcessing","single":[{pieces}],"pair":[{pieces},{second}],"special_tokens":{{{tokens}}}}}"#
        )
    }

    #[test]
    fn what_stands_before_a_text_is_what_the_post_processor_puts_there() {
        let (bos, eos) = (("<s>", &[1][..]), ("</s>", &[2][..]));
        let text = ("A", &[][..]);
        let sequence = |processors: &[String]| {
            format!(r#"{{"type":"Sequence","processors":[{}]}}"#, processors.join(","))
        };
        let byte_level =
            r#"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}"#;
        let begins = template(&[bos, text, eos]);
        let one = [begins.clone(), sequence(&[byte_level.to_owned(), begins.clone()])];
        for post_processor in one {
            assert_eq!(opening(&post_processor), Ok(vec![1]), "{post_processor}");
        }
        let twice = [
            (template(&[eos, bos, text]), vec![2, 1]),
            (template(&[("<s>", &[1, 2]), text]), vec![1, 2]),
            (sequence(&[template(&[eos, text]), template(&[bos, text])]), vec![1, 2]),
            (template(&[("mark", &[7]), text]), vec![7]),
            (r#"{"type":"RobertaProcessing","sep":["</s>",2],"cls":["<s>",1],"trim_offsets":true,"add_prefix_space":true}"#.to_owned(), vec![1]),
            (r#"{"type":"BertProcessing","sep":["</s>",2],"cls":["<s>",1]}"#.to_owned(), vec![1]),
        ];
        for (post_processor, expected) in twice {
            assert_eq!(opening(&post_processor), Ok(expected), "{post_processor}");
        }
        for none in ["null", byte_level, &template(&[text, eos])] {
            assert_eq!(opening(none), Ok(Vec::new()), "{none}");
        }
        assert!(opening(&template(&[bos])).is_err(), "no text");
    }
}
