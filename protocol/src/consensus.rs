//! The settlement of a window: what validators measured → standings → shares → pay.
//!
//! [`settle`] calls the stages in order; each is a function with its formula and rounding.
//!
//! Properties:
//!
//! - The order of miners, validators and evaluations does not matter.
//! - Validators with less than half of the stake that evaluated a miner cannot move its medians
//!   outside what the others measured.
//! - An evaluation that is missing is not a zero: an absent validator costs no miner anything, and a
//!   miner that no quorum evaluated keeps its standing.
//! - Garbage, whose gain is not positive, ends with a standing of zero and is paid nothing. An old
//!   update sent again gains as much on random samples as on the miner's own, so that its proof of
//!   computation stays at or below the gate.
//! - Only a miner that revealed a valid update in the window is paid for the window.
//! - At least half of the evaluations, by stake, agree to two thirds with the medians, so that somebody
//!   is paid for measuring whenever miners were scored.
//! - Shares are never negative and never sum to more than one; what they leave is carried.
//!
//! Cost: O(miners · validators · log) and, for [`StandingKind::PlackettLuce`], O(miners²).

use alloc::{collections::BTreeSet, vec, vec::Vec};

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use crate::{
    fixed::{Q32, Q32_BITS, Q60_BITS, Q60_ONE},
    rating::{
        gain_rate, gain_sample, move_average, proof_sample, ranks, PlackettLuce, Rating,
        RatingError,
    },
    settings::{ConsensusKind, Emission, Incentive, StandingKind, PPM},
    Planck, Uid, ValidatorIndex, Window,
};

/// A difference between two validators below this never counts as full disagreement: 2^-16, the
/// noise of a loss measured in f32.
pub const DEVIATION_FLOOR: Q32 = Q32(1 << 16);

/// A factor on the present stake's typical deviation: who deviates so far agrees no more.
const DEVIATION_FACTOR: Q32 = Q32::from_int(3);

/// The loss of a penalty that a window without fault makes good: one quarter.
const PENALTY_RECOVERY_PARTS: i64 = 4;

/// Losses in nats as Q8.24 (value = n / 2^24), as one validator measured them before and after it
/// applied one miner's update alone.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Serialize,
    Deserialize,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct Evaluation {
    /// The miner.
    pub uid: Uid,
    /// Loss on the miner's own samples before the update.
    pub own_before: u32,
    /// Loss on the miner's own samples after the update.
    pub own_after: u32,
    /// Loss on random samples before the update.
    pub random_before: u32,
    /// Loss on random samples after the update.
    pub random_after: u32,
}

/// A miner's score over time.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Serialize,
    Deserialize,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct Standing {
    /// Windows that moved this standing (n of the formulas).
    pub scored_windows: u32,
    /// The proof of computation, from −1 to 1.
    pub proof: Q32,
    /// The average gain relative to the windows' typical ones, from −1 to 2.
    pub gain: Q32,
    /// The Plackett–Luce rating.
    pub rating: Rating,
    /// Factor on the standing, from 0 to 1; 1 is no penalty.
    pub penalty: Q32,
}

impl Default for Standing {
    /// A newcomer's.
    fn default() -> Self {
        Standing {
            scored_windows: 0,
            proof: Q32::ZERO,
            gain: Q32::ZERO,
            rating: Rating::default(),
            penalty: Q32::ONE,
        }
    }
}

/// A miner's fault in the window, proven by what is on chain.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug
)]
pub enum Fault {
    /// It committed nothing.
    MissedCommit,
    /// It committed and did not reveal.
    MissedReveal,
    /// Validators with enough stake attested, and could not fetch its payload or found it invalid.
    Unavailable,
}

/// What the chain knows of a miner when a window is settled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MinerInput {
    /// The miner's slot.
    pub uid: Uid,
    /// Its standing before the window.
    pub standing: Standing,
    /// It is in the window's accepted set.
    pub accepted: bool,
    /// It revealed a valid update. Otherwise evaluations of it are ignored and it is not paid.
    pub revealed: bool,
    /// Its fault, if any. With a fault it is not paid for the window.
    pub fault: Option<Fault>,
}

/// What the chain knows of a validator when a window is settled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValidatorInput {
    /// The validator's slot.
    pub index: ValidatorIndex,
    /// Its stake in planck.
    pub stake: u64,
    /// It committed and revealed its scores. Otherwise its evaluations are ignored.
    pub present: bool,
    /// What it revealed, in any order. A uid that it names twice or that is unknown is ignored.
    pub evaluations: Vec<Evaluation>,
}

/// What a window means for a miner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MinerOutcome {
    /// The miner's slot.
    pub uid: Uid,
    /// Median relative improvement on its own samples; `None` without a quorum.
    pub own: Option<Q32>,
    /// Median relative improvement on random samples; `None` without a quorum.
    pub random: Option<Q32>,
    /// Its standing after the window.
    pub standing: Standing,
    /// Its standing as one number, F.
    pub value: Q32,
    /// Its part of the miners' pot.
    pub share: Q32,
}

/// What a window means for a validator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValidatorOutcome {
    /// The validator's slot.
    pub index: ValidatorIndex,
    /// How far it agrees with the medians, from 0 to 1.
    pub agreement: Q32,
    /// Its part of the validators' pot.
    pub share: Q32,
}

/// The settlement of a window, miners and validators in the order of the inputs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// One for each miner.
    pub miners: Vec<MinerOutcome>,
    /// One for each validator.
    pub validators: Vec<ValidatorOutcome>,
}

/// Why a window could not be settled or paid: it is void.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConsensusError {
    /// Two miners with one uid.
    #[error("miner {0} is given twice")]
    DuplicateMiner(Uid),
    /// Two validators with one index.
    #[error("validator {0} is given twice")]
    DuplicateValidator(ValidatorIndex),
    /// The ratings could not be moved.
    #[error(transparent)]
    Rating(#[from] RatingError),
    /// A number left its range; the name says which.
    #[error("{0} does not fit")]
    Overflow(&'static str),
    /// Shares are negative or sum to more than one.
    #[error("shares must be from 0 to 1 and sum to at most 1")]
    Shares,
    /// The parts of the emission exceed one million.
    #[error("the parts of the emission exceed the whole")]
    EmissionParts,
}

/// One usable measurement: relative improvements as validator `validator` saw them.
#[derive(Clone, Copy)]
struct Measurement {
    validator: usize,
    stake: u64,
    own: Q32,
    random: Q32,
}

/// Medians of one miner.
#[derive(Clone, Copy)]
struct Medians {
    own: Q32,
    random: Q32,
}

/// Settles a window: DESIGN §5, stage by stage.
pub fn settle(
    miners: &[MinerInput],
    validators: &[ValidatorInput],
    incentive: &Incentive,
) -> Result<Outcome, ConsensusError> {
    let ConsensusKind::Gauntlet = incentive.consensus;
    refuse_duplicates(miners, validators)?;
    let measurements = measure(miners, validators)?;
    let medians = medians_of(&measurements, validators, incentive);
    let standings = move_standings(miners, &medians, incentive)?;
    let values = standings
        .iter()
        .map(|standing| standing_value(standing, incentive))
        .collect::<Option<Vec<Q32>>>()
        .ok_or(ConsensusError::Overflow("standing"))?;
    let paid: Vec<Q32> = values
        .iter()
        .zip(miners)
        .map(|(value, miner)| if is_paid(miner) { *value } else { Q32::ZERO })
        .collect();
    let shares =
        power_shares(&paid, incentive.power).ok_or(ConsensusError::Overflow("miner share"))?;
    let agreements = agreements_of(&measurements, &medians, validators.len())
        .ok_or(ConsensusError::Overflow("agreement"))?;
    let validator_shares = validator_shares(validators, &measurements, &agreements)
        .ok_or(ConsensusError::Overflow("validator share"))?;

    let miners = miners
        .iter()
        .zip(medians)
        .zip(standings)
        .zip(values)
        .zip(shares)
        .map(|((((miner, medians), standing), value), share)| MinerOutcome {
            uid: miner.uid,
            own: medians.map(|medians| medians.own),
            random: medians.map(|medians| medians.random),
            standing,
            value,
            share,
        })
        .collect();
    let validators = validators
        .iter()
        .zip(agreements)
        .zip(validator_shares)
        .map(|((validator, agreement), share)| ValidatorOutcome {
            index: validator.index,
            agreement,
            share,
        })
        .collect();
    Ok(Outcome { miners, validators })
}

fn refuse_duplicates(
    miners: &[MinerInput],
    validators: &[ValidatorInput],
) -> Result<(), ConsensusError> {
    let mut uids = BTreeSet::new();
    for miner in miners {
        if !uids.insert(miner.uid) {
            return Err(ConsensusError::DuplicateMiner(miner.uid));
        }
    }
    let mut indices = BTreeSet::new();
    for validator in validators {
        if !indices.insert(validator.index) {
            return Err(ConsensusError::DuplicateValidator(validator.index));
        }
    }
    Ok(())
}

/// A miner is paid for a window in which it revealed a valid update and is guilty of no fault.
fn is_paid(miner: &MinerInput) -> bool {
    miner.revealed && miner.fault.is_none()
}

/// (before − after) / before, truncated toward zero and not below −1: a loss that doubles is as bad
/// as any. `None` for a loss of 0 before, of which nothing can be said.
pub fn relative_improvement(before: u32, after: u32) -> Option<Q32> {
    let gained = i128::from(before).checked_sub(i128::from(after))?;
    let gained = gained.max(i128::from(before).checked_neg()?);
    Q32::from_ratio(gained, i128::from(before))
}

/// The usable measurements of each miner, in the order of `miners`.
///
/// Usable: the validator is present with a stake, the miner is known and revealed, the validator
/// names it once, and neither loss before is zero. O(evaluations · log).
fn measure(
    miners: &[MinerInput],
    validators: &[ValidatorInput],
) -> Result<Vec<Vec<Measurement>>, ConsensusError> {
    let mut places: Vec<(Uid, usize)> = miners
        .iter()
        .enumerate()
        .filter(|(_, miner)| is_paid(miner))
        .map(|(place, miner)| (miner.uid, place))
        .collect();
    places.sort_unstable();
    let mut measurements: Vec<Vec<Measurement>> = vec![Vec::new(); miners.len()];
    for (at, validator) in validators.iter().enumerate() {
        if !validator.present || validator.stake == 0 {
            continue;
        }
        for evaluation in named_once(&validator.evaluations) {
            let own = relative_improvement(evaluation.own_before, evaluation.own_after);
            let random = relative_improvement(evaluation.random_before, evaluation.random_after);
            let (Some(own), Some(random)) = (own, random) else {
                continue;
            };
            let row = places
                .binary_search_by_key(&evaluation.uid, |(uid, _)| *uid)
                .ok()
                .and_then(|found| places.get(found))
                .and_then(|(_, place)| measurements.get_mut(*place));
            if let Some(row) = row {
                row.push(Measurement { validator: at, stake: validator.stake, own, random });
            }
        }
    }
    Ok(measurements)
}

/// The evaluations of uids that are named exactly once, by uid.
fn named_once(evaluations: &[Evaluation]) -> impl Iterator<Item = &Evaluation> {
    let mut sorted: Vec<&Evaluation> = evaluations.iter().collect();
    sorted.sort_by_key(|evaluation| evaluation.uid);
    let mut once: Vec<&Evaluation> = Vec::with_capacity(sorted.len());
    for group in sorted.chunk_by(|a, b| a.uid == b.uid) {
        if let [evaluation] = group {
            once.push(evaluation);
        }
    }
    once.into_iter()
}

/// Sum of stakes. A u128 holds 2^64 of them.
fn total_stake(stakes: impl Iterator<Item = u64>) -> u128 {
    stakes.fold(0, |sum, stake| sum.saturating_add(u128::from(stake)))
}

/// The lower stake-weighted median: the smallest value up to which the stakes reach half of their
/// sum. `None` without any stake. O(n log n).
pub fn weighted_median(values: &[(Q32, u64)]) -> Option<Q32> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let total = total_stake(sorted.iter().map(|(_, stake)| *stake));
    if total == 0 {
        return None;
    }
    let mut reached = 0u128;
    for (value, stake) in sorted {
        reached = reached.saturating_add(u128::from(stake));
        if reached.saturating_mul(2) >= total {
            return Some(value);
        }
    }
    None
}

/// The lower median: element ⌊(n−1)/2⌋ of the sorted values. `None` of nothing.
pub fn lower_median(values: impl Iterator<Item = Q32>) -> Option<Q32> {
    let mut sorted: Vec<Q32> = values.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? >> 1).copied()
}

/// The medians of each miner that validators with at least `evaluation_quorum_ppm` of the present
/// stake evaluated.
fn medians_of(
    measurements: &[Vec<Measurement>],
    validators: &[ValidatorInput],
    incentive: &Incentive,
) -> Vec<Option<Medians>> {
    let present = total_stake(validators.iter().filter(|v| v.present).map(|v| v.stake));
    let quorum = present.saturating_mul(u128::from(incentive.evaluation_quorum_ppm));
    measurements
        .iter()
        .map(|row| {
            let stake = total_stake(row.iter().map(|measurement| measurement.stake));
            if stake.saturating_mul(u128::from(PPM)) < quorum {
                return None;
            }
            let own: Vec<_> = row.iter().map(|m| (m.own, m.stake)).collect();
            let random: Vec<_> = row.iter().map(|m| (m.random, m.stake)).collect();
            Some(Medians { own: weighted_median(&own)?, random: weighted_median(&random)? })
        })
        .collect()
}

/// The standings after the window.
///
/// A scored miner's proof of computation moves by `proof_rate` toward sign(own − random). By
/// [`StandingKind`], its average gain or its rating moves; the other one stays. Under `Gain` a
/// window without a positive typical gain moves nobody's gain and is not counted in
/// `scored_windows`, so that the count is the number of samples averaged.
fn move_standings(
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
/// `None` if a number does not fit, which no standing that [`settle`] made does.
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

/// Shares proportional to value^power. Values are first divided by the largest, so that nothing
/// overflows; powers have 60 fractional bits; shares are rounded down. All zero if no value is
/// positive.
pub fn power_shares(values: &[Q32], power: u8) -> Option<Vec<Q32>> {
    let largest = values.iter().copied().max().unwrap_or_default();
    if largest <= Q32::ZERO {
        return Some(vec![Q32::ZERO; values.len()]);
    }
    let mut powers: Vec<u128> = Vec::with_capacity(values.len());
    for value in values {
        if *value <= Q32::ZERO {
            // Also for a power of 0, under which all positive values are equal.
            powers.push(0);
            continue;
        }
        let scaled = i128::from(value.0).checked_mul(Q60_ONE)?;
        let base = scaled.checked_div(i128::from(largest.0))?;
        let mut product = Q60_ONE;
        for _ in 0..power {
            product = product.checked_mul(base)? >> Q60_BITS;
        }
        powers.push(u128::try_from(product).ok()?);
    }
    proportional_shares(&powers)
}

/// part / sum of the parts for each, rounded down; parts must be below 2^96.
fn proportional_shares(parts: &[u128]) -> Option<Vec<Q32>> {
    let mut sum = 0u128;
    for part in parts {
        if part >> 96 != 0 {
            return None;
        }
        sum = sum.checked_add(*part)?;
    }
    if sum == 0 {
        return Some(vec![Q32::ZERO; parts.len()]);
    }
    parts
        .iter()
        .map(|part| i64::try_from((part << Q32_BITS).checked_div(sum)?).ok().map(Q32))
        .collect()
}

/// How far each validator agrees with the medians of the scored miners that it evaluated:
/// 1 − the mean over them of (min(1, |own − median|/scale) + min(1, |random − median|/scale)) / 2.
/// Zero for who evaluated none.
///
/// A scale, one for own and one for random, is the largest of the typical size of a median (their
/// lower median over the miners), three times the stake-weighted median deviation, and
/// [`DEVIATION_FLOOR`]. By the first, who is off by less than a typical gain is believed in part;
/// by the second, half of the evaluations by stake agree to two thirds however noisy measuring is.
/// A minority of the stake moves neither.
fn agreements_of(
    measurements: &[Vec<Measurement>],
    medians: &[Option<Medians>],
    validator_count: usize,
) -> Option<Vec<Q32>> {
    let own_scale = deviation_scale(measurements, medians, |m| m.own, |m| m.own)?;
    let random_scale = deviation_scale(measurements, medians, |m| m.random, |m| m.random)?;
    // Per validator: sum of deviations, from 0 to 2 each, and number of evaluations.
    let mut sums = vec![(0i128, 0i128); validator_count];
    for (row, medians) in measurements.iter().zip(medians) {
        let Some(medians) = medians else { continue };
        for measurement in row {
            let own = relative_deviation(measurement.own, medians.own, own_scale)?;
            let random = relative_deviation(measurement.random, medians.random, random_scale)?;
            let (sum, count) = sums.get_mut(measurement.validator)?;
            *sum = sum.checked_add(i128::from(own.checked_add(random)?.0))?;
            *count = count.checked_add(1)?;
        }
    }
    sums.into_iter()
        .map(|(sum, count)| {
            if count == 0 {
                return Some(Q32::ZERO);
            }
            let mean = sum.checked_div(count.checked_mul(2)?)?;
            Q32::ONE.checked_sub(Q32(i64::try_from(mean).ok()?))
        })
        .collect()
}

/// See [`agreements_of`].
fn deviation_scale(
    measurements: &[Vec<Measurement>],
    medians: &[Option<Medians>],
    of_measurement: impl Fn(&Measurement) -> Q32,
    of_medians: impl Fn(&Medians) -> Q32,
) -> Option<Q32> {
    let mut sizes: Vec<Q32> = Vec::new();
    let mut deviations: Vec<(Q32, u64)> = Vec::new();
    for (row, medians) in measurements.iter().zip(medians) {
        let Some(medians) = medians else { continue };
        let median = of_medians(medians);
        sizes.push(median.checked_abs()?);
        for measurement in row {
            let deviation = of_measurement(measurement).checked_sub(median)?.checked_abs()?;
            deviations.push((deviation, measurement.stake));
        }
    }
    let size = lower_median(sizes.into_iter()).unwrap_or_default();
    let deviation = weighted_median(&deviations).unwrap_or_default();
    Some(size.max(deviation.checked_mul(DEVIATION_FACTOR)?).max(DEVIATION_FLOOR))
}

/// min(1, |x − median| / scale), rounded down.
fn relative_deviation(x: Q32, median: Q32, scale: Q32) -> Option<Q32> {
    let deviation = x.checked_sub(median)?.checked_abs()?;
    if deviation >= scale {
        return Some(Q32::ONE);
    }
    deviation.checked_div(scale)
}

/// Validators' shares, proportional to stake · agreement · presence, rounded down.
///
/// Presence is 0 for who was absent, else min(1, own number of usable evaluations / the
/// stake-weighted lower median of that number over the present validators), so that measuring one
/// easy miner does not pay like measuring all.
fn validator_shares(
    validators: &[ValidatorInput],
    measurements: &[Vec<Measurement>],
    agreements: &[Q32],
) -> Option<Vec<Q32>> {
    let mut counts = vec![0i64; validators.len()];
    for measurement in measurements.iter().flatten() {
        let count = counts.get_mut(measurement.validator)?;
        *count = count.checked_add(1)?;
    }
    let present: Vec<(Q32, u64)> = validators
        .iter()
        .zip(&counts)
        .filter(|(validator, _)| validator.present)
        .map(|(validator, count)| (Q32(*count), validator.stake))
        .collect();
    let typical_count = weighted_median(&present).unwrap_or_default().0;
    let mut parts: Vec<u128> = Vec::with_capacity(validators.len());
    for ((validator, count), agreement) in validators.iter().zip(&counts).zip(agreements) {
        let presence = if typical_count == 0 || *count >= typical_count {
            Q32::ONE
        } else {
            Q32::from_ratio(i128::from(*count), i128::from(typical_count))?
        };
        let factor = u128::try_from(agreement.checked_mul(presence)?.0).ok()?;
        // Who was absent has no measurement and so an agreement of 0. Below 2^64 · 2^32.
        parts.push(u128::from(validator.stake).checked_mul(factor)?);
    }
    proportional_shares(&parts)
}

/// Divides a pot by shares, each amount rounded down. Returns the amounts and what is left of the
/// pot; together they are the pot exactly.
pub fn pay(pot: Planck, shares: &[Q32]) -> Result<(Vec<Planck>, Planck), ConsensusError> {
    let mut whole = Q32::ZERO;
    for share in shares {
        if *share < Q32::ZERO {
            return Err(ConsensusError::Shares);
        }
        whole = whole.checked_add(*share).ok_or(ConsensusError::Shares)?;
    }
    if whole > Q32::ONE {
        return Err(ConsensusError::Shares);
    }
    let mut remainder = pot;
    let mut amounts = Vec::with_capacity(shares.len());
    for share in shares {
        let amount = part_of(pot, *share).ok_or(ConsensusError::Overflow("pay"))?;
        remainder = remainder.checked_sub(amount).ok_or(ConsensusError::Shares)?;
        amounts.push(amount);
    }
    Ok((amounts, remainder))
}

/// pot · share, rounded down, exact for every pot.
fn part_of(pot: Planck, share: Q32) -> Option<Planck> {
    let share = u128::try_from(share.0).ok()?;
    // pot = high · 2^32 + low: high · share needs no rounding.
    let high = (pot >> Q32_BITS).checked_mul(share)?;
    let low = (pot & u128::from(u32::MAX)).checked_mul(share)? >> Q32_BITS;
    high.checked_add(low)
}

/// What a window mints: `per_window`, halved (rounded down) every `halving_windows`.
pub fn emission_at(emission: &Emission, window: Window) -> Planck {
    let halvings = window.checked_div(emission.halving_windows).unwrap_or(0);
    let halvings = u32::try_from(halvings).unwrap_or(u32::MAX);
    emission.per_window.checked_shr(halvings).unwrap_or(0)
}

/// The three pots of an amount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EmissionSplit {
    /// The run owner's.
    pub owner: Planck,
    /// The miners'.
    pub miners: Planck,
    /// The validators'.
    pub validators: Planck,
}

/// Splits an amount by the settings. Owner and validators are rounded down, the miners get the
/// rest, so that the three are the amount exactly.
pub fn split_emission(
    emission: &Emission,
    amount: Planck,
) -> Result<EmissionSplit, ConsensusError> {
    let owner = ppm_of(amount, emission.owner_ppm).ok_or(ConsensusError::EmissionParts)?;
    let validators =
        ppm_of(amount, emission.validators_ppm).ok_or(ConsensusError::EmissionParts)?;
    let miners = amount
        .checked_sub(owner)
        .and_then(|rest| rest.checked_sub(validators))
        .ok_or(ConsensusError::EmissionParts)?;
    Ok(EmissionSplit { owner, miners, validators })
}

/// amount · ppm / 10^6, rounded down.
fn ppm_of(amount: Planck, ppm: u32) -> Option<Planck> {
    let million = u128::from(PPM);
    let ppm = u128::from(ppm);
    let millions = amount.checked_div(million)?.checked_mul(ppm)?;
    let rest = amount.checked_rem(million)?.checked_mul(ppm)?.checked_div(million)?;
    millions.checked_add(rest)
}
