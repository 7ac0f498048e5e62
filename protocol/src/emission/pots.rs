//! Splits a window's money between owner, miners and validators, and says how much of it each may be paid.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{
    consensus::ConsensusError,
    settings::{Emission, PPM},
    Planck,
};

/// The groups among which a run's money is split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pot {
    /// The run's owner.
    Owner,
    /// The miners.
    Miners,
    /// The validators.
    Validators,
}

impl Pot {
    /// All groups.
    pub const ALL: [Pot; 3] = [Pot::Owner, Pot::Miners, Pot::Validators];
}

/// An amount for each group, in planck.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug,
    Default
)]
pub struct Pots {
    /// The run owner's.
    pub owner: Planck,
    /// The miners'.
    pub miners: Planck,
    /// The validators'.
    pub validators: Planck,
}

impl Pots {
    /// The amount of a group.
    pub fn of(&self, pot: Pot) -> Planck {
        match pot {
            Pot::Owner => self.owner,
            Pot::Miners => self.miners,
            Pot::Validators => self.validators,
        }
    }

    /// The amount of a group, to be changed.
    pub fn of_mut(&mut self, pot: Pot) -> &mut Planck {
        match pot {
            Pot::Owner => &mut self.owner,
            Pot::Miners => &mut self.miners,
            Pot::Validators => &mut self.validators,
        }
    }

    /// All of it. `None` if that does not fit.
    pub fn checked_sum(&self) -> Option<Planck> {
        self.owner.checked_add(self.miners)?.checked_add(self.validators)
    }

    /// Group by group. `None` if a sum does not fit.
    pub fn checked_add(&self, other: &Pots) -> Option<Pots> {
        Some(Pots {
            owner: self.owner.checked_add(other.owner)?,
            miners: self.miners.checked_add(other.miners)?,
            validators: self.validators.checked_add(other.validators)?,
        })
    }
}

/// Splits an amount by the settings. Owner and validators are rounded down, the miners get the
/// rest, so that the three are the amount exactly.
///
/// # Errors
/// [`ConsensusError::EmissionParts`] if the parts exceed the whole, which no valid settings do.
pub fn split_emission(emission: &Emission, amount: Planck) -> Result<Pots, ConsensusError> {
    let owner = ppm_of(amount, emission.owner_ppm).ok_or(ConsensusError::EmissionParts)?;
    let validators =
        ppm_of(amount, emission.validators_ppm).ok_or(ConsensusError::EmissionParts)?;
    let miners = amount
        .checked_sub(owner)
        .and_then(|rest| rest.checked_sub(validators))
        .ok_or(ConsensusError::EmissionParts)?;
    Ok(Pots { owner, miners, validators })
}

/// What a window may pay: its own part `split`, and of what earlier windows left in `carried` (without that part) at
/// most `release_ppm`, rounded down, group by group.
///
/// Nothing without a final state root: nobody knows then what was trained. The part is carried.
///
/// # Errors
/// [`ConsensusError::Overflow`] if an amount does not fit.
pub fn payable(
    emission: &Emission,
    split: &Pots,
    carried: &Pots,
    has_final_root: bool,
) -> Result<Pots, ConsensusError> {
    if !has_final_root {
        return Ok(Pots::default());
    }
    let released = |amount| ppm_of(amount, emission.release_ppm.min(PPM));
    let released = || {
        Some(Pots {
            owner: released(carried.owner)?,
            miners: released(carried.miners)?,
            validators: released(carried.validators)?,
        })
    };
    released()
        .and_then(|released| released.checked_add(split))
        .ok_or(ConsensusError::Overflow("payable"))
}

/// amount · ppm / 10^6, rounded down.
fn ppm_of(amount: Planck, ppm: u32) -> Option<Planck> {
    let million = u128::from(PPM);
    let ppm = u128::from(ppm);
    let millions = amount.checked_div(million)?.checked_mul(ppm)?;
    let rest = amount.checked_rem(million)?.checked_mul(ppm)?.checked_div(million)?;
    millions.checked_add(rest)
}
