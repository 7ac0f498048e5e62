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
        accepted_set, attestation_worth, bitmap_contains, decided, expected_set, final_root,
        on_probation, proven_unavailable, stake_that, AttestationInput, Candidate,
    },
    assignment::Draw,
    consensus::{
        Evaluation, Fault, MinerInput, SettlementInput, Standing, ValidatorInput, ValidatorOutcome,
    },
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

/// A validator's part in a window: its slot, and its stake in the window's first block, see [`stakes_u64`].
pub type Permit = (ValidatorIndex, u64);

/// A validator's rows in the first block of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Staked {
    /// The validator's slot.
    pub index: ValidatorIndex,
    /// Its stake in planck.
    pub stake: Planck,
    /// The first window in which it takes part.
    pub registered_window: Window,
}

/// Draws up the permits of `window`, sorted by index: of the validators that take part with a stake, the `permits_max` of
/// highest stake, ties to the lower index.
pub fn permits(window: Window, validators: &[Staked], permits_max: u16) -> Vec<Permit> {
    let mut ranked: Vec<(core::cmp::Reverse<Planck>, ValidatorIndex)> = validators
        .iter()
        .filter(|row| takes_part(row.registered_window, window) && row.stake > 0)
        .map(|row| (core::cmp::Reverse(row.stake), row.index))
        .collect();
    ranked.sort_unstable();
    ranked.truncate(usize::from(permits_max));
    let stakes: Vec<Planck> = ranked.iter().map(|(stake, _)| stake.0).collect();
    let indices = ranked.into_iter().map(|(_, index)| index);
    let mut permits: Vec<Permit> = indices.zip(stakes_u64(&stakes)).collect();
    permits.sort_unstable();
    permits
}

/// The stake of a validator's permit, if it has one. `permits` are sorted by index.
pub fn permit_of(permits: &[Permit], index: ValidatorIndex) -> Option<u64> {
    let place = permits.binary_search_by_key(&index, |(index, _)| *index).ok()?;
    permits.get(place).map(|(_, stake)| *stake)
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

/// A validator's permit and what it said of the window, if it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voter<'a> {
    /// The validator's slot.
    pub index: ValidatorIndex,
    /// The stake of its permit in planck.
    pub stake: u64,
    /// Its attestation in the window, if it revealed one.
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
    /// Whether any settlement scored it.
    pub is_scored: bool,
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
    /// There were voters, and those that attested have less than half of the stake: to its validators the window might as well
    /// not have been, as when blocks were made that did not become final. Who missed something in it is not to blame. Without
    /// a voter there is nobody whose silence says so.
    pub is_silent: bool,
}

/// The attestations of the voters that revealed one, and the stake of all of them.
fn attestations_of<'a>(voters: &[Voter<'a>]) -> (Vec<AttestationInput<'a>>, u128) {
    let total = voters.iter().fold(0u128, |sum, row| sum.saturating_add(u128::from(row.stake)));
    let attestations = voters.iter().filter_map(|voter| {
        let Attested { state_root, bitmap } = voter.attestation?;
        Some(AttestationInput { stake: voter.stake, state_root, bitmap })
    });
    (attestations.collect(), total)
}

/// Fixes the state root and the accepted set of a window from its permits, one voter each, and its miners' rows.
///
/// The shares are of all permitted stake, whoever is silent. The first state is known before anybody trains: in window 0
/// no other root than `genesis_state_root` is final.
pub fn accept(
    window: Window,
    voters: &[Voter<'_>],
    revealed: &[Revealed],
    incentive: &Incentive,
    genesis_state_root: &Hash,
) -> Acceptance {
    let (attestations, total) = attestations_of(voters);
    let state_root =
        final_root(&attestations, total).filter(|root| window > 0 || root == genesis_state_root);
    let candidates = candidates_of(window, revealed, incentive);
    let accepted = accepted_set(window, &candidates, &attestations, total, state_root, incentive);
    let unavailable = proven_unavailable(&attestations, total, revealed.iter().map(|row| row.uid));
    let is_silent = stake_that(&attestations, |_| true).saturating_mul(2) < total;
    Acceptance { state_root, accepted, unavailable, is_silent }
}

fn candidates_of(window: Window, revealed: &[Revealed], incentive: &Incentive) -> Vec<Candidate> {
    let candidate = |row: &Revealed| Candidate {
        uid: row.uid,
        base_state_root: row.base_state_root,
        value: row.value,
        on_probation: on_probation(row.registered_window, window, incentive),
        is_scored: row.is_scored,
        registered_window: row.registered_window,
    };
    revealed.iter().map(candidate).collect()
}

/// The order in which to fetch what was revealed in a window.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FetchOrder {
    /// Whom [`accept`] accepts if everybody attests everything on the same state, as they rank.
    pub expected: Vec<Uid>,
    /// The others, by uid.
    pub others: Vec<Uid>,
}

/// In which order to fetch what was `revealed`: those that would be accepted first, if `state_root` is final.
pub fn fetch_order(
    window: Window,
    revealed: &[Revealed],
    state_root: &Hash,
    incentive: &Incentive,
) -> FetchOrder {
    let candidates = candidates_of(window, revealed, incentive);
    let expected = expected_set(window, &candidates, *state_root, incentive);
    let mut others: Vec<Uid> = revealed.iter().map(|row| row.uid).collect();
    others.retain(|uid| !expected.contains(uid));
    others.sort_unstable();
    FetchOrder { expected, others }
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
    /// The evaluations that it revealed of the window, if it did.
    pub evaluations: Option<Vec<Evaluation>>,
    /// Its slot's bonds, if it has any.
    pub bonds: Option<Bonds>,
}

/// What the chain fixed of a window before its settlement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts<'a> {
    /// The final state root, if there is one.
    pub state_root: Option<Hash>,
    /// The window's permits and attestations.
    pub voters: &'a [Voter<'a>],
    /// The slots whose holders revealed in the window, also of those that have left since.
    pub revealed: &'a [Uid],
    /// A bitmap of the miners whose payloads are proven unavailable.
    pub unavailable: &'a [u8],
    /// A bitmap of the miners of which a fault of the window is proven by now, see [`crate::fault::ProvenFault`].
    pub convicted: &'a [u8],
    /// The chain itself stalled or was paused in the window, or most of the stake was silent: nobody is blamed for what is missing
    /// in it.
    pub excused: bool,
    /// Draws who evaluates whom, see [`scoring_seed`]; without it nobody evaluates anybody.
    pub scoring_seed: Option<Hash>,
}

/// The seed of a window's scoring: what was drawn in the first block of the window after it, in whose blocks it is
/// scored. After a run's last window there is none; then its own challenge's seed, which nobody knew either when it
/// could commit.
pub fn scoring_seed(next_drawn: Option<Hash>, challenge_seed: Option<Hash>) -> Option<Hash> {
    next_drawn.or(challenge_seed)
}

/// Who evaluates whom, of the miners `uids` that revealed in a window.
pub fn draw(scored_seed: &Hash, permits: &[Permit], uids: &[Uid], incentive: &Incentive) -> Draw {
    let (evaluators, evaluations_max) =
        (incentive.evaluators_per_miner, incentive.evaluations_per_validator);
    Draw::new(scored_seed, permits, uids, evaluators, evaluations_max)
}

/// Prepares the input of [`crate::consensus::settle`] for a window: its participants, miners by uid and validators with a
/// permit by index.
pub fn settlement_input(
    window: Window,
    miners: Vec<MinerRow>,
    validators: Vec<ValidatorRow>,
    facts: Facts<'_>,
    incentive: &Incentive,
) -> SettlementInput {
    let mut arrivals: Vec<(Uid, Window)> =
        miners.iter().map(|row| (row.uid, row.registered_window)).collect();
    arrivals.sort_unstable();
    let permits: Vec<Permit> = facts.voters.iter().map(|row| (row.index, row.stake)).collect();
    let draw = facts.scoring_seed.map(|seed| draw(&seed, &permits, facts.revealed, incentive));
    let (attestations, permitted_stake) = attestations_of(facts.voters);
    let decided = decided(&attestations, permitted_stake, facts.revealed.iter().copied());
    let worth = |voter: &Voter<'_>| {
        let Some(Attested { state_root, bitmap }) = voter.attestation else {
            return Q32::ZERO;
        };
        attestation_worth(&state_root, bitmap, facts.state_root, &decided)
    };
    let mut validators: Vec<ValidatorInput> = validators
        .into_iter()
        .filter(|row| takes_part(row.registered_window, window))
        .filter_map(|row| {
            let voter = facts.voters.iter().find(|voter| voter.index == row.index)?;
            Some(ValidatorInput {
                index: row.index,
                stake: voter.stake,
                present: row.evaluations.is_some(),
                attested: worth(voter),
                drawn: draw.as_ref().map(|draw| draw.of(row.index)).unwrap_or_default(),
                evaluations: row.evaluations.unwrap_or_default(),
                bonds: bonds_in_force(row.registered_window, row.bonds, &arrivals),
            })
        })
        .collect();
    validators.sort_by_key(|validator| validator.index);
    let mut miners: Vec<MinerInput> = miners
        .into_iter()
        .filter(|row| takes_part(row.registered_window, window))
        .map(|row| miner_input(window, row, &facts, incentive))
        .collect();
    miners.sort_by_key(|miner| miner.uid);
    let is_final = facts.state_root.is_some();
    SettlementInput { miners, validators, permitted_stake, is_final }
}

fn miner_input(
    window: Window,
    row: MinerRow,
    facts: &Facts<'_>,
    incentive: &Incentive,
) -> MinerInput {
    let is_unavailable = bitmap_contains(facts.unavailable, row.uid);
    let missing = Fault::of(row.committed, row.revealed, is_unavailable);
    // What evidence shows the chain did not do, however it stood.
    let proven = bitmap_contains(facts.convicted, row.uid).then_some(Fault::Proven);
    MinerInput {
        uid: row.uid,
        standing: row.standing,
        on_probation: on_probation(row.registered_window, window, incentive),
        revealed: row.revealed,
        fault: proven.or(missing.filter(|_| !facts.excused)),
    }
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
