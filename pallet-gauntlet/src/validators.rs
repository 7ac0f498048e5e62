//! Handles the calls of validators with their stakes.

use frame_support::{
    ensure,
    traits::{fungible::MutateHold, tokens::Precision},
};
use protocol::{fixed::Q32, Planck, RunId, ValidatorIndex};
use sp_runtime::{DispatchError, DispatchResult};

use crate::{
    registration::first_window, Announcements, Attestations, Config, Error, Event, HoldReason,
    Pallet, ScoreCommitments, Validator, ValidatorIndices, ValidatorSlots, Validators,
    VALIDATORS_MAX,
};

impl<T: Config> Pallet<T> {
    pub(crate) fn do_register_validator(
        cold: T::AccountId,
        run_id: RunId,
        hot: T::AccountId,
        stake: Planck,
    ) -> Result<ValidatorIndex, DispatchError> {
        let (run, moment) = Self::run_at(run_id)?;
        Self::ensure_takes_participants(&run)?;
        Self::ensure_hot_key_free(run_id, &hot)?;
        let settings = Self::current_settings(run_id, &run)?;
        ensure!(stake >= settings.incentive.validator_stake_min, Error::<T>::StakeTooLow);
        ensure!(stake <= Planck::from(u64::MAX), Error::<T>::StakeTooHigh);
        let index = ValidatorSlots::<T>::mutate(run_id, |slots| slots.take(VALIDATORS_MAX))
            .ok_or(Error::<T>::NoFreeSlot)?;
        T::Currency::hold(&HoldReason::ValidatorStake.into(), &cold, stake)?;
        frame_system::Pallet::<T>::inc_providers(&hot);
        ValidatorIndices::<T>::insert(run_id, &hot, index);
        let validator = Validator {
            hot: hot.clone(),
            cold: cold.clone(),
            stake,
            registered_window: first_window(moment),
            attested_window: None,
            agreement: Q32::ZERO,
            share: Q32::ZERO,
        };
        Validators::<T>::insert(run_id, index, validator);
        Self::deposit_event(Event::ValidatorRegistered { run: run_id, index, hot, cold, stake });
        Ok(index)
    }

    pub(crate) fn do_add_stake(
        who: T::AccountId,
        run_id: RunId,
        index: ValidatorIndex,
        amount: Planck,
    ) -> DispatchResult {
        let mut validator =
            Validators::<T>::get(run_id, index).ok_or(Error::<T>::ValidatorUnknown)?;
        ensure!(validator.cold == who, Error::<T>::NotColdKey);
        let stake = validator.stake.checked_add(amount).ok_or(Error::<T>::StakeTooHigh)?;
        ensure!(stake <= Planck::from(u64::MAX), Error::<T>::StakeTooHigh);
        T::Currency::hold(&HoldReason::ValidatorStake.into(), &who, amount)?;
        validator.stake = stake;
        Validators::<T>::insert(run_id, index, validator);
        Self::deposit_event(Event::StakeAdded { run: run_id, index, stake });
        Ok(())
    }

    pub(crate) fn do_deregister_validator(
        who: T::AccountId,
        run_id: RunId,
        index: ValidatorIndex,
    ) -> DispatchResult {
        let (_, moment) = Self::run_at(run_id)?;
        let validator = Validators::<T>::get(run_id, index).ok_or(Error::<T>::ValidatorUnknown)?;
        ensure!(validator.cold == who, Error::<T>::NotColdKey);
        if let Some(moment) = moment {
            let has_attested = Attestations::<T>::contains_key((run_id, moment.window, index));
            let has_scored = moment
                .window
                .checked_sub(1)
                .is_some_and(|scored| ScoreCommitments::<T>::contains_key((run_id, scored, index)));
            ensure!(!has_attested && !has_scored, Error::<T>::WorkOpen);
        }
        T::Currency::release(
            &HoldReason::ValidatorStake.into(),
            &validator.cold,
            validator.stake,
            Precision::Exact,
        )?;
        frame_system::Pallet::<T>::dec_providers(&validator.hot)?;
        Validators::<T>::remove(run_id, index);
        ValidatorIndices::<T>::remove(run_id, &validator.hot);
        Announcements::<T>::remove(run_id, &validator.hot);
        ValidatorSlots::<T>::mutate(run_id, |slots| slots.release(index));
        Self::deposit_event(Event::ValidatorLeft { run: run_id, index });
        Ok(())
    }
}
