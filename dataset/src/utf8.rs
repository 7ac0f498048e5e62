//! Text out of bytes: what is not UTF-8 becomes U+FFFD, and is counted.

/// What some editors and Windows programs put before the first line of UTF-8.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of `bytes`, which start at `offset` of their file, and what was not UTF-8.
pub(crate) fn mend(bytes: &[u8], offset: u64) -> (String, Option<String>) {
    let mut text = String::with_capacity(bytes.len() + 16);
    let mut decoder = Decoder { offset, ..Decoder::default() };
    decoder.push(bytes, &mut text);
    decoder.finish(&mut text);
    (text, decoder.damage().map(|(_, said)| said))
}

/// Whether the start of a file is text but for a bad byte here and there: at most one of eight (one of less), and no zeros beside them.
pub(crate) fn is_mostly(start: &[u8]) -> bool {
    let (mut decoder, mut text) = (Decoder::default(), String::new());
    decoder.push(start, &mut text);
    let bad = usize::try_from(decoder.count).unwrap_or(usize::MAX);
    bad == 0 || (bad <= (start.len() / 8).max(1) && !start.contains(&0))
}

/// Makes text of bytes that come in parts, cut anywhere.
#[derive(Default)]
pub(crate) struct Decoder {
    /// The start of a character whose end is to come.
    tail: Vec<u8>,
    /// Bytes that are text by now.
    offset: u64,
    /// Lines that ended.
    lines: u64,
    /// Places that are not UTF-8.
    count: u64,
    /// Line and byte of the first.
    first: Option<(u64, u64)>,
}

impl Decoder {
    /// Adds the text of `bytes`, but for a character that is cut at their end.
    pub(crate) fn push(&mut self, bytes: &[u8], text: &mut String) {
        if self.tail.is_empty() {
            let used = self.take(bytes, text);
            self.tail.extend_from_slice(&bytes[used..]);
            return;
        }
        let mut whole = std::mem::take(&mut self.tail);
        whole.extend_from_slice(bytes);
        let used = self.take(&whole, text);
        self.tail.extend_from_slice(&whole[used..]);
    }

    /// Ends the text.
    pub(crate) fn finish(&mut self, text: &mut String) {
        if !self.tail.is_empty() {
            self.replace(self.tail.len(), text);
            self.tail.clear();
        }
    }

    /// Passes over bytes that are no part of the text.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.offset += bytes as u64;
    }

    /// The line of the first place that was not UTF-8, and what there is to say.
    pub(crate) fn damage(&self) -> Option<(u64, String)> {
        let (line, byte) = self.first?;
        let said = match self.count {
            1 => format!("1 byte that is not UTF-8, at byte {byte}, read as U+FFFD"),
            count => {
                format!(
                    "{count} bytes that are not UTF-8, the first at byte {byte}, read as U+FFFD"
                )
            }
        };
        Some((line, said))
    }

    /// Adds the text of all of `bytes` but the start of a character at their end; how many that are.
    fn take(&mut self, bytes: &[u8], text: &mut String) -> usize {
        let mut used = 0;
        loop {
            let error = match std::str::from_utf8(&bytes[used..]) {
                Ok(valid) => {
                    self.add(valid, text);
                    return bytes.len();
                }
                Err(error) => error,
            };
            let end = used + error.valid_up_to();
            self.add(std::str::from_utf8(&bytes[used..end]).unwrap_or_default(), text);
            let Some(wrong) = error.error_len() else {
                return end;
            };
            self.replace(wrong, text);
            used = end + wrong;
        }
    }

    fn add(&mut self, valid: &str, text: &mut String) {
        text.push_str(valid);
        self.offset += valid.len() as u64;
        self.lines += valid.bytes().filter(|byte| *byte == b'\n').count() as u64;
    }

    /// Adds one U+FFFD for some bytes.
    fn replace(&mut self, bytes: usize, text: &mut String) {
        text.push(char::REPLACEMENT_CHARACTER);
        self.first.get_or_insert((self.lines + 1, self.offset));
        self.offset += bytes as u64;
        self.count += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_give_the_text_of_the_whole_wherever_they_are_cut() {
        let bytes = b"ab\xff\n\xc3\x9f\xf0\x9f\xa6\x80\xf0\x9f!\xe2\x82";
        let expected = String::from_utf8_lossy(bytes);
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let (mut decoder, mut text) = (Decoder::default(), String::new());
                for part in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                    decoder.push(part, &mut text);
                }
                decoder.finish(&mut text);
                assert_eq!(text, expected);
                let (line, said) = decoder.damage().unwrap();
                assert_eq!(line, 1);
                assert!(said.starts_with("5 bytes that are not UTF-8, the first at byte 2,"));
            }
        }
    }
}
