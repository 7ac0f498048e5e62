//! Checks that no file refers to a document that is not in the repository.

/// Says which lines of a file refer to a document outside, and how.
pub(crate) fn broken(text: &str) -> Vec<String> {
    // Spelt in two parts, so that this file does not name what it looks for.
    let outside = [concat!("DES", "IGN"), concat!("../", "shared")];
    let mut broken = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for name in outside {
            if line.contains(name) {
                broken.push(format!(
                    "line {}: `{name}` is not in the repository; cite docs/ instead",
                    number + 1
                ));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::broken;

    #[test]
    fn a_document_outside_is_named_with_its_line() {
        let text = format!("/// As docs/PROTOCOL.md says.\n/// {}.md §5\n", concat!("DES", "IGN"));
        assert_eq!(broken(&text).len(), 1);
        assert!(broken(&text)[0].starts_with("line 2: "));
        assert_eq!(broken(concat!("see ../", "shared/x.md")).len(), 1);
        assert!(broken("the design, a designer").is_empty());
    }
}
