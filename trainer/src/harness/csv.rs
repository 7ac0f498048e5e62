//! Comma-separated values, as far as questions need them (RFC 4180): fields in quotes may hold
//! commas, line ends and doubled quotes.

/// The records of `text`. Empty lines are no records. `Err` is the line, counted from 1, of a quote
/// that is not closed or is followed by other text.
pub(crate) fn records(text: &str) -> Result<Vec<Vec<String>>, usize> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line = |rest: &str| text[..text.len() - rest.len()].matches('\n').count() + 1;
    while !rest.is_empty() {
        let (field, after) = match rest.strip_prefix('"') {
            Some(inside) => quoted(inside).ok_or_else(|| line(rest))?,
            None => {
                let end = rest.find([',', '\n']).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        record.push(field);
        if let Some(next) = after.strip_prefix(',') {
            rest = next;
            if rest.is_empty() {
                record.push(String::new());
            }
            continue;
        }
        // The end of a line or of the text; an unquoted last field has kept its carriage return.
        let next = after.strip_prefix('\r').unwrap_or(after);
        rest = match (next.strip_prefix('\n'), next.is_empty()) {
            (Some(next), _) => next,
            (None, true) => next,
            (None, false) => return Err(line(after)),
        };
        end_record(&mut records, &mut record);
    }
    end_record(&mut records, &mut record);
    Ok(records)
}

fn end_record(records: &mut Vec<Vec<String>>, record: &mut Vec<String>) {
    let mut record = std::mem::take(record);
    if let Some(last) = record.last_mut() {
        if last.ends_with('\r') {
            last.pop();
        }
    }
    if record.iter().any(|field| !field.is_empty()) {
        records.push(record);
    }
}

/// The field of which `text` is all after its first quote, and what follows its last one.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_hold_commas_lines_and_quotes() {
        let text = "a,\"b, \"\"c\"\"\nd\",\r\n\n\"x\",y,z";
        let expected = vec![vec!["a", "b, \"c\"\nd", ""], vec!["x", "y", "z"]];
        assert_eq!(records(text).unwrap(), expected);
    }

    #[test]
    fn a_quote_inside_an_unquoted_field_is_itself() {
        assert_eq!(records("5\" pipe,b\n").unwrap(), [["5\" pipe", "b"]]);
    }

    #[test]
    fn open_quotes_are_refused_with_their_line() {
        assert_eq!(records("a,b\n\"c"), Err(2));
        assert_eq!(records("a\n\"c\"d,e"), Err(2));
    }
}
