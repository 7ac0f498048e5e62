//! Judges what participants accuse one another of: only what the evidence itself shows is a fault.
//!
//! Every function takes the evidence and what the chain keeps, and answers with the fault or with what the evidence does not
//! show. Costs are bounded: a chunk, or [`COPY_CHUNKS`] of two payloads, with a Merkle proof each; a bench of validators.
//!
//! What is no fault: a payload that resembles another one by less than a run's `copy_overlap_ppm` of the positions (honest
//! miners start from one state and agree on many), a state root that the majority does not share, a missing evaluation. There
//! is no equivocation to prove either: the commitments on chain are immutable and bind one opening each, whose root binds
//! one payload, and participants sign nothing else.

use alloc::vec::Vec;

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{
    assignment::Permutation,
    consensus::Evaluation,
    layout::{kept, Layout, CHUNK_LEN},
    merkle::{blake2_256, verify},
    pool::mul_div,
    settings::{Disputes, PPM},
    update::{decode_chunk, Chunk},
    AccountBytes, Hash, Planck, RunId, Uid, ValidatorIndex, Window,
};

const VERDICT_DOMAIN: &[u8] = b"gauntlet/verdict-commitment/1";
const COPY_DOMAIN: &[u8] = b"gauntlet/copy-chunks/1";

/// A chunk that keeps fewer values says too little about who made it.
const TELLING_KEPT_MIN: u32 = 16;

/// Chunks of each payload that a proof of a copy shows, if there are so many that can tell anything; more than half of them
/// must be alike. Why so many: docs/decisions/0018-stake-and-proofs.md.
pub const COPY_CHUNKS: usize = 8;

/// A fault of a miner that a proof shows.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug
)]
pub enum ProvenFault {
    /// It committed to what an earlier commitment has.
    Copy,
    /// It committed to a chunk that does not decode.
    Malformed,
    /// It did not show a chunk of its payload when it was asked to.
    Withheld,
}

/// What evidence does not show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoFault {
    /// A chunk with its proof does not lead to the payload root.
    #[error("the proof does not lead to the payload root")]
    Proof,
    /// The chunk decodes.
    #[error("the chunk is well formed")]
    WellFormed,
    /// The chunk does not decode, so that it cannot be compared; that is a fault by itself.
    #[error("the chunk does not decode")]
    Malformed,
    /// Half of the chunks or more keep too few values, or only zeros, which are equal by chance.
    #[error("the chunks say too little")]
    TooCommon,
    /// Half of the chunks or more differ in more positions than a copy's.
    #[error("the chunks differ")]
    Different,
    /// Both are one commitment.
    #[error("a commitment is no copy of itself")]
    Same,
}

/// A payload that was committed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The window of the commitment.
    pub window: Window,
    /// The commitments of the window before it.
    pub order: u32,
    /// Its miner's slot.
    pub uid: Uid,
    /// Root over the payload's chunks.
    pub payload_root: Hash,
}

/// A chunk that is shown with the proof that it belongs to a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown<'a> {
    /// The chunk's bytes.
    pub bytes: &'a [u8],
    /// Its neighbours in the Merkle tree, from the bottom up.
    pub proof: &'a [Hash],
}

/// Where in a run's payloads a chunk lies, and its shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its number.
    pub index: u32,
    /// Chunks of a payload, as the chain keeps them.
    pub chunk_count: u32,
    /// Values of the chunk.
    pub len: u32,
    /// The run's `keep`.
    pub keep: u16,
}

impl Place {
    fn holds(&self, root: &Hash, shown: Shown<'_>) -> Result<(), NoFault> {
        let belongs = verify(root, self.chunk_count, self.index, shown.bytes, shown.proof);
        belongs.then_some(()).ok_or(NoFault::Proof)
    }

    fn decode(&self, shown: Shown<'_>) -> Result<Chunk, NoFault> {
        decode_chunk(shown.bytes, self.len, self.keep).map_err(|_| NoFault::Malformed)
    }
}

/// What a proven fault takes of a miner's `bond`, in planck.
pub fn miner_slash(disputes: &Disputes, bond: Planck) -> Planck {
    part_of(bond, disputes.miner_slash_ppm)
}

/// What a false evaluation takes of what is at stake for its validator, in planck.
pub fn validator_slash(disputes: &Disputes, at_stake: Planck) -> Planck {
    part_of(at_stake, disputes.validator_slash_ppm)
}

/// The reporter's part of what a slash took, in planck: half, rounded down. The rest is burned.
pub fn reporter_part(taken: Planck) -> Planck {
    taken / 2
}

/// A part of `amount`, which is never more than all of it.
fn part_of(amount: Planck, ppm: u32) -> Planck {
    mul_div(amount, u128::from(ppm), u128::from(PPM)).unwrap_or(amount)
}

/// The places of the chunks that a proof of a copy shows, in the order of the draw: of up to [`COPY_CHUNKS`] tensors one each,
/// and of those again, others, where a layout has fewer. Chunks that tell nothing ([`is_telling`]) are not drawn.
///
/// `challenge_seed` is that of the later commitment's window, which nobody knew when it was committed to; the pseudo-random
/// permutations of the tensors and of each one's chunks follow from it.
pub fn copy_places(challenge_seed: &Hash, layout: &Layout, keep: u16) -> Vec<Place> {
    let key = |of: &[u8]| blake2_256(&[COPY_DOMAIN, challenge_seed, of]);
    let tensors = telling_tensors(layout, keep);
    let Some(order) = Permutation::new(key(&[]), tensors.len() as u64) else {
        return Vec::new();
    };
    let drawn: Vec<(u32, Permutation)> = (0..COPY_CHUNKS as u64)
        .filter_map(|at| {
            let (first, chunks) = *tensors.get(usize::try_from(order.apply(at)?).ok()?)?;
            Some((first, Permutation::new(key(&first.to_le_bytes()), chunks.into())?))
        })
        .collect();
    let chunk_count = layout.chunk_count().unwrap_or(0);
    let place = |first: u32, at: u64| {
        let index = first.checked_add(u32::try_from(at).ok()?)?;
        Some(Place { index, chunk_count, len: layout.chunk_len(index)?, keep })
    };
    (0..COPY_CHUNKS as u64)
        .flat_map(|round| {
            let draw = move |(first, within): &(u32, Permutation)| (*first, within.apply(round));
            drawn.iter().map(draw)
        })
        .filter_map(|(first, at)| place(first, at?))
        .take(COPY_CHUNKS)
        .collect()
}

/// Whether the positions that a chunk of `len` values keeps tell who made it: sixteen at least, and no more than
/// half of all, as everybody keeps most of what nearly all is kept of. With a length all longer ones tell, too.
pub fn is_telling(len: u32, keep: u16) -> bool {
    let kept = u32::from(kept(len, keep));
    kept >= TELLING_KEPT_MIN && kept.saturating_mul(2) <= len
}

/// Of each tensor that has telling chunks, the first one's number and how many they are: all but a last one that is too short.
fn telling_tensors(layout: &Layout, keep: u16) -> Vec<(u32, u32)> {
    let mut next = 0u32;
    let mut found = Vec::new();
    for values in layout.0.iter().filter(|_| layout.is_valid()) {
        let full = values.checked_div(CHUNK_LEN.into()).unwrap_or(0);
        // Below `CHUNK_LEN`.
        let rest = values.checked_rem(CHUNK_LEN.into()).unwrap_or(0) as u32;
        // A valid layout's chunks are numbered by a u32.
        let (full, last) = (full as u32, u32::from(rest > 0));
        let telling = if is_telling(CHUNK_LEN, keep) { full } else { 0 };
        let telling = telling.saturating_add(u32::from(is_telling(rest, keep)));
        if telling > 0 {
            found.push((next, telling));
        }
        next = next.saturating_add(full).saturating_add(last);
    }
    found
}

/// Which of two commitments has the other's payload: the later one, by window and order, if more than half of the chunks that
/// both have at the drawn `places` ([`copy_places`]) are alike, keeping `overlap_ppm` of their positions in common. Equal chunks
/// are under any setting.
///
/// `chunks` are the first's and the second's at each place. A chunk whose values are all zero in one of the payloads is like
/// none: that two miners, or one in two windows, choose the same 16 or more of 4096 positions by themselves happens where
/// nothing but the rule of training moves them, and only in a tensor or two.
pub fn judge_copy(
    (first, second): (&Committed, &Committed),
    chunks: &[[Shown<'_>; 2]],
    places: &[Place],
    overlap_ppm: u32,
) -> Result<Uid, NoFault> {
    let by_time = |committed: &Committed| (committed.window, committed.order);
    if by_time(first) == by_time(second) {
        return Err(NoFault::Same);
    }
    if chunks.len() != places.len() {
        return Err(NoFault::Proof);
    }
    let (mut telling, mut alike) = (0usize, 0usize);
    for ([first_shown, second_shown], place) in chunks.iter().zip(places) {
        place.holds(&first.payload_root, *first_shown)?;
        place.holds(&second.payload_root, *second_shown)?;
        let (a, b) = (place.decode(*first_shown)?, place.decode(*second_shown)?);
        let tells = is_telling(place.len, place.keep) && a.scale_bf16 != 0 && b.scale_bf16 != 0;
        telling = telling.saturating_add(usize::from(tells));
        alike = alike.saturating_add(usize::from(tells && are_alike(&a, &b, overlap_ppm)));
    }
    let are_most = |count: usize| count.saturating_mul(2) > places.len();
    if !are_most(telling) {
        return Err(NoFault::TooCommon);
    }
    if !are_most(alike) {
        return Err(NoFault::Different);
    }
    Ok(if by_time(first) > by_time(second) { first.uid } else { second.uid })
}

/// Whether two chunks of one place keep `overlap_ppm` of their positions in common.
fn are_alike(first: &Chunk, second: &Chunk, overlap_ppm: u32) -> bool {
    // Both are ascending.
    let is_common = |index: &&u16| first.indices.binary_search(index).is_ok();
    let common = second.indices.iter().filter(is_common).count();
    // At most 4096 positions.
    let (common, kept) = (common as u64, second.indices.len() as u64);
    common.saturating_mul(u64::from(PPM)) >= kept.saturating_mul(u64::from(overlap_ppm))
}

/// Whether a committed chunk does not decode.
pub fn judge_malformed(root: &Hash, shown: Shown<'_>, place: &Place) -> Result<(), NoFault> {
    place.holds(root, shown)?;
    match decode_chunk(shown.bytes, place.len, place.keep) {
        Ok(_) => Err(NoFault::WellFormed),
        Err(_) => Ok(()),
    }
}

/// What an answer to a challenge for a chunk shows.
pub fn judge_answer(
    root: &Hash,
    shown: Shown<'_>,
    place: &Place,
) -> Result<Option<ProvenFault>, NoFault> {
    match judge_malformed(root, shown, place) {
        Ok(()) => Ok(Some(ProvenFault::Malformed)),
        Err(NoFault::WellFormed) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The hash that a juror commits to: domain ‖ genesis ‖ run ‖ window ‖ accused validator ‖ hot key ‖ SCALE of what it measured
/// ‖ salt.
pub fn verdict_commitment_hash(
    genesis: &Hash,
    run: RunId,
    window: Window,
    accused: ValidatorIndex,
    hot_key: &AccountBytes,
    measured: &Evaluation,
    salt: &Hash,
) -> Hash {
    blake2_256(&[
        VERDICT_DOMAIN,
        genesis,
        &run.to_le_bytes(),
        &window.to_le_bytes(),
        &accused.to_le_bytes(),
        hot_key,
        &measured.encode(),
        salt,
    ])
}

/// A validator that may judge the evaluations of a window, as it was in the window's first block. `A` is an account.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct Judge<A> {
    /// Its slot.
    pub index: ValidatorIndex,
    /// The number of its pool, which tells it from whoever has the slot later.
    pub pool: u32,
    /// Its cold key.
    pub cold: A,
    /// The stake of its permit.
    pub stake: u64,
}

/// The seat of a slot on a bench, which is sorted by index.
pub fn judge_of<A>(bench: &[Judge<A>], index: ValidatorIndex) -> Option<&Judge<A>> {
    let place = bench.binary_search_by_key(&index, |seat| seat.index).ok()?;
    bench.get(place)
}

/// Whether a seat judges an evaluation of validator `accused` that `challenger` disputes: no seat of either's cold key does.
/// Their stakes count in the whole all the same, so that neither side needs less because the other is rich.
pub fn may_judge<A: PartialEq>(
    bench: &[Judge<A>],
    seat: &Judge<A>,
    accused: ValidatorIndex,
    challenger: &A,
) -> bool {
    let is_own = judge_of(bench, accused).is_some_and(|accused| accused.cold == seat.cold);
    seat.index != accused && !is_own && seat.cold != *challenger
}

/// What a jury finds.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug
)]
pub enum Verdict {
    /// More than half of all stake measured something else: the evaluation is false.
    False,
    /// More than half of all stake measured the same: the accusation is false.
    True,
    /// Neither.
    Open,
}

/// Judges an evaluation by what jurors measured, each with its stake. `total` is the stake of the whole bench: that of who is
/// silent, or may not judge, speaks for nobody. So no minority decides anything, however it is drawn or whoever is away.
pub fn judge_evaluation(
    accused: &Evaluation,
    votes: &[(u64, &Evaluation)],
    total: u128,
    tolerance_ppm: u32,
) -> Verdict {
    let (mut confirmed, mut denied): (u128, u128) = (0, 0);
    for (stake, measured) in votes {
        let side = match is_confirmed(accused, measured, tolerance_ppm) {
            true => &mut confirmed,
            false => &mut denied,
        };
        // Sums of at most 2^16 u64.
        *side = side.saturating_add(u128::from(*stake));
    }
    let is_majority = |stake: u128| stake.saturating_mul(2) > total;
    if is_majority(denied) {
        Verdict::False
    } else if is_majority(confirmed) {
        Verdict::True
    } else {
        Verdict::Open
    }
}

/// What each of the jurors that measured has of a lost bond, in planck: half of it is theirs, in `jurors` parts at least, so
/// that few of them get no more each than many. The rest is burned.
pub fn juror_fee(bond: Planck, jurors: u8, measured: usize) -> Planck {
    // At most 2^16 jurors.
    let parts = (measured as Planck).max(jurors.into());
    (bond / 2).checked_div(parts).unwrap_or(0)
}

/// Whether a juror that measured `juror` confirms an evaluation: each of its four losses is within `tolerance_ppm` of the
/// juror's.
pub fn is_confirmed(accused: &Evaluation, juror: &Evaluation, tolerance_ppm: u32) -> bool {
    let is_near = |claimed: u32, measured: u32| {
        let difference = u64::from(claimed.abs_diff(measured));
        // Two u32 never overflow a u64.
        difference.saturating_mul(u64::from(PPM))
            <= u64::from(measured).saturating_mul(u64::from(tolerance_ppm))
    };
    accused.uid == juror.uid
        && is_near(accused.own_before, juror.own_before)
        && is_near(accused.own_after, juror.own_after)
        && is_near(accused.random_before, juror.random_before)
        && is_near(accused.random_after, juror.random_after)
}
