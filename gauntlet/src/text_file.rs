//! Reads files that a person wrote in an editor: settings, in TOML or JSON.

use std::path::Path;

use anyhow::{bail, Context, Result};

/// The text of a file, without the byte order mark that some editors put in front.
///
/// # Errors
/// The file cannot be read, or is not UTF-8; the text says where.
pub(crate) fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let is_utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    if is_utf16 {
        bail!("{} is UTF-16; save it as UTF-8", path.display());
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            bail!("{} is not UTF-8 in line {line}; save it as UTF-8", path.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_passed_over_and_other_text_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            read(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"\xef\xbb\xbfa = 1\r\n"), Ok("a = 1\r\n".to_owned()));
        assert!(read(b"\xff\xfea\0").unwrap_err().contains("a.toml is UTF-16"));
        assert!(read(b"a = 1\nb = \"\xe4\"").unwrap_err().contains("not UTF-8 in line 2"));
    }
}
