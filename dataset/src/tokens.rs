//! Tokens as they lie in a file: bytes, or little-endian integers of two or four bytes.

/// Bytes of a piece with a hash of its own; the last one of a file may be shorter.
pub const PIECE_BYTES: usize = 1 << 20;

/// A run of tokens, borrowed from wherever they lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tokens<'a> {
    /// One byte a token: the byte-level vocabulary.
    U8(&'a [u8]),
    /// Two bytes a token: vocabularies of up to 65,536.
    U16(&'a [u16]),
    /// Four bytes a token.
    U32(&'a [u32]),
}

impl<'a> Tokens<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(tokens) => tokens.len(),
            Self::U16(tokens) => tokens.len(),
            Self::U32(tokens) => tokens.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token at `index`.
    pub fn get(&self, index: usize) -> Option<u32> {
        match self {
            Self::U8(tokens) => tokens.get(index).copied().map(u32::from),
            Self::U16(tokens) => tokens.get(index).copied().map(u32::from),
            Self::U32(tokens) => tokens.get(index).copied(),
        }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + 'a {
        let tokens = *self;
        (0..tokens.len()).filter_map(move |index| tokens.get(index))
    }
}
