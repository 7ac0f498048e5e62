//! Handles the calls that pause, resume and close a run and hand it over: its owner's after the announced delay, the
//! governance's from the next window on.

use frame_support::{
    ensure,
    traits::{fungible::MutateHold, tokens::Precision, EnsureOrigin, Get},
};
use frame_system::{ensure_signed, pallet_prelude::OriginFor};
use protocol::{window::Moment, RunId, Window};
use sp_runtime::{DispatchError, DispatchResult};

use crate::{
    Config, Error, Event, HoldReason, Offer, Pallet, PendingSettings, RunOf, RunOffers, RunStatus,
    Runs, ScheduledSettings,
};

/// Who decides about a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    /// Its owner, whose changes are announced.
    Owner,
    /// The chain's governance.
    Admin,
}

impl Manager {
    /// The first window that a decision of now concerns; window 0 before the run's first block.
    fn first_window<T: Config>(self, moment: Option<Moment>) -> Window {
        let delay = match self {
            Self::Owner => T::AdminDelayWindows::get(),
            Self::Admin => 1,
        };
        moment.map_or(0, |moment| moment.window.saturating_add(delay))
    }
}

impl<T: Config> Pallet<T> {
    /// Lets the run's owner and the governance through.
    pub(crate) fn ensure_manager(
        origin: OriginFor<T>,
        run: &RunOf<T>,
    ) -> Result<Manager, DispatchError> {
        let origin = match T::AdminOrigin::try_origin(origin) {
            Ok(_) => return Ok(Manager::Admin),
            Err(origin) => origin,
        };
        ensure!(ensure_signed(origin)? == run.owner, Error::<T>::NotOwner);
        Ok(Manager::Owner)
    }

    pub(crate) fn do_pause_run(origin: OriginFor<T>, run_id: RunId) -> DispatchResult {
        let (mut run, moment) = Self::run_at(run_id)?;
        Self::ensure_not_closed(&run)?;
        match Self::ensure_manager(origin, &run)? {
            Manager::Admin => {
                run.status = RunStatus::Paused { by_admin: true };
                run.pause_from = None;
                // Whose work of now is cut off is not to blame.
                if let Some(moment) = moment {
                    Self::excuse(run_id, moment.window);
                    if let Some(before) = moment.window.checked_sub(1) {
                        Self::excuse(run_id, before);
                    }
                }
                let window = moment.map_or(0, |moment| moment.window);
                Self::deposit_event(Event::RunPaused { run: run_id, window });
            }
            manager @ Manager::Owner => {
                ensure!(!is_paused(&run), Error::<T>::RunPaused);
                let window = manager.first_window::<T>(moment);
                run.pause_from = Some(window);
                Self::deposit_event(Event::RunPauseAnnounced { run: run_id, window });
            }
        }
        Runs::<T>::insert(run_id, run);
        Ok(())
    }

    pub(crate) fn do_resume_run(origin: OriginFor<T>, run_id: RunId) -> DispatchResult {
        let mut run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let manager = Self::ensure_manager(origin, &run)?;
        ensure!(is_paused(&run) || run.pause_from.is_some(), Error::<T>::RunNotPaused);
        ensure!(manager == Manager::Admin || !is_paused_by_admin(&run), Error::<T>::PausedByAdmin);
        run.pause_from = None;
        if is_paused_by_admin(&run) {
            // It has as long as ever to accept something.
            run.active_window = run.window.unwrap_or(0);
        }
        if is_paused(&run) {
            run.status = run.window.map_or(RunStatus::Waiting, |_| RunStatus::Open);
        }
        Runs::<T>::insert(run_id, run);
        Self::deposit_event(Event::RunResumed { run: run_id });
        Ok(())
    }

    /// Pauses a run whose announced pause has come; called when a window opens.
    pub(crate) fn begin_pause(run_id: RunId, run: &mut RunOf<T>, window: Window) {
        if run.pause_from.is_some_and(|from| from <= window) {
            run.pause_from = None;
            run.status = RunStatus::Paused { by_admin: false };
            Self::deposit_event(Event::RunPaused { run: run_id, window });
        }
    }

    pub(crate) fn do_close_run(origin: OriginFor<T>, run_id: RunId) -> DispatchResult {
        let (mut run, moment) = Self::run_at(run_id)?;
        Self::ensure_not_closed(&run)?;
        let manager = if Self::is_idle(&run, moment) {
            // Anybody may, as if it were the governance. No origin but a signed one or root gets here.
            T::AdminOrigin::try_origin(origin)
                .map(|_| ())
                .or_else(|origin| ensure_signed(origin).map(|_| ()))?;
            Manager::Admin
        } else {
            Self::ensure_manager(origin, &run)?
        };
        let first_closed = manager.first_window::<T>(moment);
        match first_closed.checked_sub(1) {
            Some(last) => {
                let is_earlier = run.last_window.is_none_or(|announced| last < announced);
                ensure!(is_earlier, Error::<T>::RunClosing);
                run.last_window = Some(last);
                Self::drop_settings(run_id, |waiting| waiting.window > last);
                Self::deposit_event(Event::RunClosing { run: run_id, last_window: last });
                Runs::<T>::insert(run_id, run);
            }
            None => {
                // It has not begun: there is nothing to settle.
                Self::unschedule(run_id);
                Self::drop_settings(run_id, |_| true);
                run.status = RunStatus::Closed;
                Runs::<T>::insert(run_id, run);
                Self::deposit_event(Event::RunClosed { run: run_id });
            }
        }
        Ok(())
    }

    /// Whether nothing was accepted in a run for so long that anybody may close it. One that the governance paused waits for
    /// its decision.
    fn is_idle(run: &RunOf<T>, moment: Option<Moment>) -> bool {
        let has_waited = moment.is_some_and(|moment| {
            moment.window > run.active_window.saturating_add(T::IdleWindows::get())
        });
        has_waited && !is_paused_by_admin(run)
    }

    /// Refuses what begins something in a run that ends.
    pub(crate) fn ensure_not_closed(run: &RunOf<T>) -> Result<(), Error<T>> {
        ensure!(run.status != RunStatus::Closed, Error::<T>::RunClosing);
        Ok(())
    }

    /// Refuses participants of a run that ends.
    pub(crate) fn ensure_takes_participants(run: &RunOf<T>) -> Result<(), Error<T>> {
        Self::ensure_not_closed(run)?;
        ensure!(run.last_window.is_none(), Error::<T>::RunClosing);
        Ok(())
    }

    pub(crate) fn do_offer_run(
        origin: OriginFor<T>,
        run_id: RunId,
        to: Option<T::AccountId>,
    ) -> DispatchResult {
        let (run, moment) = Self::run_at(run_id)?;
        let manager = Self::ensure_manager(origin, &run)?;
        match to {
            Some(to) => {
                let window = manager.first_window::<T>(moment);
                RunOffers::<T>::insert(run_id, Offer { to: to.clone(), window });
                Self::deposit_event(Event::RunOffered { run: run_id, to, window });
            }
            None => {
                RunOffers::<T>::take(run_id).ok_or(Error::<T>::NotOffered)?;
                Self::deposit_event(Event::RunOfferWithdrawn { run: run_id });
            }
        }
        Ok(())
    }

    pub(crate) fn do_accept_run(who: T::AccountId, run_id: RunId) -> DispatchResult {
        let (mut run, moment) = Self::run_at(run_id)?;
        let offer = RunOffers::<T>::get(run_id).ok_or(Error::<T>::NotOffered)?;
        ensure!(offer.to == who, Error::<T>::NotOffered);
        let current = moment.map_or(0, |moment| moment.window);
        ensure!(offer.window <= current, Error::<T>::OfferNotDue);
        T::Currency::hold(&HoldReason::RunDeposit.into(), &who, run.deposit)?;
        Self::release_deposit(&run);
        RunOffers::<T>::remove(run_id);
        run.owner = who.clone();
        Runs::<T>::insert(run_id, run);
        Self::deposit_event(Event::RunHandedOver { run: run_id, owner: who });
        Ok(())
    }

    /// Gives the deposit back to the owner that paid it: as much of it as is still held.
    pub(crate) fn release_deposit(run: &RunOf<T>) {
        let reason = HoldReason::RunDeposit.into();
        let released =
            T::Currency::release(&reason, &run.owner, run.deposit, Precision::BestEffort);
        if released.is_err() {
            frame_support::defensive!("a run's deposit cannot be released");
        }
    }

    pub(crate) fn do_cancel_params(origin: OriginFor<T>, run_id: RunId) -> DispatchResult {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let manager = Self::ensure_manager(origin, &run)?;
        let is_bound = matches!(manager, Manager::Owner) && Self::are_settings_forced(run_id);
        ensure!(!is_bound, Error::<T>::SettingsForced);
        ensure!(Self::drop_settings(run_id, |_| true), Error::<T>::NothingScheduled);
        Ok(())
    }

    /// Drops the settings that wait if they are such; says whether it did.
    fn drop_settings(run_id: RunId, are_such: impl FnOnce(&ScheduledSettings) -> bool) -> bool {
        let is_dropped =
            PendingSettings::<T>::get(run_id).is_some_and(|waiting| are_such(&waiting));
        if is_dropped {
            PendingSettings::<T>::remove(run_id);
            Self::deposit_event(Event::SettingsCancelled { run: run_id });
        }
        is_dropped
    }
}

/// Whether a run takes no updates in `window`, the current one or the next.
pub(crate) fn is_paused_in<AccountId>(run: &crate::Run<AccountId>, window: Window) -> bool {
    is_paused(run) || run.pause_from.is_some_and(|from| from <= window)
}

/// Whether the chain's governance paused a run.
fn is_paused_by_admin<AccountId>(run: &crate::Run<AccountId>) -> bool {
    run.status == RunStatus::Paused { by_admin: true }
}

/// Whether a run takes no updates for now.
pub(crate) fn is_paused<AccountId>(run: &crate::Run<AccountId>) -> bool {
    matches!(run.status, RunStatus::Paused { .. })
}
