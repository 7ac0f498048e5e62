//! Handles the calls that create a run and change its settings.

use codec::Encode;
use frame_support::{
    ensure,
    traits::{
        fungible::{Inspect, Mutate, MutateHold},
        tokens::Preservation,
        DefensiveOption, Footprint, Get,
    },
};
use protocol::{
    boundary::Boundary,
    layout::Layout,
    settings::{ChangeError, Settings, SettingsError},
    update::payload_bytes_max,
    window::{phase_at, Moment},
    RunId, Window,
};
use sp_runtime::{
    traits::{AccountIdConversion, Convert},
    DispatchError, DispatchResult,
};

use crate::{
    Config, Error, Event, HoldReason, LayoutVec, Layouts, NextRunId, Pallet, PendingSettings, Run,
    RunCost, RunOf, RunSettings, RunStatus, Runs, ScheduledSettings, Windows,
};

impl<T: Config> From<SettingsError> for Error<T> {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::Schedule(_) => Error::ScheduleInvalid,
            SettingsError::OutOfRange { .. } => Error::SettingOutOfRange,
            SettingsError::DecayInWarmUp { .. } => Error::DecayInWarmUp,
            SettingsError::TooFewSamples { .. } => Error::TooFewSamples,
            SettingsError::EmissionSum { .. } => Error::EmissionSumWrong,
        }
    }
}

impl<T: Config> From<ChangeError> for Error<T> {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Immutable { .. } => Error::SettingImmutable,
            ChangeError::TooFar { .. } => Error::ChangeTooLarge,
        }
    }
}

impl<T: Config> Pallet<T> {
    /// The account that holds what a run owes.
    pub fn run_account(run: RunId) -> T::AccountId {
        T::PalletId::get().into_sub_account_truncating(run)
    }

    /// What a run with this layout costs its owner.
    pub(crate) fn view_run_cost(layout: &LayoutVec) -> RunCost {
        RunCost {
            deposit: T::RunDeposit::convert(Footprint::from_parts(1, layout.encoded_size())),
            foundation: T::Currency::minimum_balance(),
        }
    }

    pub(crate) fn do_create_run(
        owner: T::AccountId,
        settings: Settings,
        layout: LayoutVec,
    ) -> Result<RunId, DispatchError> {
        Self::ensure_settings_valid(&settings)?;
        let wait = settings.schedule.start_block.checked_sub(Self::now()).filter(|wait| *wait > 0);
        let wait = wait.ok_or(Error::<T>::StartsInThePast)?;
        ensure!(wait <= T::StartHorizon::get(), Error::<T>::StartsTooLate);
        let shape = Layout(layout.to_vec());
        let chunk_count = shape.chunk_count().ok_or(Error::<T>::LayoutInvalid)?;
        ensure!(Runs::<T>::count() < T::RunsMax::get(), Error::<T>::TooManyRuns);

        let run_id = NextRunId::<T>::get();
        NextRunId::<T>::put(run_id.checked_add(1).ok_or(Error::<T>::TooManyRuns)?);
        let RunCost { deposit, foundation } = Self::view_run_cost(&layout);
        T::Currency::hold(&HoldReason::RunDeposit.into(), &owner, deposit)?;
        T::Currency::transfer(
            &owner,
            &Self::run_account(run_id),
            foundation,
            Preservation::Preserve,
        )?;
        let run = Run {
            owner: owner.clone(),
            created_at: Self::now(),
            settings_version: 0,
            schedule: settings.schedule.clone(),
            status: RunStatus::Waiting,
            chunk_count,
            payload_bytes_max: payload_bytes_max(&shape, settings.training.keep),
            salt_mix: [0; 32],
            foundation,
            deposit,
            window: None,
            last_window: None,
            pause_from: None,
            active_window: 0,
            next_settlement: 0,
            next_pruning: 0,
        };
        let opening = run.schedule.crossing(0, Boundary::Open);
        Self::schedule_run(run_id, opening.ok_or(Error::<T>::ScheduleInvalid)?);
        Runs::<T>::insert(run_id, run);
        RunSettings::<T>::insert(run_id, 0, settings);
        Layouts::<T>::insert(run_id, layout);
        Self::deposit_event(Event::RunCreated { run: run_id, owner });
        Ok(run_id)
    }

    pub(crate) fn do_set_params(
        who: T::AccountId,
        run_id: RunId,
        settings: Settings,
    ) -> DispatchResult {
        let (run, moment) = Self::run_at(run_id)?;
        ensure!(run.owner == who, Error::<T>::NotOwner);
        Self::ensure_settings_valid(&settings)?;
        Self::current_settings(run_id, &run)?.may_become(&settings).map_err(Error::<T>::from)?;
        let current = moment.map_or(0, |moment| moment.window);
        let window = current.saturating_add(T::AdminDelayWindows::get());
        ensure!(!Self::are_settings_forced(run_id), Error::<T>::SettingsForced);
        let scheduled = ScheduledSettings { window, settings, by_admin: false };
        Self::schedule_settings(run_id, &run, scheduled)
    }

    pub(crate) fn do_force_params(run_id: RunId, settings: Settings) -> DispatchResult {
        let (run, moment) = Self::run_at(run_id)?;
        Self::ensure_settings_valid(&settings)?;
        let current = Self::current_settings(run_id, &run)?;
        current.may_be_forced_to(&settings).map_err(Error::<T>::from)?;
        let window = moment.map_or(0, |moment| moment.window.saturating_add(1));
        let scheduled = ScheduledSettings { window, settings, by_admin: true };
        Self::schedule_settings(run_id, &run, scheduled)
    }

    /// Has settings wait for their window, which the run must still have.
    fn schedule_settings(
        run_id: RunId,
        run: &RunOf<T>,
        scheduled: ScheduledSettings,
    ) -> DispatchResult {
        let window = scheduled.window;
        Self::ensure_not_closed(run)?;
        ensure!(run.has_window(window), Error::<T>::RunClosing);
        PendingSettings::<T>::insert(run_id, scheduled);
        Self::deposit_event(Event::SettingsScheduled { run: run_id, window });
        Ok(())
    }

    /// Whether settings wait that the chain's governance forced.
    pub(crate) fn are_settings_forced(run_id: RunId) -> bool {
        PendingSettings::<T>::get(run_id).is_some_and(|scheduled| scheduled.by_admin)
    }

    /// Whether settings are valid by themselves and on this chain.
    fn ensure_settings_valid(settings: &Settings) -> Result<(), Error<T>> {
        settings.validate().map_err(Error::<T>::from)?;
        let unbonding = Window::from(settings.staking.unbonding_windows);
        ensure!(unbonding >= T::DisputeWindows::get(), Error::<T>::UnbondingTooShort);
        Ok(())
    }

    /// A run and where the current block lies in it; no moment before its first block.
    pub(crate) fn run_at(run_id: RunId) -> Result<(RunOf<T>, Option<Moment>), Error<T>> {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let moment = phase_at(&run.schedule, Self::now());
        Ok((run, moment))
    }

    /// The settings in force in a run's last opened window.
    pub(crate) fn current_settings(run_id: RunId, run: &RunOf<T>) -> Result<Settings, Error<T>> {
        RunSettings::<T>::get(run_id, run.settings_version).defensive_ok_or(Error::<T>::Internal)
    }

    /// The settings in force in a run, if there is such a run.
    pub(crate) fn settings_in_force(run_id: RunId) -> Option<Settings> {
        let run = Runs::<T>::get(run_id)?;
        RunSettings::<T>::get(run_id, run.settings_version)
    }

    /// The settings under which a kept window is worked and settled.
    pub fn settings_of(run_id: RunId, window: Window) -> Option<Settings> {
        let record = Windows::<T>::get(run_id, window)?;
        RunSettings::<T>::get(run_id, record.settings_version)
    }

    /// Puts into force the settings that wait for `window`.
    pub(crate) fn apply_settings(run_id: RunId, run: &mut RunOf<T>, window: Window) {
        let Some(scheduled) =
            PendingSettings::<T>::get(run_id).filter(|scheduled| scheduled.window <= window)
        else {
            return;
        };
        PendingSettings::<T>::remove(run_id);
        // No kept window names what was in force, as the governance forced others on a run that had not begun.
        if run.next_pruning == window {
            RunSettings::<T>::remove(run_id, run.settings_version);
        }
        // A run has no 2^32 windows of one block.
        let version = run.settings_version.saturating_add(1);
        RunSettings::<T>::insert(run_id, version, scheduled.settings);
        run.settings_version = version;
        Self::deposit_event(Event::SettingsApplied { run: run_id, window });
    }
}
