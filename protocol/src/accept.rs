//! Decides which updates of a window every replica applies, and on which state they agree.
//!
//! Properties: the state root is final, and an update available, only if validators with two
//! thirds of the active stake say so, so that a minority can neither accept nor refuse anything; a
//! newcomer without standing cannot displace anybody; all orders of the inputs give one answer.

use alloc::{collections::BTreeMap, vec, vec::Vec};

use crate::{
    fixed::Q32,
    settings::{Incentive, PPM},
    Hash, Uid, Window,
};

/// One validator's attestation of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttestationInput<'a> {
    /// The validator's stake.
    pub stake: u64,
    /// Root of the parameters it holds at the start of the window.
    pub state_root: Hash,
    /// The uids whose payloads it fetched and found valid, see [`bitmap_contains`].
    pub bitmap: &'a [u8],
}

/// A miner that revealed an update in the window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The miner's slot.
    pub uid: Uid,
    /// Root of the parameters from which it trained.
    pub base_state_root: Hash,
    /// Its standing F, see [`crate::consensus::MinerOutcome::value`].
    pub value: Q32,
    /// Whether it is on probation in the window, see [`on_probation`].
    pub on_probation: bool,
    /// When it registered; a tie in standing does not look at it.
    pub registered_window: Window,
}

/// Whether a bitmap names a uid: bit `uid % 8` (least significant first) of byte `uid / 8`. A uid
/// beyond the end is not named.
pub fn bitmap_contains(bitmap: &[u8], uid: Uid) -> bool {
    let byte = bitmap.get(usize::from(uid >> 3)).copied().unwrap_or(0);
    byte & (1 << (uid & 7)) != 0
}

/// The shortest bitmap that names exactly `uids`.
pub fn bitmap_of(uids: &[Uid]) -> Vec<u8> {
    let len = uids.iter().max().map_or(0, |&uid| usize::from(uid >> 3).saturating_add(1));
    let mut bitmap = vec![0u8; len];
    for &uid in uids {
        if let Some(byte) = bitmap.get_mut(usize::from(uid >> 3)) {
            *byte |= 1 << (uid & 7);
        }
    }
    bitmap
}

/// Whether a miner that registered in `registered_window` is still on probation in `window`: for
/// `probation_windows` from its registration on, unless it registered in the run's first
/// `waiver_windows`.
pub fn on_probation(registered_window: Window, window: Window, incentive: &Incentive) -> bool {
    let end = registered_window.saturating_add(u64::from(incentive.probation_windows));
    registered_window >= u64::from(incentive.waiver_windows) && window < end
}

/// Whether `stake` is at least `share_ppm` of `total`; of nothing, no share is enough.
fn is_enough(stake: u128, total: u128, share_ppm: u32) -> bool {
    // Stakes are sums of less than 2^40 u64: no product reaches 2^128.
    total > 0
        && stake.saturating_mul(u128::from(PPM)) >= total.saturating_mul(u128::from(share_ppm))
}

/// The state root that validators with at least `finality_ppm` of `total_stake` attested, if any.
///
/// With `finality_ppm` above one half ([`crate::settings::Settings::validate`]) there is at most
/// one; otherwise the one with more stake, then the smaller hash.
pub fn final_root(
    attestations: &[AttestationInput<'_>],
    total_stake: u128,
    finality_ppm: u32,
) -> Option<Hash> {
    let mut stakes: BTreeMap<Hash, u128> = BTreeMap::new();
    for attestation in attestations {
        let stake = stakes.entry(attestation.state_root).or_default();
        *stake = stake.saturating_add(u128::from(attestation.stake));
    }
    let mut best: Option<(Hash, u128)> = None;
    for (root, stake) in stakes {
        if best.is_none_or(|(_, most)| stake > most) {
            best = Some((root, stake));
        }
    }
    best.filter(|(_, stake)| is_enough(*stake, total_stake, finality_ppm)).map(|(root, _)| root)
}

/// The stake of the validators that could fetch the payload of `uid` and found it valid.
pub fn attested_stake(attestations: &[AttestationInput<'_>], uid: Uid) -> u128 {
    attestations
        .iter()
        .filter(|attestation| bitmap_contains(attestation.bitmap, uid))
        .fold(0, |sum, attestation| sum.saturating_add(u128::from(attestation.stake)))
}

/// Whether `uid`'s payload was attested by at least `finality_ppm` of `total_stake`.
pub fn is_available(
    attestations: &[AttestationInput<'_>],
    total_stake: u128,
    uid: Uid,
    finality_ppm: u32,
) -> bool {
    is_enough(attested_stake(attestations, uid), total_stake, finality_ppm)
}

/// Whether enough stake attested, and `uid`'s payload would not be available even if every absent
/// part of `total_stake` had attested it: an absent validator never costs a miner.
pub fn is_proven_unavailable(
    attestations: &[AttestationInput<'_>],
    total_stake: u128,
    uid: Uid,
    finality_ppm: u32,
) -> bool {
    let present = attestations
        .iter()
        .fold(0u128, |sum, attestation| sum.saturating_add(u128::from(attestation.stake)));
    let against = present.saturating_sub(attested_stake(attestations, uid));
    let at_most = total_stake.saturating_sub(against);
    is_enough(present, total_stake, finality_ppm) && !is_enough(at_most, total_stake, finality_ppm)
}

/// The accepted set of a window, sorted by uid: of the candidates that are available, based on the
/// final root and not on probation, the `accepted_max` of highest standing, ties to the lower uid.
///
/// Empty without a final root. A standing below zero counts as zero. O(candidates · attestations).
pub fn accepted_set(
    candidates: &[Candidate],
    attestations: &[AttestationInput<'_>],
    total_stake: u128,
    final_root: Option<Hash>,
    incentive: &Incentive,
) -> Vec<Uid> {
    let mut eligible: Vec<(core::cmp::Reverse<Q32>, Uid)> = candidates
        .iter()
        .filter(|candidate| final_root == Some(candidate.base_state_root))
        .filter(|candidate| !candidate.on_probation)
        .filter(|candidate| {
            is_available(attestations, total_stake, candidate.uid, incentive.finality_ppm)
        })
        .map(|candidate| (core::cmp::Reverse(candidate.value.max(Q32::ZERO)), candidate.uid))
        .collect();
    eligible.sort_unstable();
    eligible.dedup_by_key(|(_, uid)| *uid);
    let mut accepted: Vec<Uid> = eligible
        .into_iter()
        .map(|(_, uid)| uid)
        .take(usize::from(incentive.accepted_max))
        .collect();
    accepted.sort_unstable();
    accepted.dedup();
    accepted
}
