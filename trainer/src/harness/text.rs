//! The few operations on text in which prompts depend on a language's own idea of white space and
//! case. They are Python's here, because the published figures were made with Python.

/// Whether Python's `str.isspace` takes the character for white space: Unicode's, and the four
/// separators of ASCII.
pub(crate) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// `text` without white space at both ends.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `text` in two: all but the white space at its end, and that white space.
pub(crate) fn split_trailing_space(text: &str) -> (&str, &str) {
    text.split_at(text.trim_end_matches(is_space).len())
}

/// The pieces between runs of white space, empty ones at the ends included: what is counted as
/// words in a perplexity per word.
pub(crate) fn word_count(text: &str) -> u64 {
    let mut runs = 0;
    let mut inside = false;
    for character in text.chars() {
        let space = is_space(character);
        runs += u64::from(space && !inside);
        inside = space;
    }
    runs + 1
}

/// Python's `str.capitalize`: the first character in title case, all others small, where a sigma at
/// the end of a word is `ς`, also right after the first character.
pub(crate) fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else {
        return String::new();
    };
    let mut result = String::with_capacity(text.len());
    add_title_case(first, &mut result);
    // The whole is made small, so that a sigma sees what is before it.
    let small_first: usize = first.to_lowercase().map(char::len_utf8).sum();
    result.push_str(&text.to_lowercase()[small_first..]);
    result
}

/// Unicode's full title case of a character: large letters, but where one becomes several only the
/// first is (ß, Ss). What differs from that is here, of Unicode 14 to 17: digraphs, Georgian, which
/// has no title case, and Greek with an iota below.
fn add_title_case(character: char, result: &mut String) {
    /// The iota that stays below a letter in title case.
    const IOTA_BELOW: char = '\u{345}';
    let title = match character {
        'Ǆ'..='ǆ' => 'ǅ',
        'Ǉ'..='ǉ' => 'ǈ',
        'Ǌ'..='ǌ' => 'ǋ',
        'Ǳ'..='ǳ' => 'ǲ',
        '\u{10d0}'..='\u{10fa}' | '\u{10fd}'..='\u{10ff}' => character,
        // Eight small letters before the eight in title case.
        '\u{1f80}'..='\u{1faf}' => char::from_u32(character as u32 | 8).unwrap_or(character),
        '\u{1fb3}' | '\u{1fbc}' => '\u{1fbc}',
        '\u{1fc3}' | '\u{1fcc}' => '\u{1fcc}',
        '\u{1ff3}' | '\u{1ffc}' => '\u{1ffc}',
        'ŉ' => return result.push_str("\u{2bc}N"),
        _ => {
            let mut large = character.to_uppercase();
            result.extend(large.next());
            let small = large.flat_map(char::to_lowercase);
            result.extend(small.map(|c| if c == 'ι' { IOTA_BELOW } else { c }));
            return;
        }
    };
    result.push(title);
}

/// `text` without what stands in square brackets on one line, the brackets included.
pub(crate) fn without_brackets(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let (before, after) = rest.split_at(open);
        result.push_str(before);
        match after.find([']', '\n']) {
            Some(end) if after[end..].starts_with(']') => rest = &after[end + 1..],
            _ => {
                result.push('[');
                rest = &after[1..];
            }
        }
    }
    result.push_str(rest);
    result
}

/// Replaces each `{name}` of `template` by its value; `{{` and `}}` stand for braces. The error is
/// what is wrong with the template.
pub(crate) fn fill(
    template: &str,
    value: impl Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut result = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(brace) = rest.find(['{', '}']) {
        let (before, after) = rest.split_at(brace);
        result.push_str(before);
        if let Some(doubled) = ["{{", "}}"].iter().find(|two| after.starts_with(**two)) {
            result.push_str(&doubled[1..]);
            rest = &after[2..];
            continue;
        }
        let end = after.find('}').filter(|_| after.starts_with('{'));
        let end = end.ok_or_else(|| format!("a brace without its partner in {template:?}"))?;
        let name = &after[1..end];
        result.push_str(&value(name).ok_or_else(|| format!("no text field {name:?}"))?);
        rest = &after[end + 1..];
    }
    result.push_str(rest);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_that_of_python() {
        assert_eq!(strip("\u{1f} a b\u{a0}\n"), "a b");
        assert_eq!(split_trailing_space("a b \n"), ("a b", " \n"));
        // len(re.split(r"\s+", text))
        assert_eq!(word_count("a  b\nc"), 3);
        assert_eq!(word_count(" a "), 3);
        assert_eq!(word_count(""), 1);
    }

    #[test]
    fn capitals_are_those_of_python() {
        assert_eq!(capitalize("the QUICK Fox"), "The quick fox");
        assert_eq!(capitalize("ßA"), "Ssa");
        // Python 3.11: [text.capitalize() for text in …]
        let cases = [
            ("ǆep", "ǅep"),
            ("ǅEP", "ǅep"),
            ("ΑΣ", "Ας"),
            ("ΑΣ ΣΑΣ", "Ας σας"),
            ("Σ", "Σ"),
            ("Α.Σ.Α", "Α.σ.α"),
            ("Α\u{301}Σ", "Α\u{301}ς"),
            ("ŉa", "\u{2bc}Na"),
            ("ﬃX", "Ffix"),
            ("ﬅX", "Stx"),
            ("İİ", "İi\u{307}"),
            ("აბგ", "აბგ"),
            ("ᲐᲑ", "Აბ"),
            ("ᾳΑ", "ᾼα"),
            ("ᾀ", "ᾈ"),
            ("ᾷ", "Α\u{342}\u{345}"),
            ("ᾲx", "Ὰ\u{345}x"),
            ("ΐ", "\u{399}\u{308}\u{301}"),
            ("և", "Եւ"),
            ("1ABC", "1abc"),
        ];
        for (text, expected) in cases {
            assert_eq!(capitalize(text), expected, "{text}");
        }
        assert_eq!(capitalize(""), "");
    }

    #[test]
    fn brackets_end_at_the_first_partner_on_the_line() {
        assert_eq!(without_brackets("a [b] c [d[e] f]"), "a  c  f]");
        assert_eq!(without_brackets("a [b\n] c [d"), "a [b\n] c [d");
    }

    #[test]
    fn templates_are_filled_and_wrong_ones_refused() {
        let value = |name: &str| (name == "x").then(|| "{1}".to_owned());
        assert_eq!(fill("a{x}b {{x}}", value).as_deref(), Ok("a{1}b {x}"));
        for wrong in ["{y}", "{x", "x}", "{"] {
            assert!(fill(wrong, value).is_err(), "{wrong}");
        }
    }
}
