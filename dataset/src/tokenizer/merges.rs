//! Byte-pair merges of one word, and the words that were merged before.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Symbols of a word up to which the next merge is found by looking at all of them.
const SCAN_MAX: usize = 40;

/// Longest word that is remembered, in bytes.
const WORD_BYTES_MAX: usize = 128;

/// Words that are remembered, at most; then all are forgotten.
const WORDS_MAX: usize = 1 << 16;

/// Slots of the table of words: a power of two, at least twice the words.
const SLOTS: usize = WORDS_MAX * 2;

/// Mixes the one number that keys of merges are.
#[derive(Default)]
pub(super) struct PairHasher(u64);

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number, 0x9e37_79b9_7f4a_7c15);
    }
}

/// Both halves of a product, folded.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// No merge.
const NONE: u32 = u32::MAX;

/// Which pairs of tokens become which token, and which first.
pub(super) struct Merges(HashMap<u64, (u32, u32), BuildHasherDefault<PairHasher>>);

impl Merges {
    /// Merges in the order of their ranks: left, right, and what they become.
    pub(super) fn new(merges: impl Iterator<Item = (u32, u32, u32)>) -> Self {
        let ranked = merges
            .zip(0..)
            .map(|((left, right, merged), rank)| (pair(left, right), (rank, merged)));
        Self(ranked.collect())
    }

    /// Rank and result of a pair; the rank [`NONE`] where it is not merged.
    fn get(&self, left: u32, right: u32) -> (u32, u32) {
        self.0.get(&pair(left, right)).copied().unwrap_or((NONE, 0))
    }

    /// Merges the symbols of a word: always the pair of the lowest rank, the leftmost among equals.
    pub(super) fn apply(&self, symbols: &mut Vec<u32>) {
        match symbols.len() {
            0 | 1 => {}
            2..=SCAN_MAX => self.scan(symbols),
            _ => self.queue(symbols),
        }
    }

    fn scan(&self, symbols: &mut Vec<u32>) {
        // (rank, merged) of each symbol with the next one.
        let mut pairs = [(NONE, 0); SCAN_MAX];
        let mut len = symbols.len();
        for index in 0..len - 1 {
            pairs[index] = self.get(symbols[index], symbols[index + 1]);
        }
        while len > 1 {
            let (mut at, mut best) = (0, NONE);
            for (index, (rank, _)) in pairs[..len - 1].iter().enumerate() {
                if *rank < best {
                    (at, best) = (index, *rank);
                }
            }
            if best == NONE {
                break;
            }
            symbols[at] = pairs[at].1;
            symbols.copy_within(at + 2..len, at + 1);
            pairs.copy_within(at + 1..len - 1, at);
            len -= 1;
            if at > 0 {
                pairs[at - 1] = self.get(symbols[at - 1], symbols[at]);
            }
            if at + 1 < len {
                pairs[at] = self.get(symbols[at], symbols[at + 1]);
            }
        }
        symbols.truncate(len);
    }

    /// The same for long words: pairs in a heap, symbols in a list.
    fn queue(&self, symbols: &mut Vec<u32>) {
        let len = symbols.len();
        // Index of the symbol before and behind; a symbol that was merged into another has neither.
        let mut before: Vec<usize> = (0..len).map(|index| index.wrapping_sub(1)).collect();
        let mut behind: Vec<usize> = (1..=len).collect();
        let mut is_gone = vec![false; len];
        let entry = |at: usize, left: u32, right: u32| {
            let (rank, _) = self.get(left, right);
            (rank != NONE).then_some(Reverse((rank, at, left, right)))
        };
        let pairs = (0..len - 1).filter_map(|at| entry(at, symbols[at], symbols[at + 1]));
        let mut heap: BinaryHeap<_> = pairs.collect();
        while let Some(Reverse((_, at, left, right))) = heap.pop() {
            let next = behind[at];
            // One of the two may have been merged since.
            if is_gone[at] || next >= len || symbols[at] != left || symbols[next] != right {
                continue;
            }
            symbols[at] = self.get(left, right).1;
            is_gone[next] = true;
            behind[at] = behind[next];
            if behind[at] < len {
                before[behind[at]] = at;
                heap.extend(entry(at, symbols[at], symbols[behind[at]]));
            }
            if before[at] < len {
                heap.extend(entry(before[at], symbols[before[at]], symbols[at]));
            }
        }
        let mut index = 0;
        symbols.retain(|_| {
            index += 1;
            !is_gone[index - 1]
        });
    }
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// The tokens of words that were merged before. Of bounded size; each thread at work has its own.
pub(super) struct WordCache {
    seed: u64,
    /// One more than the index of an entry; 0 for none.
    slots: Vec<u32>,
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    tokens: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Entry {
    hash: u64,
    bytes: (u32, u32),
    tokens: (u32, u32),
}

impl WordCache {
    /// Without words; `seed` makes it hard to write a text whose words all meet in one slot.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            slots: vec![0; SLOTS],
            entries: Vec::new(),
            bytes: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// Adds the tokens of `word` to `tokens`, from here or from `make`, which adds them.
    pub(super) fn add(
        &mut self,
        word: &[u8],
        tokens: &mut Vec<u32>,
        make: impl FnOnce(&mut Vec<u32>),
    ) {
        if word.len() > WORD_BYTES_MAX {
            return make(tokens);
        }
        let hash = self.hash(word);
        let mut slot = hash as usize % SLOTS;
        while let Some(index) = self.slots[slot].checked_sub(1) {
            let entry = &self.entries[index as usize];
            if entry.hash == hash && self.bytes[range(entry.bytes)] == *word {
                return tokens.extend_from_slice(&self.tokens[range(entry.tokens)]);
            }
            slot = (slot + 1) % SLOTS;
        }
        let start = tokens.len();
        make(tokens);
        self.remember(slot, hash, word, &tokens[start..]);
    }

    fn remember(&mut self, mut slot: usize, hash: u64, word: &[u8], tokens: &[u32]) {
        if self.entries.len() == WORDS_MAX {
            self.slots.fill(0);
            self.entries.clear();
            self.bytes.clear();
            self.tokens.clear();
            slot = hash as usize % SLOTS;
        }
        // At most WORDS_MAX · WORD_BYTES_MAX bytes and as many tokens: both fit 32 bits.
        let bytes = (self.bytes.len() as u32, word.len() as u32);
        let places = (self.tokens.len() as u32, tokens.len() as u32);
        self.bytes.extend_from_slice(word);
        self.tokens.extend_from_slice(tokens);
        self.entries.push(Entry { hash, bytes, tokens: places });
        self.slots[slot] = self.entries.len() as u32;
    }

    fn hash(&self, word: &[u8]) -> u64 {
        let mut hash = self.seed ^ word.len() as u64;
        let (chunks, rest) = word.as_chunks::<8>();
        for chunk in chunks {
            hash = mix(hash ^ u64::from_le_bytes(*chunk), 0x9e37_79b9_7f4a_7c15);
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        mix(hash ^ u64::from_le_bytes(last), 0xd6e8_feb8_6659_fd93)
    }
}

fn range((start, len): (u32, u32)) -> std::ops::Range<usize> {
    start as usize..(start + len) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Merges that exist for about half of all pairs of a few tokens.
    fn merges() -> Merges {
        let mut state = 1u64;
        let mut random = move |below: u64| {
            state = mix(state ^ 0x5bd1_e995, 0x9e37_79b9_7f4a_7c15).wrapping_add(1);
            (state >> 40) % below
        };
        let merges: Vec<_> = (8..200u32)
            .map(|merged| {
                let below = u64::from(merged.min(40));
                (random(below) as u32, random(below) as u32, merged)
            })
            .collect();
        Merges::new(merges.into_iter())
    }

    #[test]
    fn long_words_are_merged_as_short_ones() {
        let merges = merges();
        let mut state = 7u64;
        let mut merged = 0;
        for len in 2..=SCAN_MAX {
            for _ in 0..50 {
                let word: Vec<u32> = (0..len)
                    .map(|_| {
                        state = mix(state ^ 3, 0x9e37_79b9_7f4a_7c15).wrapping_add(1);
                        (state >> 50) as u32 % 8
                    })
                    .collect();
                let (mut scanned, mut queued) = (word.clone(), word);
                merges.scan(&mut scanned);
                merges.queue(&mut queued);
                assert_eq!(scanned, queued);
                merged += len - scanned.len();
            }
        }
        assert!(merged > 1_000);
    }

    #[test]
    fn a_word_is_made_once_until_all_are_forgotten() {
        let mut cache = WordCache::new(5);
        let mut made = 0;
        let mut add = |word: u32| {
            let mut tokens = vec![9];
            cache.add(&word.to_le_bytes(), &mut tokens, |tokens| {
                made += 1;
                tokens.extend([word, word + 1]);
            });
            assert_eq!(tokens, [9, word, word + 1]);
            made
        };
        for word in 0..WORDS_MAX as u32 {
            assert_eq!(add(word), word + 1);
        }
        let all = WORDS_MAX as u32;
        assert_eq!(add(77), all);
        assert_eq!(add(all), all + 1);
        assert_eq!(add(77), all + 2);
    }
}
