//! Removes a closed run, page by page: everybody's money goes back to its owner, and what is owed to nobody to where
//! emission comes from.

use frame_support::{
    defensive, ensure,
    traits::{
        fungible::{Inspect, Mutate, MutateHold},
        tokens::{Fortitude, Precision, Preservation},
        Get,
    },
};
use protocol::{window::phase_at, Planck, RunId};
use sp_runtime::DispatchError;

use crate::{
    Announcements, Attestations, Claims, CommitCounts, Commitments, Config, Error, Event,
    HoldReason, Layouts, Ledgers, MinerSlots, MinerUids, Miners, Pallet, PayloadOwners,
    PendingSettings, Reveals, RunOf, RunOffers, RunSettings, RunStatus, Runs, ScoreCommitments,
    ScoreReveals, ValidatorIndices, ValidatorSlots, Validators, Windows, WorkQueue,
};

impl<T: Config> Pallet<T> {
    /// Removes up to `rows` rows of a closed run, and with the last ones the run. Returns how many it removed.
    pub(crate) fn do_reap_run(run_id: RunId, rows: u32) -> Result<u32, DispatchError> {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        ensure!(run.status == RunStatus::Closed, Error::<T>::RunNotClosed);
        ensure!(Self::is_reapable(&run), Error::<T>::ReapNotDue);
        let mut left = rows;
        Self::reap_participants(run_id, &mut left);
        Self::reap_claims(run_id, &mut left);
        Self::reap_work(run_id, &mut left);
        if left > 0 {
            Self::reap_last(run_id, &run);
        }
        Ok(rows.saturating_sub(left))
    }

    /// Whether everybody had time to claim and to dispute since the last window.
    fn is_reapable(run: &RunOf<T>) -> bool {
        let current = phase_at(&run.schedule, Self::now()).map_or(0, |moment| moment.window);
        run.last_window.is_none_or(|last| last.saturating_add(T::ReapDelayWindows::get()) < current)
    }

    /// Gives bonds and stakes back.
    fn reap_participants(run_id: RunId, left: &mut u32) {
        for (_, miner) in take(Miners::<T>::drain_prefix(run_id), left) {
            MinerUids::<T>::remove(run_id, &miner.hot);
            Self::part(run_id, HoldReason::MinerBond, &miner.cold, &miner.hot, miner.bond);
        }
        for (_, validator) in take(Validators::<T>::drain_prefix(run_id), left) {
            ValidatorIndices::<T>::remove(run_id, &validator.hot);
            let (reason, stake) = (HoldReason::ValidatorStake, validator.stake);
            Self::part(run_id, reason, &validator.cold, &validator.hot, stake);
        }
    }

    /// Lets a participant go: releases what is held of its cold key, and forgets its hot key.
    fn part(
        run_id: RunId,
        reason: HoldReason,
        cold: &T::AccountId,
        hot: &T::AccountId,
        held: Planck,
    ) {
        Announcements::<T>::remove(run_id, hot);
        if T::Currency::release(&reason.into(), cold, held, Precision::BestEffort).is_err() {
            defensive!("a participant's money cannot be released");
        }
        // A hot key that has made itself indispensable keeps its account.
        let _ = frame_system::Pallet::<T>::dec_providers(hot);
    }

    /// Pays what is owed. Dust that cannot open an account is owed to nobody from here on.
    fn reap_claims(run_id: RunId, left: &mut u32) {
        let account = Self::run_account(run_id);
        for (who, claims) in take(Claims::<T>::drain_prefix(run_id), left) {
            let amount =
                claims.iter().fold(0, |sum: Planck, (_, earned)| sum.saturating_add(*earned));
            let paid =
                T::Currency::transfer(&account, &who, amount, Preservation::Preserve).is_ok();
            Ledgers::<T>::mutate(run_id, |ledger| {
                ledger.claimable = ledger.claimable.saturating_sub(amount);
                let sum = if paid { &mut ledger.paid } else { &mut ledger.carried };
                *sum = sum.saturating_add(amount);
            });
            if paid {
                Self::deposit_event(Event::Claimed { run: run_id, account: who, amount });
            }
        }
    }

    /// Removes the rows of the windows that were not removed yet.
    fn reap_work(run_id: RunId, left: &mut u32) {
        let of = (run_id,);
        take(Commitments::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(Reveals::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(PayloadOwners::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(Attestations::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(ScoreCommitments::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(ScoreReveals::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(CommitCounts::<T>::iter_key_prefix(run_id).drain(), left).for_each(drop);
        take(Windows::<T>::iter_key_prefix(run_id).drain(), left).for_each(drop);
        take(RunSettings::<T>::iter_key_prefix(run_id).drain(), left).for_each(drop);
    }

    /// Removes the run itself, whose rows are gone.
    fn reap_last(run_id: RunId, run: &RunOf<T>) {
        Self::sweep_carried(run_id);
        let account = Self::run_account(run_id);
        // The foundation, and what others may have sent to the account.
        let rest =
            T::Currency::reducible_balance(&account, Preservation::Expendable, Fortitude::Polite);
        let returned = T::Currency::transfer(&account, &run.owner, rest, Preservation::Expendable);
        if rest > 0 && returned.is_err() {
            defensive!("a run's foundation cannot be returned");
        }
        Self::release_deposit(run);
        Ledgers::<T>::remove(run_id);
        Layouts::<T>::remove(run_id);
        PendingSettings::<T>::remove(run_id);
        RunOffers::<T>::remove(run_id);
        MinerSlots::<T>::remove(run_id);
        ValidatorSlots::<T>::remove(run_id);
        WorkQueue::<T>::mutate(|queue| queue.retain(|waiting| *waiting != run_id));
        Runs::<T>::remove(run_id);
        Self::deposit_event(Event::RunReaped { run: run_id });
    }
}

/// The next rows, `left` of them at most; counts `left` down.
fn take<'a, R>(
    rows: impl Iterator<Item = R> + 'a,
    left: &'a mut u32,
) -> impl Iterator<Item = R> + 'a {
    let count = *left as usize;
    rows.take(count).inspect(move |_| *left = left.saturating_sub(1))
}
