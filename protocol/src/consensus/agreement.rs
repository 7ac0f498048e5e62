//! Values what each validator said: how far it agrees with the medians, did what was drawn for it, and attested.

use alloc::{vec, vec::Vec};

use super::{
    measure::{lower_median, weighted_median, Measured, Measurement, Places},
    records::ValidatorInput,
    shares::proportional_shares,
    Medians,
};
use crate::fixed::Q32;

/// A difference between two validators below this never counts as full disagreement: 2^-16, the
/// noise of a loss measured in f32.
pub const DEVIATION_FLOOR: Q32 = Q32(1 << 16);

/// A factor on the typical size of a median: who is off by so little agrees at least in part, however exactly the others
/// measure, as no two kinds of hardware round alike.
const SIZE_FACTOR: Q32 = Q32(1 << 28);

/// A factor on the present stake's typical deviation: a validator that deviates so far agrees no more.
const DEVIATION_FACTOR: Q32 = Q32::from_int(3);

/// Of a validator's pay, the parts that it has for its scores whatever it attested, and all parts.
const UNATTESTED_PARTS: (i64, i64) = (1, 4);

/// What two measurements of a miner are compared by, one scale for own and one for random samples.
#[derive(Clone, Copy)]
struct Scales {
    own: Q32,
    random: Q32,
}

/// A miner's measurements, its medians of this window, and those of the one before in which it was scored.
struct Scored<'a> {
    measurements: &'a [Measurement],
    medians: Medians,
    lagged: Option<Medians>,
}

/// Sums over the miners that a validator evaluated.
#[derive(Clone, Copy, Default)]
struct Sums {
    count: i128,
    /// Deviations from the medians, from 0 to 2 each.
    deviation: i128,
    /// What lies between the validator's word and the lagged medians, and between these and the medians.
    from_lagged: i128,
    moved: i128,
}

/// How far each validator agrees with the medians of the scored miners that it evaluated:
/// 1 − the mean over them of (min(1, |own − median|/scale) + min(1, |random − median|/scale)) / 2.
/// Zero for a validator that evaluated none.
///
/// A scale, one for own and one for random, is the largest of three times the weighted median deviation, a sixteenth of
/// the typical size of a median (their lower median over the miners) and [`DEVIATION_FLOOR`]. By the first, half of the
/// evaluations by weight agree to two thirds however noisy measuring is, and who is off by more than the others are
/// agrees in nothing. A minority of the weight moves none of them.
///
/// A validator whose words are nearer to the medians of the window before than half of what the medians have moved since
/// repeats: its agreement is scaled down by how much nearer. Where nothing moved, nobody can tell.
pub(super) fn agreements_of(measured: &Measured<'_>) -> Option<Vec<Q32>> {
    let Measured { miners, validators, measurements, medians, .. } = measured;
    let scored: Vec<Scored<'_>> = miners
        .iter()
        .zip(*measurements)
        .zip(*medians)
        .filter_map(|((miner, measurements), medians)| {
            let before = &miner.standing;
            let lagged = (before.scored_windows > 0).then_some(before.medians);
            Some(Scored { measurements, medians: (*medians)?, lagged })
        })
        .collect();
    let scales = Scales {
        own: deviation_scale(&scored, |m| m.own, |m| m.own)?,
        random: deviation_scale(&scored, |m| m.random, |m| m.random)?,
    };
    let mut sums = vec![Sums::default(); validators.len()];
    for scored in &scored {
        for measurement in scored.measurements {
            sums.get_mut(measurement.validator)?.add(scored, measurement, scales)?;
        }
    }
    sums.into_iter().map(Sums::agreement).collect()
}

impl Sums {
    fn add(&mut self, scored: &Scored<'_>, said: &Measurement, scales: Scales) -> Option<()> {
        let said = Medians { own: said.own, random: said.random };
        self.count = self.count.checked_add(1)?;
        let deviation = relative_distance(said, scored.medians, scales)?;
        self.deviation = self.deviation.checked_add(deviation)?;
        if let Some(lagged) = scored.lagged {
            let from_lagged = relative_distance(said, lagged, scales)?;
            self.from_lagged = self.from_lagged.checked_add(from_lagged)?;
            let moved = relative_distance(scored.medians, lagged, scales)?;
            self.moved = self.moved.checked_add(moved)?;
        }
        Some(())
    }

    /// The agreement, from 0 to 1.
    fn agreement(self) -> Option<Q32> {
        if self.count == 0 {
            return Some(Q32::ZERO);
        }
        let mean = self.deviation.checked_div(self.count.checked_mul(2)?)?;
        let agreement = Q32::ONE.checked_sub(Q32(i64::try_from(mean).ok()?))?;
        let doubled = self.from_lagged.checked_mul(2)?;
        if doubled >= self.moved {
            return Some(agreement);
        }
        agreement.checked_mul(Q32::from_ratio(doubled, self.moved)?)
    }
}

fn deviation_scale(
    scored: &[Scored<'_>],
    of_measurement: impl Fn(&Measurement) -> Q32,
    of_medians: impl Fn(&Medians) -> Q32,
) -> Option<Q32> {
    let mut sizes: Vec<Q32> = Vec::new();
    let mut deviations: Vec<(Q32, u128)> = Vec::new();
    for row in scored {
        let median = of_medians(&row.medians);
        sizes.push(median.checked_abs()?);
        for measurement in row.measurements {
            let deviation = of_measurement(measurement).checked_sub(median)?.checked_abs()?;
            deviations.push((deviation, measurement.weight));
        }
    }
    let size = lower_median(sizes.into_iter()).unwrap_or_default().checked_mul(SIZE_FACTOR)?;
    let deviation = weighted_median(&deviations).unwrap_or_default();
    Some(size.max(deviation.checked_mul(DEVIATION_FACTOR)?).max(DEVIATION_FLOOR))
}

/// min(1, |Δ own|/scale) + min(1, |Δ random|/scale), each rounded down, with 32 fractional bits.
fn relative_distance(a: Medians, b: Medians, scales: Scales) -> Option<i128> {
    let own = relative_deviation(a.own, b.own, scales.own)?;
    let random = relative_deviation(a.random, b.random, scales.random)?;
    Some(i128::from(own.checked_add(random)?.0))
}

/// min(1, |x − median| / scale), rounded down.
fn relative_deviation(x: Q32, median: Q32, scale: Q32) -> Option<Q32> {
    let deviation = x.checked_sub(median)?.checked_abs()?;
    if deviation >= scale {
        return Some(Q32::ONE);
    }
    deviation.checked_div(scale)
}

/// Validators' shares, proportional to stake · agreement · presence · attestation, each rounded down.
///
/// Presence is the part of the scored miners drawn for it that a validator evaluated, so that measuring one easy miner does
/// not pay like measuring all. Of the whole a quarter is for the scores alone and three are for an attestation as far as it
/// was right.
pub(super) fn validator_shares(measured: &Measured<'_>, agreements: &[Q32]) -> Option<Vec<Q32>> {
    let Measured { miners, validators, measurements, medians, .. } = measured;
    let mut done = vec![0i128; validators.len()];
    let scored = measurements.iter().zip(*medians).filter(|(_, medians)| medians.is_some());
    for measurement in scored.flat_map(|(row, _)| row) {
        let count = done.get_mut(measurement.validator)?;
        *count = count.checked_add(1)?;
    }
    let places = Places::of(miners);
    let is_due = |uid: &u16| {
        let place = places.find(*uid).and_then(|place| medians.get(place));
        place.is_some_and(|medians| medians.is_some())
    };
    let mut parts: Vec<u128> = Vec::with_capacity(validators.len());
    for ((validator, done), agreement) in validators.iter().zip(done).zip(agreements) {
        let due = i128::try_from(validator.drawn.iter().filter(|uid| is_due(uid)).count()).ok()?;
        let presence = Q32::from_ratio(done, due).unwrap_or(Q32::ZERO);
        let factor = agreement.checked_mul(presence)?.checked_mul(attested_factor(validator)?)?;
        // Who was absent has no measurement and so an agreement of 0. Below 2^64 · 2^32.
        let factor = u128::try_from(factor.0).ok()?;
        parts.push(u128::from(validator.stake).checked_mul(factor)?);
    }
    proportional_shares(&parts)
}

/// 1/4 + 3/4 · attested, rounded down.
pub(super) fn attested_factor(validator: &ValidatorInput) -> Option<Q32> {
    let (unattested, all) = UNATTESTED_PARTS;
    let attested = validator.attested.clamp(Q32::ZERO, Q32::ONE);
    let parts = attested
        .0
        .checked_mul(all.checked_sub(unattested)?)?
        .checked_add(Q32::ONE.0.checked_mul(unattested)?)?;
    parts.checked_div(all).map(Q32)
}
