//! Settles a window: calls the stages in their order.

use alloc::{collections::BTreeSet, vec, vec::Vec};

use super::{
    measure::{measure, medians_of, Medians},
    records::{
        is_paid, ConsensusError, MinerInput, MinerOutcome, Outcome, ValidatorInput,
        ValidatorOutcome,
    },
    shares::{agreements_of, power_shares, validator_shares, Shares},
    standing::{move_standings, standing_value},
    yuma_shares::{by_yuma, Measured},
};
use crate::{
    fixed::Q32,
    settings::{ConsensusKind, Incentive},
};

/// Settles a window, stage by stage: section 8 of docs/PROTOCOL.md.
pub fn settle(
    miners: &[MinerInput],
    validators: &[ValidatorInput],
    incentive: &Incentive,
) -> Result<Outcome, ConsensusError> {
    refuse_duplicates(miners, validators)?;
    let measurements = measure(miners, validators)?;
    let medians = medians_of(&measurements, validators, incentive);
    let standings = move_standings(miners, &medians, incentive)?;
    let values = standings
        .iter()
        .map(|standing| standing_value(standing, incentive))
        .collect::<Option<Vec<Q32>>>()
        .ok_or(ConsensusError::Overflow("standing"))?;
    let measured = Measured { miners, validators, measurements: &measurements, values: &values };
    let shares = match &incentive.consensus {
        ConsensusKind::Gauntlet => by_standing(&measured, &medians, incentive.power)?,
        ConsensusKind::Yuma(yuma) => by_yuma(&measured, &standings, incentive.power, yuma)?,
    };

    let miners = miners
        .iter()
        .zip(medians)
        .zip(standings)
        .zip(values)
        .zip(shares.miners)
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
        .zip(shares.agreements)
        .zip(shares.validators)
        .zip(shares.bonds)
        .map(|(((validator, agreement), share), bonds)| ValidatorOutcome {
            index: validator.index,
            agreement,
            share,
            bonds,
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

/// Shares by standing: miners by their value to the power, validators by their agreement with the medians.
fn by_standing(
    measured: &Measured<'_>,
    medians: &[Option<Medians>],
    power: u8,
) -> Result<Shares, ConsensusError> {
    let paid: Vec<Q32> = measured
        .values
        .iter()
        .zip(measured.miners)
        .map(|(value, miner)| if is_paid(miner) { *value } else { Q32::ZERO })
        .collect();
    let miners = power_shares(&paid, power).ok_or(ConsensusError::Overflow("miner share"))?;
    let agreements = agreements_of(measured.measurements, medians, measured.validators.len())
        .ok_or(ConsensusError::Overflow("agreement"))?;
    let validators = validator_shares(measured.validators, measured.measurements, &agreements)
        .ok_or(ConsensusError::Overflow("validator share"))?;
    let bonds = vec![Vec::new(); validators.len()];
    Ok(Shares { miners, agreements, validators, bonds })
}
