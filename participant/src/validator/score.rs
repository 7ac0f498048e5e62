//! Measures the updates of the last window, commits to the scores and reveals them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use codec::{Decode, Encode};
use dataset::Split;
use node_client::{chain::Call, journal::JournalKind};
use protocol::{
    books::{self, Permit},
    commitment::score_commitment_hash,
    consensus::Evaluation,
    samples,
    settings::SCORE_VERSION,
    window::{phase_at, ScorePhase},
    Hash, Uid, ValidatorIndex, Window,
};
use trainer::{EvaluationRates, Evaluator, Model, TrainError, UpdateToEvaluate};

use crate::{
    desk::Errand,
    diary::Duty,
    error::{miss, Attempt as _, Result},
    handles::{Handles, Role, Run},
    replica::{self, States},
    slot,
};

/// Blocks before the end of the commitments at which no further update is measured.
const COMMIT_BLOCKS: u32 = 4;

/// The service that measures.
pub(super) struct Score {
    handles: Handles,
    states: States,
    window_end: Option<Window>,
    /// Locked for one update at a time.
    evaluator: Arc<Mutex<Evaluator>>,
}

/// Opens the commitment to scores: kept in the journal, revealed later.
#[derive(Encode, Decode, Clone, Debug)]
struct Scores {
    evaluations: Vec<Evaluation>,
    salt: Hash,
}

/// One update to measure.
struct Item {
    uid: Uid,
    payload: Bytes,
    own_ids: Vec<u64>,
}

impl Score {
    /// A service that has not begun.
    pub(super) fn new(
        handles: Handles,
        states: States,
        evaluator: Arc<Mutex<Evaluator>>,
        window_end: Option<Window>,
    ) -> Self {
        Self { handles, states, window_end, evaluator }
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
        let index = slot::own(&self.handles, Role::Validator).await?;
        let scores = match self.recorded(window)? {
            Some(scores) => scores,
            None => self.measure(window, index, commit_end).await?,
        };
        self.commit(window, index, &scores, commit_end).await?;
        tracing::info!(window, count = scores.evaluations.len(), "scores are committed to");
        self.handles.machine.diary.done(window, Duty::Score, started.elapsed().as_secs_f64());

        self.handles.heads.clone().reach(commit_end).await?;
        let started = Instant::now();
        self.reveal(window, index, scores, reveal_end).await?;
        self.handles.machine.diary.done(
            window,
            Duty::RevealScores,
            started.elapsed().as_secs_f64(),
        );
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
        let Handles { chain, heads, run: Run { id: run, info, .. }, .. } = &self.handles;
        let settings = &info.settings;
        let last = commit_end.saturating_sub(COMMIT_BLOCKS);
        if heads.now().number >= last {
            miss!("it is too late to measure");
        }
        let record = chain.window(*run, window, None).await?;
        let record = record.context("the chain does not know the window")?;
        let next = chain.window(*run, window + 1, None).await?.map(|next| next.seed);
        let scored = books::scoring_seed(next, record.challenge_seed);
        let (trained, scored) = (record.seed, scored.context("nothing says whom to measure")?);
        let reveals = chain.reveals(*run, window, None).await?;
        let miners = chain.miners(*run, None).await?;
        let uids: Vec<Uid> = reveals.iter().map(|reveal| reveal.uid).collect();
        let permits = chain.permits(*run, window, None).await?;
        let permits: Vec<Permit> = permits.iter().map(|row| (row.index, row.stake)).collect();
        let mut items = Vec::new();
        for uid in books::draw(&scored, &permits, &uids, &settings.incentive).of(index) {
            let Some(reveal) = reveals.iter().find(|reveal| reveal.uid == uid) else {
                continue;
            };
            let miner = miners.iter().find(|miner| miner.uid == uid);
            let hot = miner.map(|miner| miner.hot).unwrap_or_default();
            // It was fetched to be attested; what could not be had then is left out now.
            match self.handles.peers.payloads.fetch(window, &hot, reveal).await {
                Ok(payload) => {
                    let own_ids = samples::own_evaluation(&trained, &scored, uid, settings)?;
                    items.push(Item { uid, payload, own_ids });
                }
                Err(error) => {
                    tracing::warn!(window, uid, error = error.line(), "not measured")
                }
            }
        }
        let random_ids = samples::random_evaluation(&scored, settings)?;
        let model = self.model(window).await?;
        let evaluations = self.evaluate(model, items, random_ids, last).await?;
        let salt = self.handles.desk.salt(JournalKind::ScoreCommitment, window);
        Ok(Scores { evaluations, salt })
    }

    /// θ of the window that is scored, for this service alone, which applies each update where θ lies: from the own store, or
    /// from peers if this process was away.
    async fn model(&self, window: Window) -> Result<Model> {
        let root = match self.states.at(window) {
            Some(state) => state.root,
            None => {
                let record = self.handles.chain.window(self.handles.run.id, window, None).await?;
                record
                    .and_then(|record| record.state_root)
                    .context("the window has no final state to measure on")?
            }
        };
        replica::fetch_state(&self.handles, &self.handles.run.model, root).await
    }

    async fn evaluate(
        &self,
        mut model: Model,
        items: Vec<Item>,
        random_ids: Vec<u64>,
        last: u32,
    ) -> Result<Vec<Evaluation>> {
        let training = &self.handles.run.info.settings.training;
        let rates = EvaluationRates {
            keep: training.keep,
            outer_rate_ppm: training.outer.rate_ppm,
            evaluation_rate_ppm: training.evaluation_rate_ppm,
        };
        let (evaluator, dataset) = (self.evaluator.clone(), self.handles.run.dataset.clone());
        let (heads, shutdown) = (self.handles.heads.clone(), self.handles.machine.shutdown.clone());
        self.handles
            .machine
            .work
            .run(move || {
                let mut evaluations = Vec::with_capacity(items.len());
                for item in &items {
                    if heads.now().number >= last || shutdown.is_cancelled() {
                        tracing::warn!(
                            measured = evaluations.len(),
                            of = items.len(),
                            "no time for the rest"
                        );
                        break;
                    }
                    let update = UpdateToEvaluate {
                        uid: item.uid,
                        payload: &item.payload,
                        own_ids: &item.own_ids,
                    };
                    let ids = [item.own_ids.as_slice(), &random_ids].concat();
                    let samples = dataset.samples(Split::Train, &ids).map_err(TrainError::from);
                    let measured = samples.and_then(|samples| {
                        let mut evaluator =
                            evaluator.lock().unwrap_or_else(PoisonError::into_inner);
                        evaluator.evaluate_update_in_place(
                            &mut model,
                            update,
                            &random_ids,
                            &samples,
                            rates,
                        )
                    });
                    match measured {
                        Ok(evaluation) => evaluations.push(evaluation),
                        // One update that cannot be measured is no reason to leave out the others.
                        Err(error) => tracing::warn!(uid = item.uid, %error, "cannot be measured"),
                    }
                }
                Ok(evaluations)
            })
            .await?
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
