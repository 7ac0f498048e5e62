//! Settles a window: calls the stages in their order.

use alloc::{collections::BTreeSet, vec, vec::Vec};

use super::{
    agreement::{agreements_of, validator_shares},
    knee::miner_shares,
    measure::{measure, medians_of, Measured},
    records::{
        ConsensusError, MinerInput, MinerOutcome, Outcome, SettlementInput, ValidatorInput,
        ValidatorOutcome,
    },
    shares::Shares,
    standing::{move_standings, standing_value},
    yuma_shares::by_yuma,
};
use crate::{
    fixed::Q32,
    settings::{ConsensusKind, Incentive},
};

/// Settles a window, stage by stage: section 8 of docs/PROTOCOL.md.
///
/// A window without result ([`SettlementInput::has_result`]) is settled as if nobody had measured anything.
pub fn settle(input: &SettlementInput, incentive: &Incentive) -> Result<Outcome, ConsensusError> {
    let SettlementInput { miners, validators, .. } = input;
    refuse_duplicates(miners, validators)?;
    let measurements = if input.has_result() {
        measure(miners, validators)
    } else {
        vec![Vec::new(); miners.len()]
    };
    let medians = medians_of(miners, &measurements, validators, incentive);
    let standings = move_standings(miners, &medians, incentive)?;
    let values = standings
        .iter()
        .map(|standing| standing_value(standing, incentive))
        .collect::<Option<Vec<Q32>>>()
        .ok_or(ConsensusError::Overflow("standing"))?;
    let measured = Measured {
        miners,
        validators,
        measurements: &measurements,
        medians: &medians,
        standings: &standings,
        values: &values,
    };
    let shares = match &incentive.consensus {
        ConsensusKind::Gauntlet => by_standing(&measured, incentive)?,
        ConsensusKind::Yuma(yuma) => by_yuma(&measured, incentive.power, yuma)?,
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

/// Shares by standing: miners by the knee or the power, validators by their agreement with the medians.
fn by_standing(measured: &Measured<'_>, incentive: &Incentive) -> Result<Shares, ConsensusError> {
    let miners =
        miner_shares(measured, incentive).ok_or(ConsensusError::Overflow("miner share"))?;
    let agreements = agreements_of(measured).ok_or(ConsensusError::Overflow("agreement"))?;
    let validators = validator_shares(measured, &agreements)
        .ok_or(ConsensusError::Overflow("validator share"))?;
    let bonds = vec![Vec::new(); validators.len()];
    Ok(Shares { miners, agreements, validators, bonds })
}
