//! From text to tokens: what the model reads, and which of it is scored.

use dataset::tokenizer::{Tokenizer, TokenizerError};

use super::text;

/// What a model says of a request.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Score {
    /// Sum of the log-probabilities of the continuation's tokens, in nats.
    pub log_likelihood: f64,
    /// Whether each of them is the most probable one.
    pub greedy: bool,
}

/// Tokens to read and tokens to score.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScoreRequest {
    /// What stands before; never empty.
    pub context: Vec<u32>,
    /// What is scored; never empty.
    pub continuation: Vec<u32>,
}

/// Why a text cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The ending has no token of its own: it is empty, or melts into the prompt.
    #[error("the ending {0:?} has no token of its own")]
    NoTokens(String),
}

/// A tokenizer, and how a text begins.
pub struct Vocabulary<'a> {
    tokenizer: &'a Tokenizer,
    prefix: u32,
    begins: bool,
}

impl<'a> Vocabulary<'a> {
    /// `prefix` stands before a text that has nothing before it: the token that begins texts, or
    /// else the one that ends them. With `begins` it stands before every text, as LLaMA's
    /// tokenizers want it. It is never put before a text that begins with it, and never scored there:
    /// a text begins once, whoever says so.
    pub fn new(tokenizer: &'a Tokenizer, prefix: u32, begins: bool) -> Self {
        Self { tokenizer, prefix, begins }
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut tokens = self.tokenizer.encode_prompt(text)?;
        if self.begins && tokens.first() != Some(&self.prefix) {
            tokens.insert(0, self.prefix);
        }
        Ok(tokens)
    }

    /// The request for the log-likelihoods of `endings` after `context`, one for each.
    ///
    /// White space at the end of the context belongs to the endings, since most vocabularies write
    /// it at the start of a word. Context and ending are encoded as one text, and the ending is
    /// what is left after as many tokens as the context has alone.
    ///
    /// # Errors
    /// The tokenizer fails, or an ending has no tokens.
    pub fn requests(
        &self,
        context: &str,
        endings: &[String],
    ) -> Result<Vec<ScoreRequest>, RequestError> {
        let (context, space) = text::split_trailing_space(context);
        let alone = match context.is_empty() {
            true => vec![self.prefix],
            false => self.encode(context)?,
        };
        let request = |ending: &String| {
            let ending = format!("{space}{ending}");
            let mut whole = match context.is_empty() {
                true => self.tokenizer.encode_prompt(&ending)?,
                false => self.encode(&format!("{context}{ending}"))?,
            };
            if context.is_empty() && whole.first() != Some(&self.prefix) {
                whole.insert(0, self.prefix);
            }
            match whole.get(alone.len()..) {
                Some(continuation) if !continuation.is_empty() => {
                    Ok(ScoreRequest { context: alone.clone(), continuation: continuation.to_vec() })
                }
                _ => Err(RequestError::NoTokens(ending)),
            }
        };
        endings.iter().map(request).collect()
    }

    /// The requests whose scores add up to the log-likelihood of a whole text: windows of `length`
    /// tokens, each scored once, the last one with as much before it as fits. The prefix is before
    /// the first and is not scored. Returns also how many tokens are scored.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn windows(
        &self,
        text: &str,
        length: usize,
    ) -> Result<(Vec<ScoreRequest>, u64), TokenizerError> {
        let mut tokens = self.tokenizer.encode_prompt(text)?;
        // The text may begin with the prefix itself.
        if tokens.first() == Some(&self.prefix) {
            tokens.remove(0);
        }
        let mut requests = Vec::with_capacity(tokens.len().div_ceil(length.max(1)));
        for (index, window) in tokens.chunks(length.max(1)).enumerate() {
            let end = index * length + window.len();
            // The model reads `length` tokens, of which the last is not read but predicted.
            let context = match index {
                0 => vec![self.prefix],
                _ => tokens[end - length - 1..end - window.len()].to_vec(),
            };
            requests.push(ScoreRequest { context, continuation: window.to_vec() });
        }
        Ok((requests, tokens.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    #[test]
    fn space_at_the_end_of_a_context_belongs_to_the_ending() {
        let tokenizer = Tokenizer::bytes();
        let vocabulary = Vocabulary::new(&tokenizer, 7, false);
        let requests = vocabulary.requests("ab \n", &["c".into()]).unwrap();
        assert_eq!(requests[0].context, bytes("ab"));
        assert_eq!(requests[0].continuation, bytes(" \nc"));
    }

    #[test]
    fn an_empty_context_is_the_prefix() {
        let tokenizer = Tokenizer::bytes();
        let vocabulary = Vocabulary::new(&tokenizer, 7, false);
        let requests = vocabulary.requests(" ", &["c".into()]).unwrap();
        assert_eq!(requests[0].context, [7]);
        assert_eq!(requests[0].continuation, bytes(" c"));
        assert!(vocabulary.requests("a", &[String::new()]).is_err());
    }

    #[test]
    fn a_prefix_can_begin_every_text() {
        let tokenizer = Tokenizer::bytes();
        let vocabulary = Vocabulary::new(&tokenizer, 7, true);
        let requests = vocabulary.requests("ab", &["c".into()]).unwrap();
        assert_eq!(requests[0].context, [7, 97, 98]);
        assert_eq!(requests[0].continuation, bytes("c"));
    }

    /// Of a tokenizer that puts the prefix first, of one that does not, and in a text that has it.
    #[test]
    fn a_prefix_is_before_a_text_once_and_is_not_scored() {
        let tokenizer = Tokenizer::bytes();
        for begins in [false, true] {
            let vocabulary = Vocabulary::new(&tokenizer, 97, begins);
            for text in ["abc", "bc"] {
                let (requests, tokens) = vocabulary.windows(text, 9).unwrap();
                let expected = ScoreRequest { context: vec![97], continuation: bytes("bc") };
                assert_eq!((requests, tokens), (vec![expected], 2), "{begins} {text}");
            }
            assert_eq!(vocabulary.windows("a", 9).unwrap(), (Vec::new(), 0));
            let first = vocabulary.requests("abc", &["d".into()]).unwrap().remove(0);
            assert_eq!(first.context, bytes("abc"));
            // A question without a prompt begins once, too.
            let first = vocabulary.requests("", &["abc".into()]).unwrap().remove(0);
            let expected = ScoreRequest { context: vec![97], continuation: bytes("bc") };
            assert_eq!(first, expected);
        }
    }

    /// `lm_eval.utils.get_rolling_token_windows(range(10), 99, 4, 1)`, made disjoint.
    #[test]
    fn windows_score_each_token_once() {
        let tokenizer = Tokenizer::bytes();
        let vocabulary = Vocabulary::new(&tokenizer, 99, false);
        let (requests, tokens) = vocabulary.windows("abcdefghij", 4).unwrap();
        let parts: Vec<_> = requests.iter().map(|r| (&r.context, &r.continuation)).collect();
        let expected =
            [(vec![99], bytes("abcd")), (bytes("d"), bytes("efgh")), (bytes("fgh"), bytes("ij"))];
        assert_eq!(tokens, 10);
        assert!(parts.into_iter().eq(expected.iter().map(|(a, b)| (a, b))));
    }
}
