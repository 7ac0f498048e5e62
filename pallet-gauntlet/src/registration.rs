//! Handles the calls outside of a window's work: runs and their settings, participants with their bonds and stakes.

use frame_support::{
    ensure,
    traits::{
        fungible::{Inspect, InspectHold, Mutate, MutateHold},
        tokens::{Precision, Preservation},
        Get,
    },
};
use protocol::{
    consensus::Standing,
    fixed::Q32,
    layout::Layout,
    settings::{Settings, SettingsError},
    update::payload_bytes_max,
    window::{phase_at, Moment},
    Planck, RunId, Uid, ValidatorIndex, Window,
};
use sp_runtime::{traits::AccountIdConversion, DispatchError, DispatchResult};

use crate::{
    Addresses, Announcement, Announcements, Attestations, Commitments, Config, Error, Event,
    HoldReason, LayoutVec, Layouts, Miner, MinerSlots, MinerUids, Miners, NextRunId, Pallet,
    PeerId, PendingSettings, Run, RunOf, RunStatus, Runs, ScheduledSettings, ScoreCommitments,
    Validator, ValidatorIndices, ValidatorSlots, Validators, VALIDATORS_MAX,
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
        settings.validate().map_err(Error::<T>::from)?;
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
        settings.validate().map_err(Error::<T>::from)?;
        ensure!(run.settings.may_become(&settings), Error::<T>::SettingImmutable);
        let current = moment.map_or(0, |moment| moment.window);
        let window = current.saturating_add(T::AdminDelayWindows::get());
        PendingSettings::<T>::insert(run_id, ScheduledSettings { window, settings });
        Self::deposit_event(Event::SettingsScheduled { run: run_id, window });
        Ok(())
    }

    pub(crate) fn do_register_miner(
        cold: T::AccountId,
        run_id: RunId,
        hot: T::AccountId,
    ) -> Result<Uid, DispatchError> {
        let (run, moment) = Self::run_at(run_id)?;
        Self::ensure_hot_key_free(run_id, &hot)?;
        let limit = u32::from(run.settings.incentive.uid_max);
        let uid = MinerSlots::<T>::mutate(run_id, |slots| slots.take(limit))
            .ok_or(Error::<T>::NoFreeSlot)?;
        let bond = run.settings.incentive.miner_bond;
        T::Currency::hold(&HoldReason::MinerBond.into(), &cold, bond)?;
        frame_system::Pallet::<T>::inc_providers(&hot);
        MinerUids::<T>::insert(run_id, &hot, uid);
        let miner = Miner {
            hot: hot.clone(),
            cold: cold.clone(),
            bond,
            registered_window: first_window(moment),
            standing: Standing::default(),
            value: Q32::ZERO,
            share: Q32::ZERO,
        };
        Miners::<T>::insert(run_id, uid, miner);
        Self::deposit_event(Event::MinerRegistered { run: run_id, uid, hot, cold });
        Ok(uid)
    }

    pub(crate) fn do_deregister_miner(
        who: T::AccountId,
        run_id: RunId,
        uid: Uid,
    ) -> DispatchResult {
        let (_, moment) = Self::run_at(run_id)?;
        let miner = Miners::<T>::get(run_id, uid).ok_or(Error::<T>::MinerUnknown)?;
        ensure!(miner.cold == who, Error::<T>::NotColdKey);
        if let Some(moment) = moment {
            ensure!(
                !Commitments::<T>::contains_key((run_id, moment.window, uid)),
                Error::<T>::WorkOpen
            );
        }
        T::Currency::release(
            &HoldReason::MinerBond.into(),
            &miner.cold,
            miner.bond,
            Precision::Exact,
        )?;
        frame_system::Pallet::<T>::dec_providers(&miner.hot)?;
        Miners::<T>::remove(run_id, uid);
        MinerUids::<T>::remove(run_id, &miner.hot);
        Announcements::<T>::remove(run_id, &miner.hot);
        MinerSlots::<T>::mutate(run_id, |slots| slots.release(uid));
        Self::deposit_event(Event::MinerLeft { run: run_id, uid });
        Ok(())
    }

    pub(crate) fn do_register_validator(
        cold: T::AccountId,
        run_id: RunId,
        hot: T::AccountId,
        stake: Planck,
    ) -> Result<ValidatorIndex, DispatchError> {
        let (run, moment) = Self::run_at(run_id)?;
        Self::ensure_hot_key_free(run_id, &hot)?;
        ensure!(stake >= run.settings.incentive.validator_stake_min, Error::<T>::StakeTooLow);
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

    pub(crate) fn do_announce(
        hot: T::AccountId,
        run_id: RunId,
        peer_id: PeerId,
        addresses: Addresses,
    ) -> DispatchResult {
        ensure!(Runs::<T>::contains_key(run_id), Error::<T>::RunUnknown);
        ensure!(Self::takes_part(run_id, &hot), Error::<T>::HotKeyUnknown);
        let announcement = Announcement { peer_id, addresses, block: Self::now() };
        Announcements::<T>::insert(run_id, &hot, announcement);
        Self::deposit_event(Event::Announced { run: run_id, hot });
        Ok(())
    }

    /// A run and where the current block lies in it; no moment before its first block.
    pub(crate) fn run_at(run_id: RunId) -> Result<(RunOf<T>, Option<Moment>), Error<T>> {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let moment = phase_at(&run.settings.schedule, Self::now());
        Ok((run, moment))
    }

    /// Whether a hot key is a miner's or a validator's of the run.
    fn takes_part(run_id: RunId, hot: &T::AccountId) -> bool {
        MinerUids::<T>::contains_key(run_id, hot)
            || ValidatorIndices::<T>::contains_key(run_id, hot)
    }

    fn ensure_hot_key_free(run_id: RunId, hot: &T::AccountId) -> Result<(), Error<T>> {
        ensure!(!Self::takes_part(run_id, hot), Error::<T>::HotKeyTaken);
        Ok(())
    }

    /// The money that the pallet holds of an account for `reason`.
    #[cfg(any(feature = "try-runtime", test))]
    pub(crate) fn held(reason: HoldReason, who: &T::AccountId) -> Planck {
        T::Currency::balance_on_hold(&reason.into(), who)
    }
}

/// The first window of a participant that registers now: the next one, or window 0 before the run's first block.
fn first_window(moment: Option<Moment>) -> Window {
    moment.map_or(0, |moment| moment.window.saturating_add(1))
}
