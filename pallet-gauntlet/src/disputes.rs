//! Handles disputes of evaluations. Whoever had a permit for the disputed window may measure again: it commits to what it
//! found in the window after the accusation, and reveals it in the one after that.
//! [`protocol::fault::judge_evaluation`] decides by the stakes of the bench, which were fixed in the disputed window's first
//! block; nothing is drawn, and nothing that moves later counts.

use alloc::vec::Vec;

use frame_support::{
    ensure,
    traits::{
        fungible::{Balanced, BalancedHold, MutateHold},
        Get, Imbalance,
    },
};
use protocol::{
    consensus::Evaluation,
    fault::{
        judge_evaluation, judge_of, juror_fee, may_judge, validator_slash, verdict_commitment_hash,
        Verdict,
    },
    limits::DISPUTE_WINDOWS,
    settings::Disputes,
    Hash, Planck, RunId, ValidatorIndex, Window,
};
use sp_runtime::DispatchResult;

use crate::{
    account_bytes, Benches, Config, Error, EvaluationDispute, EvaluationDisputes, EvaluationName,
    Event, HoldReason, Juror, Offender, Pallet, PoolId, Pools, Runs, ScoreReveals,
    ValidatorIndices, Validators,
};

/// A dispute of a runtime.
type DisputeOf<T> = EvaluationDispute<<T as frame_system::Config>::AccountId>;

impl<T: Config> Pallet<T> {
    pub(crate) fn do_dispute_evaluation(
        challenger: T::AccountId,
        run_id: RunId,
        name: EvaluationName,
    ) -> DispatchResult {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let (window, index, uid) = name;
        Self::ensure_reportable(&run, window)?;
        // It is decided while its window is kept.
        let opened = Self::stake_window(Some(&run));
        let last = window.saturating_add(T::HistoryWindows::get());
        ensure!(opened.saturating_add(DISPUTE_WINDOWS) <= last, Error::<T>::FaultTooOld);
        let key = (run_id, window, index, uid);
        ensure!(!EvaluationDisputes::<T>::contains_key(key), Error::<T>::AlreadyDisputed);
        let reveal =
            ScoreReveals::<T>::get((run_id, window, index)).ok_or(Error::<T>::NotRevealed)?;
        let evaluation = reveal.evaluations.iter().find(|evaluation| evaluation.uid == uid);
        let evaluation = evaluation.ok_or(Error::<T>::NotRevealed)?.clone();
        // Only who had the slot when the window began could reveal, whoever has it now.
        let bench = Benches::<T>::get(run_id, window);
        let pool = judge_of(&bench, index).ok_or(Error::<T>::NotRevealed)?.pool;
        ensure!(Pools::<T>::contains_key(run_id, pool), Error::<T>::PoolUnknown);
        let bond = Self::current_settings(run_id, &run)?.disputes.dispute_bond;
        T::Currency::hold(&HoldReason::DisputeBond.into(), &challenger, bond)?;
        let dispute = EvaluationDispute {
            evaluation,
            pool,
            challenger: challenger.clone(),
            bond,
            opened,
            jury: Default::default(),
        };
        EvaluationDisputes::<T>::insert(key, dispute);
        Self::deposit_event(Event::EvaluationDisputed {
            run: run_id,
            window,
            index,
            uid,
            challenger,
        });
        Ok(())
    }

    pub(crate) fn do_commit_verdict(
        hot: T::AccountId,
        run_id: RunId,
        name: EvaluationName,
        hash: Hash,
    ) -> DispatchResult {
        let (mut dispute, age) = Self::dispute(run_id, name)?;
        ensure!(age == 1, Error::<T>::WrongWindow);
        let (index, cold) = Self::judge(run_id, name, &dispute.challenger, &hot)?;
        let has_committed = dispute.jury.iter().any(|juror| juror.index == index);
        ensure!(!has_committed, Error::<T>::AlreadyCommitted);
        let juror = Juror { index, cold, commitment: Some(hash), measured: None };
        dispute.jury.try_push(juror).map_err(|_| Error::<T>::Internal)?;
        Self::write_dispute(run_id, name, dispute);
        Ok(())
    }

    pub(crate) fn do_reveal_verdict(
        hot: T::AccountId,
        run_id: RunId,
        name: EvaluationName,
        measured: Evaluation,
        salt: Hash,
    ) -> DispatchResult {
        let (mut dispute, age) = Self::dispute(run_id, name)?;
        ensure!(age == 2, Error::<T>::WrongWindow);
        let index = ValidatorIndices::<T>::get(run_id, &hot).ok_or(Error::<T>::NotAJuror)?;
        let juror = dispute.jury.iter_mut().find(|juror| juror.index == index);
        let juror = juror.ok_or(Error::<T>::NotCommitted)?;
        let committed = juror.commitment.ok_or(Error::<T>::NotCommitted)?;
        ensure!(juror.measured.is_none(), Error::<T>::AlreadyRevealed);
        let (window, accused, _) = name;
        let hash = verdict_commitment_hash(
            &Self::genesis_hash(),
            run_id,
            window,
            accused,
            &account_bytes(&hot),
            &measured,
            &salt,
        );
        ensure!(hash == committed, Error::<T>::OpeningMismatch);
        juror.measured = Some(measured);
        Self::write_dispute(run_id, name, dispute);
        Ok(())
    }

    pub(crate) fn do_close_dispute(run_id: RunId, name: EvaluationName) -> DispatchResult {
        let (dispute, age) = Self::dispute(run_id, name)?;
        ensure!(age >= DISPUTE_WINDOWS, Error::<T>::TooEarly);
        let (window, index, uid) = name;
        let settings = Self::settings_of_dispute(run_id, window)?;
        let verdict = Self::verdict(run_id, window, &dispute, settings.evaluation_tolerance_ppm);
        EvaluationDisputes::<T>::remove((run_id, window, index, uid));
        let is_pruned = Runs::<T>::get(run_id).is_none_or(|run| window < run.next_pruning);
        if is_pruned {
            Self::forget_bench(run_id, window);
        }
        match verdict {
            Verdict::True => Self::forfeit_bond(&dispute, settings.jurors),
            Verdict::Open => Self::release_bond(&dispute.challenger, dispute.bond)?,
            Verdict::False => {
                Self::release_bond(&dispute.challenger, dispute.bond)?;
                let at_stake = Self::at_stake(run_id, dispute.pool, window);
                let amount = validator_slash(&settings, at_stake);
                let offender = Offender::Pool(dispute.pool);
                Self::defer_slash(run_id, offender, window, amount, Some(dispute.challenger));
            }
        }
        Self::deposit_event(Event::DisputeClosed { run: run_id, window, index, uid, verdict });
        Ok(())
    }

    /// What the settings said of disputes in a window; those of now once it is forgotten.
    fn settings_of_dispute(run_id: RunId, window: Window) -> Result<Disputes, Error<T>> {
        if let Some(settings) = Self::settings_of(run_id, window) {
            return Ok(settings.disputes);
        }
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        Ok(Self::current_settings(run_id, &run)?.disputes)
    }

    /// What the stake of the bench says of a disputed evaluation.
    fn verdict(
        run_id: RunId,
        window: Window,
        dispute: &DisputeOf<T>,
        tolerance_ppm: u32,
    ) -> Verdict {
        let bench = Benches::<T>::get(run_id, window);
        let total = bench.iter().fold(0, |sum: u128, seat| sum.saturating_add(seat.stake.into()));
        let votes: Vec<(u64, &Evaluation)> = dispute
            .jury
            .iter()
            .filter_map(|juror| {
                Some((judge_of(&bench, juror.index)?.stake, juror.measured.as_ref()?))
            })
            .collect();
        judge_evaluation(&dispute.evaluation, &votes, total, tolerance_ppm)
    }

    /// Removes a window's bench, unless an evaluation of it is disputed still.
    pub(crate) fn forget_bench(run_id: RunId, window: Window) {
        let of_window = (run_id, window);
        if EvaluationDisputes::<T>::iter_key_prefix(of_window).next().is_none() {
            Benches::<T>::remove(run_id, window);
        }
    }

    /// Divides the bond of a false accusation: half among the jurors that measured, half is burned.
    fn forfeit_bond(dispute: &DisputeOf<T>, parts: u8) {
        let reason = HoldReason::DisputeBond.into();
        let (credit, _missing) = T::Currency::slash(&reason, &dispute.challenger, dispute.bond);
        let jurors = dispute.jury.iter().filter(|juror| juror.measured.is_some());
        let fee = juror_fee(credit.peek(), parts, jurors.clone().count());
        let mut rest = credit;
        for juror in jurors {
            let (part, left) = rest.split(fee);
            rest = left;
            // What cannot open an account is burned.
            let _ = T::Currency::resolve(&juror.cold, part);
        }
    }

    /// What answers for a fault of `window`.
    fn at_stake(run_id: RunId, id: PoolId, window: Window) -> Planck {
        let Some(pool) = Pools::<T>::get(run_id, id) else {
            return 0;
        };
        let unbonding = Self::unbonding_since(run_id, id, window).iter().fold(
            0,
            |sum: Planck, (_, unbonding)| {
                sum.saturating_add(unbonding.own).saturating_add(unbonding.delegated.amount)
            },
        );
        pool.own.saturating_add(pool.delegated.amount).saturating_add(unbonding)
    }

    /// Slot and cold key of the validator with this hot key, if it may judge an evaluation: it has the slot that it had when the
    /// disputed window began, and is party to nothing.
    fn judge(
        run_id: RunId,
        (window, accused, _): EvaluationName,
        challenger: &T::AccountId,
        hot: &T::AccountId,
    ) -> Result<(ValidatorIndex, T::AccountId), Error<T>> {
        let index = ValidatorIndices::<T>::get(run_id, hot).ok_or(Error::<T>::NotAJuror)?;
        let validator = Validators::<T>::get(run_id, index).ok_or(Error::<T>::Internal)?;
        let bench = Benches::<T>::get(run_id, window);
        let is_seated = judge_of(&bench, index).is_some_and(|seat| {
            seat.pool == validator.pool && may_judge(&bench, seat, accused, challenger)
        });
        // A key that is to replace another one leads to the slot, too.
        ensure!(is_seated && validator.hot == *hot, Error::<T>::NotAJuror);
        Ok((index, validator.cold))
    }

    /// A dispute, and the windows since it was opened.
    fn dispute(run_id: RunId, name: EvaluationName) -> Result<(DisputeOf<T>, Window), Error<T>> {
        let (window, index, uid) = name;
        let dispute = EvaluationDisputes::<T>::get((run_id, window, index, uid))
            .ok_or(Error::<T>::DisputeUnknown)?;
        let now = Self::stake_window(Runs::<T>::get(run_id).as_ref());
        let age = now.saturating_sub(dispute.opened);
        Ok((dispute, age))
    }

    fn write_dispute(run_id: RunId, (window, index, uid): EvaluationName, dispute: DisputeOf<T>) {
        EvaluationDisputes::<T>::insert((run_id, window, index, uid), dispute);
    }
}
