//! Keeps the sums that say where every unit of a run's money is.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use super::pots::{Pot, Pots};
use crate::Planck;

/// Where every unit of a run's money is:
/// `minted + funded = paid + claimable + carried + unspent + slashed + burned`, exactly. All in planck.
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
    Debug,
    Default
)]
pub struct Ledger {
    /// Given by the chain's schedule.
    pub minted: Planck,
    /// Put in by sponsors.
    pub funded: Planck,
    /// Transferred out by claims.
    pub paid: Planck,
    /// Owed to accounts, see [`Claim`](super::Claim).
    pub claimable: Planck,
    /// The owner's, not earned yet.
    pub carried_owner: Planck,
    /// The miners', not earned yet.
    pub carried_miners: Planck,
    /// The validators', not earned yet.
    pub carried_validators: Planck,
    /// Of sponsors, not released yet.
    pub unspent: Planck,
    /// Taken from unclaimed pay for a fault and given to who proved it.
    pub slashed: Planck,
    /// Destroyed, or given back to the schedule.
    pub burned: Planck,
}

/// A movement that the ledger cannot make: there is less than is to be moved, or a sum does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the ledger cannot make the movement")]
pub struct LedgerError;

/// Moves `amount` from one sum to another, or changes nothing.
fn move_between(from: &mut Planck, to: &mut Planck, amount: Planck) -> Result<(), LedgerError> {
    let sums = from.checked_sub(amount).zip(to.checked_add(amount)).ok_or(LedgerError)?;
    (*from, *to) = sums;
    Ok(())
}

impl Ledger {
    /// What is carried, by group.
    pub fn carried(&self) -> Pots {
        Pots {
            owner: self.carried_owner,
            miners: self.carried_miners,
            validators: self.carried_validators,
        }
    }

    fn set_carried(&mut self, carried: Pots) {
        self.carried_owner = carried.owner;
        self.carried_miners = carried.miners;
        self.carried_validators = carried.validators;
    }

    fn carry_mut(&mut self, pot: Pot) -> &mut Planck {
        match pot {
            Pot::Owner => &mut self.carried_owner,
            Pot::Miners => &mut self.carried_miners,
            Pot::Validators => &mut self.carried_validators,
        }
    }

    /// What the run's account has to hold beside its foundation: claimable, carried and unspent. `None` if that does not
    /// fit.
    pub fn held(&self) -> Option<Planck> {
        self.claimable.checked_add(self.carried().checked_sum()?)?.checked_add(self.unspent)
    }

    /// Whether the parts are the whole, exactly.
    pub fn is_conserved(&self) -> bool {
        let parts = || {
            self.held()?.checked_add(self.paid)?.checked_add(self.slashed)?.checked_add(self.burned)
        };
        self.minted.checked_add(self.funded).is_some_and(|whole| Some(whole) == parts())
    }

    /// A sponsor puts in `amount`.
    ///
    /// # Errors
    /// A sum does not fit; nothing is changed then, as after every error here.
    pub fn deposit(&mut self, amount: Planck) -> Result<(), LedgerError> {
        let sums = self.funded.checked_add(amount).zip(self.unspent.checked_add(amount));
        (self.funded, self.unspent) = sums.ok_or(LedgerError)?;
        Ok(())
    }

    /// A window gets `minted` of the schedule and `released` of the sponsors, which together are `split`; all of it is
    /// carried until it is credited.
    ///
    /// # Errors
    /// `split` is another amount, less is unspent, or a sum does not fit.
    pub fn receive(
        &mut self,
        minted: Planck,
        released: Planck,
        split: &Pots,
    ) -> Result<(), LedgerError> {
        if minted.checked_add(released) != split.checked_sum() {
            return Err(LedgerError);
        }
        let carried = self.carried().checked_add(split).ok_or(LedgerError)?;
        let unspent = self.unspent.checked_sub(released).ok_or(LedgerError)?;
        self.minted = self.minted.checked_add(minted).ok_or(LedgerError)?;
        self.unspent = unspent;
        self.set_carried(carried);
        Ok(())
    }

    /// A group's member earned `amount`.
    ///
    /// # Errors
    /// The group has less.
    pub fn credit(&mut self, pot: Pot, amount: Planck) -> Result<(), LedgerError> {
        let mut claimable = self.claimable;
        move_between(self.carry_mut(pot), &mut claimable, amount)?;
        self.claimable = claimable;
        Ok(())
    }

    /// `amount` is transferred to whom it was owed.
    ///
    /// # Errors
    /// Less is owed.
    pub fn pay(&mut self, amount: Planck) -> Result<(), LedgerError> {
        move_between(&mut self.claimable, &mut self.paid, amount)
    }

    /// Of unclaimed pay, `to_reporter` goes to who proved a fault and `burned` is destroyed.
    ///
    /// # Errors
    /// Less is owed.
    pub fn slash(&mut self, to_reporter: Planck, burned: Planck) -> Result<(), LedgerError> {
        let mut after = *self;
        move_between(&mut after.claimable, &mut after.slashed, to_reporter)?;
        move_between(&mut after.claimable, &mut after.burned, burned)?;
        *self = after;
        Ok(())
    }

    /// `amount` that sponsors put in and that was not released is owed to them.
    ///
    /// # Errors
    /// Less is unspent.
    pub fn refund(&mut self, amount: Planck) -> Result<(), LedgerError> {
        move_between(&mut self.unspent, &mut self.claimable, amount)
    }

    /// `amount` that was owed and cannot be paid any more is carried by a group again.
    ///
    /// # Errors
    /// Less is owed.
    pub fn forfeit(&mut self, pot: Pot, amount: Planck) -> Result<(), LedgerError> {
        let mut claimable = self.claimable;
        move_between(&mut claimable, self.carry_mut(pot), amount)?;
        self.claimable = claimable;
        Ok(())
    }

    /// `amount` of what is carried is given back to the schedule.
    ///
    /// # Errors
    /// The group has less.
    pub fn give_back(&mut self, pot: Pot, amount: Planck) -> Result<(), LedgerError> {
        let mut burned = self.burned;
        move_between(self.carry_mut(pot), &mut burned, amount)?;
        self.burned = burned;
        Ok(())
    }
}
