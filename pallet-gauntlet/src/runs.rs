//! Handles the calls that create a run and change its settings.

use frame_support::{
    ensure,
    traits::{
        fungible::{Inspect, Mutate},
        tokens::Preservation,
        Get,
    },
};
use protocol::{
    layout::Layout,
    settings::{Settings, SettingsError},
    update::payload_bytes_max,
    window::{phase_at, Moment},
    RunId, Window,
};
use sp_runtime::{traits::AccountIdConversion, DispatchError, DispatchResult};

use crate::{
    Config, Error, Event, LayoutVec, Layouts, NextRunId, Pallet, PendingSettings, Run, RunOf,
    RunStatus, Runs, ScheduledSettings,
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

impl<T: Config> Pallet<T> {
    /// The account that holds what a run owes.
    pub fn run_account(run: RunId) -> T::AccountId {
        T::PalletId::get().into_sub_account_truncating(run)
    }

    pub(crate) fn do_create_run(
        owner: T::AccountId,
        settings: Settings,
        layout: LayoutVec,
    ) -> Result<RunId, DispatchError> {
        Self::ensure_settings_valid(&settings)?;
        ensure!(settings.schedule.start_block > Self::now(), Error::<T>::StartsInThePast);
        let shape = Layout(layout.to_vec());
        let chunk_count = shape.chunk_count().ok_or(Error::<T>::LayoutInvalid)?;
        ensure!(Runs::<T>::count() < T::RunsMax::get(), Error::<T>::TooManyRuns);

        let run_id = NextRunId::<T>::get();
        NextRunId::<T>::put(run_id.checked_add(1).ok_or(Error::<T>::TooManyRuns)?);
        let foundation = T::Currency::minimum_balance();
        T::Currency::transfer(
            &owner,
            &Self::run_account(run_id),
            foundation,
            Preservation::Preserve,
        )?;
        let run = Run {
            owner: owner.clone(),
            created_at: Self::now(),
            status: RunStatus::Waiting,
            chunk_count,
            payload_bytes_max: payload_bytes_max(&shape, settings.training.keep),
            salt_mix: [0; 32],
            foundation,
            next_settlement: 0,
            next_pruning: 0,
            settings,
        };
        Runs::<T>::insert(run_id, run);
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
        ensure!(run.settings.may_become(&settings), Error::<T>::SettingImmutable);
        let current = moment.map_or(0, |moment| moment.window);
        let window = current.saturating_add(T::AdminDelayWindows::get());
        PendingSettings::<T>::insert(run_id, ScheduledSettings { window, settings });
        Self::deposit_event(Event::SettingsScheduled { run: run_id, window });
        Ok(())
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
        let moment = phase_at(&run.settings.schedule, Self::now());
        Ok((run, moment))
    }
}
