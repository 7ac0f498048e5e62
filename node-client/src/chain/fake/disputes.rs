//! Disputes of evaluations before a drawn jury; mirrors the pallet's `disputes`.

use protocol::{
    books::takes_part,
    consensus::Evaluation,
    fault::{judge_evaluation, validator_slash, verdict_commitment_hash, Verdict},
    limits::{DISPUTE_WINDOWS, HISTORY_WINDOWS},
    AccountBytes, Hash, Planck, RunId, Window,
};

use super::{
    super::{
        draw_seats, EvaluationDisputeInfo, EvaluationName, GauntletEvent, JurorInfo, Offender,
        ValidatorInfo,
    },
    refusal::{ensure, Refusal},
    run::Run,
    state::State,
};

impl Run {
    /// Draws the jury of a dispute.
    fn jury(&self, dispute: &EvaluationDisputeInfo) -> Result<Vec<JurorInfo>, Refusal> {
        let rows = self.windows.get(&dispute.opened.saturating_add(1));
        let rows = rows.ok_or(Refusal::gauntlet("WrongWindow"))?;
        let accused_cold = self.pools.get(&dispute.pool).map(|pool| pool.cold);
        let validators: Vec<ValidatorInfo> = self.validators.values().cloned().collect();
        let jurors = self.info.settings.disputes.jurors;
        Ok(draw_seats(&validators, &rows.permits, dispute, accused_cold, &rows.info.seed, jurors))
    }

    /// The seat of a hot key in a jury.
    fn seat_of<'a>(
        &self,
        hot: &AccountBytes,
        jury: &'a mut [JurorInfo],
    ) -> Result<&'a mut JurorInfo, Refusal> {
        let not_drawn = Refusal::gauntlet("NotAJuror");
        let own = self.validators.values().find(|found| found.hot == *hot).ok_or(not_drawn)?;
        let is_own = |seat: &&mut JurorInfo| seat.index == own.index && seat.cold == own.cold;
        jury.iter_mut().find(is_own).ok_or(not_drawn)
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
        let (pool, _) = run.pool_of(index)?;
        // Whoever took over the slot since revealed nothing.
        let then = run.validators.get(&index);
        let was_there = then.is_some_and(|found| takes_part(found.registered_window, window));
        ensure(was_there, "NotRevealed")?;
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
        if dispute.jury.is_empty() {
            dispute.jury = run.jury(&dispute)?;
        }
        let seat = run.seat_of(&hot, &mut dispute.jury)?;
        ensure(seat.commitment.is_none(), "AlreadyCommitted")?;
        seat.commitment = Some(hash);
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
        let seat = run.seat_of(&hot, &mut dispute.jury)?;
        let committed = seat.commitment.ok_or(Refusal::gauntlet("NotCommitted"))?;
        ensure(seat.measured.is_none(), "AlreadyRevealed")?;
        let (window, accused, _) = name;
        let hash =
            verdict_commitment_hash(&genesis, run_id, window, accused, &hot, &measured, &salt);
        ensure(hash == committed, "OpeningMismatch")?;
        seat.measured = Some(measured);
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
        run.proofs.disputes.remove(&name);
        let measured: Vec<Evaluation> =
            dispute.jury.iter().filter_map(|seat| seat.measured.clone()).collect();
        let settings = run.info.settings.disputes.clone();
        let tolerance_ppm = settings.evaluation_tolerance_ppm;
        let verdict =
            judge_evaluation(&dispute.evaluation, &measured, dispute.jury.len(), tolerance_ppm);
        let EvaluationDisputeInfo { pool, challenger, bond, opened, jury, .. } = dispute;
        let (window, index, uid) = name;
        let mut paid = Vec::new();
        match verdict {
            Verdict::True => {
                let jurors: Vec<_> = jury.iter().filter(|seat| seat.measured.is_some()).collect();
                let fee = (bond / 2).checked_div(jurors.len() as Planck).unwrap_or(0);
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
