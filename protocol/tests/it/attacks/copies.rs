//! A1: who commits to another's update, or to one that is nearly it, against the rule that eight drawn chunks decide.

use std::collections::BTreeSet;

use protocol::{
    fault::{copy_places, judge_copy, Committed, NoFault, Shown},
    layout::Layout,
    merkle,
    settings::PPM,
    update::{encode_chunk, Chunk},
    Hash, Uid,
};

use super::{
    below,
    tally::{tell, Rate},
};
use crate::incentive::Random;

const LEN: usize = 4_096;
const KEEP: u16 = 64;

/// The least that a run may ask a copy's chunk to have in common.
const OVERLAP_LEAST: u32 = 900_000;

const ORIGINAL: Uid = 1;
const COPIER: Uid = 2;

/// As many tensors as a model of one layer and a half has, of two chunks each.
fn layout() -> Layout {
    Layout(vec![2 * LEN as u64; 12])
}

/// A committed payload, chunk by chunk.
#[derive(Clone)]
struct Sent {
    chunks: Vec<Chunk>,
    bytes: Vec<Vec<u8>>,
    leaves: Vec<Hash>,
}

impl Sent {
    fn new(chunks: Vec<Chunk>) -> Self {
        let encoded = chunks.iter().map(|chunk| encode_chunk(chunk, LEN as u32, KEEP).unwrap());
        let bytes: Vec<Vec<u8>> = encoded.collect();
        let leaves = (0..).zip(&bytes).map(|(at, bytes)| merkle::leaf_hash(at, bytes)).collect();
        Self { chunks, bytes, leaves }
    }

    /// What nobody else made.
    fn drawn(random: &mut Random) -> Self {
        let count = layout().chunk_count().unwrap();
        Self::new((0..count).map(|_| chunk(random, BTreeSet::new())).collect())
    }

    /// A copy of which a part of the chunks, rounded, keeps one other position.
    fn copied(&self, random: &mut Random, part: f64) -> Self {
        let mut chunks = self.chunks.clone();
        let mut order: Vec<usize> = (0..chunks.len()).collect();
        let changed = (part * chunks.len() as f64).round() as usize;
        for at in 0..changed {
            let other = at + below(random, order.len() - at);
            order.swap(at, other);
            let chunk = &mut chunks[order[at]];
            let mut kept: BTreeSet<u16> = chunk.indices.iter().copied().collect();
            kept.remove(&chunk.indices[below(random, usize::from(KEEP))]);
            let new =
                (0..).map(|_| below(random, LEN) as u16).find(|new| !chunk.indices.contains(new));
            kept.extend(new);
            chunk.indices = kept.into_iter().collect();
        }
        Self::new(chunks)
    }

    /// An update of somebody else's making that keeps so many of each chunk's positions too, and in the first `same`
    /// tensors all.
    fn akin(&self, random: &mut Random, common: usize, same: usize) -> Self {
        let chunks = self.chunks.iter().enumerate().map(|(at, chunk_of_other)| {
            let common = if at / 2 < same { usize::from(KEEP) } else { common };
            chunk(random, chunk_of_other.indices.iter().copied().take(common).collect())
        });
        Self::new(chunks.collect())
    }

    fn committed(&self, order: u32, uid: Uid) -> Committed {
        let payload_root = merkle::root_of_leaf_hashes(&self.leaves).unwrap();
        Committed { window: 3, order, uid, payload_root }
    }
}

/// A chunk that keeps these positions and others.
fn chunk(random: &mut Random, mut kept: BTreeSet<u16>) -> Chunk {
    while kept.len() < usize::from(KEEP) {
        kept.insert(below(random, LEN) as u16);
    }
    let codes = (0..KEEP).map(|_| below(random, 4) as u8).collect();
    Chunk { scale_bf16: 0x3c00, indices: kept.into_iter().collect(), codes }
}

/// Whom the chunks that `seed` draws convict.
fn judge(seed: &Hash, first: &Sent, second: &Sent, overlap_ppm: u32) -> Result<Uid, NoFault> {
    let places = copy_places(seed, &layout(), KEEP);
    assert_eq!(places.len(), 8);
    let proofs: Vec<_> = places
        .iter()
        .map(|place| [first, second].map(|sent| merkle::proof(&sent.leaves, place.index).unwrap()))
        .collect();
    let shown = places.iter().zip(&proofs).map(|(place, [one, other])| {
        let at = place.index as usize;
        let first = Shown { bytes: &first.bytes[at], proof: one };
        [first, Shown { bytes: &second.bytes[at], proof: other }]
    });
    let shown: Vec<_> = shown.collect();
    let pair = (&first.committed(0, ORIGINAL), &second.committed(1, COPIER));
    judge_copy(pair, &shown, &places, overlap_ppm)
}

fn seed(trial: u64) -> Hash {
    merkle::blake2_256(&[b"attacks", &trial.to_le_bytes()])
}

/// What docs/decisions/0018 computes, measured: the part of its chunks that a copier changes is what it escapes by.
#[test]
fn a1_a_copier_has_to_change_half_of_its_chunks() {
    let least_and_most = [
        (0.0, 500..=500),
        (0.05, 500..=500),
        (0.1, 500..=500),
        (0.25, 440..=490),
        (0.5, 125..=225),
        (1.0, 0..=0),
    ];
    let mut random = Random(1);
    for (part, expected) in least_and_most {
        let (mut noticed, mut blamed) = (Rate::default(), Rate::default());
        for trial in 0..500 {
            let original = Sent::drawn(&mut random);
            let copy = original.copied(&mut random, part);
            let verdict = judge(&seed(trial), &original, &copy, PPM);
            noticed.note(verdict == Ok(COPIER));
            blamed.note(verdict == Ok(ORIGINAL));
        }
        tell(&format!("A1 copy, {part} of the chunks changed"), noticed, blamed);
        assert!(expected.contains(&noticed.found) && blamed.none(), "{part}: {noticed}, {blamed}");
    }
}

/// The most that two honest miners' trained chunks had in common was 0.72 (docs/study/overlap.md), here in every chunk;
/// and two tensors that nobody trains and everything moves alike are no copy either.
#[test]
fn a1_honest_pairs_are_no_copies() {
    let mut random = Random(2);
    let mut blamed = Rate::default();
    for (common, same) in [(0, 0), (16, 0), (46, 0), (46, 2)] {
        for trial in 0..500 {
            let one = Sent::drawn(&mut random);
            let other = one.akin(&mut random, common, same);
            let verdict = judge(&seed(trial), &one, &other, OVERLAP_LEAST);
            blamed.note(verdict.is_ok());
            assert!(verdict.is_ok() || verdict == Err(NoFault::Different), "{verdict:?}");
        }
    }
    tell("A1 honest pairs", Rate::default(), blamed);
    assert!(blamed.none(), "{blamed}");
}
