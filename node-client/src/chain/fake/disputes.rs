//! Disputes of evaluations before whoever had a permit with the accused; mirrors the pallet's `disputes`.

use protocol::{
    books::Permit,
    consensus::Evaluation,
    fault::{
        judge_evaluation, judge_of, juror_fee, may_judge, validator_slash, verdict_commitment_hash,
        Judge, Verdict,
    },
    limits::{DISPUTE_WINDOWS, HISTORY_WINDOWS},
    settings::Disputes,
    AccountBytes, Hash, RunId, Window,
};

use super::{
    super::{
        EvaluationDisputeInfo, EvaluationName, GauntletEvent, JurorInfo, Offender, ValidatorInfo,
    },
    refusal::{ensure, Refusal},
    run::Run,
    state::State,
};

impl Run {
    /// The validators with a permit, as they are now.
    pub(super) fn bench(&self, permits: &[Permit]) -> Vec<Judge<AccountBytes>> {
        let judge = |&(index, stake): &Permit| {
            let (pool, _) = self.pools.iter().find(|(_, pool)| pool.index == Some(index))?;
            let cold = self.validators.get(&index)?.cold;
            Some(Judge { index, pool: *pool, cold, stake })
        };
        permits.iter().filter_map(judge).collect()
    }

    /// The validator with this hot key, if it may judge an evaluation.
    fn judge(
        &self,
        (window, accused, _): EvaluationName,
        challenger: &AccountBytes,
        hot: &AccountBytes,
    ) -> Result<&ValidatorInfo, Refusal> {
        let not_seated = Refusal::gauntlet("NotAJuror");
        let own = self.validators.values().find(|found| found.hot == *hot).ok_or(not_seated)?;
        let bench = self.proofs.benches.get(&window).map(Vec::as_slice).unwrap_or_default();
        let is_seated = judge_of(bench, own.index).is_some_and(|judge| {
            let pool = self.pools.get(&judge.pool);
            pool.is_some_and(|pool| pool.index == Some(own.index))
                && may_judge(bench, judge, accused, challenger)
        });
        ensure(is_seated, "NotAJuror")?;
        Ok(own)
    }

    /// What the settings said of disputes in a window; those of now once it is forgotten.
    fn settings_of_dispute(&self, window: Window) -> Disputes {
        let of_window = self.windows.get(&window).map(|rows| &rows.info.settings);
        of_window.unwrap_or(&self.info.settings).disputes.clone()
    }

    /// What the stake of the bench says of a disputed evaluation.
    fn verdict(&self, dispute: &EvaluationDisputeInfo, tolerance_ppm: u32) -> Verdict {
        let (window, ..) = dispute.name;
        let bench = self.proofs.benches.get(&window).map(Vec::as_slice).unwrap_or_default();
        let total = bench.iter().map(|judge| u128::from(judge.stake)).sum();
        let votes: Vec<(u64, &Evaluation)> = dispute
            .jury
            .iter()
            .filter_map(|juror| {
                Some((judge_of(bench, juror.index)?.stake, juror.measured.as_ref()?))
            })
            .collect();
        judge_evaluation(&dispute.evaluation, &votes, total, tolerance_ppm)
    }
}

impl State {
    /// A run, a dispute of it, and the windows since that was opened.
    fn disputed(
        &mut self,
        run: RunId,
        name: EvaluationName,
    ) -> Result<(&mut Run, EvaluationDisputeInfo, Window), Refusal> {
        let unknown = Refusal::gauntlet("DisputeUnknown");
        let (run, now) = self.accusing(run).map_err(|_| unknown)?;
        let dispute = run.proofs.disputes.get(&name).cloned().ok_or(unknown)?;
        let age = now.saturating_sub(dispute.opened);
        Ok((run, dispute, age))
    }

    pub(super) fn dispute_evaluation(
        &mut self,
        challenger: AccountBytes,
        run_id: RunId,
        name: EvaluationName,
    ) -> Result<(), Refusal> {
        let (run, opened) = self.accusing(run_id)?;
        let (window, index, uid) = name;
        run.ensure_reportable(window, opened)?;
        let last = window.saturating_add(HISTORY_WINDOWS);
        ensure(opened.saturating_add(DISPUTE_WINDOWS) <= last, "FaultTooOld")?;
        ensure(!run.proofs.disputes.contains_key(&name), "AlreadyDisputed")?;
        let reveal = run.windows.get(&window).and_then(|rows| rows.score_reveals.get(&index));
        let evaluation = reveal
            .and_then(|reveal| reveal.evaluations.iter().find(|found| found.uid == uid))
            .cloned()
            .ok_or(Refusal::gauntlet("NotRevealed"))?;
        // Only who had the slot when the window began could reveal, whoever has it now.
        let bench = run.proofs.benches.get(&window).map(Vec::as_slice).unwrap_or_default();
        let pool = judge_of(bench, index).ok_or(Refusal::gauntlet("NotRevealed"))?.pool;
        ensure(run.pools.contains_key(&pool), "PoolUnknown")?;
        let bond = run.info.settings.disputes.dispute_bond;
        let jury = Vec::new();
        let dispute =
            EvaluationDisputeInfo { name, evaluation, pool, challenger, bond, opened, jury };
        run.proofs.disputes.insert(name, dispute);
        self.hold(challenger, bond)?;
        let run = run_id;
        self.events.push(GauntletEvent::EvaluationDisputed { run, window, index, uid, challenger });
        Ok(())
    }

    pub(super) fn commit_verdict(
        &mut self,
        hot: AccountBytes,
        run_id: RunId,
        name: EvaluationName,
        hash: Hash,
    ) -> Result<(), Refusal> {
        let (run, mut dispute, age) = self.disputed(run_id, name)?;
        ensure(age == 1, "WrongWindow")?;
        let &ValidatorInfo { index, cold, .. } = run.judge(name, &dispute.challenger, &hot)?;
        let has_committed = dispute.jury.iter().any(|juror| juror.index == index);
        ensure(!has_committed, "AlreadyCommitted")?;
        dispute.jury.push(JurorInfo { index, cold, commitment: Some(hash), measured: None });
        run.proofs.disputes.insert(name, dispute);
        Ok(())
    }

    pub(super) fn reveal_verdict(
        &mut self,
        hot: AccountBytes,
        run_id: RunId,
        name: EvaluationName,
        measured: Evaluation,
        salt: Hash,
    ) -> Result<(), Refusal> {
        let genesis = self.genesis;
        let (run, mut dispute, age) = self.disputed(run_id, name)?;
        ensure(age == 2, "WrongWindow")?;
        let own = run.validators.values().find(|found| found.hot == hot);
        let index = own.ok_or(Refusal::gauntlet("NotAJuror"))?.index;
        let juror = dispute.jury.iter_mut().find(|juror| juror.index == index);
        let juror = juror.ok_or(Refusal::gauntlet("NotCommitted"))?;
        let committed = juror.commitment.ok_or(Refusal::gauntlet("NotCommitted"))?;
        ensure(juror.measured.is_none(), "AlreadyRevealed")?;
        let (window, accused, _) = name;
        let hash =
            verdict_commitment_hash(&genesis, run_id, window, accused, &hot, &measured, &salt);
        ensure(hash == committed, "OpeningMismatch")?;
        juror.measured = Some(measured);
        run.proofs.disputes.insert(name, dispute);
        Ok(())
    }

    pub(super) fn close_dispute(
        &mut self,
        run_id: RunId,
        name: EvaluationName,
    ) -> Result<(), Refusal> {
        let mut events = Vec::new();
        let (run, dispute, age) = self.disputed(run_id, name)?;
        ensure(age >= DISPUTE_WINDOWS, "TooEarly")?;
        let settings = run.settings_of_dispute(name.0);
        let verdict = run.verdict(&dispute, settings.evaluation_tolerance_ppm);
        run.proofs.disputes.remove(&name);
        let windows = &run.windows;
        run.proofs.forget_benches(|window| windows.contains_key(&window));
        let EvaluationDisputeInfo { pool, challenger, bond, opened, jury, .. } = dispute;
        let (window, index, uid) = name;
        let mut paid = Vec::new();
        match verdict {
            Verdict::True => {
                let jurors: Vec<_> = jury.iter().filter(|seat| seat.measured.is_some()).collect();
                let fee = juror_fee(bond, settings.jurors, jurors.len());
                paid.extend(jurors.into_iter().map(|seat| (seat.cold, fee)));
            }
            Verdict::Open => paid.push((challenger, bond)),
            Verdict::False => {
                paid.push((challenger, bond));
                let amount = validator_slash(&settings, run.at_stake(pool, window));
                let when = (window, opened.saturating_add(age));
                run.defer_slash(Offender::Pool(pool), when, amount, Some(challenger), &mut events);
            }
        }
        events.push(GauntletEvent::DisputeClosed { run: run_id, window, index, uid, verdict });
        self.events.append(&mut events);
        paid.into_iter().try_for_each(|(account, amount)| self.release(account, amount))
    }
}
