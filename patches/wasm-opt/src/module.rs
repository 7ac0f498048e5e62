//! The sections of a Wasm module, as bytes.

/// The magic number and the version that a module begins with.
const PREAMBLE: [u8; 8] = *b"\0asm\x01\0\0\0";
/// The identifier of a section that has a name and no meaning to the machine.
const CUSTOM: u8 = 0;

/// Whether a custom section of this name holds debug information that no Wasm machine reads.
pub(crate) fn holds_dwarf(name: &[u8]) -> bool {
    name.starts_with(b".debug_") || name.starts_with(b"reloc..debug_")
}

/// Copies a module without those custom sections whose name `wanted` refuses.
///
/// # Errors
/// Why the bytes are no module.
pub(crate) fn keep(module: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, &'static str> {
    let mut rest = module.strip_prefix(&PREAMBLE).ok_or("this is no Wasm module of version 1")?;
    let mut kept = PREAMBLE.to_vec();
    while let Some((&kind, after_kind)) = rest.split_first() {
        let (content, after) = counted(after_kind)?;
        if kind != CUSTOM || wanted(counted(content)?.0) {
            kept.extend_from_slice(&rest[..rest.len() - after.len()]);
        }
        rest = after;
    }
    Ok(kept)
}

/// Splits off bytes that begin with their own number.
fn counted(bytes: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let (length, after) = unsigned(bytes)?;
    let length = usize::try_from(length).map_err(|_| "a length is too large for this machine")?;
    after.split_at_checked(length).ok_or("the module ends inside a section")
}

/// Splits off a number of 32 bits in LEB128.
fn unsigned(bytes: &[u8]) -> Result<(u32, &[u8]), &'static str> {
    let mut value: u64 = 0;
    for (index, &byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).map_err(|_| "a length has more than 32 bits")?;
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err("a length does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module of these sections: kind, content.
    fn module(sections: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = PREAMBLE.to_vec();
        for (kind, content) in sections {
            bytes.push(*kind);
            // A length that is longer than it need be, as linkers write it.
            bytes.extend([content.len() as u8 | 0x80, 0x80, 0]);
            bytes.extend_from_slice(content);
        }
        bytes
    }

    #[test]
    fn debug_information_goes_and_all_else_stays() {
        let whole = module(&[
            (1, b"types"),
            (0, b"\x0b.debug_info...."),
            (0, b"\x0fruntime_version1"),
            (10, b".debug_ in code"),
            (0, b"\x04namefg"),
        ]);
        let stripped = module(&[
            (1, b"types"),
            (0, b"\x0fruntime_version1"),
            (10, b".debug_ in code"),
            (0, b"\x04namefg"),
        ]);
        assert_eq!(keep(&whole, |name| !holds_dwarf(name)), Ok(stripped));
        assert_eq!(keep(&whole, |_| true), Ok(whole));
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let whole = module(&[(1, b"types")]);
        assert!(keep(&whole[..whole.len() - 1], |_| true).is_err());
        assert!(keep(b"\0asm\x02\0\0\0", |_| true).is_err());
        assert!(keep(b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\xff\x01", |_| true).is_err());
        assert!(keep(b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x7f", |_| true).is_err());
        assert!(keep(b"", |_| true).is_err());
    }
}
