//! Settles a window: calls the stages in their order.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{
    measure::{measure, medians_of},
    records::{
        is_paid, ConsensusError, MinerInput, MinerOutcome, Outcome, ValidatorInput,
        ValidatorOutcome,
    },
    shares::{agreements_of, power_shares, validator_shares},
    standing::{move_standings, standing_value},
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
