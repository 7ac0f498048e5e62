//! Removes a closed run, page by page: everybody's money goes back to its owner, and what is owed to nobody to where
//! emission comes from.

use alloc::vec::Vec;

use frame_support::{
    defensive, ensure,
    traits::{
        fungible::{Inspect, Mutate},
        tokens::{Fortitude, Preservation},
        Get,
    },
};
use protocol::{
    emission::{take_due, Pot},
    window::phase_at,
    RunId, Window,
};
use sp_runtime::DispatchError;

use crate::{
    AttestationCommitments, Attestations, Benches, ChallengeCounts, Changes, Claims, CommitCounts,
    Commitments, Config, EntryPrices, Error, EvaluationDisputes, Event, Layouts, Ledgers,
    MinerSlots, Miners, NextPoolId, OpenChallenges, PaidMiners, PaidWindows, Pallet, PayloadOwners,
    PendingSettings, Permits, ProvenFaults, Reveals, RunOf, RunOffers, RunSettings, RunStatus,
    Runs, ScoreCommitments, ScoreReveals, SlashQueues, ValidatorSlots, Validators, Windows,
    WorkQueue,
};

impl<T: Config> Pallet<T> {
    /// Removes up to `rows` rows of a closed run, and with the last ones the run. Returns how many it removed.
    pub(crate) fn do_reap_run(run_id: RunId, rows: u32) -> Result<u32, DispatchError> {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        ensure!(run.status == RunStatus::Closed, Error::<T>::RunNotClosed);
        ensure!(Self::is_reapable(run_id, &run), Error::<T>::ReapNotDue);
        // First, as the sponsors' money becomes claims.
        Self::sweep_run(run_id);
        let mut left = rows;
        Self::reap_participants(run_id, &run, &mut left)?;
        Self::reap_claims(run_id, &mut left);
        Self::reap_work(run_id, &mut left);
        if left > 0 {
            Self::reap_last(run_id, &run);
        }
        Ok(rows.saturating_sub(left))
    }

    /// Whether everybody had time to claim and to dispute since the last window, and nothing is in dispute.
    fn is_reapable(run_id: RunId, run: &RunOf<T>) -> bool {
        let current = phase_at(&run.schedule, Self::now()).map_or(0, |moment| moment.window);
        let is_late = run
            .last_window
            .is_none_or(|last| last.saturating_add(T::ReapDelayWindows::get()) < current);
        let slashes = SlashQueues::<T>::get(run_id);
        is_late
            && slashes.next == slashes.end
            && OpenChallenges::<T>::iter_key_prefix((run_id,)).next().is_none()
            && EvaluationDisputes::<T>::iter_key_prefix((run_id,)).next().is_none()
    }

    /// Lets everybody go: bonds come back at once, stakes can be withdrawn, also when the run is gone.
    fn reap_participants(run_id: RunId, run: &RunOf<T>, left: &mut u32) -> Result<(), Error<T>> {
        let settings = Self::current_settings(run_id, run)?;
        for (uid, miner) in take(Miners::<T>::iter_prefix(run_id), left).collect::<Vec<_>>() {
            // Nothing is left to dispute.
            Self::remove_miner(run_id, uid, miner, None, &settings);
        }
        for index in take(Validators::<T>::iter_key_prefix(run_id), left).collect::<Vec<_>>() {
            Self::remove_validator(run_id, run, index);
        }
        Ok(())
    }

    /// Pays what is owed. Dust that cannot open an account is owed to nobody from here on.
    fn reap_claims(run_id: RunId, left: &mut u32) {
        let account = Self::run_account(run_id);
        for (who, claims) in take(Claims::<T>::drain_prefix(run_id), left) {
            let amount = take_due(&mut claims.into_inner(), Window::MAX);
            let paid =
                T::Currency::transfer(&account, &who, amount, Preservation::Preserve).is_ok();
            let moved = Ledgers::<T>::mutate(run_id, |ledger| match paid {
                true => ledger.pay(amount),
                false => ledger.forfeit(Pot::Miners, amount),
            });
            if moved.is_err() {
                defensive!("a run's claims are more than it owes");
            }
            if paid {
                Self::deposit_event(Event::Claimed { run: run_id, account: who, amount });
            }
        }
    }

    /// Removes the rows of the windows that were not removed yet.
    fn reap_work(run_id: RunId, left: &mut u32) {
        let of = (run_id,);
        // First, so that no view tells of a part of the pay.
        take(PaidWindows::<T>::iter_key_prefix(run_id).drain(), left).for_each(drop);
        take(PaidMiners::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(Commitments::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(Reveals::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(PayloadOwners::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(AttestationCommitments::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(Attestations::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(ScoreCommitments::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(ScoreReveals::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(ProvenFaults::<T>::iter_key_prefix(of).drain(), left).for_each(drop);
        take(Changes::<T>::iter_key_prefix(run_id).drain(), left).for_each(drop);
        take(ChallengeCounts::<T>::iter_key_prefix(run_id).drain(), left).for_each(drop);
        take(CommitCounts::<T>::iter_key_prefix(run_id).drain(), left).for_each(drop);
        take(Permits::<T>::iter_key_prefix(run_id).drain(), left).for_each(drop);
        take(Benches::<T>::iter_key_prefix(run_id).drain(), left).for_each(drop);
        take(Windows::<T>::iter_key_prefix(run_id).drain(), left).for_each(drop);
    }

    /// Removes the run itself, whose rows are gone.
    fn reap_last(run_id: RunId, run: &RunOf<T>) {
        // What nobody could be paid any more.
        Self::sweep_run(run_id);
        let account = Self::run_account(run_id);
        // The foundation, and what others may have sent to the account.
        let rest =
            T::Currency::reducible_balance(&account, Preservation::Expendable, Fortitude::Polite);
        let returned = T::Currency::transfer(&account, &run.owner, rest, Preservation::Expendable);
        if rest > 0 && returned.is_err() {
            defensive!("a run's foundation cannot be returned");
        }
        Self::release_deposit(run);
        Self::unschedule(run_id);
        // As many as there are windows kept, at most.
        RunSettings::<T>::iter_key_prefix(run_id).drain().for_each(drop);
        SlashQueues::<T>::remove(run_id);
        NextPoolId::<T>::remove(run_id);
        EntryPrices::<T>::remove(run_id);
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
