//! Gives validators their slots: whoever has more stake than the lowest of a full table takes its place, and whoever leaves
//! keeps its money, which unbonds.

use frame_support::ensure;
use protocol::{entry::Seat, fixed::Q32, Planck, RunId, ValidatorIndex};
use sp_runtime::{DispatchError, DispatchResult};

use crate::{
    registration::first_window, Bonds, Config, Error, Event, Pallet, RunOf, Validator,
    ValidatorSlots, Validators, VALIDATORS_MAX,
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
        let index = Self::take_validator_slot(run_id, &run, stake)?;
        let pool = Self::open_pool(run_id, &run, &cold, index, stake)?;
        Self::take_hot_key(run_id, Seat::Validator(index), &hot);
        let validator = Validator {
            hot: hot.clone(),
            cold: cold.clone(),
            stake,
            pool,
            registered_window: first_window(moment),
            attested_window: None,
            agreement: Q32::ZERO,
            share: Q32::ZERO,
        };
        Validators::<T>::insert(run_id, index, validator);
        Self::deposit_event(Event::ValidatorRegistered { run: run_id, index, hot, cold, stake });
        Ok(index)
    }

    /// Takes a free slot or, of a full table, that of the validator with the least stake, if `stake` is more. Of several
    /// with the least it is the one of the highest index.
    fn take_validator_slot(
        run_id: RunId,
        run: &RunOf<T>,
        stake: Planck,
    ) -> Result<ValidatorIndex, Error<T>> {
        let free = || ValidatorSlots::<T>::mutate(run_id, |slots| slots.take(VALIDATORS_MAX));
        if let Some(index) = free() {
            return Ok(index);
        }
        let lowest = Validators::<T>::iter_prefix(run_id)
            .map(|(index, validator)| (validator.stake, core::cmp::Reverse(index)))
            .min()
            .filter(|(least, _)| stake > *least);
        let (_, core::cmp::Reverse(index)) = lowest.ok_or(Error::<T>::NoFreeSlot)?;
        Self::deposit_event(Event::ValidatorDisplaced { run: run_id, index });
        Self::remove_validator(run_id, run, index);
        free().ok_or(Error::<T>::Internal)
    }

    pub(crate) fn do_deregister_validator(
        who: T::AccountId,
        run_id: RunId,
        index: ValidatorIndex,
    ) -> DispatchResult {
        let (run, _) = Self::run_at(run_id)?;
        let validator = Validators::<T>::get(run_id, index).ok_or(Error::<T>::ValidatorUnknown)?;
        ensure!(validator.cold == who, Error::<T>::NotColdKey);
        Self::remove_validator(run_id, &run, index);
        Ok(())
    }

    /// Frees a validator's slot. Nothing that its hot key did can prevent it; its stake unbonds and answers for that.
    pub(crate) fn remove_validator(run_id: RunId, run: &RunOf<T>, index: ValidatorIndex) {
        let Some(validator) = Validators::<T>::take(run_id, index) else {
            return;
        };
        Bonds::<T>::remove(run_id, index);
        Self::close_pool(run_id, run, validator.pool);
        Self::leave_seat(run_id, Seat::Validator(index), &validator.hot);
        ValidatorSlots::<T>::mutate(run_id, |slots| slots.release(index));
        Self::deposit_event(Event::ValidatorLeft { run: run_id, index });
    }
}
