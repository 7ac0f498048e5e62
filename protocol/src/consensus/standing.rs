//! Moves the miners' standings by a window's medians, and values a standing as one number.

use alloc::vec::Vec;

use super::{
    measure::{lower_median, weighted_median},
    records::{ConsensusError, MinerInput},
    Medians, Standing,
};
use crate::{
    fixed::Q32,
    rating::{average_rate, gain_sample, move_average, proof_sample, ranks, PlackettLuce, Rating},
    settings::{Incentive, StandingKind},
};

/// The loss of a penalty that a window without fault makes good: one quarter.
const PENALTY_RECOVERY_PARTS: i64 = 4;

/// Windows without gain that a newcomer's average begins with: its first samples do not count whole, so that it pays
/// nobody to leave and begin again.
const GAIN_PRIOR_WINDOWS: u32 = 2;

/// The standings after the window.
///
/// A scored miner's proof of computation moves toward sign(own − random). By
/// [`StandingKind`], its average gain or its rating moves; the other one stays.
pub(super) fn move_standings(
    miners: &[MinerInput],
    medians: &[Option<Medians>],
    incentive: &Incentive,
) -> Result<Vec<Standing>, ConsensusError> {
    let mut standings: Vec<Standing> = miners.iter().map(|miner| miner.standing.clone()).collect();
    for (standing, medians) in standings.iter_mut().zip(medians) {
        if let Some(medians) = medians {
            move_proof(standing, medians, incentive)
                .ok_or(ConsensusError::Overflow("proof of computation"))?;
            standing.medians = *medians;
        }
    }
    match incentive.standing {
        StandingKind::Gain => {
            let typical = typical_gain(miners, medians, incentive)
                .ok_or(ConsensusError::Overflow("standing"))?;
            move_gains(&mut standings, medians, typical, incentive)
                .ok_or(ConsensusError::Overflow("gain"))?;
        }
        StandingKind::PlackettLuce => move_ratings(&mut standings, medians)?,
    }
    for (standing, medians) in standings.iter_mut().zip(medians) {
        let scored = u32::from(medians.is_some());
        standing.scored_windows = standing.scored_windows.saturating_add(scored);
    }
    for (standing, miner) in standings.iter_mut().zip(miners) {
        standing.penalty = penalty_after(standing.penalty, miner, incentive)
            .ok_or(ConsensusError::Overflow("penalty"))?;
    }
    Ok(standings)
}

/// μ̄ ← μ̄ + a · (sign(g − r) − μ̄), rounded down, with a = max(`proof_rate`, 1/(n + prior + 1)) from μ̄ = the prior on.
fn move_proof(standing: &mut Standing, medians: &Medians, incentive: &Incentive) -> Option<()> {
    if standing.scored_windows == 0 {
        standing.proof = Q32::from_ppm(incentive.proof_prior_ppm);
    }
    let rate_min = Q32::from_ppm(incentive.proof_rate_ppm);
    let rate = average_rate(standing.scored_windows, incentive.proof_prior_windows, rate_min);
    let sample = proof_sample(medians.own, medians.random);
    standing.proof = move_average(standing.proof, sample, rate)?;
    Some(())
}

/// The typical gain of a window: over the scored miners with a positive gain, the lower median of it, weighted by their
/// standings before the window; by number while none of them has one. `Some(None)` if no gain is positive.
///
/// Who comes with many slots and no standing moves nothing, and who does harm takes its own standing away, whatever the
/// others measure. Those with most of all standing can lower it only by doing less themselves, and are overtaken.
fn typical_gain(
    miners: &[MinerInput],
    medians: &[Option<Medians>],
    incentive: &Incentive,
) -> Option<Option<Q32>> {
    let mut gains: Vec<(Q32, u128)> = Vec::new();
    for (miner, medians) in miners.iter().zip(medians) {
        let gain = medians.map_or(Q32::ZERO, |medians| medians.random);
        if gain > Q32::ZERO {
            let value = standing_value(&miner.standing, incentive)?;
            gains.push((gain, u128::try_from(value.0).ok()?));
        }
    }
    let by_number = || lower_median(gains.iter().map(|(gain, _)| *gain));
    Some(weighted_median(&gains).or_else(by_number))
}

/// e ← e + max(`gain_rate_min`, 1/(n + 3)) · (clip(r / typical, −1, 2) − e), rounded down.
///
/// With a gain r that is not positive e never rises; where nobody's is, r / typical counts as 0.
fn move_gains(
    standings: &mut [Standing],
    medians: &[Option<Medians>],
    typical: Option<Q32>,
    incentive: &Incentive,
) -> Option<()> {
    let rate_min = Q32::from_ppm(incentive.gain_rate_min_ppm);
    for (standing, medians) in standings.iter_mut().zip(medians) {
        let Some(medians) = medians else { continue };
        let sample = typical.and_then(|typical| gain_sample(medians.random, typical));
        let sample = sample.unwrap_or(Q32::ZERO);
        let rate = average_rate(standing.scored_windows, GAIN_PRIOR_WINDOWS, rate_min);
        let moved = move_average(standing.gain, sample, rate)?;
        let is_gain = medians.random > Q32::ZERO;
        standing.gain = if is_gain { moved } else { moved.min(standing.gain) };
    }
    Some(())
}

/// One Plackett–Luce match over all scored miners, ranked by their gain on random samples.
fn move_ratings(
    standings: &mut [Standing],
    medians: &[Option<Medians>],
) -> Result<(), ConsensusError> {
    let mut players: Vec<&mut Standing> = Vec::new();
    let mut scores: Vec<Q32> = Vec::new();
    for (standing, medians) in standings.iter_mut().zip(medians) {
        if let Some(medians) = medians {
            players.push(standing);
            scores.push(medians.random);
        }
    }
    let before: Vec<Rating> = players.iter().map(|standing| standing.rating).collect();
    let after = PlackettLuce::default().play(&before, &ranks(&scores))?;
    for (standing, rating) in players.into_iter().zip(after) {
        standing.rating = rating;
    }
    Ok(())
}

/// A fault multiplies the penalty by `missed_penalty` (rounded down); a window with a valid reveal
/// and no fault makes good a quarter of what is missing to 1 (rounded up, so that it gets there).
/// A window without either changes nothing.
fn penalty_after(penalty: Q32, miner: &MinerInput, incentive: &Incentive) -> Option<Q32> {
    if miner.fault.is_some() {
        return penalty.checked_mul(Q32::from_ppm(incentive.missed_penalty_ppm));
    }
    if !miner.revealed {
        return Some(penalty);
    }
    let missing = Q32::ONE.checked_sub(penalty)?.max(Q32::ZERO);
    let rounded_up = missing.0.checked_add(PENALTY_RECOVERY_PARTS.checked_sub(1)?)?;
    penalty.checked_add(Q32(rounded_up.checked_div(PENALTY_RECOVERY_PARTS)?))
}

/// A standing as one number, F ≥ 0, every product rounded down:
///
/// - `Gain`: max(0, e) · gate · penalty, see [`proof_gate`];
/// - `PlackettLuce`: max(0, μ − 3σ) · max(0, proof) · penalty.
///
/// `None` if a number does not fit, which no standing that [`super::settle()`] made does.
pub fn standing_value(standing: &Standing, incentive: &Incentive) -> Option<Q32> {
    let worth = match incentive.standing {
        StandingKind::Gain => {
            standing.gain.max(Q32::ZERO).checked_mul(proof_gate(standing, incentive)?)?
        }
        StandingKind::PlackettLuce => {
            let spread = standing.rating.sigma.checked_mul(Q32::from_int(3))?;
            let low = standing.rating.mu.checked_sub(spread)?.max(Q32::ZERO);
            low.checked_mul(standing.proof.max(Q32::ZERO))?
        }
    };
    worth.checked_mul(standing.penalty.clamp(Q32::ZERO, Q32::ONE))
}

/// How far a proof of computation counts: 0 at `proof_gate` and below, 1 at `proof_full` and above, in between in
/// proportion, rounded down.
///
/// The proof is an average that begins at the prior, so that it is in force from the first window and believes one window
/// little: a miner that flips a coin falls to the gate, an honest one stays above.
pub(super) fn proof_gate(standing: &Standing, incentive: &Incentive) -> Option<Q32> {
    let gate = Q32::from_ppm(incentive.proof_gate_ppm);
    let full = Q32::from_ppm(incentive.proof_full_ppm);
    if standing.proof >= full {
        return Some(Q32::ONE);
    }
    let above = standing.proof.checked_sub(gate)?.max(Q32::ZERO);
    above.checked_div(full.checked_sub(gate)?)
}
