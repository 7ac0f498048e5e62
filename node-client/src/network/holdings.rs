//! Says which pieces of a content each provider may have, and which are the rarest; knows no libp2p.
//!
//! Sets of pieces are bits, and how many have each piece is counted when what is known of a provider changes: which is
//! the rarest is looked for at every question.

use std::collections::VecDeque;

use crate::store::PieceMap;

/// Pieces among which the rarest is looked for: that takes so many looks.
const RAREST_OF: usize = 256;

/// A set of pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bits(Vec<u64>);

impl Bits {
    /// Of `count` pieces those that a map says are here, and those of which it says nothing.
    fn of(map: &PieceMap, count: usize) -> Self {
        let mut bits = Self(vec![0; count.div_ceil(64)]);
        for piece in (0..count).filter(|piece| map.may_have(*piece)) {
            bits.set(piece, true);
        }
        bits
    }

    fn has(&self, piece: usize) -> bool {
        self.0.get(piece / 64).is_some_and(|word| word >> (piece % 64) & 1 == 1)
    }

    fn set(&mut self, piece: usize, is_in: bool) {
        if let Some(word) = self.0.get_mut(piece / 64) {
            *word = *word & !(1 << (piece % 64)) | u64::from(is_in) << (piece % 64);
        }
    }

    fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(word, other)| word & other != 0)
    }

    fn with(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
        self
    }

    fn without(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
        self
    }

    /// Calls `each` with the pieces of one of two sets that the other has not.
    fn for_each_other(one: &[u64], two: &[u64], mut each: impl FnMut(usize)) {
        for (index, word) in one.iter().enumerate() {
            let mut left = word & !two.get(index).copied().unwrap_or_default();
            while left != 0 {
                each(index * 64 + left.trailing_zeros() as usize);
                left &= left - 1;
            }
        }
    }
}

/// Pieces that nobody is asked for, in the order in which to ask.
pub(super) struct Missing {
    order: VecDeque<usize>,
    set: Bits,
}

impl Missing {
    /// These of `count` pieces, in this order, each once.
    pub(super) fn new(count: usize, order: VecDeque<usize>) -> Self {
        let mut set = Bits(vec![0; count.div_ceil(64)]);
        order.iter().for_each(|piece| set.set(*piece, true));
        Self { order, set }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn contains(&self, piece: usize) -> bool {
        self.set.has(piece)
    }

    pub(super) fn remove(&mut self, piece: usize) {
        if self.contains(piece) {
            self.set.set(piece, false);
            // One of the first: that is where pieces are chosen.
            let place = self.order.iter().position(|other| *other == piece);
            place.and_then(|place| self.order.remove(place));
        }
    }

    /// Puts a piece before the others, if it is not among them.
    pub(super) fn put_first(&mut self, piece: usize) {
        if !self.contains(piece) {
            self.set.set(piece, true);
            self.order.push_front(piece);
        }
    }
}

/// What is known of one provider.
#[derive(Default)]
struct Holding {
    /// Which pieces it has, if it said that it has not all.
    said: Option<Bits>,
    /// So many of the first pieces are in what it said.
    named: usize,
    /// Pieces that it did not have when asked, whatever it says.
    lacks: Bits,
    /// It is not asked, at least for now.
    is_out: bool,
    /// What of it is counted.
    counted: Option<Bits>,
}

/// What is known of all providers of one content, by the order in which they came.
pub(super) struct Holdings {
    count: usize,
    providers: Vec<Holding>,
    /// How many of those who have a part only have each piece.
    had: Vec<u32>,
    /// How many have a part only and are asked.
    partial: usize,
    /// Which of the first 64 providers are so and have any piece, a bit for each: who fetches the content as we do.
    fetching: u64,
}

impl Holdings {
    /// Of a content of `count` pieces, which nobody has.
    pub(super) fn new(count: usize) -> Self {
        Self { count, providers: Vec::new(), had: vec![0; count], partial: 0, fetching: 0 }
    }

    /// One more provider, which may have all.
    pub(super) fn add(&mut self) {
        self.providers.push(Holding::default());
    }

    /// A provider said what it has, `None` if that is all.
    pub(super) fn said(&mut self, provider: usize, map: Option<&PieceMap>) {
        let said = map.map(|map| Bits::of(map, self.count));
        let named = map.map_or(self.count, PieceMap::named);
        self.change(provider, |holding| {
            (holding.said, holding.lacks, holding.named) = (said, Bits::default(), named);
        });
    }

    /// A provider said which pieces it has beside one of them: these and what it had before, as an answer may be older
    /// than another that came first.
    pub(super) fn more(&mut self, provider: usize, map: &PieceMap) {
        let said = Bits::of(map, self.count);
        self.change(provider, |holding| {
            let had = holding.said.take().unwrap_or_default();
            holding.said = Some(said.with(&had).without(&holding.lacks));
            holding.named = holding.named.max(map.named());
        });
    }

    /// A provider had not the piece that it was asked for, and said what it has.
    pub(super) fn lacks(&mut self, provider: usize, map: &PieceMap, piece: usize) {
        let (said, words) = (Bits::of(map, self.count), self.count.div_ceil(64));
        self.change(provider, |holding| {
            holding.lacks.0.resize(words, 0);
            holding.lacks.set(piece, true);
            holding.said = Some(said.without(&holding.lacks));
            holding.named = map.named();
        });
    }

    /// Whether a provider is to be left out of account, for now or for good.
    pub(super) fn set_out(&mut self, provider: usize, is_out: bool) {
        self.change(provider, |holding| holding.is_out = is_out);
    }

    fn change(&mut self, provider: usize, change: impl FnOnce(&mut Holding)) {
        let Some(holding) = self.providers.get_mut(provider) else {
            return;
        };
        change(holding);
        let now = holding.said.clone().filter(|_| !holding.is_out);
        let before = std::mem::replace(&mut holding.counted, now.clone());
        let words = |bits: &Option<Bits>| bits.as_ref().map_or(Vec::new(), |bits| bits.0.clone());
        self.partial = self.partial + usize::from(now.is_some()) - usize::from(before.is_some());
        let (now, before) = (words(&now), words(&before));
        let bit = u32::try_from(provider).ok().and_then(|index| 1u64.checked_shl(index));
        let is_fetching = now.iter().any(|word| *word != 0);
        let bit = bit.unwrap_or_default();
        self.fetching = self.fetching & !bit | if is_fetching { bit } else { 0 };
        Bits::for_each_other(&now, &before, |piece| self.had[piece] += 1);
        Bits::for_each_other(&before, &now, |piece| self.had[piece] -= 1);
    }

    /// Whether a provider may have a piece.
    pub(super) fn may_have(&self, provider: usize, piece: usize) -> bool {
        self.providers.get(provider).is_some_and(|holding| {
            !holding.is_out && holding.said.as_ref().is_none_or(|said| said.has(piece))
        })
    }

    /// Whether a provider that has a part only said nothing of a piece.
    pub(super) fn is_silent(&self, provider: usize, piece: usize) -> bool {
        let is_silent = |holding: &Holding| holding.said.is_some() && piece >= holding.named;
        self.providers.get(provider).is_some_and(is_silent)
    }

    /// Whether a provider may have any of these.
    pub(super) fn has_any(&self, provider: usize, missing: &Missing) -> bool {
        self.providers.get(provider).is_some_and(|holding| {
            let has = |said: &Bits| said.meets(&missing.set);
            !holding.is_out && !missing.is_empty() && holding.said.as_ref().is_none_or(has)
        })
    }

    /// How many of those who have a part only and are asked have a piece, but for this provider.
    pub(super) fn had_by_others(&self, provider: usize, piece: usize) -> u32 {
        let counted = self.providers.get(provider).and_then(|holding| holding.counted.as_ref());
        let own = u32::from(counted.is_some_and(|counted| counted.has(piece)));
        self.had.get(piece).map_or(0, |had| had.saturating_sub(own))
    }

    /// Whether a provider may have more by now than it had.
    pub(super) fn is_partial(&self, provider: usize) -> bool {
        self.providers.get(provider).is_some_and(|holding| holding.counted.is_some())
    }

    /// Who fetches the content as we do and has any of it: a bit for each of the first 64 providers.
    pub(super) fn fetching(&self) -> u64 {
        self.fetching
    }

    /// Of the first of these pieces, that `may` be asked for, one that a provider may have and that the fewest may have;
    /// of equally rare ones the first. Who has all has each: they are not counted. No piece beyond the first `looked_at`
    /// is looked at.
    pub(super) fn rarest(
        &self,
        provider: usize,
        missing: &Missing,
        looked_at: usize,
        may: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if !self.has_any(provider, missing) {
            return None;
        }
        let all = missing.order.iter().copied().take(looked_at);
        let mut had = all.filter(|piece| self.may_have(provider, *piece) && may(*piece));
        if self.partial == 0 {
            return had.next();
        }
        had.take(RAREST_OF).min_by_key(|piece| self.had.get(*piece).copied().unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(here: &[u8]) -> PieceMap {
        PieceMap::of(here.iter().map(|is_here| *is_here == 1))
    }

    fn missing<const N: usize>(count: usize, pieces: [usize; N]) -> Missing {
        Missing::new(count, VecDeque::from(pieces))
    }

    #[test]
    fn a_peer_is_asked_for_the_rarest_of_what_it_has() {
        let mut holdings = Holdings::new(4);
        (0..3).for_each(|_| holdings.add());
        let all = missing(4, [0, 1, 2, 3]);
        // Where nobody said anything, the first.
        assert_eq!(holdings.rarest(0, &missing(4, [2, 0]), usize::MAX, |_| true), Some(2));
        holdings.said(1, Some(&map(&[1, 1, 0, 0])));
        holdings.said(2, Some(&map(&[1, 0, 1, 0])));
        // Piece 3 is had by the first alone, 1 and 2 by two, 0 by all.
        assert_eq!(
            [0, 1, 2].map(|at| holdings.rarest(at, &all, usize::MAX, |_| true)),
            [3, 1, 2].map(Some)
        );
        // Who is out has nothing; of equally rare ones the first.
        holdings.set_out(2, true);
        assert_eq!(holdings.rarest(2, &all, usize::MAX, |_| true), None);
        assert_eq!(holdings.rarest(0, &all, usize::MAX, |_| true), Some(2));
        holdings.lacks(1, &map(&[1, 1, 0, 0]), 1);
        assert_eq!(holdings.rarest(1, &all, usize::MAX, |_| true), Some(0));
        assert_eq!(holdings.rarest(1, &missing(4, [1, 2, 3]), usize::MAX, |_| true), None);
        // What it lacks it lacks whatever it says, until it is asked what it has.
        holdings.lacks(1, &map(&[1, 1, 1, 1]), 2);
        assert_eq!(
            [0, 1, 2, 3].map(|piece| holdings.may_have(1, piece)),
            [true, false, false, true]
        );
        holdings.said(1, None);
        assert!(holdings.may_have(1, 2) && !holdings.is_partial(1));
        holdings.set_out(2, false);
        assert!(holdings.is_partial(2) && holdings.may_have(2, 0) && !holdings.may_have(2, 1));
    }

    /// What is counted step by step is what is counted of all.
    #[test]
    fn what_is_counted_is_what_they_have() {
        let count = 130;
        let mut holdings = Holdings::new(count);
        (0..5).for_each(|_| holdings.add());
        let mut drawn: usize = 1;
        for _ in 0..2_000 {
            drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (provider, piece) = ((drawn >> 40) % 5, (drawn >> 20) % count);
            let said = PieceMap::of((0..count).map(|at| (at * 7 + piece).is_multiple_of(3)));
            match (drawn >> 50) % 5 {
                0 => holdings.said(provider, Some(&said)),
                1 => holdings.said(provider, None),
                2 => holdings.lacks(provider, &said, piece),
                3 => holdings.set_out(provider, true),
                _ => holdings.set_out(provider, false),
            }
            let partial: Vec<usize> = (0..5).filter(|at| holdings.is_partial(*at)).collect();
            assert_eq!(holdings.partial, partial.len());
            for piece in 0..count {
                let had = partial.iter().filter(|at| holdings.may_have(**at, piece)).count();
                assert_eq!(holdings.had[piece] as usize, had);
                for provider in 0..5 {
                    let own = partial.contains(&provider) && holdings.may_have(provider, piece);
                    let others = holdings.had_by_others(provider, piece) as usize;
                    assert_eq!(others, had - usize::from(own));
                }
            }
        }
    }

    #[test]
    fn a_piece_is_missing_once() {
        let mut pieces = missing(70, [69, 3]);
        pieces.put_first(3);
        assert_eq!(pieces.order, [69, 3]);
        pieces.remove(69);
        pieces.remove(69);
        assert!(!pieces.contains(69) && pieces.contains(3));
        pieces.put_first(69);
        assert_eq!(pieces.order, [69, 3]);
    }
}
