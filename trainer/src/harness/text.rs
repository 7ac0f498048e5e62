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

/// The first letter large, all others small.
pub(crate) fn capitalize(text: &str) -> String {
    let mut rest = text.chars();
    let Some(first) = rest.next() else {
        return String::new();
    };
    // One letter may become two (ß, SS), of which only the first stays large.
    let mut large = first.to_uppercase();
    let mut result: String = large.next().into_iter().collect();
    result.extend(large.flat_map(char::to_lowercase));
    result.push_str(&rest.as_str().to_lowercase());
    result
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
