//! Measures the updates of the last window, commits to the scores and reveals them.

use std::{sync::Arc, time::Instant};

use codec::{Decode, Encode};
use node_client::{chain::Call, journal::JournalKind};
use protocol::{
    books::{self, Permit},
    commitment::score_commitment_hash,
    consensus::Evaluation,
    settings::SCORE_VERSION,
    window::{phase_at, ScorePhase},
    Hash, Uid, ValidatorIndex, Window,
};

use super::{accuse::Accuser, measure::Measurer};
use crate::{
    desk::Errand,
    diary::Duty,
    error::{miss, Attempt as _, Result},
    handles::{Handles, Role, Run},
    slot,
};

/// Blocks before the end of the commitments at which no further update is measured, at the least.
const COMMIT_BLOCKS: u32 = 4;

/// The service that measures.
pub(super) struct Score {
    handles: Handles,
    measurer: Arc<Measurer>,
    accuser: Arc<Accuser>,
    window_end: Option<Window>,
}

/// Opens the commitment to scores: kept in the journal, revealed later.
#[derive(Encode, Decode, Clone, Debug)]
struct Scores {
    evaluations: Vec<Evaluation>,
    salt: Hash,
}

impl Score {
    /// A service that has not begun.
    pub(super) fn new(
        handles: Handles,
        measurer: Arc<Measurer>,
        accuser: Arc<Accuser>,
        window_end: Option<Window>,
    ) -> Self {
        Self { handles, measurer, accuser, window_end }
    }

    /// Scores every window from the last one on, until the process ends.
    pub(super) async fn run(self) -> Result<()> {
        let schedule = self.handles.run.info.settings.schedule.clone();
        let now = self.handles.heads.now().number;
        let mut window =
            phase_at(&schedule, now).map_or(0, |moment| moment.window.saturating_sub(1));
        loop {
            if self.window_end.is_some_and(|end| window >= end) {
                std::future::pending::<()>().await;
            }
            let start = schedule.window_start(window + 1).context("the run's last window")?;
            let head = self.handles.heads.clone().reach(start).await?;
            // Windows that passed while this process was away or busy cannot be scored any more.
            let scored = phase_at(&schedule, head.number).map_or(0, |m| m.window.saturating_sub(1));
            window = window.max(scored);
            if self.window_end.is_some_and(|end| window >= end) {
                continue;
            }
            if let Err(error) = self.window(window).await {
                self.handles.machine.diary.missed(window, Duty::Score, error.line());
            }
            window += 1;
        }
    }

    async fn window(&self, window: Window) -> Result<()> {
        let schedule = &self.handles.run.info.settings.schedule;
        let block = |phase| schedule.score_phase_end_block(window, phase).context("the run's end");
        let (commit_end, reveal_end) = (block(ScorePhase::Commit)?, block(ScorePhase::Reveal)?);
        let started = Instant::now();
        let index = slot::own(&self.handles, Role::Validator, window).await?;
        let scores = match self.recorded(window)? {
            Some(scores) => scores,
            None => self.measure(window, index, commit_end).await?,
        };
        let promise = self.handles.machine.leave.promise().await;
        self.commit(window, index, &scores, commit_end).await?;
        tracing::info!(window, count = scores.evaluations.len(), "scores are committed to");
        self.handles.machine.diary.done(window, Duty::Score, started.elapsed().as_secs_f64());

        self.handles.heads.clone().reach_best(commit_end).await?;
        let started = Instant::now();
        let measured = scores.evaluations.clone();
        self.reveal(window, index, scores, reveal_end).await?;
        drop(promise);
        self.handles.machine.diary.done(
            window,
            Duty::RevealScores,
            started.elapsed().as_secs_f64(),
        );
        self.handles.heads.clone().reach(reveal_end).await?;
        if let Err(error) = self.accuser.dispute(window, index, &measured).await {
            tracing::warn!(window, error = error.line(), "cannot compare the evaluations");
        }
        Ok(())
    }

    /// What the journal says was committed to before a restart.
    fn recorded(&self, window: Window) -> Result<Option<Scores>> {
        let secret = self.handles.desk.pledged(JournalKind::ScoreCommitment, window);
        Ok(secret.map(|secret| Scores::decode(&mut &secret[..])).transpose()?)
    }

    /// Measures the assigned updates of `window`, as many as there is time for.
    async fn measure(
        &self,
        window: Window,
        index: ValidatorIndex,
        commit_end: u32,
    ) -> Result<Scores> {
        let Handles { chain, heads, desk, run: Run { id: run, info, .. }, .. } = &self.handles;
        let settings = &info.settings;
        // Half of the phase is to measure in, however slow the chain was.
        let reserve = desk.margin_blocks().min(settings.schedule.score_commit_end / 2);
        let last = commit_end.saturating_sub(reserve.max(COMMIT_BLOCKS));
        if heads.best() >= last {
            miss!("it is too late to measure");
        }
        let (_, scored) = self.measurer.seeds(window).await?;
        let reveals = chain.reveals(*run, window, None).await?;
        let uids: Vec<Uid> = reveals.iter().map(|reveal| reveal.uid).collect();
        let permits = chain.permits(*run, window, None).await?;
        let permits: Vec<Permit> = permits.iter().map(|row| (row.index, row.stake)).collect();
        let own = books::draw(&scored, &permits, &uids, &settings.incentive).of(index);
        let own: Vec<Uid> = own.into_iter().collect();
        let evaluations = self.measurer.measure(window, &own, last).await?;
        let salt = self.handles.desk.salt(JournalKind::ScoreCommitment, window);
        Ok(Scores { evaluations, salt })
    }

    async fn commit(
        &self,
        window: Window,
        index: ValidatorIndex,
        scores: &Scores,
        commit_end: u32,
    ) -> Result<()> {
        let Handles { chain, desk, run: Run { id: run, genesis, .. }, .. } = &self.handles;
        let hot = &self.handles.desk.account();
        let (evaluations, salt) = (&scores.evaluations, &scores.salt);
        let version = SCORE_VERSION;
        let hash = score_commitment_hash(genesis, *run, window, hot, evaluations, version, salt);
        let run = *run;
        let secret = scores.encode();
        let pledge = desk.pledge(JournalKind::ScoreCommitment, window, hash, secret).await?;
        if pledge.hash() != hash {
            miss!("other scores have been committed to in this window");
        }
        let is_there = || async {
            let commitments = chain.score_commitments(run, window, None).await?;
            let own = commitments.into_iter().find(|commitment| commitment.index == index);
            Ok(own.is_some_and(|commitment| commitment.hash == hash))
        };
        let call = Call::CommitScores { run, window, hash, version };
        pledge.submit(call, is_there, commit_end - 1).await?;
        Ok(())
    }

    async fn reveal(
        &self,
        window: Window,
        index: ValidatorIndex,
        scores: Scores,
        reveal_end: u32,
    ) -> Result<()> {
        let Handles { chain, desk, run: Run { id: run, .. }, .. } = &self.handles;
        let is_there = || async {
            let reveals = chain.score_reveals(*run, window, None).await?;
            Ok(reveals.iter().any(|reveal| reveal.index == index))
        };
        let Scores { evaluations, salt } = scores;
        let errand = Errand::RevealScores { window, evaluations, salt };
        desk.errand(errand, is_there, reveal_end - 1).await?;
        Ok(())
    }
}
