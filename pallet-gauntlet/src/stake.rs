//! Keeps the money behind validators: each has a pool of its own stake and its nominators', which pay and slashes reach in
//! one step however many nominators there are. All arithmetic is [`protocol::pool`]'s.
//!
//! A validator's own stake is held on its cold key, what nominators delegate on the pool's account. What is taken out stays
//! held, and slashable, until the window that was fixed when it left.

use frame_support::{
    ensure,
    traits::{
        fungible::{Inspect, Mutate, MutateHold},
        tokens::{Fortitude, Precision, Preservation, Restriction},
        Get,
    },
};
use protocol::{
    emission::Pot,
    pool::{split_pay, Pool, Take, TakeError},
    settings::Staking,
    window::phase_at,
    Planck, RunId, ValidatorIndex, Window,
};
use sp_runtime::{traits::AccountIdConversion, DispatchError, DispatchResult};

use crate::{
    pool_seed, Claims, Config, Delegation, Delegations, Error, Event, HoldReason, NextPoolId,
    Pallet, PoolId, Pools, RunOf, Runs, StakePool, StakePoolOf, Unbonding, Unbondings, ValidatorOf,
    Validators, UNBONDINGS_MAX,
};

impl<T: Config> From<TakeError> for Error<T> {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::TooHigh => Error::TakeTooHigh,
            TakeError::TooFast => Error::TakeTooFast,
            TakeError::Waiting => Error::TakeWaiting,
        }
    }
}

impl<T: Config> Pallet<T> {
    /// The account that holds what nominators delegated to a pool.
    pub fn pool_account(run: RunId, pool: PoolId) -> T::AccountId {
        T::PalletId::get().into_sub_account_truncating(pool_seed(run, pool))
    }

    /// Opens the pool of a validator with its own stake, which is held on `cold`.
    pub(crate) fn open_pool(
        run_id: RunId,
        run: &RunOf<T>,
        cold: &T::AccountId,
        index: ValidatorIndex,
        own: Planck,
    ) -> Result<PoolId, DispatchError> {
        T::Currency::hold(&HoldReason::ValidatorStake.into(), cold, own)?;
        let id = NextPoolId::<T>::get(run_id);
        NextPoolId::<T>::insert(run_id, id.checked_add(1).ok_or(Error::<T>::Internal)?);
        // The account lives on this reference, not on a deposit.
        frame_system::Pallet::<T>::inc_providers(&Self::pool_account(run_id, id));
        let pool = StakePool {
            cold: cold.clone(),
            index: Some(index),
            own,
            delegated: Pool::default(),
            take: Take { ppm: staking_of::<T>(run_id, run)?.take_max_ppm, next: None },
            unbonding: Default::default(),
        };
        Pools::<T>::insert(run_id, id, pool);
        Ok(id)
    }

    /// Makes `to` the owner of a pool: of the validator's own stake, and of what unbonds of it.
    pub(crate) fn hand_over_pool(run_id: RunId, id: PoolId, to: &T::AccountId) -> DispatchResult {
        let mut pool = Pools::<T>::get(run_id, id).ok_or(Error::<T>::PoolUnknown)?;
        let left =
            pool.unbonding.iter().filter_map(|began| Unbondings::<T>::get((run_id, id, began)));
        let own = left.fold(pool.own, |sum, part| sum.saturating_add(part.own));
        Self::move_hold(HoldReason::ValidatorStake, &pool.cold, to, own)?;
        pool.cold = to.clone();
        Pools::<T>::insert(run_id, id, pool);
        Ok(())
    }

    /// Takes all of the validator's own stake out, as it loses its slot; its nominators leave when they like.
    pub(crate) fn close_pool(run_id: RunId, run: &RunOf<T>, id: PoolId) {
        let Some(mut pool) = Pools::<T>::get(run_id, id) else {
            frame_support::defensive!("a validator without pool");
            return;
        };
        let own = pool.own;
        // A slash may have left nothing.
        if own > 0 && Self::unbond_own(run_id, run, id, &mut pool, own).is_err() {
            frame_support::defensive!("`do_unstake` leaves room for the last unbonding");
        }
        pool.index = None;
        Self::write_pool(run_id, id, pool);
        Self::remove_pool_if_empty(run_id, id);
    }

    pub(crate) fn do_add_stake(
        who: T::AccountId,
        run_id: RunId,
        index: ValidatorIndex,
        amount: Planck,
    ) -> DispatchResult {
        let (id, mut pool) = Self::pool_of(run_id, index)?;
        ensure!(pool.cold == who, Error::<T>::NotColdKey);
        pool.own = pool.own.checked_add(amount).ok_or(Error::<T>::StakeTooHigh)?;
        T::Currency::hold(&HoldReason::ValidatorStake.into(), &who, amount)?;
        let stake = Self::write_pool(run_id, id, pool);
        Self::deposit_event(Event::StakeAdded { run: run_id, index, stake });
        Ok(())
    }

    pub(crate) fn do_unstake(
        who: T::AccountId,
        run_id: RunId,
        index: ValidatorIndex,
        amount: Planck,
    ) -> DispatchResult {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let (id, mut pool) = Self::pool_of(run_id, index)?;
        ensure!(pool.cold == who, Error::<T>::NotColdKey);
        let left = pool.own.checked_sub(amount).ok_or(Error::<T>::StakeTooLow)?;
        let settings = Self::current_settings(run_id, &run)?;
        ensure!(left >= settings.incentive.validator_stake_min, Error::<T>::StakeTooLow);
        ensure!(amount > 0, Error::<T>::NothingToUnbond);
        // The last place is for what leaves with the slot.
        let is_room = pool.unbonding.len() < UNBONDINGS_MAX.saturating_sub(1) as usize;
        ensure!(is_room, Error::<T>::TooManyUnbondings);
        let due = Self::unbond_own(run_id, &run, id, &mut pool, amount)?;
        Self::write_pool(run_id, id, pool);
        Self::deposit_event(Event::Unbonding { run: run_id, pool: id, who, amount, due });
        Ok(())
    }

    pub(crate) fn do_delegate(
        who: T::AccountId,
        run_id: RunId,
        index: ValidatorIndex,
        amount: Planck,
    ) -> DispatchResult {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        ensure!(
            amount >= staking_of::<T>(run_id, &run)?.delegation_min,
            Error::<T>::DelegationTooLow
        );
        let (id, _) = Self::pool_of(run_id, index)?;
        // What is due belongs to those who were there before.
        let (mut pool, _) = Self::compounded(run_id, id)?;
        let shares = pool.delegated.join(amount).ok_or(Error::<T>::PoolUnsound)?;
        T::Currency::transfer_and_hold(
            &HoldReason::Delegation.into(),
            &who,
            &Self::pool_account(run_id, id),
            amount,
            Precision::Exact,
            Preservation::Preserve,
            Fortitude::Polite,
        )?;
        Self::write_pool(run_id, id, pool);
        Delegations::<T>::try_mutate((run_id, id, &who), |delegation| {
            let sum = delegation.shares.checked_add(shares).ok_or(Error::<T>::PoolUnsound)?;
            delegation.shares = sum;
            Ok::<(), Error<T>>(())
        })?;
        Self::deposit_event(Event::Delegated { run: run_id, pool: id, who, amount, shares });
        Ok(())
    }

    pub(crate) fn do_undelegate(
        who: T::AccountId,
        run_id: RunId,
        id: PoolId,
        shares: u128,
    ) -> DispatchResult {
        let (mut pool, _) = Self::compounded(run_id, id)?;
        let mut delegation = Delegations::<T>::get((run_id, id, &who));
        ensure!(shares > 0, Error::<T>::NothingToUnbond);
        delegation.shares =
            delegation.shares.checked_sub(shares).ok_or(Error::<T>::TooFewShares)?;
        let amount = pool.delegated.leave(shares).ok_or(Error::<T>::PoolUnsound)?;
        let run = Runs::<T>::get(run_id);
        let (began, due) = Self::unbonding_windows(run_id, run.as_ref());
        if amount > 0 {
            let mut unbonding = Self::unbonding_at(run_id, id, began, due);
            let left = unbonding.delegated.join(amount).ok_or(Error::<T>::PoolUnsound)?;
            Unbondings::<T>::insert((run_id, id, began), unbonding);
            match delegation.unbonding.last_mut().filter(|(window, _)| *window == began) {
                Some((_, shares)) => {
                    *shares = shares.checked_add(left).ok_or(Error::<T>::PoolUnsound)?;
                }
                None => delegation
                    .unbonding
                    .try_push((began, left))
                    .map_err(|_| Error::<T>::TooManyUnbondings)?,
            }
        }
        Self::write_pool(run_id, id, pool);
        Self::write_delegation(run_id, id, &who, delegation);
        Self::deposit_event(Event::Unbonding { run: run_id, pool: id, who, amount, due });
        Self::remove_pool_if_empty(run_id, id);
        Ok(())
    }

    pub(crate) fn do_withdraw_unbonded(
        who: T::AccountId,
        run_id: RunId,
        id: PoolId,
    ) -> DispatchResult {
        let pool = Pools::<T>::get(run_id, id).ok_or(Error::<T>::PoolUnknown)?;
        let now = Self::stake_window(Runs::<T>::get(run_id).as_ref());
        let (mut amount, mut is_due) = Self::withdraw_delegation(run_id, id, &who, now)?;
        if pool.cold == who {
            let (own, is_own_due) = Self::withdraw_own(run_id, id, pool, now)?;
            amount = amount.saturating_add(own);
            is_due = is_due || is_own_due;
        }
        // What was slashed to nothing is taken off the books all the same.
        ensure!(is_due, Error::<T>::NothingUnbonded);
        Self::remove_pool_if_empty(run_id, id);
        Self::deposit_event(Event::Withdrawn { run: run_id, pool: id, who, amount });
        Ok(())
    }

    /// Releases the parts of a validator's own stake that are due; returns their sum, and whether there were any.
    fn withdraw_own(
        run_id: RunId,
        id: PoolId,
        mut pool: StakePoolOf<T>,
        now: Window,
    ) -> Result<(Planck, bool), DispatchError> {
        let mut amount: Planck = 0;
        let parts = pool.unbonding.len();
        pool.unbonding.retain(|began| {
            let key = (run_id, id, *began);
            let Some(unbonding) = Unbondings::<T>::get(key).filter(|found| found.due <= now) else {
                return Unbondings::<T>::contains_key(key);
            };
            amount = amount.saturating_add(unbonding.own);
            Self::write_unbonding(key, Unbonding { own: 0, ..unbonding });
            false
        });
        let cold = pool.cold.clone();
        let is_due = pool.unbonding.len() < parts;
        Pools::<T>::insert(run_id, id, pool);
        T::Currency::release(&HoldReason::ValidatorStake.into(), &cold, amount, Precision::Exact)?;
        Ok((amount, is_due))
    }

    /// Transfers the parts of a delegation that are due to the nominator; returns their sum, and whether there were any.
    fn withdraw_delegation(
        run_id: RunId,
        id: PoolId,
        who: &T::AccountId,
        now: Window,
    ) -> Result<(Planck, bool), DispatchError> {
        let mut delegation = Delegations::<T>::get((run_id, id, who));
        let mut amount: Planck = 0;
        let parts = delegation.unbonding.len();
        delegation.unbonding.retain(|(began, shares)| {
            let key = (run_id, id, *began);
            let Some(mut unbonding) = Unbondings::<T>::get(key).filter(|found| found.due <= now)
            else {
                return Unbondings::<T>::contains_key(key);
            };
            amount = amount.saturating_add(unbonding.delegated.leave(*shares).unwrap_or(0));
            Self::write_unbonding(key, unbonding);
            false
        });
        let is_due = delegation.unbonding.len() < parts;
        Self::write_delegation(run_id, id, who, delegation);
        if amount > 0 {
            T::Currency::transfer_on_hold(
                &HoldReason::Delegation.into(),
                &Self::pool_account(run_id, id),
                who,
                amount,
                Precision::Exact,
                Restriction::Free,
                Fortitude::Polite,
            )?;
        }
        Ok((amount, is_due))
    }

    pub(crate) fn do_set_take(
        who: T::AccountId,
        run_id: RunId,
        index: ValidatorIndex,
        ppm: u32,
    ) -> DispatchResult {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let (id, mut pool) = Self::pool_of(run_id, index)?;
        ensure!(pool.cold == who, Error::<T>::NotColdKey);
        let window = Self::stake_window(Some(&run));
        pool.take = pool
            .take
            .changed(ppm, window, &staking_of::<T>(run_id, &run)?)
            .map_err(Error::<T>::from)?;
        let from = pool.take.next.map_or(window, |(from, _)| from);
        Pools::<T>::insert(run_id, id, pool);
        Self::deposit_event(Event::TakeSet { run: run_id, pool: id, ppm, window: from });
        Ok(())
    }

    pub(crate) fn do_compound(run_id: RunId, id: PoolId) -> DispatchResult {
        let (pool, amount) = Self::compounded(run_id, id)?;
        ensure!(amount > 0, Error::<T>::NothingClaimable);
        Self::write_pool(run_id, id, pool);
        Self::remove_pool_if_empty(run_id, id);
        Self::deposit_event(Event::Compounded { run: run_id, pool: id, amount });
        Ok(())
    }

    /// A pool after what is due to its nominators, and whatever else was sent to its account, is held for them; and how much
    /// that was. Of a pool without nominators it goes to the validator. Not yet stored.
    fn compounded(run_id: RunId, id: PoolId) -> Result<(StakePoolOf<T>, Planck), DispatchError> {
        let mut pool = Pools::<T>::get(run_id, id).ok_or(Error::<T>::PoolUnknown)?;
        let account = Self::pool_account(run_id, id);
        // Nothing may be due, or the run may be gone.
        let _ = Self::do_claim(run_id, account.clone());
        let free =
            T::Currency::reducible_balance(&account, Preservation::Protect, Fortitude::Force);
        if free > 0 {
            if pool.delegated.pay(free).is_some() {
                T::Currency::hold(&HoldReason::Delegation.into(), &account, free)?;
            } else {
                T::Currency::transfer(&account, &pool.cold, free, Preservation::Expendable)?;
            }
        }
        Ok((pool, free))
    }

    /// Credits a validator's pay for `window`: its own part to its cold key, its nominators' to the pool's account. Returns
    /// what was credited.
    pub(crate) fn pay_validator(
        run_id: RunId,
        (window, due): (Window, Window),
        index: ValidatorIndex,
        cold: &T::AccountId,
        amount: Planck,
    ) -> Planck {
        let found = Self::pool_of(run_id, index).ok().filter(|(_, pool)| pool.cold == *cold);
        let split = found.and_then(|(id, pool)| {
            let Pool { amount: delegated, .. } = pool.delegated;
            Some((id, split_pay(amount, pool.own, delegated, pool.take.at(window))?))
        });
        let Some((id, split)) = split else {
            return Self::credit(run_id, Pot::Validators, due, cold, amount);
        };
        let account = Self::pool_account(run_id, id);
        let validator = Self::credit(run_id, Pot::Validators, due, cold, split.validator);
        let nominators = Self::credit(run_id, Pot::Validators, due, &account, split.nominators);
        validator.saturating_add(nominators)
    }

    /// The validator's pool.
    pub(crate) fn pool_of(
        run_id: RunId,
        index: ValidatorIndex,
    ) -> Result<(PoolId, StakePoolOf<T>), Error<T>> {
        let validator: ValidatorOf<T> =
            Validators::<T>::get(run_id, index).ok_or(Error::<T>::ValidatorUnknown)?;
        let pool = Pools::<T>::get(run_id, validator.pool).ok_or(Error::<T>::Internal)?;
        Ok((validator.pool, pool))
    }

    /// The current window of a run. Of a run that is gone it is past every other, so that nobody's money stays there.
    pub(crate) fn stake_window(run: Option<&RunOf<T>>) -> Window {
        run.map_or(Window::MAX, |run| {
            phase_at(&run.schedule, Self::now()).map_or(0, |moment| moment.window)
        })
    }

    /// The window in which money that leaves now does so, and the one in which it can be withdrawn.
    fn unbonding_windows(run_id: RunId, run: Option<&RunOf<T>>) -> (Window, Window) {
        let began = Self::stake_window(run);
        let staking = run.and_then(|run| staking_of::<T>(run_id, run).ok());
        let wait = staking.map_or(0, |staking| staking.unbonding_windows);
        (began, began.saturating_add(Window::from(wait)))
    }

    /// What has left a pool in window `began` so far.
    fn unbonding_at(run_id: RunId, id: PoolId, began: Window, due: Window) -> Unbonding {
        let nothing = Unbonding { due, own: 0, delegated: Pool::default() };
        Unbondings::<T>::get((run_id, id, began)).unwrap_or(nothing)
    }

    /// Moves `amount` of a validator's own stake to what unbonds; returns when it is due.
    fn unbond_own(
        run_id: RunId,
        run: &RunOf<T>,
        id: PoolId,
        pool: &mut StakePoolOf<T>,
        amount: Planck,
    ) -> Result<Window, Error<T>> {
        let (began, due) = Self::unbonding_windows(run_id, Some(run));
        if pool.unbonding.last() != Some(&began) {
            pool.unbonding.try_push(began).map_err(|_| Error::<T>::TooManyUnbondings)?;
        }
        let mut unbonding = Self::unbonding_at(run_id, id, began, due);
        pool.own = pool.own.checked_sub(amount).ok_or(Error::<T>::StakeTooLow)?;
        unbonding.own = unbonding.own.checked_add(amount).ok_or(Error::<T>::StakeTooHigh)?;
        Unbondings::<T>::insert((run_id, id, began), unbonding);
        Ok(due)
    }

    /// Stores a pool, and its sum as its validator's stake. Returns the sum.
    pub(crate) fn write_pool(run_id: RunId, id: PoolId, pool: StakePoolOf<T>) -> Planck {
        // Neither is more than all money.
        let stake = pool.own.saturating_add(pool.delegated.amount);
        if let Some(index) = pool.index {
            Validators::<T>::mutate(run_id, index, |validator| {
                if let Some(validator) = validator {
                    validator.stake = stake;
                }
            });
        }
        Pools::<T>::insert(run_id, id, pool);
        stake
    }

    /// Stores what unbonds, if there is anything.
    pub(crate) fn write_unbonding(key: (RunId, PoolId, Window), unbonding: Unbonding) {
        if unbonding.own == 0 && unbonding.delegated.shares == 0 {
            Unbondings::<T>::remove(key);
        } else {
            Unbondings::<T>::insert(key, unbonding);
        }
    }

    fn write_delegation(run_id: RunId, id: PoolId, who: &T::AccountId, delegation: Delegation) {
        let key = (run_id, id, who);
        if delegation == Delegation::default() {
            Delegations::<T>::remove(key);
        } else {
            Delegations::<T>::insert(key, delegation);
        }
    }

    /// Removes the pool of a validator that has left, once nobody has money in it.
    pub(crate) fn remove_pool_if_empty(run_id: RunId, id: PoolId) {
        let is_over =
            Pools::<T>::get(run_id, id).is_some_and(|pool| Self::is_pool_over(run_id, id, &pool));
        if !is_over {
            return;
        }
        Pools::<T>::remove(run_id, id);
        // It has no consumer: all that it held is gone.
        let _ = frame_system::Pallet::<T>::dec_providers(&Self::pool_account(run_id, id));
    }

    /// Whether nobody has money in a pool, nor is anybody going to.
    pub(crate) fn is_pool_over(run_id: RunId, id: PoolId, pool: &StakePoolOf<T>) -> bool {
        let is_empty = pool.index.is_none()
            && pool.own == 0
            && pool.unbonding.is_empty()
            && pool.delegated.shares == 0;
        let account = Self::pool_account(run_id, id);
        is_empty
            && !Claims::<T>::contains_key(run_id, &account)
            && Unbondings::<T>::iter_key_prefix((run_id, id)).next().is_none()
            && T::Currency::total_balance(&account) == 0
    }

    /// The money held of an account for `reason`.
    #[cfg(any(feature = "try-runtime", test))]
    pub(crate) fn held(reason: HoldReason, who: &T::AccountId) -> Planck {
        use frame_support::traits::fungible::InspectHold;
        T::Currency::balance_on_hold(&reason.into(), who)
    }
}

/// The settings of a run that concern its validators' money.
pub(crate) fn staking_of<T: Config>(run_id: RunId, run: &RunOf<T>) -> Result<Staking, Error<T>> {
    Ok(Pallet::<T>::current_settings(run_id, run)?.staking)
}
