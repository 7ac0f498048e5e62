//! Takes money for proven faults: half of it goes to the reporter, half is burned, so that nobody gains by reporting itself.
//! Who has too little left to answer for a further fault loses its slot.
//!
//! A slash waits for [`Config::SlashDelayWindows`] windows, in which the chain's governance can cancel it. What answers for a
//! fault unbonds for longer than that, so that nothing escapes meanwhile.

use alloc::vec::Vec;

use frame_support::{
    ensure,
    traits::{
        fungible::{Balanced, BalancedHold, Credit},
        Get, Imbalance,
    },
    weights::WeightMeter,
};
use protocol::{
    fault::{miner_slash, reporter_part},
    pool::divide_slash,
    Planck, RunId, Uid, Window,
};
use sp_runtime::DispatchResult;

use crate::{
    work::Step, Config, Departures, Error, Event, HoldReason, MinerOf, Miners, Offender, Pallet,
    PoolId, Pools, Runs, SlashQueues, StakePoolOf, UnappliedSlash, UnappliedSlashOf,
    UnappliedSlashes, Unbonding, Unbondings, WeightInfo,
};

impl<T: Config> Pallet<T> {
    /// Puts a slash for a fault of `window` into the queue.
    pub(crate) fn defer_slash(
        run_id: RunId,
        offender: Offender,
        window: Window,
        amount: Planck,
        reporter: Option<T::AccountId>,
    ) {
        let now = Self::stake_window(Runs::<T>::get(run_id).as_ref());
        let due = now.saturating_add(T::SlashDelayWindows::get());
        let mut queue = SlashQueues::<T>::get(run_id);
        let slash = UnappliedSlash { offender, window, amount, reporter, due };
        UnappliedSlashes::<T>::insert(run_id, queue.end, slash);
        Self::deposit_event(Event::SlashDeferred {
            run: run_id,
            slash: queue.end,
            offender,
            amount,
            window: due,
        });
        // A run would need 2^32 proven faults.
        queue.end = queue.end.saturating_add(1);
        SlashQueues::<T>::insert(run_id, queue);
        Self::enqueue(run_id);
    }

    pub(crate) fn do_cancel_slash(run_id: RunId, slash: u32) -> DispatchResult {
        ensure!(UnappliedSlashes::<T>::take(run_id, slash).is_some(), Error::<T>::SlashUnknown);
        Self::deposit_event(Event::SlashCancelled { run: run_id, slash });
        Ok(())
    }

    /// Applies the next slash of a run, if it is due.
    pub(crate) fn slash_step(run_id: RunId, meter: &mut WeightMeter) -> Step {
        if meter.try_consume(T::WeightInfo::look_at_run()).is_err() {
            return Step::NoRoom;
        }
        let mut queue = SlashQueues::<T>::get(run_id);
        if queue.next == queue.end {
            return Step::Nothing;
        }
        let slash: Option<UnappliedSlashOf<T>> = UnappliedSlashes::<T>::get(run_id, queue.next);
        let now = Self::stake_window(Runs::<T>::get(run_id).as_ref());
        let is_due = slash.as_ref().is_none_or(|slash| slash.due <= now);
        if !is_due {
            return Step::Nothing;
        }
        // Its benchmark takes from a pool; a miner may have to leave, as by the call.
        let weight = T::WeightInfo::apply_slash().saturating_add(T::WeightInfo::leave_miner());
        if meter.try_consume(weight).is_err() {
            return Step::NoRoom;
        }
        if let Some(slash) = slash {
            UnappliedSlashes::<T>::remove(run_id, queue.next);
            Self::apply_slash(run_id, queue.next, slash);
        }
        queue.next = queue.next.saturating_add(1);
        SlashQueues::<T>::insert(run_id, queue);
        Step::Taken
    }

    /// Takes the money of a slash.
    pub(crate) fn apply_slash(run_id: RunId, number: u32, slash: UnappliedSlashOf<T>) {
        let reporter = slash.reporter.as_ref();
        let taken = match slash.offender {
            Offender::Miner { uid, registered_window } => {
                Self::slash_miner(run_id, (uid, registered_window), slash.amount, reporter)
            }
            Offender::Pool(id) => {
                Self::slash_pool(run_id, id, slash.window, slash.amount, reporter)
            }
        };
        Self::deposit_event(Event::Slashed {
            run: run_id,
            slash: number,
            offender: slash.offender,
            amount: taken,
            reporter: slash.reporter,
        });
    }

    /// Takes up to `amount` of the bond of the miner that has, or had, a slot since a window; returns what was taken. The bond
    /// of one that is gone answers as long as it waits.
    pub(crate) fn slash_miner(
        run_id: RunId,
        (uid, registered_window): (Uid, Window),
        amount: Planck,
        reporter: Option<&T::AccountId>,
    ) -> Planck {
        let is_same = |miner: &MinerOf<T>| miner.registered_window == registered_window;
        if let Some(mut miner) = Miners::<T>::get(run_id, uid).filter(is_same) {
            let taken = Self::slash_bond(&miner.cold, miner.bond.min(amount), reporter);
            miner.bond = miner.bond.saturating_sub(taken);
            Miners::<T>::insert(run_id, uid, &miner);
            Self::expel_unbonded(run_id, uid, miner);
            return taken;
        }
        let key = (uid, registered_window);
        let Some(mut departure) = Departures::<T>::get(run_id, key) else {
            return 0;
        };
        let taken = Self::slash_bond(&departure.cold, departure.bond.min(amount), reporter);
        departure.bond = departure.bond.saturating_sub(taken);
        Departures::<T>::insert(run_id, key, departure);
        taken
    }

    /// Makes a miner leave whose bond no longer pays for one more fault.
    fn expel_unbonded(run_id: RunId, uid: Uid, miner: MinerOf<T>) {
        let Some(run) = Runs::<T>::get(run_id) else {
            return;
        };
        let Ok(settings) = Self::current_settings(run_id, &run) else {
            return;
        };
        let least = miner_slash(&settings.disputes, settings.incentive.miner_bond);
        if miner.bond < least && miner.last_window.is_none() {
            // It fails where more changes wait than there are seats, which there cannot be.
            let _ = Self::begin_leaving(run_id, &run, uid, miner);
        }
    }

    /// Takes `amount` of the bonds that are held of an account; returns what was taken.
    fn slash_bond(cold: &T::AccountId, amount: Planck, reporter: Option<&T::AccountId>) -> Planck {
        let (credit, missing) = T::Currency::slash(&HoldReason::MinerBond.into(), cold, amount);
        Self::divide_credit(credit, reporter);
        amount.saturating_sub(missing)
    }

    /// Takes up to `amount` of what answers for a fault of `window`: the validator's own stake, what is delegated to it, and
    /// what of both has left since then, in proportion. A validator left with less than the least stake loses its slot.
    pub(crate) fn slash_pool(
        run_id: RunId,
        id: PoolId,
        window: Window,
        amount: Planck,
        reporter: Option<&T::AccountId>,
    ) -> Planck {
        let Some(mut pool) = Pools::<T>::get(run_id, id) else {
            return 0;
        };
        let mut unbondings = Self::unbonding_since(run_id, id, window);
        let mut parts = Vec::from([pool.own, pool.delegated.amount]);
        for (_, unbonding) in &unbondings {
            parts.extend([unbonding.own, unbonding.delegated.amount]);
        }
        let Some(taken) = divide_slash(amount, &parts) else {
            frame_support::defensive!("more stake than there is money");
            return 0;
        };
        let mut taken = taken.into_iter();
        let (mut own, mut delegated): (Planck, Planck) = (0, 0);
        let mut take_from = |own_stake: &mut Planck, shared: &mut protocol::pool::Pool| {
            let part = taken.next().unwrap_or(0);
            *own_stake = own_stake.saturating_sub(part);
            own = own.saturating_add(part);
            delegated = delegated.saturating_add(shared.slash(taken.next().unwrap_or(0)));
        };
        take_from(&mut pool.own, &mut pool.delegated);
        for (began, mut unbonding) in unbondings.drain(..) {
            take_from(&mut unbonding.own, &mut unbonding.delegated);
            if unbonding.own == 0 {
                pool.unbonding.retain(|left| *left != began);
            }
            Self::write_unbonding((run_id, id, began), unbonding);
        }
        let credit = Self::take_held(HoldReason::ValidatorStake, &pool.cold, own).merge(
            Self::take_held(HoldReason::Delegation, &Self::pool_account(run_id, id), delegated),
        );
        Self::divide_credit(credit, reporter);
        Self::write_slashed_pool(run_id, id, pool);
        own.saturating_add(delegated)
    }

    /// Stores a pool after a slash. Its validator loses its slot if too little of its own is left, and a pool of nothing goes.
    fn write_slashed_pool(run_id: RunId, id: PoolId, pool: StakePoolOf<T>) {
        let index = pool.index;
        let own = pool.own;
        Self::write_pool(run_id, id, pool);
        if let (Some(run), Some(index)) = (Runs::<T>::get(run_id), index) {
            let least = Self::settings_in_force(run_id)
                .map(|settings| settings.incentive.validator_stake_min);
            if least.is_some_and(|least| own < least) {
                Self::remove_validator(run_id, &run, index);
            }
        }
        Self::remove_pool_if_empty(run_id, id);
    }

    /// What left a pool in `window` or later, by window.
    pub(crate) fn unbonding_since(
        run_id: RunId,
        id: PoolId,
        window: Window,
    ) -> Vec<(Window, Unbonding)> {
        let now = Self::stake_window(Runs::<T>::get(run_id).as_ref());
        // No fault is older than the chain lets it be reported.
        let first = window.max(now.saturating_sub(T::DisputeWindows::get()));
        (first..=now)
            .filter_map(|began| Some((began, Unbondings::<T>::get((run_id, id, began))?)))
            .collect()
    }

    fn take_held(
        reason: HoldReason,
        who: &T::AccountId,
        amount: Planck,
    ) -> Credit<T::AccountId, T::Currency> {
        let (credit, missing) = T::Currency::slash(&reason.into(), who, amount);
        frame_support::defensive_assert!(missing == 0, "the books name more than is held");
        credit
    }

    /// Gives half of a credit to the reporter, rounded down, and burns the rest; all of it without a reporter, or if the half
    /// cannot open its account.
    pub(crate) fn divide_credit(
        credit: Credit<T::AccountId, T::Currency>,
        reporter: Option<&T::AccountId>,
    ) {
        let Some(reporter) = reporter else {
            return;
        };
        let part = reporter_part(credit.peek());
        let (reward, _burned) = credit.split(part);
        // What cannot be paid out is burned as well: a dropped credit leaves the issuance.
        let _ = T::Currency::resolve(reporter, reward);
    }
}
