//! Makes bytes that nobody wrote, for the tests of several crates.

/// What a stranger may make of bytes, of which there are some; `below` draws a number below its argument.
pub(crate) fn mutated(mut below: impl FnMut(usize) -> usize, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = below(bytes.len());
    let end = at + 1 + below(bytes.len() - at);
    let mut flip = |bytes: &mut [u8], among: usize| {
        let bit = below(among * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    };
    match end % 7 {
        0 => (0..=at % 8).for_each(|_| flip(&mut bytes, at + 1)),
        1 => bytes.truncate(at),
        2 => bytes.extend_from_within(at..end),
        3 => bytes[at..end].fill(0),
        4 => bytes[at..end].fill(0xFF),
        5 => bytes[at..end].rotate_left(1),
        // The header and the first lengths, where a reader believes most.
        _ => {
            let among = bytes.len().min(12);
            flip(&mut bytes, among);
        }
    }
    bytes
}
