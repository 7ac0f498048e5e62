//! Handles disputes of evaluations: a jury, drawn by stake in the window after the accusation, measures again, commits to what
//! it found, and reveals it in the window after that. [`protocol::fault::judge_evaluation`] decides.

use alloc::vec::Vec;

use frame_support::{
    ensure,
    traits::{
        fungible::{Balanced, BalancedHold, MutateHold},
        ConstU32, Get, Imbalance,
    },
    BoundedVec,
};
use protocol::{
    books::{permit_of, takes_part},
    consensus::Evaluation,
    fault::{
        judge_evaluation, seat_jury, validator_slash, verdict_commitment_hash, Candidate, Parties,
        Verdict,
    },
    limits::DISPUTE_WINDOWS,
    Hash, Planck, RunId, Window,
};
use sp_runtime::DispatchResult;

use crate::{
    account_bytes, Config, Error, EvaluationDispute, EvaluationDisputes, EvaluationName, Event,
    HoldReason, Juror, Offender, Pallet, Permits, PoolId, Pools, Runs, ScoreReveals,
    ValidatorIndices, Validators, Windows, JURY_MAX,
};

/// A jury of a runtime.
type Jury<T> = BoundedVec<Juror<<T as frame_system::Config>::AccountId>, ConstU32<JURY_MAX>>;

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
        let validator = Validators::<T>::get(run_id, index).ok_or(Error::<T>::ValidatorUnknown)?;
        // Whoever took over the slot since revealed nothing.
        let was_there = takes_part(validator.registered_window, window);
        ensure!(was_there, Error::<T>::NotRevealed);
        let pool = validator.pool;
        let bond = Self::current_settings(run_id, &run)?.disputes.dispute_bond;
        T::Currency::hold(&HoldReason::DisputeBond.into(), &challenger, bond)?;
        let dispute = EvaluationDispute {
            evaluation,
            pool,
            challenger: challenger.clone(),
            bond,
            opened,
            jury: BoundedVec::new(),
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
        if dispute.jury.is_empty() {
            dispute.jury = Self::jury(run_id, name, &dispute)?;
        }
        let juror = Self::juror(run_id, &hot, &mut dispute)?;
        ensure!(juror.commitment.is_none(), Error::<T>::AlreadyCommitted);
        juror.commitment = Some(hash);
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
        let juror = Self::juror(run_id, &hot, &mut dispute)?;
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
        EvaluationDisputes::<T>::remove((run_id, window, index, uid));
        let measured: Vec<Evaluation> =
            dispute.jury.iter().filter_map(|juror| juror.measured.clone()).collect();
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let disputes = &Self::current_settings(run_id, &run)?.disputes;
        let verdict = judge_evaluation(
            &dispute.evaluation,
            &measured,
            dispute.jury.len(),
            disputes.evaluation_tolerance_ppm,
        );
        match verdict {
            Verdict::True => Self::forfeit_bond(&dispute),
            Verdict::Open => Self::release_bond(&dispute.challenger, dispute.bond)?,
            Verdict::False => {
                Self::release_bond(&dispute.challenger, dispute.bond)?;
                let at_stake = Self::at_stake(run_id, dispute.pool, window);
                let amount = validator_slash(disputes, at_stake);
                let offender = Offender::Pool(dispute.pool);
                Self::defer_slash(run_id, offender, window, amount, Some(dispute.challenger));
            }
        }
        Self::deposit_event(Event::DisputeClosed { run: run_id, window, index, uid, verdict });
        Ok(())
    }

    /// Divides the bond of a false accusation: half among the jurors that measured, half is burned.
    fn forfeit_bond(dispute: &DisputeOf<T>) {
        let reason = HoldReason::DisputeBond.into();
        let (credit, _missing) = T::Currency::slash(&reason, &dispute.challenger, dispute.bond);
        let jurors = dispute.jury.iter().filter(|juror| juror.measured.is_some());
        let fee = (credit.peek() / 2).checked_div(jurors.clone().count() as Planck).unwrap_or(0);
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

    /// Draws the jury of a dispute by the seed of the window after it, which nobody knew when the dispute was opened: from the
    /// permits of that window, without the accused and whoever has its or the challenger's cold key.
    fn jury(
        run_id: RunId,
        (_, accused, _): EvaluationName,
        dispute: &DisputeOf<T>,
    ) -> Result<Jury<T>, Error<T>> {
        let settings = Self::settings_in_force(run_id).ok_or(Error::<T>::RunUnknown)?;
        let window = dispute.opened.saturating_add(1);
        let record = Windows::<T>::get(run_id, window).ok_or(Error::<T>::WrongWindow)?;
        let permits = Permits::<T>::get(run_id, window);
        let candidates = Validators::<T>::iter_prefix(run_id)
            .filter_map(|(index, validator)| {
                Some(Candidate {
                    index,
                    cold: validator.cold,
                    registered_window: validator.registered_window,
                    stake: permit_of(&permits, index)?.into(),
                })
            })
            .collect();
        let parties = Parties {
            accused,
            accused_cold: Pools::<T>::get(run_id, dispute.pool).map(|pool| pool.cold),
            challenger: dispute.challenger.clone(),
            opened: dispute.opened,
        };
        let jurors = usize::from(settings.disputes.jurors);
        let seats = seat_jury(&record.seed, candidates, &parties, jurors).into_iter();
        let jurors = seats.map(|Candidate { index, cold, .. }| Juror {
            index,
            cold,
            commitment: None,
            measured: None,
        });
        Ok(BoundedVec::truncate_from(jurors.collect()))
    }

    /// The seat of a hot key in a jury.
    fn juror<'a>(
        run_id: RunId,
        hot: &T::AccountId,
        dispute: &'a mut DisputeOf<T>,
    ) -> Result<&'a mut Juror<T::AccountId>, Error<T>> {
        let index = ValidatorIndices::<T>::get(run_id, hot).ok_or(Error::<T>::NotAJuror)?;
        let validator = Validators::<T>::get(run_id, index).ok_or(Error::<T>::Internal)?;
        let seat = dispute
            .jury
            .iter_mut()
            .find(|juror| juror.index == index && juror.cold == validator.cold);
        seat.ok_or(Error::<T>::NotAJuror)
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
