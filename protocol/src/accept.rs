//! Decides which updates of a window every replica applies, and on which state they agree.
//!
//! Properties: the state root is final, an update available, and an update proven unavailable, only if validators with two
//! thirds of all permitted stake say so, so that a minority neither accepts nor convicts, however many are silent; a
//! newcomer without standing cannot displace anybody; who is known to do harm is not accepted; all orders of the inputs
//! give one answer.

use alloc::{collections::BTreeMap, vec, vec::Vec};

use crate::{fixed::Q32, settings::Incentive, Hash, Uid, Window};

/// One validator's attestation of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttestationInput<'a> {
    /// The stake of the validator's permit, in planck.
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
    /// Whether it was scored in any window.
    pub is_scored: bool,
    /// When it registered; of two with equal standing the earlier one ranks first.
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

/// Whether `stake` is two thirds of `total` at least: 3 · stake ≥ 2 · total. Nothing is no majority of nothing.
fn is_majority(stake: u128, total: u128) -> bool {
    // Stakes are sums of less than 2^40 u64: no product reaches 2^128.
    total > 0 && stake.saturating_mul(3) >= total.saturating_mul(2)
}

/// The state root that validators with two thirds of `total_stake` attested, if any; two cannot both be that.
pub fn final_root(attestations: &[AttestationInput<'_>], total_stake: u128) -> Option<Hash> {
    let mut stakes: BTreeMap<Hash, u128> = BTreeMap::new();
    for attestation in attestations {
        let stake = stakes.entry(attestation.state_root).or_default();
        *stake = stake.saturating_add(u128::from(attestation.stake));
    }
    stakes.into_iter().find(|(_, stake)| is_majority(*stake, total_stake)).map(|(root, _)| root)
}

/// The stake of the attestations that `says`.
pub(crate) fn stake_that(
    attestations: &[AttestationInput<'_>],
    says: impl Fn(&AttestationInput<'_>) -> bool,
) -> u128 {
    attestations
        .iter()
        .filter(|attestation| says(attestation))
        .fold(0, |sum, attestation| sum.saturating_add(u128::from(attestation.stake)))
}

/// Whether validators with two thirds of `total_stake` could fetch `uid`'s payload and found it valid.
pub fn is_available(attestations: &[AttestationInput<'_>], total_stake: u128, uid: Uid) -> bool {
    let stake = stake_that(attestations, |row| bitmap_contains(row.bitmap, uid));
    is_majority(stake, total_stake)
}

/// Whether validators with two thirds of `total_stake` attested and left `uid` out: who is absent speaks against nobody,
/// and a minority convicts nobody. Nor does an attestation that names no payload at all: its validator could fetch nothing, more
/// likely for its own line's sake than for everybody's, and speaks of the state alone.
pub fn is_proven_unavailable(
    attestations: &[AttestationInput<'_>],
    total_stake: u128,
    uid: Uid,
) -> bool {
    is_left_out(&speaking(attestations), total_stake, uid)
}

/// Those of `uids` that are proven unavailable, see [`is_proven_unavailable`].
pub fn proven_unavailable(
    attestations: &[AttestationInput<'_>],
    total_stake: u128,
    uids: impl Iterator<Item = Uid>,
) -> Vec<Uid> {
    let speaking = speaking(attestations);
    uids.filter(|uid| is_left_out(&speaking, total_stake, *uid)).collect()
}

/// The attestations that name a payload.
fn speaking<'a>(attestations: &[AttestationInput<'a>]) -> Vec<AttestationInput<'a>> {
    let names_any = |row: &&AttestationInput<'_>| row.bitmap.iter().any(|byte| *byte != 0);
    attestations.iter().filter(names_any).copied().collect()
}

/// [`is_proven_unavailable`] by those that are [`speaking`], who are looked for once and not for every miner.
fn is_left_out(speaking: &[AttestationInput<'_>], total_stake: u128, uid: Uid) -> bool {
    let stake = stake_that(speaking, |row| !bitmap_contains(row.bitmap, uid));
    is_majority(stake, total_stake)
}

/// What the attestations decide of `uids`: those that are available, and those that are proven not to be.
pub fn decided(
    attestations: &[AttestationInput<'_>],
    total_stake: u128,
    uids: impl Iterator<Item = Uid>,
) -> Vec<(Uid, bool)> {
    let speaking = speaking(attestations);
    uids.filter_map(|uid| {
        if is_available(attestations, total_stake, uid) {
            return Some((uid, true));
        }
        is_left_out(&speaking, total_stake, uid).then_some((uid, false))
    })
    .collect()
}

/// How far an attestation was right: nothing if it names another root than the final one, else the share of the `decided`
/// payloads of which it says what was decided (1 if none was), rounded down.
pub fn attestation_worth(
    state_root: &Hash,
    bitmap: &[u8],
    final_root: Option<Hash>,
    decided: &[(Uid, bool)],
) -> Q32 {
    if final_root.as_ref() != Some(state_root) {
        return Q32::ZERO;
    }
    let right =
        decided.iter().filter(|(uid, is_there)| bitmap_contains(bitmap, *uid) == *is_there).count();
    // At most 2^16 of each.
    let ratio = i128::try_from(right).ok().zip(i128::try_from(decided.len()).ok());
    ratio.and_then(|(right, of)| Q32::from_ratio(right, of)).unwrap_or(Q32::ONE)
}

/// The accepted set of a window, sorted by uid: of the candidates that are available, based on the
/// final root and not on probation, the `accepted_max` that rank first.
///
/// A higher standing ranks first, then the miner that registered earlier, then the lower uid. Once the first
/// `bootstrap_windows` are over, a standing of zero is not enough: of those that were never scored the first
/// `unscored_max` may come after the others, and who was scored and has none left is out. Empty without a final root.
/// O(candidates · attestations).
pub fn accepted_set(
    window: Window,
    candidates: &[Candidate],
    attestations: &[AttestationInput<'_>],
    total_stake: u128,
    final_root: Option<Hash>,
    incentive: &Incentive,
) -> Vec<Uid> {
    let is_there = |uid| is_available(attestations, total_stake, uid);
    let mut accepted = ranked(window, candidates, final_root, incentive, is_there);
    accepted.sort_unstable();
    accepted.dedup();
    accepted
}

/// Whom [`accepted_set`] accepts if every candidate is available and `final_root` is final, as they rank: what it is worth to
/// fetch first, before anything is decided.
pub fn expected_set(
    window: Window,
    candidates: &[Candidate],
    final_root: Hash,
    incentive: &Incentive,
) -> Vec<Uid> {
    ranked(window, candidates, Some(final_root), incentive, |_| true)
}

/// The candidates that are accepted, as they rank, if `is_there` says which are available.
fn ranked(
    window: Window,
    candidates: &[Candidate],
    final_root: Option<Hash>,
    incentive: &Incentive,
    is_there: impl Fn(Uid) -> bool,
) -> Vec<Uid> {
    let is_bootstrap = window < u64::from(incentive.bootstrap_windows);
    let mut eligible: Vec<(core::cmp::Reverse<Q32>, Window, Uid)> = candidates
        .iter()
        .filter(|candidate| final_root == Some(candidate.base_state_root))
        .filter(|candidate| !candidate.on_probation)
        .filter(|candidate| is_bootstrap || candidate.value > Q32::ZERO || !candidate.is_scored)
        .filter(|candidate| is_there(candidate.uid))
        .map(|candidate| {
            let value = core::cmp::Reverse(candidate.value.max(Q32::ZERO));
            (value, candidate.registered_window, candidate.uid)
        })
        .collect();
    eligible.sort_unstable();
    let proven = eligible.partition_point(|(value, ..)| value.0 > Q32::ZERO);
    let unproven_max = if is_bootstrap { u16::MAX } else { incentive.unscored_max };
    eligible.truncate(proven.saturating_add(usize::from(unproven_max)));
    let ranked = eligible.into_iter().map(|(_, _, uid)| uid);
    ranked.take(usize::from(incentive.accepted_max)).collect()
}
