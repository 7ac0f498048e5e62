//! Moves the miners' standings by a window's medians, and values a standing as one number.

use alloc::vec::Vec;

use super::{
    measure::{lower_median, Medians},
    records::{ConsensusError, MinerInput},
    Standing,
};
use crate::{
    fixed::Q32,
    rating::{gain_rate, gain_sample, move_average, proof_sample, ranks, PlackettLuce, Rating},
    settings::{Incentive, StandingKind},
};

/// The loss of a penalty that a window without fault makes good: one quarter.
const PENALTY_RECOVERY_PARTS: i64 = 4;

/// The standings after the window.
///
/// A scored miner's proof of computation moves by `proof_rate` toward sign(own − random). By
/// [`StandingKind`], its average gain or its rating moves; the other one stays. Under `Gain` a
/// window without a positive typical gain moves nobody's gain and is not counted in
/// `scored_windows`, so that the count is the number of samples averaged.
pub(super) fn move_standings(
    miners: &[MinerInput],
    medians: &[Option<Medians>],
    incentive: &Incentive,
) -> Result<Vec<Standing>, ConsensusError> {
    let mut standings: Vec<Standing> = miners.iter().map(|miner| miner.standing.clone()).collect();
    let proof_rate = Q32::from_ppm(incentive.proof_rate_ppm);
    for (standing, medians) in standings.iter_mut().zip(medians) {
        if let Some(medians) = medians {
            let sample = proof_sample(medians.own, medians.random);
            standing.proof = move_average(standing.proof, sample, proof_rate)
                .ok_or(ConsensusError::Overflow("proof of computation"))?;
        }
    }
    match incentive.standing {
        StandingKind::Gain => {
            let typical = typical_gain(miners, medians);
            move_gains(&mut standings, medians, typical, incentive)
                .ok_or(ConsensusError::Overflow("gain"))?;
        }
        StandingKind::PlackettLuce => move_ratings(&mut standings, medians)?,
    }
    for (standing, miner) in standings.iter_mut().zip(miners) {
        standing.penalty = penalty_after(standing.penalty, miner, incentive)
            .ok_or(ConsensusError::Overflow("penalty"))?;
    }
    Ok(standings)
}

/// The lower median of the gains on random samples over the accepted miners that were scored, or
/// over all scored miners while there is none. Zero if nobody was scored.
fn typical_gain(miners: &[MinerInput], medians: &[Option<Medians>]) -> Q32 {
    let scored = || {
        miners
            .iter()
            .zip(medians)
            .filter_map(|(miner, medians)| medians.map(|medians| (miner.accepted, medians.random)))
    };
    let accepted = scored().filter(|(accepted, _)| *accepted).map(|(_, random)| random);
    lower_median(accepted)
        .or_else(|| lower_median(scored().map(|(_, random)| random)))
        .unwrap_or(Q32::ZERO)
}

/// e ← e + max(`gain_rate_min`, 1/(n+1)) · (clip(r / typical, −1, 2) − e), rounded down.
fn move_gains(
    standings: &mut [Standing],
    medians: &[Option<Medians>],
    typical: Q32,
    incentive: &Incentive,
) -> Option<()> {
    let rate_min = Q32::from_ppm(incentive.gain_rate_min_ppm);
    for (standing, medians) in standings.iter_mut().zip(medians) {
        let Some(medians) = medians else { continue };
        let Some(sample) = gain_sample(medians.random, typical) else {
            continue;
        };
        let rate = gain_rate(standing.scored_windows, rate_min);
        standing.gain = move_average(standing.gain, sample, rate)?;
        standing.scored_windows = standing.scored_windows.saturating_add(1);
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
        standing.scored_windows = standing.scored_windows.saturating_add(1);
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
/// - `Gain`: max(0, e) · gate · penalty, the gate being 0 when the proof of computation is at most
///   `proof_gate` after more than `proof_gate_windows` scored windows, else 1;
/// - `PlackettLuce`: max(0, μ − 3σ) · max(0, proof) · penalty.
///
/// `None` if a number does not fit, which no standing that [`super::settle()`] made does.
pub fn standing_value(standing: &Standing, incentive: &Incentive) -> Option<Q32> {
    let worth = match incentive.standing {
        StandingKind::Gain => {
            let is_unproven = standing.scored_windows > incentive.proof_gate_windows
                && standing.proof <= Q32::from_ppm(incentive.proof_gate_ppm);
            if is_unproven {
                Q32::ZERO
            } else {
                standing.gain.max(Q32::ZERO)
            }
        }
        StandingKind::PlackettLuce => {
            let spread = standing.rating.sigma.checked_mul(Q32::from_int(3))?;
            let low = standing.rating.mu.checked_sub(spread)?.max(Q32::ZERO);
            low.checked_mul(standing.proof.max(Q32::ZERO))?
        }
    };
    worth.checked_mul(standing.penalty.clamp(Q32::ZERO, Q32::ONE))
}
