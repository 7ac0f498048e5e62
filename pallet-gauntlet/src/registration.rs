//! Handles the calls with which miners come, go and are removed, and their bonds.
//!
//! Joining burns a price that rises with each join and falls with time; a bond is held beside it. A miner leaves by a
//! request that nothing can refuse: it takes no part after the open window, its slot becomes free when that window is
//! settled, and its bond waits in [`Departures`] as long as somebody may still prove a fault. When every slot is taken, a
//! newcomer displaces the miner of the least standing that is not immune; one that does nothing can be removed by anybody.

use frame_support::{
    ensure,
    traits::{
        fungible::{Mutate, MutateHold},
        tokens::{Fortitude, Precision, Preservation},
        Get,
    },
};
use protocol::{
    books::takes_part,
    consensus::Standing,
    entry::{entry_price, is_idle, victim, EntryPrice, Holder, Seat},
    fixed::Q32,
    settings::{Entry, Settings},
    window::Moment,
    Planck, RunId, Uid, Window,
};
use sp_runtime::{traits::Zero, DispatchError, DispatchResult};

use crate::{
    Change, Config, CoolingKeys, Departure, Departures, EntryPrices, Error, Event, HoldReason,
    Miner, MinerOf, MinerSlots, Miners, Pallet, RunOf, Runs, Windows,
};

/// Windows after its last one in which a miner's slot becomes free: that one is scored in the next and settled then.
const LEAVE_AFTER: Window = 2;

impl<T: Config> Pallet<T> {
    pub(crate) fn do_register_miner(
        cold: T::AccountId,
        run_id: RunId,
        hot: T::AccountId,
        max_price: Planck,
    ) -> Result<Uid, DispatchError> {
        let (run, moment) = Self::run_at(run_id)?;
        Self::ensure_takes_participants(&run)?;
        Self::ensure_hot_key_free(run_id, &hot)?;
        let settings = Self::current_settings(run_id, &run)?;
        Self::ensure_not_cooling(run_id, &hot)?;
        Self::ensure_not_cooling(run_id, &cold)?;
        let uid = Self::take_slot(run_id, &run, &settings, window_of(moment))?;
        let price = Self::pay_entry(run_id, &settings.entry, &cold, max_price)?;
        let bond = settings.incentive.miner_bond;
        T::Currency::hold(&HoldReason::MinerBond.into(), &cold, bond)?;
        Self::take_hot_key(run_id, Seat::Miner(uid), &hot);
        let miner = Miner {
            hot: hot.clone(),
            cold: cold.clone(),
            bond,
            registered_window: first_window(moment),
            committed_window: None,
            last_window: None,
            standing: Standing::default(),
            value: Q32::ZERO,
            share: Q32::ZERO,
        };
        Miners::<T>::insert(run_id, uid, miner);
        Self::deposit_event(Event::MinerRegistered { run: run_id, uid, hot, cold, price });
        Ok(uid)
    }

    /// Takes the lowest free slot, or that of the miner that has to make room.
    fn take_slot(
        run_id: RunId,
        run: &RunOf<T>,
        settings: &Settings,
        window: Window,
    ) -> Result<Uid, Error<T>> {
        let limit = u32::from(settings.incentive.uid_max);
        if let Some(uid) = MinerSlots::<T>::mutate(run_id, |slots| slots.take(limit)) {
            return Ok(uid);
        }
        let holders = Miners::<T>::iter_prefix(run_id).map(|(uid, miner)| Holder {
            uid,
            value: miner.value,
            registered_window: miner.registered_window,
            is_leaving: miner.last_window.is_some(),
        });
        let uid = victim(holders, window, &settings.entry).ok_or(Error::<T>::NoFreeSlot)?;
        let miner = Miners::<T>::get(run_id, uid).ok_or(Error::<T>::Internal)?;
        Self::deposit_event(Event::MinerDisplaced { run: run_id, uid, value: miner.value });
        Self::remove_miner(run_id, uid, miner, run.window, settings);
        MinerSlots::<T>::mutate(run_id, |slots| slots.take(limit)).ok_or(Error::<T>::Internal)
    }

    /// How many miners a registration looks at: all of them, if no slot is free.
    pub(crate) fn searched_for_slot(run_id: RunId) -> u32 {
        let taken = MinerSlots::<T>::get(run_id).count();
        let limit =
            Self::settings_in_force(run_id).map(|settings| u32::from(settings.incentive.uid_max));
        if limit.is_some_and(|limit| taken >= limit) {
            taken
        } else {
            0
        }
    }

    /// Burns the price of joining and raises it for the next miner.
    fn pay_entry(
        run_id: RunId,
        entry: &Entry,
        cold: &T::AccountId,
        max_price: Planck,
    ) -> Result<Planck, DispatchError> {
        let block = Self::now();
        let price = entry_price(EntryPrices::<T>::get(run_id), block, entry);
        ensure!(price <= max_price, Error::<T>::PriceTooHigh);
        T::Currency::burn_from(
            cold,
            price,
            Preservation::Preserve,
            Precision::Exact,
            Fortitude::Polite,
        )?;
        EntryPrices::<T>::insert(run_id, EntryPrice::after_join(price, block, entry));
        Ok(price)
    }

    pub(crate) fn do_leave_miner(who: T::AccountId, run_id: RunId, uid: Uid) -> DispatchResult {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let miner = Miners::<T>::get(run_id, uid).ok_or(Error::<T>::MinerUnknown)?;
        ensure!(miner.cold == who, Error::<T>::NotColdKey);
        ensure!(miner.last_window.is_none(), Error::<T>::LeavingAlready);
        Self::begin_leaving(run_id, &run, uid, miner)
    }

    /// Takes `miner` out of the run: after the open window, or at once if it takes no part yet or the last window that was
    /// opened is settled.
    pub(crate) fn begin_leaving(
        run_id: RunId,
        run: &RunOf<T>,
        uid: Uid,
        mut miner: MinerOf<T>,
    ) -> DispatchResult {
        let is_open = |window: &Window| {
            takes_part(miner.registered_window, *window) && *window >= run.next_settlement
        };
        let Some(window) = run.window.filter(is_open) else {
            let settings = Self::current_settings(run_id, run)?;
            Self::remove_miner(run_id, uid, miner, run.window, &settings);
            return Ok(());
        };
        Self::schedule_change(run_id, window.saturating_add(LEAVE_AFTER), Change::Leave(uid))?;
        miner.last_window = Some(window);
        Miners::<T>::insert(run_id, uid, miner);
        Self::deposit_event(Event::MinerLeaving { run: run_id, uid, last_window: window });
        Ok(())
    }

    /// Frees the slot of a miner that asked to leave, if its last window is settled; returns whether it is done with.
    pub(crate) fn finish_leaving(run_id: RunId, uid: Uid, window: Window) -> bool {
        let Some((run, miner)) = Runs::<T>::get(run_id).zip(Miners::<T>::get(run_id, uid)) else {
            return true;
        };
        let Some(last) = miner.last_window else {
            // The slot's new holder did not ask.
            return true;
        };
        let is_settled = last < run.next_settlement;
        if let Some(settings) = Self::settings_in_force(run_id).filter(|_| is_settled) {
            Self::remove_miner(run_id, uid, miner, Some(last), &settings);
        }
        is_settled || last.saturating_add(LEAVE_AFTER) > window
    }

    pub(crate) fn do_evict(run_id: RunId, uid: Uid) -> DispatchResult {
        let (run, moment) = Self::run_at(run_id)?;
        let miner = Miners::<T>::get(run_id, uid).ok_or(Error::<T>::MinerUnknown)?;
        let window = window_of(moment);
        let settings = Self::current_settings(run_id, &run)?;
        let entry = &settings.entry;
        ensure!(
            is_idle(miner.committed_window, miner.registered_window, window, entry),
            Error::<T>::NotIdle
        );
        let could_work = Self::were_undisturbed(run_id, window, entry.idle_windows.into());
        ensure!(could_work, Error::<T>::NotIdle);
        Self::deposit_event(Event::MinerEvicted { run: run_id, uid });
        Self::remove_miner(run_id, uid, miner, run.window, &settings);
        Ok(())
    }

    /// Whether nothing is to be excused in the last `count` windows before `window`, of those that are kept.
    fn were_undisturbed(run_id: RunId, window: Window, count: Window) -> bool {
        let first = window.saturating_sub(count.min(T::HistoryWindows::get()));
        let is_undisturbed =
            |window| Windows::<T>::get(run_id, window).is_some_and(|record| !record.excused);
        (first..window).all(is_undisturbed)
    }

    /// Frees the slot and the keys of a miner. `last` is the last window that was opened, or in which it takes part: its bond
    /// goes back `unbonding_windows` later, and at once if it has taken part in nothing that anybody could dispute.
    pub(crate) fn remove_miner(
        run_id: RunId,
        uid: Uid,
        miner: MinerOf<T>,
        last: Option<Window>,
        settings: &Settings,
    ) {
        let registered_window = miner.registered_window;
        let last = last.filter(|last| takes_part(registered_window, *last));
        let wait = u64::from(settings.staking.unbonding_windows);
        let end = last.map(|last| (last, last.saturating_add(wait)));
        let due = end.map(|(_, due)| due);
        Miners::<T>::remove(run_id, uid);
        MinerSlots::<T>::mutate(run_id, |slots| slots.release(uid));
        Self::leave_seat(run_id, Seat::Miner(uid), &miner.hot);
        Self::deposit_event(Event::MinerLeft { run: run_id, uid, registered_window, due });
        let Miner { hot, cold, bond, .. } = miner;
        match end {
            Some((last, due)) => {
                for key in [&hot, &cold] {
                    CoolingKeys::<T>::mutate(run_id, key, |count| *count = count.saturating_add(1));
                }
                let departure = Departure { hot, cold, bond, last, due };
                Departures::<T>::insert(run_id, (uid, registered_window), departure);
            }
            None => Self::return_bond(run_id, uid, cold, bond),
        }
    }

    pub(crate) fn do_withdraw_bond(
        run_id: RunId,
        uid: Uid,
        registered_window: Window,
    ) -> DispatchResult {
        let key = (uid, registered_window);
        let departure = Departures::<T>::get(run_id, key).ok_or(Error::<T>::NoBond)?;
        // Of a run that is gone nothing can be disputed.
        let is_due = match Self::run_at(run_id) {
            Ok((_, moment)) => departure.due <= window_of(moment),
            Err(_) => true,
        };
        ensure!(is_due, Error::<T>::BondNotDue);
        let Departure { hot, cold, bond, .. } = departure;
        Departures::<T>::remove(run_id, key);
        for key in [&hot, &cold] {
            CoolingKeys::<T>::mutate_exists(run_id, key, |count| {
                *count =
                    count.and_then(|count| count.checked_sub(1)).filter(|count| !count.is_zero());
            });
        }
        Self::return_bond(run_id, uid, cold, bond);
        Ok(())
    }

    /// Checks that no bond of a miner that is gone waits under a key, hot or cold.
    pub(crate) fn ensure_not_cooling(run_id: RunId, key: &T::AccountId) -> Result<(), Error<T>> {
        ensure!(!CoolingKeys::<T>::contains_key(run_id, key), Error::<T>::CoolingOff);
        Ok(())
    }

    fn return_bond(run_id: RunId, uid: Uid, cold: T::AccountId, amount: Planck) {
        let released = T::Currency::release(
            &HoldReason::MinerBond.into(),
            &cold,
            amount,
            Precision::BestEffort,
        );
        frame_support::defensive_assert!(released == Ok(amount), "a bond was not held");
        Self::deposit_event(Event::BondReturned { run: run_id, uid, cold, amount });
    }

    /// What joining the run costs now; `None` for an unknown run.
    pub(crate) fn view_next_price(run_id: RunId) -> Option<Planck> {
        let settings = Self::settings_in_force(run_id)?;
        Some(entry_price(EntryPrices::<T>::get(run_id), Self::now(), &settings.entry))
    }
}

/// The first window of a participant that registers now: the next one, or window 0 before the run's first block.
pub(crate) fn first_window(moment: Option<Moment>) -> Window {
    moment.map_or(0, |moment| moment.window.saturating_add(1))
}

/// The current window; 0 before the run's first block.
pub(crate) fn window_of(moment: Option<Moment>) -> Window {
    moment.map_or(0, |moment| moment.window)
}
