//! Judges disputed evaluations of windows for which this validator had a permit: it measures again, commits to what it measured in the window after
//! the dispute, and reveals it in the one after that. More than half of all stake decides, so that every validator judges. It goes on after the
//! run's last window, as long as the process does.
//!
//! θ of the disputed window is on disk until that window's attestations are over ([`crate::replica`]), so that a dispute of an older one
//! cannot be judged. All that is said in a window is in the journal, as one record, before any of it is signed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use codec::{Decode, Encode};
use node_client::{
    chain::{EvaluationDisputeInfo, EvaluationName, JurorInfo},
    journal::JournalKind,
};
use protocol::{
    books::takes_part,
    consensus::Evaluation,
    merkle::blake2_256,
    window::{phase_at, Phase},
    Window,
};

use super::measure::Measurer;
use crate::{
    desk::{Errand, Vote},
    diary::{Duty, ProofStep},
    error::{miss, Attempt as _, Result},
    handles::{Handles, Role, Run},
    leave::Promise,
    slot::{self, Slot},
};

/// Disputes that one validator judges in a window, at most: each is an evaluation.
const JURIES_MAX: usize = 4;

/// The service that judges.
pub(super) struct Jury {
    pub(super) handles: Handles,
    pub(super) measurer: Arc<Measurer>,
    /// That the verdicts of the last window that had some are revealed in the next one. Held for an exchange.
    owed: Mutex<Option<Promise>>,
}

impl Jury {
    pub(super) fn new(handles: Handles, measurer: Arc<Measurer>) -> Self {
        Self { handles, measurer, owed: Mutex::default() }
    }

    /// Judges in every window from the current one on, until the process ends.
    pub(super) async fn run(self) -> Result<()> {
        let schedule = self.handles.run.info.settings.schedule.clone();
        loop {
            let head = self.handles.heads.now().number;
            let now = phase_at(&schedule, head).map(|moment| moment.window);
            let mut next = schedule.start_block;
            if let Some(window) = now {
                next = schedule.window_start(window + 1).context("the run's last window")?;
                if let Err(error) = self.window(window, next).await {
                    self.handles.machine.diary.missed(window, Duty::Judge, error.line());
                }
            }
            self.handles.heads.clone().reach(next).await?;
        }
    }

    /// Reveals what was committed to in the window before, and commits to what is disputed since. `end` is the next window's first block.
    async fn window(&self, window: Window, end: u32) -> Result<()> {
        let run = self.handles.run.id;
        let disputes = self.handles.chain.evaluation_disputes(run, None).await?;
        let of = |opened: Option<Window>| {
            disputes.iter().filter(move |dispute| Some(dispute.opened) == opened)
        };
        let own = slot::find(&self.handles, Role::Validator, None).await?;
        let own = own.context("this validator is not registered")?;
        let owed = self.owe(None).or_else(|| {
            // A process that started again owes what the one before it committed to.
            window.checked_sub(1).and_then(|before| self.pledged(before))?;
            self.handles.machine.leave.promise_until(end)
        });
        // One does not wait for the other: a reveal that is late must not cost the next vote.
        let reveal = async {
            // Kept, or too late, when this ends.
            let _owed = owed;
            match window.checked_sub(2) {
                opened @ Some(_) if of(opened).next().is_some() => self.reveal(window, end).await,
                _ => Ok(()),
            }
        };
        let judge = async {
            match window.checked_sub(1) {
                opened @ Some(_) if of(opened).next().is_some() => {
                    self.judge(window, end, &own, of(opened).collect()).await
                }
                _ => Ok(()),
            }
        };
        let (revealed, judged) = tokio::join!(reveal, judge);
        revealed.and(judged)
    }

    /// Keeps a promise until the next window's, and returns the last one.
    fn owe(&self, promise: Option<Promise>) -> Option<Promise> {
        std::mem::replace(&mut self.owed.lock().unwrap_or_else(PoisonError::into_inner), promise)
    }

    /// What was committed to in a window.
    fn pledged(&self, window: Window) -> Option<Vec<Vote>> {
        let secret = self.handles.desk.pledged(JournalKind::Verdicts, window)?;
        Vec::decode(&mut &secret[..]).ok()
    }

    async fn reveal(&self, window: Window, end: u32) -> Result<()> {
        for vote in self.pledged(window - 1).unwrap_or_default() {
            let is_there = || self.seat_is(vote.evaluation, |seat| seat.measured.is_some());
            let errand = Errand::RevealVerdict(vote.clone());
            if let Err(error) = self.handles.desk.errand(errand, is_there, end - 1).await {
                self.handles.machine.diary.missed(window, Duty::Judge, error.line());
            }
        }
        Ok(())
    }

    async fn judge(
        &self,
        window: Window,
        end: u32,
        own: &Slot,
        disputes: Vec<&EvaluationDisputeInfo>,
    ) -> Result<()> {
        let started = Instant::now();
        let votes = match self.pledged(window) {
            Some(votes) => votes,
            None => self.measure(window, own, disputes).await?,
        };
        if votes.is_empty() {
            return Ok(());
        }
        let reveal_end = self.handles.run.info.settings.schedule.window_start(window + 2);
        let promise = self.handles.machine.leave.promise_until(reveal_end.unwrap_or(end));
        if promise.is_none() {
            miss!("it is leaving, and could not reveal its verdicts");
        }
        self.owe(promise);
        let secret = votes.encode();
        let hash = blake2_256(&[&secret]);
        let pledge = self.handles.desk.pledge(JournalKind::Verdicts, window, hash, secret).await?;
        for vote in Vec::<Vote>::decode(&mut pledge.secret())? {
            let is_there =
                |hash| self.seat_is(vote.evaluation, move |seat| seat.commitment == Some(hash));
            pledge.vote(&vote, is_there, end - 1).await?;
            let (disputed, index, uid) = vote.evaluation;
            self.handles.machine.diary.proof(disputed, ProofStep::Voted { index, uid });
        }
        let seconds = started.elapsed().as_secs_f64();
        self.handles.machine.diary.done(window, Duty::Judge, seconds);
        Ok(())
    }

    /// Measures what is disputed, where this validator may judge. All validators take the same ones first, so that those are decided.
    async fn measure(
        &self,
        window: Window,
        own: &Slot,
        disputes: Vec<&EvaluationDisputeInfo>,
    ) -> Result<Vec<Vote>> {
        let schedule = &self.handles.run.info.settings.schedule;
        let end = schedule.phase_end_block(window, Phase::AttestReveal).context("the run's end")?;
        // Half of the time is to measure in, however slow the chain was.
        let reserve = self.handles.desk.margin_blocks().min(schedule.attest_end / 2);
        let last = end.saturating_sub(reserve);
        let mut votes = Vec::new();
        for dispute in disputes {
            if votes.len() == JURIES_MAX || !self.may_judge(own, dispute).await? {
                continue;
            }
            let (disputed, _, uid) = dispute.name;
            let measured = self.measurer.measure(disputed, &[uid], last).await;
            let measured = measured.map(|measured| measured.into_iter().next());
            match measured.and_then(|found| found.context("its update cannot be measured")) {
                Ok(measured) => votes.push(self.vote(window, dispute.name, measured)),
                Err(error) => {
                    self.handles.machine.diary.missed(window, Duty::Judge, error.line());
                }
            }
        }
        Ok(votes)
    }

    fn vote(&self, window: Window, evaluation: EvaluationName, measured: Evaluation) -> Vote {
        let salt = self.handles.desk.salt(JournalKind::Verdicts, window);
        // Two votes of a window have two salts, also where one draw gives one.
        let salt = blake2_256(&[&salt, &evaluation.encode()]);
        Vote { evaluation, measured, salt }
    }

    /// Whether this validator had a permit for the disputed window and is party to nothing. Who accuses does not judge.
    async fn may_judge(&self, own: &Slot, dispute: &EvaluationDisputeInfo) -> Result<bool> {
        let (disputed, accused, _) = dispute.name;
        let is_challenger = dispute.challenger == own.cold
            || self.handles.desk.bonds_account() == Some(dispute.challenger);
        if is_challenger || own.number == accused || !takes_part(own.registered_window, disputed) {
            return Ok(false);
        }
        let Handles { chain, run: Run { id: run, .. }, .. } = &self.handles;
        let permits = chain.permits(*run, disputed, None).await?;
        let pool = chain.stake_pool(*run, dispute.pool, None).await?;
        let is_accused_s = pool.is_some_and(|pool| pool.cold == own.cold);
        Ok(!is_accused_s && permits.iter().any(|permit| permit.index == own.number))
    }

    /// Whether this validator's seat in a jury is as `is_so` says.
    async fn seat_is(
        &self,
        evaluation: EvaluationName,
        is_so: impl Fn(&JurorInfo) -> bool,
    ) -> Result<bool> {
        let own = slot::own(&self.handles, Role::Validator, Window::MAX).await?;
        let disputes = self.handles.chain.evaluation_disputes(self.handles.run.id, None).await?;
        let dispute = disputes.into_iter().find(|dispute| dispute.name == evaluation);
        let jury = dispute.map(|dispute| dispute.jury).unwrap_or_default();
        Ok(jury.iter().any(|seat| seat.index == own && is_so(seat)))
    }
}
