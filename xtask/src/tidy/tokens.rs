//! Cuts Rust source into the few kinds of token that finding a file's imports needs.
//!
//! Comments, literals and lifetimes are dropped, so that nothing in a text or a comment passes for code.

/// A piece of source that matters to imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// An identifier or a keyword, raw ones without their `r#`.
    Word(String),
    /// The separator `::` of a path.
    Colons,
    /// Any other character that is neither space nor part of a literal.
    Sign(char),
    /// A number, a text or a character, whatever it says.
    Literal,
}

/// Cuts `source` into tokens; source that does not end a comment or a text ends with it.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut scanner = Scanner { chars: source.chars().collect(), at: 0 };
    let mut found = Vec::new();
    while let Some(token) = scanner.next_token() {
        found.extend(token);
    }
    found
}

/// A place in the source.
struct Scanner {
    chars: Vec<char>,
    at: usize,
}

impl Scanner {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    /// Takes the next piece: `None` at the end, `Some(None)` for what is dropped.
    fn next_token(&mut self) -> Option<Option<Token>> {
        let char = self.peek(0)?;
        let next = self.peek(1);
        if char == '/' && next == Some('/') {
            self.skip_while(|char| char != '\n');
            return Some(None);
        }
        if char == '/' && next == Some('*') {
            self.skip_block_comment();
            return Some(None);
        }
        if char == '"' {
            self.skip_text();
            return Some(Some(Token::Literal));
        }
        if char == '\'' {
            return Some(self.quote());
        }
        if char.is_ascii_digit() {
            self.skip_while(is_word);
            return Some(Some(Token::Literal));
        }
        if is_word(char) {
            return Some(Some(self.word()));
        }
        if char == ':' && next == Some(':') {
            self.at += 2;
            return Some(Some(Token::Colons));
        }
        self.at += 1;
        Some((!char.is_whitespace()).then_some(Token::Sign(char)))
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&wanted) {
            self.at += 1;
        }
    }

    /// Block comments nest.
    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        while let Some(char) = self.peek(0) {
            match (char, self.peek(1)) {
                ('/', Some('*')) => depth += 1,
                ('*', Some('/')) => depth -= 1,
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            self.at += 2;
            if depth == 0 {
                return;
            }
        }
    }

    /// Skips a text with escapes, from its opening quote to its closing one.
    fn skip_text(&mut self) {
        self.at += 1;
        while let Some(char) = self.peek(0) {
            self.at += if char == '\\' { 2 } else { 1 };
            if char == '"' {
                return;
            }
        }
    }

    /// Skips a raw text from its first `#` or quote on.
    fn skip_raw_text(&mut self) {
        let start = self.at;
        self.skip_while(|char| char == '#');
        let hashes = self.at - start;
        self.at += 1;
        while let Some(char) = self.peek(0) {
            self.at += 1;
            if char == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                self.at += hashes;
                return;
            }
        }
    }

    /// Tells a character from a lifetime; a lifetime is dropped.
    fn quote(&mut self) -> Option<Token> {
        if self.peek(1) == Some('\\') {
            self.at += 3;
            self.skip_while(|char| char != '\'');
            self.at += 1;
            return Some(Token::Literal);
        }
        if self.peek(2) == Some('\'') {
            self.at += 3;
            return Some(Token::Literal);
        }
        self.at += 1;
        self.skip_while(is_word);
        None
    }

    /// Takes a word, or the text that it is the prefix of.
    fn word(&mut self) -> Token {
        let start = self.at;
        self.skip_while(is_word);
        let word: String = self.chars[start..self.at].iter().collect();
        let raw_text =
            matches!((self.peek(0), self.peek(1)), (Some('"'), _) | (Some('#'), Some('"' | '#')));
        match word.as_str() {
            "r" | "br" | "cr" if raw_text => {
                self.skip_raw_text();
                Token::Literal
            }
            "b" | "c" if self.peek(0) == Some('"') => {
                self.skip_text();
                Token::Literal
            }
            "b" if self.peek(0) == Some('\'') => {
                self.quote();
                Token::Literal
            }
            "r" if self.peek(0) == Some('#') => {
                self.at += 1;
                self.word()
            }
            _ => Token::Word(word),
        }
    }
}

fn is_word(char: char) -> bool {
    char == '_' || char.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        let words = tokens(source).into_iter().filter_map(|token| match token {
            Token::Word(word) => Some(word),
            _ => None,
        });
        words.collect()
    }

    #[test]
    fn comments_texts_and_lifetimes_are_no_code() {
        assert_eq!(words("a // crate::b\n/* c /* d */ e */ f"), ["a", "f"]);
        assert_eq!(
            words(r##"x("crate::\"b"); y(r#"c " d"#); z(b"e", 'f', '\'', b'g')"##),
            ["x", "y", "z"]
        );
        assert_eq!(words("fn f<'a>(x: &'a str) {}"), ["fn", "f", "x", "str"]);
        assert_eq!(words("r#type 1e3 0x_ff 1..n"), ["type", "n"]);
    }

    #[test]
    fn a_path_keeps_its_separators() {
        let word = |word: &str| Token::Word(word.to_owned());
        assert_eq!(
            tokens("crate::a:b"),
            [word("crate"), Token::Colons, word("a"), Token::Sign(':'), word("b")]
        );
    }
}
