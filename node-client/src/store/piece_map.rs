//! Says of each piece of a content whether it is here.

use bytes::Bytes;

/// A bit for each piece, those of the first eight in the first byte, the first of them in its lowest bit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PieceMap(Bytes);

impl PieceMap {
    /// Bytes of the longest: of 524,288 pieces, a state of 137 G parameters. Of pieces beyond it nothing is said.
    pub const BYTES_MAX: usize = 64 << 10;

    /// Bytes of the longest that is sent beside a piece: of 8,192 pieces, a payload of 560 G parameters.
    pub const BESIDE_MAX: usize = 1 << 10;

    /// Of pieces in order, whether each is here.
    pub fn of(are_here: impl IntoIterator<Item = bool>) -> Self {
        let mut bytes = Vec::new();
        for (index, is_here) in are_here.into_iter().take(8 * Self::BYTES_MAX).enumerate() {
            if index.is_multiple_of(8) {
                bytes.push(0);
            }
            if let Some(last) = bytes.last_mut() {
                *last |= u8::from(is_here) << (index % 8);
            }
        }
        Self(bytes.into())
    }

    /// What a peer says; `None` if it is longer than any is.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        (bytes.len() <= Self::BYTES_MAX).then_some(Self(bytes))
    }

    /// As a peer is told.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Of how many pieces, the first ones, anything is said.
    pub fn named(&self) -> usize {
        self.0.len().saturating_mul(8)
    }

    /// Whether a piece is here, or nothing is said of it.
    pub fn may_have(&self, index: usize) -> bool {
        self.0.get(index / 8).is_none_or(|byte| byte >> (index % 8) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_says_what_is_here_and_nothing_of_what_is_beyond_it() {
        let here = [true, false, false, true, false, false, false, false, false, true];
        let map = PieceMap::of(here);
        assert_eq!(map.as_bytes()[..], [0b1001, 0b10]);
        let said: Vec<bool> = (0..here.len()).map(|index| map.may_have(index)).collect();
        assert_eq!(said, here);
        assert!(!map.may_have(15) && map.may_have(16));
        assert_eq!(map.named(), 16);
        assert_eq!(PieceMap::from_bytes(map.as_bytes().clone()), Some(map));
        let long = PieceMap::of(std::iter::repeat_n(false, 8 * PieceMap::BYTES_MAX + 1));
        assert_eq!(long.as_bytes().len(), PieceMap::BYTES_MAX);
        assert!(long.may_have(8 * PieceMap::BYTES_MAX));
        assert_eq!(PieceMap::from_bytes(vec![0; PieceMap::BYTES_MAX + 1].into()), None);
    }
}
