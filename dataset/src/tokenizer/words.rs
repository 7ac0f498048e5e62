//! Cuts a text into words before merges: hand-written forms of the patterns that byte-level
//! tokenizers use, which a regular expression with look-ahead would take most of the time for.
//!
//! The classes of characters are asked of the regular expressions once, so that both agree on every
//! character of Unicode.

use std::sync::OnceLock;

use tokenizers::utils::SysRegex;

/// What a character is to the patterns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Class {
    /// Neither of the others.
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
}

/// The class of every character, by code point.
struct Classes(Vec<Class>);

impl Classes {
    /// The table, made at the first call (a tenth of a second); `None` if the expressions fail.
    fn get() -> Option<&'static Self> {
        static CLASSES: OnceLock<Option<Classes>> = OnceLock::new();
        CLASSES.get_or_init(Self::new).as_ref()
    }

    fn new() -> Option<Self> {
        let all: String = ('\0'..=char::MAX).collect();
        let mut classes = vec![Class::Other; char::MAX as usize + 1];
        let patterns =
            [(r"\p{L}+", Class::Letter), (r"\p{N}+", Class::Number), (r"\s+", Class::Space)];
        for (pattern, class) in patterns {
            let expression = SysRegex::new(pattern).ok()?;
            for (start, end) in expression.find_iter(&all) {
                for char in all.get(start..end)?.chars() {
                    classes[char as usize] = class;
                }
            }
        }
        Some(Self(classes))
    }

    fn of(&self, char: char) -> Class {
        self.0[char as usize]
    }
}

/// Patterns that are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pattern {
    /// GPT-2's, which is part of the byte-level pre-tokenizer.
    Gpt2,
    /// GPT-2's on what is between digits; each digit is a word (SmolLM).
    Gpt2Digits,
    /// Llama 3's (and GPT-4's), with numbers of up to so many digits: 3, or 1 for Qwen 2.
    Llama3 {
        /// Digits of a word, at most.
        digits: usize,
    },
}

/// GPT-4's expression as Llama 3 has it.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The same as Qwen 2 has it: digits one by one.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Pattern {
    /// The pattern of a regular expression, if it is known.
    pub(super) fn of_expression(expression: &str) -> Option<Self> {
        match expression {
            LLAMA3 => Some(Self::Llama3 { digits: 3 }),
            QWEN2 => Some(Self::Llama3 { digits: 1 }),
            _ => None,
        }
    }
}

/// Cuts texts into words.
#[derive(Clone, Copy)]
pub(super) struct Words {
    pattern: Pattern,
    classes: &'static Classes,
}

impl Words {
    /// `None` if the classes of characters cannot be made.
    pub(super) fn new(pattern: Pattern) -> Option<Self> {
        let classes = Classes::get()?;
        Some(Self { pattern, classes })
    }

    /// Calls `take` with each word of `text`, in order; together they are the text.
    pub(super) fn each(&self, text: &str, take: &mut dyn FnMut(&str)) {
        let digits = match self.pattern {
            Pattern::Gpt2 => return self.gpt2(text, take),
            Pattern::Llama3 { digits } => return self.llama3(text, digits, take),
            Pattern::Gpt2Digits => |char: char| char.is_numeric(),
        };
        let mut start = 0;
        for (digit, word) in text.match_indices(digits) {
            self.gpt2(&text[start..digit], take);
            take(word);
            start = digit + word.len();
        }
        self.gpt2(&text[start..], take);
    }

    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    fn gpt2(&self, text: &str, take: &mut dyn FnMut(&str)) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let len = contraction(rest, false).unwrap_or_else(|| {
                let space = usize::from(first == ' ');
                let next = rest[space..].chars().next().map(|char| self.classes.of(char));
                match next {
                    None | Some(Class::Space) => self.spaces(rest),
                    Some(class) => space + self.run(&rest[space..], class),
                }
            });
            let (word, after) = rest.split_at(len);
            take(word);
            rest = after;
        }
    }

    /// The expressions [`LLAMA3`] and [`QWEN2`].
    fn llama3(&self, text: &str, digits: usize, take: &mut dyn FnMut(&str)) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let len =
                contraction(rest, true).unwrap_or_else(|| self.llama3_word(rest, first, digits));
            let (word, after) = rest.split_at(len);
            take(word);
            rest = after;
        }
    }

    fn llama3_word(&self, rest: &str, first: char, digits: usize) -> usize {
        let class = self.classes.of(first);
        let after = &rest[first.len_utf8()..];
        let next = after.chars().next().map(|char| self.classes.of(char));
        let is_line_end = |char: char| char == '\r' || char == '\n';
        if class == Class::Letter {
            return self.run(rest, class);
        }
        if class == Class::Number {
            let chars = rest.chars().take(digits);
            let chars = chars.take_while(|char| self.classes.of(*char) == class);
            return chars.map(char::len_utf8).sum();
        }
        if next == Some(Class::Letter) && !is_line_end(first) {
            return first.len_utf8() + self.run(after, Class::Letter);
        }
        let space = usize::from(first == ' ' && next == Some(Class::Other));
        if space == 1 || class == Class::Other {
            let end = space + self.run(&rest[space..], Class::Other);
            let line_ends = rest.as_bytes()[end..].iter();
            return end + line_ends.take_while(|b| is_line_end(**b as char)).count();
        }
        let run = self.run(rest, Class::Space);
        match rest[..run].rfind(is_line_end) {
            Some(line_end) => line_end + 1,
            None => self.spaces(rest),
        }
    }

    /// Bytes of the characters of `class` that the text starts with.
    fn run(&self, text: &str, class: Class) -> usize {
        let other = |char: char| self.classes.of(char) != class;
        text.find(other).unwrap_or(text.len())
    }

    /// `\s+(?!\S)|\s+`: the spaces, without the last one where something else follows it.
    fn spaces(&self, text: &str) -> usize {
        let run = self.run(text, Class::Space);
        let last = text[..run].chars().next_back().map_or(0, char::len_utf8);
        match run < text.len() && run > last {
            true => run - last,
            false => run,
        }
    }
}

/// The length of `'s`, `'t`, `'re`, … that the text starts with.
fn contraction(text: &str, any_case: bool) -> Option<usize> {
    let after = text.strip_prefix('\'')?;
    let mut chars = after.chars().map(|char| match char {
        // What a case-insensitive `s` is, too.
        'ſ' if any_case => 's',
        _ if any_case => char.to_ascii_lowercase(),
        _ => char,
    });
    let len = match (chars.next()?, chars.next()) {
        ('s' | 't' | 'm' | 'd', _) => 1,
        ('r' | 'v', Some('e')) | ('l', Some('l')) => 2,
        _ => return None,
    };
    let chars = after.chars().take(len).map(char::len_utf8);
    Some(1 + chars.sum::<usize>())
}
