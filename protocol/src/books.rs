//! Decides the outcome of a window from the rows of the books: rows in, decision out.
//!
//! The pallet, the fake chain of the tests and the auditor keep the same rows in different places. Each reads
//! them, calls one of these functions and writes, or compares, the decision (sections 5 and 8 of
//! docs/PROTOCOL.md). The order of the rows does not matter.

use alloc::vec::Vec;

use codec::{Decode, DecodeWithMemTracking, Encode};
use scale_info::TypeInfo;

use crate::{
    accept::{
        accepted_set, bitmap_contains, final_root, is_proven_unavailable, on_probation,
        AttestationInput, Candidate,
    },
    consensus::{Evaluation, Fault, MinerInput, Standing, ValidatorInput, ValidatorOutcome},
    fixed::Q32,
    settings::Incentive,
    window::{phase_at, Schedule, ScorePhase},
    Hash, Planck, Uid, ValidatorIndex, Window,
};

/// The stakes of a window's validators as the rules count them: in units of the least power of two planck in which the
/// largest of them is below 2^64. While no stake reaches 2^64 planck a unit is one planck; beyond, what is lost is below
/// 2^-63 of the largest stake.
pub fn stakes_u64(stakes: &[Planck]) -> Vec<u64> {
    let largest = stakes.iter().copied().max().unwrap_or_default();
    let bits = u128::BITS.saturating_sub(largest.leading_zeros());
    let shift = bits.saturating_sub(u64::BITS);
    // Below 2^64 by the choice of the unit.
    stakes.iter().map(|stake| (stake >> shift) as u64).collect()
}

/// Whether a slot that was registered in `registered_window` takes part in `window`.
pub fn takes_part(registered_window: Window, window: Window) -> bool {
    registered_window <= window
}

/// Whether a validator's stake is active in `window`: it attested in this window or the one before.
pub fn is_active(attested_window: Option<Window>, window: Window) -> bool {
    attested_window.is_some_and(|attested| attested.saturating_add(1) >= window)
}

/// The window to settle at block `now`: `next_settlement`, if its scores are closed.
///
/// The scores of window w close at block `schedule.score_phase_end_block(w, Reveal)`, in window w + 1.
pub fn due(schedule: &Schedule, now: u32, next_settlement: Window) -> Option<Window> {
    let moment = phase_at(schedule, now)?;
    let scored = moment.window.checked_sub(1)?;
    let closed = match moment.score_phase {
        ScorePhase::Settle => scored,
        ScorePhase::Commit | ScorePhase::Reveal => scored.checked_sub(1)?,
    };
    (next_settlement <= closed).then_some(next_settlement)
}

/// A validator's attestation in the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attested<'a> {
    /// Root of the parameters it holds at the start of the window.
    pub state_root: Hash,
    /// The uids whose payloads it fetched and found valid.
    pub bitmap: &'a [u8],
}

/// A validator's rows at the acceptance of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voter<'a> {
    /// Its stake in planck.
    pub stake: Planck,
    /// The first window in which it takes part.
    pub registered_window: Window,
    /// The last window in which it attested.
    pub attested_window: Option<Window>,
    /// Its attestation in the window, if there is one.
    pub attestation: Option<Attested<'a>>,
}

/// The rows of a miner that revealed in the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revealed {
    /// The miner's slot.
    pub uid: Uid,
    /// Root of the parameters from which it trained.
    pub base_state_root: Hash,
    /// Its standing F as the last settlement left it.
    pub value: Q32,
    /// The first window in which it takes part.
    pub registered_window: Window,
}

/// The decision that the attestations of a window lead to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acceptance {
    /// The final state root, if there is one.
    pub state_root: Option<Hash>,
    /// The miners whose updates every replica applies, by uid.
    pub accepted: Vec<Uid>,
    /// The miners whose payloads are proven unavailable, in the order of the rows.
    pub unavailable: Vec<Uid>,
}

/// The stake of the validators that are active in `window`, see [`is_active`]: the sum of their `stakes`, in the order of
/// `voters`.
fn active_stake(window: Window, voters: &[Voter<'_>], stakes: &[u64]) -> u128 {
    voters
        .iter()
        .zip(stakes)
        .filter(|(voter, _)| is_active(voter.attested_window, window))
        .fold(0, |sum, (_, stake)| sum.saturating_add(u128::from(*stake)))
}

/// Fixes the state root and the accepted set of a window from its validators' and miners' rows.
///
/// The shares are of the active stake, see [`is_active`]. The first state is known before anybody trains: in window 0
/// no other root than `genesis_state_root` is final.
pub fn accept(
    window: Window,
    voters: &[Voter<'_>],
    revealed: &[Revealed],
    incentive: &Incentive,
    genesis_state_root: &Hash,
) -> Acceptance {
    let stakes: Vec<Planck> = voters.iter().map(|voter| voter.stake).collect();
    let stakes = stakes_u64(&stakes);
    let total = active_stake(window, voters, &stakes);
    let attestations: Vec<AttestationInput<'_>> = voters
        .iter()
        .zip(stakes)
        .filter(|(voter, _)| takes_part(voter.registered_window, window))
        .filter_map(|(voter, stake)| {
            let Attested { state_root, bitmap } = voter.attestation?;
            Some(AttestationInput { stake, state_root, bitmap })
        })
        .collect();
    let state_root = final_root(&attestations, total, incentive.finality_ppm)
        .filter(|root| window > 0 || root == genesis_state_root);
    let candidates: Vec<Candidate> = revealed
        .iter()
        .map(|row| Candidate {
            uid: row.uid,
            base_state_root: row.base_state_root,
            value: row.value,
            on_probation: on_probation(row.registered_window, window, incentive),
            registered_window: row.registered_window,
        })
        .collect();
    let accepted = accepted_set(&candidates, &attestations, total, state_root, incentive);
    let unavailable = revealed
        .iter()
        .map(|row| row.uid)
        .filter(|uid| is_proven_unavailable(&attestations, total, *uid, incentive.finality_ppm))
        .collect();
    Acceptance { state_root, accepted, unavailable }
}

/// A miner's rows at the settlement of a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MinerRow {
    /// The miner's slot.
    pub uid: Uid,
    /// The first window in which it takes part.
    pub registered_window: Window,
    /// Its standing before the settlement.
    pub standing: Standing,
    /// It committed to an update in the window.
    pub committed: bool,
    /// Its reveal of the window is on chain.
    pub revealed: bool,
}

/// A validator's bonds as a settlement stored them.
#[derive(Encode, Decode, DecodeWithMemTracking, TypeInfo, Clone, PartialEq, Eq, Debug, Default)]
pub struct Bonds {
    /// The window whose settlement stored them: who came into a slot later has no part in them.
    pub window: Window,
    /// 65535 for a miner's largest bond, by uid.
    pub entries: Vec<(Uid, u16)>,
}

/// A validator's rows at the settlement of a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValidatorRow {
    /// The validator's slot.
    pub index: ValidatorIndex,
    /// The first window in which it takes part.
    pub registered_window: Window,
    /// Its stake in planck.
    pub stake: Planck,
    /// The evaluations that it revealed of the window, if it did.
    pub evaluations: Option<Vec<Evaluation>>,
    /// Its slot's bonds, if it has any.
    pub bonds: Option<Bonds>,
}

/// Prepares the inputs of [`crate::consensus::settle`] for a window: its participants, miners by uid and validators
/// by index.
///
/// `accepted` (sorted) and `unavailable` (a bitmap) are those that the window's acceptance stored.
pub fn settlement_inputs(
    window: Window,
    miners: Vec<MinerRow>,
    validators: Vec<ValidatorRow>,
    accepted: &[Uid],
    unavailable: &[u8],
) -> (Vec<MinerInput>, Vec<ValidatorInput>) {
    let mut arrivals: Vec<(Uid, Window)> =
        miners.iter().map(|row| (row.uid, row.registered_window)).collect();
    let mut miners: Vec<MinerInput> = miners
        .into_iter()
        .filter(|row| takes_part(row.registered_window, window))
        .map(|row| MinerInput {
            uid: row.uid,
            standing: row.standing,
            accepted: accepted.binary_search(&row.uid).is_ok(),
            revealed: row.revealed,
            fault: Fault::of(row.committed, row.revealed, bitmap_contains(unavailable, row.uid)),
        })
        .collect();
    miners.sort_by_key(|miner| miner.uid);
    arrivals.sort_unstable();
    let stakes: Vec<Planck> = validators.iter().map(|row| row.stake).collect();
    let mut validators: Vec<ValidatorInput> = validators
        .into_iter()
        .zip(stakes_u64(&stakes))
        .filter(|(row, _)| takes_part(row.registered_window, window))
        .map(|(row, stake)| ValidatorInput {
            index: row.index,
            stake,
            present: row.evaluations.is_some(),
            evaluations: row.evaluations.unwrap_or_default(),
            bonds: bonds_in_force(row.registered_window, row.bonds, &arrivals),
        })
        .collect();
    validators.sort_by_key(|validator| validator.index);
    (miners, validators)
}

/// A validator's bonds without those that its slot had before it came, and those in miners that came later than they.
/// `arrivals`: the miners' uids, sorted, and their first windows.
fn bonds_in_force(
    registered_window: Window,
    bonds: Option<Bonds>,
    arrivals: &[(Uid, Window)],
) -> Vec<(Uid, u16)> {
    let Some(bonds) = bonds.filter(|bonds| takes_part(registered_window, bonds.window)) else {
        return Vec::new();
    };
    let is_in_force = |uid: Uid| {
        let found = arrivals.binary_search_by_key(&uid, |(uid, _)| *uid).ok();
        let arrival = found.and_then(|at| arrivals.get(at));
        arrival.is_some_and(|(_, registered)| takes_part(*registered, bonds.window))
    };
    bonds.entries.iter().copied().filter(|(uid, _)| is_in_force(*uid)).collect()
}

/// The rows of bonds to be stored after the settlement of a window, of the validators that have any.
pub fn bonds_after(
    window: Window,
    outcomes: &[ValidatorOutcome],
) -> impl Iterator<Item = (ValidatorIndex, Bonds)> + '_ {
    outcomes
        .iter()
        .filter(|outcome| !outcome.bonds.is_empty())
        .map(move |outcome| (outcome.index, Bonds { window, entries: outcome.bonds.clone() }))
}
